//! The configuration: what was asked for, from which layer, resolved to typed values.
//!
//! Layers: defaults < `config.toml` < `env_file` < environment < command line. One table of
//! settings ([`settings`]) is the source of the command line, the file, the environment, the
//! reference `config.toml` and the documentation.
//!
//! # Why it is read twice
//! An embedding program reads a file before any application is named: unknown tables
//! may be the application's. `Config::with_app` reads the same sources again and judges all.

mod at_start;
mod bind;
mod checks;
mod draft;
mod env_file;
pub(crate) mod environment;
mod error;
mod fields;
#[cfg(feature = "toml")]
mod file;
#[cfg(not(feature = "toml"))]
#[path = "file_lines.rs"]
mod file;
pub(crate) mod from_gunicorn;
mod from_value;
pub(crate) mod gunicorn;
mod http2;
mod logs;
mod network;
pub(crate) mod problem;
mod program;
mod published;
pub(crate) mod reference;
mod resolve;
pub(crate) mod setting;
pub mod settings;
mod skip;
pub(crate) mod sources;
mod table;
mod tls;
mod typed;
mod units;
pub(crate) mod value;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use self::fields::{SettingFields, fields};
use self::problem::{Origin, Problems};
use self::resolve::{Resolved, SettingValue};
use self::setting::Setting;
use self::sources::{FileSource, Sources};
use self::typed::FieldReader;
use self::value::Value;

pub(crate) use self::at_start::AtStart;
pub use self::bind::{Bind, BindAddress};
pub(crate) use self::draft::{Answers, Draft};
pub(crate) use self::environment::{CHECK_VARIABLE, STATE_VARIABLE};
pub use self::error::Error;
pub use self::http2::Http2;
pub use self::logs::{Health, Level, Limits, Log, LogFormat, LogTarget, Stats, WhenFull};
pub use self::network::{ForwardedFields, Network};
pub use self::problem::ConfigError;
pub use self::program::{Program, ProgramReady, StopSignal};
pub(crate) use self::published::{ClientSettings, HEALTHCHECK_AGENT, PUBLISHED};
pub use self::skip::Skip;
pub(crate) use self::table::closest;
pub use self::tls::{ClientAuth, Tls, TlsVersion};
pub use self::units::seconds;

fields! {
    /// Everything that the server and its application were told, checked and typed.
    ///
    /// Fields may be changed before the server runs; a changed field stays as it is at a reload.
    #[derive(Clone)]
    #[non_exhaustive]
    pub struct Config in "" {
        /// Where to listen.
        pub bind: Vec<Bind> = FieldReader::binds,
        /// The number of workers, at least 1; `"auto"` has become the number of CPUs this process may use.
        pub workers: u16 = FieldReader::workers,
        /// Runtime threads in each worker.
        pub threads: u16,
        /// The time that a request may take until it is answered 504; zero: no limit.
        pub timeout: Duration,
        /// The time for which a worker's event loop may be silent; zero: no limit.
        pub stall_timeout: Duration,
        /// The time for which a draining worker may finish its requests.
        pub graceful_timeout: Duration,
        /// The time for which a server that is told to stop serves on before.
        pub announce: Duration,
        /// The share of `graceful_timeout`, 0 to 1, over which WebSockets and event streams of a draining
        /// worker end.
        pub drain_spread: f64,
        /// The time that `prepare` and a worker's boot may take.
        pub boot_timeout: Duration,
        /// The time for which an idle keep-alive connection stays open.
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
        /// The name of the processes; empty: `ferricorn`.
        pub proc_name: String,
        /// Folder to change to before anything else is opened; `None`: stay.
        pub chdir: Option<PathBuf>,
        /// Control socket: `auto`, the path of its file, or empty: none.
        pub control: String,
        /// Variables for the environment of the workers, from `env_file` and then `env`.
        pub env: Vec<(String, String)> = FieldReader::variables,
        /// Peers whose forwarding headers are believed.
        pub forwarded_allow_ips: Vec<Network>,
        /// The family of forwarding headers that is believed.
        pub forwarded_fields: ForwardedFields,
        /// True if peers in `proxy_allow_ips` begin a connection with a PROXY header.
        pub proxy_protocol: bool,
        /// Peers that must begin with a PROXY header, when `proxy_protocol` is on.
        pub proxy_allow_ips: Vec<Network>,
        /// Descriptor that is told once every worker serves; `None`: none.
        pub ready_fd: Option<i32>,
        /// Logs.
        pub log: Log = Log::read,
        /// Limits of a request.
        pub limits: Limits = Limits::read,
        /// Paths of the probes that ferricorn answers itself.
        pub health: Health = Health::read,
        /// HTTP/2.
        pub http2: Http2 = Http2::read,
        /// TLS.
        pub tls: Tls = Tls::read,
        /// The program that serves in each slot.
        pub program: Program = Program::read,
        /// Metrics.
        pub stats: Stats = Stats::read,
    }
    beside(reader) {
        /// The folder that the processes of this configuration work in; `None`: the master's.
        home: Option<PathBuf> = None,
        /// Every setting with its value and where it came from, the application's own among them.
        settings: Resolved = reader.settings.clone(),
        /// Where the layers come from, to read them again.
        sources: Sources = Sources { binds: reader.known.clone(), ..reader.sources.clone() },
        /// Warnings of what is allowed and probably not meant.
        warnings: Vec<String> = Vec::new(),
        /// The sources that were read, before any field was changed; `None` in that value itself.
        pristine: Option<Arc<Self>> = None,
    }
}

