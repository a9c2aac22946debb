//! The requests that are refused before an application sees them.
//!
//! hyper takes care of what cannot be parsed. These rules are about requests that can be, but that
//! servers along the way may understand in different ways, or that are larger than configured.

use std::net::Ipv6Addr;

use axum::http::header::{HOST, TRANSFER_ENCODING, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, request};

use super::own::Own;
use crate::config::{HEALTHCHECK_AGENT, Limits};
use crate::logging::Field;
use crate::request::id::X_REQUEST_ID;
use crate::worker::proxy::forwarded;

/// The part of a request's header fields that matters to the server itself. Found in one walk over all
/// of them: to look each one up costs more than everything else that is done here.
#[derive(Debug, Default)]
pub(crate) struct Seen<'a> {
    host: Said<'a>,
    coding: Said<'a>,
    id: Said<'a>,
    /// True if one of them may speak of a client behind the peer.
    pub(crate) forwarded: bool,
    /// True if the request calls itself one of `ferricorn healthcheck`.
    pub(crate) is_healthcheck: bool,
    /// Bytes of the longest one, as it was sent.
    longest: usize,
    /// Those that the access log names.
    pub(crate) named: Vec<Field>,
}

/// The number of times that a field was sent, and its value.
#[derive(Debug, Default)]
enum Said<'a> {
    #[default]
    Never,
    Once(&'a HeaderValue),
    Often,
}

impl<'a> Seen<'a> {
    pub(crate) fn new(headers: &'a HeaderMap, named: &[HeaderName]) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            let colon_and_space = 2;
            let length = name.as_str().len() + colon_and_space + value.len();
            seen.longest = seen.longest.max(length);
            if *name == HOST {
                seen.host.note(value);
            } else if *name == TRANSFER_ENCODING {
                seen.coding.note(value);
            } else if *name == X_REQUEST_ID {
                seen.id.note(value);
            } else if *name == USER_AGENT {
                seen.is_healthcheck = value == HEALTHCHECK_AGENT;
            } else if forwarded::is_one(name) {
                seen.forwarded = true;
            }
            if named.contains(name) {
                seen.named.push((name.clone(), value.clone()));
            }
        }
        seen
    }

    /// Returns the request's own id; two are none.
    pub(crate) fn id(&self) -> Option<&'a HeaderValue> {
        match self.id {
            Said::Once(id) => Some(id),
            Said::Never | Said::Often => None,
        }
    }
}

impl<'a> Said<'a> {
    fn note(&mut self, value: &'a HeaderValue) {
        *self = match self {
            Self::Never => Self::Once(value),
            Self::Once(_) | Self::Often => Self::Often,
        };
    }
}

/// Returns the answer in place of the application's, if there is one. Its body may have so many bytes.
pub(crate) fn judge(
    head: &request::Parts,
    seen: &Seen<'_>,
    body: Option<u64>,
    limits: &Limits,
    body_max: u64,
) -> Option<Own> {
    if limits.request_line > 0 && request_line(head) > limits.request_line {
        return Some(Own::LineTooLong);
    }
    if head.headers.len() > limits.request_fields {
        return Some(Own::TooManyFields);
    }
    if limits.request_field_size > 0 && seen.longest > limits.request_field_size {
        return Some(Own::FieldTooLong);
    }
    if !is_coding_known(&seen.coding) {
        return Some(Own::Coding);
    }
    if !is_host_said(&seen.host, head) {
        return Some(Own::Host);
    }
    judge_target(head).or(match body {
        Some(length) if length > body_max => Some(Own::BodyTooLong),
        _ => None,
    })
}

/// RFC 9112 section 3.2.2: where the target names a host, that is the host, whatever `Host` says.
pub(crate) fn settle_host(head: &mut request::Parts) {
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
}

/// The bytes of a request's head, of HTTP/2 before they were compressed.
pub(crate) fn length(head: &request::Parts) -> usize {
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    request_line(head) + head.headers.iter().map(field).sum::<usize>()
}

/// The length of the request line as the client sent it, without its line end; of HTTP/2 as HTTP/1.1
/// would have it.
fn request_line(head: &request::Parts) -> usize {
    let uri = &head.uri;
    let is_absolute = head.version != Version::HTTP_2;
    let scheme = uri.scheme_str().filter(|_| is_absolute);
    let scheme = scheme.map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().filter(|_| is_absolute);
    let authority = authority.map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    head.method.as_str().len() + scheme + authority + path + "  HTTP/1.1".len()
}

