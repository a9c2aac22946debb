//! From the layers to one value for each setting, or all that is wrong with them at once.
//!
//! Every layer is judged whole: a wrong value is an error even where a later layer overrides it.

use std::any::type_name;
use std::fmt;
use std::path::Path;

use super::from_value::FromValue;
use super::problem::{Origin, Problems};
use super::setting::{Kind, Secrecy, Setting};
use super::sources::{self, Sources};
use super::table::Table;
use super::value::Value;
use super::{env_file, environment, file};

/// A value that a layer gives to a setting.
#[derive(Clone)]
pub(super) struct SettingValue {
    pub(super) setting: &'static Setting,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Every setting's value and origin, in the table's order.
#[derive(Clone)]
pub(super) struct Resolved {
    entries: Vec<SettingValue>,
    /// The `env_file`'s variables, in its order.
    pub(super) env_file: Vec<(String, String)>,
    /// Tables of the file that were not read: where each one is, and its name.
    pub(super) strangers: Vec<(Origin, String)>,
}

impl SettingValue {
    /// Returns true if it is what it would be without any source.
    pub(super) fn is_default(&self) -> bool {
        self.setting.read_text(self.setting.default).is_ok_and(|default| default == self.value)
    }
}

/// Reads all layers. What is wrong is added to the problems; its setting keeps the layer below.
pub(super) fn resolve(sources: &Sources, problems: &mut Problems) -> Resolved {
    let table = Table::new(sources.app, problems);
    let mut resolved = Resolved::defaults(&table, problems);
    resolved.put(implied(sources, &table).into_iter().collect());
    match sources.read_file() {
        Ok(Some((text, name))) => {
            let contents = file::read(&text, &name, &table, problems);
            resolved.put(contents.entries);
            resolved.strangers = contents.strangers;
        }
        Ok(None) => {}
        Err(error) => problems.add("", error),
    }
    // The env_file is the layer below the environment, but named by the layers above it, too.
    let mut later = Problems::default();
    let environment = environment::read(&sources.environment, sources, &table, &mut later);
    let flags = read_flags(sources, &table, &mut later);
    let above = environment.iter().chain(&flags).rev();
    let mut named = above.chain(&resolved.entries).filter(|entry| entry.setting.key == "env_file");
    if let Some(entry) = named.next().cloned() {
        let variables = read_env_file(&entry, sources, problems);
        resolved.put(environment::read(&variables, sources, &table, problems));
        resolved.env_file = variables
            .into_iter()
            .filter_map(|variable| Some((variable.name, variable.text?)))
            .collect();
    }
    resolved.put(environment);
    resolved.put(flags);
    problems.append(later);
    resolved
}

/// The value that a command implies, below every layer: `run -- COMMAND` is for any program, and many send
/// no `READY=1`.
fn implied(sources: &Sources, table: &Table) -> Option<SettingValue> {
    let command = sources.flags.iter().find(|flag| flag.name == sources::RUN)?;
    let setting = table.find("program.ready")?;
    let value = setting.read_text("auto").ok()?;
    Some(SettingValue {
        setting,
        value,
        origin: Origin::CommandLine { flag: command.name.clone() },
    })
}

fn read_flags(sources: &Sources, table: &Table, problems: &mut Problems) -> Vec<SettingValue> {
    let mut entries = Vec::new();
    for flag in &sources.flags {
        let Some(setting) = table.find(flag.key) else {
            continue;
        };
        let name = flag.name.clone();
        let origin = match flag.variable {
            Some(variable) => Origin::Arguments { variable, flag: name },
            None => Origin::CommandLine { flag: name },
        };
        match setting.read_texts(&flag.texts) {
            Ok(value) => {
                if flag.variable.is_none()
                    && let Some(error) = shown_by_ps(setting, &flag.texts)
                {
                    problems.add_for(&origin.place(), setting, error);
                }
                entries.push(SettingValue { setting, value, origin });
            }
            // Of a text that means nothing it is not known whether it holds a password.
            Err(error) => problems.add_for(&origin.place(), setting, error),
        }
    }
    entries
}

/// Why a secret must not be told by an option, where there is a better place for it: the command
/// line of every process is open to every user, and stays so.
fn shown_by_ps(setting: &Setting, texts: &[String]) -> Option<String> {
    let file = setting.file_env?;
    let is_secret = |text: &String| setting.secrecy == Secrecy::Secret && holds_password(text);
    texts.iter().any(is_secret).then(|| {
        let own = setting.variable();
        let variable = setting.env.map_or(own.as_str(), |env| env.name);
        format!(
            "it holds a password, and whoever may run ps sees what an option says; put it into \
             {variable}, or into a file that {file} names"
        )
    })
}

/// Returns true for a text of which [`Value::shown`] leaves something out.
pub(super) fn holds_password(text: &str) -> bool {
    let text = Value::Text(text.to_owned());
    text.shown(Secrecy::Secret) != text.shown(Secrecy::Open)
}

fn read_env_file(
    entry: &SettingValue,
    sources: &Sources,
    problems: &mut Problems,
) -> Vec<environment::Variable> {
    let file = entry.value.plain();
    if file.is_empty() {
        return Vec::new();
    }
    match sources.read_text(Path::new(&file), sources::FILE_MAX_BYTES) {
        Ok(text) => env_file::parse(&text, &file, problems),
        Err(error) => {
            problems.add_for(&entry.origin.place(), entry.setting, format!("{file}: {error}"));
            Vec::new()
        }
    }
}

impl Resolved {
    fn defaults(table: &Table, problems: &mut Problems) -> Self {
        let mut entries = Vec::new();
        for setting in table.settings() {
            match setting.read_text(setting.default) {
                Ok(value) => entries.push(SettingValue { setting, value, origin: Origin::Default }),
                Err(error) => problems.add_for("the default", setting, error),
            }
        }
        Self { entries, env_file: Vec::new(), strangers: Vec::new() }
    }

