//! The time that a slot waits for its next fork after workers that could not live.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::supervisor::policy::{
    BACKOFF_FIRST, BACKOFF_LAST, COMPLAINT_INTERVAL, FORK_RETRY, FORK_RETRY_LAST,
};
use crate::time::Instant;

/// The least time from one fork of a slot to the next after so many early deaths in a row: none after
/// the first (one death says nothing yet), then doubling up to [`BACKOFF_LAST`], each with up to a
/// half more, so that slots which fail together do not retry together.
pub(crate) fn delay(deaths: u32, seed: u64) -> Duration {
    let Some(doublings) = deaths.checked_sub(2) else { return Duration::ZERO };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let base = BACKOFF_FIRST.saturating_mul(factor.max(1)).min(BACKOFF_LAST);
    base.mul_f64(StdRng::seed_from_u64(seed).random_range(1.0..1.5))
}

/// Forks for one purpose that the kernel has refused in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusals {
    count: u32,
    /// When to say so again.
    say_at: Instant,
}

impl Refusals {
    pub(crate) const NONE: Self = Self { count: 0, say_at: Instant::from_millis(0) };

    /// One more. Answers when to try again, and whether an operator shall read of this one.
    pub(crate) fn note(&mut self, now: Instant) -> (Instant, bool) {
        let factor = 1_u32.checked_shl(self.count).unwrap_or(u32::MAX);
        let pause = FORK_RETRY.saturating_mul(factor).min(FORK_RETRY_LAST);
        let is_said = self.count == 0 || self.say_at <= now;
        self.count = self.count.saturating_add(1);
        if is_said {
            self.say_at = now.after(COMPLAINT_INTERVAL);
        }
        (now.after(pause), is_said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_tried_again_later_and_later_and_said_once_a_minute() {
        let mut refusals = Refusals::default();
        let mut now = Instant::default();
        let mut said = Vec::new();
        let pauses: Vec<u64> = std::iter::from_fn(|| {
            let (next, is_said) = refusals.note(now);
            said.extend(is_said.then_some(now.as_millis()));
            let pause = next.as_millis() - now.as_millis();
            now = next;
            (now.as_millis() < 130_000).then_some(pause)
        })
        .collect();
        assert_eq!(&pauses[..5], [250, 500, 1000, 2000, 2000]);
        assert!(pauses[5..].iter().all(|pause| *pause == 2000));
        assert_eq!(said, [0, 61_750, 121_750]);
        let mut many = Refusals { count: u32::MAX, ..refusals };
        assert_eq!(many.note(now).0, now.after(FORK_RETRY_LAST));
    }

    #[test]
    fn it_starts_at_nothing_doubles_and_is_capped() {
        let bounds: Vec<(u128, u128)> = (0..14)
            .map(|deaths| (0..1000).map(move |seed| delay(deaths, seed).as_millis()))
            .map(|all| (all.clone().min().unwrap(), all.max().unwrap()))
            .collect();
        assert_eq!(&bounds[..4], [(0, 0), (0, 0), (10, 14), (20, 29)]);
        assert_eq!(&bounds[10..], [(2000, 2998), (2000, 2998), (2000, 2998), (2000, 2998)]);
        assert_eq!(delay(u32::MAX, 1).as_secs(), 2);
    }
}
