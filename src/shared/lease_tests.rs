//! Leaders over many simulated drains: tasks that lead, runtimes that end in any order, processes that are
//! reaped late.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Lead, Lease};
use crate::request::draining::Draining;
use crate::scoreboard::SlotBoard;
use crate::sys::incarnation::Incarnation;

const SLOTS: usize = 4;
const DRAINS: usize = 100_000;

/// A worker, from its first task to its process's end.
struct Worker {
    draining: Draining,
    lease: Lease,
    /// The lease that a task of it holds.
    lead: Option<Lead>,
    /// True while a task works as the leader, or one that it has started.
    works: bool,
}

impl Worker {
    fn new(counters: &Arc<SlotBoard>) -> Self {
        let draining = Draining::default();
        let lease = Lease::new(Arc::clone(counters), draining.clone(), 0, "matter 0");
        Self { draining, lease, lead: None, works: false }
    }

    /// The leader's task ends, and what it has started with it.
    fn end_task(&mut self) {
        self.works = false;
        self.lead = None;
    }

    /// A task asks to lead.
    fn ask(&mut self) {
        if self.lead.is_none() {
            self.lead = self.lease.take();
            self.works |= self.lead.is_some();
        }
    }
}

/// The counts of a simulation that went well.
struct Tally {
    led: usize,
    /// Leads that the end of a runtime has taken along.
    taken_along: usize,
}

/// Drains workers whose tasks lead. With `releases_early` a lead is given back while a task of its worker may
/// still run.
///
/// # Errors
/// When two lead at once, after so many drains.
fn simulate(releases_early: bool) -> Result<Tally, usize> {
    let counters = Arc::new(SlotBoard::new().unwrap());
    let mut dice = SmallRng::seed_from_u64(19);
    let newborn = || Worker::new(&counters);
    let mut serving: Vec<Worker> = (0..SLOTS).map(|_| newborn()).collect();
    let mut draining: Vec<Worker> = Vec::new();
    let mut drains = 0;
    let mut tally = Tally { led: 0, taken_along: 0 };
    while drains < DRAINS {
        let at = dice.random_range(0..SLOTS);
        let mut ending = None;
        let mut is_taken_along = false;
        match dice.random_range(0..6) {
            0 | 1 => serving[at].ask(),
            2 => serving[at].end_task(),
            // A reload or a recycling: the old worker is told, and goes on until its tasks have ended.
            3 => {
                let old = std::mem::replace(&mut serving[at], newborn());
                old.draining.begin();
                draining.push(old);
                drains += 1;
            }
            4 => draining.last_mut().into_iter().for_each(Worker::end_task),
            // The runtime drops the task that leads, while another of its tasks still runs on another
            // thread; then the process ends, and is reaped.
            _ => ending = draining.pop(),
        }
        if let Some(worker) = &mut ending {
            if !releases_early {
                worker.draining.end();
            }
            is_taken_along = worker.lead.take().is_some();
            tally.taken_along += usize::from(is_taken_along);
            serving.iter_mut().for_each(|other| other.ask());
        }
        let all = serving.iter().chain(&draining).chain(&ending);
        let leaders = all.filter(|worker| worker.works).count();
        if leaders > 1 {
            return Err(drains);
        }
        tally.led += leaders;
        if is_taken_along && !releases_early {
            // The process is gone. All of them are this one here.
            counters.lease(0).give_back(Incarnation::current());
        }
    }
    Ok(tally)
}

#[test]
fn there_are_never_two_leaders_over_many_drains() {
    let Ok(Tally { led, taken_along }) = simulate(false) else { panic!("two lead at once") };
    assert!(led > DRAINS / 2 && taken_along > 100, "{led} {taken_along}");
    assert!(simulate(true).is_err(), "the simulation finds a lead that is given back too early");
}
