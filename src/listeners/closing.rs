//! Closing listeners: at a stop, and after an address was let go.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::events::ListenerEvent;
use super::{Address, Bound, Listeners, Noted, Relay, Sockets};
use crate::logging;
use crate::sys::sink::Sink;
use crate::sys::socket;
use crate::time::Instant;

/// A stop waits for handshakes that have begun for so long: a packet that is lost once is sent again by
/// then. Clients that come later are refused.
const HANDSHAKES: Duration = Duration::from_secs(1);
/// The same where programs accept: they are told to stop when handshakes have had their time, and close
/// their listeners themselves. One that still accepts from a closed listener meets an error again
/// and again.
const PROGRAMS: Duration = Duration::from_secs(3);
/// From one look to the next whether the queues of a server that stops are empty.
const CLOSING_LOOK: Duration = Duration::from_millis(50);

impl Listeners {
    /// When the next address that was let go, or that a stop has retired, is to be closed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.retired.iter().map(|(until, _)| *until).chain(self.close_at).min()
    }

    /// Closes the addresses whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.retired.retain(|(until, _)| *until > now);
        if self.close_at.is_some_and(|at| at <= now) {
            let waiting: u32 = self.addresses.iter().flatten().map(Address::waiting).sum();
            self.close_at = (waiting > 0).then(|| now.after(CLOSING_LOOK));
            if waiting == 0 {
                self.addresses.iter_mut().flatten().for_each(Address::refuse);
            }
        }
    }

    /// The server stops: no new TCP connection begins, handshakes that have begun and queued
    /// connections go on; files of unix sockets are removed; relays take nothing more. When the queues are
    /// empty, new clients are refused.
    pub(crate) fn stop(&mut self, now: Instant) {
        self.is_stopping = true;
        self.relays.iter_mut().for_each(Relay::end);
        self.addresses.iter_mut().flatten().for_each(Address::stop);
        let is_shared = |address: &Address| {
            matches!((&address.bound, &address.sockets), (Bound::Tcp(_), Sockets::Shared(_)))
        };
        let has_programs = self.addresses.iter().flatten().any(is_shared);
        self.close_at = Some(now.after(if has_programs { PROGRAMS } else { HANDSHAKES }));
    }
}

impl Address {
    pub(super) fn new(bind: Option<String>, bound: Bound, sockets: Sockets) -> Self {
        let sink = None;
        let noted = Noted::default();
        let said_at = [None; 3];
        Self { bind, bound, sockets, sink, noted, said_at }
    }

    /// Every socket of the address.
    pub(super) fn sockets(&self) -> &[OwnedFd] {
        match &self.sockets {
            Sockets::PerSlot(sockets) => sockets,
            Sockets::Shared(socket) => std::slice::from_ref(socket),
        }
    }

    /// Connections that wait at an address of our own.
    fn waiting(&self) -> u32 {
        let length = |socket: &OwnedFd| socket::queue_length(socket.as_fd()).unwrap_or(0);
        match &self.bound {
            Bound::Tcp(_) => self.sockets().iter().map(length).sum(),
            Bound::Unix { .. } | Bound::Inherited { .. } => 0,
        }
    }

    /// No new client may connect.
    pub(super) fn stop(&mut self) {
        if let (Bound::Tcp(local), [first, further @ ..]) = (&self.bound, self.sockets()) {
            let members = u32::try_from(1 + further.len()).unwrap_or(u32::MAX);
            match Sink::open(*local, first.as_fd(), members) {
                Ok(sink) => self.sink = Some(sink),
                // Connections that come in while the last worker exits are lost then, and no others.
                Err(error) => {
                    let address = local.to_string();
                    let reason = error.to_string();
                    logging::emit(&ListenerEvent::RefuseFailed { address, reason });
                }
            }
        }
        self.remove_file();
    }

    /// Closes the listeners for every process that holds them: new clients are refused at once. What was
    /// inherited is left to the process that has opened it.
    fn refuse(&mut self) {
        if let Bound::Tcp(_) = &self.bound {
            for socket in self.sockets() {
                // It may be closed by now.
                let _closed = socket::stop_listening(socket.as_fd());
            }
            self.sink = None;
        }
    }

    /// Removes the file of a unix socket of ours.
    pub(super) fn remove_file(&self) {
        if let Bound::Unix { path, file: Some(file) } = &self.bound
            && socket::file_id(path) == Some(*file)
        {
            // Not when another file was put there. A stale one is no obstacle to the next.
            let _stale = std::fs::remove_file(path);
        }
    }
}
