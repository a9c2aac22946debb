//! Opening what lines are written to.
//!
//! # Why
//! A pipe whose reader has stopped reading blocks everybody who writes to it. `O_NONBLOCK` would
//! help, but it belongs to the open file, not to the descriptor: set on the stdout that was
//! inherited, it holds for the shell that started us as well. So a pipe is opened again, by its
//! name under `/proc/self/fd`, and the flag is set on that open file, which is our own. Where that
//! is refused (a pipe of another user, no `/proc`) the inherited one is used as it is, and so are
//! terminals and sockets: a reader of these that stops reading makes its writers wait.
//!
//! The trap: opening a pipe for writing waits until somebody has it open for reading. While it is
//! open for both, it doesn't.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::config::{LogTarget, WhenFull};

/// The longest write that a pipe takes in one piece (`PIPE_BUF`, pipe(7)).
const PIPE_BATCH_MAX: usize = 4096;
/// The longest write to a file. A write to a file opened for appending is in one piece whatever its
/// length; this only bounds what waits.
const FILE_BATCH_MAX: usize = 64 * 1024;

/// An open target.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// The most bytes of whole lines that are written at once.
    pub(super) batch_max: usize,
}

impl Output {
    /// Opens a target; `None` for [`LogTarget::Off`].
    pub(super) fn open(target: &LogTarget, when_full: WhenFull) -> io::Result<Option<Self>> {
        match target {
            LogTarget::Off => Ok(None),
            LogTarget::Stdout => {
                let inherited = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Self::new(inherited, when_full).map(Some)
            }
            LogTarget::File(path) => Self::open_path(path, when_full).map(Some),
        }
    }

    /// Opens a file, made when it is not there, or a pipe that has a name.
    pub(super) fn open_path(path: &Path, when_full: WhenFull) -> io::Result<Self> {
        let is_pipe = path.metadata().is_ok_and(|found| found.file_type().is_fifo());
        let file = if is_pipe {
            open_pipe(path)?
        } else {
            File::options().append(true).create(true).open(path)?
        };
        Self::new(file, when_full)
    }

    fn new(file: File, when_full: WhenFull) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        let batch_max = if kind.is_file() { FILE_BATCH_MAX } else { PIPE_BATCH_MAX };
        let file = match when_full {
            WhenFull::Drop if kind.is_fifo() => without_blocking(file),
            WhenFull::Drop | WhenFull::Block => file,
        };
        Ok(Self { file, batch_max })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a pipe for writing, also when nobody reads it yet.
fn open_pipe(path: &Path) -> io::Result<File> {
    let both = File::options().read(true).write(true).open(path)?;
    let writer = File::options().write(true).open(path)?;
    drop(both);
    Ok(writer)
}

/// The same pipe, opened again and set not to block; the pipe that was given where this is refused.
fn without_blocking(pipe: File) -> File {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let Ok(own) = open_pipe(Path::new(&path)) else {
        return pipe;
    };
    // std sets the flag on sockets only, but with an ioctl that every kind of file understands.
    let own = UnixStream::from(OwnedFd::from(own));
    match own.set_nonblocking(true) {
        Ok(()) => File::from(OwnedFd::from(own)),
        Err(_) => pipe,
    }
}
