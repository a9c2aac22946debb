//! The kernel's counts of a process.

use std::fs;
use std::io;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use super::waiting;

/// The processes that memory and processor time are counted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// One process.
    Process,
    /// A process and its descendants, as far as [`waiting::tree`] finds them.
    Tree,
}

impl Extent {
    /// Bytes of memory that are resident. Pages that several processes have in common count for each.
    ///
    /// # Errors
    /// When the process is gone, or there is no `/proc`.
    pub(crate) fn resident_bytes(self, pid: i32) -> io::Result<u64> {
        let own = resident_bytes(pid)?;
        // A descendant that has ended meanwhile has none.
        let others = self.descendants(pid).filter_map(|pid| resident_bytes(pid).ok());
        Ok(others.fold(own, u64::saturating_add))
    }

    /// Processor time, in the processes' own code and in the kernel. That of descendants which have ended is
    /// in it as soon as their parents have waited for them.
    ///
    /// # Errors
    /// When the process is gone, or there is no `/proc`.
    pub(crate) fn cpu_time(self, pid: i32) -> io::Result<Duration> {
        let times = CpuTimes::of(pid)?;
        let others = self.descendants(pid).filter_map(|pid| CpuTimes::of(pid).ok());
        let of_tree = |times: CpuTimes| times.own.saturating_add(times.of_ended_children);
        Ok(match self {
            Self::Process => times.own,
            Self::Tree => others.map(of_tree).fold(of_tree(times), Duration::saturating_add),
        })
    }

    fn descendants(self, pid: i32) -> impl Iterator<Item = i32> {
        let tree = match self {
            Self::Process => Vec::new(),
            Self::Tree => waiting::tree(pid),
        };
        tree.into_iter().skip(1)
    }
}

/// Bytes of the process's memory that are resident (proc(5), `/proc/pid/statm`).
///
/// # Errors
/// When the process is gone, or there is no `/proc`.
fn resident_bytes(pid: i32) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    let page = u64::try_from(page).unwrap_or(4096);
    pages.map(|pages| pages * page).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The processor time of a process (proc(5), `/proc/pid/stat`).
#[derive(Clone, Copy, Debug)]
struct CpuTimes {
    own: Duration,
    /// Of its children that have ended and were waited for, and of theirs.
    of_ended_children: Duration,
}

impl CpuTimes {
    fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
        let ticks = u64::try_from(ticks).unwrap_or(100).max(1);
        // Its name, in brackets, may hold anything; behind it stand the state and ten further words.
        let (_, rest) = stat.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
        let words: Vec<u64> =
            rest.split(' ').skip(11).map_while(|word| word.parse().ok()).take(4).collect();
        let [user, system, user_of_ended, system_of_ended] = words[..] else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let span = |user: u64, system| {
            Duration::from_millis(user.saturating_add(system).saturating_mul(1000) / ticks)
        };
        let of_ended_children = span(user_of_ended, system_of_ended);
        Ok(Self { own: span(user, system), of_ended_children })
    }
}

/// For how long the children that this process has reaped had the processor (getrusage(2),
/// `RUSAGE_CHILDREN`).
///
/// # Errors
/// The error of getrusage(2).
pub(crate) fn processor_time_of_children() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    let sum = micros(usage.user_time()).saturating_add(micros(usage.system_time()));
    Ok(Duration::from_micros(sum))
}

/// One thread of a process, and what became of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    id: i32,
    /// True if it runs, or would if it had a processor.
    runnable: bool,
    /// Nanoseconds for which it had one.
    ran: u64,
    /// Nanoseconds for which it waited for one, added up when it gets it.
    waited: u64,
}

