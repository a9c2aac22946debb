//! Leases: a right that one process of the server has at a time.
//!
//! # Why no lock
//! A lease is one number, its holder: pid and start, so that no other process can be taken for it. It is
//! taken and given back by one exchange each, so a holder that is killed has it or has not, and one that
//! has died is known by its number. No clock is involved: a holder that is stopped keeps its lease.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::incarnation::Incarnation;
use crate::sys::shared::Line;

/// A lease: the numbers of a line. The first is the key of its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseEntry<N> {
    holder: N,
    fence: N,
}

/// A number that several processes change; a test's can have all its interleavings tried.
pub(crate) trait Number {
    fn load(&self) -> u64;
    /// Replaces this number by another one; returns false if it was not there.
    fn exchange(&self, from: u64, to: u64) -> bool;
    /// Adds one, and returns the sum.
    fn increase(&self) -> u64;
}

// ORDERING: what the last holder has done is done for the next one: Acquire and Release.
impl Number for &AtomicU64 {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn increase(&self) -> u64 {
        self.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }
}

/// An attempt at a lease, between two of its instructions that another process can see or delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Begun,
    Found(Option<Incarnation>),
    Free(u64),
    Won,
    Refused,
    Held { fence: u64 },
}

impl Attempt {
    /// The next instruction of it.
    pub(crate) fn step(
        self,
        lease: &LeaseEntry<impl Number>,
        taker: Incarnation,
        lives: impl Fn(Incarnation) -> bool,
    ) -> Self {
        match self {
            Self::Begun => Self::Found(Incarnation::from_number(lease.holder.load())),
            Self::Found(Some(holder)) if lives(holder) => Self::Refused,
            Self::Found(holder) => Self::Free(holder.map_or(0, Incarnation::number)),
            Self::Free(found) if lease.holder.exchange(found, taker.number()) => Self::Won,
            Self::Free(_) => Self::Refused,
            Self::Won => Self::Held { fence: lease.fence.increase() },
            Self::Refused | Self::Held { .. } => self,
        }
    }
}

impl<'a> LeaseEntry<&'a AtomicU64> {
    /// The lease in a line of shared memory.
    pub(super) fn of(line: &'a Line) -> Self {
        let [_, holder, fence, ..] = &line.0;
        Self { holder, fence }
    }
}

impl<N: Number> LeaseEntry<N> {
    /// Takes the lease for this process, unless a living one has it, which may be this one. Returns its
    /// fencing number: larger than that of each holder before.
    pub(crate) fn take(&self) -> Option<u64> {
        let taker = Incarnation::current();
        let mut attempt = Attempt::Begun;
        loop {
            attempt = attempt.step(self, taker, Incarnation::lives);
            match attempt {
                Attempt::Held { fence } => return Some(fence),
                Attempt::Refused => return None,
                _ => {}
            }
        }
    }

    /// Gives the lease back, if this process has it.
    pub(crate) fn give_back(&self, holder: Incarnation) {
        let _others = self.holder.exchange(holder.number(), 0);
    }

    /// Ends the lease of a process that is reaped.
    pub(super) fn end(&self, pid: u32) {
        let holder = Incarnation::from_number(self.holder.load());
        if let Some(holder) = holder.filter(|holder| holder.pid() == pid) {
            self.give_back(holder);
        }
    }
}

/// The key of a name: FNV-1a, the same in every build of the program, since leases outlive an upgrade.
pub(super) fn key(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

/// The line of a name among these, which it takes if it is new; `None` when all are taken.
pub(super) fn find(lines: &[Line], name: &str) -> Option<usize> {
    let key = key(name);
    lines.iter().position(|line| {
        let number = &line.0[0];
        // ORDERING: a key stands for itself, and never changes: Relaxed.
        let found = number.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
        found.is_ok() || found == Err(key)
    })
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
