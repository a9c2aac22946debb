//! No request vanishes: what a worker held is told when it stalls, and accounted for when it dies.

use std::fmt;
use std::time::SystemTime;

use super::Master;
use super::events::MasterEvent;
use super::handle::ChildHandle;
use super::metrics::Metrics;
use crate::embed::App;
use crate::ids::Pid;
use crate::logging::{self, Outcome, Record, Rings};
use crate::scoreboard::{Held, WorkerBoard};
use crate::sys::clock;

/// Requests that a line of the error log names; of more, only the number is told.
const NAMED_MAX: usize = 5;

impl<A: App> Master<A> {
    /// Says which requests the worker has in hand.
    pub(super) fn tell_held(&self, pid: i32) {
        if let Some(handle) = self.lasting.handles.iter().find(|handle| handle.pid() == pid)
            && let Some(worker) = &handle.worker
        {
            let held = worker.board.held();
            let list = List { held: &held, now: clock::wall(), culprit: "stuck in " };
            logging::emit(&MasterEvent::RequestsHeld {
                slot: worker.slot,
                pid: Pid(pid),
                count: held.len(),
                requests: list.to_string(),
                state: Claims(&worker.board).to_string(),
            });
        }
    }
}

/// Writes an access line for each request that the dead worker held, and says so in the error log. One
/// that has its line already was over: the worker died before it could say so.
pub(super) fn account(handle: &ChildHandle, rings: &Rings, metrics: &Metrics) {
    let Some(worker) = &handle.worker else { return };
    // A line too many is better than none.
    let settled = handle.ring.and_then(|place| rings.settled(place).ok());
    let has_line = |request: &Held| {
        settled.zip(request.line_at).is_some_and(|(settled, noted)| settled != noted)
    };
    let mut held = worker.board.held();
    let block = handle.ring.and_then(|place| metrics.memory().of_place(place).ok());
    held.retain(|request| {
        metrics.note_held(block.as_ref(), request);
        !has_line(request)
    });
    if held.is_empty() {
        return;
    }
    let now = clock::wall();
    let slot = worker.slot;
    let pid = handle.pid();
    logging::emit(&MasterEvent::RequestsLost {
        slot,
        pid: Pid(pid),
        count: held.len(),
        requests: List { held: &held, now, culprit: "died in " }.to_string(),
        state: Claims(&worker.board).to_string(),
    });
    for request in &held {
        let record = Record {
            remote: request.remote,
            started: request.started,
            elapsed: now.duration_since(request.started).unwrap_or_default(),
            queue_wait: None,
            method: &request.method,
            target: &request.target,
            version: request.version,
            request_headers: &[],
            outcome: Outcome::Lost(None),
            response_headers: &[],
            bytes: 0,
            pid: u32::try_from(pid).unwrap_or(0),
            slot,
            generation: worker.generation,
            request_id: None,
            scheme: "http",
            listener: None,
            client_certificate: None,
        };
        logging::access(&record, |_| {});
    }
}

/// Requests as people read them. Those whose code was running come first, behind a word of their own:
/// whatever has happened, they are next to it.
struct List<'a> {
    held: &'a [Held],
    now: SystemTime,
    culprit: &'static str,
}

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, now, culprit } = self;
        match held.len() {
            0 => return f.write_str("no request"),
            1 => f.write_str("1 request: ")?,
            count => write!(f, "{count} requests: ")?,
        }
        for (at, request) in held.iter().take(NAMED_MAX).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let word = if request.running { culprit } else { "" };
            let age = now.duration_since(request.started).unwrap_or_default().as_secs_f32();
            write!(f, "{comma}{word}{} {} ({age:.1} s)", request.method, request.target)?;
        }
        if held.len() > NAMED_MAX { f.write_str(", …") } else { Ok(()) }
    }
}

/// Returns the rest of a worker's own words.
struct Claims<'a>(&'a WorkerBoard);

impl fmt::Display for Claims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (doing, generation) = self.0.doing();
        let open = self.0.connections();
        write!(f, "connections open: {open}; it was {doing}, generation {generation}")
    }
}
