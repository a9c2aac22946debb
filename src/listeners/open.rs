//! Opening one address, and saying why that cannot be done.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::{Address, Bound, Sockets};
use crate::config::Error;
use crate::config::{Bind, BindAddress, Config};
use crate::sys::exec::Passed;
use crate::sys::identity::Identity;
use crate::sys::socket::{self, Families, Join, Local, SocketFile};

/// Why an address was not opened.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This machine does not have it.
    Absent(Error),
    Other(Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Absent(error) | Refusal::Other(error) => error,
        }
    }
}

/// The families that an address takes beside the others: `[::]` leaves IPv4 to the addresses of IPv4
/// that are listed for the same port.
pub(super) fn families(bind: &Bind, config: &Config) -> Families {
    let BindAddress::Tcp(SocketAddr::V6(wide)) = &bind.address else { return Families::Default };
    let listed = |other: &Bind| match other.address {
        BindAddress::Tcp(SocketAddr::V4(other)) => other.port() == wide.port(),
        BindAddress::Tcp(SocketAddr::V6(_)) | BindAddress::Unix(_) | BindAddress::Fd(_) => false,
    };
    // Port 0 is another port for each.
    if wide.ip().is_unspecified() && wide.port() != 0 && config.binds().any(listed) {
        Families::V6Only
    } else {
        Families::Default
    }
}

/// The name by which an address of the same kind is found again in a further configuration.
pub(super) fn identity(bind: &Bind, config: &Config) -> String {
    match (&bind.address, families(bind, config)) {
        // Port 0 is another port for each name.
        (BindAddress::Tcp(address), _) if address.port() == 0 => bind.to_string(),
        // The name is a matter of the configuration, not of the socket.
        (address, Families::Default) => address.to_string(),
        (address, Families::V6Only) => format!("{address} without IPv4"),
    }
}

/// Opens an address of the configuration, with listeners for so many slots.
pub(super) fn address(
    bind: &Bind,
    config: &Config,
    slots: u16,
    passed: &mut Passed,
) -> Result<Address, Refusal> {
    let opened = match &bind.address {
        BindAddress::Tcp(address) if config.program.is_set() => {
            shared_tcp(*address, families(bind, config), config.backlog)
        }
        BindAddress::Tcp(address) => tcp(*address, families(bind, config), slots, config.backlog),
        BindAddress::Unix(path) => unix(path, config),
        BindAddress::Fd(number) => {
            inherited(*number, take(*number, passed).map_err(Refusal::Other)?)
        }
    };
    let (bound, sockets) = opened.map_err(|error| match refusal(bind, &error) {
        why if socket::is_absence(&error) => Refusal::Absent(why),
        why => Refusal::Other(why),
    })?;
    suit_programs(&sockets, config).map_err(|error| Refusal::Other(refusal(bind, &error)))?;
    Ok(Address::new(Some(identity(bind, config)), bound, sockets))
}

/// Takes over a socket that a service manager has passed.
pub(super) fn passed(number: i32, config: &Config, passed: &mut Passed) -> Result<Address, Error> {
    let refuse = |error: io::Error| refusal(&BindAddress::Fd(number).into(), &error);
    let (bound, sockets) = inherited(number, take(number, passed)?).map_err(refuse)?;
    suit_programs(&sockets, config).map_err(refuse)?;
    Ok(Address::new(None, bound, sockets))
}

/// Makes a socket what programs expect that inherit one: its accept(2) waits. A program may change that.
fn suit_programs(sockets: &Sockets, config: &Config) -> io::Result<()> {
    match sockets {
        Sockets::Shared(socket) if config.program.is_set() => {
            socket::wait_in_accept(socket.as_fd())
        }
        Sockets::Shared(_) | Sockets::PerSlot(_) => Ok(()),
    }
}

/// One listener that every program accepts from.
fn shared_tcp(
    address: SocketAddr,
    families: Families,
    backlog: u32,
) -> io::Result<(Bound, Sockets)> {
    let listener = socket::listen_families(address, families, Join::First, backlog)?;
    let local = listener.local_addr()?;
    Ok((Bound::Tcp(local), Sockets::Shared(listener.into())))
}

