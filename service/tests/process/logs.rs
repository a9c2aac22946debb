//! The fate of log lines while readers stop, disks move and processes die. Each request has a
//! number, so every line is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, PipeReader};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::get;
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::log_figures::figure;
use crate::numbered::{BLOCK, Numbered, Said, connections_to_each};
use crate::proc;

/// Access and error lines as JSON.
const JSON: &str = "[log]\naccess_format = \"json\"\nformat = \"json\"\n";

/// The number of times that the logger is killed.
const LOGGER_KILLS: u64 = 10;
/// By how much a busy machine may be late.
const BUSY: Duration = Duration::from_secs(5);

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
    // Within its two seconds; a busy machine may tell us late.
    assert_eq!(server.wait_exit_within(Duration::from_secs(2) + BUSY), Exit::Code(0));
    assert!(
        server.log().contains("the logger could not write them before the exit"),
        "{}",
        server.log()
    );
    drop(reader);
}

#[test]
fn lines_of_64_kib_from_every_worker_stay_whole() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let limits = "workers = 4\n[limits]\nrequest_field_size = 65000\n";
    let config = format!("{limits}{BLOCK}");
    let server = Ferricorn::hello().config(&config).stdout(writer).start();
    let agent = "A".repeat(64_000);
    let mut workers = Vec::new();
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
        let lines = figure("FIGURE_LINES", 400);
        let patience = PATIENCE + Duration::from_millis(20) * u32::try_from(lines).expect("few");
        let clients = connections_to_each(&server.address(), 4, 1);
        let sent = requests.send_over(clients, &server.address(), &agent, || {
            requests.wait_for_within(lines, patience);
        });
        workers = server.workers();
        server.stop();
        (sent, reader.join().expect("the reader does not panic"))
    });
    println!("{} torn of {}", said.torn.len(), said.answered.len());
    let pids = workers.into_iter().map(|(_, pid)| i64::from(pid)).collect();
    assert_eq!(said.servers, pids, "every worker has written");
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
        let answered = lines(&said.answered);
        let lost = lines(&said.lost);
        // A worker may die behind an answer and before its line, and the other way round: what was
        // sent to the kernel and what has a line are one thing for nobody.
        let has_answer = sent.answered.contains(&number);
        // Not even one that died behind a line and before it had noted that the request was over.
        assert!(answered + lost <= 1, "request {number} has {answered} + {lost} lines");
        assert!(!has_answer || answered + lost >= 1, "request {number} was answered, has no line");
    }
    let unsaid: Vec<_> = said.lost.keys().filter(|key| sent.answered.contains(key)).collect();
    assert!(unsaid.is_empty(), "answered requests are said to be lost: {unsaid:?}");
    assert!(!sent.failed.is_empty(), "no kill has hit anything");
}

#[test]
fn a_killed_logger_is_replaced_and_no_line_is_lost() {
    let server = Ferricorn::hello().config(&format!("{BLOCK}access = \"access.log\"\n")).start();
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), "a", || {
        for kill in 1..=LOGGER_KILLS {
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
    let text = std::fs::read_to_string(&access).expect("the log is there");
    drop(folder);
    assert!(said.answered.keys().eq(&sent.answered), "a request has no line");
    assert_eq!((said.dropped, said.lost.len()), (0, 0));
    // What it was writing may be cut, and is then written again.
    assert!(said.torn.len() as u64 <= LOGGER_KILLS, "{:?}", said.torn);
    // A batch is done when it is more than so many bytes.
    let shortest = text.lines().filter(|line| line.ends_with('}')).map(str::len).min();
    let batch = 1 + 128 * 1024 / shortest.expect("there are lines") as u64;
    let again: u64 = said.answered.values().map(|count| count - 1).sum();
    assert!(again <= LOGGER_KILLS * batch, "{again} lines are there again");
    let most = said.answered.values().max().expect("there are lines");
    assert!(*most <= 1 + LOGGER_KILLS, "a line is there {most} times");
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
    let one = server.folder().join("one.log");
    let two = server.folder().join("two.log");
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
        server.wait_event("server_upgraded", &[]);
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
    server.wait_log("cannot write to log ");
    assert_eq!(server.log().matches("cannot write to log ").count(), 1);
    server.stop();
}

#[test]
fn a_logger_at_rest_is_small_and_does_not_wake() {
    let config =
        "workers = 2\n[log]\nwhen_full = \"block\"\n[limits]\nrequest_field_size = 65000\n";
    let server = Ferricorn::hello().config(config).start();
    // Its buffers have grown as far as they do.
    let requests = Numbered::default();
    let agent = "A".repeat(64_000);
    requests.send_while(&server.address(), &agent, || requests.wait_for(100));
    server.get("/").expect("a server that serves answers");
    server.wait_log("\"GET / HTTP/1.1\" 200");
    let logger = server.logger();
    let wakes = || {
        let count = |name| proc::status(logger, name).and_then(|status| status.parse::<u64>().ok());
        count("voluntary_ctxt_switches").expect("it is there")
    };
    // It naps once more before it sleeps.
    let mut last = wakes();
    let mut since = Instant::now();
    eventually("five seconds without a wake-up", PATIENCE, || {
        if wakes() != last {
            (last, since) = (wakes(), Instant::now());
        }
        (since.elapsed() > Duration::from_secs(5)).then_some(())
    });
    let private = proc::private_kib_but(logger, "ferricorn-rings").expect("it is there");
    println!("five seconds without a wake-up; {private} KiB private beside the rings");
    assert!(private <= 1024, "{private} KiB");
    server.stop();
}

#[test]
fn queue_wait_is_in_the_line_of_the_first_request() {
    for (format, name) in [("json", "\"queue_wait_us\":"), ("wait=%({queue_wait}e)s.", "wait=")] {
        let config = format!("workers = 1\n[log]\naccess_format = '{format}'");
        let server = Ferricorn::hello().config(&config).start();
        let worker = server.worker(0);
        send(worker, Signal::SIGSTOP);
        let mut connection = server.connect();
        connection.send(get("/")).expect("it is queued");
        let sent = Instant::now();
        let is_old = || (sent.elapsed() >= Duration::from_millis(200)).then_some(());
        eventually("it has waited", PATIENCE, is_old);
        send(worker, Signal::SIGCONT);
        for _ in 0..2 {
            assert_eq!(connection.response().expect("it is answered").status, 200);
            connection.send(get("/")).expect("it is open");
        }
        let waits = eventually("both lines", PATIENCE, || {
            let log = server.log();
            let wait = |line: &str| line.split(name).nth(1).map(|rest| rest.to_owned());
            let waits: Vec<String> = log.lines().filter_map(wait).collect();
            (waits.len() >= 2).then_some(waits)
        });
        let number = waits[0].split([',', '.']).collect::<Vec<_>>();
        let micros = if name == "wait=" { number[1] } else { number[0] };
        // The kernel measures in ticks.
        assert!(micros.parse::<u64>().expect("a number") >= 180_000, "{waits:?}");
        assert!(waits[1].starts_with(['-', 'n']), "{waits:?}");
        server.stop();
    }
}
