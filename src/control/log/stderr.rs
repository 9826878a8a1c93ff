//! Lines on standard error, and how a line is put on anything that takes bytes.

use std::{io, os::fd::AsFd, os::unix::fs::MetadataExt as _};

use super::{output::Sink, record::Record};
use crate::sys::log_output::LogOutput;

/// Puts whole lines where a write may end in the middle of one.
#[derive(Debug, Default)]
pub(super) struct LineWriter {
    /// The last line that was begun has no end: the disk was full in the middle of it.
    pub(super) torn: bool,
}

impl LineWriter {
    /// Writes `line` and its end by `write`, which says how many bytes it took.
    pub(super) fn put(
        &mut self,
        line: &str,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let begin = if self.torn { "\n" } else { "" };
        let whole = [begin, line, "\n"].concat();
        let mut rest = whole.as_bytes();
        while !rest.is_empty() {
            match write(rest) {
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

/// Standard error.
#[derive(Debug)]
pub(super) struct Stderr {
    output: LogOutput,
    json: bool,
    /// The journal reads it, which has time stamps of its own and takes levels in front of lines.
    journaled: bool,
    writer: LineWriter,
}

impl Stderr {
    /// Standard error as it is now.
    pub(super) fn new(json: bool) -> Self {
        Self::on(LogOutput::stderr(), json, is_journal())
    }

    pub(super) fn on(output: LogOutput, json: bool, journaled: bool) -> Self {
        Self {
            output,
            json,
            journaled,
            writer: LineWriter::default(),
        }
    }
}

impl Sink for Stderr {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let text = if self.json {
            record.json()
        } else {
            record.plain(!self.journaled)
        };
        let line = if self.journaled {
            format!("<{}>{text}", record.level.severity())
        } else {
            text
        };
        let output = &self.output;
        self.writer.put(&line, |bytes| output.try_write(bytes))
    }

    fn name(&self) -> Option<String> {
        None
    }
}

/// Whether standard error is the stream that systemd has connected to the journal: its device and inode
/// are those in the variable, which programs inherit that were started with their output elsewhere.
fn is_journal() -> bool {
    let variable = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let owned = io::stderr().as_fd().try_clone_to_owned();
    let data = owned.and_then(|fd| std::fs::File::from(fd).metadata());
    data.is_ok_and(|data| is_stream(&variable, data.dev(), data.ino()))
}

fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    variable == format!("{device}:{inode}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_does_not_spoil_the_next() {
        let mut written = Vec::new();
        let mut writer = LineWriter::default();
        let full = |bytes: &[u8]| {
            if written.is_empty() {
                written.extend_from_slice(&bytes[..4]);
                return Ok(4);
            }
            Err(io::ErrorKind::StorageFull.into())
        };
        assert!(writer.put("cut off", full).is_err());
        let mut write = |bytes: &[u8]| {
            written.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        writer.put("whole", &mut write).unwrap();
        writer.put("too", &mut write).unwrap();
        assert_eq!(written, b"cut \nwhole\ntoo\n");
    }

    #[test]
    fn the_journal_is_known_by_its_stream_only() {
        assert!(is_stream("8:4711", 8, 4711));
        for other in ["", "8:4712", "9:4711", "8", "4711"] {
            assert!(!is_stream(other, 8, 4711), "{other}");
        }
    }
}
