//! Signals as bytes in a pipe, in the order in which they came.
//!
//! # The trap
//! A handler may do next to nothing; ours writes the signal's number into a non-blocking pipe. One that
//! finds the pipe full is told without its place among the others, and once. A child
//! inherits the handlers: it must forget its parent's before it lets signals in, or its own `TERM`
//! lands in the parent's pipe.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;
use signal_hook_registry::SigId;

use super::fork::Blocked;

/// The signals that are caught, until this is dropped or forgotten.
#[derive(Debug)]
pub(crate) struct Signals {
    reader: OwnedFd,
    /// By the byte that found no room in the pipe.
    overflown: Arc<[AtomicBool]>,
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
        let overflown: Arc<[AtomicBool]> = (0..=u8::MAX).map(|_| AtomicBool::default()).collect();
        let mut hooks = Vec::with_capacity(numbers.len());
        for &number in numbers {
            let writer = Arc::clone(&writer);
            let overflown = Arc::clone(&overflown);
            let byte = u8::try_from(number).expect("signal numbers are below 65");
            let tell = move |info: &libc::siginfo_t| {
                let byte = byte | origin(info);
                if nix::unistd::write(&writer, &[byte]).is_err() {
                    // ORDERING: a handler runs in the thread that takes the signals, or that thread looks
                    // again: the full pipe wakes it.
                    overflown[usize::from(byte)].store(true, Ordering::SeqCst);
                }
            };
            hooks.push(on(number, tell)?);
        }
        Ok(Self { reader, overflown, hooks })
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

    /// The numbers of the signals that have come since the last call, in order; behind them those that
    /// found the pipe full.
    ///
    /// # Errors
    /// The error of read(2), but for `EAGAIN`.
    pub(crate) fn take(&self) -> io::Result<Vec<i32>> {
        let mut taken = Vec::new();
        let mut buffer = [0; 64];
        loop {
            match nix::unistd::read(&self.reader, &mut buffer) {
                Ok(0) | Err(nix::Error::EAGAIN) => break,
                Ok(length) => taken.extend(buffer[..length].iter().copied().map(i32::from)),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let overflown = (0..).zip(self.overflown.iter());
        // ORDERING: see the handler.
        let found = overflown.filter(|(_, told)| told.swap(false, Ordering::SeqCst));
        taken.extend(found.map(|(byte, _)| byte));
        Ok(taken)
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
    let leader = nix::unistd::getsid(None).map_or(0, Pid::as_raw);
    let flag = match (info.si_signo, info.si_code) {
        (HUP | TTIN | TTOU | WINCH, libc::SI_KERNEL) => FROM_TERMINAL,
        (HUP, libc::SI_USER) if sender == leader => FROM_LEADER,
        _ => 0,
    };
    u8::try_from(flag).unwrap_or(0)
}

/// Runs the action at each such signal, until it is unregistered. The action makes a few system calls,
/// without memory but its own: write(2), getsid(2), getppid(2) and alarm(2) may be made there.
fn on(number: i32, action: impl Fn(&libc::siginfo_t) + Send + Sync + 'static) -> io::Result<SigId> {
    // SAFETY: signal-safety(7) lists the system calls of both actions of this file, or they are bare
    // ones (getsid(2)); signal-hook saves and restores errno.
    #[expect(unsafe_code, reason = "a signal handler's restrictions cannot be typed")]
    unsafe {
        signal_hook_registry::register_sigaction(number, action)
    }
}

/// Has a signal this effect from now on, and returns the one before.
fn replace(signal: Signal, action: &SigAction) -> nix::Result<SigAction> {
    // SAFETY: no action of this file but one that was in force runs code.
    #[expect(unsafe_code, reason = "sigaction(2) can install code that is not signal-safe")]
    unsafe {
        sigaction(signal, action)
    }
}

fn replace_each(numbers: &[i32], handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    for &number in numbers {
        replace(Signal::try_from(number)?, &action)?;
    }
    Ok(())
}

/// Returns true if the signal is ignored, as nohup(1) has it for `HUP`.
pub(crate) fn is_ignored(number: i32) -> bool {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // A signal that comes meanwhile stays pending.
    let _blocked = Blocked::all();
    let Ok(signal) = Signal::try_from(number) else { return false };
    let before = replace(signal, &default);
    before.is_ok_and(|before| {
        // It was in force: nothing to refuse.
        let _back = replace(signal, &before);
        matches!(before.handler(), SigHandler::SigIgn)
    })
}

/// Ignores these signals from now on; over `execve`, too.
///
/// # Errors
/// The error of sigaction(2).
pub(crate) fn ignore(numbers: &[i32]) -> io::Result<()> {
    replace_each(numbers, SigHandler::SigIgn)
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
    replace_each(numbers, SigHandler::SigDfl)
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

/// Seconds for which a process whose parent has died may go on, in case it is too stuck to notice.
const ORPHAN_SECONDS: u32 = 2;

/// Makes `HUP` the news that the parent has died, as [`super::process::die_with_parent`] can have it
/// sent: it starts the process's alarm clock, which ends it even if its event loop is blocked. A `HUP`
/// from any other process, while the parent lives, does nothing.
///
/// # Errors
/// The error of sigaction(2).
pub(crate) fn alarm_when_orphaned(parent: i32) -> io::Result<()> {
    let wake = move |_: &libc::siginfo_t| {
        if nix::unistd::getppid().as_raw() != parent {
            let _none_before = nix::unistd::alarm::set(ORPHAN_SECONDS);
        }
    };
    reset(&[libc::SIGALRM])?;
    on(HUP, wake).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_that_finds_the_pipe_full_is_told() {
        // Signals of this test alone, in a process that has others.
        let signals = Signals::catch(&[libc::SIGURG, libc::SIGIO]).expect("they can be caught");
        let raise = |signal| nix::sys::signal::raise(signal).expect("it is ours");
        let mut raised = 0;
        while !signals.overflown.iter().any(|told| told.load(Ordering::SeqCst)) {
            raise(Signal::SIGURG);
            raised += 1;
        }
        raise(Signal::SIGIO);
        let taken = signals.take().expect("its own pipe");
        assert_eq!(taken.len(), raised + 1, "each has room but two, which are told once each");
        assert_eq!(&taken[raised - 1..], [libc::SIGURG, libc::SIGIO]);
        assert!(signals.take().expect("its own pipe").is_empty());
    }
}
