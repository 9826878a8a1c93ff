//! Groups of plain values: a keyword with one value stands once, as a field with its name, so that writing and
//! comparing need no line for each.

use std::time::Duration;

/// A value in the form in which the configuration writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Plain<'a> {
    /// The keyword alone.
    Flag,
    Boolean(bool),
    Number(i64),
    Time(Duration),
    /// Words, each to be quoted where it needs to be.
    Texts(Vec<&'a str>),
    /// A command, then a user and a group, as the rule for scripts has them.
    Script(&'a Script),
    /// What needs no quotes.
    Words(String),
}

/// A command that is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The command with its arguments, blanks and quotes as written.
    pub command: String,
    /// The user that it runs as. `None`: `script_user`.
    pub user: Option<String>,
    /// The group that it runs as. `None`: the user's.
    pub group: Option<String>,
}

/// What is written of a field; `None` where nothing was said.
pub(in crate::config) trait AsPlain {
    /// The value, if there is one.
    fn as_plain(&self) -> Option<Plain<'_>>;
}

impl AsPlain for bool {
    fn as_plain(&self) -> Option<Plain<'_>> {
        self.then_some(Plain::Flag)
    }
}

impl AsPlain for Option<bool> {
    fn as_plain(&self) -> Option<Plain<'_>> {
        self.map(Plain::Boolean)
    }
}

impl AsPlain for Option<Duration> {
    fn as_plain(&self) -> Option<Plain<'_>> {
        self.map(Plain::Time)
    }
}

impl AsPlain for Option<String> {
    fn as_plain(&self) -> Option<Plain<'_>> {
        self.as_deref().map(|text| Plain::Texts(vec![text]))
    }
}

impl AsPlain for Option<Vec<String>> {
    fn as_plain(&self) -> Option<Plain<'_>> {
        let texts = self.as_ref()?.iter().map(String::as_str);
        Some(Plain::Texts(texts.collect()))
    }
}

impl AsPlain for Option<Script> {
    fn as_plain(&self) -> Option<Plain<'_>> {
        self.as_ref().map(Plain::Script)
    }
}

/// Whole numbers.
macro_rules! whole_numbers {
    ($($number:ty),*) => {
        $(impl AsPlain for Option<$number> {
            fn as_plain(&self) -> Option<Plain<'_>> {
                self.map(|number| Plain::Number(number.into()))
            }
        })*
    };
}

whole_numbers!(i8, i16, i32, u8, u16, u32);

/// Values that are written as they are displayed.
macro_rules! displayed {
    ($($shown:ty),*) => {
        $(impl super::plain::AsPlain for Option<$shown> {
            fn as_plain(&self) -> Option<super::plain::Plain<'_>> {
                let shown = self.as_ref()?.to_string();
                Some(super::plain::Plain::Words(shown))
            }
        })*
    };
}
pub(super) use displayed;

/// Makes a group: `field: type = "keyword"`. A `bool` is a keyword that is there or not; what may be left out is an
/// `Option`.
macro_rules! plain {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $kind:ty = $keyword:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        impl $name {
            /// Its keywords with what is written of each.
            pub(in crate::config) fn plain(
                &self,
            ) -> Vec<(&'static str, Option<super::plain::Plain<'_>>)> {
                use super::plain::AsPlain;
                vec![$(($keyword, self.$field.as_plain()),)*]
            }
        }
    };
}
pub(super) use plain;

/// Makes an enum of words: variant and word stand on one line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every one, in the order of [`Self::WORDS`].
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// The words of the configuration.
            pub const WORDS: &[&str] = &[$($word),*];

            /// The word of the configuration.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }
    };
}
pub(super) use words;
