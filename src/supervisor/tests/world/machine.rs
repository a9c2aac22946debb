//! The kernel, and the processes that it runs: pids that are used again, forks that fail, children
//! that are there until they are reaped, and connections that wait.

use crate::ids::{ChildId, Generation, Pid, Slot, SlotSet};
use crate::supervisor::event::{ExitStatus, Kept};
use crate::supervisor::stage::Task;
use crate::supervisor::tests::world::dice::Dice;
use crate::supervisor::tests::world::script::Script;

/// A child as it really is, from its fork until it is reaped.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) id: ChildId,
    pub(crate) pid: Pid,
    pub(crate) task: Task,
    pub(crate) generation: Generation,
    pub(crate) script: Script,
    pub(crate) forked_at: u64,
    /// When the master was first told that it is ready.
    pub(crate) ready_at: Option<u64>,
    pub(crate) accepting: SlotSet,
    /// When its loop was roused last.
    pub(crate) roused_at: u64,
    /// Since when its loop stands still.
    pub(crate) hung: Option<u64>,
    /// Since when it gets no processor.
    pub(crate) starved: Option<u64>,
    pub(crate) grown: bool,
    /// `KILL` does not end it.
    pub(crate) undying: bool,
    /// It has ended and waits to be reaped.
    pub(crate) ended: Option<ExitStatus>,
    pub(crate) orders: Orders,
}

/// An order that a child was given, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) drains_since: Option<u64>,
    pub(crate) quit: Option<u64>,
    pub(crate) aborted: Option<u64>,
    pub(crate) killed: Option<u64>,
}

impl Orders {
    /// Returns true if it was told to leave in any way.
    pub(crate) fn any(&self) -> bool {
        self.drains_since.is_some()
            || self.quit.is_some()
            || self.aborted.is_some()
            || self.killed.is_some()
    }
}

impl Process {
    pub(crate) fn slot(&self) -> Option<Slot> {
        match self.task {
            Task::Worker { slot } => Some(slot),
            Task::Prepare | Task::Check | Task::Logger | Task::Stats => None,
        }
    }

    /// Returns true if it accepts, as far as the master knows.
    pub(crate) fn serves(&self) -> bool {
        self.ready_at.is_some() && !self.orders.any()
    }

    /// Returns true if it is on its way to being ready, as far as the master knows.
    pub(crate) fn starts(&self) -> bool {
        self.ready_at.is_none() && !self.orders.any()
    }

    /// Returns true if its loop turns.
    pub(crate) fn runs(&self) -> bool {
        self.ended.is_none() && self.hung.is_none() && self.starved.is_none()
    }
}

/// The connections of one slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) length: u32,
    /// The time since when a connection waits although a worker could serve.
    pub(crate) since: u64,
    pub(crate) watched: bool,
}

/// The machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) processes: Vec<Process>,
    pub(crate) queues: Vec<Queue>,
    /// Pids that are free again, and the first that was never used.
    free: Vec<Pid>,
    fresh: i32,
    /// Until when no fork succeeds, and until when no worker boots, is small or lives.
    pub(crate) no_forks_until: u64,
    pub(crate) no_boots_until: u64,
    pub(crate) heavy_until: u64,
    pub(crate) killer_until: u64,
    /// True if some worker could accept when it was looked last.
    somebody_can: bool,
    /// The last sleep: from when and until when.
    pub(crate) slept: (u64, u64),
}

impl Machine {
    pub(crate) fn new(slots: u16) -> Self {
        Self {
            processes: Vec::new(),
            queues: vec![Queue::default(); usize::from(slots)],
            free: Vec::new(),
            fresh: 100,
            no_forks_until: 0,
            no_boots_until: 0,
            heavy_until: 0,
            killer_until: 0,
            somebody_can: false,
            slept: (0, 0),
        }
    }

    pub(crate) fn process(&self, id: ChildId) -> Option<&Process> {
        self.processes.iter().find(|process| process.id == id)
    }

    pub(crate) fn process_mut(&mut self, id: ChildId) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.id == id)
    }

    pub(crate) fn with_pid(&self, pid: Pid) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }

    /// Every child but the logger.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.id != ChildId::LOGGER)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = (Slot, &Process)> {
        self.processes.iter().filter_map(|process| Some((process.slot()?, process)))
    }

    /// A pid for a new process, gladly one that was used before.
    pub(crate) fn new_pid(&mut self, dice: &mut Dice) -> Pid {
        if !self.free.is_empty() && dice.percent(70) {
            return self.free.swap_remove(0);
        }
        self.fresh += 1;
        Pid(self.fresh)
    }

    /// Reaps a child that has ended.
    pub(crate) fn reap(&mut self, id: ChildId) -> Option<(Pid, ExitStatus)> {
        let at = self.processes.iter().position(|process| process.id == id)?;
        let status = self.processes[at].ended?;
        let pid = self.processes.swap_remove(at).pid;
        self.free.push(pid);
        Some((pid, status))
    }

    /// When this worker's loop turned last, and what keeps it from turning.
    pub(crate) fn heartbeat(&self, process: &Process, now: u64, dice: &mut Dice) -> (u64, Kept) {
        let (slept_from, woke_at) = self.slept;
        // Who wakes with the master has not come round to anything yet.
        let heartbeat =
            if now < woke_at + 50 { slept_from } else { now - now.min(dice.below(100)) };
        match (process.hung, process.starved) {
            (Some(since), _) => (since.min(heartbeat), Kept::ByNothing),
            (None, Some(since)) => (since.min(heartbeat), Kept::ByStarvation),
            (None, None) => (heartbeat, Kept::ByNothing),
        }
    }

    /// Lets each worker accept that can.
    pub(crate) fn drain_queues(&mut self, now: u64) {
        let able: Vec<SlotSet> = self
            .processes
            .iter()
            .filter(|process| process.serves() && process.runs())
            .map(|process| process.accepting)
            .collect();
        // No worker is blamed for the time in which none could.
        let could = std::mem::replace(&mut self.somebody_can, !able.is_empty());
        for (at, queue) in self.queues.iter_mut().enumerate().filter(|(_, it)| it.length > 0) {
            let slot = Slot::new(u16::try_from(at).expect("few slots"));
            if able.iter().any(|set| set.contains(slot)) {
                queue.length = 0;
            } else if !could || able.is_empty() {
                queue.since = now;
            }
        }
    }
}
