//! A place that lines go to, with an account of those that it did not take.

use std::{fmt, io, time::SystemTime};

use super::{
    options::Level,
    record::{Record, Room},
};

/// Takes lines without ever waiting.
pub(super) trait Sink: fmt::Debug {
    /// Writes a line.
    ///
    /// # Errors
    /// `WouldBlock` when the reader is behind, else why it cannot be written.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// What to call it, where that is not plain to whoever reads it.
    fn name(&self) -> Option<String>;
}

/// A sink whose losses are told as soon as it takes lines again.
#[derive(Debug)]
pub(super) struct Output {
    sink: Box<dyn Sink>,
    pub(super) loss: Option<Loss>,
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) lines: u64,
    /// Why the first of them could not.
    pub(super) cause: io::Error,
}

impl Output {
    pub(super) fn new(sink: impl Sink + 'static) -> Self {
        Self {
            sink: Box::new(sink),
            loss: None,
        }
    }

    /// Writes a line. One that cannot be written now is lost, and so is what follows until the loss
    /// could be told.
    pub(super) fn write(&mut self, wall: SystemTime, record: &Record) {
        self.tell_loss(wall);
        if let Some(loss) = &mut self.loss {
            loss.lines += 1;
        } else if let Err(cause) = self.sink.write(record) {
            self.loss = Some(Loss { lines: 1, cause });
        }
    }

    /// Says how many lines were lost, if any were and that can be said now.
    pub(super) fn tell_loss(&mut self, wall: SystemTime) {
        let Some(loss) = self.loss.take() else { return };
        let mut cause = match loss.cause.kind() {
            io::ErrorKind::WouldBlock => "its reader was behind".to_owned(),
            _ => loss.cause.to_string(),
        };
        if let Some(name) = self.sink.name() {
            cause = format!("{name}: {cause}");
        }
        let text = match loss.lines {
            1 => format!("a line of this log is lost: {cause}"),
            many => format!("{many} lines of this log are lost: {cause}"),
        };
        let record = Record::new(wall, (Level::Warning, Room::Control), &text, &[]);
        if self.sink.write(&record).is_err() {
            self.loss = Some(loss);
        }
    }
}
