//! From arguments to what is asked for. Options are made from the table of settings; their values
//! are judged later, with all other layers, so that everything wrong is said at once.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::control::{self, Inquiry};
use super::{EXIT_USAGE, documents, run, usage};
use crate::config::closest;
use crate::config::gunicorn::{FlagValue, REFUSED, Refused};
use crate::config::setting::{Kind, Setting};
use crate::config::sources::{ARGUMENTS_VARIABLE, FileSource, Flag};
use crate::embed::{Program, Subcommand};

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "config.toml";
/// Where clap keeps the arguments of an application's subcommand.
const ARGUMENTS: &str = "arguments";
/// The sentence about gunicorn's argument, the application.
pub(super) const LINKED: &str = "the application is part of this program; leave the argument out";
/// The commands, for suggestions.
const COMMANDS: [&str; 8] =
    ["run", "check", "config", "healthcheck", "completions", "man", "version", "help"];
/// The settings that the help of `healthcheck` shows: where the server is, and how to ask it.
const ASKED_BY: [&str; 3] = ["bind", "proxy_protocol", "proxy_allow_ips"];

/// The settings that the help of commands to a running server shows: by them it is found.
const CONTROLLED_BY: [&str; 2] = ["control", "pidfile"];

/// The application's part of the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) program: Program,
    pub(super) settings: &'static [Setting],
    pub(super) commands: &'static [Subcommand],
}

/// The purpose of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Serve,
    Check,
    Config,
    Changed,
    Reference,
    Markdown,
    /// A configuration file from the output of `gunicorn --print-config` in this file.
    FromGunicorn(PathBuf),
    Healthcheck(Question),
    /// A question or a command to a running server.
    Control(Inquiry),
    /// The application's subcommand with this index.
    Own {
        index: usize,
        arguments: Vec<String>,
    },
}

/// The aim of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// True if requests should come here: not while the database is away.
    Ready,
    /// True if it serves at all: no restart would better the database.
    Live,
}

/// The meaning of the arguments.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Something to do.
    Asked { task: Task, file: FileSource, flags: Vec<Flag> },
    /// Something to say: help, the version, or what is wrong with the arguments.
    Said { text: String, exit_code: u8 },
}

/// The files that a run reads.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The first is the program's name.
    pub(super) arguments: Vec<OsString>,
    /// Further options, from [`ARGUMENTS_VARIABLE`].
    pub(super) variable: Option<String>,
    /// The configuration file that the environment names.
    pub(super) file: Option<String>,
}

/// Reads the command line, and the options of the environment below it.
pub(super) fn parse(own: Own, given: Given) -> Outcome {
    let below = given.variable.map_or(Ok(Asked::default()), |text| of_variable(own, &text));
    let above = read(own, without_own_name(own, given.arguments), None);
    let (below, above) = match (below, above) {
        // What the variable holds does not matter for help.
        (_, Err(said @ Outcome::Said { exit_code: 0, .. })) => return said,
        (Err(said), _) | (_, Err(said)) => return said,
        (Ok(below), Ok(above)) => (below, above),
    };
    let file = match above.file.or(below.file).or(given.file) {
        Some(path) => FileSource::Required(PathBuf::from(path)),
        None => FileSource::Optional(PathBuf::from(DEFAULT_FILE)),
    };
    let task = above.task.or(below.task).unwrap_or(Task::Serve);
    Outcome::Asked { task, file, flags: [below.flags, above.flags].concat() }
}

/// The arguments without a first word that is the program's name: the command of a container whose
/// entry point is the program begins with it out of habit.
fn without_own_name(own: Own, mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = |at: usize| arguments.get(at).and_then(|word| Path::new(word).file_name());
    if name(1).is_some_and(|word| word == own.program.name || Some(word) == name(0)) {
        arguments.remove(1);
    }
    arguments
}

