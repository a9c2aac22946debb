//! The change that a fact makes in the supervisor's knowledge. Nothing is forked or signalled here, but
//! for what a fact orders by itself: reopened logs, an `ABRT` to a silent worker.

use crate::ids::{ChildId, Pid, Slot, SlotSet};
use crate::supervisor::action::{Action, ExitReason};
use crate::supervisor::auxiliary::Role;
use crate::supervisor::backoff::Refusals;
use crate::supervisor::event::{Event, ExitStatus, Signal};
use crate::supervisor::notice::{Ending, Notice};
use crate::supervisor::policy::MEMORY_INTERVAL;
use crate::supervisor::slot_state::{Loss, SlotState};
use crate::supervisor::stage::{Child, Due, Stage, Task, Urgency};
use crate::supervisor::upgrade::Upgrade;
use crate::supervisor::watch::Drainage;
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

impl Supervisor {
    pub(super) fn absorb(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Started if self.phase == Phase::New => {
                self.phase = Phase::Preparing { retry_at: now };
            }
            Event::Upgraded => self.note_upgraded(now, out),
            Event::Started | Event::Tick => {}
            Event::Signalled(signal) => self.note_signal(now, signal, out),
            Event::Forked { child, pid } => match Role::of(child) {
                Some(role) => self.note_auxiliary_forked(role, pid, out),
                None => self.note_forked(now, child, pid, out),
            },
            Event::ForkFailed { child, reason } => match Role::of(child) {
                Some(role) => self.note_auxiliary_unforked(role, now, reason, out),
                None => self.note_fork_failed(now, child, reason, out),
            },
            Event::Ready { child } => self.note_ready(now, child, out),
            Event::WorkerDue { child, why } => self.note_due(now, child, why, out),
            Event::Exited { pid, status } => {
                if let Some(role) = self.role(pid) {
                    self.note_auxiliary_exit(role, now, pid, status, out);
                } else if let Some(child) = self.by_pid(pid) {
                    self.note_exit(now, &child, pid, status, out);
                }
            }
            Event::Unheard { child } => self.note_unheard(now, child, out),
            Event::Loaded(result) => self.note_loaded(now, result, out),
            Event::Queued { slot } => self.note_queued(now, slot),
            Event::QueueLength { slot, length, heartbeat } => {
                self.note_queue_length(now, slot, length, heartbeat);
            }
            Event::Heartbeat { child, heartbeat, kept } => {
                self.note_heartbeat(now, child, heartbeat, kept, out);
            }
            Event::MemoryRead { child, bytes } => self.note_memory(now, child, bytes, out),
            Event::NeedsTime { child } => self.note_needs_time(now, child),
            Event::Commanded { id, command } => self.note_command(now, id, command, out),
            Event::Abandoned { id } => self.forget_command(id),
            Event::Reopened { is_complete } => self.note_reopened(is_complete, out),
            Event::UpgradeFailed { reason } => self.refuse_upgrade(reason, out),
            Event::SlotsOpen { count } => self.note_slots(count, out),
        }
    }

    /// The queues that the image before this one watched are not watched yet.
    fn note_upgraded(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.upgrade = Upgrade::Idle;
        self.reload_again = !self.is_ending();
        self.note_image_replaced();
        for state in &mut self.slot_states {
            if state.drainage == Drainage::Watched {
                state.drainage = Drainage::Unwatched;
            }
        }
        // They run the image before.
        self.renew_auxiliaries(now, out);
    }

    fn note_signal(&mut self, now: Instant, signal: Signal, out: &mut Vec<Action>) {
        match signal {
            Signal::Terminate => self.announce(now, out),
            Signal::Interrupt | Signal::Quit => {
                self.stop(now, Urgency::Quick, ExitReason::Stopped, out);
            }
            Signal::Resize => out.push(Action::Log(Notice::Ignored {
                signal,
                why: "it is not a daemon's terminal",
            })),
            Signal::Reload | Signal::More | Signal::Fewer | Signal::Upgrade if self.is_ending() => {
                out.push(Action::Log(Notice::Ignored { signal, why: "the server is stopping" }));
            }
            Signal::Reload => self.reload_again = true,
            Signal::More => self.resize(self.wanted.saturating_add(1), out),
            Signal::Fewer => self.resize(self.wanted.saturating_sub(1), out),
            Signal::Upgrade => self.want_upgrade(out),
            Signal::Reopen => out.push(Action::ReopenLogs),
        }
    }

    fn resize(&mut self, wanted: u16, out: &mut Vec<Action>) {
        let wanted = wanted.clamp(1, self.policy(self.settled).workers_max);
        let notice = if wanted == self.wanted {
            Notice::SizeKept { workers: wanted }
        } else {
            Notice::Resized { from: self.wanted, to: wanted }
        };
        self.wanted = wanted;
        out.push(Action::Log(notice));
    }

    fn note_forked(&mut self, now: Instant, id: ChildId, pid: Pid, out: &mut Vec<Action>) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        let mut deadline = now.after(self.policy(child.generation).boot_timeout);
        if let Some(by) = self.reload.as_ref().and_then(|reload| reload.attempt_deadline(child)) {
            deadline = deadline.min(by);
        }
        let Some(child) = self.child(id) else { return };
        if child.stage == Stage::Forking {
            let task = child.task;
            child.stage = Stage::Booting { pid, deadline };
            if let Some(refusals) = self.refusals(task) {
                *refusals = Refusals::default();
            }
            out.push(Action::Log(Notice::Forked { task, pid }));
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
        let noted = self.refusals(child.task).map(|refusals| refusals.note(now));
        let (retry_at, is_said) = noted.unwrap_or((now, true));
        match child.task {
            Task::Worker { slot } => {
                if let Some(state) = self.slot_state(slot) {
                    state.refused_until = retry_at;
                }
                self.note_untried(&child);
            }
            Task::Prepare => {
                if let Phase::Preparing { retry_at: at } = &mut self.phase {
                    *at = retry_at;
                }
                self.note_prepare_unforked(retry_at);
            }
            // Not among the children.
            Task::Logger | Task::Stats => {}
            Task::Check => {
                return self.refuse_upgrade(format!("its check cannot be forked: {reason}"), out);
            }
        }
        out.push(Action::Log(Notice::ForkFailed { task: child.task, reason, is_said }));
    }

    /// The record of refused forks for this purpose.
    fn refusals(&mut self, task: Task) -> Option<&mut Refusals> {
        match task {
            Task::Worker { slot } => self.slot_state(slot).map(|state| &mut state.refusals),
            Task::Prepare => Some(&mut self.prepare_refusals),
            // These have their own; a check is not tried again.
            Task::Logger | Task::Stats | Task::Check => None,
        }
    }

    fn note_ready(&mut self, now: Instant, id: ChildId, out: &mut Vec<Action>) {
        let Some(child) = self.children.iter().find(|child| child.id == id) else { return };
        if child.task == Task::Check {
            return self.note_vouched();
        }
        let (Stage::Booting { pid, .. }, Some(slot)) = (child.stage.clone(), child.slot()) else {
            return;
        };
        let stall_timeout = self.policy(child.generation).stall_timeout;
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
            heartbeat_at: now.after(stall_timeout),
            silent: None,
            memory_at: now.after(MEMORY_INTERVAL),
        };
        child.accepting = SlotSet::from_iter([slot]);
        let boot = now.since(child.began);
        out.push(Action::Log(Notice::Ready { slot, pid, boot }));
        if self.announced.is_some() {
            out.push(Action::Announce { child: id });
        }
        self.note_step_ready(now, id);
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
        }
    }

    pub(super) fn note_due(&mut self, now: Instant, id: ChildId, why: Due, out: &mut Vec<Action>) {
        let Some(child) = self.child(id) else { return };
        let slot = child.slot();
        if let (Stage::Serving { pid, due, .. } | Stage::Yielding { pid, due, .. }, Some(slot)) =
            (&mut child.stage, slot)
            && due.is_none()
        {
            *due = Some(why);
            child.due_since = now;
            out.push(Action::Log(Notice::Due { slot, pid: *pid, why }));
        }
    }

    fn note_slots(&mut self, count: u16, out: &mut Vec<Action>) {
        let asked = self.opening.take().unwrap_or(count);
        // An open slot is never closed again.
        self.slot_states
            .resize_with(usize::from(count).max(self.slot_states.len()), SlotState::default);
        let open = u16::try_from(self.slot_states.len()).unwrap_or(Slot::MAX);
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
            Task::Worker { .. } => self.note_worker_exit(now, child, pid, status, out),
            Task::Prepare => self.note_prepare_exit(now, status, out),
            Task::Check => self.note_check_exit(status, out),
            // Not among the children.
            Task::Logger | Task::Stats => {}
        }
    }

    fn note_prepare_exit(&mut self, now: Instant, status: ExitStatus, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Preparing { .. } if status.is_clean() => self.phase = Phase::Starting,
            Phase::Preparing { .. } => {
                out.push(Action::Log(Notice::PrepareFailed { status }));
                self.stop(now, Urgency::Quick, ExitReason::Prepare, out);
            }
            Phase::Running => self.note_reload_prepared(now, status, out),
            Phase::New | Phase::Starting | Phase::Stopping { .. } | Phase::Gone => {}
        }
    }

    fn note_worker_exit(
        &mut self,
        now: Instant,
        child: &Child,
        pid: Pid,
        status: ExitStatus,
        out: &mut Vec<Action>,
    ) {
        let Some(slot) = child.slot() else { return };
        let ending = Ending::of(child, status);
        let unasked = match child.stage {
            Stage::Booting { .. } | Stage::Serving { .. } | Stage::Yielding { .. } => true,
            Stage::Forking
            | Stage::Draining { .. }
            | Stage::Aborting { .. }
            | Stage::Killed { .. } => false,
        };
        if unasked {
            self.note_lost(now, child, slot, Loss::Ended(status));
        }
        let deaths = self.deaths(slot);
        out.push(Action::Log(Notice::Exited { slot, pid, status, ending, deaths, peak: None }));
        if unasked && ending != Ending::Left {
            self.note_unfit(now, child, &status.to_string(), out);
        }
    }
}
