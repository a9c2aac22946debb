//! From what the kernel has ready to facts: signals are decoded here, frames read, children reaped.
//! Nobody behind this door sees a signal's number or a descriptor.

use std::os::fd::AsFd;

use super::{Master, held};
use crate::embed::App;
use crate::error::Error;
use crate::ids::{Pid, Slot};
use crate::supervisor::event::{Event, ExitStatus, Signal};
use crate::supervisor::stage::Due;
use crate::sys::channel::Received;
use crate::sys::poll::{self, Interest, Readiness};
use crate::sys::signals;
use crate::sys::statistics;
use crate::sys::wait::{self, Ended};
use crate::wire::{MESSAGE_MAX, Report};

/// What may be ready.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Signals,
    /// The channel of the child with this pid.
    Kid(i32),
    /// A listener of this slot.
    Queue(Slot),
}

impl<A: App> Master<A> {
    /// Sleeps until something is ready or a deadline has come. The only place where the master waits.
    pub(super) fn wait(&self) -> Result<Vec<(Source, Readiness)>, Error> {
        let mut sources = vec![Source::Signals];
        let mut descriptors = vec![(self.signals.as_fd(), Interest::Read)];
        for kid in self.kids.iter().filter(|kid| !kid.ended) {
            let interest = if kid.has_unsent() { Interest::ReadWrite } else { Interest::Read };
            sources.push(Source::Kid(kid.pid));
            descriptors.push((kid.channel.as_fd(), interest));
        }
        for slot in self.armed.iter() {
            for (_, listener) in self.listeners.of_slot(slot) {
                sources.push(Source::Queue(slot));
                descriptors.push((listener, Interest::Read));
            }
        }
        let readiness = poll::wait(&descriptors, self.patience())
            .map_err(|source| Error::System { action: "wait for events", source })?;
        Ok(sources.into_iter().zip(readiness).collect())
    }

    /// Tells the supervisor everything that has happened, in the sequence that it relies on: first what
    /// children have reported and that they have ended, each end before the next child is reaped, since
    /// from then on its pid may be another process's; then everything else.
    pub(super) fn take_in(&mut self, readiness: &[(Source, Readiness)]) {
        let mut signals = Vec::new();
        let mut queued = Vec::new();
        for (source, ready) in readiness {
            match *source {
                Source::Signals if ready.readable => {
                    signals = self.signals.take().unwrap_or_default();
                }
                Source::Kid(pid) => {
                    if ready.writable
                        && let Some(kid) = self.kids.iter_mut().find(|kid| kid.pid == pid)
                    {
                        kid.retry(&self.listeners);
                    }
                    if ready.readable {
                        self.hear(pid);
                    }
                }
                Source::Queue(slot) if ready.readable => queued.push(slot),
                Source::Signals | Source::Queue(_) => {}
            }
        }
        self.heed(signals);
        for slot in queued {
            // Of several addresses, the first tells it.
            if self.armed.contains(slot) {
                self.armed.remove(slot);
                self.step(Event::Queued { slot });
            }
        }
    }

    /// Tells the supervisor what these signals say: first who has ended, then what is wished.
    pub(super) fn heed(&mut self, signals: Vec<i32>) {
        if signals.contains(&signals::CHLD) {
            while let Some((pid, ended)) = wait::reap() {
                self.hear(pid);
                if let Some(at) = self.kids.iter().position(|kid| kid.pid == pid) {
                    let kid = self.kids.remove(at);
                    if let Some(worker) = &kid.worker {
                        let pid = u32::try_from(pid).unwrap_or(0);
                        self.counters.vacate(worker.slot, pid);
                        self.counters.end_lead(pid);
                    }
                    held::account(&kid, &self.rings);
                    // It may have died between its last line and the ring of the bell.
                    self.rings.bell().ring();
                }
                let status = self.status(pid, ended);
                self.step(Event::Exited { pid: Pid(pid), status });
            }
        }
        self.look_for_victims();
        for signal in signals.into_iter().filter_map(decode) {
            self.step(Event::Signalled(signal));
        }
    }

    /// Says so where the kernel has killed somebody else of our control group for want of memory.
    fn look_for_victims(&mut self) {
        let others = self.victims.look(super::now(), statistics::out_of_memory_kills);
        if others > 0 {
            tracing::warn!(
                "processes of this control group that the kernel has killed for want of memory and \
                 that are no children of this server: {others}"
            );
        }
    }

    /// How a process ended. A `KILL` that is not ours and that the kernel has counted as its own, for
    /// want of memory, is told as such.
    fn status(&mut self, pid: i32, ended: Ended) -> ExitStatus {
        match ended {
            Ended::Code(code) => ExitStatus::Code(code),
            Ended::Signal { number: signals::KILL, .. }
                if !self.supervisor.has_killed(Pid(pid))
                    && self.victims.explain(super::now(), statistics::out_of_memory_kills()) =>
            {
                ExitStatus::OutOfMemory
            }
            Ended::Signal { number, core } => ExitStatus::Signal { number, core },
        }
    }

    /// Tells what the child has reported by now.
    fn hear(&mut self, pid: i32) {
        let mut message = [0; MESSAGE_MAX];
        while let Some(kid) = self.kids.iter_mut().find(|kid| kid.pid == pid && !kid.ended) {
            let child = kid.id;
            match kid.channel.receive(&mut message) {
                Ok(Received::Nothing) => return,
                Ok(Received::End) | Err(_) => kid.ended = true,
                Ok(Received::Message { length, .. }) => match Report::decode(&message[..length]) {
                    Ok(Report::Ready) => self.step(Event::Ready { child }),
                    Ok(Report::ToldToLeave) => {
                        self.step(Event::WorkerDue { child, why: Due::ByHand });
                    }
                    // As if the master had been told.
                    Ok(Report::ToldToReopen) => self.step(Event::Signalled(Signal::Reopen)),
                    Ok(Report::ServedEnough) => {
                        self.step(Event::WorkerDue { child, why: Due::Requests });
                    }
                    // A child that has gone mad, or another version's word: nothing that we know.
                    Err(_) => {}
                },
            }
        }
    }
}

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
