//! Keeps what a client sent from becoming anything but text of the line it belongs to.
//!
//! # Why
//! A log line is read by people, by terminals and by programs that split on newlines, quotes and
//! spaces. A user agent with a newline in it forges a line; one with an escape sequence rewrites
//! the terminal it is read on. In text every byte outside printable ASCII, `"` and `\` is written
//! as an escape (as nginx and Apache do); in JSON the encoder of `serde_json` does the work, and
//! only the characters that JSON allows but a terminal obeys are added to it.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::net::IpAddr;

use serde_json::ser::{CompactFormatter, Formatter};

/// The mark where a value was cut short.
pub(crate) const CUT: &str = "[cut]";
/// The most bytes that one byte of a value becomes in text: `\xHH`.
pub(crate) const TEXT_GROWTH: usize = 4;
/// The most bytes that one byte of a value becomes in JSON: `\u00HH`.
pub(crate) const JSON_GROWTH: usize = 6;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Bytes that are looked at together: a length that compilers turn into vector instructions.
const STRIDE: usize = 16;

/// Returns true if a byte may not stand in a text line as it is.
fn is_unsafe(byte: u8) -> bool {
    // Without `||`, which would be a branch for each byte.
    (byte.wrapping_sub(0x20) > 0x5e) | (byte == b'"') | (byte == b'\\')
}

/// Appends bytes of unknown origin to a text line: `"` as `\"`, `\` as `\\`, any other byte outside
/// printable ASCII as `\xHH`.
pub(crate) fn text(bytes: &[u8], out: &mut Vec<u8>) {
    let (chunks, rest) = bytes.as_chunks::<STRIDE>();
    for chunk in chunks {
        if any_unsafe(chunk) {
            each(chunk, out);
        } else {
            out.extend_from_slice(chunk);
        }
    }
    each(rest, out);
}

/// Returns true if [`text`] and JSON would write these bytes as they are.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<STRIDE>();
    !chunks.iter().any(any_unsafe) && !rest.iter().any(|byte| is_unsafe(*byte))
}

/// The answer for all bytes is formed before it is looked at, so that it can be one instruction's.
fn any_unsafe(chunk: &[u8; STRIDE]) -> bool {
    chunk.iter().fold(false, |found, byte| found | is_unsafe(*byte))
}

fn each(mut bytes: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = bytes.iter().position(|byte| is_unsafe(*byte)) {
        out.extend_from_slice(&bytes[..at]);
        escaped_byte(bytes[at], out);
        bytes = &bytes[at + 1..];
    }
    out.extend_from_slice(bytes);
}

/// The text of the last address: one client, or one proxy, often sends many requests in a row.
#[derive(Debug)]
pub(crate) struct Address {
    last: Option<IpAddr>,
    text: Vec<u8>,
}

impl Address {
    /// None yet, and room for any.
    pub(crate) fn none() -> Self {
        Self { last: None, text: Vec::with_capacity(48) }
    }

    /// An address as text.
    pub(crate) fn text(&mut self, address: IpAddr) -> &[u8] {
        if self.last != Some(address) {
            self.last = Some(address);
            self.text.clear();
            write!(self.text, "{address}").expect("memory takes every byte");
        }
        &self.text
    }
}

/// As [`text`], and a space is `\x20`: for a value that stands between spaces without quotes.
pub(crate) fn word(bytes: &[u8], out: &mut Vec<u8>) {
    for (index, part) in bytes.split(|byte| *byte == b' ').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\\x20");
        }
        text(part, out);
    }
}

fn escaped_byte(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        _ => {
            let high = HEX[usize::from(byte >> 4)];
            let low = HEX[usize::from(byte & 15)];
            out.extend_from_slice(&[b'\\', b'x', high, low]);
        }
    }
}

/// The first `max` bytes, and whether that is less than all. A character is not cut in two.
pub(crate) fn cut(bytes: &[u8], max: usize) -> (&[u8], bool) {
    if bytes.len() <= max {
        return (bytes, false);
    }
    let is_inside = |at: usize| bytes[at] & 0xc0 == 0x80;
    let mut end = max;
    while end > 0 && max - end < 3 && is_inside(end) {
        end -= 1;
    }
    (&bytes[..end], true)
}

