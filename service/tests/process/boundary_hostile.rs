//! A worker that is taken over, played by `examples/hostile.rs` against a master of root's that drops
//! to a user: it harms itself alone.

use std::collections::BTreeSet;
use std::fs::read_link;
use std::time::{Duration, Instant};

use crate::boundary::begun_by;
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

/// The server; `None` where the tests are not root's.
fn hostile(config: &str) -> Option<Ferricorn> {
    let config = format!("user = \"65534\"\nworkers = 2\n{config}");
    Some(begun_by(&[], Ferricorn::example("hostile").config(&config))?.start())
}

/// Replaces every worker by a reload, has each of them answer, and stops the server.
fn prove_health(mut server: Ferricorn) {
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    server.get("/").expect("it serves");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0), "{}", server.log());
    eventually("nothing of it is left", PATIENCE, || server.remains().is_empty().then_some(()));
}

/// Its descriptors are filled where they take bytes, its shared memory is overwritten, and each flag
/// that keeps a write from waiting is taken away.
#[test]
fn spoiled_descriptors_and_memory_harm_no_other_process() {
    let Some(server) = hostile("stall_timeout = 2\ngraceful_timeout = 2") else { return };
    // It may be the last that this worker says.
    let _answer = server.get("/flags");
    eventually("another worker answers", PATIENCE, || server.get("/").ok());
    prove_health(server);
}

/// Neither its ring nor what it prints to has a line in the master's name; what it prints otherwise is there.
#[test]
fn worker_cannot_log_as_another_process() {
    let Some(server) = hostile("[log]\nformat = \"json\"") else { return };
    let master = server.get("/names").expect("it answers").text();
    assert_eq!(master, server.pid().to_string());
    eventually("all is written", PATIENCE, || {
        let text = server.log();
        let are_there = text.contains("printed\n") && text.contains("printed, too\n");
        (are_there && text.matches("log_line_forged").count() >= 6).then_some(())
    });
    let text = server.log();
    let of_master = |line: &&str| {
        line.starts_with("[2024")
            || line.contains(&format!("{{\"pid\":{master},\"level\":\"CRITICAL\""))
    };
    let forged: Vec<&str> = text.lines().filter(|line| line.contains("forged by")).collect();
    assert_eq!(
        (forged.len(), forged.iter().filter(|line| of_master(line)).count()),
        (6, 0),
        "{text}"
    );
    for line in forged {
        let line: serde_json::Value = serde_json::from_str(line).expect("it is an object");
        assert_eq!(
            (&line["event"], &line["level"]),
            (&"log_line_forged".into(), &"WARNING".into())
        );
        assert_eq!((&line["named"], &line["pid"]), (&server.pid().into(), &server.logger().into()));
        assert!([0, 1].map(|slot| server.worker(slot).into()).contains(&line["process"]), "{line}");
    }
    prove_health(server);
}

/// The sign of readiness that was passed as standard input is moved: where it is closed, no socket of the
/// server's becomes the standard input of its children.
#[test]
fn descriptor_passed_as_standard_input_leaves_that_empty() {
    let Some(server) = hostile("") else { return };
    for pid in [server.pid(), server.worker(0), server.logger()] {
        let input = read_link(format!("/proc/{pid}/fd/0")).expect("we are root");
        assert_eq!(input.to_str(), Some("/dev/null"));
    }
    prove_health(server);
}

/// Signals reach siblings, which have the same user, and neither the master nor the logger.
#[test]
fn signals_of_a_worker_reach_no_master_and_no_logger() {
    let Some(server) = hostile("") else { return };
    let reached = server.get("/signals").expect("it answers").text();
    let reached: Vec<&str> = reached.split_whitespace().collect();
    for pid in [server.pid(), server.logger()] {
        assert!(!reached.contains(&pid.to_string().as_str()), "{pid} is among {reached:?}");
    }
    prove_health(server);
}

/// It shares its listeners and relays with its siblings and the end of its channel with the master: nothing of the
/// master's own, such as the way of its signals.
#[test]
fn descriptors_shared_with_the_master_are_listeners_relays_and_a_channel() {
    let Some(server) = hostile("") else { return };
    let names = |pid: i32| -> BTreeSet<String> {
        let name = |it: &i32| read_link(format!("/proc/{pid}/fd/{it}")).ok();
        let names = proc::descriptors(pid);
        // What the server was started with is the tests' own.
        let names = names.iter().filter(|number| **number > 2).filter_map(name);
        names.map(|name| name.display().to_string()).collect()
    };
    let shared = &names(server.pid()) & &names(server.worker(0));
    let count = |kind: &str| shared.iter().filter(|name| name.starts_with(kind)).count();
    // Two listeners; one end of each slot's relay, and the other one of its own.
    assert_eq!((count("socket:"), count("pipe:")), (2 + 3, 1), "{shared:?}");
    server.stop();
}

