//! One order, one deed: each arm calls the system and answers with the fact that follows, if any.

use std::sync::Arc;

use super::control::Refused;
use super::events::MasterEvent;
use super::{Master, now, tls};
use crate::config::Config;
use crate::config::Error;
use crate::embed::App;
use crate::ids::{ChildId, Generation, Pid, Slot, SlotSet};
use crate::listeners::identities;
use crate::logging;
use crate::supervisor::action::{Action, ChildSignal};
use crate::supervisor::event::Event;
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::Due;
use crate::sys::{process, signals};
use crate::time::Instant;
use crate::wire::{LogOrder, Order};

impl<A: App> Master<A> {
    pub(super) fn perform(&mut self, now: Instant, action: Action) -> Option<Event> {
        match action {
            Action::Fork { child, task, generation } => {
                Some(match self.fork(child, task, generation) {
                    Ok(pid) => Event::Forked { child, pid: Pid(pid) },
                    Err(error) => Event::ForkFailed { child, reason: error.to_string() },
                })
            }
            Action::Drain { child } => self.order_to_drain(now, child, Order::Drain),
            Action::Stop { child } => self.order_to_drain(now, child, Order::Stop),
            Action::Announce { child } => self.order(child, Order::Announce),
            Action::Accept { child, slots } => self.order(child, Order::Accept(slots)),
            Action::Signal { pid, signal } => self.signal(pid, signal),
            Action::Steer { slots } => self.steer(&slots),
            Action::OpenSlots { count } => Some(self.open_slots(count)),
            Action::Watch { slot } => {
                self.lasting.armed.insert(slot);
                None
            }
            Action::Look { slot } => Some(self.look(slot)),
            Action::Rouse { slot } => {
                self.lasting.listeners.bell(slot).inspect(|bell| bell.ring());
                None
            }
            Action::ReadHeartbeat { child } => self.read_heartbeat(now, child),
            Action::ReadMemory { child } => {
                let handle = self.lasting.handles.iter().find(|handle| handle.id == child)?;
                let bytes = self.extent().resident_bytes(handle.pid()).ok()?;
                Some(Event::MemoryRead { child, bytes })
            }
            Action::Load { generation } => self.load(generation),
            Action::Use { generation } => self.use_config(generation),
            Action::Forget { generation } => {
                self.configs.remove(&generation);
                self.lasting.tls.forget(generation);
                self.close_unused(now);
                self.lasting.metrics.close_others(self.configs.values().map(Arc::as_ref));
                self.publish();
                None
            }
            Action::ReopenLogs => self.tell_helper(ChildId::LOGGER, LogOrder::Reopen),
            Action::FinishLogs => self.tell_helper(ChildId::LOGGER, LogOrder::Finish),
            Action::FinishStats => self.tell_helper(ChildId::STATS, LogOrder::Finish),
            Action::StopListening => {
                self.lasting.listeners.stop(now);
                None
            }
            // Obeyed when every fact is told, unless one of them takes it back.
            Action::Upgrade => None,
            Action::Answer { command, outcome } => {
                self.conclude(command, outcome);
                None
            }
            Action::Log(notice) => {
                self.log_notice(now, notice);
                None
            }
            Action::Exit(reason) => {
                self.exit = Some(reason);
                None
            }
        }
    }

