//! The future of a world: its settings, its faults and its operator, all from one seed.
//!
//! Each world has a time of turmoil and then calm: what goes wrong by plan goes wrong in the first.
//! Not every world has every fault; what never meets a fork that fails meets other things more often.

use std::time::Duration;

use crate::ids::Slot;
use crate::supervisor::event::Signal;
use crate::supervisor::policy::Policy;
use crate::supervisor::tests::world::dice::Dice;

/// The future of a world.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) policy: Policy,
    /// The quality of the first generation.
    pub(crate) first: Release,
    /// No fault at all, but for bad releases: then no slot may lose its worker for a moment.
    pub(crate) clean: bool,
    /// When nothing goes wrong any more.
    pub(crate) calm_at: u64,
    pub(crate) deeds: Vec<(u64, Deed)>,
    /// The number of a hundred workers forked in the turmoil that misbehave.
    pub(crate) mischief: u64,
    /// The number of a hundred forks that the kernel refuses in the turmoil.
    pub(crate) refusals: u64,
    /// The number of a hundred times that the master wakes late.
    pub(crate) lateness: u64,
    /// The number of a hundred releases that are bad.
    pub(crate) badness: u64,
    /// More slots cannot be opened.
    pub(crate) slots_max: u16,
    /// Workers of the calm heed no wish to leave.
    pub(crate) stubborn: bool,
    /// `KILL` does not end some child when the world ends.
    pub(crate) undying: bool,
    /// The configuration is read while other things happen.
    pub(crate) loads_slowly: bool,
    /// The signal that ends the world.
    pub(crate) end: Signal,
}

/// Something that happens to a server from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Signal(Signal),
    /// An orphan of another process ends, and its end is told to us.
    Stranger,
    /// A fact that no shell should tell: late, doubled, about no child.
    Noise,
    /// Connections come to a slot.
    Arrive,
    /// A worker is killed by hand.
    KillWorker,
    /// The logger is killed by hand.
    KillLogger,
    /// A worker is told to leave by hand.
    ReplaceWorker,
    /// The kernel refuses to fork for so long.
    NoForks(u64),
    /// No worker boots for so long.
    NoBoots(u64),
    /// Every worker that is forked for so long is above any limit of memory from the start.
    Heavy(u64),
    /// Every worker is killed as soon as it is ready, for so long.
    Killer(u64),
    /// The machine sleeps for so long.
    Sleep(u64),
}

/// The quality of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Release {
    Good,
    Unreadable,
    PrepareFails,
    PrepareHangs,
    ExitsAtBoot,
    HangsAtBoot,
    DiesAtOnce,
    /// Boots in slot 0 and nowhere else.
    Partly,
}

/// The bad ones.
pub(crate) const BAD: [Release; 7] = [
    Release::Unreadable,
    Release::PrepareFails,
    Release::PrepareHangs,
    Release::ExitsAtBoot,
    Release::HangsAtBoot,
    Release::DiesAtOnce,
    Release::Partly,
];

/// The time for which the machine sleeps deeply: longer than any timeout of any policy here.
pub(crate) const DEEP_SLEEP: u64 = 3_600_000;

impl Plan {
    /// Returns the future of the world of this seed.
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let clean = dice.percent(20);
        let sometimes =
            |dice: &mut Dice, chance| if clean { 0 } else { chance * dice.below(3) / 2 };
        let calm_at = dice.between(500, 12_000);
        let mut plan = Self {
            policy: policy(dice),
            first: first_release(dice, clean),
            clean,
            calm_at,
            deeds: Vec::new(),
            mischief: sometimes(dice, 40),
            refusals: sometimes(dice, 10),
            lateness: sometimes(dice, 10),
            badness: dice.pick(&[0, 30, 80]),
            slots_max: dice.pick(&[3, 5, 8]),
            stubborn: !clean && dice.percent(20),
            undying: !clean && dice.percent(5),
            loads_slowly: dice.percent(20),
            end: dice.pick(&[
                Signal::Terminate,
                Signal::Terminate,
                Signal::Interrupt,
                Signal::Quit,
            ]),
        };
        plan.slots_max = plan.slots_max.max(plan.policy.workers);
        let count = dice.below(if clean { 6 } else { 14 });
        for _ in 0..count {
            let deed = if clean { clean_deed(dice) } else { deed(dice) };
            let at = dice.below(calm_at);
            plan.deeds.push((at, deed));
            // Signals come doubled, and in one moment with others.
            if let Deed::Signal(_) = deed
                && dice.percent(30)
            {
                plan.deeds.push((at + dice.below(40), deed));
            }
        }
        plan
    }
}

