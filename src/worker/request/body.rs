//! The body of a request on its way in: counted against the limit, and watched while it stands still.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::record::ConnEntry;
use crate::embed::BoxError;
use crate::worker::connection::conns::{CloseReason, Conn, Fault};
use crate::worker::connection::machine::Machine;

/// A request's body.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Incoming,
    conn: Arc<Conn>,
    /// The connection, of a request in a stream of HTTP/2.
    connection: Option<Arc<ConnEntry>>,
    /// Bytes that may still come.
    room: u64,
    chunked: bool,
    /// Bytes that have come.
    come: u64,
    /// True if all of it was read.
    is_read: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.conn.hold_body(0);
        if self.is_read {
            // The next request may have begun.
        } else if !self.body.is_end_stream() {
            self.conn.with(Machine::body_dropped);
            if let Some(connection) = &self.connection {
                let rest = self.body.size_hint().exact();
                connection.conn.note_streams(|streams, _| streams.note_unread(rest));
            }
        } else {
            self.conn.with(|machine| machine.body_ended(false));
        }
    }
}

impl Upload {
    pub(crate) fn new(body: Incoming, entry: &ConnEntry, room: u64) -> Self {
        let chunked = body.size_hint().exact().is_none();
        let conn = Arc::clone(&entry.conn);
        let connection = entry.connection.clone();
        conn.with(Machine::body_opened);
        Self { body, conn, connection, room, chunked, come: 0, is_read: false }
    }

    fn fail(&self, fault: Fault) {
        self.conn.with(|machine| machine.body_failed(fault));
    }
}

/// Returns true if a body has ended since its chunks are malformed, not since its client has gone.
fn is_malformed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(cause.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData)
    })
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending
                if matches!(this.conn.reason(), Some(CloseReason::Body | CloseReason::Budget)) =>
            {
                this.fail(Fault::Stalled);
                return Poll::Ready(Some(Err("the request body stood still for too long".into())));
            }
            Poll::Pending => {
                this.conn.note(Machine::body_awaited);
                return Poll::Pending;
            }
            Poll::Ready(frame) => frame,
        };
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) | None => 0,
        };
        let is_spent = this.conn.note(|machine, now| machine.body_read(bytes, now));
        if let Some(connection) = &this.connection {
            connection.conn.note_streams(|streams, _| streams.note_body(bytes));
        }
        if is_spent && bytes > 0 && !this.body.is_end_stream() {
            this.fail(Fault::Stalled);
            return Poll::Ready(Some(Err("the request body took too long".into())));
        }
        this.come = this.come.saturating_add(bytes);
        if !this.conn.hold_body(this.come) {
            this.fail(Fault::Stalled);
            return Poll::Ready(Some(Err("there is no memory for the request body".into())));
        }
        match frame {
            None => {
                this.is_read = true;
                this.conn.hold_body(0);
                let is_chunked = std::mem::take(&mut this.chunked);
                this.conn.with(|machine| machine.body_ended(is_chunked));
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                if is_malformed(&error) {
                    this.fail(Fault::Malformed);
                }
                Poll::Ready(Some(Err(error.into())))
            }
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match this.room.checked_sub(length) {
                    Some(room) => {
                        this.room = room;
                        Poll::Ready(Some(Ok(frame)))
                    }
                    None => {
                        this.fail(Fault::TooLong);
                        Poll::Ready(Some(Err("the request body is longer than allowed".into())))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
