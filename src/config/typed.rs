//! From values by key to the fields of [`Config`], and the rules between settings.

use std::path::PathBuf;

use super::bind::{self, Bind, BindAddress};
use super::draft::Answers;
use super::http2::Http2;
use super::logs::{Health, Level, Limits, Log, LogFormat, LogTarget, Stats, WhenFull};
use super::network::{ForwardedFields, Network};
use super::problem::Problems;
use super::program::{Program, ProgramReady, StopSignal};
use super::resolve::Resolved;
use super::setting::Setting;
use super::skip::Skip;
use super::sources::{ARGUMENTS_VARIABLE, Sources};
use super::tls::{ClientAuth, Tls, TlsVersion};
use super::value::Value;
use super::{Config, environment, resolve, settings, units};

/// A worker with its runtime and pools does not fit into less, and would be replaced for ever.
const MEMORY_MIN_BYTES: u64 = 16 << 20;

/// Builds the configuration, and adds what is wrong between settings.
pub(super) fn config(
    from: Resolved,
    sources: Sources,
    answers: &Answers,
    problems: &mut Problems,
) -> Config {
    let (mut bound, mut known) = (Vec::new(), Known::new());
    let [bind, tls_bind] = ["bind", "tls.bind"]
        .map(|key| binds(&from, key, (&sources, answers), &mut bound, &mut known, problems));
    let config = Config {
        bind,
        workers: workers(&from),
        threads: from.number("threads"),
        timeout: from.duration("timeout"),
        stall_timeout: from.duration("stall_timeout"),
        graceful_timeout: from.duration("graceful_timeout"),
        announce: from.duration("announce"),
        drain_spread: from.share("drain_spread"),
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
        control: from.text("control").to_owned(),
        env: variables(&from),
        forwarded_allow_ips: networks(&from, "forwarded_allow_ips"),
        forwarded_fields: match from.text("forwarded_fields") {
            "forwarded" => ForwardedFields::Forwarded,
            _ => ForwardedFields::XForwarded,
        },
        proxy_protocol: from.boolean("proxy_protocol"),
        proxy_allow_ips: networks(&from, "proxy_allow_ips"),
        ready_fd: from.number_or_none("ready_fd"),
        log: log(&from),
        limits: limits(&from),
        health: Health {
            live: from.text("health.live").to_owned(),
            ready: from.text("health.ready").to_owned(),
        },
        http2: Http2 {
            enabled: cfg!(feature = "http2") && from.boolean("http2.enabled"),
            max_streams: from.number("http2.max_streams"),
        },
        tls: tls(&from, tls_bind),
        program: program(&from),
        stats: stats(&from),
        home: None,
        settings: from,
        sources: Sources { binds: known, ..sources },
        warnings: Vec::new(),
        pristine: None,
    };
    refuse_nonsense(&config, problems);
    let warnings = warnings(&config);
    Config { warnings, ..config }
}

/// The addresses of one setting, and what each text stands for. A host name that is new has its addresses
/// in the answers. `bound` are the addresses of all settings.
fn binds(
    from: &Resolved,
    key: &str,
    (sources, answers): (&Sources, &Answers),
    bound: &mut Vec<Bind>,
    known: &mut Known,
    problems: &mut Problems,
) -> Vec<Bind> {
    let mut binds = Vec::new();
    for text in from.list(key) {
        let before = sources.binds.iter().find(|(other, _)| other == text);
        let answer = answers.iter().find(|(other, _)| other == text);
        let found = match (before, answer) {
            (Some((_, known)), _) => Ok(known.clone()),
            (None, Some((_, answer))) => answer.clone(),
            (None, None) => bind::parse(text),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                problems.add_for(&from.place(key), from.setting(key), error);
                continue;
            }
        };
        // Without an address it is still to be looked up.
        if !found.is_empty() {
            known.push((text.clone(), found.clone()));
        }
        for bind in found {
            // Port 0 is another port each time.
            let any_port = matches!(bind.address, BindAddress::Tcp(address) if address.port() == 0);
            if any_port || !bound.iter().any(|other| other.address == bind.address) {
                bound.push(bind.clone());
                binds.push(bind);
            } else {
                let error = format!("expected each address once, found {} twice", bind.address);
                problems.add_for(&from.place(key), from.setting(key), error);
            }
        }
    }
    binds
}

