//! A client's stream, watched: what it waits for is noted, and what has waited too long is ended here,
//! between hyper and the socket.
//!
//! # Why here
//! hyper's own graceful shutdown of a connection closes one whose first request is on its way, and one
//! whose next request has come in by half. Here the socket is asked first: only where there is nothing
//! to read does an idle connection end, and to hyper it looks as if the client had left.
//!
//! # Parked connections
//! hyper keeps two buffers of 8 KiB for each connection, also for one that has nothing to do. So one
//! that has been idle for a second ends for hyper, in the same way, and its stream alone is kept until
//! something comes in; then hyper begins again on it.
//!
//! # The trap at the end
//! The kernel resets a connection that is closed with unread bytes in it, and a client
//! that is still speaking may never see its answer. So where that may be we listen for a while.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Flaw, Framing};
use super::handshake::TLS;
use crate::request::client::Scheme;
use crate::sys::clock;
use crate::worker::connection::conns::{CloseReason, Conn, Wait};
use crate::worker::connection::heads::{HeadRoom, TooLong};
use crate::worker::connection::machine::{Decision, Machine, Refusal};
use crate::worker::connection::socket::{Departure, Socket};
use crate::worker::connection::stream::{Stream, gather};
use crate::worker::long::upgraded::Upgraded;
use crate::worker::request::own::Own;
use crate::worker::request::record::ConnEntry;

/// Bytes of an answer in pieces that are put together before they are written: to copy so few is
/// cheaper than to have the kernel gather them.
const GATHERED_MAX: usize = 1024;
/// Bytes that the buffer of a socket has room for, as long as its client reads: the kernel begins with
/// more (tcp(7), `tcp_wmem`).
const TAKEN_AT_ONCE: usize = 16 * 1024;
/// Reads of what is thrown away, until others have their turn.
const READS_MAX: usize = 16;

/// A stream whose moves are noted.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) stream: Stream,
    pub(crate) entry: Arc<ConnEntry>,
    /// Longer heads would be refused by hyper, without a word.
    room: HeadRoom,
    /// The scheme that its client speaks with the proxy, or with this server.
    pub(crate) scheme: Scheme,
    framing: Framing,
    /// The client is refused so, once the requests before have their answers.
    flaw: Option<Own>,
    end: End,
    /// Another protocol, after an upgrade.
    upgraded: Option<Box<Upgraded>>,
    /// True if it carries frames of HTTP/2.
    is_multiplexed: bool,
    /// Bytes of the preface of HTTP/2 that have come, as long as it may be one.
    pub(crate) preface: usize,
}

/// The state of the conversation on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By both sides.
    NotYet,
    /// We have said all.
    Said,
    /// By none, or the client has gone.
    Over,
    /// By both, later: to hyper it looks as if the client had left.
    Parked,
}

impl Watched {
    pub(crate) fn new(mut stream: Stream, entry: Arc<ConnEntry>, room: HeadRoom) -> Self {
        stream.socket_mut().keep_receipts(&entry.server.board, entry.conn.number);
        let scheme = match &stream {
            Stream::Plain(_) => Scheme::Http,
            Stream::Tls(_) => Scheme::Https,
        };
        let framing = Framing::default();
        let is_multiplexed = entry.conn.is_multiplexed();
        let flaw = None;
        let end = End::NotYet;
        let upgraded = None;
        let preface = 0;
        Self { stream, entry, room, scheme, framing, flaw, end, upgraded, is_multiplexed, preface }
    }

    /// Returns the part that it shares with its requests.
    pub(crate) fn entry(&self) -> &Arc<ConnEntry> {
        &self.entry
    }

    /// Makes of the connection one of another protocol, if it was upgraded.
    fn take_upgrade(&mut self) {
        if self.upgraded.is_none() && self.entry.conn.wait() == Wait::Other {
            self.upgraded = self.entry.take_upgrade().map(Box::new);
        }
    }

    /// The number of its socket, for as long as it lives.
    pub(crate) fn socket(&self) -> RawFd {
        self.stream.number()
    }

    /// Takes the socket, for a handshake.
    pub(crate) fn take_socket(&mut self) -> Socket {
        match std::mem::take(&mut self.stream) {
            Stream::Plain(socket) => socket,
            Stream::Tls(_) => Socket::default(),
        }
    }

    /// Goes on with this stream.
    pub(crate) fn put_stream(&mut self, stream: Stream) {
        if let Stream::Tls(_) = &stream {
            self.scheme = Scheme::Https;
        }
        self.stream = stream;
        self.is_multiplexed = self.entry.conn.is_multiplexed();
    }

    /// Leaves the stream with the entry when this is dropped. To hyper it looks as if the client had left.
    pub(crate) fn park(&mut self) {
        self.end = End::Parked;
    }

