//! What every section of the configuration can do, and the macro that derives it from one declaration.

use serde::Serialize;
use toml::de::ValueDeserializer;

/// One table of the configuration file.
pub(super) trait Section {
    /// Its name between the brackets.
    fn name(&self) -> &'static str;
    /// Its documentation, line by line.
    fn about(&self) -> &'static [&'static str];
    /// Its keys with their present values.
    fn keys(&self) -> Vec<Key>;
    /// Parses `value` into `key`; `None` if there is no such key.
    fn set(&mut self, key: &str, value: ValueDeserializer<'_>) -> Option<Result<(), toml::de::Error>>;
}

/// One key of a section.
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// Its documentation, line by line.
    pub(super) about: &'static [&'static str],
    /// Its value; `None` if it is unset.
    pub(super) value: Option<toml::Value>,
    /// For keys that may be unset: a value as it could be written in the file.
    pub(super) example: Option<&'static str>,
}

/// The value as the file would hold it; `None` for an option that is unset.
pub(super) fn literal(value: &impl Serialize) -> Option<toml::Value> {
    toml::Value::try_from(value).ok()
}

/// Declares a section: documentation, name, and for each key its documentation, type and default.
macro_rules! section {
    ($(#[doc = $about:literal])+ $name:literal => $Section:ident {
        $($(#[doc = $key_about:literal])+ $key:ident: $Type:ty = $default:expr $(, example $example:literal)?;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Section {
            $($(#[doc = $key_about])+ pub $key: $Type,)+
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        impl $crate::config::section::Section for $Section {
            fn name(&self) -> &'static str {
                $name
            }

            fn about(&self) -> &'static [&'static str] {
                &[$($about),+]
            }

            fn keys(&self) -> Vec<$crate::config::section::Key> {
                vec![$($crate::config::section::Key {
                    name: stringify!($key),
                    about: &[$($key_about),+],
                    value: $crate::config::section::literal(&self.$key),
                    example: None$(.or(Some($example)))?,
                }),+]
            }

            fn set(&mut self, key: &str, value: toml::de::ValueDeserializer<'_>) -> Option<Result<(), toml::de::Error>> {
                match key {
                    $(stringify!($key) => {
                        Some(serde::Deserialize::deserialize(value).map(|value| self.$key = value))
                    })+
                    _ => None,
                }
            }
        }
    };
}
pub(super) use section;
