//! A worker's heartbeat, which the master compares with `stall_timeout`.

use std::sync::Arc;
use std::time::Duration;

use super::polls::{self, Metronome};
use super::server::Server;
use crate::logging;
use crate::scoreboard::{Measure, WorkerBoard};
use crate::sys::clock;
use crate::time::Instant;

/// Keeps the heartbeat, and sweeps connections that stand still. At rest it beats just often enough
/// for the master.
pub(super) async fn keep_heartbeat(
    server: Arc<Server>,
    metronome: Option<Metronome>,
    stall_timeout: Duration,
) {
    let slow = server.heartbeat_interval;
    let pause = async |duration| {
        let due = clock::now() + duration;
        match &metronome {
            Some(metronome) => metronome.pause(duration).await,
            None => tokio::time::sleep(duration).await,
        }
        if let Some(metrics) = server.board.metrics() {
            metrics.observe(Measure::LoopLag, clock::now().saturating_duration_since(due));
        }
    };
    loop {
        server.board.note_heartbeat(heartbeat(slow));
        server.conns.sweep();
        let changed = server.conns.changed.notified();
        let at_rest = server.conns.count() == 0;
        match (at_rest, stall_timeout.is_zero()) {
            (false, true) => server.conns.pause(pause(server.conns.interval())).await,
            (false, false) => server.conns.pause(pause(server.conns.interval().min(slow))).await,
            (true, true) => changed.await,
            // The first connection begins the sweeps.
            (true, false) => tokio::select! {
                () = pause(slow) => {}
                () = changed => {}
            },
        }
    }
}

/// The interval at which a worker at rest beats; a poll that takes longer makes the heartbeat older.
pub(super) fn heartbeat_interval(stall_timeout: Duration) -> Duration {
    (stall_timeout / 4).max(Duration::from_millis(10))
}

/// The heartbeat of this moment.
pub(super) fn heartbeat(least: Duration) -> Instant {
    polls::heartbeat(Instant::from_millis(clock::monotonic_millis()), least)
}

/// The heartbeat of a line that waits for room (`log.when_full = "block"`). It blocks its thread: so it
/// beats in its place, and looks whether the worker was told to drain. Then it has half of the time
/// that there is; the rest is for those who wait behind it.
pub(super) fn room_wait(
    board: Arc<WorkerBoard>,
    graceful_timeout: Duration,
    least: Duration,
) -> impl Fn() -> logging::RoomWait + Send + Sync {
    move || {
        polls::renew();
        board.note_heartbeat(heartbeat(least));
        let now = Instant::from_millis(clock::monotonic_millis());
        match board.drains_since() {
            Some(since) if now >= since.after(graceful_timeout / 2) => logging::RoomWait::GiveUp,
            Some(_) | None => logging::RoomWait::Continue,
        }
    }
}
