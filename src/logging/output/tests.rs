//! Real files, real pipes, and a device that is always full.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Level, LogFormat, WhenFull};
use crate::logging::ring::Lost;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn open(access: &Path, error: &Path) -> Outlets {
    let log = Log {
        access: LogTarget::File(access.to_owned()),
        error: LogTarget::File(error.to_owned()),
        level: Level::Info,
        access_format: "%(h)s".to_owned(),
        skip: Vec::new(),
        slow: None,
        format: LogFormat::Text,
        when_full: WhenFull::Drop,
    };
    // Events are written in the format of the process.
    crate::logging::apply(&log).expect("it is right");
    Outlets::open(&log, at(0))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the file is there")
}

/// The lines of a file, events without their date and pid.
fn lines(path: &Path) -> Vec<String> {
    let bare = |line: &str| line.splitn(3, "] [").last().unwrap_or_default().to_owned();
    read(path).lines().map(bare).collect()
}

/// A folder with a link to a file on a disk that is full.
fn full() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let full = folder.path().join("full");
    let sound = folder.path().join("sound");
    symlink("/dev/full", &full).expect("a link can be made");
    (folder, full, sound)
}

/// Puts an empty disk where the full one was.
fn heal(outlets: &mut Outlets, full: &Path) {
    fs::remove_file(full).expect("the link is ours");
    outlets.reopen();
}

#[test]
fn one_target_has_one_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("both");
    let mut outlets = open(&path, &path);
    outlets.add(Kind::Access, b"a1\n");
    outlets.add(Kind::Error, b"e1\n");
    assert_eq!(read(&path), "", "they are written together");
    outlets.add(Kind::Access, b"a2\n");
    outlets.write(at(0));
    outlets.add(Kind::Error, b"e2\n");
    outlets.write(at(0));
    assert_eq!(read(&path), "a1\ne1\na2\ne2\n");
}

#[test]
fn each_log_has_its_own_file_and_what_is_off_vanishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let access = folder.path().join("access");
    let error = folder.path().join("error");
    let mut outlets = open(&access, &error);
    let add = |outlets: &mut Outlets| {
        outlets.add(Kind::Access, b"a\n");
        outlets.add(Kind::Error, b"e\n");
        outlets.write(at(0));
    };
    add(&mut outlets);
    outlets.access = None;
    add(&mut outlets);
    assert_eq!((read(&access), read(&error)), ("a\n".to_owned(), "e\ne\n".to_owned()));
}

#[test]
fn a_line_without_an_end_is_given_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("both");
    let mut outlets = open(&path, &path);
    for line in [&b"torn"[..], b"", b"whole\n", b"two\nlines"] {
        outlets.add(Kind::Access, line);
    }
    outlets.write(at(0));
    assert_eq!(read(&path), "torn\nwhole\ntwo\nlines\n");
}

#[test]
fn what_a_full_disk_does_not_take_is_counted_and_said_elsewhere() {
    let (_folder, full, sound) = full();
    let mut outlets = open(&full, &sound);
    for (millis, lines) in [(1000, "1\n2\n"), (2000, "3\n"), (4500, "4\n")] {
        outlets.add(Kind::Access, lines.as_bytes());
        outlets.add(Kind::Error, b"[] [] [INFO] goes on\n");
        outlets.write(at(millis));
    }
    let failing = format!(
        "WARNING] cannot write to log {}: No space left on device (os error 28); its lines are \
         dropped until it can be written",
        full.display()
    );
    let goes_on = "INFO] goes on".to_owned();
    let mut expected = vec![goes_on.clone(), failing, goes_on.clone(), goes_on];
    assert_eq!(lines(&sound), expected);
    assert!(outlets.has_trouble());
    heal(&mut outlets, &full);
    outlets.add(Kind::Access, b"5\n");
    outlets.write(at(9000));
    expected.push(format!(
        "WARNING] log lines dropped: 4 in 3.5 s of {}: No space left on device (os error 28)",
        full.display()
    ));
    assert_eq!((read(&full), lines(&sound)), ("5\n".to_owned(), expected));
    assert!(!outlets.has_trouble());
}

#[test]
fn who_leaves_tells_every_count() {
    let (_folder, full, sound) = full();
    let mut outlets = open(&full, &sound);
    outlets.add(Kind::Access, b"1\n2\n");
    outlets.write(at(0));
    outlets.finish(at(1000));
    let said = lines(&sound);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].starts_with("WARNING] log lines dropped: 2 in "), "{said:?}");
    assert_eq!(outlets.untold(), [Untold::default(); 2]);
    outlets.finish(at(2000));
    assert_eq!(lines(&sound).len(), 2, "it is told once");
}

