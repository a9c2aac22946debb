//! The process that obeys: it waits, collects what happened, asks the supervisor, and does as it is
//! told. It has one thread, no runtime, and sleeps nowhere but in [`Master::wait`]. No decision is
//! made here.

mod held;
mod inbox;
mod kid;
mod manager;
mod perform;
pub(crate) mod pidfile;
pub(crate) mod upgrade;
mod victims;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{AtStart, Config, Log, PUBLISHED};
use crate::embed::App;
use crate::error::Error;
use crate::ids::{Generation, SlotSet};
use crate::listeners::Listeners;
use crate::logging::{self, Rings};
use crate::master::kid::Kid;
use crate::master::manager::Manager;
use crate::master::pidfile::PidFile;
use crate::master::upgrade::{Check, Inheritance};
use crate::master::victims::Victims;
use crate::scoreboard::SlotBoard;
use crate::supervisor::Supervisor;
use crate::supervisor::action::ExitReason;
use crate::supervisor::event::Event;
use crate::supervisor::policy::Policy;
use crate::sys::exec::{self, Invocation};
use crate::sys::process::Identity;
use crate::sys::signals::{self, Signals};
use crate::sys::{clock, process, statistics};
use crate::time::Instant;

/// The signals that the master heeds.
pub(crate) const SIGNALS: [i32; 10] = [
    signals::CHLD,
    signals::TERM,
    signals::INT,
    signals::QUIT,
    signals::HUP,
    signals::TTIN,
    signals::TTOU,
    signals::USR1,
    signals::USR2,
    signals::WINCH,
];

/// The master process.
#[derive(Debug)]
pub(crate) struct Master<A> {
    app: A,
    supervisor: Supervisor,
    /// The configurations that somebody uses.
    configs: BTreeMap<Generation, Arc<Config>>,
    /// What takes effect at a start only, as it is in force.
    started: AtStart,
    listeners: Listeners,
    signals: Signals,
    kids: Vec<Kid>,
    counters: Arc<SlotBoard>,
    /// Requests that were served when the reload under way began.
    served_before: u64,
    rings: Rings,
    /// What the next logger opens.
    log: Log,
    /// Slots whose queue is watched.
    armed: SlotSet,
    identity: Identity,
    pidfile: Option<PidFile>,
    /// Where the server is to be asked, for whoever looks into this process.
    published: Option<File>,
    /// How to start the binary on disk again.
    invocation: Invocation,
    /// The last check of it.
    check: Option<Check>,
    manager: Manager,
    /// Where it is told, once, that every worker serves.
    ready: Option<File>,
    /// Whether the kernel was said not to let us steer.
    steerless: bool,
    victims: Victims,
    exit: Option<ExitReason>,
}

/// What the master begins with, however it was started.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) config: Config,
    pub(crate) signals: Signals,
    pub(crate) identity: Identity,
    pub(crate) invocation: Invocation,
    pub(crate) ready: Option<File>,
}

/// What a master that starts afresh has opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) listeners: Listeners,
    pub(crate) counters: SlotBoard,
    pub(crate) pidfile: Option<PidFile>,
    /// For jitter.
    pub(crate) seed: u64,
}

impl<A: App> Master<A> {
    /// Supervises from the first fork to the last exit.
    pub(crate) fn begin(
        app: A,
        beginning: Beginning,
        opened: Opened,
        rings: Rings,
    ) -> Result<(), Error> {
        let Opened { listeners, counters, pidfile, seed } = opened;
        let supervisor = Supervisor::new(policy(&beginning.config), seed);
        let desk = Inheritance {
            supervisor,
            listeners,
            counters,
            rings,
            kids: Vec::new(),
            armed: SlotSet::EMPTY,
            pidfile,
            victims: Victims::new(statistics::out_of_memory_kills()),
            ready: None,
            path: None,
            configs: BTreeMap::new(),
            started: AtStart::new(),
        };
        Self::new(app, beginning, desk).run(Event::Started)
    }

    /// Goes on where the image before has stopped, and rolls its workers.
    pub(crate) fn take_over(
        app: A,
        beginning: Beginning,
        mut desk: Inheritance,
    ) -> Result<(), Error> {
        let (configs, started) =
            (std::mem::take(&mut desk.configs), std::mem::take(&mut desk.started));
        let mut master = Self::new(app, beginning, desk);
        let today = Arc::clone(master.config());
        master.started = today.at_start_after(started);
        // Until the file of today has proved itself, everybody goes by what was in force before.
        let adopted = configs.into_iter().map(|(it, text)| (it, Arc::new(today.adopt(text))));
        master.configs.extend(adopted);
        master.log = master.config().log.clone();
        if let Err(error) = logging::apply(&master.log) {
            tracing::error!("failed to apply the log settings: {error}");
        }
        master.run(Event::Upgraded)
    }

