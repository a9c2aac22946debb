//! The state machine on one page, from the code: each fact, and the stage that a worker enters by it.

use crate::ids::ChildId;
use crate::supervisor::Supervisor;
use crate::supervisor::event::{Event, ExitStatus, Kept, Signal};
use crate::supervisor::stage::{Child, Stage};
use crate::supervisor::tests::stories;
use crate::supervisor::tests::transcript;
use crate::time::Instant;

const SETTINGS: &str = "workers=2 stall=10 memory=100 graceful=30 boot=60";

/// A server in whose slot 1 a worker is in each stage, and that worker.
fn specimens() -> Vec<(Supervisor, ChildId)> {
    let trial = "
        @1000 signal HUP
        loaded workers=2 stall=10 memory=100 graceful=30 boot=60
        @1010 exited 104 code 0
        exited 105 code 1
        exited 106 code 1
        @1020 ready #7
    ";
    // Silent when it was asked last: the second such look decides.
    let silent = "
        @10000 heartbeat #2 @9999
        heartbeat #3 @0
    ";
    let stall = &format!("{silent}\n@11000 heartbeat #3 @0");
    let unanswered = {
        let mut server = stories::after(SETTINGS, "@1000 tick");
        let ended = Event::Exited { pid: crate::ids::Pid(103), status: ExitStatus::Code(1) };
        let _unanswered = server.handle(Instant::from_millis(1000), ended);
        server
    };
    vec![
        (unanswered, ChildId(4)),
        (stories::after(SETTINGS, "@1000 exited 103 code 1"), ChildId(4)),
        (stories::after(SETTINGS, silent), ChildId(3)),
        (stories::after(SETTINGS, trial), ChildId(3)),
        (stories::after(SETTINGS, "@1000 signal TTOU"), ChildId(3)),
        (stories::after(SETTINGS, stall), ChildId(3)),
        (stories::after(SETTINGS, &format!("{stall}\n@13000 tick")), ChildId(3)),
    ]
}

fn name(child: Option<&Child>) -> &'static str {
    match child.map(|child| &child.stage) {
        None => "gone",
        Some(Stage::Forking) => "Forking",
        Some(Stage::Booting { .. }) => "Booting",
        Some(Stage::Serving { due: Some(_), .. }) => "due",
        Some(Stage::Serving { .. }) => "Serving",
        Some(Stage::Yielding { .. }) => "Yielding",
        Some(Stage::Draining { .. }) => "Draining",
        Some(Stage::Aborting { .. }) => "Aborting",
        Some(Stage::Killed { .. }) => "Killed",
    }
}

/// The facts, as told of this worker; `late`: at a time when every deadline is over.
fn rows(child: ChildId) -> Vec<(&'static str, Event)> {
    let pid = stories::pid_of(child);
    let signalled = |signal| Event::Signalled(signal);
    let reason = "no memory".to_owned();
    let heartbeat =
        Event::Heartbeat { child, heartbeat: Instant::default(), kept: Kept::ByNothing };
    vec![
        ("started", Event::Started),
        ("tick", Event::Tick),
        ("tick, late", Event::Tick),
        ("forked", Event::Forked { child, pid }),
        ("fork failed", Event::ForkFailed { child, reason }),
        ("ready", Event::Ready { child }),
        ("due", transcript::parse(&format!("due {child} requests"))),
        ("exited 0", Event::Exited { pid, status: ExitStatus::Code(0) }),
        ("exited 1", Event::Exited { pid, status: ExitStatus::Code(1) }),
        ("heartbeat, old", heartbeat),
        ("memory, large", Event::MemoryRead { child, bytes: 1000 }),
        ("TERM", signalled(Signal::Terminate)),
        ("INT", signalled(Signal::Interrupt)),
        ("HUP", signalled(Signal::Reload)),
        ("TTIN", signalled(Signal::More)),
        ("TTOU", signalled(Signal::Fewer)),
        ("USR1", signalled(Signal::Reopen)),
        ("USR2", signalled(Signal::Upgrade)),
        ("upgraded", Event::Upgraded),
        ("not upgraded", transcript::parse("unupgraded permission denied")),
        ("loaded", transcript::parse("loaded workers=2")),
        ("slots open", Event::SlotsOpen { count: 2 }),
        ("queued", transcript::parse("queued 1")),
        ("queue length", transcript::parse("length 1 5")),
    ]
}

fn table() -> String {
    let stages = specimens();
    let mut text = format!("{:<15}", "");
    for (server, child) in &stages {
        let stage = name(server.children.iter().find(|other| other.id == *child));
        text.push_str(&format!("{stage:<10}"));
    }
    let count = rows(ChildId(1)).len();
    for row in 0..count {
        text.push_str(&format!("\n{:<15}", rows(ChildId(1))[row].0));
        for (server, child) in &stages {
            let (label, fact) = rows(*child).swap_remove(row);
            let mut server = server.clone();
            let before = name(server.children.iter().find(|other| other.id == *child));
            let late = if label.ends_with("late") { 100_000 } else { 0 };
            // The master is on time, or it would excuse every child.
            let now = Instant::from_millis(server.handled_at.as_millis() + late);
            server.wakes_at = None;
            let _orders = server.handle(now, fact);
            let after = name(server.children.iter().find(|other| other.id == *child));
            text.push_str(&format!("{:<10}", if after == before { "·" } else { after }));
        }
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn each_fact_in_each_stage() {
    insta::assert_snapshot!(table(), @r"
                   Forking   Booting   Serving   Yielding  Draining  Aborting  Killed
    started        ·         ·         ·         ·         ·         ·         ·
    tick           ·         ·         ·         ·         ·         ·         ·
    tick, late     ·         Killed    ·         Draining  Killed    Killed    ·
    forked         Booting   ·         ·         ·         ·         ·         ·
    fork failed    gone      ·         ·         ·         ·         ·         ·
    ready          ·         Serving   ·         ·         ·         ·         ·
    due            ·         ·         due       ·         ·         ·         ·
    exited 0       ·         gone      gone      gone      gone      gone      gone
    exited 1       ·         gone      gone      gone      gone      gone      gone
    heartbeat, old ·         ·         Aborting  ·         ·         ·         ·
    memory, large  ·         ·         due       ·         ·         ·         ·
    TERM           ·         Draining  Draining  Draining  ·         ·         ·
    INT            ·         Draining  Draining  Draining  ·         ·         ·
    HUP            ·         ·         ·         ·         ·         ·         ·
    TTIN           ·         ·         ·         ·         ·         ·         ·
    TTOU           ·         Draining  Draining  Draining  ·         ·         ·
    USR1           ·         ·         ·         ·         ·         ·         ·
    USR2           ·         ·         ·         ·         ·         ·         ·
    upgraded       ·         ·         ·         ·         ·         ·         ·
    not upgraded   ·         ·         ·         ·         ·         ·         ·
    loaded         ·         ·         ·         ·         ·         ·         ·
    slots open     ·         ·         ·         ·         ·         ·         ·
    queued         ·         ·         ·         ·         ·         ·         ·
    queue length   ·         ·         ·         ·         ·         ·         ·
    ");
}
