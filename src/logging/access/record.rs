//! The facts about one request when its access line is written.
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
    /// The time from then to the last byte of the answer.
    pub elapsed: Duration,
    /// The time that its connection waited to be accepted; `None` of later requests on it, and where that is
    /// not known.
    pub queue_wait: Option<Duration>,
    /// The method.
    pub method: &'a Method,
    /// The target as the client sent it.
    pub target: &'a Uri,
    /// The protocol.
    pub version: Version,
    /// The header fields of the request that the format names, in their order; others do not matter.
    pub request_headers: &'a [Field],
    /// Its end.
    pub outcome: Outcome,
    /// Likewise of the answer; empty when there was none.
    pub response_headers: &'a [Field],
    /// Bytes of the answer's body that were sent: those that the kernel has taken, of an answer that
    /// was cut short.
    pub bytes: u64,
    /// The process that held the request.
    pub pid: u32,
    /// The place of that worker.
    pub slot: Slot,
    /// Its configuration.
    pub generation: Generation,
    /// The request's id, when it has one.
    pub request_id: Option<&'a [u8]>,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
    /// The name in `bind` of the listener that it came in by, if it has one.
    pub listener: Option<&'a str>,
    /// The subject of the certificate that the client has shown, if it has.
    pub client_certificate: Option<&'a str>,
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with this status.
    Status(StatusCode),
    /// It was answered with this status, and would have gone on without an end; the answer ended whole
    /// since the worker drained.
    Drained(StatusCode),
    /// It was answered with this status before it could be read: nothing is known of its method,
    /// target, protocol and header fields, and what the record has for them means nothing.
    Unread(StatusCode),
    /// The client went away, or was cut off for not reading, before all of the answer was on its way;
    /// with the answer's status, where it had begun.
    Aborted(Option<StatusCode>),
    /// The worker that held it died, or left before all of the answer was on its way; likewise.
    Lost(Option<StatusCode>),
}

impl Outcome {
    /// Returns true if it was answered with 2xx or 3xx.
    pub(crate) fn is_fine(self) -> bool {
        match self {
            Self::Status(status) | Self::Drained(status) => {
                status.is_success() || status.is_redirection()
            }
            Self::Unread(_) | Self::Aborted(_) | Self::Lost(_) => false,
        }
    }

    /// The status of an answer that was sent whole.
    pub(crate) fn answered(self) -> Option<StatusCode> {
        match self {
            Self::Status(status) | Self::Unread(status) | Self::Drained(status) => Some(status),
            Self::Aborted(_) | Self::Lost(_) => None,
        }
    }

    /// The status, if there ever was one.
    pub(crate) fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) | Self::Drained(status) | Self::Unread(status) => {
                Some(status.as_u16())
            }
            Self::Aborted(status) | Self::Lost(status) => status.map(|status| status.as_u16()),
        }
    }

    /// The word for it in `%({outcome}e)s` and in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Status(_) => "ok",
            Self::Drained(_) => "drained",
            Self::Unread(_) => "unread",
            Self::Aborted(_) => "aborted",
            Self::Lost(_) => "lost",
        }
    }
}

/// The values of the fields with this name.
pub(super) fn values<'a>(fields: &'a [Field], name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(it, _)| it == name).map(|(_, value)| value.as_bytes())
}

impl Record<'_> {
    /// Method, target and protocol, where they are known.
    pub(crate) fn request_line(&self) -> Option<(&str, &Uri, &'static str)> {
        match self.outcome {
            Outcome::Unread(_) => None,
            Outcome::Status(_) | Outcome::Drained(_) | Outcome::Aborted(_) | Outcome::Lost(_) => {
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

    /// Returns its duration, in microseconds.
    pub(super) fn micros(&self) -> u64 {
        micros(self.elapsed)
    }
}

/// Whole microseconds.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
