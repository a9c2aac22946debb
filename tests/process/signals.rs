//! What the master makes of each signal.

use std::time::{Duration, Instant};

use crate::client::{Connection, get};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::proc;

const KEEP_ALIVE: Client = Client::KeepAlive { pause: Duration::from_millis(5), watches: false };

fn busy() -> [Crowd; 2] {
    [Crowd::get(16, KEEP_ALIVE), Crowd::get(4, Client::PerRequest)]
}

#[test]
fn term_under_load_answers_everything_that_was_accepted() {
    let mut server = Ferricorn::unruly().start();
    let slow = std::thread::spawn({
        let address = server.address();
        move || Connection::open(&address)?.get("/slow?ms=700")
    });
    let load = Load::begin(&server.address(), &busy());
    load.wait_for_more(200);
    let told = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    let tally = load.finish();
    assert_eq!(slow.join().unwrap().expect("it was accepted before the stop").status, 200);
    // Clients go on after the end: then nobody is there, and that is all that may have happened.
    let cut = tally.cut_off(told);
    assert!(cut.is_empty(), "{cut:?}");
}

#[test]
fn a_second_term_is_harmless_and_int_quickens_the_stop() {
    let mut server = Ferricorn::unruly().start();
    let mut never = server.connect();
    never.send(get("/never")).unwrap();
    let client = never.local_v4();
    let holder = eventually("a worker holds the request", PATIENCE, || {
        server.workers().into_iter().find(|(_, pid)| proc::accepted_clients(*pid).contains(&client))
    });
    server.signal(Signal::SIGTERM);
    eventually("only the holder is left", PATIENCE, || {
        (server.workers() == [holder]).then_some(())
    });
    server.signal(Signal::SIGTERM);
    // An order that comes after the second TERM is obeyed after it: the master has taken both.
    server.signal(Signal::SIGWINCH);
    server.wait_log("ignoring WINCH");
    assert!(server.is_running());
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn int_and_quit_stop_at_once() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = Ferricorn::unruly().start();
        let mut never = server.connect();
        never.send(get("/never")).unwrap();
        server.signal(signal);
        assert_eq!(server.wait_exit(), Exit::Code(0));
        assert!(never.response().is_err());
    }
}

#[test]
fn hup_replaces_every_worker_and_fails_no_request() {
    let server = Ferricorn::unruly().start();
    let before = server.wait_workers(4);
    let load = Load::begin(&server.address(), &busy());
    load.wait_for_more(100);
    server.signal(Signal::SIGHUP);
    let after = eventually("four other workers", PATIENCE, || {
        let now = server.workers();
        let fresh = now.iter().all(|it| !before.contains(it));
        (now.len() == 4 && fresh).then_some(now)
    });
    load.wait_for_more(100);
    load.finish().assert_clean();
    server.wait_served_by(&after);
    server.stop();
}

/// The end of a reload is one line, and all of it is true.
#[test]
fn the_end_of_a_reload_is_told_in_one_line() {
    let server = Ferricorn::unruly()
        .config("workers = 2")
        .env("UNRULY_PREPARE_FILE", "prepare")
        .file("prepare", "")
        .start();
    let signals = [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGHUP];
    for (generation, signal) in (2..).zip(signals) {
        std::fs::write(server.folder().join("prepare"), "held").unwrap();
        server.signal(signal);
        server.wait_log(&format!("reloading: generation {generation}"));
        for _ in 0..7 {
            assert_eq!(server.get("/").unwrap().status, 200);
        }
        std::fs::write(server.folder().join("prepare"), "").unwrap();
        server.wait_log(&format!("reloaded: generation {generation} in "));
        let log = server.log();
        let mut told = log.lines().filter_map(|line| line.split_once("reloaded: generation "));
        let line = told.nth(generation - 2).expect("it is told").1;
        let (took, rest) = line.split_once(" ms, ").expect("how long it took");
        let (of, millis) = took.split_once(" in ").expect("of which generation");
        assert_eq!(of, generation.to_string());
        assert!(millis.parse::<u64>().expect("a number") >= 100, "no trial is shorter");
        assert_eq!(rest, "workers replaced: 2, requests served meanwhile: 7");
        assert_eq!(told.count(), 0);
    }
    server.stop();
}

#[test]
fn hup_takes_the_number_of_workers_from_the_file_and_defaults_come_back() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    server.wait_workers(2);
    server.rewrite_config("workers = 3");
    server.signal(Signal::SIGHUP);
    server.wait_workers(3);
    server.rewrite_config("");
    server.signal(Signal::SIGHUP);
    server.wait_workers(4);
    server.stop();
}

#[test]
fn hup_with_a_wrong_file_changes_nothing_and_says_what_is_wrong() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let before = server.wait_workers(2);
    server.rewrite_config("wokers = 3\ntimeout = \"soon\"");
    server.signal(Signal::SIGHUP);
    server.wait_log("config.toml:2: unknown key \"wokers\": did you mean \"workers\"?");
    server.wait_log("config.toml:3: timeout: ");
    assert_eq!(server.workers(), before);
    server.wait_served_by(&before);
    server.stop();
}

