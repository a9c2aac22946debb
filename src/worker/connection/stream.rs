//! A client's stream: its socket, or TLS on it.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::{Departure, Socket};
use crate::tls::Session;

/// A client's stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<Encrypted>),
}

/// TLS on a socket.
#[derive(Debug)]
pub(crate) struct Encrypted {
    stream: Session<Socket>,
    /// The bytes that were read ahead.
    ahead: BytesMut,
}

impl Encrypted {
    pub(crate) fn new(stream: Session<Socket>) -> Self {
        Self { stream, ahead: BytesMut::new() }
    }
}

/// The place of one that was taken: its connection is parked.
impl Default for Stream {
    fn default() -> Self {
        Self::Plain(Socket::default())
    }
}

impl Stream {
    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.stream.stream(),
        }
    }

    pub(crate) fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.stream.stream_mut(),
        }
    }

    /// The number of its socket, for as long as it is open.
    pub(crate) fn number(&self) -> RawFd {
        self.socket().number()
    }

    /// The socket that is all of the stream: there is no TLS on it, and nothing was read ahead.
    pub(crate) fn whole(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Plain(socket) => socket.whole(),
            Self::Tls(_) => None,
        }
    }

    /// Returns true if its connection is parked, so that it is elsewhere.
    pub(crate) fn is_taken(&self) -> bool {
        self.socket().is_taken()
    }

    /// Returns true if the client has ended both directions, as far as the event loop was told.
    pub(crate) fn is_gone(&self, cx: &mut Context<'_>) -> bool {
        self.socket().is_gone(cx)
    }

    /// Returns what the client has ended. Where that is nothing the task is woken when it does.
    pub(crate) fn poll_departure(&mut self, cx: &mut Context<'_>) -> Departure {
        self.socket_mut().poll_departure(cx)
    }

    /// Is ready when there is something to read, if it is only the end.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_read_ready(cx)
    }

    /// Has this read before all else. Nothing was put back that is not read yet.
    pub(crate) fn put_back(&mut self, bytes: BytesMut) {
        match self {
            Self::Plain(socket) => socket.put_back(bytes),
            Self::Tls(tls) => tls.ahead = bytes,
        }
    }

    /// Bytes that were read from the socket and not from this; of TLS those of one record at the most.
    pub(crate) fn buffered(&mut self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.stream.buffered(),
        }
    }

    /// Returns true if nothing waits to be written that was taken before.
    pub(crate) fn is_clear(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => !tls.stream.wants_write(),
        }
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(tls) if !tls.ahead.is_empty() => {
                let length = tls.ahead.len().min(buffer.remaining());
                buffer.put_slice(&tls.ahead.split_to(length));
                Poll::Ready(Ok(()))
            }
            Self::Tls(tls) => match Pin::new(&mut tls.stream).poll_read(cx, buffer) {
                // A request says itself where it ends: a cut is found without the client's last alert.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                result => result,
            },
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, bytes),
        }
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(cx, slices),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
        }
    }

    /// Says that nothing more is written: of TLS its alert, and then the end of the socket's sending side.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }

    /// Sends the alert of TLS that tells an end from a cut, as far as the socket takes it at once.
    pub(crate) fn say_end(&mut self, cx: &mut Context<'_>) {
        if let Self::Tls(tls) = self {
            tls.stream.send_close_notify();
            // A client whose buffer is full has not read its answer either.
            let _full = Pin::new(&mut tls.stream).poll_flush(cx);
        }
    }
}

/// Puts the pieces together, if the room is enough for all of them.
pub(crate) fn gather(slices: &[io::IoSlice<'_>], room: &mut ReadBuf<'_>) -> bool {
    for slice in slices {
        if slice.len() > room.remaining() {
            return false;
        }
        room.put_slice(slice);
    }
    true
}
