//! The process that holds the write lock of an SQLite file, for the error log.
//!
//! # Why `/proc/locks`
//! `fcntl` would return it too, but to ask, the file must be opened, and closing it again drops every
//! lock that SQLite holds on that file in this process.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The byte of the `-shm` file whose lock is the write lock, in WAL mode.
const WRITE_LOCK: u64 = 120;

/// A process that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: u32,
    /// Its `comm`; empty: the process is not seen from here.
    name: String,
    is_stopped: bool,
}

impl Holder {
    /// Returns the process that holds the write lock of this database now, if it is seen from here.
    pub(super) fn find(database: &Path) -> Option<Self> {
        let mut shared = database.as_os_str().to_owned();
        shared.push("-shm");
        let inode = fs::metadata(shared).ok()?.ino();
        let pid = pid_of(&fs::read_to_string("/proc/locks").ok()?, inode)?;
        let (name, is_stopped) = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| name_of(&stat))
            .unwrap_or_default();
        Some(Self { pid, name, is_stopped })
    }
}

/// As in "held by …".
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        if !self.name.is_empty() {
            write!(f, " ({})", self.name)?;
        }
        f.write_str(if self.is_stopped { ", which is stopped" } else { "" })
    }
}

/// The pid in the line of the write lock: `1: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120`. The
/// lines of those that wait have an arrow behind the number.
fn pid_of(locks: &str, inode: u64) -> Option<u32> {
    let inode = inode.to_string();
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "POSIX", _, "WRITE", pid, file, first, last] = fields[..] else {
            return None;
        };
        let is_write_lock = file.rsplit(':').next() == Some(&*inode)
            && first.parse().is_ok_and(|first: u64| first <= WRITE_LOCK)
            && last.parse().map_or(last == "EOF", |last: u64| last >= WRITE_LOCK);
        if is_write_lock { pid.parse().ok() } else { None }
    })
}

/// The name and the state in a line of `/proc/PID/stat`: `4711 (ferricorn-w2) T …`. A name may hold
/// parentheses itself.
fn name_of(stat: &str) -> Option<(String, bool)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let state = after.trim_start().chars().next()?;
    let name = name.chars().filter(|sign| !sign.is_control()).collect();
    Some((name, matches!(state, 'T' | 't')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_lock_is_found_among_others() {
        let locks = "\
            1: POSIX  ADVISORY  READ 11 08:01:77 128 128\n\
            2: FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF\n\
            3: POSIX  ADVISORY  WRITE 13 08:01:78 120 120\n\
            4: -> POSIX  ADVISORY  WRITE 14 08:01:77 120 120\n\
            5: POSIX  ADVISORY  WRITE 15 08:01:77 121 121\n\
            6: POSIX  ADVISORY  WRITE 16 08:01:77 120 120\n";
        assert_eq!(pid_of(locks, 77), Some(16));
        assert_eq!(pid_of(locks, 78), Some(13));
        assert_eq!(pid_of(locks, 7), None);
        assert_eq!(pid_of("1: POSIX ADVISORY WRITE 9 0:1:7 0 EOF\nnonsense", 7), Some(9));
    }

    #[test]
    fn a_holder_is_named_with_its_state() {
        let of = |stat: &str| {
            let (name, is_stopped) = name_of(stat).unwrap();
            Holder { pid: 7, name, is_stopped }.to_string()
        };
        assert_eq!(of("7 (a (b) c) T 1 2"), "process 7 (a (b) c), which is stopped");
        assert_eq!(of("7 (sqlite3) S 1"), "process 7 (sqlite3)");
        let unseen = Holder { pid: 7, name: String::new(), is_stopped: false };
        assert_eq!(unseen.to_string(), "process 7");
    }
}
