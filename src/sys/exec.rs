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
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;

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
            .filter(|path| path.components().count() > 1)
            .and_then(|path| std::path::absolute(path).ok())
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

    /// The file that would be executed.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Executes it in place of this image, with one variable more. Returns only when that fails.
    pub(crate) fn execute(&self, name: &str, value: &str) -> io::Error {
        let variable = |(name, value): (&[u8], &[u8])| CString::new([name, b"=", value].concat());
        let others = self.environment.iter().filter(|(other, _)| other != name);
        let environment: Result<Vec<CString>, _> = others
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .chain([(name.as_bytes(), value.as_bytes())])
            .map(variable)
            .collect();
        let arguments: Result<Vec<CString>, _> =
            self.arguments.iter().map(|it| CString::new(it.clone().into_vec())).collect();
        let path = CString::new(self.path.as_os_str().as_bytes());
        let (Ok(path), Ok(arguments), Ok(environment)) = (path, arguments, environment) else {
            return io::ErrorKind::InvalidInput.into();
        };
        let here = std::env::current_dir();
        if let Err(error) = std::env::set_current_dir(&self.folder) {
            return error;
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
    let memory = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}