/// Makes a configuration.
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
    pub(crate) fn from_toml(text: &str, app: &'static [Setting]) -> Result<Self, Error> {
        let file = FileSource::Text(text.to_owned());
        Self::load(Sources { file, app: Some(app), ..Sources::none() })
    }

    /// Returns true if a text that can be read as the file, but for an application's tables, leaves this
    /// setting out.
    pub(crate) fn lacks(text: &str, key: &str) -> bool {
        let file = FileSource::Text(text.to_owned());
        let mut problems = Problems::default();
        let resolved = resolve::resolve(&Sources { file, ..Sources::none() }, &mut problems);
        problems.into_result().is_ok() && resolved.place(key).is_empty()
    }

    /// The defaults, but with these names in `bind` and what the resolver says of them.
    #[cfg(test)]
    pub(crate) fn from_names(names: &[(&str, &[Bind])]) -> Self {
        let binds = names.iter().map(|(name, binds)| ((*name).to_owned(), binds.to_vec()));
        let text = Value::List(names.iter().map(|(name, _)| format!("{name}:1")).collect());
        let file = FileSource::Text(format!("bind = {}", text.handed()));
        let binds = binds.map(|(name, binds)| (format!("{name}:1"), binds)).collect();
        Self::load(Sources { file, app: Some(&[]), binds, ..Sources::none() }).unwrap()
    }

    /// Reads all layers, and asks the resolver, but in an image that takes over.
    pub(crate) fn load(sources: Sources) -> Result<Self, Error> {
        let takes_over = sources.takes_over();
        let draft = Draft::read(sources);
        let answers = if takes_over { draft.without_addresses() } else { draft.look_up() };
        draft.finish(None, &answers)
    }

    /// Judges the tables that are left by an application's settings, and reads them; judges the names of
    /// listeners by those that the application has.
    ///
    /// # Errors
    /// [`Error::Config`] with everything that is wrong.
    pub(crate) fn with_app(
        self,
        app: &'static [Setting],
        listeners: &'static [&'static str],
    ) -> Result<Self, Error> {
        let app = Some(app);
        let listeners = Some(listeners);
        let sources = Sources { app, listeners, ..self.sources.clone() };
        let mut fresh = Self::load(sources)?;
        fresh.carry(&self);
        Ok(fresh)
    }

    /// The most workers that the application is served by.
    pub(crate) fn workers_max(&self) -> u16 {
        self.settings.number_max("workers")
    }

    /// Reads the same sources again: the files as they are now, the environment and the command
    /// line as they were at the start.
    pub(crate) fn draft(&self) -> Draft {
        Draft::read(self.sources.clone())
    }

    /// For tests: reads the same sources again, and asks the resolver.
    #[cfg(test)]
    pub(crate) fn reload(&self) -> Result<Self, Error> {
        let draft = self.draft();
        draft.finish(Some(self), &draft.look_up())
    }

    /// Every setting, as the text of a file, for another image of the program: one a line, its value as
    /// JSON has it, which programs without the feature `toml` read, too. Secrets are in it.
    pub(crate) fn hand_over(&self) -> String {
        let shown = |binds: &[Bind]| Value::List(binds.iter().map(Bind::to_string).collect());
        let line = |entry: &SettingValue| {
            let value = match entry.setting.key {
                "bind" => shown(&self.bind),
                "tls.bind" => shown(&self.tls.bind),
                "workers" => Value::Integer(self.workers.into()),
                // Those of the `env_file` are among them.
                "env" => {
                    let pairs = self.env.iter().map(|(name, text)| format!("{name}={text}"));
                    Value::List(pairs.collect())
                }
                "env_file" => Value::Text(String::new()),
                _ => entry.value.clone(),
            };
            format!("{} = {}\n", entry.setting.key, value.handed())
        };
        self.settings.entries().iter().map(line).collect()
    }

    /// The sources that another image has handed over, to be reloaded from where this one was read.
    /// Settings that this version does not know any more, or would refuse, are left out.
    pub(crate) fn adopt(&self, text: String) -> Self {
        let file = FileSource::Text(text);
        let Sources { app, listeners, .. } = self.sources;
        let mut draft = Draft::read(Sources { file, app, listeners, ..Sources::none() });
        draft.sources = self.sources.clone();
        let (mut config, _) = draft.with_problems(&Answers::new());
        config.sources = draft.sources;
        config.carry(self);
        config
    }

    /// Takes over the fields that were changed after reading.
    fn carry(&mut self, changed: &Self) {
        if let Some(read) = changed.pristine.as_deref() {
            self.keep_changed(changed, read, |_| true);
        }
    }
}

