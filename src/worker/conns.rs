//! What is known of each open connection, and the sweep that ends those which stand still.
//!
//! # Why not a timer a connection
//! hyper's own header timeout arms and disarms a timer for every request, and knows nothing of stalled
//! bodies or of responses that nobody reads. Here a connection notes when it last moved, which is a
//! store, and one sweep over all of them a few times in the shortest timeout finds the late ones.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use slab::Slab;
use tokio::sync::Notify;

use super::heads::{Heads, TooLong};
use crate::config::Config;
use crate::scoreboard::{Place, WorkerBoard};
use crate::sys::{clock, memory};

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Wait {
    /// Its first request: nothing has been read yet.
    First = 0,
    /// The rest of a request's head.
    Head = 1,
    /// The handler's answer, and that all of it is with the kernel.
    Answer = 2,
    /// The next piece of a request's body.
    Body = 3,
    /// The next request.
    Next = 4,
    /// Nothing that we know: it speaks another protocol now.
    Other = 5,
    /// That the client, which has been answered for the last time, stops speaking.
    Silence = 6,
}

/// Why a connection was kicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kick {
    /// It was not.
    None = 0,
    /// The head of a request took too long.
    Head = 1,
    /// The handler took too long.
    Answer = 2,
    /// The body of a request stood still.
    Body = 3,
    /// Nobody reads the response.
    Reader = 4,
    /// It was idle for too long, or the worker leaves.
    Idle = 5,
    /// It has been answered for the last time, and speaks on.
    Silence = 6,
    /// It has been idle for a moment, and may give back what is kept to serve it.
    Rest = 7,
}

/// What is wrong with the body of the request in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    /// Nothing so far.
    None = 0,
    /// It is longer than allowed.
    TooLong = 1,
    /// It stood still for too long.
    Stalled = 2,
}

/// Bytes that a head may have, and its first line alone, before hyper refuses it without a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadRoom {
    pub(super) line: usize,
    pub(super) head: usize,
}

/// One open connection. Written by its own task, read by the sweep.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Its number among the open ones; used again when it is closed.
    pub(super) number: usize,
    wait: AtomicU8,
    /// Since when, in milliseconds of the monotonic clock.
    since: AtomicU64,
    /// Since when, besides, a write waits for the client to read; 0: none does. Of its own: requests
    /// may come in, and be answered, behind an answer that nobody takes.
    blocked: AtomicU64,
    /// When the request in hand began, and how many milliseconds more its handler has asked for.
    began: AtomicU64,
    extra: AtomicU64,
    /// Requests by now.
    requests: AtomicU64,
    kick: AtomicU8,
    fault: AtomicU8,
    /// The status that the client was told without a request; 0: none.
    refused: AtomicU16,
    /// Whether what is kept to serve it was given back.
    resting: AtomicBool,
    /// Wakes the connection's task after a kick.
    pub(super) kicked: Notify,
    /// Whether the client may be sending a body that nobody reads.
    unread: AtomicBool,
    /// What of its bytes has been understood.
    pub(super) heads: Heads,
}

impl Conn {
    fn new(number: usize, now: u64) -> Self {
        Self {
            number,
            wait: AtomicU8::new(Wait::First as u8),
            since: AtomicU64::new(now),
            blocked: AtomicU64::new(0),
            began: AtomicU64::new(now),
            extra: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            fault: AtomicU8::new(Fault::None as u8),
            kick: AtomicU8::new(Kick::None as u8),
            refused: AtomicU16::new(0),
            resting: AtomicBool::new(false),
            kicked: Notify::new(),
            unread: AtomicBool::new(false),
            heads: Heads::default(),
        }
    }

    // ORDERING: each value stands for itself, and a sweep that reads a stale one looks again: Relaxed.

    /// The connection waits for something else from now on. What it was kicked for before does not
    /// matter any more.
    pub(super) fn set(&self, wait: Wait) {
        self.since.store(clock::coarse_millis(), Ordering::Relaxed);
        self.wait.store(wait as u8, Ordering::Relaxed);
        if self.kick() != Kick::None {
            self.kick.store(Kick::None as u8, Ordering::Relaxed);
        }
    }

    /// What it waits for.
    pub(super) fn wait(&self) -> Wait {
        match self.wait.load(Ordering::Relaxed) {
            0 => Wait::First,
            1 => Wait::Head,
            2 => Wait::Answer,
            3 => Wait::Body,
            4 => Wait::Next,
            5 => Wait::Other,
            _ => Wait::Silence,
        }
    }

    /// Why it was kicked, if it was.
    pub(super) fn kick(&self) -> Kick {
        match self.kick.load(Ordering::Relaxed) {
            0 => Kick::None,
            1 => Kick::Head,
            2 => Kick::Answer,
            3 => Kick::Body,
            4 => Kick::Reader,
            5 => Kick::Idle,
            6 => Kick::Silence,
            _ => Kick::Rest,
        }
    }

