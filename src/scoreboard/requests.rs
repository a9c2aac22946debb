//! The requests that a worker has in hand, where they can be read after its death.
//!
//! Each open connection has an entry, and so at most one request. The worker writes an entry when a
//! request begins and clears it when its access line is written; what is left when the worker dies are
//! the requests that died with it. A reader believes nothing: lengths are bounded, text is taken
//! for bytes of unknown origin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::http::{Method, Uri, Version};

use super::metrics::Code;
use crate::sys::receipt::Receipt;
use crate::sys::shared::Line;

/// Lines of one entry: those of its words, and the receipt of its connection's last write.
pub(super) const ENTRY_LINES: usize = RECEIPT + 1;
const RECEIPT: usize = 4;
const WORDS: usize = RECEIPT * 8;

// The words of an entry. The first one says whether there is a request; it is written last.
const HEADER: usize = 0;
const STARTED: usize = 1;
const PEER: usize = 2;
const METHOD: usize = 4;
const LINE: usize = 6;
const RUNNING: usize = 7;
const TARGET: usize = 8;
const METHOD_MAX: usize = (LINE - METHOD) * 8;
const TARGET_MAX: usize = (WRITTEN - TARGET) * 8;
/// The write of the last bytes of the answer: above, the code that the request is then counted under; below,
/// the number of the entry with the receipt.
const WRITTEN: usize = COUNTED - 1;
/// The count that the request is about to be added to: the code above, the number
/// counted under it below.
const COUNTED: usize = WORDS - 1;
/// Bits of the number that was counted before.
const COUNT_BITS: u32 = 48;

// The header: a bit that says that there is a request, and what its words hold.
const PRESENT: u64 = 1;
const HAS_V4: u64 = 1 << 1;
const HAS_V6: u64 = 1 << 2;
const IS_HTTP_10: u64 = 1 << 3;
const IS_CUT: u64 = 1 << 4;
const IS_HTTP_2: u64 = 1 << 5;
const METHOD_LENGTH: u32 = 8;
const TARGET_LENGTH: u32 = 16;

/// A request that a worker had in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The client's address; `None` on a unix socket.
    pub(crate) remote: Option<IpAddr>,
    /// When its head had been read.
    pub(crate) started: SystemTime,
    /// Its method.
    pub(crate) method: Method,
    /// Its target, cut where it was too long to keep.
    pub(crate) target: Uri,
    /// Its protocol.
    pub(crate) version: Version,
    /// The position of its process's ring when its access line was about to be written.
    pub(crate) line_at: Option<u64>,
    /// True if its code was running, so that nothing else could on that thread.
    pub(crate) running: bool,
    /// The code of its answer, if the kernel has taken all of it.
    pub(crate) sent: Option<Code>,
    /// The count that it was about to be added to, if any.
    pub(crate) counted: Option<NotedCount>,
}

/// The code that a request was about to be counted under, and how many its worker had counted under it
/// by then: only the last 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotedCount {
    pub(crate) code: Code,
    before: u64,
}

impl NotedCount {
    /// Returns true if so many are not what was noted, so that the request was counted.
    pub(crate) fn is_done(self, count: u64) -> bool {
        count & COUNT_MASK != self.before
    }
}

const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Returns a word with both. Zero stands for no note.
fn noted(code: Code, number: u64) -> u64 {
    u64::from(code.number() + 1) << COUNT_BITS | number & COUNT_MASK
}

/// The entry of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestEntry<'a>(&'a [Line; ENTRY_LINES]);

// ORDERING: the words of an entry are Relaxed; the header is stored with Release after them, and read
// with Acquire before them.
impl<'a> RequestEntry<'a> {
    pub(super) fn new(lines: &'a [Line; ENTRY_LINES]) -> Self {
        Self(lines)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.0[at / 8].0[at % 8]
    }

