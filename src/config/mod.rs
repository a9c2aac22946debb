//! The configuration: what was asked for, from which layer, resolved to typed values.
//!
//! Layers: defaults < `config.toml` < `env_file` < environment < command line. One table of
//! settings ([`settings`]) is the source of the command line, the file, the environment, the
//! reference `config.toml` and the documentation.
//!
//! # Why it is read twice
//! Who embeds ferricorn reads a file before any application is named: tables that nobody knows yet
//! may be the application's. `Config::with_app` reads the same sources again and judges all.

mod bind;
pub(crate) mod environment;
mod file;
pub(crate) mod gunicorn;
mod logs;
mod network;
pub(crate) mod problem;
mod published;
pub(crate) mod reference;
mod resolve;
pub(crate) mod setting;
pub mod settings;
pub(crate) mod sources;
mod table;
mod typed;
mod units;
pub(crate) mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use self::problem::Problems;
use self::resolve::{Entry, Resolved};
use self::setting::{Secrecy, Setting};
use self::sources::{FileSource, Sources};
use self::value::Value;
use crate::error::Error;

pub use self::bind::Bind;
pub use self::logs::{Level, Limits, Log, LogFormat, LogTarget, WhenFull};
pub use self::network::Network;
pub use self::problem::ConfigError;
pub(crate) use self::published::PUBLISHED;
pub(crate) use self::table::closest;
pub use self::units::seconds;

/// Everything that the server and its application were told, checked and typed.
///
/// Fields may be changed before the server runs; a changed field stays as it is at a reload.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen.
    pub bind: Vec<Bind>,
    /// How many workers, at least 1; `"auto"` has become the number of CPUs this process may use.
    pub workers: u16,
    /// Runtime threads in each worker.
    pub threads: u16,
    /// How long a request may take until it is answered 504; zero: for ever.
    pub timeout: Duration,
    /// How long a worker's event loop may be silent; zero: for ever.
    pub stall_timeout: Duration,
    /// How long a leaving worker may finish its requests.
    pub graceful_timeout: Duration,
    /// How long `prepare` and a worker's boot may take.
    pub boot_timeout: Duration,
    /// How long an idle keep-alive connection stays open.
    pub keepalive: Duration,
    /// Requests after which a worker is replaced; 0: never.
    pub max_requests: u64,
    /// The largest random addition to `max_requests`.
    pub max_requests_jitter: u64,
    /// Resident bytes above which a worker is replaced; 0: no limit.
    pub max_memory: u64,
    /// Age at which a worker is replaced; zero: never.
    pub max_lifetime: Duration,
    /// Connections that one worker holds open at the most.
    pub worker_connections: u32,
    /// Connections that may wait to be accepted, on each listening socket.
    pub backlog: u32,
    /// User to become after binding (name or number); empty: stay.
    pub user: String,
    /// Group to become after binding (name or number); empty: the user's own.
    pub group: String,
    /// File mode creation mask; `None`: as inherited.
    pub umask: Option<u32>,
    /// Mode of a unix socket's file; `None`: 0777 less the umask.
    pub unix_socket_mode: Option<u32>,
    /// File that holds the master's pid while it runs; `None`: none.
    pub pidfile: Option<PathBuf>,
    /// What the processes are called; empty: `ferricorn`.
    pub proc_name: String,
    /// Folder to change to before anything else is opened; `None`: stay.
    pub chdir: Option<PathBuf>,
    /// Variables for the environment of the workers, from `env_file` and then `env`.
    pub env: Vec<(String, String)>,
    /// Peers whose forwarding headers are believed.
    pub forwarded_allow_ips: Vec<Network>,
    /// Whether peers in `proxy_allow_ips` begin a connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Peers that must begin with a PROXY header, when `proxy_protocol` is on.
    pub proxy_allow_ips: Vec<Network>,
    /// Descriptor that is told once every worker serves; `None`: nobody asks.
    pub ready_fd: Option<i32>,
    /// Logs.
    pub log: Log,
    /// Limits of a request.
    pub limits: Limits,
    /// Every setting with its value and where it came from, the application's own among them.
    settings: Resolved,
    /// Where the layers come from, to read them again.
    sources: Sources,
    /// What is allowed and probably not meant.
    warnings: Vec<String>,
    /// What was read, before any field was changed; `None` in that value itself.
    pristine: Option<Arc<Self>>,
}

