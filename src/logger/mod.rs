//! The process that writes the logs: it reads every process's ring and alone opens, writes and reopens
//! the targets of the lines. So a reader that does not read stalls this process and no other.
//!
//! It has one thread and no runtime, and it may wait in a write for as long as it takes. It takes its
//! orders through its channel, at whose end it has no master any more; signals are not for it, since
//! it has to outlive those that they end. It opens files with the rights of the workers and no
//! others, and keeps the master's user otherwise: no worker can signal it.
//!
//! Children that run as another user than the master print into pipes beside their rings. A line that names
//! another process of the server is not passed on, from a ring or a pipe: an event that quotes it replaces
//! it.
//!
//! # Why it naps
//! To be woken costs the waker a system call. While lines come, the logger looks every few
//! milliseconds and writes what has come together, and is not woken; when a look finds nothing, it
//! sleeps until it is.
//!
//! # The trap
//! It dies like every process, and its replacement goes on where the rings say. So a batch is taken out
//! of the rings when it is written, not before: it may be written twice, and is never lost. Lines that it
//! has read from a pipe and not written are lost with it.

mod owners;
mod printing;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use self::owners::Owners;
use self::printing::{Begun, Printing, Verdict};
use crate::config::Log;
use crate::logging::{
    self, Consumer, Legacy, LoggingEvent, Lost, MASTER, Next, Outlets, Rest, Rings,
};
use crate::scoreboard::{Block, LogKind};
use crate::sys::bell::Bell;
use crate::sys::channel::{Lower, Received};
use crate::sys::fork::InChild;
use crate::sys::identity::Identity;
use crate::sys::poll::{self, Interest};
use crate::sys::shared::Mapping;
use crate::sys::signals::{self, Signals};
use crate::sys::{clock, process};
use crate::time::Instant;
use crate::wire::{LogOrder, MESSAGE_MAX, Report};

/// From one look to the next while lines come.
const NAP: Duration = Duration::from_millis(10);
/// From one attempt to the next where something has failed; a line that a child has begun to print is
/// written by then.
const RETRY: Duration = Duration::from_secs(1);
/// Without a master, for so long: the workers are gone by then.
const ORPHANED: Duration = Duration::from_millis(1600);
/// Pieces that are read of each pipe before an order is followed: twice what a pipe holds.
const PIECES_MAX: usize = 2;
/// Bytes of lines that are written before their rings get their room back.
const BATCH: usize = 128 * 1024;

/// The logger's inheritance.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    pub(crate) log: &'a Log,
    pub(crate) rings: Rings,
    /// The master's signals, to be forgotten.
    pub(crate) signals: &'a Signals,
    /// Its end of the channel.
    pub(crate) channel: Lower,
    pub(crate) master: i32,
    /// The user and the groups to take.
    pub(crate) identity: &'a Identity,
    /// Where it counts lines that are dropped.
    pub(crate) metrics: Block,
}

/// Writes until it is told to finish; answers the exit code.
pub(crate) fn main(child: InChild, birth: Birth<'_>) -> i32 {
    process::extend_name("log");
    // From here on they are caught and do nothing: a group's or a service's stop is not for it.
    birth.signals.forget();
    // If it waits in a write when the master has died, nothing else can end it.
    // A terminal may be set to stop who writes in the background (stty tostop).
    let belt = signals::ignore(&[signals::TTOU])
        // Workers may have a say in what the paths name.
        .and_then(|()| birth.identity.assume_for_files())
        // After the change of user, which clears it (prctl(2), PR_SET_PDEATHSIG).
        .and_then(|()| signals::alarm_when_orphaned(birth.master))
        .and_then(|()| process::die_with_parent(signals::HUP));
    child.unblock_signals();
    match belt.and_then(|()| Logger::new(birth.log, birth.rings, birth.channel)) {
        Ok(logger) => Logger { metrics: Some(birth.metrics), ..logger }.run(),
        Err(error) => {
            logging::say_aside(format!("it cannot begin: {error}"));
            FAILED
        }
    }
}

