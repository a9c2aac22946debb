//! The supervisor's log events, as data: name, fields, severity and text.

mod fields;

use std::fmt;
use std::time::Duration;

use crate::ids::{Generation, Pid, Slot, SlotSet};
use crate::log_event::{EventFields, LogEvent, Severity, log_events};
use crate::supervisor::event::{ExitStatus, Signal};
use crate::supervisor::policy::FAILING;
use crate::supervisor::slot_state::Loss;
use crate::supervisor::stage::{Child, Due, Kill, Stage, Task, Urgency};

log_events! {
    /// A log event of the supervisor.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum Notice {
        /// The master forked a process.
        Forked = "process_forked" { task as process: Task, pid as process_pid: Pid },
        /// The kernel refused a fork; the master tries again. Of refusals in a row some are logged at
        /// `debug`.
        ForkFailed = "fork_failed" {
            task as process: Task,
            reason: String,
            is_said as first: bool,
        },
        /// A worker serves.
        Ready = "worker_ready" {
            slot: Slot,
            pid as process_pid: Pid,
            boot as boot_seconds: Duration,
        },
        /// A worker process ended. The master adds the most memory that it had resident.
        Exited = "worker_exited" {
            slot: Slot,
            pid as process_pid: Pid,
            status: ExitStatus,
            ending: Ending,
            deaths as early_exits: u32,
            peak as peak_memory_bytes: Option<u64>,
        },
        /// The master sends a process `KILL`.
        Killing = "process_killed" {
            task as process: Task,
            pid as process_pid: Pid,
            why as reason: Kill,
        },
        /// A worker is to be replaced although it serves.
        Due = "worker_due" { slot: Slot, pid as process_pid: Pid, why as reason: Due },
        /// A worker's event loop is silent because the worker gets no processor.
        Starved = "worker_starved" {
            slot: Slot,
            pid as process_pid: Pid,
            silent as silent_seconds: Duration,
        },
        /// A worker's event loop is silent for longer than `stall_timeout`; the worker is aborted.
        Stalled = "worker_stalled" {
            slot: Slot,
            pid as process_pid: Pid,
            silent as silent_seconds: Duration,
        },
        /// Workers of these slots keep failing; logged once a minute.
        SlotsFailing = "slots_failing" { slots: SlotSet, deaths as early_exits: u32, last: Loss },
        /// A worker is above `max_memory` as soon as it serves.
        WorkerTooLarge = "worker_too_large" {
            slot: Slot,
            pid as process_pid: Pid,
            bytes as memory_bytes: u64,
        },
        /// `KILL` has not ended a process, and the server no longer waits for it.
        Unkillable = "process_unkillable" { task as process: Task, pid as process_pid: Pid },
        /// No worker could boot at the start; the server stops.
        BootFailed = "boot_failed",
        /// `prepare` failed at the start.
        PrepareFailed = "prepare_failed" { status: ExitStatus },
        /// The number of workers changes.
        Resized = "workers_scaled" { from: u16, to: u16 },
        /// The number of workers is at its limit.
        SizeKept = "workers_scale_refused" { workers: u16 },
        /// A reload began.
        Reloading = "reload_started" { generation: Generation },
        /// A reload succeeded. The master adds the number of requests served meanwhile.
        Reloaded = "reload_succeeded" {
            generation: Generation,
            replaced: u16,
            took as duration_seconds: Duration,
            served as requests: Option<u64>,
        },
        /// A reload failed; the active generation serves on.
        ReloadFailed = "reload_failed" {
            generation: Generation,
            kept as active: Generation,
            reason: String,
        },
        /// A reload waits until one of the slot's draining workers has finished.
        ReloadDelayed = "reload_delayed" {
            slot: Slot,
            draining: usize,
            timeout as timeout_seconds: Duration,
        },
        /// The logger ended unexpectedly; another takes its place.
        LoggerExited = "logger_exited" {
            pid as process_pid: Pid,
            status: ExitStatus,
            deaths as early_exits: u32,
        },
        /// The stats process ended unexpectedly; another takes its place.
        StatsExited = "stats_exited" {
            pid as process_pid: Pid,
            status: ExitStatus,
            deaths as early_exits: u32,
        },
        /// An upgrade failed; nothing has changed. The master adds the output of the new binary's check.
        UpgradeFailed = "upgrade_failed" { reason: String, output: Option<String> },
        /// A signal has no effect now.
        Ignored = "signal_ignored" { signal: Signal, why as reason: &'static str },
        /// The server stops after a time in which it serves on, and balancers learn of it.
        StopAnnounced = "stop_announced" {
            announce as announce_seconds: Duration,
            timeout as timeout_seconds: Duration,
        },
        /// The server stops.
        Stopping = "stop_started" {
            urgency as mode: Urgency,
            timeout as timeout_seconds: Duration,
        },
        /// The master exits.
        Exiting = "master_exiting",
    }
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
    /// Badly, but it was draining anyway.
    DiedDraining,
    /// Killed because it did not end in time.
    Overstayed,
}