    /// Logs a notice, with what the master alone knows: the requests that the workers have counted
    /// during a reload, and the output of a new binary that refuses to take over.
    fn log_notice(&mut self, now: Instant, mut notice: Notice) {
        if let Notice::Reloading { .. } = notice {
            self.served_before = self.lasting.counters.served();
        }
        if let Notice::Reloaded { served, .. } = &mut notice {
            *served =
                Some(self.lasting.counters.served().saturating_sub(self.served_before).unchecked());
        }
        if let Notice::Exited { pid, peak, .. } = &mut notice {
            *peak = self.peak.filter(|peak| peak.pid == *pid).map(|peak| peak.bytes);
        }
        if let Notice::UpgradeFailed { output, reason } = &mut notice {
            *output = self.check.take().and_then(|check| check.said());
            self.refused = Refused::of(reason, output.as_deref());
        }
        self.lasting.metrics.note(&notice);
        logging::emit(&notice);
        if notice.is_of_mute_logs() {
            logging::say_aside(notice.to_string());
        }
        let config = Arc::clone(self.config());
        self.manager.note(now, &notice, &config);
        if let Notice::Stalled { pid, .. } = notice {
            self.tell_held(pid.0);
        }
    }

    fn tell_helper(&mut self, child: ChildId, order: LogOrder) -> Option<Event> {
        if let Some(handle) = self.lasting.handles.iter_mut().find(|handle| handle.id == child) {
            handle.order_logger(order);
        }
        None
    }

    fn order(&mut self, child: ChildId, order: Order) -> Option<Event> {
        if let Some(handle) = self.lasting.handles.iter_mut().find(|handle| handle.id == child) {
            handle.order(order, &self.lasting.listeners);
        }
        None
    }

    /// Orders a worker to drain or to stop, and notes the time on its board: it may be too busy to hear it.
    fn order_to_drain(&mut self, now: Instant, child: ChildId, order: Order) -> Option<Event> {
        let handle = self.lasting.handles.iter().find(|handle| handle.id == child)?;
        handle.worker.as_ref().inspect(|worker| worker.board.note_drain(now));
        self.order(child, order)
    }

    /// Signals a child that is not reaped yet, and no other process.
    fn signal(&self, pid: Pid, signal: ChildSignal) -> Option<Event> {
        let number = match signal {
            ChildSignal::Quit => signals::INT,
            ChildSignal::Abort => signals::ABRT,
            ChildSignal::Kill => signals::KILL,
        };
        if let Some(handle) = self.lasting.handles.iter().find(|handle| handle.pid() == pid.0) {
            // It may have ended by itself: then it is about to be reaped.
            let _gone = handle.process.signal(number);
        }
        None
    }

    fn steer(&mut self, slots: &SlotSet) -> Option<Event> {
        if let Err(error) = self.lasting.listeners.steer(slots)
            && !std::mem::replace(&mut self.steerless, true)
        {
            logging::emit(&MasterEvent::SteeringFailed { reason: error.to_string() });
        }
        None
    }

    /// Opens further slots, and passes their listeners to the workers that are older than they.
    fn open_slots(&mut self, count: u16) -> Event {
        let backlog = self.config().backlog;
        let before = self.lasting.listeners.slots();
        let (opened, error) = self.lasting.listeners.grow(count, backlog);
        if let Some(error) = error {
            let reason = error.to_string();
            logging::emit(&MasterEvent::SlotsFailed { workers: count, reason });
        }
        let listeners = opened.into_iter().map(|(address, slot)| Order::Listener { address, slot });
        let slots = (before..self.lasting.listeners.slots()).map(Slot::new);
        let orders: Vec<_> = listeners.chain(slots.map(|slot| Order::Bell { slot })).collect();
        for handle in self.lasting.handles.iter_mut().filter(|handle| handle.worker.is_some()) {
            orders.iter().for_each(|order| handle.order(*order, &self.lasting.listeners));
        }
        Event::SlotsOpen { count: self.lasting.listeners.slots() }
    }

    /// Lets go of the addresses that no configuration in use names. Workers that still serve finish
    /// what has come in there.
    fn close_unused(&mut self, now: Instant) {
        let configs = self.configs.values();
        let used: Vec<String> = configs.flat_map(|config| identities(config)).collect();
        for (address, name) in self.lasting.listeners.close_others(now, &used) {
            logging::emit(&MasterEvent::NotListening { address: name });
            for handle in self.lasting.handles.iter_mut().filter(|handle| handle.worker.is_some()) {
                handle.order(Order::Close { address }, &self.lasting.listeners);
            }
        }
    }

