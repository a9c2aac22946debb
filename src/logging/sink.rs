//! Where lines go: the one door between those who write lines and what becomes of them.
//!
//! Each process has a buffer for each target. Both logs share one buffer when they have one target,
//! so that the order in which lines were written is the order in which they are read. Nothing here
//! waits, sleeps or fails its caller: what cannot be written stays, up to a limit, and is dropped
//! and counted beyond it. (A target that cannot be told not to block still makes its writer wait:
//! see [`super::target`].)
//!
//! # Why
//! The rest of ferricorn knows the methods of [`Sink`] and nothing else of how lines travel, so
//! that a process that owns the files, with rings in shared memory before it, can take this place.
//!
//! The trap: a fork copies the buffers. The parent empties them before it ([`Sink::flush`]) and the
//! child forgets what could not be written ([`Sink::forget`]); otherwise it would be written twice.

use std::io;
use std::time::{Duration, Instant};

use super::lines::{Lines, Lost, Written};
use super::target::Output;
use crate::config::{Log, LogTarget, WhenFull};
use crate::sys::clock;

/// How long an access line may wait while others come.
const AGE_MAX: Duration = Duration::from_millis(100);
/// Bytes that may wait while nobody reads: some ten thousand access lines.
const ROOM: usize = 1024 * 1024;
/// Bytes that only error lines may take: when access lines have filled the rest, the errors that
/// tell why are still there to be read.
const ROOM_FOR_ERRORS: usize = 256 * 1024;

/// The targets of both logs.
#[derive(Debug)]
pub(super) struct Sink {
    streams: Vec<Stream>,
    /// Places in `streams`; the same one when both logs have the same target.
    access: Option<usize>,
    error: Option<usize>,
    notices: Vec<Notice>,
}

#[derive(Debug)]
struct Stream {
    target: LogTarget,
    when_full: WhenFull,
    output: Output,
    lines: Lines,
}

/// Something about the log itself that has to be said in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// The target that it is about.
    pub(super) target: String,
    pub(super) news: News,
}

/// What happened to a target.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It cannot be written to; lines are lost from now on.
    Failing(String),
    /// It can be written to again; these lines are lost.
    Dropped {
        /// How many.
        lines: u64,
        /// Over which time.
        span: Duration,
        /// Why.
        cause: String,
    },
}

impl Sink {
    /// No target: every line vanishes.
    pub(super) const OFF: Self =
        Self { streams: Vec::new(), access: None, error: None, notices: Vec::new() };

    /// Takes other targets. Those that stay the same stay open, with what waits for them.
    ///
    /// # Errors
    /// When a target cannot be opened: then nothing has changed.
    pub(super) fn set_targets(&mut self, log: &Log) -> io::Result<()> {
        let mut opened = Vec::new();
        for (name, target) in [("error", &log.error), ("access", &log.access)] {
            let is_here = |stream: &Stream| stream.is_for(target, log.when_full);
            if self.streams.iter().any(is_here) || opened.iter().any(is_here) {
                continue;
            }
            let output = Output::open(target, log.when_full)
                .map_err(|error| failure(&format!("open the {name} log"), target, &error))?;
            opened.extend(output.map(|output| Stream {
                target: target.clone(),
                when_full: log.when_full,
                output,
                lines: Lines::EMPTY,
            }));
        }
        self.flush();
        let is_wanted = |stream: &mut Stream| {
            [&log.access, &log.error].iter().any(|target| stream.is_for(target, log.when_full))
        };
        for mut left in self.streams.extract_if(.., |stream| !is_wanted(stream)) {
            left.lines.abandon(clock::now(), "another target has taken its place");
            let lost = left.lines.take_lost().map(News::dropped);
            self.notices.extend(lost.map(|news| Notice { target: name(&left.target), news }));
        }
        self.streams.append(&mut opened);
        let place = |target: &_| self.streams.iter().position(|stream| stream.target == *target);
        (self.access, self.error) = (place(&log.access), place(&log.error));
        Ok(())
    }

