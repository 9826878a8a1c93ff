//! Debian's keepalived, VRRP only, as the other box of a pair.

use std::{fs, path::PathBuf};

use super::{
    host::Host,
    lan::Lan,
    process::{Process, kill_now},
    secs, wait_for,
};

/// A running keepalived.
pub(crate) struct Keepalived {
    process: Process,
    /// Where it writes its counters when it is asked to.
    statistics: PathBuf,
    namespace_processes: Vec<u32>,
}

impl Keepalived {
    /// Starts keepalived on `host` with the text `config`.
    pub(crate) fn start(lan: &Lan, host: &Host, config: &str) -> Self {
        let name = format!("keepalived on {}", host.role());
        let place = |suffix: &str| {
            lan.as_ref()
                .join(format!("keepalived-{}.{suffix}", host.role()))
        };
        let file = place("conf");
        fs::write(&file, config).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut command = host.command("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        command.arg("--use-file").arg(file);
        command.arg("--pid").arg(place("pid"));
        command.arg("--vrrp_pid").arg(place("vrrp.pid"));
        let folder = place("tmp");
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        command.env("TMPDIR", &folder);
        let process = Process::spawn(&name, &mut command, &place("log"));
        process.wait_for_line(0, "Entering BACKUP STATE", secs(5));
        Self {
            process,
            statistics: folder.join("keepalived.stats"),
            namespace_processes: host.processes(),
        }
    }

    /// How many adverts it has refused because their password is another.
    pub(crate) fn refused_passwords(&self) -> u64 {
        // So that what is read was written after this call.
        let _ = fs::remove_file(&self.statistics);
        self.process.ask_for_statistics();
        let read = || {
            let text = fs::read_to_string(&self.statistics).ok()?;
            let (_, errors) = text.split_once("Authentication Errors:")?;
            let line = |line: &str| line.trim().strip_prefix("Failure: ")?.parse().ok();
            // Half of the file may have been written.
            errors
                .split_inclusive('\n')
                .filter(|it| it.ends_with('\n'))
                .find_map(line)
        };
        wait_for("keepalived tells its counters", secs(3), read).0
    }

    /// Ends keepalived as `systemctl stop` does: it sends priority 0 and takes its addresses away.
    pub(crate) fn stop(mut self) {
        self.process.terminate();
        self.process.wait(secs(5));
    }

    /// Kills keepalived, parent and children, so that no advert leaves any more.
    pub(crate) fn kill(mut self) {
        for process in &self.namespace_processes {
            kill_now(*process);
        }
        self.process.kill();
    }
}
