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
//!
//! # Owners and streams
//! The master notes the owner of each ring in a memory that no child but the logger has, which judges by it
//! the lines that name a process. A child that runs as another user has no standard stream of the master's
//! either: its standard output and standard error are pipes beside its ring, which the logger reads.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::legacy::Legacy;
use super::{Consumer, Kind, Next, Producer};
use crate::logging::lines::Lines;
use crate::sys::bell::Bell;
use crate::sys::exec::{self, Handover};
use crate::sys::shared::{Mapping, Memory};
use crate::sys::{launch, process};

/// Lines of shared memory in a ring: 1 MiB, some ten thousand access lines.
const RING_LINES: usize = 1024 * 1024 / 64;

/// Lines of shared memory for the owners of rings: there are never so many processes at one time.
const OWNER_LINES: usize = 1024;

/// All rings, by their places.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    rings: Vec<Shared>,
    /// The pids of the processes that have them, by place; 0 where that is dead. `None` in a process that
    /// writes to one alone.
    owners: Option<Memory>,
    streams: ChildStreams,
}

/// Where the standard streams of the next children go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ChildStreams {
    /// Where the master's go.
    #[default]
    Inherited,
    /// Into pipes beside their rings.
    Piped,
}

/// The descriptors of all rings while they are on their way to the next image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedRings {
    /// Of each the memory, the bell, and the two ends of each pipe, the readers' first.
    rings: Vec<Vec<i32>>,
    owners: Option<i32>,
}

/// A ring's memory, the bell that its producer rings, and the pipes of its standard output and standard
/// error, or none.
#[derive(Debug)]
struct Shared {
    memory: Memory,
    bell: Bell,
    readers: Vec<OwnedFd>,
    /// Empty in the logger.
    writers: Vec<OwnedFd>,
}

/// A ring before its producer is born.
#[derive(Debug)]
pub(crate) struct Ring {
    place: usize,
    mapping: Mapping,
    bell: Bell,
    writers: Vec<OwnedFd>,
}

/// The place of the master's own ring.
pub(crate) const MASTER: usize = 0;

impl Shared {
    fn new(streams: ChildStreams) -> io::Result<Self> {
        let memory = Memory::new("ferricorn-ring")?;
        memory.grow(RING_LINES)?;
        memory.seal()?;
        let mut readers = Vec::new();
        let mut writers = Vec::new();
        if streams == ChildStreams::Piped {
            for _ in 0..PIPES {
                let (reader, writer) = launch::output_pipe(None)?;
                readers.push(reader);
                writers.push(writer);
            }
        }
        Ok(Self { memory, bell: Bell::new()?, readers, writers })
    }

