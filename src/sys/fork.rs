//! Processes that begin as a copy of this one.
//!
//! # The trap
//! After `fork` in a process with threads, the child may only call async-signal-safe functions: a lock
//! held by a thread that does not exist any more is held for ever. So a fork needs [`SingleThreaded`],
//! which can only be had from a look at the threads there are.
//!
//! Signals are blocked around the fork. The child begins with all of them blocked and unblocks them
//! when it has handlers of its own; before, its `TERM` would run the parent's handlers.
//!
//! `rand` has no protection across `fork` since 0.9: without a new seed every child, of whatever kind,
//! draws the numbers that its parent draws next.

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

/// Proof that this process had one thread when it looked. Not `Send`: it says nothing elsewhere.
#[derive(Debug)]
pub(crate) struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Looks at the threads of this process.
    ///
    /// # Errors
    /// The names of all threads when there are more than one.
    pub(crate) fn prove() -> Result<Self, Vec<String>> {
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
            // Without /proc nothing can be proved; the caller is then trusted, as fork(2) trusts it.
            return Ok(Self(PhantomData));
        };
        let name = |task: io::Result<std::fs::DirEntry>| {
            let name = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
            Some(name.trim().to_owned())
        };
        let names: Vec<String> = tasks.filter_map(name).collect();
        if names.len() > 1 { Err(names) } else { Ok(Self(PhantomData)) }
    }
}

/// Proof that this process is a fresh child: its signals are still blocked.
#[derive(Debug)]
pub(crate) struct InChild(PhantomData<*const ()>);

impl InChild {
    /// Lets signals in, now that there are handlers for them.
    pub(crate) fn unblock_signals(self) {
        let Self(_) = self;
        let all = SigSet::all();
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&all), None)
            .expect("the set of all signals is valid");
    }
}

/// The exit code of a child that panicked: `EX_SOFTWARE` of sysexits.h, an internal error.
pub(crate) const PANICKED: i32 = 70;

/// Forks. The child runs `child` and exits with its code: it never returns into the parent's code,
/// nor unwinds into it. Answers the child's pid.
///
/// # Errors
/// The error of fork(2): `EAGAIN`, `ENOMEM`.
pub(crate) fn spawn(
    _proof: &SingleThreaded,
    child: impl FnOnce(InChild) -> i32,
) -> io::Result<i32> {
    let blocked = Blocked::all();
    // SAFETY: the process has one thread, as `_proof` says, so the child may do what the parent may.
    #[expect(unsafe_code, reason = "fork(2) is unsafe where threads exist; see SAFETY")]
    #[expect(clippy::disallowed_methods, reason = "the one place that forks")]
    let result = unsafe { nix::unistd::fork() };
    match result? {
        ForkResult::Parent { child } => {
            drop(blocked);
            Ok(child.as_raw())
        }
        ForkResult::Child => {
            reseed();
            let code = catch_unwind(AssertUnwindSafe(|| child(InChild(PhantomData))));
            leave(code.unwrap_or(PANICKED))
        }
    }
}

/// Asks a child, which ends with its answer, and waits for that.
///
/// # Errors
/// The child's own, in words, or that it could not be asked.
pub(crate) fn ask(
    proof: &SingleThreaded,
    question: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let asked = || {
        let (mut reader, mut writer) = io::pipe()?;
        let pid = spawn(proof, |_| {
            let answer = question().err().unwrap_or_default();
            // The end of the text says that it is whole.
            i32::from(writeln!(writer, "{answer}").is_err())
        })?;
        drop(writer);
        let mut answer = String::new();
        reader.read_to_string(&mut answer)?;
        while waitpid(Pid::from_raw(pid), None) == Err(nix::Error::EINTR) {}
        Ok::<_, io::Error>(answer)
    };
    let answer = asked().map_err(|error| format!("a child could not be asked: {error}"))?;
    match answer.strip_suffix('\n') {
        Some("") => Ok(()),
        Some(reason) => Err(reason.to_owned()),
        None => Err("the child that was asked has died".to_owned()),
    }
}

/// Closes every descriptor but standard input, output and error and these. What the parent's values
/// own goes with them: none of those is dropped in a child, which exits without unwinding into its
/// parent's code.
///
/// # Errors
/// Where the kernel cannot close ranges, and there is no `/proc` either.
pub(crate) fn close_all_but(_child: &InChild, kept: &[RawFd]) -> io::Result<()> {
    let mut kept = kept.to_vec();
    kept.extend(0..3);
    kept.sort_unstable();
    let after = kept.iter().map(|number| number.saturating_add(1));
    let before = kept.iter().skip(1).map(|number| number - 1).chain([RawFd::MAX]);
    let closed: Option<()> = after
        .zip(before)
        .filter(|(first, last)| first <= last)
        .try_for_each(|(first, last)| close_range(first, last));
    match closed {
        Some(()) => Ok(()),
        None => close_each_but(&kept),
    }
}

/// Closes the descriptors with these numbers, the last one included; `None` where the kernel does not
/// have that call (close_range(2), from Linux 5.9 on).
fn close_range(first: RawFd, last: RawFd) -> Option<()> {
    // SAFETY: in a fresh child, which uses no descriptor any more but those that its caller keeps.
    #[expect(unsafe_code, reason = "a closed descriptor may have an owner")]
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    (closed == 0).then_some(())
}

/// The same, one by one.
fn close_each_but(kept: &[RawFd]) -> io::Result<()> {
    let names = std::fs::read_dir("/proc/self/fd")?;
    let number =
        |name: io::Result<std::fs::DirEntry>| name.ok()?.file_name().to_str()?.parse().ok();
    let open: Vec<RawFd> = names.filter_map(number).collect();
    for number in open.into_iter().filter(|number| !kept.contains(number)) {
        // The folder that was read is closed already.
        let _closed = nix::unistd::close(number);
    }
    Ok(())
}

/// Gives this process a random stream of its own.
fn reseed() {
    if rand::rng().reseed().is_err() {
        // The system's source is gone; a stream that processes share must not be used.
        std::process::abort();
    }
}

/// All signals, blocked until this is dropped: then those are let in that were before.
#[derive(Debug)]
#[must_use = "signals are let in again when it is dropped"]
pub(crate) struct Blocked {
    before: SigSet,
}

impl Blocked {
    pub(crate) fn all() -> Self {
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))
            .expect("the set of all signals is valid");
        Self { before }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None)
            .expect("a set that was in force is valid");
    }
}

/// Leaves this process at once: no destructor, no `atexit` handler, no flush of the parent's buffers.
pub(crate) fn leave(code: i32) -> ! {
    #[cfg(ferricorn_counting)]
    {
        // Else an `atexit` handler would. Without its counts this process counts for nothing, and
        // `bench/profiled`, which wants them, finds out.
        let _written = super::foreign::__llvm_profile_write_file();
    }
    super::foreign::_exit(code)
}
