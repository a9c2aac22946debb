//! A limit of requests by client over all workers together: 10 at once, and 5 a second after that.
//!
//! Try: `for i in $(seq 20); do curl -s -o /dev/null -w '%{http_code} ' 127.0.0.1:5000/; done`
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header::RETRY_AFTER};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use ferricorn::shared::RateLimit;
use ferricorn::{App, BoxError, Client, WorkerContext};

struct Limited(Arc<RateLimit>);

impl App for Limited {
    const NAME: &'static str = "rate-limit";

    async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
        let limit = from_fn_with_state(self.0.clone(), limit);
        Ok(Router::new().route("/", get("within the limit\n")).layer(limit))
    }
}

/// The client's address is the one that a trusted proxy names (`forwarded_allow_ips`).
async fn limit(
    State(limit): State<Arc<RateLimit>>,
    client: Client,
    request: Request,
    next: Next,
) -> Response {
    match limit.take(client.address()) {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            let seconds = wait.as_secs_f64().ceil().to_string();
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)]).into_response()
        }
    }
}

fn main() -> std::process::ExitCode {
    // Before the first fork, so that all workers take from the same buckets.
    let limit = RateLimit::new(10, Duration::from_millis(200)).expect("memory can be shared");
    ferricorn::main(Limited(Arc::new(limit)))
}