/// Exit code of a logger that could not begin; its replacement tries again.
const FAILED: i32 = 1;

/// The logger at work.
#[derive(Debug)]
struct Logger {
    rings: Rings,
    sources: Vec<Source>,
    printing: Printing,
    owners: Owners,
    outlets: Outlets,
    /// `None` when the master is gone.
    channel: Option<Lower>,
    /// When to exit, when the master is gone.
    leave_at: Option<Instant>,
    /// When to try again what has failed.
    retry_at: Instant,
    /// The account that its replacement finds if it dies now.
    legacy: Legacy,
    line: Vec<u8>,
    /// Whose turn it is.
    turn: usize,
    metrics: Option<Block>,
}

/// One ring.
#[derive(Debug)]
struct Source {
    ring: Consumer<Mapping>,
    /// It was said that it makes no sense.
    complained: bool,
}

/// The amount that was found in the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// All there was.
    All,
    /// As much as is written at once.
    Some,
}

/// The master's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Work,
    Leave,
}

impl Logger {
    fn new(log: &Log, rings: Rings, channel: Lower) -> io::Result<Self> {
        let outlets = Outlets::open(log, now());
        let channel = Some(channel);
        let owners = Owners::new(rings.owners()?);
        let mut this = Self {
            rings,
            sources: Vec::new(),
            printing: Printing::default(),
            owners,
            outlets,
            channel,
            leave_at: None,
            retry_at: now().after(RETRY),
            legacy: Legacy::default(),
            line: Vec::new(),
            turn: 0,
            metrics: None,
        };
        this.admit()?;
        if let Some(master) = this.sources.get(MASTER) {
            this.legacy = master.ring.notes().into();
        }
        if this.legacy.cuts {
            this.outlets.expect_cut();
        }
        this.outlets.inherit(this.legacy.untold, now());
        Ok(this)
    }

    fn run(mut self) -> i32 {
        loop {
            let rest = match self.pump() {
                Found::Nothing => Some(Rest::Sleep),
                Found::All => Some(Rest::Nap),
                // However much there is to write: it takes its orders in between.
                Found::Some => None,
            };
            if self.leave_at.is_some_and(|at| at <= now()) {
                return self.leave();
            }
            let rest = rest.filter(|rest| self.may(*rest));
            match self.rest(rest) {
                Ok(Wanted::Work) => {}
                Ok(Wanted::Leave) => return self.leave(),
                Err(_) => {
                    self.end_lines(Begun::All);
                    return FAILED;
                }
            }
        }
    }

    /// The last it does, when everything else is written; answers the exit code.
    fn leave(&mut self) -> i32 {
        self.end_lines(Begun::All);
        let lines = self.printing.give_up();
        self.count_unprinted(lines);
        if lines > 0 {
            self.outlets.add_event(&LoggingEvent::Unwritten { lines });
            self.outlets.write(now());
        }
        self.outlets.finish(now());
        self.bequeath(false);
        0
    }

    /// Takes up rings that are new.
    fn admit(&mut self) -> io::Result<()> {
        for ring in self.rings.consumers(self.sources.len())? {
            let place = self.sources.len();
            self.printing.add(place, self.rings.take_pipes(place))?;
            self.sources.push(Source { ring, complained: false });
        }
        self.owners.count = self.sources.len();
        Ok(())
    }

    /// Takes the ring at a place from the master.
    ///
    /// # Errors
    /// Where it came without its descriptors, since this process may have no more: a replacement is born
    /// with all rings.
    fn take(&mut self, place: usize, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        if place < self.rings.count() {
            return Ok(());
        }
        self.rings.add_new(descriptors)?;
        self.admit()
    }

    /// Writes a batch of what is in the rings and the pipes.
    fn pump(&mut self) -> Found {
        let is_printed = self.print();
        let found = match self.collect() {
            Found::Nothing if is_printed => Found::All,
            found => found,
        };
        if found == Found::Nothing {
            return found;
        }
        self.bequeath(self.outlets.may_be_cut());
        self.outlets.write(now());
        self.count_dropped();
        // Before the batch is given up, or the death of this process could lose a count with it.
        self.bequeath(false);
        for source in &self.sources {
            source.ring.commit();
        }
        found
    }

