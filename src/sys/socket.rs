//! Listening sockets.
//!
//! # The trap
//! A socket with `SO_REUSEPORT` joins the group of any other server of the same user, in silence. So
//! the first socket of an address is bound without the option, which fails when another socket listens
//! there, and gets it afterwards.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::socket::{SockaddrStorage, getsockname};
use nix::sys::stat::Mode;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{identity, options, poll, process};

/// The place of a TCP listener: the first of its address, or one more beside those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// No other socket may listen there yet.
    First,
    /// A further member of our own group.
    Further,
}

/// Which connections an IPv6 listener for every address takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    /// Those of IPv4 too, where the kernel's default (`net.ipv6.bindv6only`) says so.
    Default,
    /// Those of IPv6 alone (ipv6(7), `IPV6_V6ONLY`).
    V6Only,
}

/// For tests: [`listen_families`] with the kernel's default.
#[cfg(test)]
pub(crate) fn listen_tcp(address: SocketAddr, join: Join, backlog: u32) -> io::Result<TcpListener> {
    listen_families(address, Families::Default, join, backlog)
}

/// Opens a further member of the group that this listener is in. The kernel forms groups of sockets
/// that take the same families.
///
/// # Errors
/// As [`listen_families`].
pub(crate) fn listen_beside(
    member: BorrowedFd<'_>,
    address: SocketAddr,
    backlog: u32,
) -> io::Result<TcpListener> {
    let families = if is_v6_only(member) { Families::V6Only } else { Families::Default };
    listen_families(address, families, Join::Further, backlog)
}

/// Returns true if the socket takes no connection of IPv4.
pub(crate) fn is_v6_only(socket: BorrowedFd<'_>) -> bool {
    // A socket of IPv4 does not know the option.
    SockRef::from(&socket).only_v6().unwrap_or(false)
}

/// Returns true if bind(2) or socket(2) failed because the machine lacks the address or its family.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT].map(Some).contains(&error.raw_os_error())
}

/// Opens a listening TCP socket, non-blocking and with `SO_REUSEPORT`.
///
/// # Errors
/// The error of bind(2) and listen(2): `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`.
pub(crate) fn listen_families(
    address: SocketAddr,
    families: Families,
    join: Join,
    backlog: u32,
) -> io::Result<TcpListener> {
    let socket = unbound(address)?;
    if families == Families::V6Only {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(join == Join::Further)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A socket as listeners for this address are opened, before it is bound.
///
/// # Errors
/// The error of socket(2).
pub(crate) fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections in TIME_WAIT are no obstacle.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Inherited by every accepted connection, which saves a system call on each.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Lets a further socket be bound beside this one, whatever a process that shares it has said of that.
///
/// # Errors
/// The error of setsockopt(2).
pub(crate) fn allow_beside(listener: BorrowedFd<'_>) -> io::Result<()> {
    let socket = SockRef::from(&listener);
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)
}

/// Opens a listening unix socket, non-blocking. A file without a listener is replaced.
///
/// # Errors
/// `AddrInUse` when a server answers there, or the path is no socket; what bind(2), chmod(2) say.
pub(crate) fn listen_unix(path: &Path, file: SocketFile, backlog: u32) -> io::Result<UnixListener> {
    // Between the look at an abandoned file and its removal no other server may begin to listen there.
    let _turn = PathLock::take(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "a file that is no socket is there",
            ));
        }
        Ok(_) if is_abandoned(path)? => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
        Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file gets the mode of the socket, and the user of the process for files: it is born with both,
    // since by its path another file could be meant a moment later.
    nix::sys::stat::fchmod(&socket, Mode::from_bits_truncate(file.mode))?;
    {
        let _unmasked = Unmasked::begin();
        let (uid, gid) = file.owner;
        let _owner = identity::FileOwner::become_it(uid, gid);
        socket.bind(&socket2::SockAddr::unix(path)?)?;
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(OwnedFd::from(socket).into())
}

/// The mode and the owner of a unix socket's file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketFile {
    pub(crate) mode: u32,
    /// User and group; `None`: those of this process.
    pub(crate) owner: (Option<u32>, Option<u32>),
}

/// The file mode creation mask is empty until this is dropped.
struct Unmasked(u32);

impl Unmasked {
    fn begin() -> Self {
        Self(process::set_umask(0))
    }
}

