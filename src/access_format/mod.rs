//! gunicorn's access-log format language (its setting `access_log_format`), compiled once.
//!
//! A format is literal text with atoms `%(h)s`, fields `%({user-agent}i)s` (request),
//! `%({content-type}o)s` (response), `%({request_id}e)s` (variables) and `%%`. What the language
//! cannot say is an error of the configuration: gunicorn writes `-` for an atom that it does not
//! know, and it is not noticed for months that the column is empty.
//!
//! Variables are, first, those of the request: `request_id`, `slot`, `generation`, `scheme`, `listener`,
//! `queue_wait` (in seconds, of the first request of a connection) and `outcome` (`ok`, `drained`,
//! `unread`, `aborted` or `lost`); second, gunicorn's names for parts of the request (PEP 3333):
//! `wsgi.url_scheme`, `REMOTE_ADDR`, `REQUEST_METHOD`, `RAW_URI`, `PATH_INFO`, `QUERY_STRING`,
//! `SERVER_PROTOCOL`, `SERVER_SOFTWARE`, `SCRIPT_NAME`, `CONTENT_TYPE`, `CONTENT_LENGTH`, `HTTP_…`;
//! third, the environment of the process when the format is compiled. The others write `-`, and
//! [`gaps`] names them.

use std::fmt;

use axum::http::HeaderName;
use axum::http::header::{AUTHORIZATION, REFERER, USER_AGENT};

pub(crate) mod escape;
mod traceparent;

use self::escape::OneLine;
pub(crate) use self::escape::one_line;
pub(crate) use self::traceparent::{TRACEPARENT, TraceParent};

/// Bytes of the longest access line, its newline included. Longer ones lose the ends of their
/// longest values.
pub(crate) const LINE_MAX: usize = 64 * 1024;

/// Bytes of the longest format, as written.
const FORMAT_MAX: usize = 4096;
/// Bytes of the literal text of a format, environment variables included.
const LITERALS_MAX: usize = 16 * 1024;
/// More bytes than any atom takes that is not a client's value: an IPv6 address has 45.
const ATOM_MAX: usize = 48;

/// A format, ready to write lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessFormat(pub(crate) Shape);

/// The two kinds of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One JSON object: see [`super::json`].
    Json,
    /// Steps, one after another.
    Text {
        /// The parts to write, in order.
        steps: Vec<Step>,
        /// Bytes that each value of a line may have which would otherwise be too long.
        value_max: usize,
    },
}

/// One piece of a text line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Literal(Vec<u8>),
    Remote,
    User,
    Date,
    RequestLine,
    Method,
    Target,
    Path,
    Query,
    Protocol,
    Status,
    Bytes,
    BytesOrDash,
    Seconds,
    Millis,
    Micros,
    DecimalSeconds,
    Pid,
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
    RequestId,
    Slot,
    Generation,
    Scheme,
    ClientCertificate,
    Listener,
    Outcome,
    QueueWait,
}

/// The fault of a format, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// The character at which it is wrong, from 1.
    pub position: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    TooLong(usize),
    LiteralsTooLong,
    Control(char),
    Bare(String),
    Unterminated,
    Conversion { atom: String, found: String },
    Unknown(String),
    HeaderName(String),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.position;
        match &self.kind {
            Kind::Empty => {
                write!(f, "expected a format or \"json\", found \"\"; ")?;
                write!(f, "log.access = \"none\" turns the log off")
            }
            Kind::TooLong(bytes) => {
                write!(f, "the format has {bytes} bytes; expected at most {FORMAT_MAX}")
            }
            Kind::LiteralsTooLong => write!(
                f,
                "the format and the environment variables that it names have more than \
                 {LITERALS_MAX} bytes of text at character {position}"
            ),
            Kind::Control(found) => write!(
                f,
                "found {found:?} at character {position}; \
                 expected a line without control characters other than tabs"
            ),
            Kind::Bare(found) => write!(
                f,
                "found {found:?} at character {position}; \
                 expected %(atom)s, or %% for a percent sign"
            ),
            Kind::Unterminated => write!(
                f,
                "found \"%(\" at character {position} without its \")s\"; expected %(atom)s"
            ),
            Kind::Conversion { atom, found } => {
                let atom = OneLine(atom);
                write!(
                    f,
                    "found {found:?} after %({atom}) at character {position}; expected %({atom})s"
                )
            }
            Kind::Unknown(atom) => write!(
                f,
                "unknown atom %({})s at character {position}; known are \
                 h l u t r m U q H s B b f a T M D L p, \
                 {{header}}i, {{header}}o and {{variable}}e",
                OneLine(atom)
            ),
            Kind::HeaderName(name) => {
                write!(f, "{name:?} at character {position} is not the name of a header field")
            }
        }
    }
}

