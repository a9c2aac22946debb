//! The state of the server for those who ask: words and numbers, without a decision.

use std::time::Duration;

use crate::ids::{ChildId, Generation, Pid, Slot};
use crate::supervisor::stage::{Child, Stage, Task};
use crate::supervisor::upgrade::Upgrade;
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

/// The server as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerView {
    /// `starting`, `serving`, `reloading`, `upgrading` or `stopping`.
    pub(crate) state: &'static str,
    /// The generation in force.
    pub(crate) generation: Generation,
    /// The generation that a reload tries.
    pub(crate) next: Option<Generation>,
    /// Workers wanted.
    pub(crate) wanted: u16,
    /// Slots that a worker serves.
    pub(crate) serving: usize,
}

/// One worker, from the decision to fork it until it is reaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerView {
    pub(crate) child: ChildId,
    pub(crate) slot: Slot,
    pub(crate) pid: Option<Pid>,
    /// `booting`, `serving`, `draining`, `aborting` or `killed`.
    pub(crate) state: &'static str,
    pub(crate) generation: Generation,
    /// The time since it was forked.
    pub(crate) age: Duration,
    /// Early deaths in this slot, in a row.
    pub(crate) early_exits: u32,
}

impl Supervisor {
    /// The server as a whole.
    pub(crate) fn view(&self) -> ServerView {
        let state = match self.phase {
            Phase::New | Phase::Preparing { .. } | Phase::Starting => "starting",
            Phase::Running if self.announced.is_some() => "stopping",
            Phase::Running if self.upgrade != Upgrade::Idle => "upgrading",
            Phase::Running if self.reload.is_some() => "reloading",
            Phase::Running => "serving",
            Phase::Stopping { .. } | Phase::Gone => "stopping",
        };
        ServerView {
            state,
            generation: self.settled,
            next: self.reload.as_ref().map(|reload| reload.to),
            wanted: self.wanted,
            serving: self.slots().filter(|slot| self.accepts(*slot)).count(),
        }
    }

    /// The oldest worker that was forked after this child.
    pub(crate) fn worker_after(&self, now: Instant, after: ChildId) -> Option<WorkerView> {
        let later = self.children.iter().filter(|child| child.id > after && child.slot().is_some());
        let next = later.min_by_key(|child| child.id)?;
        self.worker_view(now, next)
    }

    fn worker_view(&self, now: Instant, child: &Child) -> Option<WorkerView> {
        let Task::Worker { slot } = child.task else { return None };
        let state = match child.stage {
            Stage::Forking | Stage::Booting { .. } => "booting",
            Stage::Serving { .. } | Stage::Yielding { .. } => "serving",
            Stage::Draining { .. } => "draining",
            Stage::Aborting { .. } => "aborting",
            Stage::Killed { .. } => "killed",
        };
        Some(WorkerView {
            child: child.id,
            slot,
            pid: child.pid(),
            state,
            generation: child.generation,
            age: now.since(child.began),
            early_exits: self.deaths(slot),
        })
    }
}
