//! The relay of a slot: the queue by which a worker that drains hands its idle connections to the worker
//! that serves the slot from then on.
//!
//! # Why not through the master
//! A worker's message can carry any descriptor, and closing one may take as long as its sender likes. So the
//! master only keeps both ends, as it keeps listeners. Connections in a relay outlive the workers, and are
//! taken by the worker that accepts for the slot. The master takes none of them.
//!
//! # The trap
//! A worker may shut a relay down that it shares. No process can take that back, and the master must not
//! close the connections in it. So a slot whose relay has ended has none until the next start: its idle
//! connections are closed after their grace, as those are that cannot be handed over.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::Listeners;
use super::events::ListenerEvent;
use crate::ids::Slot;
use crate::logging;
use crate::sys::exec::{self, Handover};
use crate::sys::relay::{self, Giver, Taker};
use crate::wire::IdleNote;

/// The two ends of a slot's relay, as far as this process has them.
#[derive(Debug)]
pub(super) struct Relay {
    /// The master's and the slot's own worker's.
    giver: Option<Giver>,
    taker: Taker,
    /// True if it has ended, as far as this process knows.
    is_ended: bool,
}

impl Relay {
    /// # Errors
    /// The error of socketpair(2).
    pub(super) fn new() -> io::Result<Self> {
        let (giver, taker) = relay::pair()?;
        Ok(Self { giver: Some(giver), taker, is_ended: false })
    }

    /// The relay of another worker's slot.
    pub(super) fn received(taker: OwnedFd) -> Self {
        Self { giver: None, taker: taker.into(), is_ended: false }
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let giver = self.giver.as_ref().map(AsRawFd::as_raw_fd);
        giver.into_iter().chain([self.taker.as_raw_fd()])
    }

    /// Connections in it.
    pub(super) fn waiting(&self) -> u32 {
        let notes = self.taker.waiting().div_ceil(IdleNote::BYTES as u64);
        u32::try_from(notes).unwrap_or(u32::MAX)
    }

    /// It takes nothing more. What is in it can be taken.
    pub(super) fn end(&mut self) {
        self.taker.end();
        self.is_ended = true;
    }

    pub(super) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> (Option<i32>, i32) {
        let giver = self.giver.as_ref().map(|giver| handover.add(giver));
        (giver, handover.add(&self.taker))
    }

    /// # Errors
    /// When a descriptor is not open.
    pub(super) fn take_over(giver: Option<i32>, taker: i32) -> io::Result<Self> {
        let giver = giver.map(exec::inherited).transpose()?.map(Giver::from);
        Ok(Self { giver, taker: exec::inherited(taker)?.into(), is_ended: false })
    }
}

impl Listeners {
    /// In a worker: closes the ends by which the workers of other slots give.
    pub(crate) fn keep_giver_of(&mut self, slot: Slot) {
        for (at, relay) in self.relays.iter_mut().enumerate() {
            if at != slot.index() {
                relay.giver = None;
            }
        }
    }

    /// Both ends of this slot's own worker; only once.
    pub(crate) fn take_relay(&mut self, slot: Slot) -> Option<(Giver, Taker)> {
        let relay = self.relays.get_mut(slot.index())?;
        let taker = relay.taker.try_clone().ok()?;
        Some((relay.giver.take()?, taker))
    }

    /// The end by which connections of this slot are taken.
    pub(crate) fn taker(&self, slot: Slot) -> Option<&Taker> {
        self.relays.get(slot.index()).map(|relay| &relay.taker)
    }

    /// The end that becomes readable when a connection lies in this slot's relay.
    pub(crate) fn watched_relay(&self, slot: Slot) -> Option<BorrowedFd<'_>> {
        let relay = self.relays.get(slot.index()).filter(|relay| !relay.is_ended)?;
        Some(relay.taker.as_fd())
    }

    /// Finds relays that a process has shut down: they are not watched any more.
    pub(super) fn look_at_relays(&mut self) {
        for (number, relay) in (0..).zip(&mut self.relays) {
            if !relay.is_ended && relay.taker.has_ended() {
                relay.is_ended = true;
                logging::emit(&ListenerEvent::RelayEnded { slot: Slot::new(number) });
            }
        }
    }
}
