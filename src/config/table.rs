//! All settings that a configuration is judged by: ferricorn's own and the application's.

use super::environment::PREFIX;
use super::gunicorn;
use super::problem::Problems;
use super::setting::{Kind, Setting};
use super::settings::SETTINGS;

/// Names that are closer than this are probably meant for each other (Jaro–Winkler, 0 to 1).
const CLOSE: f64 = 0.8;

/// The settings that exist.
#[derive(Clone, Debug)]
pub(super) struct Table {
    settings: Vec<&'static Setting>,
    knowledge: Knowledge,
}

/// The knowledge of the application: without it, what is unknown may be the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    /// The application's tables and variables may still come.
    Partial,
    /// The application has told us of no settings: it may have tables that it reads by itself.
    Ours,
    Complete,
}

/// A table of the file that no setting is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It may be the application's, which is not known yet.
    Unjudged,
    /// It is another layer's.
    LeftAlone,
    /// It is a mistake: what to say of it.
    Wrong(String),
}

/// Returns true for a setting of ferricorn's own with another default, or with fewer numbers.
fn has_own_kind(setting: &Setting) -> bool {
    SETTINGS.iter().filter(|own| own.key == setting.key).any(|own| match (own.kind, setting.kind) {
        (Kind::Integer { min, max }, Kind::Integer { min: least, max: most }) => {
            min == least && most <= max
        }
        (own, kind) => own == kind,
    })
}

impl Table {
    /// Ferricorn's settings, and the application's once it is known.
    pub(super) fn new(app: Option<&'static [Setting]>, problems: &mut Problems) -> Self {
        let (replaced, added): (Vec<&'static Setting>, Vec<&'static Setting>) =
            app.unwrap_or_default().iter().partition(|setting| has_own_kind(setting));
        let mut settings: Vec<&'static Setting> = SETTINGS.iter().collect();
        for setting in replaced {
            if let Some(own) = settings.iter_mut().find(|own| own.key == setting.key) {
                *own = setting;
            }
        }
        let ours = |table: &str| SETTINGS.iter().any(|setting| setting.table_and_name().0 == table);
        let has_tables = !added.is_empty();
        for setting in added {
            let known = settings
                .iter()
                .any(|other| inside(setting.key, other.key) || inside(other.key, setting.key));
            if known || ours(setting.table_and_name().0) {
                let problem = "expected a key of its own, in a table of its own";
                problems.add("", format!("the application's setting {:?}: {problem}", setting.key));
            } else {
                settings.push(setting);
            }
        }
        let knowledge = match app {
            None => Knowledge::Partial,
            Some(_) if !has_tables => Knowledge::Ours,
            Some(_) => Knowledge::Complete,
        };
        Self { settings, knowledge }
    }

    pub(super) fn settings(&self) -> &[&'static Setting] {
        &self.settings
    }

    pub(super) fn find(&self, key: &str) -> Option<&'static Setting> {
        self.settings.iter().find(|setting| setting.key == key).copied()
    }

    /// Returns true if keys begin with this table's name.
    pub(super) fn has_table(&self, name: &str) -> bool {
        self.settings
            .iter()
            .any(|setting| setting.key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Returns true if an unknown variable is wrong, since no table is left that could have it.
    pub(super) fn is_complete(&self) -> bool {
        self.knowledge != Knowledge::Partial
    }

    /// Returns the error for an unknown key.
    pub(super) fn unknown_key(&self, key: &str) -> String {
        if let Some(ours) = gunicorn::moved(key) {
            return format!("unknown key {key:?}: did you mean {ours:?}?");
        }
        if let Some(refused) = gunicorn::refused(key) {
            return format!("unknown key {key:?}: {}", refused.instead);
        }
        let name = key.rsplit('.').next().unwrap_or(key);
        let same_name = self.settings.iter().find(|setting| setting.table_and_name().1 == name);
        if let Some(setting) = same_name {
            // In TOML everything below a `[table]` line belongs to that table.
            let (table, _) = setting.table_and_name();
            let place = if table.is_empty() {
                "above the first [table]".to_owned()
            } else {
                format!("in [{table}]")
            };
            return format!("unknown key {key:?}: did you mean {:?}, {place}?", setting.key);
        }
        let (table, _) = key.rsplit_once('.').unwrap_or(("", key));
        let meant = self.closest_name(name, |setting| setting.table_and_name().0 == table);
        let meant = meant.or_else(|| self.closest_name(name, |_| true));
        unknown("key", key, meant.map(|setting| setting.key))
    }

    /// The setting whose name is most like this one.
    fn closest_name(
        &self,
        name: &str,
        among: impl Fn(&Setting) -> bool,
    ) -> Option<&'static Setting> {
        let settings: Vec<_> =
            self.settings.iter().copied().filter(|setting| among(setting)).collect();
        let meant = closest(name, settings.iter().map(|setting| setting.table_and_name().1))?;
        settings.into_iter().find(|setting| setting.table_and_name().1 == meant)
    }

    /// Returns the error for an unknown table.
    pub(super) fn stranger(&self, name: &str) -> Stranger {
        let tables = self.settings.iter().map(|setting| setting.table_and_name().0);
        let mut tables = tables.filter(|table| !table.is_empty());
        // In words as short as these, two letters that have changed places are no likeness.
        let meant = closest(name, tables.clone())
            .or_else(|| tables.find(|table| strsim::osa_distance(name, table) == 1));
        match (self.knowledge, meant) {
            (Knowledge::Partial, _) => Stranger::Unjudged,
            (Knowledge::Ours, None) => Stranger::LeftAlone,
            (Knowledge::Ours | Knowledge::Complete, _) => {
                Stranger::Wrong(unknown("table", name, meant))
            }
        }
    }

    /// Returns the error for an unknown `FERRICORN_` variable.
    pub(super) fn unknown_variable(&self, name: &str) -> String {
        // What all have in common says nothing about likeness.
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        let mut foreign =
            self.settings.iter().filter_map(|setting| setting.env).map(|setting| setting.name);
        let moved = gunicorn::moved(&name.to_lowercase()).and_then(|key| self.find(key));
        let own: Vec<String> = self.settings.iter().map(|setting| setting.variable()).collect();
        let stems = own.iter().map(|value| value.strip_prefix(PREFIX).unwrap_or(value));
        let meant = foreign
            .find(|foreign| *foreign == name)
            .map(str::to_owned)
            .or_else(|| moved.map(Setting::variable))
            .or_else(|| closest(name, stems).map(|stem| format!("{PREFIX}{stem}")));
        match meant {
            Some(meant) => format!("unknown variable: did you mean {meant}?"),
            None => {
                "unknown variable: `ferricorn config --reference` lists all settings".to_owned()
            }
        }
    }
}

fn unknown(what: &str, name: &str, meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("unknown {what} {name:?}: did you mean {meant:?}?"),
        None => {
            format!("unknown {what} {name:?}: `ferricorn config --reference` lists all settings")
        }
    }
}

/// Returns true if the key is the other one, or stands in a table of that name.
fn inside(key: &str, other: &str) -> bool {
    key.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The candidate that is most like the word, if one is like it at all.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| CLOSE < *likeness)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}
