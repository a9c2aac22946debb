//! The rings of all processes, each in a memory of its own.
//!
//! The master makes them and gives one to each process that it forks, for as long as that lives; a
//! ring whose process is dead goes to the next, whatever waits in it. So there are never more rings
//! than there were processes at one time, however long their lines are not read. The first ring
//! is the master's own.
//!
//! Each producer maps its own ring, the logger maps all. Memories, and the bells that wake the logger,
//! are descriptors: they outlive the image of the program.
//!
//! # Why not one memory
//! A mapping of a part reaches the rest (mremap(2), remap_file_pages(2)), and its file's size and seals
//! belong to all of it. A process that is taken over could write lines in another one's name, and
//! silence a bell that others ring. So a producer has no memory but its own ring, of its full size and
//! sealed, and a bell of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::legacy::Legacy;
use super::{Consumer, Next, Producer};
use crate::sys::bell::Bell;
use crate::sys::exec::{self, Handover};
use crate::sys::process;
use crate::sys::shared::{Mapping, Memory};

/// Lines of shared memory in a ring: 1 MiB, some ten thousand access lines.
const RING_LINES: usize = 1024 * 1024 / 64;

/// All rings, by their places.
#[derive(Debug, Default)]
pub(crate) struct Rings(Vec<Shared>);

/// A ring's memory, and the bell that its producer rings.
#[derive(Debug)]
struct Shared {
    memory: Memory,
    bell: Bell,
}

/// A ring before its producer is born.
#[derive(Debug)]
pub(crate) struct Ring {
    place: usize,
    mapping: Mapping,
    bell: Bell,
}

/// The place of the master's own ring.
pub(crate) const MASTER: usize = 0;

impl Shared {
    fn new() -> io::Result<Self> {
        let memory = Memory::new("ferricorn-ring")?;
        memory.grow(RING_LINES)?;
        memory.seal()?;
        Ok(Self { memory, bell: Bell::new()? })
    }

    fn map(&self) -> io::Result<Mapping> {
        self.memory.map(0, RING_LINES)
    }
}

impl Rings {
    /// The master's ring alone.
    ///
    /// # Errors
    /// The error of memfd_create(2), ftruncate(2), fcntl(2) and timerfd_create(2).
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(vec![Shared::new()?]))
    }

    /// Returns the memory and the bell of each.
    pub(crate) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> Vec<[i32; 2]> {
        let ring = |ring: &'a Shared| [handover.add(&ring.memory), handover.add(&ring.bell)];
        self.0.iter().map(ring).collect()
    }

    /// # Errors
    /// When a descriptor is not open.
    pub(crate) fn take_over(handed: Vec<[i32; 2]>) -> io::Result<Self> {
        let mut rings = Self::default();
        for [memory, bell] in handed {
            rings.add([exec::inherited(memory)?, exec::inherited(bell)?]);
        }
        Ok(rings)
    }

    /// Takes another one, which gets the next place.
    pub(crate) fn add(&mut self, [memory, bell]: [OwnedFd; 2]) {
        self.0.push(Shared { memory: memory.into(), bell: bell.into() });
    }

    /// The memory and the bell of each, for the logger.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = [BorrowedFd<'_>; 2]> {
        self.0.iter().map(|ring| [ring.memory.as_fd(), ring.bell.as_fd()])
    }

    /// The number of rings.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The ring at a place, made when it is not there. No living process may have it.
    ///
    /// # Errors
    /// Those of [`Rings::new`], and of mmap(2).
    pub(crate) fn ring(&mut self, place: usize) -> io::Result<Ring> {
        while self.count() <= place {
            self.0.push(Shared::new()?);
        }
        let ring = &self.0[place];
        Ok(Ring { place, mapping: ring.map()?, bell: ring.bell.try_clone()? })
    }

    /// The number that the process which had this ring, and is dead, would note next: another one than
    /// it has noted before a line stands for a line that is written, or counted as lost.
    ///
    /// # Errors
    /// The error of mmap(2); `NotFound` where there is no such ring.
    pub(crate) fn settled(&self, place: usize) -> io::Result<u64> {
        let ring = self.0.get(place).ok_or(io::ErrorKind::NotFound)?;
        Ok(Consumer::new(ring.map()?).settled())
    }

    /// The bell at a place, which wakes the logger.
    pub(crate) fn bell(&self, place: usize) -> Option<&Bell> {
        self.0.get(place).map(|ring| &ring.bell)
    }

    /// The rings from this place on, to be read.
    ///
    /// # Errors
    /// The error of mmap(2).
    pub(crate) fn consumers(&self, from: usize) -> io::Result<Vec<Consumer<Mapping>>> {
        self.0.iter().skip(from).map(|ring| ring.map().map(Consumer::new)).collect()
    }
}

impl Rings {
    /// Returns the account of a logger that could say nothing more.
    pub(crate) fn legacy(&self) -> Legacy {
        let rings = self.consumers(MASTER).unwrap_or_default();
        rings.first().map(|ring| ring.notes().into()).unwrap_or_default()
    }

    /// Returns true if there ever was a logger that had nothing more to read for a moment.
    pub(crate) fn were_read(&self) -> bool {
        let rings = self.consumers(MASTER).unwrap_or_default();
        rings.first().is_some_and(Consumer::has_rested)
    }

    /// Reads what waits, when there is no logger.
    pub(crate) fn read_rest(&self, mut tell: impl FnMut(Next, &[u8])) {
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

#[cfg(test)]
impl Rings {
    /// The same rings in another process's hands.
    pub(crate) fn copy(&self) -> Self {
        let owned = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().expect("there are descriptors");
        let mut copy = Self::default();
        self.descriptors().for_each(|ring| copy.add(ring.map(owned)));
        copy
    }
}

impl Ring {
    /// Its place among the rings.
    pub(crate) fn place(&self) -> usize {
        self.place
    }

    /// Its bell, the one descriptor that its process needs.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// For tests: writes lines as this ring's process.
    #[cfg(test)]
    pub(crate) fn into_writer(self) -> impl FnMut(super::Kind, &[u8]) {
        let mut sink = crate::logging::output::sink::Sink::ring(self);
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
    pub(in crate::logging) fn into_producer(self) -> (Producer<Mapping>, Bell) {
        let pid = u32::try_from(process::pid()).unwrap_or(0);
        (Producer::new(self.mapping, pid), self.bell)
    }
}
