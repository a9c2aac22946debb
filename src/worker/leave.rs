//! How a worker leaves without losing a request.
//!
//! Keep-alive connections cannot be closed at once: the client's next request may be on its way. So
//! every further answer says `Connection: close`, and only what stays idle for a while is closed.

use std::sync::Arc;
use std::time::Duration;

use super::server::Server;
use crate::config::Config;
use crate::sys::clock;
use crate::time::Instant;

/// How long an idle connection may still bring a request before it is closed. Measured against
/// clients that watch for the end of a connection and clients that do not.
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// How long a stopping server accepts what the kernel had taken in: handshakes that have begun are
/// finished within a round trip.
pub(super) const SETTLE: Duration = Duration::from_millis(250);
/// How long a worker whose master is gone may finish.
const ORPHANED: Duration = Duration::from_millis(1500);
/// A worker is done so much before `graceful_timeout` is over, or in half of that, to say what it
/// leaves undone: before its master would kill it, which leaves some time for the last log lines.
const MARGIN: Duration = Duration::from_millis(500);

/// Why, and so how, a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Its siblings accept for it.
    Drain,
    /// The whole server stops; new connections do not begin any more.
    Stop,
    /// The master is gone.
    Orphaned,
    /// It was told to quit.
    Now,
}

impl Leaving {
    /// Finishes what is open, as long as there is time, or until it is told to quit.
    pub(super) async fn finish(
        self,
        server: &Arc<Server>,
        config: &Config,
        quit: impl Future<Output = ()>,
    ) {
        let patience = match self {
            // It may have been too busy to hear it at once.
            Self::Drain | Self::Stop => {
                let margin = MARGIN.min(config.graceful_timeout / 2);
                config.graceful_timeout.saturating_sub(dismissed_for(server) + margin)
            }
            Self::Orphaned => ORPHANED,
            Self::Now => Duration::ZERO,
        };
        server.leave();
        tokio::select! {
            () = quit => {}
            () = tokio::time::sleep(patience) => {}
            () = self.drain(server) => {}
        }
        server.cut();
        let left = server.conns.count();
        if left > 0 && self != Self::Now {
            tracing::warn!("worker {}: cutting {left} connections: its time is over", server.slot);
        }
    }

    async fn drain(self, server: &Arc<Server>) {
        match self {
            Self::Drain | Self::Now => {}
            Self::Stop | Self::Orphaned => tokio::time::sleep(SETTLE).await,
        }
        server.stop_accepting();
        let done = empty(server);
        if tokio::time::timeout(IDLE_GRACE, done).await.is_ok() {
            return;
        }
        loop {
            // Again and again: one that was busy may be idle by now.
            server.conns.close_idle();
            if tokio::time::timeout(SETTLE, empty(server)).await.is_ok() {
                return;
            }
        }
    }
}

/// For how long the worker has been told to leave.
fn dismissed_for(server: &Server) -> Duration {
    let now = Instant::from_millis(clock::monotonic_millis());
    server.board.dismissed().map_or(Duration::ZERO, |since| now.since(since))
}

/// Ends when no connection is open.
async fn empty(server: &Arc<Server>) {
    loop {
        let changed = server.conns.changed.notified();
        if server.conns.count() == 0 {
            return;
        }
        changed.await;
    }
}
