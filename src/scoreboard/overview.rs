//! The facts of the master, for the stats process to read: the workers, the queues, how workers and
//! reloads have ended.
//!
//! The master writes it into its own block, which no worker maps. A picture is written between two
//! changes of a sequence number, so that a reader never takes half of one for a whole.

use std::sync::atomic::{Ordering, fence};

use super::metrics::{Block, Code};
use super::status_text::{self, StatusText};
use crate::ids::Slot;
use crate::sys::shared::{self, Claim};
use crate::time::Instant;

// The words of the master's block behind those that every block has.
pub(super) const FIRST_WORD: usize = 1024;
/// Odd while a picture is being written.
const SEQUENCE: usize = FIRST_WORD;
const STARTED: usize = FIRST_WORD + 1;
const GENERATION: usize = FIRST_WORD + 2;
const WANTED: usize = FIRST_WORD + 3;
const RELOADING: usize = FIRST_WORD + 4;
const ROW_COUNT: usize = FIRST_WORD + 5;
const QUEUE_COUNT: usize = FIRST_WORD + 6;
const SLOT_COUNT: usize = FIRST_WORD + 7;
const ENDS: usize = FIRST_WORD + 16;
const RELOADS: usize = FIRST_WORD + 32;
const QUEUES: usize = FIRST_WORD + 64;
const PROCESSOR: usize = FIRST_WORD + 128;
const ROWS: usize = FIRST_WORD + 512;
pub(super) const END_WORD: usize = ROWS + ROWS_MAX * ROW_WORDS;

/// Workers in a picture; of more, the others are left out. Each slot may have several.
const ROWS_MAX: usize = 1024;
const ROW_WORDS: usize = 4;
/// Addresses in a picture.
const QUEUES_MAX: usize = 64;
/// Attempts to read a whole picture.
const ATTEMPTS: usize = 1000;

/// The end of a worker, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// As the master, or a signal by hand, had told it to.
    Left = 0,
    /// Before it was ready.
    Boot = 1,
    /// By itself, while it served.
    Exit = 2,
    /// By a signal that was not the master's.
    Signal = 3,
    /// Killed by the kernel for want of memory.
    OutOfMemory = 4,
    /// Aborted because its event loop was silent.
    Stall = 5,
    /// Killed because it did not leave in time.
    Overstay = 6,
    /// In a way that the master cannot know.
    Unknown = 7,
}

impl Cause {
    /// Every cause, with the word for it.
    pub(crate) const ALL: [(Self, &str); 8] = [
        (Self::Left, "left"),
        (Self::Boot, "boot"),
        (Self::Exit, "exit"),
        (Self::Signal, "signal"),
        (Self::OutOfMemory, "out_of_memory"),
        (Self::Stall, "stall"),
        (Self::Overstay, "overstay"),
        (Self::Unknown, "unknown"),
    ];
}

/// The end of a reload, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadResult {
    Success = 0,
    Failure = 1,
}

/// The state of a worker, as the master knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerState {
    Booting = 0,
    Serving = 1,
    Draining = 2,
    /// Aborted or killed, and not reaped yet.
    Ending = 3,
}

impl WorkerState {
    /// Every state, with the word for it.
    pub(crate) const ALL: [(Self, &str); 4] = [
        (Self::Booting, "booting"),
        (Self::Serving, "serving"),
        (Self::Draining, "draining"),
        (Self::Ending, "ending"),
    ];
}

/// A worker in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerRow {
    pub(crate) pid: u32,
    pub(crate) slot: Slot,
    pub(crate) state: WorkerState,
    pub(crate) generation: u32,
    /// The place of its ring, which names its block.
    pub(crate) place: u32,
    /// When its fork was ordered.
    pub(crate) began: Instant,
}

/// A picture of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overview {
    /// When the server was started, in seconds since the epoch.
    pub(crate) started: u64,
    /// The generation in force.
    pub(crate) generation: u32,
    /// Workers wanted.
    pub(crate) wanted: u16,
    pub(crate) is_reloading: bool,
    pub(crate) workers: Vec<WorkerRow>,
    /// Connections that wait at each address; `None` where the kernel does not tell.
    pub(crate) queues: Vec<Option<u32>>,
    /// For how long the reaped workers of each slot had the processor, in microseconds.
    pub(crate) processor: Vec<u64>,
}

