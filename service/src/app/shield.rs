//! The headers that every answer of the application carries, errors among them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::Request;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use ferricorn::{Client, Scheme, Slot};
use tower::{Layer, Service};

/// For answers that are no page: whatever a browser takes them for, nothing in them is run.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
const PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
);
/// For a year: who has come over TLS once does not come in the clear again (RFC 6797). Not for
/// subdomains: they may be another owner's.
const TLS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
/// The slot of the worker that answers.
const X_WORKER: HeaderName = HeaderName::from_static("x-worker");

/// Adds the headers to the answers of one worker.
#[derive(Clone, Debug)]
pub(super) struct Shield {
    worker: HeaderValue,
}

impl Shield {
    /// For the worker in this slot.
    pub(super) fn new(slot: Slot) -> Self {
        Self { worker: HeaderValue::from(slot.number()) }
    }

    fn put(&self, headers: &mut HeaderMap, scheme: Scheme) {
        headers.entry(CONTENT_SECURITY_POLICY).or_insert(POLICY);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(PERMISSIONS_POLICY, PERMISSIONS);
        headers.insert(X_WORKER, self.worker.clone());
        match scheme {
            // Browsers must not heed it there (RFC 6797 section 7.2).
            Scheme::Http => {}
            Scheme::Https => {
                headers.insert(STRICT_TRANSPORT_SECURITY, TLS_ONLY);
            }
        }
    }
}

impl<S> Layer<S> for Shield {
    type Service = Shielded<S>;

    fn layer(&self, inner: S) -> Shielded<S> {
        Shielded { inner, shield: self.clone() }
    }
}

/// A service whose answers carry the headers.
#[derive(Clone, Debug)]
pub(super) struct Shielded<S> {
    inner: S,
    shield: Shield,
}

impl<S: Service<Request, Response = Response>> Service<Request> for Shielded<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let scheme = Client::of(request.extensions()).scheme();
        Answering { answer: self.inner.call(request), shield: self.shield.clone(), scheme }
    }
}

pin_project_lite::pin_project! {
    /// An answer on its way.
    pub(super) struct Answering<F> {
        #[pin]
        answer: F,
        shield: Shield,
        scheme: Scheme,
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for Answering<F> {
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(cx))?;
        this.shield.put(answer.headers_mut(), *this.scheme);
        Poll::Ready(Ok(answer))
    }
}
