//! The consequences of each kind of death.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::client::{Connection, Outcome, get};
use crate::events::has;
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Failure, Load};
use crate::proc;

#[test]
fn a_killed_worker_is_replaced_and_the_service_goes_on() {
    let server = Ferricorn::unruly().start();
    let old = server.worker(2);
    send(old, Signal::SIGKILL);
    let new = eventually("another worker in the slot", PATIENCE, || {
        server.workers().into_iter().find(|(slot, pid)| *slot == 2 && *pid != old)
    });
    server.wait_served_by(&server.wait_workers(4));
    assert_ne!(new.1, old);
    server.wait_event("worker_exited", &[("process_pid", old.into()), ("signal", 9.into())]);
    server.stop();
}

/// Signals that a worker catches or ignores, that end no process, or that only stop one (signal(7)).
const NOT_FATAL: [i32; 17] = [1, 2, 3, 10, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25, 28];
/// The C library's own, which it may block in any process.
const RESERVED: i32 = 32;

/// Each worker is sent another signal, the real-time ones among them.
#[test]
fn a_death_by_any_signal_is_named_and_healed() {
    let server = Ferricorn::hello().config("workers = 64\nstall_timeout = 0").start();
    let workers = server.wait_workers(64);
    let fatal = workers.iter().map(|(slot, pid)| (*slot, *pid, i32::from(*slot) + 1));
    let is_fatal = |signal: &i32| !NOT_FATAL.contains(signal) && *signal != RESERVED;
    let fatal: Vec<_> = fatal.filter(|(_, _, signal)| is_fatal(signal)).collect();
    assert_eq!(fatal.len(), 46);
    for (_, pid, signal) in &fatal {
        // nix has no real-time signals. Rust's handlers of the first SEGV and BUS return.
        let script = format!("while kill -{signal} {pid}; do :; done 2>/dev/null");
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }
    for (_, pid, signal) in fatal {
        server.wait_worker_exited(pid, "died", ("signal", signal.into()));
    }
    let now = server.wait_workers(64);
    for signal in NOT_FATAL {
        let spared = workers[usize::try_from(signal - 1).unwrap()];
        assert!(now.contains(&spared), "{spared:?}");
    }
    server.stop();
}

/// The same for the logger: the lines of its life and of the next one's are written.
#[test]
fn a_logger_that_dies_of_a_real_time_signal_is_replaced() {
    let mut server = Ferricorn::hello().config("workers = 1").start();
    let old = server.logger();
    let script = format!("kill -40 {old}");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    eventually("another logger", PATIENCE, || (server.logger() != old).then_some(()));
    server.wait_event("logger_exited", &[("process_pid", old.into()), ("signal", 40.into())]);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit_within(Duration::from_secs(5)), Exit::Code(0));
}

/// Nothing will write the last lines: they go to stderr, and the stop does not take all of its time.
#[test]
fn stop_does_not_wait_for_loggers_that_keep_failing() {
    let mut server = Ferricorn::hello().config("workers = 1\ngraceful_timeout = 600").start();
    let master = server.pid();
    let kill = || {
        let children = proc::children(master).into_iter();
        let loggers = children.filter(|child| child.name == "ferricorn-log" && child.state != 'Z');
        loggers.map(|logger| send(logger.pid, Signal::SIGKILL)).count()
    };
    let mut killed = 0;
    eventually("six loggers are killed", PATIENCE, || {
        killed += kill();
        (killed >= 6).then_some(())
    });
    server.signal(Signal::SIGTERM);
    eventually("the server has stopped", PATIENCE, || {
        kill();
        (!server.is_running()).then_some(())
    });
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// A connection per request, a random worker killed again and again: only what the killed process had
/// accepted may fail, and nobody is refused or reset in a queue.
#[test]
fn kills_in_a_row_lose_only_what_the_killed_had_accepted() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &[Crowd::get(8, Client::PerRequest)]);
    let kills = 40;
    for round in 0..kills {
        load.wait_for_more(100);
        let slot = round * 7 % 4;
        let pid = server.worker(slot);
        send(pid, Signal::SIGKILL);
        eventually("it is gone", PATIENCE, || (!proc::is_alive(pid)).then_some(()));
    }
    let tally = load.finish();
    let innocent = [Outcome::Refused, Outcome::NotConnected, Outcome::TimedOut];
    let lost = tally.failed.keys().filter(|failure| match failure {
        Failure::Outcome(outcome) => innocent.contains(outcome),
        Failure::Status(_) => true,
    });
    assert_eq!(lost.count(), 0, "{:?}", tally.failed);
    // Eight clients have eight requests at the most, so a kill cannot take more.
    assert!(tally.failures() <= u64::from(kills) * 8, "{:?}", tally.failed);
    server.stop();
}

