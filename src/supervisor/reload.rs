//! A reload is a transaction: the old generation serves until the new one has proved itself.
//!
//! The file is read, the generation prepared, and the first replacement tried beside its predecessor.
//! Only when that has lived for a moment does the new generation count: then slot follows slot. A
//! replacement that fails three times in a row, or is not ready in time, ends the transaction: the old
//! generation becomes the target again, and whatever was replaced is replaced back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, Generation, Slot, SlotSet};
use crate::supervisor::action::Action;
use crate::supervisor::command::Outcome;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::{DRAINING_MAX, PROBATION, Policy, RELOAD_FAILURES_MAX};
use crate::supervisor::slot_state::SlotState;
use crate::supervisor::stage::{Child, Task};
use crate::supervisor::upgrade::Upgrade;
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

/// A reload under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reload {
    pub(super) began: Instant,
    /// The generation to go back to.
    pub(super) from: Generation,
    /// The generation that is being tried.
    pub(super) to: Generation,
    /// The number of workers that were wanted before.
    wanted_before: u16,
    /// Workers that have left because one of the new generation has taken their place.
    pub(super) replaced: u16,
    /// True if it was said that it waits for old workers.
    is_crowded: bool,
    step: Step,
}

/// The progress of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// The file is being read.
    Loading,
    /// `prepare` runs, or is forked at `retry_at`.
    Preparing { retry_at: Instant },
    /// Workers are replaced, one at a time.
    Rolling {
        trial: Trial,
        /// Replacements in a row that did not live.
        failures: u32,
        attempt: Option<Attempt>,
    },
}

/// The progress of the first replacement. It must live for [`PROBATION`], beside its predecessor if that
/// is alive, before the new generation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Trial {
    /// It is still to be forked.
    Awaited,
    /// It is not ready.
    Booting(ChildId),
    /// It serves, and will have passed at `until`.
    Living { canary: ChildId, until: Instant },
    /// A worker of the new generation has lived.
    Passed,
}

/// The replacement that is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    slot: Slot,
    /// When it must be ready, over all its tries.
    deadline: Instant,
}

/// The end of a reload.
#[derive(Debug)]
enum ReloadEnd {
    Done,
    Failed(String),
}

impl Reload {
    /// Nothing ran for a while: that was no trial, and the time that was missed is given again.
    pub(super) fn excuse(&mut self, now: Instant, missed: Duration) {
        let Step::Rolling { trial, attempt, .. } = &mut self.step else { return };
        if let Trial::Living { until, .. } = trial {
            *until = now.after(PROBATION);
        }
        if let Some(attempt) = attempt {
            attempt.deadline = attempt.deadline.after(missed);
        }
    }

    /// When `prepare` is forked.
    pub(super) fn prepares_at(&self) -> Option<Instant> {
        match self.step {
            Step::Preparing { retry_at } => Some(retry_at),
            Step::Loading | Step::Rolling { .. } => None,
        }
    }

    /// When the first replacement will have passed its trial.
    pub(super) fn passes_at(&self) -> Option<Instant> {
        match self.step {
            Step::Rolling { trial: Trial::Living { until, .. }, .. } => Some(until),
            Step::Loading | Step::Preparing { .. } | Step::Rolling { .. } => None,
        }
    }

    /// By when this child must be ready, when it is a replacement that is being tried again.
    pub(super) fn attempt_deadline(&self, child: &Child) -> Option<Instant> {
        match self.step {
            Step::Rolling { attempt: Some(attempt), .. }
                if child.generation == self.to && child.slot() == Some(attempt.slot) =>
            {
                Some(attempt.deadline)
            }
            Step::Loading | Step::Preparing { .. } | Step::Rolling { .. } => None,
        }
    }

    /// The replacement in this slot may take until then.
    pub(super) fn extend_attempt(&mut self, slot: Slot, generation: Generation, until: Instant) {
        if let Step::Rolling { attempt: Some(attempt), .. } = &mut self.step
            && (attempt.slot, self.to) == (slot, generation)
        {
            attempt.deadline = until.max(attempt.deadline);
        }
    }
}

impl Supervisor {
    /// Begins a reload that was asked for, once nothing else is under way.
    pub(super) fn begin_reload(&mut self, now: Instant, out: &mut Vec<Action>) {
        let busy = self.reload.is_some() || self.upgrade != Upgrade::Idle;
        if !self.reload_again || self.phase != Phase::Running || busy {
            return;
        }
        self.reload_again = false;
        self.newest = self.newest.next();
        self.reload = Some(Reload {
            began: now,
            from: self.settled,
            to: self.newest,
            wanted_before: self.wanted,
            replaced: 0,
            is_crowded: false,
            step: Step::Loading,
        });
        self.note_reload_begun(self.newest);
        out.push(Action::Log(Notice::Reloading { generation: self.newest }));
        out.push(Action::Load { generation: self.newest });
    }

