//! The status of the server as lines of JSON in the master's block, for the stats process to read.
//!
//! The lines are those that the control socket sends. They are written between two changes of a sequence
//! number, as the overview is.

use std::sync::atomic::{Ordering, fence};

use super::metrics::{BLOCK_WORDS, Block};
use super::overview;
use crate::time::Instant;

// The words behind the overview.
/// Odd while a text is being written.
const SEQUENCE: usize = overview::END_WORD;
const WRITTEN: usize = SEQUENCE + 1;
const LENGTH: usize = SEQUENCE + 2;
const BYTES: usize = SEQUENCE + 8;
/// Bytes of a text; of a longer one the last lines are left out.
const BYTES_MAX: usize = (BLOCK_WORDS - BYTES) * 8;
/// Attempts to read a whole text.
const ATTEMPTS: usize = 100;

// There is room for the rows of 256 workers.
const _: () = assert!(BYTES < BLOCK_WORDS && BYTES_MAX >= 200_000);

/// A text as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatusText {
    pub(crate) bytes: Vec<u8>,
    /// When it was written.
    pub(crate) written: Instant,
}

// ORDERING: as in the overview: the words are Relaxed between two stores of the sequence number; the first
// is fenced from what follows, the second is a Release.

/// Writes a text of lines.
pub(super) fn publish(block: &Block, now: Instant, text: &[u8]) {
    let text = whole_lines(text);
    let put = |at, number| block.word(at).store(number, Ordering::Relaxed);
    let sequence = block.word(SEQUENCE).load(Ordering::Relaxed) | 1;
    put(SEQUENCE, sequence);
    fence(Ordering::Release);
    put(WRITTEN, now.as_millis());
    put(LENGTH, text.len() as u64);
    for (at, chunk) in text.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        put(BYTES + at, u64::from_le_bytes(bytes));
    }
    block.word(SEQUENCE).store(sequence.wrapping_add(1), Ordering::Release);
}

/// The last text; `None` when the master is stopped in the middle of one, or has written none.
pub(super) fn read(block: &Block) -> Option<StatusText> {
    let get = |at| block.word(at).load(Ordering::Relaxed);
    (0..ATTEMPTS).find_map(|_| {
        let before = block.word(SEQUENCE).load(Ordering::Acquire);
        if before == 0 || before & 1 == 1 {
            std::hint::spin_loop();
            return None;
        }
        let written = Instant::from_millis(get(WRITTEN));
        let length = usize::try_from(get(LENGTH)).unwrap_or(BYTES_MAX).min(BYTES_MAX);
        let words = (0..length.div_ceil(8)).map(|at| get(BYTES + at));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        fence(Ordering::Acquire);
        (get(SEQUENCE) == before).then_some(StatusText { bytes, written })
    })
}

/// As many of the lines as there is room for.
fn whole_lines(text: &[u8]) -> &[u8] {
    match text.get(..BYTES_MAX) {
        None => text,
        Some(start) => {
            let end = start.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            &start[..end]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::MetricsMemory;

    #[test]
    fn text_is_read_as_it_was_written() {
        let memory = MetricsMemory::new().unwrap();
        let block = memory.master().unwrap();
        assert_eq!(read(&block), None, "there is none yet");
        for (at, text) in ["", "a\n", "12345678", "123456789\n"].into_iter().enumerate() {
            let written = Instant::from_millis(at as u64);
            publish(&block, written, text.as_bytes());
            assert_eq!(read(&block), Some(StatusText { bytes: text.into(), written }));
        }
        block.word(SEQUENCE).fetch_add(1, Ordering::Relaxed);
        assert_eq!(read(&block), None, "its writer is in the middle of it");
    }

    #[test]
    fn text_beyond_the_block_is_cut_between_lines() {
        let memory = MetricsMemory::new().unwrap();
        let block = memory.master().unwrap();
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        publish(&block, Instant::default(), &line.repeat(1000));
        let found = read(&block).unwrap().bytes;
        assert_eq!(found, line.repeat(BYTES_MAX / 1000));
        publish(&block, Instant::default(), &[b'x'; 1 << 20]);
        assert_eq!(read(&block).unwrap().bytes, b"");
    }

    #[test]
    fn any_words_are_a_text() {
        let memory = MetricsMemory::new().unwrap();
        let block = memory.master().unwrap();
        for number in [1, u64::MAX / 3, u64::MAX] {
            (SEQUENCE..BYTES + 64).for_each(|at| block.word(at).store(number, Ordering::Relaxed));
            block.word(SEQUENCE).store(2, Ordering::Relaxed);
            assert!(read(&block).expect("the sequence number is even").bytes.len() <= BYTES_MAX);
        }
    }
}
