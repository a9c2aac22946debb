//! What becomes of log lines while readers stop, disks move and processes die. Each request has a
//! number, so every line is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, PipeReader};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Address, Connection};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::log_figures::figure;
use crate::proc;

/// Access and error lines as JSON.
const JSON: &str = "[log]\naccess_format = \"json\"\nformat = \"json\"\n";
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

/// What came of them.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) answered: BTreeSet<u64>,
    pub(crate) failed: BTreeSet<u64>,
}

impl Numbered {
    /// Sends requests until there are enough; each once, whatever becomes of it.
    fn send(&self, address: &Address, agent: &str) -> Sent {
        let (mut sent, mut kept) = (Sent::default(), None);
        while !self.enough.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let text =
                format!("GET /?n={number} HTTP/1.1\r\nhost: a\r\nuser-agent: {agent}\r\n\r\n");
            let connection = kept.take().map_or_else(|| Connection::open(address), Ok);
            let result = connection.and_then(|mut connection: Connection| {
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

    /// Several clients that send until what happens meanwhile has happened.
    pub(crate) fn send_while(
        &self,
        address: &Address,
        agent: &str,
        meanwhile: impl FnOnce(),
    ) -> Sent {
        std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..4).map(|_| scope.spawn(|| self.send(address, agent))).collect();
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

    fn wait_for_within(&self, count: u64, patience: Duration) {
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

/// What a log says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// How often which request has a line, by how it ended.
    pub(crate) answered: BTreeMap<u64, u64>,
    pub(crate) lost: BTreeMap<u64, u64>,
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

    fn note(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return self.torn.push(line.to_owned());
        };
        if line["message"] == "log lines were dropped" {
            self.dropped += line["lines"].as_u64().expect("a number of lines");
        }
        let number = line["query"].as_str().and_then(|query| query.strip_prefix("n="));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { return };
        let lines = if line["outcome"] == "lost" { &mut self.lost } else { &mut self.answered };
        *lines.entry(number).or_default() += 1;
    }

    /// Each of these requests has one line, and no other has.
    pub(crate) fn assert_each_once(&self, sent: &Sent) {
        assert_eq!(sent.failed, BTreeSet::new());
        assert_eq!(self.torn, [""; 0]);
        assert_eq!((self.dropped, self.lost.len()), (0, 0));
        let missing: Vec<_> =
            sent.answered.iter().filter(|it| !self.answered.contains_key(it)).collect();
        assert!(missing.is_empty(), "requests without a line: {missing:?}");
        assert!(self.answered.values().all(|count| *count == 1), "a line is there twice");
    }
}

/// A server on whose pipe nobody reads.
fn start_frozen(config: &str) -> (Ferricorn, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (Ferricorn::hello().config(&format!("{config}{JSON}")).stdout(writer).start(), reader)
}

/// Waits until another logger has taken this one's place.
fn await_another(server: &Ferricorn, logger: i32) {
    eventually("another logger", PATIENCE, || (server.logger() != logger).then_some(()));
}

#[test]
fn a_reader_that_stops_stalls_no_request_and_every_line_is_accounted_for() {
    let (server, reader) = start_frozen("workers = 2\n");
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), "a", || requests.wait_for(12_000));
    assert_eq!(sent.failed, BTreeSet::new());
    let said = std::thread::scope(|scope| {
        let reader = scope.spawn(|| Said::read(BufReader::new(reader)));
        server.stop();
        reader.join().expect("the reader does not panic")
    });
    assert_eq!(said.torn, [""; 0]);
    assert!(said.answered.values().all(|count| *count == 1), "a line is there twice");
    let received = u64::try_from(said.answered.len()).expect("few");
    assert!(said.dropped > 0, "two rings of 1 MiB have no room for so many lines");
    assert_eq!(received + said.dropped, u64::try_from(sent.answered.len()).expect("few"));
}

#[test]
fn a_reader_that_stops_cannot_hold_the_exit() {
    let (mut server, reader) = start_frozen("workers = 2\ngraceful_timeout = 2\n");
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), "a", || requests.wait_for(4000));
    assert_eq!(sent.failed, BTreeSet::new());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit_within(Duration::from_secs(15)), Exit::Code(0));
    assert!(server.log().contains("log lines could not be written"), "{}", server.log());
    drop(reader);
}

#[test]
fn lines_of_64_kib_from_every_worker_stay_whole() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let limits = "workers = 4\n[limits]\nrequest_field_size = 65000\n";
    let config = format!("{limits}{BLOCK}");
    let server = Ferricorn::hello().config(&config).stdout(writer).start();
    let agent = "A".repeat(64_000);
    let (sent, said) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut said = Said::default();
            for line in BufReader::new(reader).lines() {
                let line = line.expect("lines are text");
                said.note(&line);
                let whole = line.len() > 64_000 && line.contains(&agent);
                assert!(whole || !line.contains("AAAA"), "a line lost something");
            }
            said
        });
        let requests = Numbered::default();
        let lines = figure("FERRICORN_LINES", 400);
        let patience = PATIENCE + Duration::from_millis(20) * u32::try_from(lines).expect("few");
        let sent = requests
            .send_while(&server.address(), &agent, || requests.wait_for_within(lines, patience));
        server.stop();
        (sent, reader.join().expect("the reader does not panic"))
    });
    println!("{} torn of {}", said.torn.len(), said.answered.len());
    said.assert_each_once(&sent);
}

