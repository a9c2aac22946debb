//! The master's response to each signal.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

use crate::client::{Connection, get};
use crate::events::{self, has};
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
    server.wait_event("signal_ignored", &[("signal", "WINCH".into())]);
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
        let fresh = now.iter().all(|found| !before.contains(found));
        (now.len() == 4 && fresh).then_some(now)
    });
    load.wait_for_more(100);
    load.finish().assert_clean();
    server.wait_served_by(&after);
    server.stop();
}

/// The end of a reload is one event, and all of it is true.
#[test]
fn reload_ends_in_one_event_with_its_figures() {
    let server = Ferricorn::unruly()
        .config("workers = 2")
        .env("UNRULY_PREPARE_FILE", "prepare")
        .file("prepare", "")
        .start();
    let signals = [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGHUP];
    for (generation, signal) in (2..).zip(signals) {
        std::fs::write(server.folder().join("prepare"), "held").unwrap();
        server.signal(signal);
        server.wait_event("reload_started", &[("generation", generation.into())]);
        for _ in 0..7 {
            assert_eq!(server.get("/").unwrap().status, 200);
        }
        std::fs::write(server.folder().join("prepare"), "").unwrap();
        let fields = [("generation", generation.into()), ("requests", 7.into())];
        let end = server.wait_event("reload_succeeded", &fields);
        assert!(end["duration_seconds"].as_f64() >= Some(0.1), "no trial is shorter: {end}");
        assert_eq!(end["replaced"], 2);
        assert_eq!(server.noted("reload_succeeded").len(), generation - 1);
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
    server.wait_reload_failed(2);
    let [first, second] = &server.noted("reload_problem")[..] else { panic!("two problems") };
    let unknown = "config.toml:2: unknown key \"wokers\": did you mean \"workers\"?";
    assert!(has(&first["reason"], unknown), "{first}");
    assert!(has(&second["reason"], "config.toml:3: timeout: "), "{second}");
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
    server.wait_event("stop_started", &[("timeout_seconds", 30.0.into())]);
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGTTIN, "TTIN"),
        (Signal::SIGTTOU, "TTOU"),
    ] {
        server.signal(signal);
        server.wait_event("signal_ignored", &[("signal", name.into())]);
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
    server.wait_event("workers_scale_refused", &[("workers", 1.into())]);
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
    server.wait_event("signal_ignored", &[("signal", "WINCH".into())]);
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
            (now.len() == 4 && now.iter().all(|found| !before.contains(found))).then_some(())
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

/// The server's stock of everything that can leak: descriptors and mappings of its master and of a
/// worker, threads, processes.
fn holdings(server: &Ferricorn) -> [usize; 6] {
    let worker = server.worker(0);
    let threads = proc::status(server.pid(), "Threads").and_then(|status| status.parse().ok());
    [
        proc::descriptors_but_rings(server.pid()),
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
                (now.len() == 2 && now.iter().all(|found| !before.contains(found))).then_some(())
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

/// A terminal's `^C` and `^\`, `stopasgroup` and a control group's stop reach the workers, too.
#[test]
fn signal_to_the_whole_group_is_one_quiet_stop() {
    for round in 0..4 {
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
            let mut server = Ferricorn::unruly().start();
            let group = nix::unistd::Pid::from_raw(server.pid());
            nix::sys::signal::killpg(group, signal).expect("it is our group");
            assert_eq!(server.wait_exit(), Exit::Code(0));
            let log = server.log();
            let told = |text: &str| log.matches(text).count();
            let loud = [told("[ERROR]"), told("[WARNING]"), told("replacing")];
            assert_eq!(loud, [0; 3], "round {round}, {signal}: {log}");
            let quiet = [told("Booting worker"), told("] stopping"), told("left: exited with")];
            assert_eq!(quiet, [4, 1, 4], "round {round}, {signal}: {log}");
        }
    }
}

/// `timeout` sends its child the signal, and then its group.
#[test]
fn stop_by_timeout_is_one_quiet_stop() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let wrapper = ["timeout", "--signal", &signal.as_str()[3..], "600"];
        let mut server = Ferricorn::unruly().wrapped(&wrapper).start();
        let timeout = proc::stat(server.pid()).expect("it is alive").parent;
        assert_ne!(timeout, nix::unistd::getpid().as_raw());
        send(timeout, signal);
        server.wait_exit();
        let log = server.log();
        let told = |text: &str| log.matches(text).count();
        let counts =
            [told("[ERROR]"), told("[WARNING]"), told("Booting worker"), told("] stopping")];
        assert_eq!(counts, [0, 0, 4, 1], "{signal}: {log}");
    }
}

#[test]
fn worker_told_to_quit_by_hand_is_replaced_without_an_error() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        for slot in [0, 1] {
            let old = server.worker(slot);
            send(old, signal);
            eventually("the worker is replaced", PATIENCE, || {
                let now = server.workers();
                (now.len() == 2 && !now.contains(&(slot, old))).then_some(())
            });
            server.wait_worker_exited(old, "stopped", ("exit_code", 0.into()));
        }
    }
    let log = server.log();
    assert!(!log.contains("[ERROR]") && !log.contains(" died: "), "{log}");
    server.stop();
}

/// A new terminal: its master side, and what a server has as its own side.
fn terminal() -> (OwnedFd, Stdio) {
    let master =
        posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("a terminal");
    grantpt(&master).expect("it is ours");
    unlockpt(&master).expect("it is ours");
    let path = ptsname_r(&master).expect("it has a name");
    let side = std::fs::File::options().read(true).write(true).open(path).expect("its other side");
    (master.into(), Stdio::from(side))
}

