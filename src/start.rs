//! The start of a server: from its configuration and application to a master that supervises.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::config::Error;
use crate::config::{Config, FilePlace};
use crate::embed::{App, Process, Program};
use crate::ids::Pid;
use crate::listeners::Listeners;
use crate::logging::journal::{self, Journal};
use crate::logging::{self, Chain, Rings};
use crate::master::events::MasterEvent;
use crate::master::lasting::Lasting;
use crate::master::tls;
use crate::master::upgrade::{self, Start};
use crate::master::{self, Beginning, Master, Terminal};
use crate::sys::exec::{Invocation, Passed};
use crate::sys::fork::SingleThreaded;
use crate::sys::identity::Identity;
use crate::sys::process;
use crate::sys::signals::{self, Signals};
use crate::sys::{statistics, title};

pub(crate) mod surroundings;

/// Keeps this process's memory out of core dumps, and from other processes of the same user: for one
/// that holds passwords or keys. It lasts until the process changes its user or its program.
///
/// # Errors
/// The error of prctl(2).
pub fn forbid_core_dump() -> std::io::Result<()> {
    process::forbid_core_dump()
}

/// Binds, forks and supervises; returns when the last worker is gone. Call it from a plain `main`,
/// before any thread is started.
///
/// # Errors
/// See [`Error`]; [`Error::exit_code`] is what the process should exit with.
pub fn run<A: App>(config: Config, app: A) -> Result<(), Error> {
    let alone = refuse_company()?;
    // Before anything of ours is open.
    let mut passed = Passed::note();
    let mut config = config.with_app(A::SETTINGS, A::LISTENERS)?;
    let start = upgrade::start(&alone).map_err(system("take over from the image before"))?;
    if let Start::Afresh = start {
        // An image that takes over needs no pid file any more, and must not fail for want of a folder.
        surroundings::judge(&config)?;
    }
    if let Start::TakeOver(lasting, _) = &start {
        config.keep_in_force(&lasting.started)?;
    }
    let invocation = Invocation::current(config.start_folder());
    let home = home(&config);
    if let Some(folder) = &config.chdir {
        std::env::set_current_dir(folder).map_err(|source| Error::folder(folder, &source))?;
    }
    config.settle(std::env::current_dir().ok());
    if let Some(mask) = config.umask {
        process::set_umask(mask);
    }
    let identity = Identity::find(&config.user, &config.group).map_err(Error::identity)?;
    // nohup(1) has it so.
    let is_ignored = signals::is_ignored(signals::HUP);
    let outlives_terminal = upgrade::take_terminal_flag(&alone) || is_ignored;
    if let Start::Check(question) = start {
        logging::check(&alone, &config.log, &identity).map_err(Error::logs)?;
        tls::read(&config)?;
        return question.answer().map_err(Error::Usage);
    }
    process::set_name(if config.proc_name.is_empty() { A::NAME } else { &config.proc_name });
    title::show(&alone, A::NAME, "master", &config.proc_name);
    process::append_to_standard_files();
    let was_there = process::has_terminal();
    let terminal = Terminal { was_there, is_survived: outlives_terminal, is_reported: false };
    signals::ignore(&signals::OF_LIMITS).map_err(system("ignore signals"))?;
    let signals = Signals::catch(&master::SIGNALS).map_err(system("catch signals"))?;
    Signals::let_in().map_err(system("let signals in"))?;
    match start {
        Start::TakeOver(mut lasting, former) => {
            install_logs(&config, &mut lasting.rings, &app)?;
            journal::keep(former.journal);
            let program = A::NAME.to_owned();
            let version = A::VERSION.to_owned();
            logging::emit(&MasterEvent::Upgraded { program, version });
            log_configuration(&config);
            let invocation = match former.path {
                Some(path) => invocation.with_path(path.into()),
                None => invocation,
            };
            let beginning = Beginning { config, home, signals, identity, invocation, terminal };
            Master::take_over(app, beginning, *lasting, former.configs)
        }
        Start::Afresh | Start::Check(_) => {
            logging::check(&alone, &config.log, &identity).map_err(Error::logs)?;
            let ready = config.ready_fd.map(|number| passed.take(number)).transpose();
            let ready = ready.map_err(|error| config.refused("ready_fd", &error))?.map(File::from);
            let activated = process::activated(&alone, &passed);
            let activated = activated.map_err(|reason| Error::Config(reason.into()))?;
            let mut rings = Rings::new().map_err(system("share memory"))?;
            install_logs(&config, &mut rings, &app)?;
            journal::keep(Journal::default());
            // First, so that nothing stands before it in the log of a start that fails.
            introduce(Program::of::<A>());
            log_configuration(&config);
            let opened = Lasting::open(&config, &activated, passed, ready, &mut rings);
            // Until there is a logger, nothing reads them.
            let mut lasting = opened.inspect_err(|_| logging::spill(&rings))?;
            greet(&config, &lasting.listeners);
            lasting.metrics.settle(&config);
            let beginning = Beginning { config, home, signals, identity, invocation, terminal };
            Master::begin(app, beginning, lasting)
        }
    }
}

