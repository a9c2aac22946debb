//! The tests that start real processes, in one program. `cargo test` builds
//! all that they need and runs them.
//!
//! What a test may rely on: conditions are waited for, never times; what a client sees is counted, and
//! no client repeats a request; nothing is mocked.
#![expect(clippy::disallowed_methods, reason = "the tests have threads, clocks and patience")]

mod boot;
mod client;
mod databases;
mod deaths;
mod disk;
mod drains;
mod effects;
mod evenness;
mod faults;
mod figures;
mod fuzz;
mod harness;
mod health;
mod limits;
mod link;
mod listen;
mod load;
mod log_figures;
mod logs;
mod machine;
mod namespaces;
mod numbered;
mod pairs;
mod pidfile;
mod proc;
mod program;
mod recycling;
mod releases;
#[path = "../support/request.rs"]
mod request;
mod rows;
#[expect(clippy::unwrap_used, reason = "helpers of tests may fail where they stand")]
#[expect(dead_code, reason = "TLS is a matter of the application's own tests")]
#[path = "../app/servers.rs"]
mod servers;
mod service;
mod signals;
mod storms;
mod systemd;
mod table;
mod targets;
mod upgrade;
mod waits;
