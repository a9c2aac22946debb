//! Whose turn it is to write to an SQLite file: a queue of all the processes that do.
//!
//! # Why
//! SQLite has one writer at a time, and no queue: who finds the file locked sleeps for a while,
//! longer each time (up to 100 ms), and looks again. Under load the lock is mostly free to the one that
//! just had it, and the others starve. Advisory locks of the kernel's (`flock`) on files beside the
//! database wake the next one at the moment it is free.
//!
//! There are two, since one is not a queue either: who lets go of it can have it back before the
//! process that was woken has run. So who wants the *turn* must first be *next*, and stays next
//! until it has the turn; the one that had it waits behind.
//!
//! It is a courtesy and no more: SQLite's own lock is what protects the data. Who has waited too
//! long, because a process was stopped with a lock in its hand, goes without.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Plain, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

/// A lock that a stranger can take is a lock that a stranger can keep: reading is enough for `flock`.
const MODE: u32 = 0o600;

/// This process's place in the queue.
#[derive(Debug)]
pub(super) struct Turn {
    database: PathBuf,
    /// The tasks of one process share its locks, hence queue here first. `None`: not opened yet.
    queue: Mutex<Option<Queue>>,
    /// True if the last wait was in vain: then a process was stopped in its turn, and the next wait
    /// is a short one.
    vain: AtomicBool,
}

/// The time of a wait for a holder that was waited for in vain before.
const TIME_LEFT: Duration = Duration::from_millis(200);

/// It is our turn until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Taken<'a> {
    /// Dropped first: the kernel's lock goes to another process before a task here asks for it.
    _process: Option<Held>,
    _task: Option<MutexGuard<'a, Option<Queue>>>,
}

/// This process's files, and the thread that waits for their locks, if one does.
#[derive(Debug)]
struct Queue {
    locks: Arc<Locks>,
    waiter: Option<Arc<Waiter>>,
}

/// The files whose locks they are. They are made where they are missing, and stay.
#[derive(Debug)]
struct Locks {
    next: File,
    turn: File,
}

/// A thread that waits for the turn. A wait for a lock cannot be broken off: a task that has waited
/// too long leaves the thread behind, and the next task waits for the same thread.
#[derive(Debug)]
struct Waiter(Plain<Wait>);

#[derive(Debug)]
enum Wait {
    /// The thread waits, for this task.
    For(oneshot::Sender<Held>),
    /// The thread has ended.
    Over,
}

/// The kernel's lock on the turn; dropping it wakes who is next.
#[derive(Debug)]
struct Held(Arc<Locks>);

impl Turn {
    /// The queue for this database's file.
    pub(super) fn new(database: &Path) -> Self {
        let queue = Mutex::new(None);
        let vain = AtomicBool::new(false);
        Self { database: database.to_owned(), queue, vain }
    }

    /// Waits for our turn, at most for as long as `time`.
    pub(super) async fn take(&self, time: Duration) -> Taken<'_> {
        // ORDERING: it stands for itself: Relaxed.
        let is_doubtful = self.vain.load(Ordering::Relaxed);
        let time = if is_doubtful { time.min(TIME_LEFT) } else { time };
        let deadline = Instant::now() + time;
        let Ok(mut queue) = timeout_at(deadline, self.queue.lock()).await else {
            return Taken::default();
        };
        let process = self.take_among_processes(&mut queue, deadline).await;
        self.vain.store(process.is_none(), Ordering::Relaxed);
        Taken { _process: process, _task: Some(queue) }
    }

    async fn take_among_processes(
        &self,
        queue: &mut Option<Queue>,
        deadline: Instant,
    ) -> Option<Held> {
        let Queue { locks, waiter } = match queue {
            Some(queue) => queue,
            None => {
                // Without its folder the database fails on its own, and says so.
                let locks = Arc::new(Locks::open(&self.database).ok()?);
                queue.insert(Queue { locks, waiter: None })
            }
        };
        let handed = match waiter.as_ref().and_then(|waiter| waiter.join()) {
            Some(handed) => handed,
            None => {
                match locks.try_take() {
                    Ok(held) => return Some(held),
                    Err(TryLockError::WouldBlock) => {}
                    // A file system without locks: there is no courtesy to be had.
                    Err(TryLockError::Error(_)) => return None,
                }
                let (started, handed) = Waiter::start(locks);
                *waiter = Some(started);
                handed
            }
        };
        timeout_at(deadline, handed).await.ok()?.ok()
    }
}

