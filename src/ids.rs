//! The numbers by which the parts of ferricorn speak of each other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The place of a worker: 0, 1, 2 … Stable over the worker's replacements; names its listener, its
/// scoreboard cell and its metrics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Slot(u16);

impl Slot {
    /// The most slots a server can have: what a [`SlotSet`] holds.
    pub const MAX: u16 = 256;

    /// The slot with this number.
    ///
    /// # Panics
    /// When the number is not below [`Slot::MAX`]: settings are checked against it.
    #[must_use]
    pub fn new(number: u16) -> Self {
        assert!(number < Self::MAX, "slot {number} is beyond the last one");
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// Its number as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One configuration in force; each reload makes the next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Generation(u32);

impl Generation {
    /// The configuration that the server started with.
    pub(crate) const FIRST: Self = Self(1);

    /// The generation after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Its number, from 1.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One child of the master, from the decision to fork it until it is reaped. Never used twice, unlike
/// a pid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct ChildId(pub(crate) u64);

impl ChildId {
    /// The logger, whichever it is: there is one at a time, and each is reaped before the next.
    pub(crate) const LOGGER: Self = Self(0);
    /// The stats process, likewise.
    pub(crate) const STATS: Self = Self(u64::MAX);
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::STATS { f.write_str("#stats") } else { write!(f, "#{}", self.0) }
    }
}

/// One command of a client of the control socket. Never used twice, not by a later image either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct CommandId(pub(crate) u64);

/// A process id of the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Pid(pub(crate) i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A set of slots, small enough to travel in one message.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SlotSet([u64; Slot::MAX as usize / 64]);

impl SlotSet {
    /// No slot.
    pub(crate) const EMPTY: Self = Self([0; Slot::MAX as usize / 64]);
    /// Its length as bytes.
    pub(crate) const BYTES: usize = Slot::MAX as usize / 8;

    /// Adds a slot.
    pub(crate) fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    /// Returns true if the slot is in the set.
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64] & (1 << (slot.index() % 64)) != 0
    }

    /// Takes a slot out.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.0[slot.index() / 64] &= !(1 << (slot.index() % 64));
    }

    /// The slots, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..Slot::MAX).map(Slot).filter(|slot| self.contains(*slot))
    }

    /// Every slot that is in either set.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// From the words that hold it, a bit for each slot, the lowest first.
    pub(crate) fn from_words(words: [u64; Slot::MAX as usize / 64]) -> Self {
        Self(words)
    }

    /// For a message.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From a message.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut set = Self::EMPTY;
        for (word, chunk) in set.0.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("chunks are of 8 bytes"));
        }
        set
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::EMPTY;
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Slot::number)).finish()
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots: Vec<String> = self.iter().map(|slot| slot.to_string()).collect();
        write!(f, "{{{}}}", slots.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_set_survives_its_bytes() {
        let set: SlotSet = [0, 1, 63, 64, 255].map(Slot::new).into_iter().collect();
        assert_eq!(SlotSet::from_bytes(&set.to_bytes()), set);
        assert_eq!(set.to_string(), "{0,1,63,64,255}");
        assert!(!set.contains(Slot::new(2)));
        assert_eq!(set.union(&SlotSet::EMPTY), set);
    }
}
