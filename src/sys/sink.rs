//! A way to let no new TCP connection begin at an address without closing what listens there.
//!
//! Closing a listener resets the connections that wait on it, and the handshakes that have begun. A
//! socket filter that drops SYNs needs privileges. But a listener whose queue is full drops them too:
//! so one more is added to the address's `SO_REUSEPORT` group, with a queue for nobody, a connection of
//! our own is put into that queue, and the group's selector sends every new connection there. The
//! handshakes that have begun belong to the other listeners, and go on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::filter;
use super::socket::{self, Join};

/// Where new connections of an address end, as long as this lives.
#[derive(Debug)]
pub(crate) struct Sink {
    _listener: TcpListener,
    _filler: Socket,
}

impl Sink {
    /// Lets no new connection begin at this address, whose group has so many members, this one among
    /// them.
    ///
    /// # Errors
    /// What socket(2), listen(2), connect(2) and setsockopt(2) say. Then nothing has changed.
    pub(crate) fn open(
        address: SocketAddr,
        member: BorrowedFd<'_>,
        members: u32,
    ) -> io::Result<Self> {
        // With a selector in place, the new member gets nothing before its queue is full.
        let all: Vec<u32> = (0..members).collect();
        filter::steer(member, &all)?;
        let listener = socket::listen_tcp(address, Join::Further, 0)?;
        filter::steer(member, &[members])?;
        let filler = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        filler.set_nonblocking(true)?;
        match filler.connect(&reachable(address).into()) {
            Ok(()) => Ok(Self { _listener: listener, _filler: filler }),
            // It is on its way: the queue is full when it arrives, which on one machine is now.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
                Ok(Self { _listener: listener, _filler: filler })
            }
            Err(error) => {
                filter::steer(member, &all)?;
                Err(error)
            }
        }
    }
}

/// An address by which this machine can reach a listener of its own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_new_gets_in_and_who_waits_is_not_disturbed() {
        for any in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let first = socket::listen_tcp(any.parse().unwrap(), Join::First, 64).unwrap();
            let address = first.local_addr().unwrap();
            let second = socket::listen_tcp(address, Join::Further, 64).unwrap();
            let there = reachable(address);
            let waiting: Vec<_> = (0..8).map(|_| TcpStream::connect(there).unwrap()).collect();
            let sink = Sink::open(address, first.as_fd(), 2).expect("it needs no privilege");
            for _ in 0..4 {
                let error = TcpStream::connect_timeout(&there, Duration::from_millis(30));
                assert_eq!(error.expect_err("the SYN is dropped").kind(), io::ErrorKind::TimedOut);
            }
            let queued = |it: &TcpListener| socket::queue_length(it.as_fd()).unwrap();
            assert_eq!(queued(&first) + queued(&second), 8);
            drop((sink, waiting));
        }
    }
}