/// The target as the request line of HTTP/1.1 has it: HTTP/2 has scheme and host in fields of their own.
pub(crate) fn target(head: &request::Parts) -> Uri {
    match head.uri.path_and_query() {
        Some(path) if head.version == Version::HTTP_2 => Uri::from(path.clone()),
        Some(_) | None => head.uri.clone(),
    }
}

/// RFC 9112 section 6.1: a server that does not understand a coding answers 501.
fn is_coding_known(codings: &Said<'_>) -> bool {
    match codings {
        Said::Never => true,
        Said::Once(coding) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        Said::Often => false,
    }
}

/// Returns true for a CONNECT that is no tunnel: another protocol begins in its stream (RFC 8441).
#[cfg(feature = "http2")]
fn begins_protocol(head: &request::Parts) -> bool {
    head.extensions.get::<hyper::ext::Protocol>().is_some()
}

#[cfg(not(feature = "http2"))]
fn begins_protocol(_: &request::Parts) -> bool {
    false
}

/// RFC 9112 section 3.2: the four forms of a target, of which this server is no proxy for one.
fn judge_target(head: &request::Parts) -> Option<Own> {
    let method = &head.method;
    let uri = &head.uri;
    if *method == Method::CONNECT && !begins_protocol(head) {
        return Some(Own::Tunnel);
    }
    if uri.path() == "*" {
        return Some(if *method == Method::OPTIONS { Own::Options } else { Own::Target });
    }
    let is_origin_or_absolute = uri.path().starts_with('/')
        && match (uri.scheme_str(), uri.authority()) {
            (None, None) => true,
            (Some("http" | "https"), Some(authority)) => is_host(authority.as_str().as_bytes()),
            (Some(_) | None, _) => false,
        };
    let bytes = uri.path_and_query().map_or("", |path| path.as_str()).as_bytes();
    let is_plain = bytes.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\');
    (!is_origin_or_absolute || !is_plain).then_some(Own::Target)
}

/// RFC 9112 section 3.2: exactly one `Host` in HTTP/1.1, and a valid one. RFC 9113 section 8.3.1: in
/// HTTP/2 `:authority` or `Host`, and where there are both they are the same.
fn is_host_said(hosts: &Said<'_>, head: &request::Parts) -> bool {
    let authority = head.uri.authority().filter(|_| head.version == Version::HTTP_2);
    match (hosts, authority) {
        (Said::Never, Some(_)) => true,
        (Said::Never, None) => head.version < Version::HTTP_11,
        (Said::Once(host), Some(authority)) => {
            host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        }
        (Said::Once(host), None) => is_host(host.as_bytes()),
        (Said::Often, _) => false,
    }
}

/// The bytes that a host's name may have. Every request has a host, so they are looked up.
const IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=%";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// RFC 9110 section 7.2 and RFC 3986 section 3.2: an address in brackets or a name, and a port. It may
/// be empty: a target without an authority has none to repeat.
fn is_host(host: &[u8]) -> bool {
    let port = match host.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|byte| *byte == b']') {
            Some(end) if is_address(&rest[..end]) => &rest[end + 1..],
            Some(_) | None => return false,
        },
        None => {
            let end = host.iter().position(|byte| !IN_HOST[usize::from(*byte)]);
            &host[end.unwrap_or(host.len())..]
        }
    };
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    port.is_empty() || port.strip_prefix(b":").is_some_and(is_port)
}

