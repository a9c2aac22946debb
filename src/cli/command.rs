//! From arguments to what is asked for. Options are made from the table of settings; their values
//! are judged later, with all other layers, so that everything wrong is said at once.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::EXIT_USAGE;
use crate::config::closest;
use crate::config::gunicorn::{FlagValue, REFUSED};
use crate::config::setting::{Kind, Setting};
use crate::config::settings::SETTINGS;
use crate::config::sources::{FileSource, Flag};

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "config.toml";
/// The commands, for suggestions.
const COMMANDS: [&str; 3] = ["check", "config", "healthcheck"];

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Serve,
    Check,
    Config,
    Reference,
    Markdown,
    Healthcheck(Question),
}

/// What a health check is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether requests should come here: not while the database is away.
    Ready,
    /// Whether it serves at all: no restart would better the database.
    Live,
}

/// What the arguments come to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Something to do.
    Asked { task: Task, file: FileSource, flags: Vec<Flag> },
    /// Something to say: help, the version, or what is wrong with the arguments.
    Said { text: String, exit_code: u8 },
}

/// Reads the arguments; the first is the program's name. `file` is what the environment names.
pub(super) fn parse(
    app: &'static [Setting],
    arguments: impl IntoIterator<Item = OsString>,
    file: Option<String>,
) -> Outcome {
    let matches = match command(app).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let exit_code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return Outcome::Said { text: error.to_string(), exit_code };
        }
    };
    // Options may stand on both sides of the command; clap brings them all into its matches.
    let (name, inner) = matches.subcommand().unwrap_or(("", &matches));
    let refusals = refusals(name, &matches, inner);
    if !refusals.is_empty() {
        return Outcome::Said { text: refusals, exit_code: EXIT_USAGE };
    }
    let task = match name {
        "check" => Task::Check,
        "config" if inner.get_flag("reference") => Task::Reference,
        "config" if inner.get_flag("markdown") => Task::Markdown,
        "config" => Task::Config,
        "healthcheck" if inner.get_flag("live") => Task::Healthcheck(Question::Live),
        "healthcheck" => Task::Healthcheck(Question::Ready),
        _ if inner.get_flag("check-config") => Task::Check,
        _ if inner.get_flag("print-config") => Task::Config,
        _ => Task::Serve,
    };
    let named = inner.get_one::<String>("config-file").cloned().or(file);
    let file = match named {
        Some(path) => FileSource::Required(PathBuf::from(path)),
        None => FileSource::Optional(PathBuf::from(DEFAULT_FILE)),
    };
    Outcome::Asked { task, file, flags: flags(app, inner) }
}

/// The options of settings that were given.
fn flags(app: &'static [Setting], matches: &ArgMatches) -> Vec<Flag> {
    let given = |setting: &Setting| {
        let texts = matches.get_many::<String>(setting.key)?.cloned().collect();
        Some(Flag { key: setting.key, name: format!("--{}", setting.long_flag()), texts })
    };
    SETTINGS.iter().chain(app).filter_map(given).collect()
}

/// What gunicorn understands and ferricorn does not, one sentence each.
fn refusals(name: &str, matches: &ArgMatches, inner: &ArgMatches) -> String {
    let mut text = String::new();
    let mut refuse = |what: &str, why: &str| text.push_str(&format!("ferricorn: {what}: {why}\n"));
    let known = name.is_empty() || COMMANDS.contains(&name);
    if !known {
        refuse(name, &unknown_command(name));
        // The arguments behind an unknown word are not parsed.
        return text;
    }
    for refused in REFUSED.iter().filter(|it| !it.flags.is_empty()) {
        let given = match refused.value {
            FlagValue::None => inner.get_flag(refused.key),
            FlagValue::Taken => inner.contains_id(refused.key),
        };
        if given {
            refuse(&format!("--{}", refused.flags[0]), refused.instead);
        }
    }
    let file = matches.get_one::<String>("config-file").or(inner.get_one("config-file"));
    if let Some(file) = file.filter(|file| file.ends_with(".py") || file.starts_with("python:")) {
        refuse(
            "--config",
            &format!("{file} is Python; `ferricorn config --reference` prints a TOML file instead"),
        );
    }
    text
}

fn unknown_command(word: &str) -> String {
    if word.contains(':') {
        return "the application is part of this program; leave the argument out".to_owned();
    }
    match closest(word, COMMANDS.into_iter()) {
        Some(meant) => format!("unknown command: did you mean {meant:?}?"),
        None => format!("unknown command: expected one of {}", COMMANDS.join(", ")),
    }
}

