//! What the log is asked to be: where lines go, which of them, and how they look.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where the C library's `syslog` writes to, and so do we.
pub const SYSLOG_SOCKET: &str = "/dev/log";

/// How much a line matters: the severities of syslog (RFC 5424, section 6.2.1) that a daemon has use for.
/// What matters less is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something that was asked for is not done: the kernel has refused it, a file cannot be used.
    Error = 3,
    /// Something outside does not work as it should: a real server has failed, an advert was refused.
    Warning = 4,
    /// A state has changed: MASTER, BACKUP, a real server in the pool again, a reload.
    Notice = 5,
    /// What else is good to know, among it how a state came to change.
    #[default]
    Info = 6,
    /// Details, which keepalived shows with `--log-detail` (`-D`): each virtual address that is announced.
    Debug = 7,
}

impl Level {
    /// The number that syslog and the journal have for it.
    pub const fn severity(self) -> u8 {
        self as u8
    }

    /// Its name, in small letters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [
            Self::Error,
            Self::Warning,
            Self::Notice,
            Self::Info,
            Self::Debug,
        ];
        all.into_iter()
            .find(|level| level.name() == text)
            .ok_or("error, warning, notice, info or debug is expected")
    }
}

/// A facility of syslog, of those that keepalived's `--log-facility` (`-S`) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Facility {
    /// `user`.
    User,
    /// `daemon`, keepalived's default.
    #[default]
    Daemon,
    /// `local0` to `local7`: 0 to 7, made by [`FromStr`].
    Local(LocalFacility),
}

/// The number of a local facility, 0 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalFacility(u8);

impl Facility {
    /// Its number (RFC 3164, section 4.1.1).
    pub const fn code(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Daemon => 3,
            Self::Local(LocalFacility(number)) => 16 + number,
        }
    }
}

/// Reads `0` to `7`, `local0` to `local7`, `daemon` and `user`, as keepalived does.
impl FromStr for Facility {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "user" => return Ok(Self::User),
            "daemon" => return Ok(Self::Daemon),
            _ => {}
        }
        let number = text.strip_prefix("local").unwrap_or(text);
        match number.as_bytes() {
            [digit @ b'0'..=b'7'] => Ok(Self::Local(LocalFacility(digit - b'0'))),
            _ => Err("0 to 7, local0 to local7, daemon or user is expected"),
        }
    }
}

/// A place that lines go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard error. The journal, if it listens there, is told levels by `<N>` in front of lines.
    Stderr,
    /// The syslog daemon, by [`Options::syslog_socket`] and as the C library writes to it (RFC 3164).
    Syslog,
    /// The systemd journal, in its own protocol: with levels and fields.
    Journal,
    /// The end of this file. A line is written when it is said, never later; a file that was moved away
    /// is made anew within a second.
    File(PathBuf),
}

/// Under which names lines go to the syslog daemon and the journal: `programname` of rsyslog's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ident {
    /// All under `xvs`.
    #[default]
    Xvs,
    /// Those of VRRP under `Keepalived_vrrp`, those of checks and forwarding under `Keepalived_healthcheckers`,
    /// others under `Keepalived`.
    Keepalived {
        /// What follows each of them: empty, or `_` and the name of an instance or network namespace.
        suffix: String,
    },
}

impl Ident {
    /// What the program calls itself where it starts and stops: rules for keepalived look for its name.
    pub(in crate::control) const fn program(&self) -> &'static str {
        match self {
            Self::Xvs => concat!("xvs ", env!("CARGO_PKG_VERSION")),
            Self::Keepalived { .. } => {
                concat!("Keepalived (xvs ", env!("CARGO_PKG_VERSION"), ")")
            }
        }
    }
}

/// What the log is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Every line goes to all of them. Default: standard error.
    pub destinations: Vec<Destination>,
    /// For the syslog daemon and the journal.
    pub facility: Facility,
    /// For the syslog daemon and the journal.
    pub ident: Ident,
    /// Lines that matter less are left out.
    pub level: Level,
    /// Whether lines are JSON objects. The journal has fields in any case.
    pub json: bool,
    /// The socket of the syslog daemon. Default: [`SYSLOG_SOCKET`].
    pub syslog_socket: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            destinations: vec![Destination::Stderr],
            facility: Facility::default(),
            ident: Ident::default(),
            level: Level::default(),
            json: false,
            syslog_socket: SYSLOG_SOCKET.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facilities_are_the_ones_that_keepalived_takes() {
        let code = |text: &str| text.parse().map(Facility::code);
        let codes = [
            ("0", 16),
            ("7", 23),
            ("local3", 19),
            ("daemon", 3),
            ("user", 1),
        ];
        for (text, number) in codes {
            assert_eq!(code(text), Ok(number), "{text}");
        }
        for wrong in ["8", "local8", "local", "", "01", "-1", "mail", "Daemon"] {
            assert!(code(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn levels_are_named_and_ordered_as_in_syslog() {
        for (name, number) in [("error", 3), ("warning", 4), ("info", 6), ("debug", 7)] {
            let level: Level = name.parse().unwrap();
            assert_eq!((level.severity(), level.to_string()), (number, name.into()));
        }
        assert!("Info".parse::<Level>().is_err());
        assert!(Level::Error < Level::Notice && Level::Notice < Level::default());
    }
}
