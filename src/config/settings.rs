//! The table of settings: key, kind, default, environment variables, flag and one sentence each.

/// One setting: of ferricorn's own or of an application's tables.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the file, with its table: `workers`, `log.level`, `database.url`.
    pub key: &'static str,
}
