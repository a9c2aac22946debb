//! A few connections, lent one at a time.
//!
//! # Why not sqlx's own pool
//! That one tries a refused connection again until its deadline, so that in an outage each request
//! would wait for it and then learn only that "the pool timed out"; and it pings after each use.
//! This one fails at once, with the cause, and asks nothing of a connection that was just used.
//!
//! # When connections end
//! One that is unused for `idle_timeout` is closed, since a server admits only so many, and another
//! worker may have none. One that is older than `max_lifetime` is closed, since the database's
//! address may lead to another server by now, and nothing else would show it. All of a worker's are
//! closed when one of them meets a server that takes no writes: it is not the one that was meant.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{Dialect, Error, Lifetimes, Place, Role, refusal};

/// A connection that has rested for longer is asked whether it still lives before it is used: the
/// server, or a firewall between, may have closed it.
const TRUSTED_REST: Duration = Duration::from_secs(1);

/// The time that this question may take. A firewall that has forgotten a connection says nothing: then a
/// new one is made, and there is time left for it. A farewell takes no longer.
const PING_TIMEOUT: Duration = Duration::from_millis(300);

/// The time that a request waits until a connection is free.
const FREE_TIMEOUT: Duration = Duration::from_millis(1300);

/// The connections of a worker that rest, by pool.
#[derive(Debug)]
pub(super) struct Shelves<D: Dialect> {
    dialect: Arc<D>,
    lifetimes: Lifetimes,
    resting: [Mutex<Vec<Resting<D::Connection>>>; 4],
    /// Connections that were made before the last change of this number are not used again.
    epoch: AtomicU64,
    /// Connections that are lent now.
    lent: AtomicUsize,
    /// One came back, or ended.
    freed: Notify,
}

/// A connection, and until when it may be used.
#[derive(Debug)]
struct Made<C> {
    connection: C,
    /// When it is too old.
    expires: Option<Instant>,
    epoch: u64,
}

#[derive(Debug)]
struct Resting<C> {
    made: Made<C>,
    place: Option<Place>,
    since: Instant,
}

impl<D: Dialect> Shelves<D> {
    pub(super) fn new(dialect: &Arc<D>, lifetimes: Lifetimes) -> Arc<Self> {
        Arc::new(Self {
            dialect: Arc::clone(dialect),
            lifetimes,
            resting: Default::default(),
            epoch: AtomicU64::new(0),
            lent: AtomicUsize::new(0),
            freed: Notify::new(),
        })
    }

    /// Lets go of every connection there is: those that are lent end when they come back.
    pub(super) fn renew(&self) {
        // ORDERING: the locks order it with what rests; it stands for itself otherwise.
        self.epoch.fetch_add(1, Ordering::Relaxed);
        for shelf in &self.resting {
            locked(shelf).clear();
        }
    }

    async fn dial(&self, role: Role) -> Result<Made<D::Connection>, sqlx::Error> {
        // Before the connection is made: it leads there, or to what has come there since.
        let epoch = self.epoch.load(Ordering::Relaxed);
        let connection = self.dialect.dial(role).await?;
        let expires = self.lifetimes.max.map(|max| Instant::now() + jittered(max));
        Ok(Made { connection, expires, epoch })
    }

    fn is_expired(&self, made: &Made<D::Connection>) -> bool {
        made.epoch != self.epoch.load(Ordering::Relaxed)
            || made.expires.is_some_and(|expires| expires <= Instant::now())
    }

    /// Another pool's resting connection, when the server admits no more of them. While others are
    /// lent, one of them is waited for.
    async fn borrow(&self, role: Role, full: sqlx::Error) -> Result<Made<D::Connection>, Error> {
        let deadline = Instant::now() + FREE_TIMEOUT;
        loop {
            let found = self.resting.iter().find_map(|shelf| locked(shelf).pop());
            if let Some(Resting { mut made, .. }) = found {
                if self.dialect.assume(&mut made.connection, role).await.is_ok() {
                    return Ok(made);
                }
                continue;
            }
            // ORDERING: it stands for itself; who brings one back notifies.
            let is_alone = self.lent.load(Ordering::Relaxed) == 0;
            if is_alone || timeout_at(deadline, self.freed.notified()).await.is_err() {
                return Err(full.into());
            }
        }
    }

    /// Closes what has rested for too long, or is too old, until the worker ends.
    pub(super) async fn tidy(self: Arc<Self>) {
        let Some(shortest) = self.lifetimes.shortest() else { return };
        loop {
            let now = Instant::now();
            let mut next = now + shortest;
            let mut ended = Vec::new();
            for shelf in &self.resting {
                for resting in locked(shelf).extract_if(.., |resting| {
                    let end = self.end_of(resting);
                    next = next.min(end.filter(|end| *end > now).unwrap_or(next));
                    end.is_some_and(|end| end <= now)
                }) {
                    ended.push(resting.made.connection);
                }
            }
            for connection in ended {
                farewell(connection).await;
            }
            sleep_until(next).await;
        }
    }

