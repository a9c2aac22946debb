//! Memory that several processes see.
//!
//! # The trap
//! Anything in it may change at any moment, by a process that has gone mad. So only atomics may be in
//! it, every bit pattern of them is valid, and nobody may believe what he reads. It cannot be made
//! shorter, by anybody: whoever touched what is gone would be killed.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// What shared memory is made of: a cache line of atomic numbers. Who writes what is for the user to
/// name; lines keep writers out of each other's way.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [AtomicU64; 8]);

/// Lines, zero at first, in a memfd, of which every process maps what it needs. It lives as long as
/// a descriptor or a mapping of it, and survives an `execve` in its descriptor.
#[derive(Debug)]
pub(crate) struct Memory(OwnedFd);

impl Memory {
    /// Makes one without any line.
    ///
    /// # Errors
    /// What memfd_create(2) and fcntl(2) say.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memory = memfd_create(name, flags)?;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
        Ok(Self(memory))
    }

    /// How many lines it has.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub(crate) fn count(&self) -> io::Result<usize> {
        let bytes = usize::try_from(nix::sys::stat::fstat(&self.0)?.st_size).unwrap_or(0);
        Ok(bytes / size_of::<Line>())
    }

    /// Gives it so many lines in all. Pages take memory when they are first written.
    ///
    /// # Errors
    /// `EPERM` when it has more; what ftruncate(2) says.
    pub(crate) fn grow(&self, count: usize) -> io::Result<()> {
        let bytes = libc::off_t::try_from(bytes(count)?).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(nix::unistd::ftruncate(&self.0, bytes)?)
    }

    /// Maps `count` lines from `first` on, which must begin a page.
    ///
    /// # Errors
    /// `InvalidData` when it has fewer, `EINVAL` when no page begins there; what mmap(2) says.
    pub(crate) fn map(&self, first: usize, count: usize) -> io::Result<Mapping> {
        let end = first.checked_add(count).ok_or(io::ErrorKind::InvalidInput)?;
        if self.count()? < end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = NonZeroUsize::new(bytes(count)?).ok_or(io::ErrorKind::InvalidInput)?;
        let offset =
            libc::off_t::try_from(bytes(first)?).map_err(|_| io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping of a part that the file has; no address is asked for, so nothing
        // that is there is replaced.
        #[expect(unsafe_code, reason = "mmap(2) can replace what is mapped")]
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &self.0, offset) }?;
        Ok(Mapping { start: start.cast(), count })
    }
}

fn bytes(lines: usize) -> io::Result<usize> {
    lines.checked_mul(size_of::<Line>()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Memory {
    fn from(memory: OwnedFd) -> Self {
        Self(memory)
    }
}

/// Lines of a [`Memory`], as this process sees them. It needs the descriptor no longer.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<Line>,
    count: usize,
}

impl Deref for Mapping {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the mapping is that long, page-aligned, and lives as long as `self`; the file
        // cannot shrink. Any bytes are valid atomics, which may change under a shared reference.
        #[expect(unsafe_code, reason = "a mapping is a bare address")]
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.count)
        }
    }
}

impl Drop for Mapping {
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
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the raw pointer hides that")]
unsafe impl Sync for Mapping {}

/// A memory of a fixed size with the mapping of all of it.
#[derive(Debug)]
pub(crate) struct Shared {
    memory: Memory,
    mapping: Mapping,
}

impl Shared {
    /// Makes `count` lines.
    ///
    /// # Errors
    /// As [`Memory::new`], [`Memory::grow`] and [`Memory::map`].
    pub(crate) fn new(name: &str, count: usize) -> io::Result<Self> {
        let memory = Memory::new(name)?;
        memory.grow(count)?;
        Ok(Self { mapping: memory.map(0, count)?, memory })
    }

    /// Maps what another process, or an earlier image of this one, has made.
    ///
    /// # Errors
    /// As [`Memory::map`].
    pub(crate) fn map(memory: OwnedFd, count: usize) -> io::Result<Self> {
        let memory = Memory::from(memory);
        Ok(Self { mapping: memory.map(0, count)?, memory })
    }
}

impl Deref for Shared {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        &self.mapping
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

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
    #[test]
    fn it_grows_and_each_maps_a_part() {
        let page = 65536 / size_of::<Line>();
        let memory = Memory::new("test").unwrap();
        assert_eq!(memory.count().unwrap(), 0);
        memory.grow(page).unwrap();
        memory.map(page, 1).expect_err("it is not that long");
        memory.grow(2 * page).unwrap();
        let (first, second) = (memory.map(0, page).unwrap(), memory.map(page, page).unwrap());
        first[0].0[0].store(1, Ordering::Relaxed);
        second[page - 1].0[7].store(2, Ordering::Relaxed);
        let all = memory.map(0, 2 * page).unwrap();
        assert_eq!(all[0].0[0].load(Ordering::Relaxed), 1);
        assert_eq!(all[2 * page - 1].0[7].load(Ordering::Relaxed), 2);
    }

    #[test]
    fn nobody_can_make_it_shorter() {
        let memory = Memory::new("test").unwrap();
        memory.grow(2).unwrap();
        let error = memory.grow(1).expect_err("it is sealed");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(memory.count().unwrap(), 2);
    }
}
