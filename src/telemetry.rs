//! The layers of `tracing` that an application has beside ferricorn's error log: see
//! [`App::telemetry`](crate::App::telemetry).

pub use crate::embed::Process;
pub use crate::logging::{Layers, LogPiece, LogWriter};
