//! Whose fault it was: for every death and every stall the error log names the reason and the request,
//! and the access log has one line for each request that was held, with what became of it.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::requests::send_until_it_dies;
use super::scene::{connect_to, settled};
use super::{hold, release};
use crate::client::{Connection, get};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};

const WORKERS: u16 = 16;
const ROUNDS: usize = 5;
const FAULTS: usize = 10;

/// What a worker is made to die of.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Its application ends it, by this target.
    Request(&'static str),
    Signal(Signal),
    Stall,
}

/// A fault, and what the error log says of the worker's end.
const FAULTS_OF_ALL_KINDS: &[(Fault, &str)] = &[
    (Fault::Request("/exit?code=7"), "died: exited with code 7"),
    (Fault::Request("/abort?a=1"), "died: ended by signal 6 (ABRT)"),
    (Fault::Request("/overflow?a=1"), "died: ended by signal 6 (ABRT)"),
    (Fault::Signal(Signal::SIGKILL), "died: ended by signal 9 (KILL)"),
    (Fault::Signal(Signal::SIGSEGV), "died: ended by signal 11 (SEGV)"),
    (Fault::Signal(Signal::SIGABRT), "died: ended by signal 6 (ABRT)"),
    (Fault::Stall, "ended after its stall: ended by signal 6 (ABRT)"),
];

/// A fault that has befallen somebody: who held which request, and the end that must be told.
struct Culprit {
    slot: u16,
    pid: i32,
    target: String,
    fault: Fault,
    end: &'static str,
    _client: Connection,
}

/// Fifty times, ten at a time: a worker is killed or stalls while a request of its own is in hand, and
/// so are requests of the others.
#[test]
fn culprits_are_named_fifty_times_of_fifty() {
    let server = Ferricorn::unruly()
        .config(&format!(
            "workers = {WORKERS}\nstall_timeout = 2\n[log]\nlevel = \"debug\"\naccess_format = \"json\""
        ))
        .start();
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        settled(&server, WORKERS);
        let mut slots: Vec<u16> = (0..WORKERS).collect();
        slots.shuffle(&mut dice);
        let (victims, others) = slots.split_at(FAULTS);
        let innocents = hold_requests(&server, others, round);
        let culprits: Vec<Culprit> = victims
            .iter()
            .enumerate()
            .map(|(at, slot)| {
                let (fault, end) = *FAULTS_OF_ALL_KINDS.choose(&mut dice).expect("there are some");
                commit(&server, *slot, fault, end, round * FAULTS + at)
            })
            .collect();
        for culprit in &culprits {
            assert_named(&server, culprit);
            *named.entry(format!("{:?}", culprit.fault)).or_default() += 1;
        }
        for (number, mut client) in innocents {
            release(&server, number);
            assert_eq!(client.response().expect("its worker lives").status, 200);
        }
    }
    let log = server.log();
    assert!(!log.contains("/until?n=1000"), "an innocent request is named: {log}");
    assert_eq!(named.values().sum::<usize>(), ROUNDS * FAULTS);
    println!("{} of {} named: {named:?}", ROUNDS * FAULTS, ROUNDS * FAULTS);
    server.stop();
}

/// Requests that nothing happens to, one for each of these workers.
fn hold_requests(server: &Ferricorn, slots: &[u16], round: usize) -> Vec<(usize, Connection)> {
    let each = slots.iter().enumerate().map(|(at, slot)| {
        let number = 1_000_000 + round * 1000 + at;
        let (mut client, _) = connect_to(server, *slot);
        hold(server, &mut client, &format!("/until?n={number}"), number);
        (number, client)
    });
    each.collect()
}

fn commit(
    server: &Ferricorn,
    slot: u16,
    fault: Fault,
    end: &'static str,
    number: usize,
) -> Culprit {
    let (mut client, pid) = connect_to(server, slot);
    let target = match fault {
        Fault::Request(target) => {
            let target = format!("{target}&n={number}");
            client.send(get(&target)).expect("it is open");
            target
        }
        Fault::Signal(signal) => {
            let target = format!("/until?n={number}");
            hold(server, &mut client, &target, number);
            match signal {
                Signal::SIGSEGV => send_until_it_dies(pid, signal),
                signal => send(pid, signal),
            }
            target
        }
        Fault::Stall => {
            let target = format!("/block?s=60&n={number}");
            hold(server, &mut client, &target, number);
            target
        }
    };
    Culprit { slot, pid, target, fault, end, _client: client }
}

fn assert_named(server: &Ferricorn, culprit: &Culprit) {
    let Culprit { slot, pid, target, fault, end, .. } = culprit;
    let who = format!("worker {slot} (pid {pid})");
    if let Fault::Stall = fault {
        server.wait_log(&format!("{who} silent for "));
        server.wait_log(&format!("{who} holds 1 request: GET {target} ("));
    }
    server.wait_log(&format!("{who} {end}"));
    server.wait_log(&format!("{who} took with it 1 request: GET {target} ("));
    eventually("its access line", PATIENCE, || {
        let log = server.log();
        let lines: Vec<serde_json::Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &serde_json::Value| is_for(line, target))
            .collect();
        assert!(lines.len() <= 1, "more than one access line: {lines:?}");
        let line = lines.first()?;
        assert_eq!(line["outcome"], "lost", "{line}");
        assert!(line["status"].is_null(), "{line}");
        assert_eq!((&line["pid"], &line["slot"]), (&(*pid).into(), &(*slot).into()), "{line}");
        Some(())
    });
}

/// Whether the access line tells of this target.
fn is_for(line: &serde_json::Value, target: &str) -> bool {
    let (path, query) = target.split_once('?').expect("every target here has a query");
    line["path"] == path && line["query"] == query
}
