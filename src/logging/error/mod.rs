//! The error log: `tracing` events as lines of gunicorn's shape, or as JSON.
//!
//! ```text
//! [2024-03-21 10:26:38 +0000] [7] [INFO] worker booted slot=2
//! {"time":"2024-03-21T10:26:38.042+00:00","pid":7,"level":"INFO","message":"worker booted",…}
//! ```
//! An event's own fields come first, then those of the spans around it, the inner ones first; a
//! name stands once. In JSON a field called `time`, `pid`, `level` or `message` gets a `_` behind.
//!
//! # Names
//! Events of ferricorn's own are made by [`emit`](super::emit): JSON lines have their name as `event`
//! and their fields typed, text lines have the message alone, which says the same. An application names
//! its events by a field called `event`.
//!
//! # Levels
//! `tracing` has no CRITICAL: an error with the field `critical = true` is one. Its TRACE is
//! called DEBUG, as gunicorn knows nothing below. [`levels`](levels) judges what is written.
//!
//! The trap: the `Display` of an application's field may itself log. So the fields are gathered
//! before anything is locked.

pub(super) mod chain;
mod fields;
pub(super) mod layers;
pub(super) mod levels;
pub(super) mod program;

use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use self::fields::{Fields, Value};
use super::clock::{Clock, Second};
use crate::access_format::LINE_MAX;
use crate::access_format::escape::{CUT, JSON_GROWTH, JsonBytes, OneLine, OneLineJson};
use crate::config::{Level, LogFormat};
use crate::log_event::{LogEvent, Severity};

/// One line of the error log before it has a shape.
#[derive(Clone, Debug)]
pub(super) struct ErrorLine {
    pub(super) level: Level,
    pub(super) fields: Fields,
}

impl ErrorLine {
    /// The line of an event of ferricorn's own that does not pass through `tracing`.
    pub(super) fn of(event: &dyn LogEvent) -> Self {
        let level = match event.severity() {
            Severity::Debug => Level::Debug,
            Severity::Info => Level::Info,
            Severity::Warning => Level::Warning,
            Severity::Error => Level::Error,
        };
        Self { level, fields: Fields::of(event) }
    }
}

/// Hands events to a function, with the fields of the spans around them.
#[derive(Debug)]
pub(super) struct ErrorLayer {
    pub(super) write: fn(&ErrorLine),
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ErrorLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut level = level_of(event.metadata());
        if level == Level::Error && fields.is_critical() {
            level = Level::Critical;
        }
        if level == Level::Error && levels::is_for_critical(event.metadata()) {
            return;
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_missing(outer);
            }
        }
        (self.write)(&ErrorLine { level, fields });
    }
}

fn level_of(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warning => "WARNING",
        Level::Error => "ERROR",
        Level::Critical => "CRITICAL",
    }
}

/// Turns entries into lines.
#[derive(Debug)]
pub(super) struct ErrorWriter {
    format: LogFormat,
    clock: Clock,
}

impl ErrorWriter {
    pub(super) fn new(format: LogFormat, clock: Clock) -> Self {
        Self { format, clock }
    }

    /// The shape of its lines, and a time as they have it.
    pub(super) fn at(&mut self, time: SystemTime) -> (LogFormat, (&Second, u32)) {
        (self.format, self.clock.at(time))
    }

    /// Appends one line with its newline, at most [`LINE_MAX`] bytes of it.
    pub(super) fn write(
        &mut self,
        time: SystemTime,
        pid: u32,
        entry: &ErrorLine,
        out: &mut Vec<u8>,
    ) {
        let (second, millis) = self.clock.at(time);
        let line = match self.format {
            LogFormat::Text => {
                let date = second.date_time.replace('T', " ");
                let offset = second.offset.replace(':', "");
                text(&format!("[{date} {offset}] [{pid}]"), entry)
            }
            LogFormat::Json => {
                let time = format!("{}.{millis:03}{}", second.date_time, second.offset);
                let line = json(&time, pid, entry, usize::MAX);
                if line.len() < LINE_MAX { line } else { json(&time, pid, entry, value_max(entry)) }
            }
        };
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
}

fn text(head: &str, entry: &ErrorLine) -> Vec<u8> {
    let mut line = format!("{head} [{}] {}", name(entry.level), OneLine(entry.fields.message()));
    for (name, value) in entry.fields.iter() {
        write!(line, " {name}={}", value.as_text()).expect("a string takes every text");
    }
    if line.len() >= LINE_MAX {
        line.truncate(line.floor_char_boundary(LINE_MAX - 1 - CUT.len()));
        line.push_str(CUT);
    }
    line.into_bytes()
}

fn json(time: &str, pid: u32, entry: &ErrorLine, value_max: usize) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    let write = |line: &mut Vec<u8>| {
        let mut serializer = serde_json::Serializer::with_formatter(line, OneLineJson);
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("time", time)?;
        object.serialize_entry("pid", &pid)?;
        object.serialize_entry("level", name(entry.level))?;
        if let Some(event) = entry.fields.event() {
            let bytes = event.as_bytes();
            object.serialize_entry("event", &JsonBytes { bytes, max: value_max })?;
        }
        let message = entry.fields.message().as_bytes();
        object.serialize_entry("message", &JsonBytes { bytes: message, max: value_max })?;
        for (name, value) in entry.fields.structured().chain(entry.fields.iter()) {
            let taken = TAKEN.contains(&name);
            object.serialize_key(&format_args!("{name}{}", if taken { "_" } else { "" }))?;
            match value {
                Value::Signed(number) => object.serialize_value(number)?,
                Value::Unsigned(number) => object.serialize_value(number)?,
                Value::Float(number) => object.serialize_value(number)?,
                Value::Bool(yes) => object.serialize_value(yes)?,
                Value::Text(text) => {
                    let bytes = text.as_bytes();
                    object.serialize_value(&JsonBytes { bytes, max: value_max })?;
                }
            }
        }
        object.end()
    };
    write(&mut line).expect("memory takes every byte, and every key is a string");
    line
}

/// Keys of a JSON line that are no fields.
const TAKEN: [&str; 4] = ["time", "pid", "level", "message"];

/// The number of bytes that each text of a JSON line may have, so that all of them fit.
fn value_max(entry: &ErrorLine) -> usize {
    let fields = || entry.fields.structured().chain(entry.fields.iter());
    let frame: usize = fields().map(|(name, _)| name.len() + 40).sum::<usize>() + 256;
    let values = fields().count() + 2;
    let room = LINE_MAX.saturating_sub(frame) / values;
    room.saturating_sub(CUT.len()) / JSON_GROWTH
}

#[cfg(test)]
mod tests;
