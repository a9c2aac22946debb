//! Heartbeats and counters of the workers, in shared memory, which are read without asking them.
//!
//! The master believes none of it: a worker that scribbles over its lines can at worst have itself
//! aborted. Each line has one kind of writer.

mod histogram;
mod leases;
mod metrics;
mod overview;
mod requests;
mod series;
mod series_name;
mod slots;
mod status_line;
mod status_text;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::Generation;
use crate::sys::shared::{self, Claim, Shared};
use crate::time::Instant;

use self::status_line::StatusLine;

pub(crate) use histogram::{BOUNDS_NANOS, BUCKETS, Distribution};
pub(crate) use metrics::{Block, Code, Handshake, LogKind, Measure, MetricsMemory, WorkerMetrics};
pub(crate) use overview::{Cause, MasterMetrics, Overview, ReloadResult, WorkerRow, WorkerState};
pub(crate) use requests::{Held, RequestEntry};
pub(crate) use series::{BOUNDS, SERIES_MAX, SeriesHistogram, SeriesKey, SeriesKind, SeriesPlace};
pub(crate) use series_name::{SeriesName, bounds, help_key, help_of};
pub(crate) use slots::{Load, MATTERS, NAMED_LEASES, SlotBoard, SlotRow};
pub(crate) use status_text::StatusText;

/// The part of one worker, from before its fork until it is reaped: a line of figures, and an
/// entry for each connection that it may hold. Another line is the master's, for a worker that is too
/// busy to take an order.
#[derive(Debug)]
pub(crate) struct WorkerBoard {
    memory: Shared,
    entries: usize,
    /// In the worker, where metrics are wanted.
    metrics: OnceLock<WorkerMetrics>,
}

/// A board has no more entries: 20 MiB, if all of them were used.
const ENTRIES_MAX: usize = 1 << 16;

/// The first lines: the worker's own, and the master's.
const FIGURE_LINES: usize = 2;
/// Lines before the entries: behind those of figures, a status.
const HEAD_LINES: usize = FIGURE_LINES + status_line::LINES;

/// The numbers in them, the worker's first.
#[derive(Clone, Copy)]
enum Figure {
    /// When its event loop last ran, in milliseconds of the monotonic clock.
    Heartbeat = 0,
    /// Connections open.
    Connections = 1,
    /// Its occupation: a [`Doing`].
    Doing = 2,
    /// The generation that it serves for.
    Generation = 3,
    /// When the master has ordered it to drain, in milliseconds of the monotonic clock.
    DrainsSince = 8,
}

/// The occupation of a worker, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Booting = 0,
    Serving = 1,
    Draining = 2,
}

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Booting => "booting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        })
    }
}

impl WorkerBoard {
    /// A board for a worker that is about to be forked, and may hold so many connections. Entries take
    /// memory when they are first used, the lowest first.
    ///
    /// # Errors
    /// The system's error about memory and descriptors.
    pub(crate) fn new(connections: usize) -> io::Result<Self> {
        let entries = connections.min(ENTRIES_MAX);
        let memory = Shared::new("ferricorn-worker", HEAD_LINES + entries * requests::ENTRY_LINES)?;
        Ok(Self { memory, entries, metrics: OnceLock::new() })
    }

    /// The board of a worker that an earlier image has forked.
    ///
    /// # Errors
    /// When the descriptor is no board.
    pub(crate) fn inherit(memory: OwnedFd, entries: usize) -> io::Result<Self> {
        let entries = entries.min(ENTRIES_MAX);
        let memory = Shared::map(memory, HEAD_LINES + entries * requests::ENTRY_LINES)?;
        Ok(Self { memory, entries, metrics: OnceLock::new() })
    }

