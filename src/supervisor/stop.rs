//! The end: every child is told to end, more urgently if need be, and killed at the deadline.

use std::time::Duration;

use crate::ids::{ChildId, Pid, SlotSet};
use crate::supervisor::action::{Action, ChildSignal, ExitReason};
use crate::supervisor::notice::Notice;
use crate::supervisor::policy::{LAST_LINES, QUICK};
use crate::supervisor::stage::{Child, Stage, Urgency};
use crate::supervisor::upgrade::Upgrade;
use crate::supervisor::{Phase, Supervisor};
use crate::time::Instant;

impl Supervisor {
    /// Begins to stop gracefully, after a time in which balancers learn of it, if one is configured.
    pub(super) fn announce(&mut self, now: Instant, out: &mut Vec<Action>) {
        let announce = self.policy(self.settled).announce;
        if self.announced.is_some() {
            return;
        }
        if announce.is_zero() || self.phase != Phase::Running {
            return self.stop(now, Urgency::Graceful, ExitReason::Stopped, out);
        }
        self.announced = Some(now.after(announce));
        self.reload_again = false;
        self.upgrade = Upgrade::Idle;
        self.drop_commands(out);
        let timeout = self.policy(self.settled).graceful_timeout;
        out.push(Action::Log(Notice::StopAnnounced { announce, timeout }));
        let accepts = |child: &&Child| child.is_serving() || child.is_yielding();
        let workers = self.children.iter().filter(accepts);
        out.extend(workers.map(|child| Action::Announce { child: child.id }));
    }

    /// Begins to stop, or stops more urgently. Less urgent wishes change nothing.
    pub(super) fn stop(
        &mut self,
        now: Instant,
        urgency: Urgency,
        reason: ExitReason,
        out: &mut Vec<Action>,
    ) {
        let timeout = self.stop_timeout(urgency);
        let deadline = now.after(timeout);
        self.announced = None;
        match self.phase {
            Phase::Gone => return,
            Phase::Stopping { urgency: already, .. } if already >= urgency => return,
            Phase::Stopping { reason, deadline: before, .. } => {
                let deadline = deadline.min(before);
                self.phase = Phase::Stopping { urgency, deadline, reason, replacement: None };
            }
            Phase::New | Phase::Preparing { .. } | Phase::Starting | Phase::Running => {
                let replacement = self.replacement().filter(|_| urgency == Urgency::Graceful);
                self.phase = Phase::Stopping { urgency, deadline, reason, replacement };
                self.reload = None;
                self.reload_again = false;
                self.upgrade = Upgrade::Idle;
                self.drop_commands(out);
                out.push(Action::StopListening);
            }
        }
        out.push(Action::Log(Notice::Stopping { urgency, timeout }));
    }

    fn stop_timeout(&self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Graceful => self.policy(self.settled).graceful_timeout,
            Urgency::Quick => QUICK,
        }
    }

    /// Where no worker serves any more, the replacement that boots: connections that wait in the
    /// queues waits for it.
    fn replacement(&self) -> Option<ChildId> {
        let accepts = |child: &Child| child.is_serving() || child.is_yielding();
        if self.phase != Phase::Running || self.children.iter().any(accepts) {
            return None;
        }
        let boots = |child: &&Child| child.slot().is_some() && child.is_starting();
        self.children.iter().find(boots).map(|child| child.id)
    }

    /// Tells each child to end that was not told so urgently before; when none is left, neither is the
    /// master.
    pub(super) fn reconcile_stop(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Phase::Stopping { urgency, deadline, reason, replacement } = self.phase else { return };
        // A child that takes all of the time, and must be killed, leaves the logger some of it.
        let quarter = self.stop_timeout(urgency).checked_div(4).unwrap_or_default();
        let deadline = deadline.before(LAST_LINES.min(quarter));
        let quick = now.after(QUICK).min(deadline);
        // No queue is left to one worker, which may be stuck, or die: no sibling is told later.
        let everywhere: SlotSet = self.slots().collect();
        for child in &mut self.children {
            let id = child.id;
            match (&mut child.stage, urgency) {
                (Stage::Draining { deadline: own, urgency: already, .. }, urgency)
                    if *already >= urgency =>
                {
                    // Its own generation's timeout may be longer than the server's.
                    *own = deadline.min(*own);
                }
                (Stage::Serving { pid, .. } | Stage::Yielding { pid, .. }, Urgency::Graceful) => {
                    if child.accepting != everywhere {
                        child.accepting = everywhere;
                        out.push(Action::Accept { child: id, slots: everywhere });
                    }
                    out.push(Action::Stop { child: id });
                    child.stage = Stage::Draining { pid: *pid, deadline, urgency };
                }
                (Stage::Booting { deadline: own, .. }, Urgency::Graceful)
                    if replacement == Some(id) =>
                {
                    *own = deadline.min(*own);
                }
                (Stage::Draining { pid, deadline: own, .. }, _) => {
                    let deadline = quick.min(*own);
                    child.stage = quit(*pid, deadline, out);
                }
                (
                    Stage::Booting { pid, .. }
                    | Stage::Serving { pid, .. }
                    | Stage::Yielding { pid, .. },
                    _,
                ) => child.stage = quit(*pid, quick, out),
                (Stage::Forking | Stage::Aborting { .. } | Stage::Killed { .. }, _) => {}
            }
        }
        if !self.children.is_empty() {
            return;
        }
        // The logger writes the lines of the stats process.
        if self.is_without_stats() && self.part_with_logger(now, out) {
            self.phase = Phase::Gone;
            out.push(Action::Exit(reason));
        }
    }
}

/// Tells a process to quit.
pub(super) fn quit(pid: Pid, deadline: Instant, out: &mut Vec<Action>) -> Stage {
    out.push(Action::Signal { pid, signal: ChildSignal::Quit });
    Stage::Draining { pid, deadline, urgency: Urgency::Quick }
}
