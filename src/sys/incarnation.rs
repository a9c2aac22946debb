//! A process as distinct from every other one, those before and after it with the same pid among them.
//!
//! # Why not the pid
//! A pid is given again. Together with the time at which the process started it is not: the kernel goes
//! through all pids first, which takes longer than one tick of that clock.

use std::fs;
use std::io::ErrorKind;

/// The bits of the time of the start, in ticks since boot: enough for a thousand years.
const START_BITS: u32 = 42;

/// A process's pid (22 bits, proc(5), `pid_max`) and the time of its start, in one number that is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation(u64);

impl Incarnation {
    /// This process. Where there is no `/proc`, its start is unknown, and it is its pid alone.
    pub(crate) fn current() -> Self {
        let start = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| start_of(&stat));
        Self::new(std::process::id(), start.unwrap_or(0))
    }

    /// A process with this pid that started at this tick.
    pub(crate) const fn new(pid: u32, start: u64) -> Self {
        Self((pid as u64) << START_BITS | start & ((1 << START_BITS) - 1))
    }

    /// As it was read from a number; 0 is no process.
    pub(crate) const fn from_number(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number that stands for it.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// Its pid.
    pub(crate) fn pid(self) -> u32 {
        u32::try_from(self.0 >> START_BITS).unwrap_or(0)
    }

    /// Returns true unless it has ended for certain. A process that waits to be reaped has ended.
    pub(crate) fn lives(self) -> bool {
        match fs::read_to_string(format!("/proc/{}/stat", self.pid())) {
            Ok(stat) => start_of(&stat).is_none_or(|start| Self::new(self.pid(), start) == self),
            // It may have ended while the file was read (`ESRCH`).
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::exists("/proc/self/stat").is_ok_and(|is_there| !is_there)
            }
            Err(error) => error.raw_os_error() != Some(nix::libc::ESRCH),
        }
    }
}

/// The start in the text of `/proc/pid/stat` (proc(5): the fields are numbered from 1, and the second is a
/// name that may have anything in it). A process that has ended has none: 0, which no process has.
fn start_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some(if matches!(state, "Z" | "X") { 0 } else { start })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn process_lives_until_it_has_ended() {
        let current = Incarnation::current();
        assert_eq!(current.pid(), std::process::id());
        assert!(current.lives());
        assert!(!Incarnation::new(current.pid(), 1).lives(), "its pid alone is not enough");
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let other = Incarnation::new(child.id(), start_of(&stat).unwrap());
        assert!(other.lives());
        child.kill().unwrap();
        // It ends at once, and waits to be reaped.
        while other.lives() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!other.lives());
    }

    #[test]
    fn start_stands_behind_a_name_with_brackets() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = |state: &str| format!("7 (a) b) {state} {}", fields.join(" "));
        assert_eq!(start_of(&stat("S")), Some(22));
        assert_eq!(start_of(&stat("Z")), Some(0));
        assert_eq!(start_of("7 (a) S 4"), None);
    }
}
