//! Answers to clients of the control socket. The master does so behind everything else of a turn, and
//! a bounded part of it in each: a client delays no signal.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Master;
use super::events::MasterEvent;
use super::handle::ChildHandle;
use super::inbox::Source;
use crate::config::Config;
use crate::control::{
    Ask, Control, End, Feed, Heard, Reply, Request, RequestRow, ServerRow, WorkerCount, WorkerRow,
    line,
};
use crate::embed::App;
use crate::ids::{ChildId, CommandId, Slot, SlotSet};
use crate::listeners::Listeners;
use crate::logging;
use crate::logging::journal::{self, Journal};
use crate::scoreboard::{SlotBoard, WorkerBoard};
use crate::supervisor::Supervisor;
use crate::supervisor::command::{Command, Outcome, Scale};
use crate::supervisor::event::Event;
use crate::supervisor::stage::Urgency;
use crate::supervisor::view::WorkerView;
use crate::sys::poll::Readiness;
use crate::sys::statistics::Extent;
use crate::sys::{clock, process};
use crate::time::Instant;

/// The cost of a line of the journal, and what a turn may cost: with the entries of a worker's board it
/// is about a millisecond.
const LINE_COST: usize = 8;
const TURN_COST: usize = 16_384;
/// Requests in hand that are listed of one worker.
const REQUESTS_MAX: usize = 1000;

/// Events in the text for the stats process, and bytes of them.
const LAST_EVENTS: usize = 64;
const LAST_EVENT_BYTES: usize = 32 * 1024;
/// The events that name requests: the page of the stats process shows none.
const WITH_REQUESTS: [&str; 2] = ["requests_held", "requests_lost"];

/// The exit code of a client whose command has failed.
const EXIT_FAILED: u8 = 1;

/// The refusal of an upgrade, with the output of the new binary.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    reason: String,
    output: String,
}

impl Refused {
    pub(super) fn of(reason: &str, output: Option<&str>) -> Option<Self> {
        output.map(|output| Self { reason: reason.to_owned(), output: output.to_owned() })
    }
}

/// Opens the control socket that is configured. Without one the server is as good.
pub(super) fn open(config: &Config) -> Control {
    match config.control.as_str() {
        "" => Control::default(),
        "auto" => Control::listen_abstract(rand::random()).unwrap_or_default(),
        path => Control::listen_file(Path::new(path)).unwrap_or_else(|error| {
            let path = path.to_owned();
            let reason = error.to_string();
            logging::emit(&MasterEvent::ControlFailed { path, reason });
            Control::default()
        }),
    }
}

impl<A: App> Master<A> {
    /// The value of `control` by which a client finds this server.
    pub(super) fn control_place(&self) -> String {
        let path = self.lasting.control.path().and_then(Path::to_str);
        path.unwrap_or_else(|| match self.config().control.as_str() {
            "" => "",
            _ => "auto",
        })
        .to_owned()
    }

    /// Does a part of what clients wait for.
    pub(super) fn serve_control(&mut self, readiness: &[(Source, Readiness)]) {
        let now = super::now();
        let mut sendable = Vec::new();
        for (source, ready) in readiness {
            match source {
                Source::Control(Ask::Listener) if ready.readable => {
                    self.lasting.control.accept(now);
                }
                Source::Control(Ask::Client(id)) if ready.writable => sendable.push(*id),
                Source::Control(Ask::Client(id)) if ready.readable => self.hear_client(now, *id),
                Source::Control(_)
                | Source::Signals
                | Source::Child(_)
                | Source::Room(_)
                | Source::Queue(_)
                | Source::Loading => {}
            }
        }
        self.send_to_clients(now, sendable);
        for id in self.lasting.control.expire(now) {
            self.step(Event::Abandoned { id });
        }
    }

    /// Each client has its turn, beginning with another one each time.
    fn send_to_clients(&mut self, now: Instant, mut clients: Vec<CommandId>) {
        let first = usize::try_from(now.as_millis()).unwrap_or(0) % clients.len().max(1);
        clients.rotate_left(first);
        let mut budget = TURN_COST;
        for id in clients {
            let sight = Sight {
                now,
                supervisor: &self.lasting.supervisor,
                handles: &self.lasting.handles,
                counters: &self.lasting.counters,
                listeners: &self.lasting.listeners,
                extent: self.extent(),
            };
            let next_event = journal::read(Journal::next);
            let is_gone =
                self.lasting.control.send(now, id, next_event, &mut budget, |feed, output| {
                    sight.produce(feed, output)
                });
            if is_gone {
                self.step(Event::Abandoned { id });
            }
        }
    }

    fn hear_client(&mut self, now: Instant, id: CommandId) {
        match self.lasting.control.read(now, id) {
            Heard::Nothing => {}
            Heard::Gone => self.step(Event::Abandoned { id }),
            Heard::Request(request) => self.obey_client(now, id, request),
        }
    }

