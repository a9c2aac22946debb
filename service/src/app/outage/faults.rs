//! Faults of the database as one worker has met them: which of them are open, when each is over, and
//! which worker logs it. Pure: time is an argument, and the lead comes from a closure.
//!
//! # Why a fault ends late
//! A server that stops ends its connections one after the other, and a volume that is full has room
//! for a small row. A success between two failures is no end: a fault is over when it has not been
//! met for [`CALM`] since the first success after the last failure.

use std::fmt;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::Lead;
use crate::app::store::Error;

/// The time for which work must have succeeded before a fault is over. Five times the interval at which
/// the database is asked, so that several answers stand behind an end.
pub(super) const CALM: Duration = Duration::from_secs(5);

/// When a fault is forgotten that nothing tests: deletes that are refused one by one, by locks of
/// other clients, are tested by the next delete alone, which may reach another worker.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(60);

/// Work for the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Store rows.
    Store,
    /// Remove them.
    Delete,
    /// Read them, or answer at all.
    Read,
}

/// A kind of fault. Each is logged by one worker, on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The database is away: whatever work succeeds shows that it is back.
    Away,
    /// The database refuses writes: its volume is full, it is read-only, it is locked.
    Unwritable,
    /// The database refuses reads.
    Unreadable,
    /// Rows are locked by another client of the server: new ones can be stored.
    Undeletable,
}

impl FaultKind {
    /// The fault that an error of some work shows.
    pub(super) fn of(work: Work, error: &Error) -> Self {
        if error.is_away() {
            return Self::Away;
        }
        match work {
            Work::Delete if error.is_lock_of_rows() => Self::Undeletable,
            Work::Store | Work::Delete => Self::Unwritable,
            Work::Read => Self::Unreadable,
        }
    }

    /// Returns true if success of this work shows that the fault is gone.
    fn is_disproved_by(self, work: Work) -> bool {
        match self {
            Self::Away => true,
            Self::Unwritable => work == Work::Store,
            Self::Unreadable => work == Work::Read,
            Self::Undeletable => work == Work::Delete,
        }
    }
}

/// The end of "cannot …" and of "able to … again".
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "reach the database",
            Self::Unwritable => "write to the database",
            Self::Unreadable => "read from the database",
            Self::Undeletable => "delete rows",
        })
    }
}

/// A fault that was met, and is not over.
#[derive(Debug)]
struct Open {
    fault: FaultKind,
    began: Instant,
    /// The last failure. Work that had begun before shows nothing of the time after.
    met: Instant,
    /// The first success of work that began after the last failure.
    well: Option<Instant>,
    telling: Telling,
}

/// The worker that logs a fault.
#[derive(Debug)]
enum Telling {
    /// A sibling.
    Another,
    /// This one, as soon as work fails that has begun since then.
    Due(Instant, Lead),
    /// This one, which has logged the beginning, and logs the end.
    Done(Lead),
}

/// The end of a fault whose beginning this worker has logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Work succeeds again, after so long.
    Well(FaultKind, Duration),
    /// It has not been met for [`FORGOTTEN`].
    Forgotten(FaultKind),
}

/// The open faults of one worker.
#[derive(Debug, Default)]
pub(super) struct Faults {
    open: Vec<Open>,
    /// When the database was last found to be back, of those times that are over.
    back: Option<Instant>,
}

impl Faults {
    /// Returns true if no fault is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns true if the last work that could show this fault has met it.
    pub(super) fn is_met(&self, fault: FaultKind) -> bool {
        self.open.iter().any(|open| open.fault == fault && open.well.is_none())
    }

    /// Returns true if this fault is open: met, or well for less than [`CALM`].
    pub(super) fn is_open(&self, fault: FaultKind) -> bool {
        self.open.iter().any(|open| open.fault == fault)
    }

    /// Returns true if the database is away, or was at any time since then.
    pub(super) fn was_away_since(&self, then: Instant) -> bool {
        let open = self.open.iter().find(|open| open.fault == FaultKind::Away);
        let well = open.map(|open| open.well);
        well == Some(None) || well.flatten().max(self.back).is_some_and(|back| then < back)
    }

    /// Notes a failure of work that began at `begun`. Returns true if this worker logs it.
    pub(super) fn failed(
        &mut self,
        fault: FaultKind,
        begun: Instant,
        now: Instant,
        lead: impl FnOnce() -> Option<Lead>,
    ) -> bool {
        if fault == FaultKind::Away && self.back.is_some_and(|back| begun < back) {
            // It began during an outage that is over.
            return false;
        }
        let at = self.open.iter().position(|open| open.fault == fault).unwrap_or_else(|| {
            let telling = lead().map_or(Telling::Another, |lead| Telling::Due(begun, lead));
            self.open.push(Open { fault, began: now, met: now, well: None, telling });
            self.open.len() - 1
        });
        let open = &mut self.open[at];
        if open.well.is_some_and(|well| begun < well) {
            return false;
        }
        open.met = now;
        open.well = None;
        match mem::replace(&mut open.telling, Telling::Another) {
            Telling::Due(since, lead) if begun >= since => {
                open.telling = Telling::Done(lead);
                true
            }
            as_before => {
                open.telling = as_before;
                false
            }
        }
    }

    /// Notes a success of work that began at `begun`.
    pub(super) fn succeeded(&mut self, work: Work, begun: Instant, now: Instant) {
        for open in &mut self.open {
            if open.fault.is_disproved_by(work) && begun >= open.met {
                open.well.get_or_insert(now);
            }
        }
    }

    /// Makes this worker log each fault that it still meets and that no other worker logs: from the
    /// next failure on, of work that begins from now on.
    pub(super) fn claim_lead(&mut self, now: Instant, lead: impl Fn(FaultKind) -> Option<Lead>) {
        for open in &mut self.open {
            if matches!(open.telling, Telling::Another)
                && open.well.is_none()
                && let Some(lead) = lead(open.fault)
            {
                open.telling = Telling::Due(now, lead);
            }
        }
    }

    /// Closes the faults that are over by now, and returns those to log.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Over> {
        let since = |then: Instant| now.saturating_duration_since(then);
        self.close(|open| match open.well {
            Some(well) => since(well) >= CALM,
            None => open.fault == FaultKind::Undeletable && since(open.met) >= FORGOTTEN,
        })
    }

    /// Closes the faults that are well, though for less than [`CALM`]: this worker sees no more.
    pub(super) fn settle_for_good(&mut self) -> Vec<Over> {
        self.close(|open| open.well.is_some())
    }

    fn close(&mut self, is_over: impl Fn(&Open) -> bool) -> Vec<Over> {
        let mut told = Vec::new();
        for Open { fault, began, well, telling, .. } in
            self.open.extract_if(.., |open| is_over(open))
        {
            if fault == FaultKind::Away {
                self.back = well;
            }
            if let Telling::Done(_lead) = telling {
                told.push(well.map_or(Over::Forgotten(fault), |well| {
                    Over::Well(fault, well.saturating_duration_since(began))
                }));
            }
        }
        told
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<FaultKind> {
        self.open.iter().map(|open| open.fault).collect()
    }
}
