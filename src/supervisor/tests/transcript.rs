//! Facts and orders as the lines of a transcript, and facts read back from such lines.

use std::fmt::Write as _;
use std::time::Duration;

use crate::ids::{ChildId, CommandId, Pid, Slot};
use crate::log_event::LogEvent as _;
use crate::supervisor::action::{Action, ChildSignal, ExitReason};
use crate::supervisor::command::Outcome;
use crate::supervisor::event::{Event, ExitStatus, Kept, Signal};
use crate::supervisor::policy::Policy;
use crate::supervisor::stage::Due;
use crate::supervisor::tests::commands;
use crate::time::Instant;

/// The heartbeat of a worker that is said to be alive.
const ALWAYS: Instant = Instant::from_millis(u64::MAX);

/// The fact in words. The first word names the variant.
pub(super) fn fact(event: &Event) -> String {
    match event {
        Event::Started => "started".to_owned(),
        Event::Upgraded => "upgraded".to_owned(),
        Event::Tick => "tick".to_owned(),
        Event::Signalled(signal) => format!("signal {signal}"),
        Event::Forked { child, pid } => format!("forked {child} pid {pid}"),
        Event::ForkFailed { child, reason } => format!("unforked {child} {reason}"),
        Event::Ready { child } => format!("ready {child}"),
        Event::WorkerDue { child, why } => format!("due {child} {}", due(*why)),
        Event::Exited { pid, status: ExitStatus::Code(code) } => {
            format!("exited {pid} code {code}")
        }
        Event::Exited { pid, status: ExitStatus::Signal { number, core } } => {
            format!("exited {pid} signal {number}{}", if *core { " core" } else { "" })
        }
        Event::Exited { pid, status: ExitStatus::OutOfMemory } => format!("exited {pid} oom"),
        Event::Exited { pid, status: ExitStatus::Unknown } => format!("exited {pid} unknown"),
        Event::Unheard { child } => format!("unheard {child}"),
        Event::Loaded(Ok(policy)) => format!("loaded {}", settings(policy)),
        Event::Loaded(Err(reason)) => format!("loaded error {reason}"),
        Event::SlotsOpen { count } => format!("open {count}"),
        Event::Queued { slot } => format!("queued {slot}"),
        Event::QueueLength { slot, length, heartbeat: ALWAYS } => format!("length {slot} {length}"),
        Event::QueueLength { slot, length, heartbeat } => {
            format!("length {slot} {length} {heartbeat}")
        }
        Event::Heartbeat { child, heartbeat, kept } => {
            let starved = if *kept == Kept::ByStarvation { " starved" } else { "" };
            format!("heartbeat {child} {heartbeat}{starved}")
        }
        Event::MemoryRead { child, bytes } => format!("memory {child} {bytes}"),
        Event::NeedsTime { child } => format!("needs time {child}"),
        Event::UpgradeFailed { reason } => format!("unupgraded {reason}"),
        Event::Commanded { id, command } => {
            format!("command {} {}", id.0, commands::text(*command))
        }
        Event::Abandoned { id } => format!("abandoned {}", id.0),
        Event::Reopened { is_complete } => format!("reopened {is_complete}"),
    }
}

