//! When a program counts as ready.

use super::{plain, program, wait_programs};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually};
use crate::load::{Client, Crowd, Load};
use crate::proc;

/// Clients of each load.
const CLIENTS: usize = 32;

#[test]
fn program_is_ready_when_it_sends_so() {
    let config = "workers = 1\n[program]\nready = \"notify\"";
    let mut server = plain(config, &["slow-ready"]).launch();
    server.wait_log("started the program of slot 0");
    assert!(!server.log().contains("worker 0 ready"), "{}", server.log());
    std::fs::write(server.folder().join("ready"), "").expect("the folder is ours");
    server.wait_ready();
    assert_eq!(server.get("/").expect("it serves").status, 200);
    server.stop();
}

/// The programs listen, and accept nothing until they send READY=1. With so short a queue the keepers' looks
/// are in the middle of opening connections for half of the time: some have connections open by then.
#[test]
fn look_for_readiness_leaves_no_connection_open() {
    let config = "workers = 6\nbacklog = 1\n[program]\nready = \"auto\"";
    let mut server = plain(config, &["slow-ready"]).launch();
    let keepers: Vec<i32> = eventually("six keepers", PATIENCE, || {
        let keepers: Vec<i32> = server.workers().iter().map(|(_, keeper)| *keeper).collect();
        (keepers.len() == 6).then_some(keepers)
    });
    eventually("a look", PATIENCE, || keepers.iter().any(|keeper| looks(*keeper)).then_some(()));
    std::fs::write(server.folder().join("ready"), "").expect("the folder is ours");
    server.wait_ready();
    for keeper in keepers {
        eventually("no connection", PATIENCE, || (!looks(keeper)).then_some(()));
    }
    for _ in 0..20 {
        assert_eq!(server.get("/").expect("it serves").status, 200);
    }
    server.stop();
}

/// Returns true if this keeper has a connection to a program open.
fn looks(keeper: i32) -> bool {
    !proc::accepted_clients(keeper).is_empty()
}

#[test]
fn status_of_a_program_is_logged() {
    let server = plain("workers = 1\n[program]\nready = \"notify\"", &["notify"]).start();
    server.wait_log("slot 0: status: serving");
    server.stop();
}

#[test]
fn status_of_a_program_is_shown() {
    let server = plain("workers = 1\n[program]\nready = \"notify\"", &["notify"]).start();
    let status = eventually("the last status", PATIENCE, || {
        let status = crate::control::status(&server);
        (status["workers"][0]["status"] == "serving").then_some(status)
    });
    assert_eq!(status["workers"][0]["slot"], 0);
    let text = crate::control::succeed(&server, &["status"]);
    assert!(text.contains("\n     serving\n"), "{text}");
    server.stop();
}

/// It takes longer than `boot_timeout`, and asks for more time until it is ready.
#[test]
fn program_that_asks_for_time_boots_longer() {
    let config = "workers = 1\nboot_timeout = 2\n[program]\nready = \"notify\"";
    let server = plain(config, &["extends=3.5"]).start();
    assert_eq!(server.get("/").expect("it serves").status, 200);
    server.stop();
}

#[test]
fn program_that_asks_for_time_once_is_killed_after_it() {
    let config = "workers = 1\nboot_timeout = 2\n[program]\nready = \"notify\"";
    let mut server = plain(config, &["gives-up", "silent"]).launch();
    assert_eq!(server.wait_exit(), Exit::Code(3), "{}", server.log());
    assert!(server.log().contains("it has not sent READY=1"), "{}", server.log());
}

#[test]
fn program_is_ready_when_it_answers_a_path() {
    let config = "workers = 3\n[program]\nready = \"http:/healthz\"";
    let server = plain(config, &[]).start();
    let before = wait_programs(&server, 3, &[]);
    // Those that serve answer, too: only the new program's own answer counts.
    server.signal(Signal::SIGHUP);
    wait_programs(&server, 3, &before);
    server.stop();
}

#[test]
fn program_is_ready_after_a_delay() {
    let server = plain("workers = 1\n[program]\nready = \"delay:0.3\"", &[]).start();
    assert_eq!(server.get("/").expect("it serves").status, 200);
    server.stop();
}

/// For each sign, a program that never shows it: the start fails, says why, and leaves nothing.
#[test]
fn start_fails_where_no_program_becomes_ready() {
    let cases = [
        ("notify", "silent", "it has not sent READY=1"),
        ("listen", "silent", "it does not wait for connections on its socket"),
        ("auto", "silent", "it has not sent READY=1, and does not wait for connections"),
        ("http:/", "unhealthy", "it has not answered GET / with 2xx"),
    ];
    for (sign, word, reason) in cases {
        let config = format!("workers = 1\nboot_timeout = 8\n[program]\nready = \"{sign}\"");
        let mut server = plain(&config, &[word]).launch();
        assert_eq!(server.wait_exit(), Exit::Code(3), "{sign}: {}", server.log());
        assert!(server.log().contains(reason), "{sign}: {}", server.log());
    }
}

/// A release that never becomes ready, for each sign: 32 clients are all answered by the old programs, and
/// the new one accepts no connection.
fn never_ready_release_sees_no_request(sign: &str) {
    let config = |boot_timeout: u32, words: &str| {
        format!(
            "workers = 2\nboot_timeout = {boot_timeout}\n[program]\nready = \"{sign}\"\n\
             command = [\"python3\", \"plain.py\", {words}]\n"
        )
    };
    let server = Ferricorn::bundled()
        .config(&config(60, "\"notify\""))
        .file("plain.py", super::PLAIN)
        .start();
    let before = wait_programs(&server, 2, &[]);
    let load = Load::begin(&server.address(), &[Crowd::get(CLIENTS, Client::PerRequest)]);
    server.rewrite_config(&config(3, "\"silent\""));
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(2).contains("not ready in time"));
    load.wait_for_more(100);
    let tally = load.finish();
    tally.assert_clean();
    let accepted = |generation: u32| {
        let file = server.folder().join(format!("accepted-{generation}"));
        std::fs::read(file).map_or(0, |bytes| bytes.len())
    };
    assert_eq!(accepted(2), 0, "{sign}: connections of the program that is not ready");
    assert!(accepted(1) as u64 >= tally.answered, "{} of {}", accepted(1), tally.answered);
    assert_eq!(wait_programs(&server, 2, &[]), before);
    server.stop();
}

#[test]
fn release_that_never_notifies_sees_no_request() {
    never_ready_release_sees_no_request("notify");
}

#[test]
fn release_that_never_listens_sees_no_request() {
    never_ready_release_sees_no_request("listen");
}

#[test]
fn release_without_any_sign_sees_no_request() {
    never_ready_release_sees_no_request("auto");
}

#[test]
fn release_that_never_answers_a_path_sees_no_request() {
    never_ready_release_sees_no_request("http:/");
}

/// The socket is every program's, so one that accepts from it is sent requests: the log says so.
#[test]
fn program_that_accepts_before_it_is_ready_is_named() {
    let config = "workers = 1\nboot_timeout = 8\n[program]\nready = \"notify\"";
    let mut server = plain(config, &[]).launch();
    let program = program(&server, 0);
    server.wait_log(&format!(
        "the program of slot 0 ({program}) accepts connections before it sends READY=1"
    ));
    server.signal(Signal::SIGQUIT);
    server.wait_exit();
}