impl Drop for Unmasked {
    fn drop(&mut self) {
        process::set_umask(self.0);
    }
}

/// A lock beside a path, as long as this lives: one server at a time opens a socket there.
struct PathLock {
    path: PathBuf,
    _lock: Flock<File>,
}

impl PathLock {
    /// # Errors
    /// `AddrInUse` while another server opens a socket there; `AlreadyExists` where the lock's file is
    /// another user's; what open(2) says.
    fn take(socket: &Path) -> io::Result<Self> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let mut options = File::options();
            options.write(true).create(true).mode(0o600);
            let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path)?;
            let found = file.metadata()?;
            if found.uid() != nix::unistd::geteuid().as_raw() || !found.is_file() {
                let why = format!("{} belongs to another user", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            let in_use = || io::Error::from_raw_os_error(libc::EADDRINUSE);
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| in_use())?;
            // Its holder may have removed it since it was opened: then it locks nothing.
            if file_id(&path) == Some((found.dev(), found.ino())) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // Still locked. A file that stays is no obstacle.
        let _stays = std::fs::remove_file(&self.path);
    }
}

/// Returns true if no process listens at the socket's file. A server may answer, or be full, or let us
/// not in: then one is there. It is not waited for.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let connected = socket.connect(&socket2::SockAddr::unix(path)?);
    Ok(connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// For tests: has the connection reset when its last descriptor is closed (socket(7), `SO_LINGER`).
#[cfg(test)]
pub(crate) fn reset(stream: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// For tests: sends these bytes, past the event loop.
#[cfg(test)]
pub(crate) fn send_all(stream: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    io::Write::write_all(&mut &*SockRef::from(&stream), bytes)
}

/// For tests: lets the kernel take as little as it does of what is written to connections that this
/// listener accepts.
#[cfg(test)]
pub(crate) fn narrow(listener: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&listener).set_send_buffer_size(1)
}

/// Has a socket listen no more, for every process that holds it; connections that wait are reset.
///
/// # Errors
/// The error of shutdown(2): `ENOTCONN` where it does not listen.
pub(crate) fn stop_listening(listener: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&listener).shutdown(std::net::Shutdown::Read)
}

/// Returns true if a socket that has listened does so no more, since a process that shares it has shut
/// it down: one of TCP is closed then, and one of the unix domain has an end.
pub(crate) fn has_stopped_listening(listener: BorrowedFd<'_>) -> bool {
    !SockRef::from(&listener).is_listener().unwrap_or(true) || poll::has_end(listener)
}

/// Has a TCP socket listen again, after [`has_stopped_listening`].
///
/// # Errors
/// The error of bind(2) and listen(2): `EADDRINUSE` where the port has become another's.
pub(crate) fn listen_again(
    listener: BorrowedFd<'_>,
    address: SocketAddr,
    backlog: u32,
) -> io::Result<()> {
    disconnect(listener)?;
    let socket = SockRef::from(&listener);
    // A port that was the kernel's choice is given up, though getsockname(2) has it still; any other is kept.
    socket.bind(&address.into()).or_else(|error| match error.kind() {
        io::ErrorKind::InvalidInput => Ok(()),
        _ => Err(error),
    })?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Takes back what shutdown(2) has done to a socket that neither listens nor is connected: connections
/// that it accepts would be born with it (connect(2), `AF_UNSPEC`).
fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::connect_unspec(socket)?)
}

/// Returns true if accept(2) waits where no connection does.
pub(crate) fn waits(listener: BorrowedFd<'_>) -> bool {
    !SockRef::from(&listener).nonblocking().unwrap_or(true)
}

/// Has accept(2) return where no connection waits, for every process that shares the socket.
///
/// # Errors
/// The error of fcntl(2).
pub(crate) fn wait_no_more(listener: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&listener).set_nonblocking(true)
}

