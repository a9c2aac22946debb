//! The route of `examples/plain.rs` under ferricorn, so that `bench/compare` measures the servers and
//! not two applications.

use axum::{Router, routing::get};
use ferricorn::{App, BoxError, WorkerContext};

struct Plain;

impl App for Plain {
    async fn router(&self, _worker: &WorkerContext) -> Result<Router, BoxError> {
        Ok(Router::new().route("/", get(|| async { "hello from plain axum\n" })))
    }
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Plain)
}
