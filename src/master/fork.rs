//! The fork of a child: its plan, made where the master can still refuse, and its first steps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use super::events::MasterEvent;
use super::handle::{ChildHandle, Worker};
use super::tls::{Tls, descriptors};
use super::upgrade::Check;
use super::{Master, now};
use crate::config::Config;
use crate::control::Control;
use crate::embed::App;
use crate::ids::{ChildId, Generation};
use crate::logger;
use crate::logging::{self, MASTER, Ring};
use crate::program;
use crate::scoreboard::{Block, WorkerBoard};
use crate::supervisor::stage::Task;
use crate::sys::channel::{self, Lower};
use crate::sys::fork::{self, InChild, SingleThreaded};
use crate::sys::identity::Identity;
use crate::sys::signals::Signals;
use crate::sys::wait::Child;
use crate::sys::{process, title};
use crate::time::Instant;
use crate::worker::{self, Birth, WorkerBirth};

/// A child that is about to be forked, with what its kind alone has.
enum Plan {
    Check,
    Logger,
    Stats { ring: Ring },
    Prepare { ring: Ring },
    Worker { ring: Ring, worker: Worker, block: Option<Block> },
}

/// The facts about its fork that a child has from the master.
struct Parting {
    channel: Lower,
    config: Arc<Config>,
    generation: Generation,
    /// The master's pid.
    master: i32,
    began: Instant,
}

impl Parting {
    fn birth<'a>(self, signals: &'a Signals, identity: &'a Identity) -> Birth<'a> {
        let Self { channel, config, generation, master, began } = self;
        Birth { config, generation, signals, channel, master, began, identity }
    }
}

impl Plan {
    /// The place of its ring.
    fn place(&self) -> Option<usize> {
        match self {
            Self::Check | Self::Logger => None,
            Self::Stats { ring } | Self::Prepare { ring } | Self::Worker { ring, .. } => {
                Some(ring.place())
            }
        }
    }

    fn worker(&self) -> Option<&Worker> {
        match self {
            Self::Worker { worker, .. } => Some(worker),
            Self::Check | Self::Logger | Self::Stats { .. } | Self::Prepare { .. } => None,
        }
    }
}

impl<A: App> Master<A> {
    pub(super) fn fork(
        &mut self,
        id: ChildId,
        task: Task,
        generation: Generation,
    ) -> io::Result<i32> {
        let alone = SingleThreaded::prove().map_err(|names| {
            io::Error::other(format!("{} threads exist: {}", names.len(), names.join(", ")))
        })?;
        let (ours, theirs) = channel::pair()?;
        let config = Arc::clone(self.configs.get(&generation).unwrap_or_else(|| self.config()));
        let plan = self.plan(task, generation, &config)?;
        // Among the others before the fork, so that the child closes the master's end of its own
        // channel, too: a child that held it would never hear the master's end.
        let mut handle = ChildHandle::new(id, FORKING, ours, plan.worker().cloned());
        handle.ring = plan.place();
        handle.note_rings(&self.lasting.rings);
        self.lasting.handles.push(handle);
        let master = process::pid();
        let began = now();
        let parting = Parting { channel: theirs, config, generation, master, began };
        let forked = fork::spawn(&alone, |child| {
            if !matches!(plan, Plan::Check) {
                title::show(&alone, A::NAME, &role(task, generation), &self.name);
            }
            self.become_child(child, plan, parting)
        });
        match (&forked, self.lasting.handles.last_mut()) {
            (Ok(pid), Some(handle)) => {
                handle.process = Child::new(*pid);
                handle.ring.iter().for_each(|place| self.lasting.rings.own(*place, *pid));
            }
            (Ok(_), None) => {}
            (Err(_), _) => drop(self.lasting.handles.pop()),
        }
        forked
    }

    /// # Errors
    /// The system's error about memory and descriptors.
    fn plan(&mut self, task: Task, generation: Generation, config: &Config) -> io::Result<Plan> {
        Ok(match task {
            Task::Check => {
                self.check = Some(Check::begin(&self.invocation)?);
                Plan::Check
            }
            Task::Logger => Plan::Logger,
            Task::Stats => Plan::Stats { ring: self.free_ring()? },
            Task::Prepare => Plan::Prepare { ring: self.free_ring()? },
            Task::Worker { slot } => {
                let board = Arc::new(WorkerBoard::new(connections(config))?);
                let ring = self.free_ring()?;
                let block = self.lasting.metrics.block_for(config, &ring)?;
                Plan::Worker { ring, worker: Worker { slot, generation, board }, block }
            }
        })
    }

