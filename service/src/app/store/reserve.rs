//! Space that an SQLite file's volume keeps for one thing: to remove rows when it is full.
//!
//! # Why
//! SQLite appends what a delete changes to its log, and a full volume has no room for that: then
//! neither a row can be added nor any removed. A delete of all rows changes few pages (a thousandth of
//! them), so a little space is enough to begin with, and after it the whole file is given back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::Rng;

/// Enough for the delete from a database of 1 GB.
const BYTES: usize = 1 << 20;

/// A file beside the database that nothing is read from.
#[derive(Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// The one beside this database.
    pub(super) fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-reserve");
        Self(path.into())
    }

    /// Takes the space, where it is not taken yet. Without room for all of it, none is taken.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn take(&self) -> io::Result<()> {
        let is_taken = |file: fs::Metadata| file.len() >= BYTES as u64;
        if fs::metadata(&self.0).is_ok_and(is_taken) {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(&self.0)?;
        let taken = fill(file);
        if taken.is_err() {
            self.free()?;
        }
        taken
    }

    /// Gives the space to the file system.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn free(&self) -> io::Result<()> {
        fs::remove_file(&self.0)
    }
}

/// Fills it with what no file system makes smaller.
fn fill(mut file: File) -> io::Result<()> {
    let mut bytes = vec![0; BYTES];
    rand::rng().fill_bytes(&mut bytes);
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_is_taken_once_and_freed() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("data.db");
        let reserve = Reserve::beside(&database);
        let path = folder.path().join("data.db-reserve");
        // As an interrupted start leaves it.
        fs::write(&path, "a part").unwrap();
        reserve.take().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), BYTES);
        reserve.take().unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        reserve.free().unwrap();
        assert!(!path.exists() && reserve.free().is_err());
    }
}
