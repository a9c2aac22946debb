//! The decision how long a client of HTTP/2 is waited for that was told to begin no further stream, and
//! that says nothing: pure, from what the socket knows of it.
//!
//! # Why not until it is silent
//! hyper takes the end of an answer before the client has let it out: what its windows hold back lies in h2.
//! A client that pauses with a part of its answer is silent, and so is one on a slow line, until it has
//! what the kernel sends. A client that is gone acknowledges nothing.

use std::time::Duration;

/// A client that was told to begin no further stream.
#[derive(Debug)]
pub(super) struct Farewell {
    /// Bytes that its system had not acknowledged at the last look.
    unsent: u64,
    /// The time of the last look, in milliseconds.
    looked_at: u64,
    /// When it last took something, or said something.
    alive_at: u64,
}

impl Farewell {
    /// It is about to be told, while so many bytes are not acknowledged. No request of its was open since
    /// that time.
    pub(super) fn begin(now: u64, idle_since: u64, unsent: u64) -> Self {
        Self { unsent, looked_at: now, alive_at: idle_since }
    }

    /// Returns true if a client is waited for further that was silent for a while, and of which so many
    /// bytes are not acknowledged. It was heard last at this time, and may take nothing for so long; zero:
    /// without end.
    pub(super) fn goes_on(&mut self, now: u64, unsent: u64, heard_at: u64, most: Duration) -> bool {
        let takes = unsent < self.unsent;
        let is_alive = unsent == 0 || takes || heard_at > self.looked_at;
        self.alive_at = self.alive_at.max(if takes { now } else { heard_at });
        (self.unsent, self.looked_at) = (unsent, now);
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        is_alive && (most == 0 || now.saturating_sub(self.alive_at) < most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(30);

    #[test]
    fn client_that_is_gone_is_given_up_at_once() {
        let mut farewell = Farewell::begin(1000, 1000, 0);
        assert!(!farewell.goes_on(3000, 51, 900, MOST));
        let mut farewell = Farewell::begin(1000, 1000, 70_000);
        assert!(!farewell.goes_on(3000, 70_051, 900, MOST));
    }

    #[test]
    fn client_that_takes_bytes_is_waited_for() {
        let mut farewell = Farewell::begin(0, 0, 1_000_000);
        for look in 1..=400 {
            assert!(farewell.goes_on(2000 * look, 1_000_000 - 1000 * look, 0, MOST), "{look}");
        }
        assert!(!farewell.goes_on(802_000, 600_000, 0, MOST), "it has stopped");
    }

    #[test]
    fn client_that_pauses_has_the_time_of_a_reader() {
        let mut farewell = Farewell::begin(0, 0, 0);
        assert!(farewell.goes_on(2000, 0, 100, MOST));
        assert!(farewell.goes_on(30_000, 0, 100, MOST));
        assert!(!farewell.goes_on(30_100, 0, 100, MOST));
        let mut farewell = Farewell::begin(0, 0, 0);
        assert!(farewell.goes_on(1_000_000, 0, 0, Duration::ZERO), "without an end");
        let mut farewell = Farewell::begin(100_000, 60_000, 0);
        assert!(!farewell.goes_on(102_000, 0, 60_000, MOST), "it has had that time");
    }

    #[test]
    fn client_that_has_asked_for_more_is_waited_for() {
        let mut farewell = Farewell::begin(0, 0, 100);
        assert!(
            farewell.goes_on(2000, 50_000, 1500, MOST),
            "it has let out more, and is on its way"
        );
        assert!(!farewell.goes_on(4000, 50_000, 1500, MOST));
    }
}