    /// Says something without hyper, which has nothing to write: the answer to the request before is
    /// out. A client whose buffer is full even so gets no answer.
    pub(crate) fn refuse(&mut self, cx: &mut Context<'_>, own: Own) -> Poll<io::Result<()>> {
        self.say(cx, own);
        ready!(self.poll_end(cx))?;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes an answer without hyper, as far as the client's buffer takes it.
    pub(crate) fn say(&mut self, cx: &mut Context<'_>, own: Own) {
        let (head, body) = own.text(self.scheme, clock::wall());
        let text = [head.as_str(), body].concat();
        if let Poll::Ready(Ok(taken)) = self.stream.poll_write(cx, text.as_bytes()) {
            self.entry.conn.note_refused(own.status(), taken.saturating_sub(head.len()));
            let _full = self.stream.poll_flush(cx);
        }
    }

    /// Gives hyper what has come in as far as it may have it.
    fn pass_on(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        before: usize,
    ) -> Poll<io::Result<()>> {
        match self.framing.read(&buffer.filled()[before..]) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Flaw { at, own }) => {
                self.flaw = Some(own);
                if at == 0 {
                    return self.refuse_flaw(cx, own);
                }
                buffer.set_filled(before + at);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Returns what a read finds behind a flaw. A body ends with an error; a further request is refused
    /// when the flush of the last answer before it has woken this task.
    fn refuse_flaw(&mut self, cx: &mut Context<'_>, own: Own) -> Poll<io::Result<()>> {
        let conn = &self.entry.conn;
        match conn.wait() {
            _ if own == Own::Chunks => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            Wait::Answer | Wait::Body => Poll::Pending,
            Wait::First
            | Wait::Head
            | Wait::Next
            | Wait::Other
            | Wait::Silence
            | Wait::Handshake
            | Wait::Streams => {
                conn.note(Machine::malformed);
                self.refuse(cx, own)
            }
        }
    }

    /// Puts an answer in ours in place of hyper's own, which has no request in hand: a status without a
    /// word. It is said in ours, and hyper is told that all is written.
    fn replace(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> bool {
        let conn = &self.entry.conn;
        if !matches!(conn.wait(), Wait::Head | Wait::Next) {
            return false;
        }
        // The client may be in the middle of it.
        conn.note(Machine::malformed);
        self.say(cx, Own::of_hyper(bytes));
        true
    }

    /// Says that nothing more is said, and listens until the client has stopped, too. Where it is silent
    /// already the end of the socket says so, which follows at once.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end == End::NotYet {
            let conn = &self.entry.conn;
            self.end = if conn.with(|machine| machine.must_linger()) {
                ready!(self.stream.poll_shutdown(cx))?;
                End::Said
            } else {
                self.stream.say_end(cx);
                End::Over
            };
            conn.note(Machine::lingers);
        }
        let mut bytes = [MaybeUninit::uninit(); 8192];
        for _ in 0..READS_MAX {
            if self.end == End::Over {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::uninit(&mut bytes);
            let is_heard = match self.stream.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    let bytes = buffer.filled().len();
                    let noted =
                        self.entry.conn.note_streams(|streams, now| streams.note_read(bytes, now));
                    bytes > 0 && noted != Some(false)
                }
                Poll::Ready(Err(_)) => false,
                Poll::Pending if self.entry.conn.is_closed_for(CloseReason::Silence) => false,
                Poll::Pending => return Poll::Pending,
            };
            if !is_heard || self.entry.conn.is_closed_for(CloseReason::Silence) {
                self.end = End::Over;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns the result of a read that found nothing, on a connection that was told to end.
    fn ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let conn = &self.entry.conn;
        if conn.reason().is_none() {
            return Poll::Pending;
        }
        match conn.with(|machine| machine.on_nothing_read(self.preface > 0)) {
            Decision::Wait => Poll::Pending,
            Decision::Close => Poll::Ready(Ok(())),
            Decision::Park => {
                self.end = End::Parked;
                Poll::Ready(Ok(()))
            }
            Decision::Refuse(Refusal::Late) => self.refuse(cx, Own::HeadTimeout),
            Decision::Refuse(Refusal::Large) => self.refuse(cx, Own::HeadTooLong),
        }
    }

    /// Notes that so many bytes, all that hyper has, are about to be written. The socket takes up to 16 KiB
    /// at once: then the access line is written first, since the client may run as soon as it has its
    /// answer, and the worker may be killed before it continues. The kernel leaves a receipt of the write,
    /// except for a longer answer over TLS, which takes several writes.
    fn note_writing(&mut self, length: usize) {
        let is_sure =
            length <= TAKEN_AT_ONCE && !self.entry.conn.is_blocked() && self.stream.is_clear();
        let is_one_write = is_sure || matches!(self.stream, Stream::Plain(_));
        let wants_receipt = if self.is_multiplexed {
            is_sure && self.entry.note_last_writes()
        } else {
            is_one_write && self.entry.note_last_write(is_sure)
        };
        if wants_receipt {
            self.stream.socket_mut().want_receipt();
        }
    }

    /// Watches the client while its request is in hand, when hyper does not read.
    ///
    /// # Errors
    /// When the client has gone, or has sent its FIN long ago: hyper drops the handler then.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let conn = &self.entry.conn;
        match self.stream.poll_departure(cx) {
            Departure::Gone => return Err(io::ErrorKind::ConnectionReset.into()),
            Departure::Finished => conn.note(Machine::finished),
            Departure::None => {}
        }
        if conn.is_closed_for(CloseReason::Finished) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Has the socket take what TLS has encrypted.
    fn poll_flush_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Stream::Plain(_) = &self.stream {
            return Poll::Ready(Ok(()));
        }
        let result = self.stream.poll_flush(cx);
        let conn = &self.entry.conn;
        if result.is_pending() && is_given_up(conn) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        conn.note_blocked(result.is_pending());
        result
    }

    /// Notes the result of a write of so many bytes, and whether it had to wait for the client.
    fn note_write(
        &self,
        offered: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let conn = &self.entry.conn;
        let taken = if let Poll::Ready(Ok(taken)) = result { taken } else { 0 };
        conn.note_unwritten(offered.saturating_sub(taken));
        if result.is_pending() && is_given_up(conn) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        conn.note_blocked(result.is_pending());
        result
    }
}

/// Returns true if a write that waits for the client is given up.
fn is_given_up(conn: &Conn) -> bool {
    matches!(conn.reason(), Some(CloseReason::Reader | CloseReason::Finished))
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.end == End::Parked {
            self.entry.park(std::mem::take(&mut self.stream));
        } else if let Some(upgraded) = &mut self.upgraded {
            upgraded.close_at_last(&mut self.stream);
            self.entry.close_upgraded(upgraded);
        } else {
            self.entry.close();
        }
    }
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
            End::Parked => return Poll::Ready(Ok(())),
            End::Said | End::Over => {
                // It was refused here, and hyper does not know yet.
                ready!(this.poll_end(cx))?;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        this.take_upgrade();
        if let Some(upgraded) = &mut this.upgraded {
            return upgraded.poll_read(&mut this.stream, cx, buffer);
        }
        if let Some(own) = this.flaw {
            return this.refuse_flaw(cx, own);
        }
        let before = buffer.filled().len();
        if this.is_multiplexed {
            return this.read_frames(cx, buffer);
        }
        let wait = this.entry.conn.wait();
        let result = match wait {
            Wait::First => this.poll_first(cx, buffer),
            _ => this.stream.poll_read(cx, buffer),
        };
        if let Stream::Tls(_) = &this.stream {
            this.entry.conn.note_buffered(this.stream.buffered());
        }
        match result {
            Poll::Pending => this.ended(cx),
            Poll::Ready(Ok(())) if this.end == End::Parked => result,
            Poll::Ready(Ok(())) => {
                let bytes = &buffer.filled()[before..];
                if wait.is_of_head() && this.stream.is_gone(cx) {
                    // The request was sent before the reset: its response would reach no client.
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                let read = this.entry.conn.note_read(bytes, this.room);
                this.entry.server.conns.keep_budget();
                match read {
                    Ok(_) if wait == Wait::First && bytes.first() == Some(&TLS) => {
                        this.entry.server.warn_of_tls(this.entry.peer);
                        this.refuse(cx, Own::Tls)
                    }
                    // It speaks another protocol.
                    Ok(_) if wait == Wait::Other => result,
                    Ok(_) => this.pass_on(cx, buffer, before),
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
        let this = &mut *self;
        if !this.is_multiplexed {
            if this.replace(cx, bytes) {
                return Poll::Ready(Ok(bytes.len()));
            }
            this.take_upgrade();
            if let Some(upgraded) = &mut this.upgraded {
                let result = upgraded.poll_write(&mut this.stream, cx, bytes);
                return this.note_write(bytes.len(), result);
            }
        }
        this.note_writing(bytes.len());
        let result = this.stream.poll_write(cx, bytes);
        this.note_write(bytes.len(), result)
    }

    /// hyper calls it only when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(upgraded) = &mut this.upgraded {
            upgraded.try_close(&mut this.stream, cx)?;
        }
        ready!(self.poll_flush_stream(cx))?;
        if self.is_multiplexed {
            return Poll::Ready(Ok(()));
        }
        let was_next = self.entry.conn.wait() == Wait::Next;
        let is_flushed = self.entry.note_flushed();
        if self.flaw.is_some() && !was_next && self.entry.conn.wait() == Wait::Next {
            cx.waker().wake_by_ref();
        }
        if is_flushed {
            self.watch_client(cx)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end == End::Parked {
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
        let length = slices.iter().map(|slice| slice.len()).sum();
        if !self.is_multiplexed {
            self.take_upgrade();
            if self.upgraded.is_some() {
                let first =
                    slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
                return self.poll_write(cx, first);
            }
            if self.replace(cx, slices.first().map_or(&[], |slice| slice)) {
                return Poll::Ready(Ok(length));
            }
        }
        self.note_writing(length);
        let mut room = [MaybeUninit::uninit(); GATHERED_MAX];
        let mut room = ReadBuf::uninit(&mut room);
        let result = if gather(slices, &mut room) {
            self.stream.poll_write(cx, room.filled())
        } else {
            self.stream.poll_write_vectored(cx, slices)
        };
        self.note_write(length, result)
    }
}