/// How a configuration is made.
impl Config {
    /// Reads a file, which must exist, and the environment of this process.
    ///
    /// Tables that ferricorn does not know may be the application's; [`crate::run`] judges them.
    ///
    /// # Errors
    /// [`Error::Config`] with everything that is wrong, one line each.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = FileSource::Required(path.as_ref().to_owned());
        Self::load(Sources::process(file))
    }

    /// Reads a text as if it were the file, without an environment.
    #[cfg(test)]
    pub(crate) fn from_toml(text: &str, app: &'static [Setting]) -> Result<Self, Error> {
        let file = FileSource::Text(text.to_owned());
        Self::load(Sources { file, app: Some(app), ..Sources::none() })
    }

    /// Reads all layers.
    pub(crate) fn load(mut sources: Sources) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let resolved = resolve::resolve(&sources, &mut problems);
        sources.insist();
        let mut config = typed::config(resolved, sources, &mut problems);
        problems.into_result().map_err(Error::Config)?;
        config.pristine = Some(Arc::new(config.clone()));
        Ok(config)
    }

    /// Judges the tables that are left by an application's settings, and reads them.
    ///
    /// # Errors
    /// [`Error::Config`] with everything that is wrong.
    pub(crate) fn with_app(self, app: &'static [Setting]) -> Result<Self, Error> {
        let sources = Sources { app: Some(app), ..self.sources.clone() };
        let mut fresh = Self::load(sources)?;
        fresh.carry(&self);
        Ok(fresh)
    }

    /// Reads the same sources again: the files as they are now, the environment and the command
    /// line as they were at the start.
    ///
    /// # Errors
    /// [`Error::Config`] with everything that is wrong; `self` is still good.
    pub(crate) fn reload(&self) -> Result<Self, Error> {
        let mut fresh = Self::load(self.sources.clone())?;
        fresh.carry(self);
        Ok(fresh)
    }

    /// Every setting, as the text of a file, for another image of the program. Secrets are in it.
    pub(crate) fn hand_over(&self) -> String {
        let line = |entry: &Entry| {
            let value = match entry.setting.key {
                "bind" => Value::List(self.bind.iter().map(Bind::to_string).collect()),
                "workers" => Value::Integer(self.workers.into()),
                // Those of the `env_file` are among them.
                "env" => {
                    let pairs = self.env.iter().map(|(name, text)| format!("{name}={text}"));
                    Value::List(pairs.collect())
                }
                "env_file" => Value::Text(String::new()),
                _ => entry.value.clone(),
            };
            format!("{} = {}\n", entry.setting.key, value.shown(Secrecy::Open))
        };
        self.settings.entries().iter().map(line).collect()
    }

    /// What another image has handed over, to be reloaded from where this one was read. What this
    /// version does not know any more, or would refuse, is left out.
    pub(crate) fn adopt(&self, text: String) -> Self {
        let file = FileSource::Text(text);
        let sources = Sources { file, app: self.sources.app, ..Sources::none() };
        let mut left_out = Problems::default();
        let resolved = resolve::resolve(&sources, &mut left_out);
        let mut config = typed::config(resolved, self.sources.clone(), &mut left_out);
        config.sources = self.sources.clone();
        config.pristine = Some(Arc::new(config.clone()));
        config.carry(self);
        config
    }

    /// Takes over the fields that were changed after reading. Every field is named, so that a new
    /// one cannot be forgotten.
    fn carry(&mut self, changed: &Self) {
        let Some(read) = changed.pristine.as_deref() else {
            return;
        };
        let Self {
            bind,
            workers,
            threads,
            timeout,
            stall_timeout,
            graceful_timeout,
            boot_timeout,
            keepalive,
            max_requests,
            max_requests_jitter,
            max_memory,
            max_lifetime,
            worker_connections,
            backlog,
            user,
            group,
            umask,
            unix_socket_mode,
            pidfile,
            proc_name,
            chdir,
            env,
            forwarded_allow_ips,
            proxy_protocol,
            proxy_allow_ips,
            ready_fd,
            log,
            limits,
            settings: _,
            sources: _,
            warnings: _,
            pristine: _,
        } = self;
        keep(bind, &changed.bind, &read.bind);
        keep(workers, &changed.workers, &read.workers);
        keep(threads, &changed.threads, &read.threads);
        keep(timeout, &changed.timeout, &read.timeout);
        keep(stall_timeout, &changed.stall_timeout, &read.stall_timeout);
        keep(graceful_timeout, &changed.graceful_timeout, &read.graceful_timeout);
        keep(boot_timeout, &changed.boot_timeout, &read.boot_timeout);
        keep(keepalive, &changed.keepalive, &read.keepalive);
        keep(max_requests, &changed.max_requests, &read.max_requests);
        keep(max_requests_jitter, &changed.max_requests_jitter, &read.max_requests_jitter);
        keep(max_memory, &changed.max_memory, &read.max_memory);
        keep(max_lifetime, &changed.max_lifetime, &read.max_lifetime);
        keep(worker_connections, &changed.worker_connections, &read.worker_connections);
        keep(backlog, &changed.backlog, &read.backlog);
        keep(user, &changed.user, &read.user);
        keep(group, &changed.group, &read.group);
        keep(umask, &changed.umask, &read.umask);
        keep(unix_socket_mode, &changed.unix_socket_mode, &read.unix_socket_mode);
        keep(pidfile, &changed.pidfile, &read.pidfile);
        keep(proc_name, &changed.proc_name, &read.proc_name);
        keep(chdir, &changed.chdir, &read.chdir);
        keep(env, &changed.env, &read.env);
        keep(forwarded_allow_ips, &changed.forwarded_allow_ips, &read.forwarded_allow_ips);
        keep(proxy_protocol, &changed.proxy_protocol, &read.proxy_protocol);
        keep(proxy_allow_ips, &changed.proxy_allow_ips, &read.proxy_allow_ips);
        keep(ready_fd, &changed.ready_fd, &read.ready_fd);
        keep(log, &changed.log, &read.log);
        keep(limits, &changed.limits, &read.limits);
    }
}

