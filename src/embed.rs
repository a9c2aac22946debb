//! The contract with an application: what it gives, what it is told, and how the two are run.

use std::ffi::OsStr;
use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};

use crate::config::settings::Setting;
use crate::config::{Config, FilePlace};
use crate::error::Error;
use crate::ids::Pid;
use crate::listeners::Listeners;
use crate::logging::journal::{self, Journal};
use crate::logging::{self, Chain, Layers, Rings};
use crate::master::events::MasterEvent;
use crate::master::metrics::Metrics;
use crate::master::pidfile::PidFile;
use crate::master::tls;
use crate::master::upgrade::{self, Start};
use crate::master::{self, Beginning, Master, Opened, Terminal};
use crate::scoreboard::SlotBoard;
use crate::sys::exec::{Invocation, Passed};
use crate::sys::fork::SingleThreaded;
use crate::sys::identity::Identity;
use crate::sys::process;
use crate::sys::signals::{self, Signals};
use crate::sys::{statistics, title};

mod context;
mod program;
mod service;
mod subcommand;
pub(crate) mod surroundings;
mod tasks;

pub use context::{PrepareContext, Process, WorkerContext, WorkerLoad};
pub(crate) use program::Program;
pub use service::HttpService;
pub(crate) use service::ServiceFailed;
pub use subcommand::{RunSubcommand, Subcommand};
pub(crate) use tasks::Tasks;

