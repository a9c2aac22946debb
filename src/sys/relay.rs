//! A queue of connected sockets, each with a note: a process puts in those that another is to go on with.
//!
//! It is a `SOCK_SEQPACKET` pair: messages stay whole, several processes may take from one queue, and a
//! socket lies there while no process holds it. Bytes that its client sends meanwhile wait in it.
//!
//! # The trap
//! A descriptor's flags belong to every process that shares it, and so does the end of a socket. Each call
//! says by itself that it does not wait; a queue that a process has shut down refuses what is put in.
//!
//! # The trap of strangers
//! A message carries any descriptors. One that is no connected stream socket is closed, and none of
//! it lingers then (socket(7), `SO_LINGER`), which would keep the process that closes it waiting.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use socket2::{Domain, SockRef, Type};

use super::acceptor::Accepted;
use super::{poll, socket};

/// Puts sockets into a queue. Not inherited over `execve`.
#[derive(Debug)]
pub(crate) struct Giver(OwnedFd);

/// Takes sockets from a queue. Not inherited over `execve`.
#[derive(Debug)]
pub(crate) struct Taker(OwnedFd);

/// The next message of a queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A connected stream socket, non-blocking, with a note of so many bytes.
    Socket(Accepted, usize),
    /// Something else, which was closed; or a socket whose client has gone.
    Unfit,
    /// There is no message, and there will be none.
    End,
}

/// Descriptors that a message carries at the most (unix(7), `SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;
/// Bytes that may wait in a queue: the kernel allows no more without a privilege (socket(7), `wmem_max`).
const ROOM: usize = 1 << 20;

/// Two ends of a new queue.
///
/// # Errors
/// The error of socketpair(2): `EMFILE`, `ENFILE`, `ENOBUFS`.
pub(crate) fn pair() -> io::Result<(Giver, Taker)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (giver, taker) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Permanently: a message in the other direction would never be read.
    SockRef::from(&giver).shutdown(Shutdown::Read)?;
    SockRef::from(&giver).set_send_buffer_size(ROOM)?;
    Ok((Giver(giver), Taker(taker)))
}

impl Giver {
    /// Puts another descriptor of the socket into the queue.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full; `BrokenPipe` when it has ended; what sendmsg(2) says of too
    /// many descriptors under way: `ETOOMANYREFS`.
    pub(crate) fn give(&self, note: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
        let sockets = [socket];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&sockets));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(note)], &mut control, flags)?;
        Ok(())
    }
}

impl Taker {
    /// Takes from this queue, too.
    ///
    /// # Errors
    /// The error of fcntl(2): `EMFILE`.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The next message, with its note.
    ///
    /// # Errors
    /// `WouldBlock` when there is none by now; `EMFILE`, `ENFILE`: it stays in the queue then.
    pub(crate) fn take(&self, note: &mut [u8]) -> io::Result<Taken> {
        // A message whose socket finds no room in this process comes without.
        drop(self.0.try_clone()?);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&self.0, &mut [IoSliceMut::new(note)], &mut control, flags)?;
        let mut come = Vec::new();
        for control in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = control {
                come.extend(descriptors);
            }
        }
        for stranger in &come {
            // It may be no socket.
            let _no_socket = SockRef::from(stranger).set_linger(None);
        }
        Ok(match (message.bytes, <[OwnedFd; 1]>::try_from(come)) {
            // Nothing sends an empty message.
            (0, Err(none)) if none.is_empty() => Taken::End,
            (length, Ok([socket])) => {
                connected(socket).map_or(Taken::Unfit, |socket| Taken::Socket(socket, length))
            }
            (_, Err(_)) => Taken::Unfit,
        })
    }

    /// Bytes of the notes in the queue.
    pub(crate) fn waiting(&self) -> u64 {
        socket::unread_bytes(self.0.as_raw_fd()).unwrap_or(0)
    }

    /// Returns true if the queue takes nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        poll::has_end(self.0.as_fd())
    }

    /// Ends the queue for every process that shares it. What is in it can be taken.
    pub(crate) fn end(&self) {
        // It may have ended.
        let _ended = SockRef::from(&self.0).shutdown(Shutdown::Read);
    }
}

/// A connected stream socket of a family that clients have.
fn connected(socket: OwnedFd) -> Option<Accepted> {
    let view = SockRef::from(&socket);
    if view.r#type().ok()? != Type::STREAM || view.is_listener().unwrap_or(true) {
        return None;
    }
    let domain = view.domain().ok()?;
    let peer = view.peer_addr().ok()?;
    view.set_nonblocking(true).ok()?;
    if domain == Domain::UNIX {
        Some(Accepted::Unix(socket.into()))
    } else {
        Some(Accepted::Tcp(socket.into(), peer.as_socket()?))
    }
}

impl From<OwnedFd> for Giver {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<OwnedFd> for Taker {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Giver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Giver {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Taker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Taker {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::super::clock;
    use super::*;

