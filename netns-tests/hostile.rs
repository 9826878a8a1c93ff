//! Packets that nobody sends in good faith: a flood of SYNs, fragments that fit together to nothing.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use etherparse::PacketBuilder;
use hdrhistogram::Histogram;
use socket2::{Domain, Protocol, Socket, Type};
use xvs::sys::clock;

use crate::{
    Subject, Test,
    support::{
        client::{ask, connect, get},
        config::{service, vrrp},
        lan::{CLIENT, Lan, VIP},
        millis, secs,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 2] = [
        (
            "hostile::a_syn_flood_costs_no_established_connection_and_no_memory",
            syn_flood,
        ),
        (
            "hostile::fragments_that_fit_together_to_nothing_do_no_harm",
            fragments,
        ),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .map(Test::alone)
        .collect()
}

/// Fewer than the flood makes in a second.
const CONNECTIONS: &str = "8192";
/// Connections that are established before the flood.
const ESTABLISHED: usize = 16;
/// The measurement changes this often between a flood at the balancer and one beside it, so that whatever else the
/// machine does is the same for both.
const PARTS: u32 = 10;
/// How long each part takes.
const PART: Duration = millis(200);
/// What the flood may cost, at quantiles: a multiple of what an answer takes beside it, and some microseconds. A
/// segment that is lost is sent again after 200 ms.
const LATENESS: [(f64, u64, u64); 2] = [(0.5, 2, 500), (0.99, 3, 20_000)];
/// SYNs that the flood sends in a millisecond: as many as a debug build on half a processor can carry. What comes
/// above that is lost before anybody has looked at it, SYN or not.
const FLOOD_PER_MS: u32 = 8;

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

fn arguments(engine: Engine) -> Vec<&'static str> {
    let mut arguments = engine.arguments().to_vec();
    arguments.extend(["--connections", CONNECTIONS]);
    arguments
}

/// A socket that sends whole IPv4 packets from the machine of the calling thread.
fn raw() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))
        .unwrap_or_else(|e| panic!("a raw socket: {e}"));
    socket
        .set_header_included_v4(true)
        .expect("a raw socket takes headers");
    socket
}

/// Asks on all connections in turn for [`PART`]; every question must be answered. Takes the time in microseconds.
fn ask_all(streams: &mut [TcpStream], times: &mut Histogram<u64>) {
    let end = clock::now() + PART;
    while clock::now() < end {
        for stream in &mut *streams {
            let begin = clock::now();
            ask(stream).unwrap_or_else(|e| panic!("an established connection: {e}"));
            let micros = u64::try_from((clock::now() - begin).as_micros()).unwrap_or(u64::MAX);
            times.record(micros).expect("the histogram grows");
        }
    }
}

fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("xvs runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_else(|| panic!("no VmRSS in {status}"))
}

/// The port that is flooded, and one of the same host that the balancer has nothing to do with.
const SERVICE: u16 = 80;
const NO_SERVICE: u16 = 81;

/// SYNs to a port of the VIP, [`FLOOD_PER_MS`].
struct Flood {
    stop: Arc<AtomicBool>,
    port: Arc<AtomicU16>,
    thread: JoinHandle<u32>,
}

impl Flood {
    /// The client begins.
    fn start(lan: &Lan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let port = Arc::new(AtomicU16::new(SERVICE));
        let (network, end, aim) = (lan.client.network(), Arc::clone(&stop), Arc::clone(&port));
        let thread = thread::spawn(move || {
            network.move_this_thread();
            let (socket, target) = (raw(), SocketAddr::from((VIP, 0)).into());
            let mut sent = 0_u32;
            while !end.load(Ordering::Relaxed) {
                for _ in 0..FLOOD_PER_MS {
                    let packet = syn(sent, aim.load(Ordering::Relaxed));
                    sent += u32::from(socket.send_to(&packet, &target).is_ok());
                }
                thread::sleep(millis(1));
            }
            sent
        });
        Self { stop, port, thread }
    }

    /// From now on it goes to this port.
    fn aim_at(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// It is over. How many SYNs there were.
    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flood")
    }
}

/// The `number`-th SYN to `port`, from 172.16.0.0/12, to which the real servers have no route.
fn syn(number: u32, port: u16) -> Vec<u8> {
    let [_, a, b, c] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
    let from = [172, 16 | a & 15, b, c];
    let mut packet = Vec::with_capacity(40);
    let own = 1024 + u16::from(a) * 64;
    PacketBuilder::ipv4(from, VIP.octets(), 64)
        .tcp(own, port, number, 1000)
        .syn()
        .write(&mut packet, &[])
        .expect("a SYN is short");
    packet
}

