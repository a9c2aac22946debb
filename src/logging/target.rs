//! Opening what lines are written to, and writing.
//!
//! # Why
//! Writes block. `O_NONBLOCK` would belong to the open file, not to the descriptor: set on the stdout
//! that was inherited, it holds for the shell that started us as well. Nobody waits for the logger,
//! so it may wait. Where somebody else has set the flag, it waits by poll(2).
//!
//! The trap: opening a pipe for writing waits until somebody has it open for reading. While it is
//! open for both, it doesn't.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use crate::config::LogTarget;
use crate::sys::poll;

/// The longest write that a pipe takes in one piece (`PIPE_BUF`, pipe(7)). The logger is not always
/// alone: what an application prints may go to the same pipe.
pub(super) const PIPE_BATCH_MAX: usize = 4096;
/// The longest write to a file. A write to a file opened for appending is in one piece whatever its
/// length; this only bounds what one call does.
const FILE_BATCH_MAX: usize = 128 * 1024;

/// An open target.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// The most bytes of whole lines that are written at once.
    pub(super) batch_max: usize,
    /// Whether what was written last, by us or by others before, does not end a line.
    pub(super) is_mid_line: bool,
}

/// What a target is called in messages.
pub(super) fn name(target: &LogTarget) -> String {
    match target {
        LogTarget::Off => "nowhere".to_owned(),
        LogTarget::Stdout => "stdout".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    }
}

impl Output {
    /// Opens a target; `None` for [`LogTarget::Off`].
    pub(super) fn open(target: &LogTarget) -> io::Result<Option<Self>> {
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
    pub(super) fn open_path(path: &Path) -> io::Result<Self> {
        let is_pipe = path.metadata().is_ok_and(|found| found.file_type().is_fifo());
        if is_pipe {
            return Self::new(open_pipe(path)?);
        }
        let mut output = Self::new(File::options().append(true).create(true).open(path)?)?;
        output.is_mid_line = ends_mid_line(path);
        Ok(output)
    }

    /// What was opened by others: a pipe, a terminal, or a file, whose last line may have been cut, too.
    pub(super) fn inherited(file: File) -> io::Result<Self> {
        let mut output = Self::new(file)?;
        if !output.hides_cuts() {
            // It may be open for writing alone.
            let path = format!("/proc/self/fd/{}", output.file.as_raw_fd());
            output.is_mid_line = ends_mid_line(Path::new(&path));
        }
        Ok(output)
    }

    fn new(file: File) -> io::Result<Self> {
        let is_file = file.metadata()?.file_type().is_file();
        let batch_max = if is_file { FILE_BATCH_MAX } else { PIPE_BATCH_MAX };
        Ok(Self { file, batch_max, is_mid_line: false })
    }

    /// Whether a write that is cut short by the death of the writer can leave a part of a line that
    /// its successor will not find.
    pub(super) fn hides_cuts(&self) -> bool {
        self.batch_max == PIPE_BATCH_MAX
    }

    /// Writes all of it; answers how much was written before it failed.
    ///
    /// # Errors
    /// What write(2) says.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
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

/// Opens a pipe for writing, also when nobody reads it yet.
fn open_pipe(path: &Path) -> io::Result<File> {
    let both = File::options().read(true).write(true).open(path)?;
    let writer = File::options().write(true).open(path)?;
    drop(both);
    Ok(writer)
}

/// Whether the file's last line was cut, by a full disk or the death of who wrote it. A file that may
/// not be read is taken for whole.
fn ends_mid_line(path: &Path) -> bool {
    let last = || {
        let file = File::open(path)?;
        let mut last = [b'\n'];
        if let Some(at) = file.metadata()?.len().checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        Ok::<_, io::Error>(last)
    };
    last().is_ok_and(|last| last != *b"\n")
}
