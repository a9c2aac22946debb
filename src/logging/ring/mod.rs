//! A ring of lines in shared memory: one process writes, the logger reads, neither ever waits for the
//! other.
//!
//! ```text
//!  cells:  [ producer's line | consumer's line | data …………………………………… ]
//!                                                  ▲ tail         ▲ head
//!  record: [ length | kind | lines lost before ] [ bytes of the line, 8 to a cell ]
//! ```
//! A record is copied behind the head and then published by one store of the head; it is taken by one
//! store of the tail, when it has been written out. Positions count cells and never return to zero, so
//! `head - tail` is what the ring holds. Each cell has one writer.
//!
//! # Why
//! A producer that is killed, at any point, leaves a ring that can be read: what was not published is
//! not there, what was not taken is there still. The next producer goes on at the head, the next
//! consumer at the tail. A batch whose consumer dies while it is written is the one thing that is read
//! twice.
//!
//! Error lines have a quarter of the ring for themselves. Both kinds share one ring, so that the order
//! in which a process wrote them is the order in which they are read.
//!
//! Lines that found no room are counted, and each record says how many there were by then: so the gap
//! is told where it is.
//!
//! # The trap
//! The consumer sleeps when every ring is empty, and says so ([`Consumer::announce`]). It must look
//! once more after it has said so, and the producer must look whether it was said after it has
//! published; with a full fence between on both sides, one of them sees the other. Otherwise a line
//! would wait for the one after it.
//!
//! Neither side believes the other's numbers: a process that has gone mad can ruin its own lines.

pub(super) mod legacy;
pub(super) mod rings;

use std::ops::Range;
use std::sync::atomic::{self, Ordering};
use std::time::Duration;

use crate::sys::shared::Mapping;
use crate::time::Instant;

/// Bytes of the longest record; a line that is longer is cut where it is made.
pub(super) const RECORD_MAX: usize = crate::access_format::LINE_MAX;

// What the producer writes: where the next record goes, how many lines were lost since the ring was
// made, when the first and the last of those were that are not told yet, who it is, whose the last lost
// line was, and what its predecessors have left: up to which number lost lines were whose, and when the
// last of them was.
const HEAD: usize = 0;
const DROPPED: usize = 1;
const SINCE: usize = 2;
const UNTIL: usize = 3;
const PID: usize = 4;
const LOSER: usize = 5;
const FORMER: usize = 6;
const FORMER_UNTIL: usize = 7;
// What the consumer writes: which record is next, how many lost lines it has told of, how it may be
// woken, and its notes to its replacement, which fill the rest of its line.
const TAIL: usize = 8;
const TOLD: usize = 9;
const REST: usize = 10;
const NOTES: usize = 11;
/// Where the records begin.
const DATA: usize = 16;

/// Numbers that a consumer leaves to its replacement; they mean what the two agree on. Zero at first.
pub(crate) type Notes = [u64; DATA - NOTES];

// The loser in `FORMER`, above the low half of a count.
const FORMER_LOSER: u32 = 32;

// A record's first cell: its length in bytes, its kind, the lines lost before it (the low half).
const KIND: u32 = 24;
const LENGTH_MASK: u64 = (1 << KIND) - 1;
const LOST: u32 = 32;

/// Atomic numbers that two processes share, zero at first.
pub(crate) trait Cells {
    fn count(&self) -> usize;
    fn load(&self, at: usize, order: Ordering) -> u64;
    fn store(&self, at: usize, number: u64, order: Ordering);
    /// A fence of sequential consistency.
    fn fence(&self);
}

impl Cells for Mapping {
    fn count(&self) -> usize {
        self.len() * 8
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        self[at / 8].0[at % 8].load(order)
    }

    fn store(&self, at: usize, number: u64, order: Ordering) {
        self[at / 8].0[at % 8].store(number, order);
    }

    fn fence(&self) {
        atomic::fence(Ordering::SeqCst);
    }
}

/// Which log a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Access = 1,
    Error = 2,
}

/// The reader to wake now that a line is in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a consumer that is not woken leaves lines where they are"]
pub(super) enum Wake {
    Nobody,
    Consumer,
}

/// There is no room for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The rest of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// For a moment, while lines come: it is to be woken when a quarter of the ring is full.
    Nap,
    /// Until there is something to do: it is to be woken by any line.
    Sleep,
}

/// The finding of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// A line for this log.
    Line(Kind),
    /// A gap.
    Lost(Lost),
    /// Its content makes no sense; the consumer goes on behind it.
    Corrupted {
        pid: u64,
    },
}

/// Lines that found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) lines: u64,
    /// From the first of them to the last.
    pub(crate) span: Duration,
    /// Whose they were, as it says; `None` when several processes lost some, one after the other.
    pub(crate) pid: Option<u64>,
}

