//! An axum service that knows nothing of ferricorn, and inherits its socket with the crate `listenfd`. It
//! runs as any program does:
//!
//! ```sh
//! cargo build --release --example listenfd
//! ferricorn run -w 4 -b :5000 -- target/release/examples/listenfd
//! ```
//!
//! # What makes it lose nothing
//! axum's graceful shutdown ends each connection whose request it has not read yet, those that it has just
//! accepted among them. So at `TERM` this service first stops accepting, and shuts down when it has had the
//! time to read the requests of its last connections.
//!
//! A service of its own would wait for the signal with `tokio::signal`; this repository has tokio without it.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use axum::serve::Listener;
use listenfd::ListenFd;
use nix::sys::signal::{SigSet, Signal};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// From the end of accepting to axum's shutdown.
const LAST_REQUESTS: Duration = Duration::from_millis(200);

/// A listener that accepts until the program is told to leave.
struct UntilTold {
    listener: TcpListener,
    told: watch::Receiver<bool>,
}

impl Listener for UntilTold {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        tokio::select! {
            biased;
            () = is_told(&mut self.told) => pending().await,
            accepted = Listener::accept(&mut self.listener) => accepted,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Ends when the program is told to leave. The sender does not end before.
async fn is_told(told: &mut watch::Receiver<bool>) {
    let _told = told.wait_for(|told| *told).await;
}

#[expect(clippy::disallowed_methods, reason = "a program of its own, which forks nothing")]
fn main() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    // Before the first thread: the others inherit it.
    signals.thread_block()?;
    let (tell, told) = watch::channel(false);
    std::thread::spawn(move || signals.wait().map(|_| tell.send(true)));
    serve(told)
}

#[expect(clippy::disallowed_methods, reason = "a program of its own, which forks nothing")]
#[tokio::main(flavor = "current_thread")]
async fn serve(mut told: watch::Receiver<bool>) -> io::Result<()> {
    let inherited = ListenFd::from_env().take_tcp_listener(0)?;
    let inherited =
        inherited.ok_or_else(|| io::Error::other("no socket was passed (LISTEN_FDS)"))?;
    inherited.set_nonblocking(true)?;
    let listener = UntilTold { listener: TcpListener::from_std(inherited)?, told: told.clone() };
    let app = Router::new().route("/", get(|| async { "hello\n" }));
    let until = async move {
        is_told(&mut told).await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    axum::serve(listener, app).with_graceful_shutdown(until).await
}
