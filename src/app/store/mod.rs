//! The databases behind one interface: a module a dialect, each with its own statements.
//!
//! Here is what they have in common: how long each thing may take, and what is tried again.

mod mysql;
mod pool;
mod pools;
mod postgres;
mod prepare;
mod sqlite;
mod turn;
mod url;

use std::fmt;
use std::time::Duration;

use sqlx::Connection;
use sqlx::migrate::{Migrate, Migrator};
use tokio::time::timeout;
use tracing::Dispatch;
use tracing::instrument::{WithDispatch, WithSubscriber};

use crate::app::record::{Data, Page, Row, Span};

pub(crate) use pools::CONNECTIONS_MIN;
use pools::Pools;
pub(crate) use prepare::{Start, prepare};

/// How long a batch of writes may take, with the making of a connection: a request is answered
/// within 3 s, whatever state the server is in, on a busy machine too.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(2200);

/// How long a read may take, with the wait for a connection: there must be time left to count, or
/// else to ask whether it is the database that keeps it waiting.
const READ_TIMEOUT: Duration = Duration::from_millis(1600);

/// How often a write is tried again that the server broke off because it stood in the way of
/// another, which was let through. It has stored nothing.
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

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// The batches of new rows: one connection.
    Writes,
    /// Deletes: one connection.
    Deletes,
    /// Reads, and the question whether the database answers.
    Reads,
}

/// Which file it is that a database's path leads to: its device, and its number there.
type Place = (u64, u64);

/// What a database's own module does. Each write is one statement, hence its own transaction.
pub(crate) trait Dialect: fmt::Debug + Send + Sync {
    /// A connection to it.
    type Connection: Connection + fmt::Debug;

    /// Makes a connection.
    fn dial(
        &self,
        role: Role,
    ) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    /// Where new connections lead by now. Those to another place have lost the database: it was moved,
    /// or another was put there. `None`: nowhere, or whoever is there sees to that.
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

    /// Asks for something of our table.
    fn ask(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It said so, or could not be reached.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// It said nothing.
    #[error("no answer within {:.1} s", .0.as_secs_f32())]
    Silent(Duration),
    /// Its file is not where it was: what was asked was done to a file that nobody will find.
    #[error("the database's file was removed, or another put in its place")]
    Moved,
    /// It was not asked: others keep it busy.
    #[error("no connection was free in time")]
    Crowded,
}

impl Error {
    /// Whether the database is away: not there, or not ready for anybody. What it has against one
    /// statement is another matter.
    pub(crate) fn is_away(&self) -> bool {
        /// SQLSTATE: connection exceptions, a server that starts or stops, a connection killed, too
        /// many connections. SQLite's own code of a file that cannot be opened.
        const AWAY: [&str; 5] = ["08", "57P", "70100", "53300", "14"];
        match self {
            Self::Database(sqlx::Error::Database(said)) => {
                said.code().is_some_and(|code| AWAY.iter().any(|away| code.starts_with(away)))
            }
            Self::Database(_) | Self::Silent(_) | Self::Moved => true,
            Self::Crowded => false,
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
    /// What is wrong with it, as the end of a sentence; nothing of a secret.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, _)) = url.split_once(':') else {
            return Err("it has no scheme; write sqlite://, postgres:// or mysql://".into());
        };
        match scheme {
            "sqlite" => sqlite::Options::parse(url).map(Self::Sqlite),
            "postgres" | "postgresql" => postgres::Options::parse(url).map(Self::Postgres),
            "mysql" | "mariadb" => mysql::Options::parse(url).map(Self::Mysql),
            _ => Err("its scheme is none of sqlite, postgres, postgresql, mysql, mariadb".into()),
        }
    }
}

/// Where the database is.
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
    pub(crate) fn new(target: Target, connections_max: usize) -> Self {
        match target {
            Target::Sqlite(options) => {
                Self::Sqlite(Pools::new(sqlite::Sqlite::new(options), connections_max))
            }
            Target::Postgres(options) => Self::Postgres(Pools::new(options, connections_max)),
            Target::Mysql(options) => Self::Mysql(Pools::new(options, connections_max)),
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
            let mut conflicts = 0;
            loop {
                match dialect!(self, store => store.insert(rows).await) {
                    Err(error) if is_conflict(&error) && conflicts < CONFLICTS_MAX => {
                        conflicts += 1;
                    }
                    done => return done,
                }
            }
        };
        let limit = match self {
            Self::Sqlite(_) => sqlite::INSERT_TIMEOUT,
            Self::Postgres(_) | Self::Mysql(_) => ANSWER_TIMEOUT,
        };
        within(limit, insert).await
    }

    /// Removes every row and says how many they were. It takes as long as it takes, once nobody else has
    /// a row of them locked.
    ///
    /// # Errors
    /// As [`Store::insert`].
    pub(crate) async fn delete_all(&self) -> Result<u64, Error> {
        let mut conflicts = 0;
        loop {
            match quiet(async { dialect!(self, store => store.delete_all().await) }).await {
                Err(error) if is_conflict(&error) && conflicts < CONFLICTS_MAX => conflicts += 1,
                done => return done,
            }
        }
    }

    /// Reads some rows, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn page(&self, span: Span) -> Result<Page, Error> {
        quiet(async { dialect!(self, store => store.page(span, READ_TIMEOUT).await) }).await
    }

    /// Whether the database answers within some time, and has our table.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn ping(&self, patience: Duration) -> Result<(), Error> {
        within(patience, async { dialect!(self, store => store.ping().await) }).await
    }

    /// Takes leave of the database.
    pub(crate) async fn close(&self) {
        dialect!(self, store => store.close().await);
    }
}

/// A deadlock, or a failure to serialize: SQLSTATE class 40.
fn is_conflict(error: &Error) -> bool {
    match error {
        Error::Database(sqlx::Error::Database(said)) => {
            said.code().is_some_and(|code| code == "40001" || code == "40P01")
        }
        Error::Database(_) | Error::Silent(_) | Error::Moved | Error::Crowded => false,
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
