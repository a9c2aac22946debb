//! The process that obeys: it waits, collects what happened, asks the supervisor, and does as it is
//! told. It has one thread, no runtime, and sleeps nowhere but in [`Master::wait`]. No decision is
//! made here.

mod control;
pub(crate) mod events;
mod fork;
mod handle;
mod held;
mod inbox;
pub(crate) mod lasting;
mod loading;
mod manager;
pub(crate) mod metrics;
mod perform;
pub(crate) mod pidfile;
pub(crate) mod tls;
pub(crate) mod upgrade;
mod victims;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Error;
use crate::config::{Config, Log, PUBLISHED};
use crate::embed::App;
use crate::ids::{Generation, Pid};
use crate::logging::{self, ChildStreams};
use crate::master::control::Refused;
use crate::master::events::MasterEvent;
use crate::master::lasting::Lasting;
use crate::master::loading::Loading;
use crate::master::manager::Manager;
use crate::master::upgrade::Check;
use crate::supervisor::action::ExitReason;
use crate::supervisor::event::Event;
use crate::supervisor::policy::Policy;
use crate::sys::exec::{self, Invocation};
use crate::sys::identity::Identity;
use crate::sys::shared::Claim;
use crate::sys::signals::{self, Signals};
use crate::sys::statistics::Extent;
use crate::sys::{clock, process, write};
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
    app: Arc<A>,
    lasting: Lasting,
    /// The configurations in use.
    configs: BTreeMap<Generation, Arc<Config>>,
    signals: Signals,
    terminal: Terminal,
    /// Signals that were taken and are not told yet.
    caught: Vec<i32>,
    /// Reports of children that are not told yet.
    heard: Vec<Event>,
    /// Requests that were served when the reload under way began.
    served_before: Claim,
    /// The targets that the next logger opens.
    log: Log,
    identity: Identity,
    /// `proc_name` as it is in force.
    name: String,
    /// The folder that the server works in, by its name; each reload finds it anew.
    home: Option<PathBuf>,
    /// Where the server is to be asked, for those who look into this process.
    published: Option<File>,
    /// The command that starts the binary on disk again.
    invocation: Invocation,
    /// The last check of it.
    check: Option<Check>,
    /// The configuration of the reload under way, until it is loaded.
    loading: Option<Loading>,
    manager: Manager,
    /// The refusal of the last upgrade, with the output of the new binary.
    refused: Option<Refused>,
    /// True if the kernel was said not to let us steer.
    steerless: bool,
    /// The largest memory of the child that was reaped last.
    peak: Option<Peak>,
    exit: Option<ExitReason>,
}

/// The most memory that a child had resident.
#[derive(Clone, Copy, Debug)]
struct Peak {
    pid: Pid,
    bytes: u64,
}

/// The master's beginning, however it was started.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) config: Config,
    /// The folder that the server works in, by its name.
    pub(crate) home: Option<PathBuf>,
    pub(crate) signals: Signals,
    pub(crate) identity: Identity,
    pub(crate) invocation: Invocation,
    pub(crate) terminal: Terminal,
}

/// The controlling terminal, as it was at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub(crate) was_there: bool,
    /// The server was started to go on without it.
    pub(crate) is_survived: bool,
    /// Its end was logged.
    pub(crate) is_reported: bool,
}

impl<A: App> Master<A> {
    /// Supervises from the first fork to the last exit.
    pub(crate) fn begin(app: A, beginning: Beginning, lasting: Lasting) -> Result<(), Error> {
        Self::new(app, beginning, lasting).run(Event::Started)
    }

    /// Goes on where the image before has stopped, and rolls its workers.
    pub(crate) fn take_over(
        app: A,
        beginning: Beginning,
        lasting: Lasting,
        configs: BTreeMap<Generation, String>,
    ) -> Result<(), Error> {
        let mut master = Self::new(app, beginning, lasting);
        let today = Arc::clone(master.config());
        master.lasting.started = today.at_start_after(std::mem::take(&mut master.lasting.started));
        // Until the file of today has proved itself, every process goes by what was in force before.
        let adopt = |(generation, text)| (generation, Arc::new(today.adopt(text)));
        master.configs.extend(configs.into_iter().map(adopt));
        let config = Arc::clone(master.config());
        master.lasting.listeners.note(&config);
        master.log = master.config().log.clone();
        if let Err(error) = logging::apply(&master.log) {
            logging::emit(&MasterEvent::LogSettingsFailed { reason: error.to_string() });
        }
        master.run(Event::Upgraded)
    }

