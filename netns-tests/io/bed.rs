//! The test bed: two namespaces, a veth pair, an engine that echoes, and a raw sender.

use std::{
    collections::HashMap,
    env,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{self, Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use etherparse::PacketBuilder;
use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender};
use xvs::{
    addr::{Endpoint, L4Proto, PortId},
    dataplane::{
        af_packet::PacketBackend,
        af_xdp::{XdpBackend, XdpWish},
        io::{BURST, FrameBuf, PacketIo},
        ports::{
            Backend, PortControl, PortState, Ports,
            orders::{Inbox, Order},
        },
    },
    stats::{IoDrop, IoDrops},
    sys::{
        device::{self, InterfaceSpec},
        packet_socket,
        steer::{self, Steering, Target},
        waker::Waker,
        xsk,
    },
};

use crate::workers;

/// The client's and the balancer's own addresses, and the VIP, which is on the balancer's interface.
pub(crate) const CLIENT: &str = "10.77.0.1";
pub(crate) const LB: &str = "10.77.0.2";
pub(crate) const VIP: &str = "10.77.0.100";
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Names the two namespaces to the process inside.
const BED_VAR: &str = "XVS_IO_BED";
/// Names the backend to the engine's process.
const ENGINE_VAR: &str = "XVS_IO_ENGINE";
/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the engine's lines begin with; the test harness may have begun the line.
pub(crate) const MARK: &str = "engine: ";

/// Two namespaces joined by a veth pair: `c0` in the client's, `l0` in the balancer's.
pub(crate) struct Bed {
    pub(crate) client: String,
    pub(crate) lb: String,
    /// Whether dropping this removes the namespaces: in the process that made them.
    owner: bool,
}

impl Bed {
    fn new(test: &str) -> Self {
        // Namespace names are files: short enough, and different for tests that run side by side.
        let id = format!("xvs-io-{}-{}", process::id(), &test[..test.len().min(40)]);
        let bed = Self {
            client: format!("{id}-c"),
            lb: format!("{id}-l"),
            owner: true,
        };
        for name in [&bed.client, &bed.lb] {
            run("ip", &["netns", "add", name]);
            ip_in(name, &["link", "set", "lo", "up"]);
        }
        bed.join();
        bed
    }

    /// Joins the namespaces by a new veth pair.
    pub(crate) fn join(&self) {
        self.pair("c0", "l0", 1);
        ip_in(
            &self.client,
            &["addr", "add", &format!("{CLIENT}/24"), "dev", "c0"],
        );
        ip_in(&self.lb, &["addr", "add", &format!("{LB}/24"), "dev", "l0"]);
        ip_in(
            &self.lb,
            &["addr", "add", &format!("{VIP}/32"), "dev", "l0"],
        );
    }

    /// A veth pair of so many queues, both ends up, without addresses.
    pub(crate) fn pair(&self, client_end: &str, lb_end: &str, queues: u32) {
        let (client, lb, queues) = (&self.client, &self.lb, &queues.to_string());
        let count = ["numrxqueues", queues, "numtxqueues", queues];
        let mut link = vec!["link", "add", client_end, "netns", client];
        link.extend(count);
        link.extend(["type", "veth", "peer", "name", lb_end, "netns", lb]);
        link.extend(count);
        run("ip", &link);
        for (name, device, mac) in [(client, client_end, CLIENT_MAC), (lb, lb_end, LB_MAC)] {
            // Otherwise what the kernel sends has unfinished checksums, and is larger than the MTU.
            ethtool_in(name, &["-K", device, "tx", "off"]);
            if queues != "1" {
                ethtool_in(name, &["-L", device, "rx", queues, "tx", queues]);
            }
            let mac = mac.map(|b| format!("{b:02x}")).join(":");
            ip_in(name, &["link", "set", device, "address", &mac]);
            ip_in(name, &["link", "set", device, "up"]);
        }
    }

    fn from_environment() -> Option<Self> {
        let both = env::var(BED_VAR).ok()?;
        let (client, lb) = both.split_once(' ')?;
        Some(Self {
            client: client.to_owned(),
            lb: lb.to_owned(),
            owner: false,
        })
    }

    fn command(&self, namespace: &str, wrapper: &[&str], test: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace])
            .args(wrapper)
            .arg(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(BED_VAR, format!("{} {}", self.client, self.lb));
        command
    }

    /// Runs `cleanup` in the balancer's namespace; what it removed.
    pub(crate) fn cleanup(&self) -> String {
        let output = self
            .command(&self.lb, &[], "engine")
            .env(ENGINE_VAR, "cleanup")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        marked_lines(&String::from_utf8_lossy(&output.stdout)).join("\n")
    }

    /// An object file with an XDP program that is not ours.
    pub(crate) fn foreign_program(&self) -> String {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let source = folder.join(format!("{}.c", self.lb));
        let object = folder.join(format!("{}.o", self.lb));
        fs::write(
            &source,
            "__attribute__((section(\"xdp\"))) int foreign(void *c) { (void)c; return 2; }\n",
        )
        .unwrap();
        let (source, object) = (source.to_str().unwrap(), object.to_str().unwrap());
        run(
            "clang",
            &["-target", "bpf", "-O2", "-g", "-c", source, "-o", object],
        );
        object.to_owned()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.owner {
            for name in [&self.client, &self.lb] {
                // Also after a failure half-way; that it was never made is no matter.
                let _ = Command::new("ip").args(["netns", "del", name]).status();
            }
        }
    }
}

