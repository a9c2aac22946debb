//! A point in time that can be made, compared across processes and stored in an atomic.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds of the kernel's `CLOCK_MONOTONIC`: the same in every process of one machine, never
/// set back, and standing still while the machine sleeps. Unlike `std::time::Instant` it has a zero,
/// so that a test can begin at one.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub(crate) struct Instant(u64);

impl Instant {
    /// So many milliseconds after the clock's own beginning.
    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds after the clock's own beginning.
    pub(crate) const fn as_millis(self) -> u64 {
        self.0
    }

    /// This much later. A duration too long for the clock is its end: never reached.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This much earlier, or the clock's beginning.
    pub(crate) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Returns the time since `earlier`; zero when that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}
