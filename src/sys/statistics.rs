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

/// One thread of a process, and what became of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    id: i32,
    /// Whether it runs, or would if it had a processor.
    runnable: bool,
    /// Nanoseconds for which it had one.
    ran: u64,
    /// Nanoseconds for which it waited for one, added up when it gets it.
    waited: u64,
}

impl Thread {
    /// Whether it got less than half of the processor that it asked for, in so many nanoseconds since
    /// it was as before.
    ///
    /// # The trap
    /// A wait is counted when it is over. Who has got nothing at all shows no wait: but he was and is
    /// runnable, and has not run.
    pub(crate) fn was_starved(&self, before: &[Self], nanos: u64) -> bool {
        let Some(before) = before.iter().find(|it| it.id == self.id) else { return false };
        let grew = |now: u64, then: u64| now.saturating_sub(then);
        let kept_off = self.runnable && before.runnable && grew(self.ran, before.ran) < nanos / 2;
        kept_off || grew(self.waited, before.waited) > nanos / 2
    }
}

/// Every thread of a process (proc(5), `/proc/pid/task/tid/stat`; the kernel's
/// `Documentation/scheduler/sched-stats.rst`, `schedstat`). Those that end meanwhile are left out.
///
/// # Errors
/// When the process is gone.
pub(crate) fn threads(pid: i32) -> io::Result<Vec<Thread>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    Ok(ids.filter_map(|id| thread(pid, id)).collect())
}

fn thread(pid: i32, id: i32) -> Option<Thread> {
    let read = |file| fs::read_to_string(format!("/proc/{pid}/task/{id}/{file}")).ok();
    let (stat, schedstat) = (read("stat")?, read("schedstat")?);
    // Its name, in brackets, may hold anything.
    let (_, state) = stat.rsplit_once(") ")?;
    let mut nanos = schedstat.split(' ').map(|nanos| nanos.parse().ok());
    let (ran, waited) = (nanos.next()??, nanos.next()??);
    Some(Thread { id, runnable: state.starts_with('R'), ran, waited })
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A thread that asks for a processor, and what became of its time by now.
    fn at(id: i32, ran: u64, waited: u64) -> Thread {
        Thread { id, runnable: true, ran, waited }
    }

    #[test]
    fn who_is_kept_off_every_processor_is_starved_although_no_wait_is_counted() {
        let before = [at(7, 5, 100)];
        assert!(at(7, 5, 100).was_starved(&before, SECOND));
        // It has just got one for a moment.
        assert!(at(7, 500, 100 + SECOND).was_starved(&before, SECOND));
        let slept = Thread { runnable: false, ..at(7, 500, 100 + SECOND * 6 / 10) };
        assert!(slept.was_starved(&before, SECOND));
    }

    #[test]
    fn who_runs_sleeps_or_is_new_is_not_starved() {
        let (before, asleep) = (at(7, 5, 100), |it| Thread { runnable: false, ..it });
        assert!(!at(7, SECOND, 200).was_starved(&[before], SECOND), "it spins");
        assert!(!asleep(before).was_starved(&[asleep(before)], SECOND), "it waits for something");
        assert!(!before.was_starved(&[asleep(before)], SECOND), "it has just woken");
        assert!(!asleep(before).was_starved(&[before], SECOND), "it has just gone to sleep");
        assert!(!before.was_starved(&[at(8, 5, 100)], SECOND), "it was not there");
    }

    #[test]
    fn every_thread_of_this_process_is_told() {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let other = std::thread::Builder::new().name(") R (".to_owned());
        let other = other.spawn(move || told.recv()).expect("one thread more");
        let pid = i32::try_from(std::process::id()).expect("pids fit");
        let threads = threads(pid).expect("this process is there");
        assert!(threads.len() >= 2, "{threads:?}");
        assert!(threads.iter().any(|it| it.runnable && it.ran > 0), "{threads:?}");
        drop(tell);
        other.join().expect("it does not panic").expect_err("nobody has told it anything");
    }
}