    /// When the loop of the newest worker in this slot last ran.
    fn last_heartbeat(&self, slot: Slot) -> Instant {
        let workers = self.lasting.handles.iter().filter_map(|handle| handle.worker.as_ref());
        let newest = workers.rev().find(|worker| worker.slot == slot);
        newest.map_or_else(Instant::default, |worker| worker.board.last_heartbeat())
    }

    fn look(&mut self, slot: Slot) -> Event {
        self.mend_listeners();
        let length = self.lasting.listeners.queue_length(slot);
        Event::QueueLength { slot, length, heartbeat: self.last_heartbeat(slot) }
    }

    /// Puts right what workers have done to the listeners that they share. Workers that lack a socket
    /// that was opened anew are replaced, as at a restart of their slots.
    pub(super) fn mend_listeners(&mut self) {
        let config = Arc::clone(self.config());
        if self.lasting.listeners.mend(now(), &config, self.lasting.supervisor.steered()) {
            let workers = self.lasting.handles.iter().filter(|handle| handle.worker.is_some());
            let due =
                workers.map(|handle| Event::WorkerDue { child: handle.id, why: Due::Restart });
            self.heard.extend(due);
        }
    }

    fn read_heartbeat(&mut self, now: Instant, child: ChildId) -> Option<Event> {
        self.mend_listeners();
        let handle = self.lasting.handles.iter_mut().find(|handle| handle.id == child)?;
        let heartbeat = handle.worker.as_ref()?.board.last_heartbeat();
        Some(Event::Heartbeat { child, heartbeat, kept: handle.kept(now) })
    }

    /// Opens what a further configuration needs.
    pub(super) fn open_for(
        &mut self,
        generation: Generation,
        config: &Config,
    ) -> Result<(), String> {
        let bundle = tls::read(config).map_err(|error| reload_error(&error))?;
        self.mend_listeners();
        if self.lasting.listeners.is_passed() && !config.binds().eq(self.config().binds()) {
            logging::emit(&MasterEvent::BindIgnored);
        }
        self.lasting.metrics.open(config)?;
        let opened =
            self.lasting.listeners.open_missing(config).map_err(|error| error.to_string())?;
        for address in opened {
            logging::emit(&MasterEvent::Listening { address, pid: Pid(process::pid()) });
        }
        let kept = self.lasting.tls.keep(now(), generation, bundle);
        kept.map_err(|error| format!("cannot make keys for session tickets: {error}"))
    }

    /// Applies the master's own part of a configuration: its logs.
    fn use_config(&mut self, generation: Generation) -> Option<Event> {
        let config: &Config = self.configs.get(&generation)?;
        // The logger is replaced when a generation comes into force, by one that opens these targets.
        match logging::apply(&config.log) {
            Ok(()) => self.log = config.log.clone(),
            Err(error) => {
                logging::emit(&MasterEvent::LogSettingsFailed { reason: error.to_string() });
            }
        }
        self.lasting.metrics.settle(config);
        if let Err(error) = self.lasting.listeners.set_backlog(config.backlog) {
            logging::emit(&MasterEvent::BacklogFailed { reason: error.to_string() });
        }
        self.lasting.listeners.note(config);
        self.publish();
        None
    }
}

/// Returns why a file was not reloaded, as one line. Each of several problems has a line of its own
/// before it; the service manager, which shows one line, gets the first of them.
pub(super) fn reload_error(error: &Error) -> String {
    match error {
        Error::Config(error) if error.problems().len() > 1 => {
            for problem in error.problems() {
                logging::emit(&MasterEvent::ReloadProblem { reason: problem.clone() });
            }
            let first = &error.problems()[0];
            let more = error.problems().len() - 1;
            format!("{first} (and {more} more in the error log)")
        }
        error => error.to_string(),
    }
}
