//! Idle connections on their way from a worker that drains to the one that serves its slot from then on.
//!
//! The worker that drains parks each of them, which is the state in which hyper knows nothing of it, and
//! puts its socket with a note into its slot's relay. What accepts for the slot takes it from there, as it
//! takes new connections, and keeps it parked until something comes in. The client notices nothing, so that
//! no answer before says `Connection: close`.
//!
//! # What stays
//! TLS, HTTP/2 and other protocols have a state that no note can hold. They end as the drain says, and so
//! does what the relay has no room for, or its next worker, until the grace of idle connections is over.
//!
//! # What is believed of a note
//! Any process of the service's user may have written it. It can make of a socket what a client could have
//! made: a connection of one of the addresses, and behind a trusted proxy one of any client.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;

use super::accept::{EXHAUSTED, LOOK, fairness};
use super::connection::stream::Stream;
use super::events::WorkerEvent;
use super::request::record::ConnEntry;
use super::server::Server;
use crate::ids::{Slot, SlotSet};
use crate::listeners::Listeners;
use crate::logging;
use crate::request::client::{Client, Scheme};
use crate::sys::acceptor::Accepted;
use crate::sys::readable::readable;
use crate::sys::relay::{Giver, Taken, Taker};
use crate::time::Instant;
use crate::wire::IdleNote;

/// From the first look at idle connections that could not be handed over to the next, and the longest time
/// between two: the next worker takes what is in the relay meanwhile.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// A worker's part in the relays.
#[derive(Debug, Default)]
pub(super) struct Relaying {
    /// Both ends of its own slot's, once it drains.
    own: OnceLock<(Giver, Taker)>,
    /// True if its own slot's takes nothing more.
    has_ended: AtomicBool,
    /// The tasks that take from those of the slots that it accepts from.
    taking: Mutex<HashMap<Slot, JoinHandle<()>>>,
}

impl Relaying {
    fn taking(&self) -> MutexGuard<'_, HashMap<Slot, JoinHandle<()>>> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Taking: workers that serve.
impl Server {
    /// Takes from the relays of these slots, and from no other.
    pub(super) fn take_from(self: &Arc<Self>, listeners: &Listeners, slots: &SlotSet) {
        let mut taking = self.relaying.taking();
        taking.retain(|slot, task| {
            let keep = slots.contains(*slot);
            if !keep {
                task.abort();
            }
            keep
        });
        for slot in slots.iter() {
            let Some(taker) = listeners.taker(slot).filter(|_| !taking.contains_key(&slot)) else {
                continue;
            };
            match taker.try_clone().and_then(readable) {
                Ok(taker) => {
                    taking.insert(slot, tokio::spawn(Arc::clone(self).take(slot, taker)));
                }
                Err(error) => {
                    let reason = error.to_string();
                    logging::emit(&WorkerEvent::ListenerFailed { slot, reason });
                }
            }
        }
    }

    /// Takes from no relay any more. What was taken by then is counted. Returns the slots.
    pub(super) async fn stop_taking(&self) -> Vec<Slot> {
        let tasks: Vec<_> = self.relaying.taking().drain().collect();
        let slots = tasks.iter().map(|(slot, _)| *slot).collect();
        for (_, task) in tasks {
            task.abort();
            // Another thread may be taking for it just now.
            let _ended = task.await;
        }
        slots
    }

