//! The messages between the master and its children, and the note of a worker to the one that goes on with
//! a connection. One type for each direction: an order cannot be sent upwards. What cannot be read is an
//! error, never a panic: a peer may have gone mad, or may be another version after an upgrade.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::ids::{Slot, SlotSet};
use crate::time::Instant;

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
    /// Here are the bell of this slot and the end of its relay that is taken from; the descriptors come with
    /// the message.
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

/// From a worker that drains to the one that goes on with an idle connection, whose socket comes with the
/// message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdleNote {
    /// The number of the address that it came in by.
    pub(crate) address: u16,
    /// Since when it has been idle.
    pub(crate) since: Instant,
    /// The client that a PROXY header has named.
    pub(crate) source: Option<SocketAddr>,
    /// True if that header has named TLS.
    pub(crate) is_https: bool,
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

impl IdleNote {
    /// The length of the message.
    pub(crate) const BYTES: usize = 30;
    /// The first byte of each: another version's is not read.
    const VERSION: u8 = 1;
    const HTTPS: u8 = 1;
    const SOURCE: u8 = 2;

    /// The message.
    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut message = [0; Self::BYTES];
        let https = if self.is_https { Self::HTTPS } else { 0 };
        let source = if self.source.is_some() { Self::SOURCE } else { 0 };
        message[0] = Self::VERSION;
        message[1] = https | source;
        message[2..4].copy_from_slice(&self.address.to_be_bytes());
        message[4..12].copy_from_slice(&self.since.as_millis().to_be_bytes());
        if let Some(source) = self.source {
            let ip = match source.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            message[12..14].copy_from_slice(&source.port().to_be_bytes());
            message[14..].copy_from_slice(&ip.octets());
        }
        message
    }

    /// The note in a message.
    ///
    /// # Errors
    /// When there is none in it.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Unreadable> {
        let message: &[u8; Self::BYTES] = message.try_into().map_err(|_| Unreadable)?;
        let flags = message[1];
        if message[0] != Self::VERSION || flags & !(Self::HTTPS | Self::SOURCE) != 0 {
            return Err(Unreadable);
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let port = u16::from_be_bytes([message[12], message[13]]);
        let ip: [u8; 16] = std::array::from_fn(|at| message[14 + at]);
        let source = SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port);
        Ok(Self {
            address: u16::from_be_bytes([message[2], message[3]]),
            since: Instant::from_millis(number(&message[4..12])),
            source: (flags & Self::SOURCE != 0).then_some(source),
            is_https: flags & Self::HTTPS != 0,
        })
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
    fn idle_note_survives_its_message() {
        for source in ["192.0.2.1:80", "[2001:db8::1]:65535", ""] {
            for is_https in [false, true] {
                let since = Instant::from_millis(u64::MAX - 1);
                let source = source.parse().ok();
                let note = IdleNote { address: 770, since, source, is_https };
                let message = note.encode();
                assert_eq!(IdleNote::decode(&message), Ok(note));
                assert_eq!(IdleNote::decode(&message[1..]), Err(Unreadable));
                assert_eq!(IdleNote::decode(&[&message[..], &[0]].concat()), Err(Unreadable));
                let mut later = message;
                later[0] += 1;
                assert_eq!(IdleNote::decode(&later), Err(Unreadable));
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
