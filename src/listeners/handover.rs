//! Listeners for another image of the program.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Address, Bound, Listeners, Relay, Sockets};
use crate::sys::bell::Bell;
use crate::sys::exec::{self, Handover, Passed};

/// [`Listeners`] for another image of the program: descriptors by their numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedListeners {
    addresses: Vec<Option<(Option<String>, Bound, HandedSockets)>>,
    slots: u16,
    bells: Vec<i32>,
    /// Both ends of each.
    relays: Vec<(Option<i32>, i32)>,
    passed: Passed,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum HandedSockets {
    PerSlot(Vec<i32>),
    Shared(i32),
}

impl Listeners {
    pub(crate) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> HandedListeners {
        let mut sockets = |sockets: &'a Sockets| match sockets {
            Sockets::PerSlot(sockets) => {
                HandedSockets::PerSlot(sockets.iter().map(|socket| handover.add(socket)).collect())
            }
            Sockets::Shared(socket) => HandedSockets::Shared(handover.add(socket)),
        };
        let mut address = |address: &'a Address| {
            (address.bind.clone(), address.bound.clone(), sockets(&address.sockets))
        };
        let addresses = self.addresses.iter().map(|slot| slot.as_ref().map(&mut address)).collect();
        HandedListeners {
            addresses,
            slots: self.slots,
            bells: self.bells.iter().map(|bell| handover.add(bell)).collect(),
            relays: self.relays.iter().map(|relay| relay.hand_over(handover)).collect(),
            passed: self.passed.clone(),
        }
    }

    /// # Errors
    /// When a descriptor is not open.
    pub(crate) fn take_over(handed: HandedListeners) -> io::Result<Self> {
        let HandedListeners { addresses, slots, bells, relays, passed } = handed;
        let sockets = |sockets| match sockets {
            HandedSockets::PerSlot(numbers) => {
                let sockets = numbers.into_iter().map(exec::inherited);
                sockets.collect::<io::Result<_>>().map(Sockets::PerSlot)
            }
            HandedSockets::Shared(number) => exec::inherited(number).map(Sockets::Shared),
        };
        let address =
            |(bind, bound, handed)| Ok::<_, io::Error>(Address::new(bind, bound, sockets(handed)?));
        let addresses = addresses.into_iter().map(|handed| handed.map(address).transpose());
        let bells = bells.into_iter().map(|number| exec::inherited(number).map(Bell::from));
        let relays = relays.into_iter().map(|(giver, taker)| Relay::take_over(giver, taker));
        Ok(Self {
            addresses: addresses.collect::<io::Result<_>>()?,
            slots,
            bells: bells.collect::<io::Result<_>>()?,
            relays: relays.collect::<io::Result<_>>()?,
            passed,
            ..Self::default()
        })
    }
}
