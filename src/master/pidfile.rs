//! The file that holds the master's pid.
//!
//! A lock on it says whether its owner lives: a stale file is no obstacle, whatever pid it holds. Since
//! any process that may read the file may lock it, a lock counts only where the process whose pid the
//! file holds has the file open.

use std::fs::{File, Metadata, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Error;
use crate::sys::socket::file_id;
use crate::sys::{clock, process};

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
        // The folder may be another when it is removed: an upgrade can change `chdir`.
        match std::path::absolute(path).and_then(|path| Self::try_write(&path)) {
            Ok(Some(pidfile)) => Ok(pidfile),
            Ok(None) => Err(refusal(&"another server holds it")),
            Err(error) => Err(refusal(&error)),
        }
    }

    /// Of several that try at once, one succeeds: a file that is there is replaced by the one that has
    /// locked it, and where none is, only the first can put one there.
    fn try_write(path: &Path) -> io::Result<Option<Self>> {
        // A reader of the file sees the whole pid or none: it is written elsewhere and moved.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:08x}", rand::random::<u32>()));
        let elsewhere = PathBuf::from(name);
        let mut file = File::create_new(&elsewhere)?;
        // Every user may read it, and its owner alone write, whatever the umask is.
        let fixed = file.set_permissions(Permissions::from_mode(MODE));
        let locked = fixed.and_then(|()| file.lock());
        let written = locked.and_then(|()| writeln!(file, "{}", process::pid()));
        let placed = written.and_then(|()| Self::place(&elsewhere, path));
        if !matches!(placed, Ok(Placed::Moved)) {
            // No other process knows it: it is rubbish at the worst.
            let _rubbish = std::fs::remove_file(&elsewhere);
        }
        Ok(match placed? {
            Placed::Moved | Placed::Linked => Some(Self { path: path.to_owned(), file }),
            Placed::Refused => None,
        })
    }

    fn place(elsewhere: &Path, path: &Path) -> io::Result<Placed> {
        // What cannot be locked can still be replaced: a link that leads nowhere, a file that we may not
        // read, a file system without links.
        let mut locked = None;
        for tried in 1..=TRIES_MAX {
            let there = match open(path) {
                Ok(there) if there.metadata()?.is_file() => there,
                Ok(_) if !std::fs::symlink_metadata(path)?.is_symlink() => {
                    let reason = "what is there is no regular file: name another path";
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
                }
                // A link to something that is no file holds no pid.
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match std::fs::hard_link(elsewhere, path) {
                        Ok(()) => return Ok(Placed::Linked),
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                        Err(_) => break,
                    }
                }
                Err(_) => break,
            };
            if matches!(there.try_lock(), Err(TryLockError::WouldBlock)) {
                let known = tried == TRIES_MAX;
                match holder(&there) {
                    Holder::Named => return Ok(Placed::Refused),
                    Holder::Unknown if known => return Ok(Placed::Refused),
                    // Any reader of the file can lock it: that is no server.
                    Holder::Stranger if known => break,
                    Holder::Unknown | Holder::Stranger => {
                        clock::nap(PAUSE);
                        continue;
                    }
                }
            }
            // Between the two calls another may have replaced it, or removed its own.
            if std::fs::metadata(path).ok().map(id) == there.metadata().ok().map(id) {
                locked = Some(there);
                break;
            }
        }
        std::fs::rename(elsewhere, path)?;
        drop(locked);
        Ok(Placed::Moved)
    }

    /// The file of the image before: its lock lives in the descriptor.
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
        let ours = self.file.metadata().ok().map(id);
        if ours.is_some() && file_id(&self.path) == ours {
            // The next server replaces a stale file.
            let _stale = std::fs::remove_file(&self.path);
        }
    }
}

/// The way by which the file came to its place.
enum Placed {
    /// From elsewhere, where nothing is left.
    Moved,
    /// It has its name elsewhere still.
    Linked,
    /// Another server holds the one that is there.
    Refused,
}

/// So often at the most others may come between, or the lock of a dead master be met.
const TRIES_MAX: usize = 200;
/// The time that a child that a dead master has forked just before may take to let go of the lock, of
/// which it has a copy until it runs: [`TRIES_MAX`] times this.
const PAUSE: Duration = Duration::from_millis(10);

