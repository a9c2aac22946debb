//! Waiting for descriptors and for time, in one place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// The events that are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Something to read, or the end.
    Read,
    /// Room to write, or the end.
    Write,
}

/// The events that have come.
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
/// The error of poll(2), but for `EINTR`.
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

/// Returns true if a write would not block now. What is no pipe, socket or terminal never blocks.
pub(crate) fn is_writable(descriptor: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    nix::poll::poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Returns true if nothing more can come in.
pub(crate) fn has_end(descriptor: BorrowedFd<'_>) -> bool {
    // nix has no name for the flag, and answers `None` where the kernel has set it.
    let end_of_input = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
    let mut polled = [PollFd::new(descriptor, end_of_input)];
    nix::poll::poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_none_or(|found| found.contains(PollFlags::POLLHUP))
}

/// Sleeps until a write does not block any more, or a signal has come.
///
/// # Errors
/// The error of poll(2), but for `EINTR`.
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
            Self::Write => PollFlags::POLLOUT,
        }
    }
}
