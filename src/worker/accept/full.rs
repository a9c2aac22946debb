//! A worker that holds as many connections as it may, while clients wait for it.
//!
//! # Room for a client that waits
//! Connections that have nothing to do must not keep clients out until `keepalive` is over: the one that
//! has been idle for longest is closed. Where none is idle, every answer is its connection's last one as
//! long as a client waits, which no client can take for a loss. A sibling that has room comes first.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::INTERVAL_OF_COMPLAINTS;
use crate::logging;
use crate::sys::clock;
use crate::worker::events::WorkerEvent;
use crate::worker::server::Server;

/// The time for which a connection must have been idle to be closed for another client: the next
/// request of a busier one may be on its way.
const IDLE_LEAST: Duration = Duration::from_millis(250);
/// The time for which a client is left to siblings that have room: as long as it takes the master and a
/// sibling that run to adopt the queue.
const SIBLINGS: Duration = Duration::from_secs(1);
/// The time between two looks at the queue and at idle connections, while a client waits.
const LOOK: Duration = Duration::from_millis(20);

impl Server {
    /// Returns true if this worker may take one connection more.
    pub(crate) fn has_room(&self) -> bool {
        self.conns.count() < self.connections_max
    }

    /// Waits until this worker may take one connection more, or the queue has ended. Where a client waits for
    /// that, one is closed for it.
    pub(crate) async fn room<T: AsRawFd>(
        &self,
        queue: &AsyncFd<T>,
        has_waiting: impl Fn(&T) -> bool,
    ) {
        while !self.has_room() {
            let ready = tokio::select! {
                biased;
                () = self.until(|open| open < self.connections_max) => return,
                ready = queue.readable() => ready,
            };
            // The runtime ends, and this task with it.
            let Ok(mut ready) = ready else { return };
            let has_waiting = || has_waiting(queue.get_ref());
            if has_waiting() {
                self.make_room(has_waiting).await;
            } else if ready.ready().is_read_closed() {
                // None will wait.
                return;
            } else {
                ready.clear_ready();
            }
        }
    }

    /// Closes connections until there is room, or no client waits any more.
    async fn make_room(&self, has_waiting: impl Fn() -> bool) {
        let since = clock::coarse_millis();
        let mut shortage = None;
        while has_waiting() {
            let waited = Duration::from_millis(clock::coarse_millis().saturating_sub(since));
            if waited >= SIBLINGS || !self.has_sibling_with_room() {
                self.say_full();
                shortage = if self.conns.close_longest_idle(IDLE_LEAST) {
                    None
                } else {
                    shortage.or_else(|| Some(self.conns.begin_shortage()))
                };
            }
            tokio::select! {
                biased;
                () = self.until(|open| open < self.connections_max) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn has_sibling_with_room(&self) -> bool {
        let listeners = self.listeners();
        let mut siblings = self.place.board().loads(listeners.slots());
        siblings.any(|load| {
            load.slot != self.slot
                && usize::try_from(load.open).is_ok_and(|open| open < self.connections_max)
        })
    }

    /// Logs that clients wait; once a minute, however often that happens.
    fn say_full(&self) {
        let now = clock::coarse_millis();
        // ORDERING: it stands for itself: Relaxed.
        let said = self.full_said_at.load(Ordering::Relaxed);
        if said == 0 || now.saturating_sub(said) >= INTERVAL_OF_COMPLAINTS {
            self.full_said_at.store(now.max(1), Ordering::Relaxed);
            let slot = self.slot;
            let connections = self.connections_max;
            logging::emit(&WorkerEvent::ConnectionsFull { slot, connections });
        }
    }
}
