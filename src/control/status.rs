//! The status of a server, put together from the lines of the answer.

use serde::Serialize;
use serde_json::Value;

use super::protocol::{RequestRow, ServerRow, WorkerRow};

/// The status of a server.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Status {
    pub(crate) server: ServerRow,
    pub(crate) workers: Vec<WorkerRow>,
    pub(crate) requests: Vec<RequestRow>,
}

impl Status {
    /// Takes a line of the answer; returns one that is none of the status.
    pub(crate) fn take(&mut self, line: Value) -> Option<Value> {
        let kind = line.get("type").and_then(Value::as_str).map(str::to_owned);
        match kind.as_deref() {
            Some("server") => self.server = serde_json::from_value(line).unwrap_or_default(),
            Some("worker") => self.workers.extend(serde_json::from_value(line).ok()),
            Some("request") => self.requests.extend(serde_json::from_value(line).ok()),
            Some(_) | None => return Some(line),
        }
        self.workers.sort_by_key(|worker| worker.slot);
        None
    }
}
