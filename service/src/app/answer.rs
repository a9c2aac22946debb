//! Answers: JSON with its headers. Error answers are `{"error":"…"}`, with a text for people.

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use super::record::Data;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NEVER_KEPT: HeaderValue = HeaderValue::from_static("no-store");

/// Room for the headers of any answer, so that the map is made once, at its size.
const HEADERS_MAX: usize = 16;

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = typed(JSON, body);
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, NEVER_KEPT);
    response
}

/// A 200 of some type.
pub(crate) fn typed(content_type: HeaderValue, body: impl Into<Body>) -> Response {
    let mut headers = HeaderMap::with_capacity(HEADERS_MAX);
    headers.insert(CONTENT_TYPE, content_type);
    let mut response = Response::new(body.into());
    *response.headers_mut() = headers;
    response
}

/// The answer to `OPTIONS` on a path with these methods.
pub(crate) fn options(methods: &'static str) -> Response {
    let mut headers = HeaderMap::with_capacity(HEADERS_MAX);
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers;
    response
}

/// The answer to `POST /populate`.
pub(crate) fn populated(data: Data) -> Response {
    const BEFORE: &str = r#"{"data":""#;
    const AFTER: &str = r#"","message":"Data added successfully"}"#;
    let mut body = String::with_capacity(BEFORE.len() + Data::LENGTH + AFTER.len());
    body.push_str(BEFORE);
    body.push_str(data.as_str());
    body.push_str(AFTER);
    json(StatusCode::CREATED, body)
}
