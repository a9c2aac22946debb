//! All open connections of a worker, and the sweep that brings each the time.
//!
//! # Why not a timer a connection
//! hyper's own header timeout arms and disarms a timer for every request, and knows nothing of stalled
//! bodies or of responses that are not read. Here a connection notes when it last moved, which is a
//! store, and one sweep over all of them a few times in the shortest timeout finds the late ones.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;

use super::budget::{self, Budget, Peak};
pub(crate) use super::conn::{CloseReason, Conn, Fault, Wait};
use super::machine::Machine;
use super::timeouts::Timeouts;
use crate::config::Config;
use crate::logging;
use crate::request::draining::Draining;
use crate::scoreboard::{SlotRow, WorkerBoard};
use crate::sys::{clock, foreign, statistics};
use crate::worker::events::WorkerEvent;

// ORDERING: counters that stand for themselves: Relaxed throughout.
/// All open connections of a worker.
#[derive(Debug)]
pub(crate) struct Conns {
    timeouts: Timeouts,
    draining: Draining,
    budget: Arc<Budget>,
    peaks: Mutex<Peaks>,
    /// When the budget was last reported as exceeded; 0: never.
    exceeded_reported_at: AtomicU64,
    open: Mutex<Slab<Arc<Conn>>>,
    count: AtomicUsize,
    /// The number of connections that were parked since memory was given back.
    parked: AtomicUsize,
    /// Listeners with clients that wait for room, where no connection is idle.
    short: AtomicUsize,
    /// Where the master sees how many are open.
    board: Arc<WorkerBoard>,
    /// Where siblings see how many are open.
    place: SlotRow,
    /// Told when one more or one less is open.
    pub(crate) changed: Notify,
}

/// The number of connections that leave so much behind, some MiB, that it is worth to give it back.
const MANY: usize = 256;

/// Bytes of unfinished requests that are worth to be given back.
const MUCH: u64 = 2 << 20;

/// From one report of an exceeded budget to the next.
const REPORT_INTERVAL_MS: u64 = 60_000;

/// The time for which a body has stood still that may be refused for want of memory.
const STANDSTILL: Duration = Duration::from_secs(1);

/// The longest time of a handshake whose client goes on, as far as that is known.
const LONG_HANDSHAKE: Duration = Duration::from_secs(1);

/// The highest numbers since memory was given back.
#[derive(Debug, Default)]
struct Peaks {
    open: Peak,
    held: Peak,
}

impl Conns {
    pub(crate) fn new(
        config: &Config,
        board: Arc<WorkerBoard>,
        place: SlotRow,
        draining: Draining,
    ) -> Self {
        Self {
            timeouts: Timeouts::new(config),
            draining,
            budget: Arc::new(Budget::new(budget::of_worker(
                statistics::memory_max(),
                config.workers,
                config.max_memory,
            ))),
            peaks: Mutex::default(),
            exceeded_reported_at: AtomicU64::new(0),
            open: Mutex::new(Slab::new()),
            count: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            short: AtomicUsize::new(0),
            board,
            place,
            changed: Notify::new(),
        }
    }

    /// A connection was accepted.
    pub(crate) fn enter(&self) -> Arc<Conn> {
        let conn = self.insert(Machine::connection);
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        self.board.connection_opened();
        self.place.opened(before + 1);
        self.changed.notify_waiters();
        conn
    }

    /// A stream of a connection has begun: it has a number and timeouts of its own, and is no
    /// connection.
    pub(crate) fn enter_stream(&self) -> Arc<Conn> {
        self.insert(Machine::stream)
    }

    fn insert(&self, machine: impl FnOnce(u64) -> Machine) -> Arc<Conn> {
        let mut open = self.lock();
        let place = open.vacant_entry();
        let budget = Arc::clone(&self.budget);
        let draining = self.draining.clone();
        let machine = machine(clock::coarse_millis());
        let conn = Arc::new(Conn::new(place.key(), machine, budget, draining));
        place.insert(Arc::clone(&conn));
        conn
    }

