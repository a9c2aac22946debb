//! The logs of whole processes. They are the process's own, once and for ever, so each test starts
//! this test binary again, with one of the tests marked `ignore` as the child.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};

use super::*;
use crate::config::{LogFormat, LogTarget, WhenFull};
use crate::ids::{Generation, Slot};

/// The child's folder or log; without it a child is not one, and passes.
const GIVEN: &str = "FERRICORN_TEST_LOG";
/// Which of several children it is.
const NUMBER: &str = "FERRICORN_TEST_NUMBER";

fn command(test: &str, given: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a file"));
    command
        .args(["--exact", &format!("logging::tests::{test}")])
        .args(["--ignored", "--nocapture"])
        .env(GIVEN, given)
        .env("TZ", "UTC")
        .stdout(Stdio::null());
    command
}

/// Runs a child to its end in a folder of its own.
fn run(test: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let status = command(test, folder.path()).status().expect("a child starts");
    assert!(status.success(), "{test}: {status}");
    folder
}

fn given() -> Option<PathBuf> {
    std::env::var_os(GIVEN).map(PathBuf::from)
}

fn log(access: LogTarget, error: LogTarget) -> Log {
    Log {
        access,
        error,
        level: Level::Info,
        access_format: "@%({request_id}e)s %(a)s %(B)s.".to_owned(),
        format: LogFormat::Text,
        when_full: WhenFull::Block,
    }
}

/// Writes the access line `@{id} AAA… {length}.`.
fn write_access(id: &str, length: usize) {
    let mut request_headers = HeaderMap::new();
    let agent = HeaderValue::from_str(&"A".repeat(length)).expect("letters are a value");
    request_headers.insert(header::USER_AGENT, agent);
    let record = Record {
        remote: Some(IpAddr::from([127, 0, 0, 1])),
        started: sys::clock::wall(),
        elapsed: Duration::from_micros(5),
        method: &Method::GET,
        target: &Uri::from_static("/"),
        version: Version::HTTP_11,
        request_headers: &request_headers,
        outcome: Outcome::Status(StatusCode::OK),
        response_headers: &HeaderMap::new(),
        bytes: length as u64,
        pid: std::process::id(),
        slot: Slot::new(0),
        generation: Generation::FIRST,
        request_id: Some(id),
        scheme: "http",
    };
    access(sys::clock::now(), &record);
}

/// The id of an access line, which must be whole.
fn id_of(line: &str) -> &str {
    let whole = line.strip_prefix('@').and_then(|line| line.strip_suffix('.')).and_then(|line| {
        let mut words = line.split(' ');
        let (id, agent, length) = (words.next()?, words.next()?, words.next()?);
        let is_whole = words.next().is_none()
            && agent.bytes().all(|byte| byte == b'A')
            && length.parse() == Ok(agent.len());
        is_whole.then_some(id)
    });
    whole.unwrap_or_else(|| panic!("a torn line: {line:?}"))
}

/// The lines of a text error log, without dates and pids.
fn messages(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("the log is there");
    let message = |line: &str| line.splitn(3, "] [").last().unwrap_or_default().to_owned();
    text.lines().map(message).collect()
}

const CHILDREN: u32 = 4;
const LINES: usize = 3000;

#[test]
fn lines_of_many_processes_in_one_pipe_stay_whole() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let start = |number: u32| {
        let mut command = command("child_among_many", Path::new("/proc/self/fd/0"));
        let stdin = writer.try_clone().expect("a descriptor can be doubled");
        command.env(NUMBER, number.to_string()).stdin(stdin).spawn().expect("a child starts")
    };
    let children: Vec<Child> = (0..CHILDREN).map(start).collect();
    // The pipe ends with the last child.
    drop(writer);
    let mut counts = [0; CHILDREN as usize];
    let mut errors = [0; CHILDREN as usize];
    for line in BufReader::new(reader).lines() {
        let line = line.expect("lines are text");
        if let Some((_, error)) = line.split_once("[INFO] ") {
            let (child, number) = error
                .strip_prefix("child=")
                .and_then(|error| error.split_once(" wrote="))
                .unwrap_or_else(|| panic!("a torn error: {line:?}"));
            let child: usize = child.parse().expect("a number");
            assert_eq!(number.parse(), Ok(counts[child]), "errors stand in their place");
            errors[child] += 1;
        } else {
            let (child, number) = id_of(&line).split_once('-').expect("two numbers");
            let child: usize = child.parse().expect("a number");
            assert_eq!(number.parse(), Ok(counts[child]), "lines of a child are in order");
            counts[child] += 1;
        }
    }
    for mut child in children {
        assert!(child.wait().expect("a child ends").success());
    }
    assert_eq!(counts, [LINES; CHILDREN as usize]);
    assert_eq!(errors, [1 + LINES / 100; CHILDREN as usize]);
}

