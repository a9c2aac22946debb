//! The laws about single orders.

use super::{Judge, Law, Releases, Stop, Trial, millis};
use crate::ids::{ChildId, Generation, Pid, Slot};
use crate::supervisor::Supervisor;
use crate::supervisor::action::{Action, ChildSignal, ExitReason};
use crate::supervisor::notice::{Ending, Notice};
use crate::supervisor::policy::Policy;
use crate::supervisor::stage::{Due, Task, Urgency};
use crate::supervisor::tests::world::machine::{Machine, Process};
use crate::supervisor::tests::world::plan::{DEEP_SLEEP, Release};

/// The circumstances in which an order is given.
pub(crate) struct Scene<'a> {
    pub(crate) now: u64,
    pub(crate) machine: &'a Machine,
    pub(crate) releases: &'a Releases,
    pub(crate) supervisor: &'a Supervisor,
}

impl Scene<'_> {
    fn policy(&self, generation: Generation) -> &Policy {
        &self.releases[&generation].1
    }
}

impl Judge {
    /// An order is about to be obeyed.
    pub(crate) fn order(&mut self, scene: &Scene<'_>, order: &Action) {
        self.holds(Law::EndIsEnd, self.exit.is_none(), || format!("after the end: {order:?}"));
        match order {
            Action::Fork { child: ChildId::LOGGER, .. } => self.fork_logger(scene),
            Action::FinishLogs => self.finish_logger(scene),
            Action::FinishStats => self.breaks(Law::Bounds, "there is no stats process".to_owned()),
            Action::Fork { child, task, generation } => {
                self.fork(scene, *child, *task, *generation);
            }
            Action::Drain { child } => self.drain(scene, *child),
            Action::Stop { child } => self.stop(scene, *child),
            Action::Accept { child, slots } => {
                let serves = scene.machine.process(*child).is_some_and(Process::serves);
                let owned = scene.machine.workers().find(|(it, other)| {
                    other.id != *child && other.serves() && slots.contains(*it)
                });
                if owned.is_some() {
                    self.count("a queue was adopted");
                }
                self.holds(Law::OnlyTheLiving, serves, || format!("{child} does not serve"));
            }
            Action::Signal { pid, signal } => self.signal(scene, *pid, *signal),
            Action::ReadHeartbeat { child } | Action::ReadMemory { child } => {
                let lives = scene.machine.process(*child).is_some();
                self.holds(Law::OnlyTheLiving, lives, || format!("{child} is not there"));
            }
            Action::Load { generation } => self.loading = Some(*generation),
            Action::Use { generation } => self.enter_into_force(scene, *generation),
            Action::Forget { generation } => self.forget(scene, *generation),
            Action::StopListening => self.note_stop(scene),
            Action::Log(notice) => self.notice(scene.now, notice),
            Action::Exit(reason) => self.leave(scene, *reason),
            Action::Steer { slots } => self.steered = Some(*slots),
            Action::OpenSlots { .. }
            | Action::Announce { .. }
            | Action::Watch { .. }
            | Action::Look { .. }
            | Action::Rouse { .. }
            | Action::ReopenLogs
            | Action::Answer { .. }
            | Action::Upgrade => {}
        }
    }

    fn fork(&mut self, scene: &Scene<'_>, id: ChildId, task: Task, generation: Generation) {
        let now = scene.now;
        self.forking.insert(id, task);
        self.holds(Law::NoForkWhenStopping, self.stop.is_none(), || format!("forks {task}"));
        let known = self.remembered.contains(&generation);
        self.holds(Law::Remembered, known, || format!("forks {task} of forgotten {generation}"));
        match task {
            Task::Worker { slot } => {
                let prepared = self.prepared.contains(&generation);
                self.holds(Law::PreparedFirst, prepared, || {
                    format!("generation {generation} is not prepared")
                });
                self.fork_worker(scene, slot);
            }
            Task::Prepare => {
                let waits = self.prepare_refused_at.is_none_or(|at| now - at >= 250);
                self.holds(Law::BackOff, waits, || "prepare was refused just now".to_owned());
            }
            Task::Check => {}
            Task::Logger => self.breaks(Law::Bounds, format!("{id} is no logger")),
            Task::Stats => self.breaks(Law::Bounds, "no policy wants metrics".to_owned()),
        }
    }

