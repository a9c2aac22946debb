//! The `env_file`: lines of `NAME=value` that are read literally, as `docker --env-file` and
//! systemd's `EnvironmentFile` read them. `$` and `#` in a value stand for themselves.
//!
//! # Where the two differ
//! Docker takes quotes for a part of the value, systemd takes them off; systemd takes off white space
//! around a value and backslashes in it, Docker keeps both. Here:
//! - a value in quotes is what stands between them, over several lines too. In double quotes `\"`,
//!   `\\`, `\$` and `` \` `` stand for the second character; every other backslash stays (systemd);
//! - white space around a value without quotes is not part of it (systemd);
//! - a backslash in a value without quotes is a backslash (Docker);
//! - a quote that does not enclose the whole value is refused where the value begins with it, and a
//!   character like any other elsewhere;
//! - `export` before a name is left out, so that a shell can read the same file.

use super::environment::Variable;
use super::problem::Problems;

/// The form that a line must have.
const EXPECTED: &str = "expected NAME=value";
/// The fault of a value that begins with a quote and goes on behind the next.
const BEHIND: &str = "expected a line end behind the closing quote; enclose the whole value, or \
                      write it without quotes at its ends";
/// The fault of a value that begins with a quote and has no second.
const UNCLOSED: &str = "expected a closing quote; a value that itself begins with a quote is \
                        enclosed in quotes of the other kind";
/// The fault of a value that no variable of a process can hold.
const ZERO: &str = "expected a text without zero bytes";

/// The variables of a file, in its order. Errors do not quote a line: it may hold a secret.
pub(super) fn parse(text: &str, file: &str, problems: &mut Problems) -> Vec<Variable> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Lines { rest: text, number: 0 };
    let mut variables = Vec::new();
    while let Some(line) = lines.next() {
        let number = lines.number;
        match assignment(line, &mut lines) {
            Ok(None) => {}
            Ok(Some((name, value))) => {
                let line = Some((file.to_owned(), number));
                variables.push(Variable { name, text: Some(value), line });
            }
            Err(why) => problems.add(&format!("{file}:{number}"), why),
        }
    }
    variables
}

/// Lines without their ends, which may be those of Windows.
struct Lines<'a> {
    rest: &'a str,
    /// The number of the line that was read last, from 1.
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        self.number += 1;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }
}

/// One assignment, or `None` for an empty line and for a comment.
fn assignment<'a>(
    line: &'a str,
    more: &mut Lines<'a>,
) -> Result<Option<(String, String)>, &'static str> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or(EXPECTED)?;
    let name =
        name.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(name);
    let name = name.trim();
    if !is_name(name) {
        return Err(EXPECTED);
    }
    let value = value.trim_start();
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(&value[1..], quote, more)?,
        _ => value.trim_end().to_owned(),
    };
    if value.contains('\0') { Err(ZERO) } else { Ok(Some((name.to_owned(), value))) }
}

/// Returns true for what a shell, or an orchestrator, can call a variable.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|rest| rest.is_ascii_alphanumeric() || "_.-".contains(rest))
}

/// The text up to the quote that closes it, which must be the last character but white space.
fn quoted<'a>(first: &'a str, quote: char, more: &mut Lines<'a>) -> Result<String, &'static str> {
    let begin = Lines { ..*more };
    let mut value = String::new();
    let mut line = first;
    loop {
        let mut chars = line.chars();
        while let Some(char) = chars.next() {
            if char == quote {
                let behind = chars.as_str().trim();
                return if behind.is_empty() { Ok(value) } else { Err(BEHIND) };
            }
            let next = chars.clone().next();
            let escaped = next.filter(|next| "\"\\$`".contains(*next));
            match escaped.filter(|_| char == '\\' && quote == '"') {
                Some(escaped) => {
                    value.push(escaped);
                    chars.next();
                }
                None => value.push(char),
            }
        }
        value.push('\n');
        let Some(next) = more.next() else {
            // The lines behind may be right, and have errors of their own.
            *more = begin;
            return Err(UNCLOSED);
        };
        line = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let mut problems = Problems::default();
        let variables = parse(text, "a.env", &mut problems);
        problems.into_result().unwrap();
        variables.into_iter().map(|variable| (variable.name, variable.text.unwrap())).collect()
    }

    /// The value that one line sets.
    fn value(line: &str) -> String {
        let variables = read(&format!("{line}\n"));
        assert_eq!(variables.len(), 1, "{line}");
        variables[0].1.clone()
    }

    fn refused(text: &str) -> String {
        let mut problems = Problems::default();
        parse(text, "a.env", &mut problems);
        problems.into_result().unwrap_err().to_string()
    }

    #[test]
    fn value_is_literal_without_quotes() {
        for text in [
            "postgres://app:pa$word@db/app",
            "${HOME}",
            "$$",
            "a # b",
            "a#b",
            "`id`",
            "C:\\new\\table",
            "a\\",
            "a=b==",
            "it's",
            "say \"hi\"",
            "{\"a\": 1}",
            "%41",
            "é",
        ] {
            assert_eq!(value(&format!("A={text}")), text);
        }
    }

    #[test]
    fn value_in_quotes_is_what_they_enclose() {
        assert_eq!(value("A=' a b '"), " a b ");
        assert_eq!(value("A=\"pa$word # \\n\""), "pa$word # \\n");
        assert_eq!(value("A='a\\'"), "a\\");
        assert_eq!(value(r#"A="\"\\\$\`\x""#), r#""\$`\x"#);
        assert_eq!(value("A='\"'"), "\"");
        assert_eq!(value("A=\"two\nlines\""), "two\nlines");
        assert_eq!(value("A=\"\""), "");
    }

    #[test]
    fn white_space_around_the_parts_is_left_out() {
        assert_eq!(read("  A = b \t\r\n"), [("A".to_owned(), "b".to_owned())]);
        assert_eq!(value("A='b' \r"), "b");
        assert_eq!(value("export A=b"), "b");
        assert_eq!(read("exportA=1")[0].0, "exportA");
    }

    #[test]
    fn comments_and_empty_lines_set_nothing() {
        assert_eq!(read("\u{feff}# a\n\n ; b=c\n\t\nA=1"), [("A".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn wrong_lines_are_refused_without_their_text() {
        assert_eq!(refused("hunter2\n"), "a.env:1: expected NAME=value");
        assert_eq!(
            refused("1A=hunter2\nA B=1"),
            "a.env:1: expected NAME=value\na.env:2: expected NAME=value"
        );
        assert_eq!(refused("A=1\nB=\"a\"b\n"), format!("a.env:2: {BEHIND}"));
        assert_eq!(refused("B='a\nC\n"), format!("a.env:1: {UNCLOSED}\na.env:2: {EXPECTED}"));
        assert_eq!(refused("A=\0"), format!("a.env:1: {ZERO}"));
    }
}
