//! What is known of one request when its access line is written.
//!
//! The trap: not every request has a status. One whose client went away, or whose worker died, was
//! never answered, or not to the end, and a line that says 200 or 499 of it would be an invention.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use crate::ids::{Generation, Slot};

/// A header field.
pub type Field = (HeaderName, HeaderValue);

/// One finished request, borrowed from who served it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The client's address; `None` on a unix socket.
    pub remote: Option<IpAddr>,
    /// When the head of the request had been read.
    pub started: SystemTime,
    /// How long it took from then to the last byte of the answer.
    pub elapsed: Duration,
    /// The method.
    pub method: &'a Method,
    /// The target as the client sent it.
    pub target: &'a Uri,
    /// The protocol.
    pub version: Version,
    /// The header fields of the request that the format names, in their order; others do not matter.
    pub request_headers: &'a [Field],
    /// How it ended.
    pub outcome: Outcome,
    /// Likewise of the answer; empty when there was none.
    pub response_headers: &'a [Field],
    /// Bytes of the answer's body that were sent.
    pub bytes: u64,
    /// The process that held the request.
    pub pid: u32,
    /// The place of that worker.
    pub slot: Slot,
    /// Its configuration.
    pub generation: Generation,
    /// The request's id, when it has one.
    pub request_id: Option<&'a str>,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with this status.
    Status(StatusCode),
    /// It was answered with this status before it could be read: nothing is known of its method,
    /// target, protocol and header fields, and what the record has for them means nothing.
    Unread(StatusCode),
    /// The client went away, or was cut off for not reading, before all of the answer was on its way.
    Aborted,
    /// The worker that held it died, or left before all of the answer was on its way.
    Lost,
}

impl Outcome {
    /// The status, if there ever was one.
    pub(super) fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) | Self::Unread(status) => Some(status.as_u16()),
            Self::Aborted | Self::Lost => None,
        }
    }

    /// The word for it in `%({outcome}e)s` and in JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Status(_) => "ok",
            Self::Unread(_) => "unread",
            Self::Aborted => "aborted",
            Self::Lost => "lost",
        }
    }
}

/// The values of the fields with this name.
pub(super) fn values<'a>(fields: &'a [Field], name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(it, _)| it == name).map(|(_, value)| value.as_bytes())
}

impl Record<'_> {
    /// Method, target and protocol, where they are known.
    pub(super) fn request_line(&self) -> Option<(&str, &Uri, &'static str)> {
        match self.outcome {
            Outcome::Unread(_) => None,
            Outcome::Status(_) | Outcome::Aborted | Outcome::Lost => {
                Some((self.method.as_str(), self.target, self.protocol()))
            }
        }
    }

    /// The protocol as a status line spells it (RFC 9110, section 2.5).
    fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_09 => "HTTP/0.9",
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_3 => "HTTP/3.0",
            _ => "HTTP/1.1",
        }
    }

    /// How long it took, in microseconds.
    pub(super) fn micros(&self) -> u64 {
        u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX)
    }
}
