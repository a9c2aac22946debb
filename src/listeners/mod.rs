//! The addresses that the server listens on, and the listener of each slot.
//!
//! A TCP address that we open has one listening socket per slot, in one `SO_REUSEPORT` group; a unix
//! socket and an inherited one have a single socket that every worker accepts from. The master opens
//! them, every worker inherits them, and none is closed while the server serves: a queued connection
//! survives the worker it was meant for.

mod closing;
pub(crate) mod events;
mod handover;
mod mending;
mod noted;
mod open;
mod relays;
mod steering;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Error;
use crate::config::{Bind, BindAddress, Config};
use crate::ids::Slot;
use crate::logging;
use crate::sys::bell::Bell;
use crate::sys::exec::Passed;
use crate::sys::sink::Sink;
use crate::sys::socket::{self, Families};
use crate::time::Instant;

use self::events::ListenerEvent;
use self::noted::Noted;
use self::open::Refusal;
use self::relays::Relay;
pub(crate) use handover::HandedListeners;

/// Every address, opened.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// By number; the number of an address that was let go is not used again.
    addresses: Vec<Option<Address>>,
    slots: u16,
    /// The bell of each slot: who rings it asks the slot's worker for help.
    bells: Vec<Bell>,
    /// The relay of each slot.
    relays: Vec<Relay>,
    /// Addresses that were let go, until when they are kept.
    retired: Vec<(Instant, Address)>,
    /// In a stop: when to look next whether the TCP listeners can be closed.
    close_at: Option<Instant>,
    /// When the options of the sockets were looked at last.
    options_at: Option<Instant>,
    /// True once the server stops: it closes its listeners itself.
    is_stopping: bool,
    /// The descriptors that the configuration may name.
    passed: Passed,
}

/// An address that was let go is kept for so long: its workers accept meanwhile what had come in.
const RETIREMENT: Duration = Duration::from_secs(1);

/// One address.
#[derive(Debug)]
struct Address {
    /// The name in the configuration; `None` when a service manager has passed it, and the
    /// configuration's addresses do not count.
    bind: Option<String>,
    bound: Bound,
    sockets: Sockets,
    /// Where new connections end once the address is let go.
    sink: Option<Sink>,
    noted: Noted,
    /// When it was last said, for each kind of harm, that a process had spoiled it.
    said_at: [Option<Instant>; 3],
}

