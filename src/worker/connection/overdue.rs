//! The decision that a connection has waited for too long: pure, from its state and the time.

use std::time::Duration;

use super::conns::{Kick, Wait};
use crate::config::Config;

/// The time for which a client may speak on that has been answered for the last time.
const SILENCE: Duration = Duration::from_secs(2);

/// The time for which a client that has finished sending is served. It may have shut down its sending
/// side and read on, or have closed the connection: only the reset that a write provokes tells the two
/// apart.
const FINISHED: Duration = Duration::from_secs(5);

/// The time for which a connection is idle before it rests. To wake it costs a request some
/// microseconds, which clients that ask this seldom do not feel.
const REST: Duration = Duration::from_secs(1);

/// The longest waits of a connection; zero: without end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    head: Duration,
    answer: Duration,
    body: Duration,
    idle: Duration,
}

/// A connection's waits, with their beginnings in milliseconds of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) wait: Wait,
    pub(crate) since: u64,
    /// Since when a write waits for the client.
    pub(crate) blocked: Option<u64>,
    /// Since when the client has finished sending.
    pub(crate) finished: Option<u64>,
    /// When the request in hand began, and the milliseconds more that its handler has asked for.
    pub(crate) began: u64,
    pub(crate) extra: u64,
    /// Milliseconds of the client's that its body has taken, beyond those that its bytes account for.
    pub(crate) unpaid: u64,
    pub(crate) is_resting: bool,
}

/// Bytes a second that make a body's progress. Slower ones drip: they may take as long as a handler.
const BODY_RATE: u64 = 64;

/// Milliseconds that a body has taken beyond those that its bytes account for, when so many bytes more
/// have come after so many milliseconds more.
pub(crate) fn unpaid(before: u64, waited: u64, bytes: u64) -> u64 {
    before.saturating_add(waited).saturating_sub(bytes.saturating_mul(1000) / BODY_RATE)
}

impl State {
    /// Milliseconds for which it has been idle; `None`: it is not.
    pub(crate) fn idle_for(&self, now: u64) -> Option<u64> {
        (self.wait == Wait::Next).then(|| now.saturating_sub(self.since))
    }
}