    /// # Errors
    /// `InvalidData` where these are not the descriptors of one ring.
    fn of(descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut descriptors = descriptors.into_iter();
        let (Some(memory), Some(bell)) = (descriptors.next(), descriptors.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let readers: Vec<OwnedFd> = descriptors.by_ref().take(PIPES).collect();
        let writers: Vec<OwnedFd> = descriptors.collect();
        let are_whole = [0, PIPES].contains(&readers.len()) && [0, PIPES].contains(&writers.len());
        let ring = Self { memory: memory.into(), bell: bell.into(), readers, writers };
        are_whole.then_some(ring).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn map(&self) -> io::Result<Mapping> {
        self.memory.map(0, RING_LINES)
    }
}

/// Bytes that are read of a pipe at the end: more than it holds.
const REST_MAX: u64 = 1 << 20;

/// Pipes beside a ring: standard output and standard error.
const PIPES: usize = 2;

impl Rings {
    /// The master's ring alone.
    ///
    /// # Errors
    /// The error of memfd_create(2), ftruncate(2), fcntl(2) and timerfd_create(2).
    pub(crate) fn new() -> io::Result<Self> {
        let owners = Memory::new("ferricorn-owners")?;
        owners.grow(OWNER_LINES)?;
        owners.seal()?;
        let rings = vec![Shared::new(ChildStreams::Inherited)?];
        let rings = Self { rings, owners: Some(owners), streams: ChildStreams::Inherited };
        rings.own(MASTER, process::pid());
        Ok(rings)
    }

    /// Gives the processes of rings that are made from now on such streams.
    pub(crate) fn pipe_streams(&mut self, streams: ChildStreams) {
        self.streams = streams;
    }

    /// Notes the owner of the ring at this place; 0 where that is dead.
    pub(crate) fn own(&self, place: usize, pid: i32) {
        let pid = u64::try_from(pid).unwrap_or(0);
        // There is room for every place, and the size is sealed.
        let _full = self.owners.as_ref().map(|owners| owners.set(place, pid));
    }

    /// Returns the descriptors of each.
    pub(crate) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> HandedRings {
        let rings = self.rings.iter().map(|ring| {
            let pipes = ring.readers.iter().chain(&ring.writers);
            let mut handed = vec![handover.add(&ring.memory), handover.add(&ring.bell)];
            handed.extend(pipes.map(|end| handover.add(end)));
            handed
        });
        let rings = rings.collect();
        HandedRings { rings, owners: self.owners.as_ref().map(|owners| handover.add(owners)) }
    }

    /// # Errors
    /// When a descriptor is not open.
    pub(crate) fn take_over(handed: HandedRings) -> io::Result<Self> {
        let owners = handed.owners.map(exec::inherited).transpose()?;
        let mut rings = Self { owners: owners.map(Memory::from), ..Self::default() };
        for ring in handed.rings {
            rings.add(ring.into_iter().map(exec::inherited).collect::<io::Result<_>>()?)?;
        }
        Ok(rings)
    }

    /// Takes another one, which gets the next place.
    ///
    /// # Errors
    /// `InvalidData` where these are not the descriptors of one ring: some may have found no number.
    pub(crate) fn add(&mut self, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.rings.push(Shared::of(descriptors)?);
        Ok(())
    }

    /// Takes one that the master has made since this process, the logger, was forked.
    ///
    /// # Errors
    /// As [`Rings::add`].
    pub(crate) fn add_new(&mut self, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let pipes = if self.streams == ChildStreams::Piped { PIPES } else { 0 };
        if descriptors.len() != 2 + pipes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.add(descriptors)
    }

    /// Returns the descriptors that the logger needs of each: the memory, the bell, and the readers' ends
    /// of the pipes.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = Vec<BorrowedFd<'_>>> {
        self.rings.iter().map(|ring| {
            let readers = ring.readers.iter().map(AsFd::as_fd);
            [ring.memory.as_fd(), ring.bell.as_fd()].into_iter().chain(readers).collect()
        })
    }

    /// Keeps what the logger needs, whose descriptors are these.
    pub(crate) fn keep_for_logger(&mut self) -> Vec<RawFd> {
        self.rings.iter_mut().for_each(|ring| ring.writers.clear());
        let owners = self.owners.as_ref().map(AsFd::as_fd);
        self.descriptors().flatten().chain(owners).map(|fd| fd.as_raw_fd()).collect()
    }

    /// The number of rings.
    pub(crate) fn count(&self) -> usize {
        self.rings.len()
    }

    /// The ring at a place, made when it is not there. No living process may have it.
    ///
    /// # Errors
    /// Those of [`Rings::new`], and of mmap(2).
    pub(crate) fn ring(&mut self, place: usize) -> io::Result<Ring> {
        while self.count() <= place {
            self.rings.push(Shared::new(self.streams)?);
        }
        let ring = &self.rings[place];
        let writers = ring.writers.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(Ring { place, mapping: ring.map()?, bell: ring.bell.try_clone()?, writers })
    }

    /// The number that the process which had this ring, and is dead, would note next: another one than
    /// it has noted before a line stands for a line that is written, or counted as lost.
    ///
    /// # Errors
    /// The error of mmap(2); `NotFound` where there is no such ring.
    pub(crate) fn settled(&self, place: usize) -> io::Result<u64> {
        let ring = self.rings.get(place).ok_or(io::ErrorKind::NotFound)?;
        Ok(Consumer::new(ring.map()?).settled())
    }

    /// The bell at a place, which wakes the logger.
    pub(crate) fn bell(&self, place: usize) -> Option<&Bell> {
        self.rings.get(place).map(|ring| &ring.bell)
    }

    /// Takes the readers' ends of the pipes beside this ring: standard output first.
    pub(crate) fn take_pipes(&mut self, place: usize) -> Vec<OwnedFd> {
        self.rings.get_mut(place).map(|ring| std::mem::take(&mut ring.readers)).unwrap_or_default()
    }

    /// Maps the owners of all rings; `None` where this process may not know them.
    ///
    /// # Errors
    /// The error of mmap(2).
    pub(crate) fn owners(&self) -> io::Result<Option<Mapping>> {
        self.owners.as_ref().map(|owners| owners.map(0, OWNER_LINES)).transpose()
    }

    /// The rings from this place on, to be read.
    ///
    /// # Errors
    /// The error of mmap(2).
    pub(crate) fn consumers(&self, from: usize) -> io::Result<Vec<Consumer<Mapping>>> {
        self.rings.iter().skip(from).map(|ring| ring.map().map(Consumer::new)).collect()
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
        let readers = self.rings.iter().flat_map(|ring| &ring.readers);
        for reader in readers.filter_map(|reader| reader.try_clone().ok()) {
            let mut lines = Lines::default();
            let mut text = Vec::new();
            // It ends where there is no more, since a reader's end does not wait.
            let _all = File::from(reader).take(REST_MAX).read_to_end(&mut text);
            let mut tell = |line: &[u8]| tell(Next::Line(Kind::Error), &[line, b"\n"].concat());
            lines.take(&text, &mut tell);
            lines.finish(tell);
        }
    }
}

#[cfg(test)]
impl Rings {
    /// The same rings in another process's hands.
    pub(crate) fn copy(&self) -> Self {
        let owned = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().expect("there are descriptors");
        let owners = self.owners.as_ref().map(|owners| owned(owners.as_fd()).into());
        let mut copy = Self { owners, ..Self::default() };
        let rings = self.descriptors().map(|ring| ring.into_iter().map(owned).collect());
        rings.for_each(|ring| copy.add(ring).expect("they are a ring's"));
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

    /// Makes the pipes, if any, the standard streams of this process, which owns the ring.
    ///
    /// # Errors
    /// The error of fcntl(2), and those of [`launch::take_streams`].
    pub(crate) fn take_streams(&mut self) -> io::Result<()> {
        match &std::mem::take(&mut self.writers)[..] {
            [output, errors] => {
                // An earlier owner may have set flags, which belong to the pipe.
                launch::let_wait(output)?;
                launch::let_wait(errors)?;
                launch::take_streams(output, errors)
            }
            _ => Ok(()),
        }
    }

    /// For tests: writes lines as this ring's process.
    #[cfg(test)]
    pub(crate) fn into_writer(self) -> impl FnMut(Kind, &[u8]) {
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
