//! The logger at work, in a thread: real rings, real files and pipes.

// ORDERING: a flag that ends a flood stands for itself: Relaxed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;

use super::*;
use crate::config::{Level, LogFormat, LogTarget, WhenFull};
use crate::logging::Kind;
use crate::sys::channel::{self, Upper};

/// The time that anything may take that is expected to happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

fn log(path: &Path) -> Log {
    let log = Log {
        access: LogTarget::File(path.to_owned()),
        error: LogTarget::File(path.to_owned()),
        level: Level::Info,
        access_format: "%(h)s".to_owned(),
        skip: Vec::new(),
        slow: None,
        format: LogFormat::Text,
        when_full: WhenFull::Drop,
    };
    logging::apply(&log).expect("it is right");
    log
}

/// A logger in a thread; its exit code comes through the handle.
fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    rings: &Rings,
    log: Log,
) -> (Upper, std::thread::ScopedJoinHandle<'scope, i32>) {
    let (master, channel) = channel::pair().expect("a channel");
    let logger = Logger::new(&log, rings.copy(), channel).expect("rings can be mapped");
    (master, scope.spawn(move || logger.run()))
}

fn order(master: &Upper, order: LogOrder) {
    master.send(&order.encode(), &[]).expect("there is room");
}

/// Makes another ring, and sends it to the logger.
fn send_ring(master: &Upper, rings: &mut Rings) -> impl FnMut(Kind, &[u8]) + use<> {
    let place = rings.count();
    let ring = rings.ring(place).expect("a ring");
    let descriptors = rings.descriptors().last().expect("the one that was made");
    let place = u16::try_from(place).expect("there are few");
    master.send(&LogOrder::Ring { place }.encode(), &descriptors).expect("there is room");
    ring.into_writer()
}

/// Waits until the file holds exactly this.
fn await_text(path: &Path, text: &str) {
    let deadline = now().after(TEST_TIMEOUT);
    loop {
        let found = fs::read_to_string(path).ok();
        if found.as_deref() == Some(text) {
            return;
        }
        assert!(now() < deadline, "{} holds {found:?}, not {text:?}", path.display());
        clock::nap(Duration::from_millis(2));
    }
}

#[test]
fn lines_of_every_ring_are_written_and_it_wakes_for_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let mut rings = Rings::new().expect("memory can be shared");
    let mut first = rings.ring(0).expect("a ring").into_writer();
    first(Kind::Error, b"before there was a logger\n");
    std::thread::scope(|scope| {
        let (master, logger) = start(scope, &rings, log(&path));
        let mut text = "before there was a logger\n".to_owned();
        await_text(&path, &text);
        // A ring that is made while it sleeps.
        let mut second = send_ring(&master, &mut rings);
        for number in 0..20 {
            let line = format!("{number}\n");
            match number % 2 {
                0 => first(Kind::Access, line.as_bytes()),
                _ => second(Kind::Access, line.as_bytes()),
            }
            text.push_str(&line);
            await_text(&path, &text);
        }
        first(Kind::Access, b"and the last\n");
        order(&master, LogOrder::Finish);
        assert_eq!(logger.join().expect("it does not panic"), 0);
        text.push_str("and the last\n");
        await_text(&path, &text);
    });
}

#[test]
fn what_was_said_before_a_reopening_goes_to_the_old_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let moved = folder.path().join("log.1");
    let mut rings = Rings::new().expect("memory can be shared");
    let mut write = rings.ring(0).expect("a ring").into_writer();
    std::thread::scope(|scope| {
        let (master, logger) = start(scope, &rings, log(&path));
        write(Kind::Access, b"1\n");
        await_text(&path, "1\n");
        fs::rename(&path, &moved).expect("a file can be moved");
        write(Kind::Access, b"2\n");
        order(&master, LogOrder::Reopen);
        await_text(&path, "");
        write(Kind::Access, b"3\n");
        order(&master, LogOrder::Finish);
        assert_eq!(logger.join().expect("it does not panic"), 0);
    });
    await_text(&moved, "1\n2\n");
    await_text(&path, "3\n");
}

