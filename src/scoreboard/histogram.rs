//! Histograms of durations in shared memory, with fixed buckets from 0.1 ms to 120 s.
//!
//! A histogram is a row of numbers that only rise: one for each bucket, and the sum. The number of
//! observations is the sum of the buckets, so that the two never disagree.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sys::shared::{self, Claim};

/// The upper bounds of the buckets, in nanoseconds. One more bucket holds what is longer.
pub(crate) const BOUNDS_NANOS: [u64; 19] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
];

/// Buckets of a histogram.
pub(crate) const BUCKETS: usize = BOUNDS_NANOS.len() + 1;
/// Words of a histogram in memory: its buckets, then the sum, then room.
pub(super) const WORDS: usize = 32;
/// The place of the sum, in nanoseconds.
const SUM: usize = BUCKETS;

/// The bucket that a duration belongs to. Most are short, and found sooner than by halves.
fn bucket_of(nanos: u64) -> usize {
    BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS_NANOS.len())
}

// ORDERING: each number stands for itself: Relaxed throughout.
/// Counts a duration. `word` gives the word at a place of the histogram.
pub(super) fn observe<'a>(word: impl Fn(usize) -> &'a AtomicU64, duration: Duration) {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    word(bucket_of(nanos)).fetch_add(1, Ordering::Relaxed);
    word(SUM).fetch_add(nanos, Ordering::Relaxed);
}

/// A histogram as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// Observations in each bucket, without those of the buckets below.
    pub(crate) buckets: [Claim; BUCKETS],
    /// The sum of the observations, in nanoseconds.
    pub(crate) sum: Claim,
}

impl Distribution {
    pub(super) fn read<'a>(word: impl Fn(usize) -> &'a AtomicU64) -> Self {
        Self {
            buckets: std::array::from_fn(|at| shared::claim(word(at))),
            sum: shared::claim(word(SUM)),
        }
    }

    /// Adds the observations of another one.
    pub(crate) fn add(&mut self, other: &Self) {
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            *own = own.saturating_add(*other);
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The number of observations.
    #[cfg(test)]
    pub(crate) fn count(&self) -> Claim {
        self.buckets.iter().fold(Claim::default(), |sum, bucket| sum.saturating_add(*bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_is_not_below_it() {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let cases = [
            (Duration::ZERO, 0),
            (Duration::from_micros(100), 0),
            (Duration::from_nanos(100_001), 1),
            (Duration::from_secs(1), 12),
            (Duration::from_secs(120), 18),
            (Duration::from_secs(121), 19),
        ];
        for (duration, bucket) in cases {
            let before = Distribution::read(|at| &words[at]);
            observe(|at| &words[at], duration);
            let after = Distribution::read(|at| &words[at]);
            let grown = |at: usize| after.buckets[at].saturating_sub(before.buckets[at]);
            assert_eq!(grown(bucket), Claim::new(1), "{duration:?}");
            let nanos = u64::try_from(duration.as_nanos()).unwrap();
            assert_eq!(after.sum.saturating_sub(before.sum), Claim::new(nanos));
        }
        assert_eq!(Distribution::read(|at| &words[at]).count(), Claim::new(6));
    }

    #[test]
    fn the_bounds_rise() {
        assert!(BOUNDS_NANOS.is_sorted());
        assert_eq!((BOUNDS_NANOS[0], BOUNDS_NANOS[18]), (100_000, 120_000_000_000));
    }

    /// A worker writes any number into its own histogram.
    #[test]
    fn sums_of_distributions_do_not_overflow() {
        let most = Distribution { buckets: [Claim::new(u64::MAX); BUCKETS], sum: Claim::new(7) };
        let mut sum = most.clone();
        sum.add(&most);
        assert_eq!(sum.count(), Claim::new(u64::MAX));
        assert_eq!(sum.sum, Claim::new(14));
    }
}