    /// A request has begun.
    pub(crate) fn fill(
        &self,
        remote: Option<IpAddr>,
        started: SystemTime,
        method: &Method,
        target: &Uri,
        version: Version,
    ) {
        let mut header = PRESENT;
        let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let put = |at: usize, word: u64| self.word(at).store(word, Ordering::Relaxed);
        put(LINE, 0);
        put(RUNNING, 0);
        put(COUNTED, 0);
        put(WRITTEN, 0);
        put(STARTED, u64::try_from(since.as_micros()).unwrap_or(0));
        match remote {
            Some(IpAddr::V4(address)) => {
                header |= HAS_V4;
                put(PEER, u64::from(address.to_bits()));
            }
            Some(IpAddr::V6(address)) => {
                header |= HAS_V6;
                let bytes = address.octets();
                self.put_bytes(PEER, &bytes);
            }
            None => {}
        }
        header |= match version {
            Version::HTTP_10 => IS_HTTP_10,
            Version::HTTP_2 => IS_HTTP_2,
            _ => 0,
        };
        let method = bounded(method.as_str().as_bytes(), METHOD_MAX);
        header |= (method.len() as u64) << METHOD_LENGTH;
        self.put_bytes(METHOD, method);
        let whole = target.path_and_query().map_or("", |path| path.as_str()).as_bytes();
        let kept = bounded(whole, TARGET_MAX);
        if kept.len() < whole.len() {
            header |= IS_CUT;
        }
        header |= (kept.len() as u64) << TARGET_LENGTH;
        self.put_bytes(TARGET, kept);
        self.word(HEADER).store(header, Ordering::Release);
    }

    /// Its code runs from now on, or has given the thread back.
    pub(super) fn set_running(&self, running: bool) {
        self.word(RUNNING).store(u64::from(running), Ordering::Relaxed);
    }

    /// Its access line is about to be written into the process's ring, which has come so far; or it
    /// has to wait.
    pub(crate) fn note_line(&self, settled: Option<u64>) {
        // Zero says that there is no line to come.
        let word = settled.map_or(0, |settled| settled.wrapping_add(1));
        self.word(LINE).store(word, Ordering::Release);
    }

    /// Notes that the last bytes of its answer are about to be written. The request is to be counted under
    /// this code if the entry of this number has a receipt of the write.
    pub(crate) fn note_write(&self, code: Code, receipt_at: usize) {
        let word = noted(code, receipt_at as u64);
        self.word(WRITTEN).store(word, Ordering::Release);
    }

    /// The receipt of the last write on its connection.
    pub(crate) fn receipt(&self) -> Receipt<'a> {
        Receipt::new(&self.0[RECEIPT])
    }

    /// It is about to be counted under this code, under which so many are counted.
    pub(crate) fn note_count(&self, code: Code, before: u64) {
        let word = noted(code, before);
        self.word(COUNTED).store(word, Ordering::Release);
    }

    /// The request is over.
    pub(crate) fn clear(&self) {
        self.word(HEADER).store(0, Ordering::Release);
    }

    /// The request that is in hand, if one is. `has_receipt`: whether the entry of a number has a receipt.
    pub(super) fn read(&self, has_receipt: impl Fn(usize) -> bool) -> Option<Held> {
        let header = self.word(HEADER).load(Ordering::Acquire);
        if header & PRESENT == 0 {
            return None;
        }
        let length = |at: u32, max: usize| {
            usize::try_from(header >> at & u64::from(u8::MAX)).unwrap_or(max).min(max)
        };
        let method = self.bytes(METHOD, length(METHOD_LENGTH, METHOD_MAX));
        let mut target = self.bytes(TARGET, length(TARGET_LENGTH, TARGET_MAX));
        if header & IS_CUT != 0 {
            target.extend_from_slice(b"[cut]");
        }
        let started = Duration::from_micros(self.load(STARTED));
        let line_at = self.word(LINE).load(Ordering::Acquire).checked_sub(1);
        Some(Held {
            remote: self.remote(header),
            started: SystemTime::UNIX_EPOCH.checked_add(started)?,
            method: Method::from_bytes(&method).unwrap_or(Method::GET),
            target: Uri::try_from(target).unwrap_or_default(),
            version: match header & (IS_HTTP_10 | IS_HTTP_2) {
                0 => Version::HTTP_11,
                IS_HTTP_10 => Version::HTTP_10,
                _ => Version::HTTP_2,
            },
            line_at,
            running: self.load(RUNNING) != 0,
            sent: self
                .noted(WRITTEN)
                .and_then(|(code, at)| has_receipt(usize::try_from(at).ok()?).then_some(code)),
            counted: self.noted(COUNTED).map(|(code, before)| NotedCount { code, before }),
        })
    }

    fn noted(&self, at: usize) -> Option<(Code, u64)> {
        let word = self.word(at).load(Ordering::Acquire);
        let number = u16::try_from(word >> COUNT_BITS).ok()?.checked_sub(1)?;
        Some((Code::from_number(number)?, word & COUNT_MASK))
    }

    fn remote(&self, header: u64) -> Option<IpAddr> {
        if header & HAS_V4 != 0 {
            let bits = u32::try_from(self.load(PEER)).unwrap_or(0);
            Some(Ipv4Addr::from_bits(bits).into())
        } else if header & HAS_V6 != 0 {
            let bytes: [u8; 16] = self.bytes(PEER, 16).try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        } else {
            None
        }
    }

    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    fn put_bytes(&self, at: usize, bytes: &[u8]) {
        let put = |at, word| self.word(at).store(u64::from_le_bytes(word), Ordering::Relaxed);
        let (words, rest) = bytes.as_chunks::<8>();
        for (offset, word) in words.iter().enumerate() {
            put(at + offset, *word);
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            put(at + words.len(), word);
        }
    }

    fn bytes(&self, at: usize, length: usize) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|offset| self.load(at + offset).to_le_bytes());
        words.take(length).collect()
    }
}

