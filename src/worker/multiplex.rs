//! HTTP/2: a connection with many requests at once.
//!
//! # A stream is noted like a connection
//! The notes that a connection of HTTP/1.1 has of its one request (what that waits for and since
//! when, its place on the board, its memory) a stream has of its own, so that each has the timeouts, the
//! access line and the record of a request of HTTP/1.1. The connection notes only that streams are open.
//!
//! # The end
//! hyper sends GOAWAY twice: at once with the highest number there is, and with the last stream that
//! was begun when the client has answered a ping in between. Requests that were on their way are
//! served; later ones the client knows to be unprocessed.
//!
//! # What is limited where
//! hyper and h2 bound open streams, header lists, CONTINUATION frames, streams that are reset before
//! they are accepted, and each window. Here are bounded: streams that are reset later, and everything
//! that a client sends beside requests and bodies (PING, SETTINGS, PRIORITY, empty frames, small window
//! updates).

#[cfg(feature = "http2")]
mod farewell;
#[cfg(feature = "http2")]
mod serve;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::ReadBuf;

use super::conns::{Conn, Kick, Wait};
use super::io::Watched;
use super::leak::{Leak, Level};
use super::own::Own;
use super::ticket::{Account, Departing, Entry, Ticket};
use crate::logging::Outcome;
use crate::sys::clock;

/// The beginning of a client that knows that a server speaks HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// Bytes of a body that a client may send ahead of its reader, in a stream and in all of a connection.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of an answer that wait in a stream for its client.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes of one frame, of either side: the least that HTTP/2 has (RFC 9113 section 6.5.2).
const FRAME: usize = 16 << 10;
/// Streams that are reset before they are accepted, and for errors, before the connection ends.
const EARLY_RESETS_MAX: usize = 32;
const ERRORS_MAX: usize = 256;
/// Streams that a client may reset whose requests were begun.
const RESETS: Leak = Leak { capacity: 200, per_second: 50 };
/// Bytes beside requests and bodies. Bodies that no handler has read yet are among what came in: as
/// many as the window of the connection lets in.
const OVERHEAD: Leak =
    Leak { capacity: CONNECTION_WINDOW as u64 + (128 << 10), per_second: 8 << 10 };
/// Bytes that go with a request (frames of it, of its window and its priority), with a frame of its
/// body, and with the windows of its answer, as shares of that.
const OF_REQUEST: u64 = 256;
const OF_FRAME: u64 = 32;
const SHARE_OF_ANSWER: u64 = 16;

/// The further notes of a connection of HTTP/2.
#[derive(Debug)]
pub(super) struct Streams {
    counts: Mutex<Counts>,
    overhead: Mutex<Level>,
    resets: Mutex<Level>,
    /// When its client last said anything, in milliseconds of the monotonic clock.
    heard_at: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    /// The client is to be told to begin no further stream.
    is_goodbye_due: bool,
    /// The client was told to begin no further stream.
    is_closing: bool,
    /// The client has given up too many requests.
    is_abused: bool,
}

impl Streams {
    pub(super) fn new() -> Self {
        let now = clock::coarse_millis();
        Self {
            counts: Mutex::default(),
            overhead: Mutex::new(Level::new(now)),
            resets: Mutex::new(Level::new(now)),
            heard_at: AtomicU64::new(now),
        }
    }

    /// A stream has begun on this connection.
    pub(super) fn begin(&self, conn: &Conn) {
        let mut counts = lock(&self.counts);
        counts.open += 1;
        conn.set(Wait::Streams);
    }

    /// A stream of this connection is over.
    pub(super) fn end(&self, conn: &Conn) {
        let mut counts = lock(&self.counts);
        counts.open = counts.open.saturating_sub(1);
        if counts.open == 0 && conn.wait() == Wait::Streams {
            conn.set(if counts.is_closing { Wait::Silence } else { Wait::Next });
        }
    }

    /// The client was told to begin no further stream.
    fn close(&self, conn: &Conn) {
        let mut counts = lock(&self.counts);
        counts.is_closing = true;
        if conn.wait() == Wait::Next {
            conn.set(Wait::Silence);
        }
    }

    fn is_goodbye_due(&self) -> bool {
        lock(&self.counts).is_goodbye_due
    }

    /// So many bytes came in. Returns false if too many of them are of no request.
    pub(super) fn note_read(&self, bytes: usize) -> bool {
        let now = clock::coarse_millis();
        if bytes > 0 {
            // ORDERING: it stands for itself: Relaxed.
            self.heard_at.store(now, Ordering::Relaxed);
        }
        lock(&self.overhead).add(bytes as u64, OVERHEAD, now)
    }

    /// When the client last said anything.
    fn heard_at(&self) -> u64 {
        self.heard_at.load(Ordering::Relaxed)
    }

    /// Returns true if the client has given up too many requests.
    fn is_abused(&self) -> bool {
        lock(&self.counts).is_abused
    }

    /// So many bytes of fields were a request's.
    pub(super) fn note_fields(&self, bytes: usize) {
        lock(&self.overhead).forgive(bytes as u64 + OF_REQUEST);
    }

    /// So many bytes were a request's body.
    pub(super) fn note_body(&self, bytes: u64) {
        if bytes > 0 {
            lock(&self.overhead).forgive(bytes + OF_FRAME);
        }
    }

    /// A request's body will not be read, or no further; it may have so many bytes more. Those that the
    /// stream's window lets in are the request's all the same.
    pub(super) fn note_unread(&self, rest: Option<u64>) {
        let window = u64::from(STREAM_WINDOW);
        self.note_body(rest.map_or(window, |rest| rest.min(window)));
    }

