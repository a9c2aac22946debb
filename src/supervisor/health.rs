//! Workers that live, that stall, that are too old or too large, and that cannot live at all.

use std::time::Duration;

use crate::ids::{ChildId, Slot};
use crate::supervisor::action::{Action, ChildSignal, ExitReason};
use crate::supervisor::auxiliary::Role;
use crate::supervisor::event::Kept;
use crate::supervisor::notice::{Ending, Notice};
use crate::supervisor::policy::{
    ABORT, COMPLAINT_INTERVAL, EXTENSION, FAILING, HEALTHY_LIFE, HEARTBEAT_AGAIN, LAST_LINES,
    MEMORY_INTERVAL,
};
use crate::supervisor::slot_state::{Loss, SlotState};
use crate::supervisor::stage::{Child, Due, Kill, Silence, Stage, Urgency};
use crate::supervisor::{Phase, Supervisor, backoff};
use crate::time::Instant;

impl Supervisor {
    /// A program has asked for more time to become ready, or to finish: its keeper kills it at the end of
    /// that time. A quick stop is not put off.
    pub(super) fn note_needs_time(&mut self, now: Instant, id: ChildId) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let generation = child.generation;
        if !self.policy(generation).extensible {
            return;
        }
        let until = now.after(EXTENSION);
        let Some(child) = self.child(id) else { return };
        let slot = child.slot();
        match &mut child.stage {
            Stage::Booting { deadline, .. } => {
                *deadline = until.max(*deadline);
                if let (Some(slot), Some(reload)) = (slot, &mut self.reload) {
                    reload.extend_attempt(slot, generation, until);
                }
            }
            Stage::Draining { deadline, urgency: Urgency::Graceful, .. } => {
                *deadline = until.max(*deadline);
                if let Phase::Stopping { urgency: Urgency::Graceful, deadline, .. } =
                    &mut self.phase
                {
                    // The logger has its time after the last worker.
                    *deadline = until.after(LAST_LINES).max(*deadline);
                }
            }
            Stage::Forking
            | Stage::Serving { .. }
            | Stage::Yielding { .. }
            | Stage::Draining { .. }
            | Stage::Aborting { .. }
            | Stage::Killed { .. } => {}
        }
    }

    /// A child that has closed its channel receives no order, and its reports are lost: it must go.
    pub(super) fn note_unheard(&mut self, now: Instant, id: ChildId, out: &mut Vec<Action>) {
        if let Some(role) = Role::of(id) {
            return self.note_auxiliary_unheard(role, now, out);
        }
        let Some(child) = self.child(id) else { return };
        let before = child.clone();
        let Some(pid) = child.pid().filter(|_| !child.is_killed()) else { return };
        child.stage = Stage::Killed { pid, why: Kill::Unheard, since: now };
        let task = child.task;
        let why = Kill::Unheard;
        out.push(Action::Log(Notice::Killing { task, pid, why }));
        out.push(Action::Signal { pid, signal: ChildSignal::Kill });
        if let Some(slot) = before.slot()
            && !before.is_draining()
        {
            self.note_lost(now, &before, slot, Loss::Unheard);
            self.note_unfit(now, &before, "killed", out);
        }
    }

    /// Asks after silent workers and sizes, and marks those that are too old.
    pub(super) fn check_workers(&mut self, now: Instant, out: &mut Vec<Action>) {
        let mut old = Vec::new();
        for child in &mut self.children {
            let Some(policy) = self.policies.get(&child.generation) else { continue };
            let Stage::Serving { since, due, heartbeat_at, memory_at, .. } = &mut child.stage
            else {
                continue;
            };
            if !policy.stall_timeout.is_zero() && *heartbeat_at <= now {
                *heartbeat_at = now.after(policy.stall_timeout);
                out.push(Action::ReadHeartbeat { child: child.id });
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
            self.note_due(now, id, Due::Lifetime, out);
        }
    }

    /// Has a worker replaced that has become too large. One that always was is an early death like
    /// others: its replacement will be no smaller.
    pub(super) fn note_memory(
        &mut self,
        now: Instant,
        id: ChildId,
        bytes: u64,
        out: &mut Vec<Action>,
    ) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let generation = child.generation;
        let limit = self.policy(generation).max_memory;
        let Some(slot) = child.slot() else { return };
        let Stage::Serving { pid, since, due: None, .. } = &child.stage else { return };
        if limit == 0 || bytes <= limit {
            return;
        }
        let pid = *pid;
        let early = now.since(*since) < HEALTHY_LIFE;
        self.note_due(now, id, Due::Memory { bytes }, out);
        if early {
            self.note_early_death(now, slot, Loss::TooLarge);
            if self.cramped.replace(generation) != Some(generation) {
                out.push(Action::Log(Notice::WorkerTooLarge { slot, pid, bytes }));
            }
        }
    }

    /// Judges a silent worker. Only its own silence counts: not the time in which it waited for a
    /// processor, nor that in which the master did not run either. So it is asked twice, with time to
    /// show a sign of life in between.
    pub(super) fn note_heartbeat(
        &mut self,
        now: Instant,
        id: ChildId,
        heartbeat: Instant,
        kept: Kept,
        out: &mut Vec<Action>,
    ) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let stall = self.policy(child.generation).stall_timeout;
        let excused = self.excused;
        let Some(child) = self.child(id) else { return };
        let Some(slot) = child.slot() else { return };
        let Stage::Serving { pid, since, heartbeat_at, silent, .. } = &mut child.stage else {
            return;
        };
        let heard = heartbeat.max(*since).max(excused);
        let silence = now.since(heard);
        if stall.is_zero() || silence < stall {
            *heartbeat_at = heard.after(stall);
            *silent = None;
            return;
        }
        let before = silent.replace(Silence { heard, kept }).filter(|silent| silent.heard == heard);
        let pid = *pid;
        let before = before.map(|silence| silence.kept);
        *heartbeat_at = now.after(HEARTBEAT_AGAIN);
        match (kept, before) {
            (Kept::ByNothing, Some(Kept::ByNothing)) => self.abort(now, id, silence, out),
            (Kept::ByStarvation, None | Some(Kept::ByNothing)) => {
                out.push(Action::Log(Notice::Starved { slot, pid, silent: silence }));
            }
            (Kept::ByNothing, None | Some(Kept::ByStarvation))
            | (Kept::ByStarvation, Some(Kept::ByStarvation)) => {}
        }
    }

    fn abort(&mut self, now: Instant, id: ChildId, silent: Duration, out: &mut Vec<Action>) {
        let Some(child) = self.child(id) else { return };
        let (Some(pid), Some(slot)) = (child.pid(), child.slot()) else { return };
        let lost = child.clone();
        child.stage = Stage::Aborting { pid, deadline: now.after(ABORT) };
        out.push(Action::Log(Notice::Stalled { slot, pid, silent }));
        out.push(Action::Signal { pid, signal: ChildSignal::Abort });
        self.note_lost(now, &lost, slot, Loss::Silent);
        self.note_unfit(now, &lost, "aborted", out);
    }

    /// A slot has lost its worker, or one that was to be: for its record, at the moment when it is
    /// lost and not when it is reaped.
    pub(super) fn note_lost(&mut self, now: Instant, child: &Child, slot: Slot, loss: Loss) {
        let since = match child.stage {
            Stage::Serving { since, .. } | Stage::Yielding { since, .. } => Some(since),
            Stage::Forking
            | Stage::Booting { .. }
            | Stage::Draining { .. }
            | Stage::Aborting { .. }
            | Stage::Killed { .. } => None,
        };
        // It left because a signal told it to.
        let left = match loss {
            Loss::Ended(status) => Ending::of(child, status) == Ending::Left,
            Loss::NotReady | Loss::Silent | Loss::TooLarge | Loss::Unheard => false,
        };
        match since {
            Some(since) if now.since(since) >= HEALTHY_LIFE => self.forgive(slot, since),
            // The end of a ready worker by a signal says nothing about how its replacement will live.
            Some(_) if (left || loss.is_by_hand()) && self.excuses_kill(now, slot) => {}
            Some(_) | None => self.note_early_death(now, slot, loss),
        }
    }

    /// A worker could not live: what that says about its generation, and about the whole server.
    pub(super) fn note_unfit(
        &mut self,
        now: Instant,
        child: &Child,
        how: &str,
        out: &mut Vec<Action>,
    ) {
        if self.is_stopping() {
            return;
        }
        self.note_step_failed(now, child, how, out);
        if self.phase == Phase::Starting && self.nobody_can_boot() {
            out.push(Action::Log(Notice::BootFailed));
            self.stop(now, Urgency::Quick, ExitReason::WorkerBoot, out);
        }
    }

    pub(super) fn deaths(&self, slot: Slot) -> u32 {
        self.slot_states.get(slot.index()).map_or(0, |state| state.deaths)
    }

    /// A healthy life, from this readiness on, ends the record of the deaths before it.
    pub(super) fn forgive(&mut self, slot: Slot, since: Instant) {
        if let Some(state) = self.slot_state(slot)
            && since >= state.died_at
        {
            state.forgive();
        }
    }

    fn excuses_kill(&mut self, now: Instant, slot: Slot) -> bool {
        self.slot_state(slot).is_some_and(|state| state.excuse_kill(now))
    }

    /// The pause counts from the last fork: who lived longer than that need not wait.
    fn note_early_death(&mut self, now: Instant, slot: Slot, loss: Loss) {
        let failing = self.is_failing();
        let seed = self.seed ^ self.next_child;
        let Some(state) = self.slot_state(slot) else { return };
        state.deaths = state.deaths.saturating_add(1);
        (state.died_at, state.loss) = (now, Some(loss));
        state.pause = backoff::delay(state.deaths, seed);
        if !failing && self.is_failing() {
            self.complaint_at = now.after(COMPLAINT_INTERVAL);
        }
    }

    fn nobody_can_boot(&self) -> bool {
        let wanted = usize::from(self.wanted);
        let mut tried = self.slots().zip(&self.slot_states).take(wanted);
        self.slot_states.len() >= wanted
            && tried.all(|(slot, state)| state.deaths > 0 && !self.accepts(slot))
    }

    /// Returns true if some slot has lost so many workers in a row that it takes to saying so in sum.
    pub(super) fn is_failing(&self) -> bool {
        self.failing().next().is_some()
    }

    fn failing(&self) -> impl Iterator<Item = (Slot, &SlotState)> {
        self.slots()
            .zip(&self.slot_states)
            .take(usize::from(self.wanted))
            .filter(|(_, state)| state.deaths >= FAILING)
    }

    /// Says once in a while which slots cannot get their workers up.
    pub(super) fn complain(&mut self, now: Instant, out: &mut Vec<Action>) {
        let worst = self.failing().map(|(_, state)| state).max_by_key(|state| state.deaths);
        if let Some(SlotState { deaths, loss: Some(last), .. }) = worst
            && self.complaint_at <= now
        {
            let slots = self.failing().map(|(slot, _)| slot).collect();
            let deaths = *deaths;
            let last = *last;
            self.complaint_at = now.after(COMPLAINT_INTERVAL);
            out.push(Action::Log(Notice::SlotsFailing { slots, deaths, last }));
        }
    }

    /// Ends the record of every slot whose worker has lived for long enough by now.
    pub(super) fn forgive_healthy(&mut self, now: Instant) {
        let serving: Vec<(Slot, Instant)> = self
            .children
            .iter()
            .filter_map(|child| match child.stage {
                Stage::Serving { since, .. } => Some((child.slot()?, since)),
                Stage::Forking
                | Stage::Booting { .. }
                | Stage::Yielding { .. }
                | Stage::Draining { .. }
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
}
