//! The stats process: forked where the configuration in force wants it, replaced when it dies, and told
//! to leave when every worker is gone.
//!
//! It holds nothing that could be lost: the numbers are in memory that others write, and its listener is
//! the master's, so that what connects while there is no such process waits for the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, Pid};
use crate::supervisor::action::{Action, ChildSignal};
use crate::supervisor::backoff::Refusals;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::{HEALTHY_LIFE, QUICK};
use crate::supervisor::stage::{Kill, Task};
use crate::supervisor::{Phase, Supervisor, backoff};
use crate::time::Instant;

/// The state of the stats process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stats {
    pub(super) life: StatsLife,
    /// Early deaths in a row.
    deaths: u32,
    /// When the last one was forked.
    began: Instant,
    refusals: Refusals,
}

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StatsLife {
    /// There is none; if one is wanted, it is forked at this time.
    Absent { not_before: Instant },
    /// Ordered; the kernel has not answered.
    Forking,
    /// At work.
    Serving { pid: Pid },
    /// Told to leave; killed at the deadline.
    Leaving { pid: Pid, deadline: Instant },
    /// Killed; to be reaped.
    Killed { pid: Pid, since: Instant },
}

impl Stats {
    pub(super) const UNBORN: Self = Self {
        life: StatsLife::Absent { not_before: Instant::from_millis(0) },
        deaths: 0,
        began: Instant::from_millis(0),
        refusals: Refusals::NONE,
    };

    /// Returns true if this is its pid.
    pub(super) fn is(&self, other: Pid) -> bool {
        match self.life {
            StatsLife::Serving { pid }
            | StatsLife::Leaving { pid, .. }
            | StatsLife::Killed { pid, .. } => pid == other,
            StatsLife::Absent { .. } | StatsLife::Forking => false,
        }
    }

    /// Returns true if this is its pid, and it was killed.
    pub(super) fn is_killed(&self, other: Pid) -> bool {
        matches!(self.life, StatsLife::Killed { pid, .. } if pid == other)
    }

    /// Moves its deadline: the machine slept.
    pub(super) fn excuse(&mut self, now: Instant, by: Duration) {
        match &mut self.life {
            StatsLife::Leaving { deadline, .. } => *deadline = deadline.after(by),
            StatsLife::Killed { since, .. } => *since = now,
            StatsLife::Absent { .. } | StatsLife::Forking | StatsLife::Serving { .. } => {}
        }
    }
}

impl Supervisor {
    /// Forks one where one is wanted and there is none; tells one to leave that is not wanted.
    pub(super) fn keep_stats(&mut self, now: Instant, out: &mut Vec<Action>) {
        let wanted = self.wants_stats();
        match self.stats.life {
            StatsLife::Absent { not_before } if wanted && not_before <= now => {
                self.stats.life = StatsLife::Forking;
                self.stats.began = now;
                let (child, generation) = (ChildId::STATS, self.settled);
                out.push(Action::Fork { child, task: Task::Stats, generation });
            }
            StatsLife::Serving { .. } if !wanted => self.renew_stats(now, out),
            StatsLife::Absent { .. }
            | StatsLife::Forking
            | StatsLife::Serving { .. }
            | StatsLife::Leaving { .. }
            | StatsLife::Killed { .. } => {}
        }
    }

    /// Until the last worker of a stop is gone.
    fn wants_stats(&self) -> bool {
        let is_over = self.is_stopping() && self.children.is_empty();
        self.policy(self.settled).stats && !is_over
    }

    pub(super) fn note_stats_forked(&mut self, pid: Pid, out: &mut Vec<Action>) {
        if self.stats.life == StatsLife::Forking {
            self.stats.life = StatsLife::Serving { pid };
            self.stats.refusals = Refusals::NONE;
            out.push(Action::Log(Notice::Forked { task: Task::Stats, pid }));
        }
    }

