//! Reading the configuration anew: by a thread that ends with it, as a file may lie on a slow disk and a large
//! one takes longer to read than an advert may be late.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use super::{
    super::{
        load::Source,
        log::{Level, Line},
        scripts,
    },
    reload_file::ReloadFile,
};
use crate::{
    config::{self, Config, Diff},
    sys::scheduling,
};

/// A configuration that may be applied.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) config: Arc<Config>,
    /// How it differs from the one that it was compared with.
    pub(super) diff: Diff,
    /// What there is to say about it, a finding each.
    pub(super) findings: Vec<Line>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) struct Refusal {
    /// A line each, for the log.
    pub(super) lines: Vec<Line>,
    /// The same for a person, with the lines of the file.
    pub(super) report: String,
}

impl From<String> for Refusal {
    fn from(line: String) -> Self {
        Self {
            report: format!("{line}\n"),
            lines: vec![error(line)],
        }
    }
}

const fn error(text: String) -> Line {
    Line {
        level: Level::Error,
        text,
    }
}

/// Calls the control thread.
pub(super) type Call = Arc<dyn Fn() + Send + Sync>;

/// A file that is being read.
struct Reading {
    outcome: mpsc::Receiver<Result<Fresh, Refusal>>,
    /// The thread frees the configuration that is replaced: of thousands of virtual servers that takes some
    /// milliseconds.
    replaced: mpsc::Sender<Arc<Config>>,
}

/// Where the `reload_file` of a configuration is.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// What relative paths count from.
    pub(super) folder: PathBuf,
    /// The file, where the configuration does not name it.
    pub(super) usual: PathBuf,
}

impl Places {
    /// The file, if the configuration asks for it.
    fn file(&self, config: &Config) -> Option<PathBuf> {
        let told = config.global.files.reload_file.as_ref()?;
        let named = told.first().map(|path| self.folder.join(path));
        Some(named.unwrap_or_else(|| self.usual.clone()))
    }
}

/// The reader of the configuration file.
pub(super) struct Reload {
    source: Source,
    places: Places,
    call: Call,
    reading: Option<Reading>,
    /// It was asked for while one was under way, which may have read the file before it was changed.
    again: bool,
}

