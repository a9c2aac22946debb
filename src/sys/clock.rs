//! The time, for those who may ask for it.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_millis() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    let millis = now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000;
    u64::try_from(millis).expect("this clock begins at zero")
}
