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
mod control;
mod control_figures;
mod cors;
mod databases;
mod deaths;
mod drains;
mod effects;
mod evenness;
mod examples;
mod faults;
mod figures;
#[expect(clippy::unwrap_used, reason = "helpers of tests may fail where they stand")]
mod folders;
mod fuzz;
mod grpc;
mod h2spec;
mod haproxy;
mod health;
mod http2;
mod in_flight;
mod leavers;
mod limits;
mod listen;
mod listeners;
mod live;
mod log_figures;
mod logs;
mod matrix;
mod metrics;
mod metrics_figures;
mod namespaces;
mod nginx;
mod pairs;
mod pidfile;
mod programs;
mod prometheus;
mod proxies;
mod receipts;
mod recycling;
mod relays;
mod releases;
mod resolver;
mod rows;
mod service;
mod signals;
mod status_page;
mod storms;
mod support;
mod system_calls;
mod systemd;
mod table;
mod targets;
mod telemetry;
mod tls_figures;
mod tls_serving;
mod tunnel;
mod units;
mod upgrade;
mod waits;
mod why;
mod writable;

use support::{
    client, disk, events, harness, link, load, machine, numbered, proc, program, request, seen,
    servers, sockets, tls,
};
