//! **ferricorn**, the iron unicorn: a Gunicorn-style multi-worker process supervisor for axum
//! applications.
#![expect(dead_code, reason = "the shells that use it are being built")]

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

pub use config::Config;
pub use embed::{App, BoxError, PrepareContext, WorkerContext, run};
pub use error::Error;
pub use ids::{Generation, Slot};
