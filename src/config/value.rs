//! A setting's value: read from a text or from the file, judged by the setting's kind, shown again.
//!
//! The file is strict about types (`workers = "4"` is an error), the other layers have texts only.
//! A text that is shown is TOML, so that what `config` prints can be a `config.toml`.

use std::time::Duration;

use super::file::toml_text;
use super::setting::{Empty, Kind, Secrecy, Setting};
use super::units;

/// Durations between zero and this are a misunderstanding: they would become zero, which often
/// means for ever.
const SHORTEST: Duration = Duration::from_millis(1);
/// Words for none, where a setting may be none.
const NONE: [&str; 2] = ["none", "off"];
/// The length of a wrong text that an error quotes, in characters.
const QUOTE_MAX: usize = 80;
/// Modes have three octal digits and the three bits before them (chmod(2)).
const MODE_MAX: u32 = 0o7777;

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Integer(u64),
    Duration(Duration),
    /// Thousandths.
    Share(u16),
    Size(u64),
    Boolean(bool),
    /// One of a choice's words, or the word beside the kind.
    Word(&'static str),
    List(Vec<String>),
    Mode(u32),
}

/// A value as the configuration file has it.
#[derive(Debug)]
pub(super) enum Written<'a> {
    Text(&'a str),
    Integer {
        digits: &'a str,
        radix: u32,
    },
    Float(&'a str),
    Boolean(bool),
    Texts(Vec<String>),
    /// No setting has such a one.
    Other,
}

/// Reads values. The error is `expected …, found …`.
impl Setting {
    /// From the environment, the command line, or a string in the file.
    pub(crate) fn read_text(&self, text: &str) -> Result<Value, String> {
        let text = self.synonym(text).unwrap_or(text);
        if let Some(value) = self.read_word(text) {
            return Ok(value);
        }
        let value = match self.kind {
            Kind::Text | Kind::Path => Some(Value::Text(text.to_owned())),
            Kind::Integer { .. } => text.parse().ok().map(Value::Integer),
            Kind::Duration { .. } => units::parse_duration(text).map(Value::Duration),
            Kind::Share => read_share(text),
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
        if let [text] = texts
            && let Some(value) = self.read_word(text)
        {
            return Ok(value);
        }
        let items: Vec<String> = match separator {
            // An option is given once for each: a line end in it belongs to it.
            '\n' => texts.iter().filter(|text| !text.trim().is_empty()).cloned().collect(),
            _ => texts.iter().flat_map(|text| split(text, separator)).collect(),
        };
        self.judge(Some(Value::List(items)), || "an empty list".to_owned())
    }

    /// From the file.
    pub(super) fn read_written(
        &self,
        written: Written<'_>,
        found: impl FnOnce() -> String,
    ) -> Result<Value, String> {
        let value = match (self.kind, written) {
            (_, Written::Text(text)) if self.synonym(text).is_some() => {
                return self.read_text(text);
            }
            (Kind::Integer { .. } | Kind::Boolean, Written::Text(text)) => self.read_word(text),
            (_, Written::Text(text)) => return self.read_text(text),
            (Kind::Integer { .. }, Written::Integer { digits, radix }) => {
                u64::from_str_radix(digits, radix).ok().map(Value::Integer)
            }
            (Kind::Size { .. }, Written::Integer { digits, radix }) => {
                u64::from_str_radix(digits, radix).ok().map(Value::Size)
            }
            (Kind::Duration { .. }, Written::Integer { digits, radix }) => {
                let seconds = u64::from_str_radix(digits, radix).ok();
                seconds.map(|seconds| Value::Duration(Duration::from_secs(seconds)))
            }
            (Kind::Duration { .. }, Written::Float(seconds)) => {
                let seconds = seconds.parse().ok();
                let duration =
                    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                duration.map(Value::Duration)
            }
            (Kind::Share, Written::Integer { digits: share, .. } | Written::Float(share)) => {
                read_share(share)
            }
            // Decimal 22 is either 0o22 without its prefix or 0o26: that is unknown.
            (Kind::Mode, Written::Integer { digits, radix }) if radix == 8 || digits == "0" => {
                u32::from_str_radix(digits, 8).ok().map(Value::Mode)
            }
            (Kind::Boolean, Written::Boolean(boolean)) => Some(Value::Boolean(boolean)),
            (Kind::List { .. }, Written::Texts(texts)) => Some(Value::List(texts)),
            (_, _) => None,
        };
        self.judge(value, found)
    }

    fn synonym(&self, text: &str) -> Option<&'static str> {
        let meant = self.synonyms.iter().find(|(other, _)| other.eq_ignore_ascii_case(text));
        meant.map(|(_, word)| *word)
    }

    /// The word beside the kind, if the text is it. For none that is `""`, `none` or `off`: in the
    /// environment an empty text counts as unset.
    fn read_word(&self, text: &str) -> Option<Value> {
        let word = self.word?;
        let is_none = || NONE.iter().any(|none| none.eq_ignore_ascii_case(text));
        let is_it = word == text || (word.is_empty() && is_none());
        is_it.then(|| match self.kind {
            Kind::List { .. } => Value::List(Vec::new()),
            _ => Value::Word(word),
        })
    }

    /// The values that it may have, as the end of `expected …`.
    pub(crate) fn expectation(&self) -> String {
        let kind = match self.kind {
            Kind::Text => "a text".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Integer { min, max } if min == max => min.to_string(),
            Kind::Integer { min, max } => format!("{min} to {max}"),
            Kind::Duration { min_ms, max_ms } => {
                let [least, min, max] = [SHORTEST, millis(min_ms), millis(max_ms)]
                    .map(|duration| duration.as_secs_f64().to_string());
                let min = if min_ms == 0 { format!("0, or {least}") } else { min };
                format!("{min} to {max} seconds, or a text like \"30s\" or \"2m\"")
            }
            Kind::Share => "a share from 0 to 1, like 0.5".to_owned(),
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
            Some("") => format!("{kind}, or \"none\""),
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
            Value::Integer(_) | Value::Duration(_) | Value::Share(_) | Value::Size(_) => {
                check(&value.plain())?;
            }
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

/// The parts of values that fields hold.
impl Value {
    /// Returns the text, or the word.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Returns the number, whatever it counts.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Integer(number) | Self::Size(number) => Some(*number),
            Self::Mode(mode) => Some((*mode).into()),
            _ => None,
        }
    }

    /// Returns the items of a list.
    pub(super) fn items(&self) -> Option<&[String]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }
}

/// Shows values.
impl Value {
    /// As a text that reads back in the environment.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Duration(duration) => units::show_duration(*duration),
            Self::Share(share) => (f64::from(*share) / 1000.0).to_string(),
            Self::Size(bytes) => units::show_size(*bytes),
            Self::Boolean(boolean) => boolean.to_string(),
            Self::Word(word) => (*word).to_owned(),
            Self::List(items) => items.join(","),
            Self::Mode(mode) => format!("0{mode:o}"),
        }
    }

    /// As TOML, with secrets left out.
    pub(crate) fn shown(&self, secrecy: Secrecy) -> String {
        self.rendered(secrecy, toml_text)
    }

    /// As JSON, which is TOML, too: for another image of the program.
    pub(super) fn handed(&self) -> String {
        self.rendered(Secrecy::Open, json_text)
    }

    fn rendered(&self, secrecy: Secrecy, quoted: fn(&str) -> String) -> String {
        let mask = |text: &str| match secrecy {
            Secrecy::Open => text.to_owned(),
            Secrecy::Secret => mask(text),
        };
        match self {
            Self::Text(text) => quoted(&mask(text)),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(&mask(item))).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Integer(_) | Self::Share(_) | Self::Boolean(_) => self.plain(),
            Self::Word(_) | Self::Mode(_) => quoted(&self.plain()),
            Self::Duration(_) | Self::Size(_) => {
                let text = self.plain();
                if text.bytes().all(|byte| byte.is_ascii_digit()) { text } else { quoted(&text) }
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
            Self::Share(share) => (f64::from(*share) / 1000.0).into(),
            Self::Boolean(boolean) => (*boolean).into(),
            Self::Word("") => serde_json::Value::Null,
            Self::Word(word) => (*word).into(),
            Self::List(items) => items.clone().into(),
            Self::Mode(mode) => (*mode).into(),
        }
    }
}

