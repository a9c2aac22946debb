//! The properties of a process: its name, its user, its environment, its end.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::{fs, io};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{SockaddrStorage, UnixAddr, getpeername};
use nix::sys::stat::Mode;

use super::{exec, options, socket};

/// The longest name that the kernel keeps (prctl(2), `PR_SET_NAME`).
const NAME_MAX_BYTES: usize = 15;

/// Names this process, as `ps -o comm` shows it: at most 15 bytes, the rest is cut.
pub(crate) fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // Only a bad pointer could fail, and a name is no reason to stop.
        let _cosmetic = prctl::set_name(&name);
    }
}

/// Names this child after its parent, whose name it was born with: `ferricorn-w0`. Where both do not
/// fit, the parent's is cut.
pub(crate) fn extend_name(suffix: &str) {
    if let Ok(parent) = prctl::get_name() {
        let parent = parent.to_string_lossy();
        let room = NAME_MAX_BYTES.saturating_sub(suffix.len() + 1);
        let kept = parent.char_indices().take_while(|(at, it)| at + it.len_utf8() <= room);
        set_name(&format!("{}-{suffix}", kept.map(|(_, it)| it).collect::<String>()));
    }
}

/// Has the kernel's out-of-memory killer take this process rather than its parent: it counts as if it
/// held so many thousandths more of the memory that is short (proc(5), `oom_score_adj`). It needs no
/// privilege to be likelier.
///
/// # Errors
/// The error of proc(5): `EACCES` after a change of user.
pub(crate) fn be_expendable(thousandths: i32) -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    const MAX: i32 = 1000;
    let inherited: i32 =
        fs::read_to_string(FILE)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    fs::write(FILE, inherited.saturating_add(thousandths).min(MAX).to_string())
}

/// Has the kernel send this process a signal when the thread that forked it ends. A change of user
/// takes that back.
///
/// # Errors
/// The error of prctl(2).
pub(crate) fn die_with_parent(signal: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::try_from(signal)?)?;
    Ok(())
}

/// Makes this process the parent of descendants whose own parents end before them.
///
/// # Errors
/// The error of prctl(2).
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Keeps this process's memory out of core dumps, and from other processes of its user
/// (`PR_SET_DUMPABLE`). It lasts until the next `execve` or change of user.
///
/// # Errors
/// The error of prctl(2).
pub(crate) fn forbid_core_dump() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// For `open(2)`: does not wait for another end, and reading does not wait either.
pub(crate) const NONBLOCK: i32 = libc::O_NONBLOCK;

/// The pid of this process.
pub(crate) fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// The pid of its parent; 1 or a subreaper's when that has died, 0 when it is outside the namespace.
pub(crate) fn parent_pid() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Has writes to standard output and standard error go to the end of the file, where they are regular
/// files: a shell's `>` opens without `O_APPEND`, and a file that is truncated under its writer would
/// begin with a hole.
pub(crate) fn append_to_standard_files() {
    for descriptor in [io::stdout().as_fd(), io::stderr().as_fd()] {
        let is_file = nix::sys::stat::fstat(descriptor)
            .is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFREG);
        if is_file && let Ok(flags) = fcntl(descriptor, FcntlArg::F_GETFL) {
            let flags = OFlag::from_bits_retain(flags) | OFlag::O_APPEND;
            // Where it is refused, the file is written to as before.
            let _as_before = fcntl(descriptor, FcntlArg::F_SETFL(flags));
        }
    }
}

/// A connected stream socket of this process, with its descriptor and its peer.
///
/// # Why only some
/// What was inherited over `execve` is the starter's business, and has no `FD_CLOEXEC`; std opens every
/// socket with it. A datagram socket may be shared: a message is whole. sssd's own library keeps a
/// connection and looks at the pid before each use.
pub(crate) fn connected_socket() -> Option<String> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|number: &i32| *number > 2).find_map(|number| {
        let peer: SockaddrStorage = getpeername(number).ok()?;
        let is_stream = options::kind(number).is_some_and(|kind| kind != libc::SOCK_DGRAM);
        let path = peer.as_unix_addr().and_then(UnixAddr::path);
        let path = path.map(|path| path.display().to_string());
        let is_shared = path.as_ref().is_some_and(|path| path.starts_with("/var/lib/sss/"));
        let flags = exec::flags(number)?;
        if !flags.contains(FdFlag::FD_CLOEXEC) || !is_stream || is_shared {
            return None;
        }
        let peer = socket::address(&peer).map(|peer| peer.to_string()).or(path);
        let peer = peer.unwrap_or_else(|| "a socket without a name".to_owned());
        Some(format!("descriptor {number}, connected to {peer}"))
    })
}

