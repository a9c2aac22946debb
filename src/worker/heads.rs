//! How much of what was read on a connection has been understood.
//!
//! # Why
//! hyper keeps what it has read ahead to itself. But whether a further request waits behind the one
//! that is being answered decides whether `Connection: close` may be said: it would cut that request
//! off. So heads are counted as they come in, by their empty lines. A body may contain empty lines too,
//! then too many are counted, and the connection is closed by its idle grace instead: late, never early.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// The bytes of a connection. Written by its own task.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Heads that came in whole.
    heads: AtomicU64,
    /// Bytes since the end of the last whole head.
    tail: AtomicU64,
    /// Whether the last byte was the end of a line.
    at_line_start: AtomicU8,
    /// Requests that were handed to the service.
    requests: AtomicU64,
    /// Bytes of the request line that is coming in; [`WHOLE`] when it has come.
    line: AtomicU64,
}

/// There is no request line, or all of it.
const WHOLE: u64 = u64::MAX;

/// A head does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLong {
    /// Its request line.
    Line,
    /// All of it.
    Head,
}

// ORDERING: each value is for the connection's own task: Relaxed.
impl Heads {
    /// A request was handed to the service, or its body has ended like a head does.
    pub(super) fn note_end(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a further request has begun to come in behind the last one, whose body has (or had)
    /// this length.
    pub(super) fn has_more(&self, body: u64) -> bool {
        let heads = self.heads.load(Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed);
        heads > requests || self.tail.load(Ordering::Relaxed) > body
    }

    /// The next byte is the first one of a head.
    pub(super) fn begin(&self) {
        self.line.store(0, Ordering::Relaxed);
    }

    /// Bytes of a head came in. What hyper has read ahead of it is not counted: a line that is too long
    /// is found late then, or by hyper.
    ///
    /// # Errors
    /// When they belong to a request line of more than `max` bytes.
    pub(super) fn note_line(&self, bytes: &[u8], max: usize) -> Result<(), TooLong> {
        let mut line = self.line.load(Ordering::Relaxed);
        if line == WHOLE {
            return Ok(());
        }
        // Empty lines may stand before it (RFC 9112 section 2.2).
        let leading = bytes.iter().take_while(|byte| matches!(**byte, b'\r' | b'\n')).count();
        let bytes = if line == 0 { &bytes[leading..] } else { bytes };
        let end = memchr::memchr(b'\n', bytes);
        line += end.unwrap_or(bytes.len()) as u64;
        self.line.store(if end.is_some() { WHOLE } else { line }, Ordering::Relaxed);
        if line > max as u64 { Err(TooLong::Line) } else { Ok(()) }
    }

    /// Bytes came in, of whatever. Answers how many of an unfinished head there are by now; 0 where one
    /// has ended in these bytes, since the others may be of its body.
    pub(super) fn note(&self, bytes: &[u8]) -> u64 {
        let mut line_start = self.at_line_start.load(Ordering::Relaxed) != 0;
        let (mut heads, mut after) = (0, None);
        for end in memchr::memchr_iter(b'\n', bytes) {
            let before = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            let empty = match before.last() {
                Some(byte) => *byte == b'\n',
                None => line_start,
            };
            if empty {
                heads += 1;
                after = Some(end + 1);
            }
        }
        // A lone CR at the start of a read belongs to the line before it.
        line_start = match bytes {
            [] | [b'\r'] if line_start => true,
            [.., b'\n', b'\r'] | [.., b'\n'] => true,
            _ => false,
        };
        self.at_line_start.store(u8::from(line_start), Ordering::Relaxed);
        self.heads.fetch_add(heads, Ordering::Relaxed);
        match after {
            Some(after) => {
                self.tail.store((bytes.len() - after) as u64, Ordering::Relaxed);
                0
            }
            None => {
                let length = bytes.len() as u64;
                self.tail.fetch_add(length, Ordering::Relaxed) + length
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_behind_the_one_in_hand_is_seen() {
        let heads = Heads::default();
        heads.note(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n");
        heads.note_end();
        assert!(heads.has_more(0));
        heads.note_end();
        assert!(!heads.has_more(0));
        heads.note(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc");
        heads.note_end();
        assert!(!heads.has_more(3));
        heads.note(b"GET");
        assert!(heads.has_more(3), "half a head is a request that has begun");
    }

    #[test]
    fn only_what_is_surely_of_a_head_is_counted_as_such() {
        let heads = Heads::default();
        assert_eq!(heads.note(b"GET / HTTP/1.1\r\nx: "), 19);
        assert_eq!(heads.note(b"yyy\r\n"), 24);
        assert_eq!(heads.note(b"\r\nand a body"), 0);
        assert_eq!(heads.note(b" that goes on"), 23, "whose bytes they are the caller knows");
    }

    #[test]
    fn a_request_line_is_too_long_as_soon_as_it_is() {
        let heads = Heads::default();
        let read = |bytes: &[u8]| heads.note_line(bytes, 16);
        assert_eq!(read(b"\r\n\r\n"), Ok(()));
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Ok(()), "14 bytes and a CR");
        assert_eq!(read(b"x-long: 0123456789012345678901234567890\r\n\r\n"), Ok(()));
        heads.begin();
        assert_eq!(read(b"GET /01234567"), Ok(()));
        assert_eq!(read(b"89a"), Ok(()));
        assert_eq!(read(b"b"), Err(TooLong::Line));
        heads.begin();
        assert_eq!(read(b"GET /0123 HTTP/1.1\n"), Err(TooLong::Line), "all in one");
    }

    proptest! {
        #[test]
        fn heads_are_counted_however_they_are_cut(cuts in proptest::collection::vec(1_usize..9, 0..40)) {
            let stream = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.0\n\nPUT /x HTTP/1.1\r\n\r\nxy";
            let heads = Heads::default();
            let mut rest = &stream[..];
            for cut in cuts.into_iter().chain([stream.len()]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                heads.note(now);
                rest = later;
            }
            prop_assert_eq!(heads.heads.load(Ordering::Relaxed), 3);
            prop_assert_eq!(heads.tail.load(Ordering::Relaxed), 2);
        }
    }
}
