//! From what the kernel has ready to facts: signals are decoded here, frames read, children reaped.
//! Nothing behind this door sees a signal's number or a descriptor.

use std::os::fd::AsFd;

use super::events::MasterEvent;
use super::handle::ChildHandle;
use super::{Master, Peak, Terminal, held};
use crate::config::Error;
use crate::control::Ask;
use crate::embed::App;
use crate::ids::{ChildId, Pid, Slot};
use crate::logging;
use crate::logging::journal::{self, Journal};
use crate::supervisor::event::{Event, ExitStatus, Signal};
use crate::supervisor::stage::Due;
use crate::sys::channel::Read;
use crate::sys::poll::{self, Interest, Readiness};
use crate::sys::wait::{self, Ended, Reaped};
use crate::sys::{process, signals, statistics};
use crate::wire::Report;

/// The sources that may be ready.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Signals,
    /// A report of the child with this pid.
    Child(i32),
    /// Room for an order to that child.
    Room(i32),
    /// A listener of this slot, or its relay.
    Queue(Slot),
    /// The answer of the process that loads a configuration.
    Loading,
    /// The control socket, or one of its clients.
    Control(Ask),
}

impl<A: App> Master<A> {
    /// Sleeps until something is ready or a deadline has come. The only place where the master waits.
    pub(super) fn wait(&self) -> Result<Vec<(Source, Readiness)>, Error> {
        let mut sources = vec![Source::Signals];
        let mut descriptors = vec![(self.signals.as_fd(), Interest::Read)];
        let now = super::now();
        for handle in self.lasting.handles.iter().filter(|handle| handle.ended_at.is_none()) {
            if handle.hears_again_at().is_none_or(|at| at <= now) {
                sources.push(Source::Child(handle.pid()));
                descriptors.push((handle.channel.readable(), Interest::Read));
            }
            if handle.has_unsent() && handle.sends_again_at().is_none_or(|at| at <= now) {
                sources.push(Source::Room(handle.pid()));
                descriptors.push((handle.channel.writable(), Interest::Write));
            }
        }
        for slot in self.lasting.armed.iter() {
            let listeners = self.lasting.listeners.of_slot(slot).map(|(_, listener)| listener);
            for queue in listeners.chain(self.lasting.listeners.watched_relay(slot)) {
                sources.push(Source::Queue(slot));
                descriptors.push((queue, Interest::Read));
            }
        }
        if let Some(loading) = &self.loading {
            sources.push(Source::Loading);
            descriptors.push((loading.as_fd(), Interest::Read));
        }
        for (ask, socket, interest) in
            self.lasting.control.sources(now, journal::read(Journal::next))
        {
            sources.push(Source::Control(ask));
            descriptors.push((socket, interest));
        }
        let readiness = poll::wait(&descriptors, self.poll_timeout(now))
            .map_err(|source| Error::System { action: "wait for events", source })?;
        Ok(sources.into_iter().zip(readiness).collect())
    }

    /// Tells the supervisor everything that has happened, in the sequence that it relies on: which
    /// children are ready; a stop; what children have reported and that they have ended, each end
    /// before the next child is reaped, since from then on its pid may be another process's; then
    /// everything else.
    ///
    /// A stop comes before the ends that it explains: `INT` from a terminal, and most other signals of a
    /// process group, reach the workers, too. The kernel sends them to every member before any of these
    /// can be waited for.
    pub(super) fn take_in(&mut self, readiness: &[(Source, Readiness)]) {
        let mut queued = Vec::new();
        let mut is_answered = false;
        for (source, ready) in readiness {
            match *source {
                Source::Signals if ready.readable => self.take_signals(),
                Source::Room(pid) if ready.writable || ready.readable => {
                    if let Some(handle) =
                        self.lasting.handles.iter_mut().find(|handle| handle.pid() == pid)
                    {
                        handle.retry(&self.lasting.listeners, &self.lasting.rings);
                    }
                }
                Source::Child(pid) if ready.readable => {
                    let _more = self.hear(pid);
                }
                Source::Queue(slot) if ready.readable => queued.push(slot),
                Source::Loading => is_answered = ready.readable,
                // Behind everything else.
                Source::Control(_) => {}
                Source::Signals | Source::Child(_) | Source::Room(_) | Source::Queue(_) => {}
            }
        }
        self.heed();
        self.take_answer(is_answered);
        for slot in queued {
            // Of several addresses, the first tells it.
            if self.lasting.armed.contains(slot) {
                self.lasting.armed.remove(slot);
                self.step(Event::Queued { slot });
            }
        }
    }