/// The wish of one list of arguments.
#[derive(Debug, Default)]
struct Asked {
    task: Option<Task>,
    file: Option<String>,
    flags: Vec<Flag>,
}

/// Reads the options of [`ARGUMENTS_VARIABLE`], which are written as for a shell.
fn of_variable(own: Own, text: &str) -> Result<Asked, Outcome> {
    let name = own.program.name;
    let refused = |text: &str| {
        let lines = text.lines().filter(|line| !line.is_empty());
        let text = lines.map(|line| {
            let line = line.strip_prefix(&format!("{name}: ")).unwrap_or(line);
            format!("{name}: {ARGUMENTS_VARIABLE}: {line}\n")
        });
        Outcome::Said { text: text.collect(), exit_code: EXIT_USAGE }
    };
    let Some(words) = shlex::split(text) else {
        return Err(refused("expected options as in a shell, found a quote without its second"));
    };
    let words = [name.to_owned()].into_iter().chain(words).map(OsString::from);
    read(own, words.collect(), Some(ARGUMENTS_VARIABLE)).map_err(|outcome| match outcome {
        Outcome::Said { text, .. } => refused(&text),
        asked @ Outcome::Asked { .. } => asked,
    })
}

fn read(
    own: Own,
    arguments: Vec<OsString>,
    variable: Option<&'static str>,
) -> Result<Asked, Outcome> {
    let said = |text, exit_code| Outcome::Said { text, exit_code };
    let arguments = joined(own.settings, arguments);
    let matches = command(own).try_get_matches_from(arguments).map_err(|error| {
        let exit_code = if error.use_stderr() { EXIT_USAGE } else { 0 };
        said(usage::text(own, &error), exit_code)
    })?;
    // Options may stand on both sides of the command; clap brings them all into its matches.
    let (name, inner) = matches.subcommand().unwrap_or(("", &matches));
    let refusals = refusals(own, name, &matches, inner);
    if !refusals.is_empty() {
        return Err(said(refusals, EXIT_USAGE));
    }
    if let Some(text) = documents::text(own, name, inner) {
        return Err(said(text, 0));
    }
    let (found, inner) = found(own, name, inner).map_err(|text| said(text, EXIT_USAGE))?;
    let asked = control::inquiry(name, inner).map(Task::Control);
    let task = found.or(asked).or_else(|| task(name, inner));
    let file = inner.get_one::<String>("config-file").cloned();
    Ok(Asked { task, file, flags: flags(own.settings, inner, variable) })
}

/// The same arguments with `--switch=word` for `--switch word`, where the word is one that the switch
/// takes: what follows it may as well be a command.
fn joined(app: &'static [Setting], arguments: Vec<OsString>) -> Vec<OsString> {
    let takes = |option: &OsString, word: &OsString| {
        let option = option.to_str()?.strip_prefix("--")?;
        let word = word.to_str()?;
        let mut switches = Setting::all(app).filter(|setting| setting.kind == Kind::Boolean);
        let switch = switches.find(|setting| setting.long_flag() == option)?;
        switch.read_text(word).is_ok().then(|| OsString::from(format!("--{option}={word}")))
    };
    let mut joined: Vec<OsString> = Vec::new();
    // The words behind "--" are another program's.
    let own = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    let (own, others) = arguments.split_at(own);
    for word in own.iter().cloned() {
        match joined.last().and_then(|option| takes(option, &word)) {
            Some(both) => *joined.last_mut().expect("there is a last one") = both,
            None => joined.push(word),
        }
    }
    joined.extend_from_slice(others);
    joined
}