    /// Opens the files again by their paths, after somebody has moved them. One that cannot be
    /// opened stays as it was.
    ///
    /// # Errors
    /// When a file could not be opened; the others have been.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.flush();
        let mut result = Ok(());
        for stream in &mut self.streams {
            match &stream.target {
                LogTarget::Off | LogTarget::Stdout => {}
                LogTarget::File(path) => match Output::open_path(path, stream.when_full) {
                    Ok(output) => stream.output = output,
                    Err(error) => {
                        result = Err(failure("reopen the log", &stream.target, &error));
                    }
                },
            }
        }
        result
    }

    /// Whether access lines go anywhere.
    pub(super) fn has_access(&self) -> bool {
        self.access.is_some()
    }

    /// Adds an access line; it is written later, with others.
    pub(super) fn access(&mut self, now: Instant, fill: impl FnOnce(&mut Vec<u8>)) {
        let Some(place) = self.access else { return };
        let stream = &mut self.streams[place];
        stream.lines.add(now, ROOM, fill);
        let age = stream.lines.since().map_or(Duration::ZERO, |since| now.duration_since(since));
        let (waiting, batch_max) = (stream.lines.waiting(), stream.output.batch_max);
        if age >= AGE_MAX {
            self.write(place, 0);
        } else if waiting > batch_max {
            self.write(place, batch_max);
        }
    }

    /// Adds an error line and writes it, after the lines that were added before it.
    pub(super) fn error(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let Some(place) = self.error else { return };
        self.add_error(place, fill);
        self.write(place, 0);
    }

    /// Writes what waits, as far as the targets take it.
    pub(super) fn flush(&mut self) {
        for place in 0..self.streams.len() {
            self.write(place, 0);
        }
    }

    /// Whether lines wait for a target that does not take them.
    pub(super) fn has_pending(&self) -> bool {
        self.streams.iter().any(|stream| stream.lines.waiting() > 0)
    }

    /// Forgets what waits without writing it; for the child of a fork, whose parent writes it.
    pub(super) fn forget(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.lines.forget());
        self.notices.clear();
    }

    /// What has to be said about the log itself; give it back with [`Sink::say`].
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Writes a notice to the error log, or, when there is none, to what there is.
    pub(super) fn say(&mut self, notice: &Notice, fill: impl FnOnce(&mut Vec<u8>)) {
        let Some(place) = self.error.or(self.access) else {
            return;
        };
        self.add_error(place, fill);
        match &notice.news {
            News::Failing(_) => {}
            News::Dropped { lines, .. } => self.streams[place].lines.account(*lines),
        }
        self.write(place, 0);
    }

    fn add_error(&mut self, place: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        self.streams[place].lines.add(clock::now(), ROOM + ROOM_FOR_ERRORS, fill);
    }

    /// Writes until at most `leave` bytes wait, and notes what there is to say of it.
    fn write(&mut self, place: usize, leave: usize) {
        let stream = &mut self.streams[place];
        let was_whole = !stream.lines.has_lost();
        let batch_max = stream.output.batch_max;
        let written = stream.lines.write(&mut stream.output, batch_max, leave, clock::now);
        let news = match written {
            // Half the room must be free before lines are expected to fit again: otherwise a slow
            // reader would be given a notice for every line.
            Written::Some if stream.lines.waiting() <= ROOM / 2 => {
                stream.lines.take_lost().map(News::dropped)
            }
            // Said once, and only where it can be read: in another target than the one that fails.
            Written::Failed(error) if was_whole && self.error.is_some_and(|it| it != place) => {
                Some(News::Failing(error.to_string()))
            }
            Written::Nothing | Written::Some | Written::Failed(_) => None,
        };
        let target = || name(&self.streams[place].target);
        self.notices.extend(news.map(|news| Notice { target: target(), news }));
    }
}

impl News {
    fn dropped(lost: Lost) -> Self {
        let span = clock::now().duration_since(lost.since);
        Self::Dropped { lines: lost.lines, span, cause: lost.cause }
    }
}

impl Stream {
    fn is_for(&self, target: &LogTarget, when_full: WhenFull) -> bool {
        self.target == *target && self.when_full == when_full
    }
}

/// What a target is called in messages.
fn name(target: &LogTarget) -> String {
    match target {
        LogTarget::Off => "nowhere".to_owned(),
        LogTarget::Stdout => "stdout".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    }
}

fn failure(action: &str, target: &LogTarget, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("failed to {action} {}: {error}", name(target)))
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
