//! MySQL and MariaDB.
//!
//! There are no array parameters: a
//! statement for each size of a batch, prepared when it is first met.
//!
//! # Why READ COMMITTED
//! At the default level a `DELETE` locks the gaps between rows too, and new rows and deletes of
//! several workers end in deadlocks.

use std::fmt;
use std::str::FromStr;

use sqlx::migrate::Migrator;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row as _};

use super::{Dialect, Role, url};
use crate::app::record::{COUNTED_MAX, Data, Row, Span};
use crate::app::writer::BATCH_MAX;

const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// Session variables that our statements rest on, whatever the server's defaults and its
/// `init_connect` are. Without `autocommit` no row is ever committed, and a delete keeps its locks;
/// `sql_safe_updates` refuses a `DELETE` of all rows; some modes (`ORACLE`) read SQL in another way.
/// A transaction's right to write is not set: a server that is read-only has a reason.
const SESSION: &str = "SET SESSION autocommit = 1, SESSION sql_safe_updates = 0, \
    SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'";

/// The same for new rows. They wait for a lock, that of a row or of the table, for less time than a
/// request does, so that a failure is certain and reported.
const INSERT_SESSION: &str = "SET SESSION autocommit = 1, SESSION sql_safe_updates = 0, \
    SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', \
    SESSION innodb_lock_wait_timeout = 2, SESSION lock_wait_timeout = 2";

/// The same for deletes. They wait for the delete of another worker, too, as long as on SQLite: a
/// stranger may keep the rows locked without end.
const DELETE_SESSION: &str = "SET SESSION autocommit = 1, SESSION sql_safe_updates = 0, \
    SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', \
    SESSION innodb_lock_wait_timeout = 5, SESSION lock_wait_timeout = 5";

/// The options in the query of a URL that sqlx knows.
const OPTIONS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "charset",
    "collation",
    "statement-cache-capacity",
    "socket",
    "timezone",
    "time-zone",
];

/// The options with which the server is reached.
#[derive(Clone)]
pub(crate) struct Options(MySqlConnectOptions);

impl Options {
    /// From a URL: `mysql://user:password@host:3306/database`, or with `mariadb://`.
    ///
    /// # Errors
    /// The fault, as the end of a sentence; nothing of a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        url::refuse_misleading(text)?;
        let text = url::without_unknown_options(text, OPTIONS)?;
        let options = MySqlConnectOptions::from_str(&text).map_err(|error| url::fault(&error))?;
        if options.get_database().is_none() {
            return Err("it names no database; write mysql://user@host/database".into());
        }
        // The mode of SQL is set with the rest of the session.
        let options = options.pipes_as_concat(false).no_engine_substitution(false);
        // A statement for each size of a batch, and room for the others.
        Ok(Self(options.statement_cache_capacity(BATCH_MAX + 8).disable_statement_logging()))
    }

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
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
            Some(socket) => write!(f, "mysql://{}/{database}", socket.display()),
            None => write!(f, "mysql://{}:{}/{database}", self.0.get_host(), self.0.get_port()),
        }
    }
}

/// Makes the tables.
///
/// # Errors
/// Those of the server.
pub(super) async fn migrate(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    // sqlx's own lock asks for an endless wait, which MariaDB takes for an error and does not lock.
    // Ours is let go with the connection.
    sqlx::query("SELECT GET_LOCK(CONCAT('ferricorn.', LEFT(DATABASE(), 50)), 3600)")
        .execute(&mut *connection)
        .await?;
    let mut migrator: Migrator = sqlx::migrate!("migrations/mysql");
    migrator.set_locking(false);
    super::migrate(&mut migrator, connection).await
}

/// Returns the number of connections that the server admits for this service.
///
/// # Errors
/// Those of the server.
pub(super) async fn connections_max(connection: &mut MySqlConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT CAST(LEAST(@@max_connections,
            IF(@@max_user_connections = 0, @@max_connections, @@max_user_connections)) AS SIGNED)",
    )
    .fetch_one(connection)
    .await
}

impl Dialect for Options {
    type Connection = MySqlConnection;

    async fn dial(&self, role: Role) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        connection.execute(ISOLATION).await?;
        self.assume(&mut connection, role).await?;
        Ok(connection)
    }

    async fn assume(
        &self,
        connection: &mut MySqlConnection,
        role: Role,
    ) -> Result<(), sqlx::Error> {
        let session = match role {
            Role::Writes => INSERT_SESSION,
            Role::Deletes => DELETE_SESSION,
            Role::Reads => SESSION,
        };
        connection.execute(session).await?;
        Ok(())
    }

    async fn insert(
        &self,
        connection: &mut MySqlConnection,
        rows: &[Data],
    ) -> Result<(), sqlx::Error> {
        // Placeholders alone: nothing of a row is in the text.
        let mut insert = sqlx::query(AssertSqlSafe(insert_statement(rows.len())));
        for row in rows {
            insert = insert.bind(row.as_str());
        }
        insert.execute(connection).await?;
        Ok(())
    }

    async fn delete_all(&self, connection: &mut MySqlConnection) -> Result<u64, sqlx::Error> {
        let done = sqlx::query("DELETE FROM records").execute(connection).await?;
        Ok(done.rows_affected())
    }

    async fn rows(
        &self,
        connection: &mut MySqlConnection,
        span: Span,
    ) -> Result<Vec<Row>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, data, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) DIV 1000
             FROM records WHERE id < ? ORDER BY id DESC LIMIT ?",
        )
        .bind(span.before)
        .bind(i64::from(span.limit) + 1)
        .fetch_all(connection)
        .await
    }

    async fn count(&self, connection: &mut MySqlConnection) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM records LIMIT ?) AS counted")
            .bind(COUNTED_MAX + 1)
            .fetch_one(connection)
            .await
    }

    /// Users with a privilege for it are exempt from what the variable says.
    async fn is_read_only(&self, connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
        const ASKED: &str = "SELECT CAST(@@global.read_only AS SIGNED)";
        Ok(self.number(connection, ASKED).await? != 0)
    }

    async fn execute(
        &self,
        connection: &mut MySqlConnection,
        sql: &'static str,
    ) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(connection).await?;
        Ok(())
    }

    async fn number(
        &self,
        connection: &mut MySqlConnection,
        sql: &'static str,
    ) -> Result<i64, sqlx::Error> {
        sqlx::raw_sql(sql).fetch_one(connection).await?.try_get(0)
    }
}

fn insert_statement(rows: usize) -> String {
    const ROW: &str = ",(?)";
    let mut sql = String::from("INSERT INTO records (data) VALUES (?)");
    sql.reserve_exact(ROW.len() * rows);
    sql.extend(std::iter::repeat_n(ROW, rows - 1));
    sql
}
