//! A configuration file from the output of `gunicorn --print-config`.
//!
//! # Why gunicorn's output and not its file
//! The file is Python: only gunicorn can evaluate it, and it prints the result, with its defaults and
//! its command line, as lines of `key = value`. Values are printed by Python's `str`.

use std::collections::BTreeMap;

use super::gunicorn::{moved, refused};
use super::setting::{Kind, Secrecy, Setting};
use super::settings::SETTINGS;

/// The output of gunicorn 27.0.1 without a configuration, less the lines that depend on the machine.
const DEFAULTS: &str = include_str!("gunicorn_defaults.txt");
/// Lines about that run of gunicorn, and those that repeat another.
const OF_THE_RUN: [&str; 5] =
    ["check_config", "print_config", "config", "default_proc_name", "wsgi_app"];
/// The number of known keys below which a text is something else.
const KEYS_MIN: usize = 5;

/// Makes the text of a configuration file: every setting whose value is not ferricorn's default, and,
/// as comments, what has no counterpart.
///
/// # Errors
/// The text is not the output of `gunicorn --print-config`.
pub(crate) fn toml(printed: &str) -> Result<String, String> {
    let values = lines(printed);
    let defaults = lines(DEFAULTS);
    if values.keys().filter(|key| defaults.contains_key(*key)).count() < KEYS_MIN {
        return Err("expected the output of `gunicorn --print-config`, found another text".into());
    }
    let mut text = "# Made from the output of `gunicorn --print-config`.\n".to_owned();
    let mut left_out = String::new();
    for setting in SETTINGS {
        let theirs = |key: &&str| *key == setting.key || moved(key) == Some(setting.key);
        let mut keys = values.keys().copied().filter(|key| !OF_THE_RUN.contains(key));
        let Some(key) = keys.find(theirs) else { continue };
        let is_default = defaults.get(key) == Some(&values[key]);
        match line(setting, key, values[key]) {
            Converted::Default => {}
            Converted::Value(value) => {
                text.push_str(&format!("{} = {value}", setting.key));
                if is_default {
                    let default = if setting.default.is_empty() { "none" } else { setting.default };
                    text.push_str(&format!("  # gunicorn's default; ferricorn's: {default}"));
                }
                text.push('\n');
            }
            Converted::LeftOut(reason) => {
                left_out.push_str(&format!("# {key} = {}: {reason}\n", values[key]));
            }
        }
    }
    for (key, value) in values {
        let is_ours = moved(key).is_some() || SETTINGS.iter().any(|setting| setting.key == key);
        // gunicorn's socket for control has a default that depends on the user.
        let is_silent = is_ours || OF_THE_RUN.contains(&key) || key == "control_socket";
        if is_silent || defaults.get(key) == Some(&value) {
            continue;
        }
        let reason =
            refused(key).map_or("ferricorn has no such setting", |refused| refused.instead);
        left_out.push_str(&format!("# {key} = {value}: {reason}\n"));
    }
    if !left_out.is_empty() {
        text.push_str(&format!("\n# Left out:\n{left_out}"));
    }
    Ok(text)
}

/// The values by key, as they are printed.
fn lines(printed: &str) -> BTreeMap<&str, &str> {
    let pair = |line: &'_ str| -> Option<(usize, usize)> {
        let equals = line.find('=')?;
        Some((line[..equals].trim_end().len(), equals + 1))
    };
    let pairs = printed.lines().filter_map(|line| {
        let (key_end, value_start) = pair(line)?;
        Some((&line[..key_end], line[value_start..].trim()))
    });
    pairs.collect()
}

/// The fate of a value of gunicorn's.
enum Converted {
    /// The value is ferricorn's default, or means the same.
    Default,
    /// The value in TOML.
    Value(String),
    /// The reason why it is not in the file.
    LeftOut(String),
}

fn line(setting: &Setting, key: &str, printed: &str) -> Converted {
    match (key, printed) {
        // The user that gunicorn was run by, where none is configured.
        ("user" | "group", "0") => return Converted::Default,
        // gunicorn's mask where none is configured; ferricorn keeps the mask that it inherits.
        ("umask", "0") => return Converted::Default,
        ("chdir", folder) => {
            let reason = format!("set chdir to it where {folder} is meant at every start");
            return Converted::LeftOut(reason);
        }
        _ => {}
    }
    let Some(texts) = texts(setting, key, printed) else {
        return Converted::LeftOut("expected a value as Python prints it".to_owned());
    };
    match (setting.read_texts(&texts), setting.read_text(setting.default)) {
        (Ok(value), Ok(default)) if value == default => Converted::Default,
        (Ok(value), _) => Converted::Value(value.shown(Secrecy::Open)),
        (Err(reason), _) => Converted::LeftOut(reason),
    }
}

/// The value as texts, as an option has them; `None` where it is no list though one is expected.
fn texts(setting: &Setting, key: &str, printed: &str) -> Option<Vec<String>> {
    Some(match (setting.kind, printed) {
        (Kind::List { .. }, _) if printed.starts_with('[') => python_list(printed)?,
        (_, "None") => vec![String::new()],
        (Kind::Boolean, _) => vec![printed.to_lowercase()],
        // Printed as a decimal number.
        (Kind::Mode, _) if key == "umask" => vec![format!("{:#o}", printed.parse::<u32>().ok()?)],
        _ => vec![printed.to_owned()],
    })
}

/// The items of a list of texts as Python's `repr` writes it.
fn python_list(printed: &str) -> Option<Vec<String>> {
    let inside = printed.strip_prefix('[')?.strip_suffix(']')?;
    let mut items = Vec::new();
    let mut letters = inside.chars();
    while let Some(quote) = letters.next() {
        match quote {
            '\'' | '"' => {}
            ',' | ' ' => continue,
            _ => return None,
        }
        let mut item = String::new();
        loop {
            match letters.next()? {
                '\\' => item.push(match letters.next()? {
                    'n' => '\n',
                    't' => '\t',
                    letter @ ('\\' | '\'' | '"') => letter,
                    _ => return None,
                }),
                letter if letter == quote => break,
                letter => item.push(letter),
            }
        }
        items.push(item);
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_lists_are_read_with_their_escapes() {
        let items = python_list(r#"['A=1', "it's", 'a\\b', 'x\ty']"#);
        assert_eq!(items.unwrap(), ["A=1", "it's", r"a\b", "x\ty"]);
        assert_eq!(python_list("[]").unwrap(), Vec::<String>::new());
        for broken in ["['a'", "['a", "[1]", r"['\x00']"] {
            assert_eq!(python_list(broken), None, "{broken}");
        }
    }

    #[test]
    fn defaults_of_gunicorn_are_marked() {
        let text = toml(DEFAULTS).unwrap();
        let workers = "\nworkers = 1  # gunicorn's default; ferricorn's: 4\n";
        assert!(text.contains(workers), "{text}");
        assert!(!text.contains("Left out"), "{text}");
    }

    #[test]
    fn another_text_is_refused() {
        for text in ["", "bind = '0.0.0.0:80'\nworkers = 3\n", "Error: no such file\n"] {
            assert!(toml(text).unwrap_err().starts_with("expected the output of"), "{text}");
        }
    }
}
