//! The addresses that the server listens on, and the listener of each slot.
//!
//! A TCP address that we open has one listening socket per slot, in one `SO_REUSEPORT` group; a unix
//! socket and an inherited one have a single socket that every worker accepts from. The master opens
//! them, every worker inherits them, and none is closed while the server serves: a queued connection
//! survives the worker it was meant for.

mod handover;
mod open;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Bind, Config};
use crate::error::Error;
use crate::ids::{Slot, SlotSet};
use crate::sys::bell::Bell;
use crate::sys::filter;
use crate::sys::sink::Sink;
use crate::sys::socket::{self, Join};
use crate::time::Instant;

pub(crate) use handover::Handed;

/// Every address, opened.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// By number; the number of an address that was let go is not used again.
    addresses: Vec<Option<Address>>,
    slots: u16,
    /// The bell of each slot: who rings it asks the slot's worker for help.
    bells: Vec<Bell>,
    /// Addresses that were let go, until when they are kept.
    retired: Vec<(Instant, Address)>,
}

/// An address that was let go is kept for so long: its workers accept meanwhile what had come in.
const RETIREMENT: Duration = Duration::from_secs(1);

/// One address.
#[derive(Debug)]
struct Address {
    /// What the configuration calls it; `None` when a service manager has passed it, and the
    /// configuration's addresses do not count.
    bind: Option<String>,
    place: Place,
    sockets: Sockets,
    /// Where new connections end once the address is let go.
    sink: Option<Sink>,
}

/// Where an address is, once it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    Tcp(SocketAddr),
    /// Our own file, with its device and inode.
    Unix {
        path: PathBuf,
        file: Option<(u64, u64)>,
    },
    Inherited {
        number: i32,
        address: Option<SocketAddr>,
    },
}

#[derive(Debug)]
enum Sockets {
    /// One for each slot, in the order of `listen()`.
    PerSlot(Vec<OwnedFd>),
    /// One for all.
    Shared(OwnedFd),
}

impl Listeners {
    /// Opens every address of the configuration, or takes over what a service manager has opened
    /// (`passed`), which then counts instead, as in gunicorn.
    ///
    /// # Errors
    /// [`Error::Bind`], naming the address, the reason and a remedy; [`Error::System`].
    pub(crate) fn open(
        config: &Config,
        passed: &[(i32, String)],
        slots: u16,
    ) -> Result<Self, Error> {
        let bells = (0..slots).map(|_| Bell::new()).collect::<io::Result<_>>();
        let bells = bells.map_err(|source| Error::System { action: "open bells", source })?;
        let mut listeners = Self { addresses: Vec::new(), slots, bells, retired: Vec::new() };
        for (number, name) in passed {
            tracing::info!("taking over descriptor {number} {name:?} from the service manager");
            listeners.addresses.push(Some(open::passed(*number)?));
        }
        listeners.open_missing(config)?;
        Ok(listeners)
    }

    /// In a worker: closes its sockets of addresses that were let go before it was forked.
    pub(crate) fn forget_retired(&mut self) {
        self.retired.clear();
    }