/// The master's block.
#[derive(Debug)]
pub(crate) struct MasterMetrics(Block);

// ORDERING: counters stand for themselves: Relaxed. The words of a picture are Relaxed between two
// stores of the sequence number: the first is fenced from what follows, the second is a Release.
impl MasterMetrics {
    pub(crate) fn new(block: Block) -> Self {
        Self(block)
    }

    fn put(&self, at: usize, number: u64) {
        self.0.word(at).store(number, Ordering::Relaxed);
    }

    fn get(&self, at: usize) -> u64 {
        self.0.word(at).load(Ordering::Relaxed)
    }

    fn rise(&self, at: usize, by: u64) {
        self.0.word(at).fetch_add(by, Ordering::Relaxed);
    }

    /// A worker has ended.
    pub(crate) fn count_end(&self, cause: Cause) {
        self.rise(ENDS + cause as usize, 1);
    }

    /// Workers that have ended so.
    pub(crate) fn ends(&self, cause: Cause) -> Claim {
        shared::claim(self.0.word(ENDS + cause as usize))
    }

    /// A reload has ended.
    pub(crate) fn count_reload(&self, result: ReloadResult) {
        self.rise(RELOADS + result as usize, 1);
    }

    /// Reloads that have ended so.
    pub(crate) fn reloads(&self, result: ReloadResult) -> Claim {
        shared::claim(self.0.word(RELOADS + result as usize))
    }

    /// Counts a request that a worker had in hand when it died.
    pub(crate) fn count_request(&self, code: Code) {
        self.0.count_request(code);
    }

    /// For how long the reaped workers of this slot had the processor, in microseconds, as the last picture
    /// says.
    pub(crate) fn processor(&self, slot: Slot) -> Claim {
        shared::claim(self.0.word(PROCESSOR + slot.index()))
    }

    /// The number of pictures that were begun or written.
    pub(crate) fn sequence(&self) -> u64 {
        self.0.word(SEQUENCE).load(Ordering::Acquire)
    }

    /// Writes a picture.
    pub(crate) fn publish(&self, picture: &Overview) {
        let sequence = self.sequence();
        self.put(SEQUENCE, sequence | 1);
        fence(Ordering::Release);
        self.put(STARTED, picture.started);
        self.put(GENERATION, picture.generation.into());
        self.put(WANTED, picture.wanted.into());
        self.put(RELOADING, picture.is_reloading.into());
        let rows = picture.workers.iter().take(ROWS_MAX);
        self.put(ROW_COUNT, rows.len() as u64);
        for (number, row) in rows.enumerate() {
            let at = ROWS + number * ROW_WORDS;
            let slot = u64::from(row.slot.number()) << 32;
            self.put(at, u64::from(row.pid) | slot | (row.state as u64) << 48);
            self.put(at + 1, row.place.into());
            self.put(at + 2, row.generation.into());
            self.put(at + 3, row.began.as_millis());
        }
        let queues = picture.queues.iter().take(QUEUES_MAX);
        self.put(QUEUE_COUNT, queues.len() as u64);
        for (number, length) in queues.enumerate() {
            // Zero: the kernel does not tell.
            self.put(QUEUES + number, length.map_or(0, |length| u64::from(length) + 1));
        }
        let processor = picture.processor.iter().take(usize::from(Slot::MAX));
        self.put(SLOT_COUNT, processor.len() as u64);
        for (number, micros) in processor.enumerate() {
            self.put(PROCESSOR + number, *micros);
        }
        self.0.word(SEQUENCE).store((sequence | 1).wrapping_add(1), Ordering::Release);
    }

    /// The last picture; `None` when the master is stopped in the middle of one, or has written none.
    pub(crate) fn overview(&self) -> Option<Overview> {
        (0..ATTEMPTS).find_map(|_| {
            let before = self.sequence();
            if before == 0 || before & 1 == 1 {
                std::hint::spin_loop();
                return None;
            }
            let picture = self.read();
            fence(Ordering::Acquire);
            (self.get(SEQUENCE) == before).then_some(picture)
        })
    }

