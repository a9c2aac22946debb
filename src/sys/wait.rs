//! Children that have ended.

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal; whether it left a core.
    Signal { number: i32, core: bool },
}

/// The next child that has ended, ours or an orphan that we have inherited; `None`: no more by now.
/// One `CHLD` may stand for any number of them, so it is asked until it answers `None`.
pub(crate) fn reap() -> Option<(i32, Ended)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Some((pid.as_raw(), Ended::Code(code))),
            Ok(WaitStatus::Signaled(pid, signal, core)) => {
                return Some((pid.as_raw(), Ended::Signal { number: signal as i32, core }));
            }
            Ok(WaitStatus::StillAlive) => return None,
            // Stopped and continued children have not ended.
            Ok(_) | Err(nix::Error::EINTR) => {}
            // ECHILD: there is no child at all.
            Err(_) => return None,
        }
    }
}
