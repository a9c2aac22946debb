//! Structs whose fields are settings, declared together with their reading.
//!
//! # Why
//! A setting is named in the table of settings, and as its field. The key is made of the field's name, so
//! that key and field cannot differ, and no list of fields can lack one.

use super::typed::FieldReader;

/// A struct of settings.
pub(super) trait SettingFields {
    /// The keys that its fields are read by.
    #[cfg(test)]
    const KEYS: &'static [&'static str];

    /// Reads each field; the key of the whole is that of a table, or empty.
    fn read(reader: &mut FieldReader<'_>, key: &str) -> Self;

    /// Takes over the fields that were changed after they were read, of the keys that are meant.
    fn keep_changed(&mut self, changed: &Self, read: &Self, is_meant: impl Fn(&str) -> bool);
}

/// Declares a struct of settings: `pub struct Log in "log." { … }`, where `log.` is before each field's name
/// in its key. A field is read by its type ([`FromValue`](super::from_value::FromValue)), or by the function
/// behind `=`. Fields in `beside` are no settings, and are made of the reader.
macro_rules! fields {
    (
        $(#[$about:meta])*
        pub struct $name:ident in $table:literal {
            $($(#[$doc:meta])* pub $field:ident: $type:ty $(= $read:path)?,)+
        }
        $(beside($reader:ident) {
            $($(#[$other_doc:meta])* $other:ident: $other_type:ty = $made:expr,)+
        })?
    ) => {
        $(#[$about])*
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)+
            $($($(#[$other_doc])* $other: $other_type,)+)?
        }

        impl $crate::config::fields::SettingFields for $name {
            #[cfg(test)]
            const KEYS: &'static [&'static str] = &[$(concat!($table, stringify!($field))),+];

            fn read(reader: &mut $crate::config::typed::FieldReader<'_>, _: &str) -> Self {
                $(let $field = $crate::config::fields::fields!(@read $($read)?)(
                    reader,
                    concat!($table, stringify!($field)),
                );)+
                $(let $reader = &*reader;)?
                Self { $($field,)+ $($($other: $made,)+)? }
            }

            fn keep_changed(&mut self, changed: &Self, read: &Self, is_meant: impl Fn(&str) -> bool) {
                $(if changed.$field != read.$field && is_meant(concat!($table, stringify!($field))) {
                    self.$field.clone_from(&changed.$field);
                })+
            }
        }
    };
    (@read) => { $crate::config::typed::FieldReader::read };
    (@read $read:path) => { $read };
}
pub(super) use fields;
