//! A client's socket of either kind, in a worker's event loop, with what was read ahead of it.
//!
//! # Clients that leave while a handler runs
//! hyper does not read while a handler runs, so it does not see that a client leaves. The event loop
//! does: it is told of a FIN and of a reset by edges (epoll(7), `EPOLLRDHUP` and `EPOLLHUP`), without a
//! system call. The runtime shows the edge as readiness to read, and hides it behind bytes that are
//! there already: these are hidden until hyper reads again.

use std::future::Future as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};

use crate::request::local::{Local, OpenSocket};
use crate::request::peer::PeerCredentials;
use crate::scoreboard::WorkerBoard;
use crate::sys::socket;

/// Reports of bytes to read in one look at a client, while its request is in hand.
const LOOKS_MAX: usize = 4;

/// A client's socket.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// Dropped before the socket is closed.
    open: Option<OpenSocket>,
    socket: ClientSocket,
    /// The bytes that came in behind a PROXY header, or were looked at before a handshake.
    ahead: BytesMut,
    /// True if there may be bytes to read of which the event loop does not tell any more.
    is_hidden: bool,
    /// `None` if the kernel leaves no receipts.
    receipts: Option<Receipts>,
}

/// Where the kernel leaves the receipts of a connection's writes.
#[derive(Debug)]
struct Receipts {
    board: Arc<WorkerBoard>,
    /// The connection's entry on the board.
    number: usize,
    /// True if the next write is to have a receipt.
    is_wanted: bool,
}

#[derive(Debug, Default)]
enum ClientSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// It was taken: its connection is parked.
    #[default]
    Taken,
}

/// The part of a connection that a client has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// Neither direction, as far as the event loop was told.
    None,
    /// Its sending side. It may read on.
    Finished,
    /// Both: it was reset, or the client has closed a unix socket.
    Gone,
}

impl Departure {
    fn of(is_read_closed: bool, is_write_closed: bool) -> Self {
        match (is_read_closed, is_write_closed) {
            (_, true) => Self::Gone,
            (true, false) => Self::Finished,
            (false, false) => Self::None,
        }
    }
}

impl Socket {
    /// A TCP connection, non-blocking, in this worker's event loop.
    pub(crate) fn tcp(stream: std::net::TcpStream) -> io::Result<Self> {
        let socket = ClientSocket::Tcp(TcpStream::from_std(stream)?);
        Ok(Self { socket, ..Self::default() })
    }

    /// The same over a unix socket.
    pub(crate) fn unix(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        let socket = ClientSocket::Unix(UnixStream::from_std(stream)?);
        Ok(Self { socket, ..Self::default() })
    }

    /// Has the receipts of its writes left in the entry of this number, if there is one and metrics are on.
    pub(crate) fn keep_receipts(&mut self, board: &Arc<WorkerBoard>, number: usize) {
        if board.metrics().is_none() || board.entry(number).is_none() {
            return;
        }
        let board = Arc::clone(board);
        self.receipts = Some(Receipts { board, number, is_wanted: false });
    }

    /// Has the kernel leave a receipt of the next write.
    pub(crate) fn want_receipt(&mut self) {
        if let Some(receipts) = &mut self.receipts {
            receipts.is_wanted = true;
        }
    }

    fn wants_receipt(&self) -> bool {
        self.receipts.as_ref().is_some_and(|receipts| receipts.is_wanted)
    }

