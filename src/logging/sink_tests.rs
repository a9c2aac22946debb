//! Real pipes and real files.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Level, LogFormat};

fn log(access: LogTarget, error: LogTarget) -> Log {
    Log {
        access,
        error,
        level: Level::Info,
        access_format: "json".to_owned(),
        format: LogFormat::Text,
        when_full: WhenFull::Drop,
    }
}

fn file(path: &Path) -> LogTarget {
    LogTarget::File(path.to_owned())
}

/// A pipe, and the path by which a sink opens it.
fn pipe() -> (PipeReader, PipeWriter, PathBuf) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    (reader, writer, path)
}

fn sink(log: &Log) -> Sink {
    let mut sink = Sink::OFF;
    sink.set_targets(log).expect("the targets can be opened");
    sink
}

fn line(text: &str) -> impl FnOnce(&mut Vec<u8>) {
    move |out| out.extend_from_slice(format!("{text}\n").as_bytes())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the file is there")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Says every notice as its `Debug` text, as the module around does with its formats.
fn say_notices(sink: &mut Sink) {
    for notice in sink.take_notices() {
        let text = format!("{:?}", notice.news);
        sink.say(&notice, line(&text));
    }
}

#[test]
fn access_lines_wait_for_company_and_errors_do_not() {
    let folder = folder();
    let path = folder.path().join("both.log");
    let mut sink = sink(&log(file(&path), file(&path)));
    let now = clock::now();
    sink.access(now, line("a1"));
    sink.access(now, line("a2"));
    assert_eq!(read(&path), "");
    assert!(sink.has_pending());
    sink.error(line("e1"));
    assert_eq!(read(&path), "a1\na2\ne1\n", "one target has one order");
    assert!(!sink.has_pending());
    sink.access(now, line("a3"));
    sink.flush();
    assert_eq!(read(&path), "a1\na2\ne1\na3\n");
}

#[test]
fn the_error_log_does_not_hurry_another_file() {
    let folder = folder();
    let (access, error) = (folder.path().join("access"), folder.path().join("error"));
    let mut sink = sink(&log(file(&access), file(&error)));
    sink.access(clock::now(), line("a"));
    sink.error(line("e"));
    assert_eq!((read(&access), read(&error)), (String::new(), "e\n".to_owned()));
    sink.flush();
    assert_eq!(read(&access), "a\n");
}

#[test]
fn lines_are_written_when_they_are_old() {
    let folder = folder();
    let path = folder.path().join("access");
    let mut sink = sink(&log(file(&path), LogTarget::Off));
    let now = clock::now();
    sink.access(now, line("1"));
    sink.access(now + AGE_MAX - Duration::from_millis(1), line("2"));
    assert_eq!(read(&path), "");
    sink.access(now + AGE_MAX, line("3"));
    assert_eq!(read(&path), "1\n2\n3\n");
    sink.access(now + AGE_MAX * 2 - Duration::from_millis(1), line("4"));
    assert_eq!(read(&path), "1\n2\n3\n", "the age is that of the oldest that waits");
}

#[test]
fn lines_are_written_to_a_pipe_when_there_are_enough() {
    let (mut reader, writer, path) = pipe();
    let mut sink = sink(&log(file(&path), LogTarget::Off));
    let now = clock::now();
    // 40 lines of 100 bytes fill a batch up to 4000 bytes, the 41st makes it go.
    let text = "x".repeat(99);
    for _ in 0..40 {
        sink.access(now, line(&text));
    }
    let mut batch = [0; 8192];
    sink.access(now, line(&text));
    assert_eq!(sink.streams[0].lines.waiting(), 100);
    assert_eq!(reader.read(&mut batch).expect("a batch is there"), 4000);
    sink.flush();
    assert!(!sink.has_pending());
    assert_eq!(reader.read(&mut batch).expect("the rest is there"), 100);
    // A line longer than a batch goes at once and alone, behind what came before.
    sink.access(now, line("short"));
    sink.access(now, line(&"y".repeat(4999)));
    assert!(!sink.has_pending());
    assert_eq!(reader.read(&mut batch).expect("both are there"), 5006);
    drop(writer);
}

#[test]
fn a_pipe_that_nobody_reads_stalls_nobody_and_every_lost_line_is_counted() {
    let (mut reader, writer, path) = pipe();
    let mut sink = sink(&log(file(&path), file(&path)));
    let now = clock::now();
    // Twice what fits into the pipe and the memory behind it.
    let count = 2 * (ROOM + 65_536) / 100;
    for number in 0..count {
        sink.access(now, line(&format!("{number:099}")));
    }
    sink.error(line("an error has room of its own"));
    say_notices(&mut sink);
    assert!(sink.has_pending());

    let mut text = Vec::new();
    let mut batch = vec![0; 65_536];
    while sink.has_pending() {
        let length = reader.read(&mut batch).expect("lines are there");
        text.extend_from_slice(&batch[..length]);
        sink.flush();
        say_notices(&mut sink);
    }
    drop((sink, writer));
    reader.read_to_end(&mut text).expect("the rest is there");

    let text = String::from_utf8(text).expect("lines are text");
    let (accesses, others): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.len() == 99);
    let numbers: Vec<usize> = accesses.iter().map(|line| line.parse().expect("a number")).collect();
    assert!(numbers.iter().enumerate().all(|(place, number)| place == *number), "no gap but one");
    assert!(numbers.len() < count);
    assert_eq!(others.len(), 2, "{others:?}");
    assert_eq!(others[0], "an error has room of its own");
    let dropped = format!("Dropped {{ lines: {},", count - numbers.len());
    assert!(others[1].starts_with(&dropped), "{} is not {dropped}", others[1]);
    assert!(others[1].contains("nobody reads it"), "{}", others[1]);
}

