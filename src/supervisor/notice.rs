//! What the supervisor has to say: lines of the error log as data.

use std::fmt;
use std::time::Duration;

use crate::ids::{Generation, Pid, Slot, SlotSet};
use crate::supervisor::event::{ExitStatus, Signal};
use crate::supervisor::policy::FAILING;
use crate::supervisor::seat::Loss;
use crate::supervisor::stage::{Child, Due, Kill, Stage, Task, Urgency};

/// A line for the error log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Forked {
        task: Task,
        pid: Pid,
    },
    /// Of refusals in a row only some are to be read.
    ForkFailed {
        task: Task,
        reason: String,
        is_said: bool,
    },
    Ready {
        slot: Slot,
        pid: Pid,
        boot: Duration,
    },
    Exited {
        slot: Slot,
        pid: Pid,
        status: ExitStatus,
        ending: Ending,
        deaths: u32,
    },
    Killing {
        task: Task,
        pid: Pid,
        why: Kill,
    },
    Due {
        slot: Slot,
        pid: Pid,
        why: Due,
    },
    Starved {
        slot: Slot,
        pid: Pid,
        silent: Duration,
    },
    Stalled {
        slot: Slot,
        pid: Pid,
        silent: Duration,
    },
    StillFailing {
        slots: SlotSet,
        deaths: u32,
        last: Loss,
    },
    /// The worker is above `max_memory` as soon as it serves.
    Cramped {
        slot: Slot,
        pid: Pid,
        bytes: u64,
    },
    /// `KILL` has not ended it, and the server does not wait for it any more.
    LeftBehind {
        task: Task,
        pid: Pid,
    },
    NobodyBoots,
    PrepareFailed {
        status: ExitStatus,
    },
    Resized {
        from: u16,
        to: u16,
    },
    SizeKept {
        workers: u16,
    },
    Reloading {
        generation: Generation,
    },
    Reloaded {
        generation: Generation,
        replaced: u16,
        took: Duration,
    },
    ReloadFailed {
        generation: Generation,
        kept: Generation,
        reason: String,
    },
    /// A reload waits until one of the slot's old workers has finished.
    Crowded {
        slot: Slot,
        leaving: usize,
        patience: Duration,
    },
    LoggerDied {
        pid: Pid,
        status: ExitStatus,
        deaths: u32,
    },
    UpgradeRefused {
        reason: String,
    },
    Ignored {
        signal: Signal,
        why: &'static str,
    },
    Stopping {
        urgency: Urgency,
        patience: Duration,
    },
    Leaving,
}

/// How a line weighs, in gunicorn's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Debug,
    Info,
    Warning,
    Error,
}

/// In which of its ways a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Before it was ready.
    Boot,
    /// While it served.
    Died,
    /// Aborted because its event loop was silent.
    Stalled,
    /// As it was told to.
    Left,
    /// Badly, but it was leaving anyway.
    DiedLeaving,
    /// Killed because it did not leave in time.
    Overstayed,
}

impl Ending {
    /// What this status means for a worker in this stage.
    pub(super) fn of(child: &Child, status: ExitStatus) -> Self {
        match child.stage {
            Stage::Forking | Stage::Booting { .. } | Stage::Killed { why: Kill::Boot, .. } => {
                Self::Boot
            }
            Stage::Serving { due: Some(Due::ByHand), .. } if status.is_clean() => Self::Left,
            Stage::Serving { .. } | Stage::Yielding { .. } => Self::Died,
            Stage::Aborting { .. } | Stage::Killed { why: Kill::Stall, .. } => Self::Stalled,
            Stage::Leaving { .. } if status.is_clean() => Self::Left,
            // It was told so before it had a handler for it.
            Stage::Leaving { urgency: Urgency::Quick, .. } if status.is_interrupt() => Self::Left,
            Stage::Leaving { .. } => Self::DiedLeaving,
            Stage::Killed { why: Kill::Leave, .. } => Self::Overstayed,
        }
    }
}

