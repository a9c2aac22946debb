//! Where a control socket is: the name by which a client finds it, without a file and without `HOME`.
//!
//! # Why an abstract name
//! In a container there may be no folder that can be written to, and none that both ends agree on. An
//! abstract name (unix(7)) needs neither, and `/proc/self/net/unix` lists the names of this network
//! namespace to every user. Containers that share a network have pid namespaces of their own, so the
//! name holds the namespace; a random part keeps others from taking the name in advance.

use std::fs;
use std::path::Path;

/// The first part of each name.
const PREFIX: &str = "ferricorn-control";
/// The bit of a listening socket (`__SO_ACCEPTCON`, the kernel's `net/unix/af_unix.c`).
const LISTENING: u32 = 0x1_0000;

/// A name that may be a server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: String,
    /// The pid in the name.
    pub(super) pid: i32,
}

/// The abstract name of the server with this pid.
pub(super) fn abstract_name(pid: i32, random: u64) -> String {
    format!("{}{pid}/{random:016x}", own_prefix())
}

/// The servers of this pid namespace, by their abstract names; those of each user. One that is there
/// need not be a server: its peer must have the pid.
pub(super) fn candidates() -> Vec<Candidate> {
    let table = fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
    listed(&table, &own_prefix())
}

fn listed(table: &str, prefix: &str) -> Vec<Candidate> {
    let mut found: Vec<Candidate> =
        table.lines().filter_map(|line| candidate(line, prefix)).collect();
    found.sort_by_key(|candidate| candidate.pid);
    found.dedup();
    found
}

/// The server in a line of `/proc/net/unix`: number, references, protocol, flags, type, state, inode,
/// path.
fn candidate(line: &str, prefix: &str) -> Option<Candidate> {
    let mut words = line.split_ascii_whitespace();
    let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
    let name = words.nth(3)?.strip_prefix('@')?;
    let (pid, _) = name.strip_prefix(prefix)?.split_once('/')?;
    let pid = pid.parse().ok()?;
    (flags & LISTENING != 0).then(|| Candidate { name: name.to_owned(), pid })
}

/// The first part of the names in this pid namespace.
fn own_prefix() -> String {
    let namespace = fs::read_link("/proc/self/ns/pid");
    let namespace = namespace.as_deref().ok().and_then(Path::to_str).and_then(|text| {
        let number = text.strip_prefix("pid:[")?.strip_suffix(']')?;
        number.parse::<u64>().ok()
    });
    // Without /proc every server of this network namespace is in one list.
    format!("{PREFIX}/{}/", namespace.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_names_of_this_namespace_are_candidates() {
        let table = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 23091 @ferricorn-control/7/42/00ff
0000000000000000: 00000003 00000000 00000000 0001 03 23092 @ferricorn-control/7/42/00ff
0000000000000000: 00000002 00000000 00010000 0001 01 23093 @ferricorn-control/8/43/00ff
0000000000000000: 00000002 00000000 00010000 0001 01 23094 @ferricorn-control/7/9/00fe
0000000000000000: 00000002 00000000 00010000 0001 01 23095 ferricorn-control/7/44/00ff
0000000000000000: 00000002 00000000 00010000 0001 01 23096 @ferricorn-control/7/x/00ff
0000000000000000: 00000002 00000000 00010000 0001 01 23097
";
        let found = listed(table, "ferricorn-control/7/");
        let named = |pid, name: &str| Candidate { name: name.to_owned(), pid };
        assert_eq!(
            found,
            [named(9, "ferricorn-control/7/9/00fe"), named(42, "ferricorn-control/7/42/00ff")]
        );
    }
}
