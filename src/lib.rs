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
//! On by default are `cli` ([`main`], with the command line), `http2`, `top` (`ferricorn top`) and `app` (the
//! bundled service, with its database drivers). An application takes `default-features = false` and
//! `features = ["cli", "http2"]`; without `cli` it calls [`run`].

#![cfg_attr(
    not(all(feature = "cli", feature = "http2")),
    expect(
        dead_code,
        reason = "only the command line or HTTP/2 uses it; the compiler leaves it out"
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

mod body_limits;
#[cfg(feature = "cli")]
mod cli;
mod client;
mod client_certificate;
pub mod config;
mod control;
mod deadline;
mod draining;
mod embed;
mod error;
mod ids;
mod listener;
mod listeners;
mod log_event;
#[cfg(test)]
mod log_event_tests;
mod logger;
mod logging;
mod master;
mod measured;
mod peer;
mod program;
mod request_id;
mod scoreboard;
pub mod shared;
mod stats;
mod supervisor;
mod sys;
pub mod telemetry;
pub mod testing;
mod time;
mod tls;
mod trace_context;
mod wire;
mod worker;

/// The axum that ferricorn speaks: with its `Router` an application fits, whatever other versions there are.
pub use axum;
#[cfg(feature = "cli")]
pub use cli::main;
pub use client::{Client, Scheme};
pub use client_certificate::{ClientCertificate, NoClientCertificate};
pub use config::settings::Setting;
pub use config::{Config, ConfigError, seconds};
pub use deadline::Deadline;
pub use draining::Draining;
pub use embed::{
    App, BoxError, HttpService, PrepareContext, RunSubcommand, Subcommand, WorkerContext,
    WorkerLoad, forbid_core_dump, run,
};
pub use error::Error;
pub use ids::{Generation, Slot};
pub use listener::Listener;
pub use peer::{NoPeerCredentials, PeerCredentials};
pub use request_id::RequestId;
pub use shared::Lead;
pub use trace_context::TraceContext;

/// The parts of the inside that `benches/` and the tests of allocations need. Not part of the contract.
#[doc(hidden)]
pub mod bench {
    pub use crate::logging::{AccessFormat, AccessWriter, Field, FormatError, Outcome, Record};
    pub use crate::measured::{Board, Decisions};
}