    /// A stream is over.
    pub(crate) fn leave_stream(&self, conn: &Conn) {
        conn.hold(0);
        drop(self.lock().remove(conn.number));
    }

    /// Has every client of HTTP/2 begin no further request on its connection.
    pub(crate) fn say_goodbye(&self) {
        self.lock().iter().for_each(|(_, conn)| conn.say_goodbye());
    }

    /// It has ended.
    pub(crate) fn leave(&self, conn: &Conn) {
        conn.hold(0);
        drop(self.lock().remove(conn.number));
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.board.connection_closed();
        self.place.closed();
        self.changed.notify_waiters();
    }

    /// One is parked from now on.
    pub(crate) fn note_parked(&self, conn: &Conn) {
        conn.with(Machine::parked);
        self.parked.fetch_add(1, Ordering::Relaxed);
    }

    /// For tests: how many are parked.
    #[cfg(test)]
    pub(crate) fn parked(&self) -> usize {
        self.lock().iter().filter(|(_, conn)| conn.with(|machine| machine.is_parked())).count()
    }

    /// Returns the number of open ones.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the interval at which the sweep must look: four times in the shortest timeout, once a
    /// second at most.
    pub(crate) fn interval(&self) -> Duration {
        let quarter = self.timeouts.shortest().map_or(u64::MAX, |shortest| shortest / 4);
        Duration::from_millis(quarter).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Waits for this, which ends when the next sweep is due, or until unfinished requests take too much
    /// memory.
    pub(crate) async fn pause(&self, due: impl Future<Output = ()>) {
        tokio::select! {
            () = due => {}
            () = self.budget.exceeded.notified() => {}
        }
    }

    /// Refuses the largest unfinished requests where all of them take too much memory.
    pub(crate) fn keep_budget(&self) {
        if !self.budget.is_exceeded() {
            return;
        }
        let open = self.lock();
        let mut refused = 0;
        let mut unfinished = Vec::new();
        for (_, conn) in open.iter() {
            match (conn.held(), conn.wait()) {
                (0, _) => {}
                (held, _) if conn.is_closed_for(CloseReason::Budget) => refused += held,
                (held, Wait::Head) => unfinished.push((held, conn)),
                // One that makes progress is no attack.
                (held, Wait::Body) if conn.waited() >= STANDSTILL => unfinished.push((held, conn)),
                _ => {}
            }
        }
        let over = budget::over(self.budget.limit(), self.budget.total(), refused, unfinished);
        let refused = over.len();
        for conn in over {
            conn.close(CloseReason::Budget);
        }
        drop(open);
        if refused > 0 {
            self.report_exceeded(refused);
        }
    }

    /// Logs that unfinished requests are refused for want of memory, once a minute.
    fn report_exceeded(&self, requests: usize) {
        let now = clock::coarse_millis();
        let last = &self.exceeded_reported_at;
        let reported = last.load(Ordering::Relaxed);
        if reported == 0 || now.saturating_sub(reported) >= REPORT_INTERVAL_MS {
            last.store(now.max(1), Ordering::Relaxed);
            let slot = self.place.slot();
            let limit = self.budget.limit();
            logging::emit(&WorkerEvent::BudgetExceeded { slot, requests, limit });
        }
    }

    /// Gives back the memory that many have left: connections that are parked, or have ended.
    fn give_back(&self) {
        let parked = self.parked.load(Ordering::Relaxed) >= MANY;
        let mut peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = peaks.open.has_fallen(self.count() as u64, MANY as u64);
        let freed = peaks.held.has_fallen(self.budget.total(), MUCH);
        drop(peaks);
        if parked {
            self.parked.store(0, Ordering::Relaxed);
        }
        if parked || closed || freed {
            foreign::give_back();
        }
    }

    /// Ends every connection that has waited too long, and gives back what many have left.
    pub(crate) fn sweep(&self) {
        self.give_back();
        self.keep_budget();
        let now = clock::coarse_millis();
        self.decide(|machine| machine.tick(&self.timeouts, now));
    }

    /// Has each connection decide this; wakes those that are to end or to park.
    fn decide(&self, decision: impl Fn(&mut Machine) -> bool) {
        for (_, conn) in self.lock().iter() {
            conn.decide(&decision);
        }
    }

    /// Has every idle connection park, and those that are parked look again whether they are handed over.
    pub(crate) fn park_idle(&self) {
        self.decide(Machine::park);
    }

    /// Closes every connection that has had nothing to do for so long: not those whose first request has
    /// not come.
    pub(crate) fn close_idle(&self, grace: Duration) {
        let now = clock::coarse_millis();
        self.decide(|machine| machine.close_idle(millis(grace), now));
    }

    /// Closes the connection that has had nothing to do for longest, and for so long at least. Returns
    /// false if there is none.
    pub(crate) fn close_longest_idle(&self, least: Duration) -> bool {
        let now = clock::coarse_millis();
        let open = self.lock();
        let idle = |conn: &Conn| conn.with(|machine| machine.idle_for(now));
        let idle = open.iter().filter_map(|(_, conn)| Some((idle(conn)?, conn)));
        let longest = idle.filter(|(idle, _)| *idle >= millis(least)).max_by_key(|(idle, _)| *idle);
        longest.inspect(|(_, conn)| conn.close(CloseReason::Idle)).is_some()
    }

    /// Clients wait for room from now on, until this is dropped, and no connection is idle.
    pub(crate) fn begin_shortage(&self) -> Shortage<'_> {
        self.short.fetch_add(1, Ordering::Relaxed);
        Shortage(self)
    }