    /// Opens the addresses of a further configuration that are not open yet, all or none; answers
    /// their names.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub(crate) fn open_missing(&mut self, config: &Config) -> Result<Vec<String>, Error> {
        if self.is_passed() {
            return Ok(Vec::new());
        }
        let is_open = |bind: &&Bind| {
            let name = bind.to_string();
            self.open_addresses().any(|(_, address)| address.bind.as_ref() == Some(&name))
        };
        let missing: Vec<&Bind> = config.bind.iter().filter(|bind| !is_open(bind)).collect();
        let mut opened: Vec<Address> = Vec::new();
        for bind in missing.iter().filter(|bind| self.kept(bind).is_none()) {
            match self.open_beside(&opened, bind, config) {
                Ok(address) => opened.push(address),
                Err(error) => {
                    opened.iter().for_each(Address::remove_file);
                    return Err(error);
                }
            }
        }
        // Nothing can fail any more: whoever waits there must not be cut off.
        for bind in missing {
            if let Some(at) = self.kept(bind) {
                let (_, mut address) = self.retired.remove(at);
                address.sink = None;
                opened.push(address);
            }
        }
        let names = opened.iter().map(|address| address.place.to_string()).collect();
        self.addresses.extend(opened.into_iter().map(Some));
        Ok(names)
    }

    /// Opens an address that is not kept, beside those that have just been opened.
    fn open_beside(
        &self,
        opened: &[Address],
        bind: &Bind,
        config: &Config,
    ) -> Result<Address, Error> {
        let own = self.addresses.iter().flatten();
        let gone = self.retired.iter().map(|(_, address)| address);
        if let Some(listed) = overlapping(bind, opened) {
            Err(open::listed_twice(bind, listed))
        } else if let Some(own) = overlapping(bind, own) {
            Err(open::overlap(bind, own))
        } else if let Some(gone) = overlapping(bind, gone) {
            Err(open::not_gone_yet(bind, gone))
        } else {
            open::address(bind, config, self.slots)
        }
    }

    /// Where this address is among those that were let go, when it is as good as open: its sockets are
    /// there, one for each slot.
    fn kept(&self, bind: &Bind) -> Option<usize> {
        let name = bind.to_string();
        self.retired.iter().position(|(_, address)| match &address.sockets {
            Sockets::PerSlot(sockets) => {
                address.bind.as_ref() == Some(&name) && sockets.len() == usize::from(self.slots)
            }
            Sockets::Shared(_) => false,
        })
    }

    /// Whether a service manager has passed the addresses, and the configuration's do not count.
    pub(crate) fn is_passed(&self) -> bool {
        self.open_addresses().any(|(_, address)| address.bind.is_none())
    }

    /// Lets go of the addresses that none of these binds names: nobody may connect there any more,
    /// and the sockets are closed a moment later. Answers number and name.
    pub(crate) fn close_others(&mut self, now: Instant, used: &[String]) -> Vec<(u16, String)> {
        let mut closed = Vec::new();
        for (number, place) in (0..).zip(&mut self.addresses) {
            let unused = |address: &mut Address| {
                address.bind.as_ref().is_some_and(|bind| !used.contains(bind))
            };
            if let Some(mut address) = place.take_if(unused) {
                address.retire();
                closed.push((number, address.place.to_string()));
                self.retired.push((now.after(RETIREMENT), address));
            }
        }
        closed
    }

    /// When the next address that was let go is to be closed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.retired.iter().map(|(until, _)| *until).min()
    }

    /// Closes the addresses whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.retired.retain(|(until, _)| *until > now);
    }

    /// In a worker: closes its sockets of an address that was let go.
    pub(crate) fn close(&mut self, number: u16) {
        if let Some(place) = self.addresses.get_mut(usize::from(number)) {
            *place = None;
        }
    }

    /// Opens listeners until there are so many slots; answers which are new, as address and slot, and
    /// what the system says if it refuses: the slots that were opened for every address stay.
    pub(crate) fn grow(
        &mut self,
        slots: u16,
        backlog: u32,
    ) -> (Vec<(u16, Slot)>, Option<io::Error>) {
        let mut opened = Vec::new();
        while self.slots < slots {
            match self.open_slot(backlog) {
                Ok(addresses) => {
                    opened.extend(addresses.into_iter().map(|at| (at, Slot::new(self.slots))));
                    self.slots += 1;
                }
                Err(error) => return (opened, Some(error)),
            }
        }
        (opened, None)
    }

    /// Opens the next slot, for every address or none: a socket that nobody accepts from would be given
    /// connections.
    fn open_slot(&mut self, backlog: u32) -> io::Result<Vec<u16>> {
        let bell = Bell::new()?;
        let next = usize::from(self.slots);
        let lacking = (0..).zip(&self.addresses).filter_map(|(at, address)| match address {
            Some(Address {
                place: Place::Tcp(local), sockets: Sockets::PerSlot(sockets), ..
            }) if sockets.len() == next => Some((at, *local)),
            Some(_) | None => None,
        });
        let opened: Vec<(u16, OwnedFd)> = lacking
            .map(|(at, local)| Ok((at, socket::listen_tcp(local, Join::Further, backlog)?.into())))
            .collect::<io::Result<_>>()?;
        self.bells.push(bell);
        let numbers = opened.iter().map(|(at, _)| *at).collect();
        for (at, socket) in opened {
            self.receive(at, Slot::new(self.slots), socket);
        }
        Ok(numbers)
    }

    /// Lets so many connections wait on each listener from now on.
    ///
    /// # Errors
    /// What listen(2) says.
    pub(crate) fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        for (_, address) in self.open_addresses() {
            match &address.sockets {
                Sockets::PerSlot(sockets) => {
                    sockets.iter().try_for_each(|it| socket::set_backlog(it.as_fd(), backlog))?;
                }
                Sockets::Shared(socket) => socket::set_backlog(socket.as_fd(), backlog)?,
            }
        }
        Ok(())
    }

    /// How many slots have listeners.
    pub(crate) fn slots(&self) -> u16 {
        self.slots
    }

    /// The listener of an address in a slot.
    pub(crate) fn get(&self, address: u16, slot: Slot) -> Option<BorrowedFd<'_>> {
        match &self.addresses.get(usize::from(address))?.as_ref()?.sockets {
            Sockets::PerSlot(sockets) => sockets.get(slot.index()).map(AsFd::as_fd),
            Sockets::Shared(socket) => Some(socket.as_fd()),
        }
    }

    /// The bell of a slot.
    pub(crate) fn bell(&self, slot: Slot) -> Option<&Bell> {
        self.bells.get(slot.index())
    }

    /// Every socket that belongs to one slot alone, with the number of its address.
    pub(crate) fn of_slot(&self, slot: Slot) -> impl Iterator<Item = (u16, BorrowedFd<'_>)> {
        self.open_addresses().filter_map(move |(at, address)| match &address.sockets {
            Sockets::PerSlot(sockets) => Some((at, sockets.get(slot.index())?.as_fd())),
            Sockets::Shared(_) => None,
        })
    }

    /// Every socket that all workers accept from, with the number of its address.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (u16, BorrowedFd<'_>)> {
        self.open_addresses().filter_map(|(at, address)| match &address.sockets {
            Sockets::PerSlot(_) => None,
            Sockets::Shared(socket) => Some((at, socket.as_fd())),
        })
    }

    /// A further listener that the master sent to a worker.
    pub(crate) fn receive(&mut self, address: u16, slot: Slot, listener: OwnedFd) {
        if let Some(Some(Address { sockets: Sockets::PerSlot(sockets), .. })) =
            self.addresses.get_mut(usize::from(address))
            && sockets.len() == slot.index()
        {
            sockets.push(listener);
        }
    }

    /// The bell of a further slot, which the master sent to a worker.
    pub(crate) fn receive_bell(&mut self, slot: Slot, bell: OwnedFd) {
        if self.bells.len() == slot.index() {
            self.bells.push(bell.into());
            self.slots = slot.number() + 1;
        }
    }

    /// Connections that wait in this slot, over all addresses.
    pub(crate) fn queue_length(&self, slot: Slot) -> u32 {
        let length = |(_, listener)| socket::queue_length(listener).unwrap_or(0);
        self.of_slot(slot).map(length).sum()
    }

    /// Sends new connections to these slots only, as far as the kernel lets us.
    ///
    /// # Errors
    /// What setsockopt(2) says. Nothing is lost then but evenness.
    pub(crate) fn steer(&self, slots: &SlotSet) -> io::Result<()> {
        let members: Vec<u32> = slots.iter().map(|slot| u32::from(slot.number())).collect();
        // Where it fails at one address the others are steered all the same.
        let steered = self.of_slot(Slot::new(0)).map(|(_, member)| steer(member, &members));
        steered.fold(Ok(()), Result::and)
    }

    /// The server stops: no new TCP connection begins, handshakes that have begun and queued
    /// connections go on; files of unix sockets are removed.
    pub(crate) fn retire(&mut self) {
        self.addresses.iter_mut().flatten().for_each(Address::retire);
    }

    /// The addresses as people and clients write them.
    pub(crate) fn names(&self) -> Vec<String> {
        self.open_addresses().map(|(_, address)| address.place.to_string()).collect()
    }

    fn open_addresses(&self) -> impl Iterator<Item = (u16, &Address)> {
        (0..).zip(&self.addresses).filter_map(|(at, address)| Some((at, address.as_ref()?)))
    }
}

