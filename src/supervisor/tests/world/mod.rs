//! A machine that does not exist, on which a master obeys a supervisor: a clock that jumps from one
//! happening to the next, children with scripts, an operator, and faults, all from one seed.
//!
//! The world obeys orders as the master does: in their sequence, answering at once what has an answer,
//! and it tells the end of a child when it reaps it, before anything else but what that child said.

pub(crate) mod dice;
mod happenings;
pub(crate) mod machine;
mod obey;
pub(crate) mod plan;
pub(crate) mod script;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use crate::ids::{ChildId, Generation, Pid, Slot};
use crate::supervisor::Supervisor;
use crate::supervisor::action::{Action, ExitReason};
use crate::supervisor::event::{Event, ExitStatus, Kept, Signal};
use crate::supervisor::policy::Policy;
use crate::supervisor::stage::Due;
use crate::supervisor::tests::laws::{Broken, Counts, Judge, Law, Releases, Scene};
use crate::supervisor::tests::transcript;
use crate::supervisor::tests::world::dice::Dice;
use crate::supervisor::tests::world::machine::{Machine, Process};
use crate::supervisor::tests::world::plan::{Deed, Plan};
use crate::supervisor::tests::world::script::Turn;
use crate::supervisor::upgrade::Upgrade;
use crate::time::Instant;

/// Something that will happen at its time.
#[derive(Clone, Debug)]
enum Happening {
    Deed(Deed),
    Turn(ChildId, Turn),
    Loaded(Result<Policy, String>),
    /// The faults have ceased.
    Calm,
}

/// Falsifies the orders of a supervisor, so that a law can be seen to be broken.
pub(crate) type Sabotage = fn(&World, &mut Vec<Action>);

/// One life of a server.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) plan: Plan,
    pub(crate) supervisor: Supervisor,
    pub(crate) machine: Machine,
    pub(crate) releases: Releases,
    dice: Dice,
    agenda: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    /// The happenings since the master looked last, and the children that have ended since.
    inbox: Vec<Event>,
    zombies: Vec<ChildId>,
    upgrade_ordered: bool,
    exit: Option<ExitReason>,
    ending: bool,
    judge: Judge,
    sabotage: Option<Sabotage>,
    /// The judge is shown a falsehood: the next deadline is always now.
    pub(crate) wakes_itself: Cell<bool>,
    /// And it is asked twice with a fact that does order something.
    pub(crate) asks_otherwise: Cell<bool>,
    /// The transcript, if one is wanted.
    text: Option<String>,
}

