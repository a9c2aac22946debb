//! The words for what a connection waits for, why it is to end, and what is wrong with a body.

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Wait {
    /// Its first request: nothing has been read yet.
    First = 0,
    /// The rest of a request's head.
    Head = 1,
    /// The handler's answer, and that all of it is with the kernel.
    Answer = 2,
    /// The next piece of a request's body.
    Body = 3,
    /// The next request.
    Next = 4,
    /// Nothing that we know: it speaks another protocol now.
    Other = 5,
    /// That the client, which has been answered for the last time, stops speaking.
    Silence = 6,
    /// The end of its TLS handshake.
    Handshake = 7,
    /// Its streams, each of which has a wait of its own.
    Streams = 8,
}

impl Wait {
    /// Returns true if what comes in then is of a request's head.
    pub(crate) fn is_of_head(self) -> bool {
        matches!(self, Self::First | Self::Head | Self::Next)
    }
}

/// Why a connection is to end, or to park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CloseReason {
    /// The head of a request took too long.
    Head = 1,
    /// The handler took too long.
    Answer = 2,
    /// The body of a request stood still.
    Body = 3,
    /// The client does not read the response.
    Reader = 4,
    /// It was idle for too long, or the worker drains.
    Idle = 5,
    /// Its last response is out, and the client sends on.
    Silence = 6,
    /// It has been idle for some time, and may give back what is kept to serve it.
    Park = 7,
    /// Its client has finished sending long ago, and may have gone.
    Finished = 8,
    /// Its unfinished request is one of the largest, and all of them take too much memory.
    Budget = 9,
    /// Its client does too much beside its requests.
    Abuse = 10,
}

/// The fault in the body of the request in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing so far.
    #[default]
    None,
    /// It is longer than allowed.
    TooLong,
    /// It stood still for too long.
    Stalled,
    /// Its chunks are malformed.
    Malformed,
}

impl Wait {
    /// The one with this number.
    pub(crate) fn of(number: u8) -> Self {
        match number {
            0 => Self::First,
            1 => Self::Head,
            2 => Self::Answer,
            3 => Self::Body,
            4 => Self::Next,
            5 => Self::Other,
            6 => Self::Silence,
            7 => Self::Handshake,
            _ => Self::Streams,
        }
    }
}

impl CloseReason {
    /// The one with this number; 0: none.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => return None,
            1 => Self::Head,
            2 => Self::Answer,
            3 => Self::Body,
            4 => Self::Reader,
            5 => Self::Idle,
            6 => Self::Silence,
            7 => Self::Park,
            8 => Self::Finished,
            9 => Self::Budget,
            _ => Self::Abuse,
        })
    }
}
