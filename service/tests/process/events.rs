//! Waiting for the events that the master notes (docs/events.md), however it logs them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Ferricorn, PATIENCE, Signal, send};

impl Ferricorn {
    /// Waits until the master has noted this event with these fields.
    pub(crate) fn wait_event(&self, name: &str, fields: &[(&str, Value)]) {
        let mut follower = Command::new("timeout")
            .args([&PATIENCE.as_secs().to_string(), env!("CARGO_BIN_EXE_ferricorn")])
            .args(["events", "--follow", "--json", "--pid", &self.pid().to_string()])
            .env_clear()
            .current_dir("/")
            .stdout(Stdio::piped())
            .spawn()
            .expect("coreutils are installed");
        let lines = BufReader::new(follower.stdout.take().expect("it is piped")).lines();
        let found = lines.map_while(Result::ok).any(|line| {
            let event: Value = serde_json::from_str(&line).expect("each line is an event");
            let has = |(field, value): &(&str, Value)| event["fields"][field] == *value;
            event["event"] == name && fields.iter().all(has)
        });
        send(i32::try_from(follower.id()).expect("pids fit"), Signal::SIGTERM);
        follower.wait().expect("it is ours");
        assert!(found, "no event {name} with {fields:?}: {}", self.log());
    }

    /// Waits until this generation is in force.
    pub(crate) fn wait_reloaded(&self, generation: impl Into<Value>) {
        self.wait_event("reload_succeeded", &[("generation", generation.into())]);
    }
}
