//! The two ends between a process and its child: whole messages down, with descriptors, and bytes up.
//!
//! Down goes a `SOCK_SEQPACKET` pair: messages are never merged or split. Up goes a pipe. When every
//! copy of one end is closed, the other reads the end. That makes it the lifeline too: no process can
//! die without its peer's notice.
//!
//! # Why a pipe
//! Whatever is sent on a unix socket can carry descriptors, and the receiver closes them, whether it
//! asked for them or not: one of a socket that lingers blocks it in `close`. So the upper end takes
//! nothing from the socket, not even into its queue, and a pipe carries bytes alone.
//!
//! # The trap
//! A descriptor's flags belong to every process that shares it. Neither end shares one with the other:
//! the child's are its own once its parent has dropped them, and what is sent down says by itself that
//! it does not wait.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use socket2::SockRef;

/// The parent's end. Non-blocking, and not inherited over `execve`.
#[derive(Debug)]
pub(crate) struct Upper {
    down: OwnedFd,
    up: OwnedFd,
}

/// The child's end. Non-blocking, and not inherited over `execve`.
#[derive(Debug)]
pub(crate) struct Lower {
    down: OwnedFd,
    up: OwnedFd,
}

/// The message that the child received.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message of so many bytes, with the descriptors that came with it.
    Message { length: usize, descriptors: Vec<OwnedFd> },
    /// Nothing by now.
    Nothing,
    /// The other end is closed.
    End,
}

/// The message that the parent read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing by now.
    Nothing,
    /// The other end is closed.
    End,
}

/// Descriptors that a message brings, at the most.
const DESCRIPTORS_MAX: usize = 4;

/// Two ends of a new channel.
///
/// # Errors
/// The error of socketpair(2) and pipe(2): `EMFILE`, `ENFILE`, `ENOBUFS`.
pub(crate) fn pair() -> io::Result<(Upper, Lower)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (above, below) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    // For good: it cannot be taken back, by either end.
    SockRef::from(&above).shutdown(Shutdown::Read)?;
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok((Upper { down: above, up: reader }, Lower { down: below, up: writer }))
}

impl Upper {
    /// Sends one message whole, or not at all.
    ///
    /// # Errors
    /// `WouldBlock` when the other end does not read; `BrokenPipe` when it is closed.
    pub(crate) fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.down.as_raw_fd(), &[IoSlice::new(message)], control, flags, None)?;
        Ok(())
    }

    /// Reads what the child has written, as much as the buffer holds.
    ///
    /// # Errors
    /// The error of read(2), but for `EAGAIN` and `EINTR`.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Read> {
        match nix::unistd::read(&self.up, buffer) {
            Ok(0) => Ok(Read::End),
            Ok(length) => Ok(Read::Bytes(length)),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(Read::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the descriptor that becomes readable when the child has written something, or is gone.
    pub(crate) fn readable(&self) -> BorrowedFd<'_> {
        self.up.as_fd()
    }

    /// Returns the descriptor that becomes writable when there is room for a message.
    pub(crate) fn writable(&self) -> BorrowedFd<'_> {
        self.down.as_fd()
    }

    /// Its descriptors, for another image.
    pub(crate) fn descriptors(&self) -> [&OwnedFd; 2] {
        [&self.down, &self.up]
    }

    /// The end that an earlier image had: its [`Upper::descriptors`].
    pub(crate) fn inherit([down, up]: [OwnedFd; 2]) -> Self {
        Self { down, up }
    }
}

impl Lower {
    /// Writes these bytes up, whole where they are fewer than a page (pipe(7), `PIPE_BUF`).
    ///
    /// # Errors
    /// `WouldBlock` when the other end does not read; `BrokenPipe` when it is closed.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.up, bytes)?;
        Ok(())
    }

    /// Receives one message.
    ///
    /// # Errors
    /// The error of recvmsg(2), but for `EAGAIN`.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = match recvmsg(&self.down, &mut slices, &mut control, flags) {
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(error) => return Err(error.into()),
        };
        // Where this process may have no descriptor more, the message comes without those that it
        // should bring: that is no reason to lose the message, or the channel.
        let rights = control.drain().filter_map(|control| match control {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        match message.bytes {
            0 => Ok(Received::End),
            length => Ok(Received::Message { length, descriptors }),
        }
    }

    /// Its descriptors: what messages come by, and what bytes go by.
    pub(crate) fn descriptors(&self) -> [&OwnedFd; 2] {
        [&self.down, &self.up]
    }
}

impl AsFd for Lower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.down.as_fd()
    }
}

impl AsRawFd for Lower {
    fn as_raw_fd(&self) -> RawFd {
        self.down.as_raw_fd()
    }
}

/// Writes these bytes to the end of another image's channel that this one was started with.
///
/// # Errors
/// As [`Lower::send`].
pub(crate) fn send_up(writer: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    nix::unistd::write(writer, bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_whole_and_carry_descriptors() {
        let (one, other) = pair().expect("pair");
        let (reader, writer) = nix::unistd::pipe2(OFlag::empty()).expect("pipe");
        one.send(b"first", &[]).expect("send");
        one.send(b"second", &[writer.as_fd(), writer.as_fd()]).expect("send");
        drop(writer);
        let mut buffer = [0; 64];
        let mut receive = || match other.receive(&mut buffer).unwrap() {
            Received::Message { length, descriptors } => (length, descriptors),
            other => panic!("{other:?}"),
        };
        let first = receive();
        let second = receive();
        assert_eq!((first.0, first.1.len(), second.0, second.1.len()), (5, 0, 6, 2));
        for passed in second.1 {
            nix::unistd::write(&passed, b"x").expect("write");
        }
        assert_eq!(nix::unistd::read(&reader, &mut buffer).unwrap(), 2);
        assert!(matches!(other.receive(&mut buffer), Ok(Received::Nothing)));
        drop(one);
        assert!(matches!(other.receive(&mut buffer), Ok(Received::End)));
    }

    #[test]
    fn bytes_go_up_and_descriptors_do_not() {
        let (above, below) = pair().expect("pair");
        let mut buffer = [0; 64];
        assert_eq!(above.read(&mut buffer).unwrap(), Read::Nothing);
        below.send(b"r").unwrap();
        below.send(b"le").unwrap();
        assert_eq!(above.read(&mut buffer).unwrap(), Read::Bytes(3));
        assert_eq!(&buffer[..3], b"rle");
        let descriptors = [below.up.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let message = [IoSlice::new(b"r")];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(below.as_raw_fd(), &message, &rights, flags, None);
        assert_eq!(sent, Err(nix::Error::EPIPE), "the socket takes nothing upwards");
        drop(below);
        assert_eq!(above.read(&mut buffer).unwrap(), Read::End);
    }
}
