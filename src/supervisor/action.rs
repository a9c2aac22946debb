//! The orders that the supervisor gives the master, to be obeyed in this order.

use crate::ids::{ChildId, CommandId, Generation, Pid, Slot, SlotSet};
use crate::supervisor::command::Outcome;
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::Task;

/// An order to the master.
#[must_use = "an order that is dropped is never obeyed"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Fork a child for the task, with this generation's configuration; answer with `Forked` or
    /// `ForkFailed`.
    Fork { child: ChildId, task: Task, generation: Generation },
    /// Order the worker to drain, through its channel: others accept for it.
    Drain { child: ChildId },
    /// Order the worker to stop with the server: it finishes what is queued, too.
    Stop { child: ChildId },
    /// Tell the worker that the server will stop: it serves on, and says so to clients.
    Announce { child: ChildId },
    /// Tell the worker from which slots to accept.
    Accept { child: ChildId, slots: SlotSet },
    /// Send the process a signal.
    Signal { pid: Pid, signal: ChildSignal },
    /// Let the kernel send new connections to these slots only.
    Steer { slots: SlotSet },
    /// Open listeners until there are so many slots.
    OpenSlots { count: u16 },
    /// Say so, once, when a connection waits on this slot's listener.
    Watch { slot: Slot },
    /// Answer with `QueueLength`.
    Look { slot: Slot },
    /// Have the worker of this slot note a heartbeat, if its loop turns.
    Rouse { slot: Slot },
    /// Answer with `Heartbeat`.
    ReadHeartbeat { child: ChildId },
    /// Answer with `MemoryRead`.
    ReadMemory { child: ChildId },
    /// Read the configuration again and answer with `Loaded`; it becomes this generation's.
    Load { generation: Generation },
    /// The master's own part of this generation's configuration is in force from now on.
    Use { generation: Generation },
    /// This generation's configuration is not in use any more.
    Forget { generation: Generation },
    /// Tell the logger to reopen its files.
    ReopenLogs,
    /// Order the logger to write what is there, and to exit.
    FinishLogs,
    /// Order the stats process to exit.
    FinishStats,
    /// New connections are refused from now on; what the kernel has completed stays queued.
    StopListening,
    /// Execute the new image in place, with this state; it returns only with `UpgradeFailed`. To be
    /// obeyed when every fact is told: one that waits while the image is replaced is lost. A child
    /// that is reaped, but not told, would be taken for alive for ever.
    Upgrade,
    /// Tell the client of a command how its transaction has ended.
    Answer { command: CommandId, outcome: Outcome },
    /// Write a line to the error log.
    Log(Notice),
    /// Close everything and exit.
    Exit(ExitReason),
}

/// The signals that a child is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildSignal {
    /// `INT`: leave now.
    Quit,
    /// `ABRT`: leave a trace of where you are stuck.
    Abort,
    /// `KILL`
    Kill,
}

/// Why the master leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum ExitReason {
    /// It was told to.
    Stopped,
    /// No worker could boot.
    WorkerBoot,
    /// `prepare` failed at the start.
    Prepare,
}
