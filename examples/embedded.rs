//! A server without ferricorn's command line: the application reads its own arguments, and changes the
//! configuration by itself.
//!
//!     cargo run --no-default-features --example embedded -- server.toml

use std::io::Write as _;
use std::process::ExitCode;

use axum::{Router, routing::get};
use ferricorn::{App, BoxError, Config, Error, WorkerContext};

struct Hello;

impl App for Hello {
    async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
        Ok(Router::new().route("/", get("hello\n")))
    }
}

fn main() -> ExitCode {
    let Err(error) = serve() else { return ExitCode::SUCCESS };
    let _closed = writeln!(std::io::stderr(), "{error}");
    ExitCode::from(error.exit_code())
}

fn serve() -> Result<(), Error> {
    let mut config = match std::env::args_os().nth(1) {
        Some(file) => Config::from_file(file)?,
        None => Config::default(),
    };
    // A changed field stays as it is at a reload.
    config.limits.body = 64 << 10;
    ferricorn::run(config, Hello)
}
