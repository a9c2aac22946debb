//! One order, one deed: each arm calls the system and answers with the fact that follows, if any.

use std::io;
use std::sync::Arc;

use super::kid::{Kid, Worker};
use super::upgrade::Check;
use super::{Master, policy};
use crate::config::{Bind, Config};
use crate::embed::App;
use crate::ids::{ChildId, Generation, Pid, Slot, SlotSet};
use crate::logger;
use crate::logging::{self, MASTER};
use crate::scoreboard::WorkerBoard;
use crate::supervisor::action::{Action, ChildSignal, Dismissal};
use crate::supervisor::event::Event;
use crate::supervisor::notice::{Notice, Weight};
use crate::supervisor::stage::Task;
use crate::sys::channel::Channel;
use crate::sys::fork::{self, InChild, SingleThreaded};
use crate::sys::{process, signals, statistics};
use crate::time::Instant;
use crate::wire::{LogOrder, Order};
use crate::worker::{self, Birth, WorkerBirth};

impl<A: App> Master<A> {
    pub(super) fn perform(&mut self, now: Instant, action: Action) -> Option<Event> {
        match action {
            Action::Fork { child, task, generation } => {
                Some(match self.fork(child, task, generation) {
                    Ok(pid) => Event::Forked { child, pid: Pid(pid) },
                    Err(error) => Event::ForkFailed { child, reason: error.to_string() },
                })
            }
            Action::Dismiss { child, how } => {
                let board = self.kids.iter().find(|kid| kid.id == child)?.worker.as_ref();
                board.inspect(|worker| worker.board.dismiss(now));
                let order = match how {
                    Dismissal::Drain => Order::Drain,
                    Dismissal::Stop => Order::Stop,
                };
                self.order(child, order)
            }
            Action::Accept { child, slots } => self.order(child, Order::Accept(slots)),
            Action::Signal { pid, signal } => send(pid, signal),
            Action::Steer { slots } => self.steer(&slots),
            Action::OpenSlots { count } => Some(self.open_slots(count)),
            Action::Watch { slot } => {
                self.armed.insert(slot);
                None
            }
            Action::Look { slot } => {
                let length = self.listeners.queue_length(slot);
                Some(Event::QueueLength { slot, length, beat: self.last_beat(slot) })
            }
            Action::Rouse { slot } => {
                self.listeners.bell(slot).inspect(|bell| bell.ring());
                None
            }
            Action::TakePulse { child } => self.take_pulse(now, child),
            Action::ReadMemory { child } => {
                let kid = self.kids.iter().find(|kid| kid.id == child)?;
                let bytes = statistics::resident_bytes(kid.pid).ok()?;
                Some(Event::MemoryRead { child, bytes })
            }
            Action::Load { generation } => Some(Event::Loaded(self.load(generation))),
            Action::Use { generation } => self.use_config(generation),
            Action::Forget { generation } => {
                self.configs.remove(&generation);
                self.close_unused(now);
                self.publish();
                None
            }
            Action::ReopenLogs => self.tell_logger(LogOrder::Reopen),
            Action::FinishLogs => self.tell_logger(LogOrder::Finish),
            Action::StopListening => {
                self.listeners.retire();
                None
            }
            // Obeyed when every fact is told, unless one of them takes it back.
            Action::Upgrade => None,
            Action::Log(notice) => {
                self.say(&notice);
                let config = Arc::clone(self.config());
                self.manager.note(now, &notice, &config);
                if let Notice::Stalled { pid, .. } = notice {
                    self.tell_held(pid.0);
                }
                None
            }
            Action::Exit(reason) => {
                self.exit = Some(reason);
                None
            }
        }
    }

    /// Writes the line. What a reload has let pass meanwhile, the workers alone have counted; why a new
    /// binary does not want to, it alone has said.
    fn say(&mut self, notice: &Notice) {
        if let Notice::Reloading { .. } = notice {
            self.served_before = self.counters.served();
        }
        match notice {
            Notice::Reloaded { .. } => {
                let served = self.counters.served().saturating_sub(self.served_before);
                tracing::info!("{notice}, requests served meanwhile: {served}");
            }
            Notice::UpgradeRefused { .. } => match self.check.take().and_then(|it| it.said()) {
                Some(said) => tracing::error!("{notice}; it says: {said}"),
                None => log(notice),
            },
            _ => log(notice),
        }
        if notice.is_of_mute_logs() {
            logging::say_aside(notice.to_string());
        }
    }

