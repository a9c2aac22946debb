//! Writes access lines: a compiled format, the dates it remembers, and the longest line there is.

mod json;
pub(super) mod record;
mod text;

use self::record::Record;
use super::clock::Clock;
use crate::access_format::escape::Address;
use crate::access_format::{AccessFormat, LINE_MAX, NamedFields, Shape};

/// Turns records into lines. One for each process: it remembers dates and an address, so it is not
/// shared.
#[derive(Debug)]
pub struct AccessWriter {
    format: AccessFormat,
    memory: Memory,
}

/// Text that is remembered from line to line, so that it need not be made again.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) clock: Clock,
    pub(super) address: Address,
}

impl AccessWriter {
    /// Lines of this format, dated in the zone of this process.
    #[must_use]
    pub fn new(format: AccessFormat) -> Self {
        Self::with_clock(format, Clock::local())
    }

    pub(super) fn with_clock(format: AccessFormat, clock: Clock) -> Self {
        Self { format, memory: Memory { clock, address: Address::none() } }
    }

    /// The header fields that its lines are made of.
    pub(super) fn fields(&self) -> NamedFields {
        self.format.fields()
    }

    /// Appends one line with its newline, at most 64 KiB of it. Allocates nothing but what `out`
    /// grows by.
    pub fn write(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_cut(record, Cut::Nothing, out);
        if out.len() - start >= LINE_MAX {
            // Seldom: so long a line is written a second time rather than measured beforehand.
            out.truncate(start);
            self.write_cut(record, Cut::LongValues, out);
        }
        out.push(b'\n');
    }

    fn write_cut(&mut self, record: &Record<'_>, cut: Cut, out: &mut Vec<u8>) {
        let Self { format, memory } = self;
        match &format.0 {
            Shape::Json => json::write(record, memory, cut.value_max(json::VALUE_MAX), out),
            Shape::Text { steps, value_max } => {
                text::write(steps, record, memory, cut.value_max(*value_max), out);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Cut {
    Nothing,
    LongValues,
}

impl Cut {
    fn value_max(self, of_long_lines: usize) -> usize {
        match self {
            Self::Nothing => usize::MAX,
            Self::LongValues => of_long_lines,
        }
    }
}

#[cfg(test)]
mod tests;