    fn put(&mut self, layer: Vec<SettingValue>) {
        for new in layer {
            let old = self.entries.iter_mut().find(|old| old.setting.key == new.setting.key);
            if let Some(old) = old {
                *old = new;
            }
        }
    }

    pub(super) fn entries(&self) -> &[SettingValue] {
        &self.entries
    }

    fn entry(&self, key: &str) -> Option<&SettingValue> {
        self.entries.iter().find(|entry| entry.setting.key == key)
    }

    /// Returns a text about this setting's value, behind its key and the place that the value came from.
    pub(super) fn placed(&self, key: &str, text: impl fmt::Display) -> String {
        let place = self.place(key);
        let colon = if place.is_empty() { "" } else { ": " };
        format!("{place}{colon}{key}: {text}")
    }

    /// Returns the place that the value came from; empty for a default.
    pub(super) fn place(&self, key: &str) -> String {
        self.entry(key).map_or_else(String::new, |entry| entry.origin.place())
    }

    /// Returns true if it is what it would be without any source.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.entry(key).is_none_or(SettingValue::is_default)
    }

    /// Returns true if an option of the command line gives the value.
    pub(super) fn is_of_command_line(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| matches!(entry.origin, Origin::CommandLine { .. }))
    }

    /// A table's values, for an application's own type.
    pub(super) fn section(&self, name: &str) -> serde_json::Value {
        let mut section = serde_json::Value::Object(serde_json::Map::new());
        for entry in &self.entries {
            let inside = entry.setting.key.strip_prefix(name).and_then(|key| key.strip_prefix('.'));
            let Some(inside) = inside else { continue };
            let mut place = &mut section;
            for part in inside.split('.') {
                place = &mut place[part];
            }
            *place = entry.value.to_json();
        }
        section
    }
}

/// Values by key.
impl Resolved {
    /// Reads a value as the type of its field.
    ///
    /// # Errors
    /// A mistake in the tables of settings: no value has this key, or the type cannot hold the value.
    pub(super) fn get<T: FromValue>(&self, key: &str) -> Result<T, String> {
        let Some(entry) = self.entry(key) else {
            return Err(format!("{key}: no setting with this key has a valid default"));
        };
        T::from_value(&entry.value).ok_or_else(|| {
            let expected = type_name::<T>();
            let found = entry.value.shown(entry.setting.secrecy);
            self.placed(key, format!("expected a value for {expected}, found {found}"))
        })
    }

    /// Returns the items of a list; none of a value that [`Resolved::get`] refuses as a list.
    pub(super) fn list(&self, key: &str) -> &[String] {
        self.entry(key).and_then(|entry| entry.value.items()).unwrap_or_default()
    }

    /// Returns the highest value of a number, as far as the type reaches.
    pub(super) fn number_max(&self, key: &str) -> u16 {
        let kind = self.entry(key).map(|entry| entry.setting.kind);
        let Some(Kind::Integer { max, .. }) = kind else { return u16::MAX };
        u16::try_from(max).unwrap_or(u16::MAX)
    }
}

/// Not derived: secrets are masked.
impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |entry: &SettingValue| entry.value.shown(entry.setting.secrecy);
        f.debug_map()
            .entries(self.entries.iter().map(|entry| (entry.setting.key, shown(entry))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::sources::{FileSource, Flag, Sources};
    use crate::config::{Config, ProgramReady};

    #[test]
    fn command_of_run_is_ready_by_any_sign_where_none_is_set() {
        let ready = |text: &str, flag: &str| {
            let mut sources = Sources::none();
            sources.file = FileSource::Text(text.to_owned());
            let key = "program.command";
            let texts = vec!["node".to_owned()];
            sources.flags.push(Flag { key, name: flag.to_owned(), variable: None, texts });
            Config::load(sources).unwrap().program.ready
        };
        assert_eq!(ready("", "--program-command"), ProgramReady::Notify);
        assert_eq!(ready("", "run --"), ProgramReady::Auto);
        assert_eq!(ready("[program]\nready = 'listen'", "run --"), ProgramReady::Listen);
        assert_eq!(ready("[program]\nready = 'notify'", "run --"), ProgramReady::Notify);
    }
}