#[test]
fn a_reader_that_stops_costs_counted_lines_and_no_error() {
    const LINES: u64 = 40_000;
    let (reader, writer) = io::pipe().expect("a pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    let mut rings = Rings::new().expect("memory can be shared");
    let mut write = rings.ring(0).expect("a ring").into_writer();
    let mut received = 0;
    let mut lost = 0;
    let mut errors = 0;
    std::thread::scope(|scope| {
        let (master, logger) = start(scope, &rings, log(&path));
        // The pipe ends with the logger.
        drop(writer);
        for number in 0..LINES {
            write(Kind::Access, format!("{number:099}\n").as_bytes());
            if number % 100 == 0 {
                write(Kind::Error, format!("error {number}\n").as_bytes());
            }
        }
        order(&master, LogOrder::Finish);
        for line in BufReader::new(reader).lines() {
            let line = line.expect("lines are text");
            if let Some(number) = line.strip_prefix("error ") {
                assert_eq!(number.parse(), Ok(errors * 100), "no error is lost");
                errors += 1;
            } else if let Some((_, event)) = line.split_once("log lines dropped: ") {
                lost +=
                    event.split(' ').next().and_then(|part| part.parse::<u64>().ok()).expect(event);
            } else {
                let number: u64 = line.parse().unwrap_or_else(|_| panic!("torn: {line}"));
                assert_eq!(number, received + lost, "each gap is told where it is");
                received += 1;
            }
        }
        assert_eq!(logger.join().expect("it does not panic"), 0);
    });
    assert_eq!(received + lost, LINES);
    assert!(lost > LINES / 2, "{lost}: a ring of 1 MiB is too small for all of them");
    assert_eq!(errors, LINES / 100);
}

#[test]
fn a_logger_that_dies_leaves_its_count_of_lost_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = folder.path().join("error");
    let full = PathBuf::from("/dev/full");
    let log = Log { access: LogTarget::File(full), ..log(&error) };
    let mut rings = Rings::new().expect("memory can be shared");
    let mut write = rings.ring(0).expect("a ring").into_writer();
    for number in 1..=3 {
        let (_master, channel) = channel::pair().expect("a channel");
        let mut logger = Logger::new(&log, rings.copy(), channel).expect("rings can be mapped");
        write(Kind::Access, format!("{number}\n").as_bytes());
        assert_eq!(logger.pump(), Found::All);
    }
    std::thread::scope(|scope| {
        let (master, logger) = start(scope, &rings, log);
        order(&master, LogOrder::Finish);
        assert_eq!(logger.join().expect("it does not panic"), 0);
    });
    let text = fs::read_to_string(&error).expect("the log is there");
    assert_eq!(text.matches("log lines dropped: 3 in ").count(), 1, "{text}");
    assert_eq!(rings.consumers(0).expect("rings can be mapped")[MASTER].notes(), [0; 5]);
}

/// Processes write faster than their reader reads, without end: whatever else there is to do is done.
#[test]
fn a_flood_keeps_the_logger_from_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = folder.path().join("error");
    let moved = folder.path().join("error.1");
    let (reader, writer) = io::pipe().expect("a pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    let mut rings = Rings::new().expect("memory can be shared");
    let mut write = rings.ring(0).expect("a ring").into_writer();
    let flows = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let log = Log { access: LogTarget::File(path), ..log(&error) };
        let (master, logger) = start(scope, &rings, log);
        drop(writer);
        let flows = &flows;
        let flood = scope.spawn(move || {
            let _ended = Ends(flows);
            let deadline = now().after(TEST_TIMEOUT);
            while flows.load(Ordering::Relaxed) {
                write(Kind::Access, &[b'a'; 999]);
                assert!(now() < deadline, "nobody has ended the flood");
            }
        });
        scope.spawn(move || {
            let mut reader = reader;
            let mut text = [0; 4096];
            while io::Read::read(&mut reader, &mut text).is_ok_and(|length| length > 0) {
                // Slower than who writes.
                std::thread::yield_now();
            }
        });
        let _ended = Ends(flows);
        let mut late = send_ring(&master, &mut rings);
        late(Kind::Error, b"of a new process\n");
        await_line(&error, "of a new process");
        fs::rename(&error, &moved).expect("a file can be moved");
        order(&master, LogOrder::Reopen);
        eventually("the new file is there", || error.exists());
        late(Kind::Error, b"after the rotation\n");
        await_line(&error, "after the rotation");
        assert!(!holds_line(&error, "of a new process"));
        order(&master, LogOrder::Finish);
        assert_eq!(logger.join().expect("it does not panic"), 0);
        assert!(flows.load(Ordering::Relaxed), "the flood has ended before");
        flows.store(false, Ordering::Relaxed);
        flood.join().expect("the flood was ended");
    });
}

/// Returns true if one line of the file is this.
fn holds_line(path: &Path, line: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.lines().any(|other| other == line))
}

fn await_line(path: &Path, line: &str) {
    eventually(line, || holds_line(path, line));
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = now().after(TEST_TIMEOUT);
    while !is_so() {
        assert!(now() < deadline, "not within {TEST_TIMEOUT:?}: {what}");
        clock::nap(Duration::from_millis(2));
    }
}