#[test]
fn a_reader_that_goes_away_ends_nothing() {
    let folder = folder();
    let error = folder.path().join("error");
    let (reader, writer, path) = pipe();
    let mut sink = sink(&log(file(&path), file(&error)));
    drop(reader);
    for _ in 0..3 {
        sink.access(clock::now(), line("nobody sees it"));
        sink.flush();
        say_notices(&mut sink);
    }
    assert!(!sink.has_pending());
    assert_eq!(read(&error), "Failing(\"Broken pipe (os error 32)\")\n", "said once");

    // Somebody opens the other end again: the pipe lives while its writer does.
    let mut reader = fs::File::open(&path).expect("a pipe can be opened by its name");
    sink.access(clock::now(), line("seen again"));
    sink.flush();
    say_notices(&mut sink);
    drop((sink, writer));
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("a line is there");
    assert_eq!(text, "seen again\n");
    let error = read(&error);
    let dropped = error.lines().nth(1).expect("a second line");
    assert!(dropped.starts_with("Dropped { lines: 3,"), "{dropped}");
    assert_eq!(error.lines().count(), 2);
}

#[test]
fn a_full_disk_ends_nothing() {
    let folder = folder();
    let error = folder.path().join("error");
    let mut sink = sink(&log(file(Path::new("/dev/full")), file(&error)));
    sink.access(clock::now(), line("1"));
    sink.flush();
    sink.access(clock::now(), line("2"));
    sink.flush();
    say_notices(&mut sink);
    assert_eq!(read(&error), "Failing(\"No space left on device (os error 28)\")\n");
    // The log that fails cannot say so of itself.
    let mut alone = Sink::OFF;
    let full = file(Path::new("/dev/full"));
    alone.set_targets(&log(full.clone(), full)).expect("it can be opened");
    alone.error(line("1"));
    assert_eq!(alone.take_notices(), []);
}

#[test]
fn moved_files_are_made_again() {
    let folder = folder();
    let (access, moved) = (folder.path().join("access"), folder.path().join("access.1"));
    let mut sink = sink(&log(file(&access), LogTarget::Off));
    sink.access(clock::now(), line("old"));
    fs::rename(&access, &moved).expect("a file can be moved");
    sink.reopen().expect("the file can be made");
    sink.access(clock::now(), line("new"));
    sink.flush();
    assert_eq!((read(&moved), read(&access)), ("old\n".to_owned(), "new\n".to_owned()));
}