/// Returns true if this process has a controlling terminal.
pub(crate) fn has_terminal() -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    fs::File::options().read(true).write(true).custom_flags(flags).open("/dev/tty").is_ok()
}

/// Sets the file mode creation mask and answers the one before.
pub(crate) fn set_umask(mask: u32) -> u32 {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask)).bits()
}

/// Lets this process have as many files open as it may allow itself, and answers how many that is.
///
/// # Errors
/// The error of getrlimit(2). That it cannot be raised is no error.
pub(crate) fn raise_files_max() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Ok(hard),
        Err(_) => Ok(soft),
    }
}

/// Returns the number of files that this process has open.
///
/// # Errors
/// Where there is no `/proc`.
pub(crate) fn files_open() -> io::Result<u64> {
    // One of them is the folder that is read.
    fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1) as u64)
}

/// Sets variables of this process's environment.
pub(crate) fn set_environment(
    _proof: &super::fork::SingleThreaded,
    variables: &[(String, String)],
) {
    for (name, value) in variables {
        // SAFETY: the process has one thread, as `_proof` says, so no other thread reads the environment.
        #[expect(unsafe_code, reason = "the environment is shared by threads without a lock")]
        #[expect(clippy::disallowed_methods, reason = "no thread can race with it")]
        unsafe {
            std::env::set_var(name, value);
        }
    }
}

/// The first descriptor that a service manager passes (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const FIRST_PASSED: i32 = 3;

/// The variables by which it does so.
pub(crate) const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The listening sockets that a service manager has passed to this process, by number and name
/// (sd_listen_fds_with_names(3)); none when the variables are meant for another process. The
/// variables are removed: they are meant for no child either.
///
/// # Errors
/// When they name descriptors that are not there, in words: their count is not believed.
pub(crate) fn activated(
    proof: &super::fork::SingleThreaded,
    passed: &exec::Passed,
) -> Result<Vec<(i32, String)>, String> {
    let [pid, count, names] = ACTIVATION.map(|name| std::env::var(name).unwrap_or_default());
    remove_from_environment(proof, &ACTIVATION);
    if pid.parse() != Ok(self::pid()) {
        return Ok(Vec::new());
    }
    let Ok(parsed) = count.parse::<u32>() else {
        return Err(format!("LISTEN_FDS: expected a number of descriptors, found {count:?}"));
    };
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let numbers = FIRST_PASSED..FIRST_PASSED.saturating_add_unsigned(parsed);
    let found = numbers.zip(names).map(|(number, name)| {
        let absent = || {
            format!(
                "LISTEN_FDS is {parsed}, but descriptor {number} was not passed to this process"
            )
        };
        if passed.has(number) { Ok((number, name)) } else { Err(absent()) }
    });
    found.collect()
}

/// Removes variables from this process's environment.
pub(crate) fn remove_from_environment(_proof: &super::fork::SingleThreaded, names: &[&str]) {
    for name in names {
        // SAFETY: the process has one thread, as `_proof` says, so no other thread reads the environment.
        #[expect(unsafe_code, reason = "the environment is shared by threads without a lock")]
        #[expect(clippy::disallowed_methods, reason = "no thread can race with it")]
        unsafe {
            std::env::remove_var(name);
        }
    }
}

/// For tests: this thread runs on one processor from now on, which is the same one for all of them.
#[cfg(test)]
pub(crate) fn run_on_one_processor() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let this = nix::unistd::Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("this thread runs somewhere");
    let first = (0..CpuSet::count()).find(|number| allowed.is_set(*number) == Ok(true));
    let mut one = CpuSet::new();
    one.set(first.expect("it runs somewhere")).expect("it is one of them");
    sched_setaffinity(this, &one).expect("it may run there");
}
