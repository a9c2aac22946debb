//! The configuration from the inside: reading again, applications' tables, and properties that hold
//! for every text.

use std::fs;

use proptest::prelude::*;
use serde::Deserialize;

use super::sources::Flag;
use super::*;

const APP: &[Setting] = &[
    Setting::text("database.url", "sqlite://a.db", "Where the rows are.").secret(),
    Setting::integer("database.max_connections", "5", 1..=100, "How many."),
    Setting::duration("database.connect_timeout", "60", 1..=100_000, "How long."),
    Setting::duration("database.pause", "0.5", 1..=100_000, "How long, too."),
    Setting::size("database.cache", "8KiB", 0..=1 << 30, "How much."),
    Setting::mode("database.mode", "", "Which mode.").or_word(""),
    Setting::list("database.replicas", "a,b", "Which others."),
    Setting::choice("database.journal", "wal", &["wal", "delete"], "Which journal."),
    Setting::boolean("database.strict", "true", "Whether."),
];

fn problems(config: Result<Config, Error>) -> Vec<String> {
    match config {
        Err(Error::Config(error)) => error.problems().to_vec(),
        Err(other) => panic!("{other}"),
        Ok(config) => panic!("{config:?}"),
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Config::default();
    assert_eq!(config.bind, [BindAddress::Tcp("0.0.0.0:5000".parse().unwrap()).into()]);
    assert_eq!((config.workers, config.threads), (4, 1));
    let seconds = [config.timeout, config.stall_timeout, config.graceful_timeout];
    assert_eq!(seconds.map(|seconds| seconds.as_secs()), [120, 120, 30]);
    let seconds = [config.boot_timeout, config.keepalive, config.max_lifetime];
    assert_eq!(seconds.map(|seconds| seconds.as_secs()), [60, 75, 0]);
    assert_eq!((config.max_requests, config.max_requests_jitter, config.max_memory), (0, 0, 0));
    assert_eq!((config.worker_connections, config.backlog), (1000, 2048));
    assert_eq!((config.user.as_str(), config.group.as_str()), ("", ""));
    assert_eq!((config.umask, config.unix_socket_mode, config.ready_fd), (None, None, None));
    assert_eq!((config.pidfile, config.chdir), (None, None));
    assert_eq!((config.log.access, config.log.error), (LogTarget::Stdout, LogTarget::Stdout));
    assert_eq!((config.log.level, config.log.format), (Level::Info, LogFormat::Text));
    assert_eq!(config.log.when_full, WhenFull::Drop);
    assert_eq!((config.limits.request_line, config.limits.request_fields), (4094, 100));
    assert_eq!((config.limits.request_field_size, config.limits.body), (8190, 0));
    assert_eq!(config.limits.header_timeout.as_secs(), 10);
    assert_eq!(config.limits.body_timeout.as_secs(), 30);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn every_kind_is_read_from_the_file() {
    let config = Config::from_toml(
        "bind = [':0', 'unix:a.sock', 'fd://3']\nworkers = 'auto'\ntimeout = 0.5\n\
         stall_timeout = '2m'\nmax_memory = '64MiB'\numask = 0o027\nunix_socket_mode = '0660'\n\
         pidfile = 'a.pid'\nenv = ['A=1,2', 'B=']\nproxy_protocol = true\nready_fd = 7\n\
         forwarded_allow_ips = '10.0.0.0/8, ::1'\n\
         log.access = ''\nlog.error = 'e.log'\nlog.level = 'WARNING'\nlimits.body = 5\n",
        &[],
    )
    .unwrap();
    assert_eq!(config.bind.len(), 3);
    assert_eq!(
        config.bind[1..],
        [BindAddress::Unix("a.sock".into()).into(), BindAddress::Fd(3).into()]
    );
    let cpus = std::thread::available_parallelism().unwrap().get().min(256);
    assert_eq!(usize::from(config.workers), cpus);
    assert_eq!(config.timeout, Duration::from_millis(500));
    assert_eq!(config.stall_timeout, Duration::from_secs(120));
    assert_eq!(config.max_memory, 64 << 20);
    assert_eq!((config.umask, config.unix_socket_mode), (Some(0o027), Some(0o660)));
    assert_eq!(config.pidfile, Some("a.pid".into()));
    let env = [("A".to_owned(), "1,2".to_owned()), ("B".to_owned(), String::new())];
    assert_eq!(config.env, env);
    assert!(config.proxy_protocol);
    assert_eq!(config.ready_fd, Some(7));
    let networks: Vec<String> = config.forwarded_allow_ips.iter().map(Network::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1"]);
    assert_eq!(config.log.access, LogTarget::Off);
    assert_eq!(config.log.error, LogTarget::File("e.log".into()));
    assert_eq!(config.log.level, Level::Warning);
    assert_eq!(config.limits.body, 5);
}

#[test]
fn a_section_is_the_applications_own_type() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Database {
        url: String,
        max_connections: u32,
        connect_timeout: f64,
        #[serde(with = "super::seconds")]
        pause: Duration,
        cache: u64,
        mode: Option<u32>,
        replicas: Vec<String>,
        journal: String,
        strict: bool,
    }
    let text = "[database]\nurl = 'postgres://u:p@h/d'\nmax_connections = 7\ncache = '1MB'\n\
                strict = false\n";
    let config = Config::from_toml(text, APP).unwrap();
    let expected = Database {
        url: "postgres://u:p@h/d".to_owned(),
        max_connections: 7,
        connect_timeout: 60.0,
        pause: Duration::from_millis(500),
        cache: 1_000_000,
        mode: None,
        replicas: vec!["a".to_owned(), "b".to_owned()],
        journal: "wal".to_owned(),
        strict: false,
    };
    assert_eq!(config.section::<Database>("database").unwrap(), expected);
}

#[test]
fn a_section_of_the_wrong_type_is_said_to_be_the_applications_fault() {
    #[derive(Debug, Deserialize)]
    struct Wrong {
        #[expect(dead_code, reason = "it cannot be read")]
        colour: String,
    }
    let config = Config::from_toml("", APP).unwrap();
    let error = config.section::<Wrong>("database").unwrap_err();
    assert_eq!(
        error.to_string(),
        "[database]: the application's type does not fit: missing field `colour`"
    );
    assert_eq!(error.exit_code(), 78);
}

#[test]
fn an_applications_table_must_be_its_own() {
    const TAKEN: &[Setting] = &[
        Setting::text("workers", "", "Ours."),
        Setting::text("log.colour", "", "In our table."),
        Setting::text("colour", "", "In no table."),
        Setting::text("shop.name", "", "Good."),
        Setting::integer("shop.name.length", "1", 1..=2, "Below a value."),
        Setting::integer("shop.size", "many", 1..=2, "Not its own default."),
    ];
    let own = "expected a key of its own, in a table of its own";
    assert_eq!(
        problems(Config::from_toml("", TAKEN)),
        [
            format!("the application's setting \"workers\": {own}"),
            format!("the application's setting \"log.colour\": {own}"),
            format!("the application's setting \"colour\": {own}"),
            format!("the application's setting \"shop.name.length\": {own}"),
            "the default: shop.size: expected 1 to 2, found \"many\"".to_owned(),
        ]
    );
}

/// A folder with a `config.toml`, and the sources that read it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("config.toml", text);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn sources(&self) -> Sources {
        let file = FileSource::Optional("config.toml".into());
        Sources { file, folder: self.0.path().to_owned(), ..Sources::none() }
    }
}

