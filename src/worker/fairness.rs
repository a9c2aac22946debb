//! Whether a worker leaves a connection to a sibling that has fewer, and to whom: decided without a
//! clock, a socket or a look at the board.
//!
//! The kernel spreads new connections at random, which for connections that stay is not evenly. So
//! before a worker with clearly more of them takes another, it asks the one with the fewest, and
//! leaves what waits in its queue for a moment.
//!
//! # What keeps it cheap
//! To ask is worth while when it has an effect that lasts. A sibling that has no more connections
//! than before it was asked is blocked, busy, or gets connections that end at once: it is left alone
//! for a while, and for a shorter while nobody is asked. So where connections are short the rule costs
//! a moment now and then, and a stopped sibling costs no more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::Slot;
use crate::scoreboard::Load;
use crate::time::Instant;

/// Connections that a worker has to have more than another to ask it; and as a share of its own.
const CLEARLY_MORE: u32 = 4;
const CLEARLY_MORE_SHARE: u32 = 5;
/// How long nobody is asked after somebody was in vain, and how long that one is not.
const PAUSE: Duration = Duration::from_millis(100);
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// What a worker remembers of having asked its siblings.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Who was asked last, what it had to do then, and when that was.
    last: Option<(Load, Instant)>,
    /// Who is to be left alone, until when.
    left_alone: BTreeMap<Slot, Instant>,
    /// Nobody is asked before.
    not_before: Option<Instant>,
}

impl Asking {
    /// Whom to leave a connection to that waits: the sibling with the fewest, when these are clearly
    /// fewer than `mine`. `waiting` tells how many connections more wait for one already.
    pub(super) fn whom(
        &mut self,
        now: Instant,
        mine: u32,
        siblings: impl Iterator<Item = Load>,
        waiting: impl Fn(Slot) -> u32,
    ) -> Option<Slot> {
        if self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        let siblings: Vec<Load> = siblings.collect();
        if !self.judge(now, &siblings) {
            return None;
        }
        self.left_alone.retain(|_, until| now < *until);
        let lightest = siblings
            .into_iter()
            .filter(|it| is_clearly_more(mine, it.open) && !self.left_alone.contains_key(&it.slot))
            .map(|it| (it.open.saturating_add(waiting(it.slot)), it))
            .filter(|(load, _)| is_clearly_more(mine, *load))
            .min_by_key(|(load, it)| (*load, it.slot));
        let (_, whom) = lightest?;
        self.last = Some((whom, now));
        Some(whom.slot)
    }

    /// Whether it was worth while to ask whoever was asked last.
    fn judge(&mut self, now: Instant, siblings: &[Load]) -> bool {
        let Some((asked, at)) = self.last.take() else { return true };
        if siblings.iter().any(|it| it.slot == asked.slot && it.open > asked.open) {
            return true;
        }
        self.left_alone.insert(asked.slot, at.after(LEFT_ALONE));
        self.not_before = Some(at.after(PAUSE));
        now >= at.after(PAUSE)
    }
}

/// Whether a worker with so many connections has so many more than another that it asks.
pub(super) fn is_clearly_more(mine: u32, theirs: u32) -> bool {
    mine >= theirs.saturating_add(CLEARLY_MORE)
        && mine - theirs >= mine.div_ceil(CLEARLY_MORE_SHARE)
}

/// How many connections a worker with `mine` takes when it is asked: as many as make it like the
/// others.
pub(super) fn room(mine: u32, all: impl Iterator<Item = Load>) -> u32 {
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
    fn one_that_was_asked_in_vain_is_left_alone_and_nobody_is_asked_for_a_moment() {
        let mut asking = Asking::default();
        assert_eq!(asked(&mut asking, NOW, 20, &[0, 5]), Some(0));
        assert_eq!(asked(&mut asking, later(2), 20, &[0, 5]), None);
        assert_eq!(asked(&mut asking, later(99), 20, &[9, 5]), None);
        assert_eq!(asked(&mut asking, later(100), 20, &[0, 5]), Some(1));
        assert_eq!(asked(&mut asking, later(101), 20, &[0, 6]), Some(1));
        assert_eq!(asked(&mut asking, later(999), 20, &[0, 17]), None);
        assert_eq!(asked(&mut asking, later(1000), 20, &[0, 17]), Some(0));
    }

    #[test]
    fn one_that_is_gone_was_asked_in_vain() {
        let mut asking = Asking::default();
        assert_eq!(asked(&mut asking, NOW, 20, &[15, 2]), Some(1));
        assert_eq!(asked(&mut asking, later(1), 20, &[15]), None);
        assert_eq!(asked(&mut asking, later(100), 20, &[15]), Some(0));
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
        /// Short connections: nobody ever has more for having been asked. However often there is an
        /// occasion, it is used ten times in a second at the most.
        #[test]
        fn in_vain_is_asked_seldom(
            steps in proptest::collection::vec((0_u64..20, 0_u32..40), 1..400),
        ) {
            let mut asking = Asking::default();
            let (mut at, mut times) = (0, Vec::new());
            for (pause, mine) in steps {
                at += pause;
                if asked(&mut asking, later(at), mine, &[0, 0, 0]).is_some() {
                    times.push(at);
                }
            }
            for pair in times.windows(2) {
                prop_assert!(pair[1] - pair[0] >= 100, "{times:?}");
            }
        }

        /// Connections that stay, wherever the kernel sends them, are spread evenly.
        #[test]
        fn what_stays_is_spread(choices in proptest::collection::vec(0_usize..4, 64)) {
            let mut workers: [(u32, Asking); 4] = Default::default();
            for choice in choices {
                let open = workers.each_ref().map(|(open, _)| *open);
                let siblings = loads(&open).filter(|it| it.slot.index() != choice);
                let whom = workers[choice].1.whom(NOW, open[choice], siblings, |_| 0);
                let taker = whom.map_or(choice, Slot::index);
                prop_assert!(whom.is_none() || room(open[taker], loads(&open)) > 0);
                workers[taker].0 += 1;
            }
            let open = workers.map(|(open, _)| open);
            prop_assert!(open.iter().all(|it| (8..=28).contains(it)), "{open:?}");
        }
    }
}
