//! The laws of a connection: they hold in every life of one. Each is broken on purpose, to see that it is
//! noticed.

use std::collections::BTreeSet;

use super::world::{Sabotage, World};

/// The laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Law {
    /// Every connection ends whose client stops.
    Ends,
    /// A connection is not closed or parked as idle when a byte of a request has come in.
    NoRequestIsLost,
    /// A client that may be in the middle of a request is not cut off by a reset.
    HalfRequestsLinger,
    /// A response with a request behind its own does not say that it is the last.
    FollowersAreSeen,
    /// Nothing is parked before it has been idle for a second.
    ParkedWhenIdle,
    /// The connection's task is woken once for one reason.
    OneWake,
    /// Nothing is ended before its time, and everything soon after.
    HeadHasItsTime,
    HeadEndsInTime,
    IdleHasItsTime,
    IdleEndsInTime,
    HandlerHasItsTime,
    HandlerEndsInTime,
    BodyHasItsTime,
    BodyEndsInTime,
    DripsEndInTime,
    ReaderHasItsTime,
    ReaderEndsInTime,
    FinishedHasItsTime,
    FinishedEndsInTime,
}

const SABOTAGE: [(Law, Sabotage); 19] = [
    (Law::Ends, Sabotage::NoSweep),
    (Law::NoRequestIsLost, Sabotage::BytesForgotten),
    (Law::HalfRequestsLinger, Sabotage::UnreadForgotten),
    (Law::FollowersAreSeen, Sabotage::FollowersForgotten),
    (Law::ParkedWhenIdle, Sabotage::ClockAhead(900)),
    (Law::OneWake, Sabotage::WakesForgotten),
    (Law::HeadHasItsTime, Sabotage::ClockAhead(900)),
    (Law::HeadEndsInTime, Sabotage::NoSweep),
    (Law::IdleHasItsTime, Sabotage::ClockAhead(900)),
    (Law::IdleEndsInTime, Sabotage::NoSweep),
    (Law::HandlerHasItsTime, Sabotage::ClockAhead(900)),
    (Law::HandlerEndsInTime, Sabotage::NoSweep),
    (Law::BodyHasItsTime, Sabotage::ClockAhead(900)),
    (Law::BodyEndsInTime, Sabotage::NoSweep),
    (Law::DripsEndInTime, Sabotage::BytesMultiplied(100_000)),
    (Law::ReaderHasItsTime, Sabotage::ClockAhead(900)),
    (Law::ReaderEndsInTime, Sabotage::NoSweep),
    (Law::FinishedHasItsTime, Sabotage::ClockAhead(900)),
    (Law::FinishedEndsInTime, Sabotage::FinishForgotten),
];

const LIVES: u64 = 20_000;

#[test]
fn laws_hold_in_twenty_thousand_lives() {
    for seed in 0..LIVES {
        let broken = World::new(seed, None).run().broken;
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
    }
}

#[test]
fn each_law_is_broken_by_a_sabotage() {
    for (law, sabotage) in SABOTAGE {
        let is_broken = |seed: u64| {
            let broken = World::new(seed, Some(sabotage)).run().broken;
            broken.iter().any(|(other, _)| *other == law)
        };
        assert!((0..300).any(is_broken), "{law:?} is not broken by {sabotage:?}");
    }
    let laws: BTreeSet<Law> = SABOTAGE.iter().map(|(law, _)| *law).collect();
    assert_eq!(laws.len(), SABOTAGE.len(), "each law is sabotaged");
}