impl std::error::Error for FormatError {}

impl AccessFormat {
    /// Compiles a format; environment variables are those of this process, now.
    ///
    /// # Errors
    /// When the text is not in the language, or longer than 4096 bytes.
    pub fn compile(text: &str) -> Result<Self, FormatError> {
        Self::compile_with(text, |name| std::env::var(name).ok())
    }

    /// The header fields that lines are made of; no others need to be kept for them.
    pub(crate) fn fields(&self) -> NamedFields {
        let mut fields = NamedFields::default();
        match &self.0 {
            Shape::Json => {
                fields.request = vec![AUTHORIZATION, REFERER, USER_AGENT, TRACEPARENT];
                fields.queue_wait = true;
            }
            Shape::Text { steps, .. } => steps.iter().for_each(|step| fields.note(step)),
        }
        fields
    }

    fn compile_with(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, FormatError> {
        if text == "json" {
            return Ok(Self(Shape::Json));
        }
        let mut compiler = Compiler::new(text, environment);
        if text.is_empty() {
            return Err(compiler.error(Kind::Empty));
        }
        if text.len() > FORMAT_MAX {
            return Err(compiler.error(Kind::TooLong(text.len())));
        }
        compiler.run()?;
        let value_max = value_max(&compiler.steps, compiler.literals);
        Ok(Self(Shape::Text { steps: compiler.steps, value_max }))
    }
}

/// Returns the fault of an access format; `None` when there is none.
pub(crate) fn fault(text: &str) -> Option<String> {
    AccessFormat::compile(text).err().map(|error| error.to_string())
}

/// The variables that a format names and that have no value here, now: their places are always `-`.
/// None of a format that is wrong.
pub(crate) fn gaps(text: &str) -> Vec<String> {
    let mut compiler = Compiler::new(text, |name| std::env::var(name).ok());
    let _wrong = if text == "json" { Ok(()) } else { compiler.run() };
    compiler.unset
}

/// Header fields that let their reader act as the client. No line has them, whatever the format says.
const SECRETS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// The parts of a request that an access log names, and that are kept for it: header fields, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedFields {
    /// Of the request.
    pub(crate) request: Vec<HeaderName>,
    /// Of the answer.
    pub(crate) response: Vec<HeaderName>,
    /// True if it has how long a connection waited to be accepted, too.
    pub(crate) queue_wait: bool,
}

impl NamedFields {
    fn note(&mut self, step: &Step) {
        let (fields, name) = match step {
            Step::User => (&mut self.request, &AUTHORIZATION),
            Step::RequestHeader(name) => (&mut self.request, name),
            Step::ResponseHeader(name) => (&mut self.response, name),
            Step::QueueWait => {
                self.queue_wait = true;
                return;
            }
            Step::Literal(_)
            | Step::Remote
            | Step::Date
            | Step::RequestLine
            | Step::Method
            | Step::Target
            | Step::Path
            | Step::Query
            | Step::Protocol
            | Step::Status
            | Step::Bytes
            | Step::BytesOrDash
            | Step::Seconds
            | Step::Millis
            | Step::Micros
            | Step::DecimalSeconds
            | Step::Pid
            | Step::RequestId
            | Step::Slot
            | Step::Generation
            | Step::Scheme
            | Step::ClientCertificate
            | Step::Listener
            | Step::Outcome => return,
        };
        if !fields.contains(name) {
            fields.push(name.clone());
        }
    }
}

