//! Releases that are no good, told to a server under load by `HUP`: nobody who asks the old generation
//! loses anything, the old configuration stays in force, and the log says why. Broken binaries are in
//! `upgrade.rs`.

use std::collections::HashSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::client::{Connection, get};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::proc;

const BOOT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Client = Client::KeepAlive { pause: Duration::from_millis(5), watches: false };

pub(crate) fn busy() -> [Crowd; 2] {
    [Crowd::get(16, KEEP_ALIVE), Crowd::get(4, Client::PerRequest)]
}

/// A line too long for the configuration that comes with the release, and not for the old one.
fn asks_at_length(mut connection: Connection) -> u16 {
    connection.get(&format!("/slot?{:x<100}", "")).expect("it is answered").status
}

/// The old configuration is in force: in the old workers, in the count of them, and in a worker that
/// takes the place of one.
fn assert_old_config(server: &Ferricorn, before: &[(u16, i32)]) {
    assert_eq!(server.workers(), before);
    for _ in 0..8 {
        assert_eq!(asks_at_length(server.connect()), 200);
    }
    std::fs::write(server.folder().join("boot"), "").expect("the folder is ours");
    let (slot, old) = before[0];
    send(old, Signal::SIGKILL);
    eventually("a new worker, of the old generation", PATIENCE, || {
        let now = server.workers();
        (now.len() == before.len() && !now.contains(&(slot, old))).then_some(())
    });
    let now = server.wait_workers(2);
    server.wait_served_by(&now);
    for _ in 0..8 {
        assert_eq!(asks_at_length(server.connect()), 200);
    }
    assert_eq!(server.wait_workers(2), now);
}

/// The changes that come with the release besides its fault.
const NEW_CONFIG: &str =
    "workers = 3\nboot_timeout = 2\n[limits]\nrequest_line = 64\n[log]\naccess = \"\"";

/// No other child than these workers, and the logger.
pub(crate) fn is_at_rest(server: &Ferricorn, workers: &[(u16, i32)]) -> bool {
    let there = proc::children(server.pid());
    let others = there.iter().filter(|process| process.name != "ferricorn-log").count();
    others == workers.len() && server.workers() == workers
}

struct Bad<'a> {
    /// The content of the files: `config.toml`, `prepare`, `boot`.
    config: &'a str,
    prepare: &'a str,
    boot: &'a str,
    /// The log's words about it.
    reasons: &'a [&'a str],
}

/// Tells a loaded server of the release; it must be at rest again in time. Answers the connections
/// that workers of the release had in their hands when they died.
#[expect(clippy::print_stdout, reason = "figures are printed to be read")]
fn refused(bad: &Bad<'_>) {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly()
        .config("workers = 2\nboot_timeout = 2\n[log]\naccess = \"\"")
        .env("UNRULY_BOOT_FILE", "boot")
        .file("boot", "")
        .env("UNRULY_PREPARE_FILE", "prepare")
        .file("prepare", "")
        .start();
    let before = server.wait_workers(2);
    let load = Load::begin(&server.address(), &busy());
    load.wait_for_more(50);
    server.rewrite_config(bad.config);
    std::fs::write(server.folder().join("prepare"), bad.prepare).expect("the folder is ours");
    std::fs::write(server.folder().join("boot"), bad.boot).expect("the folder is ours");
    let begun = Instant::now();
    server.signal(Signal::SIGHUP);
    eventually("it is at rest again", PATIENCE, || {
        let told =
            server.log().contains("failed to reload: generation 2 is dropped, 1 serves on: ");
        (told && is_at_rest(&server, &before)).then_some(())
    });
    let took = begun.elapsed();
    load.wait_for_more(50);
    let tally = load.finish();
    let doomed = doomed(&server);
    let unexplained = tally.requests.iter().filter(|request| {
        let ours = |client: SocketAddr| match client {
            SocketAddr::V4(client) => doomed.contains(&client),
            SocketAddr::V6(_) => false,
        };
        request.failure.is_some() && !request.client.is_some_and(ours)
    });
    assert_eq!(unexplained.count(), 0, "{:?}", tally.failed);
    let all: usize = tally.requests.iter().filter(|request| request.failure.is_some()).count();
    assert_eq!(all as u64, tally.failures(), "somebody was refused: {:?}", tally.failed);
    println!(
        "{:?}: {} answered, {} lost in the hands of the release, at rest after {took:?}",
        bad.reasons[0],
        tally.answered,
        tally.failures()
    );
    let log = server.log();
    for reason in bad.reasons {
        assert!(log.contains(reason), "the log does not say {reason:?}");
    }
    assert_eq!(log.matches("failed to reload").count(), 1);
    assert!(took <= BOOT_TIMEOUT + Duration::from_secs(1), "at rest after {took:?}");
    assert_old_config(&server, &before);
    // The same, mended, is taken.
    server.rewrite_config(NEW_CONFIG);
    std::fs::write(server.folder().join("prepare"), "").expect("the folder is ours");
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(3);
    server.wait_served_by(&server.wait_workers(3));
    assert_eq!(asks_at_length(server.connect()), 414);
    server.stop();
}