/// Steers one address. Where that fails nobody knows where the program before it sends them by now: the
/// kernel's own choice takes its place.
fn steer(member: BorrowedFd<'_>, members: &[u32]) -> io::Result<()> {
    filter::steer(member, members).inspect_err(|_| {
        // There may be none.
        let _none = filter::unsteer(member);
    })
}

/// One of these addresses that the kernel will not have beside this one.
fn overlapping<'a>(
    bind: &Bind,
    addresses: impl IntoIterator<Item = &'a Address>,
) -> Option<SocketAddr> {
    let Bind::Tcp(new) = bind else { return None };
    addresses.into_iter().find_map(|address| match address.place {
        Place::Tcp(own) if open::overlaps(*new, own) => Some(own),
        Place::Tcp(_) | Place::Unix { .. } | Place::Inherited { .. } => None,
    })
}

impl Address {
    /// Nobody new may connect.
    fn retire(&mut self) {
        if let (Place::Tcp(local), Sockets::PerSlot(sockets)) = (&self.place, &self.sockets)
            && let Some(first) = sockets.first()
        {
            let members = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
            match Sink::open(*local, first.as_fd(), members) {
                Ok(sink) => self.sink = Some(sink),
                // What comes in while the last worker leaves is lost then; nothing else.
                Err(error) => {
                    tracing::warn!("failed to refuse new connections at {}: {error}", self.place);
                }
            }
        }
        self.remove_file();
    }

    /// Removes the file of a unix socket of ours.
    fn remove_file(&self) {
        if let Place::Unix { path, file: Some(file) } = &self.place
            && socket::file_id(path) == Some(*file)
        {
            // Not when somebody has put another file there. A stale one is no obstacle to the next.
            let _stale = std::fs::remove_file(path);
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
            Self::Inherited { address: Some(address), .. } => write!(f, "http://{address}"),
            Self::Inherited { number, address: None } => write!(f, "fd://{number}"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
