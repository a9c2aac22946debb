//! Accepting connections from the slots that the master names, as evenly as the siblings allow.
//!
//! # The trap
//! Accept from the event loop only, never from a thread beside it: a worker whose loop is blocked must
//! not go on taking connections that its siblings could answer.

pub(crate) mod fairness;
mod full;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;

use crate::ids::{Slot, SlotSet};
use crate::listeners::Listeners;
use crate::logging;
use crate::request::local::{Local, Origin};
use crate::scoreboard::Measure;
use crate::sys::acceptor::{Accepted, Acceptor};
use crate::sys::readable::readable;
use crate::sys::{clock, socket};
use crate::time::Instant;
use crate::worker::connection::socket::Socket;
use crate::worker::drain::SETTLE;
use crate::worker::events::WorkerEvent;
use crate::worker::server::Server;

/// The time that a worker that has no descriptor or memory for a connection waits for some.
pub(crate) const EXHAUSTED: Duration = Duration::from_millis(100);
/// The milliseconds between two lines that say that connections cannot be accepted.
pub(crate) const INTERVAL_OF_COMPLAINTS: u64 = 60_000;
/// The number of times, and the time between them, that a worker looks whether a sibling has helped.
/// One that is awake has at the first look; one that waits for a processor, as all do on a busy
/// machine, takes longer. One that is blocked costs all of it, once a second.
const LOOKS: u32 = 4;
pub(crate) const LOOK: Duration = Duration::from_millis(1);

/// The queue of one listener.
#[derive(Debug)]
pub(crate) struct Queue {
    acceptor: Acceptor,
    kind: ListenerKind,
}

/// The kind of a listener's connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListenerKind {
    /// The number of its address.
    number: u16,
    pub(crate) is_tls: bool,
    /// The name by which its routes are found.
    name: Option<&'static str>,
    /// The local address of every connection; `None` where each may have another one.
    local: Option<SocketAddr>,
}

impl ListenerKind {
    /// The socket of a connection in the event loop, its other end, and its listener.
    ///
    /// # Errors
    /// The error of epoll_ctl(2).
    pub(crate) fn open(
        &self,
        accepted: Accepted,
    ) -> io::Result<(Socket, Option<SocketAddr>, Origin)> {
        let (mut socket, peer) = match accepted {
            Accepted::Tcp(stream, peer) => (Socket::tcp(stream)?, Some(peer)),
            Accepted::Unix(stream) => (Socket::unix(stream)?, None),
        };
        let is_known = peer.is_none() || self.local.is_some();
        let local = if is_known { Local::Known(self.local) } else { socket.local() };
        let number = (!self.is_tls).then_some(self.number);
        Ok((socket, peer, Origin { name: self.name, local, number, is_stale: false }))
    }
}

