//! The command line: what was asked for, done, and said. The one module that prints.
//!
//! All output goes through [`print`], since a reader that has gone (`ferricorn config | head`)
//! is not an error; `println!` would panic.

mod command;
mod control;
mod documents;
mod from_gunicorn;
mod healthcheck;
mod run;
mod running;
mod status;
mod stderr;
mod stop_time;
#[cfg(feature = "top")]
mod top;
mod usage;
mod why;

use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use self::command::{Given, Outcome, Own, Question, Task};
use self::stderr::complain;
use crate::config::Error;
use crate::config::environment::CONFIG_VARIABLE;
use crate::config::sources::{ARGUMENTS_VARIABLE, FileSource, Sources};
use crate::config::{Config, Shown, reference};
use crate::embed::{App, Program, Subcommand};
use crate::start::surroundings;

/// Wrong usage (`EX_USAGE`, sysexits.h).
const EXIT_USAGE: u8 = 64;
/// A bug (`EX_SOFTWARE`, sysexits.h).
const EXIT_BUG: u8 = 70;
/// A subcommand of the application's has failed.
const EXIT_FAILED: u8 = 1;
/// The exit code that `docker` takes for "unhealthy"; other codes are reserved there.
const EXIT_UNHEALTHY: u8 = 1;

/// The whole program: reads the command line and serves the application, or does what else was
/// asked for. The code is one of those in the README.
///
/// ```no_run
/// # struct Hello;
/// # impl ferricorn::App for Hello {
/// #     async fn router(
/// #         &self,
/// #         _: &ferricorn::WorkerContext,
/// #     ) -> Result<axum::Router, ferricorn::BoxError> {
/// #         Ok(axum::Router::new())
/// #     }
/// # }
/// fn main() -> std::process::ExitCode {
///     ferricorn::main(Hello)
/// }
/// ```
#[must_use]
pub fn main<A: App>(app: A) -> ExitCode {
    catch_unwind(AssertUnwindSafe(|| run(app))).unwrap_or_else(|panic| {
        let told = told(panic.as_ref());
        // Nothing is owned any more by now: workers hear of it by the end of their channels, and the
        // logger writes what it finds.
        tracing::error!(event = "bug", "ended by a bug: {told}");
        complain(&prefixed(Program::of::<A>(), "ended by a bug: ", told));
        ExitCode::from(EXIT_BUG)
    })
}

/// Returns the panic's own words.
fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

fn run<A: App>(app: A) -> ExitCode {
    let sources = Sources::process(FileSource::None);
    let program = Program::of::<A>();
    let own = Own { program, settings: A::SETTINGS, commands: app.commands() };
    let given = Given {
        arguments: std::env::args_os().collect(),
        variable: sources.variable(ARGUMENTS_VARIABLE),
        file: sources.variable(CONFIG_VARIABLE),
    };
    match command::parse(own, given) {
        Outcome::Said { text, exit_code } => {
            if exit_code == 0 {
                return exit(program, print(&text));
            }
            complain(&text);
            ExitCode::from(exit_code)
        }
        Outcome::Asked { task, file, flags } => {
            let sources = Sources {
                file,
                flags,
                arguments_read: true,
                app: Some(A::SETTINGS),
                listeners: Some(A::LISTENERS),
                ..sources
            };
            perform(task, sources, app)
        }
    }
}

/// Does what was asked for.
fn perform<A: App>(task: Task, sources: Sources, app: A) -> ExitCode {
    let program = Program::of::<A>();
    let done = match task {
        Task::Reference => print(&program.named(&reference::toml(A::SETTINGS))),
        Task::Markdown => print(&reference::markdown(A::SETTINGS)),
        Task::FromGunicorn(file) => from_gunicorn::toml_of(&file)
            .map_err(|reason| Error::Config(reason.into()))
            .and_then(|text| print(&text)),
        // Its warnings go to the error log.
        Task::Serve => Config::load(sources).and_then(|config| crate::start::run(config, app)),
        Task::Check => Config::load(sources).and_then(|config| check(program, &config)),
        Task::Config => Config::load(sources).and_then(|config| show(program, &config, |_| true)),
        Task::Changed => Config::load(sources)
            .and_then(|config| show(program, &config, |setting| !setting.is_default)),
        Task::Healthcheck(question) => return health(program, sources, question),
        Task::Control(inquiry) => return control::run(program, &sources, &inquiry),
        Task::Own { index, arguments } => {
            return own(program, sources, &app.commands()[index], &arguments);
        }
    };
    exit(program, done)
}

/// Reports an error, and returns the code for it.
fn exit(program: Program, done: Result<(), Error>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&prefixed(program, "", &error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// A subcommand of the application's.
fn own(program: Program, sources: Sources, command: &Subcommand, arguments: &[String]) -> ExitCode {
    let config = match Config::load(sources) {
        Ok(config) => config,
        Err(error) => return exit(program, Err(error)),
    };
    match (command.run)(&config, arguments) {
        Ok(text) => exit(program, print(&text)),
        Err(error) => {
            complain(&prefixed(program, "", &error.to_string()));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn check(program: Program, config: &Config) -> Result<(), Error> {
    surroundings::judge_all(config)?;
    warn(program, config);
    for warning in stop_time::warnings(config) {
        complain(&prefixed(program, "warning: ", &warning));
    }
    let all = config.shown().count();
    let own = config.shown().filter(|setting| !setting.is_default).count();
    let file = config.file().map(|file| file.display().to_string());
    let file = file.unwrap_or_else(|| "no configuration file".to_owned());
    let hint = if own == 0 { "" } else { ": `ferricorn config --changed`" };
    let text = format!("{file}: ok ({own} of {all} settings differ from their default{hint})\n");
    print(&program.named(&text))
}

/// Prints TOML: what is in force of these settings, each with its origin.
fn show(
    program: Program,
    config: &Config,
    is_asked_for: impl Fn(&Shown) -> bool,
) -> Result<(), Error> {
    warn(program, config);
    let mut text = String::new();
    for setting in config.shown().filter(is_asked_for) {
        let Shown { key, value, origin, is_default: _ } = setting;
        text.push_str(&format!("{key} = {value}  # {origin}\n"));
    }
    print(&text)
}

fn health(program: Program, sources: Sources, question: Question) -> ExitCode {
    // The file may have been edited since the server has read it.
    let healthy = Config::load(running::follow(sources))
        .map_err(|error| error.to_string())
        .and_then(|config| healthcheck::probe(&config, question));
    match healthy {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&prefixed(program, "", &why));
            ExitCode::from(EXIT_UNHEALTHY)
        }
    }
}

fn warn(program: Program, config: &Config) {
    for warning in config.warnings() {
        complain(&prefixed(program, "warning: ", warning));
    }
}

/// The program's name before each line.
fn prefixed(program: Program, kind: &str, lines: &str) -> String {
    let name = program.name;
    program.named(lines).lines().map(|line| format!("{name}: {kind}{line}\n")).collect()
}

/// Prints what was asked for. A reader that has gone has what it wanted; a full disk has not.
fn print(text: &str) -> Result<(), Error> {
    match write_all(&mut io::stdout().lock(), text) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::System { action: "write to stdout", source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write_all(to: &mut impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
