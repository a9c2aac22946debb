//! The databases behind one interface: a module a dialect, each with its own statements.
//!
//! Here is what they have in common: how long each thing may take, and what is tried again.

mod holder;
mod migrations;
mod mysql;
mod obstacle;
mod pool;
mod pools;
mod postgres;
mod prepare;
mod refusal;
mod reserve;
mod sqlite;
mod turn;
mod url;

use std::fmt;
use std::time::Duration;

use sqlx::Connection;
use sqlx::migrate::{Migrate, Migrator};
use sqlx::mysql::MySqlDatabaseError;
use tokio::time::timeout;
use tracing::Dispatch;
use tracing::instrument::{WithDispatch, WithSubscriber};

use crate::app::record::{Data, Page, Row, Span};

pub(crate) use pools::CONNECTIONS_MIN;
use pools::Pools;
pub(crate) use prepare::{Start, prepare};

/// The time that a batch of writes may take, with the making of a connection: a request is answered
/// within 3 s, whatever state the server is in, on a busy machine too.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(2200);

/// The time that a read may take, with the wait for a connection: there must be time left to count, or
/// else to ask whether it is the database that keeps it waiting.
const READ_TIMEOUT: Duration = Duration::from_millis(1600);

/// The number of times that a write is tried again that the server broke off because it stood in the
/// way of another, which was let through. It has stored nothing.
const CONFLICTS_MAX: usize = 5;

/// The database, as a worker uses it.
#[derive(Debug)]
pub(crate) enum Store {
    /// A file.
    Sqlite(Pools<sqlite::Sqlite>),
    /// A server.
    Postgres(Pools<postgres::Options>),
    /// A server, of MySQL's or MariaDB's.
    Mysql(Pools<mysql::Options>),
}

/// Which database, and how to reach it. Neither its `Display` nor its `Debug` shows who may.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A file.
    Sqlite(sqlite::Options),
    /// A server.
    Postgres(postgres::Options),
    /// A server, of MySQL's or MariaDB's.
    Mysql(mysql::Options),
}

/// The lifetime of connections to a server. `None`: until they are needed no more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lifetimes {
    /// Unused.
    pub(crate) idle: Option<Duration>,
    /// At all.
    pub(crate) max: Option<Duration>,
}

impl Lifetimes {
    fn shortest(self) -> Option<Duration> {
        [self.idle, self.max].into_iter().flatten().min()
    }
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// The batches of new rows: one connection.
    Writes,
    /// Deletes: one connection.
    Deletes,
    /// Reads, the question whether the database answers, and the making of the tables.
    Reads,
}

/// Which file it is that a database's path leads to: its device, and its number there.
type Place = (u64, u64);

/// The duties of a database's own module. Each write is one statement, hence its own transaction.
pub(crate) trait Dialect: fmt::Debug + Send + Sync {
    /// A connection to it.
    type Connection: Connection + fmt::Debug;

