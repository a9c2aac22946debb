//! PostgreSQL, also behind a pooler that lends its connections for one transaction each.
//!
//! # Why no prepared statements
//! Behind a pooler in transaction mode a connection of ours is many connections of the server, each
//! used by other clients in between. A name that is given to a statement there is given to another
//! client's, too: a read then runs the `DELETE` of its namesake. sqlx names its statements, and
//! prepares those without a name in an exchange of their own, between which another client's may
//! come. So each of ours is one message of the simple protocol, with its values in the text: they
//! are numbers, and letters and digits. A batch is one array, hence a short text to parse.
//!
//! For the same reason nothing is set for a session: a timeout that a statement needs stands before
//! it in the same message, which is one transaction.
//!
//! # The one prepared statement
//! To parse and plan an insert anew takes the server as long as to run it. So the insert alone is prepared,
//! by SQL, under a name that stands for its text: any client that has prepared it has prepared the same
//! statement. A server connection that does not know the name reports an error, and has stored nothing.
//! Behind a pooler that lends each transaction another connection this comes again and again: then the
//! worker goes on without.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSeverity};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, FromRow, Row as _};

use super::{Dialect, Role, migrations, url};
use crate::app::record::{COUNTED_MAX, Data, Row, Span};

/// A new row waits for a lock, that of an `ALTER TABLE` say, for less time than a request does, so
/// that its failure is certain and reported.
const INSERT_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

/// A delete waits for the delete of another worker, too, as long as on SQLite: a stranger may keep
/// the rows locked without end.
const DELETE_ALL: &str = "SET LOCAL lock_timeout = '5s'; DELETE FROM records";

/// Prepares the insert of a batch. **The number in the name changes with the text.**
const PREPARE_INSERT: &str = "PREPARE ferricorn_insert_1 (text[]) AS \
                              INSERT INTO records (data) SELECT unnest($1)";
/// Connections that do not know the name, until the inserts of this process are prepared no more.
const UNKNOWN_MAX: u32 = 3;
/// SQLSTATE of a name that the connection does not know: `invalid_sql_statement_name`.
const UNKNOWN_NAME: &str = "26000";
/// SQLSTATE of a name that it knows already: `duplicate_prepared_statement`.
const KNOWN_NAME: &str = "42P05";

/// The options with which the server is reached.
#[derive(Clone)]
pub(crate) struct Options {
    connect: PgConnectOptions,
    /// The number of times that the name of the prepared insert was unknown, in this process.
    unknown: Arc<AtomicU32>,
}

/// The options in the query of a URL that sqlx knows, besides `options[…]`.
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
    /// The fault, as the end of a sentence; nothing of a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        url::refuse_misleading(text)?;
        let text = url::without_unknown_options(text, OPTIONS)?;
        let options = PgConnectOptions::from_str(&text).map_err(|error| url::fault(&error))?;
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("ferricorn"),
        };
        // No number of ours has a fraction, and poolers refuse a connection that asks for this.
        let options = options.extra_float_digits(None);
        let connect = options.disable_statement_logging();
        Ok(Self { connect, unknown: Arc::default() })
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.connect.connect().await
    }

    /// Prepares the insert, unless another client of a pooler has done so on this server connection.
    async fn prepare_insert(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let prepare = format!("{INSERT_LOCK_TIMEOUT}; {PREPARE_INSERT}");
        match connection.execute(AssertSqlSafe(prepare)).await {
            Err(error) if !is_state(&error, KNOWN_NAME) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Inserts by the prepared statement. Returns false if the connection does not know it: then nothing is
    /// stored.
    async fn insert_prepared(
        &self,
        connection: &mut PgConnection,
        rows: &[Data],
    ) -> Result<bool, sqlx::Error> {
        let execute = statement("EXECUTE ferricorn_insert_1('{", rows, "}')");
        match connection.execute(AssertSqlSafe(execute)).await {
            Ok(_) => Ok(true),
            Err(error) if is_state(&error, UNKNOWN_NAME) => {
                // ORDERING: a count that stands for itself: Relaxed.
                self.unknown.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns true for an error of the server after which the connection goes on.
fn is_of_statement(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref());
    error.is_some_and(|error: &PgDatabaseError| error.severity() == PgSeverity::Error)
}

/// Returns true for an error of the server with this SQLSTATE.
fn is_state(error: &sqlx::Error, state: &str) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == state)
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
        let database = self.connect.get_database().unwrap_or_default();
        match self.connect.get_socket() {
            Some(socket) => write!(f, "postgres://{}/{database}", socket.display()),
            None => {
                let host = self.connect.get_host();
                let port = self.connect.get_port();
                write!(f, "postgres://{host}:{port}/{database}")
            }
        }
    }
}

/// Makes the tables. A second container that starts now waits until they are made.
///
/// # Errors
/// Those of the server.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut migrator: Migrator = sqlx::migrate!("migrations/postgres");
    super::migrate(&mut migrator, &mut migrations::InOneTransaction(connection)).await
}

