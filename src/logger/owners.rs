//! Whose the rings are, as the master has noted it, and what that says of their lines.

use crate::logging::{MASTER, News, foreign_name};
use crate::sys::process;
use crate::sys::shared::{self, Mapping};

/// The owners of all rings.
#[derive(Debug)]
pub(super) struct Owners {
    /// Their pids, by place; 0 where there is none. `None` where the master has noted nothing.
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

    /// The process that has this ring. While its predecessor's lines are read, these may be told of as its
    /// own; a process that has just begun is not noted yet.
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

    /// The log event that stands in the place of a record which another process's name is in. The master
    /// is believed: it writes the lines of requests that a worker has taken with it.
    pub(super) fn judge(&self, place: usize, record: &[u8]) -> Option<News> {
        if place == MASTER {
            return None;
        }
        let named = foreign_name(record, |pid| self.is_foreign(place, pid))?;
        let line = String::from_utf8_lossy(record).trim_end().to_owned();
        Some(News::Forged { named, process: self.of(place), line })
    }
}
