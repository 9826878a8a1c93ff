//! The files that signals ask for: what keepalived writes to `/tmp`, beside the control socket instead, where nobody
//! else can put a link in the way; and the configurations that are kept (`config_save_dir`).
//!
//! A thread that ends with it makes and writes each: a disk may be slow or full, and adverts have to leave
//! meanwhile. A file is complete or not there.

mod json;
mod text;

use std::{
    collections::BTreeSet,
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process,
    sync::{Arc, mpsc},
};

use super::{
    api::{InstanceStatus, ServiceStatus},
    whole_file,
};
use crate::{
    config::{self, Config},
    sys::scheduling,
};

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
    /// The path of the file, as the configuration has it or relative to the usual folder. `name` tells this daemon
    /// from others; as in keepalived, it is for the state alone.
    fn file(self, config: &Config, name: &str) -> PathBuf {
        let files = &config.global.files;
        let (told, usual) = match self {
            Self::Data => (&files.state_dump_file, "keepalived.data"),
            Self::Statistics => (&files.stats_dump_file, "keepalived.stats"),
            Self::Json => (&files.json_dump_file, "keepalived.json"),
        };
        let file = PathBuf::from(told.as_deref().unwrap_or(usual));
        if self != Self::Data || !files.data_use_instance || name.is_empty() {
            return file;
        }
        // keepalived.data becomes keepalived.NAME.data.
        match file.extension() {
            Some(extension) => {
                let mut last = std::ffi::OsString::from(name);
                last.push(".");
                last.push(extension);
                file.with_extension(last)
            }
            None => file.with_extension(name),
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

/// A file that was written, or was not.
struct Written {
    /// Which signal has asked for it, if one has.
    kind: Option<Kind>,
    path: PathBuf,
    outcome: io::Result<()>,
}

/// Writes the files.
pub(super) struct Dumps {
    folder: PathBuf,
    /// What tells this daemon from others on the machine.
    name: String,
    call: Call,
    sender: mpsc::Sender<Written>,
    written: mpsc::Receiver<Written>,
    /// Those that are being written.
    busy: BTreeSet<Kind>,
    /// How many configurations were kept.
    kept: u64,
}

impl Dumps {
    /// Writes to `folder`, where the configuration does not say otherwise; `name` tells this daemon from others, and
    /// `call` tells the control thread that a file is written.
    pub(super) fn new(folder: PathBuf, name: String, call: Call) -> Self {
        let (sender, written) = mpsc::channel();
        Self {
            folder,
            name,
            call,
            sender,
            written,
            busy: BTreeSet::new(),
            kept: 0,
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
        let path = self.folder.join(kind.file(&snapshot.config, &self.name));
        let begun = self.write(Some(kind), path, None, move || kind.make(&snapshot));
        begun.inspect_err(|_| {
            self.busy.remove(&kind);
        })
    }

    /// Begins to keep the configuration that runs now, passwords masked, where it says that it is to be kept: as
    /// `keepalived.conf`, the process id and the number of configurations before it, which is keepalived's name.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(super) fn keep(&mut self, config: &Arc<Config>) -> Result<(), String> {
        let number = self.kept;
        self.kept += 1;
        let Some(folder) = &config.global.files.config_save_dir else {
            return Ok(());
        };
        let folder = self.folder.join(folder);
        let path = folder.join(format!("keepalived.conf.{}.{number}", process::id()));
        let config = Arc::clone(config);
        self.write(None, path, Some(folder), move || config::effective(&config))
    }

    /// Writes what `make` makes, in a thread; `folder` is made if it is missing.
    fn write(
        &self,
        kind: Option<Kind>,
        path: PathBuf,
        folder: Option<PathBuf>,
        make: impl FnOnce() -> String + Send + 'static,
    ) -> Result<(), String> {
        let failed = format!("starting a thread to write {}", path.display());
        let (sender, call) = (self.sender.clone(), Arc::clone(&self.call));
        let run = move || {
            let made = panic::catch_unwind(AssertUnwindSafe(make));
            let made = made.map_err(|_| io::Error::other("what it holds could not be made"));
            let outcome = made.and_then(|text| {
                folder.map_or(Ok(()), |folder| make_folder(&folder))?;
                whole_file::replace(&path, text.as_bytes())
            });
            // Nobody listens any more when the daemon stops.
            let _ = sender.send(Written {
                kind,
                path,
                outcome,
            });
            call();
        };
        let started = scheduling::spawn("xvs-dump".to_owned(), run);
        started
            .map(drop)
            .map_err(|error| format!("{failed}: {error}"))
    }

    /// A line for the log about a file that is written now, or could not be.
    pub(super) fn poll_line(&mut self) -> Option<Result<String, String>> {
        let Written {
            kind,
            path,
            outcome,
        } = self.written.try_recv().ok()?;
        if let Some(kind) = kind {
            self.busy.remove(&kind);
        }
        Some(match outcome {
            Ok(()) => Ok(format!("wrote {}", path.display())),
            Err(error) => Err(format!("writing {}: {error}", path.display())),
        })
    }
}

/// Makes a folder for files that nobody else is to read. The one that it is in has to be there, as for keepalived.
fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, sync::mpsc::Receiver, time::Duration};

    use super::*;

    /// What writes to a folder of its own, that folder, and what tells that a file is written.
    fn dumps(name: &str) -> (Dumps, PathBuf, Receiver<()>) {
        let folder = std::env::temp_dir().join(format!("xvs-dump-{}-{name}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (sender, called) = mpsc::channel();
        let call = move || sender.send(()).unwrap_or_default();
        let dumps = Dumps::new(folder.clone(), "blue_foo".into(), Arc::new(call));
        (dumps, folder, called)
    }

    fn snapshot(config: &Arc<Config>) -> Snapshot {
        Snapshot {
            config: Arc::clone(config),
            instances: Vec::new(),
            services: Vec::new(),
        }
    }

    fn told(dumps: &mut Dumps, called: &Receiver<()>) -> Result<String, String> {
        called.recv_timeout(Duration::from_secs(10)).unwrap();
        dumps.poll_line().unwrap()
    }

    #[test]
    fn files_are_beside_the_socket_or_where_the_configuration_says() {
        let (mut dumps, folder, called) = dumps("places");
        let other = folder.join("elsewhere");
        let mut config = Config::default();
        config.global.files.state_dump_file = Some(other.display().to_string());
        config.global.files.json_dump_file = Some("own.json".into());
        let config = Arc::new(config);
        for (kind, path) in [
            (Kind::Data, other),
            (Kind::Statistics, folder.join("keepalived.stats")),
            (Kind::Json, folder.join("own.json")),
        ] {
            dumps.begin(kind, snapshot(&config)).unwrap();
            let line = told(&mut dumps, &called).unwrap();
            assert_eq!(line, format!("wrote {}", path.display()));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::remove_dir_all(&folder).unwrap();
        dumps.begin(Kind::Json, snapshot(&config)).unwrap();
        let line = told(&mut dumps, &called).unwrap_err();
        assert!(line.contains("own.json: No such file"), "{line}");
        assert!(dumps.poll_line().is_none());
    }

    #[test]
    fn the_state_alone_carries_the_name_of_the_daemon() {
        let mut config = Config::default();
        config.global.files.data_use_instance = true;
        let file = |kind: Kind, config: &Config, name| kind.file(config, name);
        for (kind, name, path) in [
            (Kind::Data, "", "keepalived.data"),
            (Kind::Data, "blue_foo", "keepalived.blue_foo.data"),
            (Kind::Statistics, "blue_foo", "keepalived.stats"),
            (Kind::Json, "blue_foo", "keepalived.json"),
        ] {
            assert_eq!(file(kind, &config, name), Path::new(path));
        }
        config.global.files.state_dump_file = Some("/var/own".into());
        let path = file(Kind::Data, &config, "foo");
        assert_eq!(path, Path::new("/var/own.foo"));
    }

    #[test]
    fn each_configuration_is_kept_under_a_name_of_its_own_and_without_passwords() {
        let (mut dumps, folder, called) = dumps("kept");
        let text = |folder: &str| {
            format!(
                "global_defs {{\nconfig_save_dir {folder}\n}}\n\
                 vrrp_instance V {{\nstate BACKUP\ninterface eth0\nvirtual_router_id 5\n\
                 authentication {{\nauth_type PASS\nauth_pass S3cr3t\n}}\n\
                 virtual_ipaddress {{\n10.0.0.9\n}}\n}}\n"
            )
        };
        let config = |folder: &str| Arc::new(config::parse("f", text(folder).as_bytes()).config);
        for number in 0..2 {
            dumps.keep(&config("saved")).unwrap();
            told(&mut dumps, &called).unwrap();
            let name = format!("saved/keepalived.conf.{}.{number}", process::id());
            let kept = fs::read_to_string(folder.join(name)).unwrap();
            assert!(kept.contains("vrrp_instance V {"), "{kept}");
            assert!(!kept.contains("S3cr3t"), "{kept}");
        }
        let mode = fs::metadata(folder.join("saved")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
        // Only the last folder is made.
        dumps.keep(&config("no/such")).unwrap();
        let line = told(&mut dumps, &called).unwrap_err();
        assert!(line.contains("No such file"), "{line}");
        dumps.keep(&Arc::default()).unwrap();
        assert!(dumps.poll_line().is_none());
        fs::remove_dir_all(&folder).unwrap();
    }
}
