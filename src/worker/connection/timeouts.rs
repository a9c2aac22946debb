//! The times that a connection has for each of its waits.

use std::time::Duration;

use crate::config::Config;

/// The time for which a client may send on whose last response is out.
pub(crate) const LINGER: u64 = 2000;

/// The time for which a client that has finished sending is served. It may have shut down its sending
/// side and read on, or have closed the connection: only the reset that a write provokes tells the two
/// apart.
pub(crate) const FINISHED: u64 = 5000;

/// The time for which a connection is idle before it is parked. To wake it costs a request some
/// microseconds, which clients that ask this seldom do not feel.
pub(crate) const PARK: u64 = 1000;

/// Bytes a second that make a body's progress. Slower ones drip: they may take as long as a handler.
pub(super) const BODY_RATE: u64 = 64;

/// The configured times, in milliseconds; `None`: without end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) head: Option<u64>,
    pub(crate) answer: Option<u64>,
    pub(crate) body: Option<u64>,
    pub(crate) idle: Option<u64>,
}

impl Timeouts {
    pub(crate) fn new(config: &Config) -> Self {
        let millis = |time: Duration| {
            (!time.is_zero()).then(|| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        Self {
            head: millis(config.limits.header_timeout),
            answer: millis(config.timeout),
            body: millis(config.limits.body_timeout),
            idle: millis(config.keepalive),
        }
    }

    /// The shortest of them that is configured.
    pub(crate) fn shortest(&self) -> Option<u64> {
        let Self { head, answer, body, idle } = *self;
        [head, answer, body, idle].into_iter().flatten().min()
    }
}

/// Milliseconds that a body has taken beyond those that its bytes account for, when so many bytes more
/// have come after so many milliseconds more.
pub(crate) fn unpaid(before: u64, waited: u64, bytes: u64) -> u64 {
    before.saturating_add(waited).saturating_sub(bytes.saturating_mul(1000) / BODY_RATE)
}
