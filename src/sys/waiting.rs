//! Which processes wait for connections on a socket, and which has accepted one, as the kernel reports
//! it in `/proc` (proc(5)).
//!
//! A process that may be looked into is one of the same user, whose tracing no security module forbids.
//! What cannot be read is not there: an answer may be false although it should be true, never the other
//! way round.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use nix::libc;

use super::wait;

/// Processes of a tree that are looked at.
const PROCESSES_MAX: usize = 256;
/// Entries of poll(2) that are looked at, and the descriptors of select(2).
const POLLED_MAX: usize = 1024;

/// The number by which the kernel knows a socket.
///
/// # Errors
/// The error of fstat(2).
pub(crate) fn number(socket: BorrowedFd<'_>) -> std::io::Result<u64> {
    Ok(nix::sys::stat::fstat(socket)?.st_ino)
}

/// A process and its descendants, as far as first threads have forked them.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() && found.len() < PROCESSES_MAX {
        found.extend(wait::children_of(found[at]));
        at += 1;
    }
    found
}

/// Returns true if a process of these waits for connections on one of the sockets with these numbers:
/// in accept(2), poll(2) or select(2), or by an epoll instance.
pub(crate) fn waits(processes: &[i32], sockets: &[u64]) -> bool {
    processes.iter().any(|pid| {
        let held = Held::of(*pid);
        let own: Vec<i32> = held.sockets_with(sockets).collect();
        held.epolls.iter().any(|number| watches(*pid, *number, sockets))
            || (!own.is_empty() && threads(*pid).any(|thread| is_blocked(*pid, thread, &own)))
    })
}

/// Returns true if one of these processes holds the server's end of a connection that this client's
/// end belongs to; `None` while no process has accepted it.
pub(crate) fn has_accepted(
    processes: &[i32],
    client: SocketAddr,
    server: SocketAddr,
) -> Option<bool> {
    let number = accepted(&tables(), &[client], server.port()).first().copied()?;
    Some(processes.iter().any(|pid| Held::of(*pid).sockets_with(&[number]).next().is_some()))
}

/// Returns true if one of these processes holds the server's end of a connection of one of these clients.
pub(crate) fn has_accepted_any(processes: &[i32], clients: &[SocketAddr], port: u16) -> bool {
    let numbers = accepted(&tables(), clients, port);
    let holds = |pid: &i32| Held::of(*pid).sockets_with(&numbers).next().is_some();
    !numbers.is_empty() && processes.iter().any(holds)
}

/// The kernel's tables of TCP's connections.
fn tables() -> String {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    tables.map(|table| fs::read_to_string(table).unwrap_or_default()).concat()
}

/// The numbers of the sockets that have accepted connections of these clients, in the kernel's tables.
fn accepted(text: &str, clients: &[SocketAddr], port: u16) -> Vec<u64> {
    let local = format!(":{port:04X}");
    let remotes: Vec<String> = clients.iter().map(|client| remote(*client)).collect();
    let found = text.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let here = columns.next()?;
        let there = columns.next()?;
        let is_wanted = |remote: &String| there.ends_with(remote.as_str());
        if !here.ends_with(&local) || !remotes.iter().any(is_wanted) {
            return None;
        }
        columns.nth(6)?.parse().ok().filter(|number| *number != 0)
    });
    found.collect()
}

/// A client's address as it stands in the kernel's tables.
fn remote(client: SocketAddr) -> String {
    let words: String = match client.ip() {
        IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            let bytes = ip.octets();
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect()
        }
    };
    format!("{words}:{:04X}", client.port())
}

/// The sockets that a process holds.
#[derive(Debug, Default)]
struct Held {
    epolls: Vec<i32>,
    /// Descriptor, and the socket's number.
    sockets: Vec<(i32, u64)>,
}

impl Held {
    fn of(pid: i32) -> Self {
        let mut held = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|text| text.parse().ok()) else {
                continue;
            };
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy();
            let socket =
                target.strip_prefix("socket:[").and_then(|target| target.strip_suffix(']'));
            if target == "anon_inode:[eventpoll]" {
                held.epolls.push(number);
            } else if let Some(socket) = socket.and_then(|socket| socket.parse().ok()) {
                held.sockets.push((number, socket));
            }
        }
        held
    }

    fn sockets_with(&self, numbers: &[u64]) -> impl Iterator<Item = i32> {
        let wanted = self.sockets.iter().filter(move |(_, socket)| numbers.contains(socket));
        wanted.map(|(number, _)| *number)
    }
}

/// Returns true if an epoll instance watches one of these sockets for input.
fn watches(pid: i32, epoll: i32, sockets: &[u64]) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{epoll}")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("tfd:")).any(|line| {
        let value = |name: &str| {
            let mut words = line.split_once(name)?.1.split_ascii_whitespace();
            u64::from_str_radix(words.next()?, 16).ok()
        };
        let input = u64::from(libc::EPOLLIN.cast_unsigned());
        let events = value("events:");
        let number = value("ino:");
        events.is_some_and(|events| events & input != 0)
            && number.is_some_and(|number| sockets.contains(&number))
    })
}

