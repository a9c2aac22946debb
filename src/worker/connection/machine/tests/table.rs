//! The machine on one page, from the code: each fact, and what a connection in each state does by it.

use std::fmt::Write as _;

use super::{ROOM, TIMEOUTS, idle};
use crate::worker::connection::machine::{CloseReason, Decision, Fault, Machine};

/// The time of the facts: later than the states began, earlier than each deadline.
const NOW: u64 = 900;
/// A time when every deadline is over.
const LATE: u64 = 1_000_000;

/// A connection in each state.
fn states() -> Vec<(&'static str, Machine)> {
    let made = |make: fn(&mut Machine)| {
        let mut machine = Machine::connection(0);
        make(&mut machine);
        machine
    };
    let multiplexed = |streams: usize| {
        let mut machine = idle();
        machine.multiplexed(0);
        (0..streams).for_each(|_| machine.stream_begun(0));
        machine
    };
    vec![
        ("Handshake", made(Machine::handshake)),
        ("First", made(|_| {})),
        ("Head", made(|machine| machine.malformed(0))),
        ("Answer", made(|machine| _ = machine.begun(0))),
        (
            "Body",
            made(|machine| {
                machine.begun(0);
                machine.body_awaited(0);
            }),
        ),
        ("Idle", idle()),
        ("parked", {
            let mut machine = idle();
            machine.parked();
            machine
        }),
        ("Upgraded", made(|machine| machine.upgraded(0))),
        ("Lingering", made(|machine| machine.lingers(0))),
        ("Streams", multiplexed(1)),
        ("Idle, h2", {
            let mut machine = multiplexed(1);
            machine.stream_ended(0);
            machine
        }),
        ("stream", {
            let mut machine = Machine::stream(0);
            machine.begun(0);
            machine
        }),
    ]
}

type Fact = fn(&mut Machine);

const FACTS: [(&str, Fact); 26] = [
    ("bytes", |machine| _ = machine.read(b"GET / HT", ROOM, NOW)),
    ("too many bytes", |machine| _ = machine.read(&[b'a'; 9000], ROOM, NOW)),
    ("malformed", |machine| machine.malformed(NOW)),
    ("begun", |machine| _ = machine.begun(NOW)),
    ("body awaited", |machine| machine.body_awaited(NOW)),
    ("body read", |machine| {
        machine.body_read(7, NOW);
    }),
    ("body dropped", Machine::body_dropped),
    ("body failed", |machine| machine.body_failed(Fault::TooLong)),
    ("answered", |machine| machine.answered(Some(0), NOW)),
    ("blocked, late", |machine| {
        machine.blocked(true, NOW);
        machine.tick(&TIMEOUTS, NOW + 30_000);
    }),
    ("FIN, late", |machine| {
        machine.finished(NOW);
        machine.tick(&TIMEOUTS, NOW + 5000);
    }),
    ("upgraded", |machine| machine.upgraded(NOW)),
    ("parked", Machine::parked),
    ("unparked", Machine::unparked),
    ("lingers", |machine| machine.lingers(NOW)),
    ("stream begun", |machine| machine.stream_begun(NOW)),
    ("stream ended", |machine| machine.stream_ended(NOW)),
    ("goodbye said", |machine| machine.goodbye_said(NOW)),
    ("tick", |machine| _ = machine.tick(&TIMEOUTS, NOW)),
    ("tick, a second", |machine| _ = machine.tick(&TIMEOUTS, 1000)),
    ("tick, late", |machine| _ = machine.tick(&TIMEOUTS, LATE)),
    ("handed over", |machine| machine.handed_over(NOW)),
    ("drain: park", |machine| _ = machine.park()),
    ("drain: idle", |machine| _ = machine.close_idle(500, NOW)),
    ("drain: last", |machine| _ = machine.close_unfinished()),
    ("no memory", |machine| _ = machine.close(CloseReason::Budget)),
];

/// The state, the reason to close, and the decision when a read finds nothing then.
fn shown(machine: &Machine) -> String {
    let mut text = format!("{:?}", machine.wait());
    if machine.is_parked() {
        text += " parked";
    }
    if let Some(reason) = machine.reason() {
        let _ = write!(text, " !{reason:?}");
    }
    match machine.on_nothing_read(false) {
        Decision::Wait => {}
        decision => {
            let _ = write!(text, " {decision:?}");
        }
    }
    if machine.must_linger() {
        text += " ~";
    }
    text
}

/// `=` where nothing changes; `!` before a reason to close; the decision when a read finds nothing; `~` where
/// the client is waited for before the socket is closed.
#[test]
fn table_of_states_and_facts() {
    let mut table = String::new();
    for (state, _) in states() {
        let _ = writeln!(table, "{state}");
        for (fact, apply) in FACTS {
            let (_, mut machine) = states().into_iter().find(|(name, _)| *name == state).unwrap();
            let before = shown(&machine);
            apply(&mut machine);
            let after = shown(&machine);
            if after != before {
                let _ = writeln!(table, "    {fact:<16} {after}");
            }
        }
    }
    insta::assert_snapshot!(table);
}
