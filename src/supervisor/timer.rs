//! The supervisor's timers, as one table: from it come the time of the next `Tick`, and the timers that have
//! expired by then.

use std::time::Duration;

use crate::ids::{ChildId, Slot};
use crate::supervisor::action::{Action, ChildSignal, ExitReason};
use crate::supervisor::auxiliary::{Life, Role};
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::UNKILLABLE;
use crate::supervisor::reload::Reload;
use crate::supervisor::slot_state::{Loss, SlotState};
use crate::supervisor::stage::{Child, Kill, Stage, Task, Urgency};
use crate::supervisor::watch::Drainage;
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

/// A reason to wait for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// A stop was announced for long enough.
    Announcement,
    /// A child has had its time: it is killed, or waited for no longer.
    Child(ChildId),
    /// The same for the logger and the stats process.
    Auxiliary(Role),
    /// The first replacement of a reload has lived for long enough.
    Trial,
    /// `reconcile` has something to order.
    Order,
}

impl Supervisor {
    /// When the next `Tick` is due; `None`: never, until something happens. Always later than the last
    /// fact: what was due by then has been done, waits for something else than time, or for `Tick`.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        // A timer that only `Tick` handles is handled at the latest then.
        let soon = self.handled_at.after(Duration::from_millis(1));
        let at = |(timer, at): (Timer, Instant)| match timer {
            Timer::Order => at,
            Timer::Announcement | Timer::Child(_) | Timer::Auxiliary(_) | Timer::Trial => {
                at.max(soon)
            }
        };
        self.timers().map(at).filter(|at| *at > self.handled_at).min()
    }

    /// For tests: returns true if something is overdue that only `Tick` decides.
    #[cfg(test)]
    pub(super) fn awaits_tick(&self, now: Instant) -> bool {
        self.timers().any(|(timer, at)| timer != Timer::Order && at <= now)
    }

    /// Handles the timers that have expired.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        let due: Vec<Timer> =
            self.timers().filter(|(_, at)| *at <= now).map(|(timer, _)| timer).collect();
        let mut unfit = Vec::new();
        for timer in due {
            match timer {
                Timer::Announcement => {
                    self.stop(now, Urgency::Graceful, ExitReason::Stopped, out);
                }
                Timer::Child(id) => unfit.extend(self.expire_child(now, id, out)),
                Timer::Auxiliary(role) => self.expire_auxiliary(role, now, out),
                Timer::Trial | Timer::Order => {}
            }
        }
        for child in unfit {
            if let Some(slot) = child.slot() {
                self.note_lost(now, &child, slot, Loss::NotReady);
                self.note_unfit(now, &child, "killed", out);
            }
        }
        self.prove_canary(now, out);
    }

    /// Kills a child, or waits no longer for one that `KILL` does not end: the kernel holds it. Returns one
    /// that was not ready in time.
    fn expire_child(&mut self, now: Instant, id: ChildId, out: &mut Vec<Action>) -> Option<Child> {
        let boot = if self.is_stopping() { Kill::Leave } else { Kill::Boot };
        let child = self.child(id)?;
        let pid = child.pid()?;
        let task = child.task;
        let why = match child.stage {
            Stage::Booting { .. } => boot,
            Stage::Aborting { .. } => Kill::Stall,
            Stage::Draining { .. } => Kill::Leave,
            Stage::Killed { .. } => {
                self.remove(|child| child.id == id);
                out.push(Action::Log(Notice::Unkillable { task, pid }));
                return None;
            }
            Stage::Forking | Stage::Serving { .. } | Stage::Yielding { .. } => return None,
        };
        child.stage = Stage::Killed { pid, why, since: now };
        let unfit = (why == Kill::Boot).then(|| child.clone());
        out.push(Action::Log(Notice::Killing { task, pid, why }));
        out.push(Action::Signal { pid, signal: ChildSignal::Kill });
        unfit
    }

    /// Every timer that runs, with its time.
    fn timers(&self) -> impl Iterator<Item = (Timer, Instant)> {
        let announced = self.announced.map(|until| (Timer::Announcement, until));
        let children = self.children.iter().filter_map(|child| self.child_timer(child));
        let begun = !matches!(self.phase, Phase::New);
        let auxiliaries = Role::ALL.into_iter().filter(move |_| begun).filter_map(|role| {
            let absent = matches!(self.auxiliary(role).life, Life::Absent { .. });
            let timer = if absent { Timer::Order } else { Timer::Auxiliary(role) };
            self.auxiliary_deadline(role).map(|at| (timer, at))
        });
        let slots = self.slots().zip(&self.slot_states).filter_map(|(slot, state)| {
            self.slot_deadline(slot, state).map(|at| (Timer::Order, at))
        });
        let trial = self.reload.as_ref().and_then(Reload::passes_at);
        let trial = trial.filter(|_| self.phase == Phase::Running).map(|at| (Timer::Trial, at));
        let own = [trial, self.order_timer()];
        let all = announced.into_iter().chain(children).chain(auxiliaries).chain(slots);
        all.chain(own.into_iter().flatten()).filter(|_| self.phase != Phase::Gone)
    }

    fn child_timer(&self, child: &Child) -> Option<(Timer, Instant)> {
        let policy = self.policy(child.generation);
        let at = match child.stage {
            Stage::Forking | Stage::Yielding { .. } => None,
            Stage::Killed { since, .. } => self.given_up_at(since),
            Stage::Booting { deadline, .. }
            | Stage::Draining { deadline, .. }
            | Stage::Aborting { deadline, .. } => Some(deadline),
            Stage::Serving { since, due, heartbeat_at, memory_at, .. } => {
                let times = [
                    (!policy.stall_timeout.is_zero()).then_some(heartbeat_at),
                    (policy.max_memory > 0 && due.is_none()).then_some(memory_at),
                    (!policy.max_lifetime.is_zero() && due.is_none())
                        .then(|| since.after(policy.max_lifetime)),
                ];
                return times.into_iter().flatten().min().map(|at| (Timer::Order, at));
            }
        };
        at.map(|at| (Timer::Child(child.id), at))
    }

    fn slot_deadline(&self, slot: Slot, state: &SlotState) -> Option<Instant> {
        if !matches!(self.phase, Phase::Starting | Phase::Running) {
            return None;
        }
        let is_wanted = slot.index() < usize::from(self.wanted);
        let waits = is_wanted && (self.is_vacant(slot) || self.needs_replacement(slot));
        let look = match state.drainage {
            Drainage::Unwatched | Drainage::Watched => None,
            Drainage::Suspect { look_at } | Drainage::Undrained { look_at, .. } => Some(look_at),
        };
        look.into_iter().chain(waits.then(|| state.may_fork_at())).min()
    }

    /// When `prepare` is forked, or it is logged that workers cannot live.
    fn order_timer(&self) -> Option<(Timer, Instant)> {
        let is_prepared = self.has_task(Task::Prepare);
        let at = match self.phase {
            Phase::Preparing { retry_at } => (!is_prepared).then_some(retry_at),
            Phase::Running => {
                let complaint = self.is_failing().then_some(self.complaint_at);
                let prepare = self.reload.as_ref().and_then(Reload::prepares_at);
                complaint.into_iter().chain(prepare.filter(|_| !is_prepared)).min()
            }
            Phase::New | Phase::Starting | Phase::Stopping { .. } | Phase::Gone => None,
        };
        at.map(|at| (Timer::Order, at))
    }

    /// When a stop is over.
    pub(super) fn stop_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Stopping { deadline, .. } => Some(deadline),
            Phase::New
            | Phase::Preparing { .. }
            | Phase::Starting
            | Phase::Running
            | Phase::Gone => None,
        }
    }

    /// When a stop waits no longer for a child that was killed then.
    pub(super) fn given_up_at(&self, killed: Instant) -> Option<Instant> {
        self.stop_deadline().map(|deadline| killed.max(deadline).after(UNKILLABLE))
    }
}