/// Whose connections the workers had that have died as soon as they served.
fn doomed(server: &Ferricorn) -> HashSet<SocketAddrV4> {
    let files = std::fs::read_dir(server.folder()).expect("the folder is ours").flatten();
    files
        .filter(|file| file.file_name().to_string_lossy().starts_with("doomed-"))
        .flat_map(|file| {
            let text = std::fs::read_to_string(file.path()).expect("it is ours");
            text.lines().map(|line| line.parse().expect("an address")).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_release_with_an_invalid_file_is_refused() {
    refused(&Bad {
        config: "wokers = 3\nboot_timeout = 2\n[limits]\nrequest_line = \"much\"\n",
        prepare: "",
        boot: "",
        reasons: &[
            "config.toml:2: unknown key \"wokers\": did you mean \"workers\"?",
            "config.toml:5: limits.request_line: ",
        ],
    });
}

#[test]
fn a_release_whose_prepare_fails_is_refused() {
    refused(&Bad {
        config: NEW_CONFIG,
        prepare: "fail",
        boot: "",
        reasons: &["prepare exited with code 4", "the application does not want to"],
    });
}

#[test]
fn a_release_whose_prepare_hangs_is_refused() {
    refused(&Bad {
        config: NEW_CONFIG,
        prepare: "hang",
        boot: "",
        reasons: &["prepare ended by signal 9 (KILL)", "not ready within boot_timeout"],
    });
}

#[test]
fn a_release_whose_worker_fails_at_boot_is_refused() {
    for (boot, how) in [
        ("exit", "failed to boot: exited with code 9"),
        ("error", "the worker does not want to"),
        ("panic", "the boot panics, as it was told to"),
    ] {
        let reasons = &["serves on: 3 workers in a row failed, ", how];
        refused(&Bad { config: NEW_CONFIG, prepare: "", boot, reasons });
    }
}

#[test]
fn a_release_whose_worker_hangs_at_boot_is_refused() {
    let reasons = &["worker 0 was not ready in time", "not ready within boot_timeout"];
    refused(&Bad { config: NEW_CONFIG, prepare: "", boot: "hang", reasons });
}

#[test]
fn a_release_whose_worker_blocks_at_boot_is_refused() {
    let reasons = &["worker 0 was not ready in time", "not ready within boot_timeout"];
    refused(&Bad { config: NEW_CONFIG, prepare: "", boot: "block", reasons });
}

/// It has served for a moment: what it had in its hands is lost, and nothing of the others'.
#[test]
fn a_release_whose_worker_panics_as_soon_as_it_serves_is_refused() {
    let reasons = &[
        "serves on: 3 workers in a row failed, ",
        "died: ended by signal 6 (ABRT)",
        "the worker panics, as it was told to",
    ];
    refused(&Bad { config: NEW_CONFIG, prepare: "", boot: "doomed", reasons });
}

/// The reason is told where an operator looks, and the secret that the file names is not.
#[test]
fn a_reload_that_cannot_read_a_secret_changes_nothing() {
    let server = Ferricorn::bundled()
        .env("DATABASE_URL_FILE", "url")
        .file("url", "sqlite://rows.db")
        .config("workers = 1")
        .start();
    let before = server.wait_workers(1);
    std::fs::rename(server.folder().join("url"), server.folder().join("gone")).unwrap();
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(2).contains("DATABASE_URL_FILE"));
    assert_eq!(server.workers(), before);
    std::fs::rename(server.folder().join("gone"), server.folder().join("url")).unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(3);
    let log = server.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("[ERROR]")).collect();
    assert!(!errors.is_empty() && errors.iter().all(|line| !line.contains("rows.db")), "{log}");
    server.stop();
}

/// Clients that hold a connection to a leaving worker do not hold up the reload, nor make workers pile
/// up: of a slot, a few old ones at the most are alive.
#[test]
fn old_generations_are_bounded_while_their_clients_stay() {
    let mut server = Ferricorn::unruly().config("workers = 1\ngraceful_timeout = 600").start();
    let mut held = Vec::new();
    let mut holders = Vec::new();
    for generation in 2..=9 {
        let mut client = server.connect();
        client.send(get("/never")).unwrap();
        let local = client.local().expect("over TCP");
        holders.push(eventually("a worker holds it", PATIENCE, || {
            let SocketAddr::V4(local) = local else { return None };
            let mut workers = server.workers().into_iter().map(|(_, pid)| pid);
            workers.find(|pid| proc::accepted_clients(*pid).contains(&local))
        }));
        held.push(client);
        server.signal(Signal::SIGHUP);
        if generation <= 4 {
            server.wait_reloaded(generation);
        }
    }
    // One that serves, and three that leave: the next replacement waits for one of them, and says so.
    let fields = [("slot", 0.into()), ("draining", 3.into()), ("timeout_seconds", 600.0.into())];
    server.wait_event("reload_delayed", &fields);
    eventually("four workers", PATIENCE, || (server.workers().len() == 4).then_some(()));
    let there = server.workers();
    assert_eq!(server.get("/").expect("it serves").pid(), holders[3]);
    server.signal(Signal::SIGWINCH);
    server.wait_event("signal_ignored", &[("signal", "WINCH".into())]);
    assert_eq!(server.workers(), there);
    assert_eq!(server.noted("reload_delayed").len(), 1);
    server.signal(Signal::SIGQUIT);
    server.wait_exit();
    drop(held);
}

/// Each problem is an event to act on; the last one counts them.
#[test]
fn several_problems_of_a_reload_are_an_event_each() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    server.rewrite_config("wokers = 1\nthreads = 0\ntimeout = 'soon'\n");
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(2).ends_with(" (and 2 more in the error log)"));
    let problems = server.noted("reload_problem");
    assert_eq!(problems.len(), 3, "{problems:?}");
    for (line, problem) in (2..).zip(&problems) {
        let reason = problem["reason"].as_str().expect("a text");
        assert!(reason.starts_with(&format!("config.toml:{line}: ")), "{reason}");
        assert!(!reason.contains('\n'), "{reason}");
    }
    server.rewrite_config("wokers = 1\n");
    server.signal(Signal::SIGHUP);
    let reason = server.wait_reload_failed(3);
    assert!(reason.starts_with("config.toml:2: unknown key \"wokers\""), "{reason}");
    server.stop();
}
