//! The bundled application against real databases: one suite, run for each of them.
//!
//! The application's source is part of this binary, as it is of the program: its router is called
//! without a socket, and as many "workers" as a test wants live in one process. They share nothing
//! but the database, like the real ones.

#[path = "../../src/app/mod.rs"]
mod app;

#[cfg(test)]
mod client;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod sqlite;
#[cfg(test)]
mod start;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod world;
