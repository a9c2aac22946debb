//! The memory that unfinished requests of a worker may take: a budget, and what is over it.
//!
//! # Why
//! A head may have 56 KiB and more, and is no request before its last byte: 3,900 clients that send no
//! last byte take 240 MiB. What an attack may take follows from the memory that there is, not from the
//! number of its connections.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Heads and bodies below this are not counted: a connection costs as much in any case.
const SMALL: u64 = 8 * 1024;
/// Bytes of a body that count at the most: a handler that takes longer ones need not keep them.
const BODY_MOST: u64 = 2 << 20;
/// A body's bytes for one that counts. A head takes twice its bytes while it grows.
const BODY_SHARE: u64 = 4;
/// The share of a worker's memory that unfinished heads may have. They take up to twice their bytes, and
/// up to twice the budget until those are closed that are over it.
const SHARE: u64 = 8;
/// The budget of a worker with hardly any memory.
const LEAST: u64 = 1 << 20;

/// The bytes that count of a head of which so many have come.
pub(crate) fn of_head(bytes: u64) -> u64 {
    if bytes > SMALL { bytes } else { 0 }
}

/// The bytes that count of a body of which so many have come.
pub(crate) fn of_body(bytes: u64) -> u64 {
    if bytes > SMALL { bytes.min(BODY_MOST) / BODY_SHARE } else { 0 }
}

/// The budget of each of so many workers that have this memory together, and of which one may have
/// `max_memory`; 0: any.
pub(crate) fn of_worker(memory: Option<u64>, workers: u16, max_memory: u64) -> u64 {
    let shared = memory.map_or(u64::MAX, |memory| memory / u64::from(workers.max(1)));
    let own = if max_memory == 0 { u64::MAX } else { max_memory };
    (shared.min(own) / SHARE).max(LEAST)
}

/// Which of these unfinished requests to refuse, by their counted bytes: the largest, until a quarter of
/// the budget is free. `refused` bytes are of those that were refused before.
pub(crate) fn over<T>(
    budget: u64,
    total: u64,
    refused: u64,
    mut unfinished: Vec<(u64, T)>,
) -> Vec<T> {
    let mut total = total.saturating_sub(refused);
    if total <= budget {
        return Vec::new();
    }
    unfinished.sort_unstable_by_key(|(bytes, _)| *bytes);
    let mut over = Vec::new();
    while total > budget / 4 * 3
        && let Some((bytes, request)) = unfinished.pop()
    {
        total = total.saturating_sub(bytes);
        over.push(request);
    }
    over
}

/// The highest value since memory was given back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak(u64);

impl Peak {
    /// Returns true if the value has fallen by so much from its peak, which begins anew then.
    pub(crate) fn has_fallen(&mut self, value: u64, much: u64) -> bool {
        let is_much = self.0.saturating_sub(value) >= much;
        self.0 = if is_much { value } else { self.0.max(value) };
        is_much
    }
}

/// The budget of a worker, and the bytes that count of it.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    total: AtomicU64,
    /// Told when more than the limit is taken.
    pub(crate) exceeded: Notify,
}

// ORDERING: counters that stand for themselves: Relaxed.
impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, total: AtomicU64::new(0), exceeded: Notify::new() }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.total() > self.limit
    }

    /// A request counts with so many bytes instead of so many. Returns false if it must not grow.
    pub(crate) fn change(&self, before: u64, now: u64) -> bool {
        let Some(more) = now.checked_sub(before) else {
            self.total.fetch_sub(before - now, Ordering::Relaxed);
            return true;
        };
        let total = self.total.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if total > self.limit {
            self.exceeded.notify_one();
        }
        // Those that are over it have not been closed yet.
        total <= self.limit.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_budget_is_a_share_of_the_memory_that_a_worker_has() {
        assert_eq!(of_worker(Some(256 * MIB), 4, 0), 8 * MIB);
        assert_eq!(of_worker(Some(256 * MIB), 1, 64 * MIB), 8 * MIB);
        assert_eq!(of_worker(None, 4, 64 * MIB), 8 * MIB);
        assert_eq!(of_worker(Some(MIB), 0, 0), MIB);
    }

    #[test]
    fn small_requests_do_not_count_and_long_bodies_count_by_a_part() {
        assert_eq!((of_head(SMALL), of_head(SMALL + 1)), (0, SMALL + 1));
        assert_eq!((of_body(SMALL), of_body(MIB), of_body(u64::MAX)), (0, MIB / 4, MIB / 2));
    }

    #[test]
    fn the_largest_are_over_the_budget_until_a_quarter_is_free() {
        let unfinished = || vec![(30, 'a'), (50, 'b'), (10, 'c'), (40, 'd')];
        assert_eq!(over(130, 130, 0, unfinished()), Vec::<char>::new());
        assert_eq!(over(120, 130, 0, unfinished()), ['b']);
        assert_eq!(over(60, 130, 0, unfinished()), ['b', 'd']);
        assert_eq!(over(60, 130, 80, unfinished()), Vec::<char>::new());
        assert_eq!(over(0, 130, 0, unfinished()), ['b', 'd', 'a', 'c']);
    }

    #[test]
    fn a_request_must_not_grow_at_twice_the_budget() {
        let budget = Budget::new(100);
        assert!(budget.change(0, 100) && !budget.is_exceeded());
        assert!(budget.change(0, 100) && budget.is_exceeded());
        assert!(!budget.change(100, 101));
        assert!(budget.change(101, 0));
        assert_eq!(budget.total(), 100);
    }

    #[test]
    fn a_peak_that_has_fallen_begins_anew() {
        let mut peak = Peak::default();
        let fallen = [0, 300, 50, 45, 400, 200, 144, 143].map(|value| peak.has_fallen(value, 250));
        assert_eq!(fallen, [false, false, true, false, false, false, true, false]);
    }
}