/// The whole command line.
pub(super) fn command(app: &'static [Setting]) -> Command {
    let switch = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    let config = Command::new("config")
        .about("Print every setting, its value and where it came from")
        .arg(switch("reference", "Print a config.toml with every setting at its default"))
        .arg(switch("markdown", "Print a Markdown table of every setting"));
    Command::new("ferricorn")
        .about("The iron unicorn: a Gunicorn-style multi-worker supervisor for Rust web services")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .allow_external_subcommands(true)
        .args_override_self(true)
        .subcommand_value_name("COMMAND")
        .override_usage("ferricorn [OPTIONS] [COMMAND]")
        .subcommand(Command::new("check").about("Say whether the configuration is valid, and exit"))
        .subcommand(config)
        .subcommand(
            Command::new("healthcheck")
                .about("Exit 0 when the server answers GET /readyz with 200")
                .arg(switch("live", "Ask GET /healthz: whether it serves, with a database or not")),
        )
        .arg(
            Arg::new("config-file")
                .long("config")
                .short('c')
                .value_name("FILE")
                .help("The configuration file [default: config.toml, if it is there]")
                .global(true),
        )
        .arg(switch("check-config", "The same as the command check"))
        .arg(switch("print-config", "The same as the command config"))
        .arg(
            Arg::new("version")
                .long("version")
                .short('v')
                .short_alias('V')
                .help("Print the version")
                .action(ArgAction::Version),
        )
        .args(SETTINGS.iter().chain(app).map(option))
        .args(REFUSED.iter().filter(|it| !it.flags.is_empty()).map(|refused| {
            let arg = Arg::new(refused.key)
                .long(refused.flags[0])
                .aliases(refused.flags[1..].iter().copied())
                .hide(true)
                .global(true);
            let arg = match refused.value {
                FlagValue::None => arg.action(ArgAction::SetTrue),
                // Whether a value follows is no longer of interest.
                FlagValue::Taken => arg.action(ArgAction::Append).num_args(0..=1),
            };
            match refused.short {
                Some(short) => arg.short(short),
                None => arg,
            }
        }))
}

/// A setting as an option.
fn option(setting: &'static Setting) -> Arg {
    let (table, _) = setting.table_and_name();
    let heading = if table.is_empty() { "Settings".to_owned() } else { format!("[{table}]") };
    let arg = Arg::new(setting.key)
        .long(setting.long_flag())
        .aliases(setting.aliases.iter().copied())
        .help(help(setting))
        .help_heading(heading)
        .value_name(value_name(setting))
        // `--workers -1` is a wrong number of workers, not an unknown option.
        .allow_negative_numbers(true)
        .global(true);
    let arg = match setting.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match setting.kind {
        Kind::List { .. } => arg.action(ArgAction::Append),
        // `--proxy-protocol` alone is on, as in gunicorn.
        Kind::Boolean => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Text
        | Kind::Path
        | Kind::Integer { .. }
        | Kind::Duration { .. }
        | Kind::Size { .. }
        | Kind::Choice(_)
        | Kind::Mode => arg.action(ArgAction::Set),
    }
}

fn help(setting: &Setting) -> String {
    if setting.default.is_empty() {
        return setting.about.to_owned();
    }
    format!("{} [default: {}]", setting.about, setting.default)
}