    /// Notes the signals that have been caught by now. They must not keep the master from its children,
    /// however many there are: of one kind some are heeded, and where many wait, one worker more and one
    /// less are none.
    pub(super) fn take_signals(&mut self) {
        for number in self.signals.take().unwrap_or_default() {
            let Some(number) = self.meant(number) else { continue };
            let opposite = match number {
                signals::TTIN => Some(&signals::TTOU),
                signals::TTOU => Some(&signals::TTIN),
                _ => None,
            };
            let same = self.caught.iter().filter(|caught| **caught == number).count();
            let are_many = self.caught.len() >= SIGNALS_MANY;
            if are_many && opposite.is_some() && self.caught.last() == opposite {
                self.caught.pop();
            } else if same < SIGNALS_MAX {
                self.caught.push(number);
            }
        }
    }

    /// The wish behind a signal. What the kernel tells a terminal's processes is none, but that the
    /// terminal is gone: then a server in the foreground stops.
    fn meant(&mut self, number: i32) -> Option<i32> {
        const HANGUP: i32 = signals::HUP | signals::FROM_TERMINAL;
        const PASSED_ON: i32 = signals::HUP | signals::FROM_LEADER;
        let Terminal { was_there, is_survived, .. } = self.terminal;
        match number {
            HANGUP if is_survived => None,
            PASSED_ON if is_survived || !was_there || process::has_terminal() => Some(signals::HUP),
            HANGUP | PASSED_ON => {
                // A shell may pass its own signal on, beside the kernel's: it is one event.
                if !std::mem::replace(&mut self.terminal.is_reported, true) {
                    logging::emit(&MasterEvent::TerminalGone);
                }
                Some(signals::TERM)
            }
            _ if number & signals::FROM_TERMINAL != 0 => None,
            _ => Some(number),
        }
    }

    /// Tells the supervisor what children have reported and what the signals say that were taken: which
    /// children have ended, then what is wished.
    pub(super) fn heed(&mut self) {
        self.tell_heard();
        if self.caught.contains(&signals::CHLD) {
            self.reap();
        }
        self.look_for_victims();
        for signal in std::mem::take(&mut self.caught).into_iter().filter_map(decode) {
            self.step(Event::Signalled(signal));
        }
    }

    /// Tells the supervisor of a stop, if one has been caught by now.
    fn heed_stop(&mut self) {
        self.take_signals();
        let is_stop = |number: &mut i32| is_stop(*number);
        let stops: Vec<i32> = self.caught.extract_if(.., is_stop).collect();
        if stops.is_empty() {
            return;
        }
        // A worker that has reported ready may have accepted connections: it drains, where one that
        // boots would quit.
        let pids: Vec<i32> = self.lasting.handles.iter().map(|handle| handle.pid()).collect();
        for pid in pids {
            let _more = self.hear(pid);
        }
        for signal in stops.into_iter().filter_map(decode) {
            self.step(Event::Signalled(signal));
        }
    }

    /// Tells the supervisor what children have reported, behind a stop that may explain it.
    fn tell_heard(&mut self) {
        if self.heard.is_empty() {
            return;
        }
        self.heed_stop();
        for event in std::mem::take(&mut self.heard) {
            self.step(event);
        }
    }

