//! A child as the master's shell holds it: what the kernel gave for it.

use std::sync::Arc;

use crate::ids::{ChildId, Generation, Slot, SlotSet};
use crate::scoreboard::WorkerBoard;
use crate::supervisor::event::Kept;
use crate::sys::channel::Channel;
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
    /// The accept set that found no room in the channel. Only the last one counts.
    pub(super) unsent: Option<SlotSet>,
    /// The logger's order that found none.
    untold: Option<LogOrder>,
    /// When its threads were looked at last, and what they had done by then.
    seen: Option<(Instant, Vec<Thread>)>,
}

impl Kid {
    pub(super) fn new(id: ChildId, pid: i32, channel: Channel, worker: Option<Worker>) -> Self {
        let (ended, ring, unsent, untold, seen) = (false, None, None, None, None);
        Self { id, pid, channel, ended, worker, ring, unsent, untold, seen }
    }

    /// Sends an order, fire and forget. Only accept sets are kept when there is no room: a blocked
    /// worker must not delay the others, and needs the last set alone when it comes back.
    pub(super) fn order(&mut self, order: Order) {
        let (message, length) = order.encode();
        let sent = self.channel.send(&message[..length], None);
        self.unsent = match (order, sent) {
            (Order::Accept(slots), Err(error))
                if error.kind() == std::io::ErrorKind::WouldBlock =>
            {
                Some(slots)
            }
            (Order::Accept(_), _) => None,
            // A worker that cannot be told to leave is killed at its deadline.
            (
                Order::Drain
                | Order::Stop
                | Order::Listener { .. }
                | Order::Bell { .. }
                | Order::Close { .. },
                _,
            ) => self.unsent,
        };
    }

    /// Sends the logger an order. It may be waiting in a write, and is told later then.
    pub(super) fn order_logger(&mut self, order: LogOrder) {
        let order = match self.untold {
            // It hears nothing after that.
            Some(LogOrder::Finish) => LogOrder::Finish,
            Some(LogOrder::Reopen) | None => order,
        };
        let sent = self.channel.send(&order.encode(), None);
        let is_full = sent.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        self.untold = is_full.then_some(order);
    }

    /// Whether something is still to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent.is_some() || self.untold.is_some()
    }

    /// Sends what is still to be sent.
    pub(super) fn retry(&mut self) {
        if let Some(slots) = self.unsent {
            self.order(Order::Accept(slots));
        }
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
    use crate::sys::channel::Received;

    /// Somebody rotates files again and again while nobody reads stdout.
    #[test]
    fn an_order_to_a_logger_that_does_not_listen_is_not_lost() {
        let (ours, theirs) = Channel::pair().expect("a channel");
        let mut kid = Kid::new(ChildId::LOGGER, 1, ours, None);
        let sent = (0..10_000).take_while(|_| {
            kid.order_logger(LogOrder::Reopen);
            !kid.has_unsent()
        });
        let sent = sent.count();
        kid.order_logger(LogOrder::Finish);
        kid.order_logger(LogOrder::Reopen);
        kid.retry();
        let mut heard = Vec::new();
        let mut message = [0; 8];
        while let Received::Message { length, .. } = theirs.receive(&mut message).unwrap() {
            heard.push(LogOrder::decode(&message[..length]).expect("it is an order"));
            kid.retry();
        }
        assert_eq!(heard.pop(), Some(LogOrder::Finish));
        assert_eq!(heard, vec![LogOrder::Reopen; sent]);
        assert!(!kid.has_unsent());
    }
}
