//! The yardstick: the same route on plain axum, in one process, without a log. `bench/compare`
//! measures ferricorn against it.
#![expect(clippy::disallowed_methods, reason = "one process, and no fork in it")]

use std::io;
use std::os::unix::net::UnixStream;

use axum::{Router, routing::get};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::pipe;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5001".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    let router = Router::new().route("/", get(|| async { "hello from plain axum\n" }));
    let told = told_to_end()?;
    tokio::select! {
        served = axum::serve(listener, router) => served,
        told = told.readable() => told,
    }
}

/// Ready to be read when `TERM` comes. Who is killed by it leaves no counts for `bench/profiled`.
fn told_to_end() -> io::Result<tokio::net::UnixStream> {
    let (told, signal) = UnixStream::pair()?;
    pipe::register(SIGTERM, signal)?;
    told.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(told)
}
