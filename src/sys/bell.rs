//! A bell that any process can ring and one waits for: a timer that is over at once.
//!
//! # Why no eventfd
//! A bell is shared by processes that need not trust each other, and so are its descriptor's flags: one
//! that any of them makes blocking, and fills, keeps every other in `write`. To set a timer never waits.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// It rings until it is silenced, however often it was rung. It never blocks, and is not inherited
/// over `execve`.
#[derive(Debug)]
pub(crate) struct Bell {
    timer: OwnedFd,
    #[cfg(test)]
    rung: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

/// The shortest time there is: zero would silence it.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1 };
const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

impl Bell {
    /// A silent bell.
    ///
    /// # Errors
    /// The error of timerfd_create(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self::of(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    fn of(timer: OwnedFd) -> Self {
        Self {
            timer,
            #[cfg(test)]
            rung: std::sync::Arc::default(),
        }
    }

    /// Rings: a process that polls it for reading wakes.
    pub(crate) fn ring(&self) {
        self.set(AT_ONCE);
        #[cfg(test)]
        // ORDERING: a count for tests: Relaxed.
        self.rung.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Silences it.
    pub(crate) fn silence(&self) {
        self.set(NEVER);
    }

    fn set(&self, it_value: Timespec) {
        let once = Itimerspec { it_interval: NEVER, it_value };
        // It is a timer, and the time is a time: nothing to refuse.
        let _set = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }

    /// For tests: how often this process has rung it since this was asked last.
    #[cfg(test)]
    pub(crate) fn take(&self) -> u64 {
        self.rung.swap(0, std::sync::atomic::Ordering::Relaxed)
    }

    /// The same bell for another owner.
    ///
    /// # Errors
    /// The error of fcntl(2): `EMFILE`.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let timer = self.timer.try_clone()?;
        Ok(Self {
            timer,
            #[cfg(test)]
            rung: self.rung.clone(),
        })
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

impl From<OwnedFd> for Bell {
    fn from(bell: OwnedFd) -> Self {
        Self::of(bell)
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
            // It is over at the kernel's next interrupt.
            let soon = Some(Duration::from_millis(50));
            poll::wait(&[(bell.as_fd(), Interest::Read)], soon).unwrap()[0].readable
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

    /// Another process has made it blocking, and rung it as often as there is room for.
    #[test]
    fn ringing_never_waits_whatever_the_flags() {
        let bell = Bell::new().unwrap();
        let other = bell.try_clone().unwrap();
        let none = nix::fcntl::OFlag::empty();
        nix::fcntl::fcntl(&other.timer, nix::fcntl::FcntlArg::F_SETFL(none)).unwrap();
        for _ in 0..1000 {
            bell.ring();
            bell.silence();
            bell.silence();
        }
        bell.ring();
        let ready = poll::wait(&[(bell.as_fd(), Interest::Read)], None).unwrap();
        assert!(ready[0].readable);
    }
}