impl Ending {
    /// Returns the meaning of this status for a worker in this stage.
    pub(super) fn of(child: &Child, status: ExitStatus) -> Self {
        match child.stage {
            Stage::Forking | Stage::Booting { .. } | Stage::Killed { why: Kill::Boot, .. } => {
                Self::Boot
            }
            Stage::Serving { due: Some(Due::ByHand), .. }
            | Stage::Yielding { due: Some(Due::ByHand), .. }
                if status.is_clean() =>
            {
                Self::Left
            }
            Stage::Serving { .. }
            | Stage::Yielding { .. }
            | Stage::Killed { why: Kill::Unheard, .. } => Self::Died,
            Stage::Aborting { .. } | Stage::Killed { why: Kill::Stall, .. } => Self::Stalled,
            Stage::Draining { .. } if status.is_clean() => Self::Left,
            // It was told so before it had a handler for it.
            Stage::Draining { urgency: Urgency::Quick, .. } if status.is_interrupt() => Self::Left,
            Stage::Draining { .. } => Self::DiedDraining,
            Stage::Killed { why: Kill::Leave, .. } => Self::Overstayed,
        }
    }
}

impl LogEvent for Notice {
    fn name(&self) -> &'static str {
        self.event_name()
    }

    fn fields(&self) -> EventFields {
        self.event_fields()
    }

    fn severity(&self) -> Severity {
        match self {
            Self::Exited { ending: Ending::Boot | Ending::Died, deaths, .. }
                if *deaths > FAILING =>
            {
                Severity::Debug
            }
            Self::ForkFailed { is_said: false, .. } => Severity::Debug,
            Self::Exited { ending: Ending::Boot | Ending::Died | Ending::Stalled, .. }
            | Self::ForkFailed { .. }
            | Self::Stalled { .. }
            | Self::SlotsFailing { .. }
            | Self::Unkillable { .. }
            | Self::BootFailed
            | Self::LoggerExited { .. }
            | Self::StatsExited { .. }
            | Self::PrepareFailed { .. }
            | Self::ReloadFailed { .. }
            | Self::UpgradeFailed { .. }
            | Self::Killing { why: Kill::Boot | Kill::Stall | Kill::Unheard, .. } => {
                Severity::Error
            }
            Self::Exited { ending: Ending::DiedDraining | Ending::Overstayed, .. }
            | Self::Killing { why: Kill::Leave, .. }
            | Self::Starved { .. }
            | Self::WorkerTooLarge { .. }
            | Self::ReloadDelayed { .. }
            | Self::SizeKept { .. }
            | Self::Ignored { .. } => Severity::Warning,
            Self::Forked {
                task: Task::Prepare | Task::Check | Task::Logger | Task::Stats, ..
            } => Severity::Debug,
            Self::Exited { ending: Ending::Left, .. }
            | Self::Forked { task: Task::Worker { .. }, .. }
            | Self::Ready { .. }
            | Self::Due { .. }
            | Self::Resized { .. }
            | Self::Reloading { .. }
            | Self::Reloaded { .. }
            | Self::StopAnnounced { .. }
            | Self::Stopping { .. }
            | Self::Exiting => Severity::Info,
        }
    }
}

