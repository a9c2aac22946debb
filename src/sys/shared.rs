//! Memory that several processes see.
//!
//! # The trap
//! Anything in it may change at any moment, by a process that has gone mad. So only atomics may be in
//! it, every bit pattern of them is valid, and nobody may believe what he reads.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// What shared memory is made of: a cache line of atomic numbers. Who writes what is for the user to
/// name; lines keep writers out of each other's way.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [AtomicU64; 8]);

/// Lines, zero at first, in a memfd: shared with every process that inherits or maps it, and
/// alive as long as one of them is. It survives an `execve` in its descriptor.
#[derive(Debug)]
pub(crate) struct Shared {
    memory: OwnedFd,
    start: NonNull<Line>,
    count: usize,
}

impl Shared {
    /// Makes `count` of them, all zero. Pages take memory when they are first written.
    ///
    /// # Errors
    /// What memfd_create(2), ftruncate(2) and mmap(2) say.
    pub(crate) fn new(name: &str, count: usize) -> io::Result<Self> {
        let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC)?;
        let bytes = count.checked_mul(size_of::<Line>()).ok_or(io::ErrorKind::OutOfMemory)?;
        nix::unistd::ftruncate(
            &memory,
            i64::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?,
        )?;
        Self::map(memory, count)
    }

    /// Maps what another process, or an earlier image of this one, has made.
    ///
    /// # Errors
    /// `InvalidData` when it holds fewer than `count`; what fstat(2) and mmap(2) say.
    pub(crate) fn map(memory: OwnedFd, count: usize) -> io::Result<Self> {
        let bytes = count.checked_mul(size_of::<Line>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let size = nix::sys::stat::fstat(&memory)?.st_size;
        if usize::try_from(size).unwrap_or(0) < bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping of a length that the file has; no address is asked for, so nothing
        // that is there is replaced.
        #[expect(unsafe_code, reason = "mmap(2) can replace what is mapped")]
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &memory, 0) }?;
        Ok(Self { memory, start: start.cast(), count })
    }
}

impl Deref for Shared {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the mapping is that long, page-aligned, and lives as long as `self`. Any bytes
        // are valid atomics, which may change under a shared reference.
        #[expect(unsafe_code, reason = "a mapping is a bare address")]
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.count)
        }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let bytes = self.count * size_of::<Line>();
        // SAFETY: the mapping was made by `map` with this length, and nobody borrows it any more.
        #[expect(unsafe_code, reason = "munmap(2) can unmap what is in use")]
        let result = unsafe { munmap(self.start.cast(), bytes) };
        debug_assert!(result.is_ok(), "our own mapping can be unmapped");
    }
}

// SAFETY: what is shared between processes may be shared between threads: lines are atomics.
#[expect(unsafe_code, reason = "the raw pointer hides that")]
unsafe impl Send for Shared {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the raw pointer hides that")]
unsafe impl Sync for Shared {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn two_mappings_see_the_same_and_more_than_there_is_cannot_be_mapped() {
        let one = Shared::new("test", 3).unwrap();
        one[2].0[1].store(7, Ordering::Relaxed);
        let again = || one.as_fd().try_clone_to_owned().unwrap();
        let other = Shared::map(again(), 3).unwrap();
        assert_eq!(other[2].0[1].load(Ordering::Relaxed), 7);
        assert_eq!(other.len(), 3);
        let error = Shared::map(again(), 1000).expect_err("it is shorter");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
