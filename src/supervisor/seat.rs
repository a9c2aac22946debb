//! What outlives the workers of a slot: its record of deaths, and how its queue fares.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervisor::watch::Drainage;
use crate::time::Instant;

/// One slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seat {
    /// Early deaths in a row.
    pub(crate) deaths: u32,
    /// When the last of them was. Only who became ready after it can end the record: a worker that
    /// serves on while none of its replacements can live says nothing about these.
    pub(crate) died_at: Instant,
    /// When its last worker was forked, and how long the next waits from then on.
    pub(crate) forked_at: Instant,
    pub(crate) pause: Duration,
    /// The kernel has refused a fork: none before this.
    pub(crate) refused_until: Instant,
    /// How its accept queue fares.
    pub(crate) drainage: Drainage,
}

impl Seat {
    /// Ends the record of deaths.
    pub(crate) fn forgive(&mut self) {
        (self.deaths, self.pause) = (0, Duration::ZERO);
    }

    /// From when on its next worker may be forked.
    pub(crate) fn may_fork_at(&self) -> Instant {
        self.forked_at.after(self.pause).max(self.refused_until)
    }
}