fn value_name(setting: &Setting) -> String {
    if let Some(name) = setting.value_name {
        return name.to_owned();
    }
    match setting.kind {
        Kind::Text | Kind::List { .. } => "TEXT".to_owned(),
        Kind::Path => "PATH".to_owned(),
        Kind::Integer { .. } => "N".to_owned(),
        Kind::Duration { .. } => "SECONDS".to_owned(),
        Kind::Size { .. } => "BYTES".to_owned(),
        Kind::Boolean => "true|false".to_owned(),
        Kind::Choice(words) => words.join("|"),
        Kind::Mode => "MODE".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command(&[]).debug_assert();
    }

    fn asked(arguments: &[&str]) -> (Task, FileSource, Vec<Flag>) {
        let arguments = ["ferricorn"].iter().chain(arguments).map(OsString::from);
        match parse(&[], arguments, None) {
            Outcome::Asked { task, file, flags } => (task, file, flags),
            Outcome::Said { text, .. } => panic!("{text}"),
        }
    }

    fn said(arguments: &[&str]) -> (String, u8) {
        let arguments = ["ferricorn"].iter().chain(arguments).map(OsString::from);
        match parse(&[], arguments, None) {
            Outcome::Said { text, exit_code } => (text, exit_code),
            Outcome::Asked { task, .. } => panic!("{task:?}"),
        }
    }

    fn flag(key: &'static str, name: &str, texts: &[&str]) -> Flag {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        Flag { key, name: name.to_owned(), texts }
    }

    #[test]
    fn the_gunicorn_command_of_old_works() {
        let (task, file, flags) = asked(&[
            "--bind",
            "0.0.0.0:5000",
            "--workers",
            "4",
            "--timeout",
            "120",
            "--access-logfile",
            "-",
            "--error-logfile",
            "-",
        ]);
        assert_eq!(task, Task::Serve);
        assert_eq!(file, FileSource::Optional("config.toml".into()));
        assert_eq!(
            flags,
            [
                flag("bind", "--bind", &["0.0.0.0:5000"]),
                flag("workers", "--workers", &["4"]),
                flag("timeout", "--timeout", &["120"]),
                flag("log.access", "--access-logfile", &["-"]),
                flag("log.error", "--error-logfile", &["-"]),
            ]
        );
    }

    #[test]
    fn short_options_and_aliases_are_gunicorns() {
        let (_, file, flags) = asked(&[
            "-c",
            "a.toml",
            "-b",
            ":1",
            "-b",
            ":2",
            "-w",
            "2",
            "-t",
            "3",
            "-p",
            "x.pid",
            "-u",
            "u",
            "-g",
            "g",
            "-m",
            "022",
            "-e",
            "A=1",
            "-e",
            "B=2",
            "-n",
            "n",
            "--log-file",
            "e.log",
            "--keep-alive",
            "5",
            "--limit-request-field_size",
            "9",
            "--proxy-protocol",
        ]);
        assert_eq!(file, FileSource::Required("a.toml".into()));
        let given: Vec<(&str, String)> =
            flags.iter().map(|flag| (flag.key, flag.texts.join("+"))).collect();
        let expected = [
            ("bind", ":1+:2"),
            ("workers", "2"),
            ("timeout", "3"),
            ("keepalive", "5"),
            ("user", "u"),
            ("group", "g"),
            ("umask", "022"),
            ("pidfile", "x.pid"),
            ("proc_name", "n"),
            ("env", "A=1+B=2"),
            ("proxy_protocol", "true"),
            ("log.error", "e.log"),
            ("limits.request_field_size", "9"),
        ];
        assert_eq!(given, expected.map(|(key, texts)| (key, texts.to_owned())));
    }

    #[test]
    fn options_stand_before_or_behind_the_command() {
        let before = asked(&["-w", "2", "-c", "a.toml", "check"]);
        let behind = asked(&["check", "-w", "2", "-c", "a.toml"]);
        assert_eq!(before, behind);
        assert_eq!(before.0, Task::Check);
        assert_eq!(before.2, [flag("workers", "--workers", &["2"])]);
    }

    #[test]
    fn the_last_of_a_repeated_option_counts() {
        let (_, _, flags) = asked(&["--workers", "2", "--workers", "3"]);
        assert_eq!(flags, [flag("workers", "--workers", &["3"])]);
    }

    #[test]
    fn every_refused_option_is_met_with_its_sentence() {
        for refused in REFUSED {
            for name in refused.flags {
                let option = format!("--{name}");
                let mut arguments = vec![option.as_str()];
                if refused.value == FlagValue::Taken {
                    arguments.push("x");
                }
                let (text, exit_code) = said(&arguments);
                let first = refused.flags[0];
                assert_eq!(text, format!("ferricorn: --{first}: {}\n", refused.instead));
                assert_eq!(exit_code, 64);
            }
        }
        assert_eq!(said(&["-k", "gthread"]), said(&["--worker-class", "gthread"]));
        assert_eq!(said(&["-D"]), said(&["--daemon"]));
    }

    #[test]
    fn a_word_that_is_no_command_is_refused() {
        insta::assert_snapshot!(
            said(&["app:app", "--workers", "3"]).0,
            @"ferricorn: app:app: the application is part of this program; leave the argument out"
        );
        insta::assert_snapshot!(
            said(&["chekc"]).0,
            @r#"ferricorn: chekc: unknown command: did you mean "check"?"#
        );
        insta::assert_snapshot!(
            said(&["serve"]).0,
            @"ferricorn: serve: unknown command: expected one of check, config, healthcheck"
        );
    }
}
