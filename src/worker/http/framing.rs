//! Where the requests in a stream begin and end, as a second opinion besides hyper's.
//!
//! # Why
//! hyper removes what it does not follow before anything of ours sees it: a fragment of the target, a
//! `Content-Length` beside `Transfer-Encoding`, the second of two equal lengths. It takes a bare LF
//! behind the last chunk for the beginning of a trailer field, and swallows the next request with it.
//! A proxy that reads any of these in another way takes a part of one request for another one
//! (RFC 9112 section 11.2). So the bytes are read here first, and hyper never gets what is refused.
//!
//! # How far that goes
//! What hyper refuses by itself is not judged here. Behind it nothing is read ([`State::Off`]), since
//! hyper closes the connection.

use crate::worker::request::own::Own;

/// Bytes of a line that are kept while the rest has not come. A field whose name matters and whose
/// value is longer is refused.
const KEPT_MAX: usize = 1024;

/// The beginning of a request for a tunnel: no request follows it, since behind any answer but a tunnel's
/// the connection is closed.
const TUNNEL: &[u8] = b"CONNECT ";

/// A stream of requests, read up to where the next bytes begin.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    state: State,
    /// The beginning of a line that has not come whole, without the bytes that do not matter.
    kept: Vec<u8>,
    /// Bytes of that line, and whether the last of them is a CR.
    come: usize,
    ends_in_cr: bool,
    /// The body's length and coding, by its head.
    length: Option<u64>,
    is_chunked: bool,
    is_tunnel: bool,
}

/// The part of a request that the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A request line, or an empty line before it.
    #[default]
    Target,
    /// A line of header fields.
    Field,
    /// A body of which so many bytes are to come.
    Body(u64),
    /// A line with the size of a chunk.
    Size,
    /// The data of a chunk of which so many bytes are to come.
    Chunk(u64),
    /// The line end behind it.
    ChunkEnd,
    /// A line of trailer fields.
    Trailer,
    /// Something that hyper refuses, or a tunnel.
    Off,
}

/// A reason to refuse a request, and the first byte that hyper must not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) at: usize,
    pub(crate) own: Own,
}

impl Framing {
    /// Reads what has come in.
    ///
    /// # Errors
    /// When something in it is to be refused. Nothing is to be read behind that.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Off => return Ok(()),
                State::Body(left) | State::Chunk(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= now as u64;
                    at += now;
                    match self.state {
                        State::Body(0) => self.state = State::Target,
                        State::Chunk(0) => self.state = State::ChunkEnd,
                        _ => {}
                    }
                }
                State::Target | State::Field | State::Size | State::ChunkEnd | State::Trailer => {
                    let end = memchr::memchr(b'\n', rest);
                    let part = &rest[..end.unwrap_or(rest.len())];
                    let read = self.part(part, end.is_some());
                    read.map_err(|own| Flaw { at, own })?;
                    at += part.len() + usize::from(end.is_some());
                }
            }
        }
        Ok(())
    }

    /// Reads a line as far as it has come, without its LF.
    fn part(&mut self, part: &[u8], is_whole: bool) -> Result<(), Own> {
        if self.state == State::Target && memchr::memchr(b'#', part).is_some() {
            return Err(Own::Target);
        }
        if is_whole && self.come == 0 {
            return match part.split_last() {
                Some((b'\r', line)) => self.line(line, LineEnd::CrLf),
                Some(_) | None => self.line(part, LineEnd::Lf),
            };
        }
        let room = KEPT_MAX.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&part[..part.len().min(room)]);
        self.come += part.len();
        self.ends_in_cr = part.last().map_or(self.ends_in_cr, |last| *last == b'\r');
        if !is_whole {
            return Ok(());
        }
        let kept = std::mem::take(&mut self.kept);
        let is_cut = std::mem::take(&mut self.come) > kept.len();
        let (line, end) = match (kept.split_last(), std::mem::take(&mut self.ends_in_cr)) {
            (Some((b'\r', line)), true) if !is_cut => (line, LineEnd::CrLf),
            (_, true) => (kept.as_slice(), LineEnd::CrLf),
            (_, false) => (kept.as_slice(), LineEnd::Lf),
        };
        if is_cut && self.state == State::Field && Name::of(line).is_some() {
            return Err(Own::Length);
        }
        self.line(line, end)
    }

    /// Reads a line without its end.
    fn line(&mut self, line: &[u8], end: LineEnd) -> Result<(), Own> {
        match self.state {
            State::Target if line.is_empty() => {}
            State::Target => {
                (self.length, self.is_chunked) = (None, false);
                self.is_tunnel = line.starts_with(TUNNEL);
                self.state = State::Field;
            }
            State::Field if line.is_empty() && self.is_tunnel => self.state = State::Off,
            State::Field if line.is_empty() => {
                self.state = match (self.is_chunked, self.length) {
                    (true, _) => State::Size,
                    (false, None | Some(0)) => State::Target,
                    (false, Some(length)) => State::Body(length),
                };
            }
            State::Field => return self.field(line),
            // hyper takes a bare LF in trailers alone. Here none is taken within chunks.
            State::Size | State::ChunkEnd | State::Trailer if end == LineEnd::Lf => {
                return Err(Own::Chunks);
            }
            State::Size => {
                self.state = match size(line) {
                    Some(0) => State::Trailer,
                    Some(size) => State::Chunk(size),
                    None => State::Off,
                };
            }
            State::ChunkEnd if line.is_empty() => self.state = State::Size,
            State::ChunkEnd => self.state = State::Off,
            State::Trailer if line.is_empty() => self.state = State::Target,
            State::Trailer | State::Body(_) | State::Chunk(_) | State::Off => {}
        }
        Ok(())
    }

    /// Reads a header field, if it is one of those that say where the body ends.
    fn field(&mut self, line: &[u8]) -> Result<(), Own> {
        let Some((name, value)) = Name::of(line) else { return Ok(()) };
        match name {
            Name::Length if self.length.is_some() || self.is_chunked => return Err(Own::Length),
            Name::Length => match decimal(value) {
                Some(length) => self.length = Some(length),
                None => self.state = State::Off,
            },
            Name::Coding if self.length.is_some() => return Err(Own::Length),
            Name::Coding if self.is_chunked => self.state = State::Off,
            Name::Coding if value.eq_ignore_ascii_case(b"chunked") => self.is_chunked = true,
            Name::Coding => self.state = State::Off,
        }
        Ok(())
    }
}

/// The end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    CrLf,
    Lf,
}

/// The fields that say where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Length,
    Coding,
}

impl Name {
    /// The name and the value of a field, if it is one of these. With a space before its colon hyper
    /// refuses it.
    fn of(line: &[u8]) -> Option<(Self, &[u8])> {
        let (name, text) = match line.first()? {
            b'c' | b'C' => (Self::Length, &b"content-length"[..]),
            b't' | b'T' => (Self::Coding, &b"transfer-encoding"[..]),
            _ => return None,
        };
        let (found, value) = line.split_at_checked(text.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(text).then(|| (name, trimmed(value)))
    }
}

/// Without the spaces and tabs around it.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The size at the beginning of a chunk's line.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let digits = std::str::from_utf8(&line[..digits]).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