#[test]
fn unknown_tables_wait_for_the_application() {
    let folder = Folder::new("workers = 2\n[database]\nmax_connections = 7\n[datbase]\n");
    let config = Config::load(folder.sources()).unwrap();
    assert_eq!(config.workers, 2);
    assert_eq!(
        problems(config.with_app(APP, &[])),
        ["config.toml:4: unknown table \"datbase\": did you mean \"database\"?"]
    );
    folder.write("config.toml", "workers = 2\n[database]\nmax_connections = 7\n");
    let config = Config::load(folder.sources()).unwrap().with_app(APP, &[]).unwrap();
    let section: serde_json::Value = config.section("database").unwrap();
    assert_eq!(section["max_connections"], 7);
}

#[test]
fn an_application_without_settings_may_have_tables_of_its_own() {
    let folder = Folder::new("workers = 2\n[database]\nurl = 1\n[more.of.it]\n[log]\n");
    let config = Config::load(folder.sources()).unwrap();
    assert!(config.warnings().is_empty(), "they are not judged yet: {:?}", config.warnings());
    let config = config.with_app(&[], &[]).unwrap();
    assert_eq!(config.workers, 2);
    assert_eq!(
        config.warnings(),
        [
            "config.toml:2: [database] is left alone: the application has no settings",
            "config.toml:4: [more] is left alone: the application has no settings",
        ]
    );
    folder.write("config.toml", "[lgo]\nlevel = \"info\"\n[database]\nurl = 1\n");
    assert_eq!(
        problems(Config::load(folder.sources()).unwrap().with_app(&[], &[])),
        ["config.toml:1: unknown table \"lgo\": did you mean \"log\"?"]
    );
    folder.write("config.toml", "database = 1\n");
    let config = Config::load(folder.sources());
    assert_eq!(problems(config).len(), 1, "a key above all tables is ours, or nobody's");
}