    /// Writes the status of the server, as lines of JSON.
    pub(crate) fn publish_status(&self, now: Instant, text: &[u8]) {
        status_text::publish(&self.0, now, text);
    }

    /// The last status; `None` as for [`MasterMetrics::overview`].
    pub(crate) fn status(&self) -> Option<StatusText> {
        status_text::read(&self.0)
    }

    fn read(&self) -> Overview {
        let count = |at, most: usize| usize::try_from(self.get(at)).unwrap_or(most).min(most);
        let length = |number| u32::try_from(self.get(QUEUES + number).checked_sub(1)?).ok();
        Overview {
            started: self.get(STARTED),
            generation: u32::try_from(self.get(GENERATION)).unwrap_or(0),
            wanted: u16::try_from(self.get(WANTED)).unwrap_or(0),
            is_reloading: self.get(RELOADING) != 0,
            workers: (0..count(ROW_COUNT, ROWS_MAX)).filter_map(|row| self.row(row)).collect(),
            queues: (0..count(QUEUE_COUNT, QUEUES_MAX)).map(length).collect(),
            processor: (0..count(SLOT_COUNT, usize::from(Slot::MAX)))
                .map(|slot| self.get(PROCESSOR + slot))
                .collect(),
        }
    }

    fn row(&self, number: usize) -> Option<WorkerRow> {
        let at = ROWS + number * ROW_WORDS;
        let (pid, rest) = Claim::new(self.get(at)).halves();
        let slot = u16::try_from(rest & 0xffff).ok().filter(|slot| *slot < Slot::MAX)?;
        let state = usize::try_from(rest >> 16).ok()?;
        Some(WorkerRow {
            pid,
            slot: Slot::new(slot),
            state: WorkerState::ALL.get(state)?.0,
            place: u32::try_from(self.get(at + 1)).ok()?,
            generation: u32::try_from(self.get(at + 2)).ok()?,
            began: Instant::from_millis(self.get(at + 3)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::MetricsMemory;

    fn master() -> (MetricsMemory, MasterMetrics) {
        let memory = MetricsMemory::new().unwrap();
        let block = memory.master().unwrap();
        (memory, MasterMetrics::new(block))
    }

    fn picture(workers: u16) -> Overview {
        let row = |slot| WorkerRow {
            pid: 70 + u32::from(slot),
            slot: Slot::new(slot),
            state: WorkerState::Draining,
            generation: 3,
            place: 9,
            began: Instant::from_millis(5),
        };
        Overview {
            started: 1_700_000_000,
            generation: 3,
            wanted: workers,
            is_reloading: true,
            workers: (0..workers).map(row).collect(),
            queues: vec![Some(0), None, Some(u32::MAX)],
            processor: vec![5; usize::from(workers)],
        }
    }

    #[test]
    fn a_picture_is_read_as_it_was_written() {
        let (_memory, master) = master();
        assert_eq!(master.overview(), None, "there is none yet");
        for workers in [0, 255, 2] {
            master.publish(&picture(workers));
            assert_eq!(master.overview(), Some(picture(workers)));
        }
        master.put(SEQUENCE, 7);
        assert_eq!(master.overview(), None, "its writer is in the middle of it");
    }

    #[test]
    fn any_words_can_be_read() {
        let (_memory, master) = master();
        for number in [1, 0xffff, u64::MAX / 3, u64::MAX - 1] {
            (FIRST_WORD + 1..ROWS + 64).for_each(|at| master.put(at, number));
            master.put(SEQUENCE, 2);
            let _any = master.overview().expect("the sequence number is even");
        }
    }

    #[test]
    fn every_cause_and_state_has_its_place_and_word() {
        let (_memory, master) = master();
        for (at, (cause, _)) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at);
            (0..=at).for_each(|_| master.count_end(cause));
        }
        let ends = Cause::ALL.map(|(cause, _)| master.ends(cause).unchecked());
        assert_eq!(ends, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(WorkerState::ALL.map(|(state, _)| state as usize), [0, 1, 2, 3]);
        master.count_reload(ReloadResult::Failure);
        assert_eq!(master.reloads(ReloadResult::Success), Claim::new(0));
        assert_eq!(master.reloads(ReloadResult::Failure), Claim::new(1));
    }
}