/// Cells that hold the records of a ring.
fn capacity(cells: &impl Cells) -> u64 {
    (cells.count() - DATA) as u64
}

fn place(cells: &impl Cells, position: u64) -> usize {
    // It is below the number of cells, which is a usize.
    DATA + usize::try_from(position % capacity(cells)).unwrap_or(0)
}

/// The cell behind this one.
fn behind(cells: &impl Cells, place: usize) -> usize {
    if place + 1 < cells.count() { place + 1 } else { DATA }
}

/// So many cells from this one on: those up to the end of the ring, and those from its beginning on.
/// There are no more of them than the ring has.
fn runs(cells: &impl Cells, start: usize, count: usize) -> [Range<usize>; 2] {
    let end = cells.count().min(start + count);
    [start..end, DATA..DATA + count - (end - start)]
}

/// The end that writes.
#[derive(Debug)]
pub(super) struct Producer<C> {
    cells: C,
    head: u64,
    dropped: u64,
    pid: u64,
    /// Access lines find no room until half of what they may fill is free.
    is_full: bool,
    /// The announcement for which the consumer was woken.
    answered: Option<u64>,
}

impl<C: Cells> Producer<C> {
    /// Goes on where another has stopped, which must be dead.
    pub(super) fn new(cells: C, pid: u32) -> Self {
        // ORDERING: the producer's own cells are read Relaxed: its predecessor's death is known, which
        // is later than all that it wrote.
        let mut head = cells.load(HEAD, Ordering::Relaxed);
        let tail = cells.load(TAIL, Ordering::Acquire);
        if head.wrapping_sub(tail) > capacity(&cells) {
            head = tail;
            cells.store(HEAD, head, Ordering::Release);
        }
        let pid = u64::from(pid);
        cells.store(PID, pid, Ordering::Relaxed);
        let dropped = cells.load(DROPPED, Ordering::Relaxed);
        leave_to_former(&cells, dropped);
        Self { cells, head, dropped, pid, is_full: false, answered: None }
    }

    /// A number that grows with every line, whether that is published or counted as lost.
    pub(super) fn settled(&self) -> u64 {
        self.head.wrapping_add(self.dropped)
    }

