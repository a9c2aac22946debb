//! A child as the master's shell holds it: what the kernel gave for it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind::WouldBlock};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::now;
use crate::ids::{ChildId, Generation, Slot};
use crate::listeners::Listeners;
use crate::logging::Rings;
use crate::scoreboard::WorkerBoard;
use crate::supervisor::event::Kept;
use crate::sys::channel::Upper;
use crate::sys::exec::{self, Handover};
use crate::sys::socket::is_exhaustion;
use crate::sys::statistics::{self, Thread};
use crate::sys::wait::Child;
use crate::time::Instant;
use crate::wire::{LogOrder, Order};

/// The master's knowledge of a worker.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// Where its event loop beats.
    pub(super) board: Arc<WorkerBoard>,
}

/// One child, from its fork until it is reaped.
#[derive(Debug)]
pub(super) struct ChildHandle {
    pub(super) id: ChildId,
    pub(super) process: Child,
    pub(super) channel: Upper,
    /// When the other end was found closed: there is nothing more to read.
    pub(super) ended_at: Option<Instant>,
    /// It was told that its channel has ended and it has not.
    pub(super) is_unheard: bool,
    /// The number of reports that have come, since when: not many, or it is not listened to for a while.
    heard: (Instant, usize),
    /// The further part of a child that is a worker.
    pub(super) worker: Option<Worker>,
    /// The place of its ring; the logger has none.
    pub(super) ring: Option<usize>,
    /// The orders that found no room in the channel, in their sequence. Of accept sets only the last
    /// one counts.
    pub(super) unsent: VecDeque<Order>,
    /// The logger's order that found none.
    untold: Option<LogOrder>,
    /// The rings that the logger was born with or was sent: those before this place.
    rings_sent: usize,
    /// There are more of them, which found no room in the channel.
    has_unsent_rings: bool,
    /// When to send again what the kernel has refused for another reason than room.
    retry_at: Option<Instant>,
    /// When its threads were looked at last, and what they had done by then.
    seen: Option<(Instant, Vec<Thread>)>,
}

/// [`ChildHandle`] for another image of the program: descriptors by their numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HandedChild {
    id: ChildId,
    pid: i32,
    /// Down and up.
    channel: [i32; 2],
    worker: Option<HandedWorker>,
    ring: Option<usize>,
    ended_at: Option<Instant>,
    is_unheard: bool,
    pub(super) unsent: VecDeque<Order>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedWorker {
    slot: Slot,
    generation: Generation,
    board: i32,
    entries: usize,
}

impl Worker {
    fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> HandedWorker {
        let Self { slot, generation, board } = self;
        let entries = board.entries();
        HandedWorker {
            slot: *slot,
            generation: *generation,
            board: handover.add(&**board),
            entries,
        }
    }

    fn take_over(handed: HandedWorker) -> io::Result<Self> {
        let HandedWorker { slot, generation, board, entries } = handed;
        let board = WorkerBoard::inherit(exec::inherited(board)?, entries)?;
        Ok(Self { slot, generation, board: board.into() })
    }
}

impl ChildHandle {
    pub(super) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> HandedChild {
        let Self { id, process, channel, ended_at, is_unheard, worker, ring, unsent, .. } = self;
        HandedChild {
            id: *id,
            pid: process.pid(),
            channel: channel.descriptors().map(|end| handover.add(end)),
            worker: worker.as_ref().map(|worker| worker.hand_over(handover)),
            ring: *ring,
            ended_at: *ended_at,
            is_unheard: *is_unheard,
            unsent: unsent.clone(),
        }
    }

    /// # Errors
    /// When a descriptor is not open.
    pub(super) fn take_over(handed: HandedChild) -> io::Result<Self> {
        let HandedChild { id, pid, channel, worker, ring, ended_at, is_unheard, unsent } = handed;
        let [down, up] = channel;
        let channel = Upper::inherit([exec::inherited(down)?, exec::inherited(up)?]);
        let worker = worker.map(Worker::take_over).transpose()?;
        Ok(Self { ring, ended_at, is_unheard, unsent, ..Self::new(id, pid, channel, worker) })
    }