fn syn_flood(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start_with(&lan, &lan.lb1, &config, &arguments(engine));
    lb.wait_for_master();
    let mut streams: Vec<TcpStream> = lan.client.inside(|| {
        let open = |_| {
            let mut stream = connect(CLIENT, http(), secs(2)).expect("the VIP accepts");
            // A connection of a few packets could be part of a flood itself.
            for _ in 0..8 {
                ask(&mut stream).expect("the VIP answers");
            }
            stream
        };
        (0..ESTABLISHED).map(open).collect()
    });
    let flood = Flood::start(&lan);
    // The table is full before the measurement.
    let full = || {
        lb.list()["table"]["evicted"]
            .as_u64()
            .is_some_and(|n| n > 0)
    };
    crate::support::wait_until("the table is full", secs(20), full);
    let memory = resident(lb.process_id());
    let [mut here, mut beside] = [(); 2].map(|()| Histogram::new(3).expect("three digits"));
    for _ in 0..PARTS {
        flood.aim_at(NO_SERVICE);
        ask_all(&mut streams, &mut beside);
        flood.aim_at(SERVICE);
        ask_all(&mut streams, &mut here);
    }
    let grown = resident(lb.process_id()).saturating_sub(memory);
    let sent = flood.stop();
    eprintln!("{}: {sent} SYNs; memory grew by {grown} KiB", engine.name());
    for (quantile, factor, more) in LATENESS {
        let [beside, here] = [&beside, &here].map(|times| times.value_at_quantile(quantile));
        eprintln!("  quantile {quantile}: {here} µs, beside the flood {beside} µs");
        assert!(
            here <= factor * beside + more,
            "answers are late: {here} µs at quantile {quantile}, {beside} µs beside the flood"
        );
    }
    assert!(grown < 1024, "memory grew by {grown} KiB");
    // A newcomer gets in, too: half-open entries give way.
    let answer = lan.client.inside(|| get(CLIENT, http(), secs(3)));
    assert!(answer.is_ok(), "{answer:?}");
    drop(streams);
    lb.stop();
}

/// An IPv4 fragment of a UDP packet to the VIP.
fn fragment(id: u16, offset: u16, more: bool, length: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(CLIENT.octets(), VIP.octets(), 64)
        .udp(4000, 53)
        .write(&mut packet, &vec![0x5a; length])
        .expect("a packet of known size");
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let flags = (u16::from(more) << 13) | (offset / 8);
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet
}

/// The ping of death and its kin: what they are made of goes by one by one, to no harm of the box or of who
/// behaves.
fn fragments(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let dns = service(53, "lb_algo rr\n    protocol UDP", &[1, 1, 1]);
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]) + &dns;
    let lb = Xvs::start_with(&lan, &lan.lb1, &config, &arguments(engine));
    lb.wait_for_master();
    let bad = [
        // Ends behind 65,535 bytes.
        fragment(1, 0, true, 1400),
        fragment(1, 65_528, false, 1400),
        // Overlaps its predecessor, then swallows it.
        fragment(2, 0, true, 800),
        fragment(2, 400, true, 800),
        fragment(2, 8, false, 1200),
        // A first fragment too short for its own ports' owner, and none of its own.
        fragment(3, 0, true, 0),
        fragment(3, 8, true, 0),
        // Later fragments of nothing.
        fragment(4, 16, true, 64),
        fragment(5, 65_528, true, 8),
    ];
    lan.client.inside(|| {
        let (socket, target) = (raw(), SocketAddr::from((VIP, 0)).into());
        for packet in bad.iter().cycle().take(50 * bad.len()) {
            socket.send_to(packet, &target).expect("a raw packet");
        }
        for _ in 0..20 {
            let answer = get(CLIENT, http(), secs(2));
            assert!(answer.is_ok(), "{answer:?}");
        }
    });
    // Those that wait for a first fragment have given up.
    let unknown = || lb.count("drops", "fragment-unknown") > 0;
    crate::support::wait_until("later fragments of nothing are dropped", secs(3), unknown);
    assert!(
        lan.client
            .inside(|| get(CLIENT, http(), millis(2000)))
            .is_ok()
    );
    lb.stop();
}
