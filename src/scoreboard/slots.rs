//! The figures of a slot over the lives of its workers: how many requests it has answered, how many
//! connections its worker has open, and which slots ask that worker for help; and of all of them, which
//! worker has which lease.
//!
//! The draining worker of a slot and its replacement write at the same time. So requests are added, and
//! the number of open connections carries the pid of its owner: no other process changes it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::leases::{self, LeaseEntry};
use crate::ids::{Slot, SlotSet};
use crate::sys::shared::{self, Claim, Shared};

/// Two lines for each slot: what its worker writes, and what siblings write. Behind them a line for each
/// lease.
#[derive(Debug)]
pub(crate) struct SlotBoard(Shared);

const LINES: usize = 2;
/// The first line behind those of the slots.
const LEASES: usize = LINES * Slot::MAX as usize;

/// Matters in which one worker leads: the first of the leases, which have numbers instead of names.
pub(crate) const MATTERS: u8 = 8;

/// Leases that have names.
pub(crate) const NAMED_LEASES: usize = 56;

/// Lines in all.
const COUNT: usize = LEASES + MATTERS as usize + NAMED_LEASES;

/// Requests answered: the first number of a slot's lines.
const SERVED: usize = 0;
/// The pid of the slot's worker above, its open connections below; 0: none takes connections.
const LOAD: usize = 1;
/// From here on the set of slots that ask the worker for help.
const ASKED: usize = 8;

/// The load of a slot's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) slot: Slot,
    /// Connections open.
    pub(crate) open: u32,
}

// ORDERING: every number stands for itself, and a stale one costs evenness alone: Relaxed throughout.
impl SlotBoard {
    /// A board for every slot there can be.
    ///
    /// # Errors
    /// The system's error about memory and descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        Shared::new("ferricorn-slots", COUNT).map(Self)
    }

    /// The board that an earlier image has begun.
    ///
    /// # Errors
    /// When the descriptor holds none.
    pub(crate) fn inherit(memory: OwnedFd) -> io::Result<Self> {
        Shared::map(memory, COUNT).map(Self)
    }

    fn number(&self, slot: Slot, at: usize) -> &AtomicU64 {
        &self.0[LINES * slot.index() + at / 8].0[at % 8]
    }

    /// One request more was answered in this slot.
    pub(crate) fn count_request(&self, slot: Slot) {
        self.number(slot, SERVED).fetch_add(1, Ordering::Relaxed);
    }

    /// Requests answered in a slot since the start.
    pub(crate) fn served_in(&self, slot: Slot) -> Claim {
        shared::claim(self.number(slot, SERVED))
    }

    /// Requests answered in all slots since the start.
    pub(crate) fn served(&self) -> Claim {
        let served = (0..Slot::MAX).map(|number| self.served_in(Slot::new(number)));
        served.fold(Claim::default(), Claim::saturating_add)
    }

    /// Returns the load of the workers of the first slots, for each that takes connections.
    pub(crate) fn loads(&self, slots: u16) -> impl Iterator<Item = Load> {
        (0..slots.min(Slot::MAX)).map(Slot::new).filter_map(|slot| {
            let (pid, open) = unpack(shared::claim(self.number(slot, LOAD)));
            (pid != 0).then_some(Load { slot, open })
        })
    }

    /// Asks the worker of a slot to take what waits in another one.
    pub(crate) fn ask(&self, whom: Slot, behalf: Slot) {
        let (at, bit) = place_of(behalf);
        self.number(whom, at).fetch_or(bit, Ordering::Relaxed);
    }

    /// Returns true if the worker has not seen yet that it was asked.
    pub(crate) fn is_asked(&self, whom: Slot, behalf: Slot) -> bool {
        let (at, bit) = place_of(behalf);
        shared::claim(self.number(whom, at)).unchecked() & bit != 0
    }

    /// The slot's worker is gone, and takes no connections.
    pub(crate) fn vacate(&self, slot: Slot, pid: u32) {
        let load = self.number(slot, LOAD);
        let gone = |was| (unpack(Claim::new(was)).0 == pid).then_some(0);
        // Another one's by now: then it stays.
        let _others = load.fetch_update(Ordering::Relaxed, Ordering::Relaxed, gone);
    }

    /// The place of the lease with this name; `None` when all are taken by others.
    pub(crate) fn find_lease(&self, name: &str) -> Option<usize> {
        let first = LEASES + usize::from(MATTERS);
        leases::find(&self.0[first..], name).map(|at| usize::from(MATTERS) + at)
    }

    /// The lease in this place: a matter, or what [`Self::find_lease`] has found.
    ///
    /// # Panics
    /// When there is no such place.
    pub(crate) fn lease(&self, place: usize) -> LeaseEntry<&AtomicU64> {
        LeaseEntry::of(&self.0[LEASES + place])
    }

    /// Ends every lease of a worker that is reaped.
    pub(crate) fn end_leases(&self, pid: u32) {
        for line in &self.0[LEASES..] {
            LeaseEntry::of(line).end(pid);
        }
    }
}

fn place_of(slot: Slot) -> (usize, u64) {
    (ASKED + slot.index() / 64, 1 << (slot.index() % 64))
}

fn pack(pid: u32, open: u32) -> u64 {
    u64::from(pid) << 32 | u64::from(open)
}

fn unpack(load: Claim) -> (u32, u32) {
    let (open, pid) = load.halves();
    (pid, open)
}

