//! What a fact changes in what the supervisor knows. Nothing is forked or signalled here, but for
//! what a fact orders by itself: reopened logs, an `ABRT` to a silent worker.

use std::time::Duration;

use crate::ids::{ChildId, Pid, Slot, SlotSet};
use crate::supervisor::action::{Action, ChildSignal, ExitReason};
use crate::supervisor::event::{Event, ExitStatus, Kept, Signal};
use crate::supervisor::notice::{Ending, Notice};
use crate::supervisor::policy::{
    ABORT, COMPLAINT_INTERVAL, FORK_RETRY, HEALTHY_LIFE, PULSE_AGAIN, QUICK,
};
use crate::supervisor::reload::ReloadEnd;
use crate::supervisor::seat::Seat;
use crate::supervisor::stage::{Child, Due, Silence, Stage, Task, Urgency};
use crate::supervisor::upgrade::Upgrade;
use crate::supervisor::{Phase, Supervisor, backoff};
use crate::time::Instant;

impl Supervisor {
    pub(super) fn absorb(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Started if self.phase == Phase::New => {
                self.phase = Phase::Preparing { retry_at: now };
            }
            Event::Upgraded => {
                self.upgrade = Upgrade::Idle;
                self.reload_again = !self.is_stopping();
                // It runs the image before.
                self.renew_logger(now, out);
            }
            Event::Started | Event::Tick => {}
            Event::Signalled(signal) => self.note_signal(now, signal, out),
            Event::Forked { child: ChildId::LOGGER, pid } => self.note_logger_forked(pid, out),
            Event::ForkFailed { child: ChildId::LOGGER, reason } => {
                self.note_logger_unforked(now, reason, out);
            }
            Event::Forked { child, pid } => self.note_forked(now, child, pid, out),
            Event::ForkFailed { child, reason } => self.note_fork_failed(now, child, reason, out),
            Event::Ready { child } => self.note_ready(now, child, out),
            Event::WorkerDue { child, why } => self.note_due(child, why, out),
            Event::Exited { pid, status } if self.logger.is(pid) => {
                self.note_logger_exit(now, (pid, status), out);
            }
            Event::Exited { pid, status } => {
                if let Some(child) = self.by_pid(pid) {
                    self.note_exit(now, &child, pid, status, out);
                }
            }
            Event::Loaded(result) => self.note_loaded(now, result, out),
            Event::Queued { slot } => self.note_queued(now, slot),
            Event::QueueLength { slot, length } => self.note_queue_length(now, slot, length),
            Event::Pulse { child, beat, kept } => self.note_pulse(now, child, beat, kept, out),
            Event::MemoryRead { child, bytes } => self.note_memory(child, bytes, out),
            Event::UpgradeFailed { reason } => self.refuse_upgrade(reason, out),
            Event::SlotsOpen { count } => self.note_slots(count, out),
        }
    }

    fn note_signal(&mut self, now: Instant, signal: Signal, out: &mut Vec<Action>) {
        match signal {
            Signal::Terminate => self.stop(now, Urgency::Graceful, ExitReason::Stopped, out),
            Signal::Interrupt | Signal::Quit => {
                self.stop(now, Urgency::Quick, ExitReason::Stopped, out);
            }
            Signal::Resize => out.push(Action::Log(Notice::Ignored {
                signal,
                why: "it is not a daemon's terminal",
            })),
            Signal::Reload | Signal::More | Signal::Fewer | Signal::Upgrade
                if self.is_stopping() =>
            {
                out.push(Action::Log(Notice::Ignored { signal, why: "the server is stopping" }));
            }
            Signal::Reload => self.reload_again = true,
            Signal::More => self.resize(self.wanted.saturating_add(1), out),
            Signal::Fewer => self.resize(self.wanted.saturating_sub(1), out),
            Signal::Upgrade => self.want_upgrade(out),
            Signal::Reopen => out.push(Action::ReopenLogs),
        }
    }

    /// Begins to stop, or stops more urgently. Less urgent wishes change nothing.
    pub(super) fn stop(
        &mut self,
        now: Instant,
        urgency: Urgency,
        reason: ExitReason,
        out: &mut Vec<Action>,
    ) {
        let patience = match urgency {
            Urgency::Graceful => self.policy(self.settled).graceful_timeout,
            Urgency::Quick => QUICK,
        };
        let deadline = now.after(patience);
        match self.phase {
            Phase::Gone => return,
            Phase::Stopping { urgency: already, .. } if already >= urgency => return,
            Phase::Stopping { reason, deadline: before, .. } => {
                self.phase = Phase::Stopping { urgency, deadline: deadline.min(before), reason };
            }
            Phase::New | Phase::Preparing { .. } | Phase::Starting | Phase::Running => {
                self.phase = Phase::Stopping { urgency, deadline, reason };
                self.reload = None;
                self.reload_again = false;
                self.upgrade = Upgrade::Idle;
                out.push(Action::StopListening);
            }
        }
        out.push(Action::Log(Notice::Stopping { urgency, patience }));
    }

    fn resize(&mut self, wanted: u16, out: &mut Vec<Action>) {
        let wanted = wanted.clamp(1, Slot::MAX);
        let notice = if wanted == self.wanted {
            Notice::SizeKept { workers: wanted }
        } else {
            Notice::Resized { from: self.wanted, to: wanted }
        };
        self.wanted = wanted;
        out.push(Action::Log(notice));
    }

    fn note_forked(&mut self, now: Instant, id: ChildId, pid: Pid, out: &mut Vec<Action>) {
        let boot_timeout = |this: &Self, child: &Child| this.policy(child.generation).boot_timeout;
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let mut deadline = now.after(boot_timeout(self, child));
        if let Some(by) = self.reload.as_ref().and_then(|reload| reload.attempt_deadline(child)) {
            deadline = deadline.min(by);
        }
        let Some(child) = self.child(id) else { return };
        if child.stage == Stage::Forking {
            child.stage = Stage::Booting { pid, deadline };
            out.push(Action::Log(Notice::Forked { task: child.task, pid }));
        }
    }

    fn note_fork_failed(
        &mut self,
        now: Instant,
        id: ChildId,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        let Some(child) = self.remove(|child| child.id == id && child.stage == Stage::Forking)
        else {
            return;
        };
        let retry_at = now.after(FORK_RETRY);
        match child.task {
            Task::Worker { slot } => {
                if let Some(seat) = self.seat(slot) {
                    seat.refused_until = retry_at;
                }
                self.note_unforked(&child);
            }
            Task::Prepare => {
                if let Phase::Preparing { retry_at: at } = &mut self.phase {
                    *at = retry_at;
                }
                self.note_prepare_unforked(retry_at);
            }
            // Not among the children.
            Task::Logger => {}
            Task::Check => {
                return self.refuse_upgrade(format!("its check cannot be forked: {reason}"), out);
            }
        }
        out.push(Action::Log(Notice::ForkFailed { task: child.task, reason }));
    }

    fn note_ready(&mut self, now: Instant, id: ChildId, out: &mut Vec<Action>) {
        let policy_of = |this: &Self, child: &Child| this.policy(child.generation).clone();
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let (Stage::Booting { pid, .. }, Some(slot)) = (child.stage.clone(), child.slot()) else {
            return;
        };
        let policy = policy_of(self, child);
        if let Some(old) =
            self.children.iter_mut().find(|old| old.slot() == Some(slot) && old.is_serving())
            && let Stage::Serving { pid, since, due, .. } = old.stage
        {
            old.stage = Stage::Yielding { pid, since, due };
        }
        let Some(child) = self.child(id) else { return };
        child.stage = Stage::Serving {
            pid,
            since: now,
            due: None,
            pulse_at: now.after(policy.stall_timeout),
            silent: None,
            memory_at: now,
        };
        child.accepting = SlotSet::from_iter([slot]);
        let boot = now.since(child.began);
        out.push(Action::Log(Notice::Ready { slot, pid, boot }));
        self.note_step_ready(now, id);
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
        }
    }

    pub(super) fn note_due(&mut self, id: ChildId, why: Due, out: &mut Vec<Action>) {
        let Some(child) = self.child(id) else { return };
        let slot = child.slot();
        if let (Stage::Serving { pid, due, .. } | Stage::Yielding { pid, due, .. }, Some(slot)) =
            (&mut child.stage, slot)
            && due.is_none()
        {
            *due = Some(why);
            out.push(Action::Log(Notice::Due { slot, pid: *pid, why }));
        }
    }

    fn note_memory(&mut self, id: ChildId, bytes: u64, out: &mut Vec<Action>) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let limit = self.policy(child.generation).max_memory;
        if limit > 0 && bytes > limit {
            self.note_due(id, Due::Memory { bytes }, out);
        }
    }

    /// Judges a silent worker. Only its own silence counts: not the time in which it waited for a
    /// processor, nor that in which the master did not run either. So it is asked twice, with time to
    /// show a sign of life in between.
    fn note_pulse(
        &mut self,
        now: Instant,
        id: ChildId,
        beat: Instant,
        kept: Kept,
        out: &mut Vec<Action>,
    ) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let (stall, excused) = (self.policy(child.generation).stall_timeout, self.excused);
        let Some(child) = self.child(id) else { return };
        let slot = child.slot();
        let (Stage::Serving { pid, since, pulse_at, silent, .. }, Some(slot)) =
            (&mut child.stage, slot)
        else {
            return;
        };
        let heard = beat.max(*since).max(excused);
        let silence = now.since(heard);
        if stall.is_zero() || silence < stall {
            *pulse_at = heard.after(stall);
            *silent = None;
            return;
        }
        let before = silent.replace(Silence { heard, kept }).filter(|it| it.heard == heard);
        let (pid, before) = (*pid, before.map(|it| it.kept));
        *pulse_at = now.after(PULSE_AGAIN);
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
        self.note_lost(now, &lost, slot);
        self.note_unfit(now, &lost, "aborted", out);
    }

    fn note_slots(&mut self, count: u16, out: &mut Vec<Action>) {
        let asked = self.opening.take().unwrap_or(count);
        // An open slot is never closed again.
        self.seats.resize_with(usize::from(count).max(self.seats.len()), Seat::default);
        let open = u16::try_from(self.seats.len()).unwrap_or(Slot::MAX);
        if open < asked.min(self.wanted) {
            out.push(Action::Log(Notice::Resized { from: self.wanted, to: open }));
            self.wanted = open;
        }
    }

    fn note_exit(
        &mut self,
        now: Instant,
        child: &Child,
        pid: Pid,
        status: ExitStatus,
        out: &mut Vec<Action>,
    ) {
        match child.task {
            Task::Worker { slot } => self.note_worker_exit(now, child, slot, (pid, status), out),
            Task::Prepare => self.note_prepare_exit(now, status, out),
            Task::Check => self.note_check_exit(status, out),
            // Not among the children.
            Task::Logger => {}
        }
    }

    fn note_prepare_exit(&mut self, now: Instant, status: ExitStatus, out: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        if self.phase != (Phase::Starting) && !matches!(self.phase, Phase::Preparing { .. }) {
            return self.note_reload_prepared(now, status, out);
        }
        if status.is_clean() {
            self.phase = Phase::Starting;
        } else {
            out.push(Action::Log(Notice::PrepareFailed { status }));
            self.stop(now, Urgency::Quick, ExitReason::Prepare, out);
        }
    }

    fn note_worker_exit(
        &mut self,
        now: Instant,
        child: &Child,
        slot: Slot,
        (pid, status): (Pid, ExitStatus),
        out: &mut Vec<Action>,
    ) {
        let ending = Ending::of(child, status);
        let unasked = match child.stage {
            Stage::Booting { .. } | Stage::Serving { .. } | Stage::Yielding { .. } => true,
            Stage::Forking
            | Stage::Leaving { .. }
            | Stage::Aborting { .. }
            | Stage::Killed { .. } => false,
        };
        if unasked {
            self.note_lost(now, child, slot);
        }
        let deaths = self.deaths(slot);
        out.push(Action::Log(Notice::Exited { slot, pid, status, ending, deaths }));
        if unasked && ending != Ending::Left {
            self.note_unfit(now, child, &status.to_string(), out);
        }
    }

    /// A slot has lost its worker, or one that was to be: for its record, at the moment when it is
    /// lost and not when it is reaped.
    pub(super) fn note_lost(&mut self, now: Instant, child: &Child, slot: Slot) {
        let since = match child.stage {
            Stage::Serving { since, .. } | Stage::Yielding { since, .. } => Some(since),
            Stage::Forking
            | Stage::Booting { .. }
            | Stage::Leaving { .. }
            | Stage::Aborting { .. }
            | Stage::Killed { .. } => None,
        };
        match since {
            Some(since) if now.since(since) >= HEALTHY_LIFE => self.forgive(slot, since),
            Some(_) | None => self.note_early_death(now, slot),
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
            out.push(Action::Log(Notice::NobodyBoots));
            self.stop(now, Urgency::Quick, ExitReason::WorkerBoot, out);
        }
    }

    pub(super) fn deaths(&self, slot: Slot) -> u32 {
        self.seats.get(slot.index()).map_or(0, |seat| seat.deaths)
    }

    /// A healthy life, from this readiness on, ends the record of the deaths before it.
    pub(super) fn forgive(&mut self, slot: Slot, since: Instant) {
        if let Some(seat) = self.seat(slot)
            && since >= seat.died_at
        {
            seat.forgive();
        }
    }

    /// The pause counts from the last fork: who lived longer than that need not wait.
    fn note_early_death(&mut self, now: Instant, slot: Slot) {
        let failing = self.is_failing();
        let seed = self.seed ^ self.next_child;
        let Some(seat) = self.seat(slot) else { return };
        seat.deaths = seat.deaths.saturating_add(1);
        seat.died_at = now;
        seat.pause = backoff::delay(seat.deaths, seed);
        if !failing && self.is_failing() {
            self.complaint_at = now.after(COMPLAINT_INTERVAL);
        }
    }

    fn nobody_can_boot(&self) -> bool {
        let wanted = usize::from(self.wanted);
        let mut tried = self.slots().zip(&self.seats).take(wanted);
        self.seats.len() >= wanted
            && tried.all(|(slot, seat)| seat.deaths > 0 && !self.accepts(slot))
    }

    pub(super) fn end_of_reload(&mut self, now: Instant, end: ReloadEnd, out: &mut Vec<Action>) {
        if let Some(reload) = self.reload.take() {
            let generation = self.target;
            let took = now.since(reload.began);
            out.push(Action::Log(match end {
                ReloadEnd::Done => Notice::Reloaded { generation, replaced: reload.replaced, took },
                ReloadEnd::Failed(reason) => {
                    Notice::ReloadFailed { generation: reload.to, kept: reload.from, reason }
                }
            }));
        }
    }
}