/// Where an address is, once it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Bound {
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
    /// Opens every address of the configuration, or uses what a service manager has opened
    /// (`activated`), which then counts instead, as in gunicorn.
    ///
    /// # Errors
    /// [`Error::Bind`]; [`Error::Config`] for a descriptor that was not passed; [`Error::System`].
    pub(crate) fn open(
        config: &Config,
        activated: &[(i32, String)],
        passed: Passed,
        slots: u16,
    ) -> Result<Self, Error> {
        let bells = (0..slots).map(|_| Bell::new()).collect::<io::Result<_>>();
        let bells = bells.map_err(|source| Error::System { action: "open bells", source })?;
        let relays = (0..slots).map(|_| Relay::new()).collect::<io::Result<_>>();
        let relays = relays.map_err(|source| Error::System { action: "open relays", source })?;
        let mut listeners = Self {
            addresses: Vec::new(),
            slots,
            bells,
            relays,
            retired: Vec::new(),
            close_at: None,
            options_at: None,
            is_stopping: false,
            passed,
        };
        for (number, name) in activated {
            let name = format!("{name:?}");
            logging::emit(&ListenerEvent::Adopted { descriptor: *number, name });
            listeners.addresses.push(Some(open::passed(*number, config, &mut listeners.passed)?));
        }
        listeners.open_missing(config)?;
        listeners.note(config);
        Ok(listeners)
    }

    /// In a worker: closes its sockets of addresses that were let go before it was forked.
    pub(crate) fn forget_retired(&mut self) {
        self.retired.clear();
        self.addresses.iter_mut().flatten().for_each(|address| address.sink = None);
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
        let is_open = |bind: &Bind| {
            let name = open::identity(bind, config);
            self.open_addresses().any(|(_, address)| address.bind.as_ref() == Some(&name))
        };
        let (there, missing): (Vec<&Bind>, _) = config.binds().partition(|bind| is_open(bind));
        let (kept, new): (Vec<&Bind>, _) =
            missing.into_iter().partition(|bind| self.kept(bind, config).is_some());
        let mut passed = self.passed.clone();
        let opened = self.open_new(&new, &[there, kept.clone()].concat(), config, &mut passed);
        let mut opened = opened.map_err(|(error, opened)| {
            opened.iter().for_each(Address::remove_file);
            error
        })?;
        self.passed = passed;
        // Nothing can fail any more: connections that wait there must not be cut off.
        for bind in kept {
            if let Some(at) = self.kept(bind, config) {
                let (_, mut address) = self.retired.remove(at);
                address.sink = None;
                opened.push(address);
            }
        }
        for address in &mut opened {
            address.note(config);
        }
        let names = opened.iter().map(Address::label).collect();
        self.addresses.extend(opened.into_iter().map(Some));
        Ok(names)
    }

    /// Opens these addresses beside others that are open. Of the addresses of one host name those that
    /// this machine lacks are left out with a warning, where it has another one of them.
    ///
    /// # Errors
    /// The first refusal, and what was opened before it.
    fn open_new(
        &self,
        new: &[&Bind],
        there: &[&Bind],
        config: &Config,
        passed: &mut Passed,
    ) -> Result<Vec<Address>, (Error, Vec<Address>)> {
        let mut opened: Vec<Address> = Vec::new();
        let mut absent: Vec<(&Bind, Error)> = Vec::new();
        for bind in new {
            match self.open_beside(&opened, bind, config, passed) {
                Ok(address) => opened.push(address),
                Err(Refusal::Absent(error)) if !config.namesakes(bind).is_empty() => {
                    absent.push((bind, error));
                }
                Err(refusal) => return Err((refusal.into(), opened)),
            }
        }
        let lacking: Vec<&Bind> = absent.iter().map(|(bind, _)| *bind).collect();
        for (bind, error) in absent {
            let served = config.namesakes(bind).iter().find(|other| {
                there.contains(other) || (new.contains(other) && !lacking.contains(other))
            });
            match served {
                Some(served) => logging::emit(&ListenerEvent::Absent {
                    reason: error.to_string(),
                    served: served.to_string(),
                }),
                None => return Err((error, opened)),
            }
        }
        Ok(opened)
    }

    /// Opens an address that is not kept, beside those that have just been opened.
    fn open_beside(
        &self,
        opened: &[Address],
        bind: &Bind,
        config: &Config,
        passed: &mut Passed,
    ) -> Result<Address, Refusal> {
        let families = open::families(bind, config);
        let own = self.addresses.iter().flatten();
        let gone = self.retired.iter().map(|(_, address)| address);
        if let Some(listed) = overlapping(bind, families, opened) {
            Err(Refusal::Other(open::listed_twice(bind, listed)))
        } else if let Some(own) = overlapping(bind, families, own) {
            Err(Refusal::Other(open::overlap(bind, own)))
        } else if let Some(gone) = overlapping(bind, families, gone) {
            Err(Refusal::Other(open::not_gone_yet(bind, gone)))
        } else {
            open::address(bind, config, self.slots, passed)
        }
    }

    /// Where this address is among those that were let go, when it is as good as open: its sockets are
    /// there, one for each slot.
    fn kept(&self, bind: &Bind, config: &Config) -> Option<usize> {
        let name = open::identity(bind, config);
        self.retired.iter().position(|(_, address)| match &address.sockets {
            Sockets::PerSlot(sockets) => {
                address.bind.as_ref() == Some(&name) && sockets.len() == usize::from(self.slots)
            }
            Sockets::Shared(_) => false,
        })
    }

    /// Returns true if a service manager has passed the addresses, and the configuration's do not count.
    pub(crate) fn is_passed(&self) -> bool {
        self.open_addresses().any(|(_, address)| address.bind.is_none())
    }

    /// Lets go of the addresses that none of these binds names: no client may connect there any more,
    /// and the sockets are closed a moment later. Answers number and name.
    pub(crate) fn close_others(&mut self, now: Instant, used: &[String]) -> Vec<(u16, String)> {
        let mut closed = Vec::new();
        for (number, place) in (0..).zip(&mut self.addresses) {
            let unused = |address: &mut Address| {
                address.bind.as_ref().is_some_and(|bind| !used.contains(bind))
            };
            if let Some(mut address) = place.take_if(unused) {
                address.stop();
                closed.push((number, address.to_string()));
                self.retired.push((now.after(RETIREMENT), address));
            }
        }
        closed
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

    /// Opens the next slot, for every address or none: an unserved socket would be given connections.
    fn open_slot(&mut self, backlog: u32) -> io::Result<Vec<u16>> {
        let bell = Bell::new()?;
        let relay = Relay::new()?;
        let next = usize::from(self.slots);
        let lacking = (0..).zip(&self.addresses).filter_map(|(at, address)| match address {
            Some(Address {
                bound: Bound::Tcp(local), sockets: Sockets::PerSlot(sockets), ..
            }) if sockets.len() == next => Some((at, *local, sockets.first()?)),
            Some(_) | None => None,
        });
        let opened: Vec<(u16, OwnedFd)> = lacking
            .map(|(at, local, first)| {
                Ok((at, socket::listen_beside(first.as_fd(), local, backlog)?.into()))
            })
            .collect::<io::Result<_>>()?;
        self.bells.push(bell);
        self.relays.push(relay);
        let numbers = opened.iter().map(|(at, _)| *at).collect();
        for (at, socket) in opened {
            self.receive(at, Slot::new(self.slots), socket);
        }
        Ok(numbers)
    }

    /// Lets so many connections wait on each listener from now on.
    ///
    /// # Errors
    /// The error of listen(2).
    pub(crate) fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        for (_, address) in self.open_addresses() {
            match &address.sockets {
                Sockets::PerSlot(sockets) => {
                    sockets
                        .iter()
                        .try_for_each(|listener| socket::set_backlog(listener.as_fd(), backlog))?;
                }
                Sockets::Shared(socket) => socket::set_backlog(socket.as_fd(), backlog)?,
            }
        }
        Ok(())
    }

    /// Returns the number of slots that have listeners.
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

    /// Every descriptor that a worker needs: the sockets of open addresses, the bells and the relays.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let sockets = self.open_addresses().flat_map(|(_, address)| address.sockets());
        let bells = self.bells.iter().map(AsRawFd::as_raw_fd);
        let relays = self.relays.iter().flat_map(Relay::descriptors);
        sockets.map(AsRawFd::as_raw_fd).chain(bells).chain(relays).collect()
    }

    /// The sockets that a program is given, with their addresses and names: those of the configuration's
    /// addresses in their sequence, or all that a service manager has passed.
    pub(crate) fn for_program(
        &self,
        config: &Config,
    ) -> Vec<(BorrowedFd<'_>, String, Option<&str>)> {
        let open: Vec<&Address> = self.open_addresses().map(|(_, address)| address).collect();
        let named = |name: String| {
            open.iter().copied().find(move |open| open.bind.as_deref() == Some(name.as_str()))
        };
        let wanted: Vec<&Address> = if self.is_passed() {
            open.clone()
        } else {
            identities(config).filter_map(named).collect()
        };
        let sockets = wanted.into_iter().filter_map(|address| {
            let socket = address.sockets().first()?;
            Some((socket.as_fd(), address.to_string(), address.noted.name.as_deref()))
        });
        sockets.collect()
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

    /// The bell and the relay of a further slot, which the master sent to a worker.
    pub(crate) fn receive_bell(&mut self, slot: Slot, [bell, taker]: [OwnedFd; 2]) {
        if self.bells.len() == slot.index() {
            self.bells.push(bell.into());
            self.relays.push(Relay::received(taker));
            self.slots = slot.number() + 1;
        }
    }

    /// Connections that wait in this slot, over all addresses and in its relay.
    pub(crate) fn queue_length(&self, slot: Slot) -> u32 {
        let length = |(_, listener)| socket::queue_length(listener).unwrap_or(0);
        let relayed = self.relays.get(slot.index()).map_or(0, Relay::waiting);
        self.of_slot(slot).map(length).sum::<u32>().saturating_add(relayed)
    }

    /// Connections that wait at each address, in the order of [`Listeners::names`]; `None` where the
    /// kernel does not tell.
    pub(crate) fn queues(&self) -> Vec<Option<u32>> {
        let length = |socket: &OwnedFd| socket::queue_length(socket.as_fd()).ok();
        let of_address = |(_, address): (u16, &Address)| match &address.sockets {
            Sockets::PerSlot(sockets) => sockets.iter().map(length).sum(),
            Sockets::Shared(socket) => length(socket),
        };
        self.open_addresses().map(of_address).collect()
    }

    /// The addresses as people and clients write them.
    pub(crate) fn names(&self) -> Vec<String> {
        self.open_addresses().map(|(_, address)| address.to_string()).collect()
    }

    fn open_addresses(&self) -> impl Iterator<Item = (u16, &Address)> {
        (0..).zip(&self.addresses).filter_map(|(at, address)| Some((at, address.as_ref()?)))
    }
}

