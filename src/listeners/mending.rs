//! Putting right what a process that shares a listener has done to it.
//!
//! # Why
//! A worker has the sockets that its siblings accept from, and what it does to one holds for all: with
//! `O_NONBLOCK` taken away, accept(2) blocks their event loops; after shutdown(2), clients are refused.
//! That cannot be prevented where sockets are shared. So the listeners are looked at when a worker has
//! died, when one is silent or does not drain its queue, and at a reload. Options that keep clients out or
//! slow them down are looked at less often, since they are many: one may not be taken back by any process
//! (socket(7), `SO_LOCK_FILTER`), so that other sockets take the place of those that have them.
//!
//! # The trap
//! A socket that listens again joins its `SO_REUSEPORT` group anew, and the last one takes the place that
//! it has left: the selector knows the members by their places. So every socket of the address is shut
//! down, and all listen again in the order of their slots. A connection that waits in one of the others is
//! reset, as those of the first were.
//!
//! The program of the selector cannot be read. A process that has a socket of the group may have replaced
//! it, so it is attached anew at each look.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::events::ListenerEvent;
use super::{Address, Bound, Listeners, Sockets, open};
use crate::config::Config;
use crate::ids::SlotSet;
use crate::logging;
use crate::sys::{options, socket};
use crate::time::Instant;

/// From one line to the next about the same address: a hostile worker may go on without end.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// From one look at the options to the next.
const OPTIONS_AGAIN: Duration = Duration::from_secs(10);

/// The harm that was found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Blocking,
    Closed,
    Altered,
}

impl Listeners {
    /// Looks at every listener, and puts right what is wrong; new connections are sent to these slots, if
    /// to any. Returns true if the workers lack a socket that was opened anew, and must be replaced.
    pub(crate) fn mend(&mut self, now: Instant, config: &Config, steered: &SlotSet) -> bool {
        if self.is_stopping {
            return false;
        }
        self.look_at_relays();
        let has_options = self.options_at.is_none_or(|at| now.since(at) >= OPTIONS_AGAIN);
        if has_options {
            self.options_at = Some(now);
        }
        let mut is_replaced = false;
        for address in self.addresses.iter_mut().flatten() {
            let altered = || (has_options && address.is_altered()).then_some(Harm::Altered);
            let Some(harm) = address.harm(config).or_else(altered) else { continue };
            let mended = address.mend(harm, config);
            is_replaced |= matches!(mended, Ok(true));
            let said_at = &mut address.said_at[harm as usize];
            if said_at.is_none_or(|at| now.since(at) >= SAID_AGAIN) {
                *said_at = Some(now);
                address.report(harm, &mended);
            }
        }
        if *steered != SlotSet::EMPTY {
            // Nothing is lost but evenness.
            let _less_even = self.steer(steered);
        }
        is_replaced
    }
}

impl Address {
    fn harm(&self, config: &Config) -> Option<Harm> {
        let has_ended = |socket: &OwnedFd| socket::has_stopped_listening(socket.as_fd());
        // A program may want to wait in accept(2).
        let waits = |socket: &OwnedFd| !config.program.is_set() && socket::waits(socket.as_fd());
        if self.sockets().iter().any(has_ended) {
            Some(Harm::Closed)
        } else {
            self.sockets().iter().any(waits).then_some(Harm::Blocking)
        }
    }

    /// Returns true if a socket of ours has an option that it was not opened with.
    fn is_altered(&self) -> bool {
        let (Bound::Tcp(local), Sockets::PerSlot(sockets)) = (&self.bound, &self.sockets) else {
            return false;
        };
        // Where no socket can be opened to compare them with, they are looked at again.
        options::are_altered(sockets.iter().map(AsFd::as_fd), *local).unwrap_or(false)
    }

    /// Opens other sockets in the place of those that workers have.
    fn renew(&mut self, local: SocketAddr, backlog: u32) -> io::Result<bool> {
        for socket in self.sockets() {
            socket::allow_beside(socket.as_fd())?;
            socket::stop_listening(socket.as_fd())?;
        }
        let beside = |old: &OwnedFd| socket::listen_beside(old.as_fd(), local, backlog);
        let opened: io::Result<Vec<OwnedFd>> =
            self.sockets().iter().map(|old| beside(old).map(OwnedFd::from)).collect();
        if opened.is_err() {
            for socket in self.sockets() {
                socket::listen_again(socket.as_fd(), local, backlog)?;
            }
        }
        self.sockets = Sockets::PerSlot(opened?);
        Ok(true)
    }

    /// Returns true if another socket is in the place of the one that workers have.
    fn mend(&mut self, harm: Harm, config: &Config) -> io::Result<bool> {
        for socket in self.sockets().iter().filter(|_| !config.program.is_set()) {
            socket::wait_no_more(socket.as_fd())?;
        }
        match (harm, &self.bound) {
            (Harm::Blocking, _) => return Ok(false),
            (Harm::Altered, Bound::Tcp(local)) => return self.renew(*local, config.backlog),
            (Harm::Altered | Harm::Closed, _) => {}
        }
        let local = match &self.bound {
            Bound::Tcp(local) | Bound::Inherited { address: Some(local), .. } => *local,
            Bound::Unix { path, .. } => {
                (self.bound, self.sockets) = open::unix(&path.clone(), config)?;
                return Ok(true);
            }
            Bound::Inherited { address: None, .. } => {
                return Err(io::Error::other("the process that has opened it must open it anew"));
            }
        };
        for socket in self.sockets() {
            // It may be shut down already.
            let _closed = socket::stop_listening(socket.as_fd());
        }
        for socket in self.sockets() {
            socket::listen_again(socket.as_fd(), local, config.backlog)?;
        }
        Ok(false)
    }

    fn report(&self, harm: Harm, mended: &io::Result<bool>) {
        let harm = match harm {
            Harm::Blocking => "made it block",
            Harm::Closed => "shut it down",
            Harm::Altered => "set options of it",
        };
        let address = self.to_string();
        let harm = harm.to_owned();
        logging::emit(&match mended {
            Ok(_) => ListenerEvent::Mended { address, harm },
            Err(error) => ListenerEvent::MendFailed { address, harm, reason: error.to_string() },
        });
    }
}
