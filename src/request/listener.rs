//! The listener that a request came in by: what handlers may know of it.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;

use super::InHand;

/// The listener that the request in hand came in by: an extractor for handlers. Layers ask
/// [`Listener::of`].
///
/// ```
/// async fn here(listener: ferricorn::Listener) -> String {
///     match (listener.name(), listener.address()) {
///         (Some(name), _) => format!("{name}\n"),
///         (None, Some(address)) => format!("port {}\n", address.port()),
///         (None, None) => "a unix socket\n".to_owned(),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Listener {
    name: Option<&'static str>,
    address: Option<SocketAddr>,
}

impl Listener {
    /// A listener, as a test of a handler may need it: inserted in a request's extensions, it is what
    /// [`Listener::of`] and the extractor return.
    #[must_use]
    pub fn new(name: Option<&'static str>, address: Option<SocketAddr>) -> Self {
        Self { name, address }
    }

    /// Its name in `bind`, one of [`App::LISTENERS`](crate::App::LISTENERS); `None` without one.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// The local address of the connection, which is the one that the client or the last proxy connected
    /// to; `None` on a unix socket. Of a listener at every address (`0.0.0.0`) it is the one of these: the
    /// kernel is asked when the extractor is used, and tells nothing once the connection is closed.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The listener of the request with these extensions. Outside a ferricorn worker it is the one that was
    /// inserted; without one nothing is known.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        let inserted = extensions.get::<Self>().copied();
        let in_hand = || extensions.get::<InHand>().map(|in_hand| in_hand.listener.listener());
        inserted.or_else(in_hand).unwrap_or_default()
    }
}

impl<S: Sync> FromRequestParts<S> for Listener {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}
