//! The files that signals ask for: what keepalived writes to `/tmp`, beside the control socket instead, where nobody
//! else can put a link in the way.
//!
//! A thread that ends with it makes and writes each: a disk may be slow or full, and adverts have to leave
//! meanwhile. A file is complete or not there: it is written under another name first.

mod json;
mod text;

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process,
    sync::{Arc, mpsc},
};

use super::api::{InstanceStatus, ServiceStatus};
use crate::{config::Config, sys::scheduling};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Everything, for people: `keepalived.data` (SIGUSR1).
    Data,
    /// What VRRP has counted, for people and for programs that read keepalived's: `keepalived.stats` (SIGUSR2).
    Statistics,
    /// VRRP for programs: `keepalived.json` (SIGRTMIN+2).
    Json,
}

impl Kind {
    /// The name of the file.
    const fn file_name(self) -> &'static str {
        match self {
            Self::Data => "keepalived.data",
            Self::Statistics => "keepalived.stats",
            Self::Json => "keepalived.json",
        }
    }

    fn make(self, snapshot: &Snapshot) -> String {
        match self {
            Self::Data => text::data(snapshot),
            Self::Statistics => text::statistics(&snapshot.instances),
            Self::Json => json::vrrp(snapshot),
        }
    }
}

/// How things are.
pub(super) struct Snapshot {
    /// What runs.
    pub(super) config: Arc<Config>,
    pub(super) instances: Vec<InstanceStatus>,
    /// Empty where only VRRP is asked for.
    pub(super) services: Vec<ServiceStatus>,
}

/// Calls the control thread.
type Call = Arc<dyn Fn() + Send + Sync>;

/// Writes the files.
pub(super) struct Dumps {
    folder: PathBuf,
    call: Call,
    sender: mpsc::Sender<(Kind, io::Result<()>)>,
    written: mpsc::Receiver<(Kind, io::Result<()>)>,
    /// Those that are being written.
    busy: BTreeSet<Kind>,
}

impl Dumps {
    /// Writes to `folder`; `call` tells the control thread that a file is written.
    pub(super) fn new(folder: PathBuf, call: Call) -> Self {
        let (sender, written) = mpsc::channel();
        Self {
            folder,
            call,
            sender,
            written,
            busy: BTreeSet::new(),
        }
    }

    /// Whether the file is being written.
    pub(super) fn is_busy(&self, kind: Kind) -> bool {
        self.busy.contains(&kind)
    }

    /// Begins to write a file. While the same one is being written nothing more is begun.
    ///
    /// # Errors
    /// A line for the log: why no thread could be started.
    pub(super) fn begin(&mut self, kind: Kind, snapshot: Snapshot) -> Result<(), String> {
        if !self.busy.insert(kind) {
            return Ok(());
        }
        let path = self.path(kind);
        let (sender, call) = (self.sender.clone(), Arc::clone(&self.call));
        let run = move || {
            let made = panic::catch_unwind(AssertUnwindSafe(|| kind.make(&snapshot)));
            let made = made.map_err(|_| io::Error::other("what it holds could not be made"));
            let outcome = made.and_then(|text| write(&path, text.as_bytes()));
            // Nobody listens any more when the daemon stops.
            let _ = sender.send((kind, outcome));
            call();
        };
        let started = scheduling::spawn("xvs-dump".to_owned(), run);
        started.map(drop).map_err(|error| {
            self.busy.remove(&kind);
            format!("starting a thread to write {}: {error}", kind.file_name())
        })
    }

    /// A line for the log about a file that is written now, or could not be.
    pub(super) fn poll_line(&mut self) -> Option<Result<String, String>> {
        let (kind, outcome) = self.written.try_recv().ok()?;
        self.busy.remove(&kind);
        let path = self.path(kind);
        Some(match outcome {
            Ok(()) => Ok(format!("wrote {}", path.display())),
            Err(error) => Err(format!("writing {}: {error}", path.display())),
        })
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.folder.join(kind.file_name())
    }
}

/// Writes a file, mode 0600, that replaces whatever has its name.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", process::id()));
    let unfinished = PathBuf::from(name);
    let written = write_new(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // It takes room on a full disk.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        time::Duration,
    };

    use super::*;

    #[test]
    fn a_file_replaces_a_link_and_is_the_owners() {
        let folder = std::env::temp_dir().join(format!("xvs-dump-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let target = folder.join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, folder.join("keepalived.stats")).unwrap();
        let (sender, called) = mpsc::channel();
        let call = move || sender.send(()).unwrap_or_default();
        let mut dumps = Dumps::new(folder.clone(), Arc::new(call));
        let snapshot = || Snapshot {
            config: Arc::default(),
            instances: Vec::new(),
            services: Vec::new(),
        };
        dumps.begin(Kind::Statistics, snapshot()).unwrap();
        called.recv_timeout(Duration::from_secs(10)).unwrap();
        let line = dumps.poll_line().unwrap().unwrap();
        assert!(line.ends_with("/keepalived.stats"), "{line}");
        let written = fs::symlink_metadata(folder.join("keepalived.stats")).unwrap();
        assert!(written.is_file());
        assert_eq!(written.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        fs::remove_dir_all(&folder).unwrap();
        dumps.begin(Kind::Json, snapshot()).unwrap();
        called.recv_timeout(Duration::from_secs(10)).unwrap();
        let line = dumps.poll_line().unwrap().unwrap_err();
        assert!(line.contains("keepalived.json: No such file"), "{line}");
        assert!(dumps.poll_line().is_none());
    }
}
