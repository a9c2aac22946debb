//! The laws about how things stand after a fact, and about time.

use super::orders::Scene;
use super::{Announced, Judge, Law, millis};
use crate::ids::{ChildId, Generation, Slot, SlotSet};
use crate::supervisor::Phase;
use crate::supervisor::Supervisor;
use crate::supervisor::action::ExitReason;
use crate::supervisor::event::{Event, ExitStatus, Signal};
use crate::supervisor::stage::{Stage, Task, Urgency};
use crate::supervisor::tests::world::machine::Process;
use crate::supervisor::tests::world::plan::Release;
use crate::supervisor::upgrade::Upgrade;
use crate::supervisor::watch::Drainage;
use crate::time::Instant;

impl Judge {
    /// A fact is about to be told.
    pub(crate) fn fact(&mut self, scene: &Scene<'_>, fact: &Event) {
        let now = scene.now;
        match fact {
            Event::Signalled(Signal::Reload) | Event::Upgraded => {
                self.reload_wanted |= self.stop.is_none() && self.announced.is_none();
            }
            Event::Signalled(Signal::Terminate) if self.announced.is_some() => {}
            Event::Signalled(Signal::Terminate) => {
                let policy = &scene.releases[&self.in_force].1;
                let announce = millis(policy.announce);
                let timeout = millis(policy.graceful_timeout);
                if announce > 0 && self.stop.is_none() && scene.supervisor.phase == Phase::Running {
                    let until = now + announce;
                    self.announced = Some(Announced { until, begun_by: until + 60 });
                    self.reload_wanted = false;
                } else {
                    self.stop_by(now, Urgency::Graceful, timeout, ExitReason::Stopped);
                }
            }
            Event::Signalled(Signal::Interrupt | Signal::Quit) => {
                self.announced = None;
                self.stop_by(now, Urgency::Quick, 2000, ExitReason::Stopped);
            }
            Event::Ready { child }
                if scene.machine.process(*child).is_some_and(|process| !process.orders.any()) =>
            {
                self.none_ready = false;
            }
            Event::Forked { child, .. } => {
                if let Some(Task::Worker { slot }) = self.forking.remove(child) {
                    self.slots[slot.index()].refusals = 0;
                }
            }
            Event::MemoryRead { child, bytes } => self.note_memory(scene, *child, *bytes),
            Event::ForkFailed { child, .. } => self.note_refused(now, *child),
            Event::Loaded(result) => {
                if let (Some(generation), Ok(_)) = (self.loading.take(), result) {
                    self.remembered.insert(generation);
                }
            }
            Event::Queued { .. } => self.queued.push_back(now),
            Event::Signalled(_)
            | Event::Ready { .. }
            | Event::Started
            | Event::Tick
            | Event::WorkerDue { .. }
            | Event::Exited { .. }
            | Event::Unheard { .. }
            | Event::SlotsOpen { .. }
            | Event::QueueLength { .. }
            | Event::Heartbeat { .. }
            | Event::NeedsTime { .. }
            | Event::Commanded { .. }
            | Event::Abandoned { .. }
            | Event::Reopened { .. }
            | Event::UpgradeFailed { .. } => {}
        }
    }

    /// A worker that is above its limit as soon as it serves is an early death, although it serves on.
    fn note_memory(&mut self, scene: &Scene<'_>, id: ChildId, bytes: u64) {
        let known = scene.supervisor.children.iter().find(|child| child.id == id);
        let due =
            known.is_none_or(|known| !matches!(known.stage, Stage::Serving { due: None, .. }));
        let Some(process) = scene.machine.process(id) else { return };
        let limit = scene.releases[&process.generation].1.max_memory;
        let ready_at = process.ready_at.unwrap_or(scene.now);
        if limit > 0 && bytes > limit && !due && scene.now - ready_at < 2000 {
            self.lost(scene.now, process, ready_at);
        }
    }

    fn note_refused(&mut self, now: u64, id: ChildId) {
        match self.forking.remove(&id) {
            Some(Task::Worker { slot }) => {
                let record = &mut self.slots[slot.index()];
                record.forked_at = record.forked_before;
                record.refused_at = Some(now);
                record.refusals += 1;
            }
            Some(Task::Prepare) => self.prepare_refused_at = Some(now),
            Some(Task::Logger) => {
                self.logger.forked_at = self.logger.forked_before;
                self.logger.refused_at = Some(now);
            }
            Some(Task::Stats | Task::Check) | None => {}
        }
    }