    /// Reaps every child that has ended, and reports each end before the next one.
    fn reap(&mut self) {
        while wait::has_ended() {
            // Before the child is reaped: an order that follows may name its pid.
            self.heed_stop();
            match wait::reap() {
                Ok(Some(Reaped { pid, ended, peak_bytes })) => {
                    self.peak = Some(Peak { pid: Pid(pid), bytes: peak_bytes });
                    // What a grandchild goes on writing is not waited for.
                    let _end = (0..REPORTS_MAX).find(|_| !self.hear(pid));
                    self.tell_heard();
                    self.bury(pid);
                    let status = self.status(pid, ended);
                    self.step(Event::Exited { pid: Pid(pid), status });
                }
                Ok(None) => return,
                Err(error) => {
                    logging::emit(&MasterEvent::ReapFailed { reason: error.to_string() });
                    return;
                }
            }
        }
    }

    /// Forgets a child that is reaped, and accounts for what it held.
    fn bury(&mut self, pid: i32) {
        let at = self.lasting.handles.iter().position(|handle| handle.pid() == pid);
        let handle = at.map(|at| self.lasting.handles.remove(at));
        self.lasting
            .metrics
            .note_reaped(handle.as_ref().and_then(|handle| Some(handle.worker.as_ref()?.slot)));
        let Some(handle) = handle else { return };
        if let Some(worker) = &handle.worker {
            if self.config().stats.is_on() {
                // At once: the kernel tells no more of what it had of the processor.
                self.lasting.publish_overview();
            }
            self.mend_listeners();
            let pid = u32::try_from(pid).unwrap_or(0);
            self.lasting.counters.vacate(worker.slot, pid);
            self.lasting.counters.end_leases(pid);
        }
        held::account(&handle, &self.lasting.rings, &self.lasting.metrics);
        handle.ring.iter().for_each(|place| self.lasting.rings.own(*place, 0));
        // It may have died between its last line and the ring of the bell.
        if let Some(bell) = handle.ring.and_then(|place| self.lasting.rings.bell(place)) {
            bell.ring();
        }
    }

    /// Says so where the kernel has killed another process of this control group for want of memory.
    fn look_for_victims(&mut self) {
        let others = self.lasting.victims.look(super::now(), statistics::out_of_memory_kills);
        if others > 0 {
            logging::emit(&MasterEvent::StrangersKilled { count: others });
        }
    }

    /// Returns the end of a process. A `KILL` that is not ours and that the kernel has counted as its
    /// own, for want of memory, is told as such.
    fn status(&mut self, pid: i32, ended: Ended) -> ExitStatus {
        match ended {
            Ended::Code(code) => ExitStatus::Code(code),
            Ended::Signal { number: signals::KILL, .. }
                if !self.lasting.supervisor.has_killed(Pid(pid))
                    && self
                        .lasting
                        .victims
                        .explain(super::now(), statistics::out_of_memory_kills()) =>
            {
                ExitStatus::OutOfMemory
            }
            Ended::Signal { number, core } => ExitStatus::Signal { number, core },
        }
    }

