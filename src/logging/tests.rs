//! The logs of whole processes. They are the process's own, once and for ever, so each test starts
//! itself again, as a child that finds [`GIVEN`] in its environment and is the process then.

// ORDERING: numbers that one thread counts: Relaxed.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, Uri, Version, header};

use super::*;
use crate::config::{Level, LogFormat};
use crate::ids::{Generation, Slot};
use crate::time::Instant;

/// The child's folder or memory; who finds none is no child.
const GIVEN: &str = "FERRICORN_TEST_LOG";
/// Which of several children it is.
const NUMBER: &str = "FERRICORN_TEST_NUMBER";

fn command(test: &str, given: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a file"));
    command
        .args(["--exact", &format!("logging::tests::{test}")])
        .arg("--nocapture")
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
        skip: Vec::new(),
        slow: None,
        format: LogFormat::Text,
        when_full: WhenFull::Block,
    }
}

/// Begins to log into rings of this process's own.
fn begin(log: &Log) -> Rings {
    let mut rings = Rings::new().expect("memory can be shared");
    install(log, rings.ring(MASTER).expect("a ring"), Layers::new())
        .expect("the log can be opened");
    rings
}

/// Writes what waits in the rings, as the logger does; the number of lines.
fn write_out(rings: &mut [Consumer<sys::shared::Mapping>], outlets: &mut Outlets) -> usize {
    let mut line = Vec::new();
    let mut count = 0;
    for ring in rings.iter_mut() {
        while let Next::Line(kind) = ring.next(&mut line) {
            outlets.add(kind, &line);
            count += 1;
        }
    }
    outlets.write(Instant::default());
    rings.iter().for_each(Consumer::commit);
    count
}

/// Writes what waits to what the log names.
pub(crate) fn flush(rings: &Rings, log: &Log) {
    let mut consumers = rings.consumers(0).expect("they can be mapped");
    write_out(&mut consumers, &mut Outlets::open(log, Instant::default()));
}

/// Writes the access line `@{id} AAA… {length}.`.
fn write_access(id: &str, length: usize) {
    write_noted_access(id, length, |_| {});
}

fn write_noted_access(id: &str, length: usize, note: impl Fn(Option<u64>)) {
    let agent = HeaderValue::from_str(&"A".repeat(length)).expect("letters are a value");
    let request_headers = [(header::USER_AGENT, agent)];
    let record = Record {
        remote: Some(IpAddr::from([127, 0, 0, 1])),
        started: sys::clock::wall(),
        elapsed: Duration::from_micros(5),
        queue_wait: None,
        method: &Method::GET,
        target: &Uri::from_static("/"),
        version: Version::HTTP_11,
        request_headers: &request_headers,
        outcome: Outcome::Status(StatusCode::OK),
        response_headers: &[],
        bytes: length as u64,
        pid: std::process::id(),
        slot: Slot::new(0),
        generation: Generation::FIRST,
        request_id: Some(id.as_bytes()),
        scheme: "http",
        listener: None,
        client_certificate: None,
    };
    access(&record, note);
}

/// The id of an access line, which must be whole.
fn id_of(line: &str) -> &str {
    let whole = line.strip_prefix('@').and_then(|line| line.strip_suffix('.')).and_then(|line| {
        let mut words = line.split(' ');
        let id = words.next()?;
        let agent = words.next()?;
        let length = words.next()?;
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
const LINES: usize = if cfg!(debug_assertions) { 1000 } else { 25_000 };

#[test]
fn long_lines_of_many_processes_in_one_pipe_stay_whole_and_in_order() {
    if let Some(given) = given() {
        return child_among_many(&given);
    }
    let mut rings = Rings::new().expect("memory can be shared");
    for place in 0..CHILDREN {
        rings.ring(place as usize).expect("a ring");
    }
    let path = |ring: Vec<BorrowedFd<'_>>| {
        format!("/proc/{}/fd/{}", std::process::id(), ring[0].as_raw_fd())
    };
    let memories: Vec<PathBuf> = rings.descriptors().map(|ring| path(ring).into()).collect();
    let start = |number: u32| {
        let mut command = command(
            "long_lines_of_many_processes_in_one_pipe_stay_whole_and_in_order",
            &memories[number as usize],
        );
        command.env(NUMBER, number.to_string()).spawn().expect("a child starts")
    };
    let mut children: Vec<Child> = (0..CHILDREN).map(start).collect();
    let (reader, writer) = io::pipe().expect("a pipe");
    let target = LogTarget::File(format!("/proc/self/fd/{}", writer.as_raw_fd()).into());
    let mut outlets = Outlets::open(&log(target.clone(), target), Instant::default());
    // The pipe ends with the outlets.
    drop(writer);
    let (counts, errors) = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rings = rings.consumers(0).expect("they can be mapped");
            let is_alive = |child: &mut Child| child.try_wait().expect("our child").is_none();
            loop {
                let alive = children.iter_mut().any(is_alive);
                if write_out(&mut rings, &mut outlets) == 0 && !alive {
                    break;
                }
            }
            for mut child in children {
                assert!(child.wait().expect("a child ends").success());
            }
        });
        read_many(reader)
    });
    assert_eq!(counts, [LINES; CHILDREN as usize]);
    assert_eq!(errors, [1 + LINES.div_ceil(100); CHILDREN as usize]);
}