    pub(super) fn note_loaded(
        &mut self,
        now: Instant,
        result: Result<Policy, String>,
        out: &mut Vec<Action>,
    ) {
        let Some(reload) = &mut self.reload else { return };
        if reload.step != Step::Loading {
            return;
        }
        match result {
            Ok(policy) => {
                reload.step = Step::Preparing { retry_at: now };
                self.policies.insert(reload.to, policy);
                // It may have opened addresses that are not steered.
                self.steered = SlotSet::EMPTY;
            }
            Err(reason) => self.end_of_reload(now, ReloadEnd::Failed(reason), out),
        }
    }

    /// Returns true if a reload waits for its configuration.
    pub(crate) fn is_loading(&self) -> bool {
        self.reload.as_ref().is_some_and(|reload| reload.step == Step::Loading)
    }

    pub(super) fn note_prepare_unforked(&mut self, at: Instant) {
        if let Some(Reload { step: Step::Preparing { retry_at }, .. }) = &mut self.reload {
            *retry_at = at;
        }
    }

    pub(super) fn note_reload_prepared(
        &mut self,
        now: Instant,
        status: ExitStatus,
        out: &mut Vec<Action>,
    ) {
        let Some(reload) = &mut self.reload else { return };
        if !matches!(reload.step, Step::Preparing { .. }) {
            return;
        }
        if status.is_clean() {
            reload.step = Step::Rolling { trial: Trial::Awaited, failures: 0, attempt: None };
            self.target = reload.to;
            // How others have died says nothing of this one.
            self.slot_states.iter_mut().for_each(SlotState::forgive);
        } else {
            self.end_of_reload(now, ReloadEnd::Failed(format!("prepare {status}")), out);
        }
    }

    /// A replacement is ready: the step is done, but for the first one's trial.
    pub(super) fn note_step_ready(&mut self, now: Instant, id: ChildId) {
        let Some(child) = self.child(id) else { return };
        let generation = child.generation;
        let slot = child.slot();
        let Some(reload) = &mut self.reload else { return };
        if reload.to != generation {
            return;
        }
        let Step::Rolling { trial, failures, attempt } = &mut reload.step else { return };
        if *trial == Trial::Booting(id) {
            *trial = Trial::Living { canary: id, until: now.after(PROBATION) };
        } else if attempt.is_some_and(|attempt| slot == Some(attempt.slot)) {
            (*failures, *attempt) = (0, None);
        }
    }

    /// A predecessor drains for this replacement.
    pub(super) fn note_replaced(&mut self, replacement: ChildId) {
        let generation = self.child(replacement).map(|child| child.generation);
        if let Some(reload) = &mut self.reload
            && generation == Some(reload.to)
        {
            reload.replaced = reload.replaced.saturating_add(1);
        }
    }

    /// This replacement was not tried to the end: the kernel did not fork it, or its slot was parked.
    /// That is no verdict on the generation.
    pub(super) fn note_untried(&mut self, child: &Child) {
        if let Some(Reload { to, step: Step::Rolling { attempt, .. }, .. }) = &mut self.reload
            && child.generation == *to
        {
            *attempt = attempt.filter(|attempt| child.slot() != Some(attempt.slot));
        }
    }

    /// A worker of the new generation did not live: the third time in a row, or past the attempt's
    /// deadline, the reload is over.
    pub(super) fn note_step_failed(
        &mut self,
        now: Instant,
        child: &Child,
        how: &str,
        out: &mut Vec<Action>,
    ) {
        let Some(reload) = &mut self.reload else { return };
        let late = reload.attempt_deadline(child).is_some_and(|deadline| deadline <= now);
        let Step::Rolling { failures, .. } = &mut reload.step else { return };
        let Some(slot) = child.slot().filter(|_| child.generation == reload.to) else { return };
        *failures = failures.saturating_add(1);
        let failures = *failures;
        if late {
            self.roll_back(now, format!("worker {slot} was not ready in time ({how})"), out);
        } else if failures >= RELOAD_FAILURES_MAX {
            let reason =
                format!("{failures} workers in a row failed, the last in slot {slot} ({how})");
            self.roll_back(now, reason, out);
        }
    }

    /// The next replacement must wait for one of those that leave this slot, said once.
    pub(super) fn note_crowded(&mut self, slot: Slot, out: &mut Vec<Action>) {
        let timeout = self.policy(self.settled).graceful_timeout;
        if let Some(reload) = &mut self.reload
            && !std::mem::replace(&mut reload.is_crowded, true)
        {
            let draining = DRAINING_MAX;
            out.push(Action::Log(Notice::ReloadDelayed { slot, draining, timeout }));
        }
    }

    fn end_of_reload(&mut self, now: Instant, end: ReloadEnd, out: &mut Vec<Action>) {
        let Some(Reload { began, from: kept, to: generation, replaced, .. }) = self.reload.take()
        else {
            return;
        };
        let outcome = match &end {
            ReloadEnd::Done => Outcome::Done,
            ReloadEnd::Failed(reason) => Outcome::failed(reason.clone()),
        };
        out.push(Action::Log(match end {
            ReloadEnd::Done => {
                Notice::Reloaded { generation, replaced, took: now.since(began), served: None }
            }
            ReloadEnd::Failed(reason) => Notice::ReloadFailed { generation, kept, reason },
        }));
        self.note_reload_ended(generation, &outcome, out);
    }