    /// In a stop, when nothing more comes: takes all that lies in the relays of the slots that this worker
    /// has accepted from, as soon as there is room.
    pub(super) async fn take_last(self: &Arc<Self>) {
        let slots = self.stop_taking().await;
        let taker = |slot: &Slot| self.listeners().taker(*slot)?.try_clone().ok();
        let takers: Vec<Taker> = slots.iter().filter_map(taker).collect();
        for taker in takers {
            loop {
                self.until(|open| open < self.connections_max).await;
                consume_budget().await;
                match self.take_one(&taker) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        self.complain(&error);
                        tokio::time::sleep(EXHAUSTED).await;
                    }
                }
            }
        }
    }

    async fn take(self: Arc<Self>, slot: Slot, taker: AsyncFd<Taker>) {
        loop {
            self.room(&taker, |taker| taker.waiting() > 0).await;
            // The runtime ends, and this task with it.
            let Ok(mut ready) = taker.readable().await else { return };
            if ready.ready().is_read_closed() && taker.get_ref().waiting() == 0 {
                return;
            }
            if slot != self.slot && self.is_clearly_fuller() {
                // The other siblings are woken, too.
                tokio::time::sleep(LOOK).await;
            }
            // A long queue must not keep the connections that are open waiting.
            consume_budget().await;
            if !self.has_room() {
                continue;
            }
            match ready.try_io(|taker| self.take_one(taker.get_ref())) {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    self.complain(&error);
                    tokio::time::sleep(EXHAUSTED).await;
                }
                // A sibling was faster.
                Err(_would_block) => {}
            }
        }
    }

    /// Takes the next connection, if it is one. Returns false at the end of the relay.
    fn take_one(self: &Arc<Self>, taker: &Taker) -> io::Result<bool> {
        let mut note = [0; IdleNote::BYTES + 1];
        match taker.take(&mut note)? {
            Taken::Socket(socket, length) => {
                // Malformed notes are of another version.
                if let Ok(note) = IdleNote::decode(&note[..length]) {
                    self.resume(socket, note)?;
                }
            }
            Taken::Unfit => {}
            Taken::End => return Ok(false),
        }
        Ok(true)
    }

    fn is_clearly_fuller(&self) -> bool {
        let mine = u32::try_from(self.conns.count()).unwrap_or(u32::MAX);
        let slots = self.listeners().slots();
        self.place.board().loads(slots).any(|load| fairness::is_clearly_more(mine, load.open))
    }

    /// Goes on with a connection that another worker has had.
    fn resume(self: &Arc<Self>, socket: Accepted, note: IdleNote) -> io::Result<()> {
        let listeners = self.listeners();
        let local = match &socket {
            Accepted::Tcp(stream, _) => Some(stream.local_addr()?),
            Accepted::Unix(_) => None,
        };
        let is_its = listeners.may_have(note.address, local);
        if is_its == Some(false) {
            return Ok(());
        }
        let kind = self.kind(&listeners, note.address);
        drop(listeners);
        let (socket, peer, mut listener) = kind.open(socket)?;
        let is_proxied = note.source.is_some() || note.is_https;
        let is_believed = is_proxied && self.believes_proxy(peer);
        let source = note.source.filter(|_| is_believed);
        let is_https = is_believed && note.is_https;
        let scheme = if is_https { Scheme::Https } else { Scheme::Http };
        // A reload may have taken its address away, or have made it another.
        listener.is_stale = is_its.is_none() || kind.is_tls || is_proxied != is_believed;
        let entry = Arc::new(ConnEntry::new(self, peer, socket.credentials(), listener));
        entry.conn.note(|machine, now| machine.handed_over(note.since.as_millis().min(now)));
        entry.park(Stream::Plain(socket));
        let client = Client::direct(source.or(peer), scheme);
        let server = Arc::clone(self);
        self.spawn(async move { server.serve_on(&entry, &client).await });
        Ok(())
    }
}

// ORDERING: a flag that stands for itself: Relaxed.
/// Giving: workers that drain.
impl Server {
    /// Hands idle connections over from now on, to what takes from the slot's relay.
    pub(super) fn begin_to_give(&self) {
        if let Some(own) = self.listeners().take_relay(self.slot) {
            // A worker drains once.
            let _first = self.relaying.own.set(own);
        }
    }

    /// Has every idle connection park, and so be handed over, until this is dropped. Those that could not be
    /// try again.
    pub(super) async fn give_idle(&self) -> Infallible {
        let mut look = FIRST_LOOK;
        while self.relay().is_some() {
            self.conns.park_idle();
            tokio::time::sleep(look).await;
            look = LONGEST_LOOK.min(2 * look);
        }
        std::future::pending().await
    }

    /// The relay that takes idle connections.
    fn relay(&self) -> Option<&(Giver, Taker)> {
        let own = self.relaying.own.get()?;
        (!self.relaying.has_ended.load(Ordering::Relaxed)).then_some(own)
    }

    /// Returns true if this connection is handed over when it is idle.
    pub(super) fn hands_over(&self, entry: &ConnEntry) -> bool {
        entry.listener.number.is_some() && self.relay().is_some()
    }

    /// Returns true if an answer that can be its connection's last one should be. The body of its request has
    /// this length, or comes in chunks.
    pub(super) fn ends(&self, entry: &ConnEntry, body: Option<u64>) -> bool {
        let goes_on =
            || self.hands_over(entry) && entry.conn.with(|machine| machine.is_whole(body));
        entry.listener.is_stale || self.is_closing() && !goes_on()
    }

    /// Hands a parked connection over, where it can be. Returns false if it stays.
    pub(super) fn hand_over(&self, entry: &ConnEntry, stream: &Stream, client: &Client) -> bool {
        let Some((giver, taker)) = self.relay() else { return false };
        let (Some(address), Some(socket)) = (entry.listener.number, stream.whole()) else {
            return false;
        };
        if !self.has_next_room(taker) {
            return false;
        }
        let note = IdleNote {
            address,
            since: Instant::from_millis(entry.conn.with(|machine| machine.since())),
            source: client.peer().filter(|client| Some(*client) != entry.peer),
            is_https: client.scheme() == Scheme::Https,
        };
        match giver.give(&note.encode(), socket) {
            Ok(()) => true,
            Err(error) => {
                // The server stops, or a process has shut the relay down.
                let has_ended = error.kind() == io::ErrorKind::BrokenPipe;
                self.relaying.has_ended.fetch_or(has_ended, Ordering::Relaxed);
                false
            }
        }
    }

    /// Returns true if the next worker of the slot has room for one more than lie in the relay, as far as it
    /// says. Where there is none, the siblings take.
    fn has_next_room(&self, taker: &Taker) -> bool {
        let mut loads = self.place.board().loads(self.slot.number() + 1);
        let Some(load) = loads.find(|load| load.slot == self.slot) else { return true };
        let lying = taker.waiting() / IdleNote::BYTES as u64;
        u64::from(load.open).saturating_add(lying) < self.connections_max as u64
    }
}
