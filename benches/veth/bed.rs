//! The machines: client, balancer and server in network namespaces of their own, joined by veth pairs.
//!
//! ```text
//!   client c0 10.9.0.1 ---- 10.9.0.2 l0 balancer l1 10.9.1.1 ---- 10.9.1.2 s0 server
//!          c1 10.9.2.1 --------------------------------------- 10.9.2.2 s1
//! ```
//!
//! The pair `c1` `s1` is the way of answers that do not pass the balancer: those from the VIP, which DR and TUN
//! leave to the server. All ends know each other's MAC addresses. Everything lives in namespaces that the kernel takes
//! down with this process, whatever ends it.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use xvs::sys::{clock, netns};

pub(crate) const CLIENT: [u8; 4] = [10, 9, 0, 1];
pub(crate) const VIP: [u8; 4] = [10, 9, 0, 100];
pub(crate) const SERVER: [u8; 4] = [10, 9, 1, 2];
/// The port of UDP, where the flood goes and the echo is.
pub(crate) const UDP_PORT: u16 = 9000;

/// The traffic source's processor, and the one of whatever stands between it and the server.
pub(crate) const SOURCE_CPU: usize = 0;
pub(crate) const BALANCER_CPU: usize = 1;

/// Says that this process is in the namespaces of its own.
const INSIDE: &str = "XVS_BENCH_INSIDE";

/// Runs this program again in namespaces of its own, at most this long, and says how it ended.
pub(crate) fn rerun_inside(limit: Duration) -> Option<ExitCode> {
    if env::var_os(INSIDE).is_some() {
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        return None;
    }
    let program = env::current_exe().expect("the program has a path");
    let status = Command::new("timeout")
        .args(["--kill-after=5", &limit.as_secs().to_string()])
        .args(["unshare", "--net", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc"])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .expect("timeout and unshare are there");
    Some(if status.success() {
        ExitCode::SUCCESS
    } else {
        eprintln!("{status}");
        ExitCode::FAILURE
    })
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
}

/// The same in a namespace.
pub(crate) fn run_in(namespace: &str, program: &str, arguments: &[&str]) {
    run(
        "ip",
        &[&["netns", "exec", namespace, program], arguments].concat(),
    );
}

/// A program in a namespace, on some processors.
pub(crate) fn command(namespace: &str, cpus: &[usize], program: &str) -> Command {
    let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "taskset", "--cpu-list"]);
    command.args([&cpus.join(","), program]);
    command
}

/// Waits for something that must come.
pub(crate) fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let end = clock::now() + Duration::from_secs(10);
    while !is_there() {
        assert!(clock::now() < end, "{what} does not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Does something in a namespace, on a thread of its own.
pub(crate) fn within<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            netns::enter(namespace).expect("the namespace is there");
            body()
        });
        done.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
    })
}

/// A program that runs until this is dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).expect("the folder is ours");
        let errors = log.try_clone().expect("a descriptor");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Self(child.spawn().expect("the program is there"))
    }
}

