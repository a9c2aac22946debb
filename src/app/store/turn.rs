//! Whose turn it is to write to an SQLite file: a queue of all the processes that do.
//!
//! # Why
//! SQLite has one writer at a time, and no queue: who finds the file locked sleeps for a while,
//! longer each time (up to 100 ms), and looks again. Under load the lock is mostly free to whoever
//! just had it, and the others starve. Advisory locks of the kernel's (`flock`) on files beside the
//! database wake the next one at the moment it is free.
//!
//! There are two, since one is not a queue either: who lets go of it can have it back before the
//! process that was woken has run. So who wants the *turn* must first be *next*, and stays next
//! until it has the turn; whoever had it waits behind.
//!
//! It is a courtesy and no more: SQLite's own lock is what protects the data. Who has waited too
//! long, because a process was stopped with a lock in its hand, goes without.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

/// This process's place in the queue.
#[derive(Debug)]
pub(super) struct Turn {
    database: PathBuf,
    /// The tasks of one process share its locks, hence queue here first. `None`: not opened yet.
    locks: Mutex<Option<Arc<Locks>>>,
    /// Whether the last wait was in vain: then somebody was stopped in its turn, and the next wait
    /// is a short one.
    vain: AtomicBool,
}

/// How long is waited for who was waited for in vain.
const PATIENCE_LEFT: Duration = Duration::from_millis(200);

/// It is our turn until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Taken<'a> {
    /// Dropped first: the kernel's lock goes to another process before a task here asks for it.
    _process: Option<Held>,
    _task: Option<MutexGuard<'a, Option<Arc<Locks>>>>,
}

/// The files whose locks they are. They are made where they are missing, and stay.
#[derive(Debug)]
struct Locks {
    next: File,
    turn: File,
}

/// The kernel's lock on the turn; dropping it wakes who is next.
#[derive(Debug)]
struct Held(Arc<Locks>);

impl Turn {
    /// The queue for this database's file.
    pub(super) fn new(database: &Path) -> Self {
        let (locks, vain) = (Mutex::new(None), AtomicBool::new(false));
        Self { database: database.to_owned(), locks, vain }
    }

    /// Waits for our turn, at most for as long as `patience`.
    pub(super) async fn take(&self, patience: Duration) -> Taken<'_> {
        // ORDERING: it stands for itself: Relaxed.
        let is_doubtful = self.vain.load(Ordering::Relaxed);
        let patience = if is_doubtful { patience.min(PATIENCE_LEFT) } else { patience };
        let deadline = Instant::now() + patience;
        let Ok(mut locks) = timeout_at(deadline, self.locks.lock()).await else {
            return Taken::default();
        };
        let process = self.take_among_processes(&mut locks, deadline).await;
        self.vain.store(process.is_none(), Ordering::Relaxed);
        Taken { _process: process, _task: Some(locks) }
    }

    async fn take_among_processes(
        &self,
        slot: &mut Option<Arc<Locks>>,
        deadline: Instant,
    ) -> Option<Held> {
        let locks = match slot {
            Some(locks) => locks,
            // Without its folder the database fails on its own, and says so.
            None => slot.insert(Arc::new(Locks::open(&self.database).ok()?)),
        };
        match locks.try_take() {
            Ok(held) => return Some(held),
            Err(TryLockError::WouldBlock) => {}
            // A file system without locks: there is no courtesy to be had.
            Err(TryLockError::Error(_)) => return None,
        }
        let ours = Arc::clone(locks);
        let queued = spawn_blocking(move || ours.take());
        if let Ok(held) = timeout_at(deadline, queued).await {
            return held.ok()?.ok();
        }
        // The thread goes on waiting, and lets go as soon as it is served. It keeps the files it
        // waits with: their locks would otherwise be ours too.
        *slot = None;
        None
    }
}

impl Locks {
    fn open(database: &Path) -> io::Result<Self> {
        let open = |suffix| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            OpenOptions::new().create(true).truncate(false).write(true).open(path)
        };
        Ok(Self { next: open("-next")?, turn: open("-turn")? })
    }

    /// Takes the turn if nobody has it and nobody waits.
    fn try_take(self: &Arc<Self>) -> Result<Held, TryLockError> {
        self.next.try_lock()?;
        let turn = self.turn.try_lock();
        self.next.unlock().map_err(TryLockError::Error)?;
        turn.map(|()| Held(Arc::clone(self)))
    }

    /// Waits until the turn is ours. Blocks the thread.
    fn take(self: Arc<Self>) -> io::Result<Held> {
        self.next.lock()?;
        let turn = self.turn.lock();
        self.next.unlock()?;
        turn.map(|()| Held(self))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Unlocking a lock that is held fails for no reason that could be acted on.
        drop(self.0.turn.unlock());
    }
}
