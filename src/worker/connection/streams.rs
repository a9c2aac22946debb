//! The further notes of a connection of HTTP/2: its open streams, and what its client sends beside requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::conns::{Conn, Wait};
use super::leak::{Leak, Level};
use crate::sys::clock;

/// Bytes of a body that a client may send ahead of its reader, in a stream and in all of a connection.
pub(crate) const STREAM_WINDOW: u32 = 128 << 10;
pub(crate) const CONNECTION_WINDOW: u32 = 256 << 10;
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
pub(crate) struct Streams {
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
    pub(crate) fn new() -> Self {
        let now = clock::coarse_millis();
        Self {
            counts: Mutex::default(),
            overhead: Mutex::new(Level::new(now)),
            resets: Mutex::new(Level::new(now)),
            heard_at: AtomicU64::new(now),
        }
    }

    /// A stream has begun on this connection.
    pub(crate) fn begin(&self, conn: &Conn) {
        let mut counts = lock(&self.counts);
        counts.open += 1;
        conn.set(Wait::Streams);
    }

    /// A stream of this connection is over.
    pub(crate) fn end(&self, conn: &Conn) {
        let mut counts = lock(&self.counts);
        counts.open = counts.open.saturating_sub(1);
        if counts.open == 0 && conn.wait() == Wait::Streams {
            conn.set(if counts.is_closing { Wait::Silence } else { Wait::Next });
        }
    }

    /// The client was told to begin no further stream.
    pub(crate) fn close(&self, conn: &Conn) {
        let mut counts = lock(&self.counts);
        counts.is_closing = true;
        if conn.wait() == Wait::Next {
            conn.set(Wait::Silence);
        }
    }

    pub(crate) fn is_goodbye_due(&self) -> bool {
        lock(&self.counts).is_goodbye_due
    }

    /// So many bytes came in. Returns false if too many of them are of no request.
    pub(crate) fn note_read(&self, bytes: usize) -> bool {
        let now = clock::coarse_millis();
        if bytes > 0 {
            // ORDERING: it stands for itself: Relaxed.
            self.heard_at.store(now, Ordering::Relaxed);
        }
        lock(&self.overhead).add(bytes as u64, OVERHEAD, now)
    }

    /// When the client last said anything.
    pub(crate) fn heard_at(&self) -> u64 {
        self.heard_at.load(Ordering::Relaxed)
    }

    /// Returns true if the client has given up too many requests.
    pub(crate) fn is_abused(&self) -> bool {
        lock(&self.counts).is_abused
    }

    /// So many bytes of fields were a request's.
    pub(crate) fn note_fields(&self, bytes: usize) {
        lock(&self.overhead).forgive(bytes as u64 + OF_REQUEST);
    }

    /// So many bytes were a request's body.
    pub(crate) fn note_body(&self, bytes: u64) {
        if bytes > 0 {
            lock(&self.overhead).forgive(bytes + OF_FRAME);
        }
    }

    /// A request's body will not be read, or no further; it may have so many bytes more. Those that the
    /// stream's window lets in are the request's all the same.
    pub(crate) fn note_unread(&self, rest: Option<u64>) {
        let window = u64::from(STREAM_WINDOW);
        self.note_body(rest.map_or(window, |rest| rest.min(window)));
    }

    /// So many bytes of an answer were handed over, which the client acknowledges.
    pub(crate) fn note_answer(&self, bytes: usize) {
        if bytes > 0 {
            lock(&self.overhead).forgive(bytes as u64 / SHARE_OF_ANSWER + OF_FRAME);
        }
    }

    /// The client gave up a request. Returns false if that has happened too often. It stays noted: a kick
    /// is taken back when the last stream ends, which may be the same one.
    pub(crate) fn note_reset(&self) -> bool {
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
    pub(crate) fn say_goodbye(&self) {
        if let Some(streams) = self.streams() {
            lock(&streams.counts).is_goodbye_due = true;
            self.kicked.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::conns::Kick;
    use super::*;
    use crate::worker::connection::budget::Budget;

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
