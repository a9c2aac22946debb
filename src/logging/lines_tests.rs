//! What leaves the buffer, in which pieces, when the target takes all, some or nothing. The targets
//! here answer as told: no real one fails in the middle of a line on demand.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

/// Answers writes as told, and takes everything when it has been told no more.
#[derive(Default)]
struct Script {
    answers: VecDeque<io::Result<usize>>,
    taken: Vec<Vec<u8>>,
}

impl Script {
    fn new<const N: usize>(answers: [io::Result<usize>; N]) -> Self {
        Self { answers: answers.into(), taken: Vec::new() }
    }

    fn text(&self) -> String {
        String::from_utf8(self.taken.concat()).expect("lines are text")
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.answers.pop_front().unwrap_or(Ok(bytes.len()))?;
        self.taken.push(bytes[..count].to_vec());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block() -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

fn disk_full() -> io::Result<usize> {
    Err(io::ErrorKind::StorageFull.into())
}

fn now() -> Instant {
    crate::sys::clock::now()
}

fn lines(texts: &[&str]) -> Lines {
    let mut lines = Lines::EMPTY;
    for text in texts {
        lines.add(now(), usize::MAX, |out| out.extend_from_slice(text.as_bytes()));
    }
    lines
}

fn write(lines: &mut Lines, script: &mut Script) -> Written {
    lines.write(script, 10, 0, now)
}

#[test]
fn batches_hold_whole_lines_and_a_longer_line_goes_alone() {
    let mut script = Script::default();
    let mut waiting = lines(&["1234\n", "5678\n", "90\n", "a line too long\n", "b\n"]);
    assert!(matches!(write(&mut waiting, &mut script), Written::Some));
    let taken: Vec<_> = script.taken.iter().map(|batch| String::from_utf8_lossy(batch)).collect();
    assert_eq!(taken, ["1234\n5678\n", "90\n", "a line too long\n", "b\n"]);
    assert_eq!(waiting.waiting(), 0);
    assert!(matches!(write(&mut waiting, &mut script), Written::Nothing));
    assert_eq!(script.taken.len(), 4);
}

#[test]
fn what_may_wait_waits() {
    let mut script = Script::default();
    let mut waiting = lines(&["1234\n", "5678\n", "90\n"]);
    assert!(matches!(waiting.write(&mut script, 10, 10, now), Written::Some));
    assert_eq!(script.text(), "1234\n5678\n");
    assert!(matches!(waiting.write(&mut script, 10, 10, now), Written::Nothing));
    assert_eq!(waiting.waiting(), 3);
}

#[test]
fn interrupted_and_partial_writes_go_on() {
    let interrupted = Err(io::ErrorKind::Interrupted.into());
    let mut script = Script::new([interrupted, Ok(2), Ok(1)]);
    let mut waiting = lines(&["1234\n", "5678\n"]);
    assert!(matches!(write(&mut waiting, &mut script), Written::Some));
    assert_eq!(script.text(), "1234\n5678\n");
}

#[test]
fn a_target_that_is_full_keeps_lines_waiting_in_order() {
    let mut script = Script::new([would_block()]);
    let mut waiting = lines(&["1\n", "2\n"]);
    assert!(matches!(write(&mut waiting, &mut script), Written::Nothing));
    assert_eq!(waiting.waiting(), 4);
    assert!(waiting.since().is_some());
    script.answers = VecDeque::from([Ok(3), would_block()]);
    assert!(matches!(write(&mut waiting, &mut script), Written::Some));
    assert_eq!(waiting.waiting(), 1);
    waiting.add(now(), 5, |out| out.extend_from_slice(b"3\n"));
    assert!(matches!(write(&mut waiting, &mut script), Written::Some));
    assert_eq!(script.text(), "1\n2\n3\n");
    assert_eq!(waiting.since(), None);
    assert!(!waiting.has_lost());
}

#[test]
fn lines_without_room_are_dropped_and_counted() {
    let mut waiting = lines(&["1234\n"]);
    let (first, later) = (now(), now() + Duration::from_secs(1));
    waiting.add(first, 8, |out| out.extend_from_slice(b"567\n"));
    waiting.add(later, 8, |out| out.extend_from_slice(b"890\n"));
    waiting.add(later, 8, |out| out.extend_from_slice(b"ok\n"));
    let mut script = Script::default();
    write(&mut waiting, &mut script);
    assert_eq!(script.text(), "1234\nok\n");
    let cause = "nobody reads it".to_owned();
    let expected = Lost { lines: 2, since: first, cause };
    assert_eq!(waiting.take_lost(), Some(expected));
    assert_eq!(waiting.take_lost(), None);
}

#[test]
fn a_failure_loses_the_lines_that_wait_and_counts_them() {
    let mut script = Script::new([Ok(10), disk_full()]);
    let mut waiting = lines(&["1234\n", "5678\n", "a\n", "b\n", "c\n", "d\n"]);
    assert!(matches!(write(&mut waiting, &mut script), Written::Failed(_)));
    assert_eq!(script.text(), "1234\n5678\n");
    assert_eq!(waiting.waiting(), 0);
    let lost = waiting.take_lost().expect("lines were lost");
    assert_eq!(lost.lines, 4);
    assert_eq!(lost.cause, "no storage space");
    waiting.add(now(), 100, |out| out.extend_from_slice(b"e\n"));
    write(&mut waiting, &mut script);
    assert_eq!(script.text(), "1234\n5678\ne\n");
}

#[test]
fn a_line_that_failed_in_its_middle_is_ended_before_the_next() {
    let mut script = Script::new([Ok(7), disk_full(), disk_full(), would_block()]);
    let mut waiting = lines(&["1234\n", "5678\n", "90\n"]);
    assert!(matches!(write(&mut waiting, &mut script), Written::Failed(_)));
    assert_eq!(waiting.take_lost().map(|lost| lost.lines), Some(2));
    waiting.add(now(), 100, |out| out.extend_from_slice(b"a\n"));
    assert!(matches!(write(&mut waiting, &mut script), Written::Failed(_)));
    waiting.add(now(), 100, |out| out.extend_from_slice(b"b\n"));
    assert!(matches!(write(&mut waiting, &mut script), Written::Nothing));
    assert!(matches!(write(&mut waiting, &mut script), Written::Some));
    assert_eq!(script.text(), "1234\n56\nb\n");
    assert_eq!(waiting.take_lost().map(|lost| lost.lines), Some(1));
}

#[test]
fn a_target_that_takes_nothing_is_a_failure() {
    let mut script = Script::new([Ok(0)]);
    let mut waiting = lines(&["1\n"]);
    assert!(matches!(write(&mut waiting, &mut script), Written::Failed(_)));
    assert_eq!(waiting.take_lost().map(|lost| lost.lines), Some(1));
}

#[test]
fn an_account_that_is_lost_is_not_forgotten() {
    let mut script = Script::new([would_block(), disk_full()]);
    let mut waiting = lines(&["7 lines were lost\n"]);
    waiting.account(7);
    write(&mut waiting, &mut script);
    write(&mut waiting, &mut script);
    assert_eq!(waiting.take_lost().map(|lost| lost.lines), Some(8));
}

#[test]
fn a_line_always_ends_and_an_empty_one_is_none() {
    let mut waiting = lines(&["1", "", "2\n"]);
    let mut script = Script::default();
    write(&mut waiting, &mut script);
    assert_eq!(script.text(), "1\n2\n");
}

#[test]
fn what_a_panic_left_is_cleared_away() {
    let mut waiting = lines(&["1\n"]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        waiting.add(now(), 100, |out| {
            out.extend_from_slice(b"half a li");
            panic!("on purpose");
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(waiting.waiting(), 2);
    waiting.add(now(), 100, |out| out.extend_from_slice(b"2\n"));
    let mut script = Script::default();
    write(&mut waiting, &mut script);
    assert_eq!(script.text(), "1\n2\n");
}

#[test]
fn a_child_forgets_what_its_parent_writes() {
    let mut waiting = lines(&["1\n"]);
    waiting.forget();
    let mut script = Script::default();
    assert!(matches!(write(&mut waiting, &mut script), Written::Nothing));
    assert!(script.taken.is_empty());
}

#[test]
fn memory_is_given_back() {
    let mut waiting = Lines::EMPTY;
    waiting.add(now(), usize::MAX, |out| out.resize(8 * KEPT, b'x'));
    write(&mut waiting, &mut Script::default());
    assert!(waiting.bytes.capacity() <= KEPT, "{}", waiting.bytes.capacity());
}