fn tcp(
    address: SocketAddr,
    families: Families,
    slots: u16,
    backlog: u32,
) -> io::Result<(Bound, Sockets)> {
    let first = socket::listen_families(address, families, Join::First, backlog)?;
    // With port 0 the others must join the port that the first was given.
    let local = first.local_addr()?;
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..slots {
        let further = socket::listen_beside(sockets[0].as_fd(), local, backlog)?;
        sockets.push(further.into());
    }
    Ok((Bound::Tcp(local), Sockets::PerSlot(sockets)))
}

pub(super) fn unix(path: &Path, config: &Config) -> io::Result<(Bound, Sockets)> {
    // gunicorn's: every user may connect, but for a mask that is configured, and it belongs to the user
    // that the workers become.
    let mode = config.unix_socket_mode.unwrap_or(0o777 & !config.umask.unwrap_or(0));
    let owner = Identity::find(&config.user, &config.group).map_err(io::Error::other)?.ids();
    let file = SocketFile { mode, owner };
    let listener = socket::listen_unix(path, file, config.backlog)?;
    // Relative paths are meant from here, whatever the folder is when the file is removed.
    let path = std::path::absolute(path)?;
    let file = socket::file_id(&path);
    Ok((Bound::Unix { path, file }, Sockets::Shared(listener.into())))
}

/// A descriptor of the configuration: one of those that the server was started with.
fn take(number: i32, passed: &mut Passed) -> Result<OwnedFd, Error> {
    passed.take(number).map_err(|error| {
        let remedy = remedy(number);
        Error::Config(format!("bind: fd://{number}: {error}; {remedy}").into())
    })
}

fn inherited(number: i32, descriptor: OwnedFd) -> io::Result<(Bound, Sockets)> {
    let socket = socket::adopt(descriptor)?;
    let address = match socket::local(socket.as_fd())? {
        Local::Tcp(address) => Some(address),
        Local::Unix => None,
    };
    Ok((Bound::Inherited { number, address }, Sockets::Shared(socket)))
}

/// Returns true if the two cannot be open at the same time: the open one must be closed first, and with
/// it the connections in its queues.
pub(super) fn overlaps(new: (SocketAddr, Families), own: (SocketAddr, Families)) -> bool {
    // A v6 socket for every address takes v4 connections, too, unless it is told not to.
    let covers = |(wide, families): (SocketAddr, Families), other: IpAddr| match wide.ip() {
        IpAddr::V4(wide) => wide.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(wide) => {
            wide.is_unspecified() && (other.is_ipv6() || families == Families::Default)
        }
    };
    let ip = new.0.ip();
    let own_ip = own.0.ip();
    new.0.port() == own.0.port() && (ip == own_ip || covers(new, own_ip) || covers(own, ip))
}

/// The error for an address that [`overlaps`].
pub(super) fn overlap(bind: &Bind, own: SocketAddr) -> Error {
    Error::Bind(format!(
        "failed to bind {bind}: this server listens on {own}, which cannot be let go before: \
         restart it, or take another port"
    ))
}

/// The error for an address that [`overlaps`] one that was let go so late that it is still kept.
pub(super) fn not_gone_yet(bind: &Bind, gone: SocketAddr) -> Error {
    Error::Bind(format!(
        "failed to bind {bind}: this server has let go of {gone} just now, and it is not closed yet: \
         reload again in a second"
    ))
}

/// The error for an address that [`overlaps`] one that is listed before it.
pub(super) fn listed_twice(bind: &Bind, listed: SocketAddr) -> Error {
    Error::Bind(format!(
        "failed to bind {bind}: {listed} is listed, too, and the kernel does not have the two side by \
         side: leave one of them out"
    ))
}

/// The remedy where a descriptor is no listening socket.
fn remedy(number: i32) -> String {
    format!(
        "use a socket unit of systemd, or a parent process that passes a listening socket as \
         descriptor {number}"
    )
}

fn refusal(bind: &Bind, error: &io::Error) -> Error {
    if let BindAddress::Fd(number) = &bind.address
        && error.kind() == io::ErrorKind::InvalidInput
    {
        let remedy = remedy(*number);
        return Error::Bind(format!(
            "failed to bind {bind}: descriptor {number} is not a listening stream socket; {remedy}"
        ));
    }
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
