//! What is wanted against what is there. The only place that forks, dismisses and signals, but for
//! the first `ABRT` to a silent worker. It can be called at any time, and twice.

use crate::ids::{ChildId, Generation, Pid, Slot, SlotSet};
use crate::supervisor::action::{Action, ChildSignal, Dismissal};
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::{
    COMPLAINT_INTERVAL, HEALTHY_LIFE, LEAVING_MAX, MEMORY_INTERVAL, QUICK,
};
use crate::supervisor::seat::Seat;
use crate::supervisor::stage::{Child, Due, Kill, Stage, Task, Urgency};
use crate::supervisor::watch::Drainage;
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

/// Early deaths in a row after which a slot is called failing, and its deaths are told in sum.
pub(super) const FAILING: u32 = 5;

impl Supervisor {
    pub(super) fn reconcile(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::New | Phase::Gone) {
            self.keep_logger(now, out);
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
                self.check_workers(now, out);
                self.open_slots(out);
                self.park_surplus(now, out);
                self.release_canary();
                self.fill_vacancies(now, out);
                self.replace(now, out);
                self.watch_queues(now, out);
                self.share(now, out);
                self.complain(now, out);
            }
        }
        if self.phase != Phase::Gone {
            self.forget(out);
            self.advance_upgrade(now, out);
        }
    }

    /// Ends what has had its time.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        let mut unfit = Vec::new();
        for child in &mut self.children {
            let (pid, why) = match child.stage {
                Stage::Booting { pid, deadline } if deadline <= now => (pid, Kill::Boot),
                Stage::Aborting { pid, deadline } if deadline <= now => (pid, Kill::Stall),
                Stage::Leaving { pid, deadline, .. } if deadline <= now => (pid, Kill::Leave),
                Stage::Forking
                | Stage::Booting { .. }
                | Stage::Serving { .. }
                | Stage::Yielding { .. }
                | Stage::Leaving { .. }
                | Stage::Aborting { .. }
                | Stage::Killed { .. } => continue,
            };
            child.stage = Stage::Killed { pid, why };
            out.push(Action::Log(Notice::Killing { task: child.task, pid, why }));
            out.push(Action::Signal { pid, signal: ChildSignal::Kill });
            if why == Kill::Boot {
                unfit.push(child.clone());
            }
        }
        for child in unfit {
            if let Some(slot) = child.slot() {
                self.note_lost(now, &child, slot);
                self.note_unfit(now, &child, "killed", out);
            }
        }
    }

    /// A predecessor leaves when its successor has proved itself, and serves on when that is gone. Only
    /// the first successor of a reload has to: the others are as good as it was.
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
            match slot.and_then(|slot| self.serving(slot)).map(|successor| successor.id) {
                None => self.serve_again(now, id),
                Some(successor) if Some(successor) == canary => {}
                Some(successor) => {
                    self.note_replaced(successor);
                    self.dismiss(now, id, out);
                }
            }
        }
    }

    fn serve_again(&mut self, now: Instant, id: ChildId) {
        if let Some(child) = self.child(id)
            && let Stage::Yielding { pid, since, due } = child.stage
        {
            child.stage =
                Stage::Serving { pid, since, due, pulse_at: now, silent: None, memory_at: now };
        }
    }

    fn reconcile_stop(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Phase::Stopping { urgency, deadline, reason } = self.phase else { return };
        let quick = now.after(QUICK).min(deadline);
        for child in &mut self.children {
            let id = child.id;
            match (&mut child.stage, urgency) {
                (Stage::Leaving { deadline: own, urgency: already, .. }, urgency)
                    if *already >= urgency =>
                {
                    // Its own generation's patience may be longer than the server's.
                    *own = deadline.min(*own);
                }
                (Stage::Serving { pid, .. } | Stage::Yielding { pid, .. }, Urgency::Graceful) => {
                    out.push(Action::Dismiss { child: id, how: Dismissal::Stop });
                    child.stage = Stage::Leaving { pid: *pid, deadline, urgency };
                }
                (Stage::Leaving { pid, deadline: own, .. }, _) => {
                    let deadline = quick.min(*own);
                    child.stage = quit(*pid, deadline, out);
                }
                (
                    Stage::Booting { pid, .. }
                    | Stage::Serving { pid, .. }
                    | Stage::Yielding { pid, .. },
                    _,
                ) => child.stage = quit(*pid, quick, out),
                (Stage::Forking | Stage::Aborting { .. } | Stage::Killed { .. }, _) => {}
            }
        }
        if self.children.is_empty() && self.part_with_logger(now, out) {
            self.phase = Phase::Gone;
            out.push(Action::Exit(reason));
        }
    }

    /// Asks after silent workers and sizes, and marks those that are too old.
    fn check_workers(&mut self, now: Instant, out: &mut Vec<Action>) {
        let mut old = Vec::new();
        for child in &mut self.children {
            let Some(policy) = self.policies.get(&child.generation) else { continue };
            let Stage::Serving { since, due, pulse_at, memory_at, .. } = &mut child.stage else {
                continue;
            };
            if !policy.stall_timeout.is_zero() && *pulse_at <= now {
                *pulse_at = now.after(policy.stall_timeout);
                out.push(Action::TakePulse { child: child.id });
            }
            if due.is_some() {
                continue;
            }
            if policy.max_memory > 0 && *memory_at <= now {
                *memory_at = now.after(MEMORY_INTERVAL);
                out.push(Action::ReadMemory { child: child.id });
            }
            if !policy.max_lifetime.is_zero() && since.after(policy.max_lifetime) <= now {
                old.push(child.id);
            }
        }
        for id in old {
            self.note_due(id, Due::Lifetime, out);
        }
    }

    fn open_slots(&mut self, out: &mut Vec<Action>) {
        if usize::from(self.wanted) > self.seats.len() && self.opening.is_none() {
            self.opening = Some(self.wanted);
            out.push(Action::OpenSlots { count: self.wanted });
        }
    }

    /// Workers beyond the wanted number leave; their slots are left to their siblings.
    fn park_surplus(&mut self, now: Instant, out: &mut Vec<Action>) {
        let wanted = usize::from(self.wanted);
        let surplus: Vec<ChildId> = self
            .children
            .iter()
            .filter(|child| child.slot().is_some_and(|slot| slot.index() >= wanted))
            .map(|child| child.id)
            .collect();
        surplus.into_iter().for_each(|id| self.dismiss(now, id, out));
        // What rolled back is not wanted either.
        let (target, settled) = (self.target, self.settled);
        let stale: Vec<ChildId> = self
            .children
            .iter()
            .filter(|child| child.slot().is_some() && matches!(child.stage, Stage::Booting { .. }))
            .filter(|child| child.generation != target && child.generation != settled)
            .map(|child| child.id)
            .collect();
        stale.into_iter().for_each(|id| self.dismiss(now, id, out));
    }

    /// Tells a worker to leave, in the way that fits its stage.
    fn dismiss(&mut self, now: Instant, id: ChildId, out: &mut Vec<Action>) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let graceful = self.policy(child.generation).graceful_timeout;
        let Some(child) = self.child(id) else { return };
        match child.stage {
            Stage::Serving { pid, .. } | Stage::Yielding { pid, .. } => {
                let (deadline, urgency) = (now.after(graceful), Urgency::Graceful);
                child.stage = Stage::Leaving { pid, deadline, urgency };
                out.push(Action::Dismiss { child: id, how: Dismissal::Drain });
            }
            Stage::Booting { pid, .. } => child.stage = quit(pid, now.after(QUICK), out),
            Stage::Forking
            | Stage::Leaving { .. }
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
    /// to: nobody serves, and the last worker here could not live. Then the new one may be the cure.
    fn is_hopeless(&self, slot: Slot) -> bool {
        self.deaths(slot) > 0 && !self.children.iter().any(|child| child.is_serving())
    }

    /// Forks the replacement of the first worker that needs one: one slot at a time, over all causes.
    fn replace(&mut self, now: Instant, out: &mut Vec<Action>) {
        let busy = self.children.iter().any(|child| {
            child.is_yielding()
                || (child.is_starting() && child.slot().is_some_and(|slot| self.accepts(slot)))
        });
        if busy || self.canary().is_some() {
            return;
        }
        let roomy = |slot: &Slot| {
            self.in_slot(*slot).filter(|child| child.is_leaving()).count() < LEAVING_MAX
        };
        let next = self
            .slots()
            .take(usize::from(self.wanted))
            .find(|slot| self.needs_replacement(*slot) && roomy(slot) && self.may_fork(now, *slot));
        if let Some(slot) = next {
            self.fork(now, Task::Worker { slot }, self.target, out);
        }
    }

    fn needs_replacement(&self, slot: Slot) -> bool {
        self.serving(slot).is_some_and(|child| {
            let due = matches!(child.stage, Stage::Serving { due: Some(_), .. });
            child.generation != self.target || due
        })
    }

    fn is_vacant(&self, slot: Slot) -> bool {
        !self
            .in_slot(slot)
            .any(|child| child.is_starting() || child.is_serving() || child.is_yielding())
    }

    fn may_fork(&self, now: Instant, slot: Slot) -> bool {
        self.seats.get(slot.index()).is_some_and(|seat| seat.may_fork_at() <= now)
    }

    pub(super) fn seat_deadline(&self, at: usize, seat: &Seat) -> Option<Instant> {
        if !matches!(self.phase, Phase::Starting | Phase::Running) {
            return None;
        }
        let slot = Slot::new(u16::try_from(at).ok()?);
        let waits =
            at < usize::from(self.wanted) && (self.is_vacant(slot) || self.needs_replacement(slot));
        let look = match seat.drainage {
            Drainage::Unwatched | Drainage::Watched => None,
            Drainage::Suspect { look_at } | Drainage::Undrained { look_at, .. } => Some(look_at),
        };
        look.into_iter().chain(waits.then(|| seat.may_fork_at())).min()
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
        });
        if let Task::Worker { slot } = task {
            if let Some(seat) = self.seat(slot) {
                seat.forked_at = now;
            }
            self.note_step_begun(now, id, slot, generation);
        }
        out.push(Action::Fork { child: id, task, generation });
    }

    /// Tells each worker from which slots to accept, and the kernel which slots are live.
    fn share(&mut self, now: Instant, out: &mut Vec<Action>) {
        let orphans = self.orphans();
        for child in &mut self.children {
            let (Stage::Serving { .. } | Stage::Yielding { .. }, Some(slot)) =
                (&child.stage, child.slot())
            else {
                continue;
            };
            let slots = SlotSet::from_iter([slot]).union(&orphans);
            if child.accepting != slots {
                child.accepting = slots;
                out.push(Action::Accept { child: child.id, slots });
            }
        }
        let live = self.live(now);
        if self.seats.len() > 1 && live != self.steered {
            self.steered = live;
            out.push(Action::Steer { slots: live });
        }
    }

    /// Whether some slot has lost several workers in a row and has none that lives.
    pub(super) fn is_failing(&self) -> bool {
        self.failing().next().is_some()
    }

    fn failing(&self) -> impl Iterator<Item = (Slot, u32)> {
        self.slots()
            .zip(&self.seats)
            .take(usize::from(self.wanted))
            .filter(|(_, seat)| seat.deaths >= FAILING)
            .map(|(slot, seat)| (slot, seat.deaths))
    }

    fn complain(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.is_failing() && self.complaint_at <= now {
            let slots = self.failing().map(|(slot, _)| slot).collect();
            let deaths = self.failing().map(|(_, deaths)| deaths).max().unwrap_or(0);
            self.complaint_at = now.after(COMPLAINT_INTERVAL);
            out.push(Action::Log(Notice::StillFailing { slots, deaths }));
        }
    }

    fn forgive_healthy(&mut self, now: Instant) {
        let serving: Vec<(Slot, Instant)> = self
            .children
            .iter()
            .filter_map(|child| match child.stage {
                Stage::Serving { since, .. } => Some((child.slot()?, since)),
                Stage::Forking
                | Stage::Booting { .. }
                | Stage::Yielding { .. }
                | Stage::Leaving { .. }
                | Stage::Aborting { .. }
                | Stage::Killed { .. } => None,
            })
            .collect();
        for (slot, since) in serving {
            if now.since(since) >= HEALTHY_LIFE {
                self.forgive(slot, since);
            }
        }
    }

    fn forget(&mut self, out: &mut Vec<Action>) {
        // Until a reload is over, it may go back to where it came from.
        let ends = self.reload.as_ref().map(|reload| [reload.from, reload.to]);
        let used = |generation: &Generation| {
            *generation == self.target
                || *generation == self.settled
                || ends.is_some_and(|ends| ends.contains(generation))
                || self.children.iter().any(|child| child.generation == *generation)
        };
        let unused: Vec<Generation> =
            self.policies.keys().copied().filter(|it| !used(it)).collect();
        for generation in unused {
            self.policies.remove(&generation);
            out.push(Action::Forget { generation });
        }
    }
}

/// Tells a process to leave now.
fn quit(pid: Pid, deadline: Instant, out: &mut Vec<Action>) -> Stage {
    out.push(Action::Signal { pid, signal: ChildSignal::Quit });
    Stage::Leaving { pid, deadline, urgency: Urgency::Quick }
}
