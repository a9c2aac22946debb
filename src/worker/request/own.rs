//! Answers of the server's own: to requests that no application shall see, and for applications that
//! do not answer. In JSON with a text for people, like the bundled application's.

use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    RETRY_AFTER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::request::client::Scheme;

/// The server's own answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The head takes too long (RFC 9110 section 15.5.9).
    HeadTimeout,
    /// The head is none.
    Malformed,
    /// Not all of the head fits (RFC 6585 section 5).
    HeadTooLong,
    /// `OPTIONS *`, which asks about the server as a whole (RFC 9110 section 9.3.7).
    Options,
    LineTooLong,
    FieldTooLong,
    TooManyFields,
    /// A transfer coding other than `chunked`.
    Coding,
    /// `CONNECT`.
    Tunnel,
    Target,
    Host,
    /// Forwarding headers that say two different things.
    Forwarded,
    /// More than one `Content-Length`, or one beside `Transfer-Encoding`.
    Length,
    /// Chunks with a wrong line end, size or trailer.
    Chunks,
    /// TLS on an address that speaks plain HTTP.
    Tls,
    /// Plain HTTP on an address that speaks TLS.
    Plain,
    BodyTooLong,
    BodyStalled,
    Timeout,
    Panic,
    /// The handler wants an address of a client that has none.
    NoAddress,
    /// The worker serves.
    Alive,
    /// The application is ready.
    Ready,
    /// The application is not ready.
    Unready,
    /// The server stops.
    Stopping,
    /// `OPTIONS` on a probe's path.
    ProbeOptions,
    /// A method that a probe's path does not have.
    ProbeMethod,
}

