//! The words of the control socket. The two ends may be of different versions during an upgrade: what
//! a request does not have is its default, and what a client does not know it leaves out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A question or a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Request {
    /// The state of the server, and the requests in hand.
    Status {
        #[serde(default)]
        requests: bool,
    },
    /// Reloads the configuration.
    Reload,
    /// Replaces the program by the one on disk.
    Upgrade,
    /// Replaces the workers of these slots; none: of all.
    Restart {
        #[serde(default)]
        slots: Vec<u16>,
    },
    /// Changes the number of workers.
    Scale { workers: WorkerCount },
    /// Stops the server.
    Stop {
        #[serde(default)]
        quick: bool,
    },
    /// Opens the log files again.
    Reopen,
    /// The events that are kept, and those that follow.
    Events {
        #[serde(default)]
        follow: bool,
    },
}

/// A number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorkerCount {
    /// This number.
    To(u16),
    /// So many more, or fewer.
    By(i16),
}

impl Request {
    /// Returns true if the answer may take as long as what was asked for.
    pub(crate) fn may_last(&self) -> bool {
        match self {
            Self::Status { .. } | Self::Events { follow: false } => false,
            Self::Reload
            | Self::Upgrade
            | Self::Restart { .. }
            | Self::Scale { .. }
            | Self::Stop { .. }
            | Self::Reopen
            | Self::Events { follow: true } => true,
        }
    }
}

/// A line of the answer that is no log event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The server as a whole.
    Server(Box<ServerRow>),
    /// One worker.
    Worker(Box<WorkerRow>),
    /// A request in hand.
    Request(Box<RequestRow>),
    /// So many events were forgotten before the client has read them.
    Skipped { events: u64 },
    /// The last line.
    End { exit_code: u8, reason: Option<String> },
}

/// The server as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServerRow {
    pub(crate) pid: i32,
    pub(crate) program: String,
    pub(crate) version: String,
    /// `starting`, `serving`, `reloading`, `upgrading` or `stopping`.
    pub(crate) state: String,
    pub(crate) generation: u32,
    /// The generation that a reload tries.
    pub(crate) next_generation: Option<u32>,
    pub(crate) uptime_seconds: f64,
    pub(crate) workers_wanted: u16,
    pub(crate) workers_serving: usize,
    pub(crate) requests_total: u64,
    pub(crate) addresses: Vec<String>,
    /// The addresses that have a name in `bind`, by that name.
    pub(crate) named: BTreeMap<String, Vec<String>>,
    /// The event with which the last reload ended.
    pub(crate) last_reload: Option<Value>,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WorkerRow {
    pub(crate) slot: u16,
    pub(crate) pid: Option<i32>,
    /// `booting`, `serving`, `draining`, `aborting` or `killed`.
    pub(crate) state: String,
    pub(crate) generation: u32,
    pub(crate) age_seconds: f64,
    /// Requests answered in the slot since the start of the server.
    pub(crate) slot_requests_total: u64,
    pub(crate) connections: u64,
    pub(crate) requests_in_flight: usize,
    /// Connections that wait to be accepted in the slot.
    pub(crate) queue_length: u32,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) cpu_seconds: Option<f64>,
    /// The time since its event loop last ran.
    pub(crate) silent_seconds: Option<f64>,
    /// Early ends of workers in the slot, in a row.
    pub(crate) early_exits: u32,
    /// The event of the last end of a worker in the slot.
    pub(crate) last_end: Option<Value>,
    /// The last that its program has reported of itself (`STATUS=`).
    pub(crate) status: Option<String>,
}

/// A request in hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RequestRow {
    pub(crate) slot: u16,
    pub(crate) pid: Option<i32>,
    pub(crate) remote: Option<String>,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) age_seconds: f64,
    /// Its code has a thread of the worker.
    pub(crate) running: bool,
}

impl Reply {
    /// The end of an answer that is complete.
    pub(crate) const DONE: Self = Self::End { exit_code: 0, reason: None };

    /// The end of an answer to what cannot be done.
    pub(crate) fn failed(exit_code: u8, reason: impl Into<String>) -> Self {
        Self::End { exit_code, reason: Some(reason.into()) }
    }
}

/// A message as a line.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The request in a line.
///
/// # Errors
/// The reason why it is none.
pub(crate) fn request(line: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(line).map_err(|error| format!("malformed request: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn request_has_defaults_and_ignores_unknown_fields() {
        let read = |text: &str| request(text.as_bytes());
        assert_eq!(read(r#"{"command":"status"}"#), Ok(Request::Status { requests: false }));
        let more = r#"{"command":"status","requests":true,"later":{}}"#;
        assert_eq!(read(more), Ok(Request::Status { requests: true }));
        assert_eq!(read(r#"{"command":"reload","x":1}"#), Ok(Request::Reload));
        let unknown = read(r#"{"command":"dance"}"#).unwrap_err();
        assert!(unknown.starts_with("malformed request: unknown variant `dance`"), "{unknown}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _any = request(&bytes);
        }

        #[test]
        fn any_json_is_a_request_or_an_error(
            command in "[a-z]{0,8}|status|upgrade|reopen|reload|restart|scale|stop|events",
            key in "[a-z]{0,8}|requests|slots|workers|quick|follow",
            value in prop_oneof![
                "[0-9]{1,30}|-1|null|true|\"x\"",
                "\\[[0-9]{0,7}(,[0-9]{1,5})*\\]",
                "\\{\"(to|by)\":[0-9-]{1,9}\\}",
            ],
        ) {
            let _any = request(format!(r#"{{"command":"{command}","{key}":{value}}}"#).as_bytes());
        }
    }
}
