//! The targets that lines are written to, as the logger has them open: whole lines, in batches, and an
//! account of those that could not be written.
//!
//! Nothing here fails its caller. A target that fails has its lines dropped and counted; that is said
//! once where it can be read, and when the target can be written to again the number is said too.
//!
//! # Why
//! A write of at most 4096 bytes to a pipe is atomic (`PIPE_BUF`, pipe(7)): as long as each one holds
//! whole lines, no other process's output is in the middle of one. A longer line goes alone, so that it
//! can tear nothing but itself.
//!
//! The trap: a write may fail after part of a line. What is left of that line can't be taken back, so
//! a newline goes out before the next one: one broken line, never two lines in one.

pub(super) mod printer;
pub(super) mod sink;
pub(super) mod target;

use std::io;

use self::sink::to_stderr;
use self::target::{Output, PIPE_BATCH_MAX};
use super::LoggingEvent;
use super::ring::Kind;
use super::ring::legacy::Untold;
use crate::config::{Log, LogTarget};
use crate::time::Instant;

/// Bytes of memory that an outlet keeps for the next batch.
const BATCH_KEPT: usize = 1 << 20;

/// The targets of both logs.
#[derive(Debug)]
pub(crate) struct Outlets {
    outlets: Vec<Outlet>,
    /// Places in `outlets`; the same one when both logs have the same target.
    access: Option<usize>,
    error: Option<usize>,
}

#[derive(Debug)]
struct Outlet {
    target: LogTarget,
    /// `None` while it cannot be opened.
    output: Option<Output>,
    /// Whole lines, to be written.
    batch: Vec<u8>,
    /// Lines in the batch that speak of lost ones, by where they end, and of how many they speak: if
    /// such a line is lost too, so are they.
    accounts: Vec<(usize, u64)>,
    trouble: Option<Trouble>,
    reopening: Reopening,
    /// Lines that it has not taken and that are not counted yet.
    dropped: u64,
}

/// A target that cannot be written to, or could not.
#[derive(Debug)]
struct Trouble {
    stage: Stage,
    lines: u64,
    /// From the first failure to the last.
    since: Instant,
    until: Instant,
    cause: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is not logged yet.
    New,
    /// It is known.
    Told,
    /// It can be written to again, and that is not logged yet.
    Over,
}

/// The state of a file that is to be opened again after its rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reopening {
    Done,
    /// It could not be, and that was said.
    Due,
}

impl Outlets {
    /// Opens the targets. One that cannot be opened is tried again.
    pub(crate) fn open(log: &Log, now: Instant) -> Self {
        let mut outlets: Vec<Outlet> = Vec::new();
        for target in [&log.error, &log.access] {
            if *target != LogTarget::Off && !outlets.iter().any(|outlet| outlet.target == *target) {
                outlets.push(Outlet::new(target.clone(), now));
            }
        }
        let place = |target: &_| outlets.iter().position(|outlet| outlet.target == *target);
        let access = place(&log.access);
        let error = place(&log.error);
        Self { outlets, access, error }
    }

    /// The last line that was written may have been cut: begin with a newline.
    pub(crate) fn expect_cut(&mut self) {
        let outputs = self.outlets.iter_mut().filter_map(|outlet| outlet.output.as_mut());
        outputs.filter(|output| output.hides_cuts()).for_each(|output| output.is_mid_line = true);
    }

    /// Goes on with the counts of a predecessor that could not tell them.
    pub(crate) fn inherit(&mut self, untold: [Untold; 2], now: Instant) {
        let last = self.outlets.len().saturating_sub(1);
        for (place, untold) in untold.into_iter().enumerate().filter(|(_, it)| it.lines > 0) {
            // The configuration may name fewer targets by now.
            if let Some(outlet) = self.outlets.get_mut(place.min(last)) {
                outlet.inherit(untold, now);
            }
        }
    }

    /// The counts that are not told yet.
    pub(crate) fn untold(&self) -> [Untold; 2] {
        let untold = |outlet: &Outlet| {
            let trouble = outlet.trouble.as_ref()?;
            Some(Untold { lines: trouble.lines, since: trouble.since })
        };
        std::array::from_fn(|at| self.outlets.get(at).and_then(untold).unwrap_or_default())
    }

    /// Lines that the targets have not taken since this was called last: of the access log, and of an
    /// error log elsewhere.
    pub(crate) fn take_dropped(&mut self) -> [u64; 2] {
        let mut dropped = [0; 2];
        for (place, outlet) in self.outlets.iter_mut().enumerate() {
            let of_error = Some(place) != self.access;
            dropped[usize::from(of_error)] += std::mem::take(&mut outlet.dropped);
        }
        dropped
    }

    /// Adds a line, to be written with others.
    pub(crate) fn add(&mut self, kind: Kind, line: &[u8]) {
        let place = match kind {
            Kind::Access => self.access,
            Kind::Error => self.error,
        };
        if let Some(place) = place {
            self.outlets[place].add(line);
        }
    }