    /// Reads what the child has reported, a batch of it at the most: a child that writes without end
    /// must not keep the master here. That it is ready is told at once, all else with
    /// [`Master::tell_heard`]. Returns true if there may be more.
    fn hear(&mut self, pid: i32) -> bool {
        let mut bytes = [0; REPORTS];
        let found = self
            .lasting
            .handles
            .iter_mut()
            .find(|handle| handle.pid() == pid && handle.ended_at.is_none());
        let Some(handle) = found else { return false };
        let child = handle.id;
        let length = match handle.channel.read(&mut bytes) {
            Ok(Read::Nothing) => return false,
            Ok(Read::Bytes(length)) => length,
            Ok(Read::End) | Err(_) => {
                handle.ended_at = Some(super::now());
                return false;
            }
        };
        let now = super::now();
        handle.note_heard(now, length);
        let mut reports: Vec<Report> = Vec::new();
        for byte in &bytes[..length] {
            match Report::decode(&[*byte]) {
                // Each of them says the same however often it comes.
                Ok(report) if !reports.contains(&report) => {
                    if report == Report::ToldToReopen {
                        handle.note_reopening(now);
                    }
                    reports.push(report);
                }
                // A child that has gone mad, or another version's word: nothing that we know.
                Ok(_) | Err(_) => {}
            }
        }
        for report in reports {
            let event = match report {
                Report::Ready => {
                    self.step(Event::Ready { child });
                    continue;
                }
                Report::ToldToLeave => Event::WorkerDue { child, why: Due::ByHand },
                // As if the master had been told.
                Report::ToldToReopen => Event::Signalled(Signal::Reopen),
                // The master publishes its numbers before it sleeps again.
                Report::Measure => {
                    if child == ChildId::STATS {
                        self.lasting.metrics.note_asked();
                    }
                    continue;
                }
                Report::NeedsTime => Event::NeedsTime { child },
                Report::ServedEnough => Event::WorkerDue { child, why: Due::Requests },
                Report::Reopened | Report::NotReopened if child != ChildId::LOGGER => continue,
                Report::Reopened => Event::Reopened { is_complete: true },
                Report::NotReopened => Event::Reopened { is_complete: false },
            };
            // All that a dead worker has written is read at once.
            if !self.heard.contains(&event) {
                self.heard.push(event);
            }
        }
        true
    }

    /// Tells the supervisor of children whose channel ended some time ago, and whose end is not told:
    /// the kernel closes the channel at their end, and hardly before.
    pub(super) fn look_for_unheard(&mut self) {
        let now = super::now();
        let is_overdue = |handle: &ChildHandle| handle.unheard_at().is_some_and(|at| at <= now);
        if !self.lasting.handles.iter().any(is_overdue) {
            return;
        }
        self.reap();
        let overdue: Vec<(ChildId, i32, bool)> = self
            .lasting
            .handles
            .iter_mut()
            .filter(|handle| is_overdue(handle))
            .map(|handle| {
                handle.is_unheard = true;
                (handle.id, handle.pid(), handle.process.is_unreaped())
            })
            .collect();
        for (child, pid, is_unreaped) in overdue {
            if is_unreaped {
                self.step(Event::Unheard { child });
            } else {
                // It was reaped elsewhere: its end is unknown.
                self.bury(pid);
                self.step(Event::Exited { pid: Pid(pid), status: ExitStatus::Unknown });
            }
        }
    }
}

fn is_stop(number: i32) -> bool {
    matches!(number, signals::TERM | signals::INT | signals::QUIT)
}

/// Signals that are many in one turn.
const SIGNALS_MANY: usize = 8;
/// Signals of one kind that are heeded in one turn, each of which may have a child forked.
const SIGNALS_MAX: usize = 64;

/// Reports that are read at once: more than any child has to send, each of them one byte.
const REPORTS: usize = 64;
/// Batches that are read of a child which has ended: all that a pipe holds (pipe(7)).
const REPORTS_MAX: usize = (64 << 10) / REPORTS;

fn decode(number: i32) -> Option<Signal> {
    match number {
        signals::TERM => Some(Signal::Terminate),
        signals::INT => Some(Signal::Interrupt),
        signals::QUIT => Some(Signal::Quit),
        signals::HUP => Some(Signal::Reload),
        signals::TTIN => Some(Signal::More),
        signals::TTOU => Some(Signal::Fewer),
        signals::USR1 => Some(Signal::Reopen),
        signals::USR2 => Some(Signal::Upgrade),
        signals::WINCH => Some(Signal::Resize),
        // CHLD is a fact about children, not a wish.
        _ => None,
    }
}