    /// Counts the lines that a target did not take.
    fn count_dropped(&mut self) {
        let [access, error] = self.outlets.take_dropped();
        for (log, lines) in [(LogKind::Access, access), (LogKind::Error, error)] {
            if lines > 0 {
                self.metrics.iter().for_each(|metrics| metrics.count_dropped(log, lines));
            }
        }
    }

    /// Writes what was in the rings when this was called. What comes meanwhile may wait: it may come
    /// without end.
    fn catch_up(&mut self) -> io::Result<()> {
        self.admit()?;
        let marks: Vec<u64> = self.sources.iter().map(|source| source.ring.mark()).collect();
        while self.pump() == Found::Some {
            if self.sources.iter().zip(&marks).all(|(source, mark)| source.ring.has_passed(*mark)) {
                break;
            }
        }
        // A process that prints without an end does not keep this one from its orders.
        for _ in 0..PIECES_MAX {
            self.printing.look_everywhere();
            self.print();
            self.outlets.write(now());
        }
        Ok(())
    }

    /// Prints what is in the pipes, as far as it is taken without waiting. Returns true if there was
    /// something.
    fn print(&mut self) -> bool {
        let is_found = self.printing.read(judge(&self.owners, &mut self.outlets));
        self.write_printed();
        is_found
    }

    /// Takes lines that children have begun to print for whole ones.
    fn end_lines(&mut self, begun: Begun) {
        self.printing.finish(begun, judge(&self.owners, &mut self.outlets));
        self.write_printed();
        self.outlets.write(now());
    }

    fn write_printed(&mut self) {
        let lost = self.printing.write();
        self.count_unprinted(lost);
    }

    /// Counts lines that children have printed and that are lost.
    fn count_unprinted(&self, lines: u64) {
        if lines > 0 {
            self.metrics.iter().for_each(|metrics| metrics.count_dropped(LogKind::Error, lines));
        }
    }

    /// Notes what a replacement must know if this process dies from now on.
    fn bequeath(&mut self, cuts: bool) {
        let legacy = Legacy { cuts, untold: self.outlets.untold() };
        if legacy != std::mem::replace(&mut self.legacy, legacy)
            && let Some(master) = self.sources.get(MASTER)
        {
            master.ring.note(legacy.into());
        }
    }

    /// Gathers a batch: from each ring in its own order, and another ring first each time.
    fn collect(&mut self) -> Found {
        let count = self.sources.len();
        let mut bytes = 0;
        let mut found = Found::Nothing;
        self.turn = (self.turn + 1) % count.max(1);
        for at in (self.turn..count).chain(0..self.turn) {
            let Source { ring, complained } = &mut self.sources[at];
            loop {
                if bytes >= BATCH {
                    return Found::Some;
                }
                match ring.next(&mut self.line) {
                    Next::Nothing => break,
                    Next::Line(kind) => {
                        match self.owners.judge(at, &self.line) {
                            Some(forged) => {
                                self.outlets.add_event(&forged);
                            }
                            None => self.outlets.add(kind, &self.line),
                        }
                        bytes += self.line.len();
                        *complained = false;
                    }
                    Next::Lost(lost) => {
                        // Lines of the error log have room of their own.
                        let metrics = self.metrics.iter();
                        metrics
                            .for_each(|metric| metric.count_dropped(LogKind::Access, lost.lines));
                        // Only the ring itself says which process lost them.
                        let pid = lost.pid.filter(|pid| !self.owners.is_foreign(at, *pid));
                        self.outlets.add_event(&LoggingEvent::unread(Lost { pid, ..lost }));
                    }
                    Next::Corrupted { pid } => {
                        if !std::mem::replace(complained, true) {
                            let named = Some(pid).filter(|pid| !self.owners.is_foreign(at, *pid));
                            let process = self.owners.of(at).or(named);
                            self.outlets.add_event(&LoggingEvent::Corrupted { process });
                        }
                    }
                }
                // Whatever it was, it counts: a mad process must not keep us here.
                bytes += 1;
                found = Found::All;
            }
        }
        found
    }

