//! Lines that wait to be written: whole when they come, whole when they go.
//!
//! # Why
//! A write of at most 4096 bytes to a pipe is atomic (`PIPE_BUF`, pipe(7)): as long as each one
//! holds whole lines, lines of several processes are never torn. A longer line goes alone, so that
//! it can tear nothing but itself.
//!
//! The trap: a write may fail after part of a line. What is left of that line can't be taken back,
//! so a newline goes out before the next one: one broken line, never two lines in one.

use std::io::{self, Write};
use std::time::Instant;

/// Bytes of memory that are kept when nothing waits.
const KEPT: usize = 64 * 1024;

/// Whole lines in memory, and an account of those that were lost.
#[derive(Debug)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Everything before it has been written.
    head: usize,
    /// Everything before it is whole lines; what is behind it a formatter left when it panicked.
    whole: usize,
    /// When the oldest line that waits was added.
    since: Option<Instant>,
    /// The last byte that was written was not the end of a line.
    is_mid_line: bool,
    /// A part of a line was written and the rest will never be.
    is_torn: bool,
    /// Lost lines that are spoken of in lines which still wait.
    accounted: u64,
    lost: Option<Lost>,
}

/// Lines that nobody will see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) lines: u64,
    pub(super) since: Instant,
    pub(super) cause: String,
}

/// What came of an attempt to write.
#[derive(Debug)]
pub(super) enum Written {
    /// Nothing could be written, or there was nothing to write.
    Nothing,
    /// Something was written; perhaps not all.
    Some,
    /// Writing failed, and the lines that waited are lost.
    Failed(io::Error),
}

impl Lines {
    pub(super) const EMPTY: Self = Self {
        bytes: Vec::new(),
        head: 0,
        whole: 0,
        since: None,
        is_mid_line: false,
        is_torn: false,
        accounted: 0,
        lost: None,
    };

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.whole - self.head
    }

    /// When the oldest line that waits was added.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Adds a line, if it fits: not more than `room` bytes may wait with it.
    pub(super) fn add(&mut self, now: Instant, room: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.truncate(self.whole);
        fill(&mut self.bytes);
        if self.bytes.len() == self.whole {
            return;
        }
        if self.bytes.last() != Some(&b'\n') {
            self.bytes.push(b'\n');
        }
        if self.bytes.len() - self.head > room {
            self.bytes.truncate(self.whole);
            self.lose(now, 1, "nobody reads it");
        } else {
            self.whole = self.bytes.len();
            self.since.get_or_insert(now);
        }
    }

    /// Writes until at most `leave` bytes wait, in pieces of at most `batch_max` bytes that hold
    /// whole lines, or of one line that is longer.
    pub(super) fn write(
        &mut self,
        out: &mut impl Write,
        batch_max: usize,
        leave: usize,
        now: impl FnOnce() -> Instant,
    ) -> Written {
        let mut written = Written::Nothing;
        while self.waiting() > leave {
            let waiting = &self.bytes[self.head..self.whole];
            let batch = if self.is_torn { b"\n" } else { batch(waiting, batch_max) };
            match out.write(batch) {
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return self.fail(now(), error);
                }
                Ok(_) if self.is_torn => self.is_torn = false,
                Ok(count) => {
                    self.is_mid_line = batch.get(count - 1) != Some(&b'\n');
                    self.head += count;
                    written = Written::Some;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return self.fail(now(), error),
            }
        }
        self.compact();
        written
    }

    /// Whether lines were lost that have not been accounted for.
    pub(super) fn has_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Takes the account of lost lines, to be given in a line of its own.
    pub(super) fn take_lost(&mut self) -> Option<Lost> {
        self.lost.take()
    }

    /// The line that was added last speaks of so many lost lines: if it is lost too, so are they.
    pub(super) fn account(&mut self, lines: u64) {
        if self.waiting() > 0 {
            self.accounted += lines;
        }
    }

    fn lose(&mut self, now: Instant, lines: u64, cause: &str) {
        let lost =
            self.lost.get_or_insert_with(|| Lost { lines: 0, since: now, cause: cause.to_owned() });
        lost.lines += lines;
    }

    /// Forgets everything without writing it: it is another process's to write.
    pub(super) fn forget(&mut self) {
        *self = Self::EMPTY;
    }

    /// Counts everything that waits as lost.
    pub(super) fn abandon(&mut self, now: Instant, cause: &str) {
        let waiting = &self.bytes[self.head..self.whole];
        let lines = waiting.iter().filter(|byte| **byte == b'\n').count() as u64 + self.accounted;
        self.is_torn |= self.is_mid_line;
        self.is_mid_line = false;
        self.head = self.whole;
        self.compact();
        if lines > 0 {
            self.lose(now, lines, cause);
        }
    }

    fn fail(&mut self, now: Instant, error: io::Error) -> Written {
        self.abandon(now, &error.to_string());
        Written::Failed(error)
    }

    /// Gives back the room of what was written.
    fn compact(&mut self) {
        if self.head == self.whole {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.accounted = 0;
            self.since = None;
            (self.head, self.whole) = (0, 0);
        } else if self.head > self.whole / 2 {
            self.bytes.drain(..self.head);
            self.whole -= self.head;
            self.head = 0;
        }
    }
}

/// As many whole lines as fit, or the first one alone. `lines` ends with a newline.
fn batch(lines: &[u8], batch_max: usize) -> &[u8] {
    if lines.len() <= batch_max {
        return lines;
    }
    let is_end = |byte: &u8| *byte == b'\n';
    let end = lines[..batch_max]
        .iter()
        .rposition(is_end)
        .or_else(|| lines.iter().position(is_end))
        .map_or(lines.len(), |at| at + 1);
    &lines[..end]
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
