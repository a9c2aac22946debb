//! Opening one address, and saying why that cannot be done.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::{Address, Place, Sockets};
use crate::config::{Bind, Config};
use crate::error::Error;
use crate::sys::socket::{self, Join, Local};

/// Opens an address of the configuration, with listeners for so many slots.
pub(super) fn address(bind: &Bind, config: &Config, slots: u16) -> Result<Address, Error> {
    let opened = match bind {
        Bind::Tcp(address) => tcp(*address, slots, config.backlog),
        Bind::Unix(path) => unix(path, config),
        Bind::Fd(number) => inherited(*number),
    };
    let (place, sockets) = opened.map_err(|error| refusal(bind, &error))?;
    Ok(Address { bind: Some(bind.to_string()), place, sockets, sink: None })
}

/// Takes over a socket that a service manager has passed.
pub(super) fn passed(number: i32) -> Result<Address, Error> {
    let (place, sockets) = inherited(number).map_err(|error| refusal(&Bind::Fd(number), &error))?;
    Ok(Address { bind: None, place, sockets, sink: None })
}

fn tcp(address: SocketAddr, slots: u16, backlog: u32) -> io::Result<(Place, Sockets)> {
    let first = socket::listen_tcp(address, Join::First, backlog)?;
    // With port 0 the others must join the port that the first was given.
    let local = first.local_addr()?;
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..slots {
        sockets.push(socket::listen_tcp(local, Join::Further, backlog)?.into());
    }
    Ok((Place::Tcp(local), Sockets::PerSlot(sockets)))
}

fn unix(path: &Path, config: &Config) -> io::Result<(Place, Sockets)> {
    let listener = socket::listen_unix(path, config.unix_socket_mode, config.backlog)?;
    // Relative paths are meant from here, whatever the folder is when the file is removed.
    let path = std::path::absolute(path)?;
    let file = socket::file_id(&path);
    Ok((Place::Unix { path, file }, Sockets::Shared(listener.into())))
}

fn inherited(number: i32) -> io::Result<(Place, Sockets)> {
    let socket = socket::adopt(number)?;
    let address = match socket::local(socket.as_fd())? {
        Local::Tcp(address) => Some(address),
        Local::Unix => None,
    };
    Ok((Place::Inherited { number, address }, Sockets::Shared(socket)))
}

/// Whether the two cannot be open at the same time: the one before must go first, and with it whoever
/// waits there.
pub(super) fn overlaps(new: SocketAddr, own: SocketAddr) -> bool {
    // A v6 socket for every address takes v4 connections, too.
    let covers = |wide: IpAddr, other: IpAddr| match wide {
        IpAddr::V4(wide) => wide.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(wide) => wide.is_unspecified(),
    };
    let (ip, own_ip) = (new.ip(), own.ip());
    new.port() == own.port() && (ip == own_ip || covers(ip, own_ip) || covers(own_ip, ip))
}

/// What is said of an address that [`overlaps`].
pub(super) fn overlap(bind: &Bind, own: SocketAddr) -> Error {
    Error::Bind(format!(
        "failed to bind {bind}: this server listens on {own}, which cannot be let go before: \
         restart it, or take another port"
    ))
}

/// What is said of an address that [`overlaps`] one that was let go so late that it is still kept.
pub(super) fn not_gone_yet(bind: &Bind, gone: SocketAddr) -> Error {
    Error::Bind(format!(
        "failed to bind {bind}: this server has let go of {gone} just now, and it is not closed yet: \
         reload again in a second"
    ))
}

/// What is said of an address that [`overlaps`] one that is listed before it.
pub(super) fn listed_twice(bind: &Bind, listed: SocketAddr) -> Error {
    Error::Bind(format!(
        "failed to bind {bind}: {listed} is listed, too, and the kernel does not have the two side by \
         side: leave one of them out"
    ))
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