#[test]
fn what_a_dead_worker_held_is_told_and_logged() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let pid = server.worker(0);
    let mut held = server.connect();
    held.send(get("/never?x=1")).unwrap();
    let exit = server.get("/exit?code=7");
    assert!(exit.is_err());
    server.wait_worker_exited(pid, "died", ("exit_code", 7.into()));
    let lost = server.wait_requests_lost(pid, 2);
    assert!(has(&lost["requests"], "died in GET /exit?code=7 ("), "{lost}");
    assert!(has(&lost["requests"], ", GET /never?x=1 ("), "{lost}");
    assert_eq!(lost["state"], "connections open: 2; it was serving, generation 1");
    server.wait_log("\"GET /never?x=1 HTTP/1.1\" - - ");
    server.wait_log("\"GET /exit?code=7 HTTP/1.1\" - - ");
    server.stop();
}

/// The image that has forked a worker is not the one that buries it: what it held is told all the same.
#[test]
fn what_a_worker_of_the_image_before_held_is_told_too() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let old = server.worker(0);
    let mut held = server.connect();
    held.send(get("/until?n=1")).unwrap();
    let begun = server.folder().join("begun-1");
    eventually("its handler runs", PATIENCE, || begun.exists().then_some(()));
    server.signal(Signal::SIGUSR2);
    server.wait_reloaded(2);
    assert!(proc::is_alive(old), "it holds a request");
    send(old, Signal::SIGKILL);
    server.wait_worker_exited(old, "died_draining", ("signal", 9.into()));
    let lost = server.wait_requests_lost(old, 1);
    assert!(has(&lost["requests"], "GET /until?n=1 ("), "{lost}");
    // It may not have received the order to drain by then.
    assert!(has(&lost["state"], "connections open: 1; it was "), "{lost}");
    assert!(has(&lost["state"], ", generation 1"), "{lost}");
    server.wait_log("\"GET /until?n=1 HTTP/1.1\" - - ");
    held.response().expect_err("its worker is gone");
    server.stop();
}

/// Counters of a slot go on over its replacements: what a worker has served does not go with it.
#[test]
fn what_a_killed_worker_had_served_still_counts() {
    let server = Ferricorn::unruly()
        .config("workers = 1")
        .env("UNRULY_PREPARE_FILE", "prepare")
        .file("prepare", "")
        .start();
    fs::write(server.folder().join("prepare"), "held").unwrap();
    // The time of a reload is the time in which they are counted.
    server.signal(Signal::SIGHUP);
    server.wait_event("reload_started", &[("generation", 2.into())]);
    let ask = |times: u32, pid: i32| {
        for _ in 0..times {
            assert_eq!(server.get("/").expect("it serves").pid(), pid);
        }
    };
    let first = server.worker(0);
    ask(4, first);
    send(first, Signal::SIGKILL);
    let second = eventually("another worker", PATIENCE, || {
        let workers = server.workers();
        workers.iter().map(|(_, pid)| *pid).find(|pid| *pid != first)
    });
    ask(3, second);
    fs::write(server.folder().join("prepare"), "").unwrap();
    server.wait_event("reload_succeeded", &[("replaced", 1.into()), ("requests", 7.into())]);
    server.stop();
}