/// Lets so many connections wait on a socket that listens already.
///
/// # Errors
/// The error of listen(2).
pub(crate) fn set_backlog(listener: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    SockRef::from(&listener).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Device and inode of the file, to know it again.
pub(crate) fn file_id(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Makes a descriptor that this process was started with a listener of its own.
///
/// # Errors
/// `EINVAL` when it is no listening stream socket; it stays open then, as it was passed.
pub(crate) fn adopt(owned: OwnedFd) -> io::Result<OwnedFd> {
    let socket = SockRef::from(&owned);
    let listens =
        socket.is_listener().unwrap_or(false) && socket.r#type().ok() == Some(Type::STREAM);
    if !listens {
        // It is not ours to close.
        let _left_open = owned.into_raw_fd();
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    Ok(owned)
}

/// The kind of a listening socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    Tcp(SocketAddr),
    Unix,
}

/// The address that the socket listens on.
///
/// # Errors
/// The error of getsockname(2).
pub(crate) fn local(socket: BorrowedFd<'_>) -> io::Result<Local> {
    let address = SockRef::from(&socket).local_addr()?;
    Ok(address.as_socket().map_or(Local::Unix, Local::Tcp))
}

/// Returns the local address of the TCP socket with this number. The number is only looked up: where it
/// names nothing, or something else, the answer is wrong.
///
/// # Errors
/// The error of getsockname(2).
pub(crate) fn local_of(socket: RawFd) -> io::Result<SocketAddr> {
    address(&getsockname(socket)?).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// An address of TCP.
pub(super) fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// Has accept(2) wait for a connection where there is none, for every process that shares the socket and
/// has not changed that.
///
/// # Errors
/// The error of fcntl(2).
pub(crate) fn wait_in_accept(listener: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&listener).set_nonblocking(false)
}

/// Returns the number of connections that wait to be accepted on a listening TCP socket. (tcp(7) does
/// not say so, but for a listener the kernel keeps that number in `tcpi_unacked`.)
///
/// # Errors
/// The error of getsockopt(2).
pub(crate) fn queue_length(listener: BorrowedFd<'_>) -> io::Result<u32> {
    tcp_info(listener, UNACKED)
}

/// Returns the time since the last bytes came in on a TCP connection, or the connection itself where
/// none have, in the kernel's milliseconds (`tcpi_last_data_recv`).
///
/// # Errors
/// The error of getsockopt(2).
pub(crate) fn last_received(stream: BorrowedFd<'_>) -> io::Result<Duration> {
    tcp_info(stream, LAST_DATA_RECV).map(|passed| Duration::from_millis(passed.into()))
}

/// Where these numbers lie in `struct tcp_info` of linux/tcp.h, which is only ever made longer.
const UNACKED: usize = offset_of!(libc::tcp_info, tcpi_unacked);
const LAST_DATA_RECV: usize = offset_of!(libc::tcp_info, tcpi_last_data_recv);

fn tcp_info(socket: BorrowedFd<'_>, offset: usize) -> io::Result<u32> {
    let mut info = [0; LAST_DATA_RECV + 4];
    options::get(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(u32::from_ne_bytes(std::array::from_fn(|at| info[offset + at])))
}

/// Returns the number of bytes that wait to be read on a stream socket (tcp(7) and unix(7),
/// `FIONREAD`); its end does not count. The number is only looked up: where it names nothing, or
/// something else, the answer is wrong.
///
/// # Errors
/// The error of ioctl(2).
pub(crate) fn unread_bytes(socket: RawFd) -> io::Result<u64> {
    count_of(socket, libc::FIONREAD)
}

/// Returns the number of bytes that were written to a stream socket and that the peer's system has not
/// acknowledged (tcp(7), `SIOCOUTQ`, which is `TIOCOUTQ`). The number is only looked up, as above.
///
/// # Errors
/// The error of ioctl(2).
pub(crate) fn unsent_bytes(socket: RawFd) -> io::Result<u64> {
    count_of(socket, libc::TIOCOUTQ)
}

fn count_of(socket: RawFd, request: libc::Ioctl) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `count`, and changes nothing of the socket.
    #[expect(unsafe_code, reason = "no crate offers FIONREAD and TIOCOUTQ")]
    let status = unsafe { libc::ioctl(socket, request, &raw mut count) };
    if status == 0 {
        Ok(u64::try_from(count).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads what waits on a stream socket, past the event loop (recv(2)).
///
/// # Errors
/// The error of recv(2): `EAGAIN` where nothing waits.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    io::Read::read(&mut &*SockRef::from(&socket), bytes)
}

/// Returns true if a call failed for want of descriptors or memory, or since too many descriptors of this
/// user are under way in messages (unix(7), `ETOOMANYREFS`).
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS]
        .into_iter()
        .any(|other| Some(other) == number)
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
