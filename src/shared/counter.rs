//! `Counter`: a sum over all workers.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shared::Shared;

/// A number that all workers increase together.
///
/// Make it before [`crate::run`], as a part of the application's value: every worker, also of later
/// generations, then counts in the same memory. After an upgrade in place (`USR2`) it begins anew.
///
/// An addition is one instruction: a worker that is killed has added or has not. There is no way to
/// subtract, because a worker that is killed between the two would leave its part in the number.
///
/// ```
/// let visits = ferricorn::shared::Counter::new()?;
/// assert_eq!(visits.add(1), 1);
/// assert_eq!(visits.add(2), 3);
/// assert_eq!(visits.get(), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Counter(Shared);

impl Counter {
    /// Makes one that is 0.
    ///
    /// # Errors
    /// The system's error about shared memory.
    pub fn new() -> io::Result<Self> {
        Shared::new("ferricorn-counter", 1).map(Self)
    }

    /// Adds to it, and returns the sum. Behind [`u64::MAX`] it begins at 0 again.
    // ORDERING: the number stands for itself, and nothing else is read by it: Relaxed throughout.
    pub fn add(&self, count: u64) -> u64 {
        self.number().fetch_add(count, Ordering::Relaxed).wrapping_add(count)
    }

    /// The sum of what all workers have added.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.number().load(Ordering::Relaxed)
    }

    fn number(&self) -> &AtomicU64 {
        &self.0[0].0[0]
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.get()).finish()
    }
}