impl Own {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Alive | Self::Ready => StatusCode::OK,
            Self::Options | Self::ProbeOptions => StatusCode::NO_CONTENT,
            Self::LineTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLong | Self::FieldTooLong | Self::TooManyFields => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::Coding | Self::Tunnel => StatusCode::NOT_IMPLEMENTED,
            Self::Malformed
            | Self::Target
            | Self::Host
            | Self::Forwarded
            | Self::Length
            | Self::Chunks
            | Self::Tls
            | Self::Plain => StatusCode::BAD_REQUEST,
            Self::ProbeMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTimeout | Self::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::Unready | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Panic | Self::NoAddress => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn body(self) -> &'static str {
        match self {
            Self::Options | Self::ProbeOptions => "",
            Self::Alive => r#"{"status":"alive"}"#,
            Self::Ready => r#"{"status":"ready"}"#,
            Self::Unready => r#"{"error":"the service is not ready"}"#,
            Self::Stopping => r#"{"error":"the server is stopping"}"#,
            Self::ProbeMethod => r#"{"error":"this path does not have this method; see Allow"}"#,
            Self::HeadTimeout => r#"{"error":"the head of the request took too long"}"#,
            Self::Malformed => r#"{"error":"what came is no request of HTTP"}"#,
            Self::HeadTooLong => r#"{"error":"the head of the request is longer than allowed"}"#,
            Self::LineTooLong => r#"{"error":"the request line is longer than allowed"}"#,
            Self::FieldTooLong => r#"{"error":"a header field is longer than allowed"}"#,
            Self::TooManyFields => r#"{"error":"the request has more header fields than allowed"}"#,
            Self::Coding => r#"{"error":"the only transfer coding here is chunked"}"#,
            Self::Tunnel => r#"{"error":"this server is no proxy"}"#,
            Self::Target => r#"{"error":"the request target is none of this server's"}"#,
            Self::Host => r#"{"error":"the request does not have one valid Host"}"#,
            Self::Forwarded => r#"{"error":"the forwarding headers contradict each other"}"#,
            Self::Length => r#"{"error":"the request has more than one length of its body"}"#,
            Self::Chunks => r#"{"error":"the chunks of the request body are malformed"}"#,
            Self::Tls => r#"{"error":"TLS was sent to an address that speaks plain HTTP"}"#,
            Self::Plain => {
                r#"{"error":"plain HTTP was sent to an address that speaks TLS (https)"}"#
            }
            Self::BodyTooLong => r#"{"error":"the request body is longer than allowed"}"#,
            Self::BodyStalled => r#"{"error":"the request body stood still for too long"}"#,
            Self::Timeout => r#"{"error":"the answer took too long"}"#,
            Self::Panic => r#"{"error":"something went wrong in this server"}"#,
            Self::NoAddress => r#"{"error":"the client has no address: it is on a unix socket"}"#,
        }
    }

    /// Returns true if nothing that may be wrong with the request keeps its connection from being kept.
    fn keeps_connection(self) -> bool {
        match self {
            Self::Options
            | Self::Alive
            | Self::Ready
            | Self::Unready
            | Self::Stopping
            | Self::ProbeOptions
            | Self::ProbeMethod => true,
            Self::HeadTimeout
            | Self::Malformed
            | Self::HeadTooLong
            | Self::LineTooLong
            | Self::FieldTooLong
            | Self::TooManyFields
            | Self::Coding
            | Self::Tunnel
            | Self::Target
            | Self::Host
            | Self::Forwarded
            | Self::Length
            | Self::Chunks
            | Self::Tls
            | Self::Plain
            | Self::BodyTooLong
            | Self::BodyStalled
            | Self::Timeout
            | Self::Panic
            | Self::NoAddress => false,
        }
    }

    /// The methods that the answer names.
    fn allowed(self) -> Option<&'static str> {
        match self {
            Self::Options => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            Self::ProbeOptions | Self::ProbeMethod => Some("GET,HEAD,OPTIONS"),
            _ => None,
        }
    }

    /// Gives an answer that has passed through the application's layers what is not theirs to change.
    pub(crate) fn insist(self, response: &mut Response<Body>) {
        *response.status_mut() = self.status();
        if !self.keeps_connection() {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
    }

    /// The answer. Where the request may not have been read whole its connection is closed behind it.
    pub(crate) fn response(self, scheme: Scheme) -> Response<Body> {
        let mut headers = HeaderMap::with_capacity(16);
        for (name, value) in SHIELD {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if scheme == Scheme::Https {
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(TLS_ONLY));
        }
        if let Some(methods) = self.allowed() {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if !self.body().is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if self == Self::Unready {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if !self.keeps_connection() {
            headers.insert(CONNECTION, CLOSE);
        }
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status();
        *response.headers_mut() = headers;
        response
    }

    /// Returns the answer that hyper means by its own: to a head that it cannot read, or whose fields
    /// are more than it takes. Longer heads than it takes are refused while they come in.
    pub(crate) fn of_hyper(answer: &[u8]) -> Self {
        match answer.get(9..12) {
            Some(b"414") => Self::LineTooLong,
            Some(b"431") => Self::TooManyFields,
            Some(_) | None => Self::Malformed,
        }
    }

    /// The same as text, head and body, for a connection that cannot be spoken with through hyper: its
    /// request has no head yet.
    pub(crate) fn text(self, scheme: Scheme, now: SystemTime) -> (String, &'static str) {
        let status = self.status();
        let body = self.body();
        let mut text = format!("HTTP/1.1 {status}\r\n");
        for (name, value) in self.response(scheme).headers() {
            let value = value.to_str().expect("our own fields are ASCII");
            text += &format!("{name}: {value}\r\n");
        }
        // RFC 9110 section 6.6.1. A clock from before year 0 has no date.
        if let Some(date) = Timestamp::try_from(now)
            .ok()
            .and_then(|now| DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok())
        {
            text += &format!("date: {date}\r\n");
        }
        (text + &format!("content-length: {}\r\n\r\n", body.len()), body)
    }
}

/// An answer on its way through the application's layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) own: Own,
    pub(crate) scheme: Scheme,
}

/// Answers every request with what was given with it, for the application to put layers around.
pub(crate) fn router() -> Router {
    Router::new().fallback(|request: Request| async move {
        let given = request.extensions().get::<Given>().copied();
        // A layer of the application's has taken it away.
        let Given { own, scheme } =
            given.unwrap_or(Given { own: Own::Panic, scheme: Scheme::default() });
        own.response(scheme)
    })
}

/// Whatever a browser takes such an answer for, nothing in it is run, framed or told on.
const SHIELD: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// For a year: who has come over TLS once does not come in the clear again (RFC 6797), and must not be
/// told so in the clear.
const TLS_ONLY: &str = "max-age=31536000";

pub(crate) const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The status that hyper has answered with by itself, if the connection ended so.
pub(crate) fn status_of(error: &hyper::Error) -> Option<StatusCode> {
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
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const ALL: [Own; 27] = [
        Own::HeadTimeout,
        Own::Malformed,
        Own::HeadTooLong,
        Own::Options,
        Own::LineTooLong,
        Own::FieldTooLong,
        Own::TooManyFields,
        Own::Coding,
        Own::Tunnel,
        Own::Target,
        Own::Host,
        Own::Forwarded,
        Own::Length,
        Own::Chunks,
        Own::Tls,
        Own::Plain,
        Own::BodyTooLong,
        Own::BodyStalled,
        Own::Timeout,
        Own::Panic,
        Own::NoAddress,
        Own::Alive,
        Own::Ready,
        Own::Unready,
        Own::Stopping,
        Own::ProbeOptions,
        Own::ProbeMethod,
    ];

    /// The fields that the README promises of every answer.
    #[test]
    fn every_answer_is_shielded() {
        for own in ALL {
            for (scheme, told) in [(Scheme::Http, None), (Scheme::Https, Some("max-age=31536000"))]
            {
                let response = own.response(scheme);
                let field = |name: &str| {
                    response.headers().get(name).map(|header| header.to_str().unwrap())
                };
                assert_eq!(field("x-content-type-options"), Some("nosniff"), "{own:?}");
                assert_eq!(field("x-frame-options"), Some("DENY"), "{own:?}");
                assert_eq!(field("referrer-policy"), Some("no-referrer"), "{own:?}");
                for name in ["content-security-policy", "permissions-policy"] {
                    assert!(field(name).is_some(), "{own:?}: {name}");
                }
                assert_eq!(field("strict-transport-security"), told, "{own:?}");
            }
        }
    }

    #[test]
    fn what_is_said_without_hyper_is_whole() {
        let then = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for own in ALL.into_iter().filter(|own| !own.keeps_connection()) {
            let (head, body) = own.text(Scheme::Http, then);
            let head = head.strip_suffix("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {}\r\n", own.status())), "{head}");
            assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
            // RFC 9110 section 5.6.7 has this date.
            assert!(head.contains("\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{head}");
            for (name, value) in own.response(Scheme::Http).headers() {
                let field = format!("\r\n{name}: {}\r\n", value.to_str().unwrap());
                assert!(head.contains(&field), "{field} in {head}");
            }
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(body["error"].is_string(), "{own:?}");
        }
    }
}
