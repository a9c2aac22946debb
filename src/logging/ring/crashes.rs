//! A producer that is killed, at any point, leaves a ring that can be read. Producers that are killed
//! at some moment or other are processes: the test itself again, which finds a ring in its environment
//! and writes to it then. And all moments there are, one store after the other, are tried in one
//! thread.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::sys::shared::Memory;

/// Where a child finds the ring.
const GIVEN: &str = "FERRICORN_TEST_RING";
const TEST: &str = "logging::ring::crashes::\
                    a_producer_that_is_killed_at_any_point_leaves_what_it_had_finished";
const RING_LINES: usize = 1024;

#[test]
fn a_producer_that_is_killed_at_any_point_leaves_what_it_had_finished() {
    if let Ok(given) = std::env::var(GIVEN) {
        write_until_killed(&given);
    }
    let memory = Memory::new("test").unwrap();
    memory.grow(RING_LINES).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_fd().as_raw_fd());
    let mut consumer = Consumer::new(memory.map(0, RING_LINES).unwrap());
    let mut line = Vec::new();
    let mut reads = 0;
    for number in 0..200 {
        let mut child = start_child(&path, number);
        let mut count = 0;
        let last = number * 31 % 997;
        // It is killed while it writes, after a number of lines that is another one each time.
        let mut take = |count: &mut usize| match consumer.next(&mut line) {
            Next::Line(Kind::Error) => {
                check_line(&line, number, *count);
                *count += 1;
                true
            }
            Next::Nothing => {
                consumer.commit();
                std::thread::yield_now();
                false
            }
            other => panic!("{other:?} from child {number} after {count} lines"),
        };
        while count <= last {
            take(&mut count);
        }
        child.kill().expect("it writes until it is killed");
        child.wait().expect("it is our child");
        while take(&mut count) {}
        reads += count;
    }
    assert!(reads >= 200 * 300, "{reads}");
}

fn start_child(path: &str, number: usize) -> Child {
    Command::new(std::env::current_exe().expect("a test has a file"))
        .args(["--exact", TEST])
        .env(GIVEN, format!("{path} {number}"))
        .stdout(Stdio::null())
        .spawn()
        .expect("a child starts")
}

fn write_line(child: usize, number: usize) -> String {
    let payload = "x".repeat(number * 37 % 700);
    format!("{child} {number} {payload}.\n")
}

fn check_line(line: &[u8], child: usize, number: usize) {
    let expected = write_line(child, number);
    assert!(line == expected.as_bytes(), "{:?}", String::from_utf8_lossy(line));
}

fn write_until_killed(given: &str) -> ! {
    let (path, child) = given.split_once(' ').expect("a path and a number");
    let child = child.parse().expect("a number");
    let file = File::options().read(true).write(true).open(path).expect("the parent has it open");
    let memory = Memory::from(std::os::fd::OwnedFd::from(file));
    let cells = memory.map(0, RING_LINES).expect("it is that long");
    let mut producer = Producer::new(cells, std::process::id());
    for number in 0_usize.. {
        let line = write_line(child, number);
        while producer.push(Kind::Error, line.as_bytes()).is_err() {
            std::thread::yield_now();
        }
    }
    unreachable!("it is killed before it has counted so far")
}

/// Cells whose owner dies before one of its stores: what it stores from then on is not there.
struct Dying {
    cells: Arc<[AtomicU64]>,
    stores_left: Cell<usize>,
}

impl Cells for Dying {
    fn count(&self) -> usize {
        self.cells.len()
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.cells[at].load(order)
    }

    fn store(&self, at: usize, number: u64, order: Ordering) {
        if let Some(left) = self.stores_left.get().checked_sub(1) {
            self.stores_left.set(left);
            self.cells[at].store(number, order);
        }
    }

    fn fence(&self) {}
}

/// The finding of a reader: a line, or a number of lines that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Line(&'static str),
    Lost(u64),
}