    /// The number of entries.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// The entry of a connection; `None` for one beyond those that were expected.
    pub(crate) fn entry(&self, at: usize) -> Option<RequestEntry<'_>> {
        if at >= self.entries {
            return None;
        }
        let lines = self.memory.get(HEAD_LINES + at * requests::ENTRY_LINES..)?;
        lines.first_chunk().map(RequestEntry::new)
    }

    fn status_line(&self) -> StatusLine<'_> {
        StatusLine::new(&self.memory[FIGURE_LINES..HEAD_LINES])
    }

    /// The worker's program reports this of itself.
    pub(crate) fn set_status(&self, status: &str) {
        self.status_line().write(status);
    }

    /// The last that the worker's program has reported of itself, as the worker says.
    pub(crate) fn status(&self) -> Option<String> {
        self.status_line().read()
    }

    /// The requests that the worker has in hand, as it says: first those whose code was running, which
    /// keep the others waiting; then the oldest.
    pub(crate) fn held(&self) -> Vec<Held> {
        let entries = (0..self.entries).filter_map(|at| self.entry(at));
        let has_receipt = |at| self.entry(at).is_some_and(|entry| entry.receipt().is_whole());
        let mut held: Vec<Held> = entries.filter_map(|entry| entry.read(has_receipt)).collect();
        held.sort_by_key(|request| (!request.running, request.started));
        held
    }

    /// The code of the request on this connection runs from now on, or has given its thread back.
    pub(crate) fn set_running(&self, at: usize, running: bool) {
        if let Some(entry) = self.entry(at) {
            entry.set_running(running);
        }
    }

    // ORDERING: every figure stands for itself, nothing else is read by it: Relaxed throughout.
    fn figure(&self, figure: Figure) -> &AtomicU64 {
        let at = figure as usize;
        &self.memory[at / 8].0[at % 8]
    }

    fn claim(&self, figure: Figure) -> Claim {
        shared::claim(self.figure(figure))
    }

    /// The event loop runs.
    pub(crate) fn note_heartbeat(&self, now: Instant) {
        self.figure(Figure::Heartbeat).store(now.as_millis(), Ordering::Relaxed);
    }

    /// When the event loop last ran, as the worker says.
    pub(crate) fn last_heartbeat(&self) -> Instant {
        Instant::from_millis(self.claim(Figure::Heartbeat).unchecked())
    }

    /// The worker is of this generation and does this from now on.
    pub(crate) fn set_doing(&self, generation: Generation, doing: Doing) {
        self.figure(Figure::Generation).store(generation.number().into(), Ordering::Relaxed);
        self.figure(Figure::Doing).store(doing as u64, Ordering::Relaxed);
    }

    /// The worker's occupation, and for which generation, by its own word.
    pub(crate) fn doing(&self) -> (Doing, Claim) {
        let doing = match self.claim(Figure::Doing).unchecked() {
            0 => Doing::Booting,
            1 => Doing::Serving,
            _ => Doing::Draining,
        };
        (doing, self.claim(Figure::Generation))
    }

    /// The worker is ordered to drain, as by its channel.
    pub(crate) fn note_drain(&self, now: Instant) {
        self.figure(Figure::DrainsSince).store(now.as_millis(), Ordering::Relaxed);
    }

    /// When the worker was ordered to drain.
    pub(crate) fn drains_since(&self) -> Option<Instant> {
        let millis = self.claim(Figure::DrainsSince).unchecked();
        (millis > 0).then(|| Instant::from_millis(millis))
    }

    /// In the worker, which has this pid: counts in this block from now on.
    pub(crate) fn measure(&self, block: Block, pid: i32) {
        let pid = u32::try_from(pid).unwrap_or(0);
        // A worker is told once.
        let _counts_already = self.metrics.set(WorkerMetrics::new(block.fixed(), pid));
    }

    /// The counters of the worker; `None` where metrics are off.
    pub(crate) fn metrics(&self) -> Option<&WorkerMetrics> {
        self.metrics.get()
    }

    /// One connection more.
    pub(crate) fn connection_opened(&self) {
        self.figure(Figure::Connections).fetch_add(1, Ordering::Relaxed);
        self.metrics().inspect(|metrics| metrics.connection_opened());
    }

    /// One connection less.
    pub(crate) fn connection_closed(&self) {
        self.figure(Figure::Connections).fetch_sub(1, Ordering::Relaxed);
        self.metrics().inspect(|metrics| metrics.connection_closed());
    }

    /// Connections open, as the worker says.
    pub(crate) fn connections(&self) -> Claim {
        self.claim(Figure::Connections)
    }
}

impl AsFd for WorkerBoard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use axum::http::{Method, Uri, Version};

    use super::*;

    #[test]
    fn who_keeps_the_others_waiting_is_first_and_then_the_oldest() {
        let board = WorkerBoard::new(4).unwrap();
        for (at, (began, target)) in
            [(3, "/third"), (1, "/first"), (4, "/stuck"), (2, "/second")].into_iter().enumerate()
        {
            let started = SystemTime::UNIX_EPOCH + Duration::from_secs(began);
            let entry = board.entry(at).unwrap();
            let target = Uri::from_static(target);
            entry.fill(None, started, &Method::GET, &target, Version::HTTP_11);
        }
        board.set_running(1, true);
        board.set_running(1, false);
        board.set_running(2, true);
        // One beyond those that were expected.
        board.set_running(4, true);
        let targets: Vec<_> = board.held().iter().map(|held| held.target.to_string()).collect();
        assert_eq!(targets, ["/stuck", "/first", "/second", "/third"]);
    }

    #[test]
    fn each_figure_has_a_place_and_no_line_two_writers() {
        let board = WorkerBoard::new(1).unwrap();
        assert_eq!(board.doing(), (Doing::Booting, Claim::new(0)));
        let generation = Generation::FIRST.next();
        board.note_heartbeat(Instant::from_millis(7));
        board.connection_opened();
        board.set_doing(generation, Doing::Draining);
        assert_eq!(board.drains_since(), None);
        board.note_drain(Instant::from_millis(9));
        let connections = board.connections();
        assert_eq!((board.last_heartbeat(), connections), (Instant::from_millis(7), Claim::new(1)));
        let number = Claim::new(generation.number().into());
        assert_eq!(board.doing(), (Doing::Draining, number));
        assert_eq!(board.drains_since(), Some(Instant::from_millis(9)));
        let by_master = Figure::DrainsSince as usize / 8;
        let by_worker = [Figure::Heartbeat, Figure::Connections, Figure::Doing, Figure::Generation];
        assert!(by_worker.iter().all(|figure| *figure as usize / 8 != by_master));
    }
}
