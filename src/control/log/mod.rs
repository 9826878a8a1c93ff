//! One plain line an event, on standard error, never waiting for its reader.
//!
//! What cannot be written (the reader has stopped or gone, the disk is full) is lost, and counted: that
//! is said as soon as something can be written again.

mod options;

use std::{fmt::Display, io, io::Write as _, time::SystemTime};

pub use self::options::{
    Destination, Facility, Ident, Level, LocalFacility, Options, SYSLOG_SOCKET,
};

use crate::sys::log_output::{LogOutput, MAX_LINE};

/// Where the daemon says what it did.
#[derive(Debug)]
pub struct Log {
    stamped: bool,
    output: LogOutput,
    loss: Option<Loss>,
    /// The last line that was begun has no end: the disk was full in the middle of it.
    torn: bool,
}

/// Lines that could not be written.
#[derive(Debug)]
struct Loss {
    lines: u64,
    /// Why the first of them could not.
    cause: io::Error,
}

impl Log {
    /// A log that stamps its lines, unless the journal, which has stamps of its own, reads them.
    pub fn new() -> Self {
        let stamped = std::env::var_os("JOURNAL_STREAM").is_none();
        Self::on(LogOutput::stderr(), stamped)
    }

    /// A log that nobody reads.
    #[cfg(test)]
    pub(super) fn unread() -> Self {
        let nowhere = std::fs::File::options().write(true).open("/dev/null");
        Self::on(LogOutput::reopen(&nowhere.unwrap()), false)
    }

    const fn on(output: LogOutput, stamped: bool) -> Self {
        Self {
            stamped,
            output,
            loss: None,
            torn: false,
        }
    }

    /// Writes a line. One that cannot be written now is lost, and so is what follows until the loss
    /// could be told.
    pub fn line(&mut self, wall: SystemTime, text: impl Display) {
        self.tell_loss(wall);
        if let Some(loss) = &mut self.loss {
            loss.lines += 1;
        } else if let Err(cause) = self.write(wall, text) {
            self.loss = Some(Loss { lines: 1, cause });
        }
    }

    /// Says how many lines were lost, if any were and that can be said now. To be called now and then: it
    /// is to be known before there is something else to say.
    pub fn tell_loss(&mut self, wall: SystemTime) {
        let Some(loss) = self.loss.take() else { return };
        let cause = match loss.cause.kind() {
            io::ErrorKind::WouldBlock => "its reader was behind".to_owned(),
            _ => loss.cause.to_string(),
        };
        let text = match loss.lines {
            1 => format!("a line of this log is lost: {cause}"),
            many => format!("{many} lines of this log are lost: {cause}"),
        };
        let written = self.write(wall, text);
        if written.is_err() {
            self.loss = Some(loss);
        }
    }

    fn write(&mut self, wall: SystemTime, text: impl Display) -> io::Result<()> {
        let mut line = Vec::with_capacity(160);
        if self.torn {
            line.push(b'\n');
        }
        if self.stamped {
            let stamp = humantime::format_rfc3339_millis(wall);
            put(&mut line, format_args!("{stamp} "));
        }
        put(&mut line, format_args!("{text}"));
        line.truncate(MAX_LINE - 1);
        line.push(b'\n');
        let mut rest = &line[..];
        while !rest.is_empty() {
            match self.output.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = &rest[count..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

fn put(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = line.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};

    use super::*;

    /// A log on a pipe. The write end is that of the program that started us, and stays as it is.
    fn piped() -> (Log, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let log = Log::on(LogOutput::reopen(&writer), false);
        (log, reader)
    }

    fn say(log: &mut Log, text: &str) {
        log.line(SystemTime::UNIX_EPOCH, text);
    }

    #[test]
    fn lines_are_stamped_unless_somebody_else_does_it() {
        let (mut log, mut reader) = piped();
        say(&mut log, "first");
        log.stamped = true;
        say(&mut log, "second");
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first\n1970-01-01T00:00:00.000Z second\n");
    }

    #[test]
    fn a_reader_that_has_stopped_costs_lines_and_not_time_and_is_told_how_many() {
        const LINES: usize = 300;
        let (mut log, mut reader) = piped();
        for number in 0..LINES {
            say(&mut log, &format!("{number} {}", "x".repeat(1000)));
        }
        // Nothing is said while nothing can be.
        log.tell_loss(SystemTime::UNIX_EPOCH);
        assert!(log.loss.is_some());
        let mut read = vec![0; 1 << 20];
        let count = reader.read(&mut read).unwrap();
        read.truncate(count);
        log.tell_loss(SystemTime::UNIX_EPOCH);
        log.tell_loss(SystemTime::UNIX_EPOCH);
        say(&mut log, "the last");
        drop(log);
        reader.read_to_end(&mut read).unwrap();
        let text = String::from_utf8(read).unwrap();
        let (told, whole): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.contains("of this log"));
        let lost = told.iter().map(|line| match line.split_once(" lines of") {
            Some((count, rest)) => {
                assert_eq!(rest, " this log are lost: its reader was behind");
                count.parse().unwrap()
            }
            None => 1,
        });
        assert_eq!(lost.sum::<usize>() + whole.len(), LINES + 1);
        assert!(whole.len() < 100, "a pipe holds less");
        let end: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(end, ["the last", told[told.len() - 1]]);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_end() {
        let (mut log, reader) = piped();
        drop(reader);
        say(&mut log, "into nothing");
        say(&mut log, "and again");
        let loss = log.loss.as_ref().unwrap();
        let kind = loss.cause.kind();
        assert_eq!((loss.lines, kind), (2, io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn a_full_disk_is_named() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut log = Log::on(LogOutput::reopen(&full.unwrap()), false);
        say(&mut log, "no room");
        say(&mut log, "nor for this");
        let (mut piped, mut reader) = piped();
        std::mem::swap(&mut log.output, &mut piped.output);
        log.tell_loss(SystemTime::UNIX_EPOCH);
        drop((log, piped));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let told = "2 lines of this log are lost: No space left on device";
        assert!(text.starts_with(told), "{text}");
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_spoil_the_next() {
        let (mut log, mut reader) = piped();
        log.torn = true;
        say(&mut log, "whole");
        say(&mut log, "too");
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nwhole\ntoo\n");
    }
}
