//! The body of a request on its way in: counted against the limit, and watched while it stands still.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::conns::{Conn, Fault, Kick, Wait};
use crate::embed::BoxError;

/// A request's body.
#[derive(Debug)]
pub(super) struct Upload {
    body: Incoming,
    conn: Arc<Conn>,
    /// Bytes that may still come.
    room: u64,
    chunked: bool,
}

impl Upload {
    pub(super) fn new(body: Incoming, conn: Arc<Conn>, limit: u64) -> Self {
        let chunked = body.size_hint().exact().is_none();
        let room = if limit == 0 { u64::MAX } else { limit };
        Self { body, conn, room, chunked }
    }
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
            Poll::Pending if this.conn.kick() == Kick::Body => {
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
        if this.conn.wait() == Wait::Body {
            this.conn.set(Wait::Answer);
        }
        match frame {
            None => {
                // The end of its chunks looks like the end of a head.
                if std::mem::take(&mut this.chunked) {
                    this.conn.heads.note_end();
                }
                Poll::Ready(None)
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
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
