//! The least that a ferricorn application can be.
use axum::{Router, routing::get};
use ferricorn::{App, BoxError, WorkerContext};

struct Hello;

impl App for Hello {
    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let greeting = format!("hello from worker {}\n", worker.slot());
        Ok(Router::new().route("/", get(|| async { greeting })))
    }
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Hello)
}
