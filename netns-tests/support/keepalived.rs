//! Debian's keepalived, VRRP only, as the other box of a pair.

use std::fs;

use super::{
    host::Host,
    lan::Lan,
    process::{Process, kill_now},
    secs,
};

/// A running keepalived.
pub(crate) struct Keepalived {
    process: Process,
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
        let process = Process::spawn(&name, &mut command, &place("log"));
        process.wait_for_line(0, "Entering BACKUP STATE", secs(5));
        Self {
            process,
            namespace_processes: host.processes(),
        }
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