/// Any error that an application may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An application that ferricorn can serve. One value is made in the master and copied into every
/// child by `fork`: open pools, files and connections in [`App::router`], not before.
pub trait App: Send + Sync + 'static {
    /// The program's name: in the help, in errors, in the log, and in the names of its processes
    /// (`NAME`, `NAME-w0`, of which the kernel keeps 15 bytes). `env!("CARGO_PKG_NAME")` is the
    /// package's.
    const NAME: &'static str = Program::FERRICORN.name;

    /// The program's version, in `--version` and in the log. `env!("CARGO_PKG_VERSION")` is the
    /// package's.
    const VERSION: &'static str = Program::FERRICORN.version;

    /// The settings of the application's own tables. They have the same layers, provenance and error
    /// messages as ferricorn's; read them with [`Config::section`]. A default of ferricorn's own is
    /// changed here, too: [`Setting::with_default`].
    const SETTINGS: &'static [Setting] = &[];

    /// The names that `bind` may give to listeners (`"admin=127.0.0.1:5001"`), each of which has routes
    /// of its own: [`App::router_for`]. Any other name there ends the start, and a reload. The
    /// addresses without a name are served by [`App::router`].
    const LISTENERS: &'static [&'static str] = &[];

    /// The switch of `CONNECT` (RFC 9110 section 9.3.6), of HTTP/1.1: with it such requests reach the
    /// service, as a proxy's tunnels need; without it they are answered 501. An axum `Router` routes
    /// them by its fallback. The handler answers 2xx and takes the connection by `hyper::upgrade::on`;
    /// behind any other answer the connection is closed.
    const CONNECT: bool = false;

    /// The application's own subcommands: `myapp migrate`. They have the same configuration and the
    /// same options as the server.
    fn commands(&self) -> &'static [Subcommand] {
        &[]
    }

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
    ///
    /// A body may be as long as axum's extractors take (2 MiB, or what a route's
    /// [`DefaultBodyLimit`](axum::extract::DefaultBodyLimit) says), unless `limits.body` or
    /// [`WorkerContext::limit_body`] says otherwise.
    ///
    /// An application that is no axum `Router` of this version has [`App::service`] instead.
    ///
    /// # Errors
    /// Whatever keeps the worker from serving: it ends the start with exit code 3, or the reload.
    fn router(
        &self,
        worker: &WorkerContext,
    ) -> impl Future<Output = Result<axum::Router, BoxError>> + Send {
        let _ = worker;
        async { Err("the application has neither App::router nor App::service".into()) }
    }

    /// Builds a worker's routes for the listeners with this name, one of [`App::LISTENERS`]. Runs as
    /// [`App::router`] does and after it, for each name in use. Limits of bodies, the layers of
    /// [`App::own_answers`] and the probes of `[health]` are those of every listener.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use ferricorn::{App, BoxError, WorkerContext};
    /// # struct Shop;
    /// impl App for Shop {
    ///     const LISTENERS: &'static [&'static str] = &["admin"];
    ///
    ///     async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
    ///         Ok(Router::new().route("/", get("a shop")))
    ///     }
    ///
    ///     async fn router_for(&self, _name: &str, _: &WorkerContext) -> Result<Router, BoxError> {
    ///         Ok(Router::new().route("/", get("its office")))
    ///     }
    /// }
    /// ```
    fn router_for(
        &self,
        listener: &str,
        worker: &WorkerContext,
    ) -> impl Future<Output = Result<axum::Router, BoxError>> + Send {
        let _ = worker;
        let reason = format!("App::LISTENERS has {listener}, and there is no App::router_for");
        async { Err(reason.into()) }
    }

    /// Builds a worker's service of the listeners without a name (`None`), or with this one: any tower
    /// service, by [`HttpService::new`]. Runs as [`App::router`] does, which it calls by default, or
    /// [`App::router_for`].
    ///
    /// # Errors
    /// As [`App::router`].
    fn service(
        &self,
        listener: Option<&str>,
        worker: &WorkerContext,
    ) -> impl Future<Output = Result<HttpService, BoxError>> + Send {
        async move {
            let router = match listener {
                None => self.router(worker).await?,
                Some(name) => self.router_for(name, worker).await?,
            };
            Ok(HttpService::from(router))
        }
    }

    /// Changes the tokio runtime of a worker, or of the process that prepares, before it is built: the
    /// number of blocking threads, their names and stacks, hooks of threads. Called once in each
    /// process, after the fork.
    ///
    /// Ferricorn sets what its own work relies on afterwards, whatever was set here: the kind of
    /// runtime and `worker_threads` (both by the setting `threads`), `on_thread_park`, and all drivers.
    ///
    /// ```
    /// # use ferricorn::{App, BoxError, Config, WorkerContext};
    /// # struct Shop;
    /// # impl App for Shop {
    /// fn runtime(&self, _: &Config, builder: &mut tokio::runtime::Builder) {
    ///     builder.max_blocking_threads(16).thread_stack_size(4 << 20);
    /// }
    /// # }
    /// ```
    fn runtime(&self, config: &Config, builder: &mut tokio::runtime::Builder) {
        let _ = (config, builder);
    }

    /// Puts layers around the answers that ferricorn gives in the application's place, so that they
    /// carry what the application's own carry, like the fields of CORS. Without those a browser hides
    /// from its page whether it was a 413, a 500 or a 504.
    ///
    /// `answers` is a router that has such an answer for every request: add layers to it, and return
    /// it. Runs once in each worker, after [`App::router`]. The status stays ferricorn's, and so does
    /// `Connection: close`; a layer that is not ready at once may be left out. Requests whose head
    /// cannot be read (408, 431, some of 400 and 414) are answered without.
    ///
    /// ```
    /// # use axum::Router;
    /// # use axum::http::HeaderValue;
    /// # use axum::middleware::map_response;
    /// # use axum::response::Response;
    /// # use ferricorn::{App, BoxError, WorkerContext};
    /// # struct Open;
    /// async fn open(mut response: Response) -> Response {
    ///     let any = HeaderValue::from_static("*");
    ///     response.headers_mut().insert("access-control-allow-origin", any);
    ///     response
    /// }
    ///
    /// impl App for Open {
    ///     async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
    ///         Ok(Router::new().layer(map_response(open)))
    ///     }
    ///
    ///     fn own_answers(&self, _: &WorkerContext, answers: Router) -> Option<Router> {
    ///         Some(answers.layer(map_response(open)))
    ///     }
    /// }
    /// ```
    fn own_answers(&self, worker: &WorkerContext, answers: axum::Router) -> Option<axum::Router> {
        let _ = (worker, answers);
        None
    }

    /// Returns `Ok` if the application can do its work now: asked for each request to `health.ready`
    /// (`/readyz`), in a worker that serves. `Ok` is answered 200. An error is answered 503 with a
    /// generic text; its cause is logged when the application was ready before. Ready without such a
    /// method.
    ///
    /// It is given 2 s, and may run several times at once. When the server stops it is not asked: the
    /// answer is 503.
    ///
    /// # Errors
    /// Whatever keeps the application from its work, such as a database that is away.
    fn ready(&self, worker: &WorkerContext) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = worker;
        async { Ok(()) }
    }

    /// The `tracing` layers of a process, beside ferricorn's error log: exporters of traces, reporters
    /// of errors, formats of your own. Called once in each process before its other code: in the
    /// master, in the process that prepares, and in each worker, there within the runtime. A subscriber
    /// must not be set anywhere else.
    ///
    /// The master forks, and must have no threads: what needs them, as exporters do, belongs into
    /// [`Process::Worker`] and [`Process::Prepare`].
    ///
    /// ```
    /// # use ferricorn::telemetry::{Layers, LogWriter, Process};
    /// # use ferricorn::{App, BoxError, WorkerContext};
    /// # struct Shop;
    /// # impl App for Shop {
    /// #     async fn router(&self, _: &WorkerContext) -> Result<axum::Router, BoxError> {
    /// #         Ok(axum::Router::new())
    /// #     }
    /// fn telemetry(&self, process: Process<'_>) -> Result<Layers, BoxError> {
    ///     let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(LogWriter);
    ///     Ok(match process {
    ///         Process::Worker(_) => Layers::new().replace_error_log().with(lines),
    ///         _ => Layers::new(),
    ///     })
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// An error ends the start of the process, with exit code 3 or 4 as of any boot.
    fn telemetry(&self, process: Process<'_>) -> Result<Layers, BoxError> {
        let _ = process;
        Ok(Layers::new())
    }

    /// Called in a draining worker after its last request, and before its tasks are dropped. What goes
    /// on at the end of `graceful_timeout` is cut before.
    fn stopped(&self, worker: &WorkerContext) -> impl Future<Output = ()> + Send {
        let _ = worker;
        async {}
    }
}

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
    if let Start::TakeOver(desk) = &start {
        config.keep_in_force(desk.started())?;
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
        Start::TakeOver(mut desk) => {
            install_logs(&config, &mut desk.rings, &app)?;
            journal::keep(std::mem::take(&mut desk.journal));
            let (program, version) = (A::NAME.to_owned(), A::VERSION.to_owned());
            logging::emit(&MasterEvent::Upgraded { program, version });
            log_configuration(&config);
            let ready = desk.ready.take();
            let invocation = match desk.path.take() {
                Some(path) => invocation.with_path(path),
                None => invocation,
            };
            let beginning =
                Beginning { config, home, signals, identity, invocation, ready, terminal };
            Master::take_over(app, beginning, *desk)
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
            // Until there is a logger, nothing reads them.
            let opened =
                open::<A>(&config, &activated, passed).inspect_err(|_| logging::spill(&rings))?;
            let beginning =
                Beginning { config, home, signals, identity, invocation, ready, terminal };
            Master::begin(app, beginning, opened, rings)
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

/// Opens what the master owns, and says so.
fn open<A: App>(
    config: &Config,
    activated: &[(i32, String)],
    passed: Passed,
) -> Result<Opened, Error> {
    // First, so that nothing stands before it in the log of a start that fails.
    introduce(Program::of::<A>());
    log_configuration(config);
    let bundle = tls::read(config)?;
    let counters = SlotBoard::new().map_err(system("share memory"))?;
    let mut metrics = Metrics::new().map_err(system("share memory"))?;
    let listeners = Listeners::open(config, (activated, passed), config.workers)?;
    metrics.open(config).map_err(Error::Bind)?;
    let pidfile = config.pidfile.as_deref().map(PidFile::write).transpose()?;
    greet(config, &listeners);
    metrics.settle(config);
    Ok(Opened { listeners, counters, metrics, pidfile, bundle, seed: rand::random() })
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
    let (name, version) = (program.name.to_owned(), program.version.to_owned());
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
    let (workers, threads) = (config.workers, config.threads);
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
