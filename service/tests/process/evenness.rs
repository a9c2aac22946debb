//! Connections that stay are spread evenly over the workers, however the kernel's dice fall.
//!
//! Of 64 random choices among four workers, one has fewer than 8 or more than 28 once in 55 times. Here
//! none may have.

use std::ops::RangeInclusive;

use crate::client::{Address, Connection, get};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};

/// The share that a worker may have of 64 connections over four workers.
pub(crate) const FAIR: RangeInclusive<usize> = 8..=28;

/// Opens so many connections at once, and asks on each of them.
fn open(address: &Address, count: usize) -> Vec<Connection> {
    let mut connections: Vec<_> = (0..count)
        .map(|_| Connection::open(address).expect("a server that serves accepts connections"))
        .collect();
    for connection in &mut connections {
        connection.send(get("/")).expect("it is open");
    }
    connections
}

/// Returns the number of the connections that each slot answers.
fn counts(connections: &mut [Connection], slots: usize) -> Vec<usize> {
    let mut counts = vec![0; slots];
    for connection in connections {
        counts[usize::from(connection.response().expect("it is answered").slot())] += 1;
    }
    counts
}

/// Opens 64 connections at once, and 64 one after the other; answers how many each slot got of them.
pub(crate) fn spread(server: &Ferricorn) -> [Vec<usize>; 2] {
    let address = server.address();
    let at_once = counts(&mut open(&address, 64), 4);
    all_closed(server);
    let mut one_by_one = Vec::new();
    let mut found = vec![0; 4];
    for _ in 0..64 {
        let mut connection = server.connect();
        found[usize::from(connection.get("/").expect("it is answered").slot())] += 1;
        one_by_one.push(connection);
    }
    drop(one_by_one);
    all_closed(server);
    [at_once, found]
}

/// Waits until no worker has a connection.
fn all_closed(server: &Ferricorn) {
    eventually("every connection is closed", PATIENCE, || {
        let open = |(_, pid): &(u16, i32)| crate::proc::accepted_clients(*pid).len();
        (server.workers().iter().map(open).sum::<usize>() == 0).then_some(())
    });
}

/// So many spreads are fair, every one.
fn assert_fair(server: &Ferricorn, wanted: usize) {
    for _ in 0..wanted {
        let spread = spread(server);
        assert!(spread.iter().flatten().all(|count| FAIR.contains(count)), "{spread:?}");
    }
}

#[test]
fn keep_alive_connections_are_spread_over_the_workers() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    assert_fair(&server, 3);
    // The bells are handed over, and new workers know them.
    let before = server.wait_workers(4);
    server.signal(Signal::SIGUSR2);
    eventually("four other workers", PATIENCE, || {
        let now = server.workers();
        (now.len() == 4 && now.iter().all(|found| !before.contains(found))).then_some(())
    });
    assert_fair(&server, 1);
    server.stop();
}

/// One socket for all: whoever is awake first would have nearly all of them.
#[test]
fn connections_to_a_shared_socket_are_spread_as_evenly() {
    let _alone = crate::machine::alone();
    for _ in 0..3 {
        let server = Ferricorn::unruly().config("bind = \"unix:f.sock\"").start();
        let counts = counts(&mut open(&server.address(), 64), 4);
        assert!(counts.iter().all(|count| FAIR.contains(count)), "{counts:?}");
        server.stop();
    }
}

#[test]
fn workers_of_several_threads_share_as_evenly() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().config("threads = 2").start();
    assert_fair(&server, 3);
    server.stop();
}

/// Beside three workers with sixteen connections each, chance would give a new one three of twelve, and
/// ten or more once in twenty-five thousand times. Where the machine is too busy it may have no turn
/// while it is asked, so it has several tries.
fn assert_filled_first(server: &Ferricorn, slot: u16) {
    let newest = server.worker(slot);
    eventually("the new worker has most of twelve connections", PATIENCE, || {
        let mut fresh: Vec<_> = (0..12).map(|_| server.connect()).collect();
        let mut theirs = 0;
        for connection in &mut fresh {
            theirs += usize::from(connection.get("/").expect("it is answered").slot() == slot);
        }
        drop(fresh);
        eventually("their connections are closed", PATIENCE, || {
            crate::proc::accepted_clients(newest).is_empty().then_some(())
        });
        (theirs >= 10).then_some(())
    });
}

#[test]
fn a_restarted_worker_is_filled_up_first() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let mut old = open(&server.address(), 64);
    counts(&mut old, 4);
    let victim = server.worker(2);
    send(victim, Signal::SIGKILL);
    let successor = eventually("a successor", PATIENCE, || {
        server.workers().into_iter().find(|(slot, pid)| *slot == 2 && *pid != victim)
    });
    eventually("it serves", PATIENCE, || {
        (server.get("/").expect("somebody answers").pid() == successor.1).then_some(())
    });
    assert_filled_first(&server, 2);
    drop(old);
    server.stop();
}

/// The workers that are older than a slot are told its bell.
#[test]
fn a_worker_in_a_new_slot_is_filled_up_first() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().config("workers = 3").start();
    let mut old = open(&server.address(), 48);
    counts(&mut old, 3);
    server.signal(Signal::SIGTTIN);
    server.wait_workers(4);
    eventually("it serves", PATIENCE, || {
        (server.get("/").expect("somebody answers").slot() == 3).then_some(())
    });
    assert_filled_first(&server, 3);
    drop(old);
    server.stop();
}

/// A sibling that cannot help, though it has nothing to do: what is left to it for a moment is
/// answered all the same.
#[test]
fn nobody_is_lost_to_a_stopped_worker_that_has_room() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let mut old = open(&server.address(), 64);
    counts(&mut old, 4);
    // Its connections end, those of the others stay.
    let emptied = server.worker(1);
    let clients = crate::proc::accepted_clients(emptied);
    old.retain(|connection| !clients.contains(&connection.local_v4()));
    eventually("it has nothing to do", PATIENCE, || {
        crate::proc::accepted_clients(emptied).is_empty().then_some(())
    });
    send(emptied, Signal::SIGSTOP);
    let mut fresh = open(&server.address(), 100);
    for connection in &mut fresh {
        assert_ne!(connection.response().expect("it is answered").pid(), emptied);
    }
    send(emptied, Signal::SIGCONT);
    drop((old, fresh));
    server.stop();
}