impl Reload {
    /// Reads `source` when it is told to; `call` tells the control thread that something was read.
    pub(super) const fn new(source: Source, places: Places, call: Call) -> Self {
        Self {
            source,
            places,
            call,
            reading: None,
            again: false,
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        self.source.file()
    }

    /// Whether the file is being read.
    pub(super) const fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Begins to read the file, to be compared with the configuration that runs.
    ///
    /// # Errors
    /// Why no thread could be started.
    pub(super) fn begin(&mut self, running: &Arc<Config>) -> Result<(), String> {
        if self.reading.is_some() {
            self.again = true;
            return Ok(());
        }
        let (sender, outcome) = mpsc::channel();
        let (replaced, retired) = mpsc::channel::<Arc<Config>>();
        let (source, call, running) = (
            self.source.clone(),
            Arc::clone(&self.call),
            Arc::clone(running),
        );
        let file = self.places.file(&running);
        let read = move || {
            let outcome = read_marked(&source, file, &running);
            // Nobody listens any more when the daemon stops.
            let _ = sender.send(outcome);
            drop(running);
            call();
            drop(retired.recv());
        };
        scheduling::spawn("xvs-reload".to_owned(), read)
            .map_err(|error| format!("starting a thread to read the configuration: {error}"))?;
        self.reading = Some(Reading { outcome, replaced });
        Ok(())
    }

    /// What was read, once it is. The configuration that it replaces is to be [retired](Self::retire).
    pub(super) fn poll(&mut self) -> Option<Result<Fresh, Refusal>> {
        let outcome = match self.reading.as_ref()?.outcome.try_recv() {
            Ok(outcome) => outcome,
            Err(mpsc::TryRecvError::Empty) => return None,
            Err(mpsc::TryRecvError::Disconnected) => {
                Err("the reader of the configuration has ended"
                    .to_owned()
                    .into())
            }
        };
        Some(outcome)
    }

    /// Ends a reload: frees the configuration that was replaced, or the one that was not to be used. Whether
    /// the file is to be read once more.
    pub(super) fn retire(&mut self, replaced: Option<Arc<Config>>) -> bool {
        if let Some((reading, replaced)) = self.reading.take().zip(replaced) {
            // The thread waits for it.
            let _ = reading.replaced.send(replaced);
        }
        std::mem::take(&mut self.again)
    }
}

/// Reads the configuration while this file is there. What is wrong with that is said with what there is to say about
/// the configuration.
fn read_marked(source: &Source, file: Option<PathBuf>, running: &Config) -> Result<Fresh, Refusal> {
    let (made, refused) = match file.map(ReloadFile::make) {
        Some(Ok(file)) => (Some(file), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let mut outcome = read(source, running);
    let left = made.and_then(|file| file.remove().err());
    let lines = match &mut outcome {
        Ok(fresh) => &mut fresh.findings,
        Err(refusal) => &mut refusal.lines,
    };
    lines.extend(refused.into_iter().chain(left).map(error));
    outcome
}

fn read(source: &Source, running: &Config) -> Result<Fresh, Refusal> {
    let parsed = source.read();
    let parsed = parsed.map_err(|error| format!("{}: {error}", source.file().display()))?;
    let mut findings: Vec<Line> = parsed.diagnostics.iter().map(Line::from).collect();
    if let Some(why) = source.refusal(&parsed) {
        let lines = findings.into_iter().chain([error(why.clone())]);
        return Err(Refusal {
            lines: lines.collect(),
            report: format!("{}{why}\n", parsed.report()),
        });
    }
    let config = Arc::new(parsed.config);
    // Here, as databases of users may lie on other hosts.
    findings.extend(scripts::remarks(&config.global.scripts));
    let diff = config::diff(running, &config);
    Ok(Fresh {
        config,
        diff,
        findings,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::mpsc::{Receiver, channel},
        time::Duration,
    };

    use super::*;

    const SERVER: &str = "virtual_server 10.0.0.9 80 {\nlb_algo rr\nlb_kind DR\nprotocol TCP\n\
                          real_server 10.0.0.1 80 {\n}\n}\n";

    /// A reader of a file of its own, and what tells of its end.
    fn reader(name: &str) -> (Reload, Receiver<()>) {
        let file = std::env::temp_dir().join(format!("xvs-reload-{}-{name}", std::process::id()));
        let (sender, called) = channel();
        let call = move || sender.send(()).unwrap_or_default();
        let places = Places {
            folder: std::env::temp_dir(),
            usual: file.with_extension("usual"),
        };
        (
            Reload::new(Source::of(file), places, Arc::new(call)),
            called,
        )
    }

    fn outcome(reload: &mut Reload, called: &Receiver<()>) -> Result<Fresh, Refusal> {
        called
            .recv_timeout(Duration::from_secs(10))
            .expect("it reads the file");
        reload.poll().expect("it has called")
    }

    #[test]
    fn what_is_read_is_compared_with_what_runs() {
        let (mut reload, called) = reader("good");
        fs::write(reload.file(), SERVER).unwrap();
        let nothing = Arc::new(Config::default());
        reload.begin(&nothing).unwrap();
        let fresh = outcome(&mut reload, &called).unwrap();
        assert_eq!(fresh.diff.changes.len(), 1);
        assert!(!reload.retire(Some(nothing)), "once is enough");
        assert!(reload.poll().is_none());
        // It was changed while it was read: it is read again.
        reload.begin(&fresh.config).unwrap();
        reload.begin(&fresh.config).unwrap();
        let same = outcome(&mut reload, &called).unwrap();
        assert!(same.diff.changes.is_empty());
        assert!(reload.retire(Some(same.config)));
        fs::remove_file(reload.file()).unwrap();
    }

    #[test]
    fn the_reload_file_is_there_while_the_configuration_is_read() {
        let (mut reload, called) = reader("marked");
        let own = format!("xvs-reload-{}-own", std::process::id());
        for (told, path) in [
            (Some(vec![]), Some(reload.places.usual.clone())),
            (
                Some(vec![own.clone()]),
                Some(std::env::temp_dir().join(own)),
            ),
            (None, None),
        ] {
            let mut config = Config::default();
            config.global.files.reload_file = told;
            assert_eq!(reload.places.file(&config), path);
            let Some(path) = path else { continue };
            fs::write(&path, "the configuration is being changed").unwrap();
            // A file that is not there, or not cut to nothing, would be complained of.
            let text = format!("include {}\n{SERVER}", path.display());
            fs::write(reload.file(), text).unwrap();
            reload.begin(&Arc::new(config)).unwrap();
            let fresh = outcome(&mut reload, &called).unwrap();
            assert!(fresh.findings.is_empty(), "{:?}", fresh.findings);
            assert!(!path.exists(), "it is removed when all is read");
            reload.retire(None);
        }
        let mut config = Config::default();
        config.global.files.reload_file = Some(vec!["/no/such/file".into()]);
        reload.begin(&Arc::new(config)).unwrap();
        let fresh = outcome(&mut reload, &called).unwrap();
        // The file that the configuration includes was not made this time.
        let said = fresh.findings.iter().map(|line| line.text.as_str());
        let said: Vec<&str> = said.collect();
        assert!(said[0].ends_with("there is no such file"), "{said:?}");
        assert!(said[1].contains("/no/such/file: No such file"), "{said:?}");
        fs::remove_file(reload.file()).unwrap();
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let (mut reload, called) = reader("bad");
        let nothing = Arc::new(Config::default());
        for (text, why) in [
            (Some("vrrp_instance V {\ninterface eth0\n}\n"), ": error: "),
            (Some("global_defs {\n}\n"), "neither a vrrp_instance nor"),
            (None, "No such file"),
        ] {
            match text {
                Some(text) => fs::write(reload.file(), text).unwrap(),
                None => fs::remove_file(reload.file()).unwrap(),
            }
            reload.begin(&nothing).unwrap();
            let refusal = outcome(&mut reload, &called).unwrap_err();
            assert!(refusal.report.contains(why), "{}", refusal.report);
            assert!(refusal.lines.iter().any(|line| line.text.contains(why)));
            assert!(!reload.retire(None));
        }
    }
}