/// Neither a reload nor an upgrade nor a worker more is begun by a server that stops.
#[test]
fn nothing_is_begun_while_the_server_stops() {
    let mut server = Ferricorn::unruly().config("workers = 1").start();
    let mut held = server.connect();
    held.send(get("/never")).unwrap();
    let worker = server.worker(0);
    assert_eq!(server.get("/").unwrap().pid(), worker, "it has taken the first, too");
    server.signal(Signal::SIGTERM);
    server.wait_log("stopping: workers may finish for 30 s");
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGTTIN, "TTIN"),
        (Signal::SIGTTOU, "TTOU"),
    ] {
        server.signal(signal);
        server.wait_log(&format!("ignoring {name}: the server is stopping"));
        assert_eq!(server.workers(), [(0, worker)]);
    }
    server.signal(Signal::SIGQUIT);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    let log = server.log();
    assert!(!log.contains("reloading") && !log.contains("workers: 1 ->"), "{log}");
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers_and_one_stays() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let load = Load::begin(&server.address(), &busy());
    for count in [3, 4] {
        server.signal(Signal::SIGTTIN);
        server.wait_workers(count);
    }
    for count in [3, 2, 1] {
        server.signal(Signal::SIGTTOU);
        server.wait_workers(count);
    }
    server.signal(Signal::SIGTTOU);
    server.wait_log("workers: 1 is as far as it goes");
    server.wait_workers(1);
    load.finish().assert_clean();
    server.stop();
}

#[test]
fn usr1_reopens_the_logs() {
    let server = Ferricorn::unruly().flag("--access-logfile=access.log").start();
    let path = server.folder().join("access.log");
    let lines = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    };
    server.get("/before").unwrap();
    eventually("a line", PATIENCE, || (lines(&path) == 1).then_some(()));
    let moved = server.folder().join("access.log.1");
    std::fs::rename(&path, &moved).unwrap();
    server.signal(Signal::SIGUSR1);
    eventually("the file is there again", PATIENCE, || path.exists().then_some(()));
    // Every worker reopens in its own time: a line of each must come in the new file.
    let mut seen = std::collections::BTreeSet::new();
    eventually("all workers write to the new file", PATIENCE, || {
        let before = lines(&path);
        let slot = server.get("/after").unwrap().slot();
        eventually("a line", PATIENCE, || {
            (lines(&path) + lines(&moved) > before + lines(&moved) - 1).then_some(())
        });
        if lines(&path) > before {
            seen.insert(slot);
        }
        (seen.len() == 4).then_some(())
    });
    server.stop();
}

#[test]
fn winch_is_ignored_with_a_line() {
    let server = Ferricorn::unruly().start();
    server.signal(Signal::SIGWINCH);
    server.wait_log("ignoring WINCH");
    server.get("/").unwrap();
    server.stop();
}

#[test]
fn a_worker_told_to_leave_by_hand_is_replaced_and_nothing_is_lost() {
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &busy());
    for round in 0..8 {
        let slot = round % 4;
        let old = server.worker(slot);
        send(old, Signal::SIGTERM);
        eventually("the worker is replaced", PATIENCE, || {
            let there = server.workers();
            let replaced = !there.contains(&(slot, old));
            (replaced && there.iter().any(|(it, _)| *it == slot)).then_some(())
        });
    }
    load.finish().assert_clean();
    server.stop();
}

#[test]
fn usr2_keeps_the_pid_replaces_the_workers_and_fails_no_request() {
    let server = Ferricorn::unruly().flag("--pid=f.pid").start();
    let load = Load::begin(&server.address(), &busy());
    for _ in 0..3 {
        let before = server.wait_workers(4);
        load.wait_for_more(50);
        server.signal(Signal::SIGUSR2);
        eventually("four other workers", PATIENCE, || {
            let now = server.workers();
            (now.len() == 4 && now.iter().all(|it| !before.contains(it))).then_some(())
        });
        let pid = std::fs::read_to_string(server.folder().join("f.pid")).unwrap();
        assert_eq!(pid.trim(), server.pid().to_string());
    }
    load.finish().assert_clean();
    let pidfile = server.folder().join("f.pid");
    let mut server = server;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(!pidfile.exists());
}

/// What the server has of everything that can leak: descriptors and mappings of its master and of a
/// worker, threads, processes.
fn holdings(server: &Ferricorn) -> [usize; 6] {
    let worker = server.worker(0);
    let threads = proc::status(server.pid(), "Threads").and_then(|it| it.parse().ok());
    [
        proc::descriptors(server.pid()).len(),
        proc::mappings(server.pid()),
        threads.expect("it lives"),
        proc::descriptors(worker).len(),
        proc::mappings(worker),
        server.remains().len(),
    ]
}

#[test]
fn twenty_reloads_and_ten_upgrades_leak_nothing() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    for (signal, rounds) in [(Signal::SIGHUP, 20), (Signal::SIGUSR2, 10)] {
        let mut first = None;
        for _ in 0..rounds {
            let before = server.wait_workers(2);
            server.signal(signal);
            eventually("two other workers", PATIENCE, || {
                let now = server.workers();
                (now.len() == 2 && now.iter().all(|it| !before.contains(it))).then_some(())
            });
            // With the logger, which is replaced, too: between the two there is none.
            let complete = |it: &[usize; 6]| it[5] >= 4;
            first.get_or_insert_with(|| {
                eventually("a logger", PATIENCE, || Some(holdings(&server)).filter(complete))
            });
        }
        let first = first.expect("there were rounds");
        println!("{signal}: at first {first:?}, at last {:?}", holdings(&server));
        // What is let go within a moment may still be there.
        eventually("no more than at first", PATIENCE, || {
            let now = holdings(&server);
            now.iter().zip(&first).all(|(now, first)| now <= first).then_some(())
        });
    }
    server.stop();
}
