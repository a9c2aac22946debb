//! SQLite: one file, nothing to install.
//!
//! Each write is one statement, hence its own transaction: what fails has stored nothing.
//!
//! # Why the numbers
//! `synchronous = FULL`: with less, SQLite in WAL mode may lose the last commits when the power
//! fails, and a row acknowledged is durable.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::turn::{Taken, Turn};
use super::{Dialect, Place, Role};
use crate::app::record::{COUNTED_MAX, Data, Row, Span};

/// How long a statement waits for a lock that a stranger holds, a backup or the `sqlite3` shell, or
/// that a sibling holds whose disk takes long to sync.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a batch of new rows may take: longer than the wait for a lock, so that its failure is
/// certain and told. A server is given less: it is somewhere else, and a file is not away.
pub(super) const INSERT_TIMEOUT: Duration = Duration::from_millis(5500);

/// How long a process waits for its turn: longer than several honest writers take on a slow disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a start waits for another that makes the tables now.
const PATIENCE_OF_A_START: Duration = Duration::from_secs(10);

/// Bytes that the write-ahead log may keep on disk after a burst of writes.
const JOURNAL_BYTES_MAX: &str = "67108864";

/// How to open the database.
#[derive(Clone, Debug)]
pub(crate) struct Options(SqliteConnectOptions);

impl Options {
    /// From a URL: `sqlite://data/ferricorn.db`, `sqlite:///var/lib/ferricorn.db`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence; nothing of a secret.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let options = SqliteConnectOptions::from_str(url).map_err(|error| error.to_string())?;
        let path = options.get_filename();
        if path.as_os_str().is_empty() {
            return Err("it names no file; write sqlite://data/ferricorn.db".into());
        }
        if url.contains(":memory:") || url.contains("mode=memory") {
            return Err("a database in memory is not shared by the workers; name a file".into());
        }
        Ok(Self(
            options
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                .pragma("journal_size_limit", JOURNAL_BYTES_MAX)
                .disable_statement_logging(),
        ))
    }

    /// The file.
    fn path(&self) -> &Path {
        self.0.get_filename()
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite://{}", self.path().display())
    }
}

/// Makes the folder, the file and the tables.
///
/// # Errors
/// Those of the file system and of SQLite.
pub(super) async fn migrate(options: &Options) -> Result<(), sqlx::Error> {
    if let Some(folder) = options.path().parent() {
        fs::create_dir_all(folder)?;
    }
    // sqlx locks the other databases against a second container that starts now, but not this one.
    let turn = Turn::new(options.path());
    let _taken = turn.take(PATIENCE_OF_A_START).await;
    let mut connection = options.0.clone().create_if_missing(true).connect().await?;
    super::migrate(&mut sqlx::migrate!("migrations/sqlite"), &mut connection).await?;
    connection.close().await
}

/// The database, as a worker uses it.
#[derive(Debug)]
pub(crate) struct Sqlite {
    options: Options,
    turn: Turn,
}

impl Sqlite {
    pub(super) fn new(options: Options) -> Self {
        Self { turn: Turn::new(options.path()), options }
    }

    /// Waits until it is this process's turn to write.
    pub(super) async fn turn(&self) -> Taken<'_> {
        self.turn.take(PATIENCE).await
    }
}

impl Dialect for Sqlite {
    type Connection = SqliteConnection;

    async fn dial(&self, _: Role) -> Result<SqliteConnection, sqlx::Error> {
        self.options.0.connect().await
    }

    /// The file is asked for by its name before and after each use of a connection: SQLite goes on
    /// writing to one that was removed, and says that it is done.
    fn place(&self) -> Option<Place> {
        let file = fs::metadata(self.options.path()).ok()?;
        Some((file.dev(), file.ino()))
    }

    async fn insert(
        &self,
        connection: &mut SqliteConnection,
        rows: &[Data],
    ) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO records (data) SELECT value FROM json_each(?1)")
            .bind(json_array(rows))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn delete_all(&self, connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
        let _taken = self.turn().await;
        let done = sqlx::query("DELETE FROM records").execute(connection).await?;
        Ok(done.rows_affected())
    }

    async fn rows(
        &self,
        connection: &mut SqliteConnection,
        span: Span,
    ) -> Result<Vec<Row>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, data, created_at FROM records WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        )
        .bind(span.before)
        .bind(i64::from(span.limit) + 1)
        .fetch_all(connection)
        .await
    }

    async fn count(&self, connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM records LIMIT ?1)")
            .bind(COUNTED_MAX + 1)
            .fetch_one(connection)
            .await
    }

    async fn ask(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT id FROM records LIMIT 1").execute(connection).await?;
        Ok(())
    }
}

/// Rows as the one parameter that they are sent in: a statement for any number of them.
fn json_array(rows: &[Data]) -> String {
    let mut json = String::with_capacity(rows.len() * (Data::LENGTH + 3) + 2);
    for row in rows {
        json.push(if json.is_empty() { '[' } else { ',' });
        json.push('"');
        // Alphanumeric, hence nothing to escape.
        json.push_str(row.as_str());
        json.push('"');
    }
    json.push(']');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FULL` is SQLite's 2. A stranger's connection would show its own setting, not ours.
    #[expect(clippy::disallowed_methods, reason = "a test has its own runtime")]
    #[tokio::test]
    async fn every_connection_syncs_each_commit_to_a_write_ahead_log() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/data.db", folder.path().display());
        let options = Options::parse(&url).unwrap();
        migrate(&options).await.unwrap();
        let sqlite = Sqlite::new(options);
        for role in [Role::Writes, Role::Deletes, Role::Reads] {
            let mut connection = sqlite.dial(role).await.unwrap();
            let synchronous: i64 =
                sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
            let journal: String =
                sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.unwrap();
            assert_eq!((synchronous, journal.as_str()), (2, "wal"), "{role:?}");
        }
    }
}
