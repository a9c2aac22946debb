//! From a setting's value to the type of the field that holds it.
//!
//! # Why
//! The type of the field chooses the reading, so that no getter has to be named beside the key. A field
//! that cannot hold the values of its setting is a mistake in ferricorn: it is reported with all that is
//! wrong with the configuration, and never ends the process.

use std::path::PathBuf;
use std::time::Duration;

use super::value::Value;

/// A type that fields of the configuration have.
pub(super) trait FromValue: Sized {
    /// The stand-in for a value that the type cannot hold, once that is reported.
    const FALLBACK: Self;

    /// Returns `None` for a value that the type cannot hold.
    fn from_value(value: &Value) -> Option<Self>;
}

/// Implements [`FromValue`] for types with a short reading: `Type, FALLBACK, |value| reading;`.
macro_rules! from_value {
    ($($type:ty, $fallback:expr, |$value:ident| $read:expr;)+) => {$(
        impl $crate::config::from_value::FromValue for $type {
            const FALLBACK: Self = $fallback;

            fn from_value($value: &$crate::config::value::Value) -> Option<Self> {
                $read
            }
        }
    )+};
}
pub(super) use from_value;

/// Declares an enum that is read by words, the fallback first. `WORDS` are those of the setting's choice.
macro_rules! choice {
    (
        $(#[$about:meta])*
        pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$about])*
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            pub(super) const WORDS: &'static [&'static str] = &[$($word),+];
        }

        $crate::config::from_value::from_value! {
            $name, [$(Self::$variant),+][0], |value| match value.text()? {
                $($word => Some(Self::$variant),)+
                _ => None,
            };
        }
    };
}
pub(super) use choice;

from_value! {
    bool, false, |value| match value { Value::Boolean(yes) => Some(*yes), _ => None };
    u16, 0, |value| value.number()?.try_into().ok();
    u32, 0, |value| value.number()?.try_into().ok();
    u64, 0, |value| value.number();
    usize, 0, |value| value.number()?.try_into().ok();
    i32, 0, |value| value.number()?.try_into().ok();
    f64, 0.0, |value| match value { Value::Share(share) => Some(f64::from(*share) / 1000.0), _ => None };
    Duration, Self::ZERO, |value| match value { Value::Duration(time) => Some(*time), _ => None };
    String, Self::new(), |value| value.text().map(str::to_owned);
    PathBuf, Self::new(), |value| value.text().map(Self::from);
    Vec<String>, Self::new(), |value| value.items().map(<[String]>::to_vec);
    Vec<PathBuf>, Self::new(), |value| Some(value.items()?.iter().map(PathBuf::from).collect());
}

/// Reads the word beside the kind, an empty text and zero time as `None`.
impl<T: FromValue> FromValue for Option<T> {
    const FALLBACK: Self = None;

    fn from_value(value: &Value) -> Option<Self> {
        let is_none = matches!(value, Value::Word(_) | Value::Duration(Duration::ZERO));
        let is_none = is_none || value.text() == Some("");
        if is_none { Some(None) } else { T::from_value(value).map(Some) }
    }
}
