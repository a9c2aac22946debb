//! Opening what lines are written to, and writing.
//!
//! # Why
//! Writes block. `O_NONBLOCK` would belong to the open file, not to the descriptor: set on the stdout
//! that was inherited, it holds for the shell that started us as well. Nothing waits for the logger,
//! so it may wait. Where another process has set the flag, it waits by poll(2).
//!
//! The trap: opening a pipe for writing waits until a process has it open for reading. While it is
//! open for both, it doesn't.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::config::LogTarget;
use crate::sys::walk::{self, Access, PathInFolder};
use crate::sys::{identity, poll};

/// The longest write that a pipe takes in one piece (`PIPE_BUF`, pipe(7)). The logger is not always
/// alone: what an application prints may go to the same pipe.
pub(crate) const PIPE_BATCH_MAX: usize = 4096;
/// The longest write to a file. A write to a file opened for appending is in one piece whatever its
/// length; this only bounds what one call does.
const FILE_BATCH_MAX: usize = 128 * 1024;

/// An open target.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    /// The most bytes of whole lines that are written at once.
    pub(crate) batch_max: usize,
    /// True if what was written last, by us or by others before, does not end a line.
    pub(crate) is_mid_line: bool,
}

/// The name of a target in messages.
pub(crate) fn name(target: &LogTarget) -> String {
    match target {
        LogTarget::Off => "nowhere".to_owned(),
        LogTarget::Stdout => "stdout".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    }
}

impl Output {
    /// Opens a target; `None` for [`LogTarget::Off`].
    pub(crate) fn open(target: &LogTarget) -> io::Result<Option<Self>> {
        match target {
            LogTarget::Off => Ok(None),
            LogTarget::Stdout => {
                let inherited = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Self::inherited(inherited).map(Some)
            }
            LogTarget::File(path) => Self::open_path(path).map(Some),
        }
    }

    /// Opens a file, made when it is not there, or a pipe that has a name.
    pub(crate) fn open_path(path: &Path) -> io::Result<Self> {
        Self::open_place(path).map_err(|error| with_remedy(path, error))
    }

    fn open_place(path: &Path) -> io::Result<Self> {
        let place = walk::find(path)?;
        if let Some(stream) = place.standard_stream()? {
            return Self::inherited(stream);
        }
        if place.is_pipe() {
            return Self::new(open_pipe(&place)?);
        }
        let mut output = Self::new(place.open(Access::Append)?)?;
        output.is_mid_line = ends_mid_line(place.open(Access::Read));
        Ok(output)
    }

    /// A target that others have opened: a pipe, a terminal, or a file, whose last line may have been
    /// cut, too.
    pub(crate) fn inherited(file: File) -> io::Result<Self> {
        let mut output = Self::new(file)?;
        if !output.hides_cuts() {
            // It may be open for writing alone.
            let path = format!("/proc/self/fd/{}", output.file.as_raw_fd());
            output.is_mid_line = ends_mid_line(File::open(path));
        }
        Ok(output)
    }

    fn new(file: File) -> io::Result<Self> {
        let is_file = file.metadata()?.file_type().is_file();
        let batch_max = if is_file { FILE_BATCH_MAX } else { PIPE_BATCH_MAX };
        Ok(Self { file, batch_max, is_mid_line: false })
    }

    /// Returns true if a write that is cut short by the death of the writer can leave a part of a line
    /// that its replacement will not find.
    pub(crate) fn hides_cuts(&self) -> bool {
        self.batch_max == PIPE_BATCH_MAX
    }

    /// Writes all of it; answers how much was written before it failed.
    ///
    /// # Errors
    /// The error of write(2).
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write(&bytes[done..]) {
                Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    done += count;
                    self.is_mid_line = bytes[done - 1] != b'\n';
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll::wait_writable(&self.file).map_err(|error| (done, error))?;
                }
                Err(error) => return Err((done, error)),
            }
        }
        Ok(())
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens a pipe for writing, also when nothing reads it yet.
fn open_pipe(place: &PathInFolder) -> io::Result<File> {
    let both = place.open(Access::ReadAndWrite)?;
    let writer = place.open(Access::Write)?;
    drop(both);
    Ok(writer)
}

/// Adds what to do where this process's user may not open a log: as root it could.
fn with_remedy(path: &Path, error: io::Error) -> io::Error {
    let user = identity::file_user();
    if error.kind() != io::ErrorKind::PermissionDenied || user == 0 {
        return error;
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/")).display();
    let remedy = match path.symlink_metadata() {
        Ok(_) => format!("chown {user} {}", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("chown {user} {folder}, or make the file for that user")
        }
        Err(_) => format!("let that user enter {folder}"),
    };
    io::Error::new(error.kind(), format!("{error}: log files are opened as uid {user}: {remedy}"))
}

/// Returns true if the file's last line was cut, by a full disk or the death of its writer. A file that
/// may not be read is taken for whole.
fn ends_mid_line(file: io::Result<File>) -> bool {
    let last = || {
        let file = file?;
        let mut last = [b'\n'];
        if let Some(at) = file.metadata()?.len().checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        Ok::<_, io::Error>(last)
    };
    last().is_ok_and(|last| last != *b"\n")
}
