//! A server before a fault and after it: what must be as it was, and how long that took.
//!
//! # The trap
//! The master has other children than workers (what prepares, what writes the logs): who counts
//! workers asks for their names.

use std::time::{Duration, Instant};

use crate::client::Connection;
use crate::harness::{Ferricorn, PATIENCE, eventually};
use crate::proc::{self, Stat};

/// A server that serves with so many workers, looked at before something happens to it.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    server: &'a Ferricorn,
    count: u16,
    before: Vec<(u16, i32)>,
    descriptors: usize,
    bystanders: Vec<(i32, Connection)>,
    begun: Instant,
}

/// The workers when each of the first slots has exactly one, and the master has no other child for the
/// time being: nobody boots or leaves, no zombie is left.
pub(crate) fn settled(server: &Ferricorn, count: u16) -> Vec<(u16, i32)> {
    let stays = |stat: &Stat| {
        stat.state != 'Z' && (stat.name.starts_with("ferricorn-w") || stat.name == "ferricorn-log")
    };
    eventually(&format!("{count} workers, nobody else and no zombie"), PATIENCE, || {
        let workers = server.workers();
        let alone = proc::children(server.pid()).iter().all(stays);
        (alone && workers.iter().map(|(slot, _)| *slot).eq(0..count)).then_some(workers)
    })
}

/// A connection to the worker of this slot, which has answered on it.
pub(crate) fn connect_to(server: &Ferricorn, slot: u16) -> (Connection, i32) {
    eventually(&format!("a connection to the worker of slot {slot}"), PATIENCE, || {
        let mut connection = server.connect();
        let answer = connection.get("/").expect("it serves");
        (answer.slot() == slot).then(|| (connection, answer.pid()))
    })
}

/// Waits until the slot's worker answers that is not this one; answers its pid.
pub(crate) fn wait_replaced(server: &Ferricorn, slot: u16, victim: i32) -> i32 {
    eventually(&format!("answers from a new worker in slot {slot}"), PATIENCE, || {
        // Whoever comes while a worker dies may have been in its hands.
        let answer = server.get("/").ok()?;
        (answer.slot() == slot && answer.pid() != victim).then(|| answer.pid())
    })
}

impl<'a> Scene<'a> {
    /// Looks at it. A client of every worker but the one in `spared` stays connected and expects to be
    /// served by the same worker when all is over.
    pub(crate) fn set(server: &'a Ferricorn, count: u16, spared: Option<u16>) -> Self {
        let before = settled(server, count);
        let siblings = (0..count).filter(|slot| spared.is_some_and(|spared| spared != *slot));
        let bystanders = siblings.map(|slot| connect_to(server, slot));
        let bystanders = bystanders.map(|(connection, pid)| (pid, connection)).collect();
        let descriptors = proc::descriptors_but_rings(server.pid());
        Self { server, count, before, descriptors, bystanders, begun: Instant::now() }
    }

    /// The clock of its recovery begins now.
    pub(crate) fn begin(&mut self) {
        self.begun = Instant::now();
    }

    /// Waits until it is as it was, but that these slots have other workers: nobody else has noticed
    /// anything. Answers how long it took until these, or all if these are none, served.
    pub(crate) fn recovers(self, replaced: &[u16]) -> Duration {
        let Self { server, count, before, descriptors, bystanders, begun } = self;
        for slot in replaced {
            let (_, victim) = before[usize::from(*slot)];
            wait_replaced(server, *slot, victim);
        }
        if replaced.is_empty() {
            server.wait_served_by(&before);
        }
        let took = begun.elapsed();
        let after = eventually("those have gone who were to go", PATIENCE, || {
            let after = settled(server, count);
            let gone = |slot: u16| !after.contains(&before[usize::from(slot)]);
            replaced.iter().all(|slot| gone(*slot)).then_some(after)
        });
        let others: Vec<u16> =
            before.iter().filter(|before| !after.contains(before)).map(|(slot, _)| *slot).collect();
        assert_eq!(others, replaced, "nobody else is replaced: {before:?} -> {after:?}");
        for (pid, mut client) in bystanders {
            let answer = client.get("/").expect("a bystander is served on");
            assert_eq!((answer.status, answer.pid()), (200, pid));
        }
        server.wait_served_by(&after);
        eventually("the master has no descriptor more", PATIENCE, || {
            (proc::descriptors_but_rings(server.pid()) <= descriptors).then_some(())
        });
        eventually("late workers have as many descriptors as early ones", PATIENCE, || {
            let mut counts = after.iter().map(|(_, pid)| proc::descriptors(*pid).len());
            let first = counts.next()?;
            counts.all(|count| count == first).then_some(())
        });
        took
    }
}
