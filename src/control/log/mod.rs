//! What the daemon says, a line an event, to one or several places, never waiting for who reads them.
//!
//! A line goes through a filter by level, is counted with others of its kind (`storms`: ten thousand real
//! servers that fail at once are not ten thousand lines), and is then written to each destination in the form
//! that this wants. What a destination does not take (a reader that has stopped or gone, a full disk, a syslog
//! daemon that is not there) is lost there, and counted: that is said as soon as it takes lines again.
//!
//! The syslog crates of others connect and write with calls that wait, or keep no account of what was lost.

mod datagrams;
mod file;
mod options;
mod output;
mod record;
mod stderr;
mod storms;

use std::{fmt, fmt::Display, panic::Location, time::SystemTime};

pub use self::options::{
    Destination, Facility, Ident, Level, LocalFacility, Options, SYSLOG_SOCKET,
};
use self::{
    datagrams::Daemon, file::LogFile, output::Output, record::Record, stderr::Stderr,
    storms::Storms,
};
pub(super) use self::{record::Room, storms::Kind};
use crate::{
    config::{Diagnostic, Severity},
    time::Instant,
};

/// Something to say, by somebody who has no log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub text: String,
}

impl From<&Diagnostic> for Line {
    /// What there is to say about a configuration, where it matters as much as it says.
    fn from(finding: &Diagnostic) -> Self {
        let level = match finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
            Severity::Deprecated | Severity::Note => Level::Info,
        };
        let text = finding.to_string();
        Self { level, text }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a line is about, beside its text.
pub(super) struct About<'a> {
    pub(super) level: Level,
    pub(super) room: Room,
    pub(super) kind: Kind,
    /// For programs: a name in small letters, and its value.
    pub(super) fields: &'a [(&'static str, &'a dyn Display)],
}

/// Where the daemon says what it did.
#[derive(Debug)]
pub struct Log {
    level: Level,
    outputs: Vec<Output>,
    storms: Storms,
}

impl Log {
    /// A log as it is asked for. Nothing is opened before the first line.
    pub fn new(options: &Options) -> Self {
        let outputs = options.destinations.iter().map(|place| match place {
            Destination::Stderr => Output::new(Stderr::new(options.json)),
            Destination::Syslog => Output::new(Daemon::syslog(options)),
            Destination::Journal => Output::new(Daemon::journal(options)),
            Destination::File(path) => Output::new(LogFile::new(path, options.json)),
        });
        Self {
            level: options.level,
            outputs: outputs.collect(),
            storms: Storms::default(),
        }
    }

    /// A log that nobody reads.
    #[cfg(test)]
    pub(super) fn unread() -> Self {
        Self::new(&Options {
            destinations: Vec::new(),
            ..Options::default()
        })
    }

    /// A log that keeps its lines as JSON, for tests of who says them.
    #[cfg(test)]
    pub(super) fn kept() -> (Self, tests::Kept) {
        let mut log = Self::unread();
        let kept = tests::Kept::default();
        log.outputs.push(Output::new(kept.clone()));
        (log, kept)
    }

    /// Says a line, of one kind with others from the same place in the program.
    #[track_caller]
    pub(super) fn say(
        &mut self,
        at: (Instant, SystemTime),
        room: Room,
        level: Level,
        text: impl Display,
    ) {
        let about = About {
            level,
            room,
            kind: Kind::Place(Location::caller()),
            fields: &[],
        };
        self.tell(at, &about, &text);
    }

    /// Says a line of which there may be many, each of which matters: they are never told as a number.
    pub(super) fn say_each(
        &mut self,
        at: (Instant, SystemTime),
        room: Room,
        level: Level,
        text: &dyn Display,
    ) {
        let about = About {
            level,
            room,
            kind: Kind::Single,
            fields: &[],
        };
        self.tell(at, &about, text);
    }

    /// Says a line. One that cannot be written now is lost, and so is what follows until the loss
    /// could be told.
    pub(super) fn tell(
        &mut self,
        (now, wall): (Instant, SystemTime),
        about: &About<'_>,
        text: &dyn Display,
    ) {
        if about.level > self.level {
            return;
        }
        self.tell_storms(now, wall);
        let make = || Record::new(wall, (about.level, about.room), text, about.fields);
        if let Some(record) = self.storms.admit(now, about.kind, make) {
            self.write(wall, &record);
        }
    }

    /// Says how many lines were lost or left out, as far as that is due and possible. To be called now and
    /// then: it is to be known before there is something else to say.
    pub(super) fn keep(&mut self, now: Instant, wall: SystemTime) {
        self.tell_storms(now, wall);
        for output in &mut self.outputs {
            output.tell_loss(wall);
        }
    }

    /// Says what was not said yet: nothing more follows.
    pub(super) fn finish(&mut self, now: Instant, wall: SystemTime) {
        for record in self.storms.take_all(now, wall) {
            self.write(wall, &record);
        }
        for output in &mut self.outputs {
            output.tell_loss(wall);
        }
    }

    fn tell_storms(&mut self, now: Instant, wall: SystemTime) {
        for record in self.storms.take_due(now, wall) {
            self.write(wall, &record);
        }
    }

    fn write(&mut self, wall: SystemTime, record: &Record) {
        for output in &mut self.outputs {
            output.write(wall, record);
        }
    }
}

#[cfg(test)]
mod tests;
