//! Lives of a server as transcripts: the facts of a script go in, and out comes the script with the
//! orders that followed. Read them like a log.
//!
//! A script has one fact a line, `@30 ready #2`, its time in milliseconds; a line without a time
//! happens at that of the line before. Orders to fork and to open slots are answered at once, as the
//! master does; child `#n` gets pid 100 + n. The clock stops at each deadline on the way. The logger,
//! child `#0`, does what it is told at once, and only its own stories tell of it.

mod boot;
mod canary;
mod commands;
mod crash;
mod extensions;
mod last_queues;
mod logger;
mod queues;
mod recycle;
mod releases;
mod reload;
mod resize;
mod stats;
mod stop;
mod stuck;
mod upgrade;

use std::collections::VecDeque;

use crate::ids::{ChildId, Pid};
use crate::supervisor::Supervisor;
use crate::supervisor::action::Action;
use crate::supervisor::event::{Event, ExitStatus};
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::Task;
use crate::supervisor::tests::{every_event, transcript};
use crate::time::Instant;

/// The story of a server with these settings, from its start.
fn life(settings: &str, script: &str) -> String {
    let mut teller = Teller::new(settings);
    teller.tell(script);
    teller.text
}

/// The story of a server whose workers all became ready at time 0: child `#2` in slot 0 and so on.
fn served(settings: &str, script: &str) -> String {
    let mut teller = Teller::new(settings);
    teller.boot();
    teller.tell(script);
    teller.text
}

/// Like [`served`], with the orders about queues, which other stories leave out.
fn served_with_queues(settings: &str, script: &str) -> String {
    let mut teller = Teller::new(settings);
    teller.boot();
    teller.tells_queues = true;
    teller.tell(script);
    teller.text
}

/// A server after such a life.
pub(super) fn after(settings: &str, script: &str) -> Supervisor {
    let mut teller = Teller::new(settings);
    teller.boot();
    teller.tell(script);
    teller.supervisor
}

/// Like [`served`], with everything about the logger, which does only what the script says.
fn served_with_logger(settings: &str, script: &str) -> String {
    let mut teller = Teller::new(settings);
    teller.boot();
    teller.tells_logger = true;
    teller.tell(script);
    teller.text
}

struct Teller {
    supervisor: Supervisor,
    now: Instant,
    text: String,
    /// True if the kernel forks now.
    forks: bool,
    /// More slots than this cannot be opened.
    slots_max: u16,
    tells_queues: bool,
    tells_logger: bool,
}

impl Teller {
    fn new(settings: &str) -> Self {
        Self {
            supervisor: Supervisor::new(transcript::policy(settings), 1),
            now: Instant::default(),
            text: String::new(),
            forks: true,
            slots_max: u16::MAX,
            tells_queues: false,
            tells_logger: false,
        }
    }

    /// Brings every worker up, and tells only what came of it.
    fn boot(&mut self) {
        let clean = ExitStatus::Code(0);
        self.step(Event::Started);
        self.step(Event::Exited { pid: Pid(101), status: clean });
        let workers: Vec<ChildId> = self.supervisor.children.iter().map(|child| child.id).collect();
        workers.into_iter().for_each(|child| self.step(Event::Ready { child }));
        self.text.clear();
        for child in &self.supervisor.children {
            let id = child.id;
            let task = child.task;
            let pid = child.pid().expect("it was forked");
            self.text.push_str(&format!("@0       {id} is {task} with pid {pid}\n"));
        }
    }

