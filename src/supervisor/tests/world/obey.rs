//! The world's obedience: one order, one deed, and the fact that answers it, if any.

use super::{Happening, World, newborn, script};
use crate::ids::{ChildId, Generation, Pid, Slot};
use crate::supervisor::action::{Action, ChildSignal};
use crate::supervisor::event::{Event, ExitStatus};
use crate::supervisor::stage::Task;
use crate::supervisor::tests::world::machine::Queue;
use crate::supervisor::tests::world::plan::{self, Release};
use crate::supervisor::tests::world::script::{Script, Turn};
use crate::time::Instant;

impl World {
    pub(super) fn obey(&mut self, order: Action) -> Option<Event> {
        match order {
            Action::Fork { child, task, generation } => Some(self.fork(child, task, generation)),
            Action::Drain { child } | Action::Stop { child } => self.drain(child),
            Action::Accept { child, slots } => {
                self.machine.process_mut(child)?.accepting = slots;
                None
            }
            Action::Signal { pid, signal } => self.signal(pid, signal),
            Action::OpenSlots { count } => {
                let open = count.min(self.plan.slots_max).max(self.open_slots());
                self.machine.queues.resize(usize::from(open), Queue::default());
                Some(Event::SlotsOpen { count: open })
            }
            Action::Watch { slot } => self.watch(slot),
            Action::Look { slot } => {
                let length = self.machine.queues.get(slot.index())?.length;
                let mut workers = self.machine.workers();
                let own = workers.find(|(at, it)| *at == slot && it.serves());
                let heartbeat = Instant::from_millis(own.map_or(0, |(_, it)| it.roused_at));
                Some(Event::QueueLength { slot, length, heartbeat })
            }
            Action::Rouse { slot } => {
                // At rest nothing else makes a loop turn.
                let workers = self.machine.processes.iter_mut();
                let roused = workers.filter(|worker| worker.slot() == Some(slot) && worker.runs());
                roused.for_each(|roused| roused.roused_at = self.now);
                None
            }
            Action::ReadHeartbeat { child } => {
                let process = self.machine.process(child)?;
                let (heartbeat, kept) = self.machine.heartbeat(process, self.now, &mut self.dice);
                Some(Event::Heartbeat { child, heartbeat: Instant::from_millis(heartbeat), kept })
            }
            Action::ReadMemory { child } => {
                let process = self.machine.process(child)?;
                let bytes = if process.grown { 1000 } else { self.dice.between(10, 100) };
                // A process that has ended has no memory to be read.
                process.ended.is_none().then_some(Event::MemoryRead { child, bytes })
            }
            Action::Load { generation } => self.load(generation),
            Action::Upgrade => {
                self.upgrade_ordered = true;
                None
            }
            Action::Exit(reason) => {
                self.exit = Some(reason);
                None
            }
            Action::Announce { .. }
            | Action::Steer { .. }
            | Action::Use { .. }
            | Action::Forget { .. }
            | Action::ReopenLogs
            | Action::StopListening
            | Action::Answer { .. }
            | Action::Log(_) => None,
            Action::FinishLogs => self.drain(ChildId::LOGGER),
            Action::FinishStats => self.drain(ChildId::STATS),
        }
    }

    fn open_slots(&self) -> u16 {
        u16::try_from(self.machine.queues.len()).expect("few slots")
    }

    fn is_calm(&self) -> bool {
        self.now >= self.plan.calm_at
    }

    fn fork(&mut self, id: ChildId, task: Task, generation: Generation) -> Event {
        let refused = !self.is_calm() && self.dice.percent(self.plan.refusals);
        if refused || self.now < self.machine.no_forks_until {
            let reason = "resource temporarily unavailable".to_owned();
            return Event::ForkFailed { child: id, reason };
        }
        let script = self.script(task, generation);
        for (after, turn) in script.boot.clone() {
            self.schedule(self.now + after, Happening::Turn(id, turn));
        }
        let pid = self.machine.new_pid(&mut self.dice);
        let mut process = newborn(id, pid, task, generation, script, self.now);
        process.grown = self.now < self.machine.heavy_until;
        self.machine.processes.push(process);
        Event::Forked { child: id, pid }
    }

    fn script(&mut self, task: Task, generation: Generation) -> Script {
        let calm = self.is_calm();
        let (release, policy) = self.releases[&generation].clone();
        match task {
            Task::Logger | Task::Stats => {
                let bad = !calm && self.dice.percent(self.plan.mischief);
                let stubborn = calm && self.plan.stubborn;
                script::logger(bad, stubborn, &mut self.dice)
            }
            Task::Prepare => script::prepare(release, &mut self.dice),
            Task::Check => {
                let good = self.plan.clean || self.dice.percent(60);
                script::check(good, &mut self.dice)
            }
            Task::Worker { slot } => {
                let mut script = if calm && self.plan.stubborn {
                    Script::stubborn(&mut self.dice)
                } else if !calm && self.dice.percent(self.plan.mischief) {
                    Script::mischievous(&mut self.dice, &policy)
                } else {
                    Script::honest(&mut self.dice)
                };
                // In the calm even this one boots everywhere: else the world had no end.
                if !(calm && release == Release::Partly) {
                    script.spoil(release, slot, &mut self.dice);
                }
                script
            }
        }
    }

    fn load(&mut self, generation: Generation) -> Option<Event> {
        let bad = !self.is_calm() && self.dice.percent(self.plan.badness);
        let release = if bad { self.dice.pick(&plan::BAD) } else { Release::Good };
        let result = if release == Release::Unreadable {
            Err("config.toml:3: workers: expected a number".to_owned())
        } else {
            let old = self.dice.percent(50).then(|| self.plan.policy.clone());
            let policy = old.unwrap_or_else(|| plan::policy(&mut self.dice));
            self.releases.insert(generation, (release, policy.clone()));
            Ok(policy)
        };
        if self.plan.loads_slowly {
            let at = self.now + self.dice.between(1, 50);
            self.schedule(at, Happening::Loaded(result));
            return None;
        }
        Some(Event::Loaded(result))
    }

    fn watch(&mut self, slot: Slot) -> Option<Event> {
        let queue = self.machine.queues.get_mut(slot.index())?;
        if queue.length > 0 {
            return Some(Event::Queued { slot });
        }
        queue.watched = true;
        None
    }

    fn drain(&mut self, id: ChildId) -> Option<Event> {
        let now = self.now;
        let process = self.machine.process_mut(id)?;
        process.orders.drains_since = Some(now);
        let heeds = process.runs();
        if let Some(after) = process.script.drains_in.filter(|_| heeds) {
            self.schedule(now + after, Happening::Turn(id, Turn::End(ExitStatus::Code(0))));
        }
        None
    }

    fn signal(&mut self, pid: Pid, signal: ChildSignal) -> Option<Event> {
        let now = self.now;
        let id = self.machine.with_pid(pid)?.id;
        let process = self.machine.process_mut(id)?;
        let by = |number, core| ExitStatus::Signal { number, core };
        let (after, status) = match signal {
            ChildSignal::Quit => {
                process.orders.quit = Some(now);
                (process.script.quits_in.filter(|_| process.runs()), ExitStatus::Code(0))
            }
            ChildSignal::Abort => {
                process.orders.aborted = Some(now);
                (process.script.aborts_in, by(6, true))
            }
            ChildSignal::Kill => {
                process.orders.killed = Some(now);
                (Some(self.dice.below(20)).filter(|_| !process.undying), by(9, false))
            }
        };
        if let Some(after) = after {
            self.schedule(now + after, Happening::Turn(id, Turn::End(status)));
        }
        None
    }
}