    fn fork_worker(&mut self, scene: &Scene<'_>, slot: Slot) {
        let now = scene.now;
        self.heal(scene);
        let record = &mut self.slots[slot.index()];
        let pause = match record.early_deaths {
            0 | 1 => 0,
            deaths => 2000.min(10 << (deaths - 2).min(20)),
        };
        let deaths = record.early_deaths;
        let forked_at = record.forked_at;
        let refused = record.was_refused(now);
        (record.forked_before, record.forked_at) = (record.forked_at, Some(now));
        let waited = forked_at.is_none_or(|at| now - at >= pause);
        self.holds(Law::BackOff, waited, || {
            format!("slot {slot}: after {deaths} deaths it waits {pause} ms from {forked_at:?}")
        });
        self.holds(Law::BackOff, !refused, || format!("slot {slot} was refused just now"));
        if deaths >= 10 {
            self.count("a fork after ten early deaths");
        }
    }

    /// A healthy life ends the record of the deaths before it.
    pub(super) fn heal(&mut self, scene: &Scene<'_>) {
        for (slot, process) in scene.machine.workers().filter(|(_, it)| it.serves()) {
            let record = &mut self.slots[slot.index()];
            if process.ready_at.is_some_and(|at| at >= record.died_at && scene.now - at >= 2000) {
                record.early_deaths = 0;
            }
        }
    }

    fn drain(&mut self, scene: &Scene<'_>, id: ChildId) {
        let Some(slot) = self.ending(scene, id) else { return };
        let parked = slot.number() >= scene.supervisor.wanted;
        let mut others = scene.machine.workers();
        let succeeded =
            others.any(|(at, process)| at == slot && process.id != id && process.serves());
        self.holds(Law::ReplacementFirst, parked || succeeded, || {
            format!("{id} drains, and no other worker serves in slot {slot}")
        });
        self.count(if parked { "a slot was parked" } else { "a worker was replaced" });
    }

    fn stop(&mut self, scene: &Scene<'_>, id: ChildId) {
        if self.ending(scene, id).is_some() {
            self.holds(Law::ReplacementFirst, self.stop.is_some(), || {
                format!("{id} shall stop although the server does not")
            });
        }
    }

    /// Returns the slot of a worker that is to end, which must not have been told so before.
    fn ending(&mut self, scene: &Scene<'_>, id: ChildId) -> Option<Slot> {
        self.heal(scene);
        let process = scene.machine.process(id).filter(|process| process.ready_at.is_some());
        let Some((process, slot)) = process.and_then(|process| Some((process, process.slot()?)))
        else {
            self.breaks(Law::OnlyTheLiving, format!("{id} does not serve"));
            return None;
        };
        self.holds(Law::OrdersOnce, !process.orders.any(), || {
            format!("{id} was told to end before: {:?}", process.orders)
        });
        Some(slot)
    }

    fn signal(&mut self, scene: &Scene<'_>, pid: Pid, signal: ChildSignal) {
        let Some(process) = scene.machine.with_pid(pid) else {
            return self.breaks(Law::OnlyTheLiving, format!("{signal:?} to {pid}: no child's"));
        };
        let orders = process.orders;
        let once = match signal {
            ChildSignal::Quit => {
                orders.quit.is_none() && orders.aborted.is_none() && orders.killed.is_none()
            }
            ChildSignal::Abort => !orders.any(),
            ChildSignal::Kill => orders.killed.is_none(),
        };
        let id = process.id;
        self.holds(Law::OrdersOnce, once, || format!("{signal:?} to {id} after {orders:?}"));
        match signal {
            ChildSignal::Kill if id == ChildId::LOGGER => self.kill_logger(scene, process),
            ChildSignal::Quit => {}
            ChildSignal::Abort => self.abort(scene, process),
            ChildSignal::Kill => self.kill(scene, process),
        }
    }

    /// It must have been silent by its own fault, for all of that time, and for a second of it while
    /// the machine did not sleep.
    fn abort(&mut self, scene: &Scene<'_>, process: &Process) {
        let now = scene.now;
        let stall = millis(scene.policy(process.generation).stall_timeout);
        let ready = process.ready_at.unwrap_or(now);
        let silent = process.hung.map_or(0, |since| now - since.max(ready));
        let awake =
            process.hung.map_or(0, |hung| self.absences.awake_since(hung.max(ready), now, 0));
        let stuck =
            stall > 0 && silent >= stall && awake >= stall.min(1000) && process.starved.is_none();
        self.holds(Law::OnlyTheStuck, stuck, || {
            format!("{} was silent for {silent} ms, {awake} of them awake", process.id)
        });
        self.lost(now, process, ready);
    }

