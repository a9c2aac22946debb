//! The messages between the master and its children. One type for each direction: an order cannot be sent
//! upwards. What cannot be read is an error, never a panic: a peer may have gone mad, or may be another
//! version after an upgrade.

use serde::{Deserialize, Serialize};

use crate::ids::{Slot, SlotSet};

/// The longest message of either direction, in bytes.
pub(crate) const MESSAGE_MAX: usize = 1 + SlotSet::BYTES;

/// From the master to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Others accept for you: accept nothing more, finish what is open, leave.
    Drain,
    /// The whole server stops: accept what is queued, finish it, leave.
    Stop,
    /// The server will stop: serve on, and say so to clients.
    Announce,
    /// From now on accept from these slots.
    Accept(SlotSet),
    /// Here is the listener of this address in this slot; the descriptor comes with the message.
    Listener { address: u16, slot: Slot },
    /// Here is the bell of this slot; the descriptor comes with the message.
    Bell { slot: Slot },
    /// Accept what has come in at this address, and then nothing more.
    Close { address: u16 },
}

/// From the master to the logger, and to the stats process, which knows `Finish` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogOrder {
    /// Read the ring at this place, too, whose memory and bell come with it.
    Ring { place: u16 },
    /// Open the files again by their paths.
    Reopen,
    /// Write what is there, and leave.
    Finish,
}

/// From a child to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// I do what I was forked for.
    Ready,
    /// I was told by hand to leave.
    ToldToLeave,
    /// I was told by hand to have the log files reopened.
    ToldToReopen,
    /// I have served as many requests as I should.
    ServedEnough,
    /// I have opened the log files again.
    Reopened,
    /// I could not open each of the log files again.
    NotReopened,
    /// I want fresh numbers from the master.
    Measure,
    /// My program has asked for more time to become ready, or to finish.
    NeedsTime,
}

/// A message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl Order {
    /// The message, and its length.
    pub(crate) fn encode(self) -> ([u8; MESSAGE_MAX], usize) {
        let mut message = [0; MESSAGE_MAX];
        let length = match self {
            Self::Drain => {
                message[0] = b'D';
                1
            }
            Self::Stop => {
                message[0] = b'S';
                1
            }
            Self::Announce => {
                message[0] = b'N';
                1
            }
            Self::Accept(slots) => {
                message[0] = b'A';
                message[1..].copy_from_slice(&slots.to_bytes());
                MESSAGE_MAX
            }
            Self::Listener { address, slot } => {
                message[0] = b'L';
                message[1..3].copy_from_slice(&address.to_le_bytes());
                message[3..5].copy_from_slice(&slot.number().to_le_bytes());
                5
            }
            Self::Bell { slot } => {
                message[0] = b'B';
                message[1..3].copy_from_slice(&slot.number().to_le_bytes());
                3
            }
            Self::Close { address } => {
                message[0] = b'C';
                message[1..3].copy_from_slice(&address.to_le_bytes());
                3
            }
        };
        (message, length)
    }

    /// The order in a message.
    ///
    /// # Errors
    /// When there is none in it.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Unreadable> {
        match message {
            [b'D'] => Ok(Self::Drain),
            [b'S'] => Ok(Self::Stop),
            [b'N'] => Ok(Self::Announce),
            [b'A', slots @ ..] => {
                let slots = slots.try_into().map_err(|_| Unreadable)?;
                Ok(Self::Accept(SlotSet::from_bytes(slots)))
            }
            [b'L', a, b, c, d] => {
                let slot = slot([*c, *d])?;
                Ok(Self::Listener { address: u16::from_le_bytes([*a, *b]), slot })
            }
            [b'B', a, b] => Ok(Self::Bell { slot: slot([*a, *b])? }),
            [b'C', a, b] => Ok(Self::Close { address: u16::from_le_bytes([*a, *b]) }),
            _ => Err(Unreadable),
        }
    }
}

fn slot(bytes: [u8; 2]) -> Result<Slot, Unreadable> {
    let number = u16::from_le_bytes(bytes);
    (number < Slot::MAX).then(|| Slot::new(number)).ok_or(Unreadable)
}

impl LogOrder {
    /// The message.
    pub(crate) fn encode(self) -> [u8; 3] {
        let (letter, [high, low]) = match self {
            Self::Ring { place } => (b'N', place.to_be_bytes()),
            Self::Reopen => (b'R', [0; 2]),
            Self::Finish => (b'F', [0; 2]),
        };
        [letter, high, low]
    }