/// Runs `body` in the client's namespace of a new bed: `test`, the calling test, is run again there.
pub(crate) fn in_client(test: &str, body: impl FnOnce(&Bed)) {
    if let Some(bed) = Bed::from_environment() {
        return body(&bed);
    }
    let bed = Bed::new(test);
    let output = bed.command(&bed.client, &[], test).output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    // A test that was not found would pass, too.
    assert!(out.contains("1 passed"), "{out}\n{err}");
}

/// The engine's process, as seen from the client's.
pub(crate) struct Engine {
    process: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
    /// What it said of the interface.
    pub(crate) report: String,
}

impl Engine {
    /// Starts an engine that must come up.
    pub(crate) fn start(bed: &Bed, backend: &str) -> Self {
        let (process, commands, lines) = Self::spawn(bed, backend, &[]);
        let mut engine = Self {
            process,
            commands,
            lines,
            report: String::new(),
        };
        engine.report = engine.answer("ready ");
        engine
    }

    /// Starts an engine that must be refused; its error.
    pub(crate) fn refused(bed: &Bed, backend: &str) -> String {
        Self::refused_under(bed, backend, &[])
    }

    /// The same, with the engine run by `wrapper`: a program and its arguments.
    pub(crate) fn refused_under(bed: &Bed, backend: &str, wrapper: &[&str]) -> String {
        let (mut process, _commands, lines) = Self::spawn(bed, backend, wrapper);
        let line = lines.recv_timeout(PATIENCE).unwrap();
        process.wait().unwrap();
        line.strip_prefix("refused ")
            .unwrap_or_else(|| panic!("not refused: {line}"))
            .to_owned()
    }

