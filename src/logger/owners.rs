//! The owners of the rings, as the master notes them, and the judgement of a line by its ring's owner.

use crate::logging::{LoggingEvent, MASTER, foreign_name};
use crate::sys::process;
use crate::sys::shared::{self, Mapping};

/// The owners of all rings.
#[derive(Debug)]
pub(super) struct Owners {
    /// Their pids, by place; 0 where there is none. `None` where the master notes nothing.
    pids: Option<Mapping>,
    /// The logger, which has no ring.
    own: u64,
    /// The number of rings.
    pub(super) count: usize,
}

impl Owners {
    pub(super) fn new(pids: Option<Mapping>) -> Self {
        Self { pids, own: u64::try_from(process::pid()).unwrap_or(0), count: 0 }
    }

    /// Returns the pid of the ring's owner. Lines that a predecessor has left are attributed to it; a new
    /// process is noted right after its fork.
    pub(super) fn of(&self, place: usize) -> Option<u64> {
        let line = self.pids.as_ref()?.get(place / 8)?;
        Some(shared::claim(&line.0[place % 8]).unchecked()).filter(|pid| *pid != 0)
    }

    /// Returns true for a process of this server that has another ring, or for the logger.
    pub(super) fn is_foreign(&self, place: usize, pid: u64) -> bool {
        let Some(pids) = &self.pids else { return false };
        let mut all = pids.iter().flat_map(|line| &line.0).take(self.count);
        pid != 0
            && self.of(place) != Some(pid)
            && (pid == self.own || all.any(|owner| shared::claim(owner).unchecked() == pid))
    }

    /// Returns the event that replaces a record that names another process. The master's records pass: it
    /// writes the lines of requests that a worker has taken with it.
    pub(super) fn judge(&self, place: usize, record: &[u8]) -> Option<LoggingEvent> {
        if place == MASTER {
            return None;
        }
        let named = foreign_name(record, |pid| self.is_foreign(place, pid))?;
        let line = String::from_utf8_lossy(record).trim_end().to_owned();
        Some(LoggingEvent::Forged { named, process: self.of(place), line })
    }
}
