//! The headers that every answer of the application carries, errors among them.

use axum::http::HeaderValue;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::response::Response;
use ferricorn::Slot;
use tower::util::MapResponseLayer;

/// For answers that are no page: whatever a browser takes them for, nothing in them is run.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
const PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
);

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
/// The slot of the worker that answers.
const X_WORKER: HeaderName = HeaderName::from_static("x-worker");

/// Adds the headers to the answers of the worker in this slot.
pub(super) fn layer(
    slot: Slot,
) -> MapResponseLayer<impl FnOnce(Response) -> Response + Clone + Send + Sync + 'static> {
    let worker = HeaderValue::from(slot.number());
    MapResponseLayer::new(move |mut response: Response| {
        let headers = response.headers_mut();
        headers.entry(CONTENT_SECURITY_POLICY).or_insert(POLICY);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(PERMISSIONS_POLICY, PERMISSIONS);
        headers.insert(X_WORKER, worker);
        response
    })
}
