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
