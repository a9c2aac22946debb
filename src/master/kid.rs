//! A child as the master's shell holds it: what the kernel gave for it.

use std::collections::VecDeque;
use std::io::ErrorKind::WouldBlock;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::ids::{ChildId, Generation, Slot};
use crate::listeners::Listeners;
use crate::scoreboard::WorkerBoard;
use crate::supervisor::event::Kept;
use crate::sys::channel::Channel;
use crate::sys::socket::is_exhaustion;
use crate::sys::statistics::{self, Thread};
use crate::time::Instant;
use crate::wire::{LogOrder, Order};

/// What is known of a worker.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// Where its event loop beats.
    pub(super) board: Arc<WorkerBoard>,
}

/// One child, from its fork until it is reaped.
#[derive(Debug)]
pub(super) struct Kid {
    pub(super) id: ChildId,
    pub(super) pid: i32,
    pub(super) channel: Channel,
    /// The other end is closed: there is nothing more to read.
    pub(super) ended: bool,
    /// What it is besides, when it is a worker.
    pub(super) worker: Option<Worker>,
    /// The place of its ring; the logger has none.
    pub(super) ring: Option<usize>,
    /// The orders that found no room in the channel, in their sequence. Of accept sets only the last
    /// one counts.
    pub(super) unsent: VecDeque<Order>,
    /// The logger's order that found none.
    untold: Option<LogOrder>,
    /// When its threads were looked at last, and what they had done by then.
    seen: Option<(Instant, Vec<Thread>)>,
}

impl Kid {
    pub(super) fn new(id: ChildId, pid: i32, channel: Channel, worker: Option<Worker>) -> Self {
        let (ended, ring, unsent, untold, seen) = (false, None, VecDeque::new(), None, None);
        Self { id, pid, channel, ended, worker, ring, unsent, untold, seen }
    }

    /// Sends an order, fire and forget: a blocked worker must not delay the others. What finds no room
    /// is kept until there is some.
    pub(super) fn order(&mut self, order: Order, listeners: &Listeners) {
        if matches!(order, Order::Accept(_)) {
            self.unsent.retain(|it| !matches!(it, Order::Accept(_)));
        }
        self.unsent.push_back(order);
        self.send_orders(listeners);
    }

    /// Sends the orders that are still to be sent, as far as there is room.
    fn send_orders(&mut self, listeners: &Listeners) {
        while let Some(order) = self.unsent.front() {
            let descriptor = match *order {
                Order::Listener { address, slot } => listeners.get(address, slot),
                Order::Bell { slot } => listeners.bell(slot).map(AsFd::as_fd),
                Order::Drain | Order::Stop | Order::Accept(_) | Order::Close { .. } => None,
            };
            let (message, length) = order.encode();
            match self.channel.send(&message[..length], descriptor) {
                Err(error) if error.kind() == WouldBlock || is_exhaustion(&error) => return,
                // Whoever cannot be told anything any more is about to be reaped.
                Ok(()) | Err(_) => drop(self.unsent.pop_front()),
            }
        }
    }

    /// Sends the logger an order. It may be waiting in a write, and is told later then.
    pub(super) fn order_logger(&mut self, order: LogOrder) {
        let order = match self.untold {
            // It hears nothing after that.
            Some(LogOrder::Finish) => LogOrder::Finish,
            Some(LogOrder::Reopen) | None => order,
        };
        let sent = self.channel.send(&order.encode(), None);
        let is_full = sent.is_err_and(|error| error.kind() == WouldBlock);
        self.untold = is_full.then_some(order);
    }

    /// Whether something is still to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.untold.is_some()
    }

    /// Sends what is still to be sent.
    pub(super) fn retry(&mut self, listeners: &Listeners) {
        self.send_orders(listeners);
        if let Some(order) = self.untold {
            self.order_logger(order);
        }
    }

    /// Whether a thread of the worker was kept from a processor for most of the time since this was
    /// asked last: its event loop may be any of them.
    pub(super) fn kept(&mut self, now: Instant) -> Kept {
        let Ok(threads) = statistics::threads(self.pid) else { return Kept::ByNothing };
        let starved = self.seen.as_ref().is_some_and(|(then, before)| {
            let nanos = u64::try_from(now.since(*then).as_nanos()).unwrap_or(u64::MAX);
            threads.iter().any(|it| it.was_starved(before, nanos))
        });
        self.seen = Some((now, threads));
        if starved { Kept::ByStarvation } else { Kept::ByNothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SlotSet;
    use crate::sys::channel::Received;
    use crate::wire::MESSAGE_MAX;

    /// What the child reads, until there is nothing more by now.
    fn read(child: &Channel) -> Vec<Order> {
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
        let (ours, theirs) = Channel::pair().unwrap();
        let mut kid = Kid::new(ChildId(1), 1, ours, None);
        let nowhere = Listeners::default();
        let set = |slot: u16| Order::Accept(SlotSet::from_iter([Slot::new(slot)]));
        let mut sent = 0;
        while kid.unsent.is_empty() {
            kid.order(set(1), &nowhere);
            sent += 1;
        }
        let later = [set(2), Order::Close { address: 7 }, set(3), Order::Stop];
        later.into_iter().for_each(|order| kid.order(order, &nowhere));
        let before = read(&theirs);
        assert_eq!(before, vec![set(1); sent - 1]);
        kid.send_orders(&nowhere);
        assert_eq!(read(&theirs), [Order::Close { address: 7 }, set(3), Order::Stop]);
        assert!(kid.unsent.is_empty());
    }

    #[test]
    fn nothing_is_kept_for_whoever_is_gone() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut kid = Kid::new(ChildId(1), 1, ours, None);
        drop(theirs);
        kid.order(Order::Stop, &Listeners::default());
        assert!(kid.unsent.is_empty());
    }

    /// Somebody rotates files again and again while nobody reads stdout.
    #[test]
    fn an_order_to_a_logger_that_does_not_listen_is_not_lost() {
        let (ours, theirs) = Channel::pair().expect("a channel");
        let mut kid = Kid::new(ChildId::LOGGER, 1, ours, None);
        let nowhere = Listeners::default();
        let sent = (0..10_000).take_while(|_| {
            kid.order_logger(LogOrder::Reopen);
            !kid.has_unsent()
        });
        let sent = sent.count();
        kid.order_logger(LogOrder::Finish);
        kid.order_logger(LogOrder::Reopen);
        kid.retry(&nowhere);
        let mut heard = Vec::new();
        let mut message = [0; 8];
        while let Received::Message { length, .. } = theirs.receive(&mut message).unwrap() {
            heard.push(LogOrder::decode(&message[..length]).expect("it is an order"));
            kid.retry(&nowhere);
        }
        assert_eq!(heard.pop(), Some(LogOrder::Finish));
        assert_eq!(heard, vec![LogOrder::Reopen; sent]);
        assert!(!kid.has_unsent());
    }
}
