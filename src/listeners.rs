//! The addresses that the server listens on, and the listener of each slot.
//!
//! A TCP address that we open has one listening socket per slot, in one `SO_REUSEPORT` group; a unix
//! socket and an inherited one have a single socket that every worker accepts from. The master opens
//! them, every worker inherits them, and none is closed while the server serves: a queued connection
//! survives the worker it was meant for.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Bind, Config};
use crate::error::Error;
use crate::ids::{Slot, SlotSet};
use crate::sys::socket::{self, Join, Local};
use crate::sys::{exec, filter, process};

/// Every address, opened.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    addresses: Vec<Address>,
    slots: u16,
}

/// One address.
#[derive(Debug)]
struct Address {
    local: Place,
    sockets: Sockets,
}

/// Where an address is, once it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    Tcp(SocketAddr),
    /// Our own file, with its device and inode; or a path that was inherited.
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
    /// (`inherited`), which then counts instead, as in gunicorn.
    ///
    /// # Errors
    /// [`Error::Bind`], naming the address, the reason and a remedy.
    pub(crate) fn open(config: &Config, inherited: &[i32], slots: u16) -> Result<Self, Error> {
        let mut listeners = Self { addresses: Vec::new(), slots };
        if inherited.is_empty() {
            for bind in &config.bind {
                let address =
                    open_address(bind, config, slots).map_err(|error| refusal(bind, &error))?;
                listeners.addresses.push(address);
            }
        }
        for number in inherited {
            let address = inherit(*number).map_err(|error| refusal(&Bind::Fd(*number), &error))?;
            listeners.addresses.push(address);
        }
        Ok(listeners)
    }

    /// Opens listeners until there are so many slots; answers which are new, as address and slot.
    ///
    /// # Errors
    /// What the system says; the slots that were opened stay.
    pub(crate) fn grow(&mut self, slots: u16, backlog: u32) -> io::Result<Vec<(u16, Slot)>> {
        let mut opened = Vec::new();
        for number in self.slots..slots {
            for (at, address) in (0..).zip(&mut self.addresses) {
                if let (Place::Tcp(local), Sockets::PerSlot(sockets)) =
                    (&address.local, &mut address.sockets)
                {
                    sockets.push(socket::listen_tcp(*local, Join::Further, backlog)?.into());
                    opened.push((at, Slot::new(number)));
                }
            }
            self.slots = number + 1;
        }
        Ok(opened)
    }

    /// How many slots have listeners.
    pub(crate) fn slots(&self) -> u16 {
        self.slots
    }

    /// The listener of an address in a slot.
    pub(crate) fn get(&self, address: u16, slot: Slot) -> Option<BorrowedFd<'_>> {
        match &self.addresses.get(usize::from(address))?.sockets {
            Sockets::PerSlot(sockets) => sockets.get(slot.index()).map(AsFd::as_fd),
            Sockets::Shared(socket) => Some(socket.as_fd()),
        }
    }

    /// Every socket that belongs to one slot alone, with the number of its address.
    pub(crate) fn of_slot(&self, slot: Slot) -> impl Iterator<Item = (u16, BorrowedFd<'_>)> {
        (0..).zip(&self.addresses).filter_map(move |(at, address)| match &address.sockets {
            Sockets::PerSlot(sockets) => Some((at, sockets.get(slot.index())?.as_fd())),
            Sockets::Shared(_) => None,
        })
    }

    /// Every socket that all workers accept from, with the number of its address.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (u16, BorrowedFd<'_>)> {
        (0..).zip(&self.addresses).filter_map(|(at, address)| match &address.sockets {
            Sockets::PerSlot(_) => None,
            Sockets::Shared(socket) => Some((at, socket.as_fd())),
        })
    }

    /// A further listener that the master sent to a worker.
    pub(crate) fn receive(&mut self, address: u16, slot: Slot, listener: OwnedFd) {
        if let Some(Address { sockets: Sockets::PerSlot(sockets), .. }) =
            self.addresses.get_mut(usize::from(address))
            && sockets.len() == slot.index()
        {
            sockets.push(listener);
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
        for (_, member) in self.of_slot(Slot::new(0)) {
            filter::steer(member, &members)?;
        }
        Ok(())
    }

    /// Lets no new TCP connection begin; handshakes that have begun and queued connections go on.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub(crate) fn refuse_new(&self) -> io::Result<()> {
        for number in 0..self.slots {
            for (_, listener) in self.of_slot(Slot::new(number)) {
                filter::refuse_new(listener)?;
            }
        }
        Ok(())
    }

    /// The addresses as people and clients write them.
    pub(crate) fn names(&self) -> Vec<String> {
        self.addresses.iter().map(|address| address.local.to_string()).collect()
    }

    /// Removes the files of our own unix sockets, unless somebody has put another one there.
    pub(crate) fn unlink(&self) {
        for address in &self.addresses {
            if let Place::Unix { path, file: Some(file) } = &address.local
                && socket::file_id(path) == Some(*file)
            {
                // The server is gone either way; the next one replaces a stale file.
                let _stale = std::fs::remove_file(path);
            }
        }
    }
}

