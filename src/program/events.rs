//! The log events of programs.

use crate::ids::{Pid, Slot};
use crate::log_event::log_lines;

log_lines! {
    /// A log event about the program of a slot.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum ProgramEvent {
        /// The command is wrong: its program does not exist, or an argument names a missing socket.
        Refused = "program_refused", Error, "cannot run the command: {reason}" { reason: String },
        /// A slot's program could not be started.
        StartFailed = "program_start_failed", Error,
            "cannot start the program of slot {slot}: {reason}" { slot: Slot, reason: String },
        /// A slot's program was started.
        Started = "program_started", Info, "started the program of slot {slot} with pid {program}" {
            slot: Slot,
            program as program_pid: Pid,
        },
        /// The process that kills what a program has started, when its worker is killed, could not be forked.
        Unguarded = "program_unguarded", Warning,
            "cannot guard the program of slot {slot} ({program}): {reason}; if its worker is killed, \
             processes that the program has started live on" {
                slot: Slot,
                program as program_pid: Pid,
                reason: String,
            },
        /// A program reports its status (`STATUS=`); the last one of a second is logged.
        Status = "program_status", Info, "slot {slot}: status: {status}" {
            slot: Slot,
            status: String,
        },
        /// A program was not ready within `boot_timeout`, and is killed.
        NotReady = "program_not_ready", Error,
            "killing the program of slot {slot} ({program}): not ready in time: {reason}" {
                slot: Slot,
                program as program_pid: Pid,
                reason: String,
            },
        /// A program accepts connections although it has not sent `READY=1`: it is sent clients' requests.
        AcceptsEarly = "program_accepts_early", Warning,
            "the program of slot {slot} ({program}) accepts connections before it sends READY=1" {
                slot: Slot,
                program as program_pid: Pid,
            },
        /// A program ended before it was ready, or without having been told to drain.
        Ended = "program_ended", Error, "the program of slot {slot} ({program}) {how}" {
            slot: Slot,
            program as program_pid: Pid,
            how: String,
            exit_code: Option<i32>,
            signal: Option<i32>,
        },
        /// A program that was told to drain was not done in time: what is left of its process group is
        /// killed.
        DrainTimedOut = "program_drain_timed_out", Warning,
            "killing the program of slot {slot} ({program}): it did not leave in time" {
                slot: Slot,
                program as program_pid: Pid,
            },
        /// The socket for a program's notes, or a pipe for its output, could not be opened or watched.
        WatchFailed = "program_watch_failed", Error, "cannot watch the program of slot {slot}: {reason}" {
            slot: Slot,
            reason: String,
        },
    }
}
