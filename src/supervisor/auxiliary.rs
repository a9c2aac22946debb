//! The two processes beside the workers: the logger, forked before any other child and the last to end,
//! and the stats process, forked where the configuration in force wants it. Each is replaced when it dies.
//!
//! They are no children among the others, for little that holds for these holds for them: they have no slot
//! and no readiness. What is written while there is no logger waits for the next; what connects while there
//! is no stats process does, too: its numbers are in memory that others write, its listener is the master's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ChildId, Pid};
use crate::supervisor::action::{Action, ChildSignal};
use crate::supervisor::backoff::Refusals;
use crate::supervisor::event::ExitStatus;
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::{FAILING, HEALTHY_LIFE, QUICK};
use crate::supervisor::stage::{Kill, Task};
use crate::supervisor::{Supervisor, backoff};
use crate::time::Instant;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Logger,
    Stats,
}

impl Role {
    pub(super) const ALL: [Self; 2] = [Self::Logger, Self::Stats];

    /// The role of the child with this number, unless it is one of the others.
    pub(super) fn of(child: ChildId) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.id() == child)
    }

    fn id(self) -> ChildId {
        match self {
            Self::Logger => ChildId::LOGGER,
            Self::Stats => ChildId::STATS,
        }
    }

    fn task(self) -> Task {
        match self {
            Self::Logger => Task::Logger,
            Self::Stats => Task::Stats,
        }
    }
}

/// The supervisor's knowledge of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Auxiliary {
    pub(super) life: Life,
    /// Early deaths in a row.
    deaths: u32,
    /// When the last one was forked.
    began: Instant,
    refusals: Refusals,
}

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Life {
    /// There is none; if one is wanted, it is forked at this time.
    Absent { not_before: Instant },
    /// Ordered; the kernel has not answered.
    Forking,
    /// At work.
    Working { pid: Pid },
    /// Told to finish; killed at the deadline.
    Finishing { pid: Pid, told_at: Instant, deadline: Instant },
    /// Killed; to be reaped.
    Killed { pid: Pid, since: Instant },
    /// The last line of every process is written.
    Done,
}

impl Auxiliary {
    pub(super) const UNBORN: Self = Self {
        life: Life::Absent { not_before: Instant::from_millis(0) },
        deaths: 0,
        began: Instant::from_millis(0),
        refusals: Refusals::NONE,
    };

    fn pid(&self) -> Option<Pid> {
        match self.life {
            Life::Working { pid } | Life::Finishing { pid, .. } | Life::Killed { pid, .. } => {
                Some(pid)
            }
            Life::Absent { .. } | Life::Forking | Life::Done => None,
        }
    }

    /// Gives it so much longer: the machine slept.
    pub(super) fn excuse(&mut self, now: Instant, by: Duration) {
        match &mut self.life {
            Life::Finishing { deadline, .. } => *deadline = deadline.after(by),
            Life::Killed { since, .. } => *since = now,
            Life::Absent { .. } | Life::Forking | Life::Working { .. } | Life::Done => {}
        }
    }
}

impl Supervisor {
    pub(super) fn auxiliary(&self, role: Role) -> &Auxiliary {
        match role {
            Role::Logger => &self.logger,
            Role::Stats => &self.stats,
        }
    }

    fn auxiliary_mut(&mut self, role: Role) -> &mut Auxiliary {
        match role {
            Role::Logger => &mut self.logger,
            Role::Stats => &mut self.stats,
        }
    }

    /// The role of the process with this pid, unless it is one of the others.
    pub(super) fn role(&self, pid: Pid) -> Option<Role> {
        Role::ALL.into_iter().find(|role| self.auxiliary(*role).pid() == Some(pid))
    }