/// Returns the task; `None` where the arguments name none.
fn task(name: &str, inner: &ArgMatches) -> Option<Task> {
    Some(match name {
        "run" => Task::Serve,
        "check" => Task::Check,
        "config" if let Some(file) = inner.get_one::<PathBuf>("from-gunicorn") => {
            Task::FromGunicorn(file.clone())
        }
        "config" if inner.get_flag("reference") => Task::Reference,
        "config" if inner.get_flag("markdown") => Task::Markdown,
        "config" if inner.get_flag("changed") => Task::Changed,
        "config" => Task::Config,
        "healthcheck" if inner.get_flag("live") => Task::Healthcheck(Question::Live),
        "healthcheck" => Task::Healthcheck(Question::Ready),
        _ if inner.get_flag("check-config") => Task::Check,
        _ if inner.get_flag("print-config") => Task::Config,
        _ => return None,
    })
}

/// The application's subcommand that was asked for, if it was one, and its matches.
///
/// # Errors
/// Returns the words that are expected instead. The arguments are not quoted: a password may be there.
fn found<'a>(
    own: Own,
    name: &str,
    matches: &'a ArgMatches,
) -> Result<(Option<Task>, &'a ArgMatches), String> {
    let (words, matches) = match matches.subcommand() {
        Some((second, inner)) => (vec![name, second], inner),
        None => (vec![name], matches),
    };
    let Some(index) = own.commands.iter().position(|command| command.words == words) else {
        return Ok((None, matches));
    };
    let arguments = matches.get_many::<String>(ARGUMENTS).into_iter().flatten();
    let arguments: Vec<String> = arguments.cloned().collect();
    let expected = own.commands[index].arguments;
    if arguments.len() != expected.len() {
        let place = format!("{}: {}", own.program.name, words.join(" "));
        let expected = expected.join(" ");
        return Err(format!("{place}: expected {expected}, found {} arguments\n", arguments.len()));
    }
    Ok((Some(Task::Own { index, arguments }), matches))
}

/// The application's subcommands, those of two words below their first.
fn own_commands(own: Own) -> Vec<Command> {
    let mut made: Vec<Command> = Vec::new();
    for command in own.commands {
        let last = command.words[command.words.len() - 1];
        let arguments = Arg::new(ARGUMENTS).num_args(0..).value_names(command.arguments);
        let arguments = if command.arguments.is_empty() { arguments.hide(true) } else { arguments };
        let inner = Command::new(last).about(command.about).arg(arguments);
        let first = command.words[0];
        if command.words.len() == 1 {
            made.push(inner);
            continue;
        }
        match made.iter().position(|group| group.get_name() == first) {
            Some(at) => {
                let group = made.remove(at);
                made.insert(at, group.subcommand(inner));
            }
            None => {
                let group = Command::new(first).about(command.about).subcommand_required(true);
                made.push(group.disable_help_subcommand(true).subcommand(inner));
            }
        }
    }
    made
}

/// The options of settings that were given.
fn flags(
    app: &'static [Setting],
    matches: &ArgMatches,
    variable: Option<&'static str>,
) -> Vec<Flag> {
    let given = |setting: &Setting| {
        let texts = matches.get_many::<String>(setting.key)?.cloned().collect();
        let name = format!("--{}", setting.long_flag());
        Some(Flag { key: setting.key, name, variable, texts })
    };
    Setting::all(app).filter_map(given).chain(run::flag(matches, variable)).collect()
}

/// Returns gunicorn's words that ferricorn does not understand, one sentence each.
fn refusals(own: Own, name: &str, matches: &ArgMatches, inner: &ArgMatches) -> String {
    let mut text = String::new();
    let program = own.program.name;
    let mut refuse = |what: &str, why: &str| text.push_str(&format!("{program}: {what}: {why}\n"));
    let mut words = [&COMMANDS, control::NAMES].concat();
    words.extend(own.commands.iter().map(|command| command.words[0]));
    let known = name.is_empty() || words.contains(&name);
    if !known {
        refuse(name, &unknown_command(name, &words));
        // The arguments behind an unknown word are not parsed.
        return text;
    }
    for refused in REFUSED.iter().filter(|refused| !refused.flags.is_empty()) {
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
            &format!("{file} is Python; `{program} config --reference` prints a TOML file instead"),
        );
    }
    text
}