    fn spawn(bed: &Bed, backend: &str, wrapper: &[&str]) -> (Child, ChildStdin, Receiver<String>) {
        let mut process = bed
            .command(&bed.lb, wrapper, "engine")
            .env(ENGINE_VAR, backend)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                for line in marked_lines(&line) {
                    let _ = sender.send(line);
                }
            }
        });
        (process, commands, lines)
    }

    /// The rest of the next line of news that has `text` in it; other news may come before.
    pub(crate) fn news(&mut self, text: &str) -> String {
        loop {
            let news = self.answer("news ");
            if news.contains(text) {
                return news;
            }
        }
    }

    /// The rest of the next line that begins with `what`; only frames may come before, and news.
    fn answer(&mut self, what: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|e| panic!("no {what:?} from the engine: {e}"));
            if let Some(rest) = line.strip_prefix(what) {
                return rest.to_owned();
            }
            let other = line.starts_with("frame ") || line.starts_with("news ");
            assert!(other, "not {what:?}: {line}");
        }
    }

    /// The next frame that came up.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        let hex = self.answer("frame ");
        (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect()
    }

    /// Clock ticks (100 a second) of processor time that it has used.
    pub(crate) fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // The name, in brackets, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<_> = fields.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Gives a command and waits for its end.
    pub(crate) fn command(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        self.answer("done");
    }

    /// Every number that the engine knows, by name.
    pub(crate) fn stats(&mut self) -> HashMap<String, u64> {
        writeln!(self.commands, "stats").unwrap();
        self.answer("stats ")
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// [`Self::stats`] once nothing moves any more.
    pub(crate) fn settled(&mut self) -> HashMap<String, u64> {
        let mut before = self.stats();
        for _ in 0..1000 {
            thread::sleep(Duration::from_millis(50));
            let now = self.stats();
            if ["received", "free", "kernel", "steered"]
                .iter()
                .all(|name| before[*name] == now[*name])
            {
                return now;
            }
            before = now;
        }
        panic!("the engine does not come to rest: {before:?}");
    }

    /// Ends it as SIGTERM would: detached, sockets closed.
    pub(crate) fn stop(mut self) {
        self.command("stop");
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Ends it as a crash would: SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // After a failed assertion; a stopped one is long gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn marked_lines(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.split_once(MARK))
        .map(|(_, rest)| rest.to_owned())
        .collect()
}

/// The other side: opens `l0`, echoes with swapped MAC addresses, and obeys its standard input.
pub(crate) fn engine_process() {
    let Ok(backend) = env::var(ENGINE_VAR) else {
        return;
    };
    let (backend, names) = backend.split_once(' ').unwrap_or((&backend, "l0"));
    let specs = specs(names);
    if backend == "cleanup" {
        for line in steer::cleanup(&specs[0]).unwrap() {
            println!("\n{MARK}{line}");
        }
        return;
    }
    let wish = match backend {
        "native" => XdpWish::Native,
        "generic" => XdpWish::Generic,
        "zero-copy" => XdpWish::ZeroCopy,
        _ => XdpWish::Auto,
    };
    let matches = vec![steer::Steered::Service(service(80))];
    if backend == "forward-af-packet" {
        return workers::serve_af_packet(names);
    }
    if let Some(count) = backend.strip_prefix("workers-") {
        return workers::serve(names, count.parse().unwrap());
    }
    let waker = Waker::new().unwrap();
    let wakers = std::slice::from_ref(&waker);
    if backend == "af-packet" {
        let largest = specs
            .iter()
            .filter_map(|spec| device::properties(spec).ok());
        let largest = largest.map(|properties| properties.mtu).max().unwrap_or(0);
        let (backend, io) = PacketBackend::new(largest, waker.clone());
        let drops = Arc::clone(io.drops());
        match open(backend, &specs, &matches, wakers) {
            Ok(opened) => serve(opened, io, &waker, (&drops, packet_numbers)),
            Err(e) => println!("\n{MARK}refused {e}"),
        }
    } else {
        let queues = specs
            .iter()
            .filter_map(|spec| device::queues(spec).ok())
            .sum();
        let made = XdpBackend::new(wish, backend == "busy-poll", queues, wakers);
        let (backend, mut ios) = made.unwrap();
        let io = ios.remove(0);
        let drops = Arc::clone(io.drops());
        match open(backend, &specs, &matches, wakers) {
            Ok(opened) => serve(opened, io, &waker, (&drops, xdp_numbers)),
            Err(e) => println!("\n{MARK}refused {e}"),
        }
    }
}

/// The interfaces of these names; one that is not there has an index that none has.
pub(crate) fn specs(names: &str) -> Vec<InterfaceSpec> {
    let known = pnet_datalink::interfaces();
    names
        .split(' ')
        .map(|name| InterfaceSpec {
            name: name.to_owned(),
            ifindex: known
                .iter()
                .find(|i| i.name == name)
                .map_or(4711, |i| i.index),
        })
        .collect()
}

type Opened<B> = (Ports<B>, Inbox<<B as Backend>::Part>);

/// Opens the interfaces for one worker; one that is not there is an error here.
fn open<B: Backend>(
    backend: B,
    specs: &[InterfaceSpec],
    matches: &[steer::Steered],
    wakers: &[Waker],
) -> Result<Opened<B>, String> {
    let steering = Steering::load(B::HOOK, matches).map_err(|error| error.to_string())?;
    let (mut ports, mut inboxes) = Ports::new(backend, steering, wakers, None, Arc::new(|| ()));
    ports.open_now(specs).map_err(|error| error.to_string())?;
    match ports.ports().into_iter().find_map(|port| match port.state {
        PortState::Waiting(reason) => Some(reason),
        _ => None,
    }) {
        Some(reason) => Err(reason),
        None => Ok((ports, inboxes.remove(0))),
    }
}

pub(crate) fn service(port: u16) -> Target {
    Target {
        endpoint: Endpoint::new(VIP.parse().unwrap(), port),
        proto: L4Proto::Tcp,
    }
}

/// The numbers that only one backend has.
type Numbers = fn(&Steering, &mut Totals) -> String;

fn xdp_numbers(steering: &Steering, _: &mut Totals) -> String {
    let s = xsk::statistics(&steering.port(PortId(0)).unwrap().sockets()[0]).unwrap();
    format!(
        "rx_dropped={} ring_full={} fill_empty={} invalid={} socket_full=0",
        s.rx_dropped, s.rx_ring_full, s.rx_fill_ring_empty, s.invalid_descriptors
    )
}

fn packet_numbers(steering: &Steering, totals: &mut Totals) -> String {
    let socket = &steering.port(PortId(0)).unwrap().sockets()[0];
    totals.socket_full += packet_socket::dropped(socket).unwrap();
    format!(
        "rx_dropped=0 ring_full=0 fill_empty=0 invalid=0 socket_full={}",
        totals.socket_full
    )
}

#[derive(Default)]
struct Totals {
    received: u64,
    transmitted: u64,
    returned: u64,
    bad_accounts: u64,
    turns: u64,
    socket_full: u64,
}

fn serve<B: Backend, Io: PacketIo<Part = B::Part>>(
    (mut ports, mut inbox): Opened<B>,
    mut io: Io,
    waker: &Waker,
    (drops, numbers): (&IoDrops, Numbers),
) {
    /// Frames whose bytes are told; more would drown the pipe.
    const TOLD: u64 = 16;
    while let Some(order) = inbox.next() {
        match order {
            Order::Open(part) => drop(io.open(part)),
            Order::Close(_) | Order::Recover(_) => panic!("nothing closes"),
        }
    }
    let _listener = TcpListener::bind(("0.0.0.0", 9000)).unwrap();
    let (sender, commands) = mpsc::channel();
    let waker = waker.clone();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = sender.send(line);
            waker.wake();
        }
        // The test is gone.
        let _ = sender.send("stop".to_owned());
        waker.wake();
    });
    let report: Vec<_> = ports.ports().iter().map(ToString::to_string).collect();
    println!("\n{MARK}ready {}", report.join(" | "));
    let mut totals = Totals::default();
    let mut burst = Vec::with_capacity(BURST);
    let mut clogged = false;
    loop {
        totals.turns += 1;
        io.reclaim();
        io.receive(&mut burst);
        let idle = burst.is_empty();
        totals.received += burst.len() as u64;
        for mut frame in burst.drain(..) {
            if totals.received <= TOLD {
                let hex: String = frame.bytes().iter().map(|b| format!("{b:02x}")).collect();
                println!("{MARK}frame {hex}");
            }
            let (to, from) = frame.bytes_mut().split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
            // In at one port, out at the next.
            let egress = (usize::from(frame.ingress().0) + 1) % report.len();
            match io.transmit(PortId(u8::try_from(egress).unwrap()), frame) {
                Ok(()) => totals.transmitted += 1,
                Err(frame) => {
                    totals.returned += 1;
                    io.release(frame);
                }
            }
        }
        if !clogged {
            let refused = io.flush();
            totals.transmitted -= refused;
            totals.returned += refused;
        }
        totals.bad_accounts += u64::from(!io.account().is_conserved());
        if idle && !clogged {
            // Long, so that a wake-up that gets lost fails the test by its patience.
            io.wait(Duration::from_secs(3600)).unwrap();
        }
        for command in commands.try_iter() {
            match command.split_once(' ').unwrap_or((&command, "")) {
                ("stats", _) => {
                    let mut own = numbers(ports.steering(), &mut totals);
                    for what in IoDrop::ALL {
                        let _ = write!(own, " {}={}", what.name(), drops.of(*what).get());
                    }
                    print_stats(&mut io, ports.steering(), &totals, &own);
                    continue;
                }
                ("add", port) => ports
                    .steering()
                    .change(
                        &[steer::Steered::Service(service(port.parse().unwrap()))],
                        &[],
                    )
                    .complete()
                    .unwrap(),
                ("remove", port) => ports
                    .steering()
                    .change(
                        &[],
                        &[steer::Steered::Service(service(port.parse().unwrap()))],
                    )
                    .complete()
                    .unwrap(),
                ("clog", _) => clogged = true,
                ("unclog", _) => clogged = false,
                ("sleep", _) => io.wait(Duration::from_millis(300)).unwrap(),
                ("send", _) => {
                    io.flush();
                }
                ("stop", _) => {
                    ports.detach().unwrap();
                    println!("{MARK}done");
                    return;
                }
                (other, _) => panic!("no such command: {other}"),
            }
            println!("{MARK}done");
        }
    }
}