/// Returns the number of bytes that each value may have, so that the line stays below [`LINE_MAX`] even
/// when all are long and every byte of them is escaped.
fn value_max(steps: &[Step], literals: usize) -> usize {
    // Neither can be exceeded: 4096 bytes of format hold at most 819 atoms.
    let atoms = steps.iter().filter(|step| !matches!(step, Step::Literal(_))).count();
    let room = LINE_MAX - 1 - literals - ATOM_MAX * atoms;
    let values = steps.iter().map(Step::values).sum::<usize>().max(1);
    (room / values).saturating_sub(escape::CUT.len()) / escape::TEXT_GROWTH
}

impl Step {
    /// Returns the number of values in it that come from the client or the application and have any
    /// length.
    fn values(&self) -> usize {
        match self {
            Self::RequestLine => 2,
            Self::User
            | Self::Method
            | Self::Target
            | Self::Path
            | Self::Query
            | Self::RequestHeader(_)
            | Self::ResponseHeader(_)
            | Self::RequestId
            | Self::ClientCertificate
            | Self::Listener
            | Self::Scheme => 1,
            Self::Literal(_)
            | Self::Remote
            | Self::Date
            | Self::Protocol
            | Self::Status
            | Self::Bytes
            | Self::BytesOrDash
            | Self::Seconds
            | Self::Millis
            | Self::Micros
            | Self::DecimalSeconds
            | Self::Pid
            | Self::Slot
            | Self::Generation
            | Self::Outcome
            | Self::QueueWait => 0,
        }
    }
}

/// The header field that a WSGI server hands on under this name (PEP 3333, "environ Variables").
fn wsgi_field(name: &str) -> Option<HeaderName> {
    let field = match name {
        "CONTENT_TYPE" | "CONTENT_LENGTH" => name,
        _ => name.strip_prefix("HTTP_")?,
    };
    HeaderName::from_bytes(field.replace('_', "-").as_bytes()).ok()
}

struct Compiler<'a, E> {
    text: &'a str,
    /// The next byte to read; always at the beginning of a character.
    at: usize,
    steps: Vec<Step>,
    /// Bytes of all literals.
    literals: usize,
    environment: E,
    /// Variables without a value.
    unset: Vec<String>,
}

impl<'a, E: Fn(&str) -> Option<String>> Compiler<'a, E> {
    fn new(text: &'a str, environment: E) -> Self {
        Self { text, at: 0, steps: Vec::new(), literals: 0, environment, unset: Vec::new() }
    }

