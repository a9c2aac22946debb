//! Whose name a line bears: pure.
//!
//! Each process makes its own lines, its pid among them, and a process that was taken over makes any line.
//! The logger knows whose ring it reads. So it looks for the pids in the two shapes that lines of the logs
//! have, `[date] [pid] [LEVEL] …` and a JSON object with a `pid`, and passes on no line in the name of
//! another process of this server.
//!
//! The trap: a record may hold several lines, and a terminal begins one anew at a carriage return.

use std::fmt;

use memchr::memmem;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// The key of an object's pid, as our own lines have it.
const KEY: &[u8] = b"\"pid\"";

/// Returns the first pid in whose name a line of this record stands and that is another process's.
pub(crate) fn foreign_name(record: &[u8], is_foreign: impl Fn(u64) -> bool) -> Option<u64> {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    record.split(is_end).flat_map(names).find(|pid| is_foreign(*pid))
}

/// The pids in whose name a line stands.
fn names(line: &[u8]) -> Vec<u64> {
    let line = line.trim_ascii_start();
    match line.first() {
        Some(b'[') => name_in_text(line).into_iter().collect(),
        Some(b'{') => names_in_object(line),
        _ => Vec::new(),
    }
}

/// The pid of `[date] [pid] [LEVEL] …`.
fn name_in_text(line: &[u8]) -> Option<u64> {
    let date = memmem::find(line, b"] [")?;
    let behind = &line[date + 3..];
    let (pid, level) = behind.split_at(behind.iter().position(|byte| *byte == b']')?);
    if !level.starts_with(b"] [") {
        return None;
    }
    str::from_utf8(pid).ok()?.trim().parse().ok()
}

/// Every `pid` of a JSON object, however often it stands there.
fn names_in_object(line: &[u8]) -> Vec<u64> {
    // A key may be written in other ways (RFC 8259, 7): by escapes.
    let is_plain = memchr::memchr(b'\\', line).is_none();
    match memmem::find(line, KEY) {
        None if is_plain => Vec::new(),
        // Our own lines have one, which most often is all there is.
        Some(at) if is_plain && memmem::find(&line[at + KEY.len()..], KEY).is_none() => {
            let behind = &line[at + KEY.len()..];
            let value = behind.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
            value.and_then(number).map_or_else(|| parse(line), |pid| vec![pid])
        }
        _ => parse(line),
    }
}

/// The digits that a value begins with and ends with.
fn number(value: &[u8]) -> Option<u64> {
    let length = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = value.split_at(length);
    if !matches!(rest.first(), Some(b',' | b'}')) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

fn parse(line: &[u8]) -> Vec<u64> {
    let mut names = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    // What is no object any more behind a pid has borne that name all the same.
    let _whole = deserializer.deserialize_map(Names(&mut names));
    names
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
            "  [x] [7] [y]",
            r#"{"time":"2024-03-21T10:26:38+00:00","pid":7,"level":"INFO"}"#,
            r#"{ "pid" : 7 }"#,
            r#"{"\u0070id":7}"#,
            r#"{"pid":8,"pid":7}"#,
            r#"{"message":"a \"quote\"","pid":7}"#,
            r#"{"pid":"7"}"#,
            r#"{"pid":7.0}"#,
            r#"{"pid":7,"cut"#,
        ] {
            assert_eq!(foreign(record), Some(7), "{record}");
        }
    }

    #[test]
    fn other_lines_bear_no_name() {
        for record in [
            "[2024-03-21 10:26:38 +0000] [8] [INFO] request of [7] [INFO]\n",
            r#"127.0.0.1 - - [21/Mar/2024:10:26:38 +0000] "GET /[7] HTTP/1.1" 200 5"#,
            r#"{"pid":8,"message":"[x] [7] [y]"}"#,
            r#"{"pid":8,"parent":{"pid":7}}"#,
            r#"{"pid":8,"message":"\"pid\":7"}"#,
            "[7] [INFO]",
            "{7}",
            "",
        ] {
            assert_eq!(foreign(record), None, "{record}");
        }
    }

    proptest! {
        /// The short way and serde_json find the same in what is an object.
        #[test]
        fn short_way_finds_what_the_parser_finds(
            keys in proptest::collection::vec("(pid|p|\\PC{0,3})", 0..4),
            number in 0..100_u64,
        ) {
            let object: serde_json::Map<_, _> =
                keys.into_iter().map(|key| (key, number.into())).collect();
            let line = serde_json::Value::from(object).to_string();
            prop_assert_eq!(names_in_object(line.as_bytes()), parse(line.as_bytes()));
        }
    }
}
