//! The bundled application against real databases: one suite, run for each of them.
//!
//! The application's source is part of this binary, as it is of the program: its router is called
//! without a socket, and as many "workers" as a test wants live in one process. They share nothing
//! but the database, like the real ones.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail where they stand")]
#![expect(clippy::disallowed_methods, reason = "the tests have runtimes, clocks and threads")]

#[path = "../../src/app/mod.rs"]
mod app;

mod browser;
mod busy;
mod client;
mod connections;
mod logs;
mod outage;
mod page;
mod pooler;
mod servers;
mod sessions;
mod signin;
mod sqlite;
mod start;
mod status_page;
mod suite;
mod tls;
mod world;
mod writable;
