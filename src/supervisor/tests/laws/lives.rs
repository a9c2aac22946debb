//! Ten thousand lives. `FERRICORN_SEEDS=n` tries so many, `FERRICORN_SEED=n` tells this one's.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::Counts;
use crate::supervisor::tests::world::World;

const SEEDS: u64 = 10_000;

#[test]
#[expect(clippy::disallowed_methods, reason = "how fast the lives pass is printed, not judged")]
fn the_laws_hold() {
    if let Some(seed) = variable("FERRICORN_SEED") {
        let mut world = World::new(seed).told();
        let end = live(&mut world);
        println!("{}", world.text());
        return end.map(|_| ()).unwrap_or_else(|how| panic!("seed {seed}: {how}"));
    }
    let seeds = variable("FERRICORN_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    // One half on each of two threads: the machines that this runs on have two processors.
    let halves = std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                (0..seeds).filter(|seed| seed % 2 == half).map(try_seed).sum_counts()
            })
        });
        halves.map(|half| half.join().expect("a seed's panic is caught"))
    });
    let [(mut counts, first), (others, second)] = halves;
    let failure = first.into_iter().chain(second).min();
    if let Some((seed, how)) = failure {
        tell(seed, &how);
    }
    others.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
    let took = began.elapsed().as_secs_f64();
    println!("{seeds} lives in {took:.1} s: {:.0} a second", seeds as f64 / took);
    counts.iter().for_each(|(what, count)| println!("{count:>9} times {what}"));
    let never: Vec<_> = MUST_HAPPEN.iter().filter(|name| !counts.contains_key(*name)).collect();
    assert!(seeds < SEEDS || never.is_empty(), "in no life it happened that {never:?}");
}

/// Happenings of which some life must have each, or the laws have not been tried by it.
const MUST_HAPPEN: [&str; 33] = [
    "a child was left behind",
    "a fork after ten early deaths",
    "a fork was refused",
    "a reload failed",
    "a reload succeeded",
    "a reload waited for old workers",
    "a signal was ignored",
    "a slot was parked",
    "a stop was announced",
    "a worker died",
    "a worker died while draining",
    "a worker failed to boot",
    "a worker had served enough",
    "a worker left",
    "a worker overstayed",
    "a worker was aborted",
    "a worker was replaced",
    "a worker was starved",
    "a worker was told to leave by hand",
    "a worker was too large",
    "a worker was too large from the start",
    "a worker was too old",
    "an upgrade was refused",
    "exit 0",
    "exit 3",
    "exit 4",
    "the image was replaced",
    "the machine slept",
    "the master overslept",
    "the number of workers was changed",
    "the number of workers was kept",
    "workers could not live for a minute",
    "a queue was adopted",
];

/// The sum of what happened, and the first seed that broke a law.
type Tally = (Counts, Option<(u64, String)>);

trait SumCounts {
    fn sum_counts(self) -> Tally;
}

impl<I: Iterator<Item = Result<Counts, (u64, String)>>> SumCounts for I {
    fn sum_counts(self) -> Tally {
        let mut sum = BTreeMap::new();
        for life in self {
            match life {
                Ok(counts) => counts
                    .into_iter()
                    .for_each(|(what, count)| *sum.entry(what).or_default() += count),
                Err(failure) => return (sum, Some(failure)),
            }
        }
        (sum, None)
    }
}

fn try_seed(seed: u64) -> Result<Counts, (u64, String)> {
    live(&mut World::new(seed)).map_err(|how| (seed, how))
}

/// Lives to the end; a panic is a broken law like any other.
fn live(world: &mut World) -> Result<Counts, String> {
    match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Err(_) => Err("the supervisor panicked".to_owned()),
        Ok(()) => match world.verdict() {
            Ok(counts) => Ok(counts.clone()),
            Err(broken) => Err(format!("{:?} is broken: {}", broken.law, broken.how)),
        },
    }
}

/// Tells the end of a life that broke a law.
fn tell(seed: u64, how: &str) -> ! {
    const LINES: usize = 120;
    let mut world = World::new(seed).told();
    // It fails again in the same way: that is why it is told.
    let _again = live(&mut world);
    let lines: Vec<&str> = world.text().lines().collect();
    let head = &lines[..1];
    let tail = &lines[lines.len().saturating_sub(LINES).max(1)..];
    println!("{}\n…\n{}", head.join("\n"), tail.join("\n"));
    panic!("seed {seed}: {how}\nFERRICORN_SEED={seed} tells all of it");
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}