    /// The number of the request in hand.
    pub(super) fn request(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Gives the handler of this request so much longer, if it is in hand still.
    pub(crate) fn extend(&self, request: u64, by: Duration) {
        if request != self.request() {
            return;
        }
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.extra.fetch_add(millis, Ordering::Relaxed);
    }

    fn give(&self, kick: Kick) {
        // One that came too late for what it was meant for gives way.
        if self.kick() != kick {
            self.kick.store(kick as u8, Ordering::Relaxed);
            self.kicked.notify_one();
        }
    }

    /// Bytes came in. Answers those of a request line, as far as that is known.
    ///
    /// # Errors
    /// Where they are of a head that is longer than allowed.
    pub(super) fn note_read<'a>(
        &self,
        bytes: &'a [u8],
        room: HeadRoom,
    ) -> Result<&'a [u8], TooLong> {
        if bytes.is_empty() {
            return Ok(&[]);
        }
        let wait = self.wait();
        if matches!(wait, Wait::First | Wait::Next) {
            self.set(Wait::Head);
            self.heads.begin();
        }
        let unfinished = self.heads.note(bytes);
        match wait {
            Wait::First | Wait::Next | Wait::Head => {}
            Wait::Answer | Wait::Body | Wait::Other | Wait::Silence => return Ok(&[]),
        }
        let line = self.heads.note_line(bytes, room.line)?;
        if unfinished > room.head as u64 { Err(TooLong::Head) } else { Ok(line) }
    }

    /// Whether a write waits for the client.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) != 0
    }

    /// A write waits for the client, or does not any more.
    pub(super) fn note_blocked(&self, is_blocked: bool) {
        let since = self.blocked.load(Ordering::Relaxed);
        if is_blocked && since == 0 {
            self.blocked.store(clock::coarse_millis().max(1), Ordering::Relaxed);
        } else if !is_blocked && since != 0 {
            self.blocked.store(0, Ordering::Relaxed);
            if self.kick() == Kick::Reader {
                self.kick.store(Kick::None as u8, Ordering::Relaxed);
            }
        }
    }

    /// The client was told this without a request.
    pub(super) fn note_refused(&self, status: StatusCode) {
        self.refused.store(status.as_u16(), Ordering::Relaxed);
    }

    /// What is kept to serve it is given back, or needed again.
    pub(super) fn note_rest(&self, rests: bool) {
        self.resting.store(rests, Ordering::Relaxed);
        if !rests && self.kick() == Kick::Rest {
            self.kick.store(Kick::None as u8, Ordering::Relaxed);
        }
    }

    /// What the client was told without a request.
    pub(super) fn refused(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.refused.load(Ordering::Relaxed)).ok()
    }

    /// What it is kicked for when nobody waits any more for the rest of its request, if there is one.
    fn half(&self) -> Option<Kick> {
        match self.wait() {
            Wait::Head => Some(Kick::Head),
            Wait::Body => Some(Kick::Body),
            Wait::First | Wait::Answer | Wait::Next | Wait::Other | Wait::Silence => None,
        }
    }

    /// For how long it has been waiting.
    pub(super) fn waited(&self) -> Duration {
        let since = self.since.load(Ordering::Relaxed);
        Duration::from_millis(clock::coarse_millis().saturating_sub(since))
    }

    /// A request was handed to the service.
    pub(super) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.extra.store(0, Ordering::Relaxed);
        self.unread.store(false, Ordering::Relaxed);
        self.fault.store(Fault::None as u8, Ordering::Relaxed);
        self.heads.note_end();
        self.set(Wait::Answer);
        self.began.store(self.since.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Nobody reads the rest of the body of the request in hand.
    pub(super) fn note_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may be speaking still: it is in a head that is none, or in a body that nobody
    /// reads.
    pub(super) fn may_be_heard(&self) -> bool {
        self.wait() == Wait::Head || self.unread.load(Ordering::Relaxed)
    }

    /// Something is wrong with the body of the request in hand.
    pub(super) fn note_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// What is wrong with the body of the request in hand.
    pub(super) fn fault(&self) -> Fault {
        match self.fault.load(Ordering::Relaxed) {
            0 => Fault::None,
            1 => Fault::TooLong,
            _ => Fault::Stalled,
        }
    }
}

/// All open connections of a worker.
#[derive(Debug)]
pub(super) struct Conns {
    timeouts: Timeouts,
    open: Mutex<Slab<Arc<Conn>>>,
    count: AtomicUsize,
    /// How many have begun to rest since memory was given back.
    rested: AtomicUsize,
    /// Where the master sees how many are open.
    board: Arc<WorkerBoard>,
    /// Where siblings see how many are open.
    place: Place,
    /// Told when one more or one less is open.
    pub(super) changed: Notify,
}

/// How long a connection may wait for what; zero: for ever.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    head: Duration,
    answer: Duration,
    body: Duration,
    idle: Duration,
}

/// How long a client may speak on that has been answered for the last time.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a connection is idle before it rests. To wake it costs a request some microseconds, which
/// clients that ask this seldom do not feel.
const REST: Duration = Duration::from_secs(1);

/// How many connections leave so much behind, some MiB, that it is worth to give it back.
const MANY: usize = 256;

