//! One setting as data: what it is called in each layer, what it may be, and what it is for.
//!
//! Everything is `const`, so that an application's table is one `const` too. The default is a text
//! and is read as if it stood in the environment: a wrong one is an error of every start, which a
//! test finds, not the compiler.

use std::ops::RangeInclusive;

use super::settings::SETTINGS;

/// Judges a text beyond its kind. The error is a sentence of its own, like
/// `expected host:port, found "x"`; for a secret it must not quote the text.
pub type Check = fn(&str) -> Result<(), String>;

/// One setting: of ferricorn's own, or of an application's tables.
///
/// ```
/// use ferricorn::Setting;
///
/// const SETTINGS: &[Setting] = &[
///     Setting::text("database.url", "sqlite://data/app.db", "Where the rows are kept.")
///         .env("DATABASE_URL")
///         .file_env("DATABASE_URL_FILE")
///         .secret(),
///     Setting::integer("database.max_connections", "5", 1..=1000, "Connections of each worker."),
///     Setting::duration("database.connect_timeout", "60", 1..=3_600_000, "How long to wait."),
/// ];
/// # assert_eq!(SETTINGS.len(), 3);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
    pub(crate) word: Option<&'static str>,
    /// Texts that mean another.
    pub(crate) synonyms: &'static [(&'static str, &'static str)],
    pub(crate) env: Option<ForeignVariable>,
    pub(crate) file_env: Option<&'static str>,
    pub(crate) flag: Option<&'static str>,
    pub(crate) short: Option<char>,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) value_name: Option<&'static str>,
    pub(crate) check: Option<Check>,
    pub(crate) secrecy: Secrecy,
    pub(crate) effect: Effect,
    /// True if a program that serves instead of the application has no use for it.
    pub(crate) is_of_application: bool,
}

/// The kinds of values that a setting may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A path; relative ones are the business of who opens them.
    Path,
    /// A whole number in this range.
    Integer { min: u64, max: u64 },
    /// Seconds, or a text with units; the range is in milliseconds.
    Duration { min_ms: u64, max_ms: u64 },
    /// A share of a whole, in thousandths: 0 to 1.
    Share,
    /// Bytes, or a text with a unit.
    Size { min: u64, max: u64 },
    /// True or false.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts; where only one text fits (environment, command line) they are separated so.
    List { separator: char, empty: Empty },
    /// A file mode, octal.
    Mode,
}

/// The permission of a list to be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Empty {
    Allowed,
    Refused,
}

/// The part of a value that may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// All of it.
    Open,
    /// A URL without its password, the name of `NAME=value`, of anything else nothing.
    Secret,
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// At the next reload.
    Reload,
    /// At the next start only.
    Restart,
}

/// A variable that platforms set under a name of their own, and the text it stands for, where `{}`
/// is its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForeignVariable {
    pub(crate) name: &'static str,
    pub(crate) shape: &'static str,
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Makes the setting.
impl Setting {
    const fn new(
        key: &'static str,
        kind: Kind,
        default: &'static str,
        about: &'static str,
    ) -> Self {
        Self {
            key,
            kind,
            default,
            about,
            word: None,
            synonyms: &[],
            env: None,
            file_env: None,
            flag: None,
            short: None,
            aliases: &[],
            value_name: None,
            check: None,
            secrecy: Secrecy::Open,
            effect: Effect::Reload,
            is_of_application: false,
        }
    }

    /// One of ferricorn's own settings, with the default that this application wants for it. Every layer
    /// of the configuration wins over it.
    ///
    /// ```
    /// use ferricorn::Setting;
    ///
    /// const SETTINGS: &[Setting] = &[Setting::with_default("limits.body", "10MiB")];
    /// # assert_eq!(SETTINGS[0].key(), "limits.body");
    /// ```
    ///
    /// # Panics
    /// If no setting of ferricorn's own has this key; in a `const` that is an error of the compiler.
    #[must_use]
    pub const fn with_default(key: &'static str, default: &'static str) -> Self {
        let mut at = 0;
        while at < SETTINGS.len() {
            if is_same(SETTINGS[at].key.as_bytes(), key.as_bytes()) {
                let mut setting = SETTINGS[at];
                setting.default = default;
                return setting;
            }
            at += 1;
        }
        panic!("no setting of ferricorn's own has this key")
    }

