//! The tests that start real processes, in one program. `cargo test` builds
//! all that they need and runs them.
//!
//! What a test may rely on: conditions are waited for, never times; what a client sees is counted, and
//! no client repeats a request; nothing is mocked.
#![expect(clippy::disallowed_methods, reason = "the tests have threads, clocks and patience")]

mod abuse;
mod access;
mod announce;
mod app_metrics;
mod boot;
mod boundary;
mod boundary_hostile;
mod boundary_logs;
mod client;
mod control;
mod control_figures;
mod cors;
mod databases;
mod deaths;
mod disk;
mod drains;
mod effects;
mod evenness;
mod events;
mod examples;
mod faults;
mod figures;
#[expect(clippy::unwrap_used, reason = "helpers of tests may fail where they stand")]
mod folders;
mod fuzz;
mod grpc;
mod h2spec;
mod haproxy;
mod harness;
mod health;
mod http2;
mod in_flight;
mod leavers;
mod limits;
mod link;
mod listen;
mod listeners;
mod live;
mod load;
mod log_figures;
mod logs;
mod machine;
mod matrix;
mod metrics;
mod metrics_figures;
mod namespaces;
mod nginx;
mod numbered;
mod pairs;
mod pidfile;
mod proc;
mod program;
mod programs;
mod prometheus;
mod proxies;
mod receipts;
mod recycling;
mod relays;
mod releases;
#[path = "../../../tests/support/request.rs"]
mod request;
mod resolver;
mod rows;
mod seen;
#[expect(clippy::unwrap_used, reason = "helpers of tests may fail where they stand")]
#[expect(dead_code, reason = "TLS is a matter of the application's own tests")]
#[path = "../app/servers.rs"]
mod servers;
mod service;
mod signals;
mod sockets;
mod status_page;
mod storms;
mod system_calls;
mod systemd;
mod table;
mod targets;
mod telemetry;
mod tls;
mod tls_figures;
mod tls_serving;
mod tunnel;
mod units;
mod upgrade;
mod waits;
mod why;
mod writable;