/// The fact that a line tells.
pub(super) fn parse(line: &str) -> Event {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    match (word, words.as_slice()) {
        ("started", []) => Event::Started,
        ("upgraded", []) => Event::Upgraded,
        ("tick", []) => Event::Tick,
        ("signal", [name]) => Event::Signalled(signal(name)),
        ("forked", [id, "pid", pid]) => Event::Forked { child: child(id), pid: Pid(number(pid)) },
        ("unforked", [id, ..]) => Event::ForkFailed { child: child(id), reason: tail(rest, 1) },
        ("ready", [id]) => Event::Ready { child: child(id) },
        ("due", [id, why @ ..]) => Event::WorkerDue { child: child(id), why: parse_due(why) },
        ("exited", [pid, how @ ..]) => {
            Event::Exited { pid: Pid(number(pid)), status: parse_status(how) }
        }
        ("unheard", [id]) => Event::Unheard { child: child(id) },
        ("loaded", ["error", ..]) => Event::Loaded(Err(tail(rest, 1))),
        ("loaded", _) => Event::Loaded(Ok(policy(rest))),
        ("open", [count]) => Event::SlotsOpen { count: number(count) },
        ("queued", [at]) => Event::Queued { slot: Slot::new(number(at)) },
        ("length", [at, length, heartbeat @ ..]) => Event::QueueLength {
            slot: Slot::new(number(at)),
            length: number(length),
            heartbeat: heartbeat.first().map_or(ALWAYS, |heartbeat| instant(heartbeat)),
        },
        ("heartbeat", [id, heartbeat, kept @ ..]) => Event::Heartbeat {
            child: child(id),
            heartbeat: instant(heartbeat),
            kept: if kept.is_empty() { Kept::ByNothing } else { Kept::ByStarvation },
        },
        ("memory", [id, bytes]) => Event::MemoryRead { child: child(id), bytes: number(bytes) },
        ("needs", ["time", id]) => Event::NeedsTime { child: child(id) },
        ("command", [id, words @ ..]) => {
            Event::Commanded { id: CommandId(number(id)), command: commands::parse(words) }
        }
        ("abandoned", [id]) => Event::Abandoned { id: CommandId(number(id)) },
        ("reopened", [is_complete]) => {
            Event::Reopened { is_complete: is_complete.parse().expect("a bool") }
        }
        ("unupgraded", [..]) => Event::UpgradeFailed { reason: rest.to_owned() },
        _ => panic!("no fact is told by: {line}"),
    }
}

/// The order in words.
pub(super) fn order(action: &Action) -> String {
    match action {
        Action::Fork { child, task, generation } => format!("fork {child} {task} g{generation}"),
        Action::Drain { child } => format!("drain {child}"),
        Action::Stop { child } => format!("stop {child}"),
        Action::Announce { child } => format!("announce {child}"),
        Action::Accept { child, slots } => format!("accept {child} {slots}"),
        Action::Signal { pid, signal } => {
            let signal = match signal {
                ChildSignal::Quit => "INT",
                ChildSignal::Abort => "ABRT",
                ChildSignal::Kill => "KILL",
            };
            format!("send {pid} {signal}")
        }
        Action::Steer { slots } => format!("steer {slots}"),
        Action::OpenSlots { count } => format!("open slots {count}"),
        Action::Watch { slot } => format!("watch {slot}"),
        Action::Look { slot } => format!("look {slot}"),
        Action::Rouse { slot } => format!("rouse {slot}"),
        Action::ReadHeartbeat { child } => format!("read heartbeat {child}"),
        Action::ReadMemory { child } => format!("read memory {child}"),
        Action::Load { generation } => format!("load g{generation}"),
        Action::Use { generation } => format!("use g{generation}"),
        Action::Forget { generation } => format!("forget g{generation}"),
        Action::ReopenLogs => "reopen logs".to_owned(),
        Action::FinishLogs => "finish logs".to_owned(),
        Action::FinishStats => "finish stats".to_owned(),
        Action::StopListening => "stop listening".to_owned(),
        Action::Upgrade => "upgrade".to_owned(),
        Action::Answer { command, outcome: Outcome::Done } => format!("answer {} done", command.0),
        Action::Answer { command, outcome: Outcome::Failed { reason } } => {
            format!("answer {} failed: {reason}", command.0)
        }
        Action::Log(notice) => {
            format!("{}: {notice}", format!("{:?}", notice.severity()).to_lowercase())
        }
        Action::Exit(reason) => format!(
            "exit {}",
            match reason {
                ExitReason::Stopped => 0,
                ExitReason::WorkerBoot => 3,
                ExitReason::Prepare => 4,
            }
        ),
    }
}

/// One fact and its orders, as the lines of a transcript.
pub(super) fn paragraph(now: Instant, event: &Event, given: &[Action]) -> String {
    format!("{:<8} {}\n{}", now.to_string(), fact(event), orders(given))
}

/// Orders, as the lines of a transcript.
pub(super) fn orders(given: &[Action]) -> String {
    let mut text = String::new();
    for action in given {
        writeln!(text, "          → {}", order(action)).unwrap();
    }
    text
}

