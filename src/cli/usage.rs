//! The text for help, and for arguments that clap does not understand: one line that begins with the
//! program's name, as all other errors of the program, with a tip that does not lead to an option
//! which is then refused.

use std::io;

use anstream::{AutoStream, ColorChoice};
use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::command::{LINKED, Own, command};
use crate::config::closest;

/// The text of an error, of help, or of the version.
pub(super) fn text(own: Own, error: &Error) -> String {
    if error.use_stderr() {
        return format!("{}: {}\n", own.program.name, reason(own, error));
    }
    let text = error.render();
    match AutoStream::choice(&io::stdout()) {
        ColorChoice::Never => text.to_string(),
        ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => {
            text.ansi().to_string()
        }
    }
}

fn reason(own: Own, error: &Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match (error.kind(), context(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(found)) => unknown(own, found),
        (ErrorKind::InvalidValue, Some(option))
            if context(ContextKind::InvalidValue).is_none_or(str::is_empty) =>
        {
            let (name, value) = option.split_once(' ').unwrap_or((option, "a value"));
            format!("{name}: expected {value}, found nothing")
        }
        _ => first_paragraph(&error.render().to_string()),
    }
}

/// The reason for an argument that is no option and no word that is expected.
fn unknown(own: Own, found: &str) -> String {
    let name = own.program.name;
    if let Some(option) = found.strip_prefix("--") {
        return match closest_option(own, option) {
            Some(meant) => format!("{found}: unknown option: did you mean \"--{meant}\"?"),
            None => format!("{found}: unknown option: `{name} --help` lists all"),
        };
    }
    if found.starts_with('-') {
        format!("{found}: unknown option: `{name} --help` lists all")
    } else if found.contains(':') {
        format!("{found}: {LINKED}")
    } else {
        format!("{found}: unexpected argument")
    }
}

/// The first sentence of clap's error, on one line.
fn first_paragraph(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines: Vec<&str> =
        text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    lines.join(" ")
}

/// The option in `--help` that is most like this one.
fn closest_option(own: Own, option: &str) -> Option<String> {
    let command = command(own);
    let subcommands = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let shown = command.get_arguments().chain(subcommands).filter(|arg| !arg.is_hide_set());
    let names: Vec<String> = shown.filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
    closest(option, names.iter().map(String::as_str)).map(str::to_owned)
}
