//! `log.when_full = "block"`: workers whose lines wait for a reader, with their event loops blocked.

use std::collections::BTreeSet;
use std::io::{BufReader, PipeReader};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::logs::{BLOCK, Numbered, Said};

/// Makes lines so long that fewer than a hundred of them fill a ring.
fn agent() -> String {
    "A".repeat(8000)
}

/// A server on whose pipe nobody reads, and whose requests wait for that.
fn start_frozen(config: &str) -> (Ferricorn, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let config = format!("workers = 2\n{config}{BLOCK}");
    (Ferricorn::hello().config(&config).stdout(writer).start(), reader)
}

/// Waits until no request is answered any more.
fn await_standstill(requests: &Numbered) {
    // A single ring has room for some ninety; all clients may have come to one worker.
    requests.wait_for(50);
    let answered = || requests.answered.load(Ordering::Relaxed);
    let (mut last, mut since) = (answered(), Instant::now());
    eventually("no answer for a while", PATIENCE, || {
        if answered() != last {
            (last, since) = (answered(), Instant::now());
        }
        (since.elapsed() > Duration::from_millis(700)).then_some(())
    });
}

#[test]
fn a_worker_that_waits_for_room_is_not_taken_for_stalled_and_loses_nothing() {
    let (server, reader) = start_frozen("stall_timeout = 1\n");
    let workers = server.workers();
    let requests = Numbered::default();
    let (sent, said) = std::thread::scope(|scope| {
        let mut said = None;
        let sent = requests.send_while(&server.address(), &agent(), || {
            await_standstill(&requests);
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
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), &agent(), || {
        await_standstill(&requests);
        requests.end();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_exit_within(Duration::from_secs(30)), Exit::Code(0));
    });
    assert!(!sent.answered.is_empty());
    assert_eq!(sent.failed, BTreeSet::new(), "who waits is answered");
    assert!(server.log().contains("log lines could not be written"), "{}", server.log());
    drop(reader);
}

#[test]
fn a_worker_that_is_killed_while_it_waits_is_replaced_and_accounted_for() {
    let (server, reader) = start_frozen("");
    let requests = Numbered::default();
    let (sent, said) = std::thread::scope(|scope| {
        let mut said = None;
        let sent = requests.send_while(&server.address(), &agent(), || {
            await_standstill(&requests);
            for slot in 0..2 {
                let old = server.worker(slot);
                send(old, Signal::SIGKILL);
                eventually("another in its place", PATIENCE, || {
                    server.workers().iter().any(|it| it.0 == slot && it.1 != old).then_some(())
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
    assert!(said.lost.len() >= 2, "each had a request in hand: {:?}", said.lost);
    assert!(said.lost.keys().all(|number| sent.failed.contains(number)), "{:?}", said.lost);
    for number in 0..requests.next.load(Ordering::Relaxed) {
        let lines = [&said.answered, &said.lost].map(|of| of.get(&number).copied().unwrap_or(0));
        let wanted = if sent.answered.contains(&number) { 1..=1 } else { 0..=1 };
        assert!(wanted.contains(&(lines[0] + lines[1])), "request {number}: {lines:?}");
    }
}
