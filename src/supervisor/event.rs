//! The facts that the master tells the supervisor, in the past tense.
//!
//! The sequence matters where one waking brings several: first what children said and that they have
//! ended, each end told when it is reaped and before the next one is, so that no order names a pid
//! which the kernel may have given to another process by now; then everything else; and `Tick` last,
//! which alone judges time, so that no fact is late that came in time.

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, CommandId, Pid, Slot};
use crate::supervisor::command::Command;
use crate::supervisor::policy::Policy;
use crate::supervisor::stage::Due;
use crate::time::Instant;

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The listeners are open; the work can begin.
    Started,
    /// The image was replaced in place; the children of the one before are still there.
    Upgraded,
    /// Everything is told that has happened by now: what has a deadline is judged.
    Tick,
    /// A signal reached the master, or a worker that has passed it on.
    Signalled(Signal),
    /// A child exists now.
    Forked { child: ChildId, pid: Pid },
    /// The kernel refused to fork, in these words.
    ForkFailed { child: ChildId, reason: String },
    /// The child does what it was forked for.
    Ready { child: ChildId },
    /// The worker should be replaced: by its own count, or because it was told to go by hand.
    WorkerDue { child: ChildId, why: Due },
    /// A process of ours, or a stranger's orphan, has ended and is reaped just now.
    Exited { pid: Pid, status: ExitStatus },
    /// The child has ended its channel, and has not ended itself: it can be told nothing any more.
    Unheard { child: ChildId },
    /// The configuration was read again; or why it is refused.
    Loaded(Result<Policy, String>),
    /// So many slots have open listeners now.
    SlotsOpen { count: u16 },
    /// A connection waits on this slot's listener; nothing more is told until the next `Watch`.
    Queued { slot: Slot },
    /// So many connections wait on this slot's listener, and its own worker's loop last ran then.
    QueueLength { slot: Slot, length: u32, heartbeat: Instant },
    /// The worker has asked for more time to become ready, or to finish.
    NeedsTime { child: ChildId },
    /// When the worker's event loop last ran, and whether it was kept from running since.
    Heartbeat { child: ChildId, heartbeat: Instant, kept: Kept },
    /// Resident bytes of the worker.
    MemoryRead { child: ChildId, bytes: u64 },
    /// A client of the control socket gives a command, which is to be answered with `Answer`.
    Commanded { id: CommandId, command: Command },
    /// The client of that command is gone.
    Abandoned { id: CommandId },
    /// The logger has opened its files again, all of them or not.
    Reopened { is_complete: bool },
    /// The new image could not be executed.
    UpgradeFailed { reason: String },
}

/// A signal, decoded at the door: its number is not known inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// `TERM`
    Terminate,
    /// `INT`
    Interrupt,
    /// `QUIT`
    Quit,
    /// `HUP`
    Reload,
    /// `TTIN`
    More,
    /// `TTOU`
    Fewer,
    /// `USR1`
    Reopen,
    /// `USR2`
    Upgrade,
    /// `WINCH`
    Resize,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal, with a core dump or without.
    Signal { number: i32, core: bool },
    /// Killed by the kernel for want of memory, by the kernel's own count.
    OutOfMemory,
    /// In a way that only another process knows, which has reaped it.
    Unknown,
}

impl ExitStatus {
    /// Returns true if it was killed by hand: no process does that to itself by mistake, and the
    /// kernel's own killing is told apart.
    pub(crate) fn is_by_hand(self) -> bool {
        matches!(self, Self::Signal { number: 9, .. })
    }

    /// Returns true if it is the one exit that needs no explanation.
    pub(crate) fn is_clean(self) -> bool {
        self == Self::Code(0)
    }

    /// Returns true if it ended by `INT` (signal(7): the same number everywhere).
    pub(crate) fn is_interrupt(self) -> bool {
        self == Self::Signal { number: 2, core: false }
    }
}

/// The reason that kept a silent worker from running, if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    /// Nothing: it had the processor, or did not ask for it.
    ByNothing,
    /// It waited for a processor most of the time.
    ByStarvation,
}
