//! Signals as bytes in a pipe, in the order in which they came.
//!
//! # The trap
//! A handler may do next to nothing; ours writes the signal's number into a non-blocking pipe. A child
//! inherits the handlers: it must forget its parent's before it lets signals in, or its own `TERM`
//! lands in the parent's pipe.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use signal_hook::SigId;
use signal_hook::low_level;

/// The signals that are caught, until this is dropped or forgotten.
#[derive(Debug)]
pub(crate) struct Signals {
    reader: OwnedFd,
    hooks: Vec<SigId>,
}

impl Signals {
    /// Catches these signals, by number.
    ///
    /// # Errors
    /// What pipe(2) or sigaction(2) says.
    pub(crate) fn catch(numbers: &[i32]) -> io::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let writer = Arc::new(writer);
        let mut hooks = Vec::with_capacity(numbers.len());
        for &number in numbers {
            let writer = Arc::clone(&writer);
            let byte = u8::try_from(number).expect("signal numbers are below 65");
            let tell = move || {
                // A full pipe holds 65,536 signals that nobody has looked at: one more says nothing.
                let _full = nix::unistd::write(&writer, &[byte]);
            };
            // SAFETY: the action calls write(2) alone, which signal-safety(7) lists, on a descriptor
            // that lives as long as the action. signal-hook saves and restores errno.
            #[expect(unsafe_code, reason = "a signal handler's restrictions cannot be typed")]
            let hook = unsafe { low_level::register(number, tell) }?;
            hooks.push(hook);
        }
        Ok(Self { reader, hooks })
    }

    /// Lets all signals in, now that there are handlers, whatever the process was started with: another
    /// image of the program has left them blocked, with some pending, and not only those that are
    /// caught.
    ///
    /// # Errors
    /// What sigprocmask(2) says.
    pub(crate) fn let_in() -> io::Result<()> {
        Ok(SigSet::empty().thread_set_mask()?)
    }

    /// The numbers of the signals that have come since the last call, in order.
    ///
    /// # Errors
    /// What read(2) says, but for `EAGAIN`.
    pub(crate) fn take(&self) -> io::Result<Vec<i32>> {
        let mut taken = Vec::new();
        let mut buffer = [0; 64];
        loop {
            match nix::unistd::read(&self.reader, &mut buffer) {
                Ok(0) | Err(nix::Error::EAGAIN) => return Ok(taken),
                Ok(length) => taken.extend(buffer[..length].iter().copied().map(i32::from)),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// In a child: its parent's signals are not its own. The signals are ignored until they are caught
    /// anew.
    pub(crate) fn forget(&self) {
        for hook in &self.hooks {
            // It answers whether the hook was still there.
            let _was_there = low_level::unregister(*hook);
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Gives these signals the effect that they have in a new process.
///
/// # Errors
/// What sigaction(2) says.
pub(crate) fn reset(numbers: &[i32]) -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for &number in numbers {
        let signal = Signal::try_from(number)?;
        // SAFETY: the default action runs no code of ours.
        #[expect(unsafe_code, reason = "sigaction(2) can install code that is not signal-safe")]
        unsafe { sigaction(signal, &default) }?;
    }
    Ok(())
}

/// Sends a signal to one process.
///
/// # Errors
/// What kill(2) says.
pub(crate) fn send(pid: i32, number: i32) -> io::Result<()> {
    debug_assert!(pid > 0, "0 and below name process groups");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::try_from(number)?)?;
    Ok(())
}

pub(crate) const HUP: i32 = libc::SIGHUP;
pub(crate) const INT: i32 = libc::SIGINT;
pub(crate) const QUIT: i32 = libc::SIGQUIT;
pub(crate) const ABRT: i32 = libc::SIGABRT;
pub(crate) const KILL: i32 = libc::SIGKILL;
pub(crate) const USR1: i32 = libc::SIGUSR1;
pub(crate) const USR2: i32 = libc::SIGUSR2;
pub(crate) const TERM: i32 = libc::SIGTERM;
pub(crate) const CHLD: i32 = libc::SIGCHLD;
pub(crate) const TTIN: i32 = libc::SIGTTIN;
pub(crate) const TTOU: i32 = libc::SIGTTOU;
pub(crate) const WINCH: i32 = libc::SIGWINCH;

/// How long a process whose parent has died may go on, in case it is too stuck to notice.
static ORPHAN: libc::itimerval = libc::itimerval {
    it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
    it_value: libc::timeval { tv_sec: 1, tv_usec: 750_000 },
};

/// Makes `HUP` the news that the parent has died, as [`super::process::die_with_parent`] can have it
/// sent: it starts the process's alarm clock, which ends it even if its event loop is blocked. A `HUP`
/// from anybody else, while the parent lives, does nothing.
///
/// # Errors
/// What sigaction(2) says.
pub(crate) fn alarm_when_orphaned(parent: i32) -> io::Result<()> {
    let wake = move || {
        // SAFETY: getppid(2) is async-signal-safe and cannot fail.
        #[expect(unsafe_code, reason = "libc's binding is unsafe")]
        let now = unsafe { libc::getppid() };
        if now != parent {
            // SAFETY: setitimer(2) is a system call without a wrapper's state; the value never changes.
            #[expect(unsafe_code, reason = "nix has no setitimer")]
            let _cannot_fail = unsafe {
                libc::setitimer(libc::ITIMER_REAL, &raw const ORPHAN, std::ptr::null_mut())
            };
        }
    };
    reset(&[libc::SIGALRM])?;
    // SAFETY: the action makes two system calls and touches no memory but its own copy of a number.
    #[expect(unsafe_code, reason = "a signal handler's restrictions cannot be typed")]
    unsafe { low_level::register(HUP, wake) }?;
    Ok(())
}