impl Notice {
    /// How much it matters to an operator.
    pub(crate) fn weight(&self) -> Weight {
        match self {
            Self::Exited { ending: Ending::Boot | Ending::Died, deaths, .. }
                if *deaths > FAILING =>
            {
                Weight::Debug
            }
            Self::ForkFailed { is_said: false, .. } => Weight::Debug,
            Self::Exited { ending: Ending::Boot | Ending::Died | Ending::Stalled, .. }
            | Self::ForkFailed { .. }
            | Self::Stalled { .. }
            | Self::StillFailing { .. }
            | Self::LeftBehind { .. }
            | Self::NobodyBoots
            | Self::LoggerDied { .. }
            | Self::PrepareFailed { .. }
            | Self::ReloadFailed { .. }
            | Self::UpgradeRefused { .. }
            | Self::Killing { why: Kill::Boot | Kill::Stall, .. } => Weight::Error,
            Self::Exited { ending: Ending::DiedLeaving | Ending::Overstayed, .. }
            | Self::Killing { why: Kill::Leave, .. }
            | Self::Starved { .. }
            | Self::Cramped { .. }
            | Self::Crowded { .. }
            | Self::SizeKept { .. }
            | Self::Ignored { .. } => Weight::Warning,
            Self::Forked { task: Task::Prepare | Task::Check | Task::Logger, .. } => Weight::Debug,
            Self::Exited { ending: Ending::Left, .. }
            | Self::Forked { task: Task::Worker { .. }, .. }
            | Self::Ready { .. }
            | Self::Due { .. }
            | Self::Resized { .. }
            | Self::Reloading { .. }
            | Self::Reloaded { .. }
            | Self::Stopping { .. }
            | Self::Leaving => Weight::Info,
        }
    }

    /// Whether it says that there may be nobody who writes it.
    pub(crate) fn is_of_mute_logs(&self) -> bool {
        // A logger that dies once was killed, most likely, and the next one is at work by now.
        matches!(
            self,
            Self::ForkFailed { task: Task::Logger, .. } | Self::LoggerDied { deaths: 2.., .. }
        )
    }
}

