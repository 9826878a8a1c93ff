//! The program under test, as a box runs it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use super::{
    host::Host,
    lan::VIP,
    process::{Process, has_ended, kill_now},
    secs, wait_until,
};

/// The built program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_xvs");

/// How long a box may take from its start to MASTER when nobody else speaks: three intervals,
/// the skew of the lowest priority, and the start of the program on a busy machine.
const MASTER_WITHIN: Duration = secs(8);

/// How the box gets at packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The program's own choice; on veth this is AF_XDP in native copy mode.
    AfXdp,
    /// AF_XDP over the kernel's generic hook.
    GenericXdp,
    /// Raw packet sockets.
    AfPacket,
}

impl Engine {
    /// All of them: what is promised holds on each.
    pub(crate) const ALL: [Self; 3] = [Self::AfXdp, Self::GenericXdp, Self::AfPacket];

    /// The two that share the least below the workers.
    pub(crate) const BOTH: [Self; 2] = [Self::AfXdp, Self::AfPacket];

    /// Arguments of `xvs run` that ask for this engine and for nothing less.
    pub(crate) const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::AfXdp => &["--io", "af-xdp", "--xdp-mode", "native"],
            Self::GenericXdp => &["--io", "af-xdp", "--xdp-mode", "generic"],
            Self::AfPacket => &["--io", "af-packet"],
        }
    }

    /// Word for the names of tests.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AfXdp => "af-xdp",
            Self::GenericXdp => "generic-xdp",
            Self::AfPacket => "af-packet",
        }
    }
}

/// A running xvs on one machine.
pub(crate) struct Xvs<'a> {
    host: &'a Host,
    process: Process,
    config: PathBuf,
    socket: PathBuf,
    /// Whether VRRP puts the VIP on the machine, and takes it off again.
    managed: bool,
}

/// A real server's row in `xvs list`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// `address:port`.
    pub(crate) address: String,
    pub(crate) forward: String,
    pub(crate) weight: u32,
    pub(crate) active: usize,
    pub(crate) inactive: usize,
}

impl<'a> Xvs<'a> {
    /// Starts `xvs run` on `host` with the text `config`.
    pub(crate) fn start(
        place: &impl AsRef<Path>,
        host: &'a Host,
        config: &str,
        engine: Engine,
    ) -> Self {
        Self::start_with(place, host, config, engine.arguments())
    }

    /// As [`Self::start`] with other arguments.
    pub(crate) fn start_with(
        place: &impl AsRef<Path>,
        host: &'a Host,
        config: &str,
        arguments: &[&str],
    ) -> Self {
        Self::start_in(place, host, config, arguments, "exec \"$@\"", &[])
    }

    /// As [`Self::start_with`], by a script for `sh` whose arguments are the program and its own, with variables of
    /// the environment.
    pub(crate) fn start_in(
        place: &impl AsRef<Path>,
        host: &'a Host,
        config: &str,
        arguments: &[&str],
        script: &str,
        environment: &[(&str, &Path)],
    ) -> Self {
        let place = |suffix: &str| place.as_ref().join(format!("{}.{suffix}", host.role()));
        let file = place("conf");
        write(&file, &on_the_fast_path(config));
        let socket = place("sock");
        let mut command = host.command("sh");
        command.args(["-c", script, "sh", PROGRAM]);
        command.arg("run").arg("-f").arg(&file);
        command.arg("--socket").arg(&socket).args(arguments);
        command.envs(environment.iter().copied());
        let name = format!("xvs on {}", host.role());
        let process = Process::spawn(&name, &mut command, &place("log"));
        Self {
            host,
            process,
            config: file,
            socket,
            managed: config.contains("vrrp_instance"),
        }
    }

    /// Waits until the box forwards: it steers, and knows the way to every real server.
    pub(crate) fn wait_until_ready(&self) {
        self.wait_for_line(0, "packet I/O: ", secs(5));
        wait_until("the ways to all real servers are known", secs(5), || {
            let list = self.list();
            let services = list["services"].as_array().expect("services");
            let mut reals = services
                .iter()
                .filter_map(|one| one["reals"].as_array())
                .flatten();
            reals.all(|real| real["next_hop"].is_string())
        });
    }

