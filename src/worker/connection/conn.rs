//! The state of one connection: what it waits for, since when, and why it is ended.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Notify;

use super::budget::{self, Budget};
use super::heads::{Heads, TooLong};
use super::overdue::{self, State};
use super::rest::Rest;
use super::streams::Streams;
pub(crate) use super::waits::{Fault, Kick, Wait};
use crate::request::Connection;
use crate::request::client_certificate::ClientCertificate;
use crate::request::draining::Draining;
use crate::sys::clock;

/// Bytes that a head may have, and its first line alone, before hyper refuses it without a word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadRoom {
    pub(crate) line: usize,
    pub(crate) head: usize,
}

/// One open connection. Written by its own task, read by the sweep.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Its number among the open ones; used again when it is closed.
    pub(crate) number: usize,
    /// True if it is a stream of HTTP/2.
    pub(crate) is_stream: bool,
    wait: AtomicU8,
    /// Since when, in milliseconds of the monotonic clock.
    pub(super) since: AtomicU64,
    /// When bytes came in last behind a head.
    read_at: AtomicU64,
    /// Since when, besides, a write waits for the client to read; 0: none does. Of its own: requests
    /// may come in, and be answered, behind an answer that is not taken.
    blocked: AtomicU64,
    /// Bytes that hyper was given or has offered, and that the kernel has not taken.
    unwritten: AtomicU64,
    /// Since when the client has finished sending while a request is in hand, as far as it has read
    /// nothing since; 0: it has not.
    finished: AtomicU64,
    /// When the request in hand began, and how many milliseconds more its handler has asked for.
    began: AtomicU64,
    extra: AtomicU64,
    /// Milliseconds that the body of the request in hand has taken beyond those of its bytes.
    unpaid: AtomicU64,
    /// Microseconds that it waited to be accepted, and one more, until its first request; 0: unknown.
    queue_wait: AtomicU64,
    /// Requests by now.
    requests: AtomicU64,
    kick: AtomicU8,
    fault: AtomicU8,
    /// The status that the client was told without a request; 0: none.
    /// Above its 16 bits stands the length of the body that it came with.
    refused: AtomicU64,
    /// True if what is kept to serve it was given back.
    resting: AtomicBool,
    pub(super) rest: Rest,
    /// Wakes the connection's task after a kick.
    pub(crate) kicked: Notify,
    /// True if the client may be sending a body that is not read.
    unread: AtomicBool,
    /// Bytes that TLS has decrypted, and that hyper has not read.
    buffered: AtomicU64,
    /// True if the client was offered a part of the answer that it has not taken.
    offered: AtomicBool,
    /// The further notes of a connection of HTTP/2.
    streams: OnceLock<Box<Streams>>,
    /// The certificate that the client has shown.
    certificate: OnceLock<ClientCertificate>,
    /// The part of its bytes that has been understood.
    pub(crate) heads: Heads,
    /// The size of its unfinished request in the worker's budget.
    held: AtomicU64,
    budget: Arc<Budget>,
    /// For handlers.
    pub(crate) draining: Draining,
}

impl Conn {
    pub(crate) fn new(number: usize, now: u64, budget: Arc<Budget>, draining: Draining) -> Self {
        Self {
            number,
            is_stream: false,
            wait: AtomicU8::new(Wait::First as u8),
            since: AtomicU64::new(now),
            read_at: AtomicU64::new(now),
            blocked: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            began: AtomicU64::new(now),
            extra: AtomicU64::new(0),
            unpaid: AtomicU64::new(0),
            queue_wait: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            fault: AtomicU8::new(Fault::None as u8),
            kick: AtomicU8::new(Kick::None as u8),
            refused: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            rest: Rest::default(),
            kicked: Notify::new(),
            unread: AtomicBool::new(false),
            buffered: AtomicU64::new(0),
            offered: AtomicBool::new(false),
            streams: OnceLock::new(),
            certificate: OnceLock::new(),
            heads: Heads::default(),
            held: AtomicU64::new(0),
            budget,
            draining,
        }
    }

    // ORDERING: each value stands for itself, and a sweep that reads a stale one looks again: Relaxed.

    /// The connection waits for something else from now on. What it was kicked for before does not
    /// matter any more.
    pub(crate) fn set(&self, wait: Wait) {
        self.since.store(clock::coarse_millis(), Ordering::Relaxed);
        self.wait.store(wait as u8, Ordering::Relaxed);
        if self.kick() != Kick::None {
            self.kick.store(Kick::None as u8, Ordering::Relaxed);
        }
    }

    /// Its TLS handshake begins. The time runs from the beginning of the connection.
    pub(crate) fn set_handshake(&self) {
        self.wait.store(Wait::Handshake as u8, Ordering::Relaxed);
    }

    /// Waits until it is kicked for this.
    pub(crate) async fn is_kicked_for(&self, kick: Kick) {
        while self.kick() != kick {
            self.kicked.notified().await;
        }
    }

    /// It speaks HTTP/2.
    pub(crate) fn set_http2(&self) {
        self.streams.get_or_init(|| Box::new(Streams::new()));
    }

