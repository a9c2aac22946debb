//! Decides if a worker leaves a connection to a sibling that has fewer, and to which: without a
//! clock, a socket or a look at the board.
//!
//! The kernel spreads new connections at random, which for connections that stay is not evenly. So
//! before a worker with clearly more of them takes another, it asks the one with the fewest, and
//! leaves what waits in its queue for a moment.
//!
//! # What keeps it cheap
//! Only so many connections are left to siblings in a row, and then one every few milliseconds: so
//! where connections are short the rule delays one in hundreds. A sibling that does not look in time is
//! blocked or stopped, and is left alone for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::Slot;
use crate::scoreboard::Load;
use crate::time::Instant;

/// Connections that a worker has to have more than another to ask it; and as a share of its own.
const CLEARLY_MORE: u32 = 4;
const CLEARLY_MORE_SHARE: u32 = 5;
/// The number of connections that may be left to siblings one after the other, and the time until one
/// more may be: a crowd of connections that stay comes seldom, short ones come all the time.
const CROWD: u32 = 64;
const REFILL: Duration = Duration::from_millis(10);
/// The time for which a sibling is not asked that has not looked in time.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// A worker's memory of having asked its siblings.
#[derive(Debug)]
pub(crate) struct Asking {
    /// The number that may be left to siblings now, as of then.
    allowed: (u32, Instant),
    /// The siblings that are to be left alone, until when.
    left_alone: BTreeMap<Slot, Instant>,
}

impl Default for Asking {
    fn default() -> Self {
        Self { allowed: (CROWD, Instant::from_millis(0)), left_alone: BTreeMap::new() }
    }
}

impl Asking {
    /// Returns the sibling that a waiting connection is left to: the one with the fewest, when these
    /// are clearly fewer than `mine`. `waiting` tells how many connections more wait for one already.
    pub(crate) fn whom(
        &mut self,
        now: Instant,
        mine: u32,
        siblings: impl Iterator<Item = Load>,
        waiting: impl Fn(Slot) -> u32,
    ) -> Option<Slot> {
        self.left_alone.retain(|_, until| now < *until);
        let lightest = siblings
            .filter(|sibling| {
                is_clearly_more(mine, sibling.open) && !self.left_alone.contains_key(&sibling.slot)
            })
            .map(|sibling| (sibling.open.saturating_add(waiting(sibling.slot)), sibling.slot))
            .filter(|(load, _)| is_clearly_more(mine, *load))
            .min();
        let (_, whom) = lightest?;
        self.may(now).then(|| {
            self.allowed.0 -= 1;
            whom
        })
    }

    /// Returns true if a connection may be left to a sibling now.
    pub(crate) fn may(&mut self, now: Instant) -> bool {
        let (allowed, then) = self.allowed;
        let more = now.since(then).as_millis() / REFILL.as_millis();
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(CROWD);
            self.allowed = (allowed.saturating_add(more).min(CROWD), now);
        }
        self.allowed.0 > 0
    }

    /// The sibling that was asked has not looked in time: it is blocked, or stopped.
    pub(crate) fn note_in_vain(&mut self, now: Instant, whom: Slot) {
        self.left_alone.insert(whom, now.after(LEFT_ALONE));
    }
}

/// Returns true if a worker with so many connections has so many more than another that it asks.
pub(crate) fn is_clearly_more(mine: u32, theirs: u32) -> bool {
    mine >= theirs.saturating_add(CLEARLY_MORE)
        && mine - theirs >= mine.div_ceil(CLEARLY_MORE_SHARE)
}

