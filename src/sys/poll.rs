//! Waiting for descriptors and for time, in one place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Something to read, or the end.
    Read,
    /// Something to read, the end, or room to write.
    ReadWrite,
}

/// What has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// Reading would not block: data, the end, or an error.
    pub(crate) readable: bool,
    /// Writing would not block.
    pub(crate) writable: bool,
}

/// Sleeps until a descriptor is ready or the time is over; `None` is for ever. A signal ends it early,
/// with nothing ready. Answers one readiness for each descriptor.
///
/// # Errors
/// What poll(2) says, but for `EINTR`.
pub(crate) fn wait(
    descriptors: &[(BorrowedFd<'_>, Interest)],
    timeout: Option<Duration>,
) -> io::Result<Vec<Readiness>> {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|(fd, interest)| PollFd::new(*fd, interest.flags())).collect();
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
        // A timeout beyond what poll can count is cut short: the caller looks at its clock anyway.
        PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
    });
    match nix::poll::poll(&mut polled, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let readiness = |polled: &PollFd<'_>| {
        let flags = polled.revents().unwrap_or(PollFlags::empty());
        Readiness {
            readable: flags.intersects(!PollFlags::POLLOUT),
            writable: flags.contains(PollFlags::POLLOUT),
        }
    };
    Ok(polled.iter().map(readiness).collect())
}

/// Whether a write would not block now. What is no pipe, socket or terminal never blocks.
pub(crate) fn is_writable(descriptor: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    nix::poll::poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Sleeps until a write does not block any more, or a signal has come.
///
/// # Errors
/// What poll(2) says, but for `EINTR`.
pub(crate) fn wait_writable(descriptor: &impl AsFd) -> io::Result<()> {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    match nix::poll::poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Interest {
    fn flags(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::POLLIN,
            Self::ReadWrite => PollFlags::POLLIN | PollFlags::POLLOUT,
        }
    }
}