#[test]
fn unknown_variables_wait_for_the_application() {
    let folder = Folder::new("");
    let mut sources = folder.sources();
    for name in ["FERRICORN_DATABASE_CACHE", "FERRICORN_DATABASE_CASH"] {
        let text = Some("1MB".to_owned());
        sources.environment.push(environment::Variable { name: name.to_owned(), text, line: None });
    }
    let config = Config::load(sources.clone()).unwrap();
    assert_eq!(
        problems(config.with_app(APP, &[])),
        ["FERRICORN_DATABASE_CASH: unknown variable: did you mean FERRICORN_DATABASE_CACHE?"]
    );
    sources.environment.pop();
    let config = Config::load(sources).unwrap().with_app(APP, &[]).unwrap();
    let section: serde_json::Value = config.section("database").unwrap();
    assert_eq!(section["cache"], 1_000_000);
}

#[test]
fn port_0_is_another_port_each_time() {
    let config = Config::from_toml("bind = [':0', ':0']", &[]).unwrap();
    assert_eq!(config.bind.len(), 2);
}

#[test]
fn a_changed_field_survives_the_application_and_a_reload() {
    let folder = Folder::new("workers = 2\ntimeout = 5\n");
    let mut config = Config::load(folder.sources()).unwrap();
    config.workers = 9;
    let config = config.with_app(APP, &[]).unwrap();
    assert_eq!((config.workers, config.timeout.as_secs()), (9, 5));
    folder.write("config.toml", "workers = 3\ntimeout = 6\n");
    let config = config.reload().unwrap();
    assert_eq!((config.workers, config.timeout.as_secs()), (9, 6));
    let config = config.reload().unwrap();
    assert_eq!((config.workers, config.timeout.as_secs()), (9, 6));
}

#[test]
fn a_reload_reads_every_file_again() {
    let folder = Folder::new("env_file = 'a.env'\n");
    folder.write("a.env", "FERRICORN_WORKERS=2\nA=1\n");
    let config = Config::load(folder.sources()).unwrap().with_app(APP, &[]).unwrap();
    assert_eq!((config.workers, config.env.len()), (2, 2));
    folder.write("a.env", "FERRICORN_WORKERS=3\n");
    let config = config.reload().unwrap();
    assert_eq!((config.workers, config.env.len()), (3, 1));
    fs::remove_file(folder.0.path().join("a.env")).unwrap();
    assert_eq!(
        problems(config.reload()),
        ["config.toml:1: env_file: a.env: failed to read: no such file or directory"]
    );
}

#[test]
fn a_file_that_was_there_must_not_be_gone_at_a_reload() {
    let folder = Folder::new("workers = 2\n");
    let config = Config::load(folder.sources()).unwrap();
    fs::remove_file(folder.0.path().join("config.toml")).unwrap();
    assert_eq!(
        problems(config.reload()),
        ["config.toml: failed to read: no such file or directory"]
    );
    let config = Config::load(folder.sources()).unwrap();
    folder.write("config.toml", "workers = 3\n");
    assert_eq!(config.reload().unwrap().workers, 3);
}