    pub(super) fn new(id: ChildId, pid: i32, channel: Upper, worker: Option<Worker>) -> Self {
        let ring = None;
        let unsent = VecDeque::new();
        let untold = None;
        let seen = None;
        let ended_at = None;
        let is_unheard = false;
        let heard = (Instant::default(), 0);
        let rings_sent = 0;
        let has_unsent_rings = false;
        let retry_at = None;
        let process = Child::new(pid);
        Self {
            id,
            process,
            channel,
            ended_at,
            is_unheard,
            heard,
            worker,
            ring,
            unsent,
            untold,
            rings_sent,
            has_unsent_rings,
            retry_at,
            seen,
        }
    }

    /// Notes that the logger is born with these rings.
    pub(super) fn note_rings(&mut self, rings: &Rings) {
        self.rings_sent = rings.count();
    }

    /// Sends the logger the rings that it does not have.
    pub(super) fn send_rings(&mut self, rings: &Rings) {
        for (place, descriptors) in rings.descriptors().enumerate().skip(self.rings_sent) {
            // There are fewer processes than that.
            let Ok(number) = u16::try_from(place) else { return };
            let message = LogOrder::Ring { place: number }.encode();
            let sent = self.send(&message, &descriptors);
            self.has_unsent_rings = sent == Sent::Later;
            match sent {
                // One that cannot be told anything any more is about to be reaped.
                Sent::Whole | Sent::Never => self.rings_sent = place + 1,
                Sent::Later => return,
            }
        }
    }

    /// Its pid; 0 while its fork is under way.
    pub(super) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Sends an order, fire and forget: a blocked worker must not delay the others. What finds no room
    /// is kept until there is some.
    pub(super) fn order(&mut self, order: Order, listeners: &Listeners) {
        if matches!(order, Order::Accept(_)) {
            self.unsent.retain(|unsent| !matches!(unsent, Order::Accept(_)));
        }
        self.unsent.push_back(order);
        self.send_orders(listeners);
    }

