//! One plain line an event, on standard error, never waiting for its reader.

use std::{
    fmt::Display,
    io::{self, Write as _},
    time::SystemTime,
};

use crate::sys::log_output::{MAX_LINE, try_write_stderr};

/// Where the daemon says what it did.
#[derive(Debug)]
pub struct Log {
    stamped: bool,
    lost: u64,
    write: fn(&[u8]) -> io::Result<()>,
}

impl Log {
    /// A log that stamps its lines, unless the journal, which has stamps of its own, reads them.
    pub fn new() -> Self {
        Self {
            stamped: std::env::var_os("JOURNAL_STREAM").is_none(),
            lost: 0,
            write: try_write_stderr,
        }
    }

    /// A log that nobody reads.
    #[cfg(test)]
    pub(super) const fn unread() -> Self {
        Self {
            stamped: false,
            lost: 0,
            write: |_| Ok(()),
        }
    }

    /// Writes a line. A line that the reader has no room for is lost, and counted in the next one
    /// that gets through.
    pub fn line(&mut self, wall: SystemTime, text: impl Display) {
        let mut line = Vec::with_capacity(160);
        if self.stamped {
            put(
                &mut line,
                format_args!("{} ", humantime::format_rfc3339_millis(wall)),
            );
        }
        if self.lost > 0 {
            put(
                &mut line,
                format_args!("[{} lines lost before this one] ", self.lost),
            );
        }
        put(&mut line, format_args!("{text}"));
        line.truncate(MAX_LINE - 1);
        line.push(b'\n');
        match (self.write)(&line) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
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