    /// A child is about to be reaped.
    pub(crate) fn ended(&mut self, now: u64, process: &Process, status: ExitStatus) {
        let told_by_hand = self.told_by_hand.remove(&process.pid);
        match process.task {
            Task::Worker { slot } if !process.orders.any() => {
                let ready_at = process.ready_at.unwrap_or(now);
                let early = now - ready_at < 2000;
                // A ready worker that is killed by hand says nothing about its replacement, for once.
                let left = told_by_hand && status.is_clean();
                let by_hand = process.ready_at.is_some() && (status.is_by_hand() || left);
                if !(early && by_hand && self.slots[slot.index()].excuses_kill(now)) {
                    self.lost(now, process, ready_at);
                }
            }
            Task::Prepare if status.is_clean() => {
                self.prepared.insert(process.generation);
                // A new generation begins without the record of the old one.
                self.slots.iter_mut().for_each(|record| record.early_deaths = 0);
            }
            Task::Prepare => {
                self.unprepared |= process.generation == Generation::FIRST && self.stop.is_none();
            }
            Task::Logger => self.logger_ended(now, process, status),
            Task::Worker { .. } | Task::Check | Task::Stats => {}
        }
    }

    /// The supervisor was asked.
    pub(crate) fn handled(&mut self, now: Instant, deadline: Option<Instant>) {
        self.handled += 1;
        self.holds(Law::NoBusyLoop, deadline.is_none_or(|next| next > now), || {
            format!("the next deadline is {deadline:?}")
        });
    }

    /// The master woke, by a timer of its own or by something that happened.
    pub(crate) fn woke(&mut self, now: u64, by_timer: bool, slots: usize) {
        if by_timer {
            self.timer_wakes.push_back(now);
        }
        for wakes in [&mut self.timer_wakes, &mut self.queued] {
            while wakes.front().is_some_and(|at| at + 1000 <= now) {
                wakes.pop_front();
            }
        }
        let most = 12 + 35 * slots + self.queued.len();
        let wakes = self.timer_wakes.len();
        self.holds(Law::NoBusyLoop, wakes <= most, || format!("{wakes} timers in a second"));
        if let Some(announced) = self.announced {
            self.holds(Law::StopsInTime, now <= announced.begun_by, || {
                format!("it should have begun to stop at {}", announced.begun_by)
            });
        }
        if let Some(stop) = self.stop {
            self.holds(Law::StopsInTime, now <= stop.gone_by, || {
                format!("it should have left at {}", stop.gone_by)
            });
        }
    }

    /// A fact and all that followed from it were told.
    pub(crate) fn stepped(&mut self, scene: &Scene<'_>) {
        self.last_step = scene.now;
        if self.stop.is_some() {
            return;
        }
        self.heal(scene);
        self.bounds(scene);
        self.accepting(scene);
        self.stuck(scene);
        self.memory(scene);
        self.reloads(scene);
    }

    fn bounds(&mut self, scene: &Scene<'_>) {
        let wanted = scene.supervisor.wanted;
        let mut accepting = vec![0; self.slots.len()];
        let mut starting = vec![0; self.slots.len()];
        for (slot, process) in scene.machine.workers() {
            accepting[slot.index()] += u32::from(process.serves());
            starting[slot.index()] += u32::from(process.starts());
        }
        let both = || accepting.iter().zip(&starting);
        let in_bounds = both().all(|(accepts, starts)| *accepts <= 2 && *starts <= 1);
        self.holds(Law::Bounds, in_bounds, || format!("accept {accepting:?}, boot {starting:?}"));
        let replaced = both().filter(|(accepts, starts)| **accepts + **starts > 1).count();
        self.holds(Law::OneAtATime, replaced <= 1, || format!("{replaced} slots are replaced"));
        let all: u32 = both().map(|(accepts, starts)| accepts + starts).sum();
        self.holds(Law::Bounds, all <= u32::from(wanted) + 1, || {
            format!("{all} workers where {wanted} are wanted")
        });
        for (at, accepts) in accepting.iter().enumerate() {
            let record = &mut self.slots[at];
            let wanted = at < usize::from(wanted);
            record.served = wanted && (record.served || *accepts > 0);
            let abandoned = self.clean && record.served && *accepts == 0;
            self.holds(Law::ServedThroughout, !abandoned, || format!("slot {at} has no worker"));
        }
    }

