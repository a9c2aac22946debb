//! Ends that are spread evenly over a time: pure, from the time and how many are left.

/// Ends some of what is open at each look, so that all have ended at a certain time and each second has about
/// as many ends. How many there are may change: what ends by itself is one less, what begins is one more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The last look, and the time by which all have ended, in milliseconds.
    looked: u64,
    until: u64,
    /// Ends that are due by now and were not whole ones, in millionths.
    owed: u64,
}

/// One end, in the unit of `owed`.
const ONE: u64 = 1_000_000;

impl Pace {
    pub(crate) fn new(now: u64, until: u64) -> Self {
        Self { looked: now, until, owed: 0 }
    }

    /// The number of ends that are due now, if so many are left.
    pub(crate) fn due(&mut self, now: u64, left: usize) -> usize {
        if now < self.looked {
            return 0;
        }
        let passed = now - self.looked;
        let remaining = self.until.saturating_sub(self.looked);
        self.looked = now;
        if passed >= remaining {
            return left;
        }
        let share = (left as u64).saturating_mul(ONE).saturating_mul(passed) / remaining;
        self.owed = self.owed.saturating_add(share);
        let due = self.owed / ONE;
        self.owed %= ONE;
        usize::try_from(due).unwrap_or(usize::MAX).min(left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The ends of each second.
    fn seconds(count: usize, window: u64, mut step: impl FnMut() -> u64) -> Vec<usize> {
        let mut pace = Pace::new(0, window);
        let mut now = 0;
        let mut left = count;
        let mut ends = vec![0; usize::try_from(window / 1000 + 1).unwrap()];
        while left > 0 {
            now += step();
            let due = pace.due(now, left);
            ends[usize::try_from(now.min(window) / 1000).unwrap()] += due;
            left -= due;
        }
        ends
    }

    #[test]
    fn thousand_ends_over_fifteen_seconds_are_even() {
        let ends = seconds(1000, 15_000, || 50);
        assert_eq!(ends.iter().sum::<usize>(), 1000);
        assert!(ends.iter().all(|ends| *ends <= 70), "{ends:?}");
    }

    #[test]
    fn without_a_window_all_end_at_once() {
        assert_eq!(Pace::new(7, 7).due(7, 9), 9);
        assert_eq!(Pace::new(9, 7).due(9, 9), 9);
        assert_eq!(Pace::new(0, 10).due(10, 0), 0);
        assert_eq!(Pace::new(7, 7).due(6, 9), 0, "its time has not begun");
    }

    proptest! {
        #[test]
        fn all_end_in_time_and_no_second_has_twice_its_part(
            count in 100_usize..3000,
            window in 4_u64..60,
            steps in proptest::collection::vec(20_u64..120, 50),
        ) {
            let mut steps = steps.into_iter().cycle();
            let ends = seconds(count, window * 1000, || steps.next().unwrap());
            prop_assert_eq!(ends.iter().sum::<usize>(), count);
            let even = count / usize::try_from(window).unwrap();
            prop_assert!(ends.iter().all(|ends| *ends <= 2 * even + 1), "{:?}", ends);
        }
    }
}
