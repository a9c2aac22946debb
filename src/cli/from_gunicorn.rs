//! `ferricorn config --from-gunicorn`.

use std::fs;
use std::path::Path;

use crate::config::from_gunicorn;
use crate::config::problem::reason;

/// Reads the output of gunicorn in a file (`-` is standard input) and returns the text of a
/// configuration file.
///
/// # Errors
/// The file cannot be read, or holds another text.
pub(super) fn toml_of(file: &Path) -> Result<String, String> {
    let name = file.display();
    let path = if file == Path::new("-") { Path::new("/dev/stdin") } else { file };
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| format!("{name}: failed to read: {}", reason(&error)))?;
    from_gunicorn::toml(&text).map_err(|error| format!("{name}: {error}"))
}
