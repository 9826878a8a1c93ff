//! Lines at the end of a file, written by a thread of its own: a disk may take its time.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    time::Duration,
};

use super::{
    output::{Output, Sink},
    record::Record,
    stderr::LineWriter,
};
use crate::{
    sys::{clock, scheduling},
    time::Instant,
};

/// Lines that may wait for the disk: some 2 MB.
const WAITING: usize = 8192;
/// How often it is looked whether the file was moved away, and whether a loss can be told.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of the log waits for the disk.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The control thread's end.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    json: bool,
    /// Started by the first line, so that no thread is there before there is something to write.
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    lines: SyncSender<Record>,
    /// Ends with the thread.
    done: Receiver<()>,
}

impl LogFile {
    /// The file at `path`, which is opened by the first line.
    pub(super) fn new(path: &Path, json: bool) -> Self {
        Self {
            path: path.to_owned(),
            json,
            writer: None,
        }
    }

    fn start(&self) -> io::Result<Writer> {
        let (lines, waiting) = mpsc::sync_channel(WAITING);
        let (sender, done) = mpsc::channel();
        let (path, json) = (self.path.clone(), self.json);
        let write = move || {
            write_all(&waiting, Output::new(EndOfFile::new(path, json)));
            drop(sender);
        };
        scheduling::spawn("xvs-log".to_owned(), write)?;
        Ok(Writer { lines, done })
    }
}

impl Sink for LogFile {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let writer = match &self.writer {
            Some(writer) => writer,
            None => &*self.writer.insert(self.start()?),
        };
        let sent = writer.lines.try_send(record.clone());
        sent.map_err(|error| match error {
            TrySendError::Full(_) => io::ErrorKind::WouldBlock.into(),
            TrySendError::Disconnected(_) => io::Error::other("its writer has ended"),
        })
    }

    fn name(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }
}

/// Lets the last lines be written.
impl Drop for LogFile {
    fn drop(&mut self) {
        if let Some(Writer { lines, done }) = self.writer.take() {
            drop(lines);
            // Either way this is the end.
            let _ = done.recv_timeout(LAST_LINES);
        }
    }
}

/// What the thread does.
fn write_all(lines: &Receiver<Record>, mut output: Output) {
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(record) => output.write(clock::wall(), &record),
            Err(RecvTimeoutError::Timeout) => output.tell_loss(clock::wall()),
            Err(RecvTimeoutError::Disconnected) => return output.tell_loss(clock::wall()),
        }
    }
}

/// The thread's end.
#[derive(Debug)]
struct EndOfFile {
    path: PathBuf,
    json: bool,
    file: Option<File>,
    looked_at: Instant,
    writer: LineWriter,
}

impl EndOfFile {
    fn new(path: PathBuf, json: bool) -> Self {
        Self {
            path,
            json,
            file: None,
            looked_at: Instant::ZERO,
            writer: LineWriter::default(),
        }
    }

    /// Lets go of a file that is not at the path any more: it was moved away (logrotate) or removed.
    fn look(&mut self, now: Instant) {
        if now - self.looked_at < LOOK {
            return;
        }
        self.looked_at = now;
        let id = |data: &fs::Metadata| (data.dev(), data.ino());
        let Some(ours) = self.file.as_ref().and_then(|file| file.metadata().ok()) else {
            return;
        };
        let there = fs::metadata(&self.path);
        if there.is_ok_and(|there| id(&there) == id(&ours)) {
            return;
        }
        self.file = None;
        self.writer = LineWriter::default();
    }

    fn write_at(&mut self, now: Instant, line: &str) -> io::Result<()> {
        self.look(now);
        let mut file = match &self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.path)?),
        };
        self.writer.put(line, |bytes| file.write(bytes))
    }
}

impl Sink for EndOfFile {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let line = if self.json {
            record.json()
        } else {
            record.plain(true)
        };
        self.write_at(clock::now(), &line)
    }

    fn name(&self) -> Option<String> {
        None
    }
}

/// Opens a file to be written at its end; not for everybody to read, as logs of syslog daemons are not.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o640);
    // A named pipe without a reader is refused instead of waited for; a link is not followed.
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{
        super::{options::Level, record::Room},
        *,
    };

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xvs-log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn record(text: &str) -> Record {
        let wall = SystemTime::UNIX_EPOCH;
        Record::new(wall, (Level::Info, Room::Control), &text, &[])
    }

    #[test]
    fn all_lines_are_there_when_the_log_has_ended() {
        let folder = folder("all");
        let path = folder.join("log");
        let mut file = LogFile::new(&path, false);
        for number in 0..500 {
            file.write(&record(&format!("line {number}"))).unwrap();
        }
        drop(file);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 500);
        assert!(text.ends_with("Z line 499\n"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o137, 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_disk_that_hangs_costs_lines_and_not_time() {
        let mut file = LogFile::new(Path::new("/nowhere"), false);
        // A writer that writes nothing.
        let (lines, _waiting) = mpsc::sync_channel(2);
        let (_sender, done) = mpsc::channel();
        file.writer = Some(Writer { lines, done });
        let mut outcomes = (0..3).map(|_| file.write(&record("a line")));
        assert!(outcomes.next().unwrap().is_ok() && outcomes.next().unwrap().is_ok());
        let full = outcomes.next().unwrap().unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_within_a_second() {
        let folder = folder("moved");
        let [path, old] = ["log", "log.1"].map(|name| folder.join(name));
        let mut file = EndOfFile::new(path.clone(), false);
        file.write_at(at(1_000), "first").unwrap();
        fs::rename(&path, &old).unwrap();
        file.write_at(at(1_500), "second").unwrap();
        file.write_at(at(2_100), "third").unwrap();
        let read = |path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&old), "first\nsecond\n");
        assert_eq!(read(&path), "third\n");
        // Cut to nothing where it is, as `copytruncate` does.
        File::create(&path).unwrap();
        file.write_at(at(4_000), "fourth").unwrap();
        assert_eq!(read(&path), "fourth\n");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_is_missing_is_named_when_it_is_there() {
        let folder = folder("missing");
        let path = folder.join("later/log");
        let mut output = Output::new(EndOfFile::new(path.clone(), false));
        let wall = SystemTime::UNIX_EPOCH;
        output.write(wall, &record("lost"));
        fs::create_dir(folder.join("later")).unwrap();
        output.tell_loss(wall);
        let text = fs::read_to_string(&path).unwrap();
        let told = "a line of this log is lost: No such file or directory (os error 2)\n";
        assert!(text.ends_with(told), "{text}");
        fs::remove_dir_all(folder).unwrap();
    }
}
