//! The progress of reading on a connection: the part of its bytes that has been understood.
//!
//! # Why
//! hyper keeps what it has read ahead to itself. But whether a further request waits behind the one
//! that is being answered decides whether `Connection: close` may be said: it would cut that request
//! off. So bytes are counted as they come in, and the ends of heads are found by their empty lines.
//!
//! # How far that goes
//! When hyper reads while no request is in hand, it has used up what came before: the count begins anew
//! there, and the first empty line is the end of the first head. So where that request's body has a
//! known length, its end is known, whatever the body holds. Behind it, in what is pipelined, and behind
//! chunks every empty line counts as the end of a head: there too many may be counted, never too few.

/// Bytes that a head may have, and its first line alone, before hyper refuses it without a word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadRoom {
    pub(crate) line: usize,
    pub(crate) head: usize,
}

/// The bytes of a connection since hyper had used up all that came before.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// The number of bytes that came in.
    read: u64,
    /// Where the first whole head ends; 0: none has.
    first: u64,
    /// Where the last one ends; 0: none has.
    last: u64,
    /// Heads that came in whole.
    heads: u64,
    /// Requests that were handed to the service.
    requests: u64,
    /// True if the last byte was the end of a line.
    at_line_start: bool,
    /// Bytes of the request line that is coming in; [`WHOLE`] when it has come.
    line: u64,
}

/// There is no request line, or all of it.
const WHOLE: u64 = u64::MAX;

/// A head does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooLong {
    /// Its request line.
    Line,
    /// All of it.
    Head,
}

impl Heads {
    /// A request was handed to the service, or its body has ended like a head does.
    pub(crate) fn note_end(&mut self) {
        self.requests += 1;
    }

    /// Returns true if a further request has begun to come in behind the last one, whose body has (or
    /// had) this length, or came in chunks. So many bytes wait in the socket.
    pub(crate) fn has_more(&self, body: Option<u64>, unread: u64) -> bool {
        let Self { read, first, last, heads, requests, .. } = *self;
        let come = read.saturating_add(unread);
        match body {
            Some(length) if requests == 1 => come > first.saturating_add(length),
            Some(_) | None => heads > requests || come > last.saturating_add(body.unwrap_or(0)),
        }
    }

    /// Returns true if the bytes behind the last request, which was answered, begin a further head: its
    /// body has (or had) this length, or came in chunks and was read to their end. The count begins with
    /// that head then. An empty line is none: old clients send one behind a body (RFC 9112 section 2.2).
    /// Of pipelined requests it may be false where a head has begun, never true where none has.
    pub(crate) fn take_begun(&mut self, body: Option<u64>) -> bool {
        let Self { read, last, .. } = *self;
        let Some(end) = self.end(body) else { return false };
        let end = end.max(last);
        let behind = read.saturating_sub(end);
        if behind == 0 || behind <= 2 && self.at_line_start {
            return false;
        }
        if end > last {
            // The body must not be counted as one of the head.
            self.begin();
            self.read = behind;
            self.line = WHOLE;
        }
        true
    }

    /// Returns true if all of the last request, which was answered and has this body, has surely come, and of
    /// the next one nothing that [`Self::take_begun`] does not find. That does not look behind a body which
    /// nothing reads.
    pub(crate) fn is_whole(&self, body: Option<u64>, is_unread: bool) -> bool {
        match self.end(body) {
            Some(end) if is_unread => body.is_some() && self.read == end,
            Some(end) => self.read >= end,
            None => false,
        }
    }

    /// The end of the last request, which has this body; `None`: it is not known. Behind pipelined requests
    /// with a body it is where no further empty line has come: that one may be of a body or of a head.
    fn end(&self, body: Option<u64>) -> Option<u64> {
        match body {
            None | Some(0) => Some(self.last),
            Some(length) if self.requests == 1 => Some(self.first.saturating_add(length)),
            Some(length) if self.heads == self.requests => Some(self.last.saturating_add(length)),
            Some(_) => None,
        }
    }

    /// Returns true if bytes have come behind the last end of a head: of its body, or of the next head.
    pub(crate) fn is_ahead(&self) -> bool {
        self.read > self.last
    }

    /// The next byte is the first one of a head, but for what hyper has of it already.
    pub(crate) fn begin(&mut self) {
        *self = Self { at_line_start: self.at_line_start, ..Self::default() };
    }

