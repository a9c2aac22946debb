//! Children: how they end, and how they are signalled.
//!
//! # Why not nix
//! Its wait status has no room for a real-time signal: it reaps such a child and returns an error, so
//! that the child's end is lost.

use std::io;
use std::os::fd::OwnedFd;

use nix::libc;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, pidfd_send_signal,
    waitid,
};

use super::foreign::{self, Usage};

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal; whether it left a core.
    Signal { number: i32, core: bool },
}

/// A child that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) ended: Ended,
    /// Bytes of memory that it had resident at the most (getrusage(2), `ru_maxrss`).
    pub(crate) peak_bytes: u64,
}

/// The next child that has ended, ours or an orphan that we have inherited; `None`: no more by now.
/// One `CHLD` may stand for any number of them, so the caller repeats it until `None`.
///
/// # Errors
/// The error of wait(2), but for `ECHILD`, which is `None`, and `EINTR`.
pub(crate) fn reap() -> io::Result<Option<Reaped>> {
    loop {
        let mut status = 0;
        let mut usage = Usage::default();
        let pid = foreign::wait4(-1, &mut status, libc::WNOHANG, &mut usage);
        let error = io::Error::last_os_error();
        match (pid, error.raw_os_error()) {
            (0, _) | (-1, Some(libc::ECHILD)) => return Ok(None),
            (-1, Some(libc::EINTR)) => continue,
            (-1, _) => return Err(error),
            (_, _) => {}
        }
        let peak_bytes = u64::try_from(usage.peak_kib).unwrap_or(0).saturating_mul(1024);
        let ended = if libc::WIFEXITED(status) {
            Ended::Code(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            Ended::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
        } else {
            // Stopped and continued children have not ended.
            continue;
        };
        return Ok(Some(Reaped { pid, ended, peak_bytes }));
    }
}

/// Returns true if a child has ended and is not reaped: its pid is still its own.
pub(crate) fn has_ended() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, look), Ok(Some(_)))
}

/// Returns the status of the child with this pid if it has exited, without reaping it.
pub(crate) fn look_at_end(pid: i32) -> Option<Ended> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::Pid(Pid::from_raw(pid)?), look).ok()??;
    let core = status.dumped();
    let code = status.exit_status().map(Ended::Code);
    code.or(status.terminating_signal().map(|number| Ended::Signal { number, core }))
}

/// Reaps the child with this pid, if it has ended; true where there is no such child any more.
pub(crate) fn reap_if_ended(pid: i32) -> bool {
    let reap = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let pid = Pid::from_raw(pid);
    !pid.is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), reap), Ok(None)))
}

/// Waits for the end of the child with this pid, and reaps it.
pub(crate) fn reap_child(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    while matches!(waitid(WaitId::Pid(pid), WaitIdOptions::EXITED), Err(Errno::INTR)) {}
}

/// The children of this process, those that have ended among them (proc(5),
/// `/proc/pid/task/tid/children`); none where the kernel does not list them.
pub(crate) fn children() -> Vec<i32> {
    children_of(super::process::pid())
}

/// The children of a process, whichever of its threads has forked them.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let pids = |listed: String| listed.split_whitespace().flat_map(str::parse).collect::<Vec<_>>();
    listed.flat_map(pids).collect()
}

/// A child of this process, until it is reaped.
///
/// # Why
/// A pid may be another process's as soon as its owner is reaped. A signal goes through a descriptor
/// that belongs to the child itself, or, where there is none, only after a look that the pid is an
/// unreaped child of ours.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    process: Option<OwnedFd>,
}

impl Child {
    /// The unreaped child with this pid.
    pub(crate) fn new(pid: i32) -> Self {
        let open = |pid| pidfd_open(pid, PidfdFlags::empty()).ok();
        Self { pid, process: Pid::from_raw(pid).and_then(open) }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns true if it is a child of ours that is not reaped: it runs, or waits to be reaped.
    pub(crate) fn is_unreaped(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Pid::from_raw(self.pid).is_some_and(|pid| waitid(WaitId::Pid(pid), look).is_ok())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `ESRCH` when it is gone or not ours; `EINVAL` for a number that is no named signal.
    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(number).ok_or(Errno::INVAL)?;
        match (&self.process, Pid::from_raw(self.pid)) {
            (Some(process), _) => Ok(pidfd_send_signal(process, signal)?),
            (None, Some(pid)) if self.is_unreaped() => Ok(kill_process(pid, signal)?),
            (None, _) => Err(Errno::SRCH.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn signals_reach_unreaped_children_alone() {
        for has_pidfd in [true, false] {
            let mut sleeper =
                Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
            let mut child = Child::new(i32::try_from(sleeper.id()).unwrap());
            assert!(child.process.is_some());
            child.process.take_if(|_| !has_pidfd);
            assert!(child.is_unreaped());
            child.signal(15).expect("it runs");
            assert_eq!(sleeper.wait().unwrap().signal(), Some(15));
            assert!(!child.is_unreaped());
            let gone = child.signal(15).expect_err("it is reaped");
            assert_eq!(gone.raw_os_error(), Some(Errno::SRCH.raw_os_error()));
        }
        // No child of ours: process 1 is not signalled.
        let stranger = Child { pid: 1, process: None };
        assert!(!stranger.is_unreaped());
        stranger.signal(15).expect_err("it is not ours");
    }
}
