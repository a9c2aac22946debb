//! Values that are right by themselves, held against the machine: users, groups and folders that do
//! not exist. Nothing is created or opened, since `ferricorn check` may run beside the server, and as
//! another user: what this user may not see is not judged.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::Error;
use crate::config::problem::{Problems, reason};
use crate::config::{BindAddress, Config, LogTarget};
use crate::sys::clock;
use crate::sys::identity::Identity;
use crate::tls;

/// Judges what a start needs before it binds.
///
/// # Errors
/// [`Error::Config`] with everything that is missing.
pub(crate) fn judge(config: &Config) -> Result<(), Error> {
    finish(found(config))
}

/// Judges the folders of unix sockets, too, which a start meets when it binds.
///
/// # Errors
/// As [`judge`].
pub(crate) fn judge_all(config: &Config) -> Result<(), Error> {
    let mut problems = found(config);
    for bind in config.binds() {
        if let BindAddress::Unix(path) = &bind.address {
            add(config, &mut problems, "bind", parent(config, path));
        }
    }
    finish(problems)
}

fn finish(problems: Problems) -> Result<(), Error> {
    problems.into_result().map_err(Error::Config)
}

fn found(config: &Config) -> Problems {
    let mut problems = Problems::default();
    for (user, group) in [(config.user.as_str(), ""), ("", config.group.as_str())] {
        if let Err(why) = Identity::find(user, group) {
            let (key, why) = why.split_once(": ").unwrap_or(("user", &why));
            add(config, &mut problems, key, Err(why.to_owned()));
        }
    }
    let home = config.chdir.as_deref().map_or(Ok(()), |_| folder(&home(config)));
    let is_home = home.is_ok();
    add(config, &mut problems, "chdir", home);
    // Relative paths mean nothing without it.
    if is_home {
        let logs = [("log.access", &config.log.access), ("log.error", &config.log.error)];
        for (key, target) in logs {
            if let LogTarget::File(path) = target {
                add(config, &mut problems, key, file(config, path));
            }
        }
        if let Some(path) = &config.pidfile {
            add(config, &mut problems, "pidfile", file(config, path));
        }
        if config.tls.is_on()
            && let Err(wrong) = tls::read(&config.tls, &self::home(config), clock::wall())
        {
            for problem in wrong.into_iter().filter(|problem| !problem.is_hidden) {
                add(config, &mut problems, problem.key, Err(problem.reason));
            }
        }
    }
    problems
}

fn add(config: &Config, problems: &mut Problems, key: &str, judged: Result<(), String>) {
    if let Err(why) = judged {
        problems.add("", config.placed(key, &why));
    }
}

/// The folder that relative paths are meant from.
fn home(config: &Config) -> PathBuf {
    let start = config.start_folder().unwrap_or(Path::new(""));
    start.join(config.chdir.as_deref().unwrap_or(Path::new("")))
}

/// A file that can be opened or made: no folder, and in one.
fn file(config: &Config, path: &Path) -> Result<(), String> {
    if home(config).join(path).is_dir() {
        return Err(format!("expected a file, found the folder {}", path.display()));
    }
    parent(config, path)
}

fn parent(config: &Config, path: &Path) -> Result<(), String> {
    folder(home(config).join(path).parent().unwrap_or(Path::new("/")))
}

/// A folder that is there, as far as this user can see.
fn folder(path: &Path) -> Result<(), String> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("expected a folder, found the file {}", path.display())),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(format!("the folder {} does not exist; create it", path.display()))
        }
        Err(error) => Err(format!("cannot look at {}: {}", path.display(), reason(&error))),
    }
}