impl Plan {
    /// Nothing but these signals happens to a server whose children all do as they should.
    pub(crate) fn signals(signals: &[(u64, Signal)], dice: &mut Dice) -> Self {
        let deeds = signals.iter().map(|(at, signal)| (*at, Deed::Signal(*signal))).collect();
        let last = signals.iter().map(|(at, _)| *at).max().unwrap_or(0);
        Self {
            policy: Policy { workers: 2, max_lifetime: Duration::ZERO, ..policy(dice) },
            first: Release::Good,
            clean: true,
            calm_at: last + 1,
            deeds,
            mischief: 0,
            refusals: 0,
            lateness: 0,
            badness: 0,
            slots_max: 8,
            stubborn: false,
            undying: false,
            loads_slowly: true,
            end: Signal::Terminate,
        }
    }
}

fn first_release(dice: &mut Dice, clean: bool) -> Release {
    if clean || dice.percent(95) {
        return Release::Good;
    }
    dice.pick(&[
        Release::PrepareFails,
        Release::PrepareHangs,
        Release::ExitsAtBoot,
        Release::HangsAtBoot,
    ])
}

/// A policy; the workers of a reload's may be more or fewer.
pub(crate) fn policy(dice: &mut Dice) -> Policy {
    let mut seconds = |choices: &[u64]| Duration::from_millis(dice.pick(choices));
    Policy {
        graceful_timeout: seconds(&[0, 1000, 3000, 3000, 30_000]),
        announce: seconds(&[0, 0, 0, 1000, 4000]),
        boot_timeout: seconds(&[1000, 2000, 5000]),
        stall_timeout: seconds(&[0, 0, 500, 1000, 4000]),
        max_lifetime: seconds(&[0, 0, 0, 0, 0, 0, 0, 20_000]),
        max_memory: if dice.percent(10) { 100 } else { 0 },
        stats: false,
        extensible: false,
        workers_max: Slot::MAX,
        workers: u16::try_from(dice.pick(&[1, 2, 2, 3, 3, 4])).expect("a small number"),
    }
}

fn clean_deed(dice: &mut Dice) -> Deed {
    match dice.below(10) {
        0..5 => Deed::Signal(Signal::Reload),
        5 => Deed::Signal(Signal::More),
        6 => Deed::Signal(Signal::Fewer),
        7 => Deed::Signal(Signal::Upgrade),
        8 => Deed::Signal(dice.pick(&[Signal::Reopen, Signal::Resize])),
        _ => Deed::Arrive,
    }
}

fn deed(dice: &mut Dice) -> Deed {
    match dice.below(32) {
        0..6 => Deed::Signal(Signal::Reload),
        6..8 => Deed::Signal(Signal::More),
        8..10 => Deed::Signal(Signal::Fewer),
        10..12 => Deed::Signal(Signal::Upgrade),
        12 => Deed::Signal(dice.pick(&[Signal::Reopen, Signal::Resize])),
        13 if dice.percent(30) => {
            Deed::Signal(dice.pick(&[Signal::Terminate, Signal::Interrupt, Signal::Quit]))
        }
        13..15 => Deed::Stranger,
        15..18 => Deed::Noise,
        18..22 => Deed::Arrive,
        22..24 => Deed::KillWorker,
        24 => Deed::KillLogger,
        25 => Deed::ReplaceWorker,
        26 => Deed::NoForks(dice.between(10, 3000)),
        27 => Deed::NoBoots(dice.between(10, 4000)),
        // Shorter ones than a second cannot be known of.
        28 => Deed::Sleep(dice.between(1200, 8000)),
        29 => Deed::Heavy(dice.between(1000, 15_000)),
        // It makes for long lives.
        30 if dice.percent(20) => Deed::Killer(dice.between(1000, 8000)),
        30 => Deed::Arrive,
        _ => Deed::Sleep(DEEP_SLEEP),
    }
}