    fn accepting(&mut self, scene: &Scene<'_>) {
        let now = scene.now;
        let serving = || scene.machine.workers().filter(|(_, it)| it.serves());
        if serving().next().is_some() {
            let all = serving().fold(SlotSet::EMPTY, |all, (_, it)| all.union(&it.accepting));
            for at in 0..scene.supervisor.slot_states.len() {
                let slot = Slot::new(u16::try_from(at).expect("few slots"));
                self.holds(Law::EverySlotAccepted, all.contains(slot), || {
                    format!("no worker accepts from slot {slot}")
                });
            }
        }
        let alive: SlotSet = serving().map(|(slot, _)| slot).collect();
        let steered = self.steered.unwrap_or(alive);
        let dead = steered.iter().find(|slot| !alive.contains(*slot));
        self.holds(Law::SteeredToTheLiving, alive == SlotSet::EMPTY || dead.is_none(), || {
            format!("connections are steered to {steered}, where {alive} are alive")
        });
        let timeout = 150 + self.absences.total;
        for (at, queue) in scene.machine.queues.iter().enumerate() {
            let waits = queue.length > 0 && now - queue.since > timeout;
            self.holds(Law::QueuesDrain, !waits, || {
                format!("a connection waits in slot {at} since {}", queue.since)
            });
        }
    }

    fn stuck(&mut self, scene: &Scene<'_>) {
        for process in &scene.machine.processes {
            let (Some(ready), Some(hung)) = (process.ready_at, process.hung) else { continue };
            let stall = millis(scene.releases[&process.generation].1.stall_timeout);
            if stall == 0 || process.starved.is_some() || process.orders.any() {
                continue;
            }
            let excused = self.absences.total + self.absences.count * (stall + 1000);
            let end = hung.max(ready) + 2 * stall + 2500 + excused;
            self.holds(Law::TheStuckEnd, process.ended.is_some() || scene.now <= end, || {
                format!("{} is stuck since {hung}", process.id)
            });
        }
    }

    fn memory(&mut self, scene: &Scene<'_>) {
        let reload = self.reload.map(|reload| [reload.from, reload.generation]);
        let idle = self.remembered.iter().find(|generation| {
            **generation != self.in_force
                && !reload.is_some_and(|generations| generations.contains(generation))
                && !scene.machine.others().any(|process| process.generation == **generation)
        });
        if let Some(generation) = idle.copied() {
            self.breaks(Law::Remembered, format!("no child uses generation {generation}"));
        }
    }

    fn reloads(&mut self, scene: &Scene<'_>) {
        let it = scene.supervisor;
        let idle = self.reload.is_none() && it.phase == Phase::Running;
        let forgotten = self.reload_wanted && idle && it.upgrade == Upgrade::Idle;
        self.holds(Law::HupsCoalesce, !forgotten, || "a HUP is forgotten".to_owned());
        let in_force = self.in_force;
        let bad = |release| !matches!(release, Release::Good | Release::Partly);
        let unlivable = self.reload.is_none() && bad(scene.releases[&self.in_force].0);
        self.holds(Law::BadReleasesFail, !unlivable || self.none_ready, || {
            format!("generation {in_force} is in force")
        });
        let Some(trial) = self.reload.filter(|_| self.clean) else { return };
        let Some((release, policy)) = scene.releases.get(&trial.generation) else { return };
        let hangs = matches!(release, Release::PrepareHangs | Release::HangsAtBoot);
        let boot = if hangs { millis(policy.boot_timeout) } else { 0 };
        let slots = u64::try_from(self.slots.len()).expect("few slots");
        // Loading, preparing, the trial, and each slot's boot; and a second.
        let most = boot + 50 + 60 + 100 + 340 * slots + 1000;
        self.holds(Law::ReloadsEnd, scene.now - trial.began <= most, || {
            format!("generation {} is being tried since {}", trial.generation, trial.began)
        });
    }

    /// Everything is as it should be.
    pub(crate) fn rests(&mut self, supervisor: &Supervisor) {
        let drained = |slot: &Slot| {
            let record = &supervisor.slot_states[slot.index()];
            !matches!(record.drainage, Drainage::Undrained { .. })
        };
        let alive: SlotSet = (0..supervisor.wanted).map(Slot::new).filter(drained).collect();
        let steered = self.steered.unwrap_or(alive);
        let spread = alive.iter().all(|slot| steered.contains(slot));
        self.holds(Law::SteeredToTheLiving, spread, || {
            format!("connections are steered to {steered} although {alive} are alive")
        });
    }

    /// The faults have ceased, and not everything is as it should be yet.
    pub(crate) fn awaits_rest(&mut self, now: u64, calm_since: u64, supervisor: &Supervisor) {
        if self.stop.is_none() && now > calm_since + 120_000 {
            self.breaks(Law::Recovers, format!("not at rest: {supervisor:?}"));
        }
    }

    /// The image is about to be replaced.
    pub(crate) fn upgrades(&mut self, supervisor: &Supervisor) {
        self.count("the image was replaced");
        let alone = supervisor.reload.is_none()
            && supervisor.opening.is_none()
            && self.loading.is_none()
            && self.forking.is_empty()
            && !supervisor.children.iter().any(|child| child.stage == Stage::Forking);
        self.holds(Law::UpgradeAlone, alone, || "an order waits for its answer".to_owned());
    }
}
