//! The control socket under load, and the answers to releases that are bad in every way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::control::{client, fail, said, status, succeed};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};
use crate::log_figures::figure;

/// Calls of a load.
const CALLS: usize = 10_000;
/// Clients that connect and never ask, at any time of the load.
const STALLED: usize = 100;

/// A request over the socket's file, and the last line of its answer.
fn call(socket: &Path, request: &str) -> Value {
    let mut stream = UnixStream::connect(socket).expect("the server listens");
    // A server that refuses has closed its end by now.
    let _refused = writeln!(stream, "{request}");
    let last = BufReader::new(stream).lines().map_while(Result::ok).last();
    last.and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_default()
}

/// Descriptors and resident bytes of the master.
fn costs(server: &Ferricorn) -> (usize, u64) {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs");
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).expect("it runs");
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("a number");
    (descriptors.count(), pages * 4096)
}

#[test]
fn calls_and_stalled_clients_cost_nothing() {
    let builder = Ferricorn::hello().config("workers = 2\ncontrol = \"control.sock\"");
    let socket = builder.folder().join("control.sock");
    let server = builder.start();
    call(&socket, r#"{"command":"status"}"#);
    let before = costs(&server);
    let mut stalled: Vec<UnixStream> = Vec::new();
    let mut done = 0;
    for number in 0..CALLS {
        if number % 10 == 0 {
            stalled.push(UnixStream::connect(&socket).expect("the server listens"));
            stalled.drain(..stalled.len().saturating_sub(STALLED));
        }
        let request = match number % 3 {
            0 => r#"{"command":"status","requests":true}"#,
            1 => r#"{"command":"events"}"#,
            _ => r#"{"command":"nonsense"}"#,
        };
        let expected = if number % 3 == 2 { 64 } else { 0 };
        done += usize::from(call(&socket, request)["exit_code"] == expected);
        if number == CALLS / 2 {
            // It is obeyed amid the load.
            server.signal(Signal::SIGTTIN);
            server.wait_workers(3);
            server.signal(Signal::SIGTTOU);
        }
    }
    assert_eq!(done, CALLS, "silent clients make room for those that ask");
    drop(stalled);
    server.wait_workers(2);
    // What belongs to the third slot stays open.
    let slot = 8;
    eventually("the clients are gone", PATIENCE, || {
        (costs(&server).0 <= before.0 + slot).then_some(())
    });
    let grown = costs(&server).1.saturating_sub(before.1);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

#[test]
fn status_answers_while_a_reload_and_an_upgrade_wait() {
    let builder = Ferricorn::unruly().config("workers = 1");
    let prepare = builder.folder().join("prepare");
    let builder = builder.env("UNRULY_PREPARE_FILE", prepare.display().to_string());
    let server = builder.file("prepare", "").start();
    for (command, generation) in [("reload", 2), ("upgrade", 3)] {
        std::fs::write(&prepare, "held").expect("the folder is ours");
        let waiting = client(&server, &[command]).stdout(Stdio::piped()).spawn();
        let waiting = waiting.expect("the program starts");
        let found = eventually("the reload waits", PATIENCE, || {
            let found = status(&server);
            (found["server"]["next_generation"] == generation).then_some(found)
        });
        assert_eq!(found["server"]["state"], "reloading");
        assert_eq!(found["server"]["workers_serving"], 1);
        std::fs::write(&prepare, "").expect("the folder is ours");
        let output = waiting.wait_with_output().expect("it ends");
        let (code, text, _) = said(&output);
        let end = format!("reloaded: generation {generation} in ");
        assert_eq!(code, 0, "{text}");
        assert!(text.lines().last().unwrap_or_default().starts_with(&end), "{text}");
    }
}

/// A kind of release, and a part of the reason for which it is refused.
struct Release {
    config: &'static str,
    prepare: &'static str,
    boot: &'static str,
    reason: &'static str,
}

const GOOD: Release = Release { config: "", prepare: "", boot: "", reason: "" };

const BAD: [Release; 10] = [
    Release { config: "wokers = 2", reason: "did you mean", ..GOOD },
    Release { config: "timeout = \"soon\"", reason: "timeout: expected", ..GOOD },
    Release { config: "bind = ", reason: "config.toml:", ..GOOD },
    Release { prepare: "fail", reason: "prepare exited with code", ..GOOD },
    Release { prepare: "panic", reason: "prepare ", ..GOOD },
    Release { prepare: "hang", reason: "prepare ", ..GOOD },
    Release { boot: "exit", reason: "3 workers in a row failed", ..GOOD },
    Release { boot: "panic", reason: "3 workers in a row failed", ..GOOD },
    Release { boot: "error", reason: "3 workers in a row failed", ..GOOD },
    Release { boot: "hang", reason: "was not ready in time", ..GOOD },
];

/// Twice each, or `FIGURE_ROUNDS` times: a bad release is refused with its reason in one line, and a
/// good one behind it succeeds.
#[test]
fn bad_releases_exit_1_with_their_cause_and_good_ones_0() {
    const SETTINGS: &str = "workers = 2\nboot_timeout = 1\n";
    let builder = Ferricorn::unruly().config(SETTINGS);
    let [prepare, boot] = ["prepare", "boot"].map(|name| builder.folder().join(name));
    let server = builder
        .env("UNRULY_PREPARE_FILE", prepare.display().to_string())
        .env("UNRULY_BOOT_FILE", boot.display().to_string())
        .file("prepare", "")
        .file("boot", "")
        .start();
    let release = |release: &Release| {
        server.rewrite_config(&format!("{SETTINGS}{}", release.config));
        std::fs::write(&prepare, release.prepare).expect("the folder is ours");
        std::fs::write(&boot, release.boot).expect("the folder is ours");
    };
    let rounds = figure("FIGURE_ROUNDS", 2);
    for bad in (0..rounds).flat_map(|_| &BAD) {
        release(bad);
        let complaint = fail(&server, &["reload"], 1);
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(complaint.contains(bad.reason), "{:?}: {complaint}", bad.reason);
        release(&GOOD);
        succeed(&server, &["reload"]);
    }
}

#[test]
fn top_prints_one_screen() {
    let server = Ferricorn::hello().config("workers = 4").start();
    let text = succeed(&server, &["top", "--once"]);
    assert!(text.contains("4 of 4 workers serve"), "{text}");
    assert!(text.lines().count() <= 24, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let (code, _, complaint) = said(&client(&server, &["top"]).output().expect("it starts"));
    assert_eq!(code, 64, "{complaint}");
    assert!(complaint.contains("use --once"), "{complaint}");
}
