//! Requests with numbers, and what a log says of each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::client::{Address, Connection};
use crate::harness::{PATIENCE, eventually};

/// The same, and requests wait rather than lose a line while the logger is being replaced.
pub(crate) const BLOCK: &str =
    "[log]\naccess_format = \"json\"\nformat = \"json\"\nwhen_full = \"block\"\n";

/// Requests with numbers, as many clients send them.
#[derive(Debug, Default)]
pub(crate) struct Numbered {
    pub(crate) next: AtomicU64,
    pub(crate) answered: AtomicU64,
    enough: AtomicBool,
}

/// Their outcome.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) answered: BTreeSet<u64>,
    pub(crate) failed: BTreeSet<u64>,
}

impl Numbered {
    /// Sends requests until there are enough; each once, whatever becomes of it. The first ones go over
    /// this connection, if it is given one.
    fn send(&self, address: &Address, agent: &str, mut kept: Option<Connection>) -> Sent {
        let mut sent = Sent::default();
        while !self.enough.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let text =
                format!("GET /?n={number} HTTP/1.1\r\nhost: a\r\nuser-agent: {agent}\r\n\r\n");
            let connection = kept.take().map_or_else(|| Connection::open(address), Ok);
            let result = connection.and_then(|mut connection| {
                connection.send(&text)?;
                connection.response().map(|response| (connection, response))
            });
            match result {
                Ok((connection, response)) => {
                    assert_eq!(response.status, 200);
                    kept = (!response.closes()).then_some(connection);
                    sent.answered.insert(number);
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    sent.failed.insert(number);
                }
            }
        }
        sent
    }

    /// Several clients that send until what happens meanwhile has happened. The kernel chooses their
    /// workers.
    pub(crate) fn send_while(
        &self,
        address: &Address,
        agent: &str,
        meanwhile: impl FnOnce(),
    ) -> Sent {
        self.send_over([None, None, None, None], address, agent, meanwhile)
    }

    /// The same, with a client for each of these connections.
    pub(crate) fn send_over(
        &self,
        connections: impl IntoIterator<Item = Option<Connection>>,
        address: &Address,
        agent: &str,
        meanwhile: impl FnOnce(),
    ) -> Sent {
        std::thread::scope(|scope| {
            let client = |connection| scope.spawn(move || self.send(address, agent, connection));
            let clients: Vec<_> = connections.into_iter().map(client).collect();
            let end = End(self);
            meanwhile();
            drop(end);
            let mut all = Sent::default();
            for client in clients {
                let sent = client.join().expect("a client does not panic");
                all.answered.extend(sent.answered);
                all.failed.extend(sent.failed);
            }
            all
        })
    }

    /// No further request is sent.
    pub(crate) fn end(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    /// Waits until so many are answered.
    pub(crate) fn wait_for(&self, count: u64) {
        self.wait_for_within(count, PATIENCE);
    }

    pub(crate) fn wait_for_within(&self, count: u64, patience: Duration) {
        eventually(&format!("{count} answers"), patience, || {
            (self.answered.load(Ordering::Relaxed) >= count).then_some(())
        });
    }
}

/// Ends the requests, also when a test fails: else it would wait for them for ever.
struct End<'a>(&'a Numbered);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// So many connections to each of the first workers of `examples/hello.rs`, each with an answer. The
/// kernel chooses at random, so there are more until every worker has its own.
pub(crate) fn connections_to_each(
    address: &Address,
    workers: u16,
    each: usize,
) -> Vec<Option<Connection>> {
    let (mut chosen, mut spare) = (BTreeMap::<u16, Vec<_>>::new(), Vec::new());
    eventually("connections to every worker", PATIENCE, || {
        let mut connection = Connection::open(address).expect("it serves");
        let greeting = connection.get("/").expect("it answers").text();
        let slot = greeting.trim_end().rsplit(' ').next().and_then(|slot| slot.parse().ok());
        let slot = slot.unwrap_or_else(|| panic!("no greeting of a worker: {greeting}"));
        match chosen.entry(slot).or_default() {
            enough if enough.len() == each => spare.push(connection),
            few => few.push(connection),
        }
        let have = |slot| chosen.get(&slot).is_some_and(|chosen| chosen.len() == each);
        (0..workers).all(have).then_some(())
    });
    chosen.into_values().flatten().map(Some).collect()
}

/// The content of a log.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The number of lines of each request, by how it ended.
    pub(crate) answered: BTreeMap<u64, u64>,
    pub(crate) lost: BTreeMap<u64, u64>,
    /// The workers that served the answered ones, by their lines.
    pub(crate) servers: BTreeSet<i64>,
    /// Of how many lost requests of which process there is a line.
    pub(crate) lost_with: BTreeMap<i64, u64>,
    /// The number of requests that dead workers took with them, by the log.
    pub(crate) taken: u64,
    /// Lines that were dropped, as the log says.
    pub(crate) dropped: u64,
    /// Lines that are no JSON.
    pub(crate) torn: Vec<String>,
}

impl Said {
    pub(crate) fn read(log: impl BufRead) -> Self {
        let mut said = Self::default();
        for line in log.lines() {
            said.note(&line.expect("lines are text"));
        }
        said
    }

    pub(crate) fn read_files(paths: &[&Path]) -> Self {
        let mut said = Self::default();
        for path in paths {
            let text = std::fs::read_to_string(path).expect("the log is there");
            text.lines().for_each(|line| said.note(line));
        }
        said
    }

    pub(crate) fn note(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return self.torn.push(line.to_owned());
        };
        if is_of_dropped_lines(&line) {
            self.dropped += line["lines"].as_u64().expect("a number of lines");
        }
        if line["event"] == "requests_lost" {
            self.taken += line["count"].as_u64().expect("a number of requests");
        }
        let number = line["query"].as_str().and_then(|query| query.strip_prefix("n="));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { return };
        let pid = line["pid"].as_i64().expect("a pid");
        let lines = if line["outcome"] == "lost" {
            *self.lost_with.entry(pid).or_default() += 1;
            &mut self.lost
        } else {
            self.servers.insert(pid);
            &mut self.answered
        };
        *lines.entry(number).or_default() += 1;
    }

    /// Each of these requests has one line, and no other has.
    pub(crate) fn assert_each_once(&self, sent: &Sent) {
        assert_eq!(sent.failed, BTreeSet::new());
        assert_eq!(self.torn, [""; 0]);
        assert_eq!((self.dropped, self.lost.len()), (0, 0));
        let missing: Vec<_> =
            sent.answered.iter().filter(|answered| !self.answered.contains_key(answered)).collect();
        assert!(missing.is_empty(), "requests without a line: {missing:?}");
        assert!(self.answered.values().all(|count| *count == 1), "a line is there twice");
    }
}

/// Returns true if the line of the error log counts lines that were dropped.
pub(crate) fn is_of_dropped_lines(line: &Value) -> bool {
    line["event"] == "log_lines_dropped" || line["event"] == "log_lines_lost"
}
