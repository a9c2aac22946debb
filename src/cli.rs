//! The command line: what was asked for, done, and said. The one module that prints.
//!
//! What is printed goes through [`print`], since a reader that has gone (`ferricorn config | head`)
//! is not an error; `println!` would panic.

mod command;
mod healthcheck;
mod running;

use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use self::command::{Outcome, Question, Task};
use crate::config::environment::CONFIG_VARIABLE;
use crate::config::sources::{FileSource, Sources};
use crate::config::{Config, Shown, reference};
use crate::embed::App;
use crate::error::Error;

/// Wrong usage (`EX_USAGE`, sysexits.h).
const EXIT_USAGE: u8 = 64;
/// A bug (`EX_SOFTWARE`, sysexits.h).
const EXIT_BUG: u8 = 70;
/// What `docker` takes for "unhealthy"; other codes are reserved there.
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
        tracing::error!("ended by a bug: {told}");
        complain(&prefixed("ended by a bug: ", told));
        ExitCode::from(EXIT_BUG)
    })
}

/// What the panic says of itself.
fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

fn run<A: App>(app: A) -> ExitCode {
    let sources = Sources::process(FileSource::None);
    match command::parse(A::SETTINGS, std::env::args_os(), sources.variable(CONFIG_VARIABLE)) {
        Outcome::Said { text, exit_code } => {
            if exit_code == 0 {
                print(&text);
            } else {
                complain(&text);
            }
            ExitCode::from(exit_code)
        }
        Outcome::Asked { task, file, flags } => {
            perform(task, Sources { file, flags, app: Some(A::SETTINGS), ..sources }, app)
        }
    }
}

/// Does what was asked for.
fn perform<A: App>(task: Task, sources: Sources, app: A) -> ExitCode {
    let done = match task {
        Task::Reference => {
            print(&reference::toml(A::SETTINGS));
            Ok(())
        }
        Task::Markdown => {
            print(&reference::markdown(A::SETTINGS));
            Ok(())
        }
        // Its warnings go to the error log.
        Task::Serve => Config::load(sources).and_then(|config| crate::embed::run(config, app)),
        Task::Check => Config::load(sources).map(|config| check(&config)),
        Task::Config => Config::load(sources).map(|config| show(&config)),
        Task::Healthcheck(question) => return health(sources, question),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain_of(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn check(config: &Config) {
    warn(config);
    let all = config.shown().count();
    let own = config.shown().filter(|setting| !setting.is_default).count();
    let file = config.file().map(|file| file.display().to_string());
    let file = file.unwrap_or_else(|| "no configuration file".to_owned());
    print(&format!("{file}: ok ({own} of {all} settings differ from their default)\n"));
}

/// Prints TOML: what is in force, each with its origin.
fn show(config: &Config) {
    warn(config);
    let mut text = String::new();
    for setting in config.shown() {
        let Shown { key, value, origin, is_default: _ } = setting;
        text.push_str(&format!("{key} = {value}  # {origin}\n"));
    }
    print(&text);
}

fn health(sources: Sources, question: Question) -> ExitCode {
    // The file may have been edited since the server has read it.
    let healthy = Config::load(running::follow(sources))
        .map_err(|error| error.to_string())
        .and_then(|config| healthcheck::probe(&config, question));
    match healthy {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&prefixed("", &why));
            ExitCode::from(EXIT_UNHEALTHY)
        }
    }
}

fn warn(config: &Config) {
    for warning in config.warnings() {
        complain(&prefixed("warning: ", warning));
    }
}

fn complain_of(error: &Error) {
    complain(&prefixed("", &error.to_string()));
}

/// The program's name before each line.
fn prefixed(kind: &str, lines: &str) -> String {
    lines.lines().map(|line| format!("ferricorn: {kind}{line}\n")).collect()
}

fn print(text: &str) {
    // There is nobody left to tell when stdout is gone.
    let _: io::Result<()> = write_all(&mut io::stdout().lock(), text);
}

fn complain(text: &str) {
    let _: io::Result<()> = write_all(&mut io::stderr().lock(), text);
}

fn write_all(to: &mut impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