    /// Returns true if clients wait for room.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed) != 0
    }

    /// Ends every connection on which a request has come in by half.
    pub(crate) fn refuse_halves(&self) {
        self.decide(Machine::close_unfinished);
    }

    /// On how many a request has come in by half.
    pub(crate) fn halves(&self) -> usize {
        let is_half = |conn: &Conn| matches!(conn.wait(), Wait::Head | Wait::Body);
        self.lock().iter().filter(|(_, conn)| is_half(conn)).count()
    }

    /// Ends every connection whose last response is out.
    pub(crate) fn end_silence(&self) {
        for (_, conn) in self.lock().iter().filter(|(_, conn)| conn.wait() == Wait::Silence) {
            conn.close(CloseReason::Silence);
        }
    }

    /// Where more than so many are in their TLS handshake: ends the one that takes longest, if it has
    /// taken too long for a client that goes on.
    pub(crate) fn keep_handshakes(&self, most: usize) {
        let open = self.lock();
        let shaking = || open.iter().filter(|(_, conn)| conn.wait() == Wait::Handshake);
        if open.len() <= most || shaking().count() <= most {
            return;
        }
        let late = shaking()
            .filter(|(_, conn)| conn.waited() >= LONG_HANDSHAKE && conn.reason().is_none());
        if let Some((_, conn)) = late.max_by_key(|(_, conn)| conn.waited()) {
            conn.close(CloseReason::Head);
        }
    }

    /// Wakes every connection.
    pub(crate) fn wake_all(&self) {
        self.lock().iter().for_each(|(_, conn)| conn.woken.notify_one());
    }

    /// Returns the number of open ones on which something is still to be said.
    pub(crate) fn unfinished(&self) -> usize {
        let is_unfinished = |conn: &Conn| !conn.is_stream && conn.wait() != Wait::Silence;
        self.lock().iter().filter(|(_, conn)| is_unfinished(conn)).count()
    }

    /// The longest time for which a connection has waited for this.
    #[cfg(test)]
    pub(crate) fn longest(&self, wait: Wait) -> Duration {
        let open = self.lock();
        let waits = open.iter().filter(|(_, conn)| conn.wait() == wait);
        waits.map(|(_, conn)| conn.waited()).max().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slab<Arc<Conn>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Clients wait for room, and no connection is idle.
#[derive(Debug)]
pub(crate) struct Shortage<'a>(&'a Conns);

impl Drop for Shortage<'_> {
    fn drop(&mut self) {
        self.0.short.fetch_sub(1, Ordering::Relaxed);
    }
}
