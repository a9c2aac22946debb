//! **ferricorn**, the iron unicorn: a Gunicorn-style multi-worker process supervisor for axum
//! applications.
#![expect(dead_code, reason = "the shells that use it are being built")]

mod cli;
pub mod config;
mod embed;
mod error;
mod ids;
mod listeners;
mod scoreboard;
mod supervisor;
mod sys;
mod time;
mod wire;

pub use cli::main;
pub use config::settings::Setting;
pub use config::{Config, ConfigError, seconds};
pub use embed::{App, BoxError, PrepareContext, WorkerContext, run};
pub use error::Error;
pub use ids::{Generation, Slot};