    /// In a child: becomes what was planned; answers the exit code.
    fn become_child(&mut self, child: InChild, plan: Plan, parting: Parting) -> i32 {
        match plan {
            // It has nothing to log.
            Plan::Check => self.check_new_binary(child, &parting.channel),
            Plan::Logger => self.log(child, parting.channel, parting.master),
            Plan::Stats { ring } => {
                let Some(kept) = adopt(ring, &parting) else { return fork::PANICKED };
                let Parting { channel, config, master, .. } = parting;
                self.serve_stats(child, channel, master, config, kept)
            }
            Plan::Prepare { ring } => {
                let Some(kept) = adopt(ring, &parting) else { return fork::PANICKED };
                if let Err(code) = self.part(&child, &parting, &kept) {
                    return code;
                }
                prepare(child, &parting.birth(&self.signals, &self.identity), &*self.app)
            }
            Plan::Worker { ring, worker: Worker { slot, board, .. }, block } => {
                let Some(mut kept) = adopt(ring, &parting) else { return fork::PANICKED };
                block.into_iter().for_each(|block| board.measure(block, process::pid()));
                let counters = Arc::clone(&self.lasting.counters);
                kept.extend([board.as_fd(), counters.as_fd()].map(|fd| fd.as_raw_fd()));
                // Of no other child: an address that is let go while it runs would be listened at still.
                let mut listeners = std::mem::take(&mut self.lasting.listeners);
                listeners.forget_retired();
                listeners.keep_giver_of(slot);
                listeners.note(&parting.config);
                kept.extend(listeners.descriptors());
                let tls = self.lasting.tls.take_for(parting.generation);
                kept.extend(tls.iter().flat_map(descriptors));
                if let Err(code) = self.part(&child, &parting, &kept) {
                    return code;
                }
                let birth = parting.birth(&self.signals, &self.identity);
                let worker = WorkerBirth { birth, slot, listeners, tls, board, counters };
                live(child, worker, &self.app)
            }
        }
    }

    /// In a child that runs the application: gives up what is the master's alone, and enters its folder.
    ///
    /// # Errors
    /// The exit code of a child that could not.
    fn part(&mut self, child: &InChild, parting: &Parting, kept: &[RawFd]) -> Result<(), i32> {
        if let Err(error) = self.shed(child, kept) {
            logging::emit(&MasterEvent::ShedFailed { reason: error.to_string() });
            return Err(fork::PANICKED);
        }
        if let Err(error) = enter_home(&parting.config) {
            let generation = parting.generation;
            let reason = error.to_string();
            logging::emit(&MasterEvent::FolderFailed { generation, reason });
        }
        Ok(())
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
        self.lasting.handles.clear();
        self.lasting.metrics.shed();
        (self.lasting.pidfile, self.lasting.ready, self.published) = (None, None, None);
        self.lasting.control = Control::default();
        drop(std::mem::take(&mut self.lasting.listeners));
        self.lasting.tls = Tls::default();
        fork::close_all_but(child, kept)
    }

    /// In a child: becomes the logger, which keeps nothing of the master's but the rings.
    fn log(&mut self, child: InChild, channel: Lower, master: i32) -> i32 {
        logging::have_no_ring();
        // Before its descriptor is closed with the others.
        let Ok(metrics) = self.lasting.metrics.memory().logger() else { return fork::PANICKED };
        let mut kept = self.lasting.rings.keep_for_logger();
        kept.extend(channel.descriptors().map(AsRawFd::as_raw_fd));
        if self.shed(&child, &kept).is_err() {
            return fork::PANICKED;
        }
        let birth = logger::Birth {
            log: &self.log,
            rings: std::mem::take(&mut self.lasting.rings),
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
        let taken =
            |place: &usize| self.lasting.handles.iter().any(|handle| handle.ring == Some(*place));
        let place = (MASTER + 1..).find(|place| !taken(place));
        let ring = self.lasting.rings.ring(place.expect("there are fewer handles than numbers"))?;
        if let Some(logger) =
            self.lasting.handles.iter_mut().find(|handle| handle.id == ChildId::LOGGER)
        {
            logger.send_rings(&self.lasting.rings);
        }
        Ok(ring)
    }
}

/// In a child: logs into this ring from now on. Returns the descriptors that the ring and the channel need;
/// `None` if its own standard streams cannot be taken: the error is logged.
fn adopt(mut ring: Ring, parting: &Parting) -> Option<Vec<RawFd>> {
    let mut kept = vec![ring.descriptor()];
    kept.extend(parting.channel.descriptors().map(AsRawFd::as_raw_fd));
    let taken = ring.take_streams();
    logging::adopt(ring);
    if let Err(error) = taken {
        logging::emit(&MasterEvent::StreamsFailed { reason: error.to_string() });
        return None;
    }
    Some(kept)
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