#[test]
#[ignore = "the child of another test"]
fn child_among_many() {
    let Some(path) = given() else { return };
    let child = std::env::var(NUMBER).expect("a child has a number");
    let target = LogTarget::File(path);
    install(&log(target.clone(), target)).expect("the pipe can be opened");
    for number in 0..LINES {
        if number % 100 == 0 {
            tracing::info!("child={child} wrote={number}");
        }
        // Up to the longest that a pipe takes in one piece, which is 4096 with what is around.
        write_access(&format!("{child}-{number}"), number * 37 % 4070);
    }
    tracing::info!("child={child} wrote={LINES}");
    flush();
    assert!(!has_pending());
}

#[test]
fn stdout_carries_both_logs_in_order() {
    let mut command = command("child_on_stdout", Path::new("-"));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a child starts");
    let stdout = child.stdout.take().expect("it is piped");
    let is_ours = |line: &String| line.starts_with('@') || line.starts_with('[');
    let lines: Vec<String> = BufReader::new(stdout)
        .lines()
        .map(|line| line.expect("lines are text"))
        .filter(is_ours)
        .collect();
    assert!(child.wait().expect("a child ends").success());
    let pid = child.id();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!((id_of(&lines[0]), id_of(&lines[1])), ("1", "2"));
    assert!(lines[2].ends_with(&format!(" +0000] [{pid}] [WARNING] between")), "{}", lines[2]);
    assert_eq!(id_of(&lines[3]), "3");
}

#[test]
#[ignore = "the child of another test"]
fn child_on_stdout() {
    if given().is_none() {
        return;
    }
    let flags = || fs::read_to_string("/proc/self/fdinfo/1").expect("stdout is open");
    let before = flags();
    let mut log = log(LogTarget::Stdout, LogTarget::Stdout);
    log.when_full = WhenFull::Drop;
    install(&log).expect("stdout is open");
    assert_eq!(flags(), before, "stdout is others' as well, and stays as it was");
    // A newline, for the test harness has begun a line.
    LOGS.lock().expect("nobody panicked").sink.access(sys::clock::now(), |out| out.push(b'\n'));
    write_access("1", 10);
    write_access("2", 10);
    tracing::warn!("between");
    write_access("3", 10);
    flush();
}

#[test]
fn level_and_format_follow_each_configuration() {
    let folder = run("child_that_reloads");
    assert_eq!(
        messages(&folder.path().join("one")),
        ["INFO] info 1", "WARNING] warning 1", "INFO] hyper 1", "INFO] info 2"].map(str::to_owned)
    );
    assert_eq!(
        messages(&folder.path().join("two")),
        [
            "DEBUG] debug 3",
            "INFO] info 3",
            "WARNING] warning 3",
            "INFO] hyper 3",
            "CRITICAL] critical 4",
            "ERROR] error 5",
        ]
        .map(str::to_owned)
    );
    let json = fs::read_to_string(folder.path().join("three")).expect("the log is there");
    let line: serde_json::Value = serde_json::from_str(&json).expect("one line of JSON");
    assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"info 6".into()));
}

#[test]
#[ignore = "the child of another test"]
fn child_that_reloads() {
    let Some(folder) = given() else { return };
    let target = |name: &str| LogTarget::File(folder.join(name));
    assert_eq!(named_fields(), NamedFields::default());
    let mut log = log(LogTarget::Off, target("one"));
    let all = |round: u32| {
        tracing::trace!("trace {round}");
        tracing::debug!("debug {round}");
        tracing::info!("info {round}");
        tracing::warn!("warning {round}");
        tracing::debug!(target: "hyper::proto", "noise {round}");
        tracing::info!(target: "hyper", "hyper {round}");
    };
    install(&log).expect("the log can be opened");
    all(1);
    assert_eq!(named_fields(), NamedFields::default(), "there is no access log");
    // The same again, and a second installation, add no second line.
    apply(&log).expect("the log is open");
    install(&log).expect("the log is open");
    tracing::info!("info 2");
    log.level = Level::Debug;
    log.error = target("two");
    apply(&log).expect("the log can be opened");
    all(3);
    log.level = Level::Critical;
    apply(&log).expect("the log is open");
    all(4);
    tracing::error!("error 4");
    tracing::error!(critical = false, "error 4");
    tracing::error!(critical = true, "critical 4");
    log.level = Level::Error;
    apply(&log).expect("the log is open");
    all(5);
    tracing::error!("error 5");
    log.level = Level::Info;
    log.format = LogFormat::Json;
    log.error = target("three");
    apply(&log).expect("the log can be opened");
    tracing::info!("info 6");
}