fn is_address(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use axum::http::header::VIA;

    use super::*;

    fn limits() -> Limits {
        crate::config::Config::default().limits
    }

    fn answer(build: impl FnOnce(request::Builder) -> request::Builder) -> Option<u16> {
        let request = build(Request::builder().uri("/")).body(()).expect("a valid request");
        judged(&request.into_parts().0, None).map(|own| own.status().as_u16())
    }

    fn judged(head: &request::Parts, body: Option<u64>) -> Option<Own> {
        judge(head, &Seen::new(&head.headers, &[]), body, &limits(), 1 << 20)
    }

    #[test]
    fn ordinary_requests_pass() {
        assert_eq!(answer(|answer| answer.header("host", "a.example:80")), None);
        assert_eq!(answer(|answer| answer.header("host", "")), None);
        assert_eq!(
            answer(|answer| answer.uri("http://a.example/x?y=1").header("host", "a.example")),
            None
        );
        assert_eq!(answer(|answer| answer.version(Version::HTTP_10)), None);
        assert_eq!(
            answer(|answer| answer.header("host", "a").header("transfer-encoding", "Chunked")),
            None
        );
    }

    #[test]
    fn the_others_are_refused_with_their_status() {
        assert_eq!(answer(|answer| answer), Some(400), "no host");
        assert_eq!(answer(|answer| answer.header("host", "a").header("host", "b")), Some(400));
        assert_eq!(answer(|answer| answer.header("host", "a b")), Some(400));
        assert_eq!(answer(|answer| answer.header("host", "a/b")), Some(400));
        assert_eq!(answer(|answer| answer.uri("*").header("host", "a")), Some(400));
        assert_eq!(
            answer(|answer| answer.method("CONNECT").uri("a.example:80").header("host", "a")),
            Some(501)
        );
        assert_eq!(
            answer(|answer| answer.header("host", "a").header("transfer-encoding", "gzip")),
            Some(501)
        );
        assert_eq!(
            answer(|answer| answer
                .header("host", "a")
                .header("transfer-encoding", "gzip, chunked")),
            Some(501)
        );
        let long = format!("/{}", "a".repeat(4094));
        assert_eq!(answer(|answer| answer.uri(long).header("host", "a")), Some(414));
        let wide = "b".repeat(8190);
        assert_eq!(answer(|answer| answer.header("host", "a").header("x", wide)), Some(431));
    }

    #[test]
    fn http2_has_one_host() {
        let judged = |uri: &str, hosts: &[&str]| {
            let request = Request::builder().version(Version::HTTP_2).uri(uri);
            answer(|_| hosts.iter().fold(request, |request, host| request.header("host", *host)))
        };
        assert_eq!(judged("https://a.example/x", &[]), None);
        assert_eq!(judged("https://a.example/x", &["A.example"]), None);
        assert_eq!(judged("/x", &["a.example"]), None);
        assert_eq!(judged("https://a.example/x", &["b.example"]), Some(400));
        assert_eq!(judged("https://a.example/x", &["a.example", "a.example"]), Some(400));
        assert_eq!(judged("/x", &[]), Some(400));
        assert_eq!(judged("https://user@a.example/x", &[]), Some(400));
    }

    #[test]
    fn fields_are_seen_in_one_walk() {
        let request = Request::builder().header("x-request-id", "7").header("via", "a");
        let request = request.header("x", "b").header("via", "c").body(()).unwrap();
        let seen = Seen::new(request.headers(), &[VIA]);
        assert_eq!(seen.id().unwrap(), "7");
        let value = HeaderValue::from_static;
        assert_eq!(seen.named, [(VIA, value("a")), (VIA, value("c"))]);
        let twice = Request::builder().header("x-request-id", "7").header("x-request-id", "8");
        let twice = twice.body(()).unwrap();
        assert_eq!(Seen::new(twice.headers(), &[]).id(), None, "two are none");
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let line = |length: usize| format!("/{}", "a".repeat(length - "GET / HTTP/1.1".len()));
        assert_eq!(answer(|answer| answer.uri(line(4094)).header("host", "a")), None);
        assert_eq!(answer(|answer| answer.uri(line(4095)).header("host", "a")), Some(414));
        let field = |length: usize| "b".repeat(length - "x: ".len());
        assert_eq!(answer(|answer| answer.header("host", "a").header("x", field(8190))), None);
        assert_eq!(answer(|answer| answer.header("host", "a").header("x", field(8191))), Some(431));
        let fields = |count: usize| {
            answer(|request| {
                (1..count).fold(request.header("host", "a"), |request, _| request.header("x", "y"))
            })
        };
        assert_eq!((fields(100), fields(101)), (None, Some(431)));
        let parts =
            Request::builder().uri("/").header("host", "a").body(()).unwrap().into_parts().0;
        assert_eq!(judged(&parts, Some(1 << 20)), None);
        assert_eq!(judged(&parts, Some((1 << 20) + 1)), Some(Own::BodyTooLong));
    }
}
