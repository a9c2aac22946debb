//! Happenings in the world: what children and the operator do, connections that come, sleep, and an
//! image that takes over.

use super::*;

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        if let Some(text) = &mut self.text {
            text.push_str(&format!("@{:<8}   ({happening:?})\n", self.now));
        }
        match happening {
            Happening::Turn(id, turn) => self.turn(id, turn),
            Happening::Loaded(result) => self.inbox.push(Event::Loaded(result)),
            Happening::Deed(deed) => self.deed(deed),
            Happening::Calm => {}
        }
    }

    pub(super) fn turn(&mut self, id: ChildId, turn: Turn) {
        let now = self.now;
        let plagued = now < self.machine.no_boots_until;
        let Some(process) = self.machine.process_mut(id).filter(|process| process.ended.is_none())
        else {
            return;
        };
        match turn {
            Turn::Ready if plagued && process.ready_at.is_none() => {
                process.ended = Some(ExitStatus::Code(1));
                self.zombies.push(id);
            }
            Turn::Ready => {
                self.inbox.push(Event::Ready { child: id });
                for (after, turn) in std::mem::take(&mut process.script.life) {
                    self.schedule(now + after, Happening::Turn(id, turn));
                }
                if now < self.machine.killer_until {
                    let killed = ExitStatus::Signal { number: 9, core: false };
                    let after = self.dice.below(4);
                    self.schedule(now + after, Happening::Turn(id, Turn::End(killed)));
                }
            }
            Turn::Due(why) => self.inbox.push(Event::WorkerDue { child: id, why }),
            Turn::Hang => process.hung = Some(now),
            Turn::Starve => process.starved = Some(now),
            Turn::Recover => (process.hung, process.starved) = (None, None),
            Turn::Grow => process.grown = true,
            Turn::End(status) => {
                process.ended = Some(status);
                self.zombies.push(id);
                // Its replacement has the same id, and a life of its own.
                let is_logger = |happening: &Happening| {
                    matches!(happening, Happening::Turn(ChildId::LOGGER, _))
                };
                self.agenda.retain(|_, it| id != ChildId::LOGGER || !is_logger(it));
            }
        }
    }

    pub(super) fn deed(&mut self, deed: Deed) {
        let now = self.now;
        match deed {
            Deed::Signal(signal) => {
                // The kernel keeps one of each that is pending.
                let signal = Event::Signalled(signal);
                if !self.inbox.contains(&signal) {
                    self.inbox.push(signal);
                }
            }
            Deed::Stranger => {
                let pid = self.machine.new_pid(&mut self.dice);
                let status = ExitStatus::Code(3);
                self.inbox.push(Event::Exited { pid, status });
            }
            Deed::Noise => {
                let noise = self.noise();
                self.inbox.push(noise);
            }
            Deed::Arrive => self.arrive(),
            Deed::KillWorker => {
                if let Some(id) = self.some_worker() {
                    let killed = ExitStatus::Signal { number: 9, core: false };
                    self.turn(id, Turn::End(killed));
                }
            }
            Deed::KillLogger => {
                let killed = ExitStatus::Signal { number: 9, core: false };
                self.turn(ChildId::LOGGER, Turn::End(killed));
            }
            Deed::ReplaceWorker => {
                if let Some(id) = self.some_worker() {
                    self.turn(id, Turn::Due(Due::ByHand));
                }
            }
            Deed::NoForks(millis) => self.machine.no_forks_until = now + millis,
            Deed::NoBoots(millis) => self.machine.no_boots_until = now + millis,
            Deed::Heavy(millis) => self.machine.heavy_until = now + millis,
            Deed::Killer(millis) => self.machine.killer_until = now + millis,
            Deed::Sleep(millis) => self.sleep(millis),
        }
    }

    pub(super) fn some_worker(&mut self) -> Option<ChildId> {
        let ids: Vec<ChildId> = self.machine.workers().map(|(_, it)| it.id).collect();
        (!ids.is_empty()).then(|| self.dice.pick(&ids))
    }

    /// A child heeds nothing any more, not even `KILL`.
    pub(super) fn make_undying(&mut self) {
        let at = self.dice.below(u64::try_from(self.machine.processes.len()).expect("a few"));
        let at = usize::try_from(at).expect("a few");
        let process = &mut self.machine.processes[at];
        let script = &mut process.script;
        process.undying = true;
        (script.drains_in, script.quits_in, script.aborts_in) = (None, None, None);
    }

    pub(super) fn arrive(&mut self) {
        let open = u64::try_from(self.machine.queues.len()).expect("few slots");
        let at = self.dice.below(open);
        let queue = &mut self.machine.queues[usize::try_from(at).expect("few slots")];
        if queue.length == 0 {
            queue.since = self.now;
        }
        queue.length += 1;
        if std::mem::take(&mut queue.watched) {
            let slot = Slot::new(u16::try_from(at).expect("few slots"));
            self.inbox.push(Event::Queued { slot });
        }
    }

    /// A fact that no shell should tell: the supervisor must not be led astray by it.
    pub(super) fn noise(&mut self) -> Event {
        let child = match self.some_worker() {
            Some(id) if self.dice.percent(50) => id,
            _ => ChildId(self.dice.below(40)),
        };
        let unknown = ChildId(1_000_000);
        let ready = self.machine.process(child).is_some_and(|process| process.ready_at.is_some());
        match self.dice.below(10) {
            0 if ready => Event::Ready { child },
            0 => Event::Ready { child: unknown },
            1 => Event::Forked { child, pid: Pid(77) },
            2 => Event::ForkFailed { child, reason: "late".to_owned() },
            3 => Event::WorkerDue { child: unknown, why: Due::Requests },
            4 => Event::Heartbeat {
                child: unknown,
                heartbeat: Instant::default(),
                kept: Kept::ByNothing,
            },
            5 => Event::MemoryRead { child: unknown, bytes: u64::MAX },
            6 => Event::Queued { slot: Slot::new(self.dice.pick(&[0, 1, 200])) },
            7 => Event::QueueLength {
                slot: Slot::new(200),
                length: 5,
                heartbeat: Instant::default(),
            },
            8 => Event::SlotsOpen { count: u16::try_from(self.machine.queues.len()).unwrap() },
            _ => Event::Started,
        }
    }

    /// The whole machine stands still, and nothing in it notices.
    pub(super) fn sleep(&mut self, millis: u64) {
        self.judge.slept(self.now, millis);
        self.machine.slept = (self.now, self.now + millis);
        self.now += millis;
        self.plan.calm_at += millis;
        self.machine.no_forks_until += millis;
        self.machine.no_boots_until += millis;
        self.machine.heavy_until += millis;
        self.machine.killer_until += millis;
        let agenda = std::mem::take(&mut self.agenda);
        self.agenda = agenda.into_iter().map(|((at, n), it)| ((at + millis, n), it)).collect();
    }

    /// The new image takes over, with nothing but the state; or it cannot be executed.
    pub(super) fn upgrade(&mut self) {
        self.judge.upgrades(&self.supervisor);
        if self.dice.percent(20) {
            return self.step(Event::UpgradeFailed { reason: "permission denied".to_owned() });
        }
        let state = serde_json::to_string(&self.supervisor).expect("the state can be written");
        self.supervisor = serde_json::from_str(&state).expect("the state can be read");
        let again = serde_json::to_string(&self.supervisor).expect("the state can be written");
        assert_eq!(state, again, "something is lost in an upgrade");
        self.now += self.dice.between(1, 200);
        // What the old image watched, the new one does not.
        self.machine.queues.iter_mut().for_each(|queue| queue.watched = false);
        self.step(Event::Upgraded);
    }

    pub(super) fn note_ready(&mut self, id: ChildId) {
        let now = self.now;
        if let Some(process) = self.machine.process_mut(id)
            && process.ready_at.is_none()
            && let Some(slot) = process.slot()
        {
            process.ready_at = Some(now);
            process.accepting = [slot].into_iter().collect();
        }
    }
}
