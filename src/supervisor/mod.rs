//! Every decision of the master, as one state machine: facts in ([`Event`]), orders out ([`Action`]).
//!
//! It has no clock, no I/O, no randomness and no processes of its own: time is an argument, jitter
//! comes from a seed, and a child is whatever the shell says it is. So ten thousand lives of a server
//! can be tried in seconds, and each can be tried again.
//!
//! # Theory of operation
//! [`Supervisor::handle`] has two halves. `absorb` writes down what happened and decides nothing that
//! could wait; `reconcile` compares what is wanted with what is there and orders the difference. It
//! alone forks and signals, and a second call at the same time orders nothing more. `HUP`, `TTIN`, a
//! crash or an upgrade are therefore changed facts, never procedures that wait for something.
//!
//! ```text
//!            Forked         Ready            a replacement is Ready     exits, dies
//!  Forking ────────▶ Booting ─────▶ Serving ─────────────────▶ Draining ────────────▶ (reaped)
//!     │ ForkFailed      │ deadline     │  ▲ ╲ first of a reload     │ deadline            ▲
//!     ▼                 ▼              │  │  ╲                     ▼                     │
//!  (again later)      Killed   silent  │  └── Yielding ──▶ …    Killed ─────────────────┘
//!                                      └────▶ Aborting ──────▶   deadline
//! ```
//! A slot has at most one serving worker, at most one yielding one, at most one on its way to being
//! ready, and any number of draining ones.
#![cfg_attr(
    not(test),
    deny(
        clippy::wildcard_enum_match_arm,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod absorb;
pub(crate) mod action;
mod auxiliary;
mod backoff;
pub(crate) mod command;
pub(crate) mod event;
mod health;
pub(crate) mod notice;
pub(crate) mod policy;
mod reconcile;
mod reload;
mod slot_state;
pub(crate) mod stage;
mod stop;
mod timer;
mod upgrade;
pub(crate) mod view;
mod watch;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, Generation, Pid, Slot, SlotSet};
use crate::supervisor::action::{Action, ExitReason};
use crate::supervisor::auxiliary::{Auxiliary, Life};
use crate::supervisor::backoff::Refusals;
use crate::supervisor::command::Pending;
use crate::supervisor::event::Event;
use crate::supervisor::policy::{ASLEEP, LATE, Policy};
use crate::supervisor::reload::Reload;
use crate::supervisor::slot_state::SlotState;
use crate::supervisor::stage::{Child, Stage, Task, Urgency};
use crate::supervisor::upgrade::Upgrade;
use crate::time::Instant;

/// The master's knowledge and wishes. It can be handed to another image of the program as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Supervisor {
    /// From which jitter is derived.
    seed: u64,
    phase: Phase,
    /// Workers wanted: the file's number until `TTIN` or `TTOU` say otherwise.
    wanted: u16,
    /// One for each slot with open listeners; those from `wanted` on are parked.
    slot_states: Vec<SlotState>,
    /// So many slots were asked for; the answer is not there yet.
    opening: Option<u16>,
    /// Every child that is forked, or being forked, and not reaped.
    children: Vec<Child>,
    next_child: u64,
    /// The generations still in use.
    policies: BTreeMap<Generation, Policy>,
    /// The generation that every worker shall be of.
    target: Generation,
    /// The last generation that has proved itself; during a reload the one to go back to.
    settled: Generation,
    /// The newest generation there ever was.
    newest: Generation,
    reload: Option<Reload>,
    /// `HUP` came while another reload, the start or an upgrade was under way.
    reload_again: bool,
    upgrade: Upgrade,
    /// When a stop begins that is announced until then.
    announced: Option<Instant>,
    logger: Auxiliary,
    stats: Auxiliary,
    /// Since when every other child is gone, and the last lines are to be written.
    alone_since: Option<Instant>,
    /// To which slots the kernel sends new connections.
    steered: SlotSet,
    /// When the last fact was taken.
    handled_at: Instant,
    /// When the master meant to wake.
    wakes_at: Option<Instant>,
    /// Silence before this is not held against a worker: the master did not run either.
    excused: Instant,
    /// When to say next that workers cannot live.
    complaint_at: Instant,
    prepare_refusals: Refusals,
    /// The generation whose `max_memory` was last said to be too small.
    cramped: Option<Generation>,
    /// Commands of clients whose transaction has not ended.
    commands: Vec<Pending>,
}

/// The undertaking of the server as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Nothing has begun.
    New,
    /// The first generation is being prepared; a refused fork is tried again at `retry_at`.
    Preparing { retry_at: Instant },
    /// Workers were forked; none has ever been ready.
    Starting,
    /// A worker has been ready.
    Running,
    /// Every child ends; at the deadline they are killed. The replacement, if there is one, boots first.
    Stopping {
        urgency: Urgency,
        deadline: Instant,
        reason: ExitReason,
        replacement: Option<ChildId>,
    },
    /// The last order was given.
    Gone,
}

impl Supervisor {
    /// A supervisor that has not begun. `Started` is the first event it must be told.
    pub(crate) fn new(policy: Policy, seed: u64) -> Self {
        Self {
            seed,
            phase: Phase::New,
            wanted: policy.workers,
            slot_states: vec![SlotState::default(); usize::from(policy.workers)],
            opening: None,
            children: Vec::new(),
            next_child: 1,
            policies: BTreeMap::from([(Generation::FIRST, policy)]),
            target: Generation::FIRST,
            settled: Generation::FIRST,
            newest: Generation::FIRST,
            reload: None,
            reload_again: false,
            upgrade: Upgrade::Idle,
            announced: None,
            logger: Auxiliary::UNBORN,
            stats: Auxiliary::UNBORN,
            alone_since: None,
            steered: SlotSet::EMPTY,
            handled_at: Instant::default(),
            wakes_at: None,
            excused: Instant::default(),
            complaint_at: Instant::default(),
            prepare_refusals: Refusals::default(),
            cramped: None,
            commands: Vec::new(),
        }
    }

