//! What the kernel counts of a process.

use std::fs;
use std::io;

/// Bytes of the process's memory that are resident (proc(5), `/proc/pid/statm`).
///
/// # Errors
/// When the process is gone, or there is no `/proc`.
pub(crate) fn resident_bytes(pid: i32) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    let page = u64::try_from(page).unwrap_or(4096);
    pages.map(|pages| pages * page).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Nanoseconds for which the process's main thread was runnable but had no processor (the kernel's
/// `Documentation/scheduler/sched-stats.rst`, `/proc/pid/schedstat`).
///
/// # Errors
/// When the process is gone, or the kernel does not count.
pub(crate) fn starved_nanos(pid: i32) -> io::Result<u64> {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let waited = schedstat.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
    waited.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The most connections that may wait on one listening socket, whatever its backlog says (tcp(7)).
pub(crate) fn backlog_max() -> Option<u32> {
    fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// How many processes of this control group the kernel has killed for want of memory, by its own
/// count: `memory.events` in version 2 of control groups, `memory.oom_control` in version 1 (the
/// kernel's `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`). `None` where there
/// is no such count.
pub(crate) fn out_of_memory_kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.events")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.oom_control")
        } else {
            return None;
        };
        // In a container the group's own path is often the root of what is mounted.
        let inside = format!("{mount}{path}/{file}");
        let counts =
            fs::read_to_string(inside).or_else(|_| fs::read_to_string(format!("{mount}/{file}")));
        counts.ok()?.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    })
}
