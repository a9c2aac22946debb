//! The drain of a worker, which loses no request.
//!
//! Keep-alive connections cannot be closed at once: the client's next request may be on its way. Those that
//! are idle are handed to the worker that serves the slot from then on ([`super::relay`]). On the others
//! every further answer says `Connection: close`, and only what stays idle for a while is closed.

mod pace;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::embed::WorkerContext;
use crate::listeners::Listeners;
use crate::logging;
use crate::sys::clock;
use crate::time::Instant;
use crate::worker::events::WorkerEvent;
use crate::worker::long::Turn;
use crate::worker::server::Server;
use pace::Pace;

/// The time for which an idle connection may still bring a request before it is closed. Measured against
/// clients that watch for the end of a connection and clients that do not.
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// The interval at which idle ones are looked for.
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// The time that a stopping server waits for handshakes that have begun: they are finished within a
/// round trip. What waits in its queues by then is accepted, however long that takes.
pub(crate) const SETTLE: Duration = Duration::from_millis(250);
/// So much longer it goes on accepting while it has connections: until shortly before the master closes
/// the listeners.
const LONG_HANDSHAKES: Duration = Duration::from_millis(650);
/// The time for which a worker whose master is gone may finish.
const ORPHANED: Duration = Duration::from_millis(1500);
/// A worker is done so much before `graceful_timeout` is over, or in half of that, to say what it
/// leaves undone: before its master would kill it, which leaves some time for the last log lines.
const MARGIN: Duration = Duration::from_millis(500);
/// The number of looks, and the time between them, whether all that has come in by half is
/// answered.
const LAST_LOOKS: u32 = 20;
const LAST_LOOK: Duration = Duration::from_millis(5);

/// The interval at which responses and protocols that are to end are looked for.
const LONG_LOOK: Duration = Duration::from_millis(50);
/// So long before the deadline the last of them is to end.
const LAST_ENDS: Duration = Duration::from_millis(250);

/// Why, and so how, a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// Its siblings accept for it.
    Drain,
    /// The whole server stops; new connections do not begin any more.
    Stop,
    /// The master is gone.
    Orphaned,
    /// It was told to quit.
    Now,
}

impl WorkerEnd {
    /// Finishes what is open, as long as there is time, or until it is told to quit. Who has spoken by
    /// half when the time is over is told so.
    pub(crate) async fn finish(
        self,
        server: &Arc<Server>,
        config: &Config,
        quit: impl Future<Output = ()>,
    ) {
        let timeout = self.time_left(server, config);
        if self == Self::Drain {
            server.begin_to_give();
        }
        server.drain();
        let graceful = config.graceful_timeout.mul_f64(config.drain_spread);
        let spread = match self {
            Self::Drain | Self::Stop => graceful.saturating_sub(drained_for(server)),
            Self::Orphaned | Self::Now => timeout.mul_f64(config.drain_spread),
        };
        let mut quit = pin!(quit);
        tokio::select! {
            () = quit.as_mut() => {}
            () = tokio::time::sleep(timeout), if self != Self::Now => {
                tokio::select! {
                    () = quit => {}
                    () = tell_halves(server) => {}
                }
            }
            () = self.drain(server, [spread, timeout]) => {}
        }
        server.stop_accepting(|_| true).await;
        server.stop_taking().await;
        let left = server.conns.unfinished();
        server.cut();
        // Handlers are dropped before the application is told that they have ended.
        let _either = tokio::time::timeout(LAST_LOOKS * LAST_LOOK, empty(server)).await;
        if left > 0 && self != Self::Now {
            let slot = server.slot;
            let connections = left;
            logging::emit(&WorkerEvent::DrainTimedOut { slot, connections });
        }
    }

    /// The time that is left to the worker.
    fn time_left(self, server: &Server, config: &Config) -> Duration {
        match self {
            // It may have been too busy to hear it at once.
            Self::Drain | Self::Stop => {
                let margin = MARGIN.min(config.graceful_timeout / 2);
                config.graceful_timeout.saturating_sub(drained_for(server) + margin)
            }
            Self::Orphaned => ORPHANED,
            Self::Now => Duration::ZERO,
        }
    }

    /// Waits for the application's tasks as long as there is time, or until the worker is told to quit.
    pub(crate) async fn wait_for_tasks(
        self,
        server: &Server,
        worker: &WorkerContext,
        quit: impl Future<Output = ()>,
    ) {
        tokio::select! {
            () = worker.tasks.ended() => {}
            () = quit => {}
            () = tokio::time::sleep(self.time_left(server, worker.config())) => {}
        }
        let tasks = worker.tasks.count();
        if tasks > 0 && self != Self::Now {
            logging::emit(&WorkerEvent::TasksCut { slot: server.slot, tasks });
        }
    }

    async fn drain(self, server: &Arc<Server>, [spread, timeout]: [Duration; 2]) {
        if self == Self::Now {
            return;
        }
        tokio::select! {
            () = self.let_go(server) => {}
            never = end_long(server, spread, timeout) => match never {},
            never = close_idle(server) => match never {},
        }
    }

    /// Ends when no connection is left.
    async fn let_go(self, server: &Arc<Server>) {
        match self {
            Self::Drain | Self::Now => {
                server.stop_accepting(|_| true).await;
                server.stop_taking().await;
            }
            Self::Stop | Self::Orphaned => {
                tokio::time::sleep(SETTLE).await;
                if self == Self::Stop {
                    // Handshakes may take longer. A worker that has connections waits for them anyway.
                    let _either = tokio::time::timeout(LONG_HANDSHAKES, empty(server)).await;
                }
                let queues = server.queues(|_| true);
                server.stop_accepting(|_| true).await;
                server.take_waiting(queues).await;
                server.take_last().await;
            }
        }
        // An address that is let go meanwhile is closed when no process holds it.
        *server.listeners() = Listeners::default();
        tokio::select! {
            () = empty(server) => {}
            never = server.give_idle() => match never {},
        }
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

/// Ends what would go on without an end: some at each look, in the order of their turns.
async fn end_long(server: &Server, spread: Duration, timeout: Duration) -> Infallible {
    let now = clock::monotonic_millis();
    let after =
        |time: Duration| now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let last = timeout.saturating_sub(LAST_ENDS);
    let first = after(spread.min(last));
    let last = after(last);
    let mut turns = [(Turn::First, Pace::new(now, first)), (Turn::Second, Pace::new(first, last))];
    loop {
        let now = clock::monotonic_millis();
        for (turn, pace) in &mut turns {
            let due = pace.due(now, server.longs.count(*turn));
            server.longs.end(*turn, due);
        }
        server.longs.cut_silent(now);
        tokio::time::sleep(LONG_LOOK).await;
    }
}

/// The time since the worker was told to drain.
fn drained_for(server: &Server) -> Duration {
    let now = Instant::from_millis(clock::monotonic_millis());
    server.board.drains_since().map_or(Duration::ZERO, |since| now.since(since))
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
