//! From values by key to the fields of [`Config`], and the rules between settings.

use std::path::PathBuf;

use super::bind::{self, Bind};
use super::logs::{Level, Limits, Log, LogFormat, LogTarget, WhenFull};
use super::network::Network;
use super::problem::Problems;
use super::resolve::Resolved;
use super::sources::Sources;
use super::value::Value;
use super::{Config, units};
use crate::ids::Slot;

/// A worker with its runtime and pools does not fit into less, and would be replaced for ever.
const MEMORY_MIN_BYTES: u64 = 16 << 20;

/// Options that gunicorn takes from the environment; here each has a variable of its own.
const GUNICORN_VARIABLE: &str = "GUNICORN_CMD_ARGS";

/// Builds the configuration, and adds what is wrong between settings.
pub(super) fn config(from: Resolved, sources: Sources, problems: &mut Problems) -> Config {
    let (bind, known) = binds(&from, &sources, problems);
    let config = Config {
        bind,
        workers: workers(&from),
        threads: from.number("threads"),
        timeout: from.duration("timeout"),
        stall_timeout: from.duration("stall_timeout"),
        graceful_timeout: from.duration("graceful_timeout"),
        boot_timeout: from.duration("boot_timeout"),
        keepalive: from.duration("keepalive"),
        max_requests: from.number("max_requests"),
        max_requests_jitter: from.number("max_requests_jitter"),
        max_memory: from.number("max_memory"),
        max_lifetime: from.duration("max_lifetime"),
        worker_connections: from.number("worker_connections"),
        backlog: from.number("backlog"),
        user: from.text("user").to_owned(),
        group: from.text("group").to_owned(),
        umask: from.mode("umask"),
        unix_socket_mode: from.mode("unix_socket_mode"),
        pidfile: path(&from, "pidfile"),
        proc_name: from.text("proc_name").to_owned(),
        chdir: path(&from, "chdir"),
        env: variables(&from),
        forwarded_allow_ips: networks(&from, "forwarded_allow_ips"),
        proxy_protocol: from.boolean("proxy_protocol"),
        proxy_allow_ips: networks(&from, "proxy_allow_ips"),
        ready_fd: from.number_or_none("ready_fd"),
        log: log(&from),
        limits: limits(&from),
        settings: from,
        sources: Sources { binds: known, ..sources },
        warnings: Vec::new(),
        pristine: None,
    };
    refuse_nonsense(&config, problems);
    let warnings = warnings(&config);
    Config { warnings, ..config }
}

/// All addresses, and what each text stands for. A host name is looked up here, when it is new.
fn binds(from: &Resolved, sources: &Sources, problems: &mut Problems) -> (Vec<Bind>, Known) {
    let (mut binds, mut known) = (Vec::new(), Known::new());
    for text in from.list("bind") {
        let before = sources.binds.iter().find(|(other, _)| other == text);
        let found = match before.map_or_else(|| bind::parse(text), |(_, it)| Ok(it.clone())) {
            Ok(found) => found,
            Err(error) => {
                problems.add_for(&from.place("bind"), from.setting("bind"), error);
                continue;
            }
        };
        known.push((text.clone(), found.clone()));
        for bind in found {
            // Port 0 is another port each time.
            let any_port = matches!(bind, Bind::Tcp(address) if address.port() == 0);
            if any_port || !binds.contains(&bind) {
                binds.push(bind);
            } else {
                let error = format!("expected each address once, found {bind} twice");
                problems.add_for(&from.place("bind"), from.setting("bind"), error);
            }
        }
    }
    (binds, known)
}

/// Texts of `bind` and what they stand for.
type Known = Vec<(String, Vec<Bind>)>;

fn workers(from: &Resolved) -> u16 {
    if *from.value("workers") != Value::Word("auto") {
        return from.number("workers");
    }
    // It honours the affinity mask and the CPU quota of cgroups, v1 and v2.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cpus.min(usize::from(Slot::MAX))).expect("so many workers fit into 16 bits")
}

fn path(from: &Resolved, key: &str) -> Option<PathBuf> {
    let text = from.text(key);
    if text.is_empty() { None } else { Some(PathBuf::from(text)) }
}

