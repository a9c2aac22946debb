//! The title of a process: its command line, as `ps` and `docker top` show it.
//!
//! # Why not over the arguments
//! The usual way overwrites the memory that the arguments, and behind them the environment, lie in: what
//! reads either must have been moved before. Linux also takes another place for the command line
//! (prctl(2), `PR_SET_MM_MAP`), without a privilege, so nothing is moved or overwritten. A kernel that is
//! built without it (`CONFIG_CHECKPOINT_RESTORE`) keeps the command line of the start.

use std::ffi::CString;
use std::{fs, io};

use rustix::process::{PrctlMmMap, configure_virtual_memory_map};

use super::fork::SingleThreaded;

/// Gives this process a title: `PROGRAM: ROLE`, with the name in brackets where there is one. Where the
/// kernel does not have that, the command line stays.
pub(crate) fn show(alone: &SingleThreaded, program: &str, role: &str, name: &str) {
    let behind = if name.is_empty() { String::new() } else { format!(" [{name}]") };
    // No reason to stop.
    let _cosmetic = set(alone, &format!("{program}: {role}{behind}"));
}

/// # Errors
/// The error of proc(5) and prctl(2): `EINVAL` where the kernel does not have this.
fn set(_alone: &SingleThreaded, title: &str) -> io::Result<()> {
    let title = CString::new(title)?;
    let mut map =
        places(&fs::read_to_string("/proc/self/stat")?).ok_or(io::ErrorKind::InvalidData)?;
    // The kernel reads it for as long as the process lives.
    let title: &'static [u8] = Box::leak(title.into_boxed_c_str()).to_bytes_with_nul();
    let place = title.as_ptr_range();
    (map.arg_start, map.arg_end) = (place.start.addr() as u64, place.end.addr() as u64);
    // SAFETY: an increment of zero only asks where the heap ends.
    #[expect(unsafe_code, reason = "sbrk(2) has no safe form")]
    let end = unsafe { nix::libc::sbrk(0) };
    map.brk = end.addr() as u64;
    // SAFETY: nothing has been allocated since, and there is no other thread, as `_alone` says: the end of
    // the heap that is set is the one that is there. The other places are the process's own, as the kernel
    // has told them; it reads them for /proc alone, and the title is never freed.
    #[expect(unsafe_code, reason = "this prctl(2) has no safe form")]
    let set = unsafe { configure_virtual_memory_map(&map) };
    Ok(set?)
}

/// Where the parts of this process lie in its memory, but for the end of its heap, as /proc/self/stat has
/// them (proc(5)): its fields are numbered from 1, and the second is a name that may have anything in it.
fn places(stat: &str) -> Option<PrctlMmMap> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(PrctlMmMap {
        start_code: field(26)?,
        end_code: field(27)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        brk: 0,
        start_stack: field(28)?,
        arg_start: field(48)?,
        arg_end: field(49)?,
        env_start: field(50)?,
        env_end: field(51)?,
        // The auxiliary vector and the executable stay.
        auxv: std::ptr::null_mut(),
        auxv_size: 0,
        exe_fd: -1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_behind_a_name_with_brackets() {
        let numbers: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let map = places(&format!("7 (a) b (c) S {}\n", numbers.join(" ")));
        let map = map.expect("all fields are there");
        let code = (map.start_code, map.end_code, map.start_stack);
        let data = (map.start_data, map.end_data, map.start_brk);
        let texts = (map.arg_start, map.arg_end, map.env_start, map.env_end);
        assert_eq!((code, data, texts), ((26, 27, 28), (45, 46, 47), (48, 49, 50, 51)));
        assert!(places("7 (a) S 4 5").is_none(), "an old kernel tells fewer");
    }

    #[test]
    fn places_of_this_process_are_in_order() {
        let stat = fs::read_to_string("/proc/self/stat").expect("proc is mounted");
        let map = places(&stat).expect("all fields are there");
        assert!(0 < map.start_code && map.start_code < map.end_code, "{map:?}");
        assert!(map.arg_start < map.arg_end && map.arg_end <= map.env_start, "{map:?}");
    }
}