impl Timeouts {
    fn overdue(&self, conn: &Conn, now: u64) -> Option<Kick> {
        let since = conn.since.load(Ordering::Relaxed);
        let began = conn.began.load(Ordering::Relaxed);
        let waited = |timeout: Duration, since: u64, extra: u64| {
            let allowed =
                u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).saturating_add(extra);
            !timeout.is_zero() && now.saturating_sub(since) >= allowed
        };
        let blocked = conn.blocked.load(Ordering::Relaxed);
        if blocked != 0 && waited(self.body, blocked, 0) {
            return Some(Kick::Reader);
        }
        let answer = || waited(self.answer, began, conn.extra.load(Ordering::Relaxed));
        match conn.wait() {
            Wait::First | Wait::Head => waited(self.head, since, 0).then_some(Kick::Head),
            Wait::Answer => answer().then_some(Kick::Answer),
            Wait::Body if answer() => Some(Kick::Answer),
            Wait::Body => waited(self.body, since, 0).then_some(Kick::Body),
            Wait::Next if waited(self.idle, since, 0) => Some(Kick::Idle),
            Wait::Next if conn.resting.load(Ordering::Relaxed) => None,
            Wait::Next => waited(REST, since, 0).then_some(Kick::Rest),
            Wait::Other => None,
            Wait::Silence => waited(SILENCE, since, 0).then_some(Kick::Silence),
        }
    }
}

impl Conns {
    pub(super) fn new(config: &Config, board: Arc<WorkerBoard>, place: Place) -> Self {
        Self {
            timeouts: Timeouts {
                head: config.limits.header_timeout,
                answer: config.timeout,
                body: config.limits.body_timeout,
                idle: config.keepalive,
            },
            open: Mutex::new(Slab::new()),
            count: AtomicUsize::new(0),
            rested: AtomicUsize::new(0),
            board,
            place,
            changed: Notify::new(),
        }
    }

    /// A connection was accepted.
    pub(super) fn enter(&self) -> Arc<Conn> {
        let mut open = self.lock();
        let place = open.vacant_entry();
        let conn = Arc::new(Conn::new(place.key(), clock::coarse_millis()));
        place.insert(Arc::clone(&conn));
        drop(open);
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        self.board.connection_opened();
        self.place.opened(before + 1);
        self.changed.notify_waiters();
        conn
    }

    /// It has ended.
    pub(super) fn leave(&self, conn: &Conn) {
        drop(self.lock().remove(conn.number));
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.board.connection_closed();
        self.place.closed();
        self.changed.notify_waiters();
    }

    /// One rests from now on.
    pub(super) fn note_rest(&self, conn: &Conn) {
        conn.note_rest(true);
        self.rested.fetch_add(1, Ordering::Relaxed);
    }

    /// For tests: how many rest.
    #[cfg(test)]
    pub(super) fn resting(&self) -> usize {
        self.lock().iter().filter(|(_, conn)| conn.resting.load(Ordering::Relaxed)).count()
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How often the sweep must look: four times in the shortest timeout, once a second at most.
    pub(super) fn interval(&self) -> Duration {
        let Timeouts { head, answer, body, idle } = self.timeouts;
        let shortest = [head, answer, body, idle].into_iter().filter(|it| !it.is_zero()).min();
        let quarter = shortest.map_or(Duration::from_secs(1), |it| it / 4);
        quarter.clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Kicks every connection that has waited too long, and gives back what many have left who rest.
    pub(super) fn sweep(&self) {
        if self.rested.load(Ordering::Relaxed) >= MANY {
            self.rested.store(0, Ordering::Relaxed);
            memory::give_back();
        }
        let now = clock::coarse_millis();
        for conn in self.lock().iter().map(|(_, conn)| conn) {
            if let Some(kick) = self.timeouts.overdue(conn, now) {
                conn.give(kick);
            }
        }
    }

    /// Kicks every connection that has had nothing to do for so long: not those whose first request has
    /// not come.
    pub(super) fn close_idle(&self, grace: Duration) {
        for (_, conn) in self.lock().iter() {
            if conn.wait() == Wait::Next && conn.waited() >= grace {
                conn.give(Kick::Idle);
            }
        }
    }

    /// Kicks every connection on which a request has come in by half.
    pub(super) fn refuse_halves(&self) {
        for (_, conn) in self.lock().iter() {
            if let Some(kick) = conn.half() {
                conn.give(kick);
            }
        }
    }

    /// On how many a request has come in by half.
    pub(super) fn halves(&self) -> usize {
        self.lock().iter().filter(|(_, conn)| conn.half().is_some()).count()
    }

    /// Kicks every connection that has been answered for the last time.
    pub(super) fn end_silence(&self) {
        for (_, conn) in self.lock().iter().filter(|(_, conn)| conn.wait() == Wait::Silence) {
            conn.give(Kick::Silence);
        }
    }

    /// How many are open on which something is still to be said.
    pub(super) fn unfinished(&self) -> usize {
        self.lock().iter().filter(|(_, conn)| conn.wait() != Wait::Silence).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slab<Arc<Conn>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "conns_tests.rs"]
mod tests;