/// A reader of the logs goes away for good: nothing ends by that, and nothing waits for it.
#[test]
fn without_a_reader_of_its_logs_the_server_serves_on() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut server = Ferricorn::unruly().config("workers = 2").stdout(writer).start();
    let workers = server.wait_workers(2);
    drop(reader);
    for _ in 0..200 {
        assert_eq!(server.get("/").expect("it serves").status, 200);
    }
    assert_eq!(server.workers(), workers);
    let victim = workers[1].1;
    send(victim, Signal::SIGKILL);
    eventually("it is replaced", PATIENCE, || {
        let now = server.workers();
        (now.len() == 2 && now[0] == workers[0] && now[1].1 != victim).then_some(())
    });
    for _ in 0..200 {
        // Whoever came while it died may have been in its hands.
        let _status = server.get("/").map(|answer| answer.status);
    }
    server.signal(Signal::SIGHUP);
    eventually("it reloads", PATIENCE, || {
        let now = server.workers();
        (now.len() == 2 && !now.iter().any(|found| workers.contains(found))).then_some(())
    });
    assert!(proc::is_alive(server.pid()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn a_blocked_loop_is_served_by_siblings_reported_aborted_and_replaced() {
    let server = Ferricorn::unruly().config("workers = 2\nstall_timeout = 1\n").start();
    let mut blocking = server.connect();
    blocking.send(get("/block?s=60")).unwrap();
    let client = blocking.local_v4();
    // A connection that it accepts in the same turn of its loop would go down with it.
    eventually("the request is read", PATIENCE, || proc::is_read(client).then_some(()));
    // Meanwhile everybody else is answered, wherever the kernel has queued them.
    for _ in 0..40 {
        assert_eq!(server.get("/").expect("a sibling answers").status, 200);
    }
    let held = server.wait_event("requests_held", &[("count", 1.into())]);
    assert!(has(&held["requests"], "stuck in GET /block?s=60"), "{held}");
    server.wait_event("worker_exited", &[("ending", "stalled".into()), ("signal", 6.into())]);
    server.wait_served_by(&server.wait_workers(2));
    server.stop();
}

#[test]
fn a_stopped_worker_keeps_nobody_waiting() {
    let server = Ferricorn::unruly().start();
    let stopped = server.worker(1);
    send(stopped, Signal::SIGSTOP);
    for _ in 0..100 {
        let answer = server.get("/").expect("a sibling answers");
        assert_ne!(answer.pid(), stopped);
    }
    send(stopped, Signal::SIGCONT);
    server.wait_served_by(&server.wait_workers(4));
    server.stop();
}

#[test]
fn a_panic_is_a_500_and_the_worker_lives() {
    let server = Ferricorn::unruly().start();
    let before = server.wait_workers(4);
    let answer = server.get("/panic").expect("it is answered");
    assert_eq!((answer.status, answer.closes()), (500, true));
    server.wait_log("the handler panics, as it was told to");
    assert_eq!(server.workers(), before);
    server.stop();
}

#[test]
fn a_request_that_takes_too_long_is_a_504_and_the_worker_lives() {
    let server = Ferricorn::unruly().config("timeout = 1").start();
    let before = server.wait_workers(4);
    let answer = server.get("/never").expect("it is answered");
    assert_eq!((answer.status, answer.closes()), (504, true));
    server.wait_log("answered 504 to GET /never: no answer after 1.");
    assert_eq!(server.get("/sleep-extend?ms=1500").unwrap().status, 200);
    assert_eq!(server.workers(), before);
    server.stop();
}

#[test]
fn deaths_of_every_kind_are_named_and_healed() {
    let server = Ferricorn::unruly().start();
    for (count, target, field, value) in [
        (1, "/exit?code=3", "exit_code", 3),
        (2, "/abort", "signal", 6),
        (3, "/overflow", "signal", 6),
    ] {
        server.get(target).expect_err("its worker dies");
        let ends = eventually("the death is noted", PATIENCE, || {
            Some(server.noted("worker_exited")).filter(|ends| ends.len() == count)
        });
        let end = ends.last().expect("one at least");
        assert_eq!((&end["ending"], &end[field]), (&"died".into(), &value.into()), "{end}");
        server.wait_workers(4);
    }
    server.wait_served_by(&server.wait_workers(4));
    server.stop();
}

#[test]
fn workers_that_leave_nobody_alone_are_killed_at_their_deadline() {
    let mut server = Ferricorn::unruly()
        .config("workers = 2\ngraceful_timeout = 1\n")
        .env("UNRULY_STOP", "hang")
        .start();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(server.log().contains("was killed while draining"), "{}", server.log());
}

#[test]
fn clients_that_never_read_or_finish_do_not_hold_the_exit() {
    let mut server = Ferricorn::unruly().config("graceful_timeout = 1").start();
    let mut never_reads = server.connect();
    never_reads.send(get("/big?mb=64")).unwrap();
    let mut half_sent = server.connect();
    half_sent.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").unwrap();
    let mut half_head = server.connect();
    half_head.send("GET / HTTP/1.1\r\nhos").unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit_within(Duration::from_secs(20)), Exit::Code(0));
}

/// The master is killed: its workers hear it from the end of their channels, finish what they hold,
/// and go, long before the alarm that ends those who cannot hear.
#[test]
fn without_its_master_a_worker_finishes_and_goes() {
    let mut server = Ferricorn::unruly().start();
    let address = server.address();
    let mut slow = server.connect();
    slow.send(get("/slow?ms=400")).unwrap();
    let client = slow.local_v4();
    eventually("the slow request is in hand", PATIENCE, || {
        server.workers().into_iter().find(|(_, pid)| proc::accepted_clients(*pid).contains(&client))
    });
    send(server.pid(), Signal::SIGKILL);
    assert_eq!(server.wait_exit(), Exit::Signal(9));
    assert_eq!(slow.response().expect("its worker finishes").status, 200);
    drop(slow);
    // Before the logger, which writes their last lines.
    let is_worker = |stat: &proc::Stat| stat.name.starts_with("ferricorn-w");
    eventually("no worker is left", Duration::from_millis(1300), || {
        (!server.remains().iter().any(is_worker)).then_some(())
    });
    eventually("nobody is left", PATIENCE, || server.remains().is_empty().then_some(()));
    assert_eq!(Connection::open(&address).expect_err("nobody listens"), Outcome::Refused);
}

/// A worker whose loop is blocked hears nothing: the kernel's signal has set its alarm.
#[test]
fn without_its_master_no_blocked_worker_stays_and_the_port_is_free() {
    let mut server = Ferricorn::unruly().start();
    let address = server.address();
    let mut blocked = server.connect();
    blocked.send(get("/block?s=60")).unwrap();
    let client = blocked.local_v4();
    eventually("the request is in hand", PATIENCE, || {
        server.workers().into_iter().find(|(_, pid)| proc::accepted_clients(*pid).contains(&client))
    });
    send(server.pid(), Signal::SIGKILL);
    assert_eq!(server.wait_exit(), Exit::Signal(9));
    eventually("no worker is left", Duration::from_secs(5), || {
        server.remains().is_empty().then_some(())
    });
    assert_eq!(Connection::open(&address).expect_err("nobody listens"), Outcome::Refused);
}

#[test]
fn strangers_are_reaped_in_silence() {
    let server = Ferricorn::unruly().env("UNRULY_START", "subreaper").start();
    let before = server.wait_workers(4);
    for code in [0, 3, 4] {
        assert_eq!(server.get(&format!("/orphan?code={code}")).unwrap().status, 200);
    }
    eventually("no zombie is left", PATIENCE, || {
        proc::children(server.pid()).iter().all(|child| child.state != 'Z').then_some(())
    });
    assert_eq!(server.workers(), before);
    assert!(!server.log().contains("died"), "{}", server.log());
    server.stop();
}

/// Where memory is short the kernel ends the process that counts most: a worker, which is replaced.
#[test]
fn the_kernel_takes_a_worker_before_the_master() {
    let server = Ferricorn::hello().start();
    let bias = |pid: i32| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let expected = (bias(server.pid()) + 20).min(1000);
    let workers: Vec<i32> = server.workers().iter().map(|(_, pid)| bias(*pid)).collect();
    assert_eq!(workers, [expected; 4]);
    server.stop();
}

#[test]
fn a_crash_loop_is_braked_and_siblings_are_not_touched() {
    let server = Ferricorn::unruly()
        .config("workers = 2")
        .env("UNRULY_BOOT_FILE", "boot")
        .file("boot", "")
        .start();
    let [(_, sibling), (_, victim)] = server.wait_workers(2)[..] else { panic!("two workers") };
    fs::write(server.folder().join("boot"), "exit").unwrap();
    send(victim, Signal::SIGKILL);
    let fields = [("slot", 1.into()), ("ending", "boot_failed".into()), ("exit_code", 9.into())];
    server.wait_event("worker_exited", &fields);
    for _ in 0..20 {
        assert_eq!(server.get("/").expect("the sibling serves both slots").pid(), sibling);
    }
    fs::write(server.folder().join("boot"), "").unwrap();
    // Until one answers, those that are there may be doomed.
    crate::faults::connect_to(&server, 1);
    server.wait_served_by(&server.wait_workers(2));
    server.stop();
}
