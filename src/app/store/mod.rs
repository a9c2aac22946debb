//! The databases behind one interface: a module a dialect, each with its own statements.
//!
//! Here is what they have in common: how long each thing may take, and what is tried again.

mod pool;
mod sqlite;
mod turn;

use std::fmt;
use std::time::Duration;

use tokio::time::timeout;

use crate::app::record::{Data, Page, Span};

/// How long a read or a batch of writes may take, with the wait for a connection and the making of
/// one: a request is answered within 3 s, whatever state the database is in.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2500);

/// The database, as a worker uses it.
#[derive(Debug)]
pub(crate) enum Store {
    Sqlite(sqlite::Sqlite),
}

/// Which database, and how to reach it.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Sqlite(sqlite::Options),
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
}

/// Calls the dialect's own method.
macro_rules! dialect {
    ($store:expr, $dialect:ident => $call:expr) => {
        match $store {
            Store::Sqlite($dialect) => $call,
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
            _ => Err("its scheme is none of sqlite, postgres, postgresql, mysql, mariadb".into()),
        }
    }

    /// Waits for the database and makes the tables.
    ///
    /// # Errors
    /// When the database is not there in time, or refuses.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        match self {
            Self::Sqlite(options) => sqlite::migrate(options).await?,
        }
        Ok(())
    }
}

/// Where the database is, without who may use it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(options) => write!(f, "sqlite://{}", options.path().display()),
        }
    }
}

impl Store {
    /// With at most so many connections (2 or more), which are made when they are needed: a worker
    /// boots while the database is away.
    pub(crate) fn new(target: Target, connections_max: usize) -> Self {
        match target {
            Target::Sqlite(options) => Self::Sqlite(sqlite::Sqlite::new(options, connections_max)),
        }
    }

    /// Waits until it is this process's turn to write, where there is such a thing. Batches are
    /// taken after it, so that they are as large as the wait was long.
    pub(crate) async fn turn(&self) -> Option<turn::Taken<'_>> {
        match self {
            Self::Sqlite(sqlite) => Some(sqlite.turn().await),
        }
    }

    /// Stores rows, all or none. On return they are durable.
    ///
    /// # Errors
    /// When the database fails. Nothing was stored, but in one case: when the connection broke, or
    /// the answer did not come in time, it is not known.
    pub(crate) async fn insert(&self, rows: &[Data]) -> Result<(), Error> {
        within(ANSWER_TIMEOUT, async { dialect!(self, store => store.insert(rows).await) }).await
    }

    /// Removes every row and says how many they were.
    ///
    /// # Errors
    /// As [`Store::insert`].
    pub(crate) async fn delete_all(&self) -> Result<u64, Error> {
        Ok(dialect!(self, store => store.delete_all().await)?)
    }

    /// Reads some rows, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn page(&self, span: Span) -> Result<Page, Error> {
        within(ANSWER_TIMEOUT, async { dialect!(self, store => store.page(span).await) }).await
    }

    /// Whether the database answers and has our table.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        within(ANSWER_TIMEOUT, async { dialect!(self, store => store.ping().await) }).await
    }

    /// Takes leave of the database.
    pub(crate) async fn close(&self) {
        dialect!(self, store => store.close().await);
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Error> {
    match timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::Silent(limit)),
    }
}
