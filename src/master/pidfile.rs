//! The file that holds the master's pid.
//!
//! A lock on it says whether its owner lives: a stale file is no obstacle, whatever pid it holds.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::sys::process;
use crate::sys::socket::file_id;

/// The pid file, held by a lock.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes the pid of this process to the file, in one step, and holds it.
    ///
    /// # Errors
    /// [`Error::Config`] when another master holds it, or it cannot be written.
    pub(crate) fn write(path: &Path) -> Result<Self, Error> {
        let refusal = |error: &dyn std::fmt::Display| {
            let reason = format!("failed to write the pid file {}: {error}", path.display());
            Error::Config(reason.into())
        };
        match Self::try_write(path) {
            Ok(Some(pidfile)) => Ok(pidfile),
            Ok(None) => Err(refusal(&"another server holds it")),
            Err(error) => Err(refusal(&error)),
        }
    }

    fn try_write(path: &Path) -> io::Result<Option<Self>> {
        if let Ok(there) = OpenOptions::new().read(true).open(path)
            && matches!(there.try_lock(), Err(TryLockError::WouldBlock))
        {
            return Ok(None);
        }
        // Whoever reads the file sees the whole pid or none: it is written elsewhere and moved.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", process::pid()));
        let elsewhere = PathBuf::from(name);
        let mut file = File::create(&elsewhere)?;
        file.lock()?;
        writeln!(file, "{}", process::pid())?;
        std::fs::rename(&elsewhere, path)?;
        Ok(Some(Self { path: path.to_owned(), file }))
    }

    /// What the image before held: its lock lives in the descriptor.
    pub(crate) fn inherit(path: PathBuf, file: File) -> Self {
        Self { path, file }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that holds the lock.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Removes the file, if it is still ours.
    pub(crate) fn remove(self) {
        let ours = self.file.metadata().ok().map(|found| {
            use std::os::unix::fs::MetadataExt;
            (found.dev(), found.ino())
        });
        if ours.is_some() && file_id(&self.path) == ours {
            // The next server replaces a stale file.
            let _stale = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_pid_refuses_another_and_replaces_a_stale_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        std::fs::write(&path, "1\n").unwrap();
        let first = PidFile::write(&path).expect("a stale file is no obstacle");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        let refused = PidFile::write(&path).expect_err("it is held").to_string();
        assert!(refused.ends_with("f.pid: another server holds it"), "{refused}");
        first.remove();
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        let first = PidFile::write(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "2\n").unwrap();
        first.remove();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n");
    }
}
