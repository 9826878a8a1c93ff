//! `reload_time_file`: a file that says when the configuration is to be read anew, so that several routers do it at
//! once.
//!
//! A thread looks at it every second: its disk may hang, and a folder that comes later or is another one by now is seen
//! as well. The same thread waits for the time, by the clock on the wall, whatever becomes of that meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use jiff::{
    Timestamp,
    civil::{Date, Time},
    tz::TimeZone,
};

use super::log::{Level, Line};
use crate::sys::{clock, scheduling};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Most of the file that is read: more than any time takes.
const MOST_BYTES: u64 = 64;

/// Which file, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// `reload_time_file`
    pub(super) path: PathBuf,
    /// `reload_repeat`: it stays, and where it names no day it counts every day.
    pub(super) repeat: bool,
}

/// What the thread has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A line for the log.
    Line(Line),
    /// It is time.
    Reload,
}

/// Calls the control thread.
type Call = Arc<dyn Fn() + Send + Sync>;

/// Looks at the file that the configuration names.
pub(super) struct ReloadTime {
    call: Call,
    watcher: Option<Watcher>,
}

struct Watcher {
    settings: Settings,
    /// The thread ends with it.
    _stop: mpsc::Sender<()>,
    told: mpsc::Receiver<Told>,
}

impl ReloadTime {
    /// Looks at nothing yet; `call` tells the control thread that there is something to [poll](Self::poll).
    pub(super) const fn new(call: Call) -> Self {
        Self {
            call,
            watcher: None,
        }
    }

