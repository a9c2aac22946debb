//! The server's own standard output and standard error, for what children print.
//!
//! # Why not an outlet
//! An outlet waits for its reader. A printer does not, or a child that prints to a terminal which stands
//! still would have the logs of all processes stand still. It keeps the lines that it cannot write yet, and
//! the child's pipe is not read meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::target::{Output, PIPE_BATCH_MAX};
use crate::sys::poll;

/// One of the two streams.
#[derive(Debug)]
pub(crate) struct Printer {
    output: Output,
    /// Lines that are not written yet.
    batch: Vec<u8>,
}

impl Printer {
    /// # Errors
    /// The error of dup(2).
    pub(crate) fn new(stream: BorrowedFd<'_>) -> io::Result<Self> {
        let output = Output::inherited(File::from(stream.try_clone_to_owned()?))?;
        Ok(Self { output, batch: Vec::new() })
    }

    /// Adds a line without its end.
    pub(crate) fn add(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(line);
        self.batch.push(b'\n');
    }

    /// Returns true if there are lines that are not written yet.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Writes as much as is taken without waiting. Returns the number of lines that cannot be written,
    /// now or later: they are dropped.
    pub(crate) fn write(&mut self) -> u64 {
        let mut done = 0;
        while done < self.batch.len() && poll::is_writable(&self.output) {
            // A pipe that poll(2) finds writable takes so much.
            let end = self.batch.len().min(done + PIPE_BATCH_MAX);
            let whole = memchr::memrchr(b'\n', &self.batch[done..end]).map(|at| done + at + 1);
            let end = whole.unwrap_or(end);
            if self.output.write(&self.batch[done..end]).is_err() {
                self.batch.drain(..done);
                return self.give_up();
            }
            done = end;
        }
        self.batch.drain(..done);
        0
    }

    /// Drops the lines that are not written yet. Returns their number.
    pub(crate) fn give_up(&mut self) -> u64 {
        let lines = memchr::memchr_iter(b'\n', &self.batch).count() as u64;
        self.batch.clear();
        lines
    }
}

impl AsFd for Printer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// A pipe that is full is not waited for, and has every line when it is read.
    #[test]
    fn printer_waits_for_no_reader_and_loses_nothing() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut printer = Printer::new(writer.as_fd()).expect("descriptors can be copied");
        let mut all = Vec::new();
        for number in 0..10_000 {
            let line = format!("{number:050}");
            printer.add(line.as_bytes());
            all.extend_from_slice(format!("{line}\n").as_bytes());
        }
        assert_eq!(printer.write(), 0);
        assert!(printer.is_waiting(), "a pipe holds less than {} bytes", all.len());
        let mut found = Vec::new();
        while printer.is_waiting() {
            let mut piece = vec![0; 32 << 10];
            let length = reader.read(&mut piece).expect("it is open");
            found.extend_from_slice(&piece[..length]);
            assert_eq!(printer.write(), 0);
        }
        drop((printer, writer));
        reader.read_to_end(&mut found).expect("it ends");
        assert_eq!(found, all);
    }

    #[test]
    fn lines_that_nobody_can_read_are_counted() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut printer = Printer::new(writer.as_fd()).expect("descriptors can be copied");
        printer.add(b"one");
        printer.add(b"two");
        assert_eq!((printer.write(), printer.is_waiting()), (2, false));
    }

    #[test]
    fn lines_that_are_given_up_are_counted_once() {
        let (_reader, writer) = io::pipe().expect("a pipe");
        let mut printer = Printer::new(writer.as_fd()).expect("descriptors can be copied");
        let line = [b'x'; 1023];
        (0..1000).for_each(|_| printer.add(&line));
        assert_eq!(printer.write(), 0);
        let lines = printer.give_up();
        assert!((900..1000).contains(&lines), "the pipe has taken some: {lines}");
        assert_eq!((printer.give_up(), printer.is_waiting()), (0, false));
    }
}
