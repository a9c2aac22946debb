//! The messages between images, and the memory that they share with processes of another version,
//! written down. When one of these texts changes, `STATE_VERSION` rises with it, or an image misreads
//! the state that it takes over.

use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use axum::http::{Method, Uri, Version};
use serde_reflection::{Tracer, TracerConfig};

use super::*;
use crate::control::Feed;
use crate::ids::{Slot, SlotSet};
use crate::logging::{Kind, Rings};
use crate::scoreboard::{Doing, SlotBoard, SlotRow, WorkerBoard};
use crate::sys::incarnation::Incarnation;
use crate::time::Instant;
use crate::wire::{IdleNote, LogOrder, Order};
use crate::{listeners, supervisor};

/// The words of shared memory that are not zero, each behind its place.
fn words(memory: impl AsFd) -> String {
    let mut bytes = Vec::new();
    let memory = memory.as_fd().try_clone_to_owned().expect("there are descriptors");
    File::from(memory).read_to_end(&mut bytes).expect("it is memory");
    let words = bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()));
    let mut text = format!("{} words\n", bytes.len() / 8);
    for (at, word) in words.enumerate().filter(|(_, word)| *word != 0) {
        writeln!(text, "{at:>4}: {word:016x}").unwrap();
    }
    text
}

/// A text that belongs to the version.
fn versioned(text: &str) -> String {
    format!("version {STATE_VERSION}\n{text}")
}

#[test]
fn the_state_belongs_to_its_version() {
    let mut tracer = Tracer::new(TracerConfig::default());
    tracer.trace_simple_type::<Order>().expect("it can be traced");
    listeners::tests::trace(&mut tracer).expect("it can be traced");
    supervisor::tests::handed::trace(&mut tracer).expect("it can be traced");
    tracer.trace_simple_type::<Feed>().expect("it can be traced");
    tracer.trace_simple_type::<State>().expect("it can be traced");
    let registry = tracer.registry().expect("every enum is traced");
    let text: String =
        registry.iter().map(|(name, format)| format!("{name}: {format:?}\n")).collect();
    insta::assert_snapshot!(versioned(&text.replace("Named { name: ", "{ ")));
}

#[test]
fn messages_belong_to_the_version() {
    let slot = Slot::new(200);
    let orders = [
        Order::Drain,
        Order::Stop,
        Order::Accept(SlotSet::from_iter([Slot::new(1), slot])),
        Order::Listener { address: 3, slot },
        Order::Bell { slot },
        Order::Close { address: 515 },
    ];
    let orders = orders.map(|order| {
        let (message, length) = order.encode();
        format!("{order:?}: {:?}\n", &message[..length])
    });
    let log = [LogOrder::Ring { place: 770 }, LogOrder::Reopen, LogOrder::Finish]
        .map(|order| format!("{order:?}: {:?}\n", order.encode()));
    let reports = [
        Report::Ready,
        Report::ToldToLeave,
        Report::ToldToReopen,
        Report::ServedEnough,
        Report::Measure,
        Report::Reopened,
        Report::NotReopened,
        Report::NeedsTime,
    ];
    let reports = reports.map(|report| format!("{report:?}: {:?}\n", report.encode()));
    let since = Instant::from_millis(7);
    let source = "192.0.2.1:80".parse().ok();
    let note = IdleNote { address: 515, since, source, is_https: true };
    let note = format!("{note:?}: {:?}\n", note.encode());
    let text = [orders.concat(), log.concat(), reports.concat(), note].concat();
    insta::assert_snapshot!(versioned(&text));
}

#[test]
fn what_a_worker_tells_belongs_to_the_version() {
    let board = WorkerBoard::new(2).expect("there is memory");
    board.note_heartbeat(Instant::from_millis(1));
    board.set_doing(Generation::FIRST.next(), Doing::Draining);
    board.note_drain(Instant::from_millis(2));
    board.connection_opened();
    board.set_status("warm");
    let entry = board.entry(1).expect("there are two");
    let target = Uri::from_static("/a?b");
    entry.fill(None, SystemTime::UNIX_EPOCH, &Method::DELETE, &target, Version::HTTP_10);
    entry.note_line(Some(3));
    board.set_running(1, true);
    let first = board.entry(0).expect("there are two");
    let remote = Some([1, 2, 3, 4].into());
    let started = SystemTime::UNIX_EPOCH + Duration::from_micros(5);
    first.fill(remote, started, &Method::GET, &target, Version::HTTP_11);
    insta::assert_snapshot!(versioned(&words(&board)));
}

#[test]
fn what_is_told_of_slots_belongs_to_the_version() {
    let board = std::sync::Arc::new(SlotBoard::new().expect("there is memory"));
    let place = SlotRow::new(board.clone(), Slot::new(1), 0x1234);
    place.take();
    place.opened(5);
    board.count_request(Slot::new(1));
    board.ask(Slot::new(1), Slot::new(66));
    assert_eq!(board.lease(0).take(), Some(1));
    let named = board.find_lease("reports").expect("there is room");
    let ours = format!("{:016x}", Incarnation::current().number());
    let text = words(&*board).replace(&ours, "our pid and start");
    insta::assert_snapshot!(versioned(&format!("{text}reports: {named}\n")));
}

#[test]
fn rings_belong_to_the_version() {
    let mut rings = Rings::new().expect("there is memory");
    let mut write = rings.ring(1).expect("there is memory").into_writer();
    write(Kind::Access, b"a line of the access log");
    write(Kind::Error, b"one of the error log");
    let memory = rings.descriptors().nth(1).expect("it is there")[0];
    let pid = format!("   4: {:016x}", process::pid());
    insta::assert_snapshot!(versioned(&words(memory).replacen(&pid, "   4: our pid", 1)));
}