    /// Adds a line that tells of something, in its place among the others.
    /// Returns false where there is no log.
    pub(crate) fn add_event(&mut self, event: &LoggingEvent) -> bool {
        let Some(place) = self.for_events() else { return false };
        let outlet = &mut self.outlets[place];
        outlet.add(&super::line_of(event));
        if let LoggingEvent::Unread { lines, .. } = event {
            outlet.accounts.push((outlet.batch.len(), *lines));
        }
        true
    }

    /// Returns true if the death of this process during the next [`Outlets::write`] could leave a part
    /// of a line, where it could not be told from a line.
    pub(crate) fn may_be_cut(&self) -> bool {
        self.outlets.iter().any(|outlet| {
            outlet.output.as_ref().is_some_and(Output::hides_cuts)
                && outlet.batch.len() > PIPE_BATCH_MAX
                && chunks(&outlet.batch, PIPE_BATCH_MAX).any(|chunk| chunk.len() > PIPE_BATCH_MAX)
        })
    }

    /// Writes everything that was added; what a target does not take is lost.
    pub(crate) fn write(&mut self, now: Instant) {
        for outlet in &mut self.outlets {
            outlet.write(now);
        }
        self.tell(now);
    }

    /// Opens the files again by their paths, after they were moved. One that cannot be opened
    /// is written to where it is, and tried again. Returns true if each of them was opened.
    pub(crate) fn reopen(&mut self) -> bool {
        let mut is_done = true;
        for place in 0..self.outlets.len() {
            let Err(error) = self.outlets[place].reopen() else { continue };
            is_done = false;
            if self.outlets[place].reopening == Reopening::Done {
                self.outlets[place].reopening = Reopening::Due;
                let target = target::name(&self.outlets[place].target);
                self.say(&LoggingEvent::NotReopened { target, cause: error.to_string() }, None);
            }
        }
        is_done
    }

    /// Returns true if something has to be tried again, though no line may come.
    pub(crate) fn has_trouble(&self) -> bool {
        self.outlets
            .iter()
            .any(|outlet| outlet.trouble.is_some() || outlet.reopening == Reopening::Due)
    }

    /// Tries again what has failed.
    pub(crate) fn retry(&mut self, now: Instant) {
        let for_events = self.for_events();
        for (place, outlet) in self.outlets.iter_mut().enumerate() {
            if outlet.reopening == Reopening::Due && outlet.reopen().is_ok() {
                outlet.reopening = Reopening::Done;
            }
            // An open target is tried with the next event, if events go there, or with the next line.
            let may_be_over = match outlet.output {
                None => outlet.try_open().is_ok(),
                Some(_) => Some(place) == for_events,
            };
            if let Some(trouble) = outlet.trouble.as_mut().filter(|_| may_be_over) {
                trouble.stage = Stage::Over;
            }
        }
        self.tell(now);
    }

    /// Tells every count, wherever it can be read: it is the last time.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.retry(now);
        for place in 0..self.outlets.len() {
            if let Some(event) = self.outlets[place].loss() {
                self.say(&event, Some(place));
            }
        }
        self.outlets.iter_mut().for_each(|outlet| outlet.trouble = None);
    }

    /// Says what has to be said of the targets themselves.
    fn tell(&mut self, now: Instant) {
        for place in 0..self.outlets.len() {
            let outlet = &mut self.outlets[place];
            let Some(trouble) = &mut outlet.trouble else { continue };
            match trouble.stage {
                Stage::New => {
                    trouble.stage = Stage::Told;
                    let target = target::name(&outlet.target);
                    let cause = trouble.cause.clone();
                    self.say(&LoggingEvent::Failing { target, cause }, Some(place));
                }
                Stage::Told => {}
                Stage::Over => {
                    let loss = outlet.loss();
                    if loss.is_none_or(|event| self.say_at(self.for_events(), &event, now)) {
                        self.outlets[place].trouble = None;
                    }
                }
            }
        }
    }

    /// Says it wherever it can be read: in a log that is not the failing one, else on stderr.
    fn say(&mut self, event: &LoggingEvent, failing: Option<usize>) {
        let sound =
            |place: &usize| Some(*place) != failing && self.outlets[*place].trouble.is_none();
        let is_said = match [self.error, self.access].into_iter().flatten().find(sound) {
            Some(place) => {
                let outlet = &mut self.outlets[place];
                outlet.add(&super::line_of(event));
                outlet.put().is_ok()
            }
            None => false,
        };
        if !is_said {
            // There is no log left for it.
            let _unsaid = to_stderr(&super::line_of(event));
        }
    }

    /// Says it in this log; whether that was possible. If that is the log that has failed, it goes on
    /// failing.
    fn say_at(&mut self, place: Option<usize>, event: &LoggingEvent, now: Instant) -> bool {
        let Some(place) = place else { return true };
        let outlet = &mut self.outlets[place];
        outlet.add(&super::line_of(event));
        match outlet.put() {
            Ok(()) => true,
            Err((_, error)) => {
                outlet.fail(now, 0, &error);
                false
            }
        }
    }

    /// Where events about the logs go: to the error log, or, when there is none, to what there is.
    fn for_events(&self) -> Option<usize> {
        self.error.or(self.access)
    }
}