    /// Makes a connection.
    fn dial(
        &self,
        role: Role,
    ) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    /// Gives a connection of another role this one.
    fn assume(
        &self,
        _connection: &mut Self::Connection,
        _role: Role,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Where new connections lead by now. Those to another place have lost the database: it was moved,
    /// or another was put there. `None`: nowhere, or another process sees to that.
    fn place(&self) -> Option<Place> {
        None
    }

    /// Stores rows, all or none. On return they are durable.
    fn insert(
        &self,
        connection: &mut Self::Connection,
        rows: &[Data],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Removes every row and says how many they were.
    fn delete_all(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Reads the rows of a span, newest first, and one more.
    fn rows(
        &self,
        connection: &mut Self::Connection,
        span: Span,
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    /// Counts the rows, up to one more than [`COUNTED_MAX`](crate::app::record::COUNTED_MAX).
    fn count(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;

    /// Executes a statement without parameters.
    fn execute(
        &self,
        connection: &mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Executes a statement without parameters that returns one number.
    fn number(
        &self,
        connection: &mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;

    /// Asks whether the database itself reports that it takes no writes. The question writes nothing;
    /// a user may be exempt from what is reported.
    fn is_read_only(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Writes as a new row would be written, and changes no row of the users'. It does not wait where
    /// a new row would.
    fn write(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        async {
            self.execute(connection, prepare::NO_INSERT).await?;
            self.execute(connection, prepare::WRITE).await
        }
    }

    /// Reads something of our table.
    fn ask(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        self.execute(connection, "SELECT id FROM records LIMIT 1")
    }
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It said so, or could not be reached.
    #[error("{}", refusal::text(.0))]
    Database(#[from] sqlx::Error),
    /// It refused a write, since another process has it locked.
    #[error("{cause}: its write lock is held by {holder}")]
    Locked {
        /// Its result.
        cause: sqlx::Error,
        /// The process.
        holder: holder::Holder,
    },
    /// It said nothing.
    #[error("no answer within {:.1} s", .0.as_secs_f32())]
    Silent(Duration),
    /// Its file is not where it was: what was asked was done to a file that will not be found.
    #[error("the database's file was removed, or another put in its place")]
    Moved,
    /// It was not asked: others keep it busy.
    #[error("no connection was free in time")]
    Crowded,
}

impl Error {
    /// Returns true if the database is away: not there, or not ready for any client. What it has
    /// against one statement is another matter.
    pub(crate) fn is_away(&self) -> bool {
        /// SQLSTATE: connection exceptions, a server that starts or stops, a connection killed, too
        /// many connections. SQLite's own code of a file that cannot be opened.
        const AWAY: [&str; 5] = ["08", "57P", "70100", "53300", "14"];
        match self {
            Self::Database(error) if refusal::is_full(error) => true,
            Self::Database(sqlx::Error::Database(said)) => {
                said.code().is_some_and(|code| AWAY.iter().any(|away| code.starts_with(away)))
            }
            Self::Database(_) | Self::Silent(_) | Self::Moved => true,
            Self::Locked { .. } | Self::Crowded => false,
        }
    }

    /// Returns true if another client has rows or a table locked: this work alone is refused. SQLite
    /// has one lock for all writes.
    pub(crate) fn is_lock_of_rows(&self) -> bool {
        /// SQLSTATE of PostgreSQL's `lock_timeout`.
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        /// MySQL's number of `innodb_lock_wait_timeout` and `lock_wait_timeout`.
        const LOCK_WAIT_TIMEOUT: u16 = 1205;
        match self {
            Self::Database(error) if refusal::is_conflict(error) => true,
            Self::Database(sqlx::Error::Database(said)) => {
                let number = said.try_downcast_ref().map(MySqlDatabaseError::number);
                number == Some(LOCK_WAIT_TIMEOUT)
                    || said.code().as_deref() == Some(LOCK_NOT_AVAILABLE)
            }
            Self::Database(_)
            | Self::Locked { .. }
            | Self::Silent(_)
            | Self::Moved
            | Self::Crowded => false,
        }
    }
}

/// Calls the dialect's own method.
macro_rules! dialect {
    ($store:expr, $dialect:ident => $call:expr) => {
        match $store {
            Store::Sqlite($dialect) => $call,
            Store::Postgres($dialect) => $call,
            Store::Mysql($dialect) => $call,
        }
    };
}

impl Target {
    /// From a database's URL.
    ///
    /// # Errors
    /// The fault, as the end of a sentence; nothing of a secret.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err("it has no scheme; write sqlite://, postgres:// or mysql://".into());
        };
        // SQLAlchemy's name of a driver, as in `postgresql+psycopg2`: the server is the same.
        let scheme = scheme.split_once('+').map_or(scheme, |(scheme, _driver)| scheme);
        let url = &format!("{scheme}:{rest}");
        match scheme {
            "sqlite" => sqlite::Options::parse(url).map(Self::Sqlite),
            "postgres" | "postgresql" => postgres::Options::parse(url).map(Self::Postgres),
            "mysql" | "mariadb" => mysql::Options::parse(url).map(Self::Mysql),
            _ => Err("its scheme is none of sqlite, postgres, postgresql, mysql, mariadb".into()),
        }
    }
}

/// Where the database is.
impl Target {
    /// The database in the words of the start: a file by its absolute path, and with “(new)” where it
    /// does not exist.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::Sqlite(options) => options.described(),
            Self::Postgres(_) | Self::Mysql(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(options) => options.fmt(f),
            Self::Postgres(options) => options.fmt(f),
            Self::Mysql(options) => options.fmt(f),
        }
    }
}

impl Store {
    /// With at most so many connections, which are made when they are needed: a worker boots while
    /// the database is away.
    pub(crate) fn new(target: Target, connections_max: usize, lifetimes: Lifetimes) -> Self {
        match target {
            // A file has room for any number, and leads nowhere else.
            Target::Sqlite(options) => {
                let sqlite = sqlite::Sqlite::new(options);
                Self::Sqlite(Pools::new(sqlite, connections_max, Lifetimes::default()))
            }
            Target::Postgres(options) => {
                Self::Postgres(Pools::new(options, connections_max, lifetimes))
            }
            Target::Mysql(options) => Self::Mysql(Pools::new(options, connections_max, lifetimes)),
        }
    }

    /// Waits until it is this process's turn to write, where there is such a thing. Batches are
    /// taken after it, so that they are as large as the wait was long.
    pub(crate) async fn turn(&self) -> Option<turn::Taken<'_>> {
        match self {
            Self::Sqlite(pools) => Some(pools.dialect().turn().await),
            Self::Postgres(_) | Self::Mysql(_) => None,
        }
    }

    /// Stores rows, all or none. On return they are durable.
    ///
    /// # Errors
    /// When the database fails. Nothing was stored, but in one case: when the connection broke, or
    /// the answer did not come in time, it is not known.
    pub(crate) async fn insert(&self, rows: &[Data]) -> Result<(), Error> {
        let insert = async {
            let mut again = Again::default();
            loop {
                match dialect!(self, store => store.insert(rows).await) {
                    Err(error) if again.is_due(&error) => {}
                    done => return done,
                }
            }
        };
        let limit = match self {
            Self::Sqlite(_) => sqlite::INSERT_TIMEOUT,
            Self::Postgres(_) | Self::Mysql(_) => ANSWER_TIMEOUT,
        };
        within(limit, insert).await.map_err(|error| self.explained(error))
    }

    /// Removes every row and says how many they were. It takes as long as it takes, once no other
    /// process has a row of them locked.
    ///
    /// # Errors
    /// As [`Store::insert`].
    pub(crate) async fn delete_all(&self) -> Result<u64, Error> {
        let mut again = Again::default();
        loop {
            match quiet(async { dialect!(self, store => store.delete_all().await) }).await {
                Err(error) if again.is_due(&error) => {}
                done => return done.map_err(|error| self.explained(error)),
            }
        }
    }

    /// Adds to an error of a write what this machine knows of its cause.
    fn explained(&self, error: Error) -> Error {
        match (self, error) {
            (Self::Sqlite(pools), Error::Database(cause)) => pools.dialect().explained(cause),
            (_, error) => error,
        }
    }

    /// Reads some rows, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn page(&self, span: Span) -> Result<Page, Error> {
        quiet(async { dialect!(self, store => store.page(span, READ_TIMEOUT).await) }).await
    }

    /// Fails unless the database answers within some time, and has its table.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn ping(&self, time: Duration) -> Result<(), Error> {
        within(time, async { dialect!(self, store => store.ping().await) }).await
    }

    /// Asks within some time whether a write would succeed, without a write where the database does
    /// not report otherwise.
    ///
    /// # Errors
    /// Those of a write, when it would not.
    pub(crate) async fn would_write(&self, time: Duration) -> Result<(), Error> {
        let asked = async { dialect!(self, store => store.would_write().await) };
        match within(time, asked).await {
            // Others write.
            Err(Error::Database(cause)) if sqlite::is_busy(&cause) => Ok(()),
            done => done.map_err(|error| self.explained(error)),
        }
    }

    /// Writes as a new row would be written, and changes no row of the users'.
    ///
    /// # Errors
    /// When the database refuses that. [`Error::Crowded`]: nothing is known, since others write.
    pub(crate) async fn write(&self, time: Duration) -> Result<(), Error> {
        match within(time, async { dialect!(self, store => store.write().await) }).await {
            Err(Error::Silent(_)) => Err(Error::Crowded),
            Err(Error::Database(cause)) if sqlite::is_busy(&cause) => Err(Error::Crowded),
            done => done.map_err(|error| self.explained(error)),
        }
    }

    /// Takes leave of the database.
    pub(crate) async fn close(&self) {
        dialect!(self, store => store.close().await);
    }
}

/// Which failures of one write led to another try. They have stored nothing.
#[derive(Debug, Default)]
struct Again {
    conflicts: usize,
    moves: usize,
}

impl Again {
    /// Returns true if the write is tried again: after a conflict, and once after a server that
    /// takes no writes, since another may be behind the same address by now.
    fn is_due(&mut self, error: &Error) -> bool {
        let Error::Database(error) = error else {
            return false;
        };
        let (count, max) = if refusal::is_conflict(error) {
            (&mut self.conflicts, CONFLICTS_MAX)
        } else if refusal::is_read_only(error) {
            (&mut self.moves, 1)
        } else {
            return false;
        };
        *count += 1;
        *count <= max
    }
}

/// Without the log lines of sqlx's own: it repeats what a server says to each connection, such as
/// that it shuts down, and an outage is told once.
fn quiet<W: Future>(work: W) -> WithDispatch<W> {
    work.with_subscriber(Dispatch::none())
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, quiet(work)).await.unwrap_or(Err(Error::Silent(limit)))
}

/// Runs what is left of some migrations.
async fn migrate(
    migrator: &mut Migrator,
    connection: &mut impl Migrate,
) -> Result<(), sqlx::Error> {
    // A newer ferricorn may have been here before: its tables are still good for this one.
    migrator.set_ignore_missing(true);
    // Not `run`, whose bounds no `Send` future meets (sqlx says so beside this one).
    quiet(migrator.run_direct(None, connection, false))
        .await
        .map_err(|error| sqlx::Error::Migrate(Box::new(error)))
}
