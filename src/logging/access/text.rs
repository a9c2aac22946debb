//! Access lines as text, after gunicorn's atoms.
//!
//! This runs once a request: it copies into a buffer that is there already, allocates nothing, and
//! asks the system for nothing.
//!
//! # Where gunicorn's own output is kept and where it is not
//! - `U` is the path as it was sent; gunicorn decodes its percent signs, which lets a request put
//!   anything into the line.
//! - `b` is `-` for an empty body, as gunicorn's documentation says (its code writes 0).
//! - `t` is when the request came, as the documentation says (the code takes the time of logging).
//! - `u` is `-` unless the credentials are Base64 of UTF-8 with a colon: what has no colon is
//!   likely a secret. A space in it is `\x20`, for it stands unquoted in the default format.
//! - A header field that was sent several times is written as one, joined by `, ` (RFC 9110,
//!   section 5.3); gunicorn writes the last.

use std::io::Write as _;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderName, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Memory;
use super::record::{self, Field, Record};
use crate::access_format::Step;
use crate::access_format::escape::{self, CUT};

/// Bytes of the longest credentials that are looked at for a user's name.
const CREDENTIALS_MAX: usize = 512;

/// Appends one line without its newline; no value in it has more than `value_max` bytes.
pub(super) fn write(
    steps: &[Step],
    record: &Record<'_>,
    memory: &mut Memory,
    value_max: usize,
    out: &mut Vec<u8>,
) {
    let mut line = Line { out, value_max };
    for step in steps {
        line.step(step, record, memory);
    }
}

/// The user of `Authorization: Basic` (RFC 7617), decoded into `room`.
pub(super) fn user<'a>(
    headers: &[Field],
    room: &'a mut Option<[u8; CREDENTIALS_MAX]>,
) -> Option<&'a str> {
    let value = record::values(headers, &AUTHORIZATION).next()?;
    let (scheme, encoded) = value.split_at_checked("basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let room = room.insert([0; CREDENTIALS_MAX]);
    let length = STANDARD.decode_slice(encoded.trim_ascii(), &mut room[..]).ok()?;
    let (user, _) = std::str::from_utf8(&room[..length]).ok()?.split_once(':')?;
    (!user.is_empty()).then_some(user)
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    value_max: usize,
}

