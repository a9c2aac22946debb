//! The error log: `tracing` events as lines of gunicorn's shape, or as JSON.
//!
//! ```text
//! [2024-03-21 10:26:38 +0000] [7] [INFO] worker booted slot=2
//! {"time":"2024-03-21T10:26:38.042+00:00","pid":7,"level":"INFO","message":"worker booted",…}
//! ```
//! An event's own fields come first, then those of the spans around it, the inner ones first; a
//! name stands once. In JSON a field called `time`, `pid`, `level` or `message` gets a `_` behind.
//!
//! # Levels
//! `tracing` has no CRITICAL: an error with the field `critical = true` is one. Its TRACE is never
//! written, as gunicorn knows nothing below DEBUG.
//!
//! At `debug` everything is written but what the libraries below us say to themselves ([`QUIET`]):
//! one request makes dozens of such lines, and none of them is about ferricorn or the application.
//!
//! The trap: the `Display` of an application's field may itself log. So the fields are gathered
//! before anything is locked.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use tracing::metadata::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::clock::Clock;
use super::escape::{CUT, JSON_GROWTH, JsonBytes, OneLine, OneLineJson};
use super::fields::{CRITICAL, Fields, Value};
use super::format::LINE_MAX;
use crate::config::{Level, LogFormat};

/// Libraries whose events are written from `info` on only, by the first part of their targets.
const QUIET: [&str; 14] = [
    "axum",
    "axum_core",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "rustls",
    "sqlx",
    "sqlx_core",
    "sqlx_mysql",
    "sqlx_postgres",
    "tokio",
    "tokio_util",
    "tower",
];

/// The least severe level that is written, as a number.
///
/// ORDERING: relaxed, for no other memory is read by it; an event that races with a reload is
/// judged by one level or the other.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets the least severe level that is written, now and for every subscriber that is there.
pub(super) fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

fn threshold() -> Level {
    let stored = LEVEL.load(Ordering::Relaxed);
    [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical]
        .into_iter()
        .find(|level| *level as u8 == stored)
        .unwrap_or(Level::Info)
}

/// One line of the error log before it has a shape.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) level: Level,
    pub(super) fields: Fields,
}

/// Hands the events that are severe enough to a function.
#[derive(Debug)]
pub(super) struct ErrorLayer {
    pub(super) write: fn(&Entry),
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ErrorLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if may_be_written(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        may_be_written(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match threshold() {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warning => LevelFilter::WARN,
            Level::Error | Level::Critical => LevelFilter::ERROR,
        })
    }

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
        if level < threshold() {
            return;
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_missing(outer);
            }
        }
        (self.write)(&Entry { level, fields });
    }
}

/// Whether an event or a span from this place in the code can be severe enough.
fn may_be_written(metadata: &Metadata<'_>) -> bool {
    if *metadata.level() == tracing::Level::TRACE {
        return false;
    }
    let level = level_of(metadata);
    let may_be_critical = level == Level::Error && metadata.fields().field(CRITICAL).is_some();
    let library = metadata.target().split("::").next().unwrap_or_default();
    let least = match threshold() {
        Level::Debug if QUIET.contains(&library) => Level::Info,
        threshold => threshold,
    };
    level >= least || may_be_critical
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

    /// Appends one line with its newline, at most [`LINE_MAX`] bytes of it.
    pub(super) fn write(&mut self, time: SystemTime, pid: u32, entry: &Entry, out: &mut Vec<u8>) {
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

fn text(head: &str, entry: &Entry) -> Vec<u8> {
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

fn json(time: &str, pid: u32, entry: &Entry, value_max: usize) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    let write = |line: &mut Vec<u8>| {
        let mut serializer = serde_json::Serializer::with_formatter(line, OneLineJson);
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("time", time)?;
        object.serialize_entry("pid", &pid)?;
        object.serialize_entry("level", name(entry.level))?;
        let message = entry.fields.message().as_bytes();
        object.serialize_entry("message", &JsonBytes { bytes: message, max: value_max })?;
        for (name, value) in entry.fields.iter() {
            let taken = matches!(name, "time" | "pid" | "level" | "message");
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

/// How many bytes each text of a JSON line may have, so that all of them fit.
fn value_max(entry: &Entry) -> usize {
    let frame: usize = entry.fields.iter().map(|(name, _)| name.len() + 40).sum::<usize>() + 256;
    let values = entry.fields.iter().count() + 1;
    let room = LINE_MAX.saturating_sub(frame) / values;
    room.saturating_sub(CUT.len()) / JSON_GROWTH
}

#[cfg(test)]
#[path = "error_log_tests.rs"]
mod tests;
