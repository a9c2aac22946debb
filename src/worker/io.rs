//! A client's stream, watched: what it waits for is noted, and what has waited too long is ended here,
//! between hyper and the socket.
//!
//! # Why here
//! hyper's own graceful shutdown of a connection closes one whose first request is on its way, and one
//! whose next request has come in by half. Here the socket is asked first: only where there is nothing
//! to read does an idle connection end, and to hyper it looks as if the client had left.
//!
//! # Rest
//! hyper keeps two buffers of 8 KiB for each connection, also for one that has nothing to do. So one
//! that has been idle for a moment ends for hyper, in the same way, and its stream alone is kept until
//! something comes in; then hyper begins again on it.
//!
//! # The trap at the end
//! The kernel resets a connection that is closed with bytes in it that nobody has read, and a client
//! that is still speaking may never see its answer. So where that may be we listen for a while.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::conns::{HeadRoom, Kick, Wait};
use super::fragments::Fragments;
use super::heads::TooLong;
use super::own::Own;
use super::proxy::{self, Parsed, Proxied};
use super::ticket::Entry;
use crate::client::Scheme;
use crate::sys::clock;

/// Bytes of an answer in pieces that are put together before they are written: to copy so few is
/// cheaper than to have the kernel gather them.
const GATHERED_MAX: usize = 1024;
/// How a client begins that knows that a server speaks HTTP/2 (RFC 9113 section 3.4).
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// Bytes that the buffer of a socket has room for, as long as its client reads: the kernel begins with
/// more (tcp(7), `tcp_wmem`).
const TAKEN_AT_ONCE: usize = 16 * 1024;
/// Reads of what is thrown away, until others have their turn.
const READS_MAX: usize = 16;

/// A stream of either kind.
#[derive(Debug, Default)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// It was taken: its connection rests.
    #[default]
    Gone,
}

/// A stream whose moves are noted.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    entry: Arc<Entry>,
    /// Longer heads would be refused by hyper, without a word.
    room: HeadRoom,
    /// What came in behind the PROXY header, and how its client speaks with the proxy.
    ahead: BytesMut,
    scheme: Scheme,
    fragments: Fragments,
    end: End,
}

/// Whether more is said on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By both sides.
    NotYet,
    /// We have said all.
    Said,
    /// By none, or nobody listens.
    Over,
    /// By both, later: to hyper it looks as if the client had left.
    Rest,
}

/// Why a connection that should begin with a PROXY header is not one.
#[derive(Debug)]
pub(super) enum Unproxied {
    /// Its peer went away without a word, as those do that only try whether somebody listens.
    Silent,
    /// What is wrong, as a sentence about the connection.
    Wrong(&'static str),
}

impl Watched {
    pub(super) fn new(stream: Stream, entry: Arc<Entry>, room: HeadRoom) -> Self {
        let (ahead, scheme, fragments) = Default::default();
        Self { stream, entry, room, ahead, scheme, fragments, end: End::NotYet }
    }

    /// What it shares with its requests.
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The number of its socket, for as long as it lives.
    pub(super) fn socket(&self) -> RawFd {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
            // No descriptor has this number.
            Stream::Gone => -1,
        }
    }

    /// Takes the PROXY header from the front. Until it is there the connection waits for its first
    /// request, as one does on which nothing has come: the sweep ends it as silently.
    pub(super) async fn take_proxy_header(&mut self) -> Result<Proxied, Unproxied> {
        let mut bytes = BytesMut::with_capacity(proxy::HEADER_MAX);
        loop {
            match proxy::parse(&bytes) {
                Parsed::Header(proxied, length) => {
                    bytes.advance(length);
                    self.ahead = bytes;
                    self.scheme = proxied.scheme.unwrap_or_default();
                    return Ok(proxied);
                }
                Parsed::Wrong(why) => return Err(Unproxied::Wrong(why)),
                Parsed::More => {}
            }
            let conn = Arc::clone(&self.entry.conn);
            let read = tokio::select! {
                biased;
                read = poll_fn(|cx| self.stream.poll_read_more(cx, &mut bytes)) => read,
                () = conn.kicked.notified() => {
                    return Err(Unproxied::Wrong("its PROXY header did not come in time"));
                }
            };
            match read {
                Ok(0) | Err(_) if bytes.is_empty() => return Err(Unproxied::Silent),
                Ok(0) | Err(_) => return Err(Unproxied::Wrong("it ended within its PROXY header")),
                Ok(_) => {}
            }
        }
    }