/// Every child has random numbers of its own: `prepare` of two reloads, and the workers.
#[test]
fn children_draw_different_random_numbers() {
    let Some(server) = hostile("") else { return };
    for generation in 2..4 {
        server.signal(Signal::SIGHUP);
        server.wait_reloaded(generation);
    }
    let log = server.log();
    let drawn = |kind: &str| {
        let lines = log.lines().filter(|line| line.contains(kind));
        lines.filter_map(|line| line.split_once(" draws ")).map(|(_, it)| it.to_owned()).collect()
    };
    let (prepares, workers): (Vec<String>, Vec<String>) = (drawn("prepare"), drawn("worker"));
    assert_eq!((prepares.len(), workers.len()), (3, 6), "{log}");
    let different: BTreeSet<String> = [prepares, workers].concat().into_iter().collect();
    assert_eq!(different.len(), 9, "{log}");
    server.stop();
}

/// Has a worker attack the listeners, and then dies by a signal; the master is to put right what it has
/// done.
fn attack(server: &Ferricorn, target: &str, harm: &str) {
    // The listener that the answer comes by is not the one that is spoiled.
    let _answer = server.get(target);
    let before = server.workers();
    send(before[0].1, Signal::SIGKILL);
    server.wait_event("listener_mended", &[("harm", harm.into())]);
    eventually("another worker in its place", PATIENCE, || {
        let now = server.workers();
        now.iter().any(|(slot, pid)| *slot == 0 && *pid != before[0].1).then_some(())
    });
    eventually("it serves at the same address", PATIENCE, || server.get("/").ok());
}

/// The worker that takes what another has put into its relay closes it, and serves.
#[test]
fn anything_in_a_relay_harms_no_worker_that_takes_it() {
    let Some(server) = hostile("stall_timeout = 2") else { return };
    for _ in 0..3 {
        // What it takes itself may have an end that lingers.
        let _answer = server.get("/relay");
        let before = server.workers();
        send(before[0].1, Signal::SIGKILL);
        eventually("another worker in its place", PATIENCE, || {
            let now = server.workers();
            now.iter().any(|(slot, pid)| *slot == 0 && *pid != before[0].1).then_some(())
        });
        for _ in 0..20 {
            server.get("/").expect("it serves");
        }
    }
    let log = server.log();
    assert!(!log.contains("stall"), "{log}");
    prove_health(server);
}

/// A relay that was shut down is no relay: idle connections have their grace.
#[test]
fn relay_that_was_shut_down_is_noticed_and_not_used() {
    let Some(server) = hostile("") else { return };
    let mut kept = server.connect();
    assert_eq!(kept.get("/").expect("it is answered").status, 200);
    server.get("/end-relay").expect("it is answered");
    server.signal(Signal::SIGHUP);
    server.wait_event("relay_ended", &[("slot", 0.into())]);
    server.wait_reloaded(2);
    assert_eq!(kept.rest().expect("it ends in order"), b"");
    for _ in 0..20 {
        server.get("/").expect("it serves");
    }
    server.signal(Signal::SIGTERM);
    server.stop();
}

#[test]
fn spoiled_listeners_of_tcp_are_put_right() {
    let Some(server) = hostile("") else { return };
    attack(&server, "/block", "made it block");
    attack(&server, "/shutdown", "shut it down");
    for _ in 0..20 {
        server.get("/").expect("each of its listeners listens");
    }
    prove_health(server);
}

/// Clients are not refused, and wait in no queue: the listeners are looked at when a worker is asked for its
/// heartbeat.
#[test]
fn narrowed_listeners_are_opened_anew() {
    let Some(server) = hostile("stall_timeout = 2") else { return };
    let before = server.workers();
    let _answer = server.get("/narrow");
    server.wait_event("listener_mended", &[("harm", "set options of it".into())]);
    eventually("every worker has the new listeners", PATIENCE, || {
        let now = server.workers();
        (now.len() == 2 && now.iter().all(|found| !before.contains(found))).then_some(())
    });
    for _ in 0..20 {
        server.get("/").expect("each of its listeners listens");
    }
    prove_health(server);
}

/// One of the unix domain cannot listen again: another takes its place, and with it other workers. Until
/// then it is ready without end, and workers do not spin.
#[test]
fn spoiled_listener_of_the_unix_domain_is_opened_anew() {
    let Some(server) = hostile("bind = \"unix:socket\"") else { return };
    server.get("/shutdown").expect("the connection is open");
    let workers = server.workers();
    let spent = || workers.iter().filter_map(|(_, pid)| proc::processor_nanos(*pid)).sum::<u64>();
    let before = spent();
    let since = Instant::now();
    eventually("a second is over", PATIENCE, || {
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    let spent = Duration::from_nanos(spent() - before);
    assert!(spent < Duration::from_millis(500), "they spin: {spent:?} in a second");
    attack(&server, "/shutdown", "shut it down");
    eventually("every worker has the new listener", PATIENCE, || {
        let now = server.workers();
        (now.len() == 2 && now.iter().all(|found| !workers.contains(found))).then_some(())
    });
    server.get("/").expect("it serves");
    prove_health(server);
}
