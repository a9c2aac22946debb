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
use signal_hook_registry::SigId;

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
    /// The error of pipe(2) or sigaction(2).
    pub(crate) fn catch(numbers: &[i32]) -> io::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let writer = Arc::new(writer);
        let mut hooks = Vec::with_capacity(numbers.len());
        for &number in numbers {
            let writer = Arc::clone(&writer);
            let byte = u8::try_from(number).expect("signal numbers are below 65");
            let tell = move |info: &libc::siginfo_t| {
                // A full pipe holds 65,536 signals that are not looked at: one more says nothing.
                let _full = nix::unistd::write(&writer, &[byte | origin(info)]);
            };
            // SAFETY: the action makes system calls alone: write(2), which signal-safety(7) lists, on
            // a descriptor that lives as long as the action, and getsid(2). signal-hook saves and
            // restores errno.
            #[expect(unsafe_code, reason = "a signal handler's restrictions cannot be typed")]
            let hook = unsafe { signal_hook_registry::register_sigaction(number, tell) }?;
            hooks.push(hook);
        }
        Ok(Self { reader, hooks })
    }

    /// Lets all signals in, now that there are handlers, whatever the process was started with: another
    /// image of the program has left them blocked, with some pending, and not only those that are
    /// caught.
    ///
    /// # Errors
    /// The error of sigprocmask(2).
    pub(crate) fn let_in() -> io::Result<()> {
        Ok(SigSet::empty().thread_set_mask()?)
    }

    /// The numbers of the signals that have come since the last call, in order.
    ///
    /// # Errors
    /// The error of read(2), but for `EAGAIN`.
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
            let _was_there = signal_hook_registry::unregister(*hook);
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

/// Flags a signal that the kernel has sent for the controlling terminal: `HUP` when it is gone, `TTIN`
/// and `TTOU` when a process in the background reads or writes, `WINCH` when it has another size.
pub(crate) const FROM_TERMINAL: i32 = 0x80;
/// Flags a `HUP` from the session's leader: a shell passes on its own, when its terminal is gone.
pub(crate) const FROM_LEADER: i32 = 0x40;

/// The flag of a signal, by its sender.
fn origin(info: &libc::siginfo_t) -> u8 {
    // SAFETY: a signal from a process has its sender's pid; others' bytes there are a number, too.
    #[expect(unsafe_code, reason = "the fields of a signal are a union")]
    let sender = unsafe { info.si_pid() };
    // SAFETY: getsid(2) is a system call that changes nothing.
    #[expect(unsafe_code, reason = "libc's binding is unsafe")]
    let leader = unsafe { libc::getsid(0) };
    let flag = match (info.si_signo, info.si_code) {
        (HUP | TTIN | TTOU | WINCH, libc::SI_KERNEL) => FROM_TERMINAL,
        (HUP, libc::SI_USER) if sender == leader => FROM_LEADER,
        _ => 0,
    };
    u8::try_from(flag).unwrap_or(0)
}

/// Returns true if the signal is ignored, as nohup(1) has it for `HUP`.
pub(crate) fn is_ignored(number: i32) -> bool {
    // SAFETY: all zeroes is a valid `sigaction`: the default action, and an empty mask.
    #[expect(unsafe_code, reason = "sigaction has no constructor")]
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action the call writes the one in force, and changes nothing.
    #[expect(unsafe_code, reason = "nix can only replace an action")]
    let status = unsafe { libc::sigaction(number, std::ptr::null(), &raw mut now) };
    status == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// Ignores these signals from now on; over `execve`, too.
///
/// # Errors
/// The error of sigaction(2).
pub(crate) fn ignore(numbers: &[i32]) -> io::Result<()> {
    let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for &number in numbers {
        let signal = Signal::try_from(number)?;
        // SAFETY: to ignore a signal runs no code of ours.
        #[expect(unsafe_code, reason = "sigaction(2) can install code that is not signal-safe")]
        unsafe { sigaction(signal, &ignored) }?;
    }
    Ok(())
}

/// The signals whose default is death and which a limit sends: a file would become larger than
/// `ulimit -f` allows, or processor time is over (`ulimit -t`, its soft limit). Where they are ignored,
/// the first is an error of write(2) like a full disk (`EFBIG`). And a reader that is gone.
pub(crate) const OF_LIMITS: [i32; 3] = [libc::SIGXFSZ, libc::SIGXCPU, libc::SIGPIPE];

/// Gives these signals the effect that they have in a new process.
///
/// # Errors
/// The error of sigaction(2).
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

/// Gives every signal the effect that it has in a new process, real-time signals left alone.
///
/// # Errors
/// The error of sigaction(2).
pub(crate) fn reset_all() -> io::Result<()> {
    let all =
        Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP));
    reset(&all.map(|signal| signal as i32).collect::<Vec<_>>())
}

/// Ends this process by a signal, as another has ended, without a core dump. Returns where the signal
/// does not end it.
pub(crate) fn die_by(number: i32) {
    let Ok(signal) = Signal::try_from(number) else { return };
    // KILL has no action that could be reset.
    let _reset = reset(&[number]);
    let _no_core = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    let _never = nix::sys::signal::raise(signal);
}

/// The time for which a process whose parent has died may go on, in case it is too stuck to notice.
static ORPHAN: libc::itimerval = libc::itimerval {
    it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
    it_value: libc::timeval { tv_sec: 1, tv_usec: 750_000 },
};

/// Makes `HUP` the news that the parent has died, as [`super::process::die_with_parent`] can have it
/// sent: it starts the process's alarm clock, which ends it even if its event loop is blocked. A `HUP`
/// from any other process, while the parent lives, does nothing.
///
/// # Errors
/// The error of sigaction(2).
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
    unsafe { signal_hook_registry::register(HUP, wake) }?;
    Ok(())
}
