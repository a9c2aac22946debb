//! The command line from the outside: commands, exit codes, and what is printed where.

#[path = "../support/program.rs"]
mod program;

mod commands;
mod healthcheck;
mod help;
mod refused;
mod user;
