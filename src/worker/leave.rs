//! How a worker leaves without losing a request.
//!
//! Keep-alive connections cannot be closed at once: the client's next request may be on its way. So
//! every further answer says `Connection: close`, and only what stays idle for a while is closed.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::server::Server;
use crate::config::Config;
use crate::listeners::Listeners;
use crate::sys::clock;
use crate::time::Instant;

/// How long an idle connection may still bring a request before it is closed. Measured against
/// clients that watch for the end of a connection and clients that do not.
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// How often it is looked for idle ones.
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// How long a stopping server waits for handshakes that have begun: they are finished within a round
/// trip. What waits in its queues by then is accepted, however long that takes.
pub(super) const SETTLE: Duration = Duration::from_millis(250);
/// How long a worker whose master is gone may finish.
const ORPHANED: Duration = Duration::from_millis(1500);
/// A worker is done so much before `graceful_timeout` is over, or in half of that, to say what it
/// leaves undone: before its master would kill it, which leaves some time for the last log lines.
const MARGIN: Duration = Duration::from_millis(500);
/// How often, and after how long each time, it is looked then whether all that has come in by half is
/// answered.
const LAST_LOOKS: u32 = 20;
const LAST_LOOK: Duration = Duration::from_millis(5);

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
    /// Finishes what is open, as long as there is time, or until it is told to quit. Who has spoken by
    /// half when the time is over is told so.
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
        let mut quit = pin!(quit);
        tokio::select! {
            () = quit.as_mut() => {}
            () = tokio::time::sleep(patience), if self != Self::Now => {
                tokio::select! {
                    () = quit => {}
                    () = tell_halves(server) => {}
                }
            }
            () = self.drain(server) => {}
        }
        server.stop_accepting(|_| true).await;
        server.cut();
        let left = server.conns.unfinished();
        if left > 0 && self != Self::Now {
            tracing::warn!("worker {}: cutting {left} connections: its time is over", server.slot);
        }
    }

    async fn drain(self, server: &Arc<Server>) {
        if self == Self::Now {
            return;
        }
        tokio::select! {
            () = self.let_go(server) => {}
            never = close_idle(server) => match never {},
        }
    }

    /// Ends when nobody is left.
    async fn let_go(self, server: &Arc<Server>) {
        match self {
            Self::Drain | Self::Now => server.stop_accepting(|_| true).await,
            Self::Stop | Self::Orphaned => {
                tokio::time::sleep(SETTLE).await;
                let queues = server.queues(|_| true);
                server.stop_accepting(|_| true).await;
                server.take_waiting(queues).await;
            }
        }
        // An address that is let go meanwhile is closed when nobody holds it.
        *server.listeners() = Listeners::default();
        empty(server).await;
    }
}

/// Answers what has come in by half, and accounts for it. The others have had their time.
async fn tell_halves(server: &Server) {
    server.conns.refuse_halves();
    for _ in 0..LAST_LOOKS {
        if server.conns.halves() == 0 {
            break;
        }
        tokio::time::sleep(LAST_LOOK).await;
    }
    server.conns.end_silence();
    tokio::time::sleep(LAST_LOOK).await;
}

/// Closes what has been idle for long enough, again and again: one that was busy may be by now.
async fn close_idle(server: &Server) -> Infallible {
    tokio::time::sleep(IDLE_GRACE).await;
    server.insist();
    loop {
        server.conns.close_idle(IDLE_GRACE);
        tokio::time::sleep(IDLE_LOOK).await;
    }
}

/// For how long the worker has been told to leave.
fn dismissed_for(server: &Server) -> Duration {
    let now = Instant::from_millis(clock::monotonic_millis());
    server.board.dismissed().map_or(Duration::ZERO, |since| now.since(since))
}

/// Ends when no connection is open, and none will be.
async fn empty(server: &Server) {
    loop {
        let changed = server.conns.changed.notified();
        if server.is_empty() {
            return;
        }
        changed.await;
    }
}
