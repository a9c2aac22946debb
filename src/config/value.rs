//! A setting's value: read from a text or from TOML, judged by the setting's kind, shown again.
//!
//! The file is strict about types (`workers = "4"` is an error), the other layers have texts only.
//! A text that is shown is TOML, so that what `config` prints can be a `config.toml`.

use std::time::Duration;

use toml::de::DeValue;

use super::setting::{Empty, Kind, Secrecy, Setting};
use super::units;

/// Durations between zero and this are a misunderstanding: they would become zero, which often
/// means for ever.
const SHORTEST: Duration = Duration::from_millis(1);
/// How much of a wrong text an error quotes, in characters.
const QUOTE_MAX: usize = 80;
/// Modes have three octal digits and the three bits before them (chmod(2)).
const MODE_MAX: u32 = 0o7777;

/// What a setting is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Integer(u64),
    Duration(Duration),
    Size(u64),
    Boolean(bool),
    /// One of a choice's words, or the word beside the kind.
    Word(&'static str),
    List(Vec<String>),
    Mode(u32),
}

/// How values are read. The error is `expected …, found …`.
impl Setting {
    /// From the environment, the command line, or a string in the file.
    pub(crate) fn read_text(&self, text: &str) -> Result<Value, String> {
        if let Some(word) = self.word.filter(|word| *word == text) {
            return Ok(Value::Word(word));
        }
        let value = match self.kind {
            Kind::Text | Kind::Path => Some(Value::Text(text.to_owned())),
            Kind::Integer { .. } => text.parse().ok().map(Value::Integer),
            Kind::Duration { .. } => units::parse_duration(text).map(Value::Duration),
            Kind::Size { .. } => units::parse_size(text).map(Value::Size),
            Kind::Boolean => read_boolean(text).map(Value::Boolean),
            Kind::Choice(words) => read_word(words, text).map(Value::Word),
            Kind::List { separator, .. } => Some(Value::List(split(text, separator))),
            Kind::Mode => read_mode(text).map(Value::Mode),
        };
        self.judge(value, || quote(text))
    }

    /// From an option that may be given several times: the last one counts, or, of a list, all.
    pub(crate) fn read_texts(&self, texts: &[String]) -> Result<Value, String> {
        let Kind::List { separator, .. } = self.kind else {
            return self.read_text(texts.last().map_or("", String::as_str));
        };
        let items: Vec<String> = texts.iter().flat_map(|text| split(text, separator)).collect();
        self.judge(Some(Value::List(items)), || "an empty list".to_owned())
    }

    /// From the file.
    pub(crate) fn read_toml(&self, toml: &DeValue<'_>) -> Result<Value, String> {
        let value = match (self.kind, toml) {
            (Kind::Integer { .. } | Kind::Boolean, DeValue::String(text)) => {
                self.word.filter(|word| *word == text.as_ref()).map(Value::Word)
            }
            (_, DeValue::String(text)) => return self.read_text(text),
            (Kind::Integer { .. }, DeValue::Integer(_)) => whole(toml).map(Value::Integer),
            (Kind::Size { .. }, DeValue::Integer(_)) => whole(toml).map(Value::Size),
            (Kind::Duration { .. }, DeValue::Integer(_)) => {
                whole(toml).map(|seconds| Value::Duration(Duration::from_secs(seconds)))
            }
            (Kind::Duration { .. }, DeValue::Float(seconds)) => {
                let seconds = seconds.as_str().parse().ok();
                let duration = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
                duration.map(Value::Duration)
            }
            // Decimal 22 is either 0o22 without its prefix or 0o26: nobody can tell.
            (Kind::Mode, DeValue::Integer(mode)) if mode.radix() == 8 || mode.as_str() == "0" => {
                u32::from_str_radix(mode.as_str(), 8).ok().map(Value::Mode)
            }
            (Kind::Boolean, DeValue::Boolean(boolean)) => Some(Value::Boolean(*boolean)),
            (Kind::List { .. }, DeValue::Array(items)) => {
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                texts.collect::<Option<_>>().map(Value::List)
            }
            (_, _) => None,
        };
        self.judge(value, || describe(toml))
    }

    /// What it may be, as the end of `expected …`.
    pub(crate) fn expectation(&self) -> String {
        let kind = match self.kind {
            Kind::Text => "a text".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Integer { min, max } => format!("{min} to {max}"),
            Kind::Duration { min_ms, max_ms } => {
                let [least, min, max] = [SHORTEST, millis(min_ms), millis(max_ms)]
                    .map(|duration| duration.as_secs_f64().to_string());
                let min = if min_ms == 0 { format!("0, or {least}") } else { min };
                format!("{min} to {max} seconds, or a text like \"30s\" or \"2m\"")
            }
            Kind::Size { min, max } => {
                let [min, max] = [min, max].map(units::show_size);
                format!("{min} to {max}, as bytes or as a text like \"8KiB\" or \"1MB\"")
            }
            Kind::Boolean => "true or false".to_owned(),
            Kind::Choice(words) => alternatives(words),
            Kind::List { empty: Empty::Allowed, .. } => "a list of texts".to_owned(),
            Kind::List { empty: Empty::Refused, .. } => "a list of at least one text".to_owned(),
            Kind::Mode => "an octal mode with a leading zero, like \"022\"".to_owned(),
        };
        match self.word {
            Some("") => format!("{kind}, or \"\" for none"),
            Some(word) => format!("{kind} or {word:?}"),
            None => kind,
        }
    }

