//! The time, for those who may ask for it.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_millis() -> u64 {
    millis(ClockId::CLOCK_MONOTONIC)
}

/// Milliseconds of `CLOCK_MONOTONIC` as of the kernel's last tick: a few of them late, at a quarter of
/// the price.
pub(crate) fn coarse_millis() -> u64 {
    millis(ClockId::CLOCK_MONOTONIC_COARSE)
}

fn millis(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("Linux has this clock");
    let millis = now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000;
    u64::try_from(millis).expect("this clock begins at zero")
}

/// Microseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_micros() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    let micros = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000;
    u64::try_from(micros).expect("this clock begins at zero")
}

/// A reading of the monotonic clock, to measure how long something takes.
#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
pub(crate) fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Does nothing for so long. For those who have agreed to wait alone.
#[expect(clippy::disallowed_methods, reason = "the one place that does")]
pub(crate) fn nap(duration: std::time::Duration) {
    std::thread::sleep(duration);
}