    /// Writes, with a receipt.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(receipts) = &mut self.receipts else { return taken() };
        receipts.is_wanted = false;
        let Some(entry) = receipts.board.entry(receipts.number) else { return taken() };
        let receipt = entry.receipt();
        loop {
            let sent = match &self.socket {
                ClientSocket::Tcp(stream) => {
                    stream.try_io(Interest::WRITABLE, || receipt.send(stream.as_fd(), slices))
                }
                ClientSocket::Unix(stream) => {
                    stream.try_io(Interest::WRITABLE, || receipt.send(stream.as_fd(), slices))
                }
                ClientSocket::Taken => return taken(),
            };
            if !matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(sent);
            }
            // The socket has no room.
            ready!(match &self.socket {
                ClientSocket::Tcp(stream) => stream.poll_write_ready(cx),
                ClientSocket::Unix(stream) => stream.poll_write_ready(cx),
                ClientSocket::Taken => return taken(),
            })?;
        }
    }

    /// The process at the other end of a unix socket.
    pub(crate) fn credentials(&self) -> Option<PeerCredentials> {
        let ClientSocket::Unix(stream) = &self.socket else { return None };
        let peer = stream.peer_cred().ok()?;
        Some(PeerCredentials::new(peer.uid(), peer.gid(), peer.pid()))
    }

    /// Its local address, which is looked up when it is asked for.
    pub(crate) fn local(&mut self) -> Local {
        let number = self.number();
        self.open.get_or_insert_with(|| OpenSocket::new(number)).local()
    }

    /// The number of the socket, for as long as it is open.
    pub(crate) fn number(&self) -> RawFd {
        // No descriptor has the other number.
        self.as_fd().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// Returns true if its connection is parked, so that it is elsewhere.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.socket, ClientSocket::Taken)
    }

    /// The socket where nothing was read ahead of it.
    pub(crate) fn whole(&self) -> Option<BorrowedFd<'_>> {
        self.as_fd().filter(|_| self.ahead.is_empty())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.socket {
            ClientSocket::Tcp(stream) => Some(stream.as_fd()),
            ClientSocket::Unix(stream) => Some(stream.as_fd()),
            ClientSocket::Taken => None,
        }
    }

    /// Returns true if the client has ended both directions, as far as the event loop was told.
    pub(crate) fn is_gone(&self, cx: &mut Context<'_>) -> bool {
        self.has_finished() && self.departure(cx) == Departure::Gone
    }

    /// Returns true if the client has ended its sending side, or both. Each request asks for it: no future is
    /// made for it, as [`Self::departure`] does. No bytes have the priority that is asked for besides.
    fn has_finished(&self) -> bool {
        match &self.socket {
            ClientSocket::Tcp(stream) => stream.try_io(Interest::PRIORITY, || Ok(())).is_ok(),
            ClientSocket::Unix(stream) => stream.try_io(Interest::PRIORITY, || Ok(())).is_ok(),
            ClientSocket::Taken => false,
        }
    }

    /// Returns what the client has ended. Where that is nothing the task is woken when it does.
    pub(crate) fn poll_departure(&mut self, cx: &mut Context<'_>) -> Departure {
        for _ in 0..LOOKS_MAX {
            match self.poll_read_ready(cx) {
                Poll::Pending | Poll::Ready(Err(_)) => return Departure::None,
                Poll::Ready(Ok(())) => {}
            }
            match self.departure(cx) {
                Departure::None => self.hide(),
                departure => return departure,
            }
        }
        // Bytes come in all the time.
        cx.waker().wake_by_ref();
        Departure::None
    }

    /// Looks at the readiness that the runtime knows of; it is there at once, or not.
    fn departure(&self, cx: &mut Context<'_>) -> Departure {
        let both = Interest::READABLE | Interest::WRITABLE;
        let ready: Poll<io::Result<Ready>> = match &self.socket {
            ClientSocket::Tcp(stream) => pin!(stream.ready(both)).poll(cx),
            ClientSocket::Unix(stream) => pin!(stream.ready(both)).poll(cx),
            ClientSocket::Taken => Poll::Pending,
        };
        match ready {
            Poll::Ready(Ok(ready)) => {
                Departure::of(ready.is_read_closed(), ready.is_write_closed())
            }
            Poll::Ready(Err(_)) | Poll::Pending => Departure::None,
        }
    }

    /// Is ready when there is something to read, if it is only the end.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            ClientSocket::Tcp(stream) => stream.poll_read_ready(cx),
            ClientSocket::Unix(stream) => stream.poll_read_ready(cx),
            ClientSocket::Taken => taken(),
        }
    }

    /// Has the event loop tell of the next edge only, as if all bytes had been read.
    fn hide(&mut self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _would_block = match &self.socket {
            ClientSocket::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            ClientSocket::Unix(stream) => stream.try_io(Interest::READABLE, nothing),
            ClientSocket::Taken => Ok(()),
        };
        self.is_hidden = true;
    }

    /// Reads what was hidden. Returns false if there is nothing: the event loop tells of what comes.
    fn read_hidden(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
        let Some(fd) = self.as_fd() else { return Ok(false) };
        let room = buffer.initialize_unfilled();
        let all = room.len();
        match socket::receive(fd, room) {
            Ok(read) => {
                buffer.advance(read);
                self.is_hidden = read == all;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_hidden = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Has this read before what the socket holds.
    pub(crate) fn put_back(&mut self, bytes: BytesMut) {
        self.ahead = bytes;
    }

    /// Appends what there is to the bytes, within their capacity; 0: the end.
    pub(crate) fn poll_read_more(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let length = bytes.len();
        bytes.resize(bytes.capacity(), 0);
        let mut buffer = ReadBuf::new(&mut bytes[length..]);
        let result = Pin::new(&mut *self).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        bytes.truncate(length + read);
        result.map_ok(|()| read)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        if self.is_hidden && self.read_hidden(buffer)? {
            return Poll::Ready(Ok(()));
        }
        match &mut self.socket {
            ClientSocket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            ClientSocket::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            ClientSocket::Taken => taken(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.wants_receipt() {
            return self.poll_send(cx, &[io::IoSlice::new(bytes)]);
        }
        match &mut self.socket {
            ClientSocket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            ClientSocket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            ClientSocket::Taken => taken(),
        }
    }

    /// A socket has no buffer of its own to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            ClientSocket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientSocket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientSocket::Taken => taken(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.wants_receipt() {
            return self.poll_send(cx, slices);
        }
        match &mut self.socket {
            ClientSocket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            ClientSocket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            ClientSocket::Taken => taken(),
        }
    }
}

fn taken<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fin_is_no_departure_and_a_reset_is() {
        assert_eq!(Departure::of(false, false), Departure::None);
        assert_eq!(Departure::of(true, false), Departure::Finished);
        assert_eq!(Departure::of(true, true), Departure::Gone);
        assert_eq!(Departure::of(false, true), Departure::Gone);
    }
}
