//! `Lease`: a right that one worker has at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::request::draining::Draining;
use crate::scoreboard::SlotBoard;
use crate::sys::incarnation::Incarnation;

/// The interval at which a task that waits for a lease checks if it is free.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A right that one worker of the server has at a time, by its name: see
/// [`WorkerContext::lease`](crate::WorkerContext::lease).
///
/// It is free again when its [`Lead`] is dropped, and when the worker that has it has ended, also by
/// `kill -9`: within 50 ms for a task that waits in [`Lease::hold`]. It does not lapse: a worker that is
/// stopped or stalled keeps it until it is killed. It holds over all generations, and over an upgrade in
/// place.
#[derive(Clone)]
pub struct Lease {
    counters: Arc<SlotBoard>,
    draining: Draining,
    at: usize,
    name: Arc<str>,
}

/// That this worker has a [`Lease`], until it is dropped.
#[derive(Debug)]
pub struct Lead {
    lease: Lease,
    holder: Incarnation,
    fence: u64,
}

impl Lease {
    pub(crate) fn new(counters: Arc<SlotBoard>, draining: Draining, at: usize, name: &str) -> Self {
        Self { counters, draining, at, name: name.into() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes it; `None`: another worker has it, or something else in this one.
    #[must_use]
    pub fn take(&self) -> Option<Lead> {
        let fence = self.counters.lease(self.at).take()?;
        Some(Lead { lease: self.clone(), holder: Incarnation::current(), fence })
    }

    /// Waits until it is free, and takes it. Nothing is lost when the future is dropped.
    pub async fn hold(&self) -> Lead {
        loop {
            if let Some(lead) = self.take() {
                return lead;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Lead {
    /// The fencing number: larger than that of every holder before. A store that keeps the largest number
    /// it has seen, and refuses writes with a smaller one, cannot be changed by an earlier holder that
    /// still has a write under way.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // At the end of the runtime other tasks may still run: the lease ends with the process.
        if !self.lease.draining.is_over() {
            self.lease.counters.lease(self.lease.at).give_back(self.holder);
        }
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
