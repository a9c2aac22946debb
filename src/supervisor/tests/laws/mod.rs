//! The laws: they hold in every life of a server, whatever happens to it.
//!
//! Each law is watched at every fact and every order of a world. `lives.rs` tries ten thousand worlds;
//! `sabotage.rs` breaks each law on purpose, to see that it is noticed.

mod lives;
mod logger;
mod orders;
mod pairs;
mod sabotage;
mod states;

pub(crate) use orders::Scene;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::ids::{ChildId, Generation, Pid, SlotSet};
use crate::supervisor::action::{Action, ExitReason};
use crate::supervisor::policy::Policy;
use crate::supervisor::stage::{Task, Urgency};
use crate::supervisor::tests::world::plan::{Plan, Release};

/// The laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Law {
    /// A slot has at most one worker on its way to being ready, at most two that accept, and all
    /// slots together at most one more than is wanted.
    Bounds,
    /// Nothing is forked once the server stops.
    NoForkWhenStopping,
    /// Orders go to children that are forked and not reaped; accept sets to those that accept.
    OnlyTheLiving,
    /// A child is ordered to drain, quit, aborted and killed at most once each, in this sequence.
    OrdersOnce,
    /// A stop becomes more urgent, never less.
    UrgencyRises,
    /// Asking twice at the same time orders nothing more.
    ReconcileOnce,
    /// After the end there is nothing.
    EndIsEnd,
    /// The next deadline is later than the last fact, and timers wake the master seldom.
    NoBusyLoop,
    /// Workers that cannot live are forked at the rate of the back-off, refused forks at theirs.
    BackOff,
    /// When the faults cease, every wanted worker soon serves, and nothing is left of the past.
    Recovers,
    /// A stop ends in time even if no child heeds it, and leaves none behind.
    StopsInTime,
    /// A generation that cannot be prepared, boot or live is never in force when its reload has ended.
    BadReleasesFail,
    /// In a world without faults a slot that has a worker is never without one.
    ServedThroughout,
    /// In a world without faults a reload ends soon, a bad one within its boot timeouts and a second.
    ReloadsEnd,
    /// Only who was silent by its own fault, for so long, is aborted.
    OnlyTheStuck,
    /// A worker that stalls is aborted in time.
    TheStuckEnd,
    /// No child is killed before its time.
    NoEarlyKill,
    /// While a worker accepts, one accepts from every open slot.
    EverySlotAccepted,
    /// New connections are steered to slots whose workers accept, if any do; and to all of them that
    /// drain their queues when nothing is wrong.
    SteeredToTheLiving,
    /// While a worker is able to, a connection that waits is soon accepted.
    QueuesDrain,
    /// Exit codes 3 and 4 say what happened.
    ExitCodes,
    /// One slot at a time is replaced, over all causes.
    OneAtATime,
    /// Any number of `HUP`s during a reload makes one more.
    HupsCoalesce,
    /// A worker drains when another accepts in its slot, or the slot is parked.
    ReplacementFirst,
    /// A generation is remembered while it is used, and not for much longer.
    Remembered,
    /// No worker of a generation is forked before its `prepare` has succeeded.
    PreparedFirst,
    /// When the image is replaced, no order waits for its answer.
    UpgradeAlone,
    /// A server that stops has its logger finish when no other child is left, and not before.
    LoggerLast,
}

/// A law that was broken, and how.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) law: Law,
    pub(crate) how: String,
}

/// Every generation that was read, and how good it is.
pub(crate) type Releases = BTreeMap<Generation, (Release, Policy)>;

/// The count of each happening: a law says little about one that never happens.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// A stop that was announced: it begins then at the earliest, and at the latest.
#[derive(Clone, Copy, Debug)]
struct Announced {
    until: u64,
    begun_by: u64,
}

/// Watches one world.
#[derive(Debug)]
pub(crate) struct Judge {
    broken: Option<Broken>,
    counts: Counts,
    clean: bool,
    undying: bool,
    handled: u64,
    exit: Option<ExitReason>,
    /// No worker was ever ready.
    none_ready: bool,
    /// The first `prepare` has failed.
    unprepared: bool,
    stop: Option<Stop>,
    announced: Option<Announced>,
    reload: Option<Trial>,
    /// `HUP` came, or an upgrade, since the last reload began.
    reload_wanted: bool,
    loading: Option<Generation>,
    /// Forks that are not answered.
    forking: BTreeMap<ChildId, Task>,
    /// The judge's knowledge of each slot.
    slots: Vec<SlotRecord>,
    /// When timers woke the master in the last second, and when queues did.
    timer_wakes: VecDeque<u64>,
    queued: VecDeque<u64>,
    absences: Absences,
    last_step: u64,
    /// Generations that a `prepare` has succeeded for, and those that the master remembers.
    prepared: BTreeSet<Generation>,
    remembered: BTreeSet<Generation>,
    in_force: Generation,
    /// To which slots the kernel sends new connections, if it was told.
    steered: Option<SlotSet>,
    prepare_refused_at: Option<u64>,
    logger: SlotRecord,
    /// The time for which the logger may finish.
    logger_timeout: u64,
    /// Workers that are known to have been told to leave by a signal.
    told_by_hand: BTreeSet<Pid>,
}