    /// Looks at this file from now on, or at none. One that is looked at already goes on as it is.
    ///
    /// # Errors
    /// A line for the log: why no thread could be started.
    pub(super) fn set(&mut self, settings: Option<Settings>) -> Result<(), String> {
        let running = self.watcher.as_ref().map(|watcher| &watcher.settings);
        if running == settings.as_ref() {
            return Ok(());
        }
        self.watcher = None;
        let Some(settings) = settings else {
            return Ok(());
        };
        let (stop, stopped) = mpsc::channel();
        let (sender, told) = mpsc::channel();
        let call = Arc::clone(&self.call);
        let mut file = TimeFile::new(settings.clone());
        let watch = move || {
            loop {
                let now = now();
                for one in file.look(now, &TimeZone::system()) {
                    // Nobody listens to one that is to end.
                    let _ = sender.send(one);
                    call();
                }
                if stopped.recv_timeout(file.rest(now)) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let started = scheduling::spawn("xvs-reload-time".to_owned(), watch);
        started.map_err(|error| {
            let path = settings.path.display();
            format!("starting a thread to look at {path}: {error}")
        })?;
        self.watcher = Some(Watcher {
            settings,
            _stop: stop,
            told,
        });
        Ok(())
    }

    /// What there is to do.
    pub(super) fn poll(&self) -> Option<Told> {
        self.watcher.as_ref()?.told.try_recv().ok()
    }
}

fn now() -> Timestamp {
    Timestamp::try_from(clock::wall()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What tells one state of the file from another.
type Stamp = (u64, u64, i64, i64, u64);

/// The file, as the thread knows it.
struct TimeFile {
    settings: Settings,
    /// The last look.
    looked: Option<Timestamp>,
    /// As it was then.
    seen: Option<Stamp>,
    moment: Option<Moment>,
    due: Option<Timestamp>,
    /// Why it could not be read, which is said once.
    trouble: Option<String>,
}

impl TimeFile {
    const fn new(settings: Settings) -> Self {
        Self {
            settings,
            looked: None,
            seen: None,
            moment: None,
            due: None,
            trouble: None,
        }
    }

    /// Looks at the file, and at the clock.
    fn look(&mut self, now: Timestamp, zone: &TimeZone) -> Vec<Told> {
        let mut told = Vec::new();
        match read(&self.settings.path, self.seen) {
            Ok(Found::Same) => {}
            Ok(Found::Nothing) => {
                self.seen = None;
                self.plan(None, now, zone, &mut told);
            }
            Ok(Found::Text(stamp, text)) => {
                self.seen = Some(stamp);
                // What was written since the last look may have passed since.
                let from = self.looked.map_or(now, |looked| looked.min(now));
                self.take(&text, from, zone, &mut told);
            }
            Err(error) => self.say_trouble(&error, &mut told),
        }
        self.looked = Some(now);
        if let Some(due) = self.due.filter(|due| *due <= now) {
            self.fire(due, now, zone, &mut told);
        }
        told
    }

    /// How long there is nothing to do.
    fn rest(&self, now: Timestamp) -> Duration {
        let left = self.due.map(|due| due.duration_since(now));
        let left = left.and_then(|left| Duration::try_from(left).ok());
        left.map_or(LOOK, |left| left.min(LOOK))
    }

    /// The file says something else, which counts from `from` on.
    fn take(&mut self, text: &str, from: Timestamp, zone: &TimeZone, told: &mut Vec<Told>) {
        self.trouble = None;
        let line = text.lines().next().unwrap_or_default();
        // Whoever writes it has only begun.
        if line.is_empty() {
            return self.plan(None, from, zone, told);
        }
        let path = self.settings.path.display();
        let Some(moment) = Moment::parse(line) else {
            let line = format!(
                "{path}: {:?} is no time for a reload: [YY]YY-MM-DD HH:MM:SS or HH:MM:SS is expected, each with Z for UTC",
                line
            );
            told.push(warning(line));
            return self.plan(None, from, zone, told);
        };
        if moment.first_from(from, zone).is_none() {
            told.push(warning(format!(
                "{path}: the time for a reload is in the past: {line}"
            )));
        }
        self.plan(Some(moment), from, zone, told);
    }

    fn plan(
        &mut self,
        moment: Option<Moment>,
        from: Timestamp,
        zone: &TimeZone,
        told: &mut Vec<Told>,
    ) {
        let due = moment.and_then(|moment| moment.first_from(from, zone));
        self.moment = moment;
        let former = std::mem::replace(&mut self.due, due);
        if former == due {
            return;
        }
        let shown = |at: Timestamp| {
            at.to_zoned_datetime(zone.clone())
                .strftime("%F %T")
                .to_string()
        };
        // Which scripts look for.
        if let Some(due) = due {
            told.push(info(format!("Scheduling reload for {}", shown(due))));
        } else if let Some(former) = former {
            let line = format!("Cancelling reload scheduled for {}", shown(former));
            told.push(info(line));
        }
    }

    /// It is time.
    fn fire(&mut self, due: Timestamp, now: Timestamp, zone: &TimeZone, told: &mut Vec<Told>) {
        told.push(Told::Reload);
        self.due = None;
        let moment = self.moment.take();
        if self.settings.repeat {
            let daily = moment.filter(|moment| moment.day.is_none());
            // A second later, or it would be the same moment again.
            let after = due.max(now).checked_add(Duration::from_secs(1));
            return self.plan(daily, after.unwrap_or(now), zone, told);
        }
        match fs::remove_file(&self.settings.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.settings.path.display();
                // It is not looked at again until it changes, or by the next start.
                told.push(warning(format!(
                    "removing {path} after its reload: {error}"
                )));
            }
            _ => self.seen = None,
        }
    }

    fn say_trouble(&mut self, error: &io::Error, told: &mut Vec<Told>) {
        let text = format!("{}: {error}", self.settings.path.display());
        if self.trouble.as_ref() != Some(&text) {
            told.push(warning(text.clone()));
            self.trouble = Some(text);
        }
    }
}

const fn info(text: String) -> Told {
    let level = Level::Info;
    Told::Line(Line { level, text })
}

const fn warning(text: String) -> Told {
    let level = Level::Warning;
    Told::Line(Line { level, text })
}

/// What a look finds.
enum Found {
    Nothing,
    /// What it was at the last look.
    Same,
    Text(Stamp, String),
}

fn read(path: &Path, seen: Option<Stamp>) -> io::Result<Found> {
    let mut options = OpenOptions::new();
    // A pipe is no file to wait for.
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let stamp = stamp(&file)?;
    if seen == Some(stamp) {
        return Ok(Found::Same);
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(Found::Text(stamp, String::from_utf8_lossy(&bytes).into()))
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let (seconds, nanos) = (about.mtime(), about.mtime_nsec());
    Ok((about.dev(), about.ino(), seconds, nanos, about.len()))
}

/// A time of day, of one day or of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    day: Option<Date>,
    time: Time,
    /// Whether it is a time of UTC, not of here.
    utc: bool,
}

impl Moment {
    /// Reads `HH:MM:SS`, with `YY-MM-DD` or `YYYY-MM-DD` and a blank in front or not, and with `Z` behind or not
    /// (keepalived.conf(5)).
    fn parse(text: &str) -> Option<Self> {
        let (text, utc) = match text.strip_suffix('Z') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (day, time) = match text.split_once(' ') {
            Some((day, time)) => (Some(day), time),
            None => (None, text),
        };
        let [hour, minute, second] = numbers(time, ':', &[2])?.map(i8::try_from);
        let time = Time::new(hour.ok()?, minute.ok()?, second.ok()?, 0).ok()?;
        let day = match day {
            Some(day) => {
                let [year, month, day] = numbers(day, '-', &[2, 4])?;
                let year = if year < 100 { 2_000 + year } else { year };
                let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
                Some(Date::new(year, month, day).ok()?)
            }
            None => None,
        };
        Some(Self { day, time, utc })
    }

    /// When that is first, from `from` on. An hour that the clock skips is the one after it, and of one that comes
    /// twice it is the first.
    fn first_from(self, from: Timestamp, here: &TimeZone) -> Option<Timestamp> {
        let zone = if self.utc { &TimeZone::UTC } else { here };
        let on = |day: Date| {
            let at = day
                .to_datetime(self.time)
                .to_zoned_datetime(zone.clone())
                .ok()?;
            Some(at.timestamp()).filter(|at| *at >= from)
        };
        match self.day {
            Some(day) => on(day),
            None => {
                let today = from.to_zoned_datetime(zone.clone()).date();
                on(today).or_else(|| on(today.tomorrow().ok()?))
            }
        }
    }
}

/// Three numbers of two digits each, but for the first one, which has one of `first` digits.
fn numbers(text: &str, between: char, first: &[usize]) -> Option<[i16; 3]> {
    let parts: Vec<&str> = text.split(between).collect();
    let [one, two, three] = parts[..] else {
        return None;
    };
    let number = |text: &str, digits: &[usize]| {
        let good = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| text.parse().ok()).flatten()
    };
    Some([
        number(one, first)?,
        number(two, &[2])?,
        number(three, &[2])?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Two hours east, all year.
    fn east() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(2))
    }

    /// A file of this test's own, as the thread knows it.
    fn file(name: &str, repeat: bool) -> TimeFile {
        let path = std::env::temp_dir().join(format!("xvs-time-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        TimeFile::new(Settings { path, repeat })
    }

    impl TimeFile {
        fn write(&self, text: &str) {
            // Another file each time, whatever the resolution of its times.
            let new = self.settings.path.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, &self.settings.path).unwrap();
        }

        fn told(&mut self, now: &str) -> Vec<String> {
            let told = self.look(at(now), &east());
            told.into_iter()
                .map(|one| match one {
                    Told::Line(line) => line.text,
                    Told::Reload => "RELOAD".to_owned(),
                })
                .collect()
        }
    }

    #[test]
    fn the_formats_are_exactly_the_three_of_the_manual() {
        for (text, first) in [
            ("05:06:07", Some("2026-11-28T03:06:07Z")),
            ("05:06:07Z", Some("2026-11-28T05:06:07Z")),
            ("01:00:00", Some("2026-11-28T23:00:00Z")),
            ("26-12-01 05:06:07", Some("2026-12-01T03:06:07Z")),
            ("2026-12-01 05:06:07Z", Some("2026-12-01T05:06:07Z")),
            ("2026-11-27 05:06:07", None),
        ] {
            let moment = Moment::parse(text).unwrap_or_else(|| panic!("{text}"));
            let found = moment.first_from(at("2026-11-28T00:00:00Z"), &east());
            assert_eq!(found, first.map(at), "{text}");
        }
        for text in [
            "",
            "5:06:07",
            " 05:06:07",
            "05:06:07 ",
            "05:06",
            "25:00:00",
            "05:06:07z",
            "2026-02-30 05:06:07",
            "2026-12-01  05:06:07",
            "2026-12-01T05:06:07",
            "226-12-01 05:06:07",
            "+5:06:07",
        ] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_is_followed_and_removed_at_its_time() {
        let mut file = file("followed", false);
        assert_eq!(file.told("2026-11-28T00:00:00Z"), [""; 0]);
        file.write("02:00:05\n");
        let scheduled = "Scheduling reload for 2026-11-28 02:00:05";
        assert_eq!(file.told("2026-11-28T00:00:01Z"), [scheduled]);
        assert_eq!(file.rest(at("2026-11-28T00:00:01Z")), LOOK);
        file.write("02:00:09\n");
        let later = "Scheduling reload for 2026-11-28 02:00:09";
        assert_eq!(file.told("2026-11-28T00:00:02Z"), [later]);
        fs::remove_file(&file.settings.path).unwrap();
        let cancelled = "Cancelling reload scheduled for 2026-11-28 02:00:09";
        assert_eq!(file.told("2026-11-28T00:00:03Z"), [cancelled]);
        file.write("02:00:05\n");
        assert_eq!(file.told("2026-11-28T00:00:04.7Z"), [scheduled]);
        let rest = file.rest(at("2026-11-28T00:00:04.7Z"));
        assert_eq!(rest, Duration::from_millis(300));
        assert_eq!(file.told("2026-11-28T00:00:05Z"), ["RELOAD"]);
        assert!(!file.settings.path.exists());
        assert_eq!(file.told("2026-11-28T00:00:06Z"), [""; 0]);
    }

    #[test]
    fn a_time_that_passed_since_the_last_look_is_not_tomorrow_s() {
        let mut file = file("passed", false);
        file.told("2026-11-28T00:00:04.5Z");
        file.write("02:00:05\n");
        let told = file.told("2026-11-28T00:00:05.5Z");
        assert_eq!(
            told,
            ["Scheduling reload for 2026-11-28 02:00:05", "RELOAD"]
        );
    }

    #[test]
    fn one_that_repeats_stays_and_counts_every_day() {
        let mut daily = file("daily", true);
        daily.write("02:00:05");
        daily.told("2026-11-28T00:00:04Z");
        let next = "Scheduling reload for 2026-11-29 02:00:05";
        assert_eq!(daily.told("2026-11-28T00:00:05Z"), ["RELOAD", next]);
        assert_eq!(daily.told("2026-11-28T00:00:06Z"), [""; 0]);
        let after = "Scheduling reload for 2026-11-30 02:00:05";
        assert_eq!(daily.told("2026-11-29T00:00:05Z"), ["RELOAD", after]);
        let mut once = file("once", true);
        once.write("2026-11-28 02:00:05");
        once.told("2026-11-28T00:00:04Z");
        assert_eq!(once.told("2026-11-28T00:00:05Z"), ["RELOAD"]);
        assert_eq!(once.told("2026-11-28T00:00:06Z"), [""; 0]);
        for file in [daily, once] {
            fs::remove_file(&file.settings.path).unwrap();
        }
    }

    #[test]
    fn what_is_no_time_to_come_is_said_once() {
        let mut file = file("wrong", false);
        for (text, why) in [
            ("junk\n", "\"junk\" is no time for a reload"),
            ("26-11-01 00:00:00\n", "is in the past: 26-11-01 00:00:00"),
        ] {
            file.write(text);
            let told = file.told("2026-11-28T00:00:01Z");
            assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
            assert_eq!(file.told("2026-11-28T00:00:02Z"), [""; 0]);
        }
        file.write("");
        assert_eq!(file.told("2026-11-28T00:00:03Z"), [""; 0], "just begun");
        fs::remove_file(&file.settings.path).unwrap();
        fs::create_dir(&file.settings.path).unwrap();
        let told = file.told("2026-11-28T00:00:04Z");
        assert!(told[0].ends_with("it is not a regular file"), "{told:?}");
        assert_eq!(file.told("2026-11-28T00:00:05Z"), [""; 0]);
        fs::remove_dir(&file.settings.path).unwrap();
    }

    #[test]
    fn the_thread_follows_the_configuration() {
        let (sender, called) = mpsc::channel();
        let call = move || sender.send(()).unwrap_or_default();
        let mut reload = ReloadTime::new(Arc::new(call));
        let path = std::env::temp_dir().join(format!("xvs-time-{}-thread", std::process::id()));
        fs::write(&path, "junk").unwrap();
        let settings = |repeat| {
            let path = path.clone();
            Some(Settings { path, repeat })
        };
        reload.set(settings(false)).unwrap();
        called.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(matches!(reload.poll(), Some(Told::Line(_))));
        reload.set(settings(false)).unwrap();
        reload.set(settings(true)).unwrap();
        called.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(matches!(reload.poll(), Some(Told::Line(_))));
        reload.set(None).unwrap();
        assert_eq!(reload.poll(), None);
        fs::remove_file(&path).unwrap();
        drop(reload);
        // What both threads call with ends with them.
        let ended = loop {
            if let Err(ended) = called.recv_timeout(Duration::from_secs(10)) {
                break ended;
            }
        };
        assert_eq!(ended, RecvTimeoutError::Disconnected);
    }
}