    fn roll_back(&mut self, now: Instant, reason: String, out: &mut Vec<Action>) {
        let Some(reload) = &self.reload else { return };
        let from = reload.from;
        let wanted = reload.wanted_before;
        if self.settled != from {
            self.put_in_force(now, from, out);
            self.take_count(wanted, out);
        }
        self.target = from;
        self.end_of_reload(now, ReloadEnd::Failed(reason), out);
    }

    /// The first replacement has lived for long enough: the new generation is in force.
    pub(super) fn prove_canary(&mut self, now: Instant, out: &mut Vec<Action>) {
        let lives = self.canary_lives();
        let Some(reload) = &mut self.reload else { return };
        let Step::Rolling { trial, failures, attempt } = &mut reload.step else { return };
        if let Trial::Living { until, .. } = *trial
            && until <= now
            && lives
        {
            (*trial, *failures, *attempt) = (Trial::Passed, 0, None);
            let generation = reload.to;
            self.put_in_force(now, generation, out);
            self.take_count(self.policy(generation).workers, out);
        }
    }

    /// The number of workers is the file's again, whatever `TTIN` and `TTOU` have made of it.
    fn take_count(&mut self, workers: u16, out: &mut Vec<Action>) {
        if workers != self.wanted {
            out.push(Action::Log(Notice::Resized { from: self.wanted, to: workers }));
            self.wanted = workers;
        }
    }

    fn put_in_force(&mut self, now: Instant, generation: Generation, out: &mut Vec<Action>) {
        self.settled = generation;
        out.push(Action::Use { generation });
        self.renew_auxiliaries(now, out);
    }

    /// The first replacement is gone, whatever the cause: another is to be tried.
    pub(super) fn release_canary(&mut self) {
        let lost = self.canary().is_some() && !self.canary_lives();
        if let Some(Reload { step: Step::Rolling { trial, .. }, .. }) = &mut self.reload
            && lost
        {
            *trial = Trial::Awaited;
        }
    }

    fn canary_lives(&self) -> bool {
        let canary = self.canary();
        let mut living =
            self.children.iter().filter(|child| child.is_starting() || child.is_serving());
        living.any(|child| Some(child.id) == canary)
    }

    fn trial(&self) -> Option<Trial> {
        match self.reload.as_ref()?.step {
            Step::Rolling { trial, .. } => Some(trial),
            Step::Loading | Step::Preparing { .. } => None,
        }
    }

    /// Returns true if the next worker of the new generation is the first one, to be tried.
    pub(super) fn needs_canary(&self) -> bool {
        self.trial() == Some(Trial::Awaited)
    }

    /// The first replacement, while it is on trial.
    pub(super) fn canary(&self) -> Option<ChildId> {
        match self.trial()? {
            Trial::Booting(canary) | Trial::Living { canary, .. } => Some(canary),
            Trial::Awaited | Trial::Passed => None,
        }
    }

    /// A worker of the new generation is being forked. It is the reload's next step unless it only
    /// fills the place of one that was lost.
    pub(super) fn note_step_begun(
        &mut self,
        now: Instant,
        id: ChildId,
        slot: Slot,
        generation: Generation,
    ) {
        let deadline = now.after(self.policy(generation).boot_timeout);
        let replaces = self.serving(slot).is_some();
        let starting: SlotSet = self
            .children
            .iter()
            .filter(|child| child.is_starting())
            .filter_map(Child::slot)
            .collect();
        let Some(reload) = &mut self.reload else { return };
        let Step::Rolling { trial, attempt, .. } = &mut reload.step else { return };
        if generation != reload.to {
            return;
        }
        if *trial == Trial::Awaited {
            *trial = Trial::Booting(id);
        } else if !replaces {
            return;
        }
        let attempt = attempt.get_or_insert(Attempt { slot, deadline });
        // While one slot waits for its next try, another may be tried instead.
        if !starting.contains(attempt.slot) {
            attempt.slot = slot;
        }
    }

    /// Moves a reload on: forks its `prepare`, ends it when every wanted worker is of its generation.
    pub(super) fn advance_reload(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(reload) = &self.reload else { return };
        match reload.step {
            Step::Preparing { retry_at } if retry_at <= now && !self.has_task(Task::Prepare) => {
                self.fork(now, Task::Prepare, reload.to, out);
            }
            Step::Rolling { trial: Trial::Passed, .. } if self.is_rolled() => {
                self.end_of_reload(now, ReloadEnd::Done, out);
            }
            Step::Loading | Step::Preparing { .. } | Step::Rolling { .. } => {}
        }
    }

    fn is_rolled(&self) -> bool {
        let mut wanted = (0..self.wanted).map(Slot::new);
        let all_new = wanted
            .all(|slot| self.serving(slot).is_some_and(|child| child.generation == self.target));
        all_new && !self.children.iter().any(|child| child.is_yielding())
    }
}
