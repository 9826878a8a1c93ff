//! What a configuration is read from: its text, and what the language lets it ask of its surroundings.

use std::fmt;

/// What a configuration is read from.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The path of the file: it names places.
    pub file: &'a str,
    /// Its folder, absolute: relative includes count from it, and `${_PWD}` stands for it.
    pub folder: &'a str,
    /// What the file holds.
    pub text: &'a [u8],
    /// What `@id` lines are kept by and `${_INSTANCE}` stands for: keepalived's `-i`, by default the host's name up to
    /// its first dot.
    pub id: &'a str,
    /// Where `${_RANDOM}` starts, unless `random_seed` says otherwise: the same seed, the same numbers.
    pub seed: u64,
    /// Whether each include must be there and be read, whatever `include_check` says: keepalived's `-e`.
    pub all_files: bool,
    /// Where included files and the variables of the environment come from.
    pub host: &'a dyn Host,
}

impl<'a> Request<'a> {
    /// A text alone: there is nothing to include, no environment, and the configuration id is empty.
    pub fn alone(file: &'a str, text: &'a [u8]) -> Self {
        Self {
            file,
            folder: "",
            text,
            id: "",
            seed: 0,
            all_files: false,
            host: &Nothing,
        }
    }
}

/// What a configuration may ask of the machine that it is read on.
pub trait Host {
    /// The paths that exist and match a pattern of glob(7), in order; braces are not special. A path without
    /// wildcards is its own match.
    fn matching(&self, pattern: &str) -> Vec<String>;

    /// What an included file holds.
    ///
    /// # Errors
    /// Why it is not to be read.
    fn read(&self, path: &str) -> Result<Vec<u8>, Unreadable>;

    /// A variable of the environment, for `${_ENV NAME}`.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Why a file that an include names is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A folder, or something else that is no file: keepalived passes over it.
    NoFile,
    /// A file that may be executed: keepalived passes over it, as it is more likely a script.
    Executable,
    /// What the system said.
    Failed(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFile => "it is not a regular file",
            Self::Executable => "it may be executed",
            Self::Failed(why) => why,
        })
    }
}

/// A host with nothing on it.
struct Nothing;

impl Host for Nothing {
    fn matching(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn read(&self, _: &str) -> Result<Vec<u8>, Unreadable> {
        Err(Unreadable::NoFile)
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}
