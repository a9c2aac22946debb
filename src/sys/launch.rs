//! Another program in a child: with exactly the descriptors that are meant for it, in a process group of
//! its own, with the signals of a new process.
//!
//! # Why not `std::process::Command`
//! It cannot pass descriptors under chosen numbers, and a variable with the child's own pid
//! (`LISTEN_PID`) can be made in the child alone. The process has one thread, as [`SingleThreaded`]
//! says, so the child may do what the parent may.
//!
//! # The trap
//! The numbers that the program is to find its descriptors under may be in use by others that are still
//! needed. So everything that is kept is first moved above them.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, getpgid};
use rustix::io::fcntl_dupfd_cloexec;

use super::fork::{self, InChild, SingleThreaded};
use super::wait::{self, Ended};
use super::{process, signals};

/// The number of the first descriptor that is passed (sd_listen_fds(3)).
pub(crate) const FIRST_PASSED: RawFd = 3;

/// A program, ready to be started.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The program and its arguments.
    pub(crate) arguments: &'a [String],
    /// Passed from [`FIRST_PASSED`] on, in this sequence.
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
    /// Its standard output and standard error.
    pub(crate) outputs: [BorrowedFd<'a>; 2],
    /// Variables that are set.
    pub(crate) variables: &'a [(String, String)],
    /// Variables that are set to the program's pid.
    pub(crate) of_pid: &'a [&'a str],
    /// Variables that are removed, before any is set.
    pub(crate) removed: &'a [String],
}

/// A program that was started: the leader of its process group, until it is reaped.
///
/// # Why a guard
/// The kernel can end the program itself when this process dies (`PR_SET_PDEATHSIG`), but not what the
/// program has started. So one more child, the guard, is in the group: it reads a pipe whose other end
/// this value holds, and kills the group at its end. As long as the guard lives, the number of the group
/// is no other's.
#[derive(Debug)]
pub(crate) struct Group {
    leader: i32,
    guard: io::Result<i32>,
    _held: OwnedFd,
}

/// The exit code of a child that could not become the program.
const CANNOT_EXECUTE: i32 = 127;

impl Launch<'_> {
    /// Starts the program, and waits until it is executed.
    ///
    /// # Errors
    /// The error of fork(2), or of execve(2): `NotFound`, `PermissionDenied`.
    pub(crate) fn start(&self, alone: &SingleThreaded) -> io::Result<Group> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let parent = process::pid();
        let pid = fork::spawn(alone, |child| {
            let error = self.become_it(alone, child, parent, &writer);
            drop(error);
            CANNOT_EXECUTE
        })?;
        drop(writer);
        let mut number = Vec::new();
        File::from(reader).read_to_end(&mut number)?;
        let Ok(number) = number.try_into().map(i32::from_ne_bytes) else {
            let (end, held) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            let guard = fork::spawn(alone, |child| guard(&child, pid, end));
            return Ok(Group { leader: pid, guard, _held: held });
        };
        wait::reap_child(pid);
        Err(io::Error::from_raw_os_error(number))
    }

    /// In the child. Returns only when it fails; the parent reads why.
    fn become_it(
        &self,
        alone: &SingleThreaded,
        child: InChild,
        parent: i32,
        writer: &OwnedFd,
    ) -> io::Result<()> {
        let above = FIRST_PASSED + RawFd::try_from(self.descriptors.len()).unwrap_or(0);
        let mut writer = File::from(fcntl_dupfd_cloexec(writer, above)?);
        let executed = self.execute(alone, child, parent, above, writer.as_raw_fd());
        if let Err(error) = executed {
            let number = error.raw_os_error().unwrap_or(libc::EINVAL);
            writer.write_all(&number.to_ne_bytes())?;
        }
        Ok(())
    }

    fn execute(
        &self,
        alone: &SingleThreaded,
        child: InChild,
        parent: i32,
        above: RawFd,
        writer: RawFd,
    ) -> io::Result<()> {
        let text =
            |text: &String| CString::new(text.as_str()).map_err(|_| libc_error(libc::EINVAL));
        let arguments: Vec<CString> = self.arguments.iter().map(text).collect::<io::Result<_>>()?;
        let program = arguments.first().ok_or_else(|| libc_error(libc::ENOENT))?;
        let leader = Pid::from_raw(0);
        nix::unistd::setpgid(leader, leader)?;
        self.take_descriptors(&child, above, writer)?;
        let pid = process::pid().to_string();
        let removed: Vec<&str> = self.removed.iter().map(String::as_str).collect();
        process::remove_from_environment(alone, &removed);
        process::set_environment(alone, self.variables);
        let of_pid = self.of_pid.iter().map(|name| ((*name).to_owned(), pid.clone()));
        process::set_environment(alone, &of_pid.collect::<Vec<_>>());
        // Over execve(2), ignored signals stay ignored, and blocked ones blocked.
        signals::reset_all()?;
        process::die_with_parent(signals::KILL)?;
        if process::parent_pid() != parent {
            return Err(libc_error(libc::ESRCH));
        }
        child.unblock_signals();
        nix::unistd::execvp(program, &arguments)?;
        Ok(())
    }

    /// Puts the descriptors where the program looks for them, and closes all others but the writer.
    fn take_descriptors(&self, child: &InChild, above: RawFd, writer: RawFd) -> io::Result<()> {
        let [output, errors] = self.outputs.map(|output| fcntl_dupfd_cloexec(output, above));
        take_streams(&output?, &errors?)?;
        let moved = self.descriptors.iter().map(|passed| fcntl_dupfd_cloexec(passed, above));
        let moved: Vec<OwnedFd> = moved.collect::<rustix::io::Result<_>>()?;
        let kept = moved.iter().map(AsRawFd::as_raw_fd).chain([writer]);
        fork::close_all_but(child, &kept.collect::<Vec<_>>())?;
        // Each copy gets the lowest number that is free, from the first one on.
        for descriptor in moved {
            fcntl(descriptor, FcntlArg::F_DUPFD(FIRST_PASSED))?;
        }
        Ok(())
    }
}