    fn run(&mut self) -> Result<(), FormatError> {
        while self.at < self.text.len() {
            self.next()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(), FormatError> {
        let rest = &self.text[self.at..];
        if let Some(body) = rest.strip_prefix("%(") {
            let Some(end) = body.find(')') else {
                return Err(self.error(Kind::Unterminated));
            };
            let atom = &body[..end];
            let after = &body[end + 1..];
            if !after.starts_with('s') {
                let found = after.chars().take(1).collect();
                return Err(self.error(Kind::Conversion { atom: atom.to_owned(), found }));
            }
            self.atom(atom)?;
            self.at += "%(".len() + end + ")s".len();
        } else if rest.starts_with("%%") {
            self.literal(b"%")?;
            self.at += "%%".len();
        } else if rest.starts_with('%') {
            let found = rest.chars().take(2).collect();
            return Err(self.error(Kind::Bare(found)));
        } else {
            let plain = &rest[..rest.find('%').unwrap_or(rest.len())];
            let control =
                plain.char_indices().find(|(_, found)| found.is_control() && *found != '\t');
            if let Some((offset, found)) = control {
                self.at += offset;
                return Err(self.error(Kind::Control(found)));
            }
            self.literal(plain.as_bytes())?;
            self.at += plain.len();
        }
        Ok(())
    }

    fn atom(&mut self, atom: &str) -> Result<(), FormatError> {
        let step = match atom {
            "h" => Step::Remote,
            "l" => return self.literal(b"-"),
            "u" => Step::User,
            "t" => Step::Date,
            "r" => Step::RequestLine,
            "m" => Step::Method,
            "U" => Step::Path,
            "q" => Step::Query,
            "H" => Step::Protocol,
            "s" => Step::Status,
            "B" => Step::Bytes,
            "b" => Step::BytesOrDash,
            "f" => Step::RequestHeader(REFERER),
            "a" => Step::RequestHeader(USER_AGENT),
            "T" => Step::Seconds,
            "M" => Step::Millis,
            "D" => Step::Micros,
            "L" => Step::DecimalSeconds,
            "p" => Step::Pid,
            _ => match atom.strip_prefix('{').and_then(|atom| atom.rsplit_once('}')) {
                Some((name, "i" | "o"))
                    if SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret)) =>
                {
                    return self.literal(b"***");
                }
                Some((name, "i")) => Step::RequestHeader(self.header_name(name)?),
                Some((name, "o")) => Step::ResponseHeader(self.header_name(name)?),
                Some((name, "e")) => return self.variable(name),
                _ => return Err(self.error(Kind::Unknown(atom.to_owned()))),
            },
        };
        self.steps.push(step);
        Ok(())
    }

    fn variable(&mut self, name: &str) -> Result<(), FormatError> {
        let step = match name {
            "request_id" => Step::RequestId,
            "slot" => Step::Slot,
            "generation" => Step::Generation,
            "scheme" => Step::Scheme,
            "client_certificate" | "SSL_CLIENT_S_DN" => Step::ClientCertificate,
            "listener" => Step::Listener,
            "outcome" => Step::Outcome,
            "queue_wait" => Step::QueueWait,
            "wsgi.url_scheme" => Step::Scheme,
            "REMOTE_ADDR" => Step::Remote,
            "REQUEST_METHOD" => Step::Method,
            "RAW_URI" => Step::Target,
            "PATH_INFO" => Step::Path,
            "QUERY_STRING" => Step::Query,
            "SERVER_PROTOCOL" => Step::Protocol,
            "SERVER_SOFTWARE" => {
                return self.literal(concat!("ferricorn/", env!("CARGO_PKG_VERSION")).as_bytes());
            }
            // The application stands at the root.
            "SCRIPT_NAME" => return self.literal(b""),
            _ => {
                if let Some(field) = wsgi_field(name) {
                    self.steps.push(Step::RequestHeader(field));
                    return Ok(());
                }
                // `=` and NUL cannot be in a variable's name, and asking for such a one may panic.
                let is_name = !name.is_empty() && !name.contains(['=', '\0']);
                let value = if is_name { (self.environment)(name) } else { None };
                if value.is_none() {
                    self.unset.push(name.to_owned());
                }
                let mut escaped = Vec::new();
                escape::text(value.as_deref().unwrap_or("-").as_bytes(), &mut escaped);
                return self.literal(&escaped);
            }
        };
        self.steps.push(step);
        Ok(())
    }

    fn header_name(&self, name: &str) -> Result<HeaderName, FormatError> {
        HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| self.error(Kind::HeaderName(name.to_owned())))
    }

    /// Adds text to the literal that ends the steps, or begins one.
    fn literal(&mut self, text: &[u8]) -> Result<(), FormatError> {
        self.literals += text.len();
        if self.literals > LITERALS_MAX {
            return Err(self.error(Kind::LiteralsTooLong));
        }
        if let Some(Step::Literal(last)) = self.steps.last_mut() {
            last.extend_from_slice(text);
        } else {
            self.steps.push(Step::Literal(text.to_vec()));
        }
        Ok(())
    }

    fn error(&self, kind: Kind) -> FormatError {
        FormatError { position: self.text[..self.at].chars().count() + 1, kind }
    }
}

#[cfg(test)]
mod tests;