fn bounded(bytes: &[u8], max: usize) -> &[u8] {
    &bytes[..bytes.len().min(max)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines() -> [Line; ENTRY_LINES] {
        std::array::from_fn(|_| Line::default())
    }

    #[test]
    fn a_request_is_read_as_it_was_written_until_it_is_cleared() {
        let lines = lines();
        let entry = RequestEntry::new(&lines);
        assert_eq!(entry.read(|_| false), None);
        let started = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        for remote in
            [None, Some("192.0.2.7".parse().unwrap()), Some("2001:db8::7".parse().unwrap())]
        {
            let target: Uri = "/slow?s=3".parse().unwrap();
            entry.fill(remote, started, &Method::DELETE, &target, Version::HTTP_10);
            let expected = Held {
                remote,
                started,
                method: Method::DELETE,
                target,
                version: Version::HTTP_10,
                line_at: None,
                running: false,
                sent: None,
                counted: None,
            };
            assert_eq!(entry.read(|_| false), Some(expected.clone()));
            entry.note_line(Some(0));
            assert_eq!(entry.read(|_| false), Some(Held { line_at: Some(0), ..expected.clone() }));
            entry.set_running(true);
            let running = Held { line_at: Some(0), running: true, ..expected.clone() };
            assert_eq!(entry.read(|_| false), Some(running));
            entry.set_running(false);
            entry.note_line(None);
            assert_eq!(entry.read(|_| false), Some(expected.clone()));
            entry.note_write(Code::ABORTED, 3);
            assert_eq!(entry.read(|_| false), Some(expected.clone()), "it has no receipt");
            let sent = Held { sent: Some(Code::ABORTED), ..expected.clone() };
            assert_eq!(entry.read(|at| at == 3), Some(sent));
            entry.note_count(Code::ABORTED, u64::MAX);
            let noted = entry.read(|_| false).and_then(|held| held.counted).expect("it is noted");
            assert_eq!(noted.code, Code::ABORTED);
            assert!(!noted.is_done(u64::MAX) && noted.is_done(0));
        }
        entry.clear();
        assert_eq!(entry.read(|_| false), None);
    }

    #[test]
    fn a_long_target_is_cut_with_a_mark() {
        let lines = lines();
        let target: Uri = format!("/{}", "a".repeat(1000)).parse().unwrap();
        RequestEntry::new(&lines).fill(
            None,
            SystemTime::UNIX_EPOCH,
            &Method::GET,
            &target,
            Version::HTTP_11,
        );
        let held = RequestEntry::new(&lines).read(|_| false).expect("it is there");
        assert_eq!(held.target.path().len(), TARGET_MAX + "[cut]".len());
        assert!(held.target.path().ends_with("a[cut]"));
    }

    proptest! {
        #[test]
        fn whatever_a_mad_worker_writes_can_be_read(words in proptest::collection::vec(any::<u64>(), WORDS)) {
            let lines = lines();
            let entry = RequestEntry::new(&lines);
            for (at, word) in words.into_iter().enumerate() {
                entry.word(at).store(word, Ordering::Relaxed);
            }
            let _any = entry.read(|_| true);
        }
    }
}
