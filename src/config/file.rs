//! The layer of `config.toml`: its text, with the line of each value.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problems};
use super::resolve::SettingValue;
use super::table::{Stranger, Table};
use super::value::{Written, quote};

/// The content of a file.
pub(super) struct Contents {
    pub(super) entries: Vec<SettingValue>,
    /// Tables that were not read: where each one is, and its name.
    pub(super) strangers: Vec<(Origin, String)>,
}

/// Reads a whole file; `file` is what errors call it.
pub(super) fn read(text: &str, file: &str, table: &Table, problems: &mut Problems) -> Contents {
    let (document, errors) = DeTable::parse_recoverable(text);
    let contents = Contents { entries: Vec::new(), strangers: Vec::new() };
    let mut reader = Reader { text, file, table, found: Vec::new(), contents };
    for error in errors {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        reader.found.push((line, format!("invalid TOML: {}", error.message())));
    }
    let broken = reader.found.iter().map(|(line, _)| *line).collect();
    reader.walk("", document.get_ref(), &broken);
    let Reader { mut found, contents, .. } = reader;
    found.sort_by_key(|(line, _)| *line);
    for (line, message) in found {
        problems.add(&format!("{file}:{line}"), message);
    }
    contents
}

struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    table: &'a Table,
    /// The fault, with its line.
    found: Vec<(usize, String)>,
    contents: Contents,
}

impl Reader<'_> {
    /// Reads the keys of a table. Lines that are no TOML are broken: what the parser made of them
    /// must not be judged.
    fn walk(&mut self, prefix: &str, table: &DeTable<'_>, broken: &BTreeSet<usize>) {
        for (key, value) in table {
            let line = line_of(self.text, key.span().start);
            let dot = if prefix.is_empty() { "" } else { "." };
            let key = format!("{prefix}{dot}{}", key.get_ref());
            let is_value = !value.get_ref().is_table();
            if !(is_value && broken.contains(&line)) {
                self.key(&key, value.get_ref(), line, broken);
            }
        }
    }

    fn key(&mut self, key: &str, value: &DeValue<'_>, line: usize, broken: &BTreeSet<usize>) {
        if let Some(setting) = self.table.find(key) {
            match setting.read_written(written(value), || describe(value)) {
                Ok(value) => {
                    let origin = self.origin(line);
                    self.contents.entries.push(SettingValue { setting, value, origin });
                }
                Err(error) => self.found.push((line, format!("{key}: {error}"))),
            }
            return;
        }
        let is_ours = self.table.has_table(key);
        match value {
            DeValue::Table(inner) if is_ours => self.walk(key, inner, broken),
            other if is_ours => {
                let message = format!("{key}: expected a table, found {}", describe(other));
                self.found.push((line, message));
            }
            DeValue::Table(_) if !key.contains('.') => match self.table.stranger(key) {
                Stranger::Unjudged => {}
                Stranger::LeftAlone => {
                    let origin = self.origin(line);
                    self.contents.strangers.push((origin, key.to_owned()));
                }
                Stranger::Wrong(message) => self.found.push((line, message)),
            },
            _ => self.found.push((line, self.table.unknown_key(key))),
        }
    }

    fn origin(&self, line: usize) -> Origin {
        Origin::File { file: self.file.to_owned(), line }
    }
}

/// The line, from 1, of a byte.
fn line_of(text: &str, byte: usize) -> usize {
    let before = text.as_bytes().get(..byte).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// A value as settings are read from.
fn written<'a>(toml: &'a DeValue<'_>) -> Written<'a> {
    match toml {
        DeValue::String(text) => Written::Text(text),
        DeValue::Integer(integer) => {
            Written::Integer { digits: integer.as_str(), radix: integer.radix() }
        }
        DeValue::Float(float) => Written::Float(float.as_str()),
        DeValue::Boolean(boolean) => Written::Boolean(*boolean),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<_>>().map_or(Written::Other, Written::Texts)
        }
        DeValue::Datetime(_) | DeValue::Table(_) => Written::Other,
    }
}

/// The kind of a value in the file, for `found …`.
fn describe(toml: &DeValue<'_>) -> String {
    match toml {
        DeValue::String(text) => quote(text),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Array(items) => {
            let odd = items.iter().find(|item| item.get_ref().as_str().is_none());
            match odd {
                Some(item) => format!("a list with {} in it", describe(item.get_ref())),
                None if items.is_empty() => "an empty list".to_owned(),
                None => "a list".to_owned(),
            }
        }
    }
}

/// A text as TOML writes it.
pub(super) fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
