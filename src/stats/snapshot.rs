//! All numbers at one moment, out of shared memory and the kernel's `/proc`.
//!
//! No number is believed: sums saturate, and what names a process is held against the master's list.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;

use super::Certificate;
use super::application::Application;
use crate::ids::Slot;
use crate::scoreboard::{
    Block, Cause, Code, Distribution, Handshake, LogKind, MasterMetrics, Measure, MetricsMemory,
    Overview, ReloadResult, StatusText, WorkerState,
};
use crate::sys::channel::Lower;
use crate::sys::clock;
use crate::sys::shared::Claim;
use crate::sys::statistics::Extent;
use crate::wire::Report;

/// Numbers of the master that are younger are fresh enough.
const FRESH: Duration = Duration::from_millis(50);
/// The time that the master may take to write fresh ones; after that the last ones are served.
const MASTER_MAX: Duration = Duration::from_millis(20);
/// From one look at the master's numbers to the next.
const LOOK: Duration = Duration::from_millis(1);

/// Looks for a list of workers that are all there.
const LOOKS_MAX: u32 = 20;

/// The handling of a worker of the master's list that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Accepted,
    Refused,
}

/// Where the numbers are.
#[derive(Debug)]
pub(super) struct Source {
    memory: MetricsMemory,
    master: MasterMetrics,
    channel: Arc<AsyncFd<Lower>>,
    addresses: Vec<String>,
    certificates: Vec<Certificate>,
    extent: Extent,
    known: Mutex<Known>,
}

/// The state that is kept from one snapshot to the next.
#[derive(Debug, Default)]
struct Known {
    blocks: Vec<Block>,
    asked_at: Option<Instant>,
    overview: Overview,
    /// For how long each living worker had the processor when that was read last, in microseconds.
    processor: BTreeMap<u32, u64>,
    /// The values served last for each slot: a counter never falls.
    served: BTreeMap<Slot, u64>,
}