    fn tell(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (at, words) = match line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
                Some((at, words)) => (at.parse().expect("a time in milliseconds"), words.trim()),
                None => (self.now.as_millis(), line),
            };
            if words != "the machine was asleep" {
                self.pass_until(Instant::from_millis(at));
            }
            self.now = Instant::from_millis(at);
            match words {
                "the kernel refuses to fork" => self.forks = false,
                "the kernel forks again" => self.forks = true,
                "no more slots can be opened" => {
                    self.slots_max = u16::try_from(self.supervisor.slot_states.len()).unwrap();
                }
                "the machine was asleep" => {}
                fact => {
                    self.step(transcript::parse(fact));
                    self.step(Event::Tick);
                    continue;
                }
            }
            self.text.push_str(&format!("{:<8} {words}\n", self.now.to_string()));
        }
    }

    /// Lets the time pass, with a stop at each deadline.
    fn pass_until(&mut self, end: Instant) {
        while let Some(next) = self.supervisor.next_deadline().filter(|next| *next <= end) {
            assert!(next > self.supervisor.handled_at, "the clock does not move on");
            self.now = next.max(self.now);
            self.step(Event::Tick);
        }
    }

    /// Tells a fact, and answers what can be answered at once as the master does: in sequence.
    fn step(&mut self, event: Event) {
        let mut facts = VecDeque::from([event]);
        while let Some(fact) = facts.pop_front() {
            let orders = self.supervisor.handle(self.now, fact.clone());
            facts.extend(orders.iter().filter_map(|order| self.answer(order)));
            let told: Vec<Action> = orders
                .into_iter()
                .filter(|order| self.tells_queues || !is_queueing(order))
                .filter(|order| self.tells_logger || !is_logging(order))
                .collect();
            if !self.tells_logger && is_loggers(&fact) {
                // What follows from it belongs to the fact before.
                self.text.push_str(&transcript::orders(&told));
            } else if fact != Event::Tick || !told.is_empty() {
                self.text.push_str(&transcript::paragraph(self.now, &fact, &told));
            }
        }
    }

    fn answer(&self, order: &Action) -> Option<Event> {
        match order {
            Action::Fork { child, .. } if self.forks || self.hides(*child) => {
                Some(Event::Forked { child: *child, pid: pid_of(*child) })
            }
            Action::Fork { child, .. } => {
                let reason = "resource temporarily unavailable".to_owned();
                Some(Event::ForkFailed { child: *child, reason })
            }
            Action::OpenSlots { count } => {
                Some(Event::SlotsOpen { count: *count.min(&self.slots_max) })
            }
            Action::FinishLogs if !self.tells_logger => {
                let pid = pid_of(ChildId::LOGGER);
                let status = ExitStatus::Code(0);
                Some(Event::Exited { pid, status })
            }
            _ => None,
        }
    }

    /// Returns true if this is the logger, and the story is not about it.
    fn hides(&self, child: ChildId) -> bool {
        child == ChildId::LOGGER && !self.tells_logger
    }
}

/// The pid of a child in the stories.
pub(super) fn pid_of(child: ChildId) -> Pid {
    if child == ChildId::STATS {
        return Pid(99);
    }
    Pid(100 + i32::try_from(child.0).expect("a story is short"))
}

fn is_queueing(order: &Action) -> bool {
    matches!(order, Action::Watch { .. } | Action::Accept { .. } | Action::Steer { .. })
}

fn is_logging(order: &Action) -> bool {
    match order {
        Action::Fork { child, .. } => *child == ChildId::LOGGER,
        Action::Log(Notice::Forked { task, .. }) => *task == Task::Logger,
        Action::FinishLogs => true,
        _ => false,
    }
}

fn is_loggers(fact: &Event) -> bool {
    match fact {
        Event::Forked { child, .. } => *child == ChildId::LOGGER,
        Event::Exited { pid, .. } => *pid == pid_of(ChildId::LOGGER),
        _ => false,
    }
}

/// Where the stories stand.
const BOOKS: [&str; 15] = [
    include_str!("boot.rs"),
    include_str!("commands.rs"),
    include_str!("crash.rs"),
    include_str!("extensions.rs"),
    include_str!("last_queues.rs"),
    include_str!("logger.rs"),
    include_str!("queues.rs"),
    include_str!("recycle.rs"),
    include_str!("releases.rs"),
    include_str!("reload.rs"),
    include_str!("resize.rs"),
    include_str!("stats.rs"),
    include_str!("stop.rs"),
    include_str!("stuck.rs"),
    include_str!("upgrade.rs"),
];

#[test]
fn every_fact_occurs_in_a_story() {
    let lines: Vec<&str> = BOOKS.iter().flat_map(|book| book.lines().map(str::trim)).collect();
    let told = |word: &str| {
        lines.iter().any(|line| {
            line.starts_with('@')
                && line.split_whitespace().nth(1).is_some_and(|other| other == word)
        })
    };
    for event in every_event() {
        let fact = transcript::fact(&event);
        let word = fact.split(' ').next().expect("a fact has a name");
        assert!(told(word), "no story tells of `{word}`");
    }
    for signal in ["TERM", "INT", "QUIT", "HUP", "TTIN", "TTOU", "USR1", "USR2", "WINCH"] {
        let line = format!("signal {signal}");
        assert!(lines.iter().any(|told| told.ends_with(&line)), "no story tells of `{line}`");
    }
}
