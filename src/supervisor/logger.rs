//! The logger: forked before any other child, replaced when it dies, and the last to leave.
//!
//! It is no child among the others, for little that holds for them holds for it: it has no slot and no
//! readiness, and it outlives every other child. What is written while there is none waits for the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, Pid};
use crate::supervisor::action::{Action, ChildSignal};
use crate::supervisor::backoff::Refusals;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::{FAILING, HEALTHY_LIFE, UNKILLABLE};
use crate::supervisor::stage::{Kill, Task};
use crate::supervisor::{Phase, Supervisor, backoff};
use crate::time::Instant;

/// The supervisor's knowledge of the logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Logger {
    pub(super) life: Life,
    /// Early deaths in a row.
    deaths: u32,
    /// When the last one was forked.
    began: Instant,
    refusals: Refusals,
    /// The time since when every other child is gone, and the last lines are to be written.
    pub(super) alone_since: Option<Instant>,
}

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Life {
    /// There is none; the next is forked at this time.
    Absent { not_before: Instant },
    /// Ordered; the kernel has not answered.
    Forking,
    /// At work.
    Writing { pid: Pid },
    /// Told to write what is there, and to leave; killed at the deadline.
    Leaving { pid: Pid, told_at: Instant, deadline: Instant },
    /// Killed; to be reaped.
    Killed { pid: Pid, since: Instant },
    /// The last line of every process is written.
    Done,
}

impl Logger {
    pub(super) const UNBORN: Self = Self {
        life: Life::Absent { not_before: Instant::from_millis(0) },
        deaths: 0,
        began: Instant::from_millis(0),
        refusals: Refusals::NONE,
        alone_since: None,
    };

    /// Returns true if this is its pid.
    pub(super) fn is(&self, other: Pid) -> bool {
        match self.life {
            Life::Writing { pid } | Life::Leaving { pid, .. } | Life::Killed { pid, .. } => {
                pid == other
            }
            Life::Absent { .. } | Life::Forking | Life::Done => false,
        }
    }

    /// Returns true if this is its pid, and it was killed.
    pub(super) fn is_killed(&self, other: Pid) -> bool {
        matches!(self.life, Life::Killed { pid, .. } if pid == other)
    }

    /// Returns true if it was told to leave, or killed, and is there still.
    #[cfg(test)]
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.life, Life::Leaving { .. } | Life::Killed { .. })
    }

    /// Gives it so much longer: the machine slept.
    pub(super) fn excuse(&mut self, now: Instant, by: Duration) {
        match &mut self.life {
            Life::Leaving { deadline, .. } => *deadline = deadline.after(by),
            Life::Killed { since, .. } => *since = now,
            Life::Absent { .. } | Life::Forking | Life::Writing { .. } | Life::Done => {}
        }
        self.alone_since = self.alone_since.map(|since| since.after(by));
    }
}

impl Supervisor {
    /// Sees to it that there is one.
    pub(super) fn keep_logger(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Life::Absent { not_before } = self.logger.life
            && not_before <= now
            && self.last_lines_by().is_none_or(|by| now < by)
        {
            self.logger.life = Life::Forking;
            self.logger.began = now;
            let (child, generation) = (ChildId::LOGGER, self.settled);
            out.push(Action::Fork { child, task: Task::Logger, generation });
        }
    }

    pub(super) fn note_logger_forked(&mut self, pid: Pid, out: &mut Vec<Action>) {
        if self.logger.life == Life::Forking {
            self.logger.life = Life::Writing { pid };
            self.logger.refusals = Refusals::NONE;
            out.push(Action::Log(Notice::Forked { task: Task::Logger, pid }));
            // It opens its files by their paths.
            self.note_reopened(true, out);
        }
    }

    pub(super) fn note_logger_unforked(
        &mut self,
        now: Instant,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        if self.logger.life == Life::Forking {
            let (not_before, is_said) = self.logger.refusals.note(now);
            self.logger.life = Life::Absent { not_before };
            out.push(Action::Log(Notice::ForkFailed { task: Task::Logger, reason, is_said }));
        }
    }

