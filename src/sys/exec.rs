//! Another image of the program in this process, or in a child.
//!
//! # The trap
//! `execve` keeps the signal mask and pending signals, and resets handlers: between the call and the
//! new image's own handlers, every signal must stay blocked. It runs what is on disk under the given
//! path; `/proc/self/exe` would be the old file, even after it was replaced.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::io::fcntl_dupfd_cloexec;
use serde::{Deserialize, Serialize};

use super::process::ACTIVATION;

/// The start of this process, as far as it is needed to start it again.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    path: PathBuf,
    /// Where it was started, from which it reads relative paths.
    folder: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Invocation {
    /// Returns the start of the present process, in this folder where it is known by a better name than
    /// the kernel's. Paths are made absolute but not resolved: a link that is turned to another
    /// release shall lead there.
    pub(crate) fn current(folder: Option<&Path>) -> Self {
        // What one image tells the next is not for the one after it, nor are sockets passed twice.
        let internal = |name: &OsString| {
            name.as_bytes().starts_with(b"FERRICORN_INTERNAL_")
                || ACTIVATION.iter().any(|activation| name == activation)
        };
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let folder = folder.map(Path::to_owned).or_else(|| std::env::current_dir().ok());
        let folder = folder.unwrap_or_default();
        let named = arguments.first().map(PathBuf::from);
        let path = named
            .and_then(|path| match path.components().count() {
                1 => on_path(&path),
                _ => std::path::absolute(folder.join(path)).ok(),
            })
            .or_else(|| std::env::current_exe().ok())
            .unwrap_or_default();
        Self {
            path,
            folder,
            arguments,
            environment: std::env::vars_os().filter(|(name, _)| !internal(name)).collect(),
        }
    }

    /// The same, but with this file.
    pub(crate) fn with_path(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// The file that would be executed.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Which file that is now.
    ///
    /// # Errors
    /// The error of stat(2).
    pub(crate) fn file(&self) -> io::Result<FileId> {
        FileId::of(&self.path)
    }

    /// Executes it in place of this image, with these variables more. Returns only when that fails.
    pub(crate) fn execute(&self, further: &[(&str, String)]) -> io::Error {
        let variable = |(name, value): (&[u8], &[u8])| CString::new([name, b"=", value].concat());
        let inherited = self.environment.iter().map(|(name, it)| (name.as_bytes(), it.as_bytes()));
        let further = further.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let environment: Result<Vec<CString>, _> = inherited.chain(further).map(variable).collect();
        let arguments: Result<Vec<CString>, _> = self
            .arguments
            .iter()
            .map(|argument| CString::new(argument.clone().into_vec()))
            .collect();
        let path = CString::new(self.path.as_os_str().as_bytes());
        let (Ok(path), Ok(arguments), Ok(environment)) = (path, arguments, environment) else {
            return io::ErrorKind::InvalidInput.into();
        };
        let here = std::env::current_dir();
        if let Err(error) = std::env::set_current_dir(&self.folder) {
            let folder = self.folder.display();
            return io::Error::new(error.kind(), format!("its folder {folder}: {error}"));
        }
        let error = match nix::unistd::execve(&path, &arguments, &environment) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if let Ok(here) = here {
            // It was there a moment ago; without it, only relative paths suffer.
            let _back = std::env::set_current_dir(here);
        }
        error.into()
    }
}

/// The file on the search path that this process runs, by the name that it has there: what it was
/// started by, unless the path has changed since.
fn on_path(name: &Path) -> Option<PathBuf> {
    let running = FileId::of(Path::new("/proc/self/exe")).ok()?;
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .filter_map(|folder| std::path::absolute(folder.join(name)).ok())
        .find(|path| FileId::of(path).is_ok_and(|found| found == running))
}

/// Which file it is, and in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

/// Keeps a descriptor open in the next image, and returns its number.
///
/// # Errors
/// The error of fcntl(2).
pub(crate) fn keep(descriptor: &impl AsFd) -> io::Result<i32> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(descriptor.as_fd().as_raw_fd())
}

/// The list of the descriptors that the next image takes over, each by its number.
#[derive(Debug, Default)]
pub(crate) struct Handover<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Handover<'a> {
    /// Lists a descriptor, and returns its number.
    pub(crate) fn add(&mut self, descriptor: &'a impl AsFd) -> i32 {
        self.0.push(descriptor.as_fd());
        descriptor.as_fd().as_raw_fd()
    }

    /// Keeps all of them open in the next image, until this list is dropped.
    ///
    /// # Errors
    /// The error of fcntl(2).
    pub(crate) fn keep(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|descriptor| keep(descriptor).map(drop))
    }
}

impl Drop for Handover<'_> {
    fn drop(&mut self) {
        for descriptor in &self.0 {
            // An open descriptor always has this flag.
            let _cannot_fail = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
    }
}

/// The flags of the descriptor with this number; `None` when none is open.
pub(super) fn flags(number: i32) -> Option<FdFlag> {
    // SAFETY: fcntl(2) looks a number up and changes nothing; a number that is none is an error.
    #[expect(unsafe_code, reason = "the number may name no descriptor, so it cannot be borrowed")]
    let known = unsafe { libc::fcntl(number, libc::F_GETFD) };
    (known >= 0).then(|| FdFlag::from_bits_truncate(known))
}

/// Returns true if the number names an open descriptor.
fn is_open(number: i32) -> bool {
    flags(number).is_some()
}

/// Returns true if this image was started with the descriptor. One that it has opened itself, or an
/// application has before, has a flag that closes it at an `execve`.
fn was_passed(number: i32) -> bool {
    flags(number).is_some_and(|flags| !flags.contains(FdFlag::FD_CLOEXEC))
}