/// The policy of a line like `workers=2 boot=1.5`; what it does not name has gunicorn's figures.
pub(super) fn policy(line: &str) -> Policy {
    let mut policy = Policy {
        workers: 1,
        workers_max: Slot::MAX,
        graceful_timeout: Duration::from_secs(30),
        announce: Duration::ZERO,
        boot_timeout: Duration::from_secs(60),
        stall_timeout: Duration::ZERO,
        max_lifetime: Duration::ZERO,
        max_memory: 0,
        stats: false,
        extensible: false,
    };
    for setting in line.split_whitespace() {
        let (key, value) = setting.split_once('=').expect("a setting is key=value");
        let seconds = || Duration::from_secs_f64(number(value));
        match key {
            "workers" => policy.workers = number(value),
            "most" => policy.workers_max = number(value),
            "graceful" => policy.graceful_timeout = seconds(),
            "announce" => policy.announce = seconds(),
            "boot" => policy.boot_timeout = seconds(),
            "stall" => policy.stall_timeout = seconds(),
            "lifetime" => policy.max_lifetime = seconds(),
            "memory" => policy.max_memory = number(value),
            "stats" => policy.stats = value == "on",
            "extensible" => policy.extensible = value == "on",
            _ => panic!("no setting is called {key}"),
        }
    }
    policy
}

/// The policy as a line that [`policy`] reads back.
fn settings(policy: &Policy) -> String {
    let Policy { workers, graceful_timeout, boot_timeout, stall_timeout, max_lifetime, .. } =
        policy;
    let memory = policy.max_memory;
    let stats = if policy.stats { " stats=on" } else { "" };
    let extensible = if policy.extensible { " extensible=on" } else { "" };
    let seconds = Duration::as_secs_f64;
    let graceful = seconds(graceful_timeout);
    let boot = seconds(boot_timeout);
    let stall = seconds(stall_timeout);
    let lifetime = seconds(max_lifetime);
    format!(
        "workers={workers} graceful={graceful} boot={boot} stall={stall} lifetime={lifetime} \
         memory={memory}{stats}{extensible}"
    )
}

fn due(why: Due) -> String {
    match why {
        Due::Requests => "requests".to_owned(),
        Due::Memory { bytes } => format!("memory {bytes}"),
        Due::Lifetime => "lifetime".to_owned(),
        Due::ByHand => "by hand".to_owned(),
        Due::Restart => "restart".to_owned(),
    }
}

fn parse_due(words: &[&str]) -> Due {
    match words {
        ["requests"] => Due::Requests,
        ["memory", bytes] => Due::Memory { bytes: number(bytes) },
        ["lifetime"] => Due::Lifetime,
        ["by", "hand"] => Due::ByHand,
        ["restart"] => Due::Restart,
        _ => panic!("no worker is due because of {words:?}"),
    }
}

fn parse_status(words: &[&str]) -> ExitStatus {
    match words {
        ["oom"] => ExitStatus::OutOfMemory,
        ["unknown"] => ExitStatus::Unknown,
        ["code", code] => ExitStatus::Code(number(code)),
        ["signal", by] => ExitStatus::Signal { number: number(by), core: false },
        ["signal", by, "core"] => ExitStatus::Signal { number: number(by), core: true },
        _ => panic!("no process ends with {words:?}"),
    }
}

fn signal(name: &str) -> Signal {
    let all = [
        Signal::Terminate,
        Signal::Interrupt,
        Signal::Quit,
        Signal::Reload,
        Signal::More,
        Signal::Fewer,
        Signal::Reopen,
        Signal::Upgrade,
        Signal::Resize,
    ];
    all.into_iter().find(|signal| signal.to_string() == name).expect("a signal's name")
}

fn child(word: &str) -> ChildId {
    match word.trim_start_matches('#') {
        "stats" => ChildId::STATS,
        word => ChildId(number(word)),
    }
}

fn instant(word: &str) -> Instant {
    Instant::from_millis(number(word.trim_start_matches('@')))
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word}"))
}

fn tail(rest: &str, words: usize) -> String {
    rest.split_whitespace().skip(words).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_fact_can_be_told_and_read_back() {
    for event in crate::supervisor::tests::every_event() {
        assert_eq!(parse(&fact(&event)), event);
    }
}
