//! Commands that have an answer: each client of the control socket is told when its transaction has
//! ended, and why it failed.
//!
//! # Why
//! A signal has no answer, so a script that sends `HUP` must read the log. A command changes the same
//! facts as its signal does; besides, it leaves a goal here, which is compared with the facts after
//! each event. A command therefore can be coalesced with others, and outlives an upgrade.

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, CommandId, Generation, Slot, SlotSet};
use crate::supervisor::action::{Action, ExitReason};
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::{COMMANDS_MAX, RELOAD_FAILURES_MAX};
use crate::supervisor::slot_state::Loss;
use crate::supervisor::stage::{Child, Due, Stage, Urgency};
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

/// A command of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// As `HUP`.
    Reload,
    /// As `USR2`.
    Upgrade,
    /// Replace the workers of these slots; `None`: of every slot.
    Restart(Option<SlotSet>),
    /// So many workers.
    Scale(Scale),
    /// As `TERM` or `INT`.
    Stop(Urgency),
    /// As `USR1`.
    Reopen,
}

/// A number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scale {
    /// This number.
    To(u16),
    /// So many more, or fewer, than are wanted now.
    By(i16),
}

/// The end of a command's transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    Failed { reason: String },
}

/// A command whose transaction has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    id: CommandId,
    /// When it was given.
    since: Instant,
    goal: Goal,
}

/// The facts that a command waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Goal {
    /// The next reload begins.
    ReloadBegun { is_upgraded: bool },
    /// The reload to this generation ends.
    ReloadEnded { to: Generation, is_upgraded: bool },
    /// The new image runs.
    Upgraded,
    /// Each of these slots is served by a worker other than these.
    Replaced { slots: SlotSet, old: Vec<ChildId> },
    /// So many workers serve.
    Scaled { workers: u16 },
    /// The master exits.
    Stopped,
    /// The logger has opened its files again.
    Reopened,
}

/// The state of a [`Goal`].
enum Progress {
    Open,
    Ended(Outcome),
}

impl Outcome {
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }
}

impl Supervisor {
    pub(super) fn note_command(
        &mut self,
        now: Instant,
        id: CommandId,
        command: Command,
        out: &mut Vec<Action>,
    ) {
        match self.take_command(now, command, out) {
            Ok(_) if self.commands.len() >= COMMANDS_MAX => {
                answer(id, Outcome::failed("too many commands are under way"), out);
            }
            Ok(goal) => self.commands.push(Pending { id, since: now, goal }),
            Err(reason) => answer(id, Outcome::Failed { reason }, out),
        }
    }

    /// The client no longer waits. What it asked for goes on.
    pub(super) fn forget_command(&mut self, id: CommandId) {
        self.commands.retain(|pending| pending.id != id);
    }

    /// Changes what the command is about.
    ///
    /// # Errors
    /// The reason why it cannot be carried out.
    fn take_command(
        &mut self,
        now: Instant,
        command: Command,
        out: &mut Vec<Action>,
    ) -> Result<Goal, String> {
        match command {
            Command::Stop(urgency) => {
                match urgency {
                    Urgency::Graceful => self.announce(now, out),
                    Urgency::Quick => self.stop(now, urgency, ExitReason::Stopped, out),
                }
                return Ok(Goal::Stopped);
            }
            Command::Reopen => {
                out.push(Action::ReopenLogs);
                return Ok(Goal::Reopened);
            }
            Command::Reload | Command::Upgrade | Command::Restart(_) | Command::Scale(_) => {}
        }
        if self.is_ending() {
            return Err(STOPPING.to_owned());
        }
        match command {
            Command::Reload => {
                self.reload_again = true;
                Ok(Goal::ReloadBegun { is_upgraded: false })
            }
            Command::Upgrade => {
                self.begin_upgrade().map_err(str::to_owned)?;
                Ok(Goal::Upgraded)
            }
            Command::Restart(slots) => self.restart(now, slots, out),
            Command::Scale(scale) => self.scale(scale, out),
            Command::Stop(_) => Ok(Goal::Stopped),
            Command::Reopen => Ok(Goal::Reopened),
        }
    }

    fn restart(
        &mut self,
        now: Instant,
        slots: Option<SlotSet>,
        out: &mut Vec<Action>,
    ) -> Result<Goal, String> {
        let all: SlotSet = self.slots().take(usize::from(self.wanted)).collect();
        let slots = slots.unwrap_or(all);
        if let Some(slot) = slots.iter().find(|slot| !all.contains(*slot)) {
            let last = self.wanted.saturating_sub(1);
            return Err(format!("slot {slot} has no worker; expected one of 0 to {last}"));
        }
        let concerned = |child: &&Child| {
            let is_up = child.is_serving() || child.is_yielding();
            is_up && child.slot().is_some_and(|slot| slots.contains(slot))
        };
        let old: Vec<ChildId> =
            self.children.iter().filter(concerned).map(|child| child.id).collect();
        for id in &old {
            self.note_due(now, *id, Due::Restart, out);
        }
        Ok(Goal::Replaced { slots, old })
    }

    fn scale(&mut self, scale: Scale, out: &mut Vec<Action>) -> Result<Goal, String> {
        let workers = match scale {
            Scale::To(workers) => Some(workers),
            Scale::By(change) => self.wanted.checked_add_signed(change),
        };
        let most = self.policy(self.settled).workers_max;
        let Some(workers) = workers.filter(|workers| (1..=most).contains(workers)) else {
            let wanted = self.wanted;
            return Err(format!("expected 1 to {most} workers; their number stays {wanted}"));
        };
        if workers != self.wanted {
            out.push(Action::Log(Notice::Resized { from: self.wanted, to: workers }));
            self.wanted = workers;
        }
        Ok(Goal::Scaled { workers })
    }

