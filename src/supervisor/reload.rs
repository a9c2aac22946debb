//! A reload is a transaction: the old generation serves until the new one has proved itself.
//!
//! The file is read, the generation prepared, and the first replacement tried beside its predecessor.
//! Only when that has lived for a moment does the new generation count: then slot follows slot. A
//! replacement that fails three times in a row, or is not ready in time, ends the transaction: the old
//! generation becomes the target again, and whatever was replaced is replaced back.

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, Generation};
use crate::supervisor::action::Action;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::{Policy, RELOAD_FAILURES_MAX};
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
    /// How many workers were wanted before.
    wanted_before: u16,
    /// Workers of the new generation that became ready in a predecessor's place.
    pub(super) replaced: u16,
    step: Step,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// The file is being read.
    Loading,
    /// `prepare` runs, or is forked at `retry_at`.
    Preparing { retry_at: Instant },
    /// Workers are replaced, one at a time.
    Rolling {
        /// The first replacement, while it is on trial.
        canary: Option<ChildId>,
        /// Whether a first replacement has passed its trial.
        proven: bool,
        /// Replacements in a row that did not live.
        failures: u32,
        /// When the replacement that is being tried must be ready, over all its tries.
        deadline: Option<Instant>,
    },
}

/// How a reload ended.
#[derive(Debug)]
pub(super) enum ReloadEnd {
    Done,
    Failed(String),
}

impl Reload {
    /// Whether this child is the first replacement, on trial.
    pub(super) fn tries(&self, id: ChildId) -> bool {
        matches!(self.step, Step::Rolling { canary: Some(canary), .. } if canary == id)
    }

    /// By when this child must be ready, when it is a replacement that is being tried again.
    pub(super) fn step_deadline(&self, child: &Child) -> Option<Instant> {
        match self.step {
            Step::Rolling { deadline, .. } if child.generation == self.to => deadline,
            Step::Loading | Step::Preparing { .. } | Step::Rolling { .. } => None,
        }
    }
}

impl Supervisor {
    pub(super) fn reload_deadline(&self, reload: &Reload) -> Option<Instant> {
        match reload.step {
            Step::Preparing { retry_at } if !self.has_task(Task::Prepare) => Some(retry_at),
            Step::Loading | Step::Preparing { .. } | Step::Rolling { .. } => None,
        }
    }

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
            step: Step::Loading,
        });
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
            }
            Err(reason) => self.end_of_reload(now, ReloadEnd::Failed(reason), out),
        }
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
            reload.step =
                Step::Rolling { canary: None, proven: false, failures: 0, deadline: None };
            self.target = reload.to;
        } else {
            self.end_of_reload(now, ReloadEnd::Failed(format!("prepare {status}")), out);
        }
    }

    /// A fork for the reload was refused by the kernel: no verdict on the generation.
    pub(super) fn note_unforked(&mut self, id: ChildId) {
        if let Some(Reload { step: Step::Rolling { canary, .. }, .. }) = &mut self.reload
            && *canary == Some(id)
        {
            *canary = None;
        }
    }

    /// A replacement is ready: the step is done, but for the first one's trial.
    pub(super) fn note_step_ready(&mut self, id: ChildId) {
        let Some(generation) = self.child(id).map(|child| child.generation) else { return };
        if let Some(reload) = &mut self.reload
            && reload.to == generation
        {
            reload.replaced = reload.replaced.saturating_add(1);
            if let Step::Rolling { canary, failures, deadline, .. } = &mut reload.step
                && *canary != Some(id)
            {
                (*failures, *deadline) = (0, None);
            }
        }
    }

    /// A worker of the new generation did not live: the third time in a row, or past the step's
    /// deadline, the reload is over.
    pub(super) fn note_step_failed(
        &mut self,
        now: Instant,
        child: &Child,
        status: ExitStatus,
        out: &mut Vec<Action>,
    ) {
        let Some(reload) = &mut self.reload else { return };
        let Step::Rolling { canary, failures, deadline, .. } = &mut reload.step else { return };
        if child.generation != reload.to {
            return;
        }
        if *canary == Some(child.id) {
            *canary = None;
        }
        *failures = failures.saturating_add(1);
        let late = deadline.is_some_and(|deadline| deadline <= now);
        let tries = *failures;
        if late || tries >= RELOAD_FAILURES_MAX {
            let slot = child.slot().map_or(0, crate::ids::Slot::number);
            let reason = if late {
                format!("the worker for slot {slot} was not ready in time ({status})")
            } else {
                format!("the worker for slot {slot} failed {tries} times in a row ({status})")
            };
            self.roll_back(now, reason, out);
        }
    }

    fn roll_back(&mut self, now: Instant, reason: String, out: &mut Vec<Action>) {
        let Some(reload) = &self.reload else { return };
        let (from, wanted) = (reload.from, reload.wanted_before);
        if self.settled != from {
            out.push(Action::Use { generation: from });
            self.wanted = wanted;
        }
        self.target = from;
        self.settled = from;
        self.end_of_reload(now, ReloadEnd::Failed(reason), out);
    }

    /// The first replacement has lived beside its predecessor: the new generation is in force.
    pub(super) fn prove(&mut self, out: &mut Vec<Action>) {
        let Some(reload) = &mut self.reload else { return };
        let Step::Rolling { canary, proven, failures, deadline } = &mut reload.step else { return };
        (*canary, *proven, *failures, *deadline) = (None, true, 0, None);
        let generation = reload.to;
        self.settled = generation;
        self.wanted = self.policy(generation).workers;
        out.push(Action::Use { generation });
    }

    /// Whether the next worker of the new generation is the first one, on trial.
    pub(super) fn needs_canary(&self) -> bool {
        matches!(
            self.reload,
            Some(Reload { step: Step::Rolling { canary: None, proven: false, .. }, .. })
        )
    }

    /// Whether the first replacement is on trial.
    pub(super) fn canary(&self) -> Option<ChildId> {
        let Some(Reload { step: Step::Rolling { canary, proven: false, .. }, .. }) = self.reload
        else {
            return None;
        };
        canary
    }

    /// A worker of the new generation is being forked.
    pub(super) fn note_step_begun(&mut self, now: Instant, id: ChildId, generation: Generation) {
        let boot_timeout = self.policy(generation).boot_timeout;
        let Some(reload) = &mut self.reload else { return };
        if let Step::Rolling { canary, proven, deadline, .. } = &mut reload.step
            && generation == reload.to
        {
            if !*proven {
                *canary = Some(id);
            }
            deadline.get_or_insert(now.after(boot_timeout));
        }
    }

    /// Moves a reload on: forks its `prepare`, ends it when every wanted worker is of its generation.
    pub(super) fn advance_reload(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(reload) = &self.reload else { return };
        match reload.step {
            Step::Preparing { retry_at } if retry_at <= now && !self.has_task(Task::Prepare) => {
                self.fork(now, Task::Prepare, reload.to, out);
            }
            Step::Rolling { proven: true, .. } if self.is_rolled() => {
                self.end_of_reload(now, ReloadEnd::Done, out);
            }
            Step::Loading | Step::Preparing { .. } | Step::Rolling { .. } => {}
        }
    }

    fn is_rolled(&self) -> bool {
        let mut wanted = (0..self.wanted).map(crate::ids::Slot::new);
        let all_new = wanted
            .all(|slot| self.serving(slot).is_some_and(|child| child.generation == self.target));
        all_new && !self.children.iter().any(|child| child.is_yielding())
    }
}