    /// Forks one where one is wanted and there is none; tells one to leave that is not wanted.
    pub(super) fn keep(&mut self, role: Role, now: Instant, out: &mut Vec<Action>) {
        let wanted = match role {
            Role::Logger => self.last_lines_by().is_none_or(|by| now < by),
            Role::Stats => self.wants_stats(),
        };
        match self.auxiliary(role).life {
            Life::Absent { not_before } if wanted && not_before <= now => {
                let forked = self.auxiliary_mut(role);
                (forked.life, forked.began) = (Life::Forking, now);
                let child = role.id();
                let task = role.task();
                let generation = self.settled;
                out.push(Action::Fork { child, task, generation });
            }
            Life::Working { .. } if !wanted && role == Role::Stats => {
                self.finish(role, now, now.after(QUICK), out);
            }
            Life::Absent { .. }
            | Life::Forking
            | Life::Working { .. }
            | Life::Finishing { .. }
            | Life::Killed { .. }
            | Life::Done => {}
        }
    }

    /// Until the last worker of a stop is gone.
    fn wants_stats(&self) -> bool {
        let is_over = self.is_stopping() && self.children.is_empty();
        self.policy(self.settled).stats && !is_over
    }

    pub(super) fn note_auxiliary_forked(&mut self, role: Role, pid: Pid, out: &mut Vec<Action>) {
        let forked = self.auxiliary_mut(role);
        if forked.life != Life::Forking {
            return;
        }
        (forked.life, forked.refusals) = (Life::Working { pid }, Refusals::NONE);
        out.push(Action::Log(Notice::Forked { task: role.task(), pid }));
        if role == Role::Logger {
            // It opens its files by their paths.
            self.note_reopened(true, out);
        }
    }

    pub(super) fn note_auxiliary_unforked(
        &mut self,
        role: Role,
        now: Instant,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        let absent = self.auxiliary_mut(role);
        if absent.life == Life::Forking {
            let (not_before, is_said) = absent.refusals.note(now);
            absent.life = Life::Absent { not_before };
            out.push(Action::Log(Notice::ForkFailed { task: role.task(), reason, is_said }));
        }
    }

    pub(super) fn note_auxiliary_exit(
        &mut self,
        role: Role,
        now: Instant,
        pid: Pid,
        status: ExitStatus,
        out: &mut Vec<Action>,
    ) {
        let alone_since = self.alone_since;
        let seed = self.seed ^ now.as_millis();
        let ended = self.auxiliary_mut(role);
        let (was_told, told_at) = match ended.life {
            // A logger that was told to finish, and fails, has not written what it was to write.
            Life::Finishing { told_at, .. } => {
                (role == Role::Stats || status.is_clean(), Some(told_at))
            }
            Life::Killed { .. } => (true, None),
            Life::Absent { .. } | Life::Forking | Life::Working { .. } | Life::Done => {
                (false, None)
            }
        };
        let early = !was_told && now.since(ended.began) < HEALTHY_LIFE;
        ended.deaths = if early { ended.deaths.saturating_add(1) } else { 0 };
        let deaths = ended.deaths;
        let was_last = was_told
            && role == Role::Logger
            && alone_since.is_some_and(|since| told_at.is_some_and(|told_at| told_at >= since));
        let delayed = ended.began.after(backoff::delay(deaths, seed));
        ended.life = match was_last {
            true => Life::Done,
            false => Life::Absent { not_before: if was_told { now } else { delayed } },
        };
        if !was_told {
            out.push(Action::Log(match role {
                Role::Logger => Notice::LoggerExited { pid, status, deaths },
                Role::Stats => Notice::StatsExited { pid, status, deaths },
            }));
        }
    }

    /// It has closed its channel: it cannot be told to finish.
    pub(super) fn note_auxiliary_unheard(
        &mut self,
        role: Role,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if let Life::Working { pid } | Life::Finishing { pid, .. } = self.auxiliary(role).life {
            self.kill_auxiliary(role, now, pid, Kill::Unheard, out);
        }
    }

    fn kill_auxiliary(
        &mut self,
        role: Role,
        now: Instant,
        pid: Pid,
        why: Kill,
        out: &mut Vec<Action>,
    ) {
        self.auxiliary_mut(role).life = Life::Killed { pid, since: now };
        out.push(Action::Log(Notice::Killing { task: role.task(), pid, why }));
        out.push(Action::Signal { pid, signal: ChildSignal::Kill });
    }

