//! The process at the other end of a unix socket: for handlers that go by the user of their client.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Extensions, StatusCode};
use axum::response::{IntoResponse, Response};

use super::InHand;

/// The user, the group and the process at the other end of a unix socket, as the kernel noted them when
/// it connected (`SO_PEERCRED` in unix(7)): an extractor for handlers. Layers ask
/// [`PeerCredentials::of`].
///
/// A client that came over TCP has none: the request is answered 403, and `Option<PeerCredentials>` is
/// `None`. Behind a proxy they are the proxy's.
///
/// ```
/// async fn shut_down(peer: ferricorn::PeerCredentials) -> &'static str {
///     if peer.uid() == 0 { "as you wish\n" } else { "ask root\n" }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerCredentials {
    uid: u32,
    gid: u32,
    pid: Option<i32>,
}

impl PeerCredentials {
    /// Credentials, as a test of a handler may need them: inserted in a request's extensions, they are
    /// what [`PeerCredentials::of`] and the extractor return.
    #[must_use]
    pub fn new(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        Self { uid, gid, pid }
    }

    /// The effective user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The process; `None` if this one's pid namespace does not have it.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.pid.filter(|pid| *pid > 0)
    }

    /// The credentials of the request with these extensions; `None` over TCP, and outside a ferricorn
    /// worker where none were inserted.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let inserted = extensions.get::<Self>().copied();
        inserted.or_else(|| extensions.get::<InHand>()?.credentials)
    }
}

/// A client that did not come over a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client came over TCP, which has no peer credentials")]
pub struct NoPeerCredentials;

impl IntoResponse for NoPeerCredentials {
    fn into_response(self) -> Response {
        let body = format!("{{\"error\":\"{self}\"}}");
        (StatusCode::FORBIDDEN, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for PeerCredentials {
    type Rejection = NoPeerCredentials;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, NoPeerCredentials> {
        Self::of(&parts.extensions).ok_or(NoPeerCredentials)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for PeerCredentials {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}