    /// Lowers the highest value of a whole number. An application that keeps in memory what its clients
    /// share is served by one worker: any other number ends the start, or a reload, with the place in
    /// the file, and neither `TTIN` nor `scale` raises it.
    ///
    /// ```
    /// use ferricorn::Setting;
    ///
    /// const SETTINGS: &[Setting] = &[Setting::with_default("workers", "1").at_most(1)];
    /// # assert_eq!(SETTINGS[0].key(), "workers");
    /// ```
    ///
    /// # Panics
    /// If it is no whole number; in a `const` that is an error of the compiler.
    #[must_use]
    pub const fn at_most(mut self, most: u64) -> Self {
        let Kind::Integer { min, .. } = self.kind else { panic!("the setting is no whole number") };
        self.kind = Kind::Integer { min, max: most };
        self
    }

    /// A text. The key is `table.name`; `about` is one sentence for the reference and `--help`.
    #[must_use]
    pub const fn text(key: &'static str, default: &'static str, about: &'static str) -> Self {
        Self::new(key, Kind::Text, default, about)
    }

    /// A path.
    #[must_use]
    pub const fn path(key: &'static str, default: &'static str, about: &'static str) -> Self {
        Self::new(key, Kind::Path, default, about)
    }

    /// A whole number in a range.
    #[must_use]
    pub const fn integer(
        key: &'static str,
        default: &'static str,
        range: RangeInclusive<u64>,
        about: &'static str,
    ) -> Self {
        let kind = Kind::Integer { min: *range.start(), max: *range.end() };
        Self::new(key, kind, default, about)
    }

    /// Seconds, possibly with a fraction, or a text such as `"30s"`, `"2m"`, `"1h"`, `"500ms"`. The
    /// range is in milliseconds.
    #[must_use]
    pub const fn duration(
        key: &'static str,
        default: &'static str,
        range_ms: RangeInclusive<u64>,
        about: &'static str,
    ) -> Self {
        let kind = Kind::Duration { min_ms: *range_ms.start(), max_ms: *range_ms.end() };
        Self::new(key, kind, default, about)
    }

    /// A share of a whole: 0 to 1, to a thousandth.
    #[must_use]
    pub const fn share(key: &'static str, default: &'static str, about: &'static str) -> Self {
        Self::new(key, Kind::Share, default, about)
    }

    /// Bytes, or a text such as `"8KiB"`, `"1MB"`. The range is in bytes.
    #[must_use]
    pub const fn size(
        key: &'static str,
        default: &'static str,
        range: RangeInclusive<u64>,
        about: &'static str,
    ) -> Self {
        let kind = Kind::Size { min: *range.start(), max: *range.end() };
        Self::new(key, kind, default, about)
    }

    /// True or false.
    #[must_use]
    pub const fn boolean(key: &'static str, default: &'static str, about: &'static str) -> Self {
        Self::new(key, Kind::Boolean, default, about)
    }

    /// One of some words.
    #[must_use]
    pub const fn choice(
        key: &'static str,
        default: &'static str,
        words: &'static [&'static str],
        about: &'static str,
    ) -> Self {
        Self::new(key, Kind::Choice(words), default, about)
    }

    /// Texts, separated by commas in the default, the environment and on the command line.
    #[must_use]
    pub const fn list(key: &'static str, default: &'static str, about: &'static str) -> Self {
        let kind = Kind::List { separator: ',', empty: Empty::Allowed };
        Self::new(key, kind, default, about)
    }

    /// Texts that may contain commas: separated by line ends instead, in the default and the
    /// environment; an option is one text. White space before a line is not part of it.
    #[must_use]
    pub const fn lines(key: &'static str, default: &'static str, about: &'static str) -> Self {
        let kind = Kind::List { separator: '\n', empty: Empty::Allowed };
        Self::new(key, kind, default, about)
    }

    /// A file mode: `0o022` in the file, a text with a leading zero everywhere.
    #[must_use]
    pub const fn mode(key: &'static str, default: &'static str, about: &'static str) -> Self {
        Self::new(key, Kind::Mode, default, about)
    }
}

