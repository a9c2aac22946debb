//! The difference between the wish and the fact. The only place that forks and has workers drain. It can be
//! called at any time, and twice.

use crate::ids::{ChildId, Generation, Slot, SlotSet};
use crate::supervisor::action::Action;
use crate::supervisor::auxiliary::Role;
use crate::supervisor::policy::{DRAINING_MAX, QUICK};
use crate::supervisor::stage::{Child, Stage, Task, Urgency};
use crate::supervisor::stop::quit;
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

impl Supervisor {
    pub(super) fn reconcile(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::New | Phase::Gone) {
            Role::ALL.into_iter().for_each(|role| self.keep(role, now, out));
        }
        match self.phase {
            Phase::New | Phase::Gone => {}
            Phase::Stopping { .. } => self.reconcile_stop(now, out),
            Phase::Preparing { retry_at } => {
                if retry_at <= now && !self.has_task(Task::Prepare) {
                    self.fork(now, Task::Prepare, self.target, out);
                }
            }
            Phase::Starting | Phase::Running => {
                self.forgive_healthy(now);
                self.end_yielding(now, out);
                self.advance_reload(now, out);
                self.begin_reload(now, out);
                // Workers that were to be replaced may serve on: those are asked again.
                self.settle_commands(out);
                self.check_workers(now, out);
                self.open_slots(out);
                self.park_surplus(now, out);
                self.release_canary();
                // Before anything is forked, which takes its time: connections wait in those queues.
                self.watch_queues(now, out);
                self.share(now, out);
                self.fill_vacancies(now, out);
                self.replace(now, out);
                self.complain(now, out);
            }
        }
        if self.phase != Phase::Gone {
            self.forget(out);
            self.advance_upgrade(now, out);
        }
    }

    /// A predecessor drains when its replacement has proved itself, and serves on when that is gone. Only
    /// the first replacement of a reload has to: the others are as good as it was.
    fn end_yielding(&mut self, now: Instant, out: &mut Vec<Action>) {
        let canary = self.canary();
        let yielding: Vec<ChildId> = self
            .children
            .iter()
            .filter(|child| child.is_yielding())
            .map(|child| child.id)
            .collect();
        for id in yielding {
            let slot = self.child(id).and_then(|child| child.slot());
            match slot.and_then(|slot| self.serving(slot)).map(|replacement| replacement.id) {
                None => self.serve_again(now, id),
                Some(replacement) if Some(replacement) == canary => {}
                Some(replacement) => {
                    self.note_replaced(replacement);
                    self.drain(now, id, out);
                }
            }
        }
    }

    fn serve_again(&mut self, now: Instant, id: ChildId) {
        if let Some(child) = self.child(id)
            && let Stage::Yielding { pid, since, due } = child.stage
        {
            child.stage =
                Stage::Serving { pid, since, due, heartbeat_at: now, silent: None, memory_at: now };
        }
    }

    fn open_slots(&mut self, out: &mut Vec<Action>) {
        if usize::from(self.wanted) > self.slot_states.len() && self.opening.is_none() {
            self.opening = Some(self.wanted);
            out.push(Action::OpenSlots { count: self.wanted });
        }
    }

    /// Workers beyond the wanted number drain; their slots are left to their siblings.
    fn park_surplus(&mut self, now: Instant, out: &mut Vec<Action>) {
        let wanted = usize::from(self.wanted);
        let surplus: Vec<ChildId> = self
            .children
            .iter()
            .filter(|child| child.slot().is_some_and(|slot| slot.index() >= wanted))
            .map(|child| child.id)
            .collect();
        surplus.into_iter().for_each(|id| self.drain(now, id, out));
        // What rolled back is not wanted either.
        let target = self.target;
        let settled = self.settled;
        let stale: Vec<ChildId> = self
            .children
            .iter()
            .filter(|child| child.slot().is_some() && matches!(child.stage, Stage::Booting { .. }))
            .filter(|child| child.generation != target && child.generation != settled)
            .map(|child| child.id)
            .collect();
        stale.into_iter().for_each(|id| self.drain(now, id, out));
    }

    /// Has a worker drain, or quit if it serves nothing yet.
    fn drain(&mut self, now: Instant, id: ChildId, out: &mut Vec<Action>) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let graceful = self.policy(child.generation).graceful_timeout;
        let Some(child) = self.child(id) else { return };
        match child.stage {
            Stage::Serving { pid, .. } | Stage::Yielding { pid, .. } => {
                let deadline = now.after(graceful);
                let urgency = Urgency::Graceful;
                child.stage = Stage::Draining { pid, deadline, urgency };
                out.push(Action::Drain { child: id });
            }
            Stage::Booting { pid, .. } => {
                child.stage = quit(pid, now.after(QUICK), out);
                let untried = child.clone();
                self.note_untried(&untried);
            }
            Stage::Forking
            | Stage::Draining { .. }
            | Stage::Aborting { .. }
            | Stage::Killed { .. } => {}
        }
    }

    fn fill_vacancies(&mut self, now: Instant, out: &mut Vec<Action>) {
        for slot in self.slots().take(usize::from(self.wanted)) {
            if self.is_vacant(slot) && self.may_fork(now, slot) {
                let tried = self.needs_canary() && self.is_hopeless(slot);
                let generation = if tried { self.target } else { self.settled };
                self.fork(now, Task::Worker { slot }, generation, out);
            }
        }
    }

    /// Until a new generation has proved itself the old one fills the gaps, unless that has just failed
    /// to: no worker serves, and the last worker here could not live. Then the new one may be the cure.
    fn is_hopeless(&self, slot: Slot) -> bool {
        self.deaths(slot) > 0 && !self.children.iter().any(|child| child.is_serving())
    }

    /// Forks the replacement of the worker that has needed one for longest: one slot at a time, over all
    /// causes.
    fn replace(&mut self, now: Instant, out: &mut Vec<Action>) {
        let busy = self.children.iter().any(|child| {
            child.is_yielding()
                || (child.is_starting() && child.slot().is_some_and(|slot| self.accepts(slot)))
        });
        if busy || self.canary().is_some() {
            return;
        }
        let roomy = |slot: &Slot| {
            self.in_slot(*slot).filter(|child| child.is_draining()).count() < DRAINING_MAX
        };
        let (roomy, crowded): (Vec<Slot>, Vec<Slot>) = self
            .slots()
            .take(usize::from(self.wanted))
            .filter(|slot| self.needs_replacement(*slot) && self.may_fork(now, *slot))
            .partition(roomy);
        // Of those that are of an old generation, the first.
        let next =
            roomy.iter().min_by_key(|slot| self.serving(**slot).map(|child| child.due_since));
        match (next, crowded.first()) {
            (Some(slot), _) => self.fork(now, Task::Worker { slot: *slot }, self.target, out),
            (None, Some(slot)) => self.note_crowded(*slot, out),
            (None, None) => {}
        }
    }

    pub(super) fn needs_replacement(&self, slot: Slot) -> bool {
        self.serving(slot).is_some_and(|child| {
            let due = matches!(child.stage, Stage::Serving { due: Some(_), .. });
            child.generation != self.target || due
        })
    }

    pub(super) fn is_vacant(&self, slot: Slot) -> bool {
        !self
            .in_slot(slot)
            .any(|child| child.is_starting() || child.is_serving() || child.is_yielding())
    }

    fn may_fork(&self, now: Instant, slot: Slot) -> bool {
        self.slot_states.get(slot.index()).is_some_and(|state| state.may_fork_at() <= now)
    }

    pub(super) fn fork(
        &mut self,
        now: Instant,
        task: Task,
        generation: Generation,
        out: &mut Vec<Action>,
    ) {
        let id = ChildId(self.next_child);
        self.next_child = self.next_child.saturating_add(1);
        self.children.push(Child {
            id,
            task,
            generation,
            began: now,
            stage: Stage::Forking,
            accepting: SlotSet::EMPTY,
            due_since: Instant::default(),
        });
        if let Task::Worker { slot } = task {
            if let Some(state) = self.slot_state(slot) {
                state.forked_at = now;
            }
            self.note_step_begun(now, id, slot, generation);
        }
        out.push(Action::Fork { child: id, task, generation });
    }

    /// Tells each worker from which slots to accept, and the kernel which slots are live.
    fn share(&mut self, now: Instant, out: &mut Vec<Action>) {
        let orphans = self.orphans();
        for child in &mut self.children {
            let Some(slot) = child.slot() else { continue };
            if !matches!(child.stage, Stage::Serving { .. } | Stage::Yielding { .. }) {
                continue;
            }
            let slots = SlotSet::from_iter([slot]).union(&orphans);
            if child.accepting != slots {
                child.accepting = slots;
                out.push(Action::Accept { child: child.id, slots });
            }
        }
        let live = self.live(now);
        if self.slot_states.len() > 1 && live != self.steered {
            self.steered = live;
            out.push(Action::Steer { slots: live });
        }
    }

    fn forget(&mut self, out: &mut Vec<Action>) {
        // Until a reload is over, it may go back to where it came from.
        let ends = self.reload.as_ref().map(|reload| [reload.from, reload.to]);
        let used = |generation: &Generation| {
            *generation == self.target
                || *generation == self.settled
                || ends.is_some_and(|generations| generations.contains(generation))
                || self.children.iter().any(|child| child.generation == *generation)
        };
        let unused: Vec<Generation> =
            self.policies.keys().copied().filter(|key| !used(key)).collect();
        for generation in unused {
            self.policies.remove(&generation);
            out.push(Action::Forget { generation });
        }
    }
}
