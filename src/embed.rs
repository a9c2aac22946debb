//! The contract with an application: what it gives, what it is told, and how the two are run.

use std::fs::File;
use std::future::Future;
use std::sync::Arc;

use crate::config::Config;
use crate::config::settings::Setting;
use crate::error::Error;
use crate::ids::{Generation, Slot};
use crate::listeners::Listeners;
use crate::logging::{self, Rings};
use crate::master::pidfile::PidFile;
use crate::master::upgrade::{self, Start};
use crate::master::{self, Beginning, Master, Opened};
use crate::scoreboard::SlotBoard;
use crate::sys::exec::{self, Invocation};
use crate::sys::fork::SingleThreaded;
use crate::sys::process::{self, Identity};
use crate::sys::signals::Signals;
use crate::sys::statistics;

/// Any error that an application may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An application that ferricorn can serve. One value is made in the master and copied into every
/// child by `fork`: open pools, files and connections in [`App::router`], not before.
pub trait App: Send + Sync + 'static {
    /// The settings of the application's own tables. They have the same layers, provenance and error
    /// messages as ferricorn's; read them with [`Config::section`].
    const SETTINGS: &'static [Setting] = &[];

    /// Makes the world ready for a generation's workers: waits for the database, runs migrations.
    /// Runs once for each generation, in a short-lived process of its own.
    fn prepare(
        &self,
        context: &PrepareContext,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// Builds a worker's routes. Runs once in each worker, after the fork, inside its runtime.
    fn router(
        &self,
        worker: &WorkerContext,
    ) -> impl Future<Output = Result<axum::Router, BoxError>> + Send;

    /// Called in a leaving worker after its last request.
    fn stopped(&self, worker: &WorkerContext) -> impl Future<Output = ()> + Send {
        let _ = worker;
        async {}
    }
}

/// What [`App::prepare`] may know.
#[derive(Clone, Debug)]
pub struct PrepareContext {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: Generation,
}

impl PrepareContext {
    /// The configuration of the generation that is being prepared.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The generation that is being prepared.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// What a worker may know of itself.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: Generation,
    pub(crate) slot: Slot,
    pub(crate) counters: Arc<SlotBoard>,
}

/// That this worker leads: see [`WorkerContext::lead`].
#[derive(Debug)]
pub struct Lead {
    counters: Arc<SlotBoard>,
    pid: u32,
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.counters.end_lead(self.pid);
    }
}

impl WorkerContext {
    /// The configuration of this worker's generation.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration's generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The worker's place, from 0: stable over its replacements.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Makes this worker the leader, for what one worker is to do for all of them: to tell of an
    /// outage that each of them meets, say. There is one leader in a server, over all generations: it
    /// leads until what this answers is dropped, or its process ends. `None`: another one leads, or
    /// something else in this worker has it lead.
    #[must_use]
    pub fn lead(&self) -> Option<Lead> {
        let pid = std::process::id();
        self.counters.lead(pid).then(|| Lead { counters: Arc::clone(&self.counters), pid })
    }
}

/// Binds, forks and supervises; returns when the last worker is gone. Call it from a plain `main`,
/// before any thread is started.
///
/// # Errors
/// See [`Error`]; [`Error::exit_code`] is what the process should exit with.
pub fn run<A: App>(config: Config, app: A) -> Result<(), Error> {
    let alone = refuse_company()?;
    let config = config.with_app(A::SETTINGS)?;
    let invocation = Invocation::current();
    if let Some(folder) = &config.chdir {
        std::env::set_current_dir(folder).map_err(|source| Error::folder(folder, &source))?;
    }
    if let Some(mask) = config.umask {
        process::set_umask(mask);
    }
    let identity = Identity::find(&config.user, &config.group).map_err(Error::identity)?;
    let start = upgrade::start(&alone).map_err(system("take over from the image before"))?;
    if let Start::Check(question) = start {
        logging::check(&config.log).map_err(|source| Error::logs(&source))?;
        return question.answer().map_err(Error::Usage);
    }
    process::set_name(if config.proc_name.is_empty() { "ferricorn" } else { &config.proc_name });
    let signals = Signals::catch(&master::SIGNALS).map_err(system("catch signals"))?;
    Signals::let_in().map_err(system("let signals in"))?;
    match start {
        Start::TakeOver(mut desk) => {
            install_logs(&config, &desk.rings)?;
            tracing::info!("Upgraded in place to ferricorn {}", env!("CARGO_PKG_VERSION"));
            let ready = desk.ready.take();
            let invocation = match desk.path.take() {
                Some(path) => invocation.with_path(path),
                None => invocation,
            };
            let beginning = Beginning { config, signals, identity, invocation, ready };
            Master::take_over(app, beginning, *desk)
        }
        Start::Afresh | Start::Check(_) => {
            logging::check(&config.log).map_err(|source| Error::logs(&source))?;
            let ready = config.ready_fd.map(exec::inherited).transpose();
            let ready = ready.map_err(system("take over ready_fd"))?.map(File::from);
            let rings = Rings::new().map_err(system("share memory"))?;
            install_logs(&config, &rings)?;
            // Until there is a logger, nobody reads them.
            let opened = open(&config, &process::activated(&alone))
                .inspect_err(|_| logging::spill(&rings))?;
            let beginning = Beginning { config, signals, identity, invocation, ready };
            Master::begin(app, beginning, opened, rings)
        }
    }
}

/// Has lines go into the master's ring.
fn install_logs(config: &Config, rings: &Rings) -> Result<(), Error> {
    let ring = rings.ring(logging::MASTER).map_err(system("share memory"))?;
    logging::install(&config.log, ring).map_err(|source| Error::logs(&source))
}

/// Opens what the master owns, and says so.
fn open(config: &Config, passed: &[(i32, String)]) -> Result<Opened, Error> {
    let counters = SlotBoard::new().map_err(system("share memory"))?;
    let listeners = Listeners::open(config, passed, config.workers)?;
    let pidfile = config.pidfile.as_deref().map(PidFile::write).transpose()?;
    greet(config, &listeners);
    Ok(Opened { listeners, counters, pidfile, seed: rand::random() })
}

/// A process that forks must be alone in itself: a thread would be missing in the children, and with
/// it the locks that it holds.
fn refuse_company() -> Result<SingleThreaded, Error> {
    if tokio::runtime::Handle::try_current().is_ok() {
        let why = "a tokio runtime is already running; call ferricorn::run from a plain fn main";
        return Err(Error::Usage(why.to_owned()));
    }
    match SingleThreaded::prove() {
        Ok(alone) => Ok(alone),
        Err(names) => Err(Error::Usage(format!(
            "{} threads exist before the first fork ({}); start them in App::router",
            names.len(),
            names.join(", ")
        ))),
    }
}

fn system(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::System { action, source }
}

/// The first lines of the error log, in gunicorn's words.
fn greet(config: &Config, listeners: &Listeners) {
    tracing::info!("Starting ferricorn {}", env!("CARGO_PKG_VERSION"));
    for name in listeners.names() {
        tracing::info!("Listening at: {name} ({})", process::pid());
    }
    tracing::info!("Using {} workers with {} threads each", config.workers, config.threads);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    if let Some(max) = statistics::backlog_max()
        && config.backlog > max
    {
        tracing::warn!(
            "backlog is {}, but the kernel lets only {max} connections wait on a listener; \
             raise net.core.somaxconn or lower backlog",
            config.backlog
        );
    }
}
