//! **ferricorn**, the iron unicorn: a Gunicorn-style multi-worker process supervisor for axum
//! applications.
//!
//! A master binds the addresses and forks workers, each of which serves the application's `Router`. A worker
//! that dies or stalls is replaced; a reload and an upgrade of the binary lose no request. The command line,
//! the settings, signals and log formats are gunicorn's.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use ferricorn::{App, BoxError, WorkerContext};
//!
//! struct Hello;
//!
//! impl App for Hello {
//!     const NAME: &'static str = "hello";
//!
//!     async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
//!         let greeting = format!("hello from worker {}\n", worker.slot());
//!         Ok(Router::new().route("/", get(|| async { greeting })))
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     ferricorn::main(Hello)
//! }
//! ```
//! `hello --workers 4` serves on 0.0.0.0:5000; `hello --help` lists the settings.
//!
//! # Where to look
//! - [`App`]: what an application gives. [`WorkerContext`]: what a worker may know and ask for.
//! - [`Client`], [`Listener`], [`RequestId`], [`Deadline`], [`Draining`], [`TraceContext`]: extractors
//!   for handlers.
//! - [`shared`]: counters, rate limits and leases over all workers, each of which has its own memory.
//! - [`telemetry`]: layers of `tracing` in each process. [`testing`]: tests of an application.
//!
//! # Features
//! On by default are `cli` ([`main`], with the command line) and `toml` (configuration files with tables);
//! `tls`, `http2` and `top` (the live screen) are opt-in. Without `cli` an application calls [`run`],
//! without `tls` a configuration with certificates is refused, without `http2` clients are served
//! HTTP/1.1 alone.

#![cfg_attr(
    not(all(feature = "cli", feature = "http2", feature = "tls")),
    expect(
        dead_code,
        reason = "only the command line, HTTP/2 or TLS uses it; the compiler leaves it out"
    )
)]
#![cfg_attr(
    not(feature = "cli"),
    expect(unused_imports, reason = "only the command line uses them")
)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "ferricorn runs on Linux alone: it relies on SO_REUSEPORT groups with a selector, memfd_create, \
     pidfds, epoll and the parent's death signal. Build it for a Linux target, or in a container."
);

mod access_format;
#[cfg(feature = "cli")]
mod cli;
pub mod config;
mod control;
mod embed;
mod ids;
mod listeners;
mod log_event;
#[cfg(test)]
mod log_event_tests;
mod logger;
mod logging;
mod master;
mod measured;
mod program;
mod request;
mod scoreboard;
pub mod shared;
mod start;
mod stats;
mod supervisor;
mod sys;
pub mod telemetry;
pub mod testing;
mod time;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls_off.rs"]
mod tls;
mod wire;
mod worker;

/// The axum that ferricorn speaks: with its `Router` an application fits, whatever other versions there are.
pub use axum;
#[cfg(feature = "cli")]
pub use cli::main;
pub use config::settings::Setting;
pub use config::{Config, ConfigError, Error, seconds};
pub use embed::{
    App, BoxError, FromFn, HttpService, PrepareContext, RunSubcommand, Subcommand, WorkerContext,
    WorkerLoad, from_fn,
};
pub use ids::{Generation, Slot};
pub use request::client::{Client, Scheme};
pub use request::client_certificate::{ClientCertificate, NoClientCertificate};
pub use request::deadline::Deadline;
pub use request::draining::Draining;
pub use request::id::RequestId;
pub use request::listener::Listener;
pub use request::peer::{NoPeerCredentials, PeerCredentials};
pub use request::trace_context::TraceContext;
pub use shared::Lead;
pub use start::{forbid_core_dump, run};

/// The parts of the inside that `benches/` and the tests of allocations need. Not part of the contract.
#[doc(hidden)]
pub mod bench {
    pub use crate::access_format::{AccessFormat, FormatError};
    pub use crate::logging::{AccessWriter, Field, Outcome, Record};
    pub use crate::measured::{Board, Decisions};
}