/// The fresh value, unless the old one was changed after reading.
fn keep<T: Clone + PartialEq>(fresh: &mut T, changed: &T, read: &T) {
    if changed != read {
        fresh.clone_from(changed);
    }
}

/// What it can be asked.
impl Config {
    /// An application's table as a type of its own: durations arrive as seconds (`f64`, or a
    /// `Duration` with `#[serde(with = "ferricorn::seconds")]`), sizes as bytes, `or_word("")` as
    /// `None`. The table's settings are those of [`crate::App::SETTINGS`].
    ///
    /// # Errors
    /// [`Error::Config`] when the type does not fit the table's settings.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        serde_json::from_value(self.settings.section(name)).map_err(|error| {
            let problem = format!("[{name}]: the application's type does not fit: {error}");
            Error::Config(ConfigError::from(problem))
        })
    }

    /// What is allowed and probably not meant: one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The file it was read from.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.sources.file {
            FileSource::Required(path) => Some(path),
            FileSource::None | FileSource::Optional(_) | FileSource::Text(_) => None,
        }
    }

    /// Every setting, in the table's order, without secrets.
    pub(crate) fn shown(&self) -> impl Iterator<Item = Shown> {
        self.settings.entries().iter().map(|entry| {
            let value = entry.value.shown(entry.setting.secrecy);
            let origin = match entry.value {
                Value::Word("auto") if entry.setting.key == "workers" => {
                    format!("{}: {} here", entry.origin, self.workers)
                }
                _ => entry.origin.to_string(),
            };
            Shown { key: entry.setting.key, value, origin, is_default: entry.is_default() }
        })
    }
}

/// A setting for the operator's eyes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) key: &'static str,
    /// TOML, without secrets.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) origin: String,
    /// Whether it is what it would be if nobody had said anything.
    pub(crate) is_default: bool,
}

/// What takes effect at a start only, as a start has found it: key and value.
pub(crate) type AtStart = BTreeMap<String, String>;

/// Of what takes effect at a start only, these are not looked at by an image that takes over either.
const AT_THE_FIRST_START: [&str; 3] = ["pidfile", "ready_fd", "unix_socket_mode"];

/// What takes effect at a start only.
impl Config {
    pub(crate) fn at_start(&self) -> AtStart {
        let shown = |entry: &Entry| {
            (entry.setting.key.to_owned(), entry.value.shown(entry.setting.secrecy))
        };
        self.settings.restart_only().map(shown).collect()
    }

    /// The same, in an image that takes over from one that was started with that.
    pub(crate) fn at_start_after(&self, before: AtStart) -> AtStart {
        let mut now = self.at_start();
        now.extend(before.into_iter().filter(|(key, _)| {
            AT_THE_FIRST_START.contains(&key.as_str()) && self.at_start().contains_key(key)
        }));
        now
    }

    /// Keys that differ from what was there at the start: what a reload must say that it cannot do.
    pub(crate) fn not_in_force(&self, started: &AtStart) -> Vec<String> {
        let differing =
            self.at_start().into_iter().filter(|(key, it)| started.get(key) != Some(it));
        differing.map(|(key, _)| key).collect()
    }
}

/// Defaults alone: no file, no environment.
impl Default for Config {
    fn default() -> Self {
        Self::load(Sources::none()).expect("the table's defaults are its own values")
    }
}

/// Not derived: secrets are masked.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Config").field(&self.settings).finish()
    }
}

#[cfg(test)]
mod again_tests;
#[cfg(test)]
mod tests;