    fn end_of(&self, resting: &Resting<D::Connection>) -> Option<Instant> {
        let idle = self.lifetimes.idle.map(|idle| resting.since + idle);
        [idle, resting.made.expires].into_iter().flatten().min()
    }

    /// Takes leave of the server. A connection that is lent is closed when it comes back.
    pub(super) async fn close(&self) {
        for shelf in &self.resting {
            let resting = std::mem::take(&mut *locked(shelf));
            for Resting { made, .. } in resting {
                farewell(made.connection).await;
            }
        }
    }
}

/// A tenth less at most, so that connections that were made together do not end together.
fn jittered(max: Duration) -> Duration {
    max.mul_f64(rand::random_range(0.9..=1.0))
}

/// Closes a connection as the protocol has it: some servers log those that are cut off.
async fn farewell(connection: impl Connection) {
    // The server may be gone before us; there is nothing left to do.
    drop(timeout(PING_TIMEOUT, connection.close()).await);
}

fn locked<T>(shelf: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections for one purpose, at most so many at once, made when they are first needed.
#[derive(Debug)]
pub(super) struct Pool<D: Dialect> {
    shelves: Arc<Shelves<D>>,
    /// Which of the shelves is ours.
    number: usize,
    role: Role,
    permits: Semaphore,
}

impl<D: Dialect> Pool<D> {
    /// At most `connections_max` at once, which rest on the shelf of this number.
    pub(super) fn new(
        shelves: &Arc<Shelves<D>>,
        number: usize,
        role: Role,
        connections_max: usize,
    ) -> Self {
        let shelves = Arc::clone(shelves);
        Self { shelves, number, role, permits: Semaphore::new(connections_max) }
    }

    /// Lends a connection: the one that was used last, or a new one, or another pool's when the
    /// server admits no new one.
    ///
    /// The connecting has no deadline of its own; the caller's covers it, and the use.
    ///
    /// # Errors
    /// When none is free for a while, and when the server cannot be reached.
    pub(super) async fn lend(&self) -> Result<Lent<'_, D>, Error> {
        let free = timeout(FREE_TIMEOUT, self.permits.acquire()).await;
        let permit = free.map_err(|_| Error::Crowded)?.expect("the semaphore is never closed");
        // Before a new connection is made: it leads there, or to what has come there since.
        let place = self.shelves.dialect.place();
        let made = match self.trusted(place).await {
            Some(made) => made,
            None => match self.shelves.dial(self.role).await {
                Err(error) if refusal::is_full(&error) => {
                    self.shelves.borrow(self.role, error).await?
                }
                dialed => dialed?,
            },
        };
        // ORDERING: it stands for itself: Relaxed.
        self.shelves.lent.fetch_add(1, Ordering::Relaxed);
        Ok(Lent { made: Some(made), place, pool: self, _permit: permit })
    }

    /// The resting connection that was used last, if it can be believed to live, and leads there.
    async fn trusted(&self, there: Option<Place>) -> Option<Made<D::Connection>> {
        loop {
            let Resting { mut made, place, since } = self.resting().pop()?;
            if self.shelves.is_expired(&made) {
                farewell(made.connection).await;
                continue;
            }
            let is_trusted = place == there
                && (since.elapsed() < TRUSTED_REST
                    || timeout(PING_TIMEOUT, made.connection.ping())
                        .await
                        .is_ok_and(|pong| pong.is_ok()));
            if is_trusted {
                return Some(made);
            }
            // The others have rested for longer, and to ask each would take too long.
            self.resting().clear();
        }
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Resting<D::Connection>>> {
        locked(&self.shelves.resting[self.number])
    }
}

/// A connection in use. Dropped, it is closed with whatever it may have half done: only
/// [`Lent::keep`] gives it back.
pub(super) struct Lent<'a, D: Dialect> {
    /// `None` only while it is given back.
    made: Option<Made<D::Connection>>,
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
        let shelves = &self.pool.shelves;
        if self.place != shelves.dialect.place() {
            return Err(Error::Moved);
        }
        if let Some(made) = self.made.take() {
            let place = self.place;
            let since = Instant::now();
            let mut resting = self.pool.resting();
            // With the lock in hand: what is renewed meanwhile clears this shelf later.
            if made.epoch == shelves.epoch.load(Ordering::Relaxed) {
                resting.push(Resting { made, place, since });
            }
        }
        Ok(())
    }
}

impl<D: Dialect> Drop for Lent<'_, D> {
    fn drop(&mut self) {
        // Before who waits for one looks whether others are lent.
        drop(self.made.take());
        let shelves = &self.pool.shelves;
        // ORDERING: it stands for itself; who waits is notified behind it.
        shelves.lent.fetch_sub(1, Ordering::Relaxed);
        shelves.freed.notify_one();
    }
}

impl<D: Dialect> Deref for Lent<'_, D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.made.as_ref().expect("it is taken only by `keep`, which consumes this").connection
    }
}

impl<D: Dialect> DerefMut for Lent<'_, D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.made.as_mut().expect("it is taken only by `keep`, which consumes this").connection
    }
}
