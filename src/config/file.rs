//! The layer of `config.toml`: its text, with the line of each value.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problems};
use super::resolve::Entry;
use super::table::Table;
use super::value::describe;

/// Reads a whole file; `file` is what errors call it.
pub(super) fn read(text: &str, file: &str, table: &Table, problems: &mut Problems) -> Vec<Entry> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut broken = BTreeSet::new();
    for error in errors {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        broken.insert(line);
        problems.add(&format!("{file}:{line}"), error.message());
    }
    let mut reader = Reader { text, file, table, broken, problems, entries: Vec::new() };
    reader.walk("", document.get_ref());
    reader.entries
}

struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    table: &'a Table,
    /// Lines that are no TOML: what the parser made of them must not be judged.
    broken: BTreeSet<usize>,
    problems: &'a mut Problems,
    entries: Vec<Entry>,
}

impl Reader<'_> {
    /// Reads the keys of a table in the order of their lines.
    fn walk(&mut self, prefix: &str, table: &DeTable<'_>) {
        let mut keys: Vec<_> = table.iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in keys {
            let line = line_of(self.text, key.span().start);
            let dot = if prefix.is_empty() { "" } else { "." };
            let key = format!("{prefix}{dot}{}", key.get_ref());
            self.key(&key, value.get_ref(), line);
        }
    }

    fn key(&mut self, key: &str, value: &DeValue<'_>, line: usize) {
        let place = format!("{}:{line}", self.file);
        let is_broken = self.broken.contains(&line);
        match (self.table.find(key), value) {
            (Some(_), _) if is_broken => {}
            (Some(setting), value) => match setting.read_toml(value) {
                Ok(value) => {
                    let origin = Origin::File { file: self.file.to_owned(), line };
                    self.entries.push(Entry { setting, value, origin });
                }
                Err(error) => self.problems.add_for(&place, setting, error),
            },
            (None, DeValue::Table(inner)) if self.table.has_table(key) => self.walk(key, inner),
            (None, other) if self.table.has_table(key) => {
                let found = describe(other);
                self.problems.add(&place, format!("{key}: expected a table, found {found}"));
            }
            (None, _) if is_broken => {}
            (None, DeValue::Table(_)) if !key.contains('.') => {
                if self.table.is_complete() {
                    self.problems.add(&place, self.table.unknown_table(key));
                }
            }
            (None, _) => self.problems.add(&place, self.table.unknown_key(key)),
        }
    }
}

/// The line, from 1, of a byte.
fn line_of(text: &str, byte: usize) -> usize {
    let before = text.as_bytes().get(..byte).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
