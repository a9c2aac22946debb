//! Listeners for another image of the program.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Address, Listeners, Place, Relay, Sockets};
use crate::sys::bell::Bell;
use crate::sys::exec::{self, Passed};

/// [`Listeners`] for another image of the program: descriptors by their numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handed {
    addresses: Vec<Option<(Option<String>, Place, HandedSockets)>>,
    slots: u16,
    bells: Vec<i32>,
    /// Both ends of each.
    relays: Vec<[i32; 2]>,
    passed: Passed,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum HandedSockets {
    PerSlot(Vec<i32>),
    Shared(i32),
}

impl Listeners {
    /// Lets every socket live on in the next image.
    ///
    /// # Errors
    /// The error of fcntl(2).
    pub(crate) fn hand_over(&self) -> io::Result<Handed> {
        let hand = |sockets: &Sockets| match sockets {
            Sockets::PerSlot(sockets) => sockets
                .iter()
                .map(exec::keep)
                .collect::<io::Result<_>>()
                .map(HandedSockets::PerSlot),
            Sockets::Shared(socket) => exec::keep(socket).map(HandedSockets::Shared),
        };
        let hand = |address: &Address| {
            Ok::<_, io::Error>((
                address.bind.clone(),
                address.place.clone(),
                hand(&address.sockets)?,
            ))
        };
        let addresses = self
            .addresses
            .iter()
            .map(|address| address.as_ref().map(hand).transpose())
            .collect::<io::Result<_>>()?;
        let bells = self.bells.iter().map(exec::keep).collect::<io::Result<_>>()?;
        let relays = self.relays.iter().map(Relay::hand_over).collect::<io::Result<_>>()?;
        Ok(Handed { addresses, slots: self.slots, bells, relays, passed: self.passed.clone() })
    }

    /// Takes over what the image before has handed over.
    ///
    /// # Errors
    /// When a descriptor is not open.
    pub(crate) fn take_over(handed: Handed) -> io::Result<Self> {
        let take = |sockets| match sockets {
            HandedSockets::PerSlot(numbers) => numbers
                .into_iter()
                .map(exec::inherited)
                .collect::<io::Result<_>>()
                .map(Sockets::PerSlot),
            HandedSockets::Shared(number) => exec::inherited(number).map(Sockets::Shared),
        };
        let take =
            |(bind, place, sockets)| Ok::<_, io::Error>(Address::new(bind, place, take(sockets)?));
        let addresses = handed
            .addresses
            .into_iter()
            .map(|address| address.map(take).transpose())
            .collect::<io::Result<_>>()?;
        let bell = |number| exec::inherited(number).map(Bell::from);
        let bells = handed.bells.into_iter().map(bell).collect::<io::Result<_>>()?;
        let relays = handed.relays.into_iter().map(Relay::take_over).collect::<io::Result<_>>()?;
        let (slots, passed) = (handed.slots, handed.passed);
        Ok(Self { addresses, slots, bells, relays, passed, ..Self::default() })
    }

    /// The next image did not come.
    pub(crate) fn keep_no_more(&self) {
        self.bells.iter().for_each(exec::keep_no_more);
        self.relays.iter().for_each(Relay::keep_no_more);
        for (_, address) in self.open_addresses() {
            match &address.sockets {
                Sockets::PerSlot(sockets) => sockets.iter().for_each(exec::keep_no_more),
                Sockets::Shared(socket) => exec::keep_no_more(socket),
            }
        }
    }
}
