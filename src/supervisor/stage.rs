//! The life of one child, from the decision to fork it until it is reaped.

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, Generation, Pid, Slot, SlotSet};
use crate::supervisor::event::Kept;
use crate::time::Instant;

/// The purpose of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Makes the world ready for a generation, and leaves.
    Prepare,
    /// Serves requests in a slot.
    Worker { slot: Slot },
    /// Asks the binary on disk whether it could take over, and leaves.
    Check,
    /// Writes the log lines of every process.
    Logger,
    /// Serves metrics and the status page.
    Stats,
}

/// A child as the master sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Child {
    pub(crate) id: ChildId,
    pub(crate) task: Task,
    pub(crate) generation: Generation,
    /// When the fork was ordered.
    pub(crate) began: Instant,
    pub(crate) stage: Stage,
    /// From which slots a worker was told to accept.
    pub(crate) accepting: SlotSet,
    /// When it became due to be replaced, if it has.
    pub(crate) due_since: Instant,
}

/// Where a child is in its life. Only forward, but for `Yielding`, which a replacement's early death
/// turns back into `Serving`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Ordered; the kernel has not answered.
    Forking,
    /// Alive, not ready.
    Booting { pid: Pid, deadline: Instant },
    /// Accepts for its slot.
    Serving {
        pid: Pid,
        since: Instant,
        due: Option<Due>,
        heartbeat_at: Instant,
        /// The last finding about it, if it had been silent for too long.
        silent: Option<Silence>,
        memory_at: Instant,
    },
    /// Still accepts for its slot, until its replacement has proved itself; what it was due for counts
    /// again if that fails.
    Yielding { pid: Pid, since: Instant, due: Option<Due> },
    /// Told to drain; killed at the deadline.
    Draining { pid: Pid, deadline: Instant, urgency: Urgency },
    /// Told to abort; killed at the deadline.
    Aborting { pid: Pid, deadline: Instant },
    /// Killed; to be reaped.
    Killed { pid: Pid, why: Kill, since: Instant },
}

/// A finding about a worker that has been silent for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Silence {
    /// The last sign of life.
    pub(crate) heard: Instant,
    pub(crate) kept: Kept,
}

/// Why a child was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kill {
    /// It was not ready, or not done, by its deadline.
    Boot,
    /// Its event loop was silent, and `ABRT` did not end it.
    Stall,
    /// It was told to end and did not by its deadline.
    Leave,
    /// It has closed its channel, and goes on.
    Unheard,
}

/// The urgency with which a child, or the whole server, shall end. It rises and never falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Urgency {
    /// After its last request.
    Graceful,
    /// Now.
    Quick,
}

/// Why a serving worker shall be replaced although nothing is wrong with its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Due {
    /// It has served `max_requests`.
    Requests,
    /// It is above `max_memory`.
    Memory { bytes: u64 },
    /// It has reached `max_lifetime`.
    Lifetime,
    /// It was sent `TERM` by hand.
    ByHand,
    /// A client of the control socket has its slot restarted.
    Restart,
}

impl Child {
    /// Its slot, if it is a worker.
    pub(crate) fn slot(&self) -> Option<Slot> {
        match self.task {
            Task::Worker { slot } => Some(slot),
            Task::Prepare | Task::Check | Task::Logger | Task::Stats => None,
        }
    }

    /// Its pid, if it is alive as far as the master knows.
    pub(crate) fn pid(&self) -> Option<Pid> {
        match self.stage {
            Stage::Forking => None,
            Stage::Booting { pid, .. }
            | Stage::Serving { pid, .. }
            | Stage::Yielding { pid, .. }
            | Stage::Draining { pid, .. }
            | Stage::Aborting { pid, .. }
            | Stage::Killed { pid, .. } => Some(pid),
        }
    }

    /// Returns true if it is on its way to being ready.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Forking | Stage::Booting { .. })
    }

    /// Returns true if it is its slot's own worker now.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving { .. })
    }

    /// Returns true if it serves until its replacement has proved itself.
    pub(crate) fn is_yielding(&self) -> bool {
        matches!(self.stage, Stage::Yielding { .. })
    }

    /// Returns true if it was killed, and is to be reaped.
    pub(crate) fn is_killed(&self) -> bool {
        matches!(self.stage, Stage::Killed { .. })
    }

    /// Returns true if it is on its way out.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. } | Stage::Aborting { .. } | Stage::Killed { .. })
    }
}
