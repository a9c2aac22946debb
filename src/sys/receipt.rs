//! Writes to a socket, of which the kernel leaves a receipt in shared memory.
//!
//! # Why
//! A process may be killed between a write and its own note of the write. sendmmsg(2) stores the number of
//! bytes that the kernel has taken beside the message, before the call returns, and a signal that kills
//! takes effect only when the process returns from the kernel or sleeps there. Another process that maps the
//! message can therefore find out whether a killed process has sent it.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering;

use nix::libc::{self, mmsghdr};

use super::shared::Line;

// Offsets in the line, in bytes: the address of the message's pieces, and their number.
const PIECES: usize = offset_of!(mmsghdr, msg_hdr.msg_iov);
const PIECE_COUNT: usize = offset_of!(mmsghdr, msg_hdr.msg_iovlen);
/// The number of bytes that the kernel has taken, which it stores there.
const TAKEN: usize = offset_of!(mmsghdr, msg_len);
/// The number of bytes that were offered; the kernel does not touch it.
const OFFERED: usize = size_of::<Line>() - size_of::<u32>();
const _: () = assert!(align_of::<mmsghdr>() <= align_of::<Line>() && TAKEN + 4 <= OFFERED);

/// The receipt of one write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt<'a>(&'a Line);

// ORDERING: it is read when its writer is dead, or by the writer: Relaxed throughout.
impl<'a> Receipt<'a> {
    pub(crate) fn new(line: &'a Line) -> Self {
        Self(line)
    }

    /// Forgets the write before.
    pub(crate) fn clear(&self) {
        self.put(OFFERED, [0; 4]);
    }

    /// Returns true if the kernel has taken all of a write. A mad writer may have stored anything.
    pub(crate) fn is_whole(&self) -> bool {
        let offered = self.number(OFFERED);
        offered > 0 && self.number(TAKEN) == offered
    }

    /// Writes the pieces to a non-blocking socket, and returns the number of bytes that it has taken.
    ///
    /// # Errors
    /// Those of sendmmsg(2): `WouldBlock` where the socket has no room.
    pub(crate) fn send(
        &self,
        socket: BorrowedFd<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> io::Result<usize> {
        let offered = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        // The memory was all zeros, so that the message has no address and no ancillary data.
        self.put(PIECES, pieces.as_ptr().expose_provenance().to_ne_bytes());
        self.put(PIECE_COUNT, pieces.len().to_ne_bytes());
        self.put(TAKEN, [0; 4]);
        self.put(OFFERED, u32::try_from(offered).unwrap_or(0).to_ne_bytes());
        let message = std::ptr::from_ref(self.0).cast_mut().cast();
        // SAFETY: the line has room for the one message and is aligned for it, as is asserted above. The
        // kernel reads the pieces, since an `IoSlice` has the layout of an `iovec`, and writes `msg_len`
        // alone, into atomics, which may change under a shared reference.
        #[expect(unsafe_code, reason = "no crate leaves the receipt where it is asked to")]
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), message, 1, libc::MSG_NOSIGNAL) };
        match sent {
            1 => Ok(usize::try_from(self.number(TAKEN)).unwrap_or(0).min(offered)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn number(&self, at: usize) -> u32 {
        let word = self.0.0[at / 8].load(Ordering::Relaxed).to_ne_bytes();
        word[at % 8..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }

    fn put<const N: usize>(&self, at: usize, bytes: [u8; N]) {
        let mut word = self.0.0[at / 8].load(Ordering::Relaxed).to_ne_bytes();
        word[at % 8..][..N].copy_from_slice(&bytes);
        self.0.0[at / 8].store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn kernel_leaves_a_receipt_of_what_it_has_taken() {
        let line = Line::default();
        let receipt = Receipt::new(&line);
        assert!(!receipt.is_whole(), "nothing was written");
        let (one, mut other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let pieces = [IoSlice::new(b"hello "), IoSlice::new(b"world")];
        assert_eq!(receipt.send(one.as_fd(), &pieces).unwrap(), 11);
        assert!(receipt.is_whole());
        let mut bytes = [0; 11];
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello world");
        receipt.clear();
        assert!(!receipt.is_whole());
    }

    #[test]
    fn receipt_of_a_part_or_of_nothing_is_not_whole() {
        let line = Line::default();
        let receipt = Receipt::new(&line);
        let (one, other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let much = vec![0; 1 << 22];
        let taken = receipt.send(one.as_fd(), &[IoSlice::new(&much)]).unwrap();
        assert!((1..much.len()).contains(&taken) && !receipt.is_whole(), "{taken}");
        let full = receipt.send(one.as_fd(), &[IoSlice::new(b"a")]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(!receipt.is_whole());
        drop(other);
        let gone = receipt.send(one.as_fd(), &[IoSlice::new(b"a")]).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
        assert!(!receipt.is_whole());
    }
}