    pub(super) fn note_logger_exit(
        &mut self,
        now: Instant,
        (pid, status): (Pid, ExitStatus),
        out: &mut Vec<Action>,
    ) {
        self.logger.life = match self.logger.life {
            Life::Leaving { told_at, .. } if status.is_clean() => {
                self.logger.deaths = 0;
                let was_last = self.logger.alone_since.is_some_and(|since| told_at >= since);
                if was_last { Life::Done } else { Life::Absent { not_before: now } }
            }
            // It was told to leave, and could not.
            Life::Killed { .. } => {
                self.logger.deaths = 0;
                Life::Absent { not_before: now }
            }
            Life::Absent { .. }
            | Life::Forking
            | Life::Writing { .. }
            | Life::Leaving { .. }
            | Life::Done => {
                let began = self.logger.began;
                let early = now.since(began) < HEALTHY_LIFE;
                self.logger.deaths = if early { self.logger.deaths.saturating_add(1) } else { 0 };
                let deaths = self.logger.deaths;
                out.push(Action::Log(Notice::LoggerExited { pid, status, deaths }));
                let delay = backoff::delay(deaths, self.seed ^ now.as_millis());
                Life::Absent { not_before: began.after(delay) }
            }
        };
    }

    /// It has closed its channel: it cannot be told to leave.
    pub(super) fn note_logger_unheard(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Life::Writing { pid } | Life::Leaving { pid, .. } = self.logger.life {
            self.logger.life = Life::Killed { pid, since: now };
            out.push(Action::Log(Notice::Killing { task: Task::Logger, pid, why: Kill::Unheard }));
            out.push(Action::Signal { pid, signal: ChildSignal::Kill });
        }
    }

    /// Has another take its place, which opens what the configuration in force names.
    pub(super) fn renew_logger(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        let patience = self.policy(self.settled).graceful_timeout;
        self.finish_logger(now, now.after(patience), out);
    }

    /// Every other child is gone: has the last lines written. Returns true if that is done, or its time
    /// is over.
    pub(super) fn part_with_logger(&mut self, now: Instant, out: &mut Vec<Action>) -> bool {
        if self.logger.alone_since.is_none() {
            self.logger.alone_since = Some(now);
            // The last line that the master has to say.
            out.push(Action::Log(Notice::Leaving));
        }
        let by = self.last_lines_by().unwrap_or(now);
        self.finish_logger(now, by, out);
        match &mut self.logger.life {
            Life::Done => true,
            Life::Absent { .. } => by <= now || self.is_logger_failing(),
            Life::Leaving { deadline, .. } => {
                *deadline = by.min(*deadline);
                false
            }
            Life::Forking | Life::Writing { .. } | Life::Killed { .. } => false,
        }
    }

    /// Returns true if loggers keep dying early: the next one would write no more than they did.
    pub(crate) fn is_logger_failing(&self) -> bool {
        self.logger.deaths >= FAILING
    }

    fn finish_logger(&mut self, now: Instant, deadline: Instant, out: &mut Vec<Action>) {
        if let Life::Writing { pid } = self.logger.life {
            self.logger.life = Life::Leaving { pid, told_at: now, deadline };
            out.push(Action::FinishLogs);
        }
    }

    /// Ends one that has had its time, and waits no longer for one that cannot be ended.
    pub(super) fn expire_logger(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Life::Killed { pid, .. } = self.logger.life
            && self.logger_deadline().is_some_and(|at| at <= now)
        {
            self.logger.life = Life::Done;
            out.push(Action::Log(Notice::Unkillable { task: Task::Logger, pid }));
        }
        if let Life::Leaving { pid, deadline, .. } = self.logger.life
            && deadline <= now
        {
            self.logger.life = Life::Killed { pid, since: now };
            out.push(Action::Log(Notice::Killing { task: Task::Logger, pid, why: Kill::Leave }));
            out.push(Action::Signal { pid, signal: ChildSignal::Kill });
        }
    }

    pub(super) fn logger_deadline(&self) -> Option<Instant> {
        match self.logger.life {
            Life::Absent { not_before } => {
                Some(self.last_lines_by().map_or(not_before, |by| by.min(not_before)))
            }
            Life::Leaving { deadline, .. } => Some(deadline.max(self.soon())),
            // A later one might write what this one could not: until the server has stopped.
            Life::Killed { since, .. } => {
                self.last_lines_by().map(|by| by.max(since).after(UNKILLABLE))
            }
            Life::Forking | Life::Writing { .. } | Life::Done => None,
        }
    }

    /// By when the last lines must be written: when the server must have stopped.
    fn last_lines_by(&self) -> Option<Instant> {
        self.logger.alone_since?;
        match self.phase {
            Phase::Stopping { deadline, .. } => Some(deadline),
            Phase::New
            | Phase::Preparing { .. }
            | Phase::Starting
            | Phase::Running
            | Phase::Gone => None,
        }
    }
}
