//! The certificate that a client has shown: for handlers that go by it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Extensions, StatusCode};
use axum::response::{IntoResponse, Response};

use super::InHand;
use crate::tls;

/// The certificate that the client has shown in its TLS handshake, checked against `tls.client_ca`: an
/// extractor for handlers. Layers ask [`ClientCertificate::of`].
///
/// A client without one is answered 403, and `Option<ClientCertificate>` is `None`. It is the certificate of
/// the connection: behind a proxy that ends TLS there is none. The access log has its subject as
/// `%({client_certificate}e)s`.
///
/// ```
/// async fn whoami(certificate: ferricorn::ClientCertificate) -> String {
///     format!("{}\n", certificate.subject())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate(Arc<Content>);

#[derive(Debug, PartialEq, Eq)]
struct Content {
    subject: String,
    common_name: Option<String>,
    der: Vec<u8>,
}

impl ClientCertificate {
    /// A certificate (X.509, DER), as a test of a handler may need it: inserted in a request's extensions, it
    /// is what [`ClientCertificate::of`] and the extractor return. `None` if the bytes are none, and without
    /// the feature `tls`.
    #[must_use]
    pub fn new(der: &[u8]) -> Option<Self> {
        let content = Content {
            subject: tls::subject(der)?,
            common_name: tls::common_name(der),
            der: der.to_vec(),
        };
        Some(Self(Arc::new(content)))
    }

    /// The subject, with its parts in the certificate's order: `O=Example, CN=a client`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The common name of the subject.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.0.common_name.as_deref()
    }

    /// The whole certificate (X.509, DER).
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The certificate of the request with these extensions; `None` if the client has shown none, and
    /// outside a ferricorn worker where none was inserted.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let inserted = extensions.get::<Self>().cloned();
        inserted.or_else(|| extensions.get::<InHand>()?.connection.certificate().cloned())
    }
}

/// A client that has shown no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has shown no certificate")]
pub struct NoClientCertificate;

impl IntoResponse for NoClientCertificate {
    fn into_response(self) -> Response {
        let body = format!("{{\"error\":\"{self}\"}}");
        (StatusCode::FORBIDDEN, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for ClientCertificate {
    type Rejection = NoClientCertificate;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Self, NoClientCertificate> {
        Self::of(&parts.extensions).ok_or(NoClientCertificate)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for ClientCertificate {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}
