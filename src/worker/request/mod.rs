//! One request, from its head until its access line is written.

mod addressless;
mod body;
mod ended;
pub(crate) mod health;
pub(crate) mod own;
pub(crate) mod phases;
pub(crate) mod record;
mod reports;
pub(crate) mod service;
mod strict;
