//! The boundaries between the messages that a server sends on a WebSocket (RFC 6455 section 5.2), found in
//! the bytes that pass.

/// Bytes of a frame's header: two, eight of an extended length, four of a mask.
const HEADER_MAX: usize = 14;

/// The frame that says Close with the code 1012, "service restart" (RFC 6455 section 7.4, IANA's registry).
pub(crate) const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xf4];

/// The frames that have passed in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames {
    /// The header that has begun to pass.
    header: [u8; HEADER_MAX],
    header_length: usize,
    /// Bytes of the payload that are still to pass.
    payload: u64,
    /// True while a message has more frames to come.
    is_fragmented: bool,
    /// True once a Close frame has begun.
    is_closed: bool,
}

impl Frames {
    /// Returns true if no message is under way, so that a Close frame may follow.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.header_length == 0 && self.payload == 0 && !self.is_fragmented
    }

    /// Returns true if a Close frame has passed or is passing: nothing may follow it.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Notes that these bytes pass.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// The number of these bytes up to the end of the message that is under way, or of the first one; all of
    /// them if none ends.
    pub(crate) fn until_boundary(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut at = 0;
        while at < bytes.len() {
            at += ahead.step(&bytes[at..]);
            if ahead.is_at_boundary() {
                break;
            }
        }
        at
    }

    /// Passes one byte of a header, or as much of a payload as there is. Returns how many bytes that are.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let length = self.payload.min(bytes.len() as u64);
            self.payload -= length;
            return usize::try_from(length).unwrap_or(bytes.len());
        }
        self.header[self.header_length] = bytes[0];
        self.header_length += 1;
        if let Some(payload) = self.payload_of_header() {
            self.begin_payload(payload);
        }
        1
    }

    /// The length of the payload, once the header is whole.
    fn payload_of_header(&self) -> Option<u64> {
        let header = &self.header[..self.header_length];
        let second = *header.get(1)?;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if header.len() < 2 + extended + mask {
            return None;
        }
        Some(match extended {
            0 => u64::from(second & 0x7f),
            _ => header[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        })
    }

    fn begin_payload(&mut self, payload: u64) {
        let is_final = self.header[0] & 0x80 != 0;
        let opcode = self.header[0] & 0x0f;
        // Control frames may stand between those of a message.
        if opcode < 8 {
            self.is_fragmented = !is_final;
        }
        self.is_closed |= opcode == 8;
        self.payload = payload;
        self.header_length = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame, with the header that fits its length.
    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(if masked { &[1, 2, 3, 4][..] } else { &[] });
        bytes.resize(bytes.len() + length, 0x88);
        bytes
    }

    fn passed(bytes: &[u8]) -> Frames {
        let mut frames = Frames::default();
        frames.pass(bytes);
        frames
    }

    #[test]
    fn boundary_is_behind_each_message() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for masked in [false, true] {
                let bytes = frame(0x82, length, masked);
                assert!(passed(&bytes).is_at_boundary(), "{length} {masked}");
                for cut in [1, 2, bytes.len() - 1].into_iter().filter(|cut| *cut < bytes.len()) {
                    assert!(!passed(&bytes[..cut]).is_at_boundary(), "{length} {masked} {cut}");
                }
                assert!(!passed(&bytes).is_closed());
            }
        }
    }

    #[test]
    fn message_of_several_frames_has_no_boundary_within() {
        let mut frames = passed(&frame(0x01, 3, false));
        assert!(!frames.is_at_boundary());
        frames.pass(&frame(0x89, 2, false));
        assert!(!frames.is_at_boundary(), "a ping stands between the frames");
        frames.pass(&frame(0x80, 3, false));
        assert!(frames.is_at_boundary());
    }

    #[test]
    fn close_is_seen_and_is_one() {
        assert!(passed(&CLOSE).is_closed() && passed(&CLOSE).is_at_boundary());
        assert!(passed(&[0x88]).until_boundary(&CLOSE[1..]) == 3);
    }

    proptest! {
        /// However the bytes are cut, the boundaries are the same.
        #[test]
        fn boundaries_do_not_depend_on_the_pieces(
            lengths in proptest::collection::vec((0_usize..300, any::<bool>(), any::<bool>()), 1..8),
            piece in 1_usize..50,
        ) {
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            for (at, (length, masked, is_final)) in lengths.iter().enumerate() {
                let first = if *is_final { 0x82 } else { 0x02 };
                let is_last = at + 1 == lengths.len();
                bytes.extend(frame(if is_last { 0x80 } else { first }, *length, *masked));
                if *is_final || is_last {
                    ends.push(bytes.len());
                }
            }
            let mut frames = Frames::default();
            let mut at = 0;
            let mut found = Vec::new();
            while at < bytes.len() {
                let next = &bytes[at..bytes.len().min(at + piece)];
                let length = frames.until_boundary(next);
                frames.pass(&next[..length]);
                at += length;
                if frames.is_at_boundary() {
                    found.push(at);
                }
            }
            prop_assert_eq!(found, ends);
        }

        #[test]
        fn any_bytes_pass(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let frames = passed(&bytes);
            prop_assert!(frames.until_boundary(&bytes) <= bytes.len());
        }
    }
}