/// Those of the `env_file`, then those of `env`, which win.
fn variables(from: &Resolved) -> Vec<(String, String)> {
    let own = from.list("env").iter().filter_map(|item| item.split_once('='));
    let own = own.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let mut variables: Vec<(String, String)> = Vec::new();
    for (name, text) in from.env_file.iter().cloned().chain(own) {
        match variables.iter_mut().find(|(other, _)| *other == name) {
            Some(old) => old.1 = text,
            None => variables.push((name, text)),
        }
    }
    variables
}

fn networks(from: &Resolved, key: &str) -> Vec<Network> {
    let texts = from.list(key).iter();
    texts.flat_map(|text| Network::parse(text).expect("the table's check has read it")).collect()
}

fn log(from: &Resolved) -> Log {
    let target = |key| match from.text(key) {
        "" => LogTarget::Off,
        "-" => LogTarget::Stdout,
        path => LogTarget::File(PathBuf::from(path)),
    };
    let level = match from.text("log.level") {
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warning" => Level::Warning,
        "error" => Level::Error,
        "critical" => Level::Critical,
        other => panic!("the table has a log.level {other:?} that is none"),
    };
    Log {
        access: target("log.access"),
        error: target("log.error"),
        level,
        access_format: from.text("log.access_format").to_owned(),
        format: match from.text("log.format") {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
        when_full: match from.text("log.when_full") {
            "block" => WhenFull::Block,
            _ => WhenFull::Drop,
        },
    }
}

fn limits(from: &Resolved) -> Limits {
    Limits {
        request_line: from.number("limits.request_line"),
        request_fields: from.number("limits.request_fields"),
        request_field_size: from.number("limits.request_field_size"),
        body: from.number("limits.body"),
        header_timeout: from.duration("limits.header_timeout"),
        body_timeout: from.duration("limits.body_timeout"),
    }
}

/// Combinations that cannot work.
fn refuse_nonsense(config: &Config, problems: &mut Problems) {
    if config.proxy_protocol && config.proxy_allow_ips.is_empty() {
        let from = &config.settings;
        let error = "expected at least one network, since proxy_protocol is on; found none";
        let setting = from.setting("proxy_allow_ips");
        problems.add_for(&from.place("proxy_allow_ips"), setting, error);
    }
}

/// Combinations that work, and are probably not meant.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |key: &str, text: String| {
        let place = config.settings.place(key);
        let colon = if place.is_empty() { "" } else { ": " };
        warnings.push(format!("{place}{colon}{key}: {text}"));
    };
    if config.max_requests_jitter != 0 && config.max_requests == 0 {
        warn("max_requests_jitter", "it has no effect while max_requests is 0".to_owned());
    }
    if (1..MEMORY_MIN_BYTES).contains(&config.max_memory) {
        let [found, least] = [config.max_memory, MEMORY_MIN_BYTES].map(units::show_size);
        warn("max_memory", format!("{found} is less than a worker needs (about {least})"));
    }
    if !config.proxy_protocol && !config.settings.is_default("proxy_allow_ips") {
        warn("proxy_allow_ips", "it has no effect while proxy_protocol is off".to_owned());
    }
    let unix = config.bind.iter().any(|bind| matches!(bind, Bind::Unix(_)));
    if config.unix_socket_mode.is_some() && !unix {
        warn("unix_socket_mode", "it has no effect while no unix socket is bound".to_owned());
    }
    if !config.timeout.is_zero() && config.timeout < config.limits.body_timeout {
        let key = "limits.body_timeout";
        if !config.settings.is_default(key) || !config.settings.is_default("timeout") {
            let [body, whole] =
                [config.limits.body_timeout, config.timeout].map(units::show_duration);
            let text = format!("{body} s has no effect: timeout ends a request after {whole} s");
            warn(key, text);
        }
    }
    for (origin, name) in &config.settings.strangers {
        let place = origin.place();
        warnings.push(format!("{place}: [{name}] is left alone: the application has no settings"));
    }
    if config.sources.variable(GUNICORN_VARIABLE).is_some() {
        warnings.push(format!("{GUNICORN_VARIABLE} is set, and is not read; use config.toml"));
    }
    warnings
}