    fn fork(&mut self, id: ChildId, task: Task, generation: Generation) -> io::Result<i32> {
        let alone = SingleThreaded::prove().map_err(|names| {
            io::Error::other(format!("{} threads exist: {}", names.len(), names.join(", ")))
        })?;
        let (ours, theirs) = Channel::pair()?;
        let config = Arc::clone(self.configs.get(&generation).unwrap_or_else(|| self.config()));
        let worker = match task {
            Task::Worker { slot } => {
                let board = Arc::new(WorkerBoard::new(connections(&config))?);
                Some(Worker { slot, generation, board })
            }
            Task::Prepare | Task::Check | Task::Logger => None,
        };
        let place = (task != Task::Logger).then(|| self.free_ring());
        let ring = place.map(|place| self.rings.ring(place)).transpose()?;
        let (theirs_too, counters) = (worker.clone(), Arc::clone(&self.counters));
        let master = process::pid();
        // Among the others before the fork, so that the child closes the master's end of its own
        // channel, too: a child that held it would never hear the master's end.
        let mut kid = Kid::new(id, FORKING, ours, worker);
        kid.ring = place;
        if task == Task::Check {
            self.check = Some(Check::begin(&self.invocation)?);
        }
        self.kids.push(kid);
        let forked = fork::spawn(&alone, |child| {
            if task == Task::Check {
                return self.check_new_binary(child, &theirs);
            }
            self.kids.clear();
            // A child that lives on for a moment must not hold it against the next server, whoever
            // waits for the end of `ready_fd` waits for the master's end alone, and what is published
            // changes without the child.
            (self.pidfile, self.ready, self.published) = (None, None, None);
            let Some(ring) = ring else { return self.log(child, theirs, master) };
            logging::adopt(ring);
            let birth = Birth {
                config,
                generation,
                signals: &self.signals,
                channel: theirs,
                master,
                identity: &self.identity,
            };
            match (task, theirs_too) {
                (Task::Worker { .. }, Some(Worker { slot, board, .. })) => {
                    let mut listeners = std::mem::take(&mut self.listeners);
                    listeners.forget_retired();
                    let worker = WorkerBirth { birth, slot, listeners, board, counters };
                    worker::main(child, worker, &self.app)
                }
                (Task::Prepare | Task::Check | Task::Worker { .. } | Task::Logger, _) => {
                    // An address that is let go while it runs would be listened at still.
                    drop(std::mem::take(&mut self.listeners));
                    worker::prepare(child, &birth, &self.app)
                }
            }
        });
        match (&forked, self.kids.last_mut()) {
            (Ok(pid), Some(kid)) => kid.pid = *pid,
            (Ok(_), None) => {}
            (Err(_), _) => drop(self.kids.pop()),
        }
        forked
    }

    /// In a child: becomes the logger, which keeps nothing of the master's but the rings.
    fn log(&mut self, child: InChild, channel: Channel, master: i32) -> i32 {
        logging::have_no_ring();
        drop(std::mem::take(&mut self.listeners));
        let birth = logger::Birth {
            log: &self.log,
            rings: &self.rings,
            signals: &self.signals,
            channel,
            master,
        };
        logger::main(child, birth)
    }

    /// The first ring that no living child has. What waits in it is read all the same.
    fn free_ring(&self) -> usize {
        let taken = |place: &usize| self.kids.iter().any(|kid| kid.ring == Some(*place));
        (MASTER + 1..).find(|place| !taken(place)).expect("there are fewer kids than numbers")
    }

    fn tell_logger(&mut self, order: LogOrder) -> Option<Event> {
        if let Some(kid) = self.kids.iter_mut().find(|kid| kid.id == ChildId::LOGGER) {
            kid.order_logger(order);
        }
        None
    }

    fn order(&mut self, child: ChildId, order: Order) -> Option<Event> {
        if let Some(kid) = self.kids.iter_mut().find(|kid| kid.id == child) {
            kid.order(order, &self.listeners);
        }
        None
    }

    fn steer(&mut self, slots: &SlotSet) -> Option<Event> {
        if let Err(error) = self.listeners.steer(slots)
            && !std::mem::replace(&mut self.steerless, true)
        {
            tracing::warn!(
                "failed to steer new connections: {error}; they are spread less evenly, none is lost"
            );
        }
        None
    }