/// Further properties.
impl Setting {
    /// This word is a value too, whatever the kind: `"auto"`, or `""` for none, which may then be
    /// written as `none` or `off`, too; of a list, none is no item.
    #[must_use]
    pub const fn or_word(mut self, word: &'static str) -> Self {
        self.word = Some(word);
        self
    }

    /// Texts that are read as another: what other programs call the same.
    #[must_use]
    pub const fn synonyms(mut self, synonyms: &'static [(&'static str, &'static str)]) -> Self {
        self.synonyms = synonyms;
        self
    }

    /// A list must have an item.
    #[must_use]
    pub const fn not_empty(mut self) -> Self {
        if let Kind::List { separator, .. } = self.kind {
            self.kind = Kind::List { separator, empty: Empty::Refused };
        }
        self
    }

    /// A variable that gives this setting besides `FERRICORN_<NAME>`, which wins over it.
    #[must_use]
    pub const fn env(self, name: &'static str) -> Self {
        self.env_shaped(name, "{}")
    }

    /// Like [`Setting::env`], for a variable that holds a part of the text: `{}` in `shape`.
    #[must_use]
    pub const fn env_shaped(mut self, name: &'static str, shape: &'static str) -> Self {
        self.env = Some(ForeignVariable { name, shape });
        self
    }

    /// A variable that names a file whose trimmed content is the value.
    #[must_use]
    pub const fn file_env(mut self, name: &'static str) -> Self {
        self.file_env = Some(name);
        self
    }

    /// The option's name without its dashes, and its letter. Without this it is the key with
    /// dashes: `--database-url` for `database.url`.
    #[must_use]
    pub const fn flag(mut self, long: &'static str, short: Option<char>) -> Self {
        self.flag = Some(long);
        self.short = short;
        self
    }

    /// Other names of the option, which `--help` does not show.
    #[must_use]
    pub const fn flag_aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Returns the name of the value in `--help`, in capitals.
    #[must_use]
    pub const fn value_name(mut self, name: &'static str) -> Self {
        self.value_name = Some(name);
        self
    }

    /// Judges a text, or each text of a list, after its kind is right.
    #[must_use]
    pub const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// Never shown whole: not by `config`, not in an error, not by `Debug`.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secrecy = Secrecy::Secret;
        self
    }

    /// A change takes effect at the next start, not at a reload.
    #[must_use]
    pub const fn restart_only(mut self) -> Self {
        self.effect = Effect::Restart;
        self
    }

    /// Marks the setting as unused by a program that serves instead of the application.
    pub(super) const fn of_application(mut self) -> Self {
        self.is_of_application = true;
        self
    }
}

/// All settings.
impl Setting {
    /// Returns every setting in the table's order: ferricorn's own, with the default that the application
    /// declares for it ([`Setting::with_default`]), then those of the application's tables.
    pub(crate) fn all(app: &'static [Self]) -> impl Iterator<Item = &'static Self> {
        let declared =
            |own: &'static Self| app.iter().find(|app| app.key == own.key).unwrap_or(own);
        let is_added = |app: &&Self| SETTINGS.iter().all(|own| own.key != app.key);
        SETTINGS.iter().map(declared).chain(app.iter().filter(is_added))
    }
}

/// Returns the name of the setting in each layer.
impl Setting {
    /// Its key in the file, with its table: `workers`, `log.level`, `database.url`.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        self.key
    }

    /// `FERRICORN_LOG_LEVEL` for `log.level`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("FERRICORN_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The option's long name without its dashes.
    #[must_use]
    pub fn long_flag(&self) -> String {
        self.flag.map_or_else(|| self.key.replace(['.', '_'], "-"), str::to_owned)
    }

    /// Its table, and its name in there. Top-level settings have the table `""`.
    pub(crate) fn table_and_name(&self) -> (&'static str, &'static str) {
        self.key.rsplit_once('.').unwrap_or(("", self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn application_that_takes_one_worker_refuses_more() {
        const ALONE: &[Setting] = &[Setting::with_default("workers", "1").at_most(1)];
        assert_eq!(Config::from_toml("", ALONE).unwrap().workers, 1);
        assert_eq!(Config::from_toml("workers = 'auto'", ALONE).unwrap().workers, 1);
        let refused = Config::from_toml("workers = 4", ALONE).unwrap_err().to_string();
        assert!(refused.ends_with("1: workers: expected 1 or \"auto\", found 4"), "{refused}");
    }
}
