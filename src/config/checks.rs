//! Checks of the values of ferricorn's own settings, beyond their kind.

use super::env_file;
use crate::access_format;

pub(super) fn access_format(text: &str) -> Result<(), String> {
    access_format::fault(text).map_or(Ok(()), Err)
}

/// Judges the name or number of a user or a group; the last number stands for none (chown(2), setuid(2)).
pub(super) fn identity(text: &str) -> Result<(), String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && text.parse().ok().is_none_or(|number: u32| number == u32::MAX) {
        let most = u32::MAX - 1;
        return Err(format!("expected a name or a number of at most {most}, found {text:?}"));
    }
    Ok(())
}

/// One path.
pub(super) fn whole_path(text: &str) -> Result<(), String> {
    if text.starts_with('/') && !text.contains(['*', '?', '#', ' ']) {
        return Ok(());
    }
    Err(format!("expected a path like \"/healthz\", found {text:?}"))
}

/// `NAME=value`, where the name is one that a shell could set; the text may be a secret.
pub(super) fn assignment(text: &str) -> Result<(), String> {
    let Some((name, _)) = text.split_once('=') else {
        return Err("expected \"NAME=value\", found a text without \"=\"".to_owned());
    };
    if env_file::is_name(name) {
        return Ok(());
    }
    Err(format!("expected a name before \"=\" (letters, digits, \"_\"), found {name:?}"))
}

/// A text without what separates the parts of a StatsD message.
pub(super) fn statsd_word(text: &str) -> Result<(), String> {
    if text.contains(['|', '@', '#', ',']) || text.chars().any(char::is_control) {
        return Err(format!("expected a text without \"|\", \"@\", \"#\", \",\", found {text:?}"));
    }
    Ok(())
}