    /// Opens further slots, and passes their listeners to the workers that are older than they.
    fn open_slots(&mut self, count: u16) -> Event {
        let backlog = self.config().backlog;
        let before = self.listeners.slots();
        let (opened, error) = self.listeners.grow(count, backlog);
        if let Some(error) = error {
            tracing::error!("failed to open listeners for {count} workers: {error}");
        }
        let listeners = opened.into_iter().map(|(address, slot)| Order::Listener { address, slot });
        let slots = (before..self.listeners.slots()).map(Slot::new);
        let orders: Vec<_> = listeners.chain(slots.map(|slot| Order::Bell { slot })).collect();
        for kid in self.kids.iter_mut().filter(|kid| kid.worker.is_some()) {
            orders.iter().for_each(|order| kid.order(*order, &self.listeners));
        }
        Event::SlotsOpen { count: self.listeners.slots() }
    }

    /// Lets go of the addresses that no configuration in use names. Workers that still serve finish
    /// what has come in there.
    fn close_unused(&mut self, now: Instant) {
        let binds = self.configs.values().flat_map(|config| config.bind.iter());
        let used: Vec<String> = binds.map(Bind::to_string).collect();
        for (address, name) in self.listeners.close_others(now, &used) {
            tracing::info!("No longer listening at: {name}");
            for kid in self.kids.iter_mut().filter(|kid| kid.worker.is_some()) {
                kid.order(Order::Close { address }, &self.listeners);
            }
        }
    }

    /// When the loop of the newest worker in this slot last ran.
    fn last_beat(&self, slot: Slot) -> Instant {
        let workers = self.kids.iter().filter_map(|kid| kid.worker.as_ref());
        let newest = workers.rev().find(|worker| worker.slot == slot);
        newest.map_or_else(Instant::default, |worker| worker.board.last_beat())
    }

    fn take_pulse(&mut self, now: Instant, child: ChildId) -> Option<Event> {
        let kid = self.kids.iter_mut().find(|kid| kid.id == child)?;
        let beat = kid.worker.as_ref()?.board.last_beat();
        Some(Event::Pulse { child, beat, kept: kid.kept(now) })
    }

    fn load(
        &mut self,
        generation: Generation,
    ) -> Result<crate::supervisor::policy::Policy, String> {
        let config = self.config().reload().map_err(|error| error.to_string())?;
        logging::check(&config.log).map_err(|error| error.to_string())?;
        if self.listeners.is_passed() && config.bind != self.config().bind {
            tracing::warn!("bind has changed, but the service manager's addresses count instead");
        }
        let opened = self.listeners.open_missing(&config).map_err(|error| error.to_string())?;
        opened.iter().for_each(|name| tracing::info!("Listening at: {name} ({})", process::pid()));
        for key in config.not_in_force(&self.started) {
            tracing::warn!("{key} has changed: that takes effect at the next start");
        }
        let loaded = policy(&config);
        self.configs.insert(generation, Arc::new(config));
        Ok(loaded)
    }

    /// What the master itself uses of a configuration: its logs.
    fn use_config(&mut self, generation: Generation) -> Option<Event> {
        let config: &Config = self.configs.get(&generation)?;
        // The logger is replaced when a generation comes into force, by one that opens these targets.
        match logging::check(&config.log).and_then(|()| logging::apply(&config.log)) {
            Ok(()) => self.log = config.log.clone(),
            Err(error) => tracing::error!("failed to apply the new log settings: {error}"),
        }
        if let Err(error) = self.listeners.set_backlog(config.backlog) {
            tracing::error!("failed to apply the new backlog: {error}");
        }
        self.publish();
        None
    }
}

/// The pid of a child whose fork is under way: no process has it.
const FORKING: i32 = 0;

/// Connections that a worker of this configuration may hold; a few more are open for a moment when
/// several threads accept at once.
fn connections(config: &Config) -> usize {
    usize::try_from(config.worker_connections).unwrap_or(usize::MAX).saturating_add(64)
}

fn send(pid: Pid, signal: ChildSignal) -> Option<Event> {
    let number = match signal {
        ChildSignal::Quit => signals::INT,
        ChildSignal::Abort => signals::ABRT,
        ChildSignal::Kill => signals::KILL,
    };
    // It may have ended by itself: then it is about to be reaped.
    let _gone = signals::send(pid.0, number);
    None
}

fn log(notice: &Notice) {
    match notice.weight() {
        Weight::Debug => tracing::debug!("{notice}"),
        Weight::Info => tracing::info!("{notice}"),
        Weight::Warning => tracing::warn!("{notice}"),
        Weight::Error => tracing::error!("{notice}"),
    }
}
