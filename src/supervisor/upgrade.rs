//! An upgrade in place: the binary on disk is asked whether it could take over, then executed.
//!
//! What the new image is handed is this state and nothing else. So the order is the last of its
//! sequence, and it waits until no other order is unanswered: an answer that is on its way when the
//! image is replaced would be lost.

use serde::{Deserialize, Serialize};

use crate::supervisor::action::Action;
use crate::supervisor::event::{ExitStatus, Signal};
use crate::supervisor::logger::Life;
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::{Stage, Task};
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

/// How far an upgrade is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Upgrade {
    /// Nobody wants one.
    #[default]
    Idle,
    /// `USR2` came.
    Wanted,
    /// The new binary's check runs.
    Checking,
    /// The check has passed.
    Passed,
    /// The order is given; either it succeeds, or its failure is told.
    Ordered,
}

impl Supervisor {
    pub(super) fn want_upgrade(&mut self, out: &mut Vec<Action>) {
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
            Some(why) => out.push(Action::Log(Notice::Ignored { signal: Signal::Upgrade, why })),
            None => self.upgrade = Upgrade::Wanted,
        }
    }

    /// What the new binary's check says.
    pub(super) fn note_check_exit(&mut self, status: ExitStatus, out: &mut Vec<Action>) {
        if self.upgrade != Upgrade::Checking {
            return;
        }
        if status.is_clean() {
            self.upgrade = Upgrade::Passed;
        } else {
            self.refuse_upgrade(format!("the new binary's check {status}"), out);
        }
    }

    /// Back to before `USR2`.
    pub(super) fn refuse_upgrade(&mut self, reason: String, out: &mut Vec<Action>) {
        self.upgrade = Upgrade::Idle;
        out.push(Action::Log(Notice::UpgradeRefused { reason }));
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
            Upgrade::Idle | Upgrade::Checking | Upgrade::Passed | Upgrade::Ordered => {}
        }
    }

    /// Whether an order was given whose answer must not be lost.
    fn awaits_an_answer(&self) -> bool {
        self.opening.is_some()
            || self.logger.life == Life::Forking
            || self.children.iter().any(|child| child.stage == Stage::Forking)
    }
}