    fn new(app: A, beginning: Beginning, desk: Inheritance) -> Self {
        let config = Arc::new(beginning.config);
        let generations = desk.supervisor.generations();
        Self {
            app,
            configs: generations.map(|it| (it, Arc::clone(&config))).collect(),
            started: config.at_start(),
            listeners: desk.listeners,
            signals: beginning.signals,
            kids: desk.kids,
            counters: Arc::new(desk.counters),
            served_before: 0,
            rings: desk.rings,
            log: config.log.clone(),
            armed: desk.armed,
            identity: beginning.identity,
            pidfile: desk.pidfile,
            published: None,
            invocation: beginning.invocation,
            check: None,
            manager: Manager::new(now(), desk.supervisor.is_complete()),
            supervisor: desk.supervisor,
            ready: beginning.ready,
            steerless: false,
            victims: desk.victims,
            exit: None,
        }
    }

    fn run(mut self, first: Event) -> Result<(), Error> {
        self.publish();
        self.step(first);
        loop {
            if let Some(reason) = self.exit {
                return self.end(reason);
            }
            self.tell_ready();
            self.manager.beat(now());
            self.listeners.expire(now());
            let readiness = self.wait()?;
            self.take_in(&readiness);
            self.step(Event::Tick);
            if self.supervisor.is_upgrading() {
                self.upgrade();
            }
        }
    }

    /// Lets health checks know where the server is to be asked, whatever the file says by now. A file
    /// in memory, which whoever may look into this process finds among its descriptors: there need
    /// not be a folder that can be written to.
    fn publish(&mut self) {
        let text = self.config().published(&self.listeners.names());
        match text.map(|text| exec::memory_file(PUBLISHED, text.as_bytes())).transpose() {
            Ok(file) => self.published = file,
            Err(error) => tracing::warn!("failed to publish the addresses: {error}"),
        }
    }

    /// Tells the supervisor a fact and obeys, until the facts that follow from obeying are told too.
    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = now();
            for action in self.supervisor.handle(now, event) {
                events.extend(self.perform(now, action));
            }
        }
    }

    /// How long the master may sleep; `None`: until something happens.
    fn patience(&self) -> Option<Duration> {
        let others = [self.manager.deadline(), self.listeners.deadline()];
        let deadlines = others.into_iter().chain([self.supervisor.next_deadline()]);
        deadlines.flatten().min().map(|deadline| deadline.since(now()))
    }

    /// The configuration in force.
    fn config(&self) -> &Arc<Config> {
        self.configs
            .get(&self.supervisor.generation())
            .or_else(|| self.configs.values().next())
            .expect("the configuration in force is never forgotten")
    }

    /// Says, once, that every worker serves, and where: to whoever asked for it.
    fn tell_ready(&mut self) {
        if !self.supervisor.is_complete() {
            return;
        }
        self.manager.ready(now(), self.config().workers);
        if self.ready.is_some() {
            let line =
                serde_json::json!({ "pid": process::pid(), "addresses": self.listeners.names() });
            if let Some(Err(error)) = self.ready.take().map(|mut file| writeln!(file, "{line}")) {
                tracing::warn!("failed to tell ready_fd: {error}");
            }
        }
    }

    fn end(self, reason: ExitReason) -> Result<(), Error> {
        if let Some(pidfile) = self.pidfile {
            pidfile.remove();
        }
        logging::leave(&self.rings);
        match reason {
            ExitReason::Stopped => Ok(()),
            ExitReason::WorkerBoot => {
                Err(Error::WorkerBoot("no worker could boot; the error log says why".to_owned()))
            }
            ExitReason::Prepare => Err(Error::Prepare(
                "the application failed to load; the error log says why".to_owned(),
            )),
        }
    }
}

fn now() -> Instant {
    Instant::from_millis(clock::monotonic_millis())
}

/// What the configuration says about supervision.
pub(crate) fn policy(config: &Config) -> Policy {
    Policy {
        workers: config.workers,
        graceful_timeout: config.graceful_timeout,
        boot_timeout: config.boot_timeout,
        stall_timeout: config.stall_timeout,
        max_lifetime: config.max_lifetime,
        max_memory: config.max_memory,
    }
}