impl Timeouts {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            head: config.limits.header_timeout,
            answer: config.timeout,
            body: config.limits.body_timeout,
            idle: config.keepalive,
        }
    }

    /// The shortest of them that is configured.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        let Self { head, answer, body, idle } = *self;
        [head, answer, body, idle].into_iter().filter(|timeout| !timeout.is_zero()).min()
    }

    /// Returns the reason to end a wait of this connection, if there is one.
    pub(crate) fn overdue(&self, state: &State, now: u64) -> Option<Kick> {
        let is_over = |timeout: Duration, taken: u64, extra: u64| {
            let allowed =
                u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).saturating_add(extra);
            !timeout.is_zero() && taken >= allowed
        };
        let waited = |timeout, since, extra| is_over(timeout, now.saturating_sub(since), extra);
        let since = state.since;
        if state.blocked.is_some_and(|blocked| waited(self.body, blocked, 0)) {
            return Some(Kick::Reader);
        }
        let is_finished = || state.finished.is_some_and(|finished| waited(FINISHED, finished, 0));
        let is_late = || waited(self.answer, state.began, state.extra);
        let drips = || {
            let taken = now.saturating_sub(since).saturating_add(state.unpaid);
            !self.answer.is_zero() && is_over(self.answer.max(self.body), taken, state.extra)
        };
        match state.wait {
            Wait::First | Wait::Head | Wait::Handshake => {
                waited(self.head, since, 0).then_some(Kick::Head)
            }
            Wait::Answer | Wait::Body if is_finished() => Some(Kick::Finished),
            Wait::Answer => is_late().then_some(Kick::Answer),
            // The handler waits for its client, which has a time of its own.
            Wait::Body => (waited(self.body, since, 0) || drips()).then_some(Kick::Body),
            Wait::Next if waited(self.idle, since, 0) => Some(Kick::Idle),
            Wait::Next if state.is_resting => None,
            Wait::Next => waited(REST, since, 0).then_some(Kick::Rest),
            Wait::Other | Wait::Streams => None,
            Wait::Silence => waited(SILENCE, since, 0).then_some(Kick::Silence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        head: Duration::from_secs(10),
        answer: Duration::from_secs(120),
        body: Duration::from_secs(30),
        idle: Duration::from_secs(75),
    };

    fn state(wait: Wait) -> State {
        State {
            wait,
            since: 1000,
            blocked: None,
            finished: None,
            began: 1000,
            extra: 0,
            unpaid: 0,
            is_resting: false,
        }
    }

    /// Asserts that this state is overdue after so many milliseconds, and not before.
    fn assert_overdue(state: &State, after: u64, kick: Kick) {
        assert_eq!(TIMEOUTS.overdue(state, 1000 + after - 1), None, "{state:?}");
        assert_eq!(TIMEOUTS.overdue(state, 1000 + after), Some(kick), "{state:?}");
    }

    #[test]
    fn each_wait_has_its_timeout() {
        assert_overdue(&state(Wait::First), 10_000, Kick::Head);
        assert_overdue(&state(Wait::Head), 10_000, Kick::Head);
        assert_overdue(&state(Wait::Handshake), 10_000, Kick::Head);
        assert_overdue(&state(Wait::Answer), 120_000, Kick::Answer);
        assert_overdue(&State { extra: 500, ..state(Wait::Answer) }, 120_500, Kick::Answer);
        assert_overdue(&state(Wait::Body), 30_000, Kick::Body);
        assert_overdue(&State { blocked: Some(1000), ..state(Wait::Answer) }, 30_000, Kick::Reader);
        assert_overdue(&state(Wait::Next), 1000, Kick::Rest);
        assert_overdue(&State { is_resting: true, ..state(Wait::Next) }, 75_000, Kick::Idle);
        assert_overdue(&state(Wait::Silence), 2000, Kick::Silence);
        assert_eq!(TIMEOUTS.overdue(&state(Wait::Other), u64::MAX), None);
    }

    #[test]
    fn a_body_that_makes_progress_has_no_end() {
        let mut owed = 0;
        for _ in 0..100_000 {
            owed = unpaid(owed, 1000, 64);
            assert!(owed < 1000, "{owed}");
        }
        assert_eq!(unpaid(0, 29_999, 1 << 20), 0);
        assert_eq!(unpaid(0, 0, u64::MAX), 0);
        let slow = State { began: 0, ..state(Wait::Body) };
        assert_overdue(&State { since: 1_000_000, ..slow }, 1_029_000, Kick::Body);
    }

    #[test]
    fn a_body_that_drips_has_the_time_of_a_handler() {
        let (mut owed, mut seconds) = (0, 0);
        while owed < 119_000 {
            owed = unpaid(owed, 1000, 1);
            seconds += 1;
        }
        assert!((120..130).contains(&seconds), "{seconds}");
        assert_overdue(&State { unpaid: owed, ..state(Wait::Body) }, 120_000 - owed, Kick::Body);
    }

    #[test]
    fn only_a_connection_without_a_request_is_idle() {
        assert_eq!(state(Wait::Next).idle_for(1250), Some(250));
        for wait in [Wait::First, Wait::Head, Wait::Answer, Wait::Body, Wait::Other, Wait::Silence]
        {
            assert_eq!(state(wait).idle_for(1250), None);
        }
    }

    #[test]
    fn a_client_that_has_finished_has_five_seconds_more() {
        for wait in [Wait::Answer, Wait::Body] {
            let finished = State { finished: Some(1000), ..state(wait) };
            assert_overdue(&finished, 5000, Kick::Finished);
        }
        let resting = State { finished: Some(1000), is_resting: true, ..state(Wait::Next) };
        assert_eq!(TIMEOUTS.overdue(&resting, 7000), None);
    }
}
