//! Workers that are replaced although nothing is wrong with them: nobody notices.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::faults::connect_to;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};
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
    server.wait_event("worker_due", &[("reason", "max_requests".into())]);
    let ends = server.noted("worker_exited");
    assert!(ends.iter().all(|end| end["ending"] == "stopped"), "{ends:?}");
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
    let due = server.noted("worker_due");
    let due: Vec<_> = due.iter().map(|event| (&event["process_pid"], &event["reason"])).collect();
    let alone = [(&grown.1.into(), &"max_memory".into())];
    assert_eq!(due, alone, "the others are not touched (the grown one had {resident:?} KiB)");
    server.stop();
}

#[test]
fn old_workers_are_replaced_one_after_another_and_no_request_fails() {
    let server = Ferricorn::unruly().config("workers = 3\nmax_lifetime = 1").start();
    let load = Load::begin(&server.address(), &everybody());
    wait_generations(&server, 3, 3);
    load.finish().assert_clean();
    assert_one_at_a_time(&server.log(), "it has reached max_lifetime");
    server.stop();
}

/// Too old, too large, has served enough, told to leave: all at once, and yet one after another.
#[test]
fn whatever_the_causes_one_slot_is_replaced_at_a_time() {
    let server = Ferricorn::unruly()
        .config("workers = 4\nmax_lifetime = 4\nmax_requests = 400\nmax_memory = \"96MiB\"")
        .start();
    // So few requests that nobody has served enough before it is too old.
    let pause = Duration::from_millis(50);
    let kept = |watches| Crowd::get(2, Client::KeepAlive { pause, watches });
    let load = Load::begin(&server.address(), &[kept(true), kept(false)]);
    let causes = ["max_lifetime", "max_requests", "max_memory", "told to leave"];
    eventually("somebody is replaced for each cause", PATIENCE, || {
        let (mut greedy, _) = connect_to(&server, 1);
        greedy.get("/leak?mb=120").expect("it is answered");
        let (mut busy, _) = connect_to(&server, 2);
        for _ in 0..400 {
            if busy.get("/").expect("it is answered").closes() {
                break;
            }
        }
        // It may have left in between.
        let old = nix::unistd::Pid::from_raw(server.worker(3));
        let _gone = nix::sys::signal::kill(old, Signal::SIGTERM);
        causes.iter().all(|cause| server.log().contains(cause)).then_some(())
    });
    wait_generations(&server, 4, 2);
    load.finish().assert_clean();
    let log = server.log();
    assert!(!log.contains("died"), "{log}");
    assert_one_at_a_time(&log, "replacing worker");
    server.stop();
}

/// From the line with this text on, each worker is ready before the next is forked.
fn assert_one_at_a_time(log: &str, first: &str) {
    let mut booting = 0;
    for line in log.lines().skip_while(|line| !line.contains(first)) {
        booting += i32::from(line.contains("Booting worker"));
        booting -= i32::from(line.contains(" ready in "));
        assert!((0..=1).contains(&booting), "two at once: {line}\n{log}");
    }
}
