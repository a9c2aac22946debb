//! The further state of a connection of HTTP/2: its open streams, and what its client sends beside requests.

use super::leak::{Leak, Level};

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

/// The streams of a connection of HTTP/2.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) open: usize,
    /// The client is to be told to begin no further stream.
    pub(crate) is_goodbye_due: bool,
    /// The client was told to begin no further stream.
    pub(crate) is_closing: bool,
    /// The client has given up too many requests. It stays so: the reason to close is taken back when the
    /// last stream ends, which may be the same one.
    pub(crate) is_abused: bool,
    overhead: Level,
    resets: Level,
    /// When its client last sent anything.
    pub(crate) heard_at: u64,
}

impl Streams {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            open: 0,
            is_goodbye_due: false,
            is_closing: false,
            is_abused: false,
            overhead: Level::new(now),
            resets: Level::new(now),
            heard_at: now,
        }
    }

    /// So many bytes came in. Returns false if too many of them are of no request.
    pub(crate) fn note_read(&mut self, bytes: usize, now: u64) -> bool {
        if bytes > 0 {
            self.heard_at = now;
        }
        self.overhead.add(bytes as u64, OVERHEAD, now)
    }

    /// So many bytes of fields were a request's.
    pub(crate) fn note_fields(&mut self, bytes: usize) {
        self.overhead.forgive(bytes as u64 + OF_REQUEST);
    }

    /// So many bytes were a request's body.
    pub(crate) fn note_body(&mut self, bytes: u64) {
        if bytes > 0 {
            self.overhead.forgive(bytes + OF_FRAME);
        }
    }

    /// A request's body will not be read, or no further; it may have so many bytes more. Those that the
    /// stream's window lets in are the request's all the same.
    pub(crate) fn note_unread(&mut self, rest: Option<u64>) {
        let window = u64::from(STREAM_WINDOW);
        self.note_body(rest.map_or(window, |rest| rest.min(window)));
    }

    /// So many bytes of an answer were handed over, which the client acknowledges.
    pub(crate) fn note_answer(&mut self, bytes: usize) {
        if bytes > 0 {
            self.overhead.forgive(bytes as u64 / SHARE_OF_ANSWER + OF_FRAME);
        }
    }

    /// The client gave up a request. Returns false if that has happened too often.
    pub(crate) fn note_reset(&mut self, now: u64) -> bool {
        let is_fine = self.resets.add(1, RESETS, now);
        self.is_abused |= !is_fine;
        is_fine
    }
}