impl Server {
    /// The listeners that there are.
    pub(crate) fn listeners(&self) -> MutexGuard<'_, Listeners> {
        lock(&self.listeners)
    }

    /// Accepts from these slots, and from the sockets that all workers share; from no other.
    pub(crate) fn accept_from(self: &Arc<Self>, slots: &SlotSet) {
        let listeners = self.listeners();
        let wanted: HashMap<(u16, Slot), BorrowedFd<'_>> = slots
            .iter()
            .flat_map(|slot| listeners.of_slot(slot).map(move |(at, fd)| ((at, slot), fd)))
            .chain(listeners.shared().map(|(at, fd)| ((at, self.slot), fd)))
            .collect();
        self.take_from(&listeners, slots);
        let closing = lock(&self.closing).clone();
        let mut accepting = lock(&self.accepting);
        accepting.retain(|key, task| {
            let keep = wanted.contains_key(key) || closing.contains(&key.0);
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, fd) in wanted {
            if accepting.contains_key(&key) {
                continue;
            }
            let (at, slot) = key;
            let kind = self.kind(&listeners, at);
            match Acceptor::new(fd).and_then(readable) {
                Ok(listener) => {
                    let task = tokio::spawn(Arc::clone(self).accept(slot, listener, kind));
                    accepting.insert(key, task);
                }
                Err(error) => {
                    let reason = error.to_string();
                    logging::emit(&WorkerEvent::ListenerFailed { slot, reason });
                }
            }
        }
    }

    /// Accepts what comes in at this address within a round trip, and then nothing more.
    pub(crate) fn close(self: &Arc<Self>, address: u16) {
        let queues = self.queues(|at| at == address);
        self.listeners().close(address);
        let server = Arc::clone(self);
        lock(&self.closing).insert(address);
        tokio::spawn(async move {
            tokio::time::sleep(SETTLE).await;
            server.stop_accepting(|at| at == address).await;
            server.take_waiting(queues).await;
            lock(&server.closing).remove(&address);
            server.conns.changed.notify_waiters();
        });
    }

    /// Returns true if everything is over: no client is connected, and none is let in any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.conns.count() == 0 && lock(&self.closing).is_empty()
    }

    /// Accepts nothing more at these addresses. What was accepted by then is counted.
    pub(crate) async fn stop_accepting(&self, addresses: impl Fn(u16) -> bool) {
        let accepting = |(at, _): &(u16, Slot), _: &mut JoinHandle<()>| addresses(*at);
        let tasks: Vec<_> = lock(&self.accepting).extract_if(accepting).collect();
        for (_, task) in tasks {
            task.abort();
            // Another thread may be accepting for it just now.
            let _ended = task.await;
        }
    }

    /// The queues at these addresses that are accepted from.
    pub(crate) fn queues(&self, addresses: impl Fn(u16) -> bool) -> Vec<Queue> {
        let listeners = self.listeners();
        let accepting = lock(&self.accepting);
        let of_addresses = accepting.keys().filter(|(at, _)| addresses(*at));
        let queue = |(at, slot): &(u16, Slot)| {
            let acceptor = Acceptor::new(listeners.get(*at, *slot)?).ok()?;
            Some(Queue { acceptor, kind: self.kind(&listeners, *at) })
        };
        of_addresses.filter_map(queue).collect()
    }

    /// Takes as many connections from these queues as wait there now, as soon as there is room for
    /// them: not those that come later, where others may still connect.
    pub(crate) async fn take_waiting(self: &Arc<Self>, queues: Vec<Queue>) {
        let length = |queue: &Queue| queue.acceptor.queue_length().unwrap_or(self.backlog);
        let queues: Vec<_> = queues.into_iter().map(|queue| (length(&queue), queue)).collect();
        for (mut left, queue) in queues {
            while left > 0 {
                self.until(|open| open < self.connections_max).await;
                consume_budget().await;
                match queue.acceptor.accept() {
                    Ok(accepted) => self.begin(accepted, queue.kind),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if socket::is_exhaustion(&error) => {
                        self.complain(&error);
                        tokio::time::sleep(EXHAUSTED).await;
                        continue;
                    }
                    // It was given up by its client.
                    Err(_) => {}
                }
                left -= 1;
            }
        }
    }

    async fn accept(
        self: Arc<Self>,
        slot: Slot,
        mut listener: AsyncFd<Acceptor>,
        kind: ListenerKind,
    ) {
        loop {
            // A full worker leaves new connections to its siblings.
            self.room(&listener, Acceptor::has_waiting).await;
            let ready = tokio::select! {
                biased;
                () = self.until(|open| open >= self.connections_max) => continue,
                ready = listener.readable() => ready,
            };
            // The runtime ends, and this task with it.
            let Ok(mut ready) = ready else { return };
            self.leave_to_sibling(slot, listener.get_ref()).await;
            // A long queue must not keep the connections that are open waiting.
            consume_budget().await;
            if !self.has_room() {
                // Others have been accepted in the meantime.
                continue;
            }
            let is_closed = ready.ready().is_read_closed();
            match ready.try_io(|listener| listener.get_ref().accept()) {
                Ok(Ok(accepted)) => self.begin(accepted, kind),
                Ok(Err(error)) if socket::is_exhaustion(&error) => {
                    self.complain(&error);
                    tokio::time::sleep(EXHAUSTED).await;
                }
                // The client has gone: no business of ours.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The master has closed the listener, since the server stops.
                Ok(Err(error))
                    if error.kind() == io::ErrorKind::InvalidInput && self.is_draining() =>
                {
                    return;
                }
                // Likely the network has failed it. But what lasts must not keep us busy.
                Ok(Err(error)) => {
                    self.complain(&error);
                    tokio::time::sleep(EXHAUSTED).await;
                    listener = afresh(listener);
                }
                // A process that shares it has shut it down: it is ready without end, until the master
                // has put it right.
                Err(_would_block) if is_closed => {
                    tokio::time::sleep(EXHAUSTED).await;
                    listener = afresh(listener);
                }
                // A sibling was faster.
                Err(_would_block) => {}
            }
        }
    }

    pub(crate) fn kind(&self, listeners: &Listeners, address: u16) -> ListenerKind {
        let name = |name| self.routes.named.iter().find(|(other, _)| *other == name);
        let name = listeners.name(address).and_then(name).map(|(name, _)| *name);
        let is_tls = listeners.is_tls(address);
        let local = listeners.local(address);
        ListenerKind { number: address, is_tls, name, local }
    }

    fn begin(self: &Arc<Self>, accepted: Accepted, kind: ListenerKind) {
        let queue_wait = self.queue_wait(&accepted);
        match kind.open(accepted) {
            Ok((socket, peer, listener)) => {
                self.serve(socket, peer, listener, kind.is_tls, queue_wait);
            }
            Err(error) => self.complain(&error),
        }
    }

    /// Returns the time that a connection waited to be accepted, where that is counted or logged.
    fn queue_wait(&self, accepted: &Accepted) -> Option<Duration> {
        let Accepted::Tcp(stream, _) = accepted else { return None };
        let metrics = self.board.metrics();
        if metrics.is_none() && !self.logs_queue_wait {
            return None;
        }
        let wait = socket::last_received(stream.as_fd()).ok()?;
        metrics.inspect(|metrics| metrics.observe(Measure::QueueWait, wait));
        self.logs_queue_wait.then_some(wait)
    }

    /// Where a sibling has clearly fewer connections: asks it to take what waits here, and gives it a
    /// moment. Nothing leaves the queue before a worker takes it: what a busy one has not taken by
    /// then is accepted here after all.
    async fn leave_to_sibling(&self, slot: Slot, listener: &Acceptor) {
        let Some(whom) = self.sibling_to_ask(listener) else { return };
        let board = self.place.board();
        board.ask(whom, slot);
        if let Some(bell) = self.listeners().bell(whom) {
            bell.ring();
        }
        for _ in 0..LOOKS {
            tokio::time::sleep(LOOK).await;
            if !board.is_asked(whom, slot) || !listener.has_waiting() {
                return;
            }
        }
        let now = Instant::from_millis(clock::monotonic_millis());
        lock(&self.asking).note_in_vain(now, whom);
    }

    fn sibling_to_ask(&self, listener: &Acceptor) -> Option<Slot> {
        let mine = u32::try_from(self.conns.count()).unwrap_or(u32::MAX);
        // Most have fewer than a worker asks with: the board need not be looked at.
        if self.is_draining() || !fairness::is_clearly_more(mine, 0) {
            return None;
        }
        let listeners = self.listeners();
        let loads = || self.place.board().loads(listeners.slots());
        // What costs a system call comes last: short connections never get there, or hardly ever.
        if !loads().any(|load| fairness::is_clearly_more(mine, load.open)) {
            return None;
        }
        let now = Instant::from_millis(clock::monotonic_millis());
        let mut asking = lock(&self.asking);
        if !asking.may(now) || !listener.has_waiting() {
            return None;
        }
        let siblings = loads().filter(|sibling| sibling.slot != self.slot);
        asking.whom(now, mine, siblings, |slot| listeners.queue_length(slot))
    }

    /// A sibling has rung: takes from the queues that it has named, until this worker has as many
    /// connections as the others.
    pub(crate) fn help(self: &Arc<Self>) {
        let asked = self.place.take_asked();
        if asked == SlotSet::EMPTY {
            return;
        }
        let listeners = self.listeners();
        let open = self.conns.count();
        let own = u32::try_from(open).unwrap_or(u32::MAX);
        let mine = own.saturating_add(listeners.queue_length(self.slot));
        let room = fairness::room(mine, self.place.board().loads(listeners.slots()));
        let mut room = usize::try_from(room).unwrap_or(usize::MAX);
        room = room.min(self.connections_max.saturating_sub(open));
        let named = asked.iter().flat_map(|slot| listeners.of_slot(slot));
        for (at, fd) in named.chain(listeners.shared()) {
            let Ok(acceptor) = Acceptor::new(fd) else { return };
            let kind = self.kind(&listeners, at);
            while room > 0
                && let Ok(accepted) = acceptor.accept()
            {
                self.begin(accepted, kind);
                room -= 1;
            }
        }
    }

    /// Waits until the number of open connections is as it should be.
    pub(crate) async fn until(&self, is_right: impl Fn(usize) -> bool) {
        loop {
            let changed = self.conns.changed.notified();
            if is_right(self.conns.count()) {
                return;
            }
            changed.await;
        }
    }

    /// Says that connections cannot be accepted; once a minute, however often that happens.
    pub(crate) fn complain(&self, error: &io::Error) {
        let now = clock::coarse_millis();
        // ORDERING: it stands for itself: Relaxed.
        let said = self.complained_at.load(Ordering::Relaxed);
        if said == 0 || now.saturating_sub(said) >= INTERVAL_OF_COMPLAINTS {
            self.complained_at.store(now, Ordering::Relaxed);
            logging::emit(&WorkerEvent::AcceptFailed { reason: error.to_string() });
        }
    }
}

/// The same listener, of which the event loop has noted nothing yet.
fn afresh(listener: AsyncFd<Acceptor>) -> AsyncFd<Acceptor> {
    let other = Acceptor::new(listener.get_ref().as_fd()).and_then(readable);
    other.unwrap_or(listener)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