#[test]
fn a_killed_worker_loses_no_line_that_it_had_finished() {
    let server = Ferricorn::hello().config(&format!("{BLOCK}access = \"access.log\"\n")).start();
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), "a", || {
        for kill in 1..=20 {
            requests.wait_for(kill * 300);
            let slot = u16::try_from(kill % 4).expect("a slot");
            send(server.worker(slot), Signal::SIGKILL);
        }
    });
    let access = server.folder().join("access.log");
    let folder = server.stop_and_keep();
    let said = Said::read_files(&[&access]);
    drop(folder);
    assert_eq!(said.torn, [""; 0]);
    for number in 0..requests.next.load(Ordering::Relaxed) {
        let lines = |of: &BTreeMap<u64, u64>| of.get(&number).copied().unwrap_or(0);
        let (answered, lost) = (lines(&said.answered), lines(&said.lost));
        // A worker may die behind an answer and before its line, and the other way round: what was
        // sent to the kernel and what has a line are one thing for nobody.
        let has_answer = sent.answered.contains(&number);
        // Not even one that died behind a line and before it had noted that the request was over.
        assert!(answered + lost <= 1, "request {number} has {answered} + {lost} lines");
        assert!(!has_answer || answered + lost >= 1, "request {number} was answered, has no line");
    }
    let unsaid = sent.answered.iter().filter(|number| said.lost.contains_key(number)).count();
    assert!(unsaid <= 20, "{unsaid} answered requests are said to be lost");
    assert!(!sent.failed.is_empty(), "no kill has hit anything");
}

#[test]
fn a_killed_logger_is_replaced_and_no_line_is_lost() {
    let server = Ferricorn::hello().config(&format!("{BLOCK}access = \"access.log\"\n")).start();
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), "a", || {
        for kill in 1..=10 {
            requests.wait_for(kill * 500);
            let logger = server.logger();
            send(logger, Signal::SIGKILL);
            await_another(&server, logger);
        }
    });
    assert_eq!(sent.failed, BTreeSet::new());
    let access = server.folder().join("access.log");
    server.wait_log("the logger (pid ");
    let folder = server.stop_and_keep();
    let said = Said::read_files(&[&access]);
    drop(folder);
    assert!(said.answered.keys().eq(&sent.answered), "a request has no line");
    assert_eq!((said.dropped, said.lost.len()), (0, 0));
    // What it was writing may be cut, and is then written again.
    assert!(said.torn.len() <= 20, "{:?}", said.torn);
}

#[test]
fn a_reload_moves_the_logs_and_loses_no_line() {
    let config = |target: &str| format!("workers = 2\n{BLOCK}access = \"{target}\"\n");
    let server = Ferricorn::hello().config(&config("one.log")).start();
    let requests = Numbered::default();
    let logger = server.logger();
    let sent = requests.send_while(&server.address(), "a", || {
        requests.wait_for(1000);
        server.rewrite_config(&config("two.log"));
        server.signal(Signal::SIGHUP);
        await_another(&server, logger);
        requests.wait_for(requests.answered.load(Ordering::Relaxed) + 1000);
    });
    let (one, two) = (server.folder().join("one.log"), server.folder().join("two.log"));
    let folder = server.stop_and_keep();
    Said::read_files(&[&one, &two]).assert_each_once(&sent);
    let new = Said::read_files(&[&two]);
    assert!(!new.answered.is_empty(), "the new file is not written to");
    drop(folder);
}

#[test]
fn an_upgrade_keeps_the_rings_and_loses_no_line() {
    let config = format!("workers = 2\n{BLOCK}access = \"access.log\"\n");
    let server = Ferricorn::hello().config(&config).start();
    let requests = Numbered::default();
    let logger = server.logger();
    let sent = requests.send_while(&server.address(), "a", || {
        requests.wait_for(1000);
        server.signal(Signal::SIGUSR2);
        server.wait_log("Upgraded in place");
        await_another(&server, logger);
        requests.wait_for(requests.answered.load(Ordering::Relaxed) + 1000);
    });
    let access = server.folder().join("access.log");
    let folder = server.stop_and_keep();
    Said::read_files(&[&access]).assert_each_once(&sent);
    drop(folder);
}

#[test]
fn a_full_disk_stalls_no_request_and_is_said_in_the_other_log() {
    let config = format!("workers = 2\n{JSON}access = \"/dev/full\"\n");
    let server = Ferricorn::hello().config(&config).start();
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), "a", || requests.wait_for(200));
    assert_eq!(sent.failed, BTreeSet::new());
    server.wait_log("failed to write to a log");
    assert_eq!(server.log().matches("failed to write to a log").count(), 1);
    server.stop();
}

#[test]
fn a_logger_at_rest_is_small_and_does_not_wake() {
    let server = Ferricorn::hello().start();
    server.get("/").expect("a server that serves answers");
    server.wait_log("\"GET / HTTP/1.1\" 200");
    let logger = server.logger();
    let wakes = || {
        let count = |name| proc::status(logger, name).and_then(|it| it.parse::<u64>().ok());
        count("voluntary_ctxt_switches").expect("it is there")
    };
    // It naps once more before it sleeps.
    let mut last = wakes();
    let mut since = Instant::now();
    eventually("a second without a wake-up", PATIENCE, || {
        if wakes() != last {
            (last, since) = (wakes(), Instant::now());
        }
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    let private = proc::private_kib_but(logger, "ferricorn-rings").expect("it is there");
    println!("a second without a wake-up; {private} KiB private beside the rings");
    assert!(private <= 1024, "{private} KiB");
    server.stop();
}