/// The file's mode.
const MODE: u32 = 0o644;
/// A pid has fewer digits; what follows is not read.
const TEXT_MAX: u64 = 32;

/// Opens it for reading, without waiting: a FIFO has no writer perhaps, and a device no answer.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(process::NONBLOCK).open(path)
}

/// The process that has locked the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// The one whose pid the file holds: a server that lives.
    Named,
    /// That process is gone, or does not have the file open: another one has locked it, or a child that
    /// a dead master has forked just before.
    Stranger,
    /// That process lives, and may not be looked into.
    Unknown,
}

/// Finds out whether the process whose pid the file holds has the file open.
fn holder(file: &File) -> Holder {
    let mut text = String::new();
    // A read before moved nothing: it was opened for this.
    let read = file.take(TEXT_MAX).read_to_string(&mut text);
    let Some(pid) = read.ok().and_then(|_| text.trim().parse::<u32>().ok()) else {
        return Holder::Stranger;
    };
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let ours = file.metadata().ok().map(id);
    match std::fs::read_dir(folder.join("fd")) {
        Ok(entries) => {
            let same = |entry: io::Result<std::fs::DirEntry>| {
                let found = entry.ok().and_then(|entry| std::fs::metadata(entry.path()).ok());
                found.map(id) == ours
            };
            if entries.into_iter().any(same) { Holder::Named } else { Holder::Stranger }
        }
        Err(_) if folder.exists() => Holder::Unknown,
        Err(_) => Holder::Stranger,
    }
}

/// Device and inode: the same of the same file, by whatever name.
fn id(found: Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
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

    /// Where none is, and where a stale one is.
    #[test]
    fn of_many_at_once_one_gets_it() {
        for round in 0..200 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("f.pid");
            if round % 2 == 0 {
                std::fs::write(&path, "1\n").unwrap();
            }
            let start = std::sync::Barrier::new(4);
            let won: Vec<PidFile> = std::thread::scope(|scope| {
                let race = || {
                    start.wait();
                    PidFile::try_write(&path).unwrap()
                };
                let racers: Vec<_> = (0..4).map(|_| scope.spawn(race)).collect();
                racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
            });
            assert_eq!(won.len(), 1, "round {round}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    /// As a child does that a master has forked just before it was killed.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the lock is let go meanwhile")]
    fn a_lock_that_outlives_its_master_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        // No process has it: pid_max is 2^22 at the most (proc(5)).
        std::fs::write(&path, "4194305\n").unwrap();
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || PidFile::write(&path).map(drop)
        });
        // It has written its own, and tries to put it in place.
        while std::fs::read_dir(folder.path()).unwrap().count() < 2 {
            std::thread::yield_now();
        }
        drop(held);
        waiting.join().unwrap().expect("nobody else holds it");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    /// Any reader of the file can lock it.
    #[test]
    fn lock_of_a_stranger_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        let sleeper = std::process::Command::new("sleep").arg("1000").spawn();
        let mut sleeper = sleeper.expect("it is there");
        // A process that lives and has nothing to do with it, and none.
        for pid in [sleeper.id().to_string(), "4194305".to_owned(), "no pid".to_owned()] {
            std::fs::write(&path, format!("{pid}\n")).unwrap();
            let held = File::open(&path).unwrap();
            held.lock().unwrap();
            PidFile::write(&path).expect("no server holds it").remove();
        }
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        for path in [&path, folder.path(), Path::new("/dev/null")] {
            let refused = PidFile::write(path).expect_err("it is no file").to_string();
            assert!(refused.ends_with("is no regular file: name another path"), "{refused}");
        }
        let link = folder.path().join("link.pid");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        PidFile::write(&link).expect("the link is replaced, not what it leads to");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn mode_does_not_depend_on_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        for umask in [0, 0o077] {
            let before = process::set_umask(umask);
            let written = PidFile::write(&path);
            process::set_umask(before);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, MODE);
            written.unwrap().remove();
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        PidFile::write(&path).unwrap();
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    }
}
