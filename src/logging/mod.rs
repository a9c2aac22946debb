//! The access log and the error log.
//!
//! ```text
//! Record ── AccessWriter (format, text, json) ──┐
//!                                               ├── Sink ── ring ┐
//! tracing ── ErrorLayer ── ErrorWriter ─────────┘                ├── logger ── Outlets ── stdout, files
//!                              … of every other process ── ring ┘
//! ```
//! Each process makes its own lines and puts them into its own ring; the logger alone opens, writes
//! and reopens what they go to. [`install`] is called once, by the master before its first fork: the
//! formats are every child's from then on, and each child is given a ring of its own ([`adopt`]), and
//! layers ([`set_global`]). [`apply`] is called with each new configuration.
//!
//! # Why a mutex is safe over `fork`
//! A mutex that is locked in the moment of a fork stays locked in the child for ever. This one is
//! held only while a line is formatted and copied, nothing forks meanwhile, and the master, which
//! alone forks, has one thread.

mod access;
mod clock;
mod error;
mod events;
pub(crate) mod journal;
mod lines;
mod naming;
mod output;
mod ring;

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use access::AccessWriter;
pub use access::record::{Field, Outcome, Record};
pub(crate) use error::chain::Chain;
pub use error::layers::{Layers, LogPiece, LogWriter};
pub(crate) use error::layers::{scope, set_global};
pub(crate) use error::program::Stream;
pub(crate) use events::LoggingEvent;
pub(crate) use lines::Lines;
pub(crate) use naming::foreign_name;
pub(crate) use output::Outlets;
pub(crate) use output::printer::Printer;
pub(crate) use ring::legacy::Legacy;
pub(crate) use ring::rings::{ChildStreams, HandedRings, MASTER, Ring, Rings};
pub(crate) use ring::{Consumer, Kind, Lost, Next, Rest};

use self::clock::Clock;
use self::error::program::ProgramLine;
use self::error::{ErrorLine, ErrorWriter, levels};
use self::output::sink::{self, Sink};
use self::output::target::{self, Output};
use self::ring::Full;
use crate::access_format::{AccessFormat, LINE_MAX, NamedFields};
use crate::config::{Log, LogTarget, Skip, WhenFull};
use crate::ids::Slot;
use crate::log_event::{LogEvent, Severity};
use crate::sys;
use crate::sys::fork::{self, SingleThreaded};
use crate::sys::identity::Identity;

/// The time that a line that waits for room (`when_full = "block"`) waits before it looks again.
const WAIT: Duration = Duration::from_millis(2);

/// The `tracing` target of ferricorn's own events.
const TARGET: &str = "ferricorn";

/// The permission of a line to go on waiting for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoomWait {
    Continue,
    /// It is dropped and counted.
    GiveUp,
}

/// The work that is done, again and again, while a line of this process waits for room.
type Waiting = Arc<dyn Fn() -> RoomWait + Send + Sync>;

/// The logs of this process.
static LOGS: Mutex<Logs> = Mutex::new(Logs {
    access: None,
    skip: Vec::new(),
    error: None,
    when_full: WhenFull::Drop,
    waiting: None,
    pid: 0,
    sink: Sink::Nowhere,
    line: Vec::new(),
});

struct Logs {
    access: Option<AccessWriter>,
    skip: Vec<Skip>,
    error: Option<ErrorWriter>,
    when_full: WhenFull,
    /// `None` in a process that must never wait.
    waiting: Option<Waiting>,
    /// Of this process: to ask for it is a system call.
    pid: u32,
    sink: Sink,
    /// The line that is being made.
    line: Vec<u8>,
}

/// Sends the lines of this process to a ring, and `tracing` to the error log and these layers; in the
/// master, before the first fork.
///
/// # Errors
/// As [`apply`]. Whether the targets can be opened is not asked: see [`check`].
pub(crate) fn install(log: &Log, ring: Ring, layers: Layers) -> io::Result<()> {
    apply(log)?;
    adopt(ring);
    scope(layers);
    if let Some(reason) =
        std::env::var(levels::VARIABLE).ok().and_then(|value| levels::error_in(&value))
    {
        emit(&LoggingEvent::Directives { reason });
    }
    Ok(())
}

/// Judges whether the logger will be able to write to these targets: opens them, and makes files, with
/// the rights that it will have.
///
/// # Errors
/// When one of them cannot be opened, in words.
pub(crate) fn check(alone: &SingleThreaded, log: &Log, identity: &Identity) -> Result<(), String> {
    if identity.ids() == (None, None) {
        return open_each(log);
    }
    fork::ask(alone, || {
        // Where that is refused, no process can begin, and each says so.
        identity.assume_for_files().map_or(Ok(()), |()| open_each(log))
    })
}

