//! The configuration from the outside: what the program says of files, variables and options.

#[path = "../support/program.rs"]
mod program;

mod documents;
mod errors;
mod layers;
mod secrets;
