//! A few connections, lent one at a time.
//!
//! Not sqlx's own pool: that one tries a refused connection again until its deadline, so that in an
//! outage every request would wait for it and then learn only that "the pool timed out"; and it
//! pings after every use. This one fails at once, with the cause, and asks nothing of a connection
//! that was just used.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// A connection that has rested for longer is asked whether it still lives before it is used: the
/// server, or a firewall between, may have closed it.
const TRUSTED_REST: Duration = Duration::from_secs(1);

/// How connections of one kind are made.
pub(super) trait Dial: Send + Sync {
    /// What is made.
    type Connection: Connection;

    /// Makes one.
    fn dial(&self) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;
}

/// Connections of one kind, at most so many at once, made when they are first needed.
#[derive(Debug)]
pub(super) struct Pool<D: Dial> {
    dialler: D,
    resting: Mutex<Vec<Resting<D::Connection>>>,
    permits: Semaphore,
}

#[derive(Debug)]
struct Resting<C> {
    connection: C,
    since: Instant,
}

impl<D: Dial> Pool<D> {
    /// At most `connections_max` at once.
    pub(super) fn new(dialler: D, connections_max: usize) -> Self {
        Self {
            dialler,
            resting: Mutex::new(Vec::with_capacity(connections_max)),
            permits: Semaphore::new(connections_max),
        }
    }

    /// Lends a connection: the one that was used last, or a new one.
    ///
    /// It has no deadline of its own; the caller's covers the wait, the connecting and the use.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(super) async fn lend(&self) -> Result<Lent<'_, D>, sqlx::Error> {
        let permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let connection = match self.trusted().await {
            Some(connection) => connection,
            None => self.dialler.dial().await?,
        };
        Ok(Lent { connection: Some(connection), pool: self, _permit: permit })
    }

    /// A resting connection that can be believed to live.
    async fn trusted(&self) -> Option<D::Connection> {
        while let Some(Resting { mut connection, since }) = self.pop() {
            if since.elapsed() < TRUSTED_REST || connection.ping().await.is_ok() {
                return Some(connection);
            }
        }
        None
    }

    fn pop(&self) -> Option<Resting<D::Connection>> {
        self.locked().pop()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Resting<D::Connection>>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes leave of the server. A connection that is lent is closed when it comes back.
    pub(super) async fn close(&self) {
        while let Some(resting) = self.pop() {
            // The server may be gone before us; there is nobody left to tell.
            drop(resting.connection.close().await);
        }
    }
}

/// A connection in use. Dropped, it is closed with whatever it may have half done: only
/// [`Lent::keep`] gives it back.
pub(super) struct Lent<'a, D: Dial> {
    /// `None` only while it is given back.
    connection: Option<D::Connection>,
    pool: &'a Pool<D>,
    _permit: SemaphorePermit<'a>,
}

impl<D: Dial> Lent<'_, D> {
    /// Gives it back: what was asked of it has been answered.
    pub(super) fn keep(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.locked().push(Resting { connection, since: Instant::now() });
        }
    }
}

impl<D: Dial> Deref for Lent<'_, D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.connection.as_ref().expect("it is taken only by `keep`, which consumes this")
    }
}

impl<D: Dial> DerefMut for Lent<'_, D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.connection.as_mut().expect("it is taken only by `keep`, which consumes this")
    }
}