    /// The further notes of a connection of HTTP/2.
    pub(crate) fn streams(&self) -> Option<&Streams> {
        self.streams.get().map(|streams| &**streams)
    }

    /// Notes whether the client was offered a part of the answer, which it must take before the next.
    pub(crate) fn note_offered(&self, is_offered: bool) {
        self.offered.store(is_offered, Ordering::Relaxed);
    }

    /// Returns true if the client was offered a part of the answer.
    pub(crate) fn is_offered(&self) -> bool {
        self.offered.load(Ordering::Relaxed)
    }

    /// Notes the certificate that the client has shown.
    pub(crate) fn set_certificate(&self, certificate: ClientCertificate) {
        // A connection has one handshake.
        let _first = self.certificate.set(certificate);
    }

    /// Notes the bytes that TLS has decrypted, and that hyper has not read.
    pub(crate) fn note_buffered(&self, bytes: usize) {
        self.buffered.store(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that TLS has decrypted, and that hyper has not read.
    pub(crate) fn buffered(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Returns the event that it waits for.
    pub(crate) fn wait(&self) -> Wait {
        Wait::of(self.wait.load(Ordering::Relaxed))
    }

    /// Why it was kicked, if it was.
    pub(crate) fn kick(&self) -> Kick {
        Kick::of(self.kick.load(Ordering::Relaxed))
    }

    /// Returns the facts that decide if it has waited for too long.
    pub(crate) fn state(&self) -> State {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let present = |value: &AtomicU64| Some(load(value)).filter(|since| *since != 0);
        State {
            wait: self.wait(),
            since: load(&self.since),
            blocked: present(&self.blocked),
            finished: present(&self.finished),
            began: load(&self.began),
            extra: load(&self.extra),
            unpaid: load(&self.unpaid),
            is_resting: self.is_resting(),
        }
    }

    /// The number of the request in hand.
    pub(crate) fn request(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The certificate that the client has shown.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.get()
    }

    pub(crate) fn give(&self, kick: Kick) {
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
    pub(crate) fn note_read<'a>(
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
        if self.heads.is_ahead() {
            self.read_at.store(clock::coarse_millis(), Ordering::Relaxed);
        }
        match wait {
            Wait::First | Wait::Next | Wait::Head => {}
            Wait::Answer
            | Wait::Body
            | Wait::Other
            | Wait::Silence
            | Wait::Handshake
            | Wait::Streams => return Ok(&[]),
        }
        let line = self.heads.note_line(bytes, room.line)?;
        let is_within = self.hold(budget::of_head(unfinished));
        if !is_within {
            self.kick.store(Kick::Budget as u8, Ordering::Relaxed);
        }
        let is_refused = !is_within || unfinished > 0 && self.kick() == Kick::Budget;
        if is_refused || unfinished > room.head as u64 { Err(TooLong::Head) } else { Ok(line) }
    }

    /// Its unfinished request counts for so many bytes. Returns false if it must not grow.
    pub(crate) fn hold(&self, bytes: u64) -> bool {
        let before = self.held();
        if before == bytes {
            return true;
        }
        self.held.store(bytes, Ordering::Relaxed);
        self.budget.change(before, bytes)
    }

    /// So many bytes of the request's body have come, of which more are to come. Returns false if there
    /// is no memory for them.
    pub(crate) fn hold_body(&self, bytes: u64) -> bool {
        self.hold(budget::of_body(bytes))
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns true if a write waits for the client.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) != 0
    }

    /// A write waits for the client, or does not any more.
    pub(crate) fn note_blocked(&self, is_blocked: bool) {
        let since = self.blocked.load(Ordering::Relaxed);
        if is_blocked && since == 0 {
            self.blocked.store(clock::coarse_millis().max(1), Ordering::Relaxed);
        } else if !is_blocked && since != 0 {
            self.blocked.store(0, Ordering::Relaxed);
            if self.finished.load(Ordering::Relaxed) != 0 {
                // It reads on.
                self.finished.store(clock::coarse_millis().max(1), Ordering::Relaxed);
            }
            if self.kick() == Kick::Reader {
                self.kick.store(Kick::None as u8, Ordering::Relaxed);
            }
        }
    }

    /// Notes that hyper was given so many bytes of a body.
    pub(crate) fn note_handed(&self, bytes: usize) {
        let unwritten = self.unwritten().saturating_add(bytes as u64);
        self.unwritten.store(unwritten, Ordering::Relaxed);
    }

    /// Notes that of all the bytes that hyper has to write, so many are left.
    pub(crate) fn note_unwritten(&self, bytes: usize) {
        self.unwritten.store(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that are still to be written, with those of heads and of chunks' frames.
    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Notes that the client has finished sending: it has sent its FIN.
    pub(crate) fn note_finished(&self) {
        if self.finished.load(Ordering::Relaxed) == 0 {
            self.finished.store(clock::coarse_millis().max(1), Ordering::Relaxed);
        }
    }

    /// The client was told this without a request.
    pub(crate) fn note_refused(&self, status: StatusCode, bytes: usize) {
        let refused = u64::from(status.as_u16()) | (bytes as u64) << 16;
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// The buffers that serve it are given back, or needed again.
    pub(crate) fn note_rest(&self, rests: bool) {
        self.resting.store(rests, Ordering::Relaxed);
        if !rests && self.kick() == Kick::Rest {
            self.kick.store(Kick::None as u8, Ordering::Relaxed);
        }
    }

    /// Returns true if what is kept to serve it was given back.
    pub(crate) fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    /// Takes the answer that the client was given without a request.
    pub(crate) fn refused(&self) -> Option<(StatusCode, u64)> {
        let refused = self.refused.load(Ordering::Relaxed);
        let status = u16::try_from(refused & 0xffff).ok()?;
        Some((StatusCode::from_u16(status).ok()?, refused >> 16))
    }

    /// Returns the kick for a connection whose unfinished request nothing waits for any more, if there
    /// is one.
    pub(crate) fn half(&self) -> Option<Kick> {
        match self.wait() {
            Wait::Head => Some(Kick::Head),
            Wait::Body => Some(Kick::Body),
            Wait::First
            | Wait::Answer
            | Wait::Next
            | Wait::Other
            | Wait::Silence
            | Wait::Handshake
            | Wait::Streams => None,
        }
    }

    /// Notes how long it waited to be accepted.
    pub(crate) fn note_queue_wait(&self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.queue_wait.store(micros.saturating_add(1), Ordering::Relaxed);
    }

    /// Returns the time that it waited to be accepted, for its first request; `None` for others.
    pub(crate) fn take_queue_wait(&self) -> Option<Duration> {
        let micros = self.queue_wait.load(Ordering::Relaxed).checked_sub(1)?;
        self.queue_wait.store(0, Ordering::Relaxed);
        Some(Duration::from_micros(micros))
    }

    /// When the request in hand began, later by every wait for its body.
    pub(crate) fn began(&self) -> u64 {
        self.began.load(Ordering::Relaxed)
    }

    /// For how long the handler of a request that began at this time has waited for its body.
    pub(crate) fn body_waited(&self, began: u64) -> Duration {
        let over = Duration::from_millis(self.began().saturating_sub(began));
        if self.wait() == Wait::Body { over + self.waited() } else { over }
    }

    /// For how long it has been waiting.
    pub(crate) fn waited(&self) -> Duration {
        let since = self.since.load(Ordering::Relaxed);
        Duration::from_millis(clock::coarse_millis().saturating_sub(since))
    }

    /// A request was handed to the service.
    pub(crate) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.extra.store(0, Ordering::Relaxed);
        self.unpaid.store(0, Ordering::Relaxed);
        self.unread.store(false, Ordering::Relaxed);
        self.fault.store(Fault::None as u8, Ordering::Relaxed);
        self.heads.note_end();
        self.set(Wait::Answer);
        self.began.store(self.since.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Notes that the request in hand, whose body has this length or came in chunks, was answered. The
    /// next head may have begun behind it; its time runs from its first byte.
    pub(crate) fn note_answered(&self, body: Option<u64>) {
        let is_unread = self.unread.load(Ordering::Relaxed);
        self.rest.note_answered(self.heads.is_whole(body, is_unread));
        if !is_unread && self.heads.take_begun(body) {
            self.set(Wait::Head);
            self.since.store(self.read_at.load(Ordering::Relaxed), Ordering::Relaxed);
        } else {
            self.set(Wait::Next);
        }
    }

    /// Notes that so many bytes of the body came in, or its end. The time in which the handler has
    /// waited for them is not the handler's.
    pub(crate) fn note_body(&self, bytes: u64) {
        let (since, now) = (self.since.load(Ordering::Relaxed), clock::coarse_millis());
        let is_waited_for = self.wait() == Wait::Body;
        let waited = if is_waited_for { now.saturating_sub(since) } else { 0 };
        let before = self.unpaid.load(Ordering::Relaxed);
        self.unpaid.store(overdue::unpaid(before, waited, bytes), Ordering::Relaxed);
        if is_waited_for {
            let began = self.began.load(Ordering::Relaxed).saturating_add(waited);
            self.began.store(began, Ordering::Relaxed);
            self.set(Wait::Answer);
        }
    }

    /// Nothing reads the rest of the body of the request in hand.
    pub(crate) fn note_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Returns true if the client may be speaking still: it is in a head that is none, or in a body
    /// that nothing reads.
    pub(crate) fn may_be_heard(&self) -> bool {
        self.wait() == Wait::Head || self.unread.load(Ordering::Relaxed)
    }

    /// Something is wrong with the body of the request in hand.
    pub(crate) fn note_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// Returns the fault of the body of the request in hand.
    pub(crate) fn fault(&self) -> Fault {
        Fault::of(self.fault.load(Ordering::Relaxed))
    }
}

impl Connection for Conn {
    fn extend(&self, request: u64, by: Duration) {
        if request != self.request() {
            return;
        }
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.extra.fetch_add(millis, Ordering::Relaxed);
    }

    fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate()
    }

    fn draining(&self) -> &Draining {
        &self.draining
    }
}

#[cfg(test)]
#[path = "conn_tests.rs"]
mod tests;