impl Drop for Running {
    /// Asks it to stop, and sees to it.
    fn drop(&mut self) {
        let end = clock::now() + Duration::from_secs(3);
        run("kill", &["-TERM", &self.0.id().to_string()]);
        while clock::now() < end && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How the ends of the links take frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// As they come; the kernel's own forwarding has a processor to itself, which would otherwise be the sender's.
    Plain,
    /// Also those that an XDP program redirects to them, which veth does with GRO; the kernel forwards where it
    /// receives.
    Redirected,
}

/// The machines, until this is dropped.
pub(crate) struct Bed;

const MACHINES: [&str; 3] = ["c", "lb", "s"];

impl Bed {
    pub(crate) fn build(links: Links) -> Self {
        for name in MACHINES {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let bed = Self;
        for [one, other] in [
            [["c", "c0", "10.9.0.1/24"], ["lb", "l0", "10.9.0.2/24"]],
            [["lb", "l1", "10.9.1.1/24"], ["s", "s0", "10.9.1.2/24"]],
            [["c", "c1", "10.9.2.1/24"], ["s", "s1", "10.9.2.2/24"]],
        ] {
            pair(links, one, other);
        }
        for name in MACHINES {
            for setting in [
                "ip_forward=1",
                "conf.all.rp_filter=0",
                "conf.default.rp_filter=0",
                "conf.all.arp_ignore=1",
            ] {
                let setting = format!("net.ipv4.{setting}");
                run_in(name, "sysctl", &["--quiet", "--write", &setting]);
            }
            for link in ["c0", "l0", "l1", "s0", "c1", "s1"] {
                // Only those that are in this namespace.
                let setting = format!("net.ipv4.conf.{link}.rp_filter=0");
                let sysctl = [
                    "netns", "exec", name, "sysctl", "--quiet", "--write", &setting,
                ];
                let _ = Command::new("ip")
                    .args(sysctl)
                    .stderr(Stdio::null())
                    .status();
            }
        }
        for (name, route) in [
            ("c", "10.9.0.100 via 10.9.0.2"),
            ("c", "10.9.1.0/24 via 10.9.0.2"),
            // The flood's clients.
            ("lb", "10.16.0.0/16 via 10.9.0.1"),
            ("lb", "10.128.0.0/9 via 10.9.0.1"),
            ("s", "default via 10.9.1.1"),
            ("s", "default via 10.9.2.1 table 100"),
        ] {
            let words: Vec<_> = route.split(' ').collect();
            run("ip", &[&["-n", name, "route", "add"], &words[..]].concat());
        }
        run(
            "ip",
            &["-n", "s", "addr", "add", "10.9.0.100/32", "dev", "lo"],
        );
        let rule = ["rule", "add", "from", "10.9.0.100", "lookup", "100"];
        run("ip", &[&["-n", "s"], &rule[..]].concat());
        if links == Links::Plain {
            let mask = format!(
                "echo {} > /sys/class/net/l0/queues/rx-0/rps_cpus",
                1 << BALANCER_CPU
            );
            run_in("lb", "sh", &["-c", &mask]);
        }
        bed
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for name in MACHINES {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// The MAC address of an interface.
pub(crate) fn mac(link: &str) -> String {
    let station = link.bytes().fold(0, |all, byte| all ^ byte);
    format!("02:00:00:00:00:{station:02x}")
}

/// A veth pair, each end with its namespace, name and address, whose ends know each other.
fn pair(links: Links, one: [&str; 3], other: [&str; 3]) {
    let (near, far) = (
        ["name", one[1], "netns", one[0]],
        ["name", other[1], "netns", other[0]],
    );
    run(
        "ip",
        &[
            &["link", "add"],
            &near[..],
            &["type", "veth", "peer"],
            &far[..],
        ]
        .concat(),
    );
    for ([name, link, address], [_, peer, peers]) in [(one, other), (other, one)] {
        // What the kernel sends has a checksum and fits the MTU, as from a wire.
        let off = [
            "-K", link, "tx", "off", "tso", "off", "gso", "off", "gro", "off",
        ];
        run_in(name, "ethtool", &off);
        let ip = |words: &[&str]| run("ip", &[&["-n", name], words].concat());
        ip(&["link", "set", link, "address", &mac(link)]);
        ip(&["addr", "add", address, "dev", link]);
        ip(&["link", "set", link, "up"]);
        if links == Links::Redirected {
            // Of one that is down the kernel does not note that its peer takes frames from now on.
            run_in(name, "ethtool", &["-K", link, "gro", "on"]);
        }
        let peers = peers.trim_end_matches("/24");
        ip(&["neigh", "replace", peers, "lladdr", &mac(peer), "dev", link]);
    }
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

/// Shows what the programs had to say, after a failure.
pub(crate) struct Logs;

impl Drop for Logs {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for entry in fs::read_dir(folder()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "log") {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                eprintln!("{}:\n{text}", entry.path().display());
            }
        }
    }
}

/// A folder for files, on the file system that goes with the namespaces.
pub(crate) fn folder() -> PathBuf {
    let folder = PathBuf::from("/run/xvs-bench");
    fs::create_dir_all(&folder).expect("/run is ours");
    folder
}

/// How long all processors together have been busy since the machine's start: with programs, the kernel and
/// its interrupts, but not what the machine below took away. It comes in ticks of 10 ms.
pub(crate) fn busy_time() -> Duration {
    const TICK_MS: u64 = 10;
    let text = fs::read_to_string("/proc/stat").expect("proc is there");
    let all = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "));
    let ticks = all.into_iter().flat_map(str::split_whitespace);
    // user nice system idle iowait irq softirq, and what is in user already: proc_stat(5).
    let ticks = ticks.take(7).enumerate();
    let busy = ticks.filter(|(at, _)| ![3, 4].contains(at));
    let busy: u64 = busy.map(|(_, n)| n.parse::<u64>().expect("a count")).sum();
    Duration::from_millis(TICK_MS * busy)
}

/// Waits until the machine has nothing to do, such as what is left of namespaces that went: for two seconds at most.
pub(crate) fn wait_for_quiet() {
    const LOOK: Duration = Duration::from_millis(200);
    for _ in 0..10 {
        let before = busy_time();
        thread::sleep(LOOK);
        if busy_time() - before <= LOOK / 10 {
            return;
        }
    }
}

/// Median, least and greatest.
pub(crate) fn spread(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    ]
}

/// Shows a line at once.
pub(crate) fn say(line: &str) {
    println!("{line}");
    let _ = io::stdout().flush();
}