#[test]
fn what_takes_effect_at_a_start_only_is_named() {
    let folder = Folder::new("workers = 2\n");
    let old = Config::load(folder.sources()).unwrap();
    folder.write("config.toml", "workers = 3\nuser = 'www'\npidfile = 'a.pid'\n");
    let new = old.reload().unwrap();
    assert_eq!(new.not_in_force(&old.at_start()), ["pidfile", "user"]);
    assert_eq!(new.not_in_force(&new.at_start()), [""; 0]);
    // An image that takes over stays the user of the start, and keeps the pid file.
    let after = new.at_start_after(old.at_start());
    assert_eq!(new.not_in_force(&after), ["pidfile", "user"]);
    let mut kept = new.reload().unwrap();
    kept.keep_in_force(&after).unwrap();
    assert_eq!((kept.user.as_str(), kept.pidfile.as_ref(), kept.workers), ("", None, 3));
    assert_eq!(kept.not_in_force(&after), ["pidfile", "user"]);
    // What a program has set itself is not the file's.
    let mut set = new.reload().unwrap();
    set.user = "daemon".to_owned();
    set.keep_in_force(&after).unwrap();
    assert_eq!(set.user, "daemon");
}

#[test]
fn debug_shows_no_secret() {
    let text = "env = ['TOKEN=hunter2']\n[database]\nurl = 'postgres://u:hunter2@h/d'\n";
    let mut sources = Sources { app: Some(APP), ..Sources::none() };
    sources.file = FileSource::Text(text.to_owned());
    sources.flags.push(Flag {
        key: "database.url",
        name: "--database-url".to_owned(),
        variable: None,
        texts: vec!["mysql://u:hunter2@h/d".to_owned()],
    });
    let config = Config::load(sources).unwrap();
    let debug = format!("{config:?}");
    assert!(!debug.contains("hunter2"), "{debug}");
    assert!(debug.contains("mysql://u:***@h/d") && debug.contains("TOKEN=***"), "{debug}");
}

