//! Memory that this process holds without need.

/// Gives the kernel back the pages in which nothing lives any more (malloc_trim(3)). The C library does
/// so by itself only at the end of its heap, and what lives there for long keeps all that was before it.
/// Takes a microsecond or two for each gap.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes no pointer, keeps nothing at the end of the heap, locks what it touches, and
        // frees nothing that is in use.
        #[expect(unsafe_code, reason = "it is a function of the C library")]
        unsafe {
            nix::libc::malloc_trim(0);
        }
    }
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