    fn new(app: A, beginning: Beginning, mut lasting: Lasting) -> Self {
        let config = Arc::new(beginning.config);
        let is_contained = beginning.identity.is_another();
        let streams = if is_contained { ChildStreams::Piped } else { ChildStreams::Inherited };
        lasting.rings.pipe_streams(streams);
        let generations = lasting.supervisor.generations();
        Self {
            app: Arc::new(app),
            configs: generations.map(|generation| (generation, Arc::clone(&config))).collect(),
            signals: beginning.signals,
            terminal: beginning.terminal,
            caught: Vec::new(),
            heard: Vec::new(),
            served_before: Claim::default(),
            log: config.log.clone(),
            identity: beginning.identity,
            name: config.proc_name.clone(),
            home: beginning.home,
            published: None,
            invocation: beginning.invocation,
            check: None,
            loading: None,
            manager: Manager::new(now(), lasting.supervisor.is_complete()),
            refused: None,
            steerless: false,
            peak: None,
            exit: None,
            lasting,
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
            self.manager.ping(now());
            self.lasting.listeners.expire(now());
            self.lasting.tls.look(now(), self.lasting.supervisor.generation());
            if self.config().stats.is_on() && self.lasting.metrics.take_asked() {
                self.publish_metrics();
            }
            let readiness = self.wait()?;
            self.take_in(&readiness);
            self.look_for_unheard();
            self.step(Event::Tick);
            self.serve_control(&readiness);
            if self.lasting.supervisor.is_upgrading() {
                self.upgrade();
            }
        }
    }

    /// Lets health checks know where the server is to be asked, whatever the file says by now. A file
    /// in memory, which a process that may look into this one finds among its descriptors: there need
    /// not be a folder that can be written to.
    fn publish(&mut self) {
        let text = self.config().published(&self.lasting.listeners.names(), &self.control_place());
        match text.map(|text| exec::memory_file(PUBLISHED, text.as_bytes())).transpose() {
            Ok(file) => self.published = file,
            Err(error) => {
                logging::emit(&MasterEvent::PublishFailed { reason: error.to_string() });
            }
        }
    }

    /// Tells the supervisor a fact and obeys, until the facts that follow from obeying are told too.
    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = now();
            for action in self.lasting.supervisor.handle(now, event) {
                events.extend(self.perform(now, action));
            }
        }
    }

    /// Returns the time that the master may sleep from now on; `None`: until something happens. It is the
    /// time by which the sources are chosen: what was put off until then is among them, or is waited for.
    fn poll_timeout(&self, now: Instant) -> Option<Duration> {
        // Found while something else was done.
        if !self.heard.is_empty() || !self.caught.is_empty() {
            return Some(Duration::ZERO);
        }
        let others = [
            self.manager.deadline(),
            self.lasting.listeners.deadline(),
            self.lasting.tls.deadline(),
            self.lasting.control.deadline(now),
            self.loading.as_ref().map(Loading::deadline),
        ];
        let children = self.lasting.handles.iter().map(|handle| handle.looked_at(now));
        let others = others.into_iter().chain(children);
        let deadlines = others.chain([self.lasting.supervisor.next_deadline()]);
        deadlines.flatten().min().map(|deadline| deadline.since(now))
    }

    /// The processes that make up a worker: a program has its keeper, and may have children.
    fn extent(&self) -> Extent {
        if self.config().program.is_set() { Extent::Tree } else { Extent::Process }
    }

    /// The configuration in force.
    fn config(&self) -> &Arc<Config> {
        self.configs
            .get(&self.lasting.supervisor.generation())
            .or_else(|| self.configs.values().next())
            .expect("the configuration in force is never forgotten")
    }

    /// Says, once, that every worker serves, and where, if that was asked for.
    fn tell_ready(&mut self) {
        if !self.lasting.supervisor.is_complete() {
            return;
        }
        self.manager.ready(now(), self.config().workers);
        if self.lasting.ready.is_some() {
            let named = self.lasting.listeners.by_name();
            let addresses = self.lasting.listeners.names();
            let line = serde_json::json!({
                "pid": process::pid(), "addresses": addresses, "named": named,
            });
            let line = format!("{line}\n");
            let told = |file: File| write::at_once(file.as_fd(), line.as_bytes());
            if self.lasting.ready.take().map(told) == Some(false) {
                let reason = "it takes no more, or its reader is gone".to_owned();
                logging::emit(&MasterEvent::ReadyFdFailed { reason });
            }
        }
    }

    fn end(self, reason: ExitReason) -> Result<(), Error> {
        if let Some(pidfile) = self.lasting.pidfile {
            pidfile.remove();
        }
        self.lasting.control.close();
        logging::leave(&self.lasting.rings, self.lasting.supervisor.is_logger_failing());
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

/// Returns the part of the configuration that is about supervision.
pub(crate) fn policy(config: &Config) -> Policy {
    Policy {
        workers: config.workers,
        workers_max: config.workers_max(),
        graceful_timeout: config.graceful_timeout,
        announce: config.announce,
        boot_timeout: config.boot_timeout,
        stall_timeout: config.stall_timeout,
        max_lifetime: config.max_lifetime,
        max_memory: config.max_memory,
        stats: config.stats.is_on(),
        extensible: config.program.is_set(),
    }
}