    /// Publishes a line.
    ///
    /// # Errors
    /// When there is no room for it, or it is longer than [`RECORD_MAX`].
    pub(super) fn push(&mut self, kind: Kind, line: &[u8]) -> Result<Wake, Full> {
        let cells = 1 + line.len().div_ceil(8) as u64;
        // ORDERING: Acquire, so that nothing is overwritten that is still being read; what a mad
        // process has written there looks like a full ring.
        let tail = self.cells.load(TAIL, Ordering::Acquire);
        let used = self.head.wrapping_sub(tail).saturating_add(cells);
        let has_room = line.len() <= RECORD_MAX && used <= self.limit(kind);
        if kind == Kind::Access {
            self.is_full = !has_room;
        }
        if !has_room {
            return Err(Full);
        }
        let header = line.len() as u64 | (kind as u64) << KIND | self.dropped << LOST;
        let first = place(&self.cells, self.head);
        self.cells.store(first, header, Ordering::Relaxed);
        let (whole, rest) = line.as_chunks::<8>();
        let [run, wrapped] = runs(&self.cells, behind(&self.cells, first), whole.len());
        let last = if run.end < self.cells.count() { run.end } else { wrapped.end };
        let (before, after) = whole.split_at(run.len());
        for (run, bytes) in [(run, before), (wrapped, after)] {
            for (place, bytes) in run.zip(bytes) {
                self.cells.store(place, u64::from_ne_bytes(*bytes), Ordering::Relaxed);
            }
        }
        if !rest.is_empty() {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            self.cells.store(last, u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        self.head = self.head.wrapping_add(cells);
        // ORDERING: Release: a reader that sees the head sees the record.
        self.cells.store(HEAD, self.head, Ordering::Release);
        Ok(self.wake(used))
    }

    /// Counts a line that found no room. The consumer may have made some in the meantime, and rest.
    pub(super) fn drop_line(&mut self, now: Instant) -> Wake {
        let now = now.as_millis();
        if self.cells.load(TOLD, Ordering::Relaxed) == self.dropped {
            self.cells.store(SINCE, now, Ordering::Relaxed);
        }
        self.cells.store(UNTIL, now, Ordering::Relaxed);
        // ORDERING: Release: a reader that sees this loser sees what is noted of its predecessors.
        self.cells.store(LOSER, self.pid, Ordering::Release);
        self.dropped = self.dropped.wrapping_add(1);
        // ORDERING: Release: a reader that sees the count sees the times, whose they are, and the records
        // before it.
        self.cells.store(DROPPED, self.dropped, Ordering::Release);
        self.wake(0)
    }

    /// Cells that may be in use with this record.
    fn limit(&self, kind: Kind) -> u64 {
        let all = capacity(&self.cells);
        match kind {
            Kind::Error => all,
            Kind::Access if self.is_full => all / 8 * 3,
            Kind::Access => all / 4 * 3,
        }
    }

    fn wake(&mut self, used: u64) -> Wake {
        self.cells.fence();
        // ORDERING: Relaxed; the fence puts it behind the store of the head.
        let rest = self.cells.load(REST, Ordering::Relaxed);
        // Never announced: the consumer may not know the ring yet.
        let sleeps = rest == 0 || rest & 1 == 1;
        let due = sleeps || used > capacity(&self.cells) / 4;
        // Once for each announcement: it may take the consumer a while to come.
        if due && self.answered.replace(rest) != Some(rest) { Wake::Consumer } else { Wake::Nobody }
    }
}

/// Notes whose the lost lines are that were not logged, before another process loses some.
fn leave_to_former(cells: &impl Cells, dropped: u64) {
    let load = |cell| cells.load(cell, Ordering::Relaxed);
    let told = low(load(TOLD));
    if low(dropped) == told {
        return;
    }
    let loser = load(LOSER);
    let former = load(FORMER);
    let of_former = low(former).wrapping_sub(told);
    let is_untold = (1..=low(dropped).wrapping_sub(told)).contains(&of_former);
    let whose = if is_untold && former >> FORMER_LOSER != loser { SEVERAL } else { loser };
    cells.store(FORMER_UNTIL, load(UNTIL), Ordering::Relaxed);
    cells.store(FORMER, whose << FORMER_LOSER | u64::from(low(dropped)), Ordering::Relaxed);
}

/// Stands for the loser where there was more than one.
const SEVERAL: u64 = 0;

/// The end that reads.
#[derive(Debug)]
pub(crate) struct Consumer<C> {
    cells: C,
    /// The next record, which is ahead of the shared tail until [`Consumer::commit`].
    tail: u64,
    /// As far as the ring is known to be filled.
    head: u64,
    told: u64,
    /// Up to when losses were told of, in milliseconds.
    told_until: u64,
    rests: u64,
}

impl<C: Cells> Consumer<C> {
    /// Goes on where another has stopped, which must be dead.
    pub(super) fn new(cells: C) -> Self {
        let tail = cells.load(TAIL, Ordering::Relaxed);
        let told = cells.load(TOLD, Ordering::Relaxed);
        let rests = cells.load(REST, Ordering::Relaxed) / 2;
        Self { cells, tail, head: tail, told, told_until: 0, rests }
    }

    /// Returns the next finding; `line` is a line's bytes then.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> Next {
        line.clear();
        if self.tail == self.head {
            // ORDERING: the count first, and both with Acquire: a loss that is seen comes behind the
            // records that were published before it.
            let dropped = self.cells.load(DROPPED, Ordering::Acquire);
            self.head = self.cells.load(HEAD, Ordering::Acquire);
            if self.tail == self.head {
                return self.lost_until(low(dropped)).map_or(Next::Nothing, Next::Lost);
            }
        }
        let ready = self.head.wrapping_sub(self.tail);
        let header = self.get(self.tail);
        let kind = match header >> KIND & 0xff {
            1 => Some(Kind::Access),
            2 => Some(Kind::Error),
            _ => None,
        };
        // The mask leaves 24 bits, which fit.
        let length = usize::try_from(header & LENGTH_MASK).unwrap_or(usize::MAX);
        let cells = 1 + length.div_ceil(8) as u64;
        let makes_sense = length <= RECORD_MAX && cells <= ready && ready <= capacity(&self.cells);
        let (Some(kind), true) = (kind, makes_sense) else {
            return self.reset();
        };
        if let Some(lost) = self.lost_until(low(header >> LOST)) {
            return Next::Lost(lost);
        }
        line.resize(length.next_multiple_of(8), 0);
        let (words, _) = line.as_chunks_mut::<8>();
        let [run, wrapped] =
            runs(&self.cells, behind(&self.cells, place(&self.cells, self.tail)), words.len());
        let (before, after) = words.split_at_mut(run.len());
        for (run, bytes) in [(run, before), (wrapped, after)] {
            for (place, bytes) in run.zip(bytes) {
                *bytes = self.cells.load(place, Ordering::Relaxed).to_ne_bytes();
            }
        }
        line.truncate(length);
        self.tail = self.tail.wrapping_add(cells);
        Next::Line(kind)
    }

    /// Gives back the room of everything that [`Consumer::next`] has answered.
    pub(crate) fn commit(&self) {
        self.cells.store(TOLD, self.told, Ordering::Relaxed);
        // ORDERING: Release: what was read is read before it may be overwritten.
        self.cells.store(TAIL, self.tail, Ordering::Release);
    }

    /// As far as the ring is filled now.
    pub(crate) fn mark(&self) -> u64 {
        self.cells.load(HEAD, Ordering::Acquire)
    }

    /// The producer's number, as far as it has come.
    pub(super) fn settled(&self) -> u64 {
        let dropped = self.cells.load(DROPPED, Ordering::Acquire);
        self.mark().wrapping_add(dropped)
    }

    /// Returns true if all that stood before the mark was read, a gap that it ended with too.
    pub(crate) fn has_passed(&self, mark: u64) -> bool {
        match self.tail.wrapping_sub(mark).cast_signed() {
            0 => low(self.cells.load(DROPPED, Ordering::Acquire)) == low(self.told),
            distance => distance > 0,
        }
    }

    /// Leaves these to the next consumer.
    pub(crate) fn note(&self, notes: Notes) {
        for (cell, note) in (NOTES..).zip(notes) {
            self.cells.store(cell, note, Ordering::Relaxed);
        }
    }

    /// Returns the last consumer's account.
    pub(crate) fn notes(&self) -> Notes {
        std::array::from_fn(|note| self.cells.load(NOTES + note, Ordering::Relaxed))
    }

    /// Returns true if any consumer has rested.
    pub(super) fn has_rested(&self) -> bool {
        self.rests > 0
    }

    /// Says how the consumer is about to rest. It may do so if then every ring still allows it
    /// ([`Consumer::allows`]).
    pub(crate) fn announce(&mut self, rest: Rest) {
        // A count that goes back is a mad process's: there is nothing to tell, now or ever.
        let dropped = self.cells.load(DROPPED, Ordering::Acquire);
        if low(dropped).wrapping_sub(low(self.told)) > u32::MAX / 2 {
            self.told = dropped;
        }
        // Also heals a tail that another has written on.
        self.commit();
        self.rests = self.rests.wrapping_add(1) & (u64::MAX >> 1);
        let asleep = u64::from(rest == Rest::Sleep);
        self.cells.store(REST, self.rests << 1 | asleep, Ordering::Relaxed);
        self.cells.fence();
    }

    /// Returns true if the consumer may rest as it has announced.
    pub(crate) fn allows(&self, rest: Rest) -> bool {
        // ORDERING: Acquire is more than is needed; the fence in `announce` is what counts.
        let used = self.cells.load(HEAD, Ordering::Acquire).wrapping_sub(self.tail);
        let dropped = self.cells.load(DROPPED, Ordering::Acquire);
        match rest {
            Rest::Nap => used <= capacity(&self.cells) / 4,
            Rest::Sleep => used == 0 && low(dropped) == low(self.told),
        }
    }

    /// The gap before a record, or before the end, that says it.
    fn lost_until(&mut self, dropped: u32) -> Option<Lost> {
        let lines = dropped.wrapping_sub(low(self.told));
        // A record may come again whose gap was told: its consumer died between the two stores of
        // `commit`. Then the count is behind.
        if lines == 0 || lines > u32::MAX / 2 {
            return None;
        }
        let at = |cell| self.cells.load(cell, Ordering::Relaxed);
        // ORDERING: Acquire: as far as the loser is known, so are its predecessors.
        let loser = self.cells.load(LOSER, Ordering::Acquire);
        let former = at(FORMER);
        let (lines, until, whose) = match low(former).wrapping_sub(low(self.told)) {
            // The rest is told of the next time.
            of_former if (1..=lines).contains(&of_former) => {
                (of_former, at(FORMER_UNTIL), former >> FORMER_LOSER)
            }
            _ => (lines, at(UNTIL), loser),
        };
        let lines = u64::from(lines);
        self.told = self.told.wrapping_add(lines);
        // Further lines may have been lost before that was told: no time is told of twice.
        let since = at(SINCE).max(std::mem::replace(&mut self.told_until, until));
        let span = Duration::from_millis(until.saturating_sub(since));
        Some(Lost { lines, span, pid: (whose != SEVERAL).then_some(whose) })
    }

    fn reset(&mut self) -> Next {
        self.tail = self.head;
        self.told = self.cells.load(DROPPED, Ordering::Relaxed);
        Next::Corrupted { pid: self.cells.load(PID, Ordering::Relaxed) }
    }

    fn get(&self, position: u64) -> u64 {
        self.cells.load(place(&self.cells, position), Ordering::Relaxed)
    }
}

/// The low half of a count: what a record has room for.
fn low(count: u64) -> u32 {
    u32::try_from(count & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(all(test, not(miri)))]
mod crashes;
// Loom brings stacks of its own, which Miri does not know.
#[cfg(all(test, not(miri)))]
mod model;
#[cfg(test)]
mod tests;
