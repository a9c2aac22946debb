//! The fields of a `tracing` event or span, typed and in order.

use std::error::Error;
use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};

use crate::access_format::escape::OneLine;
pub(super) use crate::log_event::Value;
use crate::log_event::{EventFields, LogEvent};

/// The field that names an event. Text lines leave it out: it is for scripts.
pub(super) const EVENT: &str = "event";

/// The fields by which a record of the `log` crate names its place in the code.
const OF_LOG: [&str; 4] = ["log.target", "log.module_path", "log.file", "log.line"];

/// The field that makes an error a critical one.
pub(super) const CRITICAL: &str = "critical";

/// Fields by name; a name that is set again keeps its place and takes the new value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    message: String,
    is_critical: bool,
    event: Option<String>,
    /// Those of an event of ferricorn's own. Its message has them already, so text lines do not repeat
    /// them.
    structured: EventFields,
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    /// The fields of an event of ferricorn's own.
    pub(super) fn of(event: &dyn LogEvent) -> Self {
        Self {
            message: event.to_string(),
            event: Some(event.name().to_owned()),
            structured: event.fields(),
            ..Self::default()
        }
    }

    /// The event's name, if it has one.
    pub(super) fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// The fields that the message has in its words already.
    pub(super) fn structured(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.structured.iter()
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn is_critical(&self) -> bool {
        self.is_critical
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.values.iter().map(|(name, value)| (*name, value))
    }

    /// Adds the fields of a span around whose names are not taken.
    pub(super) fn add_missing(&mut self, outer: &Self) {
        for (name, value) in &outer.values {
            if !self.values.iter().any(|(taken, _)| taken == name) {
                self.values.push((name, value.clone()));
            }
        }
    }

    fn set(&mut self, field: &Field, value: Value) {
        // A field written as `r#type` is called `type`.
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        if OF_LOG.contains(&name) {
            return;
        }
        match self.values.iter_mut().find(|(taken, _)| *taken == name) {
            Some((_, old)) => *old = value,
            None => self.values.push((name, value)),
        }
    }

    fn set_text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            EVENT => self.event = Some(text),
            _ => self.set(field, Value::Text(text)),
        }
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Unsigned(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == CRITICAL {
            self.is_critical = value;
        } else {
            self.set(field, Value::Bool(value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        if let Some(fields) = value.downcast_ref::<EventFields>() {
            self.structured = fields.clone();
            return;
        }
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            write!(text, ": {cause}").expect("a string takes every text");
            source = cause.source();
        }
        self.set_text(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set_text(field, format!("{value:?}"));
    }
}

impl Value {
    /// As a text line has it: quoted when it would otherwise not end where it ends.
    pub(super) fn as_text(&self) -> impl fmt::Display {
        struct AsText<'a>(&'a Value);
        impl fmt::Display for AsText<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Value::Signed(number) => write!(f, "{number}"),
                    Value::Unsigned(number) => write!(f, "{number}"),
                    Value::Float(number) => write!(f, "{number}"),
                    Value::Bool(yes) => write!(f, "{yes}"),
                    Value::Text(text) => word_or_quoted(text, f),
                }
            }
        }
        AsText(self)
    }
}

fn word_or_quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_word = !text.is_empty() && !text.contains([' ', '"', '=', '\\']);
    if is_word {
        return write!(f, "{}", OneLine(text));
    }
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"");
    write!(f, "\"{}\"", OneLine(&escaped))
}
