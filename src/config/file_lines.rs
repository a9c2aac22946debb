//! Stands in for `file` where the feature `toml` is off: a file has one setting a line, its value as JSON
//! has it (`log.level = "info"`), which is the part of TOML that one image hands to the next.

use serde_json::Value as Json;

use super::problem::{Origin, Problems};
use super::resolve::SettingValue;
use super::table::{Stranger, Table};
pub(super) use super::value::json_text as toml_text;
use super::value::{Written, quote};

/// The refusal of all other lines.
const UNREADABLE: &str = "expected a line like workers = 4 or log.level = \"info\"; for tables and the other \
                          forms of TOML build ferricorn with its feature \"toml\"";

/// The content of a file.
pub(super) struct Contents {
    pub(super) entries: Vec<SettingValue>,
    /// Tables that were not read: where each one is, and its name.
    pub(super) strangers: Vec<(Origin, String)>,
}

/// Reads a whole file; `file` is what errors call it.
pub(super) fn read(text: &str, file: &str, table: &Table, problems: &mut Problems) -> Contents {
    let mut contents = Contents { entries: Vec::new(), strangers: Vec::new() };
    for (before, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let origin = Origin::File { file: file.to_owned(), line: before + 1 };
        if let Err(problem) = contents.line(line, &origin, table) {
            problems.add(&origin.place(), problem);
        }
    }
    contents
}

impl Contents {
    fn line(&mut self, line: &str, origin: &Origin, table: &Table) -> Result<(), String> {
        let (key, json) = line.split_once('=').ok_or(UNREADABLE)?;
        let key = key.trim();
        let json: Json = serde_json::from_str(json).map_err(|_| UNREADABLE)?;
        let origin = origin.clone();
        let Some(setting) = table.find(key) else {
            return match key.split_once('.') {
                Some((name, _)) if !table.has_table(name) => match table.stranger(name) {
                    Stranger::Unjudged => Ok(()),
                    Stranger::LeftAlone => {
                        self.strangers.push((origin, name.to_owned()));
                        Ok(())
                    }
                    Stranger::Wrong(problem) => Err(problem),
                },
                Some(_) | None => Err(table.unknown_key(key)),
            };
        };
        if self.entries.iter().any(|entry| entry.setting.key == key) {
            return Err(format!("duplicate key {key:?}"));
        }
        let value = value(&json, |written| setting.read_written(written, || describe(&json)));
        let value = value.map_err(|error| format!("{key}: {error}"))?;
        self.entries.push(SettingValue { setting, value, origin });
        Ok(())
    }
}

/// Calls this with a value as settings are read from.
fn value<T>(json: &Json, read: impl FnOnce(Written<'_>) -> T) -> T {
    match json {
        Json::String(text) => read(Written::Text(text)),
        Json::Number(number) if number.is_f64() => read(Written::Float(&number.to_string())),
        Json::Number(number) => read(Written::Integer { digits: &number.to_string(), radix: 10 }),
        Json::Bool(boolean) => read(Written::Boolean(*boolean)),
        Json::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            read(texts.collect::<Option<_>>().map_or(Written::Other, Written::Texts))
        }
        Json::Null | Json::Object(_) => read(Written::Other),
    }
}

/// The kind of a value in the file, for `found …`.
fn describe(json: &Json) -> String {
    match json {
        Json::String(text) => quote(text),
        Json::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Json::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}
