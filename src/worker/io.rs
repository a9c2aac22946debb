//! A client's stream, watched: what it waits for is noted, and what has waited too long is ended here,
//! between hyper and the socket.
//!
//! # Why here
//! hyper's own graceful shutdown of a connection closes one whose first request is on its way, and one
//! whose next request has come in by half. Here the socket is asked first: only where there is nothing
//! to read does an idle connection end, and to hyper it looks as if the client had left.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::conns::{Entry, Kick, Wait};

/// What a client is told that does not finish the head of its request (RFC 9110 section 15.5.9).
const HEAD_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A stream of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream whose moves are noted.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    entry: Entry,
    /// What was waited for before the client stopped reading.
    before: Option<Wait>,
}

impl Watched {
    pub(super) fn new(stream: Stream, entry: Entry) -> Self {
        Self { stream, entry, before: None }
    }

    /// What a read answers that found nothing, on a connection that was told to end.
    fn ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self.entry.conn.kick(), self.entry.conn.wait()) {
            (Kick::Idle, Wait::Next) | (Kick::Head, Wait::First) => Poll::Ready(Ok(())),
            (Kick::Head, Wait::Head) => {
                // Nothing else is being written: the answer to the request before is out. A client
                // whose buffer is full even so gets no answer.
                let _sent = self.stream.poll_write(cx, HEAD_TIMEOUT);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            _ => Poll::Pending,
        }
    }

    /// Notes whether a write had to wait for the client.
    fn note_write<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match (&result, self.before) {
            (Poll::Pending, _) if self.entry.conn.kick() == Kick::Reader => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            (Poll::Pending, None) => {
                self.before = Some(self.entry.conn.wait());
                self.entry.conn.set(Wait::Reader);
            }
            (Poll::Ready(_), Some(before)) => {
                self.before = None;
                self.entry.conn.set(before);
            }
            (Poll::Pending, Some(_)) | (Poll::Ready(_), None) => {}
        }
        result
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let result = match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        match result {
            Poll::Pending => this.ended(cx),
            Poll::Ready(Ok(())) => {
                this.entry.conn.note_read(&buffer.filled()[before..]);
                result
            }
            Poll::Ready(Err(_)) => result,
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = self.stream.poll_write(cx, bytes);
        self.note_write(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
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
        let result = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        self.note_write(result)
    }
}

impl Stream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}
