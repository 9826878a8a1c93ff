//! Reading the configuration anew: by a thread that ends with it, as a file may lie on a slow disk and a large
//! one takes longer to read than an advert may be late.

use std::{
    path::Path,
    sync::{Arc, mpsc},
};

use super::super::{
    load::Source,
    log::{Level, Line},
    scripts,
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

/// The reader of the configuration file.
pub(super) struct Reload {
    source: Source,
    call: Call,
    reading: Option<Reading>,
    /// It was asked for while one was under way, which may have read the file before it was changed.
    again: bool,
}

impl Reload {
    /// Reads `source` when it is told to; `call` tells the control thread that something was read.
    pub(super) const fn new(source: Source, call: Call) -> Self {
        Self {
            source,
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
        let read = move || {
            // Nobody listens any more when the daemon stops.
            let _ = sender.send(read(&source, &running));
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
        (Reload::new(Source::of(file), Arc::new(call)), called)
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
