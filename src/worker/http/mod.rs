//! From a socket to requests: TLS, the bytes of HTTP/1.1 under hyper, and the streams of HTTP/2.

mod framing;
pub(crate) mod handshake;
pub(crate) mod io;
pub(crate) mod multiplex;
pub(crate) mod unread;