    fn kill(&mut self, scene: &Scene<'_>, process: &Process) {
        let now = scene.now;
        let policy = scene.policy(process.generation);
        let since = |then| self.absences.awake_since(then, now, DEEP_SLEEP);
        let stopped =
            self.stop.is_some_and(|stop| since(stop.others_by) > 0 || stop.others_by <= now);
        let orders = process.orders;
        let over = [
            orders.aborted.map(|then| since(then) >= 2000),
            orders.quit.map(|then| since(then) >= 2000),
            orders.drains_since.map(|then| since(then) >= millis(policy.graceful_timeout)),
        ];
        let booted = since(process.forked_at) >= millis(policy.boot_timeout);
        let tried = self.reload.is_some_and(|reload| reload.generation == process.generation);
        let in_time = match orders.any() {
            true => over.contains(&Some(true)) || (stopped && orders.aborted.is_none()),
            // A worker may boot on in a stop, for want of another.
            false => process.ready_at.is_none() && (booted || tried || stopped),
        };
        self.holds(Law::NoEarlyKill, in_time, || format!("{} is killed too early", process.id));
        if !orders.any() && process.slot().is_some() {
            self.lost(now, process, now);
        }
    }

    /// A slot loses a worker: an early death, or the end of a healthy life.
    pub(super) fn lost(&mut self, now: u64, process: &Process, ready_at: u64) {
        let Some(slot) = process.slot() else { return };
        let record = &mut self.slots[slot.index()];
        if now - ready_at < 2000 {
            record.early_deaths += 1;
            record.died_at = now;
        } else if ready_at >= record.died_at {
            record.early_deaths = 0;
        }
    }

    fn enter_into_force(&mut self, scene: &Scene<'_>, generation: Generation) {
        let release = scene.releases[&generation].0;
        self.in_force = generation;
        let can_live = matches!(release, Release::Good | Release::Partly);
        self.holds(Law::BadReleasesFail, can_live, || {
            format!("generation {generation} is in force: {release:?}")
        });
    }

    fn forget(&mut self, scene: &Scene<'_>, generation: Generation) {
        let used =
            scene.machine.others().any(|other| other.generation == generation && !other.undying);
        let known = self.remembered.remove(&generation);
        self.holds(Law::Remembered, known && !used && generation != self.in_force, || {
            format!("generation {generation} is forgotten; known: {known}, used: {used}")
        });
    }

    /// New connections are refused: for a signal, or because no worker can boot or be prepared.
    fn note_stop(&mut self, scene: &Scene<'_>) {
        if self.stop.is_some() {
            return;
        }
        if let Some(announced) = self.announced.take() {
            self.holds(Law::UrgencyRises, scene.now >= announced.until, || {
                format!("it was to serve until {}", announced.until)
            });
            let timeout = millis(scene.releases[&self.in_force].1.graceful_timeout);
            return self.stop_by(scene.now, Urgency::Graceful, timeout, ExitReason::Stopped);
        }
        let wanted = usize::from(scene.supervisor.wanted);
        let unlivable =
            self.none_ready && self.slots.iter().take(wanted).all(|record| record.early_deaths > 0);
        let reason = match (self.unprepared, unlivable) {
            (true, _) => ExitReason::Prepare,
            (false, true) => ExitReason::WorkerBoot,
            (false, false) => {
                return self.breaks(Law::ExitCodes, "it stops without a reason".to_owned());
            }
        };
        self.stop_by(scene.now, Urgency::Quick, 2000, reason);
    }

    /// The server stops, or does so more urgently.
    pub(super) fn stop_by(&mut self, now: u64, urgency: Urgency, timeout: u64, reason: ExitReason) {
        // Killing takes a moment; who was aborted just before has its own two seconds. Before the
        // deadline there is some time for the last lines. One that `KILL` does not end is waited for.
        let undying = if self.undying { 5000 } else { 0 };
        let deadline = now + timeout;
        let gone_by = now + timeout.max(2000) + 60 + undying;
        let others_by = deadline - (timeout / 4).min(250);
        let stop = Stop { urgency, deadline, others_by, gone_by, reason };
        let before = self.stop.unwrap_or(stop);
        self.stop = Some(Stop {
            urgency: urgency.max(before.urgency),
            deadline: deadline.min(before.deadline),
            others_by: others_by.min(before.others_by),
            gone_by: gone_by.min(before.gone_by),
            reason: before.reason,
        });
    }

