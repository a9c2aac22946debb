//! The smallest useful things that several processes share: they live in memory that is made before
//! the first fork, and no death can leave them half done.

mod counter;
mod lease;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use counter::Counter;
pub use lease::{Lead, Lease};

use crate::sys::clock;
use crate::sys::shared::{Line, Shared};

/// Buckets of a [`RateLimit`]: 512 KiB, which take memory as they are first used.
const BUCKETS: usize = 1 << 16;

/// A limit of so many in so much time, by key, over all workers together: a token bucket for each key.
///
/// Make it before [`crate::run`], as a part of the application's value: every worker, also of later
/// generations, then counts in the same memory. After an upgrade in place (`USR2`) it begins anew.
///
/// Each bucket is one atomic number (when it will be full again), and taking from it one exchange: a
/// worker that is killed has taken a token or has not, and holds no lock. Keys are many and buckets
/// 65,536: two keys may share one, and are then limited together. No key ever gets more than its due.
///
/// ```
/// # use std::time::Duration;
/// let limit = ferricorn::shared::RateLimit::new(2, Duration::from_secs(60))?;
/// assert!(limit.take("192.0.2.1").is_ok());
/// assert!(limit.take("192.0.2.1").is_ok());
/// let wait = limit.take("192.0.2.1").expect_err("it was the third");
/// assert!(wait <= Duration::from_secs(60));
/// limit.give_back("192.0.2.1");
/// assert!(limit.take("192.0.2.1").is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct RateLimit {
    memory: Shared,
    /// The same in every process, and unknown to clients: they cannot look for keys that collide.
    keys: RandomState,
    bucket: Bucket,
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

impl RateLimit {
    /// Makes full buckets of `burst` tokens, which gain one in each `interval`.
    ///
    /// # Errors
    /// The system's error about shared memory.
    pub fn new(burst: u32, interval: Duration) -> io::Result<Self> {
        let lines = BUCKETS / Line::default().0.len();
        let memory = Shared::new("ferricorn-limit", lines)?;
        let interval_us = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1);
        let capacity_us = interval_us.saturating_mul(u64::from(burst.max(1)));
        Ok(Self { memory, keys: RandomState::new(), bucket: Bucket { interval_us, capacity_us } })
    }

    /// Takes a token from the key's bucket.
    ///
    /// # Errors
    /// The time until there is one, when the bucket is empty.
    pub fn take(&self, key: impl Hash) -> Result<(), Duration> {
        self.bucket.take(self.cell(key), clock::monotonic_micros()).map_err(Duration::from_micros)
    }

    /// Puts a token back that was taken.
    pub fn give_back(&self, key: impl Hash) {
        self.bucket.give_back(self.cell(key), clock::monotonic_micros());
    }

    fn cell(&self, key: impl Hash) -> &AtomicU64 {
        let hash = self.keys.hash_one(key);
        let at = usize::try_from(hash % BUCKETS as u64).unwrap_or_default();
        let numbers = &self.memory[at / 8].0;
        &numbers[at % numbers.len()]
    }
}

/// The shape of the buckets. A bucket's number is the time at which it will be full again, in
/// microseconds of the monotonic clock; one that lies in the past is full.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    interval_us: u64,
    capacity_us: u64,
}

/// A number that several processes change; a test's can have all its interleavings tried.
trait Cell {
    fn load(&self) -> u64;
    fn exchange(&self, from: u64, to: u64) -> Result<u64, u64>;
}

// ORDERING: a bucket stands for itself, and nothing else is read by it: Relaxed throughout.
impl Cell for AtomicU64 {
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Relaxed)
    }

    fn exchange(&self, from: u64, to: u64) -> Result<u64, u64> {
        self.compare_exchange_weak(from, to, Ordering::Relaxed, Ordering::Relaxed)
    }
}

impl Bucket {
    fn take(self, cell: &impl Cell, now_us: u64) -> Result<(), u64> {
        let mut found = cell.load();
        loop {
            let taken = self.full_at(found, now_us).saturating_add(self.interval_us);
            let last = now_us.saturating_add(self.capacity_us);
            if taken > last {
                return Err(taken - last);
            }
            match cell.exchange(found, taken) {
                Ok(_) => return Ok(()),
                Err(other) => found = other,
            }
        }
    }

    fn give_back(self, cell: &impl Cell, now_us: u64) {
        let mut found = cell.load();
        while let Err(other) =
            cell.exchange(found, self.full_at(found, now_us).saturating_sub(self.interval_us))
        {
            found = other;
        }
    }

