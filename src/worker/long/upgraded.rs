//! Another protocol on a connection, after an upgrade: its bytes are counted, and a WebSocket ends with a
//! Close frame between two messages when the worker drains.
//!
//! # Why here
//! The application speaks the protocol through a library, on the stream that hyper hands it. The frames'
//! headers pass here, so that it is known where a message ends, whatever the library; what the application
//! writes behind the Close frame is not sent, and the client's answer ends it for the library.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::ReadBuf;

use super::frames::{CLOSE, Frames};
use super::{Fate, Long, LongKind, Side};
use crate::sys::clock;
use crate::worker::connection::stream::Stream;

/// The end of the response head that hyper writes before the protocol begins.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Another protocol.
#[derive(Debug)]
pub(crate) struct Upgraded {
    long: Long,
    /// Bytes of [`HEAD_END`] that have passed last.
    head_end: usize,
    /// Of a WebSocket.
    frames: Option<Frames>,
    /// Bytes of the Close frame that the kernel has taken; `None`: it has not begun.
    close: Option<usize>,
    /// Bytes of the protocol that the kernel has taken.
    sent: u64,
    is_broken: bool,
}

/// The end of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpgradeEnd {
    /// By the application or its client.
    Own,
    /// By an error of the socket.
    Broken,
    /// By a Close frame, since the worker drains.
    Closed,
    Cut,
}

impl Upgraded {
    pub(crate) fn new(long: Long) -> Self {
        let frames = (long.kind() == LongKind::WebSocket).then(Frames::default);
        Self { long, head_end: 0, frames, close: None, sent: 0, is_broken: false }
    }

    /// Bytes of the protocol that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn end(&self) -> UpgradeEnd {
        match self.long.fate() {
            _ if self.is_closed() => UpgradeEnd::Closed,
            Fate::IsCut => UpgradeEnd::Cut,
            Fate::GoesOn | Fate::Ends if self.is_broken => UpgradeEnd::Broken,
            Fate::GoesOn | Fate::Ends => UpgradeEnd::Own,
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn poll_read(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = self.long.watch(Side::Read, cx.waker());
            if before == Fate::IsCut {
                return Poll::Ready(Ok(()));
            }
            self.try_close(stream, cx)?;
            let read = stream.poll_read(cx, buffer);
            self.is_broken |= matches!(read, Poll::Ready(Err(_)));
            if read.is_ready() || self.long.fate() == before {
                return read;
            }
        }
    }

    /// Writes on. What comes behind a Close frame is taken and not sent.
    ///
    /// # Errors
    /// Those of the socket, and when the protocol is cut.
    pub(crate) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let fate = self.long.watch(Side::Write, cx.waker());
        if fate == Fate::IsCut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(self.poll_close(stream, cx))?;
        if self.is_closed() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let length = match &self.frames {
            Some(frames) if fate == Fate::Ends && self.has_begun() && !frames.is_closed() => {
                frames.until_boundary(bytes)
            }
            Some(_) | None => bytes.len(),
        };
        let written = stream.poll_write(cx, &bytes[..length]);
        match &written {
            Poll::Ready(Ok(taken)) => self.note_sent(&bytes[..*taken]),
            Poll::Ready(Err(_)) => self.is_broken = true,
            Poll::Pending => {}
        }
        written
    }

    /// Sends the Close frame if it is due; where it has no room yet the next read or write goes on.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn try_close(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        match self.poll_close(stream, cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// The stream is about to be closed: the last chance for a Close frame.
    pub(crate) fn close_at_last(&mut self, stream: &mut Stream) {
        // That it does not fit, or comes too late, changes nothing.
        let _sent = self.poll_close(stream, &mut Context::from_waker(Waker::noop()));
    }

    fn poll_close(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_due = match &self.frames {
            Some(frames) => {
                self.has_begun()
                    && self.long.fate() != Fate::GoesOn
                    && frames.is_at_boundary()
                    && !frames.is_closed()
            }
            None => false,
        };
        if !is_due {
            return Poll::Ready(Ok(()));
        }
        if self.is_closed() {
            // Of TLS something may wait for room.
            let _later = stream.poll_flush(cx);
        }
        while self.close.unwrap_or(0) < CLOSE.len() {
            let rest = &CLOSE[self.close.unwrap_or(0)..];
            match ready!(stream.poll_write(cx, rest)) {
                Ok(taken) => {
                    self.close = Some(self.close.unwrap_or(0) + taken);
                    self.sent += taken as u64;
                }
                Err(error) => {
                    self.is_broken = true;
                    return Poll::Ready(Err(error));
                }
            }
            if self.is_closed() {
                self.long.note_closed(clock::coarse_millis());
                let _later = stream.poll_flush(cx);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_closed(&self) -> bool {
        self.close == Some(CLOSE.len())
    }

    /// Returns true if the head of the answer has passed.
    fn has_begun(&self) -> bool {
        self.head_end == HEAD_END.len()
    }

    fn note_sent(&mut self, mut bytes: &[u8]) {
        while !self.has_begun() {
            let Some((byte, rest)) = bytes.split_first() else { return };
            let is_next = *byte == HEAD_END[self.head_end];
            self.head_end = if is_next { self.head_end + 1 } else { usize::from(*byte == b'\r') };
            bytes = rest;
        }
        self.sent += bytes.len() as u64;
        if let Some(frames) = &mut self.frames {
            frames.pass(bytes);
        }
    }
}
