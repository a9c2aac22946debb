//! Settings that take effect at a start only, and what a reload and an upgrade make of them.

use std::collections::BTreeMap;

use super::fields::SettingFields;
use super::resolve::SettingValue;
use super::setting::Effect;
use super::settings::SETTINGS;
use super::sources::{FileSource, Sources};
use super::{Config, Error};

/// The settings that take effect at a start only, as a start has found them: key and value.
pub(crate) type AtStart = BTreeMap<String, String>;

/// Returns true for a setting of the server's own that takes effect at a start only. An upgrade is no start.
fn is_own(key: &str) -> bool {
    SETTINGS.iter().any(|own| own.key == key && own.effect == Effect::Restart)
}

/// The settings that take effect at a start only.
impl Config {
    pub(crate) fn at_start(&self) -> AtStart {
        let shown = |entry: &SettingValue| {
            (entry.setting.key.to_owned(), entry.value.shown(entry.setting.secrecy))
        };
        let entries = self.settings.entries().iter();
        entries.filter(|entry| entry.setting.effect == Effect::Restart).map(shown).collect()
    }

    /// The same, in an image that takes over from one that was started with that.
    pub(crate) fn at_start_after(&self, before: AtStart) -> AtStart {
        let mut now = self.at_start();
        now.extend(
            before.into_iter().filter(|(key, _)| is_own(key) && self.at_start().contains_key(key)),
        );
        now
    }

    /// Sets what takes effect at a start only to what the start has found, but what the program itself has
    /// set.
    ///
    /// # Errors
    /// When a value of the start is none any more.
    pub(crate) fn keep_in_force(&mut self, started: &AtStart) -> Result<(), Error> {
        let own = |values: &AtStart| {
            let own = values.iter().filter(|(key, _)| is_own(key));
            let text = own.map(|(key, value)| format!("{key} = {value}\n")).collect();
            let file = FileSource::Text(text);
            Self::load(Sources { file, app: Some(&[]), ..Sources::none() })
        };
        let mut meant = own(started)?;
        meant.keep_changed(self, &own(&self.at_start())?, is_own);
        let now = self.clone();
        self.keep_changed(&meant, &now, is_own);
        Ok(())
    }

    /// Keys that differ from what was there at the start: what a reload must say that it cannot do.
    pub(crate) fn not_in_force(&self, started: &AtStart) -> Vec<String> {
        let differing =
            self.at_start().into_iter().filter(|(key, it)| started.get(key) != Some(it));
        differing.map(|(key, _)| key).collect()
    }
}
