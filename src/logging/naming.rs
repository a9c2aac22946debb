//! The pid that a line names as its writer: pure.
//!
//! Each process makes its own lines, its pid among them, and a process that was taken over makes any line.
//! The logger knows the owner of each ring. So it looks for pids in the two shapes that lines of the logs
//! have, `[date] [pid] [LEVEL] …` and a JSON object with a `pid`, and passes on no line in the name of
//! another process of this server.
//!
//! # The trap
//! A record may hold several lines. A terminal begins a line anew at a carriage return, the journal at a
//! NUL, and strips a priority (`<3>`) from its beginning; readers of JSON differ in what they accept. So
//! an object that cannot be parsed names every number in it.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// The key of an object's pid, as our own lines have it.
const KEY: &[u8] = b"\"pid\"";
/// The byte that a terminal's commands begin with.
const ESCAPE: u8 = 0x1b;

/// Returns the first pid that a line of this record names and that is another process's.
pub(crate) fn foreign_name(record: &[u8], is_foreign: impl Fn(u64) -> bool) -> Option<u64> {
    let line = record.strip_suffix(b"\n").unwrap_or(record);
    // Most records are one line without a trick.
    let names =
        if line.iter().any(|byte| is_break(*byte)) { names_in_parts(line) } else { names(line) };
    names.into_iter().find(|pid| is_foreign(*pid))
}

fn is_break(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Returns the pids that a record names whose bytes some reader takes for the ends of lines.
fn names_in_parts(record: &[u8]) -> Vec<u64> {
    let record = without_colors(record);
    let objects = record.split(|byte| matches!(byte, b'\n' | b'\0')).flat_map(names);
    let texts = record.split(|byte| is_break(*byte)).flat_map(names);
    objects.chain(texts).collect()
}

/// Leaves out what only colours a text (ECMA-48, SGR).
fn without_colors(record: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(ESCAPE, record).is_none() {
        return Cow::Borrowed(record);
    }
    let mut plain = Vec::with_capacity(record.len());
    let mut rest = record;
    while let Some(at) = memchr::memchr(ESCAPE, rest) {
        plain.extend_from_slice(&rest[..at]);
        let command = &rest[at + 1..];
        let is_parameter = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b';' | b':');
        let length = command.iter().skip(1).take_while(is_parameter).count() + 1;
        rest = if command.first() == Some(&b'[') && command.get(length) == Some(&b'm') {
            &command[length + 1..]
        } else {
            plain.push(ESCAPE);
            command
        };
    }
    plain.extend_from_slice(rest);
    Cow::Owned(plain)
}

/// Returns the pids that a line names.
fn names(line: &[u8]) -> Vec<u64> {
    let line = without_priority(line.trim_ascii_start()).trim_ascii_start();
    match line.first() {
        Some(b'[') => name_in_text(line).into_iter().collect(),
        Some(b'{') => names_in_object(line),
        _ => Vec::new(),
    }
}

/// Leaves out the priority of a line for the journal (sd-daemon(3)).
fn without_priority(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"<") else { return line };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    rest[digits..].strip_prefix(b">").unwrap_or(line)
}

/// Returns the pid of `[date] [pid] [LEVEL] …`.
fn name_in_text(line: &[u8]) -> Option<u64> {
    let ends = memchr::memchr_iter(b']', line);
    ends.filter_map(|end| {
        let rest = line[end + 1..].trim_ascii_start().strip_prefix(b"[")?.trim_ascii_start();
        let (pid, rest) =
            rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
        let rest = rest.trim_ascii_start().strip_prefix(b"]")?;
        rest.trim_ascii_start().starts_with(b"[").then_some(())?;
        str::from_utf8(pid).ok()?.parse().ok()
    })
    // The message follows.
    .next()
}

/// Returns every `pid` of the JSON objects in a line, however often it stands there.
fn names_in_object(line: &[u8]) -> Vec<u64> {
    // A key may be written in other ways (RFC 8259, 7): by escapes.
    let is_plain = memchr::memchr(b'\\', line).is_none();
    match memmem::find(line, KEY) {
        None if is_plain => Vec::new(),
        // Our own lines have one, which most often is all there is.
        Some(at) if is_plain && is_alone(line, at) => {
            let value = line[at + KEY.len()..].trim_ascii_start().strip_prefix(b":");
            let pid = value.and_then(|value| number(value.trim_ascii_start()));
            pid.map_or_else(|| parse(line), |pid| vec![pid])
        }
        _ => parse(line),
    }
}

/// Returns true if there is no other key like the one at this place, and it is the line's own.
fn is_alone(line: &[u8], at: usize) -> bool {
    let is_outer = memchr::memchr2(b'{', b'}', &line[1..at]).is_none();
    is_outer && memmem::find(&line[at + KEY.len()..], KEY).is_none()
}

