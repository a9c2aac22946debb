//! The body of a request on its way in: counted against the limit, and watched while it stands still.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::ticket::Entry;
use crate::embed::BoxError;
use crate::worker::connection::conns::{Conn, Fault, Kick, Wait};

/// A request's body.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Incoming,
    conn: Arc<Conn>,
    /// The connection, of a request in a stream of HTTP/2.
    connection: Option<Arc<Entry>>,
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
        self.conn.note_reading(false);
        if !self.is_read && !self.body.is_end_stream() {
            self.conn.note_unread();
            if let Some(streams) = self.connection.as_ref().and_then(|entry| entry.conn.streams()) {
                streams.note_unread(self.body.size_hint().exact());
            }
        }
    }
}

impl Upload {
    pub(crate) fn new(body: Incoming, entry: &Entry, room: u64) -> Self {
        let chunked = body.size_hint().exact().is_none();
        let (conn, connection) = (Arc::clone(&entry.conn), entry.connection.clone());
        conn.note_reading(true);
        Self { body, conn, connection, room, chunked, come: 0, is_read: false }
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
            Poll::Pending if matches!(this.conn.kick(), Kick::Body | Kick::Budget) => {
                this.conn.note_fault(Fault::Stalled);
                return Poll::Ready(Some(Err("the request body stood still for too long".into())));
            }
            Poll::Pending => {
                if this.conn.wait() == Wait::Answer {
                    this.conn.set(Wait::Body);
                }
                return Poll::Pending;
            }
            Poll::Ready(frame) => frame,
        };
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) | None => 0,
        };
        this.conn.note_body(bytes);
        if let Some(streams) = this.connection.as_ref().and_then(|entry| entry.conn.streams()) {
            streams.note_body(bytes);
        }
        this.come = this.come.saturating_add(bytes);
        if !this.conn.hold_body(this.come) {
            this.conn.note_fault(Fault::Stalled);
            return Poll::Ready(Some(Err("there is no memory for the request body".into())));
        }
        match frame {
            None => {
                this.is_read = true;
                this.conn.note_reading(false);
                this.conn.hold_body(0);
                // The end of its chunks looks like the end of a head.
                if std::mem::take(&mut this.chunked) {
                    this.conn.heads.note_end();
                }
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                if is_malformed(&error) {
                    this.conn.note_fault(Fault::Malformed);
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
                        this.conn.note_fault(Fault::TooLong);
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