/// A server at a terminal of its own, behind `wrapper`, and the terminal.
fn at_terminal(wrapper: &[&str]) -> (Ferricorn, i32, OwnedFd) {
    let (terminal, stdin) = terminal();
    let (ready, _unused) = std::io::pipe().expect("two descriptors");
    let words = [&["setsid", "--ctty", "--wait"], wrapper].concat();
    let server = Ferricorn::unruly().config("workers = 2").wrapped(&words);
    let server = server.launch_with(stdin, ready, &["--pid=f.pid"]);
    let pid = eventually("it serves", PATIENCE, || {
        let pid = std::fs::read_to_string(server.folder().join("f.pid")).ok()?;
        (server.log().matches(" ready in ").count() == 2).then_some(pid.trim().parse().ok()?)
    });
    (server, pid, terminal)
}

/// In the foreground, as the terminal's first program or started by a shell there, and behind a shell
/// that passes its own `HUP` on.
#[test]
fn server_stops_when_its_terminal_is_gone() {
    let trap = r#""$@" & trap 'kill -HUP $!; exit' HUP; wait"#;
    for wrapper in [&[][..], &["sh", "-c", "\"$@\"; :", "sh"], &["sh", "-c", trap, "sh"]] {
        let (mut server, pid, terminal) = at_terminal(wrapper);
        send(pid, Signal::SIGHUP);
        events::wait(pid, "reload_succeeded", &[("generation", 2.into())]);
        drop(terminal);
        eventually("the server is gone", PATIENCE, || (!proc::is_alive(pid)).then_some(()));
        // The shell around it, too.
        server.wait_exit();
        let log = server.log();
        assert_eq!(log.matches("the controlling terminal is gone").count(), 1, "{log}");
        assert!(log.contains("Shutting down: Master"), "{log}");
        assert!(!log.contains("generation 3") && !log.contains("[ERROR]"), "{log}");
    }
}

/// Neither is it told of other sizes of the terminal, nor does a reload need one.
#[test]
fn nohup_server_outlives_its_terminal() {
    let (mut server, pid, terminal) = at_terminal(&["nohup"]);
    send(pid, Signal::SIGUSR2);
    events::wait(pid, "reload_succeeded", &[("generation", 2.into())]);
    drop(terminal);
    send(pid, Signal::SIGWINCH);
    events::wait(pid, "signal_ignored", &[("signal", "WINCH".into())]);
    send(pid, Signal::SIGHUP);
    events::wait(pid, "reload_succeeded", &[("generation", 3.into())]);
    assert!(proc::is_alive(pid) && events::noted(pid, "terminal_gone").is_empty());
    send(pid, Signal::SIGTERM);
    server.wait_exit();
}

/// `ulimit -f` and `ulimit -t` send signals whose default is death: a full disk is no reason to die.
#[test]
fn signals_of_limits_end_no_process() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let workers = server.wait_workers(2);
    let pids = [server.pid(), server.logger(), workers[0].1, workers[1].1];
    for pid in pids {
        for signal in [Signal::SIGXFSZ, Signal::SIGXCPU, Signal::SIGPIPE] {
            send(pid, signal);
        }
    }
    server.wait_served_by(&workers);
    assert_eq!((server.logger(), server.workers()), (pids[1], workers));
    server.stop();
}

/// The limit is met by the access log.
#[test]
fn logger_survives_a_file_that_may_not_grow() {
    const LIMIT: u64 = 1 << 30;
    // dash counts in blocks of 512 bytes.
    let limit = format!("ulimit -f {}; exec \"$@\"", LIMIT / 512);
    let server = Ferricorn::unruly().config("workers = 1").flag("--access-logfile=access.log");
    let server = server.file("access.log", "").wrapped(&["sh", "-c", &limit, "sh"]);
    let log = std::fs::File::options().write(true).open(server.folder().join("access.log"));
    let log = log.expect("the folder is ours");
    log.set_len(LIMIT - 8).expect("so is the file");
    log.set_permissions(PermissionsExt::from_mode(0o666)).expect("so is the file");
    let server = server.start();
    let logger = server.logger();
    let worker = server.worker(0);
    for _ in 0..20 {
        assert_eq!(server.get("/").expect("it is served").status, 200);
    }
    server.wait_log("access.log");
    assert_eq!((server.logger(), server.worker(0)), (logger, worker));
    let log = server.log();
    assert!(!log.contains(" died: "), "{log}");
    server.stop();
}

/// As logrotate's copytruncate does it with a file that a shell has opened with `>`.
#[test]
fn truncated_stdout_begins_without_a_hole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out");
    let file = std::fs::File::create(&path).expect("the folder is ours");
    let server = Ferricorn::unruly().config("workers = 1").flag("--access-logfile=-");
    let server = server.stdout(file).start();
    let text = || std::fs::read_to_string(&path).expect("it is text");
    for _ in 0..3 {
        server.get("/before").expect("it is served");
        eventually("the line is written", PATIENCE, || text().contains("/before").then_some(()));
        std::fs::File::options().write(true).truncate(true).open(&path).expect("it is ours");
        server.get("/after").expect("it is served");
        let text = eventually("the line is written", PATIENCE, || {
            Some(text()).filter(|text| text.contains("/after"))
        });
        assert!(!text.contains('\0'), "{text:?}");
    }
    server.stop();
}
