//! **ferricorn**, the iron unicorn: a Gunicorn-style multi-worker process supervisor for axum
//! applications.

mod cli;
mod client;
pub mod config;
mod deadline;
mod embed;
mod error;
mod ids;
mod listeners;
mod logger;
mod logging;
mod master;
mod measured;
mod request_id;
mod scoreboard;
mod supervisor;
mod sys;
mod time;
mod wire;
mod worker;

pub use cli::main;
pub use client::{Client, Scheme};
pub use config::settings::Setting;
pub use config::{Config, ConfigError, seconds};
pub use deadline::Deadline;
pub use embed::{App, BoxError, Lead, PrepareContext, WorkerContext, run};
pub use error::Error;
pub use ids::{Generation, Slot};
pub use request_id::RequestId;

/// What `benches/` and the tests of allocations need of the inside. Not part of the contract.
#[doc(hidden)]
pub mod bench {
    pub use crate::logging::{AccessFormat, AccessWriter, Field, FormatError, Outcome, Record};
    pub use crate::measured::{Board, Decisions};
}
