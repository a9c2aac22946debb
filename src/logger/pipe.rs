//! The standard output and standard error of a child that serves as another user than the master.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};

use crate::logging::{Lines, Rings, Stream};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// The reader's end of one of them, which never waits.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) place: usize,
    pub(super) stream: Stream,
    reader: File,
    lines: Lines,
}

impl Pipe {
    /// Those beside the ring at this place.
    ///
    /// # Errors
    /// The error of dup(2).
    pub(super) fn beside(rings: &Rings, place: usize) -> io::Result<Vec<Self>> {
        let ends = rings.pipes(place)?.into_iter().zip([Stream::Output, Stream::Errors]);
        let pipe = |(reader, stream)| Self { place, stream, reader, lines: Lines::default() };
        Ok(ends.map(pipe).collect())
    }

    /// Hands on the lines that a piece of what waits completes. Returns the number of bytes that were read.
    pub(super) fn read(&mut self, hand_on: impl FnMut(&[u8])) -> usize {
        let mut piece = [0; PIECE];
        // There is nothing, or it can be tried again.
        let length = self.reader.read(&mut piece).unwrap_or(0);
        self.lines.take(&piece[..length], hand_on);
        length
    }

    /// Returns true if a line has begun.
    pub(super) fn is_mid_line(&self) -> bool {
        self.lines.is_mid_line()
    }

    /// Hands on a line that has begun, as if it had ended.
    pub(super) fn finish(&mut self, hand_on: impl FnOnce(&[u8])) {
        self.lines.finish(hand_on);
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