    /// What `xvs list --json` says.
    pub(crate) fn list(&self) -> serde_json::Value {
        let text = self.tell(&["list", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("xvs list --json: {e}\n{text}"))
    }

    /// A counter of one of the lists `drops`, `replies` and `io_drops` of `xvs list --json`. What never occurred
    /// is not in them.
    pub(crate) fn count(&self, list: &str, name: &str) -> u64 {
        let all = self.list();
        let all = all[list].as_array().unwrap_or_else(|| panic!("no {list}"));
        let one = all.iter().find(|one| one["name"] == name);
        one.map_or(0, |one| one["count"].as_u64().expect("a count"))
    }

    /// Waits until the box is MASTER, holds the VIP, and says so.
    pub(crate) fn wait_for_master(&self) {
        self.wait_for_vip(MASTER_WITHIN);
        self.wait_for_line(0, "(VI_1) Entering MASTER STATE", secs(1));
    }

    /// Waits until the box holds the VIP.
    pub(crate) fn wait_for_vip(&self, limit: Duration) -> Duration {
        let what = format!("{} takes the VIP", self.host.role());
        wait_until(&what, limit, || self.host.has_address(VIP))
    }

    /// Waits until the box is BACKUP: it heard or waits for a master.
    pub(crate) fn wait_for_backup(&self, mark: usize) {
        self.wait_for_line(mark, "(VI_1) Entering BACKUP STATE", secs(5));
    }

    /// Waits for a line in the log behind `mark`.
    pub(crate) fn wait_for_line(&self, mark: usize, text: &str, limit: Duration) -> Duration {
        self.process.wait_for_line(mark, text, limit)
    }

    /// The end of the log as it is now.
    pub(crate) fn mark(&self) -> usize {
        self.process.mark()
    }

    /// All that the box has logged in this run.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The permission bits of the control socket.
    pub(crate) fn socket_mode(&self) -> u32 {
        let data = fs::metadata(&self.socket).unwrap_or_else(|e| panic!("control socket: {e}"));
        data.permissions().mode() & 0o777
    }

    /// Whether the program has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Does `action` while the engine does not run.
    pub(crate) fn while_paused<T>(&self, action: impl FnOnce() -> T) -> T {
        self.process.pause();
        let result = action();
        self.process.resume();
        result
    }

    /// Asks the box to stop, and does not wait.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Stops the box as `systemctl stop` does. It must be quick, succeed, account for every
    /// frame, and leave neither VIP nor program.
    pub(crate) fn stop(mut self) {
        let mark = self.mark();
        self.terminate();
        // Taking programs off interfaces waits for a lock that the kernel has once, and that tests beside
        // this one hold while they make and remove theirs. More so with two interfaces, as boxes
        // without VRRP have here; others have given way to the next master by then.
        let limit = if self.managed { secs(1) } else { secs(6) };
        let status = self.process.wait(limit);
        assert!(status.success(), "xvs stopped with {status}");
        let log = self.log();
        let said = &log[mark..];
        assert!(
            said.contains("frames conserved"),
            "no account of the frames:\n{said}"
        );
        self.assert_nothing_left();
    }

    /// As [`Self::stop`], for one whose log is somewhere else.
    pub(crate) fn stop_unheard(mut self) {
        self.terminate();
        let status = self.process.wait(secs(6));
        assert!(status.success(), "xvs stopped with {status}");
        self.assert_nothing_left();
    }

    /// Stops the box, which leaves its program and says `line`.
    pub(crate) fn stop_and_leave(mut self, line: &str) {
        let mark = self.mark();
        self.terminate();
        let status = self.process.wait(secs(6));
        assert!(status.success(), "xvs stopped with {status}");
        assert!(self.log()[mark..].contains(line), "{}", self.log());
        assert!(self.host.has_xdp(), "the steering program is gone");
    }

    /// Kills the engine alone. Its guardian undoes the rest: when this returns it has.
    pub(crate) fn kill_engine(mut self) {
        let guardian = self.guardian();
        self.process.kill();
        wait_until("the guardian has done its work", secs(2), || {
            has_ended(guardian)
        });
    }

    /// Kills the box, as a loss of power does: engine and guardian. What it attached to the kernel
    /// stays.
    pub(crate) fn kill(mut self) {
        kill_now(self.guardian());
        self.process.kill();
    }

    /// The engine.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The process that watches the engine.
    fn guardian(&self) -> u32 {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))
            .unwrap_or_else(|e| panic!("the children of xvs: {e}"));
        let child = children.split_whitespace().next();
        let child = child.unwrap_or_else(|| panic!("xvs has no guardian"));
        child.parse().expect("a process id is a number")
    }

    /// Nothing of xvs is left on the machine.
    pub(crate) fn assert_nothing_left(&self) {
        assert!(
            !self.managed || !self.host.has_address(VIP),
            "the VIP is still there"
        );
        assert!(
            !self.host.has_xdp(),
            "the steering program is still attached"
        );
    }

    /// Runs another subcommand against this box.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        let socket = self.socket.to_str().expect("the path is UTF-8");
        xvs(self.host, &[arguments, &["--socket", socket]].concat())
    }

    /// What a subcommand prints. It must succeed.
    pub(crate) fn tell(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "xvs {arguments:?}: {}\n{errors}",
            output.status
        );
        String::from_utf8(output.stdout).expect("xvs prints UTF-8")
    }

    /// The real servers that `xvs list` shows for the virtual server on `port` of the VIP.
    pub(crate) fn rows(&self, port: u16) -> Vec<Row> {
        rows(&self.tell(&["list"]), port)
    }

    /// Runs `xvs cleanup` for this box's configuration on its machine, after its death.
    pub(crate) fn cleanup(host: &Host, config: &Path) -> Output {
        let config = config.to_str().expect("the path is UTF-8");
        host.output(PROGRAM, &["cleanup", "-f", config])
    }

    /// Writes the configuration file anew.
    pub(crate) fn write(&self, config: &str) {
        write(&self.config, &on_the_fast_path(config));
    }

    /// Writes the configuration file anew and has it applied, by SIGHUP or by `xvs reload`, and waits until it
    /// is.
    pub(crate) fn reload(&self, config: &str, by_signal: bool) {
        self.write(config);
        if by_signal {
            let mark = self.mark();
            self.process.hang_up();
            // A box that is still starting on a busy machine comes to it when it has started.
            self.wait_for_line(mark, "reload: done", secs(20));
        } else {
            self.tell(&["reload"]);
        }
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.config.clone()
    }
}