impl World {
    /// The world of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::new(&mut dice);
        Self::planned(seed, plan, dice)
    }

    /// The world of this plan.
    pub(crate) fn planned(seed: u64, plan: Plan, dice: Dice) -> Self {
        let mut world = Self {
            now: 0,
            supervisor: Supervisor::new(plan.policy.clone(), seed),
            machine: Machine::new(plan.policy.workers),
            releases: BTreeMap::from([(Generation::FIRST, (plan.first, plan.policy.clone()))]),
            judge: Judge::new(&plan),
            plan,
            dice,
            agenda: BTreeMap::new(),
            sequence: 0,
            inbox: Vec::new(),
            zombies: Vec::new(),
            upgrade_ordered: false,
            exit: None,
            ending: false,
            sabotage: None,
            wakes_itself: Cell::new(false),
            asks_otherwise: Cell::new(false),
            text: None,
        };
        world.schedule(world.plan.calm_at, Happening::Calm);
        for (at, deed) in world.plan.deeds.clone() {
            world.schedule(at, Happening::Deed(deed));
        }
        world
    }

    /// With a transcript, to be had by [`World::text`] when it has ended.
    pub(crate) fn told(self) -> Self {
        let text = format!("{:?}\n", self.plan);
        Self { text: Some(text), ..self }
    }

    /// With false orders.
    pub(crate) fn sabotaged(self, sabotage: Sabotage) -> Self {
        Self { sabotage: Some(sabotage), ..self }
    }

    /// The fact that was told.
    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("")
    }

    /// The orders that came of it.
    pub(crate) fn verdict(&self) -> Result<&Counts, &Broken> {
        self.judge.verdict()
    }

    /// Lives to the end, or until a law is broken.
    pub(crate) fn run(&mut self) {
        self.step(Event::Started);
        while !self.is_over() {
            if !self.ending && self.now >= self.plan.calm_at {
                self.end_when_at_rest();
            }
            self.wake();
        }
        if self.exit.is_some() {
            self.tell_the_dead();
        }
    }

    /// Returns true if the master has left.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.is_some()
    }

    fn is_over(&self) -> bool {
        self.exit.is_some() || self.judge.is_broken()
    }

    fn end_when_at_rest(&mut self) {
        if self.is_at_rest() {
            self.ending = true;
            self.judge.rests(&self.supervisor);
            if self.plan.undying {
                self.make_undying();
            }
            self.schedule(self.now + 1, Happening::Deed(Deed::Signal(self.plan.end)));
        } else {
            self.judge.awaits_rest(self.now, self.plan.calm_at, &self.supervisor);
        }
    }

    /// Returns true if everything is as the operator wants it, and nothing is under way.
    fn is_at_rest(&self) -> bool {
        let it = &self.supervisor;
        it.is_complete()
            && it.reload.is_none()
            && !it.reload_again
            && it.upgrade == Upgrade::Idle
            && self.machine.process(ChildId::LOGGER).is_some()
            && self.machine.processes.iter().all(|process| self.is_orderly(process))
            && !it.children.iter().any(is_due)
    }

    /// Returns true if it serves and can, or was replaced since the faults have ceased.
    fn is_orderly(&self, process: &Process) -> bool {
        if process.id == ChildId::LOGGER {
            return process.ended.is_none() && !process.orders.any();
        }
        let replaced = process.orders.drains_since.is_some_and(|at| at > self.plan.calm_at);
        replaced || (process.serves() && process.runs())
    }

    /// Sleeps until something happens, and takes it in.
    fn wake(&mut self) {
        let deadline = self.supervisor.next_deadline().map(Instant::as_millis);
        let happening = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = deadline.into_iter().chain(happening).min() else {
            return self.judge.breaks(Law::Recovers, "the master sleeps for ever".to_owned());
        };
        self.now = self.now.max(next) + self.lateness();
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now)
        {
            let happening = entry.remove();
            self.happen(happening);
            self.machine.drain_queues(self.now);
        }
        let by_timer = deadline.is_some_and(|deadline| deadline <= self.now);
        self.judge.woke(self.now, by_timer, self.machine.queues.len());
        self.deliver();
        // Asked for nothing it does nothing: it is not asked every time, to save time.
        if by_timer || self.dice.percent(20) {
            self.step(Event::Tick);
        }
        // A stop has taken the order back.
        if std::mem::take(&mut self.upgrade_ordered) && !self.supervisor.is_ending() {
            self.upgrade();
        }
    }

    fn lateness(&mut self) -> u64 {
        if self.now >= self.plan.calm_at || !self.dice.percent(self.plan.lateness) {
            return 0;
        }
        let late =
            if self.dice.percent(90) { self.dice.below(30) } else { self.dice.between(300, 3000) };
        self.judge.overslept(late);
        late
    }

    /// Tells what has happened: what children said and that they have ended, then everything else.
    fn deliver(&mut self) {
        for id in std::mem::take(&mut self.zombies) {
            let (said, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inbox)
                .into_iter()
                .partition(|event| is_said_by(event, id));
            self.inbox = others;
            said.into_iter().for_each(|event| self.step(event));
            if self.is_over() {
                return;
            }
            if let Some(process) = self.machine.process(id) {
                self.judge.ended(self.now, process, process.ended.expect("it is a zombie"));
            }
            if let Some((pid, status)) = self.machine.reap(id) {
                self.step(Event::Exited { pid, status });
            }
        }
        let (said, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inbox)
            .into_iter()
            .partition(|event| matches!(event, Event::Ready { .. } | Event::WorkerDue { .. }));
        for event in said.into_iter().chain(others) {
            if !self.is_over() {
                self.step(event);
            }
        }
    }

    /// Tells a fact, and obeys until every fact that follows from it is told too.
    fn step(&mut self, event: Event) {
        let mut facts = VecDeque::from([event]);
        let mut told = 0;
        while let Some(fact) = facts.pop_front() {
            told += 1;
            if told > 500 {
                return self.judge.breaks(Law::NoBusyLoop, "one fact follows another".to_owned());
            }
            if let Event::Ready { child } = fact {
                self.note_ready(child);
            }
            let orders = self.handle(&fact);
            for order in orders {
                self.judge_order(&order);
                facts.extend(self.obey(order));
            }
            if self.is_over() {
                return;
            }
        }
        self.machine.drain_queues(self.now);
        let (scene, judge) = self.scene();
        judge.stepped(&scene);
    }

    /// The judge's view.
    fn scene(&mut self) -> (Scene<'_>, &mut Judge) {
        let Self { now, machine, releases, supervisor, judge, .. } = self;
        (Scene { now: *now, machine, releases, supervisor }, judge)
    }

    fn judge_order(&mut self, order: &Action) {
        let (scene, judge) = self.scene();
        judge.order(&scene, order);
    }

    /// One call of the supervisor, under the eyes of the judge.
    fn handle(&mut self, fact: &Event) -> Vec<Action> {
        let now = Instant::from_millis(self.now);
        let (scene, judge) = self.scene();
        judge.fact(&scene, fact);
        let mut orders = self.supervisor.handle(now, fact.clone());
        if let Some(sabotage) = self.sabotage {
            sabotage(self, &mut orders);
        }
        if let Some(text) = &mut self.text {
            text.push_str(&transcript::paragraph(now, fact, &orders));
        }
        let deadline = self.supervisor.next_deadline();
        self.judge.handled(now, if self.wakes_itself.get() { Some(now) } else { deadline });
        if self.judge.looks_twice() && !self.supervisor.awaits_tick(now) {
            let otherwise = self.asks_otherwise.get();
            let fact = if otherwise { Event::Signalled(Signal::Reopen) } else { Event::Tick };
            let again = self.supervisor.clone().handle(now, fact);
            self.judge.handled_twice(&again);
        }
        orders
    }

    /// The master has left: whatever it is told, it orders nothing.
    fn tell_the_dead(&mut self) {
        let child = ChildId(1);
        let status = ExitStatus::Code(0);
        for fact in [
            Event::Tick,
            Event::Signalled(Signal::Terminate),
            Event::Signalled(Signal::Reload),
            Event::Signalled(Signal::Reopen),
            Event::Exited { pid: Pid(101), status },
            Event::Ready { child },
        ] {
            let orders = self.handle(&fact);
            for order in orders {
                self.judge_order(&order);
            }
        }
    }

    fn schedule(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), happening);
    }
}

fn is_said_by(event: &Event, id: ChildId) -> bool {
    matches!(event, Event::Ready { child } | Event::WorkerDue { child, .. } if *child == id)
}

fn is_due(child: &crate::supervisor::stage::Child) -> bool {
    matches!(child.stage, crate::supervisor::stage::Stage::Serving { due: Some(_), .. })
}

/// A process that was just forked.
fn newborn(
    id: ChildId,
    pid: Pid,
    task: crate::supervisor::stage::Task,
    generation: Generation,
    script: script::Script,
    now: u64,
) -> Process {
    Process {
        id,
        pid,
        task,
        generation,
        script,
        forked_at: now,
        ready_at: None,
        accepting: crate::ids::SlotSet::EMPTY,
        roused_at: 0,
        hung: None,
        starved: None,
        grown: false,
        undying: false,
        ended: None,
        orders: machine::Orders::default(),
    }
}
