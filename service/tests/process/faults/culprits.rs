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
use crate::events::has;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};

const WORKERS: u16 = 16;
const ROUNDS: usize = 5;
const FAULTS: usize = 10;
/// Other requests in the hands of each victim, all older than the one that it is the fault of: more than
/// a line names.
const COMPANY: usize = 10;

/// The cause of a worker's death.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Its application ends it, by this target.
    Request(&'static str),
    Signal(Signal),
    Stall,
}

/// A fault, and the field of the worker's end that names it.
const FAULTS_OF_ALL_KINDS: &[(Fault, (&str, i32))] = &[
    (Fault::Request("/exit?code=7"), ("exit_code", 7)),
    (Fault::Request("/abort?a=1"), ("signal", 6)),
    (Fault::Request("/overflow?a=1"), ("signal", 6)),
    (Fault::Signal(Signal::SIGKILL), ("signal", 9)),
    (Fault::Signal(Signal::SIGSEGV), ("signal", 11)),
    (Fault::Signal(Signal::SIGABRT), ("signal", 6)),
    (Fault::Stall, ("signal", 6)),
];

/// A fault that has befallen somebody: who held which request, and the end that must be told.
struct Culprit {
    /// The numbers of the others that it held.
    company: Vec<usize>,
    slot: u16,
    pid: i32,
    target: String,
    fault: Fault,
    end: (&'static str, i32),
    _clients: Vec<Connection>,
}

/// Fifty times, ten at a time: a worker is killed or stalls by a request of its own while it holds ten
/// that are older, and its siblings hold requests too.
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
    let mut spared = Vec::new();
    for round in 0..ROUNDS {
        settled(&server, WORKERS);
        let mut slots: Vec<u16> = (0..WORKERS).collect();
        slots.shuffle(&mut dice);
        let (victims, others) = slots.split_at(FAULTS);
        let innocents = hold_requests(&server, others, round);
        let mut clients = clients_of(&server, victims);
        let culprits: Vec<Culprit> = victims
            .iter()
            .enumerate()
            .map(|(at, slot)| {
                let clients = clients.remove(slot).expect("each victim has some");
                let fault = *FAULTS_OF_ALL_KINDS.choose(&mut dice).expect("there are some");
                commit(&server, (*slot, clients), fault, round * FAULTS + at)
            })
            .collect();
        for culprit in &culprits {
            assert_named(&server, culprit);
            *named.entry(format!("{:?}", culprit.fault)).or_default() += 1;
        }
        for (number, mut client) in innocents {
            spared.push(number);
            release(&server, number);
            assert_eq!(client.response().expect("its worker lives").status, 200);
        }
    }
    let log = server.log();
    for number in spared {
        assert!(!log.contains(&format!("/until?n={number} (")), "{number} is named: {log}");
    }
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

/// Clients of these workers, each of which has answered them: enough of every one.
fn clients_of(server: &Ferricorn, slots: &[u16]) -> BTreeMap<u16, Vec<(i32, Connection)>> {
    let mut clients: BTreeMap<_, Vec<_>> = slots.iter().map(|slot| (*slot, Vec::new())).collect();
    // Those of the others are kept until all are found: they would only come back.
    let mut others = Vec::new();
    eventually("every victim has enough clients", PATIENCE, || {
        for _ in 0..WORKERS {
            let mut client = server.connect();
            let answer = client.get("/").expect("it serves");
            match clients.get_mut(&answer.slot()) {
                Some(of_slot) if of_slot.len() <= COMPANY => of_slot.push((answer.pid(), client)),
                Some(_) | None => others.push(client),
            }
        }
        clients.values().all(|of_slot| of_slot.len() > COMPANY).then_some(())
    });
    clients
}

fn commit(
    server: &Ferricorn,
    (slot, clients): (u16, Vec<(i32, Connection)>),
    (fault, end): (Fault, (&'static str, i32)),
    number: usize,
) -> Culprit {
    let pid = clients[0].0;
    let mut clients: Vec<Connection> = clients.into_iter().map(|(_, client)| client).collect();
    let mut client = clients.pop().expect("one more than the company");
    let company: Vec<usize> = (0..COMPANY).map(|at| 2_000_000 + number * 100 + at).collect();
    for (client, number) in clients.iter_mut().zip(&company) {
        hold(server, client, &format!("/until?n={number}"), *number);
    }
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
    clients.push(client);
    Culprit { company, slot, pid, target, fault, end, _clients: clients }
}

fn assert_named(server: &Ferricorn, culprit: &Culprit) {
    let Culprit { company, slot, pid, target, fault, end: (field, value), .. } = culprit;
    let count = COMPANY + 1;
    let who = [("slot", (*slot).into()), ("process_pid", (*pid).into())];
    let mut ending = "died";
    if let Fault::Stall = fault {
        ending = "stalled";
        server.wait_event("worker_stalled", &who);
        let held = server.wait_event("requests_held", &who);
        let first = format!("{count} requests: stuck in GET {target} (");
        assert!(has(&held["requests"], &first), "{held}");
    }
    server.wait_worker_exited(*pid, ending, (field, (*value).into()));
    // A worker that was killed from outside has died in no request in particular.
    let first = match fault {
        Fault::Request(_) | Fault::Stall => format!("died in GET {target} ("),
        Fault::Signal(_) => String::new(),
    };
    let lost = server.wait_requests_lost(*pid, count);
    assert!(has(&lost["requests"], &format!("{count} requests: {first}")), "{lost}");
    let others = company.iter().map(|number| format!("/until?n={number}"));
    for target in others.chain([target.clone()]) {
        assert_lost(server, culprit, &target);
    }
}

/// The request has one access line, which says that it was lost with its worker.
fn assert_lost(server: &Ferricorn, Culprit { slot, pid, .. }: &Culprit, target: &str) {
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

/// Returns true if the access line tells of this target.
fn is_for(line: &serde_json::Value, target: &str) -> bool {
    let (path, query) = target.split_once('?').expect("every target here has a query");
    line["path"] == path && line["query"] == query
}