/// The names by which the addresses of a configuration are found again.
pub(crate) fn identities(config: &Config) -> impl Iterator<Item = String> {
    config.binds().map(|bind| open::identity(bind, config))
}

/// One of these addresses that the kernel will not have beside this one.
fn overlapping<'a>(
    bind: &Bind,
    families: Families,
    addresses: impl IntoIterator<Item = &'a Address>,
) -> Option<SocketAddr> {
    let BindAddress::Tcp(new) = &bind.address else { return None };
    addresses.into_iter().find_map(|address| match &address.bound {
        Bound::Tcp(own) => {
            let mut sockets = address.sockets().iter();
            let v6_only = sockets.next().is_some_and(|first| socket::is_v6_only(first.as_fd()));
            let own_families = if v6_only { Families::V6Only } else { Families::Default };
            open::overlaps((*new, families), (*own, own_families)).then_some(*own)
        }
        Bound::Unix { .. } | Bound::Inherited { .. } => None,
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.noted.is_tls { "https" } else { "http" };
        match &self.bound {
            Bound::Unix { path, .. } => write!(f, "unix:{}", path.display()),
            Bound::Tcp(address) | Bound::Inherited { address: Some(address), .. } => {
                write!(f, "{scheme}://{address}")
            }
            Bound::Inherited { number, address: None } => write!(f, "fd://{number}"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
