//! Debian's keepalived as the one who knows what a configuration means: whether it starts with it, what it says, and the
//! values that it then works with.

use std::{fs, path::Path, process::Command};

use super::{
    host::{run, tool},
    process::Process,
    secs, wait_until,
};

/// How often keepalived is started anew when it was killed while it printed.
const TRIES: u32 = 5;

/// How many looks at its log find nothing new when keepalived has said all that it has to say at its start.
const QUIET: u32 = 3;

/// A machine of its own with two interfaces, where keepalived runs.
const SCRIPT: &str = "set -e
mount -t tmpfs none /run
ip -batch - <<END
link set lo up
link add eth0 address 02:00:00:00:00:01 type veth peer name peer0
link add eth1 address 02:00:00:00:00:02 type veth peer name peer1
link set eth0 up
link set eth1 up
link set peer0 up
link set peer1 up
address add 10.0.0.1/24 dev eth0
address add 10.1.0.1/24 dev eth1
END
export LD_PRELOAD=\"$LIBRARY\"
exec keepalived --dont-fork --log-console --config-id left --use-file \"$FILE\" \"$@\"";

/// One of the two halves of keepalived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Vrrp,
    Checkers,
}

impl Half {
    /// The half that a configuration is about: its real servers, if it has any.
    pub(crate) fn of(text: &str) -> Self {
        if text.contains("virtual_server ") {
            Self::Checkers
        } else {
            Self::Vrrp
        }
    }
}

/// What keepalived makes of a configuration.
pub(crate) struct Reading {
    /// Whether it starts.
    pub(crate) starts: bool,
    /// What its test of the configuration says, a line each.
    pub(crate) said: Vec<String>,
    /// The values that it starts with, a line each.
    pub(crate) dump: Vec<String>,
}

/// keepalived, and a library that is an `ip_vs` to it: without one its checkers do not start.
pub(crate) struct Oracle<'a> {
    folder: &'a Path,
}

impl<'a> Oracle<'a> {
    /// Keeps its files in `folder`.
    pub(crate) fn new(folder: &'a Path) -> Self {
        // Asked for first: it is run by a script.
        let _ = tool("keepalived");
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/netns-tests/support/ipvs_stub.c"
        );
        run(tool("clang")
            .args(["-shared", "-fPIC", "-O1", source, "-o"])
            .arg(folder.join("ipvs_stub.so")));
        Self { folder }
    }

    /// What it makes of `text`, a configuration named `name`, of which one half is started.
    pub(crate) fn read(&self, name: &str, text: &str, half: Half) -> Reading {
        let file = self.folder.join(name);
        fs::write(&file, text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (_, test) = self.run(&file, &["--config-test"], "test", TRIES);
        let half = match half {
            Half::Vrrp => "--vrrp",
            Half::Checkers => "--check",
        };
        let (started, log) = self.run(&file, &["--dump-conf", half], "log", TRIES);
        let dump = log.lines().filter_map(value);
        Reading {
            starts: started && !log.contains("exited with permanent error"),
            said: test.lines().map(str::to_owned).collect(),
            // What follows is the machine, not the configuration.
            dump: dump
                .take_while(|line| !line.contains("< Interfaces >"))
                .collect(),
        }
    }

    /// Whether keepalived has started, and what it prints until its end, which it is asked for once it has.
    fn run(&self, file: &Path, arguments: &[&str], suffix: &str, tries: u32) -> (bool, String) {
        let mut command: Command = tool("unshare");
        command
            .args(["--net", "--mount", "sh", "-c", SCRIPT, "sh"])
            .args(arguments)
            .env("LIBRARY", self.folder.join("ipvs_stub.so"))
            .env("FILE", file)
            .env("TMPDIR", self.folder);
        let name = format!("keepalived with {}", file.display());
        let log = file.with_extension(suffix);
        let mut process = Process::spawn(&name, &mut command, &log);
        let has_started =
            |log: &str| log.contains("Startup complete") || log.contains("no configuration to run");
        // It goes on printing for a moment, and has little time to finish when it is told to stop.
        let (mut length, mut quiet) = (0, 0);
        wait_until(&format!("{name} has started"), secs(20), || {
            let log = process.log();
            quiet = if log.len() == length { quiet + 1 } else { 0 };
            length = log.len();
            (has_started(&log) && quiet >= QUIET) || !process.is_running()
        });
        process.terminate();
        process.wait(secs(20));
        let log = process.log();
        if log.contains("failed to die") {
            // Killed by its own parent while it printed: the machine has much to do.
            assert!(tries > 1, "{name} never comes to an end:\n{log}");
            return self.run(file, arguments, suffix, tries - 1);
        }
        (has_started(&log), log)
    }
}

/// A line of a dump, without the time and without the password; none for what is said besides.
fn value(line: &str) -> Option<String> {
    // `Sat Nov 28 02:07:16 2026: `
    let (_, text) = line.split_at_checked(26)?;
    let of_a_dump = text.starts_with(' ') || text.starts_with("------<");
    let (name, _) = text.split_once("Password = ").unwrap_or((text, ""));
    of_a_dump.then(|| name.trim_end().to_owned())
}
