//! The environment of a program, its start and its stop.

use serde_json::Value;

use super::{plain, program, running, wait_programs};
use crate::harness::{Ferricorn, NOBODY, PATIENCE, Signal, eventually, send};
use crate::{proc, program as tests};

/// The report of the program of some slot about itself.
fn state(server: &Ferricorn) -> Value {
    let answer = server.get("/").expect("a program that serves answers");
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).expect("it answers JSON")
}

#[test]
fn program_has_its_descriptors_and_variables_and_no_others() {
    let server = plain("workers = 1\nstall_timeout = 1.5", &["notify", "{fd}", "slot={slot}"])
        .env("WEB_CONCURRENCY", "1")
        .flag("{notfd}")
        .env("TEST_OWN", "kept")
        .start();
    let found = state(&server);
    let keeper = server.worker(0);
    let pid = found["pid"].as_i64().expect("a number").to_string();
    assert_eq!(found["arguments"], serde_json::json!(["notify", "3", "slot=0", "{notfd}"]));
    assert_eq!(found["descriptors"], serde_json::json!([0, 1, 2, 3]));
    assert_eq!((&found["group"], &found["parent"]), (&found["pid"], &keeper.into()));
    let variables = found["variables"].as_object().expect("an object");
    let expected = [
        ("FERRICORN_GENERATION", "1"),
        ("FERRICORN_SLOT", "0"),
        ("LISTEN_FDNAMES", "bind0"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", pid.as_str()),
        ("NOTIFY_SOCKET", variables["NOTIFY_SOCKET"].as_str().expect("a text")),
        ("TEST_OWN", "kept"),
        ("WATCHDOG_PID", pid.as_str()),
        ("WATCHDOG_USEC", "1500000"),
    ];
    let found_variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or("")))
        .collect();
    assert_eq!(found_variables, expected);
    // Python itself ignores PIPE and XFSZ; real-time signals are left as they were inherited.
    let others = 0x7fff_ffff & !(1 << (13 - 1) | 1 << (25 - 1));
    let ignored = u64::from_str_radix(found["ignored"].as_str().expect("a text"), 16);
    assert_eq!(ignored.expect("a number") & others, 0, "signals are ignored: {found}");
    assert_eq!(found["blocked"], "0000000000000000");
    if tests::may_become_nobody() {
        assert_eq!(found["uid"], NOBODY);
    }
    server.stop();
}

#[test]
fn program_leads_where_a_shell_becomes_it() {
    let server =
        running("workers = 1", &["sh", "-c", "X=1 exec env TEST_SHELL=1 python3 plain.py"])
            .file("plain.py", super::PLAIN)
            .start();
    let found = state(&server);
    assert_eq!(found["variables"]["LISTEN_PID"], found["pid"].to_string());
    assert_eq!(found["variables"]["TEST_SHELL"], "1");
    server.stop();
}

#[test]
fn program_of_a_forking_shell_is_given_its_pid_by_the_shell() {
    // The shell has a further command, so that it does not become the program.
    let script = "sh -c 'LISTEN_PID=$$ exec python3 plain.py'; :";
    let server =
        running("workers = 1", &["sh", "-c", script]).file("plain.py", super::PLAIN).start();
    let found = state(&server);
    assert_eq!(found["variables"]["LISTEN_PID"], found["pid"].to_string());
    assert_ne!(found["group"], found["pid"]);
    server.stop();
}

#[test]
fn reload_runs_the_command_of_the_file_of_today() {
    let command = |word: &str| {
        format!(
            "workers = 2\n[program]\nready = \"listen\"\n\
             command = [\"python3\", \"plain.py\", \"{word}\"]\n"
        )
    };
    let server =
        Ferricorn::bundled().config(&command("one")).file("plain.py", super::PLAIN).start();
    assert_eq!(state(&server)["arguments"], serde_json::json!(["one"]));
    let before = wait_programs(&server, 2, &[]);
    server.rewrite_config(&command("two"));
    server.signal(Signal::SIGHUP);
    wait_programs(&server, 2, &before);
    assert_eq!(state(&server)["arguments"], serde_json::json!(["two"]));
    assert_eq!(state(&server)["variables"]["FERRICORN_GENERATION"], "2");
    server.stop();
}

