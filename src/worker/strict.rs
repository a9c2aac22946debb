//! What is refused before an application sees it.
//!
//! hyper takes care of what cannot be parsed. These rules are about requests that can be, but that
//! servers along the way may understand in different ways, or that are larger than configured.

use axum::http::header::{HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version, request};

use crate::config::Limits;

/// Why a request is refused, if it is.
pub(super) fn refuse(
    head: &request::Parts,
    body: Option<u64>,
    limits: &Limits,
) -> Option<StatusCode> {
    if limits.request_line > 0 && request_line(head) > limits.request_line {
        return Some(StatusCode::URI_TOO_LONG);
    }
    if has_long_field(&head.headers, limits.request_field_size) {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if !is_coding_known(&head.headers) {
        return Some(StatusCode::NOT_IMPLEMENTED);
    }
    if let Some(status) = refuse_target(&head.method, &head.uri) {
        return Some(status);
    }
    if !has_one_host(head) {
        return Some(StatusCode::BAD_REQUEST);
    }
    match body {
        Some(length) if limits.body > 0 && length > limits.body => {
            Some(StatusCode::PAYLOAD_TOO_LARGE)
        }
        _ => None,
    }
}

/// The length of the request line as the client sent it, without its line end.
fn request_line(head: &request::Parts) -> usize {
    let uri = &head.uri;
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    head.method.as_str().len() + scheme + authority + path + "  HTTP/1.1".len()
}

fn has_long_field(headers: &HeaderMap, limit: usize) -> bool {
    let colon_and_space = 2;
    limit > 0
        && headers
            .iter()
            .any(|(name, value)| name.as_str().len() + colon_and_space + value.len() > limit)
}

/// RFC 9112 section 6.1: a server that does not understand a coding answers 501.
fn is_coding_known(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// RFC 9112 section 3.2: the four forms of a target, of which this server is no proxy for one.
fn refuse_target(method: &Method, uri: &Uri) -> Option<StatusCode> {
    if *method == Method::CONNECT {
        return Some(StatusCode::NOT_IMPLEMENTED);
    }
    if uri.path() == "*" {
        return (*method != Method::OPTIONS).then_some(StatusCode::BAD_REQUEST);
    }
    let origin_or_absolute = uri.path().starts_with('/');
    let bytes = uri.path_and_query().map_or("", |path| path.as_str()).as_bytes();
    let plain = bytes.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\');
    (!origin_or_absolute || !plain).then_some(StatusCode::BAD_REQUEST)
}

/// RFC 9112 section 3.2: exactly one `Host` in HTTP/1.1, and a valid one.
fn has_one_host(head: &request::Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => head.version < Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// RFC 3986 section 3.2.2, loosely: what could be a name, an address and a port. Empty is allowed: a
/// target without an authority has none to repeat.
fn is_host(host: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
    host.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn limits() -> Limits {
        crate::config::Config::default().limits
    }

    fn answer(build: impl FnOnce(request::Builder) -> request::Builder) -> Option<u16> {
        let request = build(Request::builder().uri("/")).body(()).expect("a valid request");
        refuse(&request.into_parts().0, None, &limits()).map(|status| status.as_u16())
    }

    #[test]
    fn ordinary_requests_pass() {
        assert_eq!(answer(|it| it.header("host", "a.example:80")), None);
        assert_eq!(answer(|it| it.header("host", "")), None);
        assert_eq!(answer(|it| it.uri("http://a.example/x?y=1").header("host", "a.example")), None);
        assert_eq!(answer(|it| it.version(Version::HTTP_10)), None);
        assert_eq!(answer(|it| it.method("OPTIONS").uri("*").header("host", "a")), None);
        assert_eq!(
            answer(|it| it.header("host", "a").header("transfer-encoding", "Chunked")),
            None
        );
    }

    #[test]
    fn the_others_are_refused_with_their_status() {
        assert_eq!(answer(|it| it), Some(400), "no host");
        assert_eq!(answer(|it| it.header("host", "a").header("host", "b")), Some(400));
        assert_eq!(answer(|it| it.header("host", "a b")), Some(400));
        assert_eq!(answer(|it| it.header("host", "a/b")), Some(400));
        assert_eq!(answer(|it| it.uri("*").header("host", "a")), Some(400));
        assert_eq!(
            answer(|it| it.method("CONNECT").uri("a.example:80").header("host", "a")),
            Some(501)
        );
        assert_eq!(
            answer(|it| it.header("host", "a").header("transfer-encoding", "gzip")),
            Some(501)
        );
        assert_eq!(
            answer(|it| it.header("host", "a").header("transfer-encoding", "gzip, chunked")),
            Some(501)
        );
        let long = format!("/{}", "a".repeat(4094));
        assert_eq!(answer(|it| it.uri(long).header("host", "a")), Some(414));
        let wide = "b".repeat(8190);
        assert_eq!(answer(|it| it.header("host", "a").header("x", wide)), Some(431));
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let line = |length: usize| format!("/{}", "a".repeat(length - "GET / HTTP/1.1".len()));
        assert_eq!(answer(|it| it.uri(line(4094)).header("host", "a")), None);
        assert_eq!(answer(|it| it.uri(line(4095)).header("host", "a")), Some(414));
        let field = |length: usize| "b".repeat(length - "x: ".len());
        assert_eq!(answer(|it| it.header("host", "a").header("x", field(8190))), None);
        assert_eq!(answer(|it| it.header("host", "a").header("x", field(8191))), Some(431));
        let parts =
            Request::builder().uri("/").header("host", "a").body(()).unwrap().into_parts().0;
        assert_eq!(refuse(&parts, Some(1 << 20), &limits()), None);
        assert_eq!(refuse(&parts, Some((1 << 20) + 1), &limits()).map(|it| it.as_u16()), Some(413));
    }
}