fn read_all(consumer: &mut Consumer<Dying>, lines: &[&'static str]) -> Vec<Told> {
    let mut told = Vec::new();
    let mut line = Vec::new();
    loop {
        told.push(match consumer.next(&mut line) {
            Next::Nothing => return told,
            Next::Lost(lost) => Told::Lost(lost.lines),
            Next::Line(_) => {
                let whole = lines.iter().find(|other| other.as_bytes() == line);
                Told::Line(whole.unwrap_or_else(|| panic!("a torn line: {line:?}")))
            }
            Next::Corrupted { .. } => panic!("it is sound"),
        });
    }
}

const LINES: [&str; 4] =
    ["1", "a line of several cells", "3, and more than one", "of the next one"];

/// A ring that is about to wrap, and everything that a process does to one, as far as it comes with so
/// many stores; whether it came to the end.
fn write_some(cells: &Arc<[AtomicU64]>, stores: usize) -> bool {
    let dying = Dying { cells: Arc::clone(cells), stores_left: Cell::new(stores) };
    let mut producer = Producer::new(dying, 7);
    for line in &LINES[..3] {
        let _wake = producer.push(Kind::Error, line.as_bytes()).expect("there is room");
        let _wake = producer.drop_line(Instant::from_millis(5));
    }
    producer.cells.stores_left.get() > 0
}

fn ring_about_to_wrap() -> Arc<[AtomicU64]> {
    let cells: Arc<[AtomicU64]> = (0..DATA + 20).map(|_| AtomicU64::new(0)).collect();
    for position in [HEAD, TAIL] {
        // ORDERING: no other process knows it yet.
        cells[position].store(17, Ordering::Relaxed);
    }
    cells
}

fn immortal(cells: &Arc<[AtomicU64]>) -> Dying {
    Dying { cells: Arc::clone(cells), stores_left: Cell::new(usize::MAX) }
}

#[test]
fn whatever_was_a_producers_last_store_what_it_had_finished_is_there() {
    let [first, second, third, next] = LINES.map(Told::Line);
    let all = [first, Told::Lost(1), second, Told::Lost(1), third, Told::Lost(1)];
    let mut finished = std::collections::BTreeSet::new();
    for stores in 0.. {
        let cells = ring_about_to_wrap();
        let is_done = write_some(&cells, stores);
        let mut producer = Producer::new(immortal(&cells), 8);
        let _wake = producer.push(Kind::Error, LINES[3].as_bytes()).expect("there is room");
        let mut told = read_all(&mut Consumer::new(immortal(&cells)), &LINES);
        assert_eq!(told.pop().as_ref(), Some(&next), "after {stores} stores");
        assert!(all.starts_with(&told), "after {stores} stores: {told:?}");
        finished.insert(told.len());
        if is_done {
            break;
        }
    }
    // One store more is never worth two of them.
    assert!(finished.into_iter().eq(0..=all.len()));
}

#[test]
fn whatever_was_a_consumers_last_store_nothing_is_lost() {
    for stores in 0.. {
        let cells = ring_about_to_wrap();
        assert!(write_some(&cells, usize::MAX));
        let dying = Dying { cells: Arc::clone(&cells), stores_left: Cell::new(stores) };
        let mut consumer = Consumer::new(dying);
        let told = read_all(&mut consumer, &LINES);
        consumer.commit();
        let is_done = consumer.cells.stores_left.get() > 0;
        let again = read_all(&mut Consumer::new(immortal(&cells)), &LINES);
        let lines = |told: &[Told]| -> Vec<Told> {
            told.iter().filter(|told| matches!(told, Told::Line(_))).cloned().collect()
        };
        match stores {
            0 => assert_eq!(again, told, "all of it comes again"),
            // The gaps are told: they do not come again, whatever else does.
            _ => assert!(again.is_empty() || again == lines(&told), "{stores}: {again:?}"),
        }
        if is_done {
            assert_eq!(again, []);
            break;
        }
    }
}