/// In a child: joins the group, and kills it when the other end of this pipe is closed. Every signal
/// stays blocked.
fn guard(child: &InChild, leader: i32, end: OwnedFd) -> i32 {
    let joined = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(leader));
    if joined.is_err() || fork::close_all_but(child, &[end.as_raw_fd()]).is_err() {
        return CANNOT_EXECUTE;
    }
    // Nothing is ever written: it ends, or fails.
    let _ended = File::from(end).read_to_end(&mut Vec::new());
    // All of the group, this process too.
    let _killed = nix::sys::signal::kill(Pid::from_raw(0), Signal::SIGKILL);
    CANNOT_EXECUTE
}

fn libc_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl Group {
    /// The pid of the program, which is that of its group.
    pub(crate) fn pid(&self) -> i32 {
        self.leader
    }

    /// Returns why there is no guard, where there is none.
    pub(crate) fn unguarded(&self) -> Option<&io::Error> {
        self.guard.as_ref().err()
    }

    /// Sends the program a signal, and no process that it has started.
    pub(crate) fn signal_leader(&self, number: i32) {
        if let Ok(signal) = Signal::try_from(number) {
            // It is not reaped: the pid is its own. It may have ended.
            let _ended = nix::sys::signal::kill(Pid::from_raw(self.leader), signal);
        }
    }

    /// Sends every process of the group a signal.
    pub(crate) fn signal_all(&self, number: i32) {
        if let Ok(signal) = Signal::try_from(number) {
            // The number is the group's as long as its leader is not reaped. There may be none left.
            let _none = killpg(Pid::from_raw(self.leader), signal);
        }
    }

    /// Returns the status of the program if it has exited, without reaping it.
    pub(crate) fn ended(&self) -> Option<Ended> {
        wait::look_at_end(self.leader)
    }

    /// Reaps the program, which has ended. From then on its pid may be another process's.
    pub(crate) fn reap(self) {
        wait::reap_child(self.leader);
    }

    /// Reaps every other child of this process that has ended, and returns true if one of the group is
    /// left that has not: a process that the program has started, and has not waited for. One that has
    /// left the group (setsid(2)) is on its own: no signal to the group reaches it.
    pub(crate) fn has_orphans(&self) -> bool {
        let own = [Some(self.leader), self.guard.as_ref().ok().copied()];
        let others = wait::children().into_iter().filter(|pid| !own.contains(&Some(*pid)));
        let left = others.filter(|pid| !wait::reap_if_ended(*pid));
        let leader = Pid::from_raw(self.leader);
        left.filter(|pid| getpgid(Some(Pid::from_raw(*pid))) == Ok(leader)).count() > 0
    }
}

/// Makes these the standard output and standard error of this process, whose standard input is empty then.
///
/// # Errors
/// The error of open(2) of `/dev/null`, and of dup2(2).
pub(crate) fn take_streams(output: &impl AsFd, errors: &impl AsFd) -> io::Result<()> {
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(output)?;
    Ok(dup2_stderr(errors)?)
}

/// A pipe for a program's output: its reader's end does not wait, its writer's end does, since programs
/// expect that. It holds so many bytes, or what a pipe holds in any case (64 KiB, pipe(7)).
///
/// # Errors
/// The error of pipe(2).
pub(crate) fn output_pipe(bytes: Option<i32>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    if let Some(bytes) = bytes {
        // Where the user's share of all pipes is used up, it is smaller.
        let _smaller = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(bytes));
    }
    Ok((reader, writer))
}

/// Has writes to this file wait.
///
/// # Errors
/// The error of fcntl(2).
pub(crate) fn let_wait(file: &impl AsFd) -> io::Result<()> {
    fcntl(file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(())
}

/// The most bytes that a process without privileges may make a pipe hold (pipe(7), `pipe-max-size`).
pub(crate) const PIPE_BYTES: i32 = 1 << 20;