/// Returns the number of connections that the server admits for this service.
///
/// # Errors
/// Those of the server.
pub(super) async fn connections_max(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    // `least` passes over NULL: no limit of that kind, or a server that does not know it yet.
    let found = sqlx::raw_sql(
        "SELECT least(
            current_setting('max_connections')::bigint
                - current_setting('superuser_reserved_connections')::bigint
                - coalesce(current_setting('reserved_connections', true)::bigint, 0),
            (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
            (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))",
    );
    found.fetch_one(connection).await?.try_get(0)
}

impl Dialect for Options {
    type Connection = PgConnection;

    /// The same for each role but the prepared insert: nothing is set for a session.
    async fn dial(&self, role: Role) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        self.assume(&mut connection, role).await?;
        Ok(connection)
    }

    async fn assume(&self, connection: &mut PgConnection, role: Role) -> Result<(), sqlx::Error> {
        if let Role::Writes = role {
            match self.prepare_insert(connection).await {
                // An insert fails in the same way, and reports the error.
                Err(error) if is_of_statement(&error) => {}
                result => return result,
            }
        }
        Ok(())
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        rows: &[Data],
    ) -> Result<(), sqlx::Error> {
        if self.unknown.load(Ordering::Relaxed) < UNKNOWN_MAX {
            if self.insert_prepared(connection, rows).await? {
                return Ok(());
            }
            self.prepare_insert(connection).await?;
        }
        let insert = statement("INSERT INTO records (data) SELECT unnest('{", rows, "}'::text[])");
        connection.execute(AssertSqlSafe(insert)).await?;
        Ok(())
    }

    async fn delete_all(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        Ok(connection.execute(DELETE_ALL).await?.rows_affected())
    }

    async fn rows(
        &self,
        connection: &mut PgConnection,
        span: Span,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let Span { before, limit } = span;
        let select = format!(
            "SELECT id, data, (extract(epoch FROM created_at) * 1000)::bigint
             FROM records WHERE id < {before} ORDER BY id DESC LIMIT {}",
            i64::from(limit) + 1
        );
        let found = connection.fetch_all(AssertSqlSafe(select)).await?;
        found.iter().map(Row::from_row).collect()
    }

    async fn count(&self, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        let limit = COUNTED_MAX + 1;
        let count =
            format!("SELECT count(*) FROM (SELECT 1 FROM records LIMIT {limit}) AS counted");
        connection.fetch_one(AssertSqlSafe(count)).await?.try_get(0)
    }

    /// Also a standby, and a user or a database whose default it is.
    async fn is_read_only(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        const ASKED: &str = "SELECT (current_setting('transaction_read_only') = 'on')::int::bigint";
        Ok(self.number(connection, ASKED).await? != 0)
    }

    async fn execute(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
    ) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(connection).await?;
        Ok(())
    }

    async fn number(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
    ) -> Result<i64, sqlx::Error> {
        sqlx::raw_sql(sql).fetch_one(connection).await?.try_get(0)
    }
}

/// Returns the text of a statement on these rows. A row's text is ten letters and digits: nothing in it
/// ends a literal, or an element of an array.
fn statement(before: &str, rows: &[Data], behind: &str) -> String {
    let mut sql = String::with_capacity(96 + rows.len() * (Data::LENGTH + 1));
    sql.push_str(INSERT_LOCK_TIMEOUT);
    sql.push_str("; ");
    sql.push_str(before);
    for (number, row) in rows.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(sql, "{comma}{}", row.as_str()).expect("memory takes any text");
    }
    sql.push_str(behind);
    sql
}
