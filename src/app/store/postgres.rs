//! PostgreSQL.
//!
//! A batch is one parameter, an array: the
//! statement is the same for any number of rows, and is prepared once.

use std::fmt;
use std::str::FromStr;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Executor};

use super::{Dialect, Role, url};
use crate::app::record::{COUNTED_MAX, Data, Row, Span};

/// How long a new row waits for a lock, that of an `ALTER TABLE` say: less than a request does, so
/// that its failure is certain and told.
const INSERT_LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";

/// How long a delete does, for the delete of another worker, too: as long as on SQLite. Whoever has
/// the rows may keep them for ever.
const DELETE_LOCK_TIMEOUT: &str = "SET lock_timeout = '5s'";

/// How to reach the server.
#[derive(Clone)]
pub(crate) struct Options(PgConnectOptions);

/// What sqlx knows in the query of a URL, besides `options[…]`.
const OPTIONS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

impl Options {
    /// From a URL: `postgres://user:password@host:5432/database`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence; nothing of a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        url::refuse_misleading(text)?;
        let text = url::without_unknown_options(text, OPTIONS)?;
        let options = PgConnectOptions::from_str(&text).map_err(|error| url::fault(&error))?;
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("ferricorn"),
        };
        Ok(Self(options.disable_statement_logging()))
    }

    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.0.connect().await
    }
}

/// Not derived: the password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where it is, without who may use it.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.0.get_database().unwrap_or_default();
        match self.0.get_socket() {
            Some(socket) => write!(f, "postgres://{}/{database}", socket.display()),
            None => {
                write!(f, "postgres://{}:{}/{database}", self.0.get_host(), self.0.get_port())
            }
        }
    }
}

/// Makes the tables. sqlx locks the database against a second container that starts now.
///
/// # Errors
/// Those of the server.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut migrator: Migrator = sqlx::migrate!("migrations/postgres");
    super::migrate(&mut migrator, connection).await
}

/// How many connections the server admits for us.
///
/// # Errors
/// Those of the server.
pub(super) async fn connections_max(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // `least` passes over NULL: no limit of that kind, or a server that does not know it yet.
    sqlx::query_scalar(
        "SELECT least(
            current_setting('max_connections')::bigint
                - current_setting('superuser_reserved_connections')::bigint
                - coalesce(current_setting('reserved_connections', true)::bigint, 0),
            (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
            (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))",
    )
    .fetch_one(connection)
    .await
}

impl Dialect for Options {
    type Connection = PgConnection;

    async fn dial(&self, role: Role) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        let lock_timeout = match role {
            Role::Writes => INSERT_LOCK_TIMEOUT,
            Role::Deletes => DELETE_LOCK_TIMEOUT,
            Role::Reads => return Ok(connection),
        };
        connection.execute(lock_timeout).await?;
        Ok(connection)
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        rows: &[Data],
    ) -> Result<(), sqlx::Error> {
        let texts: Vec<&str> = rows.iter().map(Data::as_str).collect();
        sqlx::query("INSERT INTO records (data) SELECT unnest($1::text[])")
            .bind(texts)
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn delete_all(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let done = sqlx::query("DELETE FROM records").execute(connection).await?;
        Ok(done.rows_affected())
    }

    async fn rows(
        &self,
        connection: &mut PgConnection,
        span: Span,
    ) -> Result<Vec<Row>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, data, (extract(epoch FROM created_at) * 1000)::bigint
             FROM records WHERE id < $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(span.before)
        .bind(i64::from(span.limit) + 1)
        .fetch_all(connection)
        .await
    }

    async fn count(&self, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM records LIMIT $1) AS counted")
            .bind(COUNTED_MAX + 1)
            .fetch_one(connection)
            .await
    }

    async fn ask(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT id FROM records LIMIT 1").execute(connection).await?;
        Ok(())
    }
}