/// All numbers at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) overview: Overview,
    /// Requests that have ended, by code; without those codes that never occurred.
    pub(super) requests: Vec<(Code, u64)>,
    pub(super) duration: Distribution,
    pub(super) queue_wait: Distribution,
    pub(super) loop_lag: Distribution,
    pub(super) slots: Vec<SlotNumbers>,
    /// By pid.
    pub(super) workers: BTreeMap<u32, WorkerNumbers>,
    pub(super) states: Vec<(&'static str, u64)>,
    pub(super) ends: Vec<(&'static str, u64)>,
    pub(super) reloads: Vec<(&'static str, u64)>,
    pub(super) queues: Vec<(String, u32)>,
    pub(super) lines_dropped: Vec<(&'static str, u64)>,
    pub(super) handshakes: Vec<(&'static str, u64)>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) refused_series: u64,
}

/// The numbers of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WorkerNumbers {
    pub(super) connections: u64,
    pub(super) in_flight: u64,
    pub(super) memory: u64,
    /// In microseconds.
    pub(super) processor: u64,
}

/// The numbers of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotNumbers {
    pub(super) slot: Slot,
    pub(super) connections: u64,
    pub(super) in_flight: u64,
    pub(super) memory: u64,
    /// In microseconds.
    pub(super) processor: u64,
}

impl Source {
    /// # Errors
    /// The error of mmap(2).
    pub(super) fn new(
        memory: MetricsMemory,
        channel: Arc<AsyncFd<Lower>>,
        addresses: Vec<String>,
        certificates: Vec<Certificate>,
        extent: Extent,
    ) -> io::Result<Self> {
        let master = MasterMetrics::new(memory.master()?);
        let known = Mutex::default();
        Ok(Self { memory, master, channel, addresses, certificates, extent, known })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of now, as far as the master answers in time.
    pub(super) async fn snapshot(&self) -> Snapshot {
        self.refresh().await;
        for _ in 0..LOOKS_MAX {
            if let Some(snapshot) = self.take(Gone::Refused) {
                return snapshot;
            }
            // The master has reaped a worker, and has not written so yet.
            tokio::time::sleep(LOOK).await;
        }
        self.take(Gone::Accepted).unwrap_or_default()
    }

    /// The last status that the master has written.
    pub(super) fn status(&self) -> StatusText {
        self.master.status().unwrap_or_default()
    }

    /// The application's own metrics, of the workers of the last snapshot and of those before them.
    pub(super) fn application(&self) -> Application {
        let known = self.known();
        let mut application = Application::default();
        let living = known.overview.workers.iter().map(|row| (row.place, row.pid));
        let living: BTreeMap<u32, u32> = living.collect();
        for (place, block) in (1..).zip(worker_blocks(&known.blocks)) {
            let is_alive =
                living.get(&place).is_some_and(|pid| block.pid() == Claim::new((*pid).into()));
            application.add(block, is_alive);
        }
        application
    }

    /// Has the master write fresh numbers, and waits for them for a while.
    async fn refresh(&self) {
        let now = clock::now();
        {
            let mut known = self.known();
            if known.asked_at.is_some_and(|at| now.duration_since(at) < FRESH) {
                return;
            }
            known.asked_at = Some(now);
        }
        let before = self.master.sequence();
        // A master that does not read is stopped, or has much to do.
        let _unread = self.channel.get_ref().send(&Report::Measure.encode());
        while self.master.sequence() < before.saturating_add(2)
            && clock::now().duration_since(now) < MASTER_MAX
        {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns `None` where a worker of the master's list is gone, if that is refused.
    fn take(&self, gone: Gone) -> Option<Snapshot> {
        let mut known = self.known();
        let have = known.blocks.len();
        // What cannot be mapped now may be at the next look.
        known.blocks.extend(self.memory.blocks(have).unwrap_or_default());
        if let Some(overview) = self.master.overview() {
            known.overview = overview;
        }
        let Known { blocks, overview, processor, served, .. } = &mut *known;
        let sum = |of: &dyn Fn(&Block) -> Claim| total(blocks, of);
        let distribution = |measure| {
            blocks.iter().fold(Distribution::default(), |mut sum, block| {
                sum.add(&block.distribution(measure));
                sum
            })
        };
        let state = |(state, word): (WorkerState, _)| {
            let count = overview.workers.iter().filter(|row| row.state == state).count();
            (word, count as u64)
        };
        let requests = Code::all().map(|code| (code, sum(&|block| block.requests(code))));
        let reloads = [(ReloadResult::Success, "success"), (ReloadResult::Failure, "failure")];
        let handshakes = [(Handshake::Done, "success"), (Handshake::Failed, "failure")];
        let logs = [(LogKind::Access, "access"), (LogKind::Error, "error")];
        let queues = self.addresses.iter().zip(&overview.queues);
        let workers = workers(blocks, overview, processor, gone, self.extent)?;
        let slots = slots(overview, &workers, served);
        Some(Snapshot {
            requests: requests.filter(|(_, count)| *count > 0).collect(),
            duration: distribution(Measure::Duration),
            queue_wait: distribution(Measure::QueueWait),
            loop_lag: distribution(Measure::LoopLag),
            slots,
            workers,
            states: WorkerState::ALL.map(state).to_vec(),
            ends: Cause::ALL
                .map(|(cause, word)| (word, self.master.ends(cause).unchecked()))
                .to_vec(),
            reloads: reloads
                .map(|(result, word)| (word, self.master.reloads(result).unchecked()))
                .to_vec(),
            queues: queues.filter_map(|(name, length)| Some((name.clone(), (*length)?))).collect(),
            lines_dropped: logs
                .map(|(log, word)| (word, sum(&|block| block.lines_dropped(log))))
                .to_vec(),
            handshakes: handshakes
                .map(|(how, word)| (word, sum(&|block| block.handshakes(how))))
                .to_vec(),
            certificates: self.certificates.clone(),
            refused_series: total(worker_blocks(blocks), &Block::refused_series),
            overview: overview.clone(),
        })
    }
}

/// The blocks of workers, by the places of their rings from 1 on.
fn worker_blocks(blocks: &[Block]) -> &[Block] {
    // Before them stand those of the master and of the logger.
    blocks.get(2..).unwrap_or_default()
}

fn total(blocks: &[Block], of: &dyn Fn(&Block) -> Claim) -> u64 {
    let sum = blocks.iter().fold(Claim::default(), |sum, block| sum.saturating_add(of(block)));
    sum.unchecked()
}

/// The numbers of each worker; `None` where one is gone, if that is refused.
fn workers(
    blocks: &[Block],
    overview: &Overview,
    processor: &mut BTreeMap<u32, u64>,
    gone: Gone,
    extent: Extent,
) -> Option<BTreeMap<u32, WorkerNumbers>> {
    let mut workers = BTreeMap::new();
    for row in &overview.workers {
        let block = usize::try_from(row.place).ok().and_then(|place| blocks.get(place + 1));
        let block = block.filter(|block| block.pid() == Claim::new(row.pid.into()));
        let pid = i32::try_from(row.pid).ok();
        let resident = pid.map(|pid| extent.resident_bytes(pid));
        // One that was reaped a moment ago had at least what it had at the last look.
        let now = pid.and_then(|pid| extent.cpu_time(pid).ok());
        if now.is_none() && gone == Gone::Refused {
            return None;
        }
        let now = now.and_then(|time| u64::try_from(time.as_micros()).ok());
        let numbers = WorkerNumbers {
            connections: block.map_or(0, |block| block.connections().unchecked()),
            in_flight: block.map_or(0, |block| block.in_flight().unchecked()),
            memory: resident.and_then(Result::ok).unwrap_or(0),
            processor: now.max(processor.get(&row.pid).copied()).unwrap_or(0),
        };
        workers.insert(row.pid, numbers);
    }
    *processor = workers.iter().map(|(pid, own)| (*pid, own.processor)).collect();
    Some(workers)
}

/// The numbers of each slot that has a worker, had one, or shall have one.
fn slots(
    overview: &Overview,
    workers: &BTreeMap<u32, WorkerNumbers>,
    served: &mut BTreeMap<Slot, u64>,
) -> Vec<SlotNumbers> {
    let mut slots: BTreeMap<Slot, SlotNumbers> = BTreeMap::new();
    let number = |slot| SlotNumbers { slot, connections: 0, in_flight: 0, memory: 0, processor: 0 };
    for slot in (0..overview.wanted.min(Slot::MAX)).map(Slot::new) {
        slots.insert(slot, number(slot));
    }
    for (at, micros) in (0..Slot::MAX).zip(&overview.processor).filter(|(_, micros)| **micros > 0) {
        let slot = Slot::new(at);
        slots.entry(slot).or_insert_with(|| number(slot)).processor = *micros;
    }
    for row in &overview.workers {
        let own = slots.entry(row.slot).or_insert_with(|| number(row.slot));
        let Some(worker) = workers.get(&row.pid) else { continue };
        own.connections = own.connections.saturating_add(worker.connections);
        own.in_flight = own.in_flight.saturating_add(worker.in_flight);
        own.memory = own.memory.saturating_add(worker.memory);
        own.processor = own.processor.saturating_add(worker.processor);
    }
    for own in slots.values_mut() {
        let least = served.entry(own.slot).or_default();
        own.processor = own.processor.max(*least);
        *least = own.processor;
    }
    slots.into_values().collect()
}
