//! One order, one deed: each arm calls the system and answers with the fact that follows, if any.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use super::control::Refused;
use super::events::MasterEvent;
use super::kid::{Kid, Worker};
use super::tls::{Tls, descriptors};
use super::upgrade::Check;
use super::{Master, now, tls};
use crate::config::Config;
use crate::config::Error;
use crate::control::Control;
use crate::embed::App;
use crate::ids::{ChildId, Generation, Pid, Slot, SlotSet};
use crate::listeners::{Listeners, identities};
use crate::logger;
use crate::logging::{self, MASTER, Ring};
use crate::program;
use crate::scoreboard::WorkerBoard;
use crate::supervisor::action::{Action, ChildSignal, Dismissal};
use crate::supervisor::event::Event;
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::{Due, Task};
use crate::sys::channel::{self, Lower};
use crate::sys::fork::{self, InChild, SingleThreaded};
use crate::sys::wait::Child;
use crate::sys::{process, signals, title};
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
            Action::Announce { child } => self.order(child, Order::Announce),
            Action::Accept { child, slots } => self.order(child, Order::Accept(slots)),
            Action::Signal { pid, signal } => self.signal(pid, signal),
            Action::Steer { slots } => self.steer(&slots),
            Action::OpenSlots { count } => Some(self.open_slots(count)),
            Action::Watch { slot } => {
                self.armed.insert(slot);
                None
            }
            Action::Look { slot } => Some(self.look(slot)),
            Action::Rouse { slot } => {
                self.listeners.bell(slot).inspect(|bell| bell.ring());
                None
            }
            Action::TakePulse { child } => self.take_pulse(now, child),
            Action::ReadMemory { child } => {
                let kid = self.kids.iter().find(|kid| kid.id == child)?;
                let bytes = self.extent().resident_bytes(kid.pid()).ok()?;
                Some(Event::MemoryRead { child, bytes })
            }
            Action::Load { generation } => self.load(generation),
            Action::Use { generation } => self.use_config(generation),
            Action::Forget { generation } => {
                self.configs.remove(&generation);
                self.tls.forget(generation);
                self.close_unused(now);
                self.metrics.close_others(self.configs.values().map(Arc::as_ref));
                self.publish();
                None
            }
            Action::ReopenLogs => self.tell_helper(ChildId::LOGGER, LogOrder::Reopen),
            Action::FinishLogs => self.tell_helper(ChildId::LOGGER, LogOrder::Finish),
            Action::FinishStats => self.tell_helper(ChildId::STATS, LogOrder::Finish),
            Action::StopListening => {
                self.listeners.retire(now);
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
            self.served_before = self.counters.served();
        }
        if let Notice::Reloaded { served, .. } = &mut notice {
            *served = Some(self.counters.served().saturating_sub(self.served_before).unchecked());
        }
        if let Notice::Exited { pid, peak, .. } = &mut notice {
            *peak = self.peak.filter(|peak| peak.pid == *pid).map(|peak| peak.bytes);
        }
        if let Notice::UpgradeFailed { output, reason } = &mut notice {
            *output = self.check.take().and_then(|check| check.said());
            self.refused = Refused::of(reason, output.as_deref());
        }
        self.metrics.note(&notice);
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

    fn fork(&mut self, id: ChildId, task: Task, generation: Generation) -> io::Result<i32> {
        let alone = SingleThreaded::prove().map_err(|names| {
            io::Error::other(format!("{} threads exist: {}", names.len(), names.join(", ")))
        })?;
        let (ours, theirs) = channel::pair()?;
        let config = Arc::clone(self.configs.get(&generation).unwrap_or_else(|| self.config()));
        let worker = besides(task, generation, &config)?;
        let ring = (task != Task::Logger).then(|| self.free_ring()).transpose()?;
        let block = self.metrics.block_for(&config, ring.as_ref().filter(|_| worker.is_some()))?;
        let (theirs_too, counters) = (worker.clone(), Arc::clone(&self.counters));
        let (master, began) = (process::pid(), now());
        // Among the others before the fork, so that the child closes the master's end of its own
        // channel, too: a child that held it would never hear the master's end.
        let mut kid = Kid::new(id, FORKING, ours, worker);
        kid.ring = ring.as_ref().map(Ring::place);
        kid.note_rings(&self.rings);
        if task == Task::Check {
            self.check = Some(Check::begin(&self.invocation)?);
        }
        self.kids.push(kid);
        let forked = fork::spawn(&alone, |child| {
            if task == Task::Check {
                // It has nothing to log.
                drop(ring);
                return self.check_new_binary(child, &theirs);
            }
            title::show(&alone, A::NAME, &role(task, generation), &self.name);
            let Some(ring) = ring else { return self.log(child, theirs, master) };
            let mut kept = vec![ring.descriptor()];
            kept.extend(theirs.descriptors().map(AsRawFd::as_raw_fd));
            logging::adopt(ring);
            if task == Task::Stats {
                return self.serve_stats(child, (theirs, master), (config, kept));
            }
            let (mut listeners, mut tls) = (Listeners::default(), None);
            // Of no other child: an address that is let go while it runs would be listened at still.
            if let Some(worker) = &theirs_too {
                block.into_iter().for_each(|block| worker.board.measure(block, process::pid()));
                kept.extend([worker.board.as_fd(), counters.as_fd()].map(|fd| fd.as_raw_fd()));
                listeners = std::mem::take(&mut self.listeners);
                listeners.forget_retired();
                listeners.note(&config);
                kept.extend(listeners.descriptors());
                tls = self.tls.take_for(generation);
                kept.extend(tls.iter().flat_map(descriptors));
            }
            if let Err(error) = self.shed(&child, &kept) {
                logging::emit(&MasterEvent::ShedFailed { reason: error.to_string() });
                return fork::PANICKED;
            }
            if let Err(error) = enter_home(&config) {
                let reason = error.to_string();
                logging::emit(&MasterEvent::FolderFailed { generation, reason });
            }
            let birth = Birth {
                config,
                generation,
                signals: &self.signals,
                channel: theirs,
                master,
                began,
                identity: &self.identity,
            };
            let Some(Worker { slot, board, .. }) = theirs_too else {
                return prepare(child, &birth, &*self.app);
            };
            let worker = WorkerBirth { birth, slot, listeners, tls, board, counters };
            live(child, worker, &self.app)
        });
        match (&forked, self.kids.last_mut()) {
            (Ok(pid), Some(kid)) => kid.process = Child::new(*pid),
            (Ok(_), None) => {}
            (Err(_), _) => drop(self.kids.pop()),
        }
        forked
    }

    /// In a child: gives up every descriptor of the master's but these. What the child itself drops
    /// later must be among them, or dropped before.
    ///
    /// # Why
    /// A descriptor that processes share is one open file: each of them can change its flags, read it
    /// empty, or fill it. And one that lives on in a child holds what it stands for against the next
    /// server: a lock, an address, the end of `ready_fd`.
    pub(super) fn shed(&mut self, child: &InChild, kept: &[RawFd]) -> io::Result<()> {
        // The handlers' end of the master's pipe.
        self.signals.forget();
        self.kids.clear();
        self.metrics.shed();
        (self.pidfile, self.ready, self.published) = (None, None, None);
        self.control = Control::default();
        drop(std::mem::take(&mut self.listeners));
        self.tls = Tls::default();
        fork::close_all_but(child, kept)
    }

    /// In a child: becomes the logger, which keeps nothing of the master's but the rings.
    fn log(&mut self, child: InChild, channel: Lower, master: i32) -> i32 {
        logging::have_no_ring();
        // Before its descriptor is closed with the others.
        let Ok(metrics) = self.metrics.memory().logger() else { return fork::PANICKED };
        let mut kept: Vec<_> =
            self.rings.descriptors().flatten().map(|fd| fd.as_raw_fd()).collect();
        kept.extend(channel.descriptors().map(AsRawFd::as_raw_fd));
        if self.shed(&child, &kept).is_err() {
            return fork::PANICKED;
        }
        let birth = logger::Birth {
            log: &self.log,
            rings: std::mem::take(&mut self.rings),
            signals: &self.signals,
            channel,
            master,
            identity: &self.identity,
            metrics,
        };
        logger::main(child, birth)
    }

    /// The first ring that no living child has, which the logger is sent when it is new. What waits in
    /// it is read all the same.
    fn free_ring(&mut self) -> io::Result<Ring> {
        let taken = |place: &usize| self.kids.iter().any(|kid| kid.ring == Some(*place));
        let place = (MASTER + 1..).find(|place| !taken(place));
        let ring = self.rings.ring(place.expect("there are fewer kids than numbers"))?;
        if let Some(logger) = self.kids.iter_mut().find(|kid| kid.id == ChildId::LOGGER) {
            logger.send_rings(&self.rings);
        }
        Ok(ring)
    }

    fn tell_helper(&mut self, child: ChildId, order: LogOrder) -> Option<Event> {
        if let Some(kid) = self.kids.iter_mut().find(|kid| kid.id == child) {
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

    /// Signals a child that is not reaped yet, and no other process.
    fn signal(&self, pid: Pid, signal: ChildSignal) -> Option<Event> {
        let number = match signal {
            ChildSignal::Quit => signals::INT,
            ChildSignal::Abort => signals::ABRT,
            ChildSignal::Kill => signals::KILL,
        };
        if let Some(kid) = self.kids.iter().find(|kid| kid.pid() == pid.0) {
            // It may have ended by itself: then it is about to be reaped.
            let _gone = kid.process.signal(number);
        }
        None
    }

    fn steer(&mut self, slots: &SlotSet) -> Option<Event> {
        if let Err(error) = self.listeners.steer(slots)
            && !std::mem::replace(&mut self.steerless, true)
        {
            logging::emit(&MasterEvent::SteeringFailed { reason: error.to_string() });
        }
        None
    }

    /// Opens further slots, and passes their listeners to the workers that are older than they.
    fn open_slots(&mut self, count: u16) -> Event {
        let backlog = self.config().backlog;
        let before = self.listeners.slots();
        let (opened, error) = self.listeners.grow(count, backlog);
        if let Some(error) = error {
            let reason = error.to_string();
            logging::emit(&MasterEvent::SlotsFailed { workers: count, reason });
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
        let configs = self.configs.values();
        let used: Vec<String> = configs.flat_map(|config| identities(config)).collect();
        for (address, name) in self.listeners.close_others(now, &used) {
            logging::emit(&MasterEvent::NotListening { address: name });
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

    fn look(&mut self, slot: Slot) -> Event {
        self.mend_listeners();
        let length = self.listeners.queue_length(slot);
        Event::QueueLength { slot, length, beat: self.last_beat(slot) }
    }

    /// Puts right what workers have done to the listeners that they share. Workers that lack a socket
    /// that was opened anew are replaced, as at a restart of their slots.
    pub(super) fn mend_listeners(&mut self) {
        let config = Arc::clone(self.config());
        if self.listeners.mend(now(), &config, self.supervisor.steered()) {
            let workers = self.kids.iter().filter(|kid| kid.worker.is_some());
            let due = workers.map(|kid| Event::WorkerDue { child: kid.id, why: Due::Restart });
            self.heard.extend(due);
        }
    }

    fn take_pulse(&mut self, now: Instant, child: ChildId) -> Option<Event> {
        self.mend_listeners();
        let kid = self.kids.iter_mut().find(|kid| kid.id == child)?;
        let beat = kid.worker.as_ref()?.board.last_beat();
        Some(Event::Pulse { child, beat, kept: kid.kept(now) })
    }

    /// Opens what a further configuration needs.
    pub(super) fn open_for(
        &mut self,
        generation: Generation,
        config: &Config,
    ) -> Result<(), String> {
        let bundle = tls::read(config).map_err(|error| reload_error(&error))?;
        self.mend_listeners();
        if self.listeners.is_passed() && !config.binds().eq(self.config().binds()) {
            logging::emit(&MasterEvent::BindIgnored);
        }
        self.metrics.open(config)?;
        let opened = self.listeners.open_missing(config).map_err(|error| error.to_string())?;
        for address in opened {
            logging::emit(&MasterEvent::Listening { address, pid: Pid(process::pid()) });
        }
        let kept = self.tls.keep(now(), generation, bundle);
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
        self.metrics.settle(config);
        if let Err(error) = self.listeners.set_backlog(config.backlog) {
            logging::emit(&MasterEvent::BacklogFailed { reason: error.to_string() });
        }
        self.listeners.note(config);
        self.publish();
        None
    }
}

/// The further facts about a child that is a worker.
///
/// # Errors
/// The system's error about memory and descriptors.
fn besides(task: Task, generation: Generation, config: &Config) -> io::Result<Option<Worker>> {
    match task {
        Task::Worker { slot } => {
            let board = Arc::new(WorkerBoard::new(connections(config))?);
            Ok(Some(Worker { slot, generation, board }))
        }
        Task::Prepare | Task::Check | Task::Logger | Task::Stats => Ok(None),
    }
}

/// In a child: makes a generation ready, that of the application or of a program; answers the exit code.
fn prepare(child: InChild, birth: &Birth<'_>, app: &impl App) -> i32 {
    if birth.config.program.is_set() {
        program::prepare(child, birth)
    } else {
        worker::prepare(child, birth, app)
    }
}

/// In a child: serves in a slot, by the application or by a program; answers the exit code.
fn live(child: InChild, worker: WorkerBirth<'_>, app: &Arc<impl App>) -> i32 {
    if worker.birth.config.program.is_set() {
        program::main(child, worker)
    } else {
        worker::main(child, worker, Arc::clone(app))
    }
}

/// A child's role, for its title.
fn role(task: Task, generation: Generation) -> String {
    match task {
        Task::Worker { slot } => format!("worker {slot} (generation {generation})"),
        Task::Prepare => format!("prepare (generation {generation})"),
        Task::Check => "check".to_owned(),
        Task::Logger => "logger".to_owned(),
        Task::Stats => "stats".to_owned(),
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
            let (first, more) = (&error.problems()[0], error.problems().len() - 1);
            format!("{first} (and {more} more in the error log)")
        }
        error => error.to_string(),
    }
}

/// Enters the folder of the configuration's generation. Where that is gone, the master's is as good.
fn enter_home(config: &Config) -> io::Result<()> {
    config.home().map_or(Ok(()), std::env::set_current_dir)
}

/// The pid of a child whose fork is under way: no process has it.
const FORKING: i32 = 0;

/// Connections and streams of a worker of this configuration that have a record; a few more are open
/// when several threads accept at once.
fn connections(config: &Config) -> usize {
    let connections = usize::try_from(config.worker_connections).unwrap_or(usize::MAX);
    // As many streams of HTTP/2 as connections: what exceeds them has no record.
    let streams = if config.http2.enabled { connections } else { 0 };
    connections.saturating_add(streams).saturating_add(64)
}
