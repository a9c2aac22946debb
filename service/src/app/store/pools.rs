//! A worker's connections, by what they are for, so that none of these waits for another: new rows
//! are stored while rows are deleted, and a delete, or the question whether the database answers,
//! does not queue behind reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::pool::{Pool, Shelves};
use super::{Dialect, Error, Lifetimes, Role, refusal};
use crate::app::record::{Data, Page, Span};

/// The time that counting may take. A page is worth more with its rows alone than late.
const COUNT_TIMEOUT: Duration = Duration::from_millis(400);

/// The time for which a database is believed that reports that it takes writes.
const WRITABLE_TRUST: Duration = Duration::from_secs(1);

/// The same of one that reports that it takes none, and takes ours: to find out costs a write.
const EXEMPT_TRUST: Duration = Duration::from_secs(60);

/// One connection for new rows, one for a delete, one to ask whether the database answers, and one
/// for reads.
pub(crate) const CONNECTIONS_MIN: u64 = 4;

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Pools<D: Dialect> {
    dialect: Arc<D>,
    shelves: Arc<Shelves<D>>,
    /// Closes connections that are unused, or old.
    tidying: AbortHandle,
    writes: Pool<D>,
    deletes: Pool<D>,
    reads: Pool<D>,
    probes: Pool<D>,
    /// When the database last answered the question; who asks has the lock.
    answered: Mutex<Option<Instant>>,
    /// Until when it is believed that writes are taken.
    believed: Mutex<Option<Instant>>,
}

impl<D: Dialect + 'static> Pools<D> {
    /// At most so many connections ([`CONNECTIONS_MIN`] or more). On the current runtime.
    pub(super) fn new(dialect: D, connections_max: usize, lifetimes: Lifetimes) -> Self {
        let dialect = Arc::new(dialect);
        let shelves = Shelves::new(&dialect, lifetimes);
        let pool =
            |number, role, connections_max| Pool::new(&shelves, number, role, connections_max);
        Self {
            writes: pool(0, Role::Writes, 1),
            deletes: pool(1, Role::Deletes, 1),
            probes: pool(2, Role::Reads, 1),
            reads: pool(3, Role::Reads, connections_max - 3),
            answered: Mutex::new(None),
            believed: Mutex::new(None),
            tidying: tokio::spawn(Arc::clone(&shelves).tidy()).abort_handle(),
            shelves,
            dialect,
        }
    }

    /// Passes a write's end on. A server that takes no writes is not the one that was meant, and
    /// no connection leads to the right one: the database's address is resolved anew for each.
    fn noted<T>(&self, done: Result<T, sqlx::Error>) -> Result<T, Error> {
        if let Err(error) = &done
            && refusal::is_read_only(error)
        {
            self.shelves.renew();
        }
        Ok(done?)
    }

    /// The protocol of the database.
    pub(super) fn dialect(&self) -> &D {
        &self.dialect
    }

    /// Stores rows, all or none.
    pub(super) async fn insert(&self, rows: &[Data]) -> Result<(), Error> {
        let mut connection = self.writes.lend().await?;
        let done = self.dialect.insert(&mut connection, rows).await;
        self.noted(done)?;
        connection.keep()
    }

    /// Removes every row and says how many they were.
    pub(super) async fn delete_all(&self) -> Result<u64, Error> {
        let mut connection = self.deletes.lend().await?;
        let done = self.dialect.delete_all(&mut connection).await;
        let deleted = self.noted(done)?;
        connection.keep()?;
        Ok(deleted)
    }

    /// Reads some rows, within some time, and counts all, if that is soon done.
    pub(super) async fn page(&self, span: Span, time: Duration) -> Result<Page, Error> {
        let read = async {
            let mut connection = self.reads.lend().await?;
            let rows = self.dialect.rows(&mut connection, span).await?;
            Ok((connection, rows))
        };
        let read = timeout(time, read).await.unwrap_or(Err(Error::Silent(time)));
        let (mut connection, rows) = read?;
        let counted = match timeout(COUNT_TIMEOUT, self.dialect.count(&mut connection)).await {
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

    /// Fails unless the database answers, and has its table. One question answers all who wait to ask.
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

    /// Asks whether the database reports that it takes no writes, and writes if it does: its user may
    /// be exempt. It writes the first time, too.
    pub(super) async fn would_write(&self) -> Result<(), Error> {
        let mut believed = self.believed.lock().await;
        if believed.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let mut connection = self.probes.lend().await?;
        let is_read_only = self.dialect.is_read_only(&mut connection).await?;
        connection.keep()?;
        // A worker that has not asked before makes sure.
        if is_read_only || believed.is_none() {
            self.write().await?;
        }
        let trust = if is_read_only { EXEMPT_TRUST } else { WRITABLE_TRUST };
        *believed = Some(Instant::now() + trust);
        Ok(())
    }

    /// Writes as a new row would be written, and changes no row of the users'.
    pub(super) async fn write(&self) -> Result<(), Error> {
        let mut connection = self.writes.lend().await?;
        let done = self.dialect.write(&mut connection).await;
        self.noted(done)?;
        connection.keep()
    }

    /// Takes leave of the database.
    pub(super) async fn close(&self) {
        self.tidying.abort();
        self.shelves.close().await;
    }
}

impl<D: Dialect> Drop for Pools<D> {
    fn drop(&mut self) {
        self.tidying.abort();
    }
}