/// Ends a flood, however this ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_mad_process_ruins_its_own_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let mut rings = Rings::new().expect("memory can be shared");
    let mut sane = rings.ring(0).expect("a ring").into_writer();
    let mad = rings.ring(1).expect("a ring");
    std::thread::scope(|scope| {
        let (master, logger) = start(scope, &rings, log(&path));
        let mut text = String::new();
        for number in 0..50_u64 {
            mad.scribble(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            sane(Kind::Access, format!("sane {number}\n").as_bytes());
            text.push_str(&format!("sane {number}\n"));
            let deadline = now().after(TEST_TIMEOUT);
            let written = || fs::read(&path).unwrap_or_default();
            let is_last =
                || String::from_utf8_lossy(&written()).contains(&format!("sane {number}\n"));
            while !is_last() {
                assert!(now() < deadline, "line {number} is not written");
                clock::nap(Duration::from_millis(1));
            }
        }
        order(&master, LogOrder::Finish);
        assert_eq!(logger.join().expect("it does not panic"), 0);
        let found =
            String::from_utf8_lossy(&fs::read(&path).expect("the log is there")).into_owned();
        let sane: String = found
            .lines()
            .filter(|line| line.starts_with("sane "))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(sane, text);
        let complaints = found.matches("its ring is corrupted").count();
        assert!((1..=50).contains(&complaints), "{complaints}");
    });
}

#[test]
fn without_a_master_it_writes_for_a_moment_and_leaves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let mut rings = Rings::new().expect("memory can be shared");
    let mut write = rings.ring(0).expect("a ring").into_writer();
    std::thread::scope(|scope| {
        let (master, logger) = start(scope, &rings, log(&path));
        let began = now();
        drop(master);
        write(Kind::Access, b"a worker is still there\n");
        await_text(&path, "a worker is still there\n");
        assert_eq!(logger.join().expect("it does not panic"), 0);
        assert!(now().since(began) >= ORPHANED);
    });
}

/// A record and a printed line, each in the name of another process of the server, stand in the log as
/// words of their writer; names that are its own or a stranger's pass.
#[test]
fn line_naming_another_process_is_reported_as_forged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let mut rings = Rings::new().expect("memory can be shared");
    let mut write = rings.ring(1).expect("a ring").into_writer();
    let mut of_master = rings.ring(MASTER).expect("a ring").into_writer();
    rings.own(MASTER, 71);
    rings.own(1, 72);
    let own = "[2024-03-21 10:26:38 +0000] [72] [INFO] its own\n";
    let stranger = "[2024-03-21 10:26:38 +0000] [73] [INFO] no process of this server\n";
    std::thread::scope(|scope| {
        let (master, logger) = start(scope, &rings, log(&path));
        for (kind, pid) in [(Kind::Error, "71".to_owned()), (Kind::Access, "71".to_owned())]
            .into_iter()
            .chain([(Kind::Error, process::pid().to_string())])
        {
            write(kind, format!("[2024-03-21] [{pid}] [INFO] forged\n").as_bytes());
        }
        write(Kind::Error, own.as_bytes());
        write(Kind::Error, stranger.as_bytes());
        of_master(Kind::Access, own.as_bytes());
        order(&master, LogOrder::Finish);
        assert_eq!(logger.join().expect("it does not panic"), 0);
    });
    let found = fs::read_to_string(&path).expect("the log is there");
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 6, "{found}");
    assert_eq!(
        found.matches(own).count(),
        2,
        "the master's line of what a worker has lost is there: {found}"
    );
    let forged = lines.iter().filter(|line| line.contains("forged"));
    for (line, pid) in forged.zip([71, 71, process::pid()]) {
        let told = format!(
            "[WARNING] a line in the name of process {pid} was written by process 72: \"[2024-03-21] [{pid}] \
             [INFO] forged\""
        );
        assert!(line.contains(&told), "{line}");
    }
    assert!(found.contains(&format!("{own}{stranger}")), "{found}");
}

/// An owner that has ended and one that is not noted yet may use their names.
#[test]
fn owner_that_is_gone_or_new_is_no_other() {
    let rings = Rings::new().expect("memory can be shared");
    let mut owners = Owners::new(rings.owners().expect("it can be mapped"));
    owners.count = 3;
    rings.own(1, 72);
    assert!(owners.is_foreign(2, 72) && !owners.is_foreign(1, 72) && !owners.is_foreign(2, 73));
    rings.own(1, 0);
    assert!(!owners.is_foreign(2, 72) && !owners.is_foreign(2, 0));
    assert_eq!((owners.of(1), owners.of(MASTER)), (None, u64::try_from(process::pid()).ok()));
}
