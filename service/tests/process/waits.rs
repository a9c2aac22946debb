//! `log.when_full = "block"`: workers whose lines wait for a reader, with their event loops blocked.

use std::collections::BTreeSet;
use std::io::{BufReader, PipeReader};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::Connection;
use crate::effects::reload;
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::numbered::{BLOCK, Numbered, Said, Sent, connections_to_each};
use crate::proc;

/// Workers of each server here.
const WORKERS: u16 = 2;

/// Makes lines so long that fewer than a hundred of them fill a ring.
fn agent() -> String {
    "A".repeat(8000)
}

/// A server on whose pipe nobody reads, and whose requests wait for that.
fn start_frozen(config: &str) -> (Ferricorn, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let config = format!("workers = {WORKERS}\n{config}{BLOCK}");
    (Ferricorn::hello().config(&config).stdout(writer).start(), reader)
}

/// Two clients of each worker: while one's request waits for room, the other's is not even read.
fn clients(server: &Ferricorn) -> Vec<Option<Connection>> {
    connections_to_each(&server.address(), WORKERS, 2)
}

/// Waits until the logger is stuck in a write, which makes no room any more, and then until each worker
/// waits for room.
fn await_standstill(server: &Ferricorn) {
    let await_sleep = |pid, place: &str| {
        eventually(&format!("{pid} sleeps in {place}"), PATIENCE, || {
            proc::sleeps_in(pid).contains(place).then_some(())
        });
    };
    await_sleep(server.logger(), "pipe_write");
    for slot in 0..WORKERS {
        await_sleep(server.worker(slot), "nanosleep");
    }
}

/// Sends requests until all wait for room, and stops the server then.
fn stop_at_a_standstill(server: &mut Ferricorn) -> Sent {
    let requests = Numbered::default();
    let clients = clients(server);
    let address = server.address();
    requests.send_over(clients, &address, &agent(), || {
        await_standstill(server);
        requests.end();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_exit_within(Duration::from_secs(30)), Exit::Code(0));
    })
}

#[test]
fn a_worker_that_waits_for_room_is_not_taken_for_stalled_and_loses_nothing() {
    let (server, reader) = start_frozen("stall_timeout = 1\n");
    let workers = server.workers();
    let requests = Numbered::default();
    let (sent, said) = std::thread::scope(|scope| {
        let mut said = None;
        let sent = requests.send_over(clients(&server), &server.address(), &agent(), || {
            await_standstill(&server);
            // A silent worker is asked after a second, again after another, and then aborted.
            let begun = Instant::now();
            eventually("some seconds more", PATIENCE, || {
                assert_eq!(server.workers(), workers, "a worker is replaced");
                (begun.elapsed() > Duration::from_secs(4)).then_some(())
            });
            said = Some(scope.spawn(|| Said::read(BufReader::new(reader))));
            requests.wait_for(requests.answered.load(Ordering::Relaxed) + 200);
            assert_eq!(server.workers(), workers, "a worker is replaced");
        });
        server.stop();
        let said = said.expect("it was begun").join();
        (sent, said.expect("the reader does not panic"))
    });
    said.assert_each_once(&sent);
}

#[test]
fn workers_that_wait_for_room_do_not_hold_a_stop() {
    let (mut server, reader) = start_frozen("graceful_timeout = 10\n");
    let sent = stop_at_a_standstill(&mut server);
    assert!(!sent.answered.is_empty());
    assert_eq!(sent.failed, BTreeSet::new(), "who waits is answered");
    assert!(
        server.log().contains("the logger could not write them before the exit"),
        "{}",
        server.log()
    );
    drop(reader);
}

#[test]
fn a_worker_that_is_killed_while_it_waits_is_replaced_and_accounted_for() {
    let (server, reader) = start_frozen("");
    let requests = Numbered::default();
    let mut killed = Vec::new();
    let (sent, said) = std::thread::scope(|scope| {
        let mut said = None;
        let sent = requests.send_over(clients(&server), &server.address(), &agent(), || {
            await_standstill(&server);
            for slot in 0..WORKERS {
                let old = server.worker(slot);
                send(old, Signal::SIGKILL);
                killed.push(old);
                eventually("another in its place", PATIENCE, || {
                    server
                        .workers()
                        .iter()
                        .any(|worker| worker.0 == slot && worker.1 != old)
                        .then_some(())
                });
            }
            said = Some(scope.spawn(|| Said::read(BufReader::new(reader))));
            requests.wait_for(requests.answered.load(Ordering::Relaxed) + 200);
        });
        server.stop();
        let said = said.expect("it was begun").join();
        (sent, said.expect("the reader does not panic"))
    });
    assert_eq!((said.dropped, said.torn.len()), (0, 0));
    let one_each = killed.into_iter().map(|pid| (i64::from(pid), 1));
    assert_eq!(said.lost_with, one_each.collect(), "each had one request in hand");
    assert_eq!(said.taken, u64::from(WORKERS), "and its death says so");
    assert!(said.lost.keys().all(|number| sent.failed.contains(number)), "{:?}", said.lost);
    for number in 0..requests.next.load(Ordering::Relaxed) {
        let lines = [&said.answered, &said.lost].map(|of| of.get(&number).copied().unwrap_or(0));
        let wanted = if sent.answered.contains(&number) { 1..=1 } else { 0..=1 };
        assert!(wanted.contains(&(lines[0] + lines[1])), "request {number}: {lines:?}");
    }
}

/// The file says what becomes of a line that finds no room, and `HUP` has that changed.
#[test]
fn hup_changes_what_is_done_when_a_ring_is_full() {
    let (mut server, reader) = start_frozen("graceful_timeout = 2\n");
    let config = |log: &str| format!("workers = {WORKERS}\ngraceful_timeout = 2\n{log}");
    let requests = Numbered::default();
    let sent = requests.send_over(clients(&server), &server.address(), &agent(), || {
        await_standstill(&server);
        reload(&server, &config(""));
        requests.end();
    });
    assert_eq!(sent.failed, BTreeSet::new(), "who waits is answered");
    let requests = Numbered::default();
    let sent = requests.send_over(clients(&server), &server.address(), &agent(), || {
        requests.wait_for(600);
    });
    assert_eq!(sent.failed, BTreeSet::new(), "nobody waits for a reader any more");
    reload(&server, &config(BLOCK));
    let sent = stop_at_a_standstill(&mut server);
    assert_eq!(sent.failed, BTreeSet::new(), "who waits is answered");
    drop(reader);
}