#[test]
fn a_password_is_masked_however_badly_it_is_written() {
    let shown = |url: &str| {
        let value = Value::Text(url.to_owned()).shown(setting::Secrecy::Secret);
        assert!(!value.contains("secret"), "{value}");
        value
    };
    assert_eq!(shown("postgres://u:secret@h:5432/d"), r#""postgres://u:***@h:5432/d""#);
    assert_eq!(shown("postgres://u:sec@secret/ret@h/d"), r#""postgres://u:***@h/d""#);
    assert_eq!(
        shown("postgres://u@h/d?password=secret&a=1"),
        r#""postgres://u@h/d?password=***&a=1""#
    );
    assert_eq!(shown("secret"), r#""***""#);
    assert_eq!(shown("NAME=secret"), r#""NAME=***""#);
    assert_eq!(shown("sqlite://data/a.db"), r#""sqlite://data/a.db""#);
    assert_eq!(shown("sqlite:a.db"), r#""sqlite:a.db""#);
    assert_eq!(shown("sqlite:b/a.db?key=secret"), r#""sqlite:b/a.db?key=***""#);
    assert_eq!(shown("sqlite:/u:secret@h"), r#""***""#);
}

/// Returns the output of `config`.
fn printed(config: &Config) -> String {
    config.shown().map(|shown| format!("{} = {}\n", shown.key, shown.value)).collect()
}

/// Lines that are nearly right, so that most of a file is read.
fn lines() -> impl Strategy<Value = String> {
    let keys: Vec<&str> =
        settings::SETTINGS.iter().map(|setting| setting.key).chain(["wokers"]).collect();
    let value = prop_oneof![
        any::<u32>().prop_map(|number| number.to_string()),
        any::<f32>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|number| number.to_string()),
        (0_u32..0o10000).prop_map(|mode| format!("0o{mode:o}")),
        (0_u64..10_000).prop_map(|number| format!("\"{number}ms\"")),
        (0_u64..10_000).prop_map(|number| format!("\"{number}KiB\"")),
        "[a-z:/0-9.]{0,8}".prop_map(|text| format!("'{text}'")),
        proptest::sample::select(vec![
            "'auto'",
            "'debug'",
            "''",
            "[]",
            "['A=1']",
            "{}",
            "1979-05-27"
        ])
        .prop_map(str::to_owned),
    ];
    let line =
        (proptest::sample::select(keys), value).prop_map(|(key, it)| format!("{key} = {it}\n"));
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

/// A value that the setting takes, as TOML; `None` where a check has the last word.
fn fitting(setting: &Setting) -> Option<BoxedStrategy<String>> {
    use super::setting::Kind;
    if setting.check.is_some() {
        return None;
    }
    let quoted = |text: String| file::toml_text(&text);
    Some(match setting.kind {
        Kind::Text | Kind::Path => "[^\0]{0,8}".prop_map(quoted).boxed(),
        Kind::Integer { min, max } => (min..=max).prop_map(|number| number.to_string()).boxed(),
        Kind::Size { min, max } => (min..=max).prop_map(|number| number.to_string()).boxed(),
        Kind::Duration { min_ms, max_ms } => {
            (min_ms..=max_ms).prop_map(move |ms| quoted(format!("{ms}ms"))).boxed()
        }
        Kind::Share => {
            (0..=1000_u16).prop_map(|number| (f64::from(number) / 1000.0).to_string()).boxed()
        }
        Kind::Boolean => any::<bool>().prop_map(|number| number.to_string()).boxed(),
        Kind::Choice(words) => {
            proptest::sample::select(words).prop_map(move |word| quoted(word.to_owned())).boxed()
        }
        Kind::List { .. } => {
            let items = proptest::collection::vec("[^\0]{0,8}", 0..3);
            let quoted =
                move |items: Vec<String>| items.into_iter().map(quoted).collect::<Vec<_>>();
            items.prop_map(move |items| format!("[{}]", quoted(items).join(", "))).boxed()
        }
        Kind::Mode => (0_u32..0o10000).prop_map(|mode| format!("0o{mode:o}")).boxed(),
    })
}

/// A whole file that is right.
fn right_file() -> impl Strategy<Value = String> {
    let lines: Vec<BoxedStrategy<String>> = settings::SETTINGS
        .iter()
        .filter(|setting| setting.key != "env_file")
        // Its settings depend on each other.
        .filter(|setting| !setting.key.starts_with("tls."))
        .filter_map(|setting| {
            let line =
                fitting(setting)?.prop_map(|fitting| format!("{} = {fitting}\n", setting.key));
            Some(proptest::option::of(line).prop_map(Option::unwrap_or_default).boxed())
        })
        .collect();
    lines.prop_map(|lines| lines.concat())
}

/// The reference file, with some of its bytes gone, doubled, or something else.
fn damaged_reference() -> impl Strategy<Value = String> {
    const TOKENS: [&str; 12] =
        ["\"", "'", "[", "]", "[[", "=", "\n", "#", ".", "{", "\u{e9}", "9e999"];
    let lines = include_str!("../../config.toml").lines();
    let text = lines.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let place = || any::<proptest::sample::Index>();
    let damage = (place(), 0..20_usize, 0..3_u8, proptest::sample::select(&TOKENS[..]));
    proptest::collection::vec(damage, 0..8).prop_map(move |damages| {
        let mut chars: Vec<char> = text.chars().collect();
        for (place, length, kind, token) in damages {
            let begin = place.index(chars.len());
            let end = (begin + length).min(chars.len());
            let doubled: Vec<char> = chars[begin..end].to_vec();
            match kind {
                0 => drop(chars.drain(begin..end)),
                1 => drop(chars.splice(begin..begin, doubled)),
                _ => drop(chars.splice(begin..begin, token.chars())),
            }
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn a_damaged_file_is_read_or_refused_in_words(text in damaged_reference()) {
        match Config::from_toml(&text, &[]) {
            Ok(config) => drop(printed(&config)),
            Err(Error::Config(error)) => {
                prop_assert!(!error.problems().is_empty());
                for problem in error.problems() {
                    prop_assert!(problem.starts_with("config.toml:"), "{problem}");
                }
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn no_text_is_too_odd(text: String) {
        drop(Config::from_toml(&text, APP));
    }

    #[test]
    fn what_is_printed_reads_back(text in right_file()) {
        let config = Config::from_toml(&text, &[]).unwrap();
        let text = printed(&config);
        prop_assert_eq!(printed(&Config::from_toml(&text, &[]).unwrap()), text);
    }

    #[test]
    fn every_error_has_its_line_and_key(text in lines()) {
        if let Err(Error::Config(error)) = Config::from_toml(&text, &[]) {
            for problem in error.problems() {
                prop_assert!(problem.starts_with("config.toml:"), "{}", problem);
            }
        }
    }

    #[test]
    fn no_env_file_is_too_odd(text in r#"([A-C]{0,2}[=$"' #\\{}\na]{0,4}\PC{0,2}){0,12}"#) {
        let mut found = Problems::default();
        drop(env_file::parse(&text, ".env", &mut found));
    }
}