/// Returns true if a character does something to a terminal or to a line rather than stand in it:
/// controls (C0, DEL, C1), the Unicode line breaks, and the marks that turn the direction of writing.
fn is_unruly(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')
        || matches!(character, '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Text of our own or of the application's on one line: unruly characters are written as Rust
/// writes them (`\n`, `\u{1b}`), everything else as it is.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(is_unruly) {
            let (plain, tail) = rest.split_at(at);
            f.write_str(plain)?;
            let mut characters = tail.chars();
            if let Some(unruly) = characters.next() {
                write!(f, "{}", unruly.escape_default())?;
            }
            rest = characters.as_str();
        }
        f.write_str(rest)
    }
}

/// Bytes of unknown origin as a JSON string of at most so many of them: what is not UTF-8 becomes
/// U+FFFD, what was cut ends in [`CUT`].
#[derive(Clone, Copy)]
pub(crate) struct JsonBytes<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) max: usize,
}

impl serde::Serialize for JsonBytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (bytes, was_cut) = cut(self.bytes, self.max);
        match std::str::from_utf8(bytes) {
            Ok(text) if !was_cut => serializer.serialize_str(text),
            Ok(_) | Err(_) => serializer.collect_str(&Lossy { bytes, was_cut }),
        }
    }
}

struct Lossy<'a> {
    bytes: &'a [u8],
    was_cut: bool,
}

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        if self.was_cut { f.write_str(CUT) } else { Ok(()) }
    }
}

/// Compact JSON whose strings hold no unruly character either: these are written as `\uHHHH`.
pub(crate) struct OneLineJson;

impl Formatter for OneLineJson {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Everything from DEL on takes the slow road; plain ASCII is nearly all there ever is.
        if fragment.is_ascii() && !fragment.as_bytes().contains(&0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unruly) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = tail.chars();
            if let Some(unruly) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(unruly))?;
            }
            rest = characters.as_str();
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

/// Returns a text as one line, its parts set off by `; `.
pub(crate) fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_text(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        text(bytes, &mut out);
        String::from_utf8(out).expect("text is ASCII")
    }

    #[test]
    fn text_escapes_what_could_break_a_line() {
        assert_eq!(as_text(b"plain /a?b=c"), "plain /a?b=c");
        assert_eq!(as_text(b"a\"b\\c"), r#"a\"b\\c"#);
        assert_eq!(as_text(b"\r\n\t\x1b\x7f"), r"\x0D\x0A\x09\x1B\x7F");
        assert_eq!(as_text("ü".as_bytes()), r"\xC3\xBC");
        let mut out = Vec::new();
        word(b"a b", &mut out);
        assert_eq!(out, b"a\\x20b");
    }

    #[test]
    fn a_cut_keeps_characters_whole() {
        assert_eq!(cut(b"abc", 3), (&b"abc"[..], false));
        assert_eq!(cut("aü".as_bytes(), 2), (&b"a"[..], true));
        assert_eq!(cut(b"\x80\x80\x80\x80\x80", 4), (&b"\x80"[..], true));
        assert_eq!(cut(b"abc", 0), (&b""[..], true));
    }

    #[test]
    fn one_line_keeps_letters_and_names_the_rest() {
        let line = OneLine("a\nb\tc\u{1b}[2J ü \u{202e}\u{85} \\").to_string();
        assert_eq!(line, r"a\nb\tc\u{1b}[2J ü \u{202e}\u{85} \");
    }

    fn as_json(bytes: &[u8], max: usize) -> String {
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, OneLineJson);
        serde::Serialize::serialize(&JsonBytes { bytes, max }, &mut serializer)
            .expect("a string can be written");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn json_strings_are_valid_whatever_the_bytes() {
        assert_eq!(as_json(b"a\"\\\n\x7f", 99), r#""a\"\\\n\u007f""#);
        assert_eq!(as_json("ü\u{85}\u{2028}é".as_bytes(), 99), "\"ü\\u0085\\u2028é\"");
        assert_eq!(as_json(b"a\xff\xfeb", 99), "\"a\u{fffd}\u{fffd}b\"");
        assert_eq!(as_json(b"abcdef", 3), "\"abc[cut]\"");
    }

    #[test]
    fn one_line_joins_lines_and_drops_empty_ones() {
        for (text, expected) in [
            ("", ""),
            ("one", "one"),
            ("one\n", "one"),
            ("assertion failed\n  left: 1\r\n\n right: 2\n", "assertion failed; left: 1; right: 2"),
        ] {
            assert_eq!(one_line(text), expected);
        }
    }
}
