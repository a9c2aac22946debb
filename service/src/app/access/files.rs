//! Files with secrets: read whole, written whole, for their owner alone.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A larger file is none of these.
const BYTES_MAX: u64 = 1 << 20;
/// The mode of a new file.
const OWNER_ALONE: u32 = 0o600;
/// The part of the mode of a replaced file that is kept: its group may have been let in on purpose.
const MODE_KEPT: u32 = 0o660;

/// The text of a file of a bearable size.
///
/// # Errors
/// The system's error; when it is no file, or too long.
pub(super) fn read(path: &Path) -> io::Result<String> {
    // Not a FIFO: opening one would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

/// Makes a file that is not there. Where another process has been faster, its file stays.
///
/// # Errors
/// The system's error.
pub(super) fn make(path: &Path, text: &str) -> io::Result<()> {
    let beside = write_beside(path, text, None)?;
    let made = match fs::hard_link(&beside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    };
    fs::remove_file(&beside)?;
    made?;
    sync_folder(path)
}

/// Replaces a file, or makes it: a reader sees the old text or the new one. Owner and group stay.
///
/// # Errors
/// The system's error; the old file is there then.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    // The file itself, where a link leads to it.
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let before = match fs::metadata(&target) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let beside = write_beside(&target, text, before.as_ref())?;
    fs::rename(&beside, &target).inspect_err(|_| drop(fs::remove_file(&beside)))?;
    sync_folder(&target)
}

/// Writes the text into a new file of the same folder.
fn write_beside(path: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    // Not the pid: containers that share the folder have the same ones.
    beside.push(format!(".{:016x}.new", rand::random::<u64>()));
    let beside = path.with_file_name(beside);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(&beside)?;
    let written = (|| {
        // Whatever the umask.
        file.set_permissions(Permissions::from_mode(OWNER_ALONE))?;
        file.write_all(text.as_bytes())?;
        if let Some(like) = like {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
                chown(&beside, Some(like.uid()), Some(like.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(OWNER_ALONE | (like.mode() & MODE_KEPT)))?;
        }
        file.sync_all()
    })();
    written.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    Ok(beside)
}

/// Has the folder's new entry survive a loss of power.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn made_file_is_its_owners_and_stays() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("secret");
        make(&path, "one").unwrap();
        make(&path, "other").unwrap();
        assert_eq!((read(&path).unwrap().as_str(), mode(&path)), ("one", 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn replaced_file_keeps_its_group_and_shuts_others_out() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("users");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::write(&path, "old").unwrap();
        for (before, after) in [(0o644, 0o640), (0o600, 0o600), (0o777, 0o660)] {
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            replace(&link, "new").unwrap();
            assert_eq!((read(&path).unwrap().as_str(), mode(&path)), ("new", after));
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the link stays one");
        let new = folder.path().join("fresh");
        replace(&new, "x").unwrap();
        assert_eq!(mode(&new), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn folder_that_is_not_there_is_an_error() {
        let folder = TempDir::new().unwrap();
        for write in [make, replace] {
            let error = write(&folder.path().join("none/users"), "x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}