/// Opens these targets, and makes files, as the logger does.
///
/// # Errors
/// When one of them cannot be opened, in words.
pub(crate) fn open_each(log: &Log) -> Result<(), String> {
    for (name, target) in [("error", &log.error), ("access", &log.access)] {
        Output::open(target).map_err(|error| {
            let target = target::name(target);
            format!("failed to open the {name} log {target}: {error}")
        })?;
    }
    Ok(())
}

/// Takes other formats and another level for the lines of this process.
///
/// # Errors
/// When the access format is wrong: then nothing has changed.
pub(crate) fn apply(log: &Log) -> io::Result<()> {
    let format = AccessFormat::compile(&log.access_format).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("log.access_format: {error}"))
    })?;
    {
        let mut logs = lock();
        logs.access = (log.access != LogTarget::Off).then(|| AccessWriter::new(format));
        logs.error = (log.error != LogTarget::Off || log.access != LogTarget::Off)
            .then(|| ErrorWriter::new(log.format, Clock::local()));
        logs.skip = log.skip.clone();
        logs.when_full = log.when_full;
    }
    let directives = std::env::var(levels::VARIABLE).ok();
    // Not under the lock: it asks the subscriber about every place in the code that logs.
    levels::set(log.level, directives.as_deref());
    Ok(())
}

/// This process has a ring of its own from now on, and no layers of another one.
pub(crate) fn adopt(ring: Ring) {
    journal::keep_no_more();
    {
        let mut logs = lock();
        logs.pid = std::process::id();
        logs.sink = Sink::ring(ring);
    }
    scope(Layers::new());
}

/// There will be no logger: the lines of this process go to stderr, those that wait first.
pub(crate) fn spill(rings: &Rings) {
    rings.read_rest(|_, line| {
        // There is no log left for it.
        let _unsaid = sink::to_stderr(line);
    });
    lock().sink = Sink::Stderr;
}

/// Says on stderr, too, why there may be no logger.
pub(crate) fn say_aside(cause: String) {
    // There is no log left for it.
    let _unsaid = sink::to_stderr(&line_of(&LoggingEvent::Mute { cause }));
}

/// The logger has left: the lines of this process go to stderr from now on. Lines that wait still,
/// since it had to be killed, are counted, and those of which it had not told; where loggers kept
/// failing, lines go to stderr as far as that takes them.
pub(crate) fn leave(rings: &Rings, is_logger_failing: bool) {
    lock().sink = Sink::Stderr;
    let had_logger = rings.were_read() && !is_logger_failing;
    let mut lines = rings.legacy().untold.into_iter().map(|untold| untold.lines).sum();
    rings.read_rest(|next, line| match next {
        // They say why there never was a logger.
        Next::Line(_) if !had_logger && sink::to_stderr(line) => {}
        Next::Line(_) => lines += 1,
        Next::Lost(lost) => lines += lost.lines,
        Next::Nothing | Next::Corrupted { .. } => {}
    });
    if lines > 0 {
        // There is no log left for it.
        let _unsaid = sink::to_stderr(&line_of(&LoggingEvent::Unwritten { lines }));
    }
}

/// In the logger itself: it has no ring.
pub(crate) fn have_no_ring() {
    journal::keep_no_more();
    {
        let mut logs = lock();
        logs.pid = std::process::id();
        logs.sink = Sink::Stderr;
    }
    scope(Layers::new());
}

/// Lets access lines of this process wait for room, where the configuration wants that
/// (`when_full = "block"`); no other process does, least of all the master. The thread that has the
/// line is blocked meanwhile, and calls this every few milliseconds: for the signs of life that the
/// process gives otherwise, and to say when the wait has to end.
pub(crate) fn wait_for_room(waiting: impl Fn() -> RoomWait + Send + Sync + 'static) {
    lock().waiting = Some(Arc::new(waiting));
}

