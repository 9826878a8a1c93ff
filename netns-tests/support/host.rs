//! A machine of the test: a network namespace with one interface, `eth0`.

use std::{
    env, fs,
    fs::File,
    io::Write as _,
    net::Ipv4Addr,
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps the handles of namespaces.
const NAMESPACES: &str = "/run/netns";

/// Where programs are looked for: a plain shell of Debian has no `sbin`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A network namespace. Deleted when dropped, with every process that is left in it.
pub(crate) struct Host {
    namespace: String,
    role: String,
    network: Network,
}

/// A handle of a machine's network, for threads that live there.
#[derive(Clone)]
pub(crate) struct Network(Arc<File>);

impl Network {
    /// Moves the calling thread to the machine, for good.
    pub(crate) fn move_this_thread(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap_or_else(|e| panic!("a thread cannot enter a namespace: {e}"));
    }
}

impl Host {
    /// Creates the namespace `{prefix}{role}` with loopback up and IPv6 off.
    pub(crate) fn new(prefix: &str, role: &str) -> Self {
        let namespace = format!("{prefix}{role}");
        run(tool("ip").args(["netns", "add", &namespace]));
        let handle = File::open(Path::new(NAMESPACES).join(&namespace))
            .unwrap_or_else(|e| panic!("namespace {namespace}: {e}"));
        let host = Self {
            namespace,
            role: role.to_owned(),
            network: Network(Arc::new(handle)),
        };
        // A new namespace inherits these from the machine, where anything may be set.
        for scope in ["all", "default"] {
            host.sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), 1);
            for key in ["rp_filter", "arp_ignore", "arp_announce", "forwarding"] {
                host.sysctl(&format!("ipv4/conf/{scope}/{key}"), 0);
            }
        }
        host.ip("link set lo up");
        host
    }

    /// Switches IPv6 on, for interfaces to come, without router advertisements and the wait for duplicates.
    pub(crate) fn enable_v6(&self) {
        for scope in ["all", "default", "lo"] {
            for (key, value) in [("disable_ipv6", 0), ("accept_dad", 0), ("accept_ra", 0)] {
                self.sysctl(&format!("ipv6/conf/{scope}/{key}"), value);
            }
        }
    }

    /// Makes this machine a router.
    pub(crate) fn forward(&self) {
        self.sysctl("ipv4/ip_forward", 1);
        self.sysctl("ipv6/conf/all/forwarding", 1);
    }

    /// What this machine is in the test: `lb1`, `client`, …
    pub(crate) fn role(&self) -> &str {
        &self.role
    }

    /// The name of the namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A command that runs `program` on this machine. Its process id is the program's own.
    pub(crate) fn command(&self, program: &str) -> Command {
        require(program);
        let mut command = tool("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Runs `program` on this machine to its end, or for two minutes.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Output {
        require(program);
        self.command("timeout")
            .args(["--kill-after=5", "120", program])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}"))
    }

    /// What `ip` prints here, for example for `addr show`. It must succeed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let mut command = tool("ip");
        command.args(["-netns", &self.namespace]);
        run(command.args(arguments.split_whitespace()))
    }

    /// Gives `ip` many commands at once, one a line.
    pub(crate) fn ip_batch(&self, lines: &str) {
        let mut child = tool("ip")
            .args(["-netns", &self.namespace, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("ip: {e}"));
        let mut input = child.stdin.take().expect("standard input is piped");
        input
            .write_all(lines.as_bytes())
            .unwrap_or_else(|e| panic!("ip -batch: {e}"));
        drop(input);
        let status = child.wait().unwrap_or_else(|e| panic!("ip: {e}"));
        assert!(status.success(), "ip -batch failed for:\n{lines}");
    }

    /// Sets `/proc/sys/net/{key}` of this machine.
    pub(crate) fn sysctl(&self, key: &str, value: u32) {
        let path = format!("/proc/sys/net/{key}");
        self.inside(|| fs::write(&path, value.to_string()))
            .unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// Gives the cables that end here the offloads that veth has by default, which [`join`] takes away.
    ///
    /// [`join`]: super::site::join
    pub(crate) fn restore_offloads(&self) {
        let links = self.ip("-oneline link show type veth");
        for link in links.lines() {
            let name = link.split([' ', '@']).nth(1).unwrap_or_default();
            let offloads = [
                "tx", "on", "rx", "on", "tso", "on", "gso", "on", "gro", "off",
            ];
            let output = self.output("ethtool", &[&["-K", name][..], &offloads].concat());
            assert!(output.status.success(), "ethtool on {name}: {output:?}");
        }
    }

    /// Has the cables that end here take frames that the other end redirects, by GRO, as veth does without a program of
    /// its own. Else they are lost, and the kernel says so.
    pub(crate) fn take_redirected(&self, takes: bool) {
        let takes = if takes { "on" } else { "off" };
        let links = self.ip("-oneline link show type veth");
        for link in links.lines() {
            let name = link.split([' ', '@']).nth(1).unwrap_or_default();
            let output = self.output("ethtool", &["-K", name, "gro", takes]);
            assert!(output.status.success(), "ethtool on {name}: {output:?}");
        }
    }

    /// Calls `action` with this machine's network: what it opens or writes is this machine's.
    pub(crate) fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.network.move_this_thread();
                action()
            });
            worker
                .join()
                .unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }

    /// This machine's network, for a thread that is to stay there.
    pub(crate) fn network(&self) -> Network {
        self.network.clone()
    }

    /// Whether `address` is on `eth0`.
    pub(crate) fn has_address(&self, address: Ipv4Addr) -> bool {
        self.ip("-4 -oneline addr show dev eth0")
            .contains(&format!("inet {address}/"))
    }

    /// Whether an XDP program is attached to `eth0`.
    pub(crate) fn has_xdp(&self) -> bool {
        self.ip("link show dev eth0").contains("prog/xdp")
    }

    /// Process ids that live here.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_in(&self.namespace)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        remove(&self.namespace);
    }
}

/// Panics with the program's name when it is not installed: a test that cannot run has failed.
fn require(program: &str) {
    let found = if program.contains('/') {
        Path::new(program).exists()
    } else {
        env::split_paths(PATH).any(|folder| folder.join(program).exists())
    };
    assert!(
        found,
        "{program} is not installed; scripts/install-deps installs what the tests need"
    );
}

/// A command on the machine that the tests run on.
pub(crate) fn tool(program: &str) -> Command {
    require(program);
    let mut command = Command::new(program);
    command.env("PATH", PATH).env("LC_ALL", "C");
    command
}

/// Runs a command to its end, which must be a success, and gives what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn processes_in(namespace: &str) -> Vec<u32> {
    let listed = tool("ip").args(["netns", "pids", namespace]).output();
    let text = listed.map_or_else(|_| Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(&text)
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Kills what runs in a namespace, and deletes it. Errors are not told: it may be half gone.
pub(crate) fn remove(namespace: &str) {
    for process in processes_in(namespace) {
        super::process::kill_now(process);
    }
    let _ = tool("ip").args(["netns", "delete", namespace]).output();
}

/// The names of all namespaces.
pub(crate) fn namespaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