    /// So many bytes of an answer were handed over, which the client acknowledges.
    fn note_answer(&self, bytes: usize) {
        if bytes > 0 {
            lock(&self.overhead).forgive(bytes as u64 / SHARE_OF_ANSWER + OF_FRAME);
        }
    }

    /// The client gave up a request. Returns false if that has happened too often. It stays noted: a kick
    /// is taken back when the last stream ends, which may be the same one.
    pub(super) fn note_reset(&self) -> bool {
        let is_fine = lock(&self.resets).add(1, RESETS, clock::coarse_millis());
        if !is_fine {
            lock(&self.counts).is_abused = true;
        }
        is_fine
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Conn {
    /// Has a client of HTTP/2 begin no further request on this connection.
    pub(super) fn say_goodbye(&self) {
        if let Some(streams) = self.streams() {
            lock(&streams.counts).is_goodbye_due = true;
            self.kicked.notify_one();
        }
    }
}

impl Watched {
    /// Reads what a client begins with: nothing of it is handed on as long as it may be the preface of
    /// HTTP/2.
    pub(super) fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            ready!(self.stream.poll_read(cx, buffer))?;
            let read = &buffer.filled()[before..];
            let (begun, expected) = PREFACE.split_at(self.preface);
            let length = read.len().min(expected.len());
            if read.is_empty() || read[..length] != expected[..length] {
                if self.preface > 0 {
                    self.preface = 0;
                    self.stream.put_back(BytesMut::from(read));
                    buffer.set_filled(before);
                    buffer.put_slice(begun);
                }
                return Poll::Ready(Ok(()));
            }
            if length == expected.len() {
                let bytes = BytesMut::from_iter(begun.iter().chain(read));
                buffer.set_filled(before);
                if !self.entry.server.http2.enabled {
                    // hyper would say nothing.
                    return self.refuse(cx, Own::Malformed);
                }
                self.begin_frames(bytes);
                return Poll::Ready(Ok(()));
            }
            self.preface += length;
            buffer.set_filled(before);
        }
    }

    /// Reads frames of HTTP/2, as long as not too many of them are of no request.
    pub(super) fn read_frames(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = self.stream.poll_read(cx, buffer);
        let conn = &self.entry.conn;
        let read = buffer.filled().len() - before;
        if read > 0 && conn.wait() == Wait::Silence {
            // The client takes what is left of its answers.
            conn.set(Wait::Silence);
        }
        let is_over =
            conn.streams().is_some_and(|streams| !streams.note_read(read) || streams.is_abused());
        if is_over {
            conn.give(Kick::Abuse);
            self.entry.server.warn_of_flood(self.entry.peer);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        result
    }
}

/// Streams as entries of their own.
impl Entry {
    /// A stream of HTTP/2 has begun on this connection.
    pub(super) fn stream(connection: &Arc<Self>) -> Self {
        let server = &connection.server;
        let conn = server.conns.enter_stream();
        let certificate = connection.conn.certificate().cloned();
        certificate.into_iter().for_each(|certificate| conn.set_certificate(certificate));
        if let Some(streams) = connection.conn.streams() {
            streams.begin(&connection.conn);
        }
        Self {
            conn,
            server: Arc::clone(server),
            peer: connection.peer,
            credentials: connection.credentials,
            listener: connection.listener.clone(),
            departing: Mutex::default(),
            resting: Mutex::default(),
            upgrade: Mutex::default(),
            connection: Some(Arc::clone(connection)),
            ended: Mutex::default(),
        }
    }

    /// The connection, of a stream of HTTP/2.
    pub(super) fn connection(&self) -> Option<&Conn> {
        self.connection.as_ref().map(|connection| &*connection.conn)
    }

    /// All that was handed to the connection of these streams is with the kernel.
    pub(super) fn settle(&self) {
        for stream in self.take_ended() {
            stream.note_flushed();
        }
    }

    pub(super) fn take_ended(&self) -> Vec<Arc<Self>> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The request of this stream is over: it is told of when the connection has nothing left to write.
    pub(super) fn end_stream(self: &Arc<Self>) {
        let Some(connection) = &self.connection else { return };
        if matches!(*connection.lock(), Departing::Closed) {
            return self.close();
        }
        connection.ended.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(self));
        connection.conn.kicked.notify_one();
    }
}

impl Ticket {
    /// Notes that the client has given up its request, if it has.
    pub(super) fn note_reset(&self, account: &Account) {
        let Some(connection) = self.connection() else { return };
        let is_given_up = matches!(account.outcome, Outcome::Aborted(_));
        if let Some(streams) = connection.streams()
            && is_given_up
            && !streams.note_reset()
        {
            connection.give(Kick::Abuse);
        }
    }
}

#[cfg(not(feature = "http2"))]
impl super::server::Server {
    /// No client is served HTTP/2 by a program without it: `http2.enabled` is false there.
    pub(super) async fn multiplex(self: &Arc<Self>, _: Watched, _: crate::request::client::Client) {
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::budget::Budget;

    /// The end of the last stream takes a kick back; the flood was one all the same.
    #[test]
    fn flood_of_resets_outlives_its_last_stream() {
        let conn = Conn::new(0, 0, Arc::new(Budget::new(1 << 20)), Default::default());
        conn.set_http2();
        let streams = conn.streams().expect("it speaks HTTP/2");
        streams.begin(&conn);
        assert!((0..RESETS.capacity).all(|_| streams.note_reset()));
        assert!(!streams.is_abused());
        while streams.note_reset() {}
        conn.give(Kick::Abuse);
        streams.end(&conn);
        assert_eq!((conn.kick(), streams.is_abused()), (Kick::None, true));
    }
}
