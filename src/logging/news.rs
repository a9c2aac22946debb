//! What has to be said in the log about the log itself.

use std::time::Duration;

use super::error_log::Entry;
use super::fields::{Fields, Value};
use super::ring::Lost;
use crate::config::Level;

/// Something that happened to lines or to what they are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Lines found no room in their ring, since nobody read what was written.
    Unread(Lost),
    /// What this process's ring held made no sense.
    Corrupted { pid: u64 },
    /// A target cannot be written to; its lines are lost from now on.
    Failing { target: String, cause: String },
    /// A target can be written to again; these lines are lost.
    Dropped { target: String, lines: u64, span: Duration, cause: String },
    /// There may be nobody who writes the logs.
    Mute { cause: String },
    /// The server has stopped, and these lines are still in the rings.
    Unwritten { lines: u64 },
    /// A file could not be opened again, and is written to where it is.
    NotReopened { target: String, cause: String },
}

impl News {
    /// The entry of the error log.
    pub(super) fn entry(&self) -> Entry {
        let text = |text: &str| Value::Text(text.to_owned());
        let (message, values) = match self {
            Self::Unread(Lost { lines, span, pid }) => (
                "log lines were dropped",
                [
                    ("lines", Value::Unsigned(*lines)),
                    ("seconds", seconds(*span)),
                    ("cause", text("nobody read them")),
                ]
                .into_iter()
                .chain(pid.map(|pid| ("process", Value::Unsigned(pid))))
                .collect(),
            ),
            Self::Corrupted { pid } => (
                "a process has written nonsense over its log lines; they are lost",
                vec![("process", Value::Unsigned(*pid))],
            ),
            Self::Failing { target, cause } => (
                "failed to write to a log; its lines are dropped until it can be written to again",
                vec![("target", text(target)), ("cause", text(cause))],
            ),
            Self::Dropped { target, lines, span, cause } => (
                "log lines were dropped",
                vec![
                    ("lines", Value::Unsigned(*lines)),
                    ("seconds", seconds(*span)),
                    ("cause", text(cause)),
                    ("target", text(target)),
                ],
            ),
            Self::Mute { cause } => {
                ("nobody may be writing the logs", vec![("cause", text(cause))])
            }
            Self::Unwritten { lines } => (
                "log lines could not be written before the server had to be gone",
                vec![("lines", Value::Unsigned(*lines))],
            ),
            Self::NotReopened { target, cause } => (
                "failed to reopen a log; its lines go where they went until it can be opened",
                vec![("target", text(target)), ("cause", text(cause))],
            ),
        };
        Entry { level: Level::Warning, fields: Fields::new(message, values) }
    }
}

/// In milliseconds' precision.
fn seconds(span: Duration) -> Value {
    Value::Float((span.as_secs_f64() * 1000.0).round() / 1000.0)
}
