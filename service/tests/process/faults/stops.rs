//! Stops in which somebody does not play along: a worker, a client, an operator in a hurry.
//!
//! Whatever happens, the master ends with 0, before the deadline or soon after it, and nothing of its
//! process group is left: every server's end asserts the latter.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::scene::settled;
use crate::client::{Connection, Outcome, get};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually};
use crate::proc;

const GRACEFUL: Duration = Duration::from_secs(1);
/// After so much of it workers are killed: the rest is for the last log lines.
const WORKERS_MAY: Duration = Duration::from_millis(750);
/// The time beyond its deadline that a stop may take on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// The worker that has this connection in its hands.
fn holder(server: &Ferricorn, connection: &Connection) -> (u16, i32) {
    let Some(SocketAddr::V4(client)) = connection.local() else { panic!("it is IPv4") };
    eventually("a worker holds the connection", PATIENCE, || {
        server.workers().into_iter().find(|(_, pid)| proc::accepted_clients(*pid).contains(&client))
    })
}

/// Waits for the end of a server that was told to stop: nothing is left of it. Answers how long it took.
fn ends_with_0(mut server: Ferricorn, begun: Instant) -> (Duration, String) {
    assert_eq!(server.wait_exit(), Exit::Code(0), "{}", server.log());
    let took = begun.elapsed();
    assert!(server.remains().is_empty(), "{:?}", server.remains());
    let log = server.log();
    assert!(log.contains("Shutting down: Master"), "{log}");
    (took, log)
}

#[test]
fn workers_that_ignore_term_are_killed_at_their_deadline() {
    let server =
        Ferricorn::unruly().config("graceful_timeout = 1").env("UNRULY_STOP", "hang").start();
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    let (took, log) = ends_with_0(server, begun);
    assert!((WORKERS_MAY..GRACEFUL + SLACK).contains(&took), "{took:?}");
    assert_eq!(log.matches("not gone by its deadline").count(), 4, "{log}");
    assert_eq!(log.matches("was killed while draining").count(), 4, "{log}");
    println!("ignores TERM: ended after {took:?} of {GRACEFUL:?}");
}

/// At the deadline who has sent half a body or half a head is told that it took too long; a client that
/// reads nothing is cut. Each request that had begun has its line.
#[test]
fn clients_that_do_not_play_along_are_told_or_cut_at_the_deadline() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().config("graceful_timeout = 1").start();
    let mut never_reads = server.connect();
    never_reads.send(get("/big?mb=64")).unwrap();
    let mut half_body = server.connect();
    half_body.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").unwrap();
    let mut half_head = server.connect();
    half_head.send("GET / HTTP/1.1\r\nhos").unwrap();
    for client in [&never_reads, &half_body, &half_head] {
        holder(&server, client);
    }
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    let (took, log) = ends_with_0(server, begun);
    assert!(took < GRACEFUL + SLACK, "{took:?}");
    assert!(log.contains(": its time is over"), "{log}");
    // Without optimization it is another program, beside others on one machine.
    if !cfg!(debug_assertions) {
        assert!(!log.contains("not gone by its deadline"), "its workers are done before: {log}");
    }
    assert_eq!(log.matches("\"POST /echo HTTP/1.1\" 408 ").count(), 1, "{log}");
    assert_eq!(log.matches("\"-\" 408 ").count(), 1, "{log}");
    let cut = log.lines().find(|line| line.contains("\"GET /big?mb=64 HTTP/1.1\" 200 "));
    let sent = cut.and_then(|line| line.split(" 200 ").nth(1)?.split(' ').next()?.parse().ok());
    assert!(sent.is_some_and(|bytes: u64| bytes < 64 << 20), "what was sent of it: {log}");
    assert!(matches!(never_reads.response(), Err(Outcome::CutShort | Outcome::ResetWaiting)));
    for half in [&mut half_body, &mut half_head] {
        let answer = half.response().expect("it is answered, not cut");
        assert_eq!((answer.status, answer.closes()), (408, true));
    }
    println!("clients that do not play along: ended after {took:?} of {GRACEFUL:?}");
}

/// A second press loses nothing: what is in hand is answered all the same.
#[test]
fn a_second_term_changes_nothing() {
    let server = Ferricorn::unruly().start();
    let mut slow = server.connect();
    slow.send(get("/slow?ms=1500")).unwrap();
    let holder = holder(&server, &slow);
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[]);
    server.signal(Signal::SIGTERM);
    eventually("only the holder is left", PATIENCE, || {
        (server.workers() == [holder]).then_some(())
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(slow.response().expect("it was accepted before the stop").status, 200);
    let (took, log) = ends_with_0(server, begun);
    assert_eq!(log.matches("stopping: ").count(), 1, "{log}");
    assert_eq!(log.matches("\"GET /slow?ms=1500 HTTP/1.1\" 200 ").count(), 1, "{log}");
    println!("second TERM: answered, ended after {took:?}");
}

#[test]
fn int_and_quit_quicken_a_graceful_stop() {
    for hurry in [Signal::SIGINT, Signal::SIGQUIT] {
        let server = Ferricorn::unruly().config("graceful_timeout = 600").start();
        settled(&server, 4);
        let mut never = server.connect();
        never.send(get("/never")).unwrap();
        let mut half_body = server.connect();
        half_body.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").unwrap();
        holder(&server, &half_body);
        let holder = holder(&server, &never);
        server.signal(Signal::SIGTERM);
        server.wait_event("stop_started", &[("timeout_seconds", 600.0.into())]);
        assert!(server.workers().contains(&holder), "it may finish");
        let begun = Instant::now();
        server.signal(hurry);
        let (took, log) = ends_with_0(server, begun);
        assert!(took < SLACK, "{took:?}");
        assert!(log.contains("stopping quickly"), "{log}");
        assert_eq!(log.matches("\"GET /never HTTP/1.1\" - - ").count(), 1, "{log}");
        assert_eq!(log.matches("\"POST /echo HTTP/1.1\" - - ").count(), 1, "{log}");
        assert!(never.response().is_err() && half_body.response().is_err());
        println!("{hurry} during a graceful stop: ended after {took:?}");
    }
}

/// A stopped worker hears nothing, not even in a hurry.
#[test]
fn a_worker_that_stands_still_does_not_hold_a_stop() {
    let server = Ferricorn::unruly().config("graceful_timeout = 1").start();
    let (_, stopped) = settled(&server, 4)[2];
    crate::harness::send(stopped, Signal::SIGSTOP);
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    let (took, log) = ends_with_0(server, begun);
    assert!((WORKERS_MAY..GRACEFUL + SLACK).contains(&took), "{took:?}");
    let told =
        format!("worker 2 (pid {stopped}) was killed while draining: ended by signal 9 (KILL)");
    assert!(log.contains(&told), "{log}");
    println!("a stopped worker: ended after {took:?} of {GRACEFUL:?}");
}
