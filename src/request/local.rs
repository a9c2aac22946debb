//! The local address of a connection, looked up when a handler asks for it.
//!
//! # Why
//! A listener at one address has connections at that address alone: nothing is to be asked. Of a listener
//! at every address, getsockname(2) tells it, which is a system call that few handlers need.
//!
//! # The trap
//! A handler may outlive its connection, and the number of the socket may be another one's by then. So
//! the socket takes its number back before it closes it, under the lock that a look-up holds.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::listener::Listener;
use crate::sys::socket;

/// The listener that a connection came in by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// The name by which its routes are found.
    pub(crate) name: Option<&'static str>,
    pub(crate) local: Local,
    /// The number of its address, where another worker can go on with its idle connections.
    pub(crate) number: Option<u16>,
    /// True if the configuration has the address no more as it was: its connections end.
    pub(crate) is_stale: bool,
}

/// The local address of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Local {
    /// The same for all connections of its listener; `None` on a unix socket.
    Known(Option<SocketAddr>),
    Unknown(Arc<LocalAddress>),
}

impl Default for Local {
    fn default() -> Self {
        Self::Known(None)
    }
}

/// The local address of a connection whose listener listens at every address.
#[derive(Debug)]
pub(crate) struct LocalAddress(Mutex<LookUp>);

/// The progress of looking it up.
#[derive(Clone, Copy, Debug)]
enum LookUp {
    /// The number of the open socket.
    Open(RawFd),
    Found(SocketAddr),
    /// The socket is closed, or the kernel did not tell.
    Failed,
}

/// The socket's share in its [`LocalAddress`], which is dropped before the socket is closed.
#[derive(Debug)]
pub(crate) struct OpenSocket(Arc<LocalAddress>);

impl Origin {
    /// Returns what handlers may know of the listener. The kernel is asked once a connection at most.
    pub(crate) fn listener(&self) -> Listener {
        let address = match &self.local {
            Local::Known(address) => *address,
            Local::Unknown(address) => address.get(),
        };
        Listener::new(self.name, address)
    }
}

impl OpenSocket {
    /// The share of a socket with this number.
    pub(crate) fn new(number: RawFd) -> Self {
        Self(Arc::new(LocalAddress(Mutex::new(LookUp::Open(number)))))
    }

    /// Returns what the connection's requests know.
    pub(crate) fn local(&self) -> Local {
        Local::Unknown(Arc::clone(&self.0))
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let mut look_up = self.0.lock();
        if let LookUp::Open(_) = *look_up {
            *look_up = LookUp::Failed;
        }
    }
}

impl LocalAddress {
    fn get(&self) -> Option<SocketAddr> {
        let mut look_up = self.lock();
        if let LookUp::Open(number) = *look_up {
            *look_up = socket::local_of(number).map_or(LookUp::Failed, LookUp::Found);
        }
        match *look_up {
            LookUp::Found(address) => Some(address),
            LookUp::Open(_) | LookUp::Failed => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, LookUp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    fn origin(socket: &OpenSocket) -> Origin {
        Origin { name: Some("office"), local: socket.local(), ..Origin::default() }
    }

    #[test]
    fn local_address_is_found_once_and_kept() {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
        let port = listener.local_addr().expect("it has one").port();
        let client = TcpStream::connect(("127.0.0.2", port)).expect("it listens");
        let (stream, _) = listener.accept().expect("it is connected");
        let open = OpenSocket::new(stream.as_raw_fd());
        let origin = origin(&open);
        let expected = Listener::new(Some("office"), client.peer_addr().ok());
        assert_eq!(origin.listener(), expected);
        // Neither the kernel nor the number is needed any more.
        drop((open, stream, client));
        assert_eq!(origin.listener(), expected);
    }

    #[test]
    fn number_of_a_closed_socket_is_not_looked_up() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        // A socket that is open, as another one that has got the number of the closed one.
        let open = OpenSocket::new(listener.as_raw_fd());
        let origin = origin(&open);
        drop(open);
        assert_eq!(origin.listener(), Listener::new(Some("office"), None));
    }
}
