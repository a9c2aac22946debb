//! An application that pages of other sites may call, and that takes uploads.
//!
//! Its CORS layer is around ferricorn's own answers, too: a page reads that its upload was too long
//! (413), that the handler panicked (500) or took too long (504), instead of a failed request.
use std::time::Duration;

use axum::body::Bytes;
use axum::routing::{get, post};
use axum::{Router, http::HeaderValue};
use ferricorn::{App, BoxError, PeerCredentials, Setting, WorkerContext};
use tower_http::cors::{Any, CorsLayer};

struct Uploads;

/// The pages that may read the answers.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(HeaderValue::from_static("https://page.example"))
        .allow_methods(Any)
        .allow_headers(Any)
}

impl App for Uploads {
    // Its processes are called `uploads`, `uploads-w0` …
    const NAME: &'static str = "uploads";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    // A longer body is 413, on every path …
    const SETTINGS: &'static [Setting] = &[Setting::with_default("limits.body", "64KiB")];

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        // … but on this one.
        worker.limit_body("/files/{name}", 8 << 20)?;
        Ok(Router::new()
            .route("/files/{name}", post(length))
            .route("/notes", post(length))
            .route("/panic", get(panic))
            .route("/slow", get(|| tokio::time::sleep(Duration::from_secs(3600))))
            .route("/user", get(user))
            .layer(cors()))
    }

    fn own_answers(&self, _: &WorkerContext, answers: Router) -> Option<Router> {
        Some(answers.layer(cors()))
    }
}

async fn length(body: Bytes) -> String {
    format!("{} bytes\n", body.len())
}

async fn panic() -> &'static str {
    panic!("as it was asked to")
}

/// On a unix socket the kernel knows the user of the client; over TCP this is 403.
async fn user(peer: PeerCredentials) -> String {
    format!("user {}\n", peer.uid())
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Uploads)
}
