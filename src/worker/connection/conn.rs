//! One open connection: its machine behind a lock, and what its task and the sweep share beside that.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Notify;

use super::budget::{self, Budget};
use super::heads::{HeadRoom, TooLong};
use super::machine::Machine;
use super::streams::Streams;
pub(crate) use super::waits::{CloseReason, Fault, Wait};
use crate::request::Connection;
use crate::request::client_certificate::ClientCertificate;
use crate::request::draining::Draining;
use crate::sys::clock;

/// One open connection, or one stream of HTTP/2.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Its number among the open ones; used again when it is closed.
    pub(crate) number: usize,
    /// True if it is a stream of HTTP/2.
    pub(crate) is_stream: bool,
    machine: Mutex<Machine>,
    /// The part of the machine's state that is read most often, which takes no lock.
    shown: AtomicU32,
    /// Wakes the connection's task when there is a reason to end it.
    pub(crate) woken: Notify,
    /// Bytes that hyper was given or has offered, and that the kernel has not taken.
    unwritten: AtomicU64,
    /// Microseconds that it waited to be accepted, and one more, until its first request; 0: unknown.
    queue_wait: AtomicU64,
    /// The status that the client was told without a request; 0: none.
    /// Above its 16 bits stands the length of the body that it came with.
    refused: AtomicU64,
    /// Bytes that TLS has decrypted, and that hyper has not read.
    buffered: AtomicU64,
    /// True if the client was offered a part of the answer that it has not taken.
    offered: AtomicBool,
    /// The certificate that the client has shown.
    certificate: OnceLock<ClientCertificate>,
    /// The size of its unfinished request in the worker's budget.
    held: AtomicU64,
    budget: Arc<Budget>,
    /// For handlers.
    pub(crate) draining: Draining,
}

/// Bits of `shown` above those of the wait and of the reason to close.
const BLOCKED: u32 = 1 << 16;
const MULTIPLEXED: u32 = 1 << 17;

fn shown(machine: &Machine) -> u32 {
    let reason = machine.reason().map_or(0, |reason| reason as u32);
    let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
    machine.wait() as u32
        | reason << 8
        | flag(machine.is_blocked(), BLOCKED)
        | flag(machine.is_multiplexed(), MULTIPLEXED)
}

// ORDERING: each value stands for itself, and a task that is woken looks again: Relaxed.
impl Conn {
    pub(crate) fn new(
        number: usize,
        machine: Machine,
        budget: Arc<Budget>,
        draining: Draining,
    ) -> Self {
        Self {
            number,
            is_stream: machine.is_stream(),
            shown: AtomicU32::new(shown(&machine)),
            machine: Mutex::new(machine),
            woken: Notify::new(),
            unwritten: AtomicU64::new(0),
            queue_wait: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            buffered: AtomicU64::new(0),
            offered: AtomicBool::new(false),
            certificate: OnceLock::new(),
            held: AtomicU64::new(0),
            budget,
            draining,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the machine note a fact, or decide something.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut Machine) -> R) -> R {
        let mut machine = self.lock();
        let result = change(&mut machine);
        self.shown.store(shown(&machine), Ordering::Relaxed);
        result
    }

    /// Has the machine note a fact with its time.
    pub(crate) fn note<R>(&self, fact: impl FnOnce(&mut Machine, u64) -> R) -> R {
        let now = clock::coarse_millis();
        self.with(|machine| fact(machine, now))
    }

    /// Has the streams of a connection of HTTP/2 note a fact with its time.
    pub(crate) fn note_streams<R>(&self, fact: impl FnOnce(&mut Streams, u64) -> R) -> Option<R> {
        if !self.is_multiplexed() {
            return None;
        }
        self.note(|machine, now| machine.streams().map(|streams| fact(streams, now)))
    }

    fn shown_bytes(&self) -> [u8; 4] {
        self.shown.load(Ordering::Relaxed).to_le_bytes()
    }

    /// Returns what it waits for.
    pub(crate) fn wait(&self) -> Wait {
        Wait::of(self.shown_bytes()[0])
    }

    /// Returns why it is to end or to park.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        CloseReason::of(self.shown_bytes()[1])
    }

    /// Returns true if there is this reason to end it.
    pub(crate) fn is_closed_for(&self, reason: CloseReason) -> bool {
        self.reason() == Some(reason)
    }

    /// Returns the fault of the body of the request in hand.
    pub(crate) fn fault(&self) -> Fault {
        self.lock().fault()
    }

    /// Returns true if it speaks HTTP/2.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.shown.load(Ordering::Relaxed) & MULTIPLEXED != 0
    }

    /// Returns true if a write waits for the client.
    pub(crate) fn is_blocked(&self) -> bool {
        self.shown.load(Ordering::Relaxed) & BLOCKED != 0
    }

    /// Has the machine decide by the time or the worker's state if the task is to be woken, and wakes it.
    pub(crate) fn decide(&self, decision: impl FnOnce(&mut Machine) -> bool) -> bool {
        let is_new = self.with(decision);
        if is_new {
            self.woken.notify_one();
        }
        is_new
    }

    /// Ends it, or has it park.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.decide(|machine| machine.close(reason));
    }

    /// Has a client of HTTP/2 begin no further request on this connection.
    pub(crate) fn say_goodbye(&self) {
        if self.note_streams(|streams, _| streams.is_goodbye_due = true).is_some() {
            self.woken.notify_one();
        }
    }

    /// Waits until there is this reason to end it.
    pub(crate) async fn until_closed_for(&self, reason: CloseReason) {
        while !self.is_closed_for(reason) {
            self.woken.notified().await;
        }
    }

    /// For how long it has been in its state.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_millis(self.note(|machine, now| machine.waited(now)))
    }

    /// Bytes came in.
    ///
    /// # Errors
    /// When they are of a head that is longer than allowed.
    pub(crate) fn note_read(&self, bytes: &[u8], room: HeadRoom) -> Result<(), TooLong> {
        let Some(held) = self.note(|machine, now| machine.read(bytes, room, now))? else {
            return Ok(());
        };
        if self.hold(held) {
            return Ok(());
        }
        self.with(|machine| machine.close(CloseReason::Budget));
        Err(TooLong::Head)
    }

    /// A write waits for the client, or does not any more.
    pub(crate) fn note_blocked(&self, is_blocked: bool) {
        if self.is_blocked() != is_blocked {
            self.note(|machine, now| machine.blocked(is_blocked, now));
        }
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

    /// The certificate that the client has shown.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.get()
    }

    /// Notes the bytes that TLS has decrypted, and that hyper has not read.
    pub(crate) fn note_buffered(&self, bytes: usize) {
        self.buffered.store(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that TLS has decrypted, and that hyper has not read.
    pub(crate) fn buffered(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
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

    /// The client was told this without a request.
    pub(crate) fn note_refused(&self, status: StatusCode, bytes: usize) {
        let refused = u64::from(status.as_u16()) | (bytes as u64) << 16;
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// Takes the answer that the client was given without a request.
    pub(crate) fn refused(&self) -> Option<(StatusCode, u64)> {
        let refused = self.refused.load(Ordering::Relaxed);
        let status = u16::try_from(refused & 0xffff).ok()?;
        Some((StatusCode::from_u16(status).ok()?, refused >> 16))
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
}

impl Connection for Conn {
    fn extend(&self, request: u64, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.with(|machine| machine.extended(request, millis));
    }

    fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate()
    }

    fn draining(&self) -> &Draining {
        &self.draining
    }
}