/// Logs an event of ferricorn's own. It passes through `tracing`, so that an application's own layers
/// see it, too: with its name, and with its fields in one.
pub(crate) fn emit(event: &dyn LogEvent) {
    journal::note(event);
    let name = event.name();
    let fields = event.fields();
    let fields: &(dyn Error + 'static) = &fields;
    match event.severity() {
        Severity::Debug => tracing::debug!(target: TARGET, event = name, fields, "{event}"),
        Severity::Info => tracing::info!(target: TARGET, event = name, fields, "{event}"),
        Severity::Warning => tracing::warn!(target: TARGET, event = name, fields, "{event}"),
        Severity::Error => tracing::error!(target: TARGET, event = name, fields, "{event}"),
    }
}

/// Writes a line of a program's output, whatever the level is.
pub(crate) fn output(slot: Slot, program: i32, stream: Stream, line: &[u8]) {
    lock().output(&ProgramLine { slot, program, stream, line });
}

/// Writes an access line. Before that `note` is told how far this process's ring has come, so that
/// a reader of the note after this process's death can tell whether the line was written, or counted
/// as lost ([`Rings::settled`]). While it waits for room there is nothing to be noted: other threads'
/// lines may come before it.
pub(crate) fn access(record: &Record<'_>, note: impl Fn(Option<u64>)) {
    loop {
        // Not under the lock: others may log meanwhile.
        let Err(waiting) = lock().access(record, &note) else { return };
        if waiting() == RoomWait::GiveUp {
            return lock().give_up(note);
        }
        sys::clock::nap(WAIT);
    }
}

/// The header fields that the access log names: what a worker must keep of a request until it ends.
/// None when there is no access log. Ask again after [`apply`].
pub(crate) fn named_fields() -> NamedFields {
    lock().access.as_ref().map(AccessWriter::fields).unwrap_or_default()
}

/// The line that tells something about the logs themselves.
pub(crate) fn line_of(event: &LoggingEvent) -> Vec<u8> {
    let mut line = Vec::new();
    let mut logs = lock();
    let pid = logs.pid;
    if let Some(writer) = &mut logs.error {
        writer.write(sys::clock::wall(), pid, &ErrorLine::of(event), &mut line);
    }
    line
}

fn lock() -> MutexGuard<'static, Logs> {
    // A panic while a line was made leaves a part of it, which the next line clears away.
    LOGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns true if this request leaves no line. One without a whole response leaves one.
fn is_skipped(rules: &[Skip], record: &Record<'_>) -> bool {
    let Some(status) = record.outcome.answered().filter(|_| !rules.is_empty()) else {
        return false;
    };
    let path = record.request_line().map(|(_, target, _)| target.path());
    rules.iter().any(|rule| rule.covers(path, status.as_u16()))
}

fn error(entry: &ErrorLine) {
    lock().error(entry);
}

impl Logs {
    /// # Errors
    /// When the line has to wait for room.
    fn access(&mut self, record: &Record<'_>, note: impl Fn(Option<u64>)) -> Result<(), Waiting> {
        let Some(writer) = &mut self.access else { return Ok(()) };
        if is_skipped(&self.skip, record) {
            return Ok(());
        }
        self.line.clear();
        writer.write(record, &mut self.line);
        note(self.sink.settled());
        if self.sink.send(Kind::Access, &self.line) == Err(Full) {
            match (self.when_full, &self.waiting) {
                (WhenFull::Block, Some(waiting)) => {
                    note(None);
                    return Err(Arc::clone(waiting));
                }
                (WhenFull::Block, None) | (WhenFull::Drop, _) => self.sink.drop_line(),
            }
        }
        Ok(())
    }

    /// The line has waited in vain.
    fn give_up(&mut self, note: impl Fn(Option<u64>)) {
        note(self.sink.settled());
        self.sink.drop_line();
    }

    /// Writes a piece that has its shape already.
    fn raw_error(&mut self, mut piece: Vec<u8>) {
        if self.error.is_none() {
            return;
        }
        if piece.last() != Some(&b'\n') {
            piece.push(b'\n');
        }
        if piece.len() > LINE_MAX {
            piece.truncate(LINE_MAX - 1);
            piece.push(b'\n');
        }
        if self.sink.send(Kind::Error, &piece) == Err(Full) {
            self.sink.drop_line();
        }
    }

    fn output(&mut self, line: &ProgramLine<'_>) {
        let Some(writer) = &mut self.error else { return };
        self.line.clear();
        writer.write_output(sys::clock::wall(), line, &mut self.line);
        if self.sink.send(Kind::Error, &self.line) == Err(Full) {
            self.sink.drop_line();
        }
    }

    /// Errors never wait: they have room of their own.
    fn error(&mut self, entry: &ErrorLine) {
        let Some(writer) = &mut self.error else { return };
        self.line.clear();
        writer.write(sys::clock::wall(), self.pid, entry, &mut self.line);
        if self.sink.send(Kind::Error, &self.line) == Err(Full) {
            self.sink.drop_line();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