impl Notice {
    /// Returns true if the logger may be down.
    pub(crate) fn is_of_mute_logs(&self) -> bool {
        // A logger that dies once was killed, most likely, and the next one is at work by now.
        matches!(
            self,
            Self::ForkFailed { task: Task::Logger, .. } | Self::LoggerExited { deaths: 2.., .. }
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
            Self::Forked { task, pid } => write!(f, "{task} started with pid: {pid}"),
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
            Self::SlotsFailing { slots, deaths, last } => {
                write!(
                    f,
                    "workers of slots {slots} cannot live ({deaths} early deaths in a row, the last \
                     {last}); still trying"
                )
            }
            Self::WorkerTooLarge { slot, pid, bytes } => {
                let mebibytes = bytes / (1 << 20);
                write!(
                    f,
                    "worker {slot} (pid {pid}) takes {mebibytes} MiB as soon as it serves: \
                     max_memory is less than this application needs"
                )
            }
            Self::Unkillable { task, pid } => {
                write!(f, "leaving {task} (pid {pid}) behind: KILL does not end it")
            }
            Self::BootFailed => f.write_str("no worker could boot: stopping"),
            Self::PrepareFailed { status } => {
                write!(f, "failed to load the application: prepare {status}")
            }
            Self::Resized { from, to } => write!(f, "workers: {from} -> {to}"),
            Self::SizeKept { workers } => write!(f, "workers: {workers} is as far as it goes"),
            Self::Reloading { generation } => write!(f, "reloading: generation {generation}"),
            Self::Reloaded { generation, replaced, took, served } => {
                let took = Millis(*took);
                write!(
                    f,
                    "reloaded: generation {generation} in {took}, workers replaced: {replaced}"
                )?;
                served.map_or(Ok(()), |served| write!(f, ", requests served meanwhile: {served}"))
            }
            Self::ReloadFailed { generation, kept, reason } => {
                write!(
                    f,
                    "failed to reload: generation {generation} is dropped, {kept} serves on: {reason}"
                )
            }
            Self::ReloadDelayed { slot, draining, timeout } => {
                let timeout = timeout.as_secs_f32();
                write!(
                    f,
                    "reload waits: {draining} workers that left slot {slot} still finish what they hold; \
                     graceful_timeout gives each {timeout} s"
                )
            }
            Self::UpgradeFailed { reason, output } => {
                write!(f, "failed to upgrade: {reason}; nothing has changed")?;
                output.as_ref().map_or(Ok(()), |output| write!(f, "; it says: {output}"))
            }
            Self::LoggerExited { pid, status, .. } => {
                write!(f, "the logger (pid {pid}) died: {status}; another takes its place")
            }
            Self::StatsExited { pid, status, .. } => {
                write!(f, "the stats process (pid {pid}) died: {status}; another takes its place")
            }
            Self::Ignored { signal, why } => write!(f, "ignoring {signal}: {why}"),
            Self::StopAnnounced { announce, .. } => {
                write!(
                    f,
                    "stopping in {} s: the server serves on, readiness is 503",
                    announce.as_secs_f32()
                )
            }
            Self::Stopping { urgency: Urgency::Graceful, timeout } => {
                write!(f, "stopping: workers may finish for {} s", timeout.as_secs_f32())
            }
            Self::Stopping { urgency: Urgency::Quick, .. } => f.write_str("stopping quickly"),
            Self::Exiting => f.write_str("Shutting down: Master"),
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
            Self::DiedDraining => "died while draining",
            Self::Overstayed => "was killed while draining",
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
            Self::Unheard => f.write_str("it closed its channel to the master"),
        }
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "not ready within boot_timeout",
            Self::Stall => "still there after ABRT",
            Self::Leave => "not gone by its deadline",
            Self::Unheard => "it closed its channel to the master and goes on",
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
            Self::Stats => f.write_str("the stats process"),
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
            Self::Restart => f.write_str("its restart was asked for"),
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
            Self::Unknown => {
                f.write_str("reaped by another process, which alone knows how it ended")
            }
            Self::Signal { number, core } => {
                let core = if *core { ", core dumped" } else { "" };
                let name = signal_name(*number);
                match number.checked_sub(REAL_TIME).filter(|above| *above >= 0) {
                    Some(0) => write!(f, "ended by signal {number} (RTMIN){core}"),
                    Some(above) => write!(f, "ended by signal {number} (RTMIN+{above}){core}"),
                    None => write!(f, "ended by signal {number}{name}{core}"),
                }
            }
        }
    }
}

/// The first real-time signal that programs may use (signal(7): the C library takes two below it).
const REAL_TIME: i32 = 34;

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
        10 => " (USR1)",
        11 => " (SEGV)",
        12 => " (USR2)",
        13 => " (PIPE)",
        14 => " (ALRM)",
        15 => " (TERM)",
        16 => " (STKFLT)",
        24 => " (XCPU)",
        25 => " (XFSZ)",
        26 => " (VTALRM)",
        27 => " (PROF)",
        29 => " (IO)",
        30 => " (PWR)",
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