#[test]
fn a_file_that_cannot_be_made_again_stays_as_it_was() {
    let folder = folder();
    let (inner, access) = (folder.path().join("inner"), folder.path().join("inner/access"));
    let error = folder.path().join("error");
    fs::create_dir(&inner).expect("a folder can be made");
    let mut sink = sink(&log(file(&access), file(&error)));
    let gone = folder.path().join("gone");
    fs::rename(&inner, &gone).expect("a folder can be moved");
    fs::rename(&error, folder.path().join("error.1")).expect("a file can be moved");
    let failure = sink.reopen().expect_err("its folder is gone").to_string();
    let expected = format!("failed to reopen the log {}: No such file", access.display());
    assert!(failure.starts_with(&expected), "{failure}");
    sink.access(clock::now(), line("kept"));
    sink.error(line("other"));
    sink.flush();
    assert_eq!(read(&gone.join("access")), "kept\n");
    assert_eq!(read(&error), "other\n", "the other file is made again");
}

#[test]
fn files_are_appended_to() {
    let folder = folder();
    let path = folder.path().join("access");
    fs::write(&path, "there before\n").expect("a file can be made");
    let mut sink = sink(&log(file(&path), LogTarget::Off));
    sink.access(clock::now(), line("new"));
    sink.flush();
    assert_eq!(read(&path), "there before\nnew\n");
}

#[test]
fn a_target_that_cannot_be_opened_changes_nothing() {
    let folder = folder();
    let path = folder.path().join("error");
    let mut sink = sink(&log(file(&path), file(&path)));
    sink.access(clock::now(), line("waits"));
    let missing = folder.path().join("missing/access.log");
    let failure = sink.set_targets(&log(file(&missing), LogTarget::Off)).expect_err("no folder");
    let expected = format!(
        "failed to open the access log {}: No such file or directory (os error 2)",
        missing.display()
    );
    assert_eq!(failure.to_string(), expected);
    assert_eq!(failure.kind(), io::ErrorKind::NotFound);
    sink.error(line("still here"));
    assert_eq!(read(&path), "waits\nstill here\n");
}

#[test]
fn new_targets_take_the_place_of_old_ones() {
    let folder = folder();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let mut sink = sink(&log(file(&one), file(&one)));
    sink.access(clock::now(), line("1"));
    sink.set_targets(&log(file(&two), file(&one))).expect("both can be opened");
    assert_eq!(sink.streams.len(), 2);
    sink.access(clock::now(), line("2"));
    sink.error(line("3"));
    sink.set_targets(&log(file(&two), LogTarget::Off)).expect("it is open");
    assert_eq!(sink.streams.len(), 1, "what nobody uses is closed");
    sink.error(line("nowhere"));
    sink.access(clock::now(), line("4"));
    sink.set_targets(&log(LogTarget::Off, LogTarget::Off)).expect("nothing to open");
    sink.access(clock::now(), line("nowhere"));
    sink.flush();
    assert!(!sink.has_pending());
    assert_eq!((read(&one), read(&two)), ("1\n3\n".to_owned(), "2\n4\n".to_owned()));
}

#[test]
fn lines_for_a_target_that_is_taken_away_are_counted() {
    let folder = folder();
    let error = folder.path().join("error");
    let (_reader, _writer, path) = pipe();
    let mut sink = sink(&log(file(&path), file(&error)));
    let full = "x".repeat(4095);
    for _ in 0..16 {
        sink.access(clock::now(), line(&full));
    }
    sink.flush();
    for number in 0..5 {
        sink.access(clock::now(), line(&number.to_string()));
    }
    sink.set_targets(&log(LogTarget::Off, file(&error))).expect("nothing to open");
    say_notices(&mut sink);
    let error = read(&error);
    assert!(error.starts_with("Dropped { lines: 5,"), "{error}");
    assert!(error.contains("another target has taken its place"), "{error}");
}

#[test]
fn a_child_of_a_fork_writes_nothing_of_its_parent() {
    let folder = folder();
    let path = folder.path().join("access");
    let mut sink = sink(&log(file(&path), LogTarget::Off));
    sink.access(clock::now(), line("the parent's"));
    sink.forget();
    assert!(!sink.has_pending());
    sink.access(clock::now(), line("the child's"));
    sink.flush();
    assert_eq!(read(&path), "the child's\n");
}
