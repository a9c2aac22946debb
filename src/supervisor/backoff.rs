//! How long a slot waits for its next fork after workers that could not live.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::supervisor::policy::{BACKOFF_FIRST, BACKOFF_LAST};

/// The least time from one fork of a slot to the next after so many early deaths in a row: none after
/// the first (one death says nothing yet), then doubling up to [`BACKOFF_LAST`], each with up to a
/// half more, so that slots which fail together do not retry together.
pub(crate) fn delay(deaths: u32, seed: u64) -> Duration {
    let Some(doublings) = deaths.checked_sub(2) else { return Duration::ZERO };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let base = BACKOFF_FIRST.saturating_mul(factor.max(1)).min(BACKOFF_LAST);
    base.mul_f64(StdRng::seed_from_u64(seed).random_range(1.0..1.5))
}

#[cfg(test)]
mod tests {
    use super::*;

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