    fn obey_client(&mut self, now: Instant, id: CommandId, request: Request) {
        let command = match request {
            Request::Status { requests } => {
                let server = Reply::Server(Box::new(self.server_row()));
                let feed = Feed::Status { requests, after: ChildId::LOGGER };
                return self.lasting.control.answer(now, id, Some(&server), feed);
            }
            Request::Events { follow } => {
                let next = journal::read(Journal::next);
                let end = End { serial: next, exit_code: 0, reason: None };
                let end = (!follow).then_some(end);
                let cursor = journal::read(Journal::oldest);
                return self.lasting.control.answer(now, id, None, Feed::Events { cursor, end });
            }
            Request::Reload => Command::Reload,
            Request::Upgrade => Command::Upgrade,
            Request::Restart { slots } if slots.is_empty() => Command::Restart(None),
            Request::Restart { slots } => match slot_set(&slots) {
                Ok(slots) => Command::Restart(Some(slots)),
                Err(reason) => {
                    let refusal = Reply::failed(EXIT_FAILED, reason);
                    return self.lasting.control.answer(now, id, Some(&refusal), Feed::Ending);
                }
            },
            Request::Scale { workers: WorkerCount::To(workers) } => {
                Command::Scale(Scale::To(workers))
            }
            Request::Scale { workers: WorkerCount::By(change) } => {
                Command::Scale(Scale::By(change))
            }
            Request::Stop { quick: true } => Command::Stop(Urgency::Quick),
            Request::Stop { quick: false } => Command::Stop(Urgency::Graceful),
            Request::Reopen => Command::Reopen,
        };
        // The events from here on are the progress of the command.
        let cursor = journal::read(Journal::next);
        self.lasting.control.answer(now, id, None, Feed::Events { cursor, end: None });
        self.step(Event::Commanded { id, command });
    }

    /// Tells the client of a command how it has ended.
    pub(super) fn conclude(&mut self, id: CommandId, outcome: Outcome) {
        let (exit_code, reason) = match outcome {
            Outcome::Done => (0, None),
            Outcome::Failed { reason } => (EXIT_FAILED, Some(self.with_output(reason))),
        };
        let serial = journal::read(Journal::next);
        self.lasting.control.conclude(id, End { serial, exit_code, reason });
    }

    /// The reason with the output of the new binary, if it is about that.
    fn with_output(&self, reason: String) -> String {
        match &self.refused {
            Some(refused) if refused.reason == reason => {
                format!("{reason}; it says: {}", refused.output)
            }
            Some(_) | None => reason,
        }
    }

    /// The status in lines for the stats process, which adds what it can read itself: first the server, then
    /// the last events, then the workers.
    pub(super) fn status_text(&self) -> Vec<u8> {
        let sight = Sight {
            now: super::now(),
            supervisor: &self.lasting.supervisor,
            handles: &self.lasting.handles,
            counters: &self.lasting.counters,
            listeners: &self.lasting.listeners,
            extent: self.extent(),
        };
        let mut text = line(&Reply::Server(Box::new(self.server_row())));
        journal::read(|journal| {
            for event in journal.tail(LAST_EVENTS, LAST_EVENT_BYTES, &WITH_REQUESTS) {
                text.extend_from_slice(event.as_bytes());
                text.push(b'\n');
            }
            let ends = journal.last_of_slots("worker_exited");
            let mut after = ChildId::LOGGER;
            while let Some(view) = self.lasting.supervisor.worker_after(sight.now, after) {
                after = view.child;
                let end = ends.get(&view.slot.number().into());
                let last_end = end.and_then(|line| serde_json::from_str(line).ok());
                let row = sight.row(&view, sight.board(&view), last_end);
                text.extend(line(&Reply::Worker(Box::new(row))));
            }
        });
        text
    }

    fn server_row(&self) -> ServerRow {
        let view = self.lasting.supervisor.view();
        let uptime = clock::wall().duration_since(self.lasting.began).unwrap_or_default();
        let ends = ["reload_succeeded", "reload_failed"];
        ServerRow {
            pid: process::pid(),
            program: A::NAME.to_owned(),
            version: A::VERSION.to_owned(),
            state: view.state.to_owned(),
            generation: view.generation.number(),
            next_generation: view.next.map(|generation| generation.number()),
            uptime_seconds: seconds(uptime),
            workers_wanted: view.wanted,
            workers_serving: view.serving,
            requests_total: self.lasting.counters.served().unchecked(),
            addresses: self.lasting.listeners.names(),
            named: self.lasting.listeners.by_name(),
            last_reload: last_event(&ends, None),
        }
    }
}