    /// Says something without hyper, which has nothing to write: the answer to the request before is
    /// out. A client whose buffer is full even so gets no answer.
    fn refuse(&mut self, cx: &mut Context<'_>, own: Own) -> Poll<io::Result<()>> {
        self.say(cx, own);
        ready!(self.poll_end(cx))?;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn say(&mut self, cx: &mut Context<'_>, own: Own) {
        let text = own.text(self.scheme, clock::wall());
        if let Poll::Ready(Ok(_)) = self.stream.poll_write(cx, text.as_bytes()) {
            self.entry.conn.note_refused(own.status());
        }
    }

    /// What hyper says when it has no request in hand is an answer of its own: a status without a word.
    /// It is said in ours, and hyper is told that all is written.
    fn replace(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> bool {
        let conn = &self.entry.conn;
        if !matches!(conn.wait(), Wait::Head | Wait::Next) {
            return false;
        }
        // The client may be in the middle of it.
        conn.set(Wait::Head);
        self.say(cx, Own::of_hyper(bytes));
        true
    }

    /// Says that nothing more is said, and listens until the client has stopped, too. Where it is silent
    /// already the end of the socket says so, which follows at once.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end == End::NotYet {
            let conn = &self.entry.conn;
            self.end = if conn.may_be_heard() {
                ready!(self.stream.poll_shutdown(cx))?;
                End::Said
            } else {
                End::Over
            };
            conn.set(Wait::Silence);
        }
        let mut bytes = [MaybeUninit::uninit(); 8192];
        for _ in 0..READS_MAX {
            if self.end == End::Over {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::uninit(&mut bytes);
            let is_heard = match self.stream.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => !buffer.filled().is_empty(),
                Poll::Ready(Err(_)) => false,
                Poll::Pending if self.entry.conn.kick() == Kick::Silence => false,
                Poll::Pending => return Poll::Pending,
            };
            if !is_heard || self.entry.conn.kick() == Kick::Silence {
                self.end = End::Over;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What a read answers that found nothing, on a connection that was told to end.
    fn ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self.entry.conn.kick(), self.entry.conn.wait()) {
            (Kick::Idle, Wait::Next) | (Kick::Head, Wait::First) => Poll::Ready(Ok(())),
            (Kick::Rest, Wait::Next) => {
                self.end = End::Rest;
                Poll::Ready(Ok(()))
            }
            (Kick::Head, Wait::Head) => self.refuse(cx, Own::HeadTimeout),
            _ => Poll::Pending,
        }
    }

    /// So many bytes are left to be written, and are about to be. Few of them a socket takes at once: then
    /// what is told of their request is told before, since the kernel may well let the client run, which
    /// has its answer then, and somebody may kill this worker meanwhile.
    fn note_writing(&self, length: usize) {
        if length <= TAKEN_AT_ONCE && !self.entry.conn.is_blocked() {
            self.entry.note_last_write();
        }
    }

    /// Notes whether a write had to wait for the client.
    fn note_write<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let conn = &self.entry.conn;
        if result.is_pending() && conn.kick() == Kick::Reader {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        conn.note_blocked(result.is_pending());
        result
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.end == End::Rest {
            self.entry.rest(std::mem::take(&mut self.stream));
        } else {
            self.entry.close();
        }
    }
}

/// Puts the pieces together, if the room is enough for all of them.
fn gather(slices: &[io::IoSlice<'_>], room: &mut ReadBuf<'_>) -> bool {
    for slice in slices {
        if slice.len() > room.remaining() {
            return false;
        }
        room.put_slice(slice);
    }
    true
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.end {
            End::NotYet => {}
            End::Rest => return Poll::Ready(Ok(())),
            End::Said | End::Over => {
                // It was refused here, and hyper does not know yet.
                ready!(this.poll_end(cx))?;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let before = buffer.filled().len();
        let result = if this.ahead.is_empty() {
            this.stream.poll_read(cx, buffer)
        } else {
            let length = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead.split_to(length));
            Poll::Ready(Ok(()))
        };
        match result {
            Poll::Pending => this.ended(cx),
            Poll::Ready(Ok(())) => {
                let bytes = &buffer.filled()[before..];
                let wait = this.entry.conn.wait();
                match this.entry.conn.note_read(bytes, this.room) {
                    // It would be taken for a request without its fragment.
                    Ok(line) if this.fragments.are_in(wait, line, bytes) => {
                        this.refuse(cx, Own::Target)
                    }
                    // hyper, which speaks HTTP/1.1 only here, would say nothing.
                    Ok(_) if wait == Wait::First && bytes.starts_with(HTTP_2) => {
                        this.refuse(cx, Own::Malformed)
                    }
                    Ok(_) => result,
                    Err(TooLong::Line) => this.refuse(cx, Own::LineTooLong),
                    Err(TooLong::Head) => this.refuse(cx, Own::HeadTooLong),
                }
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
        if self.replace(cx, bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.note_writing(bytes.len());
        let result = self.stream.poll_write(cx, bytes);
        self.note_write(result)
    }

    /// hyper calls it only when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Gone => gone(),
        };
        if matches!(result, Poll::Ready(Ok(()))) {
            self.entry.note_flushed();
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end == End::Rest {
            return Poll::Ready(Ok(()));
        }
        if self.entry.conn.wait() == Wait::Other {
            // Who speaks another protocol may well read on.
            return self.stream.poll_shutdown(cx);
        }
        self.poll_end(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replace(cx, slices.first().map_or(&[], |slice| slice)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        self.note_writing(slices.iter().map(|slice| slice.len()).sum());
        let mut room = [MaybeUninit::uninit(); GATHERED_MAX];
        let mut room = ReadBuf::uninit(&mut room);
        let result = if gather(slices, &mut room) {
            self.stream.poll_write(cx, room.filled())
        } else {
            self.stream.poll_write_vectored(cx, slices)
        };
        self.note_write(result)
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl Stream {
    /// A TCP connection, non-blocking, in this worker's event loop.
    pub(super) fn tcp(stream: std::net::TcpStream) -> io::Result<Self> {
        TcpStream::from_std(stream).map(Self::Tcp)
    }

    /// The same over a unix socket.
    pub(super) fn unix(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        UnixStream::from_std(stream).map(Self::Unix)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Gone => gone(),
        }
    }

    /// Waits until there is something to read, if it is only the end.
    pub(super) async fn has_more(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Appends what there is to the bytes, within their capacity; 0: the end.
    fn poll_read_more(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let length = bytes.len();
        bytes.resize(bytes.capacity(), 0);
        let mut buffer = ReadBuf::new(&mut bytes[length..]);
        let result = self.poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        bytes.truncate(length + read);
        result.map_ok(|()| read)
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Gone => gone(),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => gone(),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Gone => gone(),
        }
    }
}