fn print_stats<Io: PacketIo>(io: &mut Io, steering: &Steering, totals: &Totals, own: &str) {
    let account = io.account();
    let steer = steering.port(PortId(0)).unwrap().counters().unwrap();
    println!(
        "{MARK}stats received={} transmitted={} returned={} bad_accounts={} turns={} total={} free={} \
         kernel={} rings={} hand={} steered={} passed={} dropped={} {own}",
        totals.received,
        totals.transmitted,
        totals.returned,
        totals.bad_accounts,
        totals.turns,
        account.total,
        account.free,
        account.in_kernel,
        account.in_rings,
        account.in_hand,
        steer.steered,
        steer.passed,
        steer.dropped,
    );
}

/// A raw socket on one of the client's interfaces.
pub(crate) struct Raw {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

impl Raw {
    pub(crate) fn open(device: &str) -> Self {
        let interface = pnet_datalink::interfaces()
            .into_iter()
            .find(|i| i.name == device)
            .unwrap();
        let config = Config {
            read_timeout: Some(PATIENCE),
            ..Config::default()
        };
        let Channel::Ethernet(sender, receiver) =
            pnet_datalink::channel(&interface, config).unwrap()
        else {
            panic!("not Ethernet");
        };
        Self { sender, receiver }
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        loop {
            match self.sender.send_to(frame, None).unwrap() {
                Ok(()) => return,
                // The peer's queue is full.
                Err(e) if e.raw_os_error() == Some(105) => thread::yield_now(),
                Err(e) => panic!("send: {e}"),
            }
        }
    }

