//! The time that a program has to become ready, or to finish: pure.

use std::time::Duration;

use crate::time::Instant;

/// The interval at which the master is told that a program has more time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// When the group of a program is killed, if it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Option<Instant>,
    /// The deadline of a program that does not ask for more time; `None` where it cannot.
    by_default: Option<Instant>,
    /// When the master was last told that the program has more time.
    asked_at: Instant,
}

impl Deadline {
    /// One that the program may extend.
    pub(super) fn new(at: Instant) -> Self {
        Self { at: Some(at), by_default: Some(at), asked_at: Instant::default() }
    }

    /// When the group is killed.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Takes this deadline where it is sooner than the one before.
    pub(super) fn set(&mut self, at: Instant) {
        let at = self.at.map_or(at, |before| before.min(at));
        (self.at, self.by_default) = (Some(at), Some(at));
    }

    /// Takes this deadline where it is sooner than the one before, and lets the program extend none.
    pub(super) fn set_firm(&mut self, at: Instant) {
        self.set(at);
        self.by_default = None;
    }

    /// Ends the deadline: the program has done what it had time for, or is killed.
    pub(super) fn clear(&mut self) {
        (self.at, self.by_default) = (None, None);
    }

    /// Gives the program time until then at least, instead of what it was given before.
    pub(super) fn extend(&mut self, until: Instant) {
        if let Some(by_default) = self.by_default {
            self.at = Some(until.max(by_default));
            self.asked_at = Instant::default();
        }
    }

    /// When the master is to be told next that the program has more time; `None` where it has not.
    pub(super) fn asks_at(&self) -> Option<Instant> {
        let is_extended = self.by_default.is_some() && self.at > self.by_default;
        is_extended.then(|| self.asked_at.after(ASK_AGAIN))
    }

    /// The master is told.
    pub(super) fn note_asked(&mut self, now: Instant) {
        self.asked_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(1000 * seconds)
    }

    #[test]
    fn extension_counts_from_the_last_one_and_shortens_nothing() {
        let mut deadline = Deadline::new(at(100));
        deadline.extend(at(90));
        assert_eq!((deadline.at(), deadline.asks_at()), (Some(at(100)), None));
        deadline.extend(at(200));
        assert_eq!(deadline.at(), Some(at(200)));
        deadline.extend(at(150));
        assert_eq!(deadline.at(), Some(at(150)));
    }

    #[test]
    fn master_is_told_at_once_and_then_each_second() {
        let mut deadline = Deadline::new(at(100));
        deadline.extend(at(200));
        assert!(deadline.asks_at().is_some_and(|asks_at| asks_at <= at(50)));
        deadline.note_asked(at(50));
        assert_eq!(deadline.asks_at(), Some(at(51)));
        deadline.clear();
        assert_eq!((deadline.at(), deadline.asks_at()), (None, None));
    }

    #[test]
    fn sooner_deadline_counts_and_a_firm_one_is_not_extended() {
        let mut deadline = Deadline::new(at(100));
        deadline.extend(at(200));
        deadline.set(at(300));
        assert_eq!(deadline.at(), Some(at(200)));
        deadline.set_firm(at(2));
        deadline.extend(at(400));
        assert_eq!((deadline.at(), deadline.asks_at()), (Some(at(2)), None));
    }
}
