//! Request targets with a fragment (`/#x`), which is none of a target's (RFC 9112 section 3.2). hyper
//! cuts it off without a word, however long it is: so it is looked for here, in the bytes as they come
//! in.
//!
//! Of what hyper reads ahead, behind a head or a body, it is not known where it begins: there nothing
//! is looked for, and a fragment is cut off.

use super::conns::Wait;

/// Where in its requests a stream is.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    /// Whether it is known where the request line begins that comes in, or came in last.
    is_known: bool,
    /// The last bytes that came in.
    last: [u8; 3],
}

impl Fragments {
    /// Whether these bytes, which came in on a connection that was waiting for this, have a fragment in
    /// what seems to be of a request line.
    pub(super) fn are_in(&mut self, wait: Wait, line: &[u8], bytes: &[u8]) -> bool {
        match wait {
            Wait::First => self.is_known = true,
            Wait::Next => self.is_known = is_empty_line(self.last),
            Wait::Head => {}
            Wait::Answer | Wait::Body | Wait::Other | Wait::Silence => self.is_known = false,
        }
        for byte in &bytes[bytes.len().saturating_sub(self.last.len())..] {
            self.last = [self.last[1], self.last[2], *byte];
        }
        self.is_known && memchr::memchr(b'#', line).is_some()
    }
}

/// Whether a line without anything in it ends with these.
fn is_empty_line(last: [u8; 3]) -> bool {
    matches!(last, [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::heads::Heads;
    use super::*;

    const PLAIN: &str = "GET / HTTP/1.1\r\nx: #\r\n\r\n";

    #[derive(Default)]
    struct Reader {
        heads: Heads,
        fragments: Fragments,
    }

    impl Reader {
        fn finds(&mut self, wait: Wait, bytes: &str) -> bool {
            if matches!(wait, Wait::First | Wait::Next) {
                self.heads.begin();
            }
            let line = self.heads.note_line(bytes.as_bytes(), usize::MAX).expect("it is short");
            self.fragments.are_in(wait, line, bytes.as_bytes())
        }
    }

    #[test]
    fn a_fragment_is_only_in_a_request_line() {
        let read = |bytes| Reader::default().finds(Wait::First, bytes);
        assert!(!read(PLAIN));
        assert!(read("GET /# HTTP/1.1\r\n\r\n"));
        assert!(read("\r\n\n\r\nGET /#"));
        assert!(read("#"));
    }

    #[test]
    fn where_hyper_may_have_read_ahead_nothing_is_looked_for() {
        let mut reader = Reader::default();
        let mut read = |wait, bytes| reader.finds(wait, bytes);
        assert!(!read(Wait::First, "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"));
        assert!(!read(Wait::Body, "a#b\r\n"));
        assert!(!read(Wait::Next, "Cookie: a=#\r\n\r\n"));
        assert!(!read(Wait::Next, PLAIN));
        assert!(read(Wait::Next, "GET /#"));
    }

    proptest! {
        #[test]
        fn a_fragment_is_found_however_the_requests_are_cut(
            plain in 0_usize..4,
            blank in 0_usize..3,
            cuts in proptest::collection::vec(1_usize..20, 0..40),
        ) {
            let bad = "\r\n".repeat(blank) + "GET /a#b HTTP/1.1\r\n\r\n";
            let mut cuts = cuts.into_iter();
            let mut reader = Reader::default();
            let mut wait = Wait::First;
            for (at, request) in std::iter::repeat_n(PLAIN, plain).chain([bad.as_str()]).enumerate() {
                let mut rest = request;
                let mut found = false;
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(cuts.next().unwrap_or(30).min(rest.len()));
                    found |= reader.finds(wait, now);
                    (rest, wait) = (later, Wait::Head);
                }
                wait = Wait::Next;
                prop_assert_eq!(found, at == plain);
            }
        }
    }
}
