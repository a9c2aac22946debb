//! The reason why an SQLite file cannot be written, in words: the path, the user, and the command that
//! mends it. SQLite itself returns "unable to open database file".
//!
//! # When
//! Only at the start, and only after SQLite has failed: to look, the files are opened, and closing
//! them drops the locks that SQLite holds on them in this process.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A path that this process cannot write to.
#[derive(Debug)]
pub(crate) struct Obstacle {
    path: PathBuf,
    cause: io::Error,
    mend: Mend,
    user: User,
}

/// The way out.
#[derive(Debug)]
enum Mend {
    /// This file is to be the user's.
    File,
    /// This folder is to be there, and the user's.
    Folder(PathBuf),
    /// The user cannot even enter a folder above.
    Elsewhere,
}

/// The user and group of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    /// Its name, if there is one.
    name: Option<String>,
}

impl Obstacle {
    /// Looks for what keeps this process from writing: the file, those beside it that a restored copy
    /// brings along, and their folder.
    pub(super) fn find(database: &Path) -> Option<Self> {
        let database = std::path::absolute(database).ok()?;
        let folder = database.parent()?;
        // Below a folder that is missing, the last one that is there.
        let there = folder.ancestors().find(|folder| folder.symlink_metadata().is_ok())?;
        let new = |path: &Path, cause, mend| {
            Some(Self { path: path.to_owned(), cause, mend, user: User::current() })
        };
        if let Err(cause) = folder.metadata()
            && cause.kind() == ErrorKind::PermissionDenied
        {
            return new(there, cause, Mend::Elsewhere);
        }
        for suffix in ["", "-wal", "-shm"] {
            let mut path = database.clone().into_os_string();
            path.push(suffix);
            let path = PathBuf::from(path);
            match OpenOptions::new().write(true).open(&path) {
                Err(cause) if !is_about_folder(&cause) => return new(&path, cause, Mend::File),
                Ok(_) | Err(_) => {}
            }
        }
        new(there, try_folder(there).err()?, Mend::Folder(folder.to_owned()))
    }
}

fn is_about_folder(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Makes a file and removes it.
fn try_folder(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".ferricorn-{}", std::process::id()));
    let made = OpenOptions::new().create_new(true).write(true).open(&path);
    if made.is_ok() {
        fs::remove_file(path)?;
    }
    made.map(drop)
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, cause, mend, user } = self;
        let path = path.display();
        let User { uid, gid, .. } = user;
        write!(f, "{user} cannot write to {path}: {}", reason(cause))?;
        match (cause.kind(), mend) {
            (ErrorKind::PermissionDenied, Mend::File) => {
                write!(f, "; run: chown {uid}:{gid} {path} && chmod u+rw {path}")
            }
            (ErrorKind::PermissionDenied, Mend::Folder(folder)) => {
                write!(f, "; run: install -d -o {uid} -g {gid} {}", folder.display())
            }
            (ErrorKind::ReadOnlyFilesystem, _) => {
                f.write_str("; mount it for writing, or name another file in database.url")
            }
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => {
                f.write_str("; free some space")
            }
            _ => f.write_str("; name another file in database.url"),
        }
    }
}

/// The system's words, without the number behind them.
fn reason(cause: &io::Error) -> String {
    let text = cause.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    words.to_lowercase()
}

impl User {
    /// The user that the kernel checks: `/proc/self` itself may belong to root.
    fn current() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::read(&status, &users)
    }

    fn read(status: &str, users: &str) -> Self {
        // Real, effective, saved, of the file system.
        let of_files = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_ascii_whitespace().nth(3)?.parse().ok()
        };
        let uid: u32 = of_files("Uid:").unwrap_or_default();
        let gid: u32 = of_files("Gid:").unwrap_or_default();
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        Self { uid, gid, name }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "user {name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_the_one_that_the_kernel_checks() {
        let status = "Name:\tx\nUid:\t0\t33\t0\t33\nGid:\t0\t34\t0\t34\n";
        let users = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\n";
        let user = User::read(status, users);
        assert_eq!(user, User { uid: 33, gid: 34, name: Some("www-data".into()) });
        assert_eq!(user.to_string(), "user www-data (uid 33)");
        assert_eq!(User::read(status, "").to_string(), "uid 33");
    }

    #[test]
    fn an_obstacle_names_path_user_and_command() {
        let of = |kind: ErrorKind, mend| {
            let user = User { uid: 33, gid: 34, name: Some("www-data".into()) };
            Obstacle { path: "/data".into(), cause: kind.into(), mend, user }.to_string()
        };
        let begin = "user www-data (uid 33) cannot write to /data: ";
        let denied = ErrorKind::PermissionDenied;
        for (text, end) in [
            (
                of(denied, Mend::File),
                "permission denied; run: chown 33:34 /data && chmod u+rw /data",
            ),
            (
                of(denied, Mend::Folder("/data/new".into())),
                "permission denied; run: install -d -o 33 -g 34 /data/new",
            ),
            (of(denied, Mend::Elsewhere), "permission denied; name another file in database.url"),
            (of(ErrorKind::StorageFull, Mend::File), "no storage space; free some space"),
        ] {
            assert_eq!(text, format!("{begin}{end}"));
        }
    }

    #[test]
    fn a_path_that_is_no_folder_is_an_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert!(Obstacle::find(&file).is_none());
        fs::write(&file, "").unwrap();
        assert!(Obstacle::find(&file).is_none());
        let below = Obstacle::find(&file.join("new/data.db")).unwrap();
        assert_eq!(below.path, file);
        let all: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(all.len(), 1, "nothing is left behind: {all:?}");
    }
}
