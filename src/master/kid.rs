//! A child as the master's shell holds it: what the kernel gave for it.

use std::collections::VecDeque;
use std::io::ErrorKind::WouldBlock;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{ChildId, Generation, Slot};
use crate::listeners::Listeners;
use crate::scoreboard::WorkerBoard;
use crate::supervisor::event::Kept;
use crate::sys::channel::Channel;
use crate::sys::socket::is_exhaustion;
use crate::sys::statistics;
use crate::time::Instant;
use crate::wire::Order;

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
    /// When the time without a processor was read, and how long it was by then.
    starved: Option<(Instant, u64)>,
}

impl Kid {
    pub(super) fn new(id: ChildId, pid: i32, channel: Channel, worker: Option<Worker>) -> Self {
        Self {
            id,
            pid,
            channel,
            ended: false,
            worker,
            ring: None,
            unsent: VecDeque::new(),
            starved: None,
        }
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
    pub(super) fn send_orders(&mut self, listeners: &Listeners) {
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

    /// Whether the worker was kept from a processor for most of the time since this was asked last.
    pub(super) fn kept(&mut self, now: Instant) -> Kept {
        let Ok(waited) = statistics::starved_nanos(self.pid) else { return Kept::ByNothing };
        let before = self.starved.replace((now, waited));
        let Some((then, waited_before)) = before else { return Kept::ByNothing };
        let waited = Duration::from_nanos(waited.saturating_sub(waited_before));
        if waited > now.since(then) / 2 { Kept::ByStarvation } else { Kept::ByNothing }
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
}
