//! Checks of the values of ferricorn's own settings, beyond their kind.

use super::env_file;
use super::network::Network;
use super::skip::Skip;
use crate::access_format;

pub(super) fn access_format(text: &str) -> Result<(), String> {
    access_format::fault(text).map_or(Ok(()), Err)
}

pub(super) fn network(text: &str) -> Result<(), String> {
    Network::parse(text).map(drop)
}

/// Requests that leave no access line.
pub(super) fn skip(text: &str) -> Result<(), String> {
    Skip::parse(text).map(drop)
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
