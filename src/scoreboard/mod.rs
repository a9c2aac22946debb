//! What workers tell without being asked: heartbeats and counters, in shared memory.
//!
//! The master believes none of it: a worker that scribbles over its lines can at worst have itself
//! aborted. Each line has one kind of writer.

mod requests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::Slot;
use crate::sys::shared::Shared;
use crate::time::Instant;

pub(crate) use requests::{Entry, Held};

/// What one worker tells of itself, from before its fork until it is reaped: a line of figures, and an
/// entry for each connection that it may hold. It alone writes, but for the figure that the master
/// leaves there, for a worker that is too busy to take an order.
#[derive(Debug)]
pub(crate) struct WorkerBoard {
    memory: Shared,
    entries: usize,
}

/// A board has no more entries: 16 MiB, if all of them were used.
const ENTRIES_MAX: usize = 1 << 16;

/// The numbers in a worker's first line.
#[derive(Clone, Copy)]
enum Figure {
    /// When its event loop last ran, in milliseconds of the monotonic clock.
    Beat = 0,
    /// Connections open.
    Connections = 1,
    /// When the master has told it to leave, in milliseconds of the monotonic clock.
    Dismissed = 2,
}

impl WorkerBoard {
    /// A board for a worker that is about to be forked, and may hold so many connections. Entries take
    /// memory when they are first used, the lowest first.
    ///
    /// # Errors
    /// What the system says about memory and descriptors.
    pub(crate) fn new(connections: usize) -> io::Result<Self> {
        let entries = connections.min(ENTRIES_MAX);
        let memory = Shared::new("ferricorn-worker", 1 + entries * requests::ENTRY_LINES)?;
        Ok(Self { memory, entries })
    }

    /// The board of a worker that an earlier image has forked.
    ///
    /// # Errors
    /// When the descriptor is no board.
    pub(crate) fn inherit(memory: OwnedFd, entries: usize) -> io::Result<Self> {
        let entries = entries.min(ENTRIES_MAX);
        let memory = Shared::map(memory, 1 + entries * requests::ENTRY_LINES)?;
        Ok(Self { memory, entries })
    }

    /// How many entries it has.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// The entry of a connection; `None` for one beyond those that were expected.
    pub(crate) fn entry(&self, at: usize) -> Option<Entry<'_>> {
        let start = 1 + at.checked_mul(requests::ENTRY_LINES)?;
        self.memory.get(start..start + requests::ENTRY_LINES).map(Entry::new)
    }

    /// The requests that the worker has in hand, as it says.
    pub(crate) fn held(&self) -> Vec<Held> {
        let entries = (0..self.entries).filter_map(|at| self.entry(at));
        entries.filter_map(|entry| entry.read()).collect()
    }

    // ORDERING: every figure stands for itself, nothing else is read by it: Relaxed throughout.
    fn figure(&self, figure: Figure) -> &AtomicU64 {
        &self.memory[0].0[figure as usize]
    }

    /// The event loop runs.
    pub(crate) fn beat(&self, now: Instant) {
        self.figure(Figure::Beat).store(now.as_millis(), Ordering::Relaxed);
    }

    /// When the event loop last ran, as the worker says.
    pub(crate) fn last_beat(&self) -> Instant {
        Instant::from_millis(self.figure(Figure::Beat).load(Ordering::Relaxed))
    }

    /// The worker is told to leave. It is told by its channel, too.
    pub(crate) fn dismiss(&self, now: Instant) {
        self.figure(Figure::Dismissed).store(now.as_millis(), Ordering::Relaxed);
    }

    /// When the worker was told to leave.
    pub(crate) fn dismissed(&self) -> Option<Instant> {
        let millis = self.figure(Figure::Dismissed).load(Ordering::Relaxed);
        (millis > 0).then(|| Instant::from_millis(millis))
    }

    /// One connection more.
    pub(crate) fn connection_opened(&self) {
        self.figure(Figure::Connections).fetch_add(1, Ordering::Relaxed);
    }

    /// One connection less.
    pub(crate) fn connection_closed(&self) {
        self.figure(Figure::Connections).fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections open, as the worker says.
    pub(crate) fn connections(&self) -> u64 {
        self.figure(Figure::Connections).load(Ordering::Relaxed)
    }
}

/// The counters of all slots, a line for each. They go on over the workers of a slot.
#[derive(Debug)]
pub(crate) struct SlotBoard(Shared);

/// Requests answered: the first number of a slot's line.
const SERVED: usize = 0;

impl SlotBoard {
    /// Counters for every slot there can be.
    ///
    /// # Errors
    /// What the system says about memory and descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        Shared::new("ferricorn-slots", usize::from(Slot::MAX)).map(Self)
    }

    /// The counters that an earlier image has begun.
    ///
    /// # Errors
    /// When the descriptor holds none.
    pub(crate) fn inherit(memory: OwnedFd) -> io::Result<Self> {
        Shared::map(memory, usize::from(Slot::MAX)).map(Self)
    }

    /// One request more was answered in this slot.
    pub(crate) fn count_request(&self, slot: Slot) {
        // The leaving worker of a slot and its successor both count, so it is added, not stored.
        self.0[slot.index()].0[SERVED].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests answered in all slots since the start.
    pub(crate) fn served(&self) -> u64 {
        self.0.iter().map(|line| line.0[SERVED].load(Ordering::Relaxed)).sum()
    }
}

impl AsFd for WorkerBoard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl AsFd for SlotBoard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