/// A number that `xvs list --json` says.
pub(crate) fn number(value: &serde_json::Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// Packets that the program forwarded itself.
pub(crate) fn forwarded(lb: &Xvs<'_>) -> u64 {
    number(&lb.list()["steering"]["forwarded"])
}

/// A sum over all real servers.
pub(crate) fn sum(lb: &Xvs<'_>, what: &str) -> u64 {
    let list = lb.list();
    let services = list["services"].as_array().expect("services");
    let reals = services.iter().filter_map(|one| one["reals"].as_array());
    reals.flatten().map(|real| number(&real[what])).sum()
}

/// Whether every box has the fast path: all tests can be run so, with this variable of the environment set.
pub(crate) fn is_all_fast() -> bool {
    std::env::var_os("XVS_TEST_FAST_PATH").is_some()
}

/// A configuration, with the fast path if every box is to have it and it does not say.
fn on_the_fast_path(config: &str) -> String {
    let add = is_all_fast() && config.contains("virtual_server") && !config.contains("fast_path");
    // What stands in one block does not go with another.
    if add && config.contains("xvs {\n") {
        return config.replacen("xvs {\n", "xvs {\n    fast_path on\n", 1);
    }
    let block = if add {
        "\nxvs {\n    fast_path on\n}\n"
    } else {
        ""
    };
    format!("{config}{block}")
}

/// Runs `xvs` with `arguments` on `host` to its end.
pub(crate) fn xvs(host: &Host, arguments: &[&str]) -> Output {
    host.output(PROGRAM, arguments)
}

/// Writes a file of the test.
pub(crate) fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

/// The real servers of the virtual server on `port` of the VIP in a table laid out by `ipvsadm`.
fn rows(table: &str, port: u16) -> Vec<Row> {
    let service = format!("TCP  {VIP}:{port} ");
    let lines = table.lines().skip_while(|line| !line.starts_with(&service));
    let lines = lines.skip(1).take_while(|line| line.starts_with("  -> "));
    lines.map(row).collect()
}

fn row(line: &str) -> Row {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, address, forward, weight, active, inactive] = words[..] else {
        panic!("not a row of ipvsadm: {line:?}");
    };
    let count = |word: &str| {
        word.parse()
            .unwrap_or_else(|_| panic!("a count in {line:?}"))
    };
    let row = Row {
        address: address.to_owned(),
        forward: forward.to_owned(),
        weight: weight
            .parse()
            .unwrap_or_else(|_| panic!("a weight in {line:?}")),
        active: count(active),
        inactive: count(inactive),
    };
    assert_eq!(line, row.layout(), "the layout of ipvsadm");
    row
}

impl Row {
    /// The line as `ipvsadm -Ln` prints it: its format string, not xvs's.
    fn layout(&self) -> String {
        format!(
            "  -> {:<28} {:<7} {:<6} {:<10} {:<10}",
            self.address, self.forward, self.weight, self.active, self.inactive
        )
    }
}
