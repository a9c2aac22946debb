//! A worker's connections, by what they are for, so that none of these waits for another: new rows
//! are stored while rows are deleted, and a delete, or the question whether the database answers,
//! does not queue behind reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::pool::Pool;
use super::{Dialect, Error, Role};
use crate::app::record::{Data, Page, Span};

/// How long counting may take. A page is worth more with its rows alone than late.
const COUNT_PATIENCE: Duration = Duration::from_millis(400);

/// One connection for new rows, one for a delete, one to ask whether the database answers, and one
/// for reads.
pub(crate) const CONNECTIONS_MIN: u64 = 4;

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Pools<D: Dialect> {
    dialect: Arc<D>,
    writes: Pool<D>,
    deletes: Pool<D>,
    reads: Pool<D>,
    probes: Pool<D>,
    /// When the database last answered the question; who asks has the lock.
    answered: Mutex<Option<Instant>>,
}

impl<D: Dialect> Pools<D> {
    /// At most so many connections ([`CONNECTIONS_MIN`] or more).
    pub(super) fn new(dialect: D, connections_max: usize) -> Self {
        let dialect = Arc::new(dialect);
        let pool = |role, connections_max| Pool::new(&dialect, role, connections_max);
        Self {
            writes: pool(Role::Writes, 1),
            deletes: pool(Role::Deletes, 1),
            probes: pool(Role::Reads, 1),
            reads: pool(Role::Reads, connections_max - 3),
            answered: Mutex::new(None),
            dialect,
        }
    }

    /// What it speaks.
    pub(super) fn dialect(&self) -> &D {
        &self.dialect
    }

    /// Stores rows, all or none.
    pub(super) async fn insert(&self, rows: &[Data]) -> Result<(), Error> {
        let mut connection = self.writes.lend().await?;
        self.dialect.insert(&mut connection, rows).await?;
        connection.keep()
    }

    /// Removes every row and says how many they were.
    pub(super) async fn delete_all(&self) -> Result<u64, Error> {
        let mut connection = self.deletes.lend().await?;
        let deleted = self.dialect.delete_all(&mut connection).await?;
        connection.keep()?;
        Ok(deleted)
    }

    /// Reads some rows, within some time, and counts all, if that is soon done.
    pub(super) async fn page(&self, span: Span, patience: Duration) -> Result<Page, Error> {
        let read = async {
            let mut connection = self.reads.lend().await?;
            let rows = self.dialect.rows(&mut connection, span).await?;
            Ok((connection, rows))
        };
        let read = timeout(patience, read).await.unwrap_or(Err(Error::Silent(patience)));
        let (mut connection, rows) = read?;
        let counted = match timeout(COUNT_PATIENCE, self.dialect.count(&mut connection)).await {
            Ok(counted) => {
                let counted = counted?;
                connection.keep()?;
                Some(counted)
            }
            // The server counts on, and the connection with it: it is dropped.
            Err(_) => None,
        };
        Ok(Page::new(rows, span, counted))
    }

    /// Whether the database answers, and has our table. One question answers all who wait to ask.
    pub(super) async fn ping(&self) -> Result<(), Error> {
        let begun = Instant::now();
        let mut answered = self.answered.lock().await;
        if answered.is_some_and(|at| at >= begun) {
            return Ok(());
        }
        let mut connection = self.probes.lend().await?;
        self.dialect.ask(&mut connection).await?;
        connection.keep()?;
        *answered = Some(Instant::now());
        Ok(())
    }

    /// Takes leave of the database.
    pub(super) async fn close(&self) {
        for pool in [&self.writes, &self.deletes, &self.reads, &self.probes] {
            pool.close().await;
        }
    }
}