    /// Bytes of a head came in. What hyper has read ahead of it is not counted: a line that is too long is
    /// found late then, or by hyper.
    ///
    /// # Errors
    /// When they belong to a request line of more than `max` bytes.
    pub(crate) fn note_line(&mut self, bytes: &[u8], max: usize) -> Result<(), TooLong> {
        if self.line == WHOLE {
            return Ok(());
        }
        // Empty lines may stand before it (RFC 9112 section 2.2).
        let leading = bytes.iter().take_while(|byte| matches!(**byte, b'\r' | b'\n')).count();
        let bytes = if self.line == 0 { &bytes[leading..] } else { bytes };
        let end = memchr::memchr(b'\n', bytes);
        let length = self.line + end.unwrap_or(bytes.len()) as u64;
        self.line = if end.is_some() { WHOLE } else { length };
        if length > max as u64 { Err(TooLong::Line) } else { Ok(()) }
    }

    /// Bytes came in, of whatever. Returns how many of an unfinished head there are by now; 0 where one
    /// has ended in these bytes, since the others may be of its body.
    pub(crate) fn note(&mut self, bytes: &[u8]) -> u64 {
        let line_start = self.at_line_start;
        let before = self.read;
        let mut heads = 0;
        let mut ends = None;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            let empty = match line.last() {
                Some(byte) => *byte == b'\n',
                None => line_start,
            };
            if empty {
                heads += 1;
                let end = before + end as u64 + 1;
                ends = Some(ends.map_or((end, end), |(first, _)| (first, end)));
            }
        }
        // A lone CR at the start of a read belongs to the line before it.
        self.at_line_start = match bytes {
            [] | [b'\r'] if line_start => true,
            [.., b'\n', b'\r'] | [.., b'\n'] => true,
            _ => false,
        };
        self.read = before + bytes.len() as u64;
        let Some((first, last)) = ends else { return self.read - self.last };
        if self.first == 0 {
            self.first = first;
        }
        self.last = last;
        self.heads += heads;
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_behind_the_one_in_hand_is_seen() {
        let mut heads = Heads::default();
        heads.note(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n");
        heads.note_end();
        assert!(heads.has_more(Some(0), 0));
        heads.note_end();
        assert!(!heads.has_more(Some(0), 0));
        assert!(heads.has_more(Some(0), 1), "what hyper has not read yet counts, too");
        heads.note(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc");
        heads.note_end();
        assert!(!heads.has_more(Some(3), 0));
        heads.note(b"GET");
        assert!(heads.has_more(Some(3), 0), "half a head is a request that has begun");
    }

    #[test]
    fn a_body_of_known_length_may_hold_what_it_likes() {
        let mut heads = Heads::default();
        for _ in 0..2 {
            heads.begin();
            heads.note(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\na\r\n\r");
            heads.note_end();
            assert!(!heads.has_more(Some(9), 0));
            assert!(!heads.has_more(Some(9), 5), "the rest is of its body");
            assert!(heads.has_more(Some(9), 6));
            heads.note(b"\nb\r\n\r");
            assert!(!heads.has_more(Some(10), 0));
            heads.note(b"\n");
            assert!(!heads.has_more(Some(10), 0));
            heads.note(b"G");
            assert!(heads.has_more(Some(10), 0));
        }
    }

    /// A head of which hyper has had the beginning before.
    #[test]
    fn a_head_in_pieces_ends_where_it_ends() {
        let mut heads = Heads::default();
        heads.note(b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nhost: a\r\n");
        heads.note_end();
        heads.begin();
        assert_eq!(heads.note(b"\r\nabc"), 0);
        heads.note_end();
        assert!(!heads.has_more(Some(3), 0));
        assert!(heads.has_more(Some(2), 0));
    }

    #[test]
    fn behind_chunks_too_many_may_be_seen_and_never_too_few() {
        let mut heads = Heads::default();
        heads.note(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        heads.note_end();
        heads.note_end();
        assert!(!heads.has_more(None, 0));
        assert!(heads.has_more(None, 1));
        heads.note(b"6\r\na\r\n\r\nb\r\n0\r\n\r\n");
        heads.note_end();
        assert!(heads.has_more(None, 0));
        heads.begin();
        heads.note(b"GET / HTTP/1.1\r\n\r\n");
        heads.note_end();
        assert!(!heads.has_more(Some(0), 0), "it is forgotten when the next request comes in");
    }

    #[test]
    fn only_what_is_surely_of_a_head_is_counted_as_such() {
        let mut heads = Heads::default();
        assert_eq!(heads.note(b"GET / HTTP/1.1\r\nx: "), 19);
        assert_eq!(heads.note(b"yyy\r\n"), 24);
        assert_eq!(heads.note(b"\r\nand a body"), 0);
        assert_eq!(heads.note(b" that goes on"), 23, "whose bytes they are the caller knows");
    }

    #[test]
    fn a_request_line_is_too_long_as_soon_as_it_is() {
        let mut heads = Heads::default();
        let read = |heads: &mut Heads, bytes| heads.note_line(bytes, 16);
        assert_eq!(read(&mut heads, b"\r\n\r\n"), Ok(()));
        assert_eq!(read(&mut heads, b"GET / HTTP/1.1\r\n"), Ok(()), "15 bytes with the CR");
        assert_eq!(read(&mut heads, b"x-long: 0123456789012345678901234567890\r\n\r\n"), Ok(()));
        heads.begin();
        assert_eq!(read(&mut heads, b"\nGET /01234567"), Ok(()), "13 bytes");
        assert_eq!(read(&mut heads, b"89a"), Ok(()));
        assert_eq!(read(&mut heads, b"b"), Err(TooLong::Line));
        heads.begin();
        assert_eq!(read(&mut heads, b"GET /0123 HTTP/1.1\n"), Err(TooLong::Line), "all in one");
    }

    #[test]
    fn a_head_begins_with_the_first_byte_behind_a_request() {
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let post = "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\na\n\nb\n";
        let chunks =
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\na\n\nb\r\n0\r\n\r\n";
        for (request, body) in [(get, Some(0)), (post, Some(5)), (chunks, None)] {
            let begun = |requests: usize, behind: &str| {
                let mut heads = Heads::default();
                heads.note((request.repeat(requests) + behind).as_bytes());
                for _ in 0..requests {
                    heads.note_end();
                }
                heads.take_begun(body)
            };
            for nothing in ["", "\r\n", "\n", "\r\n\r\n"] {
                assert!(!begun(1, nothing), "{request:?} {nothing:?}");
            }
            for something in ["G", "GE", "GET / HTTP/1.1\r\nhos", "\r\n\r\nGET / HTTP/1.1\r\n"] {
                assert!(begun(1, something), "{request:?} {something:?}");
            }
            assert!(!begun(2, ""), "{request:?}");
            assert_eq!(begun(2, "GE"), body != Some(5), "they may be of the body");
        }
    }

    #[test]
    fn request_is_whole_when_its_end_is_sure() {
        let mut heads = Heads::default();
        heads.note(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n1234");
        heads.note_end();
        assert!(!heads.is_whole(Some(5), true) && !heads.is_whole(Some(5), false));
        heads.note(b"5");
        assert!(heads.is_whole(Some(5), true) && heads.is_whole(Some(5), false));
        heads.note(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n1\n\n45");
        assert!(!heads.is_whole(Some(5), true), "the next one has begun");
        heads.note_end();
        assert!(!heads.is_whole(Some(5), false), "the body may hold ends of heads");
        assert!(heads.is_whole(Some(0), false));
        assert!(heads.is_whole(None, false) && !heads.is_whole(None, true));
    }

    #[test]
    fn a_head_behind_a_body_is_counted_without_it() {
        let mut heads = Heads::default();
        heads.note(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n123456789GET / HT");
        heads.note_end();
        assert!(heads.take_begun(Some(9)));
        assert_eq!(heads.note(b"TP/1.1\r\n"), 16);
        assert_eq!(heads.note(b"host: a\r\n\r\n"), 0);
        heads.note_end();
        assert!(!heads.has_more(Some(0), 0));
        assert!(heads.has_more(Some(0), 1));
    }

    proptest! {
        #[test]
        fn heads_are_counted_however_they_are_cut(cuts in proptest::collection::vec(1_usize..9, 0..40)) {
            let stream = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.0\n\nPUT /x HTTP/1.1\r\n\r\nxy";
            let mut heads = Heads::default();
            let mut rest = &stream[..];
            for cut in cuts.into_iter().chain([stream.len()]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                heads.note(now);
                rest = later;
            }
            let end = stream.len() as u64;
            prop_assert_eq!([heads.heads, heads.first, heads.last, heads.read], [3, 27, end - 2, end]);
        }
    }
}