impl fmt::Display for Notice {
    #[expect(clippy::too_many_lines, reason = "one arm for each notice")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forked { task: Task::Worker { .. }, pid } => {
                write!(f, "Booting worker with pid: {pid}")
            }
            Self::Forked { task, pid } => write!(f, "{task} begun with pid: {pid}"),
            Self::ForkFailed { task, reason, .. } => {
                write!(f, "failed to fork {task}: {reason}; trying again")
            }
            Self::Ready { slot, pid, boot } => {
                write!(f, "worker {slot} (pid {pid}) ready in {}", Millis(*boot))
            }
            Self::Exited { slot, pid, status, ending, .. } => {
                write!(f, "worker {slot} (pid {pid}) {ending}: {status}")
            }
            Self::Killing { task, pid, why } => {
                write!(f, "killing {task} (pid {pid}): {why}")
            }
            Self::Due { slot, pid, why } => write!(f, "replacing worker {slot} (pid {pid}): {why}"),
            Self::Starved { slot, pid, silent } => {
                let silent = silent.as_secs();
                write!(
                    f,
                    "worker {slot} (pid {pid}) silent for {silent} s: it waits for a processor"
                )
            }
            Self::Stalled { slot, pid, silent } => {
                let silent = silent.as_secs();
                write!(f, "worker {slot} (pid {pid}) silent for {silent} s: aborting it")
            }
            Self::StillFailing { slots, deaths, last } => {
                write!(
                    f,
                    "workers of slots {slots} cannot live ({deaths} early deaths in a row, the last \
                     {last}); still trying"
                )
            }
            Self::Cramped { slot, pid, bytes } => {
                let mebibytes = bytes / (1 << 20);
                write!(
                    f,
                    "worker {slot} (pid {pid}) takes {mebibytes} MiB as soon as it serves: \
                     max_memory is less than this application needs"
                )
            }
            Self::LeftBehind { task, pid } => {
                write!(f, "leaving {task} (pid {pid}) behind: KILL does not end it")
            }
            Self::NobodyBoots => f.write_str("no worker could boot: stopping"),
            Self::PrepareFailed { status } => {
                write!(f, "failed to load the application: prepare {status}")
            }
            Self::Resized { from, to } => write!(f, "workers: {from} -> {to}"),
            Self::SizeKept { workers } => write!(f, "workers: {workers} is as far as it goes"),
            Self::Reloading { generation } => write!(f, "reloading: generation {generation}"),
            Self::Reloaded { generation, replaced, took } => {
                let took = Millis(*took);
                write!(
                    f,
                    "reloaded: generation {generation} in {took}, workers replaced: {replaced}"
                )
            }
            Self::ReloadFailed { generation, kept, reason } => {
                write!(
                    f,
                    "failed to reload: generation {generation} is dropped, {kept} serves on: {reason}"
                )
            }
            Self::Crowded { slot, leaving, patience } => {
                let patience = patience.as_secs_f32();
                write!(
                    f,
                    "reload waits: {leaving} workers that left slot {slot} still finish what they hold; \
                     graceful_timeout gives each {patience} s"
                )
            }
            Self::UpgradeRefused { reason } => {
                write!(f, "failed to upgrade: {reason}; nothing has changed")
            }
            Self::LoggerDied { pid, status, .. } => {
                write!(f, "the logger (pid {pid}) died: {status}; another takes its place")
            }
            Self::Ignored { signal, why } => write!(f, "ignoring {signal}: {why}"),
            Self::Stopping { urgency: Urgency::Graceful, patience } => {
                write!(f, "stopping: workers may finish for {} s", patience.as_secs_f32())
            }
            Self::Stopping { urgency: Urgency::Quick, .. } => f.write_str("stopping quickly"),
            Self::Leaving => f.write_str("Shutting down: Master"),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "failed to boot",
            Self::Died => "died",
            Self::Stalled => "ended after its stall",
            Self::Left => "left",
            Self::DiedLeaving => "died while leaving",
            Self::Overstayed => "was killed while leaving",
        })
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(status) => status.fmt(f),
            Self::NotReady => f.write_str("not ready within boot_timeout"),
            Self::Silent => f.write_str("silent for longer than stall_timeout"),
            Self::TooLarge => f.write_str("above max_memory as soon as it served"),
        }
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "not ready within boot_timeout",
            Self::Stall => "still there after ABRT",
            Self::Leave => "not gone by its deadline",
        })
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare => f.write_str("prepare"),
            Self::Worker { slot } => write!(f, "worker {slot}"),
            Self::Check => f.write_str("the new binary's check"),
            Self::Logger => f.write_str("the logger"),
        }
    }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests => f.write_str("it has served max_requests"),
            Self::Memory { bytes } => {
                write!(f, "its {} MiB are above max_memory", bytes / (1 << 20))
            }
            Self::Lifetime => f.write_str("it has reached max_lifetime"),
            Self::ByHand => f.write_str("it was told to leave by a signal"),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Quit => "QUIT",
            Self::Reload => "HUP",
            Self::More => "TTIN",
            Self::Fewer => "TTOU",
            Self::Reopen => "USR1",
            Self::Upgrade => "USR2",
            Self::Resize => "WINCH",
        })
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::OutOfMemory => f.write_str("killed by the kernel: out of memory"),
            Self::Signal { number, core } => {
                let core = if *core { ", core dumped" } else { "" };
                write!(f, "ended by signal {number}{name}{core}", name = signal_name(*number))
            }
        }
    }
}

/// The names of the signals that processes die of (signal(7), the numbers of Linux on x86 and Arm).
fn signal_name(number: i32) -> &'static str {
    match number {
        1 => " (HUP)",
        2 => " (INT)",
        3 => " (QUIT)",
        4 => " (ILL)",
        5 => " (TRAP)",
        6 => " (ABRT)",
        7 => " (BUS)",
        8 => " (FPE)",
        9 => " (KILL)",
        11 => " (SEGV)",
        13 => " (PIPE)",
        14 => " (ALRM)",
        15 => " (TERM)",
        24 => " (XCPU)",
        25 => " (XFSZ)",
        31 => " (SYS)",
        _ => "",
    }
}

/// A short duration for people: whole milliseconds.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0.as_millis())
    }
}
