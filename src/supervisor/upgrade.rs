//! An upgrade in place: the binary on disk is asked whether it could take over, then executed.
//!
//! The new image is handed this state and nothing else. So the order is the last of its
//! sequence, and it waits until no other order is unanswered: an answer that is on its way when the
//! image is replaced would be lost.

use serde::{Deserialize, Serialize};

use crate::supervisor::action::Action;
use crate::supervisor::auxiliary::{Life, Role};
use crate::supervisor::event::{ExitStatus, Signal};
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::{Stage, Task};
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

/// The progress of an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Upgrade {
    /// None is wanted.
    #[default]
    Idle,
    /// `USR2` came.
    Wanted,
    /// The new binary's check runs.
    Checking,
    /// It has said that it could take over, and is to end well.
    Vouched,
    /// The check has passed.
    Passed,
    /// The order is given; either it succeeds, or its failure is told, or a stop takes it back.
    Ordered,
}

impl Supervisor {
    pub(super) fn want_upgrade(&mut self, out: &mut Vec<Action>) {
        if let Err(why) = self.begin_upgrade() {
            out.push(Action::Log(Notice::Ignored { signal: Signal::Upgrade, why }));
        }
    }

    /// # Errors
    /// The reason why the server cannot be upgraded now.
    pub(super) fn begin_upgrade(&mut self) -> Result<(), &'static str> {
        let busy = match self.phase {
            Phase::New | Phase::Preparing { .. } | Phase::Starting => {
                Some("the server is starting")
            }
            Phase::Stopping { .. } | Phase::Gone => Some("the server is stopping"),
            Phase::Running if self.reload.is_some() => Some("a reload is under way"),
            Phase::Running if self.upgrade != Upgrade::Idle => Some("an upgrade is under way"),
            Phase::Running => None,
        };
        match busy {
            Some(why) => Err(why),
            None => {
                self.upgrade = Upgrade::Wanted;
                Ok(())
            }
        }
    }

    /// Returns true if the order to upgrade still stands.
    pub(crate) fn is_upgrading(&self) -> bool {
        self.upgrade == Upgrade::Ordered
    }

    /// The new binary says that it could take over. Its exit code alone would prove nothing: any other
    /// program may end well.
    pub(super) fn note_vouched(&mut self) {
        if self.upgrade == Upgrade::Checking {
            self.upgrade = Upgrade::Vouched;
        }
    }

    /// The end of the new binary's check.
    pub(super) fn note_check_exit(&mut self, status: ExitStatus, out: &mut Vec<Action>) {
        match self.upgrade {
            Upgrade::Vouched if status.is_clean() => self.upgrade = Upgrade::Passed,
            Upgrade::Checking | Upgrade::Vouched => {
                let silent = if status.is_clean() { " and has not said that it could" } else { "" };
                self.refuse_upgrade(format!("the new binary's check {status}{silent}"), out);
            }
            Upgrade::Idle | Upgrade::Wanted | Upgrade::Passed | Upgrade::Ordered => {}
        }
    }

    /// Back to before `USR2`.
    pub(super) fn refuse_upgrade(&mut self, reason: String, out: &mut Vec<Action>) {
        self.upgrade = Upgrade::Idle;
        out.push(Action::Log(Notice::UpgradeFailed { reason: reason.clone(), output: None }));
        self.note_upgrade_refused(&reason, out);
    }

    /// Moves an upgrade on. To be called last: nothing may follow the order.
    pub(super) fn advance_upgrade(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self.upgrade {
            Upgrade::Wanted => {
                self.upgrade = Upgrade::Checking;
                self.fork(now, Task::Check, self.settled, out);
            }
            Upgrade::Passed if !self.awaits_an_answer() => {
                self.upgrade = Upgrade::Ordered;
                out.push(Action::Upgrade);
            }
            Upgrade::Idle
            | Upgrade::Checking
            | Upgrade::Vouched
            | Upgrade::Passed
            | Upgrade::Ordered => {}
        }
    }

    /// Returns true if an order was given whose answer must not be lost.
    fn awaits_an_answer(&self) -> bool {
        self.opening.is_some()
            || Role::ALL.into_iter().any(|role| self.auxiliary(role).life == Life::Forking)
            || self.children.iter().any(|child| child.stage == Stage::Forking)
    }
}
