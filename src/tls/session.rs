//! A handshake, and the session that it leads to: all that connections know of rustls.

use std::io::{self, BufRead};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};
use tokio_rustls::server::TlsStream;

/// The certificates and rules that connections of a worker shake hands with.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    pub(super) fn new(config: ServerConfig) -> Self {
        Self(Arc::new(config))
    }

    /// Shakes hands; at most `unsent_max` bytes wait, encrypted, for the socket.
    ///
    /// # Errors
    /// Those of the handshake, with the stream, which can still be written to.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        unsent_max: usize,
    ) -> Result<Session<S>, (io::Error, S)> {
        let limit = |session: &mut ServerConnection| session.set_buffer_limit(Some(unsent_max));
        let acceptor = TlsAcceptor::from(Arc::clone(&self.0));
        acceptor.accept_with(stream, limit).into_fallible().await.map(Session)
    }
}

/// TLS on a stream.
#[derive(Debug)]
pub(crate) struct Session<S>(TlsStream<S>);

impl<S> Session<S> {
    pub(crate) fn stream(&self) -> &S {
        self.0.get_ref().0
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        self.0.get_mut().0
    }

    /// The protocol that was agreed upon (ALPN).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.0.get_ref().1.alpn_protocol()
    }

    /// The certificate that the client has shown, in DER.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        Some(self.0.get_ref().1.peer_certificates()?.first()?.as_ref())
    }

    /// Bytes that were decrypted and are not read yet; those of one record at the most.
    pub(crate) fn buffered(&mut self) -> usize {
        self.0.get_mut().1.reader().fill_buf().map_or(0, |bytes| bytes.len())
    }

    /// Returns true if encrypted bytes wait for the stream.
    pub(crate) fn wants_write(&self) -> bool {
        self.0.get_ref().1.wants_write()
    }

    /// Queues the alert that tells an end from a cut.
    pub(crate) fn send_close_notify(&mut self) {
        self.0.get_mut().1.send_close_notify();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Session<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Session<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
