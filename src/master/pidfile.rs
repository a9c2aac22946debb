//! The file that holds the master's pid.
//!
//! A lock on it says whether its owner lives: a stale file is no obstacle, whatever pid it holds.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
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

    /// Of several that try at once, one succeeds: a file that is there is replaced by whoever has
    /// locked it, and where none is, only the first can put one there.
    fn try_write(path: &Path) -> io::Result<Option<Self>> {
        // Whoever reads the file sees the whole pid or none: it is written elsewhere and moved.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:08x}", rand::random::<u32>()));
        let elsewhere = PathBuf::from(name);
        let mut file = File::create_new(&elsewhere)?;
        let written = file.lock().and_then(|()| writeln!(file, "{}", process::pid()));
        let placed = written.and_then(|()| Self::place(&elsewhere, path));
        if !matches!(placed, Ok(Placed::Moved)) {
            // Nobody knows it: it is rubbish at the worst.
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
            let there = match File::open(path) {
                Ok(there) => there,
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
                if tried == TRIES_MAX || is_alive(&there) {
                    return Ok(Placed::Refused);
                }
                clock::nap(PAUSE);
                continue;
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
        let ours = self.file.metadata().ok().map(id);
        if ours.is_some() && file_id(&self.path) == ours {
            // The next server replaces a stale file.
            let _stale = std::fs::remove_file(&self.path);
        }
    }
}

/// How the file came to its place.
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
/// How long a child that a dead master has forked just before may take to let go of the lock, of which
/// it has a copy until it runs: [`TRIES_MAX`] times this.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether the process lives whose pid the file holds, as far as it can be seen from here.
fn is_alive(mut file: &File) -> bool {
    let mut text = String::new();
    let pid: Option<u32> =
        file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
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
                racers.into_iter().filter_map(|it| it.join().unwrap()).collect()
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

    #[test]
    fn a_link_that_leads_nowhere_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        PidFile::write(&path).unwrap();
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    }
}
