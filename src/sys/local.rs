//! Sockets between processes of one machine, and the process at the other end.

use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::{libc, setsockopt_impl, sockopt_impl};
use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};
use socket2::{Domain, SockAddr, Socket, Type};

use super::poll::{self, Interest};

/// The process at the other end: the one that connected, or that listens (`SO_PEERCRED` in unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its pid; 0 where this pid namespace does not have it.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

/// Returns the process at the other end of a connection.
///
/// # Errors
/// The error of getsockopt(2).
pub(crate) fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let found = getsockopt(stream, sockopt::PeerCredentials)?;
    Ok(Peer { pid: found.pid(), uid: found.uid() })
}

/// The effective user of this process.
pub(crate) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Listens at an abstract name, without blocking.
///
/// # Errors
/// The error of bind(2).
pub(crate) fn listen_abstract(name: &str) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Has the kernel refuse messages with descriptors to the connections of this listener (unix(7),
/// `SO_PASSRIGHTS`, from Linux 6.16 on). Before, they are closed here unseen: one of a connection that
/// lingers (socket(7), `SO_LINGER`) is waited for.
pub(crate) fn refuse_descriptors(listener: &UnixListener) {
    let _before_that = setsockopt(listener, PassRights, &false);
}

/// `SO_PASSRIGHTS` on each architecture that we build for.
const PASS_RIGHTS: libc::c_int = 83;
sockopt_impl!(PassRights, SetOnly, libc::SOL_SOCKET, PASS_RIGHTS, bool);

/// Connects to an abstract name. A full queue is waited for until the timeout, which the connection
/// keeps for its writes.
///
/// # Errors
/// The error of connect(2); `WouldBlock` at the timeout.
pub(crate) fn connect_abstract(name: &str, timeout: Duration) -> io::Result<UnixStream> {
    // An address that begins with a zero byte is an abstract name (unix(7)).
    connect(Path::new(&format!("\0{name}")), timeout)
}

/// Connects to a socket's file, as [`connect_abstract`] does.
///
/// # Errors
/// As [`connect_abstract`].
pub(crate) fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(timeout))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Waits until the process has ended; false at the timeout. It need not be a child of this one, and
/// may be reaped.
pub(crate) fn wait_for_end(pid: i32, timeout: Duration) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return true };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => {
            let ready = poll::wait(&[(process.as_fd(), Interest::Read)], Some(timeout));
            ready.is_ok_and(|ready| ready.iter().any(|ready| ready.readable))
        }
        Err(_) => test_kill_process(pid).is_err(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn abstract_name_connects_two_ends_that_know_each_other() {
        let name = format!("ferricorn-test/{}/{:x}", std::process::id(), rand::random::<u64>());
        let listener = listen_abstract(&name).unwrap();
        listen_abstract(&name).expect_err("it is taken");
        let mut client = connect_abstract(&name, Duration::from_secs(5)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let this = i32::try_from(std::process::id()).unwrap();
        for end in [&client, &server] {
            assert_eq!(peer(end).unwrap(), Peer { pid: this, uid: own_uid() });
        }
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        drop(listener);
        connect_abstract(&name, Duration::from_secs(5)).expect_err("nothing listens there");
    }

    #[test]
    fn end_of_a_process_is_waited_for() {
        let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(sleeper.id()).unwrap();
        assert!(!wait_for_end(pid, Duration::ZERO));
        sleeper.kill().unwrap();
        assert!(wait_for_end(pid, Duration::from_secs(30)));
        sleeper.wait().unwrap();
        assert!(wait_for_end(pid, Duration::ZERO));
    }
}
