//! The table of settings as documents: the reference `config.toml` and the table of `docs/settings.md`.

use super::file::toml_text;
use super::setting::{Effect, Kind, Setting};

/// Columns of the reference, so that it can be read beside something else.
const WIDTH: usize = 98;

const HEAD: &str = "\
# Every setting with its default. A line that is left out keeps it.
#
# Each one is also an environment variable (FERRICORN_LOG_LEVEL for level in [log]) and an option
# (`ferricorn --help`). A later layer wins: this file, env_file, the environment, the command line.
# Durations are seconds, or texts like \"30s\", \"2m\", \"1h\", \"500ms\"; sizes are bytes, or texts
# like \"8KiB\", \"1MB\". Where \"\" means none, \"none\" and \"off\" mean it too, in every layer: an
# empty variable counts as unset. `ferricorn check` says what is wrong, `ferricorn config` what is
# in force.
";

/// A `config.toml` that sets every setting to its default.
pub(crate) fn toml(app: &'static [Setting]) -> String {
    let mut text = HEAD.to_owned();
    let mut current = "";
    for setting in Setting::all(app) {
        let (table, name) = setting.table_and_name();
        if table != current {
            current = table;
            text.push_str(&format!("\n[{table}]"));
        }
        text.push('\n');
        for line in wrapped(&about(setting)) {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("{name} = {}\n", default(setting)));
    }
    text
}

/// A Markdown table of every setting.
pub(crate) fn markdown(app: &'static [Setting]) -> String {
    let mut text =
        "| key | default | meaning | option | environment |\n|---|---|---|---|---|\n".to_owned();
    for setting in Setting::all(app) {
        let cells = [
            format!("`{}`", setting.key),
            format!("`{}`", default(setting)),
            about(setting),
            options(setting),
            variables(setting),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

fn about(setting: &Setting) -> String {
    let words = match setting.kind {
        Kind::Choice(words) => format!(" One of: {}.", words.join(", ")),
        _ => String::new(),
    };
    let effect = match setting.effect {
        Effect::Reload => "",
        Effect::Restart => " A change takes effect at the next start.",
    };
    format!("{}{words}{effect}", setting.about)
}

fn default(setting: &Setting) -> String {
    let value = setting.read_text(setting.default);
    // A secret's default stands in the program: it is none.
    value.map_or_else(
        |_| toml_text(setting.default),
        |value| value.shown(super::setting::Secrecy::Open),
    )
}

fn options(setting: &Setting) -> String {
    let long = setting.long_flag();
    setting.short.map_or_else(|| format!("`--{long}`"), |short| format!("`-{short}`, `--{long}`"))
}

fn variables(setting: &Setting) -> String {
    let own = setting.variable();
    let foreign = setting.env.map(|variable| variable.name.to_owned());
    let file = setting.file_env.map(str::to_owned);
    let names = [Some(own), foreign, file].into_iter().flatten();
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH - 2 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::settings::SETTINGS;

    #[test]
    fn the_reference_is_the_defaults() {
        let config = Config::from_toml(&toml(&[]), &[]).unwrap();
        let default = Config::default();
        assert_eq!(format!("{config:?}"), format!("{default:?}"));
        let from_file = config.shown().filter(|shown| shown.origin.starts_with("config.toml:"));
        assert_eq!(from_file.count(), SETTINGS.len());
    }

    #[test]
    fn tables_stand_together_and_after_the_rest() {
        let mut tables: Vec<&str> =
            SETTINGS.iter().map(|setting| setting.table_and_name().0).collect();
        tables.dedup();
        assert_eq!(tables, ["", "log", "limits", "health", "http2", "tls", "program", "stats"]);
    }
}
