//! A pair of ends that pass whole messages, and descriptors with them.
//!
//! It is a `SOCK_SEQPACKET` pair: messages are never merged or split, and when every copy of one end is
//! closed, the other reads the end. That makes it the lifeline too: no process can die without its
//! peer's being told.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// One end. Non-blocking, and not inherited over `execve`.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What was received.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message of so many bytes, with the descriptor that came with it.
    Message { length: usize, descriptor: Option<OwnedFd> },
    /// Nothing by now.
    Nothing,
    /// The other end is closed.
    End,
}

impl Channel {
    /// Two ends of a new channel.
    ///
    /// # Errors
    /// What socketpair(2) says: `EMFILE`, `ENFILE`, `ENOBUFS`.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends one message whole, or not at all.
    ///
    /// # Errors
    /// `WouldBlock` when the other end does not read; `BrokenPipe` when it is closed.
    pub(crate) fn send(
        &self,
        message: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let descriptors: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(message)], control, flags, None)?;
        Ok(())
    }

    /// Receives one message.
    ///
    /// # Errors
    /// What recvmsg(2) says, but for `EAGAIN`.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut space = nix::cmsg_space!(RawFd);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags)
        {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(Received::Nothing),
            Err(nix::Error::ECONNRESET) => return Ok(Received::End),
            Err(error) => return Err(error.into()),
        };
        let mut descriptor = None;
        // Where this process may have no descriptor more, the message comes without the one that it
        // should bring: that is no reason to lose the message, or the channel.
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(raw) = control {
                for fd in raw {
                    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
                    #[expect(unsafe_code, reason = "descriptors arrive as numbers")]
                    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
                    descriptor = Some(owned);
                }
            }
        }
        match message.bytes {
            0 => Ok(Received::End),
            length => Ok(Received::Message { length, descriptor }),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_whole_and_carry_descriptors() {
        let (one, other) = Channel::pair().expect("pair");
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::empty()).expect("pipe");
        one.send(b"first", None).expect("send");
        one.send(b"second", Some(writer.as_fd())).expect("send");
        drop(writer);
        let mut buffer = [0; 64];
        let Received::Message { length: 5, descriptor: None } = other.receive(&mut buffer).unwrap()
        else {
            panic!("the first message is whole")
        };
        let Received::Message { length: 6, descriptor: Some(passed) } =
            other.receive(&mut buffer).unwrap()
        else {
            panic!("the second has a descriptor")
        };
        nix::unistd::write(&passed, b"x").expect("write");
        assert_eq!(nix::unistd::read(&reader, &mut buffer).unwrap(), 1);
        assert!(matches!(other.receive(&mut buffer), Ok(Received::Nothing)));
        drop(one);
        assert!(matches!(other.receive(&mut buffer), Ok(Received::End)));
    }
}
