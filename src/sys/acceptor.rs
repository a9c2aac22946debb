//! Taking connections from a listening socket, which others may be taking from besides.
//!
//! # The trap
//! That a socket was ready says nothing: another process may have been faster. So nothing here waits.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{SocketFlags, accept_with, acceptfrom_with};

use super::poll::{self, Interest};
use super::socket::{self, Local};

/// A listening socket of either kind, non-blocking. It shares its queue with every process that has the
/// same one.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection, non-blocking.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Acceptor {
    /// Takes connections from this socket, too.
    ///
    /// # Errors
    /// The errors of fcntl(2) and getsockname(2): `EMFILE`.
    pub(crate) fn new(listener: BorrowedFd<'_>) -> io::Result<Self> {
        let own: OwnedFd = listener.try_clone_to_owned()?;
        Ok(match socket::local(listener)? {
            Local::Tcp(_) => Self::Tcp(own.into()),
            Local::Unix => Self::Unix(own.into()),
        })
    }

    /// Returns true if a connection waits now.
    pub(crate) fn has_waiting(&self) -> bool {
        let listener = [(self.as_fd(), Interest::Read)];
        poll::wait(&listener, Some(std::time::Duration::ZERO)).is_ok_and(|ready| ready[0].readable)
    }

    /// Returns the number of connections that wait, where the system tells: not for unix sockets.
    pub(crate) fn queue_length(&self) -> Option<u32> {
        match self {
            Self::Tcp(listener) => socket::queue_length(listener.as_fd()).ok(),
            Self::Unix(_) => None,
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; what accept(2) says.
    pub(crate) fn accept(&self) -> io::Result<Accepted> {
        // Non-blocking from the beginning: std's own accept needs a second system call for that.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = acceptfrom_with(listener, flags)?;
                let peer = peer.ok_or(io::ErrorKind::InvalidData)?.try_into()?;
                Ok(Accepted::Tcp(stream.into(), peer))
            }
            Self::Unix(listener) => Ok(Accepted::Unix(accept_with(listener, flags)?.into())),
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsRawFd for Acceptor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use super::super::socket::Join;
    use super::*;

    #[test]
    fn two_take_from_one_queue_and_neither_waits() {
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = socket::listen_tcp(any, Join::First, 16).unwrap();
        let address = listener.local_addr().unwrap();
        let [one, other] = [(); 2].map(|()| Acceptor::new(listener.as_fd()).unwrap());
        assert!(!one.has_waiting());
        assert_eq!(one.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(one.has_waiting() && other.has_waiting());
        let mut taken =
            [one.accept().unwrap(), other.accept().unwrap()].map(|accepted| match accepted {
                Accepted::Tcp(stream, peer) => {
                    let error = io::Read::read(&mut &stream, &mut [0]).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    assert_eq!(fcntl(&stream, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
                    peer
                }
                Accepted::Unix(_) => panic!("accepted is TCP"),
            });
        let mut there = [0, 1].map(|at: usize| clients[at].local_addr().unwrap());
        taken.sort_unstable();
        there.sort_unstable();
        assert_eq!(taken, there);
        assert!(!one.has_waiting());
        assert_eq!(other.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