/// Texts of addresses and what they stand for.
type Known = Vec<(String, Vec<Bind>)>;

fn workers(from: &Resolved) -> u16 {
    if *from.value("workers") != Value::Word("auto") {
        return from.number("workers");
    }
    // It honours the affinity mask and the CPU quota of cgroups, v1 and v2.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let most = from.number_max("workers");
    u16::try_from(cpus).map_or(most, |cpus| cpus.min(most))
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
        skip: from.list("log.skip").iter().map(|text| rule(text)).collect(),
        slow: Some(from.duration("log.slow")).filter(|slow| !slow.is_zero()),
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

fn rule(text: &str) -> Skip {
    Skip::parse(text).expect("the table's check has read it")
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

fn tls(from: &Resolved, bind: Vec<Bind>) -> Tls {
    let files = |key| from.list(key).iter().map(PathBuf::from).collect();
    Tls {
        bind,
        certificate: files("tls.certificate"),
        key: files("tls.key"),
        client_ca: path(from, "tls.client_ca"),
        client_auth: match from.text("tls.client_auth") {
            "optional" => ClientAuth::Optional,
            "required" => ClientAuth::Required,
            _ => ClientAuth::None,
        },
        min_version: match from.text("tls.min_version") {
            "1.3" => TlsVersion::V1_3,
            _ => TlsVersion::V1_2,
        },
    }
}

/// Combinations of TLS that cannot work.
fn refuse_tls(config: &Config, problems: &mut Problems) {
    let (tls, from) = (&config.tls, &config.settings);
    let mut refuse = |key: &str, error: &str| {
        problems.add_for(&from.place(key), from.setting(key), error.to_owned());
    };
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

fn program(from: &Resolved) -> Program {
    let ready = from.text("program.ready");
    Program {
        command: from.list("program.command").to_vec(),
        ready: ProgramReady::parse(ready).expect("the table's check has read it"),
        stop_signal: StopSignal::parse(from.text("program.stop_signal")),
    }
}

/// The settings that programs cannot be served with.
fn refuse_program(config: &Config, problems: &mut Problems) {
    let from = &config.settings;
    if config.program.is_set() && config.tls.is_on() {
        let error = "expected none beside program.command: a program speaks TLS itself, by settings of its \
                     own, or a proxy before it";
        let setting = from.setting("tls.certificate");
        problems.add_for(&from.place("tls.certificate"), setting, error);
    }
    let asks = matches!(config.program.ready, ProgramReady::Http(_));
    // A name that is not looked up yet has no address, and is no unix socket.
    let is_name = from.list("bind").first().is_some_and(|text| bind::is_named(text));
    if config.program.is_set()
        && asks
        && !is_name
        && matches!(config.bind.first(), Some(Bind { address: BindAddress::Unix(_), .. }))
    {
        let error = "expected another sign where the first address is a unix socket: it cannot be told there \
                     which program has answered";
        problems.add_for(&from.place("program.ready"), from.setting("program.ready"), error);
    }
}

fn stats(from: &Resolved) -> Stats {
    let text = |key| Some(from.text(key)).filter(|text| !text.is_empty());
    let address = |text| bind::stats(text).expect("the table's check has read it");
    Stats {
        bind: text("stats.bind").map(address),
        statsd: text("stats.statsd").map(str::to_owned),
        statsd_prefix: from.text("stats.statsd_prefix").to_owned(),
        statsd_tags: from.list("stats.statsd_tags").to_vec(),
    }
}

/// Combinations that cannot work.
fn refuse_nonsense(config: &Config, problems: &mut Problems) {
    let Health { live, ready } = &config.health;
    if live == ready && !live.is_empty() {
        let from = &config.settings;
        let error = format!("expected another path than health.live has, found {ready:?} in both");
        problems.add_for(&from.place("health.ready"), from.setting("health.ready"), error);
    }
    refuse_tls(config, problems);
    refuse_names(config, problems);
    if config.proxy_protocol && config.proxy_allow_ips.is_empty() {
        let from = &config.settings;
        let error = "expected at least one network, since proxy_protocol is on; found none";
        let setting = from.setting("proxy_allow_ips");
        problems.add_for(&from.place("proxy_allow_ips"), setting, error);
    }
    refuse_program(config, problems);
    refuse_late_variables(&config.settings, problems);
}

/// Names of listeners that the application has no routes for. A program may make of a name what it likes.
fn refuse_names(config: &Config, problems: &mut Problems) {
    let (from, known) = (&config.settings, config.sources.listeners);
    let Some(known) = known.filter(|_| !config.program.is_set()) else { return };
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
            problems.add_for(&from.place(key), from.setting(key), error);
        }
    }
}

/// `env` is for the workers: a setting whose variable stands there would not be set.
fn refuse_late_variables(from: &Resolved, problems: &mut Problems) {
    let why = "it is read before the workers' variables; set it in env_file or in the server's own \
               environment";
    for name in from.list("env").iter().filter_map(|item| Some(item.split_once('=')?.0)) {
        let reads = |setting: &&Setting| {
            setting.variable() == name
                || setting.file_env == Some(name)
                || setting.env.is_some_and(|foreign| foreign.name == name)
        };
        let sets = match from.entries().iter().map(|entry| entry.setting).find(reads) {
            Some(setting) => setting.key,
            None if name.starts_with(environment::PREFIX) => "no setting",
            None => continue,
        };
        let error = format!("{name} sets {sets}: {why}");
        problems.add_for(&from.place("env"), from.setting("env"), error);
    }
}

/// Settings of a worker that serves an application.
const APP_ONLY: [&str; 21] = [
    "threads",
    "max_requests",
    "proxy_protocol",
    "keepalive",
    "timeout",
    "worker_connections",
    "drain_spread",
    "forwarded_allow_ips",
    "forwarded_fields",
    "log.access",
    "log.access_format",
    "log.skip",
    "log.slow",
    "limits.request_line",
    "limits.request_fields",
    "limits.request_field_size",
    "limits.body",
    "limits.header_timeout",
    "limits.body_timeout",
    "http2.enabled",
    "http2.max_streams",
];

/// Combinations that work, and are probably not meant.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |key: &str, text: String| {
        let place = config.settings.place(key);
        let colon = if place.is_empty() { "" } else { ": " };
        warnings.push(format!("{place}{colon}{key}: {text}"));
    };
    if config.tls.client_ca.is_some() && config.tls.client_auth == ClientAuth::None {
        warn("tls.client_ca", "it has no effect while tls.client_auth is \"none\"".to_owned());
    }
    if config.max_requests_jitter != 0 && config.max_requests == 0 {
        warn("max_requests_jitter", "it has no effect while max_requests is 0".to_owned());
    }
    if (1..MEMORY_MIN_BYTES).contains(&config.max_memory) {
        let [found, least] = [config.max_memory, MEMORY_MIN_BYTES].map(units::show_size);
        warn("max_memory", format!("{found} is less than a worker needs (about {least})"));
    }
    for key in
        APP_ONLY.iter().filter(|key| config.program.is_set() && !config.settings.is_default(key))
    {
        warn(key, "it has no effect on a program; the program has settings of its own".to_owned());
    }
    if !config.proxy_protocol && !config.settings.is_default("proxy_allow_ips") {
        warn("proxy_allow_ips", "it has no effect while proxy_protocol is off".to_owned());
    }
    let unix = config.binds().any(|bind| matches!(bind.address, BindAddress::Unix(_)));
    if config.unix_socket_mode.is_some() && !unix {
        warn("unix_socket_mode", "it has no effect while no unix socket is bound".to_owned());
    }
    for name in settings::access_format_gaps(&config.log.access_format) {
        let text = format!("{{{name}}}e has no value here, and is always \"-\"");
        warn("log.access_format", text);
    }
    let shown = config.settings.is_of_command_line("env");
    for item in config.settings.list("env").iter().filter(|_| shown) {
        let Some((name, value)) = item.split_once('=') else { continue };
        if value.contains("://") && resolve::holds_password(value) {
            let text = "holds a password, and ps shows what an option says; put it into env_file";
            warn("env", format!("{name} {text}"));
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