    /// Adds range and check to a value of the right kind.
    fn judge(&self, value: Option<Value>, found: impl FnOnce() -> String) -> Result<Value, String> {
        let wrong = |setting: &Self| {
            let found = match setting.secrecy {
                Secrecy::Open => found(),
                Secrecy::Secret => "*** (a secret)".to_owned(),
            };
            format!("expected {}, found {found}", setting.expectation())
        };
        let Some(value) = value.filter(|value| self.in_range(value)) else {
            return Err(wrong(self));
        };
        let Some(check) = self.check else {
            return Ok(value);
        };
        match &value {
            Value::Text(text) => check(text)?,
            Value::List(items) => items.iter().try_for_each(|item| check(item))?,
            Value::Integer(_) | Value::Duration(_) | Value::Size(_) => check(&value.plain())?,
            Value::Boolean(_) | Value::Word(_) | Value::Mode(_) => {}
        }
        Ok(value)
    }

    fn in_range(&self, value: &Value) -> bool {
        let no_zero_byte = |text: &String| !text.contains('\0');
        match (self.kind, value) {
            (Kind::Integer { min, max }, Value::Integer(number))
            | (Kind::Size { min, max }, Value::Size(number)) => (min..=max).contains(number),
            (Kind::Duration { min_ms, max_ms }, Value::Duration(duration)) => {
                (millis(min_ms)..=millis(max_ms)).contains(duration)
                    && (duration.is_zero() || SHORTEST <= *duration)
            }
            (Kind::Mode, Value::Mode(mode)) => *mode <= MODE_MAX,
            (Kind::List { empty: Empty::Refused, .. }, Value::List(items)) if items.is_empty() => {
                false
            }
            (_, Value::List(items)) => items.iter().all(no_zero_byte),
            (_, Value::Text(text)) => no_zero_byte(text),
            (_, _) => true,
        }
    }
}

/// How values are shown.
impl Value {
    /// As a text that reads back in the environment.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Duration(duration) => units::show_duration(*duration),
            Self::Size(bytes) => units::show_size(*bytes),
            Self::Boolean(boolean) => boolean.to_string(),
            Self::Word(word) => (*word).to_owned(),
            Self::List(items) => items.join(","),
            Self::Mode(mode) => format!("0{mode:o}"),
        }
    }

    /// As TOML, with secrets left out.
    pub(crate) fn shown(&self, secrecy: Secrecy) -> String {
        let mask = |text: &str| match secrecy {
            Secrecy::Open => text.to_owned(),
            Secrecy::Secret => mask(text),
        };
        match self {
            Self::Text(text) => toml_text(&mask(text)),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| toml_text(&mask(item))).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Integer(_) | Self::Boolean(_) => self.plain(),
            Self::Word(_) | Self::Mode(_) => toml_text(&self.plain()),
            Self::Duration(_) | Self::Size(_) => {
                let text = self.plain();
                if text.bytes().all(|byte| byte.is_ascii_digit()) { text } else { toml_text(&text) }
            }
        }
    }

    /// For an application's own type: durations are seconds, sizes bytes, the word `""` is null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Integer(number) | Self::Size(number) => (*number).into(),
            Self::Duration(duration) if duration.subsec_nanos() == 0 => duration.as_secs().into(),
            Self::Duration(duration) => duration.as_secs_f64().into(),
            Self::Boolean(boolean) => (*boolean).into(),
            Self::Word("") => serde_json::Value::Null,
            Self::Word(word) => (*word).into(),
            Self::List(items) => items.clone().into(),
            Self::Mode(mode) => (*mode).into(),
        }
    }
}

/// A text as TOML writes it.
pub(crate) fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The words of a choice, for a sentence.
fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// `scheme://user:password@host` without the password, `NAME=value` without the value, else `***`.
///
/// A password that should have been escaped may contain any delimiter, so that everything up to the
/// last `@` is taken for it: rather too much is hidden than too little.
fn mask(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return match text.split_once('=') {
            Some((name, _)) => format!("{name}=***"),
            None if text.is_empty() => String::new(),
            None => "***".to_owned(),
        };
    };
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{host}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    let Some((path, query)) = rest.split_once('?') else {
        return format!("{scheme}://{rest}");
    };
    let query: Vec<String> = query.split('&').map(mask_parameter).collect();
    format!("{scheme}://{path}?{}", query.join("&"))
}

/// A URL's parameter without its value, when its name says that it is a secret.
fn mask_parameter(parameter: &str) -> String {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let lower = name.to_lowercase();
    let telling = ["pass", "pwd", "secret", "token", "key"].iter().any(|it| lower.contains(it));
    if telling && !value.is_empty() { format!("{name}=***") } else { parameter.to_owned() }
}

fn read_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn read_word(words: &[&'static str], text: &str) -> Option<&'static str> {
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied()
}

fn read_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0')?;
    let digits = digits.strip_prefix('o').unwrap_or(digits);
    let octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    if text == "0" {
        return Some(0);
    }
    if octal { u32::from_str_radix(digits, 8).ok() } else { None }
}

fn split(text: &str, separator: char) -> Vec<String> {
    let items = text.split(separator).map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

fn whole(toml: &DeValue<'_>) -> Option<u64> {
    let integer = toml.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A wrong text, quoted, on one line, and not for ever.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What stands in the file, for `found …`.
pub(super) fn describe(toml: &DeValue<'_>) -> String {
    match toml {
        DeValue::String(text) => quote(text),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Array(items) => {
            let odd = items.iter().find(|item| item.get_ref().as_str().is_none());
            match odd {
                Some(item) => format!("a list with {} in it", describe(item.get_ref())),
                None if items.is_empty() => "an empty list".to_owned(),
                None => "a list".to_owned(),
            }
        }
    }
}
