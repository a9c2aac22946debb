//! Workers that are replaced although nothing is wrong with them: nobody notices.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{Ferricorn, PATIENCE, eventually};
use crate::load::{Client, Crowd, Load};
use crate::proc;

/// Clients of every kind.
fn everybody() -> [Crowd; 3] {
    let pause = Duration::from_millis(5);
    [
        Crowd::get(8, Client::KeepAlive { pause, watches: false }),
        Crowd::get(8, Client::KeepAlive { pause, watches: true }),
        Crowd::get(2, Client::PerRequest),
    ]
}

/// Waits until every slot has had so many workers, and answers all of them.
fn wait_generations(server: &Ferricorn, slots: u16, count: usize) -> BTreeSet<(u16, i32)> {
    let mut seen = BTreeSet::new();
    eventually("every slot has had enough workers", PATIENCE, || {
        seen.extend(server.workers());
        let of = |slot| seen.iter().filter(|(it, _)| *it == slot).count();
        (0..slots).all(|slot| of(slot) >= count).then_some(())
    });
    seen
}

#[test]
fn after_enough_requests_each_worker_is_replaced_and_no_request_fails() {
    let server = Ferricorn::unruly()
        .config("workers = 3\nmax_requests = 400\nmax_requests_jitter = 200")
        .start();
    let load = Load::begin(&server.address(), &everybody());
    wait_generations(&server, 3, 4);
    load.finish().assert_clean();
    let log = server.log();
    assert!(log.contains("): it has served max_requests"), "{log}");
    assert!(!log.contains("died"), "{log}");
    server.stop();
}

#[test]
fn a_worker_that_has_grown_too_large_is_replaced_and_no_request_fails() {
    let server = Ferricorn::unruly().config("workers = 3\nmax_memory = \"96MiB\"").start();
    let load = Load::begin(&server.address(), &everybody());
    let leaked = server.get("/leak?mb=120").expect("it is answered");
    let grown = (leaked.slot(), leaked.pid());
    let resident = proc::status(grown.1, "VmRSS");
    eventually("the grown worker has left", PATIENCE, || (!proc::is_alive(grown.1)).then_some(()));
    server.wait_served_by(&server.wait_workers(3));
    load.finish().assert_clean();
    server.wait_log(&format!("replacing worker {} (pid {}): its 1", grown.0, grown.1));
    server.wait_log("MiB are above max_memory");
    let others = server.log().matches("above max_memory").count();
    assert_eq!(others, 1, "the others are not touched (the grown one had {resident:?} KiB)");
    server.stop();
}

#[test]
fn old_workers_are_replaced_one_after_another_and_no_request_fails() {
    let server = Ferricorn::unruly().config("workers = 3\nmax_lifetime = 1").start();
    let load = Load::begin(&server.address(), &everybody());
    wait_generations(&server, 3, 3);
    load.finish().assert_clean();
    // Each is ready before the next is forked.
    let log = server.log();
    let mut booting = 0;
    let lines = log.lines().skip_while(|line| !line.contains("it has reached max_lifetime"));
    for line in lines {
        booting += i32::from(line.contains("Booting worker"));
        booting -= i32::from(line.contains(" ready in "));
        assert!((0..=1).contains(&booting), "two at once: {line}\n{log}");
    }
    server.stop();
}