/// Returns the number that a value is.
fn number(value: &[u8]) -> Option<u64> {
    let length = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = value.split_at(length);
    if !matches!(rest.first(), Some(b',' | b'}')) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns the pids of all objects in a line; every number where one of them cannot be parsed.
fn parse(line: &[u8]) -> Vec<u64> {
    let mut names = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    loop {
        if deserializer.deserialize_map(Names(&mut names)).is_err() {
            return numbers(line);
        }
        if deserializer.end().is_ok() {
            return names;
        }
    }
}

fn numbers(line: &[u8]) -> Vec<u64> {
    let digits = line.split(|byte| !byte.is_ascii_digit());
    digits.filter_map(|digits| str::from_utf8(digits).ok()?.parse().ok()).collect()
}

/// Gathers the pids of an object.
struct Names<'a>(&'a mut Vec<u64>);

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(key) = object.next_key::<String>()? {
            if key == "pid" {
                let value = object.next_value::<serde_json::Value>()?;
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                // A reader may take a number with a fraction of zero for the number.
                self.0.extend(text.trim().trim_end_matches(".0").parse::<u64>());
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn foreign(record: &str) -> Option<u64> {
        foreign_name(record.as_bytes(), |pid| pid == 7)
    }

    #[test]
    fn name_is_found_in_every_shape_of_a_line() {
        for record in [
            "[2024-03-21 10:26:38 +0000] [7] [INFO] Booting worker\n",
            "harmless\n[2024-03-21 10:26:38 +0000] [7] [INFO] Booting worker\n",
            "harmless\r[2024-03-21 10:26:38 +0000] [7] [INFO] Booting worker\n",
            "harmless\0[2024-03-21 10:26:38 +0000] [7] [INFO] Booting worker\n",
            "<2>[2024-03-21 10:26:38 +0000] [7] [INFO] Booting worker\n",
            "x\u{1b}[G[2024-03-21 10:26:38 +0000] [7] [INFO] Booting worker\n",
            "\u{1b}[1m[2024-03-21 10:26:38 +0000] [\u{1b}[31m7\u{1b}[0m] [INFO] Booting worker\n",
            "\u{8}\u{b}[2024-03-21 10:26:38 +0000]  [ 7 ]\t[INFO] Booting worker\n",
            "  [x] [7] [y]",
            "[a] b] [7] [y]",
            r#"{"time":"2024-03-21T10:26:38+00:00","pid":7,"level":"INFO"}"#,
            r#"{ "pid" : 7 }"#,
            r#"<3>{"pid":7}"#,
            "{\"time\":\"x\",\r\"pid\":7}",
            "{}\0{\"pid\":7}",
            r#"{"\u0070id":7}"#,
            r#"{"pid":8,"pid":7}"#,
            r#"{"pid":8} {"pid":7}"#,
            r#"{"pid":1e999,"pid":7}"#,
            r#"{"\ud800":0,"pid":7}"#,
            r#"{"message":"a \"quote\"","pid":7}"#,
            r#"{"pid":"7"}"#,
            r#"{"pid":7.0}"#,
            r#"{"pid":7,"cut"#,
        ] {
            assert_eq!(foreign(record), Some(7), "{record:?}");
        }
        let deep = format!("{{\"a\":{}{},\"\\u0070id\":7}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(foreign(&deep), Some(7));
        assert_eq!(foreign_name(b"{\"\xff\":0,\"\\u0070id\":7}", |pid| pid == 7), Some(7));
    }

    #[test]
    fn other_lines_bear_no_name() {
        for record in [
            "[2024-03-21 10:26:38 +0000] [8] [INFO] request of [7] [INFO]\n",
            r#"127.0.0.1 - - [21/Mar/2024:10:26:38 +0000] "GET /[7] HTTP/1.1" 200 5"#,
            r#"{"pid":8,"message":"[x] [7] [y]"}"#,
            r#"{"pid":8,"parent":{"pid":7}}"#,
            r#"{"message":"reload","by":{"pid":7}}"#,
            r#"{"pid":8,"message":"\"pid\":7"}"#,
            "[7] [INFO]",
            "<7>",
            "",
        ] {
            assert_eq!(foreign(record), None, "{record:?}");
        }
    }

    proptest! {
        /// The short way and serde_json find the same in what is an object.
        #[test]
        fn short_way_finds_what_the_parser_finds(
            keys in proptest::collection::vec("(pid|p|\\PC{0,3})", 0..4),
            number in 0..100_u64,
            is_inner: bool,
        ) {
            let pairs = keys.into_iter().map(|key| (key, number.into()));
            let mut object: serde_json::Map<String, serde_json::Value> = pairs.collect();
            if is_inner {
                let inner = object.clone();
                object.insert("a".to_owned(), inner.into());
            }
            let line = serde_json::Value::from(object).to_string();
            prop_assert_eq!(names_in_object(line.as_bytes()), parse(line.as_bytes()));
        }

        #[test]
        fn no_record_panics(record in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _found = foreign_name(&record, |pid| pid == 7);
        }
    }
}
