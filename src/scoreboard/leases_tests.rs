//! Leases under every interleaving, and under a million random schedules with deaths.

use std::cell::Cell;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Schedules that are tried.
const SCHEDULES: u64 = 1_000_000;

/// A number in a world of one thread, in which a schedule decides on who is next.
impl Number for &Cell<u64> {
    fn load(&self) -> u64 {
        self.get()
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        let is_there = self.get() == from;
        if is_there {
            self.set(to);
        }
        is_there
    }

    fn increase(&self) -> u64 {
        self.set(self.get() + 1);
        self.get()
    }
}

/// Three processes that take the lease and give it back, of which any is killed between any two of its
/// instructions, and is followed by another one with the same pid.
fn run(seed: u64) -> u64 {
    let mut dice = SmallRng::seed_from_u64(seed);
    let holder = Cell::new(0);
    let fence = Cell::new(0);
    let lease = LeaseEntry { holder: &holder, fence: &fence };
    let mut processes = [(1, 1), (2, 1), (3, 1)].map(|(pid, start)| Incarnation::new(pid, start));
    let mut attempts = [Attempt::Begun; 3];
    let mut last_fence = 0;
    for step in 2..40 {
        let at = dice.random_range(0..3);
        if dice.random_ratio(1, 10) {
            processes[at] = Incarnation::new(processes[at].pid(), step);
            attempts[at] = Attempt::Begun;
            continue;
        }
        match attempts[at] {
            Attempt::Refused => attempts[at] = Attempt::Begun,
            Attempt::Held { .. } => {
                lease.give_back(processes[at]);
                attempts[at] = Attempt::Begun;
            }
            attempt => {
                let living = processes;
                attempts[at] =
                    attempt.step(&lease, processes[at], |attempt| living.contains(&attempt));
                if let Attempt::Held { fence } = attempts[at] {
                    assert!(fence > last_fence, "seed {seed}: {fence} follows {last_fence}");
                    last_fence = fence;
                }
            }
        }
        let has_it = |attempt: &&Attempt| matches!(attempt, Attempt::Won | Attempt::Held { .. });
        let holders = attempts.iter().filter(has_it).count();
        assert!(holders <= 1, "seed {seed}, step {step}: {attempts:?}");
    }
    last_fence
}

#[test]
fn lease_never_has_two_holders_in_a_million_schedules() {
    let taken: u64 = (0..SCHEDULES).map(run).sum();
    assert!(taken > SCHEDULES, "it was taken {taken} times only");
}

// ORDERING: as in [`super`].
impl Number for &loom::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        loom::sync::atomic::AtomicU64::load(self, Ordering::Acquire)
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn increase(&self) -> u64 {
        self.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// Two takers of a lease whose holder has died, and what they do while they have it, in every
/// interleaving that the memory model allows.
#[test]
fn every_interleaving_has_one_holder_at_a_time() {
    use loom::sync::atomic::AtomicU64;
    loom::model(|| {
        let dead = Incarnation::new(9, 1);
        let shared = Arc::new((AtomicU64::new(dead.number()), AtomicU64::new(4)));
        let work = Arc::new(AtomicU64::new(0));
        let takers = [1, 2].map(|pid| {
            let shared = Arc::clone(&shared);
            let work = Arc::clone(&work);
            loom::thread::spawn(move || {
                let lease = LeaseEntry { holder: &shared.0, fence: &shared.1 };
                let taker = Incarnation::new(pid, 1);
                let mut attempt = Attempt::Begun;
                while !matches!(attempt, Attempt::Refused | Attempt::Held { .. }) {
                    attempt = attempt.step(&lease, taker, |attempt| attempt != dead);
                }
                let Attempt::Held { fence } = attempt else { return None };
                // Lost if two were here at once, or if one did not see what the other has done.
                work.store(work.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                lease.give_back(taker);
                Some(fence)
            })
        });
        let mut fences: Vec<u64> =
            takers.into_iter().filter_map(|taker| taker.join().unwrap()).collect();
        fences.sort_unstable();
        assert_eq!(work.load(Ordering::Relaxed), fences.len() as u64);
        assert!(fences == [5] || fences == [5, 6], "{fences:?}");
    });
}

#[test]
fn names_have_lines_of_their_own_until_all_are_taken() {
    let lines: Vec<Line> = (0..3).map(|_| Line::default()).collect();
    let found = ["a", "b", "a", "c", "d", "b"].map(|name| find(&lines, name));
    assert_eq!(found, [Some(0), Some(1), Some(0), Some(2), None, Some(1)]);
}

#[test]
fn lease_is_of_one_process_until_it_gives_it_back_or_is_reaped() {
    let line = Line::default();
    let lease = LeaseEntry::of(&line);
    assert_eq!(lease.take(), Some(1));
    assert_eq!(lease.take(), None, "this process has it already");
    lease.give_back(Incarnation::new(1, 1));
    assert_eq!(lease.take(), None, "another process cannot give it back");
    lease.give_back(Incarnation::current());
    assert_eq!(lease.take(), Some(2));
    lease.end(std::process::id() + 1);
    assert_eq!(lease.take(), None);
    lease.end(std::process::id());
    assert_eq!(lease.take(), Some(3));
}