/// [`Listeners`] for another image of the program: descriptors by their numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handed {
    addresses: Vec<(Place, HandedSockets)>,
    slots: u16,
}

#[derive(Debug, Serialize, Deserialize)]
enum HandedSockets {
    PerSlot(Vec<i32>),
    Shared(i32),
}

impl Listeners {
    /// Lets every socket live on in the next image.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub(crate) fn hand_over(&self) -> io::Result<Handed> {
        let hand = |sockets: &Sockets| match sockets {
            Sockets::PerSlot(sockets) => sockets
                .iter()
                .map(exec::keep)
                .collect::<io::Result<_>>()
                .map(HandedSockets::PerSlot),
            Sockets::Shared(socket) => exec::keep(socket).map(HandedSockets::Shared),
        };
        let addresses = self
            .addresses
            .iter()
            .map(|address| Ok((address.local.clone(), hand(&address.sockets)?)))
            .collect::<io::Result<_>>()?;
        Ok(Handed { addresses, slots: self.slots })
    }

    /// Takes over what the image before has handed over.
    ///
    /// # Errors
    /// When a descriptor is not open.
    pub(crate) fn take_over(handed: Handed) -> io::Result<Self> {
        let take = |sockets| match sockets {
            HandedSockets::PerSlot(numbers) => numbers
                .into_iter()
                .map(exec::inherited)
                .collect::<io::Result<_>>()
                .map(Sockets::PerSlot),
            HandedSockets::Shared(number) => exec::inherited(number).map(Sockets::Shared),
        };
        let addresses = handed
            .addresses
            .into_iter()
            .map(|(local, sockets)| Ok(Address { local, sockets: take(sockets)? }))
            .collect::<io::Result<_>>()?;
        Ok(Self { addresses, slots: handed.slots })
    }

    /// The next image did not come.
    pub(crate) fn keep_no_more(&self) {
        for address in &self.addresses {
            match &address.sockets {
                Sockets::PerSlot(sockets) => sockets.iter().for_each(exec::keep_no_more),
                Sockets::Shared(socket) => exec::keep_no_more(socket),
            }
        }
    }
}

fn open_address(bind: &Bind, config: &Config, slots: u16) -> io::Result<Address> {
    match bind {
        Bind::Tcp(address) => open_tcp(*address, slots, config.backlog),
        Bind::Unix(path) => open_unix(path, config),
        Bind::Fd(number) => inherit(*number),
    }
}

fn open_tcp(address: SocketAddr, slots: u16, backlog: u32) -> io::Result<Address> {
    let first = socket::listen_tcp(address, Join::First, backlog)?;
    // With port 0 the others must join the port that the first was given.
    let local = first.local_addr()?;
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..slots {
        sockets.push(socket::listen_tcp(local, Join::Further, backlog)?.into());
    }
    Ok(Address { local: Place::Tcp(local), sockets: Sockets::PerSlot(sockets) })
}

fn open_unix(path: &Path, config: &Config) -> io::Result<Address> {
    let before = config.umask.map(process::set_umask);
    let listener = socket::listen_unix(path, config.unix_socket_mode, config.backlog);
    before.map(process::set_umask);
    let place = Place::Unix { path: path.to_owned(), file: socket::file_id(path) };
    Ok(Address { local: place, sockets: Sockets::Shared(listener?.into()) })
}

fn inherit(number: i32) -> io::Result<Address> {
    let socket = socket::adopt(number)?;
    let address = match socket::local(socket.as_fd())? {
        Local::Tcp(address) => Some(address),
        Local::Unix => None,
    };
    Ok(Address { local: Place::Inherited { number, address }, sockets: Sockets::Shared(socket) })
}

fn refusal(bind: &Bind, error: &io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => ": is another server running there?",
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 need root or CAP_NET_BIND_SERVICE, files a folder that may be written"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine does not have that address",
        io::ErrorKind::NotFound => ": the folder does not exist",
        _ => "",
    };
    Error::Bind(format!("failed to bind {bind}: {error}{hint}"))
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