/// A worker's place on the board.
#[derive(Clone, Debug)]
pub(crate) struct SlotRow {
    board: Arc<SlotBoard>,
    slot: Slot,
    pid: u32,
}

impl SlotRow {
    pub(crate) fn new(board: Arc<SlotBoard>, slot: Slot, pid: u32) -> Self {
        Self { board, slot, pid }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    pub(crate) fn board(&self) -> &SlotBoard {
        &self.board
    }

    /// The worker takes connections from now on, and has none yet. Its predecessor counts no more.
    pub(crate) fn take(&self) {
        self.load().store(pack(self.pid, 0), Ordering::Relaxed);
    }

    /// It takes no more of them.
    pub(crate) fn give_up(&self) {
        self.board.vacate(self.slot, self.pid);
    }

    /// One connection more; with it so many are open. Where a replacement has died it counts again.
    pub(crate) fn opened(&self, open: usize) {
        self.update(|pid, before| match pid {
            0 => Some(u32::try_from(open).unwrap_or(u32::MAX)),
            pid if pid == self.pid => Some(before.saturating_add(1)),
            _ => None,
        });
    }

    /// One connection less.
    pub(crate) fn closed(&self) {
        self.update(|pid, before| (pid == self.pid).then(|| before.saturating_sub(1)));
    }

    /// The slots that have asked since this was asked last; none where the place is a replacement's.
    pub(crate) fn take_asked(&self) -> SlotSet {
        if unpack(shared::claim(self.load())).0 != self.pid {
            return SlotSet::EMPTY;
        }
        let asked = |at| self.board.number(self.slot, ASKED + at).swap(0, Ordering::Relaxed);
        SlotSet::from_words(std::array::from_fn(asked))
    }

    fn load(&self) -> &AtomicU64 {
        self.board.number(self.slot, LOAD)
    }

    fn update(&self, open: impl Fn(u32, u32) -> Option<u32>) {
        let update = |was| {
            let (pid, before) = unpack(Claim::new(was));
            open(pid, before).map(|open| pack(self.pid, open))
        };
        // A replacement's: then it is not ours to change.
        let _others = self.load().fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }
}

impl AsFd for SlotBoard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Arc<SlotBoard> {
        Arc::new(SlotBoard::new().unwrap())
    }

    fn open(board: &SlotBoard) -> Vec<(u16, u32)> {
        board.loads(Slot::MAX).map(|load| (load.slot.number(), load.open)).collect()
    }

    #[test]
    fn a_slot_counts_for_its_youngest_worker_alone() {
        let board = board();
        let [old, new] = [7, 8].map(|pid| SlotRow::new(Arc::clone(&board), Slot::new(3), pid));
        assert_eq!(open(&board), []);
        old.take();
        old.opened(1);
        old.opened(2);
        old.closed();
        assert_eq!(open(&board), [(3, 1)]);
        new.take();
        old.closed();
        old.give_up();
        assert_eq!(open(&board), [(3, 0)]);
        new.opened(1);
        board.vacate(Slot::new(3), 7);
        assert_eq!(open(&board), [(3, 1)]);
        board.vacate(Slot::new(3), 8);
        assert_eq!(open(&board), []);
        // The predecessor serves again.
        old.opened(5);
        old.closed();
        old.opened(5);
        assert_eq!(open(&board), [(3, 5)]);
    }

    /// A worker writes whatever it likes into its own counter.
    #[test]
    fn sum_of_served_requests_does_not_overflow() {
        let board = board();
        board.number(Slot::new(0), SERVED).store(u64::MAX, Ordering::Relaxed);
        board.count_request(Slot::new(1));
        assert_eq!(board.served(), Claim::new(u64::MAX));
    }

    #[test]
    fn leases_stand_beside_the_slots_and_end_with_their_worker() {
        let board = board();
        let reports = board.find_lease("reports").unwrap();
        assert_eq!(board.find_lease("reports"), Some(reports));
        assert!((0..reports).all(|place| board.lease(place).take() == Some(1)));
        assert_eq!(board.lease(reports).take(), Some(1));
        assert_eq!((board.served(), open(&board)), (Claim::default(), vec![]));
        board.end_leases(std::process::id() + 1);
        assert!((0..=reports).all(|place| board.lease(place).take().is_none()));
        board.end_leases(std::process::id());
        assert!((0..=reports).all(|place| board.lease(place).take() == Some(2)));
        let found =
            (0..NAMED_LEASES).filter(|number| board.find_lease(&number.to_string()).is_some());
        assert_eq!(found.count(), NAMED_LEASES - 1, "one was taken");
    }

    #[test]
    fn who_is_asked_hears_it_once_and_a_predecessor_not_at_all() {
        let board = board();
        let [old, new] = [7, 8].map(|pid| SlotRow::new(Arc::clone(&board), Slot::new(0), pid));
        old.take();
        new.take();
        for slot in [1, 63, 64, 255] {
            board.ask(Slot::new(0), Slot::new(slot));
            assert!(board.is_asked(Slot::new(0), Slot::new(slot)));
        }
        assert!(!board.is_asked(Slot::new(0), Slot::new(2)));
        assert_eq!(old.take_asked(), SlotSet::EMPTY);
        assert_eq!(new.take_asked(), [1, 63, 64, 255].map(Slot::new).into_iter().collect());
        assert!(!board.is_asked(Slot::new(0), Slot::new(64)));
        assert_eq!(new.take_asked(), SlotSet::EMPTY);
    }
}