    /// A reload begins: it is the one that these commands wait for.
    pub(super) fn note_reload_begun(&mut self, to: Generation) {
        for pending in &mut self.commands {
            if let Goal::ReloadBegun { is_upgraded } = pending.goal {
                pending.goal = Goal::ReloadEnded { to, is_upgraded };
            }
        }
    }

    /// A reload has ended.
    pub(super) fn note_reload_ended(
        &mut self,
        generation: Generation,
        outcome: &Outcome,
        out: &mut Vec<Action>,
    ) {
        self.end_commands(out, |goal| {
            let Goal::ReloadEnded { to, is_upgraded } = goal else { return None };
            let outcome = match (outcome, is_upgraded) {
                (Outcome::Failed { reason }, true) => {
                    Outcome::failed(format!("the new binary runs, but has not reloaded: {reason}"))
                }
                (outcome, _) => outcome.clone(),
            };
            (*to == generation).then_some(outcome)
        });
    }

    /// The new image runs, and reloads.
    pub(super) fn note_image_replaced(&mut self) {
        for pending in &mut self.commands {
            if pending.goal == Goal::Upgraded {
                pending.goal = Goal::ReloadBegun { is_upgraded: true };
            }
        }
    }

    /// The upgrade has failed.
    pub(super) fn note_upgrade_refused(&mut self, reason: &str, out: &mut Vec<Action>) {
        self.end_commands(out, |goal| (*goal == Goal::Upgraded).then(|| Outcome::failed(reason)));
    }

    /// The logger has opened its files again, all of them or not.
    pub(super) fn note_reopened(&mut self, is_complete: bool, out: &mut Vec<Action>) {
        self.end_commands(out, |goal| {
            let outcome = match is_complete {
                true => Outcome::Done,
                false => Outcome::failed("a log file cannot be opened; the error log names it"),
            };
            (*goal == Goal::Reopened).then_some(outcome)
        });
    }

    /// The server stops: nothing else is carried out any more.
    pub(super) fn drop_commands(&mut self, out: &mut Vec<Action>) {
        self.end_commands(out, |goal| {
            let goes_on = matches!(goal, Goal::Stopped | Goal::Reopened);
            (!goes_on).then(|| Outcome::failed(STOPPING))
        });
    }

    fn end_commands(&mut self, out: &mut Vec<Action>, outcome: impl Fn(&Goal) -> Option<Outcome>) {
        self.commands.retain(|pending| match outcome(&pending.goal) {
            Some(outcome) => {
                answer(pending.id, outcome, out);
                false
            }
            None => true,
        });
    }

    /// Ends the commands about workers whose goal is reached, or cannot be.
    pub(super) fn settle_commands(&mut self, out: &mut Vec<Action>) {
        let mut commands = std::mem::take(&mut self.commands);
        commands.retain(|pending| match self.progress(pending) {
            Progress::Open => true,
            Progress::Ended(outcome) => {
                if let (Goal::Replaced { old, .. }, Outcome::Failed { .. }) =
                    (&pending.goal, &outcome)
                {
                    self.keep_workers(old);
                }
                answer(pending.id, outcome, out);
                false
            }
        });
        self.commands = commands;
    }

    fn progress(&self, pending: &Pending) -> Progress {
        if self.phase != Phase::Running {
            return Progress::Open;
        }
        let open: Vec<Slot> = match &pending.goal {
            Goal::Replaced { slots, old } => {
                let wanted = usize::from(self.wanted);
                let is_new = |child: &Child| !old.contains(&child.id);
                let is_open = |slot: &Slot| !self.serving(*slot).is_some_and(is_new);
                slots.iter().filter(|slot| slot.index() < wanted).filter(is_open).collect()
            }
            Goal::Scaled { workers } if *workers != self.wanted => {
                let reason = format!("the number of workers has become {}", self.wanted);
                return Progress::Ended(Outcome::failed(reason));
            }
            Goal::Scaled { workers } => {
                (0..*workers).map(Slot::new).filter(|slot| !self.accepts(*slot)).collect()
            }
            Goal::ReloadBegun { .. }
            | Goal::ReloadEnded { .. }
            | Goal::Upgraded
            | Goal::Stopped
            | Goal::Reopened => return Progress::Open,
        };
        let failed = open.iter().find_map(|slot| self.failure(*slot, pending.since));
        match failed {
            Some(outcome) => Progress::Ended(outcome),
            None if open.is_empty() => Progress::Ended(Outcome::Done),
            None => Progress::Open,
        }
    }

    /// The reason why this slot has not got its worker up since then, if it keeps failing.
    fn failure(&self, slot: Slot, since: Instant) -> Option<Outcome> {
        let state = self.slot_states.get(slot.index()).filter(|state| state.died_at >= since)?;
        let deaths = state.deaths;
        let is_late = deaths > 0 && state.loss == Some(Loss::NotReady);
        let loss = state.loss.filter(|_| is_late || deaths >= RELOAD_FAILURES_MAX)?;
        Some(Outcome::failed(format!(
            "workers of slot {slot} cannot live: {deaths} early deaths in a row, the last {loss}"
        )))
    }

    /// Workers that were to be replaced serve on.
    fn keep_workers(&mut self, ids: &[ChildId]) {
        for child in self.children.iter_mut().filter(|child| ids.contains(&child.id)) {
            if let Stage::Serving { due, .. } | Stage::Yielding { due, .. } = &mut child.stage
                && *due == Some(Due::Restart)
            {
                *due = None;
            }
        }
    }
}

/// The reason why a command has no effect.
const STOPPING: &str = "the server is stopping";

fn answer(command: CommandId, outcome: Outcome, out: &mut Vec<Action>) {
    out.push(Action::Answer { command, outcome });
}
