//! The access log and the error log.
//!
//! ```text
//! Record ── AccessWriter (format, text, json) ──┐
//!                                               ├── Sink (lines, target) ── stdout, files
//! tracing ── ErrorLayer ── ErrorWriter ─────────┘
//! ```
//! [`install`] is called once, by the master before its first fork: the subscriber and the open
//! files are every child's from then on. [`apply`] is called with each new configuration.
//!
//! # Why a mutex is safe over `fork`
//! A mutex that is locked in the moment of a fork stays locked in the child for ever. This one is
//! held only while a line is formatted and written, nothing forks meanwhile, and the master, which
//! alone forks, has one thread. The buffers behind it are copied by a fork like all memory:
//! [`before_fork`] empties them and [`after_fork`] makes the child forget the rest, so that no line
//! is written twice.

mod access;
mod clock;
mod error_log;
mod escape;
mod fields;
mod format;
mod json;
mod lines;
mod record;
mod ring;
mod sink;
mod target;
mod text;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

pub use access::AccessWriter;
pub(crate) use format::NamedFields;
pub use format::{AccessFormat, FormatError};
pub use record::{Outcome, Record};

use self::clock::Clock;
use self::error_log::{Entry, ErrorLayer, ErrorWriter};
use self::fields::{Fields, Value};
use self::sink::{News, Notice, Sink};
use crate::config::{Level, Log};
use crate::sys;

/// The logs of this process.
static LOGS: Mutex<Logs> = Mutex::new(Logs { access: None, error: None, sink: Sink::OFF });

struct Logs {
    access: Option<AccessWriter>,
    error: Option<ErrorWriter>,
    sink: Sink,
}

/// Opens the logs and sends `tracing` to the error log; once, before the first fork.
///
/// An application that has set a `tracing` subscriber of its own keeps it: its events are its own
/// then, and ferricorn's are among them.
///
/// # Errors
/// As [`apply`].
pub(crate) fn install(log: &Log) -> io::Result<()> {
    apply(log)?;
    let subscriber = Registry::default().with(ErrorLayer { write: error });
    // It fails when there is one already: ours of an earlier call, or the application's.
    let _ = tracing::subscriber::set_global_default(subscriber);
    error_log::set_level(log.level);
    Ok(())
}

/// Takes other targets, level and formats. Targets that stay the same stay open.
///
/// # Errors
/// When a target cannot be opened or the access format is wrong: then nothing has changed.
pub(crate) fn apply(log: &Log) -> io::Result<()> {
    let format = AccessFormat::compile(&log.access_format).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("log.access_format: {error}"))
    })?;
    {
        let mut logs = lock();
        logs.sink.set_targets(log)?;
        logs.access = Some(AccessWriter::new(format));
        logs.error = Some(ErrorWriter::new(log.format, Clock::local()));
        logs.say_notices();
    }
    // Not under the lock: it asks the subscriber about every place in the code that logs.
    error_log::set_level(log.level);
    Ok(())
}

/// Opens log files again by their paths, after a rotation has moved them.
///
/// # Errors
/// When a file cannot be opened; it stays as it was, and the others have been opened.
pub(crate) fn reopen() -> io::Result<()> {
    let mut logs = lock();
    let result = logs.sink.reopen();
    logs.say_notices();
    result
}

/// Writes an access line, now or within a moment. `now` is when the request ended.
pub(crate) fn access(now: Instant, record: &Record<'_>) {
    let mut logs = lock();
    let Logs { access: Some(writer), sink, .. } = &mut *logs else {
        return;
    };
    sink.access(now, |out| writer.write(record, out));
    logs.say_notices();
}

/// The header fields that the access log names: what a worker must keep of a request until it ends.
/// None when there is no access log. Ask again after [`apply`].
pub(crate) fn named_fields() -> NamedFields {
    let logs = lock();
    match &logs.access {
        Some(writer) if logs.sink.has_access() => writer.fields(),
        Some(_) | None => NamedFields::default(),
    }
}

/// Writes the lines that wait, as far as the targets take them. Before a process sleeps or ends.
pub(crate) fn flush() {
    let mut logs = lock();
    logs.sink.flush();
    logs.say_notices();
}

/// Whether lines wait to be written. After a [`flush`] that is so when a target does not take them
/// now: who is about to end may wait a little and flush again.
pub(crate) fn has_pending() -> bool {
    lock().sink.has_pending()
}

/// To be called before each fork: the child shall find no line to write.
pub(crate) fn before_fork() {
    flush();
}

/// To be called in each child: forgets the lines that its parent could not write.
pub(crate) fn after_fork() {
    lock().sink.forget();
}

/// What is wrong with an access format; `None` when nothing is.
pub(crate) fn access_format_error(text: &str) -> Option<String> {
    AccessFormat::compile(text).err().map(|error| error.to_string())
}

fn lock() -> MutexGuard<'static, Logs> {
    // A panic while a line was made leaves a part of it, which the next line clears away.
    LOGS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(entry: &Entry) {
    let mut logs = lock();
    let Logs { error: Some(writer), sink, .. } = &mut *logs else {
        return;
    };
    sink.error(|out| writer.write(sys::clock::wall(), std::process::id(), entry, out));
    logs.say_notices();
}

impl Logs {
    /// Says in the log what happened to the log.
    fn say_notices(&mut self) {
        let Some(writer) = &mut self.error else {
            return;
        };
        for notice in self.sink.take_notices() {
            let entry = entry_for(&notice);
            self.sink.say(&notice, |out| {
                writer.write(sys::clock::wall(), std::process::id(), &entry, out);
            });
        }
    }
}

fn entry_for(notice: &Notice) -> Entry {
    let target = ("target", Value::Text(notice.target.clone()));
    let (message, values) = match &notice.news {
        News::Failing(cause) => (
            "failed to write to a log; its lines are dropped until it can be written to again",
            vec![target, ("cause", Value::Text(cause.clone()))],
        ),
        News::Dropped { lines, span, cause } => {
            let seconds = (span.as_secs_f64() * 1000.0).round() / 1000.0;
            (
                "log lines were dropped",
                vec![
                    target,
                    ("lines", Value::Unsigned(*lines)),
                    ("seconds", Value::Float(seconds)),
                    ("cause", Value::Text(cause.clone())),
                ],
            )
        }
    };
    Entry { level: Level::Warning, fields: Fields::new(message, values) }
}

#[cfg(test)]
mod tests;