    pub(super) fn note_stats_unforked(
        &mut self,
        now: Instant,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        if self.stats.life == StatsLife::Forking {
            let (not_before, is_said) = self.stats.refusals.note(now);
            self.stats.life = StatsLife::Absent { not_before };
            out.push(Action::Log(Notice::ForkFailed { task: Task::Stats, reason, is_said }));
        }
    }

    pub(super) fn note_stats_exit(
        &mut self,
        now: Instant,
        pid: Pid,
        status: ExitStatus,
        out: &mut Vec<Action>,
    ) {
        let was_told =
            matches!(self.stats.life, StatsLife::Leaving { .. } | StatsLife::Killed { .. });
        let not_before = if was_told {
            self.stats.deaths = 0;
            now
        } else {
            let began = self.stats.began;
            let early = now.since(began) < HEALTHY_LIFE;
            self.stats.deaths = if early { self.stats.deaths.saturating_add(1) } else { 0 };
            let deaths = self.stats.deaths;
            out.push(Action::Log(Notice::StatsExited { pid, status, deaths }));
            began.after(backoff::delay(deaths, self.seed ^ now.as_millis()))
        };
        self.stats.life = StatsLife::Absent { not_before };
    }

    /// It has closed its channel: it cannot be told to leave.
    pub(super) fn note_stats_unheard(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let StatsLife::Serving { pid } | StatsLife::Leaving { pid, .. } = self.stats.life {
            self.kill_stats(now, pid, Kill::Unheard, out);
        }
    }

    fn kill_stats(&mut self, now: Instant, pid: Pid, why: Kill, out: &mut Vec<Action>) {
        self.stats.life = StatsLife::Killed { pid, since: now };
        out.push(Action::Log(Notice::Killing { task: Task::Stats, pid, why }));
        out.push(Action::Signal { pid, signal: ChildSignal::Kill });
    }

    /// Has another take its place, which reads the configuration in force.
    pub(super) fn renew_stats(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let StatsLife::Serving { pid } = self.stats.life {
            self.stats.life = StatsLife::Leaving { pid, deadline: now.after(QUICK) };
            out.push(Action::FinishStats);
        }
    }

    /// Ends one that has not left in time, and waits no longer for one that cannot be ended.
    pub(super) fn expire_stats(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self.stats.life {
            StatsLife::Killed { pid, since }
                if self.given_up_at(since).is_some_and(|at| at <= now) =>
            {
                self.stats.life = StatsLife::Absent { not_before: now };
                out.push(Action::Log(Notice::Unkillable { task: Task::Stats, pid }));
            }
            StatsLife::Leaving { pid, deadline } if self.stats_leave_by(deadline) <= now => {
                self.kill_stats(now, pid, Kill::Leave, out);
            }
            StatsLife::Absent { .. }
            | StatsLife::Forking
            | StatsLife::Serving { .. }
            | StatsLife::Leaving { .. }
            | StatsLife::Killed { .. } => {}
        }
    }

    /// A stop that must be over waits for it no longer.
    fn stats_leave_by(&self, deadline: Instant) -> Instant {
        match self.phase {
            Phase::Stopping { deadline: stop, .. } => deadline.min(stop),
            Phase::New
            | Phase::Preparing { .. }
            | Phase::Starting
            | Phase::Running
            | Phase::Gone => deadline,
        }
    }

    pub(super) fn stats_deadline(&self) -> Option<Instant> {
        match self.stats.life {
            StatsLife::Absent { not_before } => self.wants_stats().then_some(not_before),
            StatsLife::Leaving { deadline, .. } => {
                Some(self.stats_leave_by(deadline).max(self.soon()))
            }
            StatsLife::Killed { since, .. } => {
                self.given_up_at(since).map(|at| at.max(self.soon()))
            }
            StatsLife::Forking | StatsLife::Serving { .. } => None,
        }
    }

    /// Returns true if there is none.
    pub(super) fn is_without_stats(&self) -> bool {
        matches!(self.stats.life, StatsLife::Absent { .. })
    }
}
