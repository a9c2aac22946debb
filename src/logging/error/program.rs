//! Lines of a program's output in the error log.
//!
//! ```text
//! [2024-03-21 10:26:38 +0000] [8] [INFO] [slot 2] Application startup complete.
//! {"time":"…","pid":8,"level":"INFO","event":"program_output","message":"…","slot":2,"stream":"stderr"}
//! ```
//! Programs write information to standard error as often as errors, so the level says nothing; and it
//! does not matter which levels the log takes. A line that is a JSON object already is passed on as it is,
//! where the log is JSON.

use std::io::Write as _;
use std::time::SystemTime;

use serde::Serializer as _;
use serde::de::IgnoredAny;
use serde::ser::SerializeMap as _;

use super::ErrorWriter;
use crate::access_format::LINE_MAX;
use crate::access_format::escape::{CUT, JSON_GROWTH, JsonBytes, OneLine, OneLineJson};
use crate::config::LogFormat;
use crate::ids::Slot;

/// Which of its outputs a program has written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Output,
    Errors,
}

/// One line that a program has written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramLine<'a> {
    pub(crate) slot: Slot,
    pub(crate) program: i32,
    pub(crate) stream: Stream,
    pub(crate) line: &'a [u8],
}

/// Bytes of a line that fit into a JSON object, however much they grow.
const JSON_MAX: usize = (LINE_MAX - 256) / JSON_GROWTH - CUT.len();

impl ErrorWriter {
    /// Appends one line with its newline, at most [`LINE_MAX`] bytes of it.
    pub(crate) fn write_output(
        &mut self,
        time: SystemTime,
        written: &ProgramLine<'_>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let (format, (second, millis)) = self.at(time);
        let ProgramLine { slot, program, line, .. } = *written;
        match format {
            LogFormat::Text => {
                let date = second.date_time.replace('T', " ");
                let offset = second.offset.replace(':', "");
                let text = String::from_utf8_lossy(line);
                let text = OneLine(&text);
                // Memory takes every byte.
                let _written =
                    write!(out, "[{date} {offset}] [{program}] [INFO] [slot {slot}] {text}");
                if out.len() - start >= LINE_MAX {
                    let text = String::from_utf8_lossy(&out[start..]).into_owned();
                    out.truncate(start);
                    let end = text.floor_char_boundary(LINE_MAX - 1 - CUT.len());
                    out.extend_from_slice(&text.as_bytes()[..end]);
                    out.extend_from_slice(CUT.as_bytes());
                }
            }
            LogFormat::Json if is_object(line) => out.extend_from_slice(line),
            LogFormat::Json => {
                let time = format!("{}.{millis:03}{}", second.date_time, second.offset);
                json(&time, written, usize::MAX, out);
                if out.len() - start >= LINE_MAX {
                    out.truncate(start);
                    json(&time, written, JSON_MAX, out);
                }
            }
        }
        out.push(b'\n');
    }
}

/// Returns true for the text of a JSON object.
fn is_object(line: &[u8]) -> bool {
    let text = str::from_utf8(line).ok().filter(|text| text.starts_with('{'));
    text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn json(time: &str, written: &ProgramLine<'_>, max: usize, out: &mut Vec<u8>) {
    let write = |out: &mut Vec<u8>| {
        let mut serializer = serde_json::Serializer::with_formatter(out, OneLineJson);
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("time", time)?;
        object.serialize_entry("pid", &written.program)?;
        object.serialize_entry("level", "INFO")?;
        object.serialize_entry("event", "program_output")?;
        object.serialize_entry("message", &JsonBytes { bytes: written.line, max })?;
        object.serialize_entry("slot", &written.slot.number())?;
        let stream = match written.stream {
            Stream::Output => "stdout",
            Stream::Errors => "stderr",
        };
        object.serialize_entry("stream", stream)?;
        object.end()
    };
    write(out).expect("memory takes every byte, and every key is a string");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::clock::Clock;

    fn written(format: LogFormat, line: &[u8]) -> String {
        let mut writer = ErrorWriter::new(format, Clock::new(jiff::tz::TimeZone::UTC));
        let mut out = Vec::new();
        let slot = Slot::new(2);
        let line = ProgramLine { slot, program: 8, stream: Stream::Errors, line };
        writer.write_output(SystemTime::UNIX_EPOCH, &line, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn output_has_slot_and_pid() {
        let text = written(LogFormat::Text, b"Started.");
        assert_eq!(text, "[1970-01-01 00:00:00 +0000] [8] [INFO] [slot 2] Started.\n");
        let json = written(LogFormat::Json, b"{\"a\": not json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["message"], "{\"a\": not json");
        assert_eq!((&json["pid"], &json["slot"]), (&8.into(), &2.into()));
        assert_eq!(json["stream"], "stderr");
    }

    #[test]
    fn output_that_is_json_is_passed_on() {
        assert_eq!(written(LogFormat::Json, b"{\"level\": \"warn\"}"), "{\"level\": \"warn\"}\n");
    }

    #[test]
    fn output_is_one_line_that_is_not_too_long() {
        for (format, line) in [
            (LogFormat::Text, vec![0x1b; 32 << 10]),
            (LogFormat::Json, vec![0x1b; 32 << 10]),
            (LogFormat::Text, "é".repeat(16 << 10).into_bytes()),
        ] {
            let text = written(format, &line);
            assert!(text.len() <= LINE_MAX, "{} bytes", text.len());
            assert_eq!(text.matches('\n').count(), 1);
        }
        let forged =
            written(LogFormat::Text, b"a\r[1970-01-01 00:00:00 +0000] [1] [ERROR] b\x1b[2J");
        assert!(forged.contains("a\\r[1970") && forged.contains("\\u{1b}[2J"), "{forged}");
    }
}
