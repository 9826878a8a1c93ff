//! Namespaces, waiting, and this program in other roles.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::fd::{AsRawFd, RawFd},
    path::Path,
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use xvs::{
    addr::{IpPrefix, MacAddr},
    sys::{
        clock,
        monitor::{Event, Monitor},
        netlink::{Link, Netlink},
        netns,
    },
    time::Instant,
};

/// The environment variable that makes this program play a role instead of running tests.
pub(crate) const ROLE: &str = "XVS_SYS_ROLE";

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What the names of the namespaces begin with; the process id of the run follows.
const PREFIX: &str = "xvs-sys-";

/// A network namespace that is gone when the test is over, however it ends.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self {
            name: format!("{PREFIX}{}-{number}", std::process::id()),
        };
        run("ip", &["netns", "add", &namespace.name]);
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs an `ip` command in it.
    pub(crate) fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split(' '));
        run("ip", &all);
    }

    /// Runs `work` in a thread in it. Sockets that it opens, and returns, stay in it.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    netns::enter(&self.name).unwrap();
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) fn netlink(&self) -> Netlink {
        self.enter(|| Netlink::open().unwrap())
    }

    pub(crate) fn monitor(&self) -> Monitor {
        self.enter(|| Monitor::open().unwrap())
    }

    pub(crate) fn link(&self, name: &str) -> Link {
        self.netlink().link_by_name(name).unwrap().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Removes the namespaces of runs that were killed before they could.
pub(crate) fn sweep() {
    let Ok(names) = fs::read_dir("/run/netns") else {
        return;
    };
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let run = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if run.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// Two namespaces on one wire: `va` with 10.9.0.1/24 and `vb` with 10.9.0.2/24.
pub(crate) struct Pair {
    pub(crate) a: Namespace,
    pub(crate) b: Namespace,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let pair = Self {
            a: Namespace::new(),
            b: Namespace::new(),
        };
        let other = &pair.b.name;
        pair.a
            .ip(&format!("link add va type veth peer name vb netns {other}"));
        pair.a.ip("address add 10.9.0.1/24 dev va");
        pair.b.ip("address add 10.9.0.2/24 dev vb");
        pair.a.ip("link set va up");
        pair.b.ip("link set vb up");
        wait_until("the wire has carrier", || pair.a.link("va").is_usable());
        pair
    }
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a descriptor is readable, as the control loop does; false when `until` came first.
pub(crate) fn readable(fd: RawFd, until: Instant) -> bool {
    let mut poll = Poll::new().unwrap();
    poll.registry()
        .register(&mut SourceFd(&fd), Token(0), Interest::READABLE)
        .unwrap();
    let mut events = Events::with_capacity(1);
    while clock::now() < until {
        poll.poll(&mut events, Some(until - clock::now())).unwrap();
        if !events.is_empty() {
            return true;
        }
    }
    false
}

/// The first event from now on that `wanted` takes.
pub(crate) fn expect_event<T>(
    monitor: &mut Monitor,
    what: &str,
    mut wanted: impl FnMut(&Event) -> Option<T>,
) -> T {
    let deadline = clock::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        while let Some(event) = monitor.poll_event().unwrap() {
            if let Some(found) = wanted(&event) {
                return found;
            }
            seen.push(event);
        }
        assert!(
            readable(monitor.as_raw_fd(), deadline),
            "no event {what:?} in time, only {seen:#?}"
        );
    }
}

/// Every event that is there.
pub(crate) fn drain(monitor: &mut Monitor) -> Vec<Event> {
    std::iter::from_fn(|| monitor.poll_event().unwrap()).collect()
}

pub(crate) fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

pub(crate) fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

/// This program in another role, killed when the test is over.
pub(crate) struct Player {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Player {
    /// Starts the role with a word of its own.
    pub(crate) fn start(role: &str, word: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        Self::spawn(Command::new(program), role, word)
    }

    /// As [`start`](Self::start), in `namespace` and without any privilege.
    pub(crate) fn start_as_nobody(namespace: &Namespace, role: &str, word: &str) -> Self {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &namespace.name])
            .args([
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
            ])
            .arg(std::env::current_exe().unwrap());
        Self::spawn(command, role, word)
    }

    fn spawn(mut command: Command, role: &str, word: &str) -> Self {
        let mut child = command
            .env(ROLE, role)
            .env(WORD, word)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the player ended without a word");
        line.trim_end().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go on: it waits for the end of its input.
    pub(crate) fn go_on(&mut self) {
        let _: Option<ChildStdin> = self.child.stdin.take();
    }

    /// Kills it as hard as can be. Answers when.
    pub(crate) fn kill(&mut self) -> Instant {
        let now = clock::now();
        self.child.kill().unwrap();
        now
    }

    /// Waits for its end; true for success.
    pub(crate) fn ends_well(&mut self) -> bool {
        self.go_on();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The environment variable with the role's own word.
const WORD: &str = "XVS_SYSCTL_WORD";

/// Plays a role.
pub(crate) fn play(role: &str) -> ExitCode {
    let word = std::env::var(WORD).unwrap_or_default();
    match role {
        "powerless" => crate::netlink::play_powerless(&word),
        other => crate::guardian::play(other, &word),
    }
    ExitCode::SUCCESS
}

/// A file of this test's own, removed when the test is over.
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let file = format!("xvs-sys-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        let _ = fs::remove_file(&path);
        Self(path)
    }

    pub(crate) fn word(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
