//! A bell that any process can ring and one waits for: an eventfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// It rings until it is silenced, however often it was rung. It never blocks, and is not inherited
/// over `execve`.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    /// A silent bell.
    ///
    /// # Errors
    /// What eventfd(2) says: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(crate) fn new() -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self(bell.into()))
    }

    /// Rings; whoever polls it for reading wakes.
    pub(crate) fn ring(&self) {
        // It refuses when it was rung 2^64 - 2 times already: then it rings.
        let _rings = nix::unistd::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Silences it.
    pub(crate) fn silence(&self) {
        // It refuses when it is silent.
        let _silent = nix::unistd::read(&self.0, &mut [0; 8]);
    }

    /// For tests: silences it; how often it was rung.
    #[cfg(test)]
    pub(crate) fn take(&self) -> u64 {
        let mut count = [0; 8];
        let rung = nix::unistd::read(&self.0, &mut count).is_ok();
        if rung { u64::from_ne_bytes(count) } else { 0 }
    }

    /// The same bell for another owner.
    ///
    /// # Errors
    /// What fcntl(2) says: `EMFILE`.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for Bell {
    fn from(bell: OwnedFd) -> Self {
        Self(bell)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::poll::{self, Interest};
    use super::*;

    #[test]
    fn it_rings_until_it_is_silenced() {
        let bell = Bell::new().unwrap();
        let rings = |bell: &Bell| {
            poll::wait(&[(bell.as_fd(), Interest::Read)], Some(Duration::ZERO)).unwrap()[0].readable
        };
        bell.silence();
        assert!(!rings(&bell));
        let other = bell.try_clone().unwrap();
        other.ring();
        other.ring();
        assert!(rings(&bell));
        assert!(rings(&bell));
        bell.silence();
        assert!(!rings(&bell));
        assert!(!rings(&other));
    }
}