    /// When the bucket will be full, or is. A number beyond an empty bucket's is none of ours: it is
    /// taken for an empty one, which fills again.
    fn full_at(self, found: u64, now_us: u64) -> u64 {
        found.clamp(now_us, now_us.saturating_add(self.capacity_us))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn bucket(burst: u64, interval_us: u64) -> Bucket {
        Bucket { interval_us, capacity_us: burst * interval_us }
    }

    #[test]
    fn bucket_gives_its_burst_and_then_one_an_interval() {
        let bucket = bucket(3, SECOND_US);
        let cell = AtomicU64::new(0);
        let begin = 50 * SECOND_US;
        for _ in 0..3 {
            assert_eq!(bucket.take(&cell, begin), Ok(()));
        }
        assert_eq!(bucket.take(&cell, begin), Err(SECOND_US));
        assert_eq!(bucket.take(&cell, begin + SECOND_US / 4), Err(SECOND_US * 3 / 4));
        assert_eq!(bucket.take(&cell, begin + SECOND_US), Ok(()));
        assert_eq!(bucket.take(&cell, begin + SECOND_US), Err(SECOND_US));
        bucket.give_back(&cell, begin + SECOND_US);
        assert_eq!(bucket.take(&cell, begin + SECOND_US), Ok(()));
        let later = begin + 100 * SECOND_US;
        for _ in 0..3 {
            assert_eq!(bucket.take(&cell, later), Ok(()));
        }
        assert_eq!(bucket.take(&cell, later), Err(SECOND_US), "more than full is full");
    }

    #[test]
    fn token_given_back_to_a_full_bucket_is_none() {
        let bucket = bucket(1, SECOND_US);
        let cell = AtomicU64::new(0);
        let now = 50 * SECOND_US;
        bucket.give_back(&cell, now);
        assert_eq!(bucket.take(&cell, now), Ok(()));
        assert_eq!(bucket.take(&cell, now), Err(SECOND_US));
    }

    #[test]
    fn number_of_a_mad_worker_heals() {
        let bucket = bucket(2, SECOND_US);
        let cell = AtomicU64::new(u64::MAX);
        let now = 50 * SECOND_US;
        assert_eq!(bucket.take(&cell, now), Err(SECOND_US), "it is empty, at the worst");
        bucket.give_back(&cell, now);
        assert_eq!(bucket.take(&cell, now), Ok(()));
    }

    #[test]
    fn keys_have_their_own_buckets() {
        let limit = RateLimit::new(1, Duration::from_secs(3600)).unwrap();
        let refused = (0..1000).filter(|key| limit.take(key).is_err()).count();
        assert!(refused < 50, "{refused} of 1000 share a bucket");
        assert!((0..1000).all(|key| limit.take(key).is_err()));
        let wait = limit.take(7).unwrap_err();
        assert!(wait > Duration::from_secs(3500) && wait <= Duration::from_secs(3600), "{wait:?}");
    }

    proptest! {
        /// In no window of time does a bucket give more than its burst and what it gained meanwhile.
        #[test]
        fn bucket_never_gives_more_than_its_due(
            burst in 1_u64..6,
            steps in proptest::collection::vec((0_u64..3000, any::<bool>()), 1..200),
        ) {
            let interval = 1000;
            let bucket = bucket(burst, interval);
            let cell = AtomicU64::new(0);
            let mut now = 1 << 40;
            let mut given = Vec::new();
            for (pause, hurry) in steps {
                now += if hurry { 0 } else { pause };
                if bucket.take(&cell, now).is_ok() {
                    given.push(now);
                }
            }
            for (at, begin) in given.iter().enumerate() {
                for (end, last) in given.iter().enumerate().skip(at) {
                    let due = burst + (last - begin) / interval;
                    prop_assert!((end - at + 1) as u64 <= due, "{given:?}");
                }
            }
        }
    }

    impl Cell for loom::sync::atomic::AtomicU64 {
        fn load(&self) -> u64 {
            self.load(Ordering::Relaxed)
        }

        fn exchange(&self, from: u64, to: u64) -> Result<u64, u64> {
            self.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
        }
    }

    /// Two takers and one that gives back, in every interleaving: two tokens go out of a bucket of two,
    /// and a third only where one has come back before.
    #[test]
    fn every_interleaving_gives_no_token_twice() {
        loom::model(|| {
            let bucket = bucket(2, SECOND_US);
            let now = 50 * SECOND_US;
            let cell = Arc::new(loom::sync::atomic::AtomicU64::new(0));
            bucket.take(&*cell, now).unwrap();
            let take = |cell: &Arc<loom::sync::atomic::AtomicU64>| {
                let cell = Arc::clone(cell);
                loom::thread::spawn(move || bucket.take(&*cell, now).is_ok())
            };
            let takers = [take(&cell), take(&cell)];
            bucket.give_back(&*cell, now);
            let taken =
                takers.map(|taker| taker.join().unwrap()).iter().filter(|taker| **taker).count();
            let left = (0..3).filter(|_| bucket.take(&*cell, now).is_ok()).count();
            assert_eq!(taken + left, 2, "one was out and came back, so two are there");
        });
    }
}
