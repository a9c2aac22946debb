//! From values by key to the fields of [`Config`], and the rules between settings.

use std::sync::Arc;

use super::bind::{self, Bind, BindAddress};
use super::draft::Answers;
use super::fields::SettingFields;
use super::from_value::FromValue;
use super::logs::Health;
use super::problem::Problems;
use super::program::ProgramReady;
use super::resolve::Resolved;
use super::setting::Setting;
use super::settings::SETTINGS;
use super::sources::{ARGUMENTS_VARIABLE, Sources};
use super::tls::ClientAuth;
use super::{Config, environment, resolve, units};
use crate::access_format;

/// A worker with its runtime and pools does not fit into less, and would be replaced for ever.
const MEMORY_MIN_BYTES: u64 = 16 << 20;

/// The values of all settings, as fields are read from them, and all that is wrong with them.
pub(super) struct FieldReader<'a> {
    pub(super) settings: &'a Resolved,
    pub(super) sources: &'a Sources,
    answers: &'a Answers,
    problems: Problems,
    /// The addresses of all settings.
    bound: Vec<Bind>,
    /// Texts of addresses, and the addresses that they stand for.
    pub(super) known: Vec<(String, Vec<Bind>)>,
}

/// Builds the configuration, and adds what is wrong between settings.
pub(super) fn config(
    settings: &Resolved,
    sources: &Sources,
    answers: &Answers,
    problems: Problems,
) -> (Config, Problems) {
    let bound = Vec::new();
    let known = Vec::new();
    let mut reader = FieldReader { settings, sources, answers, problems, bound, known };
    let mut config = Config::read(&mut reader, "");
    refuse_nonsense(&config, &mut reader.problems);
    config.warnings = warnings(&config);
    config.pristine = Some(Arc::new(config.clone()));
    (config, reader.problems)
}

impl FieldReader<'_> {
    /// Returns the value of a setting, or a stand-in for a value that the type cannot hold, which is a
    /// problem.
    pub(super) fn read<T: FromValue>(&mut self, key: &str) -> T {
        self.settings.get(key).unwrap_or_else(|error| {
            self.problems.add("", error);
            T::FALLBACK
        })
    }

    /// Returns the addresses that the texts of a setting stand for. A host name that is new has its
    /// addresses in the answers.
    pub(super) fn binds(&mut self, key: &str) -> Vec<Bind> {
        let mut binds = Vec::new();
        for text in self.read::<Vec<String>>(key) {
            let before = self.sources.binds.iter().find(|(other, _)| *other == text);
            let answer = self.answers.iter().find(|(other, _)| *other == text);
            let found = match (before, answer) {
                (Some((_, known)), _) => Ok(known.clone()),
                (None, Some((_, answer))) => answer.clone(),
                (None, None) => bind::parse(&text),
            };
            let found = found.unwrap_or_else(|error| {
                self.problems.refuse(self.settings, key, error);
                Vec::new()
            });
            for bind in &found {
                // Port 0 is another port each time.
                let any_port =
                    matches!(bind.address, BindAddress::Tcp(address) if address.port() == 0);
                if any_port || !self.bound.iter().any(|other| other.address == bind.address) {
                    self.bound.push(bind.clone());
                    binds.push(bind.clone());
                } else {
                    let error = format!("expected each address once, found {} twice", bind.address);
                    self.problems.refuse(self.settings, key, error);
                }
            }
            // Without an address it is still to be looked up.
            if !found.is_empty() {
                self.known.push((text, found));
            }
        }
        binds
    }

    /// Returns the number of workers, where `"auto"` is the number of CPUs.
    pub(super) fn workers(&mut self, key: &str) -> u16 {
        // It honours the affinity mask and the CPU quota of cgroups, v1 and v2.
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        let most = self.settings.number_max(key);
        let auto = || u16::try_from(cpus()).map_or(most, |cpus| cpus.min(most));
        self.read::<Option<u16>>(key).unwrap_or_else(auto)
    }

    /// Returns the variables of the `env_file`, then those of this setting, which win.
    pub(super) fn variables(&mut self, key: &str) -> Vec<(String, String)> {
        let own: Vec<String> = self.read(key);
        let own = own.iter().filter_map(|item| item.split_once('='));
        let own = own.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let mut variables: Vec<(String, String)> = Vec::new();
        for (name, text) in self.settings.env_file.iter().cloned().chain(own) {
            match variables.iter_mut().find(|(other, _)| *other == name) {
                Some(old) => old.1 = text,
                None => variables.push((name, text)),
            }
        }
        variables
    }
}

