//! Functions of the C library and of the compiler that no crate wraps.

use std::ffi::c_int;
use std::mem::offset_of;

use nix::libc;

/// `struct rusage`, which libc has no constructor for: processor times, the largest resident size, and
/// fields that are not read here.
#[repr(C)]
#[derive(Default)]
pub(super) struct Usage {
    times: [libc::c_long; 4],
    pub(super) peak_kib: libc::c_long,
    rest: [libc::c_long; 29],
}

const _: () = assert!(size_of::<Usage>() >= size_of::<libc::rusage>());
const _: () = assert!(offset_of!(Usage, peak_kib) == offset_of!(libc::rusage, ru_maxrss));

#[expect(unsafe_code, reason = "functions that are not Rust's")]
unsafe extern "C" {
    // SAFETY: it takes any code, touches no memory and never returns.
    pub(super) safe fn _exit(code: c_int) -> !;
    // SAFETY: it writes its two results alone, which are as large as it takes them for (see `Usage`).
    pub(super) safe fn wait4(
        child: c_int,
        status: &mut c_int,
        options: c_int,
        usage: &mut Usage,
    ) -> c_int;
    // SAFETY: it takes no pointer, locks what it touches, and frees nothing that is in use.
    #[cfg(target_env = "gnu")]
    safe fn malloc_trim(kept_bytes: usize) -> c_int;
    // SAFETY: in clang's documentation of source-based coverage: it takes no argument, may be called at any
    // time, and is there in programs that are built to count.
    #[cfg(ferricorn_counting)]
    pub(super) safe fn __llvm_profile_write_file() -> c_int;
}

/// Gives the kernel back the pages in which nothing lives any more (malloc_trim(3)). The C library does
/// so by itself only at the end of its heap, and what lives there for long keeps all that was before it.
/// Takes a microsecond or two for each gap.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    malloc_trim(0);
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_was_freed_between_other_things_is_given_back() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").expect("proc is mounted");
            let line =
                status.lines().find(|line| line.starts_with("RssAnon:")).expect("it is there");
            let kib = line.split_whitespace().nth(1).expect("a number");
            kib.parse::<usize>().expect("a number") * 1024
        };
        const PIECE: usize = 16 * 1024;
        let mut pieces: Vec<_> =
            (0..4096).map(|_| (vec![1_u8; PIECE], Box::new([1_u8; 64]))).collect();
        let before = resident();
        pieces.iter_mut().for_each(|(large, _)| *large = Vec::new());
        super::give_back();
        let given_back = before.saturating_sub(resident());
        // Other tests allocate meanwhile, but not as much as that.
        assert!(given_back > pieces.len() * PIECE / 2, "{given_back}");
    }
}