/// A stop under way.
#[derive(Clone, Copy, Debug)]
struct Stop {
    urgency: Urgency,
    /// Until when the logger may finish, and every other child; and when the master must have left.
    deadline: u64,
    others_by: u64,
    gone_by: u64,
    /// It was no signal, but this.
    reason: ExitReason,
}

/// A reload under way.
#[derive(Clone, Copy, Debug)]
struct Trial {
    generation: Generation,
    /// The one to go back to.
    from: Generation,
    began: u64,
}

/// The judge's knowledge of a slot.
#[derive(Clone, Copy, Debug, Default)]
struct SlotRecord {
    /// When its last two workers were forked, and when a fork was refused.
    forked_at: Option<u64>,
    forked_before: Option<u64>,
    refused_at: Option<u64>,
    refusals: u32,
    /// Killings of ready workers that are not excused any more, and when there was one: a bucket of
    /// which a second takes one away.
    killings: f64,
    killed_at: u64,
    /// Workers in a row that did not live, and when the last of them was lost.
    early_deaths: u32,
    died_at: u64,
    /// It has had a worker since it was wanted last.
    served: bool,
}

impl SlotRecord {
    /// Returns true if forks were refused, the last one so short a time ago that none may be tried.
    fn was_refused(&self, now: u64) -> bool {
        let pause = 2000.min(125 << self.refusals.min(10));
        self.refused_at.is_some_and(|at| now - at < pause)
    }

    /// Returns true if one killing more is excused.
    fn excuses_kill(&mut self, now: u64) -> bool {
        let passed = Duration::from_millis(now - self.killed_at).as_secs_f64();
        self.killings = (self.killings - passed).max(0.0);
        self.killed_at = now;
        let excused = self.killings + 1.0 <= 100.000_001;
        self.killings += f64::from(u8::from(excused));
        excused
    }
}

/// When the master did not run.
#[derive(Clone, Debug, Default)]
struct Absences {
    /// All the time in which it did not run although it wanted to, and how often that was.
    total: u64,
    count: u64,
    /// The machine's sleeps: when each ended, and how long it was.
    sleeps: Vec<(u64, u64)>,
}

impl Absences {
    /// The time since `then`, but for sleeps that were so long.
    fn awake_since(&self, then: u64, now: u64, sleeps_from: u64) -> u64 {
        let since =
            self.sleeps.iter().filter(|(end, millis)| *end > then && *millis >= sleeps_from);
        now.saturating_sub(then + since.map(|(_, millis)| millis).sum::<u64>())
    }
}

impl Judge {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            broken: None,
            counts: Counts::new(),
            clean: plan.clean,
            undying: plan.undying,
            handled: 0,
            exit: None,
            none_ready: true,
            unprepared: false,
            stop: None,
            announced: None,
            reload: None,
            reload_wanted: false,
            loading: None,
            forking: BTreeMap::new(),
            slots: vec![SlotRecord::default(); usize::from(plan.slots_max) + 1],
            timer_wakes: VecDeque::new(),
            queued: VecDeque::new(),
            absences: Absences::default(),
            last_step: 0,
            prepared: BTreeSet::new(),
            remembered: BTreeSet::from([Generation::FIRST]),
            in_force: Generation::FIRST,
            steered: None,
            prepare_refused_at: None,
            logger: SlotRecord::default(),
            logger_timeout: 0,
            told_by_hand: BTreeSet::new(),
        }
    }

    pub(crate) fn verdict(&self) -> Result<&Counts, &Broken> {
        self.broken.as_ref().map_or(Ok(&self.counts), Err)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Only the first breach counts: what follows may follow from it.
    pub(crate) fn breaks(&mut self, law: Law, how: String) {
        self.broken.get_or_insert(Broken { law, how });
    }

    fn holds(&mut self, law: Law, holds: bool, how: impl FnOnce() -> String) {
        if !holds {
            self.breaks(law, how());
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Returns true if this time the supervisor is asked twice.
    pub(crate) fn looks_twice(&self) -> bool {
        self.handled.is_multiple_of(7)
    }

    pub(crate) fn handled_twice(&mut self, again: &[Action]) {
        self.holds(Law::ReconcileOnce, again.is_empty(), || format!("the second time: {again:?}"));
    }

    /// The machine is about to sleep. A deadline may begin anew from when the master
    /// ran last.
    pub(crate) fn slept(&mut self, now: u64, millis: u64) {
        self.count("the machine slept");
        self.absent(millis + (now - self.last_step));
        self.absences.sleeps.push((now + millis, millis));
    }

    /// The master wakes so much later than it wanted.
    pub(crate) fn overslept(&mut self, millis: u64) {
        self.count("the master overslept");
        self.absent(millis);
    }

    fn absent(&mut self, millis: u64) {
        self.absences.total += millis;
        self.absences.count += 1;
        if let Some(stop) = &mut self.stop {
            stop.gone_by += millis;
        }
        if let Some(announced) = &mut self.announced {
            announced.begun_by += millis;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("a short time")
}