fn threads(pid: i32) -> impl Iterator<Item = i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok())
}

/// Returns true if a thread is blocked in a system call that waits for one of these descriptors.
fn is_blocked(pid: i32, thread: i32, own: &[i32]) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall"));
    let call = call.unwrap_or_default();
    let mut words = call.split_ascii_whitespace();
    let Some(number) = words.next().and_then(|word| word.parse::<libc::c_long>().ok()) else {
        return false;
    };
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let arguments: Vec<u64> = words.map_while(hex).collect();
    let [first, second, ..] = arguments[..] else { return false };
    if [libc::SYS_accept, libc::SYS_accept4].contains(&number) {
        return own.iter().any(|own| u64::try_from(*own) == Ok(first));
    }
    if is_poll(number) {
        return polled(pid, first, second).any(|polled| own.contains(&polled));
    }
    is_select(number) && own.iter().any(|own| selects(pid, second, *own))
}

fn is_poll(number: libc::c_long) -> bool {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_poll {
        return true;
    }
    number == libc::SYS_ppoll
}

fn is_select(number: libc::c_long) -> bool {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_select {
        return true;
    }
    number == libc::SYS_pselect6
}

/// The descriptors that a poll(2) waits for input on.
fn polled(pid: i32, address: u64, count: u64) -> impl Iterator<Item = i32> {
    let count = usize::try_from(count).unwrap_or(POLLED_MAX).min(POLLED_MAX);
    let bytes = memory(pid, address, count * size_of::<libc::pollfd>());
    let (entries, _) = bytes.as_chunks::<{ size_of::<libc::pollfd>() }>();
    let entries: Vec<i32> = entries
        .iter()
        .filter(|entry| i16::from_ne_bytes([entry[4], entry[5]]) & libc::POLLIN != 0)
        .map(|entry| i32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]))
        .collect();
    entries.into_iter()
}

/// Returns true if a descriptor is in the set at this address of select(2).
fn selects(pid: i32, address: u64, descriptor: i32) -> bool {
    let Ok(descriptor) = usize::try_from(descriptor) else { return false };
    // The set is one of longs; a byte's place in them is its place in memory where the lowest comes first.
    let bytes = memory(pid, address, (descriptor / 64 + 1).min(POLLED_MAX / 64) * 8);
    let (longs, _) = bytes.as_chunks::<8>();
    longs
        .get(descriptor / 64)
        .is_some_and(|long| u64::from_ne_bytes(*long) >> (descriptor % 64) & 1 != 0)
}

/// Bytes of another process's memory; none where they cannot be read.
fn memory(pid: i32, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = fs::File::open(format!("/proc/{pid}/mem"))
        .and_then(|memory| memory.read_exact_at(&mut bytes, address));
    if read.is_err() {
        bytes.clear();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// Programs of Python that wait for a connection in four ways.
    const WAYS: [&str; 5] = [
        "s.accept()",
        "import select; select.select([s], [], [])",
        "import select; p = select.poll(); p.register(s, select.POLLIN); p.poll()",
        "import select; p = select.epoll(); p.register(s); p.poll()",
        "import subprocess; subprocess.run(['python3', '-c', 'import socket; \
         socket.socket(fileno=0).accept()'], stdin=s)",
    ];

    #[test]
    fn processes_that_wait_for_connections_are_found() {
        for way in WAYS {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let sockets = [number(listener.as_fd()).unwrap()];
            let mut program = Command::new("python3")
                .args(["-c", &format!("import socket; s = socket.socket(fileno=0); {way}")])
                .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
                .spawn()
                .expect("python3 is installed");
            let pid = i32::try_from(program.id()).unwrap();
            let found = (0..10_000).any(|_| {
                crate::sys::clock::nap(std::time::Duration::from_millis(2));
                waits(&tree(pid), &sockets)
            });
            tree(pid).iter().rev().for_each(|pid| {
                let pid = nix::unistd::Pid::from_raw(*pid);
                nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
            });
            program.wait().unwrap();
            assert!(found, "{way}");
        }
    }

    #[test]
    fn accepted_connections_have_their_owner() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let mut server = listener.local_addr().unwrap();
            if server.ip().is_unspecified() {
                server.set_ip([127, 0, 0, 1].into());
            }
            let client = TcpStream::connect(server).unwrap();
            let here = client.local_addr().unwrap();
            let own = i32::try_from(std::process::id()).unwrap();
            assert_eq!(has_accepted(&[own], here, server), None, "{address}");
            let _accepted = listener.accept().unwrap();
            assert_eq!(has_accepted(&[own], here, server), Some(true), "{address}");
            assert_eq!(has_accepted(&[1], here, server), Some(own == 1), "{address}");
            let other = TcpStream::connect(server).unwrap().local_addr().unwrap();
            assert!(has_accepted_any(&[own], &[other, here], server.port()), "{address}");
            assert!(!has_accepted_any(&[own], &[other], server.port()), "{address}");
        }
    }
}