    /// Sends the orders that are still to be sent, as far as there is room.
    fn send_orders(&mut self, listeners: &Listeners) {
        while let Some(order) = self.unsent.front() {
            let descriptors: Vec<BorrowedFd<'_>> = match *order {
                Order::Listener { address, slot } => {
                    listeners.get(address, slot).into_iter().collect()
                }
                Order::Bell { slot } => {
                    let bell = listeners.bell(slot).map(AsFd::as_fd);
                    bell.into_iter().chain(listeners.taker(slot).map(AsFd::as_fd)).collect()
                }
                Order::Announce
                | Order::Drain
                | Order::Stop
                | Order::Accept(_)
                | Order::Close { .. } => Vec::new(),
            };
            let (message, length) = order.encode();
            match self.send(&message[..length], &descriptors) {
                Sent::Later => return,
                // A child whose channel is closed is about to be reaped.
                Sent::Whole | Sent::Never => drop(self.unsent.pop_front()),
            }
        }
    }

    /// Sends the logger an order. It may be waiting in a write, and is told later then.
    pub(super) fn order_logger(&mut self, order: LogOrder) {
        let order = match self.untold {
            // It hears nothing after that.
            Some(LogOrder::Finish) => LogOrder::Finish,
            Some(LogOrder::Ring { .. } | LogOrder::Reopen) | None => order,
        };
        let is_later = self.has_unsent_rings || self.send(&order.encode(), &[]) == Sent::Later;
        self.untold = is_later.then_some(order);
    }

    fn send(&mut self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Sent {
        match self.channel.send(message, descriptors) {
            Ok(()) => Sent::Whole,
            Err(error) if error.kind() == WouldBlock => Sent::Later,
            Err(error) if is_exhaustion(&error) => {
                // The channel has room: poll(2) would not wait.
                self.retry_at = Some(now().after(RETRY));
                Sent::Later
            }
            Err(_) => Sent::Never,
        }
    }

    /// When something is to be sent again without regard to the room in the channel.
    pub(super) fn sends_again_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Returns true if something is still to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.untold.is_some() || self.has_unsent_rings
    }

    /// Sends what is still to be sent.
    pub(super) fn retry(&mut self, listeners: &Listeners, rings: &Rings) {
        self.retry_at = None;
        self.send_orders(listeners);
        if self.has_unsent_rings {
            self.send_rings(rings);
        }
        if let Some(order) = self.untold {
            self.order_logger(order);
        }
    }

    /// So many reports have come.
    pub(super) fn note_heard(&mut self, now: Instant, reports: usize) {
        if now >= self.heard.0.after(HEARING) {
            self.heard = (now, 0);
        }
        self.heard.1 = self.heard.1.saturating_add(reports);
    }

    /// It wants the log files reopened: once in this time, since a worker may send itself the signal
    /// for it without end. What it reports besides waits with the next such wish, and is not lost.
    pub(super) fn note_reopening(&mut self, now: Instant) {
        self.heard = (now, HEARD_MAX);
    }

    /// When its reports are read again, if it has sent more than is needed: it may not keep the
    /// master busy.
    pub(super) fn hears_again_at(&self) -> Option<Instant> {
        (self.heard.1 >= HEARD_MAX).then(|| self.heard.0.after(HEARING))
    }

    /// When a channel that has ended is strange, since its child has not.
    pub(super) fn unheard_at(&self) -> Option<Instant> {
        self.ended_at.filter(|_| !self.is_unheard).map(|at| at.after(UNHEARD))
    }

    /// When it is looked at next without news of it. What was put off until now is polled for by now, and
    /// wakes the master by itself: a child that has sent much and is silent does not keep it awake.
    pub(super) fn looked_at(&self, now: Instant) -> Option<Instant> {
        let put_off = [self.hears_again_at(), self.sends_again_at()];
        let put_off = put_off.into_iter().flatten().filter(|at| *at > now);
        put_off.chain(self.unheard_at()).min()
    }

    /// Returns true if a thread of the worker was kept from a processor for most of the time since this
    /// was asked last: its event loop may be any of them.
    pub(super) fn kept(&mut self, now: Instant) -> Kept {
        let Ok(threads) = statistics::threads(self.pid()) else { return Kept::ByNothing };
        let starved = self.seen.as_ref().is_some_and(|(then, before)| {
            let nanos = u64::try_from(now.since(*then).as_nanos()).unwrap_or(u64::MAX);
            threads.iter().any(|thread| thread.was_starved(before, nanos))
        });
        self.seen = Some((now, threads));
        if starved { Kept::ByStarvation } else { Kept::ByNothing }
    }
}

/// The fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    /// It is to be sent again.
    Later,
    /// The other end is closed.
    Never,
}

/// From one attempt to the next to send a message for which there is no memory, or whose descriptors are
/// too many.
const RETRY: Duration = Duration::from_millis(100);

