//! Settings that take effect at a start only, and what a reload and an upgrade make of them.

use std::collections::BTreeMap;

use super::Error;
use super::resolve::SettingValue;
use super::sources::{FileSource, Sources};
use super::{Config, keep};

/// The settings that take effect at a start only, as a start has found them: key and value.
pub(crate) type AtStart = BTreeMap<String, String>;

/// The server's own settings that take effect at a start only. An upgrade is no start.
const OWN_AT_START: [&str; 9] = [
    "user",
    "group",
    "umask",
    "unix_socket_mode",
    "pidfile",
    "proc_name",
    "chdir",
    "ready_fd",
    "control",
];

/// The settings that take effect at a start only.
impl Config {
    pub(crate) fn at_start(&self) -> AtStart {
        let shown = |entry: &SettingValue| {
            (entry.setting.key.to_owned(), entry.value.shown(entry.setting.secrecy))
        };
        self.settings.restart_only().map(shown).collect()
    }

    /// The same, in an image that takes over from one that was started with that.
    pub(crate) fn at_start_after(&self, before: AtStart) -> AtStart {
        let mut now = self.at_start();
        now.extend(before.into_iter().filter(|(key, _)| {
            OWN_AT_START.contains(&key.as_str()) && self.at_start().contains_key(key)
        }));
        now
    }

    /// Sets what takes effect at a start only to what the start has found, but what the program itself has
    /// set.
    ///
    /// # Errors
    /// When a value of the start is none any more.
    pub(crate) fn keep_in_force(&mut self, started: &AtStart) -> Result<(), Error> {
        let own = |values: &AtStart| {
            let line = |key: &&str| Some(format!("{key} = {}\n", values.get(*key)?));
            let file = FileSource::Text(OWN_AT_START.iter().filter_map(line).collect());
            Self::load(Sources { file, app: Some(&[]), ..Sources::none() })
        };
        let (mut before, read) = (own(started)?, own(&self.at_start())?);
        keep(&mut before.user, &self.user, &read.user);
        keep(&mut before.group, &self.group, &read.group);
        keep(&mut before.umask, &self.umask, &read.umask);
        keep(&mut before.unix_socket_mode, &self.unix_socket_mode, &read.unix_socket_mode);
        keep(&mut before.pidfile, &self.pidfile, &read.pidfile);
        keep(&mut before.proc_name, &self.proc_name, &read.proc_name);
        keep(&mut before.chdir, &self.chdir, &read.chdir);
        keep(&mut before.ready_fd, &self.ready_fd, &read.ready_fd);
        keep(&mut before.control, &self.control, &read.control);
        (self.user, self.group) = (before.user, before.group);
        (self.umask, self.unix_socket_mode) = (before.umask, before.unix_socket_mode);
        (self.pidfile, self.proc_name) = (before.pidfile, before.proc_name);
        (self.chdir, self.ready_fd) = (before.chdir, before.ready_fd);
        self.control = before.control;
        Ok(())
    }

    /// Keys that differ from what was there at the start: what a reload must say that it cannot do.
    pub(crate) fn not_in_force(&self, started: &AtStart) -> Vec<String> {
        let differing =
            self.at_start().into_iter().filter(|(key, it)| started.get(key) != Some(it));
        differing.map(|(key, _)| key).collect()
    }
}