impl Line<'_> {
    fn step(&mut self, step: &Step, record: &Record<'_>, memory: &mut Memory) {
        let line = || record.request_line();
        match step {
            Step::Literal(text) => self.out.extend_from_slice(text),
            Step::Remote => match record.remote {
                Some(address) => self.out.extend_from_slice(memory.address.text(address)),
                None => self.dash(),
            },
            Step::User => match user(record.request_headers, &mut None) {
                Some(user) => self.cut(user.as_bytes(), escape::word),
                None => self.dash(),
            },
            Step::Date => {
                let (second, _) = memory.clock.at(record.started);
                self.out.extend_from_slice(second.common.as_bytes());
            }
            Step::RequestLine => self.request_line(record),
            Step::Method => self.known(line().map(|(method, _, _)| method)),
            Step::Target => match line() {
                Some((_, target, _)) => self.target(target),
                None => self.dash(),
            },
            Step::Path => self.known(line().map(|(_, target, _)| target.path())),
            Step::Query => self.known(line().map(|(_, target, _)| target.query().unwrap_or(""))),
            Step::Protocol => self.known(line().map(|(_, _, protocol)| protocol)),
            Step::Status => match record.outcome.status() {
                Some(status) => self.number(status),
                None => self.dash(),
            },
            Step::BytesOrDash if record.bytes == 0 => self.dash(),
            Step::Bytes | Step::BytesOrDash => self.number(record.bytes),
            Step::Seconds => self.number(record.elapsed.as_secs()),
            Step::Millis => self.number(record.micros() / 1000),
            Step::Micros => self.number(record.micros()),
            Step::DecimalSeconds => self.seconds(record.elapsed),
            Step::QueueWait => match record.queue_wait {
                Some(wait) => self.seconds(wait),
                None => self.dash(),
            },
            Step::Pid => {
                self.out.push(b'<');
                self.number(record.pid);
                self.out.push(b'>');
            }
            Step::RequestHeader(name) => self.header(record.request_headers, name),
            Step::ResponseHeader(name) => self.header(record.response_headers, name),
            Step::RequestId => match record.request_id {
                Some(id) => self.value(id),
                None => self.dash(),
            },
            Step::Slot => self.number(record.slot.number()),
            Step::Generation => self.number(record.generation.number()),
            Step::Scheme => self.value(record.scheme.as_bytes()),
            Step::Listener => self.known(record.listener),
            Step::ClientCertificate => self.known(record.client_certificate),
            Step::Outcome => self.out.extend_from_slice(record.outcome.word().as_bytes()),
        }
    }

    fn request_line(&mut self, record: &Record<'_>) {
        let Some((method, target, protocol)) = record.request_line() else {
            return self.dash();
        };
        self.value(method.as_bytes());
        self.out.push(b' ');
        self.target(target);
        self.out.push(b' ');
        self.out.extend_from_slice(protocol.as_bytes());
    }

    fn known(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.value(text.as_bytes()),
            None => self.dash(),
        }
    }

    /// The target as the client wrote it: a path nearly always, an address for a proxy's sake else.
    fn target(&mut self, target: &Uri) {
        match (target.scheme_str(), target.authority()) {
            (None, None) => match target.path_and_query() {
                Some(path) => self.value(path.as_str().as_bytes()),
                None => self.value(target.path().as_bytes()),
            },
            (Some(_), _) | (_, Some(_)) => self.whole_target(target),
        }
    }

    /// A target with an authority, which is in pieces that share the room of one value.
    fn whole_target(&mut self, target: &Uri) {
        let (colon, authority) = match (target.scheme_str(), target.authority()) {
            (Some(_), Some(authority)) => ("://", authority.as_str()),
            (None, Some(authority)) => ("", authority.as_str()),
            (_, None) => ("", ""),
        };
        let path = target.path_and_query().map_or("", |path| path.as_str());
        let mut room = self.value_max;
        for piece in [target.scheme_str().unwrap_or_default(), colon, authority, path] {
            if !self.piece(piece.as_bytes(), &mut room) {
                return;
            }
        }
    }

    fn header(&mut self, headers: &[Field], name: &HeaderName) {
        let mut values = record::values(headers, name);
        let Some(first) = values.next() else {
            return self.dash();
        };
        let mut room = self.value_max;
        if !self.piece(first, &mut room) {
            return;
        }
        for value in values {
            if !self.piece(b", ", &mut room) || !self.piece(value, &mut room) {
                return;
            }
        }
    }

    /// Part of a value: takes its length from the room that is left, and says whether it had it.
    fn piece(&mut self, bytes: &[u8], room: &mut usize) -> bool {
        let (bytes, was_cut) = escape::cut(bytes, *room);
        *room -= bytes.len();
        escape::text(bytes, self.out);
        if was_cut {
            self.out.extend_from_slice(CUT.as_bytes());
        }
        !was_cut
    }

    fn value(&mut self, bytes: &[u8]) {
        self.cut(bytes, escape::text);
    }

    fn cut(&mut self, bytes: &[u8], write: impl FnOnce(&[u8], &mut Vec<u8>)) {
        let (bytes, was_cut) = escape::cut(bytes, self.value_max);
        write(bytes, self.out);
        if was_cut {
            self.out.extend_from_slice(CUT.as_bytes());
        }
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn seconds(&mut self, span: Duration) {
        let seconds = span.as_secs();
        let micros = span.subsec_micros();
        write!(self.out, "{seconds}.{micros:06}").expect("a buffer in memory takes every byte");
    }

    fn dash(&mut self) {
        self.out.push(b'-');
    }
}
