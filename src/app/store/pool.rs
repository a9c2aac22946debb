//! A few connections, lent one at a time.
//!
//! Not sqlx's own pool: that one tries a refused connection again until its deadline, so that in an
//! outage every request would wait for it and then learn only that "the pool timed out"; and it
//! pings after every use. This one fails at once, with the cause, and asks nothing of a connection
//! that was just used.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::{Dialect, Error, Place, Role};

/// A connection that has rested for longer is asked whether it still lives before it is used: the
/// server, or a firewall between, may have closed it.
const TRUSTED_REST: Duration = Duration::from_secs(1);

/// How long that question may take. A firewall that has forgotten a connection says nothing: then a
/// new one is made, and there is time left for it.
const PING_PATIENCE: Duration = Duration::from_millis(300);

/// How long a request waits until a connection is free.
const FREE_PATIENCE: Duration = Duration::from_millis(1300);

/// Connections for one purpose, at most so many at once, made when they are first needed.
#[derive(Debug)]
pub(super) struct Pool<D: Dialect> {
    dialect: Arc<D>,
    role: Role,
    resting: Mutex<Vec<Resting<D::Connection>>>,
    permits: Semaphore,
}

#[derive(Debug)]
struct Resting<C> {
    connection: C,
    place: Option<Place>,
    since: Instant,
}

impl<D: Dialect> Pool<D> {
    /// At most `connections_max` at once.
    pub(super) fn new(dialect: &Arc<D>, role: Role, connections_max: usize) -> Self {
        Self {
            dialect: Arc::clone(dialect),
            role,
            resting: Mutex::new(Vec::with_capacity(connections_max)),
            permits: Semaphore::new(connections_max),
        }
    }

    /// Lends a connection: the one that was used last, or a new one.
    ///
    /// The connecting has no deadline of its own; the caller's covers it, and the use.
    ///
    /// # Errors
    /// When none is free for a while, and when the server cannot be reached.
    pub(super) async fn lend(&self) -> Result<Lent<'_, D>, Error> {
        let free = timeout(FREE_PATIENCE, self.permits.acquire()).await;
        let permit = free.map_err(|_| Error::Crowded)?.expect("the semaphore is never closed");
        // Before a new connection is made: it leads there, or to what has come there since.
        let place = self.dialect.place();
        let connection = match self.trusted(place).await {
            Some(connection) => connection,
            None => self.dialect.dial(self.role).await?,
        };
        Ok(Lent { connection: Some(connection), place, pool: self, _permit: permit })
    }

    /// The resting connection that was used last, if it can be believed to live, and leads there.
    async fn trusted(&self, there: Option<Place>) -> Option<D::Connection> {
        let Resting { mut connection, place, since } = self.locked().pop()?;
        let is_trusted = place == there
            && (since.elapsed() < TRUSTED_REST
                || timeout(PING_PATIENCE, connection.ping()).await.is_ok_and(|pong| pong.is_ok()));
        if is_trusted {
            return Some(connection);
        }
        // The others have rested for longer, and to ask each would take too long.
        self.locked().clear();
        None
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Resting<D::Connection>>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes leave of the server. A connection that is lent is closed when it comes back.
    pub(super) async fn close(&self) {
        let resting = std::mem::take(&mut *self.locked());
        for Resting { connection, .. } in resting {
            // The server may be gone before us; there is nobody left to tell.
            drop(connection.close().await);
        }
    }
}

/// A connection in use. Dropped, it is closed with whatever it may have half done: only
/// [`Lent::keep`] gives it back.
pub(super) struct Lent<'a, D: Dialect> {
    /// `None` only while it is given back.
    connection: Option<D::Connection>,
    place: Option<Place>,
    pool: &'a Pool<D>,
    _permit: SemaphorePermit<'a>,
}

impl<D: Dialect> Lent<'_, D> {
    /// Gives it back: what was asked of it has been answered.
    ///
    /// # Errors
    /// When it does not lead to the database any more. What it was asked was done elsewhere.
    pub(super) fn keep(mut self) -> Result<(), Error> {
        if self.place != self.pool.dialect.place() {
            return Err(Error::Moved);
        }
        if let Some(connection) = self.connection.take() {
            let (place, since) = (self.place, Instant::now());
            self.pool.locked().push(Resting { connection, place, since });
        }
        Ok(())
    }
}

impl<D: Dialect> Deref for Lent<'_, D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.connection.as_ref().expect("it is taken only by `keep`, which consumes this")
    }
}

impl<D: Dialect> DerefMut for Lent<'_, D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.connection.as_mut().expect("it is taken only by `keep`, which consumes this")
    }
}
