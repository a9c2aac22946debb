//! Memory that several processes see.
//!
//! # The trap
//! Anything in it may change at any moment, by a process that has gone mad. So only atomics may be in
//! it, every bit pattern of them is valid, and no reader may believe them. It cannot be made
//! shorter, by any process: a touch of what is gone would be killed.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};

/// The unit of shared memory: a cache line of atomic numbers. Who writes what is for the user to
/// name; lines keep writers out of each other's way.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [AtomicU64; 8]);

/// Reads a number that stands for itself.
// ORDERING: nothing else is read by it: Relaxed.
pub(crate) fn claim(number: &AtomicU64) -> Claim {
    Claim::new(number.load(Ordering::Relaxed))
}

/// A number that any process which maps the memory may have written: any number. It has no operators,
/// so that none of them can overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim(u64);

impl Claim {
    /// As it was read.
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The sum, or the largest number there is.
    pub(crate) const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    pub(crate) const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The lower half and the upper half.
    pub(crate) const fn halves(self) -> (u32, u32) {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
    }

    /// The number itself, for code that compares or bounds it, or whose own type saturates.
    pub(crate) const fn unchecked(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Lines, zero at first, in a memfd, of which every process maps what it needs. It lives as long as
/// a descriptor or a mapping of it, and survives an `execve` in its descriptor.
#[derive(Debug)]
pub(crate) struct Memory(OwnedFd);

impl Memory {
    /// Makes one without any line.
    ///
    /// # Errors
    /// The error of memfd_create(2) and fcntl(2).
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memory = memfd_create(name, flags)?;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
        Ok(Self(memory))
    }

    /// Returns the number of lines.
    ///
    /// # Errors
    /// The error of fstat(2).
    pub(crate) fn count(&self) -> io::Result<usize> {
        let bytes = usize::try_from(nix::sys::stat::fstat(&self.0)?.st_size).unwrap_or(0);
        Ok(bytes / size_of::<Line>())
    }

    /// Gives it so many lines in all. Pages take memory when they are first written.
    ///
    /// # Errors
    /// `EPERM` when it has more; `EFBIG` when `ulimit -f` allows less, which also a file in memory is
    /// held to; what ftruncate(2) says.
    pub(crate) fn grow(&self, count: usize) -> io::Result<()> {
        let bytes = libc::off_t::try_from(bytes(count)?).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // Past the limit the kernel would send SIGXFSZ, which ends a process that has not begun to
        // ignore it.
        let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
        if bytes.cast_unsigned() > limit {
            let text =
                format!("{bytes} bytes are more than `ulimit -f` allows ({limit}); raise it");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(nix::unistd::ftruncate(&self.0, bytes)?)
    }

    /// Fixes its size, and what any process may do with it, for as long as it exists.
    ///
    /// # Errors
    /// The error of fcntl(2).
    pub(crate) fn seal(&self) -> io::Result<()> {
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&self.0, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(())
    }

    /// Stores a number without a mapping, which a child would inherit.
    ///
    /// # Errors
    /// The error of pwrite(2); `EPERM` beyond a size that is sealed.
    pub(crate) fn set(&self, number_at: usize, number: u64) -> io::Result<()> {
        let offset = number_at.checked_mul(size_of::<u64>()).map(libc::off_t::try_from);
        let Some(Ok(offset)) = offset else { return Err(io::ErrorKind::InvalidInput.into()) };
        // An aligned number of a word is copied at once.
        nix::sys::uio::pwrite(&self.0, &number.to_ne_bytes(), offset)?;
        Ok(())
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
        let first = u64::try_from(bytes(first)?).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mapping = MmapOptions::new().offset(first).len(bytes(count)?).map_raw(&self.0)?;
        Ok(Mapping { mapping, count })
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
    mapping: MmapRaw,
    count: usize,
}

/// The number of mseal(2), the same on every architecture that Rust is for.
const MSEAL: libc::c_long = 462;

impl Mapping {
    /// Has the kernel keep it as it is until this process ends: no code can have it show other parts of the
    /// memory (mremap(2)), or unmap it. From Linux 6.10 on; before, nothing changes.
    pub(crate) fn fixed(self) -> Self {
        let _before_that = self.seal();
        self
    }

    fn seal(&self) -> bool {
        let start = self.mapping.as_ptr();
        let bytes = self.mapping.len();
        // SAFETY: the mapping is our own and that long, and its content stays as it is.
        #[expect(unsafe_code, reason = "no crate that we have offers mseal(2)")]
        let sealed = unsafe { libc::syscall(MSEAL, start, bytes, 0) };
        sealed == 0
    }
}

impl Deref for Mapping {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the mapping is that long, page-aligned, and lives as long as `self`; the file
        // cannot shrink. Any bytes are valid atomics, which may change under a shared reference.
        #[expect(unsafe_code, reason = "a mapping is a bare address")]
        unsafe {
            std::slice::from_raw_parts(self.mapping.as_ptr().cast(), self.count)
        }
    }
}

/// A memory of a fixed size with the mapping of all of it.
#[derive(Debug)]
pub(crate) struct Shared {
    memory: Memory,
    mapping: Mapping,
}

impl Shared {
    /// Makes `count` lines. No process can change how many there are, nor forbid another one to write.
    ///
    /// # Errors
    /// As [`Memory::new`], [`Memory::grow`] and [`Memory::map`].
    pub(crate) fn new(name: &str, count: usize) -> io::Result<Self> {
        let memory = Memory::new(name)?;
        memory.grow(count)?;
        memory.seal()?;
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
        let first = memory.map(0, page).unwrap();
        let second = memory.map(page, page).unwrap();
        first[0].0[0].store(1, Ordering::Relaxed);
        second[page - 1].0[7].store(2, Ordering::Relaxed);
        let all = memory.map(0, 2 * page).unwrap();
        assert_eq!(all[0].0[0].load(Ordering::Relaxed), 1);
        assert_eq!(all[2 * page - 1].0[7].load(Ordering::Relaxed), 2);
    }

    /// A process that has the descriptor can neither change the size nor keep others from writing.
    #[test]
    fn sealed_memory_keeps_its_size_and_its_writers() {
        let shared = Shared::new("test", 2).unwrap();
        for count in [1, 3] {
            let error = shared.memory.grow(count).expect_err("it is sealed");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{count}");
        }
        let seals = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE);
        assert_eq!(fcntl(&shared.memory, seals), Err(nix::Error::EPERM));
        shared.memory.map(0, 2).expect("another image can map it");
    }

    /// A mapping that stays cannot show another part of the memory either (mremap(2)).
    #[test]
    fn sealed_mapping_is_never_unmapped() {
        const BYTES: usize = 65536;
        let memory = Memory::new("test").unwrap();
        memory.grow(2 * BYTES / size_of::<Line>()).unwrap();
        for is_sealed in [false, true] {
            let mapping = memory.map(0, BYTES / size_of::<Line>()).unwrap();
            let start = mapping.as_ptr().addr();
            let place = format!("{start:x}-{:x} rw-s ", start + BYTES);
            if is_sealed && !mapping.seal() {
                println!("not tested: this kernel has no mseal(2)");
                return;
            }
            drop(mapping);
            let maps = std::fs::read_to_string("/proc/self/maps").expect("proc is mounted");
            assert_eq!(maps.contains(&place), is_sealed, "{place}: {maps}");
        }
    }

    #[test]
    fn claims_do_not_overflow() {
        let max = Claim::new(u64::MAX);
        let one = Claim::new(1);
        assert_eq!((max.saturating_add(one), one.saturating_sub(max)), (max, Claim::new(0)));
        assert_eq!(Claim::new(7 << 32 | 5).halves(), (5, 7));
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
