//! The account that one logger leaves to the next, should it die: it stands in the notes of the
//! master's ring.

use super::Notes;
use crate::time::Instant;

/// The facts that the next one must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Legacy {
    /// A write is under way that may leave a part of a line behind.
    pub(crate) cuts: bool,
    /// By target.
    pub(crate) untold: [Untold; 2],
}

/// Lines that a target has not taken, and that were not logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Untold {
    pub(crate) lines: u64,
    /// When the first of them was lost. One machine's clock, from its start on, is every process's.
    pub(crate) since: Instant,
}

impl From<Notes> for Legacy {
    fn from([cuts, lines, since, further_lines, further_since]: Notes) -> Self {
        let untold = |lines, since| Untold { lines, since: Instant::from_millis(since) };
        let untold = [untold(lines, since), untold(further_lines, further_since)];
        Self { cuts: cuts != 0, untold }
    }
}

impl From<Legacy> for Notes {
    fn from(Legacy { cuts, untold: [first, second] }: Legacy) -> Self {
        let [since, further_since] = [first, second].map(|untold| untold.since.as_millis());
        [u64::from(cuts), first.lines, since, second.lines, further_since]
    }
}
