//! What outlives the workers of a slot: its record of deaths, and how its queue fares.

use serde::{Deserialize, Serialize};

use crate::supervisor::watch::Drainage;
use crate::time::Instant;

/// One slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seat {
    /// Early deaths in a row.
    pub(crate) deaths: u32,
    /// No fork before this.
    pub(crate) not_before: Instant,
    /// How its accept queue fares.
    pub(crate) drainage: Drainage,
}