    /// The order in a message.
    ///
    /// # Errors
    /// When there is none in it.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Unreadable> {
        match message {
            [b'N', high, low] => Ok(Self::Ring { place: u16::from_be_bytes([*high, *low]) }),
            b"R\0\0" => Ok(Self::Reopen),
            b"F\0\0" => Ok(Self::Finish),
            _ => Err(Unreadable),
        }
    }
}

impl Report {
    /// The message.
    pub(crate) fn encode(self) -> [u8; 1] {
        match self {
            Self::Ready => *b"r",
            Self::ToldToLeave => *b"l",
            Self::ToldToReopen => *b"o",
            Self::ServedEnough => *b"e",
            Self::Reopened => *b"a",
            Self::NotReopened => *b"n",
            Self::Measure => *b"m",
            Self::NeedsTime => *b"t",
        }
    }

    /// The report in a message.
    ///
    /// # Errors
    /// When there is none in it.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Unreadable> {
        match message {
            b"r" => Ok(Self::Ready),
            b"l" => Ok(Self::ToldToLeave),
            b"o" => Ok(Self::ToldToReopen),
            b"e" => Ok(Self::ServedEnough),
            b"a" => Ok(Self::Reopened),
            b"n" => Ok(Self::NotReopened),
            b"m" => Ok(Self::Measure),
            b"t" => Ok(Self::NeedsTime),
            _ => Err(Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn orders() -> impl Strategy<Value = Order> {
        let slot = || (0..Slot::MAX).prop_map(Slot::new);
        prop_oneof![
            Just(Order::Drain),
            Just(Order::Stop),
            Just(Order::Announce),
            proptest::collection::vec(slot(), 0..20)
                .prop_map(|slots| Order::Accept(slots.into_iter().collect())),
            any::<u16>().prop_map(|address| Order::Close { address }),
            slot().prop_map(|slot| Order::Bell { slot }),
            (any::<u16>(), slot()).prop_map(|(address, slot)| Order::Listener { address, slot }),
        ]
    }

    /// Messages, most of them damaged: of bytes that are drawn at random hardly any begin like one.
    fn nearly_messages() -> impl Strategy<Value = Vec<u8>> {
        let letter = prop::sample::select(&b"RFrleanmt"[..]).prop_map(|letter| vec![letter]);
        let order = orders().prop_map(|order| {
            let (message, length) = order.encode();
            message[..length].to_vec()
        });
        let damage = (any::<prop::sample::Index>(), any::<u8>(), 0..4);
        let damages = proptest::collection::vec(damage, 0..4);
        (prop_oneof![4 => order, 1 => letter], damages).prop_map(|(mut bytes, damages)| {
            for (at, byte, how) in damages {
                let at = at.index(bytes.len() + 1);
                match how {
                    0 => bytes.insert(at, byte),
                    1 => bytes.truncate(at),
                    2 if at < bytes.len() => bytes[at] = byte,
                    3 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => {}
                }
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn an_order_survives_its_message(order in orders()) {
            let (message, length) = order.encode();
            prop_assert_eq!(Order::decode(&message[..length]), Ok(order));
        }

        #[test]
        fn any_bytes_are_an_order_or_an_error(bytes in nearly_messages()) {
            if let Ok(order) = Order::decode(&bytes) {
                let (message, length) = order.encode();
                prop_assert_eq!(&message[..length], &bytes[..]);
            }
            if let Ok(order) = LogOrder::decode(&bytes) {
                prop_assert_eq!(&order.encode()[..], &bytes[..]);
            }
            if let Ok(report) = Report::decode(&bytes) {
                prop_assert_eq!(&report.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn an_order_to_the_logger_survives_its_message() {
        for order in [LogOrder::Ring { place: 770 }, LogOrder::Reopen, LogOrder::Finish] {
            assert_eq!(LogOrder::decode(&order.encode()), Ok(order));
        }
    }

    #[test]
    fn a_report_survives_its_message() {
        for report in [
            Report::Ready,
            Report::ToldToLeave,
            Report::ToldToReopen,
            Report::ServedEnough,
            Report::Measure,
        ] {
            assert_eq!(Report::decode(&report.encode()), Ok(report));
        }
    }
}
