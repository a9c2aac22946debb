//! The kernel's word about processes, read from `/proc`.
//!
//! A process may end between two looks: what is gone is left out, never an error.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// One line of `/proc/PID/stat`, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Processor time used, in ticks of 10 ms.
    pub(crate) ticks: u64,
}

/// The process, if it is there; a zombie is.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold some itself.
    let (open, close) = (line.find('(')?, line.rfind(')')?);
    let fields: Vec<&str> = line[close + 1..].split_ascii_whitespace().collect();
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(Stat {
        pid,
        name: line[open + 1..close].to_owned(),
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        ticks: user + system,
    })
}

fn all() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    entries.filter_map(|entry| stat(entry.ok()?.file_name().to_str()?.parse().ok()?))
}

/// Every process of this group, zombies too.
pub(crate) fn group(group: i32) -> Vec<Stat> {
    all().filter(|it| it.group == group).collect()
}

/// Its command line, as `ps` shows it; of a zombie, nothing.
pub(crate) fn title(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
}

/// The children of this process, zombies too. One that comes or goes meanwhile may hide another, so
/// whoever counts looks again.
pub(crate) fn children(parent: i32) -> Vec<Stat> {
    // A look at every process there is takes long on a busy machine; not every kernel saves it.
    match fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) {
        Ok(pids) => {
            let pids = pids.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
            pids.filter_map(stat).filter(|pid| pid.parent == parent).collect()
        }
        Err(_) => all().filter(|it| it.parent == parent).collect(),
    }
}

/// The processor time of a process and of its children that have ended, and of theirs.
pub(crate) fn time_with_ended(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is not reaped");
    let (_, rest) = text.rsplit_once(") ").expect("its name is in brackets");
    let ticks = rest.split(' ').skip(11).take(4).map(|word| word.parse::<u64>().expect("a number"));
    // A hundredth of a second each, on every Linux (proc(5), USER_HZ).
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// A process and its descendants.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]).iter().map(|child| child.pid));
        at += 1;
    }
    found
}

/// Returns true if the process is there and is no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// Numbers of the process's open descriptors.
pub(crate) fn descriptors(pid: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the number of a master's descriptors, but for those of its processes' rings, which it keeps
/// for the processes that come: a memory and a bell each.
pub(crate) fn descriptors_but_rings(master: i32) -> usize {
    let all = descriptors(master);
    let links = all.iter().filter_map(|it| fs::read_link(format!("/proc/{master}/fd/{it}")).ok());
    let rings = links.filter(|link| link.to_string_lossy().contains("ferricorn-ring")).count();
    assert!(rings <= RINGS_MAX, "{rings} rings");
    all.len().saturating_sub(2 * rings)
}

/// More processes than any server of these tests has at one time.
const RINGS_MAX: usize = 64;

/// A number of `/proc/PID/status`, such as `VmRSS` (in KiB), `Uid` (the real one) or `Threads`.
pub(crate) fn status(pid: i32, name: &str) -> Option<String> {
    status_all(pid, name).into_iter().next()
}

/// The words of a line of `/proc/PID/status`; none when there is no such line.
pub(crate) fn status_all(pid: i32, name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
}

/// The kernel's function in which the process's main thread sleeps; empty while it runs.
pub(crate) fn sleeps_in(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default()
}

/// Nanoseconds of a processor that the process's main thread has used.
pub(crate) fn processor_nanos(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Private memory of the process, in KiB, but for mappings of files with this name.
pub(crate) fn private_kib_but(pid: i32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let mut sum = 0;
    let mut counts = true;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next()? {
            "Private_Clean:" | "Private_Dirty:" if counts => {
                sum += words.next()?.parse::<u64>().ok()?;
            }
            // A mapping begins with its addresses.
            first if first.contains('-') && !first.ends_with(':') => counts = !line.contains(name),
            _ => {}
        }
    }
    Some(sum)
}

/// The clients of the TCP connections (over IPv4) that the process has accepted.
pub(crate) fn accepted_clients(pid: i32) -> HashSet<SocketAddrV4> {
    let sockets: HashSet<String> = descriptors(pid)
        .into_iter()
        .filter_map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok())
        .filter_map(|target| {
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let Ok(table) = fs::read_to_string(format!("/proc/{pid}/net/tcp")) else {
        return HashSet::new();
    };
    let remote = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        sockets.contains(*fields.get(9)?).then(|| address(fields.get(2)?))?
    };
    table.lines().skip(1).filter_map(remote).filter(|client| client.port() != 0).collect()
}

/// Returns true if the server's end of this client's connection (over IPv4, in our network) is there,
/// and all that the client has sent is read. Each test may have a network of its own: that of its
/// thread.
pub(crate) fn is_read(client: SocketAddrV4) -> bool {
    let Ok(table) = fs::read_to_string("/proc/thread-self/net/tcp") else { return false };
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let unread =
            fields.get(4).and_then(|queues| queues.split_once(':')).map(|(_, unread)| unread);
        fields.get(2).and_then(|field| address(field)) == Some(client) && unread == Some("00000000")
    })
}

/// An address as `/proc/net/tcp` writes it: eight hex digits in the machine's order, and the port.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_str_radix(port, 16).ok()?))
}

/// Returns true if this signal waits to be delivered to the process.
pub(crate) fn is_pending(pid: i32, signal: i32) -> bool {
    let pending = |name| u64::from_str_radix(&status(pid, name)?, 16).ok();
    let bit = 1 << (signal - 1);
    ["SigPnd", "ShdPnd"].into_iter().filter_map(pending).any(|set| set & bit != 0)
}

/// Returns the number of mappings of the process.
pub(crate) fn mappings(pid: i32) -> usize {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default().lines().count()
}

/// The environment that the process's program was started with.
pub(crate) fn environment(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// Returns true if the kernel has this version or a later one.
pub(crate) fn is_linux_since(version: [u32; 2]) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("every Linux has it");
    let numbers: Vec<u32> = release.split('.').take(2).filter_map(|it| it.parse().ok()).collect();
    numbers.as_slice() >= version.as_slice()
}
