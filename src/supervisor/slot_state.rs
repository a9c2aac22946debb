//! The part of a slot that outlives its workers: its record of deaths, and the state of its queue.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervisor::backoff::Refusals;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::policy::{KILL_EXCUSED_AGAIN, KILLS_EXCUSED};
use crate::supervisor::watch::Drainage;
use crate::time::Instant;

/// One slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SlotState {
    /// Early deaths in a row.
    pub(crate) deaths: u32,
    /// When the last of them was. Only who became ready after it can end the record: a worker that
    /// serves on while none of its replacements can live says nothing about these.
    pub(crate) died_at: Instant,
    /// The last of them.
    pub(crate) loss: Option<Loss>,
    /// Until when every killing of a ready worker that is excused was paid for, at one in each
    /// [`KILL_EXCUSED_AGAIN`].
    pub(crate) excused_until: Instant,
    /// When its last worker was forked, and how long the next waits from then on.
    pub(crate) forked_at: Instant,
    pub(crate) pause: Duration,
    /// The kernel has refused forks: none before this.
    pub(crate) refused_until: Instant,
    pub(crate) refusals: Refusals,
    /// The state of its accept queue.
    pub(crate) drainage: Drainage,
}

/// By what a slot has lost a worker that should have lived longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Loss {
    /// It ended like this.
    Ended(ExitStatus),
    /// It was not ready by its deadline.
    NotReady,
    /// Its event loop was silent.
    Silent,
    /// It is above `max_memory` as soon as it serves.
    TooLarge,
    /// It has closed its channel.
    Unheard,
}

impl Loss {
    /// Returns true if it was killed by hand: no process does that to itself by mistake.
    pub(crate) fn is_by_hand(self) -> bool {
        match self {
            Self::Ended(status) => status.is_by_hand(),
            Self::NotReady | Self::Silent | Self::TooLarge | Self::Unheard => false,
        }
    }
}

impl SlotState {
    /// Returns true if one more of its ready workers may be killed without consequences.
    pub(crate) fn excuse_kill(&mut self, now: Instant) -> bool {
        let until = self.excused_until.max(now).after(KILL_EXCUSED_AGAIN);
        let excused = until.since(now) <= KILL_EXCUSED_AGAIN.saturating_mul(KILLS_EXCUSED);
        if excused {
            self.excused_until = until;
        }
        excused
    }

    /// Ends the record of deaths.
    pub(crate) fn forgive(&mut self) {
        (self.deaths, self.pause) = (0, Duration::ZERO);
    }

    /// From when on its next worker may be forked.
    pub(crate) fn may_fork_at(&self) -> Instant {
        self.forked_at.after(self.pause).max(self.refused_until)
    }
}
