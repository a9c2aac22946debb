//! The socket that programs send notes to (sd_notify(3), `NOTIFY_SOCKET`).
//!
//! # Why an abstract address
//! It needs no folder that the program's user may write to, and is gone with its last descriptor. Every
//! process of the network namespace may send there, so the kernel's word about each sender is asked for
//! (`SO_PASSCRED`), and notes of other users than this process's own and root are dropped.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};

/// The socket that notes come by.
#[derive(Debug)]
pub(crate) struct NoteSocket {
    socket: UnixDatagram,
    address: String,
}

/// Descriptors of one message at the most (unix(7), `SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;
/// The longest note that is read; the kernel cuts what is longer.
pub(crate) const NOTE_MAX: usize = 4096;

impl NoteSocket {
    /// A socket with an address that begins so.
    ///
    /// # Errors
    /// The error of socket(2), bind(2) and setsockopt(2).
    pub(crate) fn new(prefix: &str) -> io::Result<Self> {
        let name = format!("{prefix}-{:032x}", rand::random::<u128>());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self { socket, address: format!("@{name}") })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Reads one note; `None`: nothing by now. One of another user is read as an empty one.
    ///
    /// # Errors
    /// The error of recvmsg(2).
    pub(crate) fn receive(&self, buffer: &mut [u8; NOTE_MAX]) -> io::Result<Option<usize>> {
        // Room for all descriptors that a note can bring, which are closed: where there is none, the
        // credentials cannot be read either.
        let mut space = nix::cmsg_space!(UnixCredentials, [RawFd; DESCRIPTORS_MAX]);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let note = recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), flags);
        let note = match note {
            Ok(note) => note,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let own = nix::unistd::geteuid().as_raw();
        let mut is_trusted = false;
        for control in note.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::ScmCredentials(sender) => {
                    is_trusted = [own, 0].contains(&sender.uid());
                }
                ControlMessageOwned::ScmRights(descriptors) => {
                    for descriptor in descriptors {
                        let _closed = nix::unistd::close(descriptor);
                    }
                }
                _ => {}
            }
        }
        Ok(Some(if is_trusted { note.bytes } else { 0 }))
    }
}

impl AsRawFd for NoteSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;

    #[test]
    fn notes_of_the_same_user_arrive() {
        let notes = NoteSocket::new("ferricorn-test").unwrap();
        let mut buffer = [0; NOTE_MAX];
        assert_eq!(notes.receive(&mut buffer).unwrap(), None);
        let name = notes.address().strip_prefix('@').unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        sender.send(b"READY=1").unwrap();
        let length = notes.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        // sd_pid_notify_with_fds(3): the descriptors are closed, the note counts.
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let rights = [ControlMessage::ScmRights(&[writer.as_raw_fd()])];
        let text = [IoSlice::new(b"WATCHDOG=1")];
        sendmsg::<()>(sender.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).unwrap();
        let length = notes.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..length], b"WATCHDOG=1");
        drop(writer);
        assert_eq!(nix::unistd::read(&reader, &mut buffer), Ok(0), "no copy of it is open");
    }
}