#[test]
fn what_cannot_be_applied_changes_nothing() {
    let folder = run("child_with_bad_configurations");
    assert_eq!(messages(&folder.path().join("error")), ["INFO] still here".to_owned()]);
    let access = fs::read_to_string(folder.path().join("access")).expect("the log is there");
    assert_eq!(access, "@still AAA 3.\n");
}

#[test]
#[ignore = "the child of another test"]
fn child_with_bad_configurations() {
    let Some(folder) = given() else { return };
    let target = |name: &str| LogTarget::File(folder.join(name));
    let good = log(target("access"), target("error"));
    install(&good).expect("the logs can be opened");
    let mut bad = good.clone();
    bad.access_format = "%(z)s".to_owned();
    bad.error = target("never");
    let failure = apply(&bad).expect_err("the format is wrong").to_string();
    assert!(
        failure.starts_with("log.access_format: unknown atom %(z)s at character 1"),
        "{failure}"
    );
    bad = good.clone();
    bad.access_format = "other".to_owned();
    bad.error = target("missing/error");
    let failure = apply(&bad).expect_err("there is no folder").to_string();
    assert!(failure.starts_with("failed to open the error log /"), "{failure}");
    assert!(!folder.join("never").exists());
    assert_eq!(named_fields().request, [header::USER_AGENT]);
    tracing::info!("still here");
    write_access("still", 3);
    flush();
}

#[test]
fn a_rotation_and_a_fork_lose_no_line_and_double_none() {
    let folder = run("child_that_rotates");
    let read = |name| fs::read_to_string(folder.path().join(name)).expect("the log is there");
    assert_eq!(read("access.1"), "@1 A 1.\n@2 A 1.\n");
    assert_eq!(read("access"), "@3 A 1.\n@5 A 1.\n");
}

#[test]
#[ignore = "the child of another test"]
fn child_that_rotates() {
    let Some(folder) = given() else { return };
    let path = folder.join("access");
    install(&log(LogTarget::File(path.clone()), LogTarget::Off)).expect("the log can be opened");
    write_access("1", 1);
    fs::rename(&path, folder.join("access.1")).expect("a file can be moved");
    write_access("2", 1);
    reopen().expect("the log can be made again");
    write_access("3", 1);
    assert!(has_pending());
    before_fork();
    assert!(!has_pending());
    // What waits in a child after its birth is its parent's.
    write_access("4", 1);
    after_fork();
    assert!(!has_pending());
    write_access("5", 1);
    flush();
}

#[test]
fn a_field_that_logs_while_it_is_written_does_not_lock_up() {
    let folder = run("child_with_a_chatty_field");
    let lines = messages(&folder.path().join("error"));
    assert_eq!(lines, ["INFO] inner", "INFO] outer field=chatty"].map(str::to_owned));
}

#[test]
#[ignore = "the child of another test"]
fn child_with_a_chatty_field() {
    struct Chatty;
    impl std::fmt::Display for Chatty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            tracing::info!("inner");
            f.write_str("chatty")
        }
    }
    let Some(folder) = given() else { return };
    let error = LogTarget::File(folder.join("error"));
    install(&log(LogTarget::Off, error)).expect("the log can be opened");
    tracing::info!(field = %Chatty, "outer");
}

#[test]
fn dates_are_in_the_zone_of_the_process() {
    for (zone, offset) in [("<-03>3", "-0300"), ("", "+0000"), ("No/Such_Place", "+0000")] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = command("child_with_a_chatty_field", folder.path());
        assert!(command.env("TZ", zone).status().expect("a child ends").success());
        let error = fs::read_to_string(folder.path().join("error")).expect("the log is there");
        assert_eq!(error.split([' ', ']']).nth(2), Some(offset), "{zone}: {error}");
    }
}

#[test]
fn formats_are_checked_for_the_configuration() {
    assert_eq!(access_format_error("%(h)s"), None);
    assert_eq!(access_format_error("json"), None);
    let error = access_format_error("%(h").expect("it is wrong");
    assert_eq!(error, "found \"%(\" at character 1 without its \")s\"; expected %(atom)s");
}