fn unknown_command(word: &str, known: &[&str]) -> String {
    if word.contains(':') {
        return LINKED.to_owned();
    }
    match closest(word, known.iter().copied()) {
        Some(meant) => format!("unknown command: did you mean {meant:?}?"),
        None => format!("unknown command: expected one of {}", known.join(", ")),
    }
}

/// The whole command line.
pub(super) fn command(own: Own) -> Command {
    let refused = REFUSED.iter().filter(|refused| !refused.flags.is_empty());
    let command = shown(own).args(refused.map(refused_option));
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |subcommand| quiet(own, subcommand))
    })
}

/// A subcommand that takes the options of the settings, and whose help is about its own.
fn quiet(own: Own, subcommand: Command) -> Command {
    let shown: &[&str] = match subcommand.get_name() {
        "healthcheck" => &ASKED_BY,
        name if control::is_one(name) => &CONTROLLED_BY,
        _ => &[],
    };
    let hidden = Setting::all(own.settings).filter(|setting| !shown.contains(&setting.key));
    subcommand.args(hidden.map(|setting| option(setting).hide(true))).after_help(format!(
        "The options of settings are read, too: `{} --help` lists them.",
        own.program.name
    ))
}

/// An option of gunicorn's that is known in order to be refused.
fn refused_option(refused: &'static Refused) -> Arg {
    let arg = Arg::new(refused.key)
        .long(refused.flags[0])
        .aliases(refused.flags[1..].iter().copied())
        .hide(true)
        .global(true);
    let arg = match refused.value {
        FlagValue::None => arg.action(ArgAction::SetTrue),
        // The presence of a value no longer matters.
        FlagValue::Taken => arg.action(ArgAction::Append).num_args(0..=1),
    };
    match refused.short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// The command line without the options that are refused, as completions and the manual page show it.
pub(super) fn shown(own: Own) -> Command {
    let switch = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).help(help).action(ArgAction::SetTrue)
    };
    let config = Command::new("config")
        .about("Print every setting, its value and where it came from")
        .arg(switch("reference", "Print a config.toml with every setting at its default"))
        .arg(switch("changed", "Print only the settings that differ from their default"))
        .arg(switch("markdown", "Print a Markdown table of every setting"))
        .arg(
            Arg::new("from-gunicorn")
                .long("from-gunicorn")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Print a config.toml made from the output of `gunicorn --print-config`"),
        );
    Command::new(own.program.name)
        .about(own.program.about())
        .version(own.program.versions())
        .disable_version_flag(true)
        .allow_external_subcommands(true)
        .args_override_self(true)
        .subcommand_value_name("COMMAND")
        .override_usage(format!("{} [OPTIONS] [COMMAND]", own.program.name))
        .subcommand(run::command(own.program.name))
        .subcommand(Command::new("check").about("Say whether the configuration is valid, and exit"))
        .subcommand(config)
        .subcommand(
            Command::new("healthcheck")
                .about("Exit 0 when the server answers health.ready (GET /readyz) with 200")
                .arg(switch(
                    "live",
                    "Ask health.live (GET /healthz): whether it serves, ready or not",
                )),
        )
        .subcommands(control::commands())
        .subcommand(
            Command::new("completions")
                .about("Print the script by which a shell completes command lines")
                .arg(Arg::new("SHELL").required(true).value_parser(value_parser!(Shell))),
        )
        .subcommand(Command::new("man").about("Print the manual page, for man(1)"))
        .subcommand(Command::new("version").about("Print the version"))
        .subcommands(own_commands(own))
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
        .args(Setting::all(own.settings).map(option))
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
        | Kind::Share
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
        Kind::Share => "SHARE".to_owned(),
        Kind::Size { .. } => "BYTES".to_owned(),
        Kind::Boolean => "true|false".to_owned(),
        Kind::Choice(words) => words.join("|"),
        Kind::Mode => "MODE".to_owned(),
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