    /// Has others take their place, which open what the configuration in force names.
    pub(super) fn renew_auxiliaries(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !self.is_stopping() {
            let timeout = self.policy(self.settled).graceful_timeout;
            self.finish(Role::Logger, now, now.after(timeout), out);
        }
        self.finish(Role::Stats, now, now.after(QUICK), out);
    }

    /// Every other child is gone: has the last lines written. Returns true if that is done, or its time
    /// is over.
    pub(super) fn part_with_logger(&mut self, now: Instant, out: &mut Vec<Action>) -> bool {
        if self.alone_since.is_none() {
            self.alone_since = Some(now);
            // The last line that the master has to say.
            out.push(Action::Log(Notice::Exiting));
        }
        let by = self.last_lines_by().unwrap_or(now);
        self.finish(Role::Logger, now, by, out);
        match &mut self.logger.life {
            Life::Done => true,
            Life::Absent { .. } => by <= now || self.is_logger_failing(),
            Life::Finishing { deadline, .. } => {
                *deadline = by.min(*deadline);
                false
            }
            Life::Forking | Life::Working { .. } | Life::Killed { .. } => false,
        }
    }

    /// Returns true if loggers keep dying early: the next one would write no more than they did.
    pub(crate) fn is_logger_failing(&self) -> bool {
        self.logger.deaths >= FAILING
    }

    /// Returns true if there is no stats process.
    pub(super) fn is_without_stats(&self) -> bool {
        matches!(self.stats.life, Life::Absent { .. })
    }

    fn finish(&mut self, role: Role, now: Instant, deadline: Instant, out: &mut Vec<Action>) {
        let working = self.auxiliary_mut(role);
        if let Life::Working { pid } = working.life {
            working.life = Life::Finishing { pid, told_at: now, deadline };
            out.push(match role {
                Role::Logger => Action::FinishLogs,
                Role::Stats => Action::FinishStats,
            });
        }
    }

    /// Ends one that has not left in time, and waits no longer for one that cannot be ended.
    pub(super) fn expire_auxiliary(&mut self, role: Role, now: Instant, out: &mut Vec<Action>) {
        if self.auxiliary_deadline(role).is_none_or(|at| at > now) {
            return;
        }
        match self.auxiliary(role).life {
            Life::Finishing { pid, .. } => self.kill_auxiliary(role, now, pid, Kill::Leave, out),
            Life::Killed { pid, .. } => {
                self.auxiliary_mut(role).life = match role {
                    Role::Logger => Life::Done,
                    Role::Stats => Life::Absent { not_before: now },
                };
                out.push(Action::Log(Notice::Unkillable { task: role.task(), pid }));
            }
            Life::Absent { .. } | Life::Forking | Life::Working { .. } | Life::Done => {}
        }
    }

    /// When it is forked, killed, or waited for no longer.
    pub(super) fn auxiliary_deadline(&self, role: Role) -> Option<Instant> {
        let stop = self.stop_deadline();
        match (self.auxiliary(role).life, role) {
            (Life::Absent { not_before }, Role::Logger) => {
                Some(self.last_lines_by().map_or(not_before, |by| by.min(not_before)))
            }
            (Life::Absent { not_before }, Role::Stats) => self.wants_stats().then_some(not_before),
            (Life::Finishing { deadline, .. }, Role::Logger) => Some(deadline),
            // A stop that must be over waits for it no longer.
            (Life::Finishing { deadline, .. }, Role::Stats) => {
                Some(stop.map_or(deadline, |stop| stop.min(deadline)))
            }
            // A later one might write what this one could not: until the server has stopped.
            (Life::Killed { .. }, Role::Logger) if self.alone_since.is_none() => None,
            (Life::Killed { since, .. }, _) => self.given_up_at(since),
            (Life::Forking | Life::Working { .. } | Life::Done, _) => None,
        }
    }

    /// By when the last lines must be written: when the server must have stopped.
    fn last_lines_by(&self) -> Option<Instant> {
        self.alone_since.and_then(|_| self.stop_deadline())
    }
}
