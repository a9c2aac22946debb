//! The rings of all processes, one behind the other in one memory.
//!
//! The master makes them and gives one to each process that it forks, for as long as that lives; a
//! ring whose process is dead goes to the next, whatever waits in it. So there are never more rings
//! than there were processes at one time, however long nobody reads what they write. The first ring
//! is the master's own.
//!
//! Each producer maps its own ring, the logger maps all. Both the memory and the bell that wakes the
//! logger are descriptors: they outlive the image of the program.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::legacy::Legacy;
use super::ring::{Consumer, Next, Producer};
use crate::sys::bell::Bell;
use crate::sys::process;
use crate::sys::shared::{Mapping, Memory};

/// Lines of shared memory in a ring: 1 MiB, some ten thousand access lines. A multiple of 64 KiB,
/// the largest page that Linux has.
const RING_LINES: usize = 1024 * 1024 / 64;

/// All rings.
#[derive(Debug)]
pub(crate) struct Rings {
    memory: Memory,
    bell: Bell,
}

/// A ring before its producer is born.
#[derive(Debug)]
pub(crate) struct Ring {
    mapping: Mapping,
    bell: Bell,
}

/// The place of the master's own ring.
pub(crate) const MASTER: usize = 0;

impl Rings {
    /// No ring yet.
    ///
    /// # Errors
    /// What memfd_create(2) and eventfd(2) say.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { memory: Memory::new("ferricorn-rings")?, bell: Bell::new()? })
    }

    /// The rings that an earlier image has made.
    pub(crate) fn inherit(memory: OwnedFd, bell: OwnedFd) -> Self {
        Self { memory: memory.into(), bell: bell.into() }
    }

    /// What an image leaves to the next.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.memory.as_fd(), self.bell.as_fd()]
    }

    /// The ring at a place, made when it is not there. No living process may have it.
    ///
    /// # Errors
    /// What ftruncate(2), mmap(2) and fcntl(2) say.
    pub(crate) fn ring(&self, place: usize) -> io::Result<Ring> {
        let end = (place + 1) * RING_LINES;
        if self.memory.count()? < end {
            self.memory.grow(end)?;
        }
        let mapping = self.memory.map(place * RING_LINES, RING_LINES)?;
        Ok(Ring { mapping, bell: self.bell.try_clone()? })
    }

    /// Whether the process that had this ring, and is dead, has written the line before which it had
    /// noted this, or has counted it as lost.
    ///
    /// # Errors
    /// What fstat(2) and mmap(2) say.
    pub(crate) fn has_line(&self, place: usize, noted: u64) -> io::Result<bool> {
        let mapping = self.memory.map(place * RING_LINES, RING_LINES)?;
        Ok(Consumer::new(mapping).settled() != noted)
    }

    /// What wakes the logger.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// The rings from this place on, to be read.
    ///
    /// # Errors
    /// What fstat(2) and mmap(2) say.
    pub(crate) fn consumers(&self, from: usize) -> io::Result<Vec<Consumer<Mapping>>> {
        let count = self.memory.count()? / RING_LINES;
        let map = |place| self.memory.map(place * RING_LINES, RING_LINES).map(Consumer::new);
        (from..count).map(map).collect()
    }
}

impl Rings {
    /// What a logger has left that could say nothing more.
    pub(super) fn legacy(&self) -> Legacy {
        let rings = self.consumers(MASTER).unwrap_or_default();
        rings.first().map(|ring| ring.notes().into()).unwrap_or_default()
    }

    /// Whether there ever was a logger that had nothing more to read for a moment.
    pub(super) fn were_read(&self) -> bool {
        let rings = self.consumers(MASTER).unwrap_or_default();
        rings.first().is_some_and(Consumer::has_rested)
    }

    /// Reads what waits, when there is no logger.
    pub(super) fn read_rest(&self, mut tell: impl FnMut(Next, &[u8])) {
        let mut line = Vec::new();
        for mut ring in self.consumers(0).unwrap_or_default() {
            loop {
                match ring.next(&mut line) {
                    Next::Nothing => break,
                    next => tell(next, &line),
                }
            }
        }
    }
}

impl Ring {
    /// For tests: writes lines as this ring's process.
    #[cfg(test)]
    pub(crate) fn into_writer(self) -> impl FnMut(super::Kind, &[u8]) {
        let mut sink = super::sink::Sink::ring(self);
        move |kind, line| {
            if sink.send(kind, line).is_err() {
                sink.drop_line();
            }
        }
    }

    /// For tests: writes this number, and what follows from it, all over the ring.
    #[cfg(test)]
    pub(crate) fn scribble(&self, seed: u64) {
        use std::sync::atomic::Ordering;
        let mut number = seed;
        for word in self.mapping.iter().take(400).flat_map(|line| &line.0) {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.store(number >> (number % 64), Ordering::Relaxed);
        }
    }

    /// The end of this process, which writes.
    pub(super) fn into_producer(self) -> (Producer<Mapping>, Bell) {
        let pid = u32::try_from(process::pid()).unwrap_or(0);
        (Producer::new(self.mapping, pid), self.bell)
    }
}