    fn leave(&mut self, scene: &Scene<'_>, reason: ExitReason) {
        self.exit = Some(reason);
        let left = scene.machine.processes.iter().filter(|process| !process.undying).count();
        self.holds(Law::StopsInTime, left == 0, || format!("{left} children are left behind"));
        let meant = self.stop.map(|stop| stop.reason);
        self.holds(Law::ExitCodes, meant == Some(reason), || format!("{reason:?}, not {meant:?}"));
        if scene.machine.processes.len() > left {
            self.count("a child was left behind");
        }
        self.count(match reason {
            ExitReason::Stopped => "exit 0",
            ExitReason::WorkerBoot => "exit 3",
            ExitReason::Prepare => "exit 4",
        });
    }

    fn notice(&mut self, now: u64, notice: &Notice) {
        match notice {
            Notice::Reloading { generation } => {
                let wanted = std::mem::take(&mut self.reload_wanted);
                self.holds(Law::HupsCoalesce, wanted && self.reload.is_none(), || {
                    format!("generation {generation} is loaded, and was not asked for")
                });
                self.reload =
                    Some(Trial { generation: *generation, from: self.in_force, began: now });
            }
            Notice::Reloaded { .. } | Notice::ReloadFailed { .. } => self.reload = None,
            Notice::Due { pid, why: Due::ByHand, .. } => {
                self.told_by_hand.insert(*pid);
            }
            Notice::Stopping { urgency, .. } => {
                let urgent = self.stop.is_some_and(|stop| stop.urgency == *urgency);
                self.holds(Law::UrgencyRises, urgent, || format!("it stops {urgency:?} now"));
            }
            _ => {}
        }
        if let Some(what) = worth_counting(notice) {
            self.count(what);
        }
    }
}

/// The happenings that are counted: see `MUST_HAPPEN`.
fn worth_counting(notice: &Notice) -> Option<&'static str> {
    Some(match notice {
        Notice::Reloaded { .. } => "a reload succeeded",
        Notice::ReloadFailed { .. } => "a reload failed",
        Notice::Exited { ending: Ending::Boot, .. } => "a worker failed to boot",
        Notice::Exited { ending: Ending::Died, .. } => "a worker died",
        Notice::Exited { ending: Ending::Stalled, .. } => "a worker was aborted",
        Notice::Exited { ending: Ending::Left, .. } => "a worker left",
        Notice::Exited { ending: Ending::DiedDraining, .. } => "a worker died while draining",
        Notice::Exited { ending: Ending::Overstayed, .. } => "a worker overstayed",
        Notice::Starved { .. } => "a worker was starved",
        Notice::SlotsFailing { .. } => "workers could not live for a minute",
        Notice::Due { why: Due::Requests, .. } => "a worker had served enough",
        Notice::Due { why: Due::Memory { .. }, .. } => "a worker was too large",
        Notice::Due { why: Due::Lifetime, .. } => "a worker was too old",
        Notice::Due { why: Due::Restart, .. } => "a worker was restarted",
        Notice::Due { why: Due::ByHand, .. } => "a worker was told to leave by hand",
        Notice::ForkFailed { .. } => "a fork was refused",
        Notice::UpgradeFailed { .. } => "an upgrade was refused",
        Notice::WorkerTooLarge { .. } => "a worker was too large from the start",
        Notice::ReloadDelayed { .. } => "a reload waited for old workers",
        Notice::StopAnnounced { .. } => "a stop was announced",
        Notice::Ignored { .. } => "a signal was ignored",
        Notice::Resized { .. } => "the number of workers was changed",
        Notice::SizeKept { .. } => "the number of workers was kept",
        Notice::LoggerExited { .. } => "the logger died",
        Notice::StatsExited { .. } => "the stats process died",
        Notice::Killing { task: Task::Logger, .. } => "the logger was killed",
        Notice::Forked { .. }
        | Notice::Ready { .. }
        | Notice::Killing { .. }
        | Notice::Stalled { .. }
        | Notice::Unkillable { .. }
        | Notice::BootFailed
        | Notice::PrepareFailed { .. }
        | Notice::Reloading { .. }
        | Notice::Stopping { .. }
        | Notice::Exiting => return None,
    })
}
