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
            let interest = if kid.unsent.is_some() { Interest::ReadWrite } else { Interest::Read };
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

    /// Everything that has happened, in an order that makes sense: what a child has reported comes
    /// before its end.
    pub(super) fn collect(&mut self, readiness: &[(Source, Readiness)]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut died = false;
        for (source, ready) in readiness {
            match *source {
                Source::Signals if ready.readable => {
                    let numbers = self.signals.take().unwrap_or_default();
                    died |= numbers.contains(&signals::CHLD);
                    events
                        .extend(numbers.iter().filter_map(|it| decode(*it)).map(Event::Signalled));
                }
                Source::Kid(pid) => {
                    if ready.writable
                        && let Some(kid) = self.kids.iter_mut().find(|kid| kid.pid == pid)
                    {
                        kid.retry();
                    }
                    if ready.readable {
                        self.read_reports(pid, &mut events);
                    }
                }
                Source::Queue(slot) if ready.readable && self.armed.contains(slot) => {
                    self.armed.remove(slot);
                    events.push(Event::Queued { slot });
                }
                Source::Signals | Source::Queue(_) => {}
            }
        }
        if died {
            while let Some((pid, ended)) = wait::reap() {
                self.read_reports(pid, &mut events);
                if let Some(at) = self.kids.iter().position(|kid| kid.pid == pid) {
                    held::account(&self.kids.remove(at));
                }
                events.push(Event::Exited { pid: Pid(pid), status: self.status(ended) });
            }
        }
        events
    }

    /// How a process ended. A `KILL` that the kernel has counted as its own, for want of memory, is
    /// told as such.
    fn status(&mut self, ended: Ended) -> ExitStatus {
        match ended {
            Ended::Code(code) => ExitStatus::Code(code),
            Ended::Signal { number: signals::KILL, .. }
                if statistics::out_of_memory_kills() > self.out_of_memory_kills =>
            {
                // One of them is explained; the next death may be another.
                self.out_of_memory_kills = self.out_of_memory_kills.map(|count| count + 1);
                ExitStatus::OutOfMemory
            }
            Ended::Signal { number, core } => ExitStatus::Signal { number, core },
        }
    }

    fn read_reports(&mut self, pid: i32, events: &mut Vec<Event>) {
        let Some(kid) = self.kids.iter_mut().find(|kid| kid.pid == pid) else { return };
        let mut message = [0; MESSAGE_MAX];
        while !kid.ended {
            match kid.channel.receive(&mut message) {
                Ok(Received::Nothing) => return,
                Ok(Received::End) | Err(_) => kid.ended = true,
                Ok(Received::Message { length, .. }) => match Report::decode(&message[..length]) {
                    Ok(Report::Ready) => events.push(Event::Ready { child: kid.id }),
                    Ok(Report::ToldToLeave) => {
                        events.push(Event::WorkerDue { child: kid.id, why: Due::ByHand });
                    }
                    Ok(Report::ServedEnough) => {
                        events.push(Event::WorkerDue { child: kid.id, why: Due::Requests });
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