/// Combinations of TLS that cannot work.
fn refuse_tls(config: &Config, problems: &mut Problems) {
    let tls = &config.tls;
    let mut refuse = |key: &str, error: &str| problems.refuse(&config.settings, key, error);
    let [certificates, keys] = [&tls.certificate, &tls.key].map(Vec::len);
    if certificates != keys {
        let key = if keys == 0 { "tls.certificate" } else { "tls.key" };
        let error =
            format!("expected one key for each of {certificates} certificates, found {keys}");
        refuse(key, &error);
    }
    if !tls.is_on() && !tls.bind.is_empty() {
        refuse("tls.bind", "expected tls.certificate and tls.key beside it, found none");
    }
    if tls.client_auth != ClientAuth::None && tls.client_ca.is_none() {
        refuse("tls.client_auth", "expected tls.client_ca beside it, found none");
    }
    if tls.client_auth != ClientAuth::None && !tls.is_on() {
        refuse("tls.client_auth", "expected tls.certificate and tls.key beside it, found none");
    }
}

/// The settings that programs cannot be served with.
fn refuse_program(config: &Config, problems: &mut Problems) {
    if !config.program.is_set() {
        return;
    }
    if config.tls.is_on() {
        let error = "expected none beside program.command: a program speaks TLS itself, by settings of its \
                     own, or a proxy before it";
        problems.refuse(&config.settings, "tls.certificate", error);
    }
    let asks = matches!(config.program.ready, ProgramReady::Http(_));
    // A name that is not looked up yet has no address, and is no unix socket.
    let is_name = config.settings.list("bind").first().is_some_and(|text| bind::is_named(text));
    let first = config.bind.first().map(|bind| &bind.address);
    if asks && !is_name && matches!(first, Some(BindAddress::Unix(_))) {
        let error = "expected another sign where the first address is a unix socket: it cannot be told there \
                     which program has answered";
        problems.refuse(&config.settings, "program.ready", error);
    }
}

/// Combinations that cannot work.
fn refuse_nonsense(config: &Config, problems: &mut Problems) {
    let Health { live, ready } = &config.health;
    if live == ready && !live.is_empty() {
        // One of them may be a default, which has no place.
        let is_ready_set = !config.settings.place("health.ready").is_empty();
        let (key, other) = if is_ready_set {
            ("health.ready", "health.live")
        } else {
            ("health.live", "health.ready")
        };
        let error = format!("expected another path than {other} has, found {ready:?} in both");
        problems.refuse(&config.settings, key, error);
    }
    refuse_tls(config, problems);
    refuse_names(config, problems);
    if config.proxy_protocol && config.proxy_allow_ips.is_empty() {
        let error = "expected at least one network, since proxy_protocol is on; found none";
        problems.refuse(&config.settings, "proxy_allow_ips", error);
    }
    refuse_program(config, problems);
    refuse_late_variables(&config.settings, problems);
}

/// Names of listeners that the application has no routes for. A program may make of a name what it likes.
fn refuse_names(config: &Config, problems: &mut Problems) {
    let Some(known) = config.sources.listeners.filter(|_| !config.program.is_set()) else { return };
    for (key, binds) in [("bind", &config.bind), ("tls.bind", &config.tls.bind)] {
        let is_unknown =
            |bind: &&Bind| bind.name.as_deref().is_some_and(|name| !known.contains(&name));
        for bind in binds.iter().filter(is_unknown) {
            let error = match known {
                [] => format!(
                    "expected an address without a name, since this application has no names for \
                     listeners; found \"{bind}\""
                ),
                known => format!(
                    "expected a name that this application has routes for ({}), found \"{bind}\"",
                    known.join(", ")
                ),
            };
            problems.refuse(&config.settings, key, error);
        }
    }
}