impl Thread {
    /// Returns true if it got less than half of the processor that it asked for, in so many nanoseconds
    /// since it was as before.
    ///
    /// # The trap
    /// A wait is counted when it is over. A thread that got nothing at all shows no wait: but it was
    /// and is runnable, and has not run.
    pub(crate) fn was_starved(&self, before: &[Self], nanos: u64) -> bool {
        let Some(before) = before.iter().find(|thread| thread.id == self.id) else { return false };
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
    let stat = read("stat")?;
    let schedstat = read("schedstat")?;
    // Its name, in brackets, may hold anything.
    let (_, state) = stat.rsplit_once(") ")?;
    let mut nanos = schedstat.split(' ').map(|nanos| nanos.parse().ok());
    let ran = nanos.next()??;
    let waited = nanos.next()??;
    Some(Thread { id, runnable: state.starts_with('R'), ran, waited })
}

/// The most connections that may wait on one listening socket, whatever its backlog says (tcp(7)).
pub(crate) fn backlog_max() -> Option<u32> {
    fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// The most memory that the processes of this control group may have together, in bytes: the least of
/// its own limit, those of the groups above it, and the machine's memory.
pub(crate) fn memory_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let pages = nix::unistd::sysconf(nix::unistd::SysconfVar::_PHYS_PAGES).ok().flatten();
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let machine = u64::try_from(pages?).ok()?.checked_mul(u64::try_from(page?).ok()?)?;
    let group = memory_max_of(&groups, |path| fs::read_to_string(path).ok());
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// The least limit of these control groups (cgroups(7), `/proc/pid/cgroup`) and of those above them.
fn memory_max_of(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        let above = std::path::Path::new(path).ancestors().filter_map(|group| {
            let group = group.to_str()?.trim_end_matches('/');
            // Without a limit it is a word.
            read(&format!("{mount}{group}/{file}"))?.trim().parse::<u64>().ok()
        });
        above.min()
    });
    limits.min()
}

/// Returns the number of processes of this control group that the kernel has killed for want of memory,
/// by its own count: `memory.events` in version 2 of control groups, `memory.oom_control` in version 1
/// (the kernel's `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`). `None` where
/// there is no such count.
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
    fn the_least_memory_limit_of_a_group_and_those_above_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
        ];
        let read = |path: &str| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(memory_max_of("0::/a/b\n", read), Some(268_435_456));
        assert_eq!(memory_max_of("4:cpu,memory:/c\n3:pids:/d\n", read), Some(1000));
        assert_eq!(memory_max_of("0::/\n", read), None);
        assert!(memory_max().is_some_and(|bytes| bytes > 1 << 20));
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
        let before = at(7, 5, 100);
        let asleep = |thread| Thread { runnable: false, ..thread };
        assert!(!at(7, SECOND, 200).was_starved(&[before], SECOND), "it spins");
        assert!(!asleep(before).was_starved(&[asleep(before)], SECOND), "it waits for something");
        assert!(!before.was_starved(&[asleep(before)], SECOND), "it has just woken");
        assert!(!asleep(before).was_starved(&[before], SECOND), "it has just gone to sleep");
        assert!(!before.was_starved(&[at(8, 5, 100)], SECOND), "it was not there");
    }

    /// A shell whose child has 64 MiB, and a child of its own that is busy until it is told to end.
    #[test]
    fn tree_counts_descendants_and_process_does_not() {
        let script = "import os, subprocess; held = b'x' * (64 << 20); \
                      subprocess.run(['sh', '-c', 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done']); \
                      os.write(1, b'.'); os.read(0, 1)";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "python3 -c \"$1\"; :", "sh", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let output = shell.stdout.as_mut().expect("it is piped");
        io::Read::read_exact(output, &mut [0]).expect("the child is there");
        let pid = i32::try_from(shell.id()).expect("pids fit");
        let counted =
            |extent: Extent| (extent.resident_bytes(pid).unwrap(), extent.cpu_time(pid).unwrap());
        let process = counted(Extent::Process);
        let tree = counted(Extent::Tree);
        drop(shell.stdin.take());
        shell.wait().expect("it ends");
        assert!(process.0 < 32 << 20 && tree.0 > 64 << 20, "{process:?} {tree:?}");
        assert!(tree.1 > process.1, "{process:?} {tree:?}");
    }

    #[test]
    fn processor_time_of_a_child_is_the_kernels() {
        let before = processor_time_of_children().expect("the kernel counts");
        let mut busy = std::process::Command::new("sh");
        busy.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
        assert!(busy.status().expect("there is a shell").success());
        let after = processor_time_of_children().expect("the kernel counts");
        assert!(before < after, "{before:?} {after:?}");
    }

    #[test]
    fn every_thread_of_this_process_is_told() {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let other = std::thread::Builder::new().name(") R (".to_owned());
        let other = other.spawn(move || told.recv()).expect("one thread more");
        let pid = i32::try_from(std::process::id()).expect("pids fit");
        let threads = threads(pid).expect("this process is there");
        assert!(threads.len() >= 2, "{threads:?}");
        assert!(threads.iter().any(|thread| thread.runnable), "this one: {threads:?}");
        // The time of a thread is counted when it gives up its processor, as that of `main` has.
        assert!(threads.iter().any(|thread| thread.ran > 0), "{threads:?}");
        drop(tell);
        other.join().expect("it does not panic").expect_err("nobody has told it anything");
    }
}
