//! HTTP/2: a connection with many requests at once.
//!
//! # A stream is noted like a connection
//! The notes that a connection of HTTP/1.1 has of its one request (what that waits for and since
//! when, its place on the board, its memory) a stream has of its own, so that each has the timeouts, the
//! access line and the record of a request of HTTP/1.1. The connection notes only that streams are open.
//!
//! # The end
//! hyper sends GOAWAY twice: at once with the highest number there is, and with the last stream that
//! was begun when the client has answered a ping in between. Requests that were on their way are
//! served; later ones the client knows to be unprocessed.
//!
//! # What is limited where
//! hyper and h2 bound open streams, header lists, CONTINUATION frames, streams that are reset before
//! they are accepted, and each window. Here are bounded: streams that are reset later, and everything
//! that a client sends beside requests and bodies (PING, SETTINGS, PRIORITY, empty frames, small window
//! updates).

#[cfg(feature = "http2")]
mod farewell;
#[cfg(feature = "http2")]
mod serve;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::ReadBuf;

use super::io::Watched;
use crate::logging::Outcome;
use crate::worker::connection::conns::{CloseReason, Conn, Wait};
use crate::worker::connection::machine::Machine;
use crate::worker::connection::streams::Streams;
use crate::worker::request::own::Own;
use crate::worker::request::record::{ConnEntry, Departing, InFlight, RequestRecord};

/// The beginning of a client that knows that a server speaks HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// Bytes of an answer that wait in a stream for its client.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes of one frame, of either side: the least that HTTP/2 has (RFC 9113 section 6.5.2).
const FRAME: usize = 16 << 10;
/// Streams that are reset before they are accepted, and for errors, before the connection ends.
const EARLY_RESETS_MAX: usize = 32;
const ERRORS_MAX: usize = 256;

impl Watched {
    /// Reads what a client begins with: nothing of it is handed on as long as it may be the preface of
    /// HTTP/2.
    pub(crate) fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            ready!(self.stream.poll_read(cx, buffer))?;
            let read = &buffer.filled()[before..];
            let (begun, expected) = PREFACE.split_at(self.preface);
            let length = read.len().min(expected.len());
            if read.is_empty() || read[..length] != expected[..length] {
                if self.preface > 0 {
                    self.preface = 0;
                    self.stream.put_back(BytesMut::from(read));
                    buffer.set_filled(before);
                    buffer.put_slice(begun);
                }
                return Poll::Ready(Ok(()));
            }
            if length == expected.len() {
                let bytes = BytesMut::from_iter(begun.iter().chain(read));
                buffer.set_filled(before);
                if !self.entry.server.http2.enabled {
                    // hyper would say nothing.
                    return self.refuse(cx, Own::Malformed);
                }
                self.begin_frames(bytes);
                return Poll::Ready(Ok(()));
            }
            self.preface += length;
            buffer.set_filled(before);
        }
    }

    /// Frames of HTTP/2 begin with these bytes, which are read anew.
    fn begin_frames(&mut self, bytes: BytesMut) {
        self.stream.put_back(bytes);
        self.entry.conn.note(Machine::multiplexed);
        self.park();
    }

    /// Reads frames of HTTP/2, as long as not too many of them are of no request.
    pub(crate) fn read_frames(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = self.stream.poll_read(cx, buffer);
        let conn = &self.entry.conn;
        let read = buffer.filled().len() - before;
        if read > 0 && conn.wait() == Wait::Silence {
            // The client takes what is left of its answers.
            conn.note(Machine::lingers);
        }
        let is_over =
            conn.note_streams(|streams, now| !streams.note_read(read, now) || streams.is_abused);
        if is_over == Some(true) {
            conn.close(CloseReason::Abuse);
            self.entry.server.warn_of_flood(self.entry.peer);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        result
    }
}

/// Streams as entries of their own.
impl ConnEntry {
    /// A stream of HTTP/2 has begun on this connection.
    pub(crate) fn stream(connection: &Arc<Self>) -> Self {
        let server = &connection.server;
        let conn = server.conns.enter_stream();
        let certificate = connection.conn.certificate().cloned();
        certificate.into_iter().for_each(|certificate| conn.set_certificate(certificate));
        connection.conn.note(Machine::stream_begun);
        Self {
            conn,
            server: Arc::clone(server),
            peer: connection.peer,
            credentials: connection.credentials,
            listener: connection.listener.clone(),
            departing: Mutex::default(),
            parked: Mutex::default(),
            upgrade: Mutex::default(),
            connection: Some(Arc::clone(connection)),
            ended: Mutex::default(),
        }
    }

    /// The connection, of a stream of HTTP/2.
    pub(crate) fn connection(&self) -> Option<&Conn> {
        self.connection.as_ref().map(|connection| &*connection.conn)
    }

    /// All that was handed to the connection of these streams is with the kernel.
    pub(crate) fn settle(&self) {
        for stream in self.take_ended() {
            stream.note_flushed();
        }
    }

    pub(crate) fn take_ended(&self) -> Vec<Arc<Self>> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The request of this stream is over: it is told of when the connection has nothing left to write.
    pub(crate) fn end_stream(self: &Arc<Self>) {
        let Some(connection) = &self.connection else { return };
        if matches!(*connection.lock(), Departing::Closed) {
            return self.close();
        }
        connection.ended.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(self));
        connection.conn.woken.notify_one();
    }
}

impl InFlight {
    /// Notes that the client has given up its request, if it has.
    pub(crate) fn note_reset(&self, record: &RequestRecord) {
        let Some(connection) = self.connection() else { return };
        let is_given_up = matches!(record.outcome, Outcome::Aborted(_));
        if is_given_up && connection.note_streams(Streams::note_reset) == Some(false) {
            connection.close(CloseReason::Abuse);
        }
    }
}

#[cfg(not(feature = "http2"))]
impl crate::worker::server::Server {
    /// No client is served HTTP/2 by a program without it: `http2.enabled` is false there.
    pub(crate) async fn multiplex(self: &Arc<Self>, _: Watched, _: crate::request::client::Client) {
    }
}