/// Takes over a descriptor that this image was started with, by its number. It is not passed on.
///
/// # Errors
/// `EBADF` when it is not open.
pub(crate) fn inherited(number: i32) -> io::Result<OwnedFd> {
    if !is_open(number) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and was passed to us to be used: nothing else in this process knows it.
    #[expect(unsafe_code, reason = "descriptors are inherited as numbers")]
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(owned)
}

/// The descriptors that were open before this process opened any of its own: those, and no others, can
/// be taken over by a number of the configuration, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passed(BTreeSet<i32>);

impl Passed {
    /// Notes what is open now and was open at the start of this image.
    pub(crate) fn note() -> Self {
        let names = std::fs::read_dir("/proc/self/fd").map(|entries| {
            let number = |entry: io::Result<std::fs::DirEntry>| {
                entry.ok()?.file_name().to_str()?.parse::<i32>().ok()
            };
            entries.filter_map(number).collect::<Vec<_>>()
        });
        // Without /proc the first numbers are tried: descriptors are numbered from the lowest on.
        let numbers = names.unwrap_or_else(|_| (0..TRIED).collect());
        // The folder that was read is closed again.
        Self(numbers.into_iter().filter(|number| was_passed(*number)).collect())
    }

    /// Returns true if it was open, and is not taken yet.
    pub(crate) fn has(&self, number: i32) -> bool {
        self.0.contains(&number)
    }

    /// Takes it over.
    ///
    /// # Errors
    /// When it was not open, or is taken, in words.
    pub(crate) fn take(&mut self, number: i32) -> io::Result<OwnedFd> {
        if self.0.remove(&number)
            && let Ok(taken) = inherited(number).and_then(above_streams)
        {
            return Ok(taken);
        }
        let reason = format!(
            "descriptor {number} was not open when the server was started, or is in use by it"
        );
        Err(io::Error::other(reason))
    }
}

/// Moves a descriptor that was passed as a standard stream to a higher number. Its number stays in use, so
/// that no later socket becomes a child's standard input.
fn above_streams(taken: OwnedFd) -> io::Result<OwnedFd> {
    let number = taken.as_raw_fd();
    if number > libc::STDERR_FILENO {
        return Ok(taken);
    }
    let moved = fcntl_dupfd_cloexec(&taken, libc::STDERR_FILENO + 1);
    let _open = taken.into_raw_fd();
    let moved = moved?;
    match number {
        libc::STDIN_FILENO => dup2_stdin(std::fs::File::open("/dev/null")?)?,
        // Logs go there, too.
        libc::STDOUT_FILENO => dup2_stdout(&moved)?,
        _ => dup2_stderr(&moved)?,
    }
    Ok(moved)
}

/// Descriptors that are tried where there is no `/proc`.
const TRIED: i32 = 1024;

/// A file in memory with this content, at its beginning.
///
/// # Errors
/// The error of memfd_create(2) and write(2).
pub(crate) fn memory_file(name: &str, content: &[u8]) -> io::Result<std::fs::File> {
    use std::io::{Seek, Write};
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// The same, and neither this process nor another one can change it any more.
///
/// # Errors
/// The error of memfd_create(2), write(2) and fcntl(2).
pub(crate) fn sealed_file(name: &str, content: &[u8]) -> io::Result<std::fs::File> {
    use std::io::Write;
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(content)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// A file in memory that holds so many bytes, zero at first, and takes no more: a writer is not
/// waited for, and cannot use up the memory.
///
/// # Errors
/// The error of memfd_create(2) and fcntl(2).
pub(crate) fn notepad(name: &str, bytes: usize) -> io::Result<std::fs::File> {
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let file = std::fs::File::from(memory);
    file.set_len(u64::try_from(bytes).unwrap_or(u64::MAX))?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Has this process, and the image that it executes, write its errors there.
///
/// # Errors
/// The error of dup2(2).
pub(crate) fn replace_stderr(by: &impl AsFd) -> io::Result<()> {
    Ok(dup2_stderr(by.as_fd())?)
}

#[cfg(test)]
mod tests {
    use super::super::socket;
    use super::*;

    #[test]
    fn passed_descriptors_are_taken_once_and_no_others() {
        let own = std::fs::File::open("/dev/null").unwrap();
        let early = nix::unistd::dup(&own).unwrap().into_raw_fd();
        let mut passed = Passed::note();
        assert!(!passed.has(own.as_raw_fd()), "it has the flag of those that are opened here");
        let late = std::fs::File::open("/dev/null").unwrap();
        assert!(passed.has(early) && passed.has(1));
        assert!(!passed.has(-1) && !passed.has(i32::MAX));
        passed.take(early).expect("it was open");
        let again = passed.take(early).expect_err("it is taken");
        assert!(again.to_string().contains("was not open when the server was started"), "{again}");
        // Another test's may have been open by then: ours was not.
        let not_passed =
            Passed(passed.0.iter().copied().filter(|number| *number < late.as_raw_fd()).collect());
        not_passed.clone().take(late.as_raw_fd()).expect_err("it is our own");
    }

    #[test]
    fn sealed_file_cannot_be_changed() {
        use std::os::unix::fs::FileExt;
        let file = sealed_file("ferricorn-test", b"keys").unwrap();
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err() && file.set_len(8).is_err());
        let mut content = [0; 4];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"keys");
    }

    #[test]
    fn only_listening_sockets_are_adopted() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(socket::adopt(file.into()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let adopted = socket::adopt(listener.into()).unwrap();
        assert_eq!(socket::local(adopted.as_fd()).unwrap(), socket::Local::Tcp(address));
    }
}