#[test]
fn wrong_command_leaves_the_old_programs_serving() {
    let command =
        |words: &str| format!("workers = 2\n[program]\nready = \"listen\"\ncommand = [{words}]\n");
    let good = command("\"python3\", \"plain.py\"");
    let server = Ferricorn::bundled().config(&good).file("plain.py", super::PLAIN).start();
    let before = wait_programs(&server, 2, &[]);
    let wrong = [
        ("\"no-such-program\"", "cannot find the program no-such-program on PATH"),
        ("\"/etc/passwd\"", "cannot execute /etc/passwd: it is no executable file"),
        ("\"python3\", \"-c\", \"raise SystemExit(7)\"", "ended with code 7"),
        ("\"python3\", \"-c\", \"(\"", "SyntaxError"),
        ("\"python3\", \"{fd1}\"", "names a socket beyond the 1 that are bound"),
    ];
    for (generation, (words, reason)) in (2..).zip(wrong) {
        server.rewrite_config(&command(words));
        server.signal(Signal::SIGHUP);
        server.wait_reload_failed(generation);
        server.wait_log(reason);
        assert_eq!(state(&server)["variables"]["FERRICORN_GENERATION"], "1");
    }
    assert_eq!(wait_programs(&server, 2, &[]), before);
    server.stop();
}

#[test]
fn workers_come_and_go_by_ttin_and_ttou() {
    let server = plain("workers = 1", &[]).start();
    server.signal(Signal::SIGTTIN);
    server.wait_workers(2);
    wait_programs(&server, 2, &[]);
    server.signal(Signal::SIGTTOU);
    server.wait_workers(1);
    assert_eq!(state(&server)["variables"]["FERRICORN_SLOT"], "0");
    server.stop();
}

#[test]
fn upgrade_in_place_keeps_programs_until_others_are_ready() {
    let server = plain("workers = 2", &[]).start();
    let before = wait_programs(&server, 2, &[]);
    server.signal(Signal::SIGUSR2);
    let after = wait_programs(&server, 2, &before);
    assert_eq!(after.len(), 2);
    assert_eq!(state(&server)["variables"]["FERRICORN_GENERATION"], "2");
    server.stop();
}

#[test]
fn stalled_program_is_aborted_and_replaced() {
    let server = plain("workers = 1\nstall_timeout = 0.4", &["watchdog"]).start();
    let before = program(&server, 0);
    std::fs::write(server.folder().join("stall"), "").expect("the folder is ours");
    server.wait_log("was ended by signal 6");
    std::fs::remove_file(server.folder().join("stall")).expect("it is there");
    let after = wait_programs(&server, 1, &[before]);
    assert!(proc::is_alive(after[0]));
    server.stop();
}

/// The keeper has less, so that the program's own memory counts; one that is too large is replaced.
#[test]
fn program_above_its_memory_is_replaced() {
    let server = plain("workers = 1\nmax_memory = \"96MiB\"", &["notify"]).start();
    let before = program(&server, 0);
    assert_eq!(server.get("/grow").expect("it serves").status, 200);
    server.wait_event("worker_due", &[("reason", "max_memory".into())]);
    let after = wait_programs(&server, 1, &[before]);
    let status = crate::control::status(&server);
    let memory = status["workers"][0]["memory_bytes"].as_u64().expect("a number");
    let kib = proc::status(after[0], "VmRSS").expect("it is alive");
    let kib: u64 =
        kib.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
    assert!(memory > kib << 10, "{memory} with the keeper, {kib} KiB without");
    server.stop();
}

#[test]
fn killed_program_is_replaced() {
    let server = plain("workers = 2", &[]).start();
    let before = wait_programs(&server, 2, &[]);
    send(before[0], Signal::SIGKILL);
    eventually("another program in its place", PATIENCE, || {
        let now = wait_programs(&server, 2, &before[..1]);
        now.contains(&before[1]).then_some(())
    });
    assert_eq!(server.get("/").expect("it serves").status, 200);
    server.stop();
}
