//! Every two signals, in each sequence and at every stage of a reload or an upgrade: the laws hold, and
//! the server ends up complete and at rest, or has left as it was told to.

use crate::supervisor::event::Signal;
use crate::supervisor::tests::world::World;
use crate::supervisor::tests::world::dice::Dice;
use crate::supervisor::tests::world::plan::Plan;

const ALL: [Signal; 9] = [
    Signal::Terminate,
    Signal::Interrupt,
    Signal::Quit,
    Signal::Reload,
    Signal::More,
    Signal::Fewer,
    Signal::Reopen,
    Signal::Upgrade,
    Signal::Resize,
];

#[test]
fn any_two_signals_end_in_a_defined_state() {
    let mut tried = 0;
    for base in [Signal::Reload, Signal::Upgrade] {
        for (first, second) in ALL.iter().flat_map(|one| ALL.iter().map(|other| (*one, *other))) {
            // At once, while the file is read, prepared, the first one boots and lives, and later.
            for (at, gap) in [(0, 0), (5, 0), (40, 9), (80, 0), (110, 20), (170, 0), (260, 5)] {
                let seed = tried;
                let began = 1000;
                let pair = [(began + at, first), (began + at + gap, second)];
                let signals = [(began, base), pair[0], pair[1]];
                let mut dice = Dice::new(seed);
                let plan = Plan::signals(&signals, &mut dice);
                let mut world = World::planned(seed, plan, dice).told();
                world.run();
                if let Err(broken) = world.verdict() {
                    panic!("{signals:?}: {broken:?}\n{}", world.text());
                }
                assert!(world.has_ended(), "{signals:?}: it has not left\n{}", world.text());
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 2 * 81 * 7);
}
