//! The command `run`: any program in the slots.

use clap::{Arg, ArgMatches, Command};

use crate::config::sources::{Flag, RUN};

/// Where clap keeps the program and its arguments.
const COMMAND: &str = "COMMAND";

/// The command, of a program with this name.
pub(super) fn command(name: &str) -> Command {
    Command::new("run")
        .about("Serve with any program: COMMAND runs in each slot instead of the application")
        .override_usage(format!("{name} run [OPTIONS] -- COMMAND…"))
        .arg(
            Arg::new(COMMAND).num_args(1..).last(true).required(true).help(
                "The program and its arguments; {fd} is the listening socket, {slot} the slot",
            ),
        )
}

/// The value that it sets, if it was given.
pub(super) fn flag(matches: &ArgMatches, variable: Option<&'static str>) -> Option<Flag> {
    // Other commands have no such argument.
    let words = matches.try_get_many::<String>(COMMAND).ok().flatten()?;
    let key = "program.command";
    let name = RUN.to_owned();
    Some(Flag { key, name, variable, texts: words.cloned().collect() })
}
