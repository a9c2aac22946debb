//! A way to let no new TCP connection begin at an address without closing what listens there.
//!
//! Closing a listener resets the connections that wait on it, and the handshakes that have begun. A
//! socket filter that drops SYNs needs privileges. But a listener whose queue is full drops them too:
//! so one more is added to the address's `SO_REUSEPORT` group, with a queue for one, a connection of our
//! own is put into that queue, and then the group's selector sends every new connection there. The
//! handshakes that have begun belong to the other listeners, and go on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::filter::{self, Exception, IpVersion};
use super::poll::{self, Interest};
use super::socket;

/// Where new connections of an address end, as long as this lives.
#[derive(Debug)]
pub(crate) struct Sink {
    _listener: TcpListener,
    _filler: Socket,
}

/// Looks for the filler in the queue, of 10 ms each: on one machine it is there when it has connected.
const LOOKS_MAX: u32 = 20;

impl Sink {
    /// Lets no new connection begin at this address, whose group has so many members, this one among
    /// them.
    ///
    /// # Errors
    /// The error of socket(2), listen(2), connect(2) and setsockopt(2). Then nothing has changed.
    pub(crate) fn open(
        address: SocketAddr,
        member: BorrowedFd<'_>,
        members: u32,
    ) -> io::Result<Self> {
        // With a selector in place, the new member gets nothing before its queue is full.
        let all: Vec<u32> = (0..members).collect();
        filter::steer(member, &all)?;
        let listener = socket::listen_beside(member, address, 0)?;
        let steer = |exception| filter::steer_with_exception(member, &all, exception);
        let mut filled = Err(io::ErrorKind::AddrNotAvailable.into());
        for there in reachable(address, socket::is_v6_only(member)) {
            filled = filled.or_else(|_: io::Error| fill(&listener, there, steer, members));
        }
        match filled.and_then(|filler| filter::steer(member, &[members]).map(|()| filler)) {
            Ok(filler) => Ok(Self { _listener: listener, _filler: filler }),
            Err(error) => {
                filter::steer(member, &all)?;
                Err(error)
            }
        }
    }
}

/// Puts a connection of our own into the new member's queue, and sees it there. Meanwhile all others
/// go where they went: a connection that came into that queue before it is full would be reset.
fn fill(
    listener: &TcpListener,
    there: SocketAddr,
    steer: impl FnOnce(Exception) -> io::Result<()>,
    to: u32,
) -> io::Result<Socket> {
    let filler = Socket::new(Domain::for_address(there), Type::STREAM, Some(Protocol::TCP))?;
    filler.set_nonblocking(true)?;
    let mut here = there;
    here.set_port(0);
    filler.bind(&here.into())?;
    let port = filler.local_addr()?.as_socket().map_or(0, |here| here.port());
    let ip = if there.is_ipv4() { IpVersion::Four } else { IpVersion::Six };
    steer(Exception { ip, port, to })?;
    match filler.connect(&there.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    for _ in 0..LOOKS_MAX {
        let look = Some(Duration::from_millis(10));
        let [found] = poll::wait(&[(listener.as_fd(), Interest::Read)], look)?[..] else { break };
        if found.readable {
            return Ok(filler);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "a connection to ourselves has not arrived"))
}

/// The addresses by which this machine can reach a listener of its own. One for every address takes
/// connections of both kinds, and the machine may have no IPv6 within itself.
fn reachable(address: SocketAddr, v6_only: bool) -> Vec<SocketAddr> {
    let ips: &[IpAddr] = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        IpAddr::V6(ip) if ip.is_unspecified() && v6_only => &[IpAddr::V6(Ipv6Addr::LOCALHOST)],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            &[IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)]
        }
        // As it is: the scope of a link-local one is part of it.
        _ => return vec![address],
    };
    ips.iter().map(|ip| SocketAddr::new(*ip, address.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::Join;
    use std::net::TcpStream;

    #[test]
    fn nobody_new_gets_in_and_who_waits_is_not_disturbed() {
        for any in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let first = socket::listen_tcp(any.parse().unwrap(), Join::First, 64).unwrap();
            let address = first.local_addr().unwrap();
            let second = socket::listen_tcp(address, Join::Further, 64).unwrap();
            let there = reachable(address, false)[0];
            let waiting: Vec<_> = (0..8).map(|_| TcpStream::connect(there).unwrap()).collect();
            let sink = Sink::open(address, first.as_fd(), 2).expect("it needs no privilege");
            for _ in 0..4 {
                let error = TcpStream::connect_timeout(&there, Duration::from_millis(30));
                assert_eq!(error.expect_err("the SYN is dropped").kind(), io::ErrorKind::TimedOut);
            }
            let queued = |listener: &TcpListener| socket::queue_length(listener.as_fd()).unwrap();
            assert_eq!(queued(&first) + queued(&second), 8);
            drop((sink, waiting));
        }
    }

    /// Clients that connect without a pause while the sink opens are let in by the others or by
    /// none: no connection is caught in the queue that is not accepted from.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "clients have threads of their own")]
    fn who_comes_meanwhile_is_not_caught() {
        for _ in 0..30 {
            let first =
                socket::listen_tcp("127.0.0.1:0".parse().unwrap(), Join::First, 128).unwrap();
            let address = first.local_addr().unwrap();
            let connect = move || {
                let timeout = Duration::from_millis(30);
                let connects =
                    (0..40).map_while(|_| TcpStream::connect_timeout(&address, timeout).ok());
                connects.collect::<Vec<_>>()
            };
            let clients = [(); 3].map(|()| std::thread::spawn(connect));
            let sink = Sink::open(address, first.as_fd(), 1).expect("it needs no privilege");
            let let_in: Vec<_> =
                clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
            let queued = socket::queue_length(first.as_fd()).unwrap();
            assert_eq!(queued as usize, let_in.len());
            drop(sink);
        }
    }
}
