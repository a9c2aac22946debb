//! Waiting for the events that the master notes (docs/events.md), however it logs them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};

/// The program's `events` for this master.
fn events(master: i32, flags: &[&str]) -> Child {
    Command::new("timeout")
        .args([&PATIENCE.as_secs().to_string(), env!("CARGO_BIN_EXE_ferricorn")])
        .args(["events", "--json", "--pid", &master.to_string()])
        .args(flags)
        .env_clear()
        .current_dir("/")
        .stdout(Stdio::piped())
        .spawn()
        .expect("coreutils are installed")
}

/// The events that are printed, as they come.
fn printed(child: &mut Child) -> impl Iterator<Item = Value> {
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let event = |line: String| serde_json::from_str(&line).expect("each line is an event");
    lines.map_while(Result::ok).map(event)
}

/// Waits until this master has noted the event with these fields, and returns all of its fields.
pub(crate) fn wait(master: i32, name: &str, fields: &[(&str, Value)]) -> Value {
    let is_meant = |event: &Value| {
        let has = |(field, value): &(&str, Value)| event["fields"][field] == *value;
        event["event"] == name && fields.iter().all(has)
    };
    // A master that starts may have no control socket yet.
    let mut event = eventually(&format!("event {name} with {fields:?}"), PATIENCE, || {
        let mut follower = events(master, &["--follow"]);
        let found = printed(&mut follower).find(is_meant);
        send(i32::try_from(follower.id()).expect("pids fit"), Signal::SIGTERM);
        follower.wait().expect("it is ours");
        found
    });
    event["fields"].take()
}

/// Returns the fields of each event of this name that the master has noted by now.
pub(crate) fn noted(master: i32, name: &str) -> Vec<Value> {
    let mut child = events(master, &[]);
    let all = printed(&mut child).filter(|event| event["event"] == name);
    let fields = all.map(|mut event| event["fields"].take()).collect();
    assert!(child.wait().expect("it is ours").success());
    fields
}

impl Ferricorn {
    /// Waits until the master has noted this event with these fields, and returns all of its fields.
    pub(crate) fn wait_event(&self, name: &str, fields: &[(&str, Value)]) -> Value {
        wait(self.pid(), name, fields)
    }

    /// Returns the fields of each event of this name that the master has noted by now.
    pub(crate) fn noted(&self, name: &str) -> Vec<Value> {
        noted(self.pid(), name)
    }

    /// Waits until this generation is in force.
    pub(crate) fn wait_reloaded(&self, generation: impl Into<Value>) {
        self.wait_event("reload_succeeded", &[("generation", generation.into())]);
    }

    /// Waits until the reload to this generation has failed, and returns the reason.
    pub(crate) fn wait_reload_failed(&self, generation: u32) -> String {
        let failed = self.wait_event("reload_failed", &[("generation", generation.into())]);
        failed["reason"].as_str().expect("a text").to_owned()
    }

    /// Waits until a worker has ended like this.
    pub(crate) fn wait_worker_exited(&self, pid: i32, ending: &str, how: (&str, Value)) {
        let fields = [("process_pid", pid.into()), ("ending", ending.into()), how];
        self.wait_event("worker_exited", &fields);
    }

    /// Waits until it is noted how many requests were lost with a worker, and returns the event's fields.
    pub(crate) fn wait_requests_lost(&self, pid: i32, count: usize) -> Value {
        self.wait_event("requests_lost", &[("process_pid", pid.into()), ("count", count.into())])
    }
}

/// Returns true if the field is a text with this part.
pub(crate) fn has(field: &Value, part: &str) -> bool {
    field.as_str().is_some_and(|text| text.contains(part))
}
