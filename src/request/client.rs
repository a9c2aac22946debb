//! The sender of a request: what handlers, the access log and the application's security headers go by.
//!
//! # The trap
//! The address of the socket is often a proxy's, and what a proxy says may come from any client.
//! `worker::proxy::forwarded` decides what is believed; here is only its result.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::FromRequestParts;
use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};
use axum::http::Extensions;
use axum::http::request::Parts;

use super::InHand;

/// The client of the request in hand, as far as it is known and believed: an extractor for handlers.
/// Layers ask [`Client::of`].
///
/// Behind a proxy that `forwarded_allow_ips` names, address and scheme are what the proxy says in
/// `Forwarded` (RFC 7239) or `X-Forwarded-For` and `X-Forwarded-Proto`; from any other peer these fields
/// mean nothing. With `proxy_protocol`, the peer is who the PROXY header says it is.
///
/// ```
/// async fn whoami(client: ferricorn::Client) -> String {
///     match client.address() {
///         Some(address) => format!("{address} over {}\n", client.scheme()),
///         None => "unknown\n".to_owned(),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    address: Option<IpAddr>,
    scheme: Scheme,
    peer: Option<SocketAddr>,
}

/// The scheme by which a client reaches the service, as the client sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// Over TLS, which the server or a proxy ends.
    Https,
}

impl Client {
    /// A client, as a test of a handler or a layer of one's own may need it: inserted in a request's
    /// extensions, it is what [`Client::of`] and the extractor answer.
    #[must_use]
    pub fn new(address: Option<IpAddr>, scheme: Scheme) -> Self {
        Self { address, scheme, peer: None }
    }

    /// The peer itself, with no proxy in between.
    pub(crate) fn direct(peer: Option<SocketAddr>, scheme: Scheme) -> Self {
        Self { address: peer.map(|peer| peer.ip().to_canonical()), scheme, peer }
    }

    /// The same client, over this.
    pub(crate) fn over(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }

    /// The word of a trusted peer about the client behind it.
    pub(crate) fn behind(self, address: Option<IpAddr>, scheme: Scheme) -> Self {
        Self { address, scheme, peer: self.peer }
    }

    /// The address; `None` on a unix socket, and where a trusted proxy says that it does not know.
    /// An IPv4 address is never in its IPv6 form.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns the scheme by which the client reaches the service.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The other end of the connection: the client itself or the last proxy, after a PROXY header.
    /// `None` on a unix socket. The same as axum's `ConnectInfo<SocketAddr>`.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The client of the request with these extensions. Outside a ferricorn worker, as in a test of a
    /// router, it is the one that was inserted, or the address of `ConnectInfo<SocketAddr>` (or
    /// `MockConnectInfo`) over HTTP; without either nothing is known.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        if let Some(client) = extensions.get::<Self>() {
            return *client;
        }
        if let Some(in_hand) = extensions.get::<InHand>() {
            return in_hand.client;
        }
        let mock = || extensions.get().map(|MockConnectInfo(peer): &MockConnectInfo<_>| *peer);
        let peer = extensions.get().map(|ConnectInfo(peer)| *peer).or_else(mock);
        Self::direct(peer, Scheme::Http)
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn outside_a_worker_it_is_what_the_test_says() {
        let peer: SocketAddr = "[::ffff:192.0.2.1]:50000".parse().unwrap();
        let mut extensions = Extensions::new();
        assert_eq!(Client::of(&extensions), Client::default());
        extensions.insert(MockConnectInfo(SocketAddr::from(([192, 0, 2, 9], 80))));
        assert_eq!(Client::of(&extensions).address(), address("192.0.2.9"));
        extensions.insert(ConnectInfo(peer));
        let client = Client::of(&extensions);
        assert_eq!(client.address(), address("192.0.2.1"), "in its IPv4 form");
        assert_eq!((client.peer(), client.scheme()), (Some(peer), Scheme::Http));
        let given = Client::new(address("2001:db8::1"), Scheme::Https);
        extensions.insert(given);
        assert_eq!(Client::of(&extensions), given);
        assert_eq!(Client::of(&extensions).scheme().to_string(), "https");
    }
}
