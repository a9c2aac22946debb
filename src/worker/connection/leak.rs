//! A limit on what a client may do beside its requests: a bucket that leaks. Pure; the time is an
//! argument.

/// A bucket that leaks so much in each second, and holds so much at the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leak {
    pub(crate) capacity: u64,
    pub(crate) per_second: u64,
}

/// The level of a bucket, and the time when that was seen last, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Level {
    amount: u64,
    at: u64,
}

impl Level {
    /// An empty bucket.
    pub(crate) fn new(now: u64) -> Self {
        Self { amount: 0, at: now }
    }

    /// Pours so much in. Returns false if it does not fit.
    pub(crate) fn add(&mut self, amount: u64, leak: Leak, now: u64) -> bool {
        let leaked = now.saturating_sub(self.at).saturating_mul(leak.per_second) / 1000;
        if leaked > 0 {
            self.amount = self.amount.saturating_sub(leaked);
            self.at = now;
        }
        self.amount = self.amount.saturating_add(amount);
        self.amount <= leak.capacity
    }

    /// Takes so much out: it was no excess after all.
    pub(crate) fn forgive(&mut self, amount: u64) {
        self.amount = self.amount.saturating_sub(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAK: Leak = Leak { capacity: 100, per_second: 10 };

    #[test]
    fn bucket_overflows_and_leaks() {
        let mut level = Level::new(1000);
        assert!(level.add(100, LEAK, 1000));
        assert!(!level.add(1, LEAK, 1000));
        assert!(!level.add(0, LEAK, 1099), "nothing has leaked in less than 100 ms");
        assert!(level.add(0, LEAK, 1100), "one has");
        assert!(level.add(50, LEAK, 6100), "fifty have");
        level.forgive(1000);
        assert!(level.add(100, LEAK, 6100));
    }

    #[test]
    fn slow_drops_leak_too() {
        let mut level = Level::new(0);
        for now in (0..1_000_000).step_by(100) {
            assert!(level.add(1, LEAK, now), "at {now}");
        }
        assert!(level.amount <= 2, "{level:?}");
        assert!(level.add(0, LEAK, u64::MAX), "no time is too late");
    }
}
