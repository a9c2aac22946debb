//! The status that a worker's program reports of itself, in the worker's board: one line of text.
//!
//! It is written between two changes of a sequence number, as the overview is. A reader believes nothing:
//! the length is bounded, and the text is taken for bytes of unknown origin.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::sys::shared::Line;

/// Lines of the board.
pub(super) const LINES: usize = 4;
// The words.
/// Odd while a text is being written.
const SEQUENCE: usize = 0;
const LENGTH: usize = 1;
const BYTES: usize = 2;
/// Bytes of a text; what is beyond them is left out.
const BYTES_MAX: usize = (LINES * 8 - BYTES) * 8;
/// Attempts to read a whole text.
const ATTEMPTS: usize = 100;

/// The place of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatusLine<'a>(&'a [Line]);

// ORDERING: as in the overview: the words are Relaxed between two stores of the sequence number; the first
// is fenced from what follows, the second is a Release.
impl<'a> StatusLine<'a> {
    pub(super) fn new(lines: &'a [Line]) -> Self {
        debug_assert_eq!(lines.len(), LINES);
        Self(lines)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.0[at / 8].0[at % 8]
    }

    /// Writes a text, cut at a character's beginning where it is too long.
    pub(super) fn write(&self, text: &str) {
        let text = &text.as_bytes()[..text.floor_char_boundary(BYTES_MAX)];
        let put = |at, number| self.word(at).store(number, Ordering::Relaxed);
        let sequence = self.word(SEQUENCE).load(Ordering::Relaxed) | 1;
        put(SEQUENCE, sequence);
        fence(Ordering::Release);
        put(LENGTH, text.len() as u64);
        for (at, chunk) in text.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            put(BYTES + at, u64::from_le_bytes(bytes));
        }
        self.word(SEQUENCE).store(sequence.wrapping_add(1), Ordering::Release);
    }

    /// The last text, without control characters; `None` where there is none.
    pub(super) fn read(&self) -> Option<String> {
        let get = |at| self.word(at).load(Ordering::Relaxed);
        let bytes = (0..ATTEMPTS).find_map(|_| {
            let before = self.word(SEQUENCE).load(Ordering::Acquire);
            if before & 1 == 1 {
                std::hint::spin_loop();
                return None;
            }
            let length = usize::try_from(get(LENGTH)).unwrap_or(BYTES_MAX).min(BYTES_MAX);
            let words = (0..length.div_ceil(8)).map(|at| get(BYTES + at));
            let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            bytes.truncate(length);
            fence(Ordering::Acquire);
            (get(SEQUENCE) == before).then_some(bytes)
        })?;
        let text = String::from_utf8_lossy(&bytes);
        let shown = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
        (!text.is_empty()).then(|| text.chars().map(shown).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_text_is_read_cut_and_without_control_characters() {
        let lines: [Line; LINES] = Default::default();
        let status = StatusLine::new(&lines);
        assert_eq!(status.read(), None);
        status.write("warming up: 3 of 9");
        assert_eq!(status.read().unwrap(), "warming up: 3 of 9");
        status.write("a\nb\u{1b}[0m");
        assert_eq!(status.read().unwrap(), "a\u{fffd}b\u{fffd}[0m");
        status.write(&format!("x{}", "é".repeat(BYTES_MAX)));
        assert_eq!(status.read().unwrap(), format!("x{}", "é".repeat(BYTES_MAX / 2 - 1)));
        status.write("");
        assert_eq!(status.read(), None);
    }

    #[test]
    fn nothing_that_is_written_breaks_a_reader() {
        let lines: [Line; LINES] = Default::default();
        let status = StatusLine::new(&lines);
        for word in [u64::MAX, u64::MAX - 1, 1 << 63] {
            lines.iter().flat_map(|line| &line.0).for_each(|at| at.store(word, Ordering::Relaxed));
            let bytes = status.read().map_or(0, |text| text.len());
            assert!(bytes <= 3 * BYTES_MAX, "{bytes}");
        }
    }
}