/// Returns the number of connections that a worker with `mine` takes when it is asked: as many as make
/// it like the others.
pub(crate) fn room(mine: u32, all: impl Iterator<Item = Load>) -> u32 {
    let (sum, count) =
        all.fold((0_u64, 0_u64), |(sum, count), it| (sum + u64::from(it.open), count + 1));
    let mean = u32::try_from(sum.div_ceil(count.max(1))).unwrap_or(u32::MAX);
    mean.saturating_sub(mine)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Instant = Instant::from_millis(1_000_000);

    fn later(millis: u64) -> Instant {
        NOW.after(Duration::from_millis(millis))
    }

    fn loads(open: &[u32]) -> impl Iterator<Item = Load> {
        (0..).zip(open).map(|(slot, &open)| Load { slot: Slot::new(slot), open })
    }

    /// The slot asked by a worker with `mine`, whose siblings have so many; nothing waits anywhere.
    fn asked(asking: &mut Asking, now: Instant, mine: u32, others: &[u32]) -> Option<u16> {
        asking.whom(now, mine, loads(others), |_| 0).map(Slot::number)
    }

    #[test]
    fn the_one_with_the_fewest_is_asked_when_these_are_clearly_fewer() {
        let whom = |mine, others: &[u32]| asked(&mut Asking::default(), NOW, mine, others);
        assert_eq!(whom(4, &[3, 0, 1]), Some(1));
        assert_eq!(whom(3, &[0, 0, 0]), None);
        assert_eq!(whom(20, &[17, 18]), None);
        assert_eq!(whom(20, &[16, 18]), Some(0));
        assert_eq!(whom(100, &[90, 85]), None);
        assert_eq!(whom(100, &[90, 80]), Some(1));
        assert_eq!(whom(9, &[]), None);
        assert_eq!(whom(u32::MAX, &[u32::MAX, u32::MAX - 4]), None);
    }

    #[test]
    fn what_waits_for_a_sibling_already_counts_as_its_own() {
        let whom = |queues: [u32; 3]| {
            let waiting = |slot: Slot| queues[slot.index()];
            Asking::default().whom(NOW, 10, loads(&[0, 2, 5]), waiting).map(Slot::number)
        };
        assert_eq!(whom([0, 0, 0]), Some(0));
        assert_eq!(whom([3, 0, 0]), Some(1));
        assert_eq!(whom([7, 5, 0]), Some(2));
        assert_eq!(whom([7, 5, 2]), None);
    }

    #[test]
    fn as_long_as_it_helps_a_sibling_is_asked_again_at_once() {
        let mut asking = Asking::default();
        for open in 0..16 {
            assert_eq!(asked(&mut asking, NOW, 21, &[open, 21, 21]), Some(0));
        }
        assert_eq!(asked(&mut asking, NOW, 21, &[17, 21, 21]), None);
    }

    #[test]
    fn one_that_was_asked_in_vain_is_left_alone_for_a_while() {
        let mut asking = Asking::default();
        assert_eq!(asked(&mut asking, NOW, 20, &[0, 5]), Some(0));
        asking.note_in_vain(NOW, Slot::new(0));
        assert_eq!(asked(&mut asking, later(1), 20, &[0, 5]), Some(1));
        assert_eq!(asked(&mut asking, later(999), 20, &[0, 17]), None);
        assert_eq!(asked(&mut asking, later(1000), 20, &[0, 17]), Some(0));
    }

    #[test]
    fn after_a_crowd_one_is_left_to_a_sibling_every_ten_milliseconds() {
        let mut asking = Asking::default();
        let mut times =
            |at| std::iter::from_fn(|| asked(&mut asking, later(at), 20, &[0])).take(1000).count();
        assert_eq!([0, 9, 10, 19, 25].map(&mut times), [64, 0, 1, 0, 1]);
        assert_eq!(times(10_000), 64);
    }

    #[test]
    fn a_helper_takes_what_makes_it_like_the_others() {
        let room = |all: &[u32]| room(all[0], loads(all));
        assert_eq!(room(&[0, 21, 21, 22]), 16);
        assert_eq!(room(&[4, 12, 8, 8]), 4);
        assert_eq!(room(&[9, 8, 8, 8]), 0);
        assert_eq!(room(&[0]), 0);
        assert_eq!(room(&[0, u32::MAX]), u32::MAX / 2 + 1);
        assert_eq!(super::room(3, loads(&[])), 0);
    }

    proptest! {
        /// However often there is an occasion: a crowd's worth at once, and then a hundred in a second.
        #[test]
        fn siblings_are_asked_in_bounds(
            steps in proptest::collection::vec((0_u64..20, 0_u32..40), 1..400),
        ) {
            let mut asking = Asking::default();
            let mut at = 0;
            let mut count = 0;
            for (pause, mine) in steps {
                at += pause;
                count += u64::from(asked(&mut asking, later(at), mine, &[0, 0, 0]).is_some());
                prop_assert!(count <= u64::from(CROWD) + at / 10, "{count} in {at} ms");
            }
        }

        /// Connections that stay, wherever the kernel sends them, are spread evenly.
        #[test]
        fn what_stays_is_spread(choices in proptest::collection::vec(0_usize..4, 64)) {
            let mut workers: [(u32, Asking); 4] = Default::default();
            for choice in choices {
                let open = workers.each_ref().map(|(open, _)| *open);
                let siblings = loads(&open).filter(|sibling| sibling.slot.index() != choice);
                let whom = workers[choice].1.whom(NOW, open[choice], siblings, |_| 0);
                let taker = whom.map_or(choice, Slot::index);
                prop_assert!(whom.is_none() || room(open[taker], loads(&open)) > 0);
                workers[taker].0 += 1;
            }
            let open = workers.map(|(open, _)| open);
            prop_assert!(open.iter().all(|open| (8..=28).contains(open)), "{open:?}");
        }
    }
}
