//! Log events about the logs themselves.

use std::fmt;
use std::time::Duration;

use super::ring::Lost;
use crate::log_event::{EventFields, LogEvent, Severity, log_events};

log_events! {
    /// A log event about lines, or about the target that they are written to.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum LoggingEvent {
        /// Lines found no room in their process's ring, since stdout or a log's file took none.
        Unread = "log_lines_dropped" {
            lines: u64,
            span as seconds: Duration,
            process: Option<u64>,
        },
        /// The ring of a process held no lines that could be read.
        Corrupted = "log_ring_corrupted" { process: Option<u64> },
        /// A process has written a line that names another process as its writer; this event replaces it.
        Forged = "log_line_forged" { named: u64, process: Option<u64>, line: String },
        /// A log cannot be written to; its lines are dropped from now on.
        Failing = "log_write_failed" { target: String, cause as reason: String },
        /// A log can be written to again; these lines are lost.
        Dropped = "log_lines_lost" {
            target: String,
            lines: u64,
            span as seconds: Duration,
            cause as reason: String,
        },
        /// `RUST_LOG` is malformed, and counts for nothing.
        Directives = "log_directives_ignored" { reason: String },
        /// The logger may be down.
        Mute = "logger_down" { cause as reason: String },
        /// The server has stopped, and these lines were not written: those of its processes, or what
        /// children have printed.
        Unwritten = "log_lines_unwritten" { lines: u64 },
        /// A log could not be opened again, and is written to where it is.
        NotReopened = "log_reopen_failed" { target: String, cause as reason: String },
    }
}

impl LoggingEvent {
    /// Lines that found no room in their ring.
    pub(crate) fn unread(Lost { lines, span, pid }: Lost) -> Self {
        Self::Unread { lines, span, process: pid }
    }
}

impl LogEvent for LoggingEvent {
    fn name(&self) -> &'static str {
        self.event_name()
    }

    fn fields(&self) -> EventFields {
        self.event_fields()
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }
}

impl fmt::Display for LoggingEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread { lines, span, process } => {
                write!(
                    f,
                    "log lines dropped: {lines} in {} s: the log was not read",
                    Seconds(*span)
                )?;
                process.map_or(Ok(()), |pid| write!(f, ", process {pid}"))
            }
            Self::Corrupted { process } => {
                f.write_str("cannot read the log lines of ")?;
                match process {
                    Some(pid) => write!(f, "process {pid}")?,
                    None => f.write_str("a process that has ended")?,
                }
                f.write_str(": its ring is corrupted; they are lost")
            }
            Self::Forged { named, process, line } => {
                f.write_str("a line in the name of process ")?;
                write!(f, "{named} was written by ")?;
                match process {
                    Some(pid) => write!(f, "process {pid}: {line:?}"),
                    None => write!(f, "a process that has ended: {line:?}"),
                }
            }
            Self::Failing { target, cause } => {
                write!(
                    f,
                    "cannot write to log {target}: {cause}; its lines are dropped until it can be written"
                )
            }
            Self::Dropped { target, lines, span, cause } => {
                write!(f, "log lines dropped: {lines} in {} s of {target}: {cause}", Seconds(*span))
            }
            Self::Directives { reason } => {
                write!(f, "RUST_LOG is ignored: {reason}; expected target=level,level")
            }
            Self::Mute { cause } => write!(f, "the logger may be down: {cause}"),
            Self::Unwritten { lines } => {
                write!(
                    f,
                    "log lines dropped: {lines}: the logger could not write them before the exit"
                )
            }
            Self::NotReopened { target, cause } => {
                write!(f, "cannot reopen log {target}: {cause}; its lines go to the old file")
            }
        }
    }
}

/// In milliseconds' precision.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0.as_secs_f64() * 1000.0).round() / 1000.0)
    }
}
