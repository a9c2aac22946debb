//! The figures that are promised of listeners, each with its own parameters, measured. They take
//! minutes and want a quiet machine, so they are asked for by name:
//!
//! `cargo test --release --test process table:: -- --ignored --nocapture --test-threads 1`
//!
//! What of them holds on any machine is tested always, in shorter forms, in `storms`, `listen`,
//! `evenness` and `namespaces`.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::evenness::{FAIR, spread};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::storms::{self, Kill};

/// Lets this much time pass.
fn pass(time: Duration) {
    let begun = Instant::now();
    eventually("time passes", PATIENCE + time, || (begun.elapsed() >= time).then_some(()));
}

/// 64 keep-alive clients, of whom half look for the end of their connection before they ask again,
/// and 16 with a connection for each request.
fn everybody() -> [Crowd; 3] {
    let pause = Duration::from_millis(5);
    [
        Crowd::get(32, Client::KeepAlive { pause, watches: false }),
        Crowd::get(32, Client::KeepAlive { pause, watches: true }),
        Crowd::get(16, Client::PerRequest),
    ]
}

#[test]
#[ignore = "takes 15 seconds"]
fn a_kill_every_250_ms_for_15_s() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &[Crowd::get(16, Client::PerRequest)]);
    let mut kills = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        pass(Duration::from_millis(250));
        let workers = server.workers();
        if let Some((_, victim)) = workers.get(rand::rng().random_range(0..workers.len().max(1))) {
            kills.push(Kill::now(*victim));
        }
    }
    storms::assert_explained(load.finish(), &kills);
    server.stop();
}

#[test]
#[ignore = "wants a quiet machine"]
fn what_is_queued_on_a_stopped_worker_is_answered_within_50_ms() {
    let _alone = crate::machine::alone();
    let longest = storms::queues_behind_stopped_workers(20);
    println!("20 × 100 connections beside a stopped worker: all answered within {longest:?}");
    assert!(longest <= Duration::from_millis(50), "{longest:?}");
}

#[test]
#[ignore = "wants a quiet machine"]
fn p99_of_fast_requests_beside_two_blockers_is_25_ms_at_most() {
    let _alone = crate::machine::alone();
    let [_, p99] = storms::fast_ones_beside_blocked_loops();
    assert!(p99 <= Duration::from_millis(25), "p99 {p99:?}");
}

#[test]
#[ignore = "wants a quiet machine"]
fn beside_a_slot_without_a_worker_for_400_ms_nobody_waits_50_ms() {
    let _alone = crate::machine::alone();
    let longest = storms::slots_without_a_worker();
    println!("a slot without a worker for 400 ms: nobody waited for more than {longest:?}");
    assert!(longest <= Duration::from_millis(50), "{longest:?}");
}

#[test]
#[ignore = "repeats at leisure what is tested always"]
fn twenty_times_fewer_and_more_fails_no_request() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &everybody());
    for _ in 0..20 {
        server.signal(Signal::SIGTTOU);
        server.wait_workers(3);
        pass(Duration::from_millis(250));
        server.signal(Signal::SIGTTIN);
        server.wait_workers(4);
        pass(Duration::from_millis(250));
    }
    let tally = load.finish();
    println!("20 × (TTOU, TTIN): {} answered, {} failed", tally.answered, tally.failures());
    tally.assert_clean();
    server.stop();
}

#[test]
#[ignore = "takes 20 seconds"]
fn a_worker_told_to_leave_each_second_fails_no_request() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &everybody());
    for round in 0..20 {
        send(server.worker(round % 4), Signal::SIGTERM);
        pass(Duration::from_secs(1));
    }
    let tally = load.finish();
    println!("20 × TERM to a worker: {} answered, {} failed", tally.answered, tally.failures());
    tally.assert_clean();
    server.stop();
}

#[test]
#[ignore = "takes a while"]
fn of_64_connections_no_worker_has_fewer_than_8_or_more_than_28() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let mut ranges = [(usize::MAX, 0); 2];
    let mut unfair = Vec::new();
    for _ in 0..100 {
        for (range, counts) in ranges.iter_mut().zip(spread(&server)) {
            let (least, most) = (counts.iter().min(), counts.iter().max());
            let (least, most) = (least.expect("there are four"), most.expect("there are four"));
            *range = (range.0.min(*least), range.1.max(*most));
            if !(FAIR.contains(least) && FAIR.contains(most)) {
                unfair.push(counts);
            }
        }
    }
    let [at_once, one_by_one] = ranges;
    println!(
        "100 × 64 connections over 4 workers, fewest and most of a worker: opened at once \
         {at_once:?}, one after the other {one_by_one:?}"
    );
    assert_eq!(unfair, Vec::<Vec<usize>>::new());
    server.stop();
}