/// All that an answer is made of.
struct Sight<'a> {
    now: Instant,
    supervisor: &'a Supervisor,
    handles: &'a [ChildHandle],
    counters: &'a SlotBoard,
    listeners: &'a Listeners,
    extent: Extent,
}

impl Sight<'_> {
    /// Appends the next lines, and returns their cost.
    fn produce(&self, feed: &mut Feed, output: &mut Vec<u8>) -> usize {
        match feed {
            Feed::Asking | Feed::Ending => 1,
            Feed::Status { requests, after } => {
                match self.supervisor.worker_after(self.now, *after) {
                    Some(worker) => {
                        *after = worker.child;
                        self.worker(&worker, *requests, output)
                    }
                    None => {
                        output.extend(line(&Reply::DONE));
                        *feed = Feed::Ending;
                        1
                    }
                }
            }
            Feed::Events { cursor, end } => match end.take_if(|end| end.serial <= *cursor) {
                Some(End { exit_code, reason, .. }) => {
                    output.extend(line(&Reply::End { exit_code, reason }));
                    *feed = Feed::Ending;
                    1
                }
                None => next_event(cursor, output),
            },
        }
    }

    fn board(&self, view: &WorkerView) -> Option<&WorkerBoard> {
        let handle = self.handles.iter().find(|handle| handle.id == view.child);
        handle.and_then(|handle| handle.worker.as_ref()).map(|worker| &*worker.board)
    }

    /// A worker without what any process can read of it: requests in hand, memory and processor time.
    fn row(
        &self,
        view: &WorkerView,
        board: Option<&WorkerBoard>,
        last_end: Option<Value>,
    ) -> WorkerRow {
        let heartbeat =
            board.map(WorkerBoard::last_heartbeat).filter(|heartbeat| heartbeat.as_millis() > 0);
        WorkerRow {
            slot: view.slot.number(),
            pid: view.pid.map(|pid| pid.0),
            state: view.state.to_owned(),
            generation: view.generation.number(),
            age_seconds: seconds(view.age),
            slot_requests_total: self.counters.served_in(view.slot).unchecked(),
            connections: board.map_or(0, |board| board.connections().unchecked()),
            queue_length: self.listeners.queue_length(view.slot),
            silent_seconds: heartbeat.map(|heartbeat| seconds(self.now.since(heartbeat))),
            early_exits: view.early_exits,
            last_end,
            status: board.and_then(WorkerBoard::status),
            ..WorkerRow::default()
        }
    }

    fn worker(&self, view: &WorkerView, requests: bool, output: &mut Vec<u8>) -> usize {
        let board = self.board(view);
        let held = board.map(WorkerBoard::held).unwrap_or_default();
        let pid = view.pid.map(|pid| pid.0);
        let last_end = last_event(&["worker_exited"], Some(view.slot.number()));
        let row = WorkerRow {
            requests_in_flight: held.len(),
            memory_bytes: pid.and_then(|pid| self.extent.resident_bytes(pid).ok()),
            cpu_seconds: pid.and_then(|pid| self.extent.cpu_time(pid).ok()).map(seconds),
            ..self.row(view, board, last_end)
        };
        output.extend(line(&Reply::Worker(Box::new(row))));
        let wall = clock::wall();
        for request in held.iter().take(if requests { REQUESTS_MAX } else { 0 }) {
            let age = wall.duration_since(request.started).unwrap_or_default();
            let row = RequestRow {
                slot: view.slot.number(),
                pid,
                remote: request.remote.map(|remote| remote.to_string()),
                method: request.method.to_string(),
                target: request.target.to_string(),
                age_seconds: seconds(age),
                running: request.running,
            };
            output.extend(line(&Reply::Request(Box::new(row))));
        }
        LINE_COST + board.map_or(0, WorkerBoard::entries)
    }
}

/// Appends the event at the cursor, or a line about those that are forgotten.
fn next_event(cursor: &mut u64, output: &mut Vec<u8>) -> usize {
    journal::read(|journal| {
        let oldest = journal.oldest();
        if *cursor < oldest {
            let events = oldest.saturating_sub(*cursor);
            output.extend(line(&Reply::Skipped { events }));
            *cursor = oldest;
        } else if let Some(text) = journal.line(*cursor) {
            output.extend_from_slice(text.as_bytes());
            output.push(b'\n');
            *cursor = cursor.saturating_add(1);
        }
    });
    LINE_COST
}

/// # Errors
/// The first number that no slot can have.
fn slot_set(slots: &[u16]) -> Result<SlotSet, String> {
    match slots.iter().find(|number| **number >= Slot::MAX) {
        Some(number) => Err(format!("there is no slot {number}")),
        None => Ok(slots.iter().copied().map(Slot::new).collect()),
    }
}

fn last_event(names: &[&str], slot: Option<u16>) -> Option<Value> {
    journal::read(|journal| serde_json::from_str(journal.last(names, slot)?).ok())
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
