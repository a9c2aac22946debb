//! Access lines as JSON objects: typed (numbers are numbers, what is missing is `null`) and valid
//! whatever the client sent.
//!
//! Bytes that are not UTF-8 become U+FFFD; control characters become `\uHHHH`. A header field that
//! was sent several times is its first.
//!
//! # Why
//! The frame of an object never changes, so it is copied rather than serialized: a quarter of the
//! time that `serde_json` takes for the whole. It is asked for each string with anything but plain
//! ASCII in it, so that what is hard about JSON is its work.

use axum::http::HeaderName;
use axum::http::header::{REFERER, USER_AGENT};
use serde::Serialize as _;

use super::Memory;
use super::record::{Record, micros, values};
use super::text::user;
use crate::access_format::LINE_MAX;
use crate::access_format::escape::{self, CUT, JSON_GROWTH, JsonBytes, OneLineJson};
use crate::access_format::{TRACEPARENT, TraceParent};
use crate::logging::clock::Clock;

/// The values below whose length is the client's or the application's.
const VALUES: usize = 8;
/// More bytes than everything else in an object takes: names, punctuation, numbers, dates.
const FRAME_MAX: usize = 1280;
/// Bytes that each value of an object may have which would otherwise be too long.
pub(super) const VALUE_MAX: usize = ((LINE_MAX - FRAME_MAX) / VALUES - CUT.len()) / JSON_GROWTH;

/// Appends one object without a newline; no value in it has more than `value_max` bytes.
pub(super) fn write(record: &Record<'_>, memory: &mut Memory, value_max: usize, out: &mut Vec<u8>) {
    let mut object = Object { out, value_max };
    object.time(record, &mut memory.clock);
    match record.remote {
        Some(address) => {
            object.key(",\"remote\":\"");
            object.out.extend_from_slice(memory.address.text(address));
            object.key("\"");
        }
        None => object.key(",\"remote\":null"),
    }
    let mut room = None;
    let user = user(record.request_headers, &mut room);
    object.text(",\"user\":", user.map(str::as_bytes));
    let line = record.request_line();
    object.text(",\"method\":", line.map(|(method, _, _)| method.as_bytes()));
    object.text(",\"path\":", line.map(|(_, target, _)| target.path().as_bytes()));
    let query = line.and_then(|(_, target, _)| target.query());
    object.text(",\"query\":", query.map(str::as_bytes));
    object.text(",\"protocol\":", line.map(|(_, _, protocol)| protocol.as_bytes()));
    match record.outcome.status() {
        Some(status) => object.number(",\"status\":", status),
        None => object.key(",\"status\":null"),
    }
    object.text(",\"outcome\":", Some(record.outcome.word().as_bytes()));
    object.number(",\"bytes\":", record.bytes);
    let header = |name: HeaderName| values(record.request_headers, &name).next();
    object.text(",\"referer\":", header(REFERER));
    object.text(",\"user_agent\":", header(USER_AGENT));
    object.number(",\"duration_us\":", record.micros());
    match record.queue_wait {
        Some(wait) => object.number(",\"queue_wait_us\":", micros(wait)),
        None => object.key(",\"queue_wait_us\":null"),
    }
    object.number(",\"pid\":", record.pid);
    object.number(",\"slot\":", record.slot.number());
    object.number(",\"generation\":", record.generation.number());
    object.text(",\"request_id\":", record.request_id);
    let trace = header(TRACEPARENT).and_then(TraceParent::parse);
    object.text(",\"trace_id\":", trace.as_ref().map(|trace| &trace.trace_id[..]));
    object.text(",\"span_id\":", trace.as_ref().map(|trace| &trace.span_id[..]));
    object.text(",\"scheme\":", Some(record.scheme.as_bytes()));
    if let Some(name) = record.listener {
        object.text(",\"listener\":", Some(name.as_bytes()));
    }
    if let Some(subject) = record.client_certificate {
        object.text(",\"client_certificate\":", Some(subject.as_bytes()));
    }
    object.key("}");
}

struct Object<'a> {
    out: &'a mut Vec<u8>,
    value_max: usize,
}

impl Object<'_> {
    /// Opens the object with the date, as RFC 3339 has it.
    fn time(&mut self, record: &Record<'_>, clock: &mut Clock) {
        let (second, millis) = clock.at(record.started);
        self.key("{\"time\":\"");
        self.key(&second.date_time);
        // A thousand more is three digits behind the first, zeros included.
        self.key(".");
        self.key(&itoa::Buffer::new().format(millis + 1000)[1..]);
        self.key(&second.offset);
        self.key("\"");
    }

    fn key(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, key: &str, number: impl itoa::Integer) {
        self.key(key);
        self.key(itoa::Buffer::new().format(number));
    }

    fn text(&mut self, key: &str, bytes: Option<&[u8]>) {
        self.key(key);
        match bytes {
            None => self.key("null"),
            Some(bytes) if bytes.len() <= self.value_max && escape::is_plain(bytes) => {
                self.out.push(b'"');
                self.out.extend_from_slice(bytes);
                self.out.push(b'"');
            }
            Some(bytes) => {
                let value = JsonBytes { bytes, max: self.value_max };
                let mut serializer =
                    serde_json::Serializer::with_formatter(&mut *self.out, OneLineJson);
                value.serialize(&mut serializer).expect("memory takes every byte");
            }
        }
    }
}