/// The folder that the server works in, by the name that each reload finds it by.
fn home(config: &Config) -> Option<PathBuf> {
    let folder = config.start_folder();
    match &config.chdir {
        Some(chdir) => Some(folder.unwrap_or(Path::new("")).join(chdir)),
        None => folder.map(Path::to_owned),
    }
}

/// Has lines go into the master's ring, and events to its layers.
fn install_logs(config: &Config, rings: &mut Rings, app: &impl App) -> Result<(), Error> {
    let ring = rings.ring(logging::MASTER).map_err(system("share memory"))?;
    let layers = app.telemetry(Process::Master(config)).map_err(|error| {
        Error::Usage(format!("App::telemetry failed in the master: {}", Chain(error.as_ref())))
    })?;
    SingleThreaded::prove().map_err(|names| {
        Error::Usage(format!(
            "App::telemetry has started threads in the master ({}); start them in Process::Worker",
            names.join(", ")
        ))
    })?;
    logging::install(&config.log, ring, layers).map_err(|error| Error::logs(error.to_string()))
}

/// A process that forks must be alone in itself: a thread would be missing in the children, and with
/// it the locks that it holds.
fn refuse_company() -> Result<SingleThreaded, Error> {
    if tokio::runtime::Handle::try_current().is_ok() {
        let why = "a tokio runtime is already running; call ferricorn::run from a plain fn main";
        return Err(Error::Usage(why.to_owned()));
    }
    if tracing::dispatcher::has_been_set() {
        let why = "a tracing subscriber is installed already, which no worker could use: return its \
                   layers from App::telemetry instead of calling init()";
        return Err(Error::Usage(why.to_owned()));
    }
    match SingleThreaded::prove() {
        Ok(alone) => match process::connected_socket() {
            None => Ok(alone),
            Some(socket) => Err(Error::Usage(format!(
                "a connection exists before the first fork ({socket}): every worker would share it; \
                 open it in App::router"
            ))),
        },
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

/// Logs which program starts, before anything can fail.
fn introduce(program: Program) {
    let name = program.name.to_owned();
    let version = program.version.to_owned();
    logging::emit(&MasterEvent::Starting { program: name, version });
}

/// Logs which configuration is in force.
fn log_configuration(config: &Config) {
    let Some(FilePlace { path, is_read }) = config.file_place() else {
        return;
    };
    let settings = config.shown().count();
    let changed = config.shown().filter(|setting| !setting.is_default).count();
    if is_read {
        let file = path.display().to_string();
        logging::emit(&MasterEvent::Configured { file, changed, settings });
        return;
    }
    let shown = |part: &OsStr| part.to_string_lossy().into_owned();
    let file = path.file_name().map(shown).unwrap_or_default();
    let folder = path.parent().map(|folder| shown(folder.as_os_str())).unwrap_or_default();
    logging::emit(&MasterEvent::Unconfigured { file, folder, changed, settings });
}

/// Logs what is open and how large the server is, in gunicorn's words.
fn greet(config: &Config, listeners: &Listeners) {
    for address in listeners.labels() {
        logging::emit(&MasterEvent::Listening { address, pid: Pid(process::pid()) });
    }
    let workers = config.workers;
    let threads = config.threads;
    logging::emit(&MasterEvent::Size { workers, threads });
    for warning in config.warnings() {
        logging::emit(&MasterEvent::Doubtful { text: warning.to_string() });
    }
    if let Some(max) = statistics::backlog_max()
        && config.backlog > max
    {
        logging::emit(&MasterEvent::BacklogLimited { backlog: config.backlog, limit: max });
    }
}
