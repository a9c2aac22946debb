//! The script of a child's life.

use crate::ids::Slot;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::policy::Policy;
use crate::supervisor::stage::Due;
use crate::supervisor::tests::world::dice::Dice;
use crate::supervisor::tests::world::plan::Release;

/// The script of a child: its own deeds, and its responses to orders.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// The deed, so long after the fork.
    pub(crate) boot: Vec<(u64, Turn)>,
    /// The deed, so long after it was ready.
    pub(crate) life: Vec<(u64, Turn)>,
    /// The time that it takes to drain; `None`: it does not.
    pub(crate) drains_in: Option<u64>,
    /// The same for `INT`.
    pub(crate) quits_in: Option<u64>,
    /// The same for `ABRT`.
    pub(crate) aborts_in: Option<u64>,
}

/// Something that a child does or suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Says that it is ready; more than once, perhaps.
    Ready,
    Due(Due),
    /// Its loop stands still from now on.
    Hang,
    /// It gets no processor from now on.
    Starve,
    /// It runs again.
    Recover,
    /// Its memory grows beyond any limit.
    Grow,
    End(ExitStatus),
}

const CRASHES: [ExitStatus; 5] = [
    ExitStatus::Code(1),
    ExitStatus::Code(0),
    ExitStatus::Signal { number: 7, core: false },
    ExitStatus::Signal { number: 11, core: true },
    ExitStatus::OutOfMemory,
];

impl Script {
    /// A worker that does what it should.
    pub(crate) fn honest(dice: &mut Dice) -> Self {
        let boot = if dice.percent(90) { dice.between(1, 40) } else { dice.between(40, 300) };
        Self {
            boot: vec![(boot, Turn::Ready)],
            life: Vec::new(),
            drains_in: Some(dice.between(0, 400)),
            quits_in: Some(dice.between(0, 10)),
            aborts_in: Some(dice.between(0, 40)),
        }
    }

    /// A worker that does something else.
    pub(crate) fn mischievous(dice: &mut Dice, policy: &Policy) -> Self {
        let mut script = Self::honest(dice);
        let crash = Turn::End(dice.pick(&CRASHES));
        let at = dice.between(0, 4000);
        let while_longer = at + dice.between(10, 6000);
        match dice.below(15) {
            0 => script.boot = vec![(dice.between(0, 50), crash)],
            1 => script.boot.clear(),
            2 => script.life = vec![(dice.between(0, 60), crash)],
            3 | 4 => script.life = vec![(at, crash)],
            // Nothing ever ends a worker that hangs where stalls are not looked for.
            5 if policy.stall_timeout.is_zero() => {
                script.life = vec![(at, Turn::Hang), (while_longer, Turn::Recover)];
            }
            5 => script.life = vec![(at, Turn::Hang)],
            6 => script.life = vec![(at, Turn::Hang), (while_longer, Turn::Recover)],
            7 => script.life = vec![(at, Turn::Starve), (while_longer, Turn::Recover)],
            8 => script.drains_in = None,
            9 => (script.drains_in, script.quits_in, script.aborts_in) = (None, None, None),
            10 => script.life = vec![(at, Turn::Due(Due::Requests))],
            11 => {
                let gone = at + dice.between(0, 60);
                let end = Turn::End(ExitStatus::Code(0));
                script.life = vec![(at, Turn::Due(Due::ByHand)), (gone, end)];
            }
            12 => script.life = vec![(at, Turn::Grow)],
            13 => {
                let boot = u64::try_from(policy.boot_timeout.as_millis()).expect("a short timeout");
                script.boot = vec![(boot * dice.between(50, 110) / 100, Turn::Ready)];
            }
            _ => {
                script.boot.push((50, Turn::Ready));
                script.life = vec![(at, Turn::Due(Due::Requests)), (at, Turn::Due(Due::ByHand))];
                script.drains_in = Some(while_longer);
            }
        }
        script
    }

    /// A worker that heeds nothing but `KILL`.
    pub(crate) fn stubborn(dice: &mut Dice) -> Self {
        Self { drains_in: None, quits_in: None, aborts_in: None, ..Self::honest(dice) }
    }

    /// A child that ends by itself after a moment, or never.
    pub(crate) fn errand(ends: Option<(u64, ExitStatus)>) -> Self {
        Self {
            boot: ends.map(|(at, status)| (at, Turn::End(status))).into_iter().collect(),
            life: Vec::new(),
            drains_in: None,
            quits_in: Some(1),
            aborts_in: None,
        }
    }

    /// Makes a worker of a bad release as bad as that.
    pub(crate) fn spoil(&mut self, release: Release, slot: Slot, dice: &mut Dice) {
        let crash = Turn::End(ExitStatus::Code(101));
        match release {
            Release::ExitsAtBoot => self.boot = vec![(dice.between(0, 20), crash)],
            Release::Partly if slot.number() > 0 => self.boot = vec![(dice.between(0, 20), crash)],
            Release::HangsAtBoot => self.boot.clear(),
            Release::DiesAtOnce => self.life = vec![(dice.between(0, 60), crash)],
            Release::Good
            | Release::Unreadable
            | Release::PrepareFails
            | Release::PrepareHangs
            | Release::Partly => {}
        }
    }
}

/// The script of the `prepare` of a release.
pub(crate) fn prepare(release: Release, dice: &mut Dice) -> Script {
    let after = dice.between(1, 60);
    Script::errand(match release {
        Release::PrepareFails => Some((after, dice.pick(&CRASHES[2..]))),
        Release::PrepareHangs => None,
        Release::Good
        | Release::Unreadable
        | Release::ExitsAtBoot
        | Release::HangsAtBoot
        | Release::DiesAtOnce
        | Release::Partly => Some((after, ExitStatus::Code(0))),
    })
}

/// The script of a logger: it may die, and it may wait for a reader for ever.
pub(crate) fn logger(bad: bool, stubborn: bool, dice: &mut Dice) -> Script {
    let drains_in = Some(dice.below(20)).filter(|_| !stubborn);
    let script = Script { drains_in, ..Script::errand(None) };
    match dice.below(2) {
        0 if bad => Script { drains_in: None, ..script },
        1 if bad => {
            Script { boot: vec![(dice.below(3000), Turn::End(dice.pick(&CRASHES)))], ..script }
        }
        _ => script,
    }
}

/// The script of the check of a new binary.
pub(crate) fn check(good: bool, dice: &mut Dice) -> Script {
    let after = dice.between(1, 60);
    let well = Some((after, ExitStatus::Code(0)));
    if good {
        let mut script = Script::errand(well);
        script.boot.insert(0, (dice.between(0, after), Turn::Ready));
        return script;
    }
    // The last is no server at all: it ends well and has said nothing.
    let bad = [None, Some((after, ExitStatus::Code(127))), Some((after, CRASHES[3])), well];
    Script::errand(dice.pick(&bad))
}