/// Reports of a child that are read in this time; of more, the rest later.
const HEARD_MAX: usize = 64;
const HEARING: Duration = Duration::from_secs(1);
/// From the end of a channel to the end of its child: the kernel needs a moment in between.
const UNHEARD: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SlotSet;
    use crate::sys::channel::{self, Lower, Received};
    use crate::wire::MESSAGE_MAX;

    /// Returns the child's reports, until there is nothing more by now.
    fn read(child: &Lower) -> Vec<Order> {
        let mut message = [0; MESSAGE_MAX];
        std::iter::from_fn(|| match child.receive(&mut message).unwrap() {
            Received::Message { length, .. } => Some(Order::decode(&message[..length]).unwrap()),
            Received::Nothing | Received::End => None,
        })
        .collect()
    }

    /// A worker that does not read for a while, and has a long life of orders behind it.
    #[test]
    fn a_full_channel_loses_no_order_but_accept_sets_that_are_over() {
        let (ours, theirs) = channel::pair().unwrap();
        let mut handle = ChildHandle::new(ChildId(1), 1, ours, None);
        let nowhere = Listeners::default();
        let set = |slot: u16| Order::Accept(SlotSet::from_iter([Slot::new(slot)]));
        let mut sent = 0;
        while handle.unsent.is_empty() {
            handle.order(set(1), &nowhere);
            sent += 1;
        }
        let later = [set(2), Order::Close { address: 7 }, set(3), Order::Stop];
        later.into_iter().for_each(|order| handle.order(order, &nowhere));
        let before = read(&theirs);
        assert_eq!(before, vec![set(1); sent - 1]);
        handle.send_orders(&nowhere);
        assert_eq!(read(&theirs), [Order::Close { address: 7 }, set(3), Order::Stop]);
        assert!(handle.unsent.is_empty());
    }

    #[test]
    fn nothing_is_kept_for_whoever_is_gone() {
        let (ours, theirs) = channel::pair().unwrap();
        let mut handle = ChildHandle::new(ChildId(1), 1, ours, None);
        drop(theirs);
        handle.order(Order::Stop, &Listeners::default());
        assert!(handle.unsent.is_empty());
    }

    /// A child that reports without end is read now and then.
    #[test]
    fn reports_beyond_the_need_are_put_off() {
        let (ours, _theirs) = channel::pair().unwrap();
        let mut handle = ChildHandle::new(ChildId(1), 1, ours, None);
        let now = Instant::from_millis(5000);
        handle.note_heard(now, HEARD_MAX - 1);
        assert_eq!(handle.hears_again_at(), None);
        handle.note_heard(now.after(HEARING / 2), 1);
        assert_eq!(handle.hears_again_at(), Some(now.after(HEARING)));
        handle.note_heard(now.after(HEARING), 1);
        assert_eq!(handle.hears_again_at(), None);
    }

    #[test]
    fn silent_child_that_has_sent_much_does_not_keep_the_master_awake() {
        let (ours, _theirs) = channel::pair().unwrap();
        let mut handle = ChildHandle::new(ChildId(1), 1, ours, None);
        let now = Instant::from_millis(5000);
        handle.note_heard(now, HEARD_MAX);
        let again = now.after(HEARING);
        assert_eq!(handle.looked_at(now), Some(again));
        assert_eq!(handle.looked_at(again), None);
        handle.ended_at = Some(again);
        assert_eq!(handle.looked_at(again), Some(again.after(UNHEARD)));
    }

    /// A worker that sends itself `USR1` without end.
    #[test]
    fn reopening_is_heard_once_a_second() {
        let (ours, _theirs) = channel::pair().unwrap();
        let mut handle = ChildHandle::new(ChildId(1), 1, ours, None);
        let now = Instant::from_millis(5000);
        handle.note_heard(now, 1);
        handle.note_reopening(now.after(HEARING / 2));
        assert_eq!(handle.hears_again_at(), Some(now.after(HEARING / 2 + HEARING)));
    }

    /// Files are rotated again and again while nothing reads stdout.
    #[test]
    fn an_order_to_a_logger_that_does_not_listen_is_not_lost() {
        let (ours, theirs) = channel::pair().expect("a channel");
        let mut handle = ChildHandle::new(ChildId::LOGGER, 1, ours, None);
        let nowhere = Listeners::default();
        let sent = (0..10_000).take_while(|_| {
            handle.order_logger(LogOrder::Reopen);
            !handle.has_unsent()
        });
        let sent = sent.count();
        handle.order_logger(LogOrder::Finish);
        handle.order_logger(LogOrder::Reopen);
        let rings = Rings::new().expect("there is memory");
        handle.note_rings(&rings);
        handle.retry(&nowhere, &rings);
        let mut heard = Vec::new();
        let mut message = [0; 8];
        while let Received::Message { length, .. } = theirs.receive(&mut message).unwrap() {
            heard.push(LogOrder::decode(&message[..length]).expect("it is an order"));
            handle.retry(&nowhere, &rings);
        }
        assert_eq!(heard.pop(), Some(LogOrder::Finish));
        assert_eq!(heard, vec![LogOrder::Reopen; sent]);
        assert!(!handle.has_unsent());
    }
}