/// A text as JSON and TOML both read it: TOML has DEL in no text.
pub(super) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
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
    let file = || {
        text.split_once(':').filter(|(scheme, rest)| {
            // A file's name, without a user.
            *scheme == "sqlite" && !rest.contains('@')
        })
    };
    let url = text.split_once("://").map(|(scheme, rest)| (scheme, "://", rest));
    let url = url.or_else(|| file().map(|(scheme, rest)| (scheme, ":", rest)));
    let Some((scheme, separator, rest)) = url else {
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
        return format!("{scheme}{separator}{rest}");
    };
    let query: Vec<String> = query.split('&').map(mask_parameter).collect();
    format!("{scheme}{separator}{path}?{}", query.join("&"))
}

/// A URL's parameter without its value, when its name says that it is a secret.
fn mask_parameter(parameter: &str) -> String {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let lower = name.to_lowercase();
    let telling = ["pass", "pwd", "secret", "token", "key"].iter().any(|word| lower.contains(word));
    if telling && !value.is_empty() { format!("{name}=***") } else { parameter.to_owned() }
}

fn read_share(text: &str) -> Option<Value> {
    let share: f64 = text.parse().ok()?;
    let thousandths = (0..=1000_u16).find(|number| f64::from(*number) >= share * 1000.0 - 0.5)?;
    (0.0..=1.0).contains(&share).then_some(Value::Share(thousandths))
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

/// The items of a list that is one text. Items that are lines keep what they end with: they may be
/// assignments, and a value's white space is the value's.
fn split(text: &str, separator: char) -> Vec<String> {
    let items = text.split(separator).filter(|item| !item.trim().is_empty());
    let item = |item: &str| match separator {
        '\n' => item.strip_suffix('\r').unwrap_or(item).trim_start().to_owned(),
        _ => item.trim().to_owned(),
    };
    items.map(item).collect()
}

/// A wrong text, quoted, on one line, and not for ever.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
