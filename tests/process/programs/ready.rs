//! When a program counts as ready.

use std::time::Duration;

use super::{plain, program, wait_programs};
use crate::client::Connection;
use crate::harness::{Exit, PATIENCE, Signal, eventually};

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

#[test]
fn status_of_a_program_is_logged() {
    let server = plain("workers = 1\n[program]\nready = \"notify\"", &["notify"]).start();
    server.wait_log("slot 0: status: serving");
    server.stop();
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

/// A release that never becomes ready: every request is answered by the old programs, and none waits.
#[test]
fn program_that_is_never_ready_is_not_put_into_service() {
    let config = |word: &str| {
        format!(
            "workers = 2\nboot_timeout = 8\n[program]\nready = \"notify\"\n\
             command = [\"python3\", \"plain.py\", \"{word}\"]\n"
        )
    };
    let server = crate::harness::Ferricorn::bundled()
        .config(&config("notify"))
        .file("plain.py", super::PLAIN)
        .start();
    let before = wait_programs(&server, 2, &[]);
    server.rewrite_config(&config("silent"));
    server.signal(Signal::SIGHUP);
    let mut answers = 0;
    eventually("the reload has failed", PATIENCE, || {
        let mut connection =
            Connection::open_within(&server.address(), Duration::from_secs(5)).expect("it listens");
        let answer = connection.get("/").expect("the old programs serve");
        assert!(answer.text().contains("\"FERRICORN_GENERATION\": \"1\""), "{}", answer.text());
        answers += 1;
        server.log().contains("failed to reload").then_some(())
    });
    assert!(answers > 10, "{answers} answers");
    assert_eq!(wait_programs(&server, 2, &[]), before);
    assert!(server.log().contains("it has not sent READY=1"), "{}", server.log());
    assert_eq!(program(&server, 0), before[0]);
    server.stop();
}
