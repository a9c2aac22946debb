//! Answers of the server's own: to requests that no application shall see, and for applications that
//! do not answer. In JSON with a text for people, like the bundled application's.

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

/// What the server answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// `OPTIONS *`, which asks about the server as a whole (RFC 9110 section 9.3.7).
    Options,
    LineTooLong,
    FieldTooLong,
    /// A transfer coding other than `chunked`.
    Coding,
    /// `CONNECT`.
    Tunnel,
    Target,
    Host,
    BodyTooLong,
    BodyStalled,
    Timeout,
    Panic,
}

impl Own {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Options => StatusCode::NO_CONTENT,
            Self::LineTooLong => StatusCode::URI_TOO_LONG,
            Self::FieldTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Coding | Self::Tunnel => StatusCode::NOT_IMPLEMENTED,
            Self::Target | Self::Host => StatusCode::BAD_REQUEST,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn body(self) -> &'static str {
        match self {
            Self::Options => "",
            Self::LineTooLong => r#"{"error":"the request line is longer than allowed"}"#,
            Self::FieldTooLong => r#"{"error":"a header field is longer than allowed"}"#,
            Self::Coding => r#"{"error":"the only transfer coding here is chunked"}"#,
            Self::Tunnel => r#"{"error":"this server is no proxy"}"#,
            Self::Target => r#"{"error":"the request target is none of this server's"}"#,
            Self::Host => r#"{"error":"the request does not have one valid Host"}"#,
            Self::BodyTooLong => r#"{"error":"the request body is longer than allowed"}"#,
            Self::BodyStalled => r#"{"error":"the request body stood still for too long"}"#,
            Self::Timeout => r#"{"error":"the answer took too long"}"#,
            Self::Panic => r#"{"error":"something went wrong in this server"}"#,
        }
    }

    /// The connection is closed behind it: the request may not have been read whole.
    pub(super) fn response(self) -> Response<Body> {
        let mut headers = HeaderMap::with_capacity(4);
        match self {
            Self::Options => {
                let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
                headers.insert(ALLOW, HeaderValue::from_static(methods));
            }
            Self::LineTooLong
            | Self::FieldTooLong
            | Self::Coding
            | Self::Tunnel
            | Self::Target
            | Self::Host
            | Self::BodyTooLong
            | Self::BodyStalled
            | Self::Timeout
            | Self::Panic => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                headers.insert(CONNECTION, CLOSE);
            }
        }
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status();
        *response.headers_mut() = headers;
        response
    }
}

pub(super) const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What a connection is told that cannot be spoken with through hyper: its request has no head yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// The head takes too long (RFC 9110 section 15.5.9).
    HeadTimeout,
    /// Not even the request line fits (RFC 9112 section 3; hyper would say 431).
    LineTooLong,
}

impl Raw {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::LineTooLong => StatusCode::URI_TOO_LONG,
        }
    }

    pub(super) fn bytes(self) -> &'static [u8] {
        match self {
            Self::HeadTimeout => concat!(
                "HTTP/1.1 408 Request Timeout\r\n",
                "content-type: application/json\r\nconnection: close\r\ncontent-length: 49\r\n\r\n",
                r#"{"error":"the head of the request took too long"}"#,
            )
            .as_bytes(),
            Self::LineTooLong => concat!(
                "HTTP/1.1 414 URI Too Long\r\n",
                "content-type: application/json\r\nconnection: close\r\ncontent-length: 51\r\n\r\n",
                r#"{"error":"the request line is longer than allowed"}"#,
            )
            .as_bytes(),
        }
    }
}

/// The status that hyper has answered with by itself, if the connection ended so.
pub(super) fn status_of(error: &(dyn std::error::Error + 'static)) -> Option<StatusCode> {
    let error: &hyper::Error = error.downcast_ref()?;
    if !error.is_parse() || error.is_parse_version_h2() {
        return None;
    }
    if !error.is_parse_too_large() {
        return Some(StatusCode::BAD_REQUEST);
    }
    // Nothing else tells the two apart. It is a word in a log line.
    let is_target = format!("{error:?}").contains("UriTooLong");
    let fields = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Some(if is_target { StatusCode::URI_TOO_LONG } else { fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_without_hyper_has_its_length() {
        for raw in [Raw::HeadTimeout, Raw::LineTooLong] {
            let text = std::str::from_utf8(raw.bytes()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {}\r\n", raw.status())), "{head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["error"].is_string());
        }
        let own = Own::LineTooLong.body().as_bytes();
        assert!(Raw::LineTooLong.bytes().ends_with(own), "hyper or not, the text is the same");
    }
}