    /// A client, and the server's end of its connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn taken(taker: &Taker) -> (Accepted, Vec<u8>) {
        let mut note = [0; 64];
        match taker.take(&mut note).unwrap() {
            Taken::Socket(socket, length) => (socket, note[..length].to_vec()),
            other => panic!("{other:?}"),
        }
    }

    fn is_unfit(taker: &Taker) -> bool {
        matches!(taker.take(&mut [0; 64]).unwrap(), Taken::Unfit)
    }

    #[test]
    fn socket_comes_with_its_note_and_its_unread_bytes() {
        let (giver, taker) = pair().unwrap();
        let (mut client, server) = connection();
        giver.give(b"note", server.as_fd()).unwrap();
        drop(server);
        client.write_all(b"meanwhile").unwrap();
        assert!(taker.waiting() > 0);
        let (Accepted::Tcp(mut socket, peer), note) = taken(&taker) else { panic!("it is TCP") };
        assert_eq!((peer, &note[..]), (client.local_addr().unwrap(), &b"note"[..]));
        let mut bytes = [0; 9];
        poll::wait(&[(socket.as_fd(), poll::Interest::Read)], None).unwrap();
        socket.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"meanwhile");
        assert_eq!(socket.read(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(fcntl(&socket, FcntlArg::F_GETFD), Ok(nix::libc::FD_CLOEXEC));
        let (one, other) = UnixStream::pair().unwrap();
        giver.give(b"n", one.as_fd()).unwrap();
        assert!(matches!(taken(&taker), (Accepted::Unix(_), _)));
        drop(other);
        assert_eq!(taker.take(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    /// Neither end waits, whatever flags another process has set.
    #[test]
    fn full_queue_and_empty_queue_are_errors() {
        let (giver, taker) = pair().unwrap();
        for end in [giver.as_fd(), taker.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        }
        assert_eq!(taker.take(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (_client, server) = connection();
        let count =
            (0..10_000).take_while(|_| giver.give(&[0; 32], server.as_fd()).is_ok()).count();
        assert!((100..10_000).contains(&count), "{count}");
        assert_eq!(taker.waiting(), 32 * count as u64);
        let error = giver.give(&[0; 32], server.as_fd()).unwrap_err();
        assert!(error.kind() == io::ErrorKind::WouldBlock || socket::is_exhaustion(&error));
        for _ in 0..count {
            drop(taken(&taker));
        }
        assert_eq!(taker.waiting(), 0);
    }

    #[test]
    fn queue_that_has_ended_gives_what_is_in_it() {
        let (giver, taker) = pair().unwrap();
        let (_client, server) = connection();
        giver.give(b"n", server.as_fd()).unwrap();
        assert!(!taker.has_ended());
        taker.end();
        assert!(taker.has_ended());
        let error = giver.give(b"n", server.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        drop(taken(&taker));
        assert!(matches!(taker.take(&mut [0]), Ok(Taken::End)));
    }

    /// Sends this note with these descriptors, as no honest process does.
    fn smuggle(giver: &Giver, note: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(giver, &[IoSlice::new(note)], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn anything_but_one_connected_stream_is_unfit() {
        let (giver, taker) = pair().unwrap();
        let (client, server) = connection();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.connect(SocketAddr::from(([127, 0, 0, 1], 9))).unwrap();
        let unconnected = socket::unbound(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let file = File::open("/dev/null").unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let (sequenced, _) = pair().unwrap();
        let strangers = [
            listener.as_fd(),
            datagrams.as_fd(),
            unconnected.as_fd(),
            file.as_fd(),
            reader.as_fd(),
            sequenced.as_fd(),
        ];
        for stranger in strangers {
            smuggle(&giver, b"note", &[stranger]);
            assert!(is_unfit(&taker), "{stranger:?}");
        }
        for count in [0, 2, DESCRIPTORS_MAX] {
            smuggle(&giver, b"note", &vec![server.as_fd(); count]);
            assert!(is_unfit(&taker), "{count} descriptors");
        }
        smuggle(&giver, b"", &[server.as_fd()]);
        assert!(matches!(taken(&taker), (_, note) if note.is_empty()));
        // None of them is open here any more.
        drop((server, strangers));
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    }

    /// Its client does not read, and its bytes would be waited for.
    #[test]
    fn lingering_stranger_does_not_keep_the_taker_waiting() {
        let (giver, taker) = pair().unwrap();
        let (_client, server) = connection();
        server.set_nonblocking(true).unwrap();
        while (&server).write(&[0; 65_536]).is_ok() {}
        SockRef::from(&server).set_linger(Some(Duration::from_secs(60))).unwrap();
        smuggle(&giver, b"note", &[server.as_fd(), server.as_fd()]);
        // The last descriptor of it is the taker's.
        drop(server);
        let begun = clock::monotonic_millis();
        assert!(is_unfit(&taker));
        assert!(clock::monotonic_millis() - begun < 30_000);
    }
}
