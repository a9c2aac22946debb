//! Processes that begin as a copy of this one.
//!
//! # The trap
//! After `fork` in a process with threads, the child may only call async-signal-safe functions: a lock
//! held by a thread that does not exist any more is held for ever. So a fork needs [`SingleThreaded`],
//! which can only be had from a look at the threads there are.
//!
//! Signals are blocked around the fork. The child begins with all of them blocked and unblocks them
//! when it has handlers of its own; before, its `TERM` would run the parent's handlers.

use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::ForkResult;

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

/// What a child exits with that panicked: `EX_SOFTWARE` of sysexits.h, an internal error.
pub(crate) const PANICKED: i32 = 70;

/// Forks. The child runs `child` and leaves with its code: it never returns into the parent's code,
/// nor unwinds into it. Answers the child's pid.
///
/// # Errors
/// What fork(2) says: `EAGAIN`, `ENOMEM`.
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
            let code = catch_unwind(AssertUnwindSafe(|| child(InChild(PhantomData))));
            leave(code.unwrap_or(PANICKED))
        }
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
    write_counts();
    // SAFETY: _exit(2) takes any code, touches no memory and never returns.
    #[expect(unsafe_code, reason = "std has no _exit")]
    unsafe {
        nix::libc::_exit(code)
    }
}

/// Writes what `bench/profiled` has counted in this process; else an `atexit` handler would.
#[cfg(ferricorn_counting)]
fn write_counts() {
    #[expect(unsafe_code, reason = "a function of the compiler's own")]
    unsafe extern "C" {
        // SAFETY: in clang's documentation of source-based coverage: it takes no argument, may be called
        // at any time, and is there in programs that are built to count.
        safe fn __llvm_profile_write_file() -> nix::libc::c_int;
    }
    // Without its counts this process counts for nothing, and the script that wants them finds out.
    let _written = __llvm_profile_write_file();
}
