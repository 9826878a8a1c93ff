use std::{
    cell::RefCell,
    fs::File,
    io::{self, PipeReader, Read, pipe},
    rc::Rc,
    time::Duration,
};

use super::{output::Sink, *};
use crate::sys::log_output::LogOutput;

/// Lines as they were said.
#[derive(Clone, Debug, Default)]
pub(in crate::control) struct Kept(Rc<RefCell<Vec<serde_json::Value>>>);

impl Kept {
    /// All so far.
    pub(in crate::control) fn lines(&self) -> Vec<serde_json::Value> {
        self.0.borrow().clone()
    }
}

impl Sink for Kept {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let line = serde_json::from_str(&record.json()).unwrap();
        self.0.borrow_mut().push(line);
        Ok(())
    }

    fn name(&self) -> Option<String> {
        None
    }
}

/// A log on a pipe. The write end is that of the program that started us, and stays as it is.
fn piped(journaled: bool) -> (Log, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let stderr = Stderr::on(LogOutput::reopen(&writer), false, journaled);
    (on(stderr), reader)
}

fn on(stderr: Stderr) -> Log {
    let mut log = Log::unread();
    log.outputs.push(Output::new(stderr));
    log
}

fn say(log: &mut Log, text: &str) {
    let at = (Instant::ZERO, SystemTime::UNIX_EPOCH);
    let about = About {
        level: Level::Info,
        room: Room::Control,
        kind: Kind::Single,
        fields: &[],
    };
    log.tell(at, &about, &text);
}

fn keep(log: &mut Log) {
    log.keep(Instant::ZERO, SystemTime::UNIX_EPOCH);
}

fn rest(mut reader: PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn lines_are_stamped_unless_the_journal_does_it_which_is_told_their_level() {
    for (journaled, wanted) in [
        (false, "1970-01-01T00:00:00.000Z first\n"),
        (true, "<6>first\n"),
    ] {
        let (mut log, reader) = piped(journaled);
        say(&mut log, "first");
        drop(log);
        assert_eq!(rest(reader), wanted);
    }
}

#[test]
fn what_matters_less_than_asked_for_is_left_out() {
    let (mut log, reader) = piped(true);
    log.level = Level::Notice;
    for level in [Level::Debug, Level::Info, Level::Notice, Level::Error] {
        let at = (Instant::ZERO, SystemTime::UNIX_EPOCH);
        log.say(at, Room::Control, level, level);
    }
    drop(log);
    assert_eq!(rest(reader), "<5>notice\n<3>error\n");
}

#[test]
fn a_storm_is_counted_at_its_end_or_at_that_of_the_log() {
    let (mut log, reader) = piped(true);
    let mut storm = |second: u64| {
        let now = Instant::ZERO + Duration::from_secs(second);
        for number in 0..1_000 {
            let at = (now, SystemTime::UNIX_EPOCH);
            log.say(at, Room::Checks, Level::Warning, format_args!("{number}"));
        }
    };
    storm(0);
    storm(20);
    let now = Instant::ZERO + Duration::from_secs(23);
    log.finish(now, SystemTime::UNIX_EPOCH);
    drop(log);
    let text = rest(reader);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 * 101);
    assert_eq!(lines[100], "<4>100 (899 more like this in 20 s)");
    assert_eq!(lines[201], "<4>100 (899 more like this in 3 s)");
}

#[test]
fn a_reader_that_has_stopped_costs_lines_and_not_time_and_is_told_how_many() {
    const LINES: usize = 300;
    let (mut log, mut reader) = piped(true);
    for number in 0..LINES {
        say(&mut log, &format!("{number} {}", "x".repeat(1000)));
    }
    // Nothing is said while nothing can be.
    keep(&mut log);
    assert!(log.outputs[0].loss.is_some());
    let mut read = vec![0; 1 << 20];
    let count = reader.read(&mut read).unwrap();
    read.truncate(count);
    keep(&mut log);
    keep(&mut log);
    say(&mut log, "the last");
    drop(log);
    reader.read_to_end(&mut read).unwrap();
    let text = String::from_utf8(read).unwrap();
    let (told, whole): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.contains("of this log"));
    let lost = told.iter().map(|line| match line.split_once(" lines of") {
        Some((count, rest)) => {
            assert_eq!(rest, " this log are lost: its reader was behind");
            count.strip_prefix("<4>").unwrap().parse().unwrap()
        }
        None => 1,
    });
    assert_eq!(lost.sum::<usize>() + whole.len(), LINES + 1);
    assert!(whole.len() < 100, "a pipe holds less");
    let end: Vec<&str> = text.lines().rev().take(2).collect();
    assert_eq!(end, ["<6>the last", told[told.len() - 1]]);
}

#[test]
fn a_reader_that_has_gone_is_no_end() {
    let (mut log, reader) = piped(true);
    drop(reader);
    say(&mut log, "into nothing");
    say(&mut log, "and again");
    let loss = log.outputs[0].loss.as_ref().unwrap();
    let kind = loss.cause.kind();
    assert_eq!((loss.lines, kind), (2, io::ErrorKind::BrokenPipe));
}

#[test]
fn a_full_disk_is_named_and_costs_the_others_nothing() {
    let full = File::options().write(true).open("/dev/full");
    let (mut log, reader) = piped(true);
    let full = Stderr::on(LogOutput::reopen(&full.unwrap()), false, true);
    log.outputs.insert(0, Output::new(full));
    say(&mut log, "no room");
    say(&mut log, "nor for this");
    let loss = log.outputs[0].loss.as_ref().unwrap();
    assert_eq!(loss.lines, 2);
    let error = "No space left on device (os error 28)";
    assert_eq!(loss.cause.to_string(), error);
    drop(log);
    assert_eq!(rest(reader), "<6>no room\n<6>nor for this\n");
}
