//! What a process is: its name, its user, its environment, its end.

use std::ffi::CString;
use std::{fs, io};

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group, Uid, User};

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
/// What proc(5) says: `EACCES` after a change of user.
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
/// What prctl(2) says.
pub(crate) fn die_with_parent(signal: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::try_from(signal)?)?;
    Ok(())
}

/// The pid of this process.
pub(crate) fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// The pid of its parent; 1 or a subreaper's when that has died, 0 when it is outside the namespace.
pub(crate) fn parent_pid() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Sets the file mode creation mask and answers the one before.
pub(crate) fn set_umask(mask: u32) -> u32 {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask)).bits()
}

/// Lets this process have as many files open as it may allow itself, and answers how many that is.
///
/// # Errors
/// What getrlimit(2) says. That it cannot be raised is no error.
pub(crate) fn raise_files_max() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Ok(hard),
        Err(_) => Ok(soft),
    }
}

/// How many files this process has open.
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
        // SAFETY: the process has one thread, as `_proof` says, so nobody reads the environment.
        #[expect(unsafe_code, reason = "the environment is shared by threads without a lock")]
        #[expect(clippy::disallowed_methods, reason = "no thread can race with it")]
        unsafe {
            std::env::set_var(name, value);
        }
    }
}

/// A user and a group to become, found by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    uid: Option<Uid>,
    gid: Option<Gid>,
    name: Option<CString>,
}

impl Identity {
    /// Looks both up; an empty text is nobody in particular.
    ///
    /// # Errors
    /// Which of the two is not known, in words.
    pub(crate) fn find(user: &str, group: &str) -> Result<Self, String> {
        let mut identity = Self { uid: None, gid: None, name: None };
        if !user.is_empty() {
            let by_number =
                || user.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok()?);
            match User::from_name(user).ok().flatten().or_else(by_number) {
                Some(found) => {
                    identity.uid = Some(found.uid);
                    identity.gid = Some(found.gid);
                    identity.name = CString::new(found.name).ok();
                }
                // A number needs no name: containers often run as users that nobody has listed.
                None => match user.parse() {
                    Ok(uid) => identity.uid = Some(Uid::from_raw(uid)),
                    Err(_) => return Err(format!("user: no user is called {user:?}")),
                },
            }
        }
        if !group.is_empty() {
            let named = Group::from_name(group).ok().flatten().map(|found| found.gid);
            let gid = named.or_else(|| group.parse().ok().map(Gid::from_raw));
            identity.gid = Some(gid.ok_or_else(|| format!("group: no group is called {group:?}"))?);
        }
        Ok(identity)
    }

    /// Becomes it: first the groups, then the user, since the user may not change groups any more.
    ///
    /// # Errors
    /// What setgroups(2), setgid(2) or setuid(2) says. The process must not go on then.
    pub(crate) fn assume(&self) -> io::Result<()> {
        let root = Uid::effective().is_root();
        if let Some(gid) = self.gid.filter(|gid| *gid != Gid::effective() || root) {
            match &self.name {
                Some(name) if root => nix::unistd::initgroups(name, gid)?,
                _ if root => nix::unistd::setgroups(&[gid])?,
                _ => {}
            }
            nix::unistd::setgid(gid)?;
        }
        if let Some(uid) = self.uid.filter(|uid| *uid != Uid::effective()) {
            nix::unistd::setuid(uid)?;
        }
        Ok(())
    }
}

/// The first descriptor that a service manager passes (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const FIRST_PASSED: i32 = 3;

/// The variables by which it does so.
pub(crate) const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The listening sockets that a service manager has passed to this process, by number and name
/// (sd_listen_fds_with_names(3)); none when the variables are meant for another process. The
/// variables are removed: they are meant for no child either.
pub(crate) fn activated(proof: &super::fork::SingleThreaded) -> Vec<(i32, String)> {
    let [pid, count, names] = ACTIVATION.map(|name| std::env::var(name).unwrap_or_default());
    remove_from_environment(proof, &ACTIVATION);
    if pid.parse() != Ok(self::pid()) {
        return Vec::new();
    }
    let count: i32 = count.parse().unwrap_or(0);
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    (FIRST_PASSED..FIRST_PASSED.saturating_add(count)).zip(names).collect()
}

/// Removes variables from this process's environment.
pub(crate) fn remove_from_environment(_proof: &super::fork::SingleThreaded, names: &[&str]) {
    for name in names {
        // SAFETY: the process has one thread, as `_proof` says, so nobody reads the environment.
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
    let first = (0..CpuSet::count()).find(|it| allowed.is_set(*it) == Ok(true));
    let mut one = CpuSet::new();
    one.set(first.expect("it runs somewhere")).expect("it is one of them");
    sched_setaffinity(this, &one).expect("it may run there");
}
