//! The figures that are promised of listeners, where nothing but counts decides: each with its own
//! parameters, and as often or as long as the environment says. Their full forms:
//!
//! `FIGURE_SECONDS=15 FIGURE_ROUNDS=20 FIGURE_SPREADS=100 cargo test --release --test process table::
//! -- --nocapture --test-threads 1`
//!
//! Where time decides, the tests in `storms` print what they see, and hold it to what is promised.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::drains::pass;
use crate::evenness::{FAIR, spread};
use crate::harness::{Ferricorn, Signal, send};
use crate::load::{Client, Crowd, Load};
use crate::log_figures::figure;
use crate::storms::{self, Kill};

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
fn a_kill_every_250_ms_loses_only_what_the_killed_had_accepted() {
    let time = Duration::from_secs(figure("FIGURE_SECONDS", 1));
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &[Crowd::get(16, Client::PerRequest)]);
    let mut kills = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
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
fn fewer_and_more_workers_fail_no_request() {
    let rounds = figure("FIGURE_ROUNDS", 2);
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &everybody());
    for _ in 0..rounds {
        server.signal(Signal::SIGTTOU);
        server.wait_workers(3);
        pass(Duration::from_millis(250));
        server.signal(Signal::SIGTTIN);
        server.wait_workers(4);
        pass(Duration::from_millis(250));
    }
    let tally = load.finish();
    println!("{rounds} × (TTOU, TTIN): {} answered, {} failed", tally.answered, tally.failures());
    tally.assert_clean();
    server.stop();
}

#[test]
fn a_worker_told_to_leave_each_second_fails_no_request() {
    let rounds = u16::try_from(figure("FIGURE_ROUNDS", 2)).expect("few");
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &everybody());
    for round in 0..rounds {
        send(server.worker(round % 4), Signal::SIGTERM);
        pass(Duration::from_secs(1));
    }
    let tally = load.finish();
    println!(
        "{rounds} × TERM to a worker: {} answered, {} failed",
        tally.answered,
        tally.failures()
    );
    tally.assert_clean();
    server.stop();
}

#[test]
fn of_64_connections_no_worker_has_fewer_than_8_or_more_than_28() {
    let spreads = figure("FIGURE_SPREADS", 2);
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let mut ranges = [(usize::MAX, 0); 2];
    let mut unfair = Vec::new();
    for _ in 0..spreads {
        for (range, counts) in ranges.iter_mut().zip(spread(&server)) {
            let least = counts.iter().min();
            let most = counts.iter().max();
            let least = least.expect("there are four");
            let most = most.expect("there are four");
            *range = (range.0.min(*least), range.1.max(*most));
            if !(FAIR.contains(least) && FAIR.contains(most)) {
                unfair.push(counts);
            }
        }
    }
    let [at_once, one_by_one] = ranges;
    println!(
        "{spreads} × 64 connections over 4 workers, fewest and most of a worker: opened at once \
         {at_once:?}, one after the other {one_by_one:?}"
    );
    assert_eq!(unfair, Vec::<Vec<usize>>::new());
    server.stop();
}