/// `env` is for the workers: a setting whose variable stands there would not be set.
fn refuse_late_variables(settings: &Resolved, problems: &mut Problems) {
    let why = "it is read before the workers' variables; set it in env_file or in the server's own \
               environment";
    for name in settings.list("env").iter().filter_map(|item| Some(item.split_once('=')?.0)) {
        let reads = |setting: &&Setting| {
            setting.variable() == name
                || setting.file_env == Some(name)
                || setting.env.is_some_and(|foreign| foreign.name == name)
        };
        let sets = match settings.entries().iter().map(|entry| entry.setting).find(reads) {
            Some(setting) => setting.key,
            None if name.starts_with(environment::PREFIX) => "no setting",
            None => continue,
        };
        problems.refuse(settings, "env", format!("{name} sets {sets}: {why}"));
    }
}

/// Combinations that work, and are probably not meant.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |key: &str, text: &str| warnings.push(config.settings.placed(key, text));
    if config.tls.client_ca.is_some() && config.tls.client_auth == ClientAuth::None {
        warn("tls.client_ca", "it has no effect while tls.client_auth is \"none\"");
    }
    if config.max_requests_jitter != 0 && config.max_requests == 0 {
        warn("max_requests_jitter", "it has no effect while max_requests is 0");
    }
    if (1..MEMORY_MIN_BYTES).contains(&config.max_memory) {
        let [found, least] = [config.max_memory, MEMORY_MIN_BYTES].map(units::show_size);
        warn("max_memory", &format!("{found} is less than a worker needs (about {least})"));
    }
    let of_application = SETTINGS.iter().filter(|setting| setting.is_of_application);
    for key in of_application.map(Setting::key).filter(|_| config.program.is_set()) {
        if !config.settings.is_default(key) {
            warn(key, "it has no effect on a program; the program has settings of its own");
        }
    }
    if !config.proxy_protocol && !config.settings.is_default("proxy_allow_ips") {
        warn("proxy_allow_ips", "it has no effect while proxy_protocol is off");
    }
    let unix = config.binds().any(|bind| matches!(bind.address, BindAddress::Unix(_)));
    if config.unix_socket_mode.is_some() && !unix {
        warn("unix_socket_mode", "it has no effect while no unix socket is bound");
    }
    for name in access_format::gaps(&config.log.access_format) {
        let text = format!("{{{name}}}e has no value here, and is always \"-\"");
        warn("log.access_format", &text);
    }
    let shown = config.settings.is_of_command_line("env");
    for item in config.settings.list("env").iter().filter(|_| shown) {
        let Some((name, value)) = item.split_once('=') else { continue };
        if value.contains("://") && resolve::holds_password(value) {
            let text = "holds a password, and ps shows what an option says; put it into env_file";
            warn("env", &format!("{name} {text}"));
        }
    }
    for (origin, name) in &config.settings.strangers {
        let place = origin.place();
        warnings.push(format!("{place}: [{name}] is left alone: the application has no settings"));
    }
    if config.sources.variable(ARGUMENTS_VARIABLE).is_some() && !config.sources.arguments_read {
        warnings.push(format!("{ARGUMENTS_VARIABLE} is set, and is not read; use config.toml"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::logs::{Limits, Log, Stats};
    use crate::config::{Error, Http2, Program, Tls};

    #[test]
    fn every_setting_is_read_by_one_field() {
        let tables = [Log::KEYS, Limits::KEYS, Health::KEYS, Http2::KEYS, Tls::KEYS, Program::KEYS];
        let keys = [&tables[..], &[Config::KEYS, Stats::KEYS]].concat().concat();
        let is_read_once = |key| keys.iter().filter(|read| **read == key).count() == 1;
        let unread = SETTINGS.iter().map(Setting::key).filter(|key| !is_read_once(*key));
        // It is read with the layers, and its variables by another field.
        assert_eq!(unread.collect::<Vec<_>>(), ["env_file"]);
        let is_known =
            |key: &str| SETTINGS.iter().any(|own| own.key == key || own.table_and_name().0 == key);
        let unknown = keys.iter().filter(|key| !is_known(key));
        assert_eq!(unknown.collect::<Vec<_>>(), [&""; 0]);
    }

    #[test]
    fn value_that_no_field_can_hold_is_a_problem() {
        let text = "max_requests = 70000\nenv = ['TOKEN=hunter2']\n";
        let config = Config::from_toml(text, &[]).unwrap();
        let mut reader = FieldReader {
            settings: &config.settings,
            sources: &config.sources,
            answers: &Answers::new(),
            problems: Problems::default(),
            bound: Vec::new(),
            known: Vec::new(),
        };
        assert_eq!(reader.read::<u64>("keepalife"), 0);
        assert!(!reader.read::<bool>("keepalive"));
        assert_eq!(reader.read::<u16>("max_requests"), 0);
        assert_eq!(reader.read::<Option<String>>("env"), None);
        let string = std::any::type_name::<Option<String>>();
        assert_eq!(
            reader.problems.into_result().unwrap_err().problems(),
            [
                "keepalife: no setting with this key has a valid default",
                "keepalive: expected a value for bool, found 75",
                "config.toml:1: max_requests: expected a value for u16, found 70000",
                &format!(
                    "config.toml:2: env: expected a value for {string}, found [\"TOKEN=***\"]"
                ),
            ]
        );
    }

    #[test]
    fn combination_is_refused_where_one_of_its_settings_is_set() {
        let tls = "tls.certificate = ['c.pem']\n";
        let program = "program.command = ['app']\n";
        for (file, problem) in [
            ("health.live = '/readyz'\n", "health.live: expected another path than health.ready"),
            ("health.ready = '/healthz'\n", "health.ready: expected another path than health.live"),
            ("tls.bind = ['0.0.0.0:5000']\n", "tls.bind: expected each address once"),
            (tls, "tls.certificate: expected one key for each of 1 certificates, found 0"),
            ("tls.key = ['k.pem']\n", "tls.key: expected one key for each of 0 certificates"),
            ("tls.client_auth = 'required'\n", "tls.client_auth: expected tls.client_ca"),
            ("tls.bind = ['[::1]:1']\n", "tls.bind: expected tls.certificate and tls.key"),
            ("proxy_allow_ips = []\nproxy_protocol = true\n", "proxy_allow_ips: expected at least"),
            ("env = ['WEB_CONCURRENCY=3']\n", "env: WEB_CONCURRENCY sets workers"),
            (&format!("tls.key = ['k']\n{tls}{program}"), "tls.certificate: expected none beside"),
            (
                &format!("program.ready = 'http:/'\n{program}bind = ['unix:a']\n"),
                "program.ready: expected another sign",
            ),
        ] {
            let Err(Error::Config(refused)) = Config::from_toml(file, &[]) else {
                panic!("{file} is read");
            };
            let problems = refused.problems();
            let is_there = |found: &String| {
                let place =
                    found.strip_prefix("config.toml:").and_then(|rest| rest.split_once(": "));
                place.is_some_and(|(_, text)| text.starts_with(problem))
            };
            assert!(problems.iter().any(is_there), "{file}: {problems:?}");
            let is_placed = |found: &String| found.starts_with("config.toml:");
            assert!(problems.iter().all(is_placed), "{file}: {problems:?}");
        }
    }

    #[test]
    fn default_of_an_application_is_refused_when_it_is_none() {
        const APP: &[Setting] = &[Setting::with_default("max_requests", "many")];
        let Err(Error::Config(refused)) = Config::from_toml("", APP) else { panic!("it is read") };
        let expected = "the default: max_requests: expected 0 to 9007199254740992, found \"many\"";
        assert_eq!(refused.problems()[0], expected);
    }
}
