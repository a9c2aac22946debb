//! The place that a path names, found without following links that other users may have made.
//!
//! # Why
//! A link in a folder that another user may write to leads where that user wants, with the rights of
//! the process that follows it. So a path is walked folder by folder. A link is followed if only root
//! and this process's user can have made it; below a folder of others no link is. A folder belongs to
//! others if its owner is neither of the two, or if every user may write to it and the entry is not
//! protected (the sticky bit). A group that may write is the operator's choice.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::identity;

/// Links that a path may lead through, as many as the kernel follows (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// A name in a folder: of a file, or of one that is still to be made.
#[derive(Debug)]
pub(crate) struct PathInFolder {
    folder: OwnedFd,
    name: OsString,
    /// The name is a link of the kernel's own to an open file (proc(5), `/proc/pid/fd`).
    is_open_file: bool,
}

/// A way to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    ReadAndWrite,
    /// For writing at its end; made if it is not there.
    Append,
}

/// Finds the place that a path names.
///
/// # Errors
/// `PermissionDenied` for a link that others may have made; the error of open(2) for a folder on the
/// way.
pub(crate) fn find(path: &Path) -> io::Result<PathInFolder> {
    let mut folder = begin(path)?;
    let mut rest: VecDeque<OsString> = names(path).collect();
    let mut is_of_others = false;
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let entry = match openat(&folder, name.as_os_str(), flags, Mode::empty()) {
            Err(nix::Error::ENOENT) if rest.is_empty() => {
                return Ok(PathInFolder { folder, name, is_open_file: false });
            }
            entry => entry?,
        };
        let found = fstat(&entry)?;
        is_of_others |= may_be_of_others(&fstat(&folder)?, &found);
        if is(&found, libc::S_IFLNK) {
            if is_of_others {
                return Err(refused(path, &name));
            }
            if rest.is_empty() && is_proc(folder.as_fd()) {
                return Ok(PathInFolder { folder, name, is_open_file: true });
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = readlinkat(&entry, "")?;
            let target = Path::new(&target);
            if target.is_absolute() {
                folder = begin(target)?;
            }
            names(target).rev().for_each(|name| rest.push_front(name));
        } else if rest.is_empty() {
            return Ok(PathInFolder { folder, name, is_open_file: false });
        } else {
            folder = entry;
        }
    }
    Err(io::ErrorKind::IsADirectory.into())
}

/// The folder that a path begins at.
fn begin(path: &Path) -> io::Result<OwnedFd> {
    let first = if path.is_absolute() { "/" } else { "." };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, first, flags, Mode::empty())?)
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

/// Returns true if users other than root and this process's can have put the entry into the folder.
fn may_be_of_others(folder: &FileStat, entry: &FileStat) -> bool {
    let is_trusted = |uid: u32| uid == 0 || uid == identity::file_user();
    let is_open = folder.st_mode & libc::S_IWOTH != 0;
    let is_protected = folder.st_mode & libc::S_ISVTX != 0 && is_trusted(entry.st_uid);
    !is_trusted(folder.st_uid) || (is_open && !is_protected)
}

fn is(found: &FileStat, kind: libc::mode_t) -> bool {
    found.st_mode & libc::S_IFMT == kind
}

fn is_proc(folder: BorrowedFd<'_>) -> bool {
    fstatfs(folder).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
}

fn refused(path: &Path, name: &OsString) -> io::Error {
    let path = path.display();
    let name = name.display();
    let reason = format!(
        "the link {name} on the way to {path} is not followed: users other than root may have made it"
    );
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

impl PathInFolder {
    /// Opens the file. A link that has taken its place meanwhile is not followed.
    ///
    /// # Errors
    /// The error of open(2).
    pub(crate) fn open(&self, access: Access) -> io::Result<File> {
        let access = match access {
            Access::Read => OFlag::O_RDONLY,
            Access::Write => OFlag::O_WRONLY,
            Access::ReadAndWrite => OFlag::O_RDWR,
            Access::Append => OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT,
        };
        let links = if self.is_open_file { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let flags = access | links | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let mode = Mode::from_bits_truncate(0o666);
        Ok(openat(&self.folder, self.name.as_os_str(), flags, mode)?.into())
    }

    /// Returns true if a pipe is there.
    pub(crate) fn is_pipe(&self) -> bool {
        self.status().is_ok_and(|found| is(&found, libc::S_IFIFO))
    }

    /// The standard output or error of this process, if that is what the path names, as `/dev/stdout`
    /// does. It needs no right to open it again: another user may have opened it.
    ///
    /// # Errors
    /// The error of fcntl(2): `EMFILE`.
    pub(crate) fn standard_stream(&self) -> io::Result<Option<File>> {
        let found = self.status().ok().filter(|_| self.is_open_file);
        let is_here = |stream: BorrowedFd<'_>| {
            let id = |stat: FileStat| (stat.st_dev, stat.st_ino);
            found.map(id).is_some_and(|here| fstat(stream).is_ok_and(|status| id(status) == here))
        };
        let output = io::stdout();
        let error = io::stderr();
        let stream = [output.as_fd(), error.as_fd()].into_iter().find(|stream| is_here(*stream));
        stream.map(|stream| stream.try_clone_to_owned().map(File::from)).transpose()
    }

    fn status(&self) -> nix::Result<FileStat> {
        let links = if self.is_open_file { AtFlags::empty() } else { AtFlags::AT_SYMLINK_NOFOLLOW };
        fstatat(&self.folder, self.name.as_os_str(), links)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn append(path: &Path) -> io::Result<()> {
        use std::io::Write;
        find(path)?.open(Access::Append)?.write_all(b"line\n")
    }

    #[test]
    fn links_in_own_folders_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("logs")).unwrap();
        symlink("logs", at("relative")).unwrap();
        symlink(at("relative"), at("absolute")).unwrap();
        symlink("../logs/b", at("logs/a")).unwrap();
        append(&at("absolute/a")).expect("the links are ours");
        assert_eq!(fs::read(at("logs/b")).unwrap(), b"line\n");
        symlink("loop", at("loop")).unwrap();
        assert_eq!(append(&at("loop")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert!(append(&at("absent/a")).is_err() && append(folder.path()).is_err());
    }

    #[test]
    fn links_below_folders_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("open/own")).unwrap();
        fs::write(at("secret"), "").unwrap();
        symlink(at("secret"), at("open/link")).unwrap();
        symlink(at("secret"), at("open/own/link")).unwrap();
        append(&at("open/link")).expect("nobody else may write here");
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
        for path in ["open/link", "open/own/link", "open/../open/link"] {
            let error = append(&at(path)).expect_err("others may have made it");
            assert!(error.to_string().contains("is not followed"), "{error}");
        }
        append(&at("open/own/file")).expect("it is no link");
        // Nothing can replace what is ours there.
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o1777)).unwrap();
        append(&at("open/own/link")).expect("the sticky bit protects it");
        assert_eq!(fs::read(at("secret")).unwrap(), b"line\n".repeat(2));
    }

    #[test]
    fn path_of_a_standard_stream_opens_nothing() {
        let place = find(Path::new("/dev/stderr")).unwrap();
        assert!(place.standard_stream().unwrap().is_some());
        let place = find(Path::new("/dev/null")).unwrap();
        assert!(place.standard_stream().unwrap().is_none());
    }
}