impl Outlet {
    fn new(target: LogTarget, now: Instant) -> Self {
        let mut outlet = Self {
            target,
            output: None,
            batch: Vec::new(),
            accounts: Vec::new(),
            trouble: None,
            reopening: Reopening::Done,
            dropped: 0,
        };
        if let Err(error) = outlet.try_open() {
            outlet.fail(now, 0, &error);
        }
        outlet
    }

    fn try_open(&mut self) -> io::Result<()> {
        self.output = Output::open(&self.target)?;
        Ok(())
    }

    fn inherit(&mut self, untold: Untold, now: Instant) {
        let trouble = self.trouble.get_or_insert(Trouble {
            stage: Stage::Told,
            lines: 0,
            since: untold.since,
            until: now,
            cause: "an earlier logger could not write them, and died".to_owned(),
        });
        trouble.lines = trouble.lines.saturating_add(untold.lines);
        trouble.since = untold.since;
    }

    /// The lines that it has not taken, to be told.
    fn loss(&self) -> Option<LoggingEvent> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.lines > 0)?;
        Some(LoggingEvent::Dropped {
            target: target::name(&self.target),
            lines: trouble.lines,
            span: trouble.until.since(trouble.since),
            cause: trouble.cause.clone(),
        })
    }

    /// # Errors
    /// When it cannot be opened: then it stays as it was.
    fn reopen(&mut self) -> io::Result<()> {
        match &self.target {
            LogTarget::Off | LogTarget::Stdout => Ok(()),
            LogTarget::File(path) => {
                self.output = Some(Output::open_path(path)?);
                Ok(())
            }
        }
    }

    fn add(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(line);
        // It comes from another process, which may be mad: no other line shall suffer.
        if line.last().is_some_and(|last| *last != b'\n') {
            self.batch.push(b'\n');
        }
    }

    fn write(&mut self, now: Instant) {
        if self.batch.is_empty() {
            return;
        }
        match (self.put(), &mut self.trouble) {
            (Ok(()), Some(trouble)) => trouble.stage = Stage::Over,
            (Ok(()), None) => {}
            (Err((lost, error)), _) => self.fail(now, lost, &error),
        }
    }

    /// Writes the batch, and forgets it; an error comes with the number of lines that are lost.
    fn put(&mut self) -> Result<(), (u64, io::Error)> {
        let batch = std::mem::take(&mut self.batch);
        let result = self.put_all(&batch).map_err(|(done, error)| {
            let lines = batch[done..].iter().filter(|byte| **byte == b'\n').count() as u64;
            self.dropped = self.dropped.saturating_add(lines);
            let lost = self.accounts.iter().filter(|(end, _)| *end > done);
            (lines + lost.map(|(_, lines)| lines).sum::<u64>(), error)
        });
        self.accounts.clear();
        // Its room is kept.
        self.batch = batch;
        self.batch.clear();
        self.batch.shrink_to(BATCH_KEPT);
        result
    }

    /// An error comes with the number of bytes that were written.
    fn put_all(&mut self, batch: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.output.is_none() {
            self.try_open().map_err(|error| (0, error))?;
        }
        let Some(output) = &mut self.output else { return Ok(()) };
        if output.is_mid_line {
            output.write(b"\n").map_err(|(_, error)| (0, error))?;
        }
        let mut done = 0;
        for chunk in chunks(batch, output.batch_max) {
            output.write(chunk).map_err(|(count, error)| (done + count, error))?;
            done += chunk.len();
        }
        Ok(())
    }

    fn fail(&mut self, now: Instant, lines: u64, error: &io::Error) {
        let trouble = self.trouble.get_or_insert(Trouble {
            stage: Stage::New,
            lines: 0,
            since: now,
            until: now,
            cause: String::new(),
        });
        trouble.cause = error.to_string();
        if trouble.stage == Stage::Over {
            trouble.stage = Stage::Told;
        }
        trouble.lines = trouble.lines.saturating_add(lines);
        trouble.until = now;
    }
}

/// `lines` in pieces of at most `max` bytes that hold whole lines, or one line that is longer.
fn chunks(mut lines: &[u8], max: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let is_end = |byte: &u8| *byte == b'\n';
        let whole = match lines.split_at_checked(max) {
            None => lines.len(),
            Some((first, _)) => {
                let last = first.iter().rposition(is_end);
                let end = last.or_else(|| lines.iter().position(is_end));
                end.map_or(lines.len(), |at| at + 1)
            }
        };
        let (chunk, rest) = lines.split_at(whole);
        lines = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests;
