//! A background job that runs in one worker of the server at a time, whatever dies.
//!
//! Each worker waits for the lease `report`; the one that has it works. When that worker is drained or
//! killed, another one goes on within some milliseconds. Its fencing number tells a store which of two
//! writers is the later one. Try: `curl 127.0.0.1:5000/`, and `kill -9` the worker that leads.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::{Router, routing::get};
use ferricorn::shared::Counter;
use ferricorn::{App, BoxError, WorkerContext};

struct Reports {
    /// Runs of the job, in all workers.
    runs: Arc<Counter>,
}

impl App for Reports {
    const NAME: &'static str = "leader";

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        // The fencing number of this worker while it leads, or 0.
        let leads = Arc::new(AtomicU64::new(0));
        let runs = self.runs.clone();
        let fence = leads.clone();
        let draining = worker.draining();
        worker.spawn_leader("report", move |number| {
            let runs = runs.clone();
            let fence = fence.clone();
            let draining = draining.clone();
            async move {
                fence.store(number, Ordering::Relaxed);
                while !draining.is_draining() {
                    runs.add(1);
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(20)) => {}
                        () = draining.begun() => {}
                    }
                }
            }
        })?;
        let slot = worker.slot();
        let runs = self.runs.clone();
        let line = move || async move {
            let fence = leads.load(Ordering::Relaxed);
            format!("worker {slot} fence {fence} runs {}\n", runs.get())
        };
        Ok(Router::new().route("/", get(line)))
    }
}

fn main() -> std::process::ExitCode {
    // Before the first fork, so that all workers count in the same memory.
    let runs = Arc::new(Counter::new().expect("memory can be shared"));
    ferricorn::main(Reports { runs })
}
