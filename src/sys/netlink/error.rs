//! What went wrong, with what was asked.

use std::{error, fmt, io};

/// A request that the kernel did not fulfil. Shown as one line: what was asked, why it failed and,
/// where that is known, what is missing.
#[derive(Debug)]
pub struct Error {
    asked: String,
    cause: Cause,
}

/// Why a request was not fulfilled.
#[derive(Debug)]
pub enum Cause {
    /// The socket failed, not the request.
    Io(io::Error),
    /// The kernel refused.
    Refused {
        /// The error number, positive.
        errno: i32,
        /// The kernel's own words (extended acknowledgement), where it had any.
        note: Option<String>,
    },
    /// A list changed each time it was read; reading it again later may succeed.
    Interrupted,
    /// The kernel's answer did not come, or could not be read.
    NoAnswer,
}

impl Error {
    pub(super) fn new(asked: impl Into<String>, cause: Cause) -> Self {
        Self {
            asked: asked.into(),
            cause,
        }
    }

    /// Why it failed.
    pub const fn cause(&self) -> &Cause {
        &self.cause
    }

    /// The error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match &self.cause {
            Cause::Io(error) => error.raw_os_error(),
            Cause::Refused { errno, .. } => Some(*errno),
            Cause::Interrupted | Cause::NoAnswer => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.asked, self.cause)
    }
}

impl error::Error for Error {}

impl Cause {
    /// Whether the kernel refused with this error number.
    pub(super) fn is(&self, wanted: i32) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == wanted)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused { errno, note } => {
                write!(f, "{}", errno_text(*errno))?;
                if let Some(note) = note {
                    write!(f, ": {}", note.trim_end_matches('.'))?;
                }
                if *errno == libc::EPERM {
                    write!(f, " (needs CAP_NET_ADMIN)")?;
                }
                Ok(())
            }
            Self::Interrupted => f.write_str("the list kept changing while it was read"),
            Self::NoAnswer => f.write_str("the kernel gave no answer that can be read"),
        }
    }
}

/// The C library's text, without the number that the standard library appends to it.
fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let suffix = format!(" (os error {errno})");
    text.strip_suffix(&suffix)
        .map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_was_asked_why_and_what_is_missing() {
        let refused = |errno, note: Option<&str>| {
            Error::new(
                "adding 10.0.0.148/32 to eth0",
                Cause::Refused {
                    errno,
                    note: note.map(str::to_owned),
                },
            )
            .to_string()
        };
        assert_eq!(
            refused(libc::EPERM, None),
            "adding 10.0.0.148/32 to eth0: Operation not permitted (needs CAP_NET_ADMIN)"
        );
        assert_eq!(
            refused(libc::EINVAL, Some("ipv4: Invalid prefix length.")),
            "adding 10.0.0.148/32 to eth0: Invalid argument: ipv4: Invalid prefix length"
        );
    }
}