    /// Takes one fact and gives the orders that follow, to be obeyed in their sequence. Orders that
    /// have an answer are answered by further calls, before the master sleeps.
    pub(crate) fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if self.phase == Phase::Gone {
            return out;
        }
        self.excuse(now);
        // Time is judged when everything is told that has happened by now: a worker may be late, or
        // have lived long enough, in the light of one fact and not in that of the next.
        let judges = event == Event::Tick;
        self.absorb(now, event, &mut out);
        if judges {
            self.expire(now, &mut out);
        }
        self.reconcile(now, &mut out);
        self.handled_at = now;
        self.wakes_at = self.next_deadline();
        out
    }

    /// When the master did not run, neither did its children: their silence does not count, a trial
    /// begins anew, and after a real sleep every child has as much time left as when the master last
    /// ran.
    fn excuse(&mut self, now: Instant) {
        let late = self.wakes_at.map_or(Duration::ZERO, |meant| now.since(meant));
        if late < LATE {
            return;
        }
        self.excused = now;
        let missed = if late < ASLEEP { Duration::ZERO } else { now.since(self.handled_at) };
        for child in &mut self.children {
            match &mut child.stage {
                Stage::Booting { deadline, .. }
                | Stage::Draining { deadline, .. }
                | Stage::Aborting { deadline, .. } => *deadline = deadline.after(missed),
                Stage::Killed { since, .. } => *since = now,
                Stage::Forking | Stage::Serving { .. } | Stage::Yielding { .. } => {}
            }
        }
        if let Phase::Stopping { deadline, .. } = &mut self.phase {
            *deadline = deadline.after(missed);
        }
        self.announced = self.announced.map(|until| until.after(missed));
        self.logger.excuse(now, missed);
        self.stats.excuse(now, missed);
        self.alone_since = self.alone_since.map(|since| since.after(missed));
        if let Some(reload) = &mut self.reload {
            reload.excuse(now, missed);
        }
    }

    /// Returns true if it was the master that has killed this child.
    pub(crate) fn has_killed(&self, pid: Pid) -> bool {
        let killed = |child: &Child| child.is_killed() && child.pid() == Some(pid);
        let role = self.role(pid).map(|role| self.auxiliary(role).life);
        self.children.iter().any(killed) || matches!(role, Some(Life::Killed { .. }))
    }

    /// The workers that are forked, or being forked, and not reaped.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &Child> {
        self.children.iter().filter(|child| child.slot().is_some())
    }

    /// The number of workers that are wanted.
    pub(crate) fn wanted(&self) -> u16 {
        self.wanted
    }

    /// Returns true while a reload is under way.
    pub(crate) fn is_reloading(&self) -> bool {
        self.reload.is_some()
    }

    /// The slots that new connections are sent to; none where the kernel's own choice counts.
    pub(crate) fn steered(&self) -> &SlotSet {
        &self.steered
    }

    /// The generations in use.
    pub(crate) fn generations(&self) -> impl Iterator<Item = Generation> {
        self.policies.keys().copied()
    }

    /// The generation in force.
    pub(crate) fn generation(&self) -> Generation {
        self.settled
    }

    /// Returns true if every wanted worker serves, and with the configuration in force.
    pub(crate) fn is_complete(&self) -> bool {
        self.phase == Phase::Running
            && (0..self.wanted).map(Slot::new).all(|slot| {
                self.serving(slot).is_some_and(|child| child.generation == self.settled)
            })
    }

    fn policy(&self, generation: Generation) -> &Policy {
        // No generation in use is ever forgotten; if it were, another's rules are better than none.
        self.policies
            .get(&generation)
            .or_else(|| self.policies.values().next())
            .expect("the policy in force is never forgotten")
    }

    fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Gone)
    }

    /// Returns true if the server stops, or will.
    fn is_ending(&self) -> bool {
        self.announced.is_some() || self.is_stopping()
    }

    fn has_task(&self, task: Task) -> bool {
        self.children.iter().any(|child| child.task == task)
    }

    fn child(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    fn remove(&mut self, is: impl Fn(&Child) -> bool) -> Option<Child> {
        let at = self.children.iter().position(is)?;
        Some(self.children.remove(at))
    }

    fn by_pid(&mut self, pid: Pid) -> Option<Child> {
        self.remove(|child| child.pid() == Some(pid))
    }

    fn in_slot(&self, slot: Slot) -> impl Iterator<Item = &Child> {
        self.children.iter().filter(move |child| child.slot() == Some(slot))
    }

    fn serving(&self, slot: Slot) -> Option<&Child> {
        self.in_slot(slot).find(|child| child.is_serving())
    }

    fn slot_state(&mut self, slot: Slot) -> Option<&mut SlotState> {
        self.slot_states.get_mut(slot.index())
    }

    /// The slots with open listeners.
    fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        let count = u16::try_from(self.slot_states.len()).unwrap_or(Slot::MAX);
        (0..count).map(Slot::new)
    }
}