#[test]
fn a_count_outlives_who_made_it() {
    let (_folder, full, sound) = full();
    let mut outlets = open(&full, &sound);
    outlets.add(Kind::Access, b"1\n2\n3\n");
    outlets.write(at(1000));
    let untold = outlets.untold();
    assert_eq!(untold, [Untold::default(), Untold { lines: 3, since: at(1000) }]);
    drop(outlets);
    let mut outlets = open(&full, &sound);
    outlets.inherit(untold, at(2000));
    outlets.add(Kind::Access, b"4\n");
    outlets.write(at(3000));
    heal(&mut outlets, &full);
    outlets.add(Kind::Access, b"5\n");
    outlets.write(at(4000));
    let said = lines(&sound);
    let expected = "WARNING] log lines dropped: 4 in 2 s of ";
    assert!(said.last().is_some_and(|said| said.starts_with(expected)), "{said:?}");
    // And one who has a single target for both logs inherits the counts of two.
    let mut outlets = open(&sound, &sound);
    outlets.inherit([Untold { lines: 5, since: at(1) }, Untold { lines: 6, since: at(2) }], at(3));
    assert_eq!(outlets.untold()[0].lines, 11);
}

#[test]
fn a_broken_device_is_like_a_full_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken");
    let sound = folder.path().join("sound");
    // Nothing is ever mapped at its beginning.
    symlink("/proc/self/mem", &broken).expect("a link can be made");
    let mut outlets = open(&broken, &sound);
    for millis in [0, 1000] {
        outlets.add(Kind::Access, b"1\n2\n");
        outlets.write(at(millis));
    }
    heal(&mut outlets, &broken);
    outlets.add(Kind::Access, b"3\n");
    outlets.write(at(2000));
    let cause = "Input/output error (os error 5)";
    let said = lines(&sound);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("WARNING] cannot write") && said[0].contains(cause), "{said:?}");
    let dropped = said[1].starts_with("WARNING] log lines dropped: 4 in 1 s of ");
    assert!(dropped && said[1].ends_with(cause), "{said:?}");
    assert_eq!(read(&broken), "3\n");
}

#[test]
fn the_only_log_says_it_itself_when_it_can_though_no_line_comes() {
    let (_folder, full, _) = full();
    let mut outlets = open(&full, &full);
    outlets.add(Kind::Access, b"1\n");
    // A line that speaks of lost lines is lost with them.
    let lost = Lost { lines: 7, span: Duration::from_secs(1), pid: Some(1) };
    outlets.add_event(&LoggingEvent::unread(lost));
    outlets.write(at(0));
    outlets.retry(at(1000));
    outlets.retry(at(2000));
    assert!(outlets.has_trouble());
    heal(&mut outlets, &full);
    outlets.retry(at(3000));
    assert!(!outlets.has_trouble());
    let expected = format!(
        "WARNING] log lines dropped: 9 in 2 s of {}: No space left on device (os error 28)",
        full.display()
    );
    assert_eq!(lines(&full), [expected]);
    outlets.retry(at(4000));
    assert_eq!(lines(&full).len(), 1, "it is said once");
}

#[test]
fn a_file_that_cannot_be_opened_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = folder.path().join("error");
    let late = folder.path().join("late");
    let access = late.join("access");
    let mut outlets = open(&access, &error);
    outlets.add(Kind::Access, b"1\n");
    outlets.write(at(0));
    assert_eq!(lines(&error).len(), 1, "{:?}", lines(&error));
    fs::create_dir(&late).expect("a folder can be made");
    outlets.retry(at(1000));
    assert!(!outlets.has_trouble());
    assert!(lines(&error)[1].starts_with("WARNING] log lines dropped: 1 in "));
    outlets.add(Kind::Access, b"2\n");
    outlets.write(at(1000));
    assert_eq!(read(&access), "2\n");
}