impl Waiter {
    /// Starts the thread, and returns what it hands over.
    fn start(locks: &Arc<Locks>) -> (Arc<Self>, oneshot::Receiver<Held>) {
        let (handing, handed) = oneshot::channel();
        let waiter = Arc::new(Self(Plain::new(Wait::For(handing))));
        let locks = Arc::clone(locks);
        let thread = Arc::clone(&waiter);
        spawn_blocking(move || {
            let held = locks.take();
            if let (Wait::For(task), Ok(held)) = (thread.replace(Wait::Over), held) {
                // The task has gone: then the lock is dropped here, and is another process's.
                drop(task.send(held));
            }
        });
        (waiter, handed)
    }

    /// Waits for the thread that an earlier task has left behind. `None`: it has ended.
    fn join(&self) -> Option<oneshot::Receiver<Held>> {
        let mut wait = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *wait {
            Wait::Over => None,
            Wait::For(task) => {
                let (handing, handed) = oneshot::channel();
                *task = handing;
                Some(handed)
            }
        }
    }

    fn replace(&self, wait: Wait) -> Wait {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, wait)
    }
}

impl Locks {
    fn open(database: &Path) -> io::Result<Self> {
        let open = |suffix| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).mode(MODE).open(path)?;
            // Made with more by an earlier version, or by a user of the same group: then it stays.
            drop(file.set_permissions(Permissions::from_mode(MODE)));
            io::Result::Ok(file)
        };
        Ok(Self { next: open("-next")?, turn: open("-turn")? })
    }

    /// Takes the turn if it is free and no process waits.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    struct World {
        folder: tempfile::TempDir,
        turn: Turn,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let turn = Turn::new(&folder.path().join("data.db"));
            Self { folder, turn }
        }

        fn file(&self, suffix: &str) -> PathBuf {
            self.folder.path().join(format!("data.db{suffix}"))
        }

        /// Descriptors of this process that lead to the folder.
        fn descriptors(&self) -> usize {
            let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let paths = all.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            paths.filter(|path| path.starts_with(self.folder.path())).count()
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test has its own runtime")]
    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // A second thread that waits would never run.
            .max_blocking_threads(1)
            .build();
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn a_lock_kept_by_a_stranger_costs_one_waiting_thread() {
        let world = World::new();
        block_on(async {
            drop(world.turn.take(LONG).await);
            let stranger = File::open(world.file("-turn")).unwrap();
            stranger.lock_shared().unwrap();
            for _ in 0..30 {
                let taken = world.turn.take(SHORT).await;
                assert!(taken._process.is_none());
                drop(taken);
                assert_eq!(world.descriptors(), 3, "two of ours, and the stranger's");
            }
            drop(stranger);
            // The thread that waited since the first try hands its lock to the last.
            while world.turn.take(LONG).await._process.is_none() {}
            let other = File::open(world.file("-turn")).unwrap();
            other.try_lock().expect("it was given back");
        });
    }

    #[test]
    fn a_turn_that_comes_too_late_is_given_back() {
        let world = World::new();
        block_on(async {
            drop(world.turn.take(LONG).await);
            let stranger = File::open(world.file("-turn")).unwrap();
            stranger.lock().unwrap();
            assert!(world.turn.take(SHORT).await._process.is_none());
            stranger.unlock().unwrap();
            // By the thread, to which no task listens.
            let other = File::open(world.file("-turn")).unwrap();
            other.lock().unwrap();
        });
    }

    #[test]
    fn lock_files_are_for_their_owner_alone() {
        let world = World::new();
        std::fs::write(world.file("-turn"), "").unwrap();
        let all = Permissions::from_mode(0o666);
        std::fs::set_permissions(world.file("-turn"), all).unwrap();
        block_on(async { drop(world.turn.take(LONG).await) });
        for suffix in ["-next", "-turn"] {
            let mode = std::fs::metadata(world.file(suffix)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{suffix}");
        }
    }
}
