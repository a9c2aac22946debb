//! SQLite: one file, nothing to install.
//!
//! Each write is one statement, hence its own transaction: what fails has stored nothing.
//!
//! # Why the numbers
//! `synchronous = FULL`: with less, SQLite in WAL mode may lose the last commits when the power
//! fails, and a row acknowledged is durable.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteError, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Executor};

use super::holder::Holder;
use super::obstacle::Obstacle;
use super::prepare::WRITE;
use super::reserve::Reserve;
use super::turn::{Taken, Turn};
use super::{Dialect, Error, Place, Role, url};
use crate::app::record::{COUNTED_MAX, Data, Row, Span};

/// The time that a statement waits for a lock that a stranger holds, a backup or the `sqlite3` shell, or
/// that a sibling holds whose disk takes long to sync.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same, in a statement.
const WAIT: &str = "PRAGMA busy_timeout = 5000";

/// The time that a batch of new rows may take: longer than the wait for a lock, so that its failure is
/// certain and told. A server is given less: it is somewhere else, and a file is not away.
pub(super) const INSERT_TIMEOUT: Duration = Duration::from_millis(5500);

/// The time that a process waits for its turn: longer than several honest writers take on a slow disk.
const TURN_WAIT_MAX: Duration = Duration::from_secs(2);

/// The time that a start waits for another that makes the tables now.
const START_WAIT_MAX: Duration = Duration::from_secs(10);

const DELETE_ALL: &str = "DELETE FROM records";

/// Bytes that the write-ahead log may keep on disk after a burst of writes.
const JOURNAL_BYTES_MAX: &str = "67108864";

/// The options with which the database is opened.
#[derive(Clone, Debug)]
pub(crate) struct Options(SqliteConnectOptions);

impl Options {
    /// From a URL: `sqlite://data/ferricorn.db`, `sqlite:///var/lib/ferricorn.db`.
    ///
    /// # Errors
    /// The fault, as the end of a sentence; nothing of a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let options = SqliteConnectOptions::from_str(text).map_err(|error| error.to_string())?;
        let path = options.get_filename();
        if path.as_os_str().is_empty() {
            return Err("it names no file; write sqlite://data/ferricorn.db".into());
        }
        url::refuse_file_in_root(path)?;
        if text.contains(":memory:") || text.contains("mode=memory") {
            return Err("a database in memory is not shared by the workers; name a file".into());
        }
        let query = text.split_once('?').map_or("", |(_, query)| query);
        for option in query.split('&') {
            if matches!(option, "mode=ro" | "immutable=1" | "immutable=true") {
                return Err(format!("its option {option} lets no row be stored; leave it out"));
            }
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

    /// Adds to an error which process holds the lock that was not to be had.
    pub(super) fn explained(&self, cause: sqlx::Error) -> Error {
        let locked = is_busy(&cause).then(|| Holder::find(self.path())).flatten();
        match locked {
            Some(holder) => Error::Locked { cause, holder },
            None => Error::Database(cause),
        }
    }

    /// Returns the obstacle that keeps this process from writing to the file. No connection to it may
    /// be open.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        Obstacle::find(self.path())
    }

    /// The file.
    fn path(&self) -> &Path {
        self.0.get_filename()
    }

    /// The file by its absolute path, and that it does not exist.
    pub(super) fn described(&self) -> String {
        let absent = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        let new = if fs::metadata(self.path()).is_err_and(absent) { " (new)" } else { "" };
        let path = std::path::absolute(self.path());
        format!("sqlite {}{new}", path.as_deref().unwrap_or(self.path()).display())
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
    let _taken = turn.take(START_WAIT_MAX).await;
    let mut connection = options.0.clone().create_if_missing(true).connect().await?;
    super::migrate(&mut sqlx::migrate!("migrations/sqlite"), &mut connection).await?;
    connection.close().await?;
    // Without room for it, deletes fail on a full volume as other writes do.
    drop(Reserve::beside(options.path()).take());
    Ok(())
}

/// The database, as a worker uses it.
#[derive(Debug)]
pub(crate) struct Sqlite {
    options: Options,
    turn: Turn,
    reserve: Reserve,
}

impl Sqlite {
    pub(super) fn new(options: Options) -> Self {
        let turn = Turn::new(options.path());
        let reserve = Reserve::beside(options.path());
        Self { options, turn, reserve }
    }

    /// Removes every row from a full volume: with the space that is kept for it, which is taken again
    /// from what the rows give back.
    async fn delete_all_of_full(
        &self,
        connection: &mut SqliteConnection,
        full: sqlx::Error,
    ) -> Result<u64, sqlx::Error> {
        // From here on no other write can take what is freed.
        connection.execute("BEGIN IMMEDIATE").await?;
        if self.reserve.free().is_err() {
            connection.execute("ROLLBACK").await?;
            return Err(full);
        }
        let deleted = connection.execute(DELETE_ALL).await?.rows_affected();
        connection.execute("COMMIT").await?;
        // The rows are removed. That their space is given back, too, is not promised.
        let shrunk = async {
            connection.execute("VACUUM").await?;
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await
        };
        if shrunk.await.is_ok() {
            // Without room for it, the next delete of a full volume fails.
            drop(self.reserve.take());
        }
        Ok(deleted)
    }

    /// Adds to an error which process holds the lock that was not to be had.
    pub(super) fn explained(&self, cause: sqlx::Error) -> Error {
        self.options.explained(cause)
    }

    /// Waits until it is this process's turn to write.
    pub(super) async fn turn(&self) -> Taken<'_> {
        self.turn.take(TURN_WAIT_MAX).await
    }
}

/// SQLite's codes of a file that another process has locked, and of one that it may not write.
const BUSY: u32 = 5;
const READ_ONLY: u32 = 8;
/// Its code of a volume that is full.
const FULL: u32 = 13;

/// Returns true if another process has the file locked.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(BUSY)
}

/// Returns true if the file's volume is full.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(FULL)
}

/// SQLite's own code; its lowest byte is the primary one. `None`: the error is not SQLite's.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let sqlx::Error::Database(said) = error else { return None };
    let said = said.try_downcast_ref::<SqliteError>()?;
    let code: u32 = said.code()?.parse().ok()?;
    Some(code & 0xff)
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
        match connection.execute(DELETE_ALL).await {
            Err(error) if is_full(&error) => self.delete_all_of_full(connection, error).await,
            done => Ok(done?.rows_affected()),
        }
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

    /// Takes the write lock for a moment. A lock that another process holds shows nothing.
    async fn is_read_only(&self, connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        connection.execute("PRAGMA busy_timeout = 0").await?;
        let begun = connection.execute("BEGIN IMMEDIATE").await;
        if begun.is_ok() {
            connection.execute("ROLLBACK").await?;
        }
        connection.execute(WAIT).await?;
        match begun {
            Ok(_) => Ok(false),
            Err(error) if is_busy(&error) => Ok(false),
            Err(error) if primary_code(&error) == Some(READ_ONLY) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        connection.execute("PRAGMA busy_timeout = 0").await?;
        let done = self.execute(connection, WRITE).await;
        connection.execute(WAIT).await?;
        done
    }

    async fn execute(
        &self,
        connection: &mut SqliteConnection,
        sql: &'static str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(sql).execute(connection).await?;
        Ok(())
    }

    async fn number(
        &self,
        connection: &mut SqliteConnection,
        sql: &'static str,
    ) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(sql).fetch_one(connection).await
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