#[test]
fn a_file_that_cannot_be_reopened_is_written_to_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().join("here");
    let there = folder.path().join("there");
    fs::create_dir(&here).expect("a folder can be made");
    let mut outlets = open(&here.join("access"), &folder.path().join("error"));
    let add = |outlets: &mut Outlets, line: &[u8]| {
        outlets.add(Kind::Access, line);
        outlets.write(at(0));
    };
    add(&mut outlets, b"1\n");
    fs::rename(&here, &there).expect("a folder can be moved");
    outlets.reopen();
    add(&mut outlets, b"2\n");
    assert!(outlets.has_trouble());
    outlets.reopen();
    outlets.retry(at(1000));
    fs::create_dir(&here).expect("a folder can be made");
    outlets.retry(at(2000));
    assert!(!outlets.has_trouble());
    add(&mut outlets, b"3\n");
    assert_eq!(read(&there.join("access")), "1\n2\n");
    assert_eq!(read(&here.join("access")), "3\n");
    let error = lines(&folder.path().join("error"));
    assert_eq!(error.len(), 1, "{error:?}");
    assert!(error[0].starts_with("WARNING] cannot reopen log "), "{error:?}");
}

#[test]
fn a_reader_that_has_gone_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = folder.path().join("error");
    let (reader, writer) = io::pipe().expect("a pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    let mut outlets = open(&path, &error);
    drop((reader, writer));
    for number in 0..3 {
        outlets.add(Kind::Access, b"nobody reads it\n");
        outlets.write(at(number));
    }
    let said = lines(&error);
    assert_eq!(said.len(), 1);
    assert!(said[0].contains(": Broken pipe (os error 32); "), "{said:?}");
    assert_eq!(outlets.outlets[1].trouble.as_ref().map(|trouble| trouble.lines), Some(3));
}

#[test]
fn a_cut_line_is_ended_before_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut");
    fs::write(&path, "whole\ncu").expect("the folder is ours");
    let mut outlets = open(&path, &path);
    // What a file holds can be seen, so nothing is expected of it.
    outlets.expect_cut();
    for line in [b"1\n", b"2\n"] {
        outlets.add(Kind::Access, line);
        outlets.write(at(0));
    }
    assert_eq!(read(&path), "whole\ncu\n1\n2\n");
    open(&path, &path).expect_cut();
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let pipe = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    let mut outlets = open(&pipe, &pipe);
    outlets.expect_cut();
    outlets.add(Kind::Access, b"1\n");
    outlets.write(at(0));
    let mut text = [0; 8];
    let length = reader.read(&mut text).expect("it is there");
    assert_eq!(&text[..length], b"\n1\n");
}

#[test]
fn a_cut_line_is_found_in_an_inherited_file() {
    let folder = tempfile::tempdir().expect("a folder");
    for (text, is_cut) in [("", false), ("whole\n", false), ("whole\ncu", true)] {
        let path = folder.path().join("stdout");
        fs::write(&path, text).expect("the folder is ours");
        let file = fs::File::options().append(true).open(&path).expect("it is there");
        assert_eq!(Output::inherited(file).expect("it is a file").is_mid_line, is_cut, "{text:?}");
    }
}

#[test]
fn only_a_long_line_in_a_pipe_may_be_cut_unseen() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_reader, writer) = io::pipe().expect("a pipe");
    let pipe = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    let file = folder.path().join("file");
    let long = [&[b'a'; PIPE_BATCH_MAX][..], b"\n"].concat();
    let short = [&[b'a'; PIPE_BATCH_MAX - 1][..], b"\n"].concat();
    for (kind, line, may_be_cut) in
        [(Kind::Access, &short, false), (Kind::Access, &long, true), (Kind::Error, &long, false)]
    {
        let mut outlets = open(&pipe, &file);
        outlets.add(kind, &short);
        outlets.add(kind, line);
        assert_eq!(outlets.may_be_cut(), may_be_cut, "{kind:?} {}", line.len());
    }
}

proptest! {
    #[test]
    fn chunks_hold_whole_lines(
        lengths in proptest::collection::vec(0_usize..30, 0..40), max in 1_usize..60,
    ) {
        let line = |length: &usize| [vec![b'a'; *length], b"\n".to_vec()].concat();
        let all: Vec<u8> = lengths.iter().flat_map(line).collect();
        let pieces: Vec<&[u8]> = chunks(&all, max).collect();
        prop_assert_eq!(pieces.concat(), all.clone());
        for (number, piece) in pieces.iter().enumerate() {
            prop_assert_eq!(piece.last(), Some(&b'\n'));
            let count = piece.iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(piece.len() <= max || count == 1);
            // And no fewer pieces would do: the next line would not have fitted.
            if let Some(next) = pieces.get(number + 1) {
                let line = next.iter().position(|byte| *byte == b'\n').unwrap() + 1;
                prop_assert!(piece.len() + line > max);
            }
        }
    }
}
