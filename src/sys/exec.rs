//! Another image of the program in this process, or in a child.
//!
//! # The trap
//! `execve` keeps the signal mask and pending signals, and resets handlers: between the call and the
//! new image's own handlers, every signal must stay blocked. It runs what is on disk under the given
//! path; `/proc/self/exe` would be the old file, even after it was replaced.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::process::ACTIVATION;

/// How this process was started, as far as it is needed to start it again.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    path: PathBuf,
    /// Where it was started, from which it reads relative paths.
    folder: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Invocation {
    /// How the present process was started. The path is made absolute but not resolved: a link that
    /// is turned to another release shall lead there.
    pub(crate) fn current() -> Self {
        // What one image tells the next is not for the one after it, nor are sockets passed twice.
        let internal = |name: &OsString| {
            name.as_bytes().starts_with(b"FERRICORN_INTERNAL_")
                || ACTIVATION.iter().any(|it| name == it)
        };
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let named = arguments.first().map(PathBuf::from);
        let path = named
            .and_then(|path| match path.components().count() {
                1 => on_path(&path),
                _ => std::path::absolute(path).ok(),
            })
            .or_else(|| std::env::current_exe().ok())
            .unwrap_or_default();
        let folder = std::env::current_dir().unwrap_or_default();
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
    /// What stat(2) says.
    pub(crate) fn file(&self) -> io::Result<FileId> {
        FileId::of(&self.path)
    }

    /// Executes it in place of this image, with these variables more. Returns only when that fails.
    pub(crate) fn execute(&self, further: &[(&str, String)]) -> io::Error {
        let variable = |(name, value): (&[u8], &[u8])| CString::new([name, b"=", value].concat());
        let inherited = self.environment.iter().map(|(name, it)| (name.as_bytes(), it.as_bytes()));
        let further = further.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let environment: Result<Vec<CString>, _> = inherited.chain(further).map(variable).collect();
        let arguments: Result<Vec<CString>, _> =
            self.arguments.iter().map(|it| CString::new(it.clone().into_vec())).collect();
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

/// Lets a descriptor live on in the next image, and answers its number.
///
/// # Errors
/// What fcntl(2) says.
pub(crate) fn keep(descriptor: &impl AsFd) -> io::Result<i32> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(descriptor.as_fd().as_raw_fd())
}

/// Takes a kept descriptor back: the next image did not come.
pub(crate) fn keep_no_more(descriptor: &impl AsFd) {
    // An open descriptor always has this flag.
    let _cannot_fail = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
}

/// Takes over a descriptor that this image was started with, by its number. It is not passed on.
///
/// # Errors
/// `EBADF` when it is not open.
pub(crate) fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) looks a number up and sets a flag; a number that is none is an error.
    #[expect(unsafe_code, reason = "the number may name no descriptor, so it cannot be borrowed")]
    let known = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if number < 0 || known < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and was passed to us to be used: nobody else in this process knows it.
    #[expect(unsafe_code, reason = "descriptors are inherited as numbers")]
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A file in memory with this content, at its beginning.
///
/// # Errors
/// What memfd_create(2) and write(2) say.
pub(crate) fn memory_file(name: &str, content: &[u8]) -> io::Result<std::fs::File> {
    use std::io::{Seek, Write};
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// A file in memory that holds so many bytes, zero at first, and takes no more: whoever writes is not
/// waited for, and cannot use up the memory.
///
/// # Errors
/// What memfd_create(2) and fcntl(2) say.
pub(crate) fn notepad(name: &str, bytes: usize) -> io::Result<std::fs::File> {
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let file = std::fs::File::from(memory);
    file.set_len(u64::try_from(bytes).unwrap_or(u64::MAX))?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK))?;
    Ok(file)
}

/// Has this process, and the image that it executes, write its errors there.
///
/// # Errors
/// What dup2(2) says.
pub(crate) fn replace_stderr(by: &impl AsFd) -> io::Result<()> {
    Ok(nix::unistd::dup2_stderr(by.as_fd())?)
}
