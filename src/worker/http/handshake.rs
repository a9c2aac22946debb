//! From an accepted socket to a stream that requests can be read from: the PROXY header, TLS, and plain HTTP
//! that was sent to an address of TLS.
//!
//! # Time and number
//! A handshake has the time of a request's head, `header_timeout`, from the beginning of the connection.
//! While more than half of the connections that a worker takes are in their handshake, each further one
//! ends the oldest that has taken longer than a second.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf, BytesMut};

use super::io::Watched;
use super::unread;
use crate::logging;
use crate::request::client::Client;
use crate::request::client_certificate::ClientCertificate;
use crate::scoreboard::Handshake;
use crate::tls::{Acceptor, Session};
use crate::worker::connection::conns::CloseReason;
use crate::worker::connection::machine::Machine;
use crate::worker::connection::socket::Socket;
use crate::worker::connection::stream::{Encrypted, Stream};
use crate::worker::events::WorkerEvent;
use crate::worker::proxy::header::{self, Parsed, Proxied};
use crate::worker::request::own::Own;
use crate::worker::server::Server;

/// The first byte of a client that speaks TLS (RFC 8446 section 5.1); no request begins with it.
pub(crate) const TLS: u8 = 0x16;
/// The name of HTTP/2 in a handshake (RFC 9113 section 3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";
/// Bytes that are looked at before a handshake: a ClientHello of the usual size.
const LOOKED_AT: usize = 2048;
/// Bytes of answers that wait, encrypted, for the socket: as many as one record has, so that a stalled
/// client is seen soon.
const UNSENT_MAX: usize = 16 << 10;

/// Why a connection that should begin with a PROXY header is not one.
#[derive(Debug)]
pub(crate) enum Unproxied {
    /// Its peer closed without sending anything, as port checks do.
    Silent,
    /// The fault, as a sentence about the connection.
    Wrong(&'static str),
}

/// Why a handshake did not end in a stream.
#[derive(Debug)]
enum Unshaken {
    /// The client went away without a word.
    Silent,
    /// It speaks HTTP without TLS.
    Plain,
    /// The failure, with the socket where it can still be written to.
    Failed { error: io::Error, socket: Option<Box<Socket>> },
}

impl Server {
    /// Shakes hands. `None` where that failed, and all is said about it.
    pub(crate) async fn shake_hands(
        self: &Arc<Self>,
        mut watched: Watched,
        acceptor: &Acceptor,
        peer: Client,
    ) -> Option<Watched> {
        let conn = Arc::clone(&watched.entry().conn);
        let listener = watched.entry().listener.name;
        conn.with(Machine::handshake);
        self.conns.keep_handshakes(self.connections_max / 2);
        let mut socket = watched.take_socket();
        let result = tokio::select! {
            biased;
            result = shake(&mut socket, acceptor) => result,
            () = conn.until_closed_for(CloseReason::Head) => {
                Err(Unshaken::Failed { error: io::ErrorKind::TimedOut.into(), socket: None })
            }
        };
        if let Some(metrics) = self.board.metrics() {
            match &result {
                Ok(_) => metrics.count_handshake(Handshake::Done),
                Err(Unshaken::Plain | Unshaken::Failed { .. }) => {
                    metrics.count_handshake(Handshake::Failed);
                }
                // No handshake has begun.
                Err(Unshaken::Silent) => {}
            }
        }
        match result {
            Ok(stream) => {
                conn.note(Machine::handshaken);
                if stream.protocol() == Some(HTTP_2) {
                    conn.note(Machine::multiplexed);
                }
                if let Some(certificate) = stream.certificate().and_then(ClientCertificate::new) {
                    conn.set_certificate(certificate);
                }
                watched.put_stream(Stream::Tls(Box::new(Encrypted::new(stream))));
                return Some(watched);
            }
            Err(Unshaken::Plain) => {
                self.warn_of_plain(peer.peer());
                watched.put_stream(Stream::Plain(socket));
                watched.refuse_plain().await;
                if let Some((status, bytes)) = conn.refused() {
                    unread::log(self, &conn, listener, peer, status, bytes);
                }
            }
            Err(Unshaken::Silent) => {}
            Err(Unshaken::Failed { error, socket }) => {
                if let Some(socket) = socket {
                    // Behind the alert that says why: it would be lost with a reset.
                    watched.put_stream(Stream::Plain(*socket));
                    conn.note(Machine::malformed);
                    watched.end().await;
                }
                let peer = peer.peer().map_or("a unix socket".to_owned(), |peer| peer.to_string());
                let reason = match error.kind() {
                    io::ErrorKind::TimedOut => "it took too long".to_owned(),
                    _ => error.to_string(),
                };
                logging::emit(&WorkerEvent::HandshakeFailed { peer, reason });
            }
        }
        None
    }
}

async fn shake(socket: &mut Socket, acceptor: &Acceptor) -> Result<Session<Socket>, Unshaken> {
    let mut bytes = BytesMut::with_capacity(LOOKED_AT);
    match poll_fn(|cx| socket.poll_read_more(cx, &mut bytes)).await {
        Ok(0) | Err(_) => return Err(Unshaken::Silent),
        Ok(_) => {}
    }
    let is_tls = bytes.first() == Some(&TLS);
    socket.put_back(bytes);
    if !is_tls {
        return Err(Unshaken::Plain);
    }
    acceptor
        .accept(std::mem::take(socket), UNSENT_MAX)
        .await
        .map_err(|(error, socket)| Unshaken::Failed { error, socket: Some(Box::new(socket)) })
}

impl Watched {
    /// Takes the PROXY header from the front. Until it is there the connection waits for its first
    /// request, as one does on which nothing has come: the sweep ends it as silently.
    pub(crate) async fn take_proxy_header(&mut self) -> Result<Proxied, Unproxied> {
        let mut bytes = BytesMut::with_capacity(header::HEADER_MAX);
        let Stream::Plain(socket) = &mut self.stream else { return Err(Unproxied::Silent) };
        loop {
            match header::parse(&bytes) {
                Parsed::Header(proxied, length) => {
                    bytes.advance(length);
                    socket.put_back(bytes);
                    self.scheme = proxied.scheme.unwrap_or_default();
                    return Ok(proxied);
                }
                Parsed::Wrong(why) => return Err(Unproxied::Wrong(why)),
                Parsed::More => {}
            }
            let conn = Arc::clone(&self.entry.conn);
            let read = tokio::select! {
                biased;
                read = poll_fn(|cx| socket.poll_read_more(cx, &mut bytes)) => read,
                () = conn.woken.notified() => {
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

    /// Answers 400 to HTTP without TLS, and waits until the client has stopped.
    async fn refuse_plain(&mut self) {
        let conn = Arc::clone(&self.entry().conn);
        // The client may be in the middle of its request.
        conn.note(Machine::malformed);
        poll_fn(|cx| {
            self.say(cx, Own::Plain);
            Poll::Ready(())
        })
        .await;
        self.end().await;
    }

    /// Says that nothing more is said, and waits until the client has stopped, too.
    async fn end(&mut self) {
        let conn = Arc::clone(&self.entry().conn);
        loop {
            tokio::select! {
                biased;
                _ended = poll_fn(|cx| self.poll_end(cx)) => return,
                () = conn.woken.notified() => {}
            }
        }
    }
}