    /// Announces a rest; whether nothing has come in the meantime that forbids it.
    fn may(&mut self, rest: Rest) -> bool {
        self.sources.iter_mut().for_each(|source| source.ring.announce(rest));
        self.sources.iter().all(|source| source.ring.allows(rest))
    }

    /// Rests until there is something to do, or only looks whether there is.
    fn rest(&mut self, rest: Option<Rest>) -> io::Result<Wanted> {
        let nap = match rest {
            None => Some(Duration::ZERO),
            Some(Rest::Nap) => Some(NAP),
            Some(Rest::Sleep) => None,
        };
        let is_due = self.outlets.has_trouble() || self.printing.is_mid_line();
        let retry = is_due.then(|| self.retry_at.since(now()));
        let leave = self.leave_at.map(|at| at.since(now()));
        let timeout = [nap, retry, leave].into_iter().flatten().min();
        let bells = (0..self.rings.count()).filter_map(|place| self.rings.bell(place));
        let bells: Vec<&Bell> = bells.collect();
        let mut descriptors: Vec<_> =
            bells.iter().map(|bell| (bell.as_fd(), Interest::Read)).collect();
        descriptors.extend(self.channel.iter().map(|channel| (channel.as_fd(), Interest::Read)));
        let printing_at = descriptors.len();
        descriptors.extend(self.printing.descriptors());
        let ready = poll::wait(&descriptors, timeout)?;
        // First silenced, then looked: a process that rings in between is heard the next time.
        let rung = bells.iter().zip(&ready).filter(|(_, ready)| ready.readable);
        rung.for_each(|(bell, _)| bell.silence());
        self.printing.note(ready.get(printing_at..).unwrap_or_default());
        let has_orders =
            self.channel.is_some() && ready.get(bells.len()).is_some_and(|ready| ready.readable);
        if self.retry_at <= now() {
            self.retry_at = now().after(RETRY);
            self.end_lines(Begun::Stale);
            self.outlets.retry(now());
            self.bequeath(false);
        }
        if has_orders { self.obey() } else { Ok(Wanted::Work) }
    }

    /// Takes the master's orders.
    fn obey(&mut self) -> io::Result<Wanted> {
        let mut message = [0; MESSAGE_MAX];
        while let Some(channel) = &self.channel {
            match channel.receive(&mut message)? {
                Received::Nothing => break,
                Received::End => {
                    self.channel = None;
                    self.leave_at = Some(now().after(ORPHANED));
                }
                Received::Message { length, descriptors } => {
                    match LogOrder::decode(&message[..length]) {
                        Ok(LogOrder::Ring { place }) => {
                            self.take(usize::from(place), descriptors)?;
                        }
                        Ok(LogOrder::Finish) => {
                            self.catch_up()?;
                            return Ok(Wanted::Leave);
                        }
                        Ok(LogOrder::Reopen) => {
                            // What was said before the order goes to the old file.
                            self.catch_up()?;
                            let is_done = self.outlets.reopen();
                            let report =
                                if is_done { Report::Reopened } else { Report::NotReopened };
                            // A master that does not read learns less.
                            let channel = self.channel.as_ref();
                            let _full = channel.map(|channel| channel.send(&report.encode()));
                        }
                        // Another version's order: not for us.
                        Err(_) => {}
                    }
                }
            }
        }
        Ok(Wanted::Work)
    }
}

/// Returns the judge of lines that children print: one that names another process is logged as an event.
fn judge(owners: &Owners, outlets: &mut Outlets) -> impl FnMut(usize, &[u8]) -> Verdict {
    move |place, line| match owners.judge(place, line) {
        None => Verdict::Pass,
        Some(forged) if outlets.add_event(&forged) => Verdict::Replace,
        // There is no log.
        Some(_) => Verdict::Quote,
    }
}

fn now() -> Instant {
    Instant::from_millis(clock::monotonic_millis())
}

#[cfg(test)]
mod tests;