/// Reads what the children wrote, in their order; the number of access and error lines of each.
fn read_many(reader: impl io::Read) -> ([usize; CHILDREN as usize], [usize; CHILDREN as usize]) {
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
    (counts, errors)
}

fn child_among_many(path: &Path) {
    let child = std::env::var(NUMBER).expect("a child has a number");
    let memory = fs::File::options().read(true).write(true).open(path).expect("our parent's");
    // The bell is not waited for: the parent looks all the time.
    let bell = sys::bell::Bell::new().expect("a bell").as_fd().try_clone_to_owned();
    let mut rings = Rings::default();
    rings.add(vec![memory.into(), bell.expect("a descriptor")]).expect("they are a ring's");
    let ring = rings.ring(MASTER).expect("a ring");
    let target = LogTarget::Stdout;
    install(&log(target.clone(), target), ring, Layers::new()).expect("stdout is open");
    wait_for_room(|| RoomWait::Continue);
    for number in 0..LINES {
        if number % 100 == 0 {
            tracing::info!("child={child} wrote={number}");
        }
        // All lengths up to the longest that there is.
        write_access(&format!("{child}-{number}"), number * 37 % (65_536 - 40));
    }
    tracing::info!("child={child} wrote={LINES}");
}

#[test]
fn stdout_carries_both_logs_in_order() {
    if given().is_some() {
        return child_on_stdout();
    }
    let mut command = command("stdout_carries_both_logs_in_order", Path::new("-"));
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

fn child_on_stdout() {
    let flags = || fs::read_to_string("/proc/self/fdinfo/1").expect("stdout is open");
    let before = flags();
    let mut log = log(LogTarget::Stdout, LogTarget::Stdout);
    log.when_full = WhenFull::Drop;
    let rings = begin(&log);
    // A newline, for the test harness has begun a line.
    LOGS.lock().expect("nobody panicked").sink.send(Kind::Access, b"\n").expect("there is room");
    write_access("1", 10);
    write_access("2", 10);
    tracing::warn!("between");
    write_access("3", 10);
    flush(&rings, &log);
    assert_eq!(flags(), before, "stdout is others' as well, and stays as it was");
}

#[test]
fn level_and_format_follow_each_configuration() {
    if let Some(given) = given() {
        return child_that_reloads(&given);
    }
    let folder = run("level_and_format_follow_each_configuration");
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

fn child_that_reloads(folder: &Path) {
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
    let mut rings = begin(&log);
    all(1);
    assert_eq!(named_fields(), NamedFields::default(), "there is no access log");
    // The same again, and a second installation, add no second line.
    apply(&log).expect("it is right");
    install(&log, rings.ring(MASTER).expect("a ring"), Layers::new()).expect("the log is open");
    tracing::info!("info 2");
    // What waits goes to where it was meant for.
    flush(&rings, &log);
    log.level = Level::Debug;
    log.error = target("two");
    apply(&log).expect("it is right");
    all(3);
    log.level = Level::Critical;
    apply(&log).expect("it is right");
    all(4);
    tracing::error!("error 4");
    tracing::error!(critical = false, "error 4");
    tracing::error!(critical = true, "critical 4");
    log.level = Level::Error;
    apply(&log).expect("it is right");
    all(5);
    tracing::error!("error 5");
    flush(&rings, &log);
    log.level = Level::Info;
    log.format = LogFormat::Json;
    log.error = target("three");
    apply(&log).expect("it is right");
    tracing::info!("info 6");
    flush(&rings, &log);
}

#[test]
fn what_cannot_be_applied_changes_nothing() {
    if let Some(given) = given() {
        return child_with_bad_configurations(&given);
    }
    let folder = run("what_cannot_be_applied_changes_nothing");
    assert_eq!(messages(&folder.path().join("error")), ["INFO] still here".to_owned()]);
    let access = fs::read_to_string(folder.path().join("access")).expect("the log is there");
    assert_eq!(access, "@still AAA 3.\n");
}

fn child_with_bad_configurations(folder: &Path) {
    let target = |name: &str| LogTarget::File(folder.join(name));
    let good = log(target("access"), target("error"));
    let rings = begin(&good);
    let mut bad = good.clone();
    bad.access_format = "%(z)s".to_owned();
    bad.level = Level::Critical;
    let failure = apply(&bad).expect_err("the format is wrong").to_string();
    assert!(
        failure.starts_with("log.access_format: unknown atom %(z)s at character 1"),
        "{failure}"
    );
    bad = good.clone();
    bad.error = target("missing/error");
    let failure = open_each(&bad).expect_err("there is no folder");
    assert!(failure.starts_with("failed to open the error log /"), "{failure}");
    assert_eq!(named_fields().request, [header::USER_AGENT]);
    tracing::info!("still here");
    write_access("still", 3);
    flush(&rings, &good);
}

#[test]
fn every_process_has_its_own_lines() {
    if let Some(given) = given() {
        return child_with_a_ring_of_its_own(&given);
    }
    let folder = run("every_process_has_its_own_lines");
    let read = |name| fs::read_to_string(folder.path().join(name)).expect("the log is there");
    assert_eq!(read("access"), "@1 A 1.\n@2 A 1.\n");
}

fn child_with_a_ring_of_its_own(folder: &Path) {
    let log = log(LogTarget::File(folder.join("access")), LogTarget::Off);
    let mut rings = begin(&log);
    write_access("1", 1);
    // What waits in its parent's ring is not the child's.
    adopt(rings.ring(1).expect("a ring"));
    write_access("2", 1);
    flush(&rings, &log);
    // Without a ring nothing reads it.
    leave(&rings, false);
    write_access("3", 1);
    flush(&rings, &log);
}

#[test]
fn a_process_that_must_not_wait_drops_lines_and_others_wait_while_they_may() {
    if let Some(given) = given() {
        return child_that_finds_no_room(&given);
    }
    let folder = run("a_process_that_must_not_wait_drops_lines_and_others_wait_while_they_may");
    let access = fs::read_to_string(folder.path().join("access")).expect("the log is there");
    let ids: Vec<&str> = access.lines().map(id_of).collect();
    assert_eq!(ids.len(), 13, "a ring of 1 MiB gives 768 KiB to access lines");
    assert!(ids.iter().all(|id| *id == "1"));
}

fn child_that_finds_no_room(folder: &Path) {
    let log = log(LogTarget::File(folder.join("access")), LogTarget::Off);
    assert_eq!(log.when_full, WhenFull::Block);
    let rings = begin(&log);
    let lost = || {
        let mut lost = 0;
        rings.read_rest(|next, _| match next {
            Next::Lost(gap) => lost += gap.lines,
            Next::Line(_) | Next::Nothing | Next::Corrupted { .. } => {}
        });
        lost
    };
    let noted = RefCell::new(Vec::new());
    let write =
        |id: &str| write_noted_access(id, 60_000, |settled| noted.borrow_mut().push(settled));
    let has_line = |noted| rings.settled(MASTER).expect("it can be mapped") != noted;
    for _ in 0..20 {
        let before = noted.borrow().len();
        write("1");
        let [Some(settled)] = noted.borrow()[before..] else { panic!("{noted:?}") };
        assert!(has_line(settled), "what is written has its line, and so has what is lost");
    }
    assert_eq!(lost(), 7, "it does not wait, as nobody has said that it may");
    let asked = Arc::new(AtomicU32::new(0));
    let asks = Arc::clone(&asked);
    wait_for_room(move || match asks.fetch_add(1, Ordering::Relaxed) {
        0..3 => RoomWait::Continue,
        _ => RoomWait::GiveUp,
    });
    noted.borrow_mut().clear();
    write("2");
    assert_eq!((asked.load(Ordering::Relaxed), lost()), (4, 8));
    let [Some(settled), None, .., None, Some(last)] = noted.borrow()[..] else {
        panic!("{noted:?}: while it waits others may write")
    };
    assert_eq!(settled, last, "nobody else has written");
    assert!(has_line(last), "it is counted as lost");
    flush(&rings, &log);
}

#[test]
fn a_field_that_logs_while_it_is_written_does_not_lock_up() {
    if let Some(given) = given() {
        return child_with_a_chatty_field(&given);
    }
    let folder = run("a_field_that_logs_while_it_is_written_does_not_lock_up");
    let lines = messages(&folder.path().join("error"));
    assert_eq!(lines, ["INFO] inner", "INFO] outer field=chatty"].map(str::to_owned));
}

fn child_with_a_chatty_field(folder: &Path) {
    struct Chatty;
    impl std::fmt::Display for Chatty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            tracing::info!("inner");
            f.write_str("chatty")
        }
    }
    let error = LogTarget::File(folder.join("error"));
    let log = log(LogTarget::Off, error);
    let rings = begin(&log);
    // The subscriber of one thread alone would leave out what is logged within.
    set_global(Layers::new()).expect("this process has none");
    tracing::info!(field = %Chatty, "outer");
    flush(&rings, &log);
}

#[test]
fn dates_are_in_the_zone_of_the_process() {
    for (zone, offset) in [("<-03>3", "-0300"), ("", "+0000"), ("No/Such_Place", "+0000")] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command =
            command("a_field_that_logs_while_it_is_written_does_not_lock_up", folder.path());
        assert!(command.env("TZ", zone).status().expect("a child ends").success());
        let error = fs::read_to_string(folder.path().join("error")).expect("the log is there");
        assert_eq!(error.split([' ', ']']).nth(2), Some(offset), "{zone}: {error}");
    }
}
