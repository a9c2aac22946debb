//! A producer that is killed at any point leaves a ring that can be read. The producers are processes:
//! the test itself again, which finds a ring in its environment and writes to it then.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Child, Command, Stdio};

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
    let (mut line, mut reads) = (Vec::new(), 0);
    for number in 0..200 {
        let mut child = start_child(&path, number);
        let (mut count, last) = (0, number * 31 % 997);
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
