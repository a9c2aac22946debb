//! The yardstick: the same route on plain axum, in one process, without a log. `bench/compare`
//! measures ferricorn against it.
use axum::{Router, routing::get};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5001".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    let router = Router::new().route("/", get(|| async { "hello from plain axum\n" }));
    axum::serve(listener, router).await
}
