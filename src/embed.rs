//! The contract with an application: what it gives, and what it is told.

use std::future::Future;

use crate::config::Config;
use crate::config::settings::Setting;
use crate::logging::Layers;

mod context;
mod from_fn;
mod program;
mod service;
mod subcommand;
mod tasks;

pub use context::{PrepareContext, Process, WorkerContext, WorkerLoad};
pub use from_fn::{FromFn, from_fn};
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
    /// changed here, too ([`Setting::with_default`]), and the most workers that the application may
    /// have ([`Setting::at_most`]).
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
