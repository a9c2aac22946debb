//! Putting right what a process that shares a listener has done to it.
//!
//! # Why
//! A worker has the sockets that its siblings accept from, and what it does to one holds for all: with
//! `O_NONBLOCK` taken away, accept(2) blocks their event loops; after shutdown(2), clients are refused.
//! That cannot be prevented where sockets are shared. So the listeners are looked at when a worker has
//! died, when one is silent or does not drain its queue, and at a reload.
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
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::events::ListenerEvent;
use super::{Address, Listeners, Place, open};
use crate::config::Config;
use crate::ids::SlotSet;
use crate::logging;
use crate::sys::socket;
use crate::time::Instant;

/// From one line to the next about the same address: a hostile worker may go on without end.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// The harm that was found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Blocking,
    Closed,
}

impl Listeners {
    /// Looks at every listener, and puts right what is wrong; new connections are sent to these slots, if
    /// to any. Returns true if the workers lack a socket that was opened anew, and must be replaced.
    pub(crate) fn mend(&mut self, now: Instant, config: &Config, steered: &SlotSet) -> bool {
        // A server that stops closes them itself.
        if self.close_at.is_some() {
            return false;
        }
        let mut is_replaced = false;
        for address in self.addresses.iter_mut().flatten() {
            let Some(harm) = address.harm(config) else { continue };
            let mended = address.mend(harm, config);
            is_replaced |= matches!(mended, Ok(true));
            let said_at = &mut address.said_at[usize::from(harm == Harm::Closed)];
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

    /// Returns true if another socket is in the place of the one that workers have.
    fn mend(&mut self, harm: Harm, config: &Config) -> io::Result<bool> {
        for socket in self.sockets().iter().filter(|_| !config.program.is_set()) {
            socket::wait_no_more(socket.as_fd())?;
        }
        if harm == Harm::Blocking {
            return Ok(false);
        }
        let local = match &self.place {
            Place::Tcp(local) | Place::Inherited { address: Some(local), .. } => *local,
            Place::Unix { path, .. } => {
                (self.place, self.sockets) = open::unix(&path.clone(), config)?;
                return Ok(true);
            }
            Place::Inherited { address: None, .. } => {
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
        };
        let (address, harm) = (self.to_string(), harm.to_owned());
        logging::emit(&match mended {
            Ok(_) => ListenerEvent::Mended { address, harm },
            Err(error) => ListenerEvent::MendFailed { address, harm, reason: error.to_string() },
        });
    }
}
