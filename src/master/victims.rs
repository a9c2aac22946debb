//! Processes that the kernel has killed for want of memory.
//!
//! It counts such killings for the whole control group, and names none: not every process there is
//! a child of ours. So a child that was killed is told to be a victim only if the count has risen, and
//! a rise that no such child explains is put down to others before it can be held against a child's
//! `kill -9` of another day.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// From when a killing is counted until the child is reaped: it has to give its memory back.
const DYING: Duration = Duration::from_secs(5);
/// The interval at which the count is looked at, when something wakes the master.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The kernel's count, as far as it is explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Victims {
    count: u64,
    /// The times at which killings were seen that are not explained by now.
    unexplained: Vec<Instant>,
    looked_at: Instant,
}

impl Victims {
    /// With what was counted before there was any child of ours.
    pub(super) fn new(count: Option<u64>) -> Self {
        let looked_at = Instant::default();
        Self { count: count.unwrap_or(0), unexplained: Vec::new(), looked_at }
    }

    /// Looks at the count if that is due. Returns the number of the killed that were no child of ours.
    pub(super) fn look(&mut self, now: Instant, count: impl FnOnce() -> Option<u64>) -> usize {
        if now < self.looked_at.after(LOOK_AGAIN) {
            return 0;
        }
        self.note(now, count());
        let before = self.unexplained.len();
        self.unexplained.retain(|seen| now < seen.after(DYING));
        before - self.unexplained.len()
    }

    /// A child was killed, and not by us: whether it was the kernel that did it, for want of memory.
    pub(super) fn explain(&mut self, now: Instant, count: Option<u64>) -> bool {
        self.note(now, count);
        let at = self.unexplained.iter().position(|seen| now < seen.after(DYING));
        at.map(|at| self.unexplained.remove(at)).is_some()
    }

    fn note(&mut self, now: Instant, count: Option<u64>) {
        let Some(count) = count else { return };
        // It is less in another group.
        for _ in self.count..count {
            self.unexplained.push(now);
        }
        (self.count, self.looked_at) = (count, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn each_killing_is_explained_by_one_child() {
        let mut victims = Victims::new(Some(7));
        assert!(!victims.explain(at(10), Some(7)), "somebody's kill -9");
        assert!(victims.explain(at(20), Some(9)));
        assert!(victims.explain(at(21), Some(9)), "two of them died");
        assert!(!victims.explain(at(22), Some(9)), "and no third one");
        assert_eq!(victims.look(at(60), || Some(9)), 0);
    }

    /// The kernel counts first; the victim is gone when it has given its memory back.
    #[test]
    fn a_victim_that_takes_a_moment_to_die_is_one() {
        let mut victims = Victims::new(Some(0));
        assert_eq!(victims.look(at(10), || Some(1)), 0);
        assert_eq!(victims.look(at(12), || Some(1)), 0);
        assert!(victims.explain(at(13), Some(1)));
        assert_eq!(victims.look(at(60), || Some(1)), 0);
    }

    #[test]
    fn what_befell_another_process_of_the_group_is_held_against_no_later_death() {
        let mut victims = Victims::new(Some(0));
        assert_eq!(victims.look(at(10), || Some(2)), 0);
        assert_eq!(victims.look(at(15), || Some(2)), 2, "nobody of ours has died");
        assert!(!victims.explain(at(86_400), Some(2)));
        // Two are seen late, at the death of a child that is one of them: the other is none of ours.
        assert!(victims.explain(at(90_000), Some(4)));
        assert!(!victims.explain(at(90_006), Some(4)));
        assert_eq!(victims.look(at(90_007), || Some(4)), 1);
    }

    #[test]
    fn it_is_looked_at_once_in_a_second() {
        let mut victims = Victims::new(Some(0));
        assert_eq!(victims.look(at(10), || Some(0)), 0);
        let later = at(10).after(Duration::from_millis(999));
        assert_eq!(victims.look(later, || unreachable!("not yet")), 0);
    }

    #[test]
    fn another_group_counts_from_anew_and_none_counts_nothing() {
        let mut victims = Victims::new(Some(9));
        assert!(!victims.explain(at(10), Some(0)));
        assert!(victims.explain(at(11), Some(1)));
        assert!(!victims.explain(at(12), None));
    }
}
