//! Log events: a stable name, typed fields and a text, as data that any process can make.
//!
//! # Why
//! Operators filter, count and alert on the error log. A text that is reworded breaks them without
//! notice, so names and fields are the contract (`docs/events.md`) and the text is for people.
//! [`log_events!`](crate::log_event::log_events) declares an enum of events once; the names, the fields
//! and the documentation all come from that declaration.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::ids::{Generation, Pid, Slot, SlotSet};

/// The weight of a log line, in gunicorn's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Debug,
    Info,
    Warning,
    Error,
}

/// The value of a field, typed as JSON types it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Text(String),
}

/// The fields of one event, in the sequence of their declaration.
///
/// It is an [`Error`] so that it can travel through `tracing` as a field: that is the one kind of value
/// which a layer gets back with its type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EventFields(Vec<(&'static str, Value)>);

impl EventFields {
    /// The fields with these names and values.
    pub(crate) fn of(values: &[(&'static str, &dyn EventField)]) -> Self {
        let mut fields = Self::default();
        for (name, value) in values {
            value.record(name, &mut fields);
        }
        fields
    }

    /// Adds a field.
    pub(crate) fn push(&mut self, name: &'static str, value: Value) {
        self.0.push((name, value));
    }

    /// The fields, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}

impl fmt::Display for EventFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            match value {
                Value::Signed(number) => write!(f, "{space}{name}={number}")?,
                Value::Unsigned(number) => write!(f, "{space}{name}={number}")?,
                Value::Float(number) => write!(f, "{space}{name}={number}")?,
                Value::Bool(yes) => write!(f, "{space}{name}={yes}")?,
                Value::Text(text) => write!(f, "{space}{name}={text:?}")?,
            }
        }
        Ok(())
    }
}

impl Error for EventFields {}

/// One event of the error log. Its `Display` is the text for people.
pub(crate) trait LogEvent: fmt::Display {
    /// The name that scripts and alerts rely on.
    fn name(&self) -> &'static str;

    /// The severity of the line.
    fn severity(&self) -> Severity;

    /// The fields with their values.
    fn fields(&self) -> EventFields;
}

/// An event as `docs/events.md` documents it.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) fields: Vec<&'static str>,
    pub(crate) doc: &'static str,
}

/// A type that can be a field, or several: an exit status is a code or a signal.
pub(crate) trait EventField {
    /// Adds the value under this name.
    fn record(&self, name: &'static str, fields: &mut EventFields);

    /// The names under which a value may be added.
    #[cfg(test)]
    fn names(name: &'static str) -> Vec<&'static str>
    where
        Self: Sized,
    {
        vec![name]
    }
}

/// Fields whose value is one conversion away.
macro_rules! plain_fields {
    ($($type:ty: $value:ident => $made:expr;)*) => {$(
        impl EventField for $type {
            fn record(&self, name: &'static str, fields: &mut EventFields) {
                let $value = self;
                fields.push(name, $made);
            }
        }
    )*};
}

plain_fields! {
    Slot: slot => Value::Unsigned(slot.number().into());
    Generation: generation => Value::Unsigned(generation.number().into());
    Pid: pid => Value::Signed(pid.0.into());
    SlotSet: slots => Value::Text(slots.to_string());
    u16: number => Value::Unsigned((*number).into());
    u32: number => Value::Unsigned((*number).into());
    u64: number => Value::Unsigned(*number);
    usize: number => Value::Unsigned(u64::try_from(*number).unwrap_or(u64::MAX));
    bool: yes => Value::Bool(*yes);
    i32: number => Value::Signed((*number).into());
    String: text => Value::Text(text.clone());
    &'static str: text => Value::Text((*text).to_owned());
    f32: number => Value::Float((f64::from(*number) * 1000.0).round() / 1000.0);
    Duration: span => Value::Float((span.as_secs_f64() * 1000.0).round() / 1000.0);
}

impl<T: EventField> EventField for Option<T> {
    fn record(&self, name: &'static str, fields: &mut EventFields) {
        if let Some(value) = self {
            value.record(name, fields);
        }
    }

    #[cfg(test)]
    fn names(name: &'static str) -> Vec<&'static str> {
        T::names(name)
    }
}

/// Declares an enum of log events. A variant has its documentation, its name in the log, and its
/// fields; a field whose name in the log carries a unit is written `took as duration_seconds: Duration`.
macro_rules! log_events {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $Events:ident {
            $(
                $(#[doc = $doc:literal])+
                $Variant:ident = $name:literal
                $({ $($field:ident $(as $alias:ident)?: $type:ty),* $(,)? })?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $visibility enum $Events {
            $($(#[doc = $doc])+ $Variant $({ $($field: $type),* })?),*
        }

        impl $Events {
            /// The name in the log.
            pub(crate) fn event_name(&self) -> &'static str {
                match self {
                    $(Self::$Variant { .. } => $name),*
                }
            }

            /// The fields in the log.
            pub(crate) fn event_fields(&self) -> $crate::log_event::EventFields {
                match self {
                    $(Self::$Variant $({ $($field),* })? => {
                        $crate::log_event::EventFields::of(&[
                            $($((
                                $crate::log_event::log_events!(@name $field $($alias)?),
                                $field as &dyn $crate::log_event::EventField,
                            )),*)?
                        ])
                    })*
                }
            }

            /// The documentation of each event.
            #[cfg(test)]
            pub(crate) fn descriptions() -> Vec<$crate::log_event::Description> {
                vec![$($crate::log_event::Description {
                    name: $name,
                    fields: <[Vec<&'static str>]>::concat(&[
                        $($(<$type as $crate::log_event::EventField>::names(
                            $crate::log_event::log_events!(@name $field $($alias)?)
                        ),)*)?
                    ]),
                    doc: concat!($($doc),+).trim_ascii(),
                }),*]
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $alias:ident) => { stringify!($alias) };
}
pub(crate) use log_events;

/// Declares an enum of log events each of which has one severity and one text, which names its fields:
/// `Variant = "name", Warning, "cannot open {path}: {reason}" { path: String, reason: String }`.
macro_rules! log_lines {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $Events:ident {
            $(
                $(#[doc = $doc:literal])+
                $Variant:ident = $name:literal, $Severity:ident, $text:literal
                $({ $($field:ident $(as $alias:ident)?: $type:ty),* $(,)? })?
            ),* $(,)?
        }
    ) => {
        $crate::log_event::log_events! {
            $(#[$meta])*
            $visibility enum $Events {
                $($(#[doc = $doc])+ $Variant = $name $({ $($field $(as $alias)?: $type),* })?),*
            }
        }

        impl $crate::log_event::LogEvent for $Events {
            fn name(&self) -> &'static str {
                self.event_name()
            }

            fn fields(&self) -> $crate::log_event::EventFields {
                self.event_fields()
            }

            fn severity(&self) -> $crate::log_event::Severity {
                match self {
                    $(Self::$Variant { .. } => $crate::log_event::Severity::$Severity),*
                }
            }
        }

        impl std::fmt::Display for $Events {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$Variant $({ $($field),* })? => {
                        // A field may be for scripts alone.
                        $(let _ = ($($field,)*);)?
                        write!(f, $text)
                    })*
                }
            }
        }
    };
}
pub(crate) use log_lines;