/// The questions that it answers.
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

    /// Every address to listen on: those of `bind`, then those of `tls.bind`.
    pub fn binds(&self) -> impl Iterator<Item = &Bind> {
        self.bind.iter().chain(&self.tls.bind)
    }

    /// Returns what is allowed and probably not meant: one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The addresses of the host name in `bind` that this one is an address of; none where it was
    /// written as an address, or is the name's only one.
    pub(crate) fn namesakes(&self, bind: &Bind) -> &[Bind] {
        let named = |(_, binds): &&(String, Vec<Bind>)| binds.len() > 1 && binds.contains(bind);
        self.sources.binds.iter().find(named).map_or(&[], |(_, binds)| binds)
    }

    /// A problem with a setting's value, behind the place that the value came from.
    pub(crate) fn placed(&self, key: &str, problem: &str) -> String {
        self.settings.placed(key, problem)
    }

    /// The error for a value that the system refuses.
    pub(crate) fn refused(&self, key: &str, error: &std::io::Error) -> Error {
        Error::Config(self.placed(key, &problem::reason(error)).into())
    }

    /// The folder of the start by the name that it was entered by; `None` where there is none.
    pub(crate) fn start_folder(&self) -> Option<&Path> {
        Some(self.sources.folder.as_path()).filter(|folder| folder.is_absolute())
    }

    /// The folder that this generation's processes work in, once it was entered.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Notes that folder.
    pub(crate) fn settle(&mut self, home: Option<PathBuf>) {
        self.home = home;
    }

    /// The file it was read from.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.sources.file {
            FileSource::Required(path) => Some(path),
            FileSource::None | FileSource::Optional(_) | FileSource::Text(_) => None,
        }
    }

    /// The absolute path of the file that was read, or looked for in vain; `None` where no file is
    /// meant.
    pub(crate) fn file_place(&self) -> Option<FilePlace> {
        let path = self.sources.file_path()?;
        Some(FilePlace { path, is_read: self.file().is_some() })
    }

    /// Every setting, in the table's order, without secrets.
    pub(crate) fn shown(&self) -> impl Iterator<Item = Shown> {
        self.settings.entries().iter().map(|entry| {
            let value = entry.value.shown(entry.setting.secrecy);
            let origin = match entry.value {
                Value::Word("auto") if entry.setting.key == "workers" => {
                    format!("{}: {} here", entry.origin, self.workers)
                }
                _ if entry.is_default() && entry.origin != Origin::Default => {
                    format!("{}, the default", entry.origin)
                }
                _ => entry.origin.to_string(),
            };
            Shown { key: entry.setting.key, value, origin, is_default: entry.is_default() }
        })
    }
}

/// Where a configuration file is, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePlace {
    pub(crate) path: PathBuf,
    pub(crate) is_read: bool,
}

/// A setting for the operator's eyes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) key: &'static str,
    /// TOML, without secrets.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) origin: String,
    /// True if it is what it would be without any source.
    pub(crate) is_default: bool,
}

/// Defaults alone: no file, no environment.
impl Default for Config {
    fn default() -> Self {
        let (mut config, problems) = Draft::read(Sources::none()).with_problems(&Answers::new());
        // A mistake in the table of settings, which tests find.
        if let Err(error) = problems.into_result() {
            config.warnings.extend_from_slice(error.problems());
        }
        config
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
#[cfg(test)]
mod words_tests;
