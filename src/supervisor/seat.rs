//! What outlives the workers of a slot: its record of deaths, and how its queue fares.

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
    /// No fork before this.
    pub(crate) not_before: Instant,
    /// How its accept queue fares.
    pub(crate) drainage: Drainage,
}