    /// The next frame that comes in.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        self.receiver.next().expect("a frame did not come").to_vec()
    }

    /// Waits until `frame` comes in; others do not matter.
    pub(crate) fn expect(&mut self, frame: &[u8]) {
        loop {
            if self.receiver.next().expect("the frame did not come back") == frame {
                return;
            }
        }
    }
}

/// A TCP SYN from the client with so many bytes behind it.
pub(crate) fn tcp_syn(target: &str, port: u16, payload: usize) -> Vec<u8> {
    let address = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => panic!("IPv4 only"),
    };
    let payload: Vec<u8> = (0..payload)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, LB_MAC)
        .ipv4(address(CLIENT), address(target), 64)
        .tcp(40_000, port, 1, 1000)
        .syn()
        .write(&mut frame, &payload)
        .unwrap();
    frame
}

/// `frame` with a VLAN tag after its addresses.
pub(crate) fn vlan(frame: &[u8], tpid: u16, id: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(tpid.to_be_bytes());
    tagged.extend(id.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

/// `frame` as the echoing engine sends it back.
pub(crate) fn swapped(frame: &[u8]) -> Vec<u8> {
    let mut back = frame[6..12].to_vec();
    back.extend(&frame[..6]);
    back.extend(&frame[12..]);
    back
}

/// What the host makes of a connection attempt: a refusal is a RST.
pub(crate) fn connect(target: &str, port: u16) -> Result<(), ErrorKind> {
    let address: SocketAddr = format!("{target}:{port}").parse().unwrap();
    // Shorter than the first retransmission: one SYN.
    TcpStream::connect_timeout(&address, Duration::from_millis(600))
        .map(drop)
        .map_err(|e| e.kind())
}

/// Waits until `what` is true, and fails when it does not come.
pub(crate) fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if is_true() {
            return;
        }
        thread::sleep(PAUSE);
    }
    panic!("in vain: {what}");
}

/// Frames that an interface of this namespace has received.
pub(crate) fn received_on(device: &str) -> u64 {
    let path = format!("/sys/class/net/{device}/statistics/rx_packets");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

pub(crate) fn ip_in(namespace: &str, args: &[&str]) -> String {
    let mut all = vec!["-n", namespace];
    all.extend(args);
    run("ip", &all)
}

pub(crate) fn ethtool_in(namespace: &str, args: &[&str]) -> String {
    let mut all = vec!["netns", "exec", namespace, "ethtool"];
    all.extend(args);
    run("ip", &all)
}

/// Runs a program that must succeed; its output.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
