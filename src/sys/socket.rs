//! Listening sockets.
//!
//! # The trap
//! A socket with `SO_REUSEPORT` joins the group of any other server of the same user, in silence. So
//! the first socket of an address is bound without the option, which fails when anybody listens there,
//! and gets it afterwards.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::libc;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Whether a TCP listener is the first of its address, or joins those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// Nobody may listen there yet.
    First,
    /// A further member of our own group.
    Further,
}

/// Opens a listening TCP socket, non-blocking and with `SO_REUSEPORT`.
///
/// # Errors
/// What bind(2) and listen(2) say: `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`.
pub(crate) fn listen_tcp(address: SocketAddr, join: Join, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections in TIME_WAIT are no obstacle.
    socket.set_reuse_address(true)?;
    if join == Join::Further {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    // Inherited by every accepted connection, which saves a system call on each.
    socket.set_tcp_nodelay(true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Opens a listening unix socket, non-blocking. A file that nobody listens on is replaced.
///
/// # Errors
/// `AddrInUse` when a server answers there, or the path is no socket; what bind(2), chmod(2) say.
pub(crate) fn listen_unix(
    path: &Path,
    mode: Option<u32>,
    backlog: u32,
) -> io::Result<UnixListener> {
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
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    if let Some(mode) = mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(OwnedFd::from(socket).into())
}

/// Whether nobody listens at the socket's file. A server may answer, or be full, or let us not in: then
/// somebody is there. It is not waited for.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let connected = socket.connect(&socket2::SockAddr::unix(path)?);
    Ok(connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// For tests: lets the kernel take as little as it does of what is written to connections that this
/// listener accepts.
#[cfg(test)]
pub(crate) fn narrow(listener: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&listener).set_send_buffer_size(1)
}

/// Lets so many connections wait on a socket that listens already.
///
/// # Errors
/// What listen(2) says.
pub(crate) fn set_backlog(listener: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    SockRef::from(&listener).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Device and inode of the file, to know it again.
pub(crate) fn file_id(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Takes over a listening socket that this process was started with.
///
/// # Errors
/// `EBADF` when the descriptor is not open, `EINVAL` when it is no listening stream socket.
pub(crate) fn adopt(descriptor: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) looks a number up and changes nothing.
    #[expect(unsafe_code, reason = "the number may name no descriptor, so it cannot be borrowed")]
    let known = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    if descriptor < 0 || known < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and the caller names it once: it was inherited for us alone.
    #[expect(unsafe_code, reason = "descriptors are inherited as numbers")]
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
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

/// What kind of address a listening socket has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    Tcp(SocketAddr),
    Unix,
}

/// The address that the socket listens on.
///
/// # Errors
/// What getsockname(2) says.
pub(crate) fn local(socket: BorrowedFd<'_>) -> io::Result<Local> {
    let address = SockRef::from(&socket).local_addr()?;
    Ok(address.as_socket().map_or(Local::Unix, Local::Tcp))
}

/// How many connections wait to be accepted on a listening TCP socket. (tcp(7) does not say so, but
/// for a listener the kernel keeps that number in `tcpi_unacked`.)
///
/// # Errors
/// What getsockopt(2) says.
pub(crate) fn queue_length(listener: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: all zeroes is a valid `tcp_info`: it holds numbers only.
    #[expect(unsafe_code, reason = "tcp_info has no constructor")]
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("a few hundred bytes");
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is that long.
    #[expect(unsafe_code, reason = "no crate offers TCP_INFO")]
    let status = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if status == 0 { Ok(info.tcpi_unacked) } else { Err(io::Error::last_os_error()) }
}

/// How many bytes wait to be read on a stream socket (tcp(7) and unix(7), `FIONREAD`); its end does not
/// count. The number is only looked up: where it names nothing, or something else, the answer is wrong.
///
/// # Errors
/// What ioctl(2) says.
pub(crate) fn unread_bytes(socket: RawFd) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `count`, and changes nothing of the socket.
    #[expect(unsafe_code, reason = "no crate offers FIONREAD")]
    let status = unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut count) };
    if status == 0 {
        Ok(u64::try_from(count).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether accept(2) failed for want of descriptors or memory.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM]
        .into_iter()
        .any(|it| Some(it) == number)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_second_server_is_refused_and_a_further_member_is_not() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = listen_tcp(any, Join::First, 16).expect("a free port");
        let address = first.local_addr().unwrap();
        let refused = listen_tcp(address, Join::First, 16).expect_err("somebody listens there");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let further = listen_tcp(address, Join::Further, 16).expect("our own group");
        assert_eq!(further.local_addr().unwrap(), address);
    }

    #[test]
    fn steering_sends_connections_to_the_chosen_member_alone() {
        let first = listen_tcp("127.0.0.1:0".parse().unwrap(), Join::First, 64).unwrap();
        let address = first.local_addr().unwrap();
        let members = [first]
            .into_iter()
            .chain((1..4).map(|_| listen_tcp(address, Join::Further, 64).unwrap()))
            .collect::<Vec<_>>();
        super::super::filter::steer(members[0].as_fd(), &[1, 3]).expect("needs no privilege");
        let clients: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
        let waiting: Vec<u32> =
            members.iter().map(|it| queue_length(it.as_fd()).unwrap()).collect();
        assert_eq!((waiting[0], waiting[2]), (0, 0));
        assert_eq!(waiting[1] + waiting[3], 40);
        drop(clients);
        super::super::filter::unsteer(members[2].as_fd()).expect("nor does this");
        let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
        let now: Vec<u32> = members.iter().map(|it| queue_length(it.as_fd()).unwrap()).collect();
        assert!(now[0] > 0 && now[2] > 0, "the kernel chooses among all again: {now:?}");
        let none = super::super::filter::unsteer(members[0].as_fd()).expect_err("there is none");
        assert_eq!(none.raw_os_error(), Some(libc::ENOENT));
        drop(clients);
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.sock");
        let first = listen_unix(&path, Some(0o600), 16).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = listen_unix(&path, None, 16).expect_err("it is alive");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen_unix(&path, None, 16).expect("it is stale");
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        listen_unix(&file, None, 16).expect_err("a file is not replaced");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "x");
    }

    /// A server whose queue is full lets nobody in for the time being, and is not waited for.
    #[test]
    fn a_live_unix_socket_whose_queue_is_full_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.sock");
        let _full = listen_unix(&path, None, 0).unwrap();
        let client = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.connect(&socket2::SockAddr::unix(&path).unwrap()).map(|()| socket)
        };
        let waiting: Vec<_> = std::iter::repeat_with(client).map_while(Result::ok).collect();
        assert!(!waiting.is_empty());
        let refused = listen_unix(&path, None, 16).expect_err("it is alive");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn unread_bytes_are_counted_and_left() {
        use std::io::{Read, Write};
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), Join::First, 16).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(unread_bytes(stream.as_raw_fd()).unwrap(), 0);
        client.write_all(b"abc").unwrap();
        assert_eq!(unread_bytes(stream.as_raw_fd()).unwrap(), 3);
        drop(client);
        let mut text = String::new();
        stream.set_nonblocking(false).unwrap();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert_eq!(unread_bytes(stream.as_raw_fd()).unwrap(), 0, "its end does not count");
        assert!(unread_bytes(-1).is_err());
    }

    #[test]
    fn only_listening_sockets_are_adopted() {
        assert_eq!(adopt(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(adopt(9999).unwrap_err().raw_os_error(), Some(libc::EBADF));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(adopt(file.as_raw_fd()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let adopted = adopt(listener.into_raw_fd()).unwrap();
        assert_eq!(local(adopted.as_fd()).unwrap(), Local::Tcp(address));
    }
}
