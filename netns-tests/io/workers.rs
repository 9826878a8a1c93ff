//! Several workers on interfaces with several queues.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use etherparse::PacketBuilder;
use xvs::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        Hop, HopId, LbKind, Limits, Match, NextHop, Persistence, RealId, RealSpec, Scheduler,
        ServiceId, ServiceKey, ServiceSpec, ServiceTable, TableBuilder,
    },
    dataplane::{
        af_packet::PacketBackend,
        af_xdp::{XdpBackend, XdpWish},
        handover::handovers,
        io::{FrameAccount, PacketIo},
        ports::{Backend, PortControl, PortState, Ports},
        publish::Publisher,
        worker::{Worker, WorkerOptions},
    },
    stats::{AllStats, DropReason, WorkerStats},
    sys::{
        clock, device,
        steer::{self, Steering},
        waker::Waker,
    },
};

use crate::bed::{CLIENT_MAC, Engine, LB_MAC, MARK, Raw, VIP, in_client, service, specs};

/// The port whose clients are persistent.
const PERSISTENT: u16 = 81;
/// What a real server's station begins with; its number follows.
const REAL_MAC: [u8; 5] = [2, 0, 0, 0, 7];
/// Networks of clients, and clients of each.
const NETWORKS: u8 = 12;
const CLIENTS: u8 = 20;

/// Forwards what comes in on any of the interfaces of these names to the last of them, with so many workers over
/// AF_XDP, as it is told on standard input.
pub(crate) fn serve(names: &str, workers: usize) {
    let wakers: Vec<_> = (0..workers).map(|_| Waker::new().unwrap()).collect();
    let queues = specs(names)
        .iter()
        .filter_map(|spec| device::queues(spec).ok())
        .sum();
    let (backend, ios) = XdpBackend::new(XdpWish::Auto, false, queues, &wakers).unwrap();
    let note = backend.note();
    control(backend, ios, &wakers, names, &note);
}

/// The same over AF_PACKET.
pub(crate) fn serve_af_packet(names: &str) {
    let waker = Waker::new().unwrap();
    let (backend, io) = PacketBackend::new(1500, waker.clone());
    control(backend, vec![io], &[waker], names, "");
}

/// A line of standard input, or a call of a worker or an interface's thread.
enum Event {
    Command(String),
    Called,
}

fn control<B, Io>(backend: B, ios: Vec<Io>, wakers: &[Waker], names: &str, note: &str)
where
    B: Backend,
    Io: PacketIo<Part = B::Part> + Send + 'static,
{
    let matches = [80, PERSISTENT].map(service).map(steer::Steered::Service);
    let steering = Steering::load(B::HOOK, &matches).unwrap();
    let (sender, events) = mpsc::channel();
    let called = sender.clone();
    let call = move || drop(called.send(Event::Called));
    let (mut ports, inboxes) = Ports::new(backend, steering, wakers, None, Arc::new(call.clone()));
    ports.open_now(&specs(names)).unwrap();
    let mut egress = egress(&ports, names);
    let mut publisher = Publisher::with_call(table(1, egress), call);
    let mut ends = handovers(wakers, 3).into_iter();
    let (stop, mut stats, mut threads) = (Arc::new(AtomicBool::new(false)), Vec::new(), Vec::new());
    for (io, inbox) in ios.into_iter().zip(inboxes) {
        let counters = Arc::new(WorkerStats::new());
        let options = WorkerOptions {
            connections: 10_000,
            hash_seed: 1,
            spin: Duration::ZERO,
        };
        let mut worker =
            Worker::new(io, publisher.reader(), Arc::clone(&counters), options).with_inbox(inbox);
        if let Some(end) = ends.next() {
            worker = worker.with_handover(end);
        }
        stats.push(counters);
        let stop = Arc::clone(&stop);
        threads.push(thread::spawn(move || {
            worker.run(clock::now, &stop).unwrap();
            worker
        }));
    }
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = sender.send(Event::Command(line));
        }
        // The test is gone.
        let _ = sender.send(Event::Command("stop".to_owned()));
    });
    assert!(ports.wait_until_taken(Duration::from_secs(10)));
    let report: Vec<_> = ports.ports().iter().map(ToString::to_string).collect();
    println!("\n{MARK}ready {}; {note}", report.join(" | "));
    let mut slowest = Duration::ZERO;
    loop {
        let due = ports.poll_timeout().unwrap() - clock::now();
        let event = events.recv_timeout(due);
        let now = clock::now();
        publisher.collect();
        for line in ports.handle_timeout(now, publisher.generation(), publisher.oldest_in_use()) {
            println!("{MARK}news {}", line.text);
        }
        slowest = slowest.max(clock::now() - now);
        if self::egress(&ports, names) != egress {
            egress = self::egress(&ports, names);
            publisher.publish(table(publisher.generation() + 1, egress));
            wakers.iter().for_each(Waker::wake);
        }
        let Ok(Event::Command(command)) = event else {
            continue;
        };
        match &*command {
            "stats" => {
                let mut all = numbers(&stats, &ports);
                all.push(("leaving", ports.leaving() as u64));
                all.push(("slowest-us", slowest.as_micros().try_into().unwrap()));
                let pairs: Vec<_> = all.iter().map(|(name, n)| format!("{name}={n}")).collect();
                println!("{MARK}stats {}", pairs.join(" "));
            }
            "stop" => break,
            // Which interfaces there are now.
            "look" => {
                let there = specs(names);
                let there: Vec<_> = there.into_iter().filter(|s| s.ifindex != 4711).collect();
                ports.set_interfaces(now, &there, publisher.generation());
                println!("{MARK}done");
            }
            other => match other.strip_prefix("want ") {
                Some(names) => {
                    ports.set_interfaces(now, &specs(names), publisher.generation());
                    println!("{MARK}done");
                }
                None => panic!("no such command: {other}"),
            },
        }
    }
    ports.detach().unwrap();
    stop.store(true, Ordering::Relaxed);
    wakers.iter().for_each(Waker::wake);
    let mut workers: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let now = clock::now();
    while workers.iter_mut().any(|worker| worker.settle(now) > 0) {}
    let account: FrameAccount = workers.iter_mut().map(Worker::account).sum();
    assert!(account.is_settled(), "{account:?}");
    // In the kernel is what the rings show, but for a buffer that each queue may have taken for a packet.
    let hidden = account.in_kernel - account.in_rings;
    assert!(hidden <= 8, "{account:?}");
    println!("{MARK}done");
}

/// The port of the last interface of these names, if it is open.
fn egress(ports: &impl PortControl, names: &str) -> Option<PortId> {
    let name = names.rsplit(' ').next()?;
    let ports = ports.ports();
    match ports.iter().find(|port| port.spec.name == name)?.state {
        PortState::Open(port, _) => Some(port),
        _ => None,
    }
}

fn numbers(stats: &[Arc<WorkerStats>], ports: &impl PortControl) -> Vec<(&'static str, u64)> {
    let all = AllStats::new(stats, None);
    let mut numbers = vec![
        ("in", all.sum(|s| s.frames_in.get())),
        ("out", all.sum(|s| s.frames_out.get())),
        ("dropped", all.sum(WorkerStats::dropped)),
        (
            "handover-full",
            all.sum(|s| s.drops(DropReason::HandoverFull).get()),
        ),
        (
            "port-gone",
            all.sum(|s| s.drops(DropReason::PortGone).get()),
        ),
        ("handed", all.sum(|s| s.handed_over.get())),
        ("taken", all.sum(|s| s.taken_over.get())),
        ("connections", all.sum(|s| s.connections.get())),
        ("templates", all.sum(|s| s.templates.get())),
        ("steered", ports.steering_counts().steered),
        // What `settled` looks at beside.
        ("received", all.sum(|s| s.frames_in.get())),
        ("free", 0),
        ("kernel", 0),
    ];
    let each = stats.iter().zip(["in0", "in1", "in2", "in3"]);
    numbers.extend(each.map(|(s, name)| (name, s.frames_in.get())));
    numbers
}

fn real_mac(id: u8) -> [u8; 6] {
    let [a, b, c, d, e] = REAL_MAC;
    [a, b, c, d, e, id]
}

/// Real servers behind `egress`, or behind nothing while it is gone.
fn table(generation: u64, egress: Option<PortId>) -> ServiceTable {
    let real = |id: u32| RealSpec {
        id: RealId(id),
        epoch: NonZeroU32::MIN,
        endpoint: Endpoint::new([10, 77, 1, 1].into(), 80),
        method: LbKind::Dr,
        weight: 1,
        last_weight: 1,
        limits: Limits::default(),
        available: true,
        failed: false,
        hop: HopId(id),
    };
    let spec = |slot: u32, port, persistence, reals: [u32; 2]| ServiceSpec {
        id: ServiceId(slot),
        epoch: NonZeroU32::MIN,
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(VIP.parse().unwrap(), port),
        })],
        one_packet: false,
        scheduler: Scheduler::Rr,
        persistence,
        reals: reals.map(real).to_vec(),
        draining: Vec::new(),
    };
    let persistence = Persistence {
        timeout: Duration::from_secs(300),
        prefix: 24,
    };
    let specs = [
        spec(0, 80, None, [1, 2]),
        spec(1, PERSISTENT, Some(persistence), [3, 4]),
    ];
    let mut tables = TableBuilder::new();
    tables.apply(&[], &specs).unwrap();
    for id in 1..=4_u8 {
        let next = egress.map(|port| NextHop {
            port,
            source: MacAddr(LB_MAC),
            destination: MacAddr(real_mac(id)),
            mtu: 1500,
        });
        tables.set_hop(HopId(id.into()), Hop { next, local: None });
    }
    tables.build(generation)
}

/// A segment of the client with this address.
pub(crate) fn segment(client: [u8; 4], from: u16, port: u16, syn: bool) -> Vec<u8> {
    let vip: std::net::Ipv4Addr = VIP.parse().unwrap();
    let tcp = PacketBuilder::ethernet2(CLIENT_MAC, LB_MAC)
        .ipv4(client, vip.octets(), 64)
        .tcp(from, port, 1, 1000);
    let tcp = if syn { tcp.syn() } else { tcp.ack(9) };
    let mut frame = Vec::new();
    tcp.write(&mut frame, b"hello").unwrap();
    frame
}

/// What a frame becomes on its way to a real server, whichever.
pub(crate) fn forwarded(frame: &[u8]) -> Vec<u8> {
    let mut out = frame.to_vec();
    out[6..12].copy_from_slice(&LB_MAC);
    out[22] -= 1;
    // One less in the upper half of a word is one more in that half of the sum.
    let sum = u32::from(u16::from_be_bytes([out[24], out[25]])) + 0x100;
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    out[24..26].copy_from_slice(&sum.to_be_bytes());
    out
}

/// Sends flows of many clients in at c1; each comes out at c2, whole, at the real server of its flow or
/// network.
fn send_all(engine: &mut Engine) -> HashMap<String, u64> {
    let (mut raw_in, mut raw_out) = (Raw::open("c1"), Raw::open("c2"));
    let mut homes: HashMap<(u16, u8, u16), u8> = HashMap::new();
    let mut sent = 0;
    for round in 0..4 {
        for network in 0..NETWORKS {
            let mut expected: HashMap<Vec<u8>, (u16, u8, u16)> = HashMap::new();
            for client in 0..CLIENTS {
                for port in [80, PERSISTENT] {
                    let from = 1000 + u16::from(client) * 7;
                    // A persistent client's home is its network's.
                    let flow = if port == 80 { from } else { 0 };
                    let address = [10, 78, network, client];
                    let frame = segment(address, from, port, round == 0);
                    raw_in.send(&frame);
                    sent += 1;
                    let out = forwarded(&frame)[6..].to_vec();
                    expected.insert(out, (port, network, flow));
                }
            }
            // IPv6 of the host's own may be among them.
            while !expected.is_empty() {
                let frame = raw_out.next();
                let Some(flow) = expected.remove(&frame[6..]) else {
                    assert!(!frame.starts_with(&REAL_MAC), "{frame:02x?}");
                    continue;
                };
                assert_eq!(frame[..5], REAL_MAC);
                let home = *homes.entry(flow).or_insert(frame[5]);
                assert_eq!(home, frame[5], "{flow:?} in round {round}");
            }
        }
    }
    // Round robin: with and without persistence both real servers got some.
    let homes: HashSet<_> = homes
        .iter()
        .map(|((port, ..), home)| (*port, *home))
        .collect();
    assert_eq!(homes.len(), 4, "{homes:?}");
    let stats = engine.settled();
    assert_eq!(stats["in"], sent, "{stats:?}");
    assert_eq!(stats["out"], sent, "{stats:?}");
    assert_eq!((stats["dropped"], stats["steered"]), (0, sent), "{stats:?}");
    assert_eq!(stats["handed"], stats["taken"], "{stats:?}");
    let flows = 2 * u64::from(NETWORKS) * u64::from(CLIENTS);
    assert_eq!(stats["connections"], flows, "{stats:?}");
    assert_eq!(stats["templates"], u64::from(NETWORKS), "{stats:?}");
    stats
}

#[test]
fn flows_on_two_queues_reach_two_workers_and_all_go_out() {
    in_client(
        "workers::flows_on_two_queues_reach_two_workers_and_all_go_out",
        |bed| {
            bed.pair("c1", "l1", 2);
            bed.pair("c2", "l2", 2);
            let mut engine = Engine::start(bed, "workers-2 l1 l2");
            assert!(engine.report.contains("l1: AF_XDP native copy on 2 queues"));
            let stats = send_all(&mut engine);
            assert!(stats["in0"] > 0 && stats["in1"] > 0, "{stats:?}");
            // Half of the persistent clients' packets came in where they do not belong.
            assert!(stats["handed"] > stats["in"] / 8, "{stats:?}");
            engine.stop();
        },
    );
}

#[test]
fn a_worker_sends_through_another_where_an_interface_has_fewer_queues() {
    in_client(
        "workers::a_worker_sends_through_another_where_an_interface_has_fewer_queues",
        |bed| {
            bed.pair("c1", "l1", 3);
            bed.pair("c2", "l2", 1);
            let mut engine = Engine::start(bed, "workers-3 l1 l2");
            let stats = send_all(&mut engine);
            for each in ["in0", "in1", "in2"] {
                assert!(stats[each] > 0, "{stats:?}");
            }
            // All that the second and third decided on went through the first.
            assert!(stats["handed"] > stats["in"] / 2, "{stats:?}");
            engine.stop();
        },
    );
}

#[test]
fn workers_share_queues_when_there_are_more_of_them() {
    in_client(
        "workers::workers_share_queues_when_there_are_more_of_them",
        |bed| {
            bed.pair("c1", "l1", 4);
            bed.pair("c2", "l2", 4);
            for workers in ["workers-1", "workers-3"] {
                let mut engine = Engine::start(bed, &format!("{workers} l1 l2"));
                let stats = send_all(&mut engine);
                assert_eq!(stats["handed"] == 0, workers == "workers-1", "{stats:?}");
                engine.stop();
            }
        },
    );
}

#[test]
fn frames_that_one_worker_receives_and_another_sends_do_not_run_out() {
    in_client(
        "workers::frames_that_one_worker_receives_and_another_sends_do_not_run_out",
        |bed| {
            bed.pair("c1", "l1", 2);
            bed.pair("c2", "l2", 1);
            let mut engine = Engine::start(bed, "workers-2 l1 l2");
            let mut raw = Raw::open("c1");
            // One flow after the other, so that every queue gets its share; many times as many as a worker
            // has frames.
            let mut sent = 0_u64;
            for n in 0..60_000_u32 {
                let [_, a, b, c] = (n % 2000).to_be_bytes();
                raw.send(&segment([10, 79 + a, b, c], 7, 80, true));
                sent += 1;
                if n % 256 == 0 {
                    engine.stats();
                }
            }
            let stats = engine.settled();
            let gone = stats["out"] + stats["dropped"];
            assert_eq!(stats["in"], gone, "{stats:?}");
            // The rest found no room between the kernel and the worker, on this host with few processors.
            assert!(stats["in"] > sent / 2, "{stats:?}");
            assert!(stats["in1"] > 16_384, "{stats:?}");
            assert!(stats["out"] > stats["in"] / 2, "{stats:?}");
            // They still receive, and send.
            let before = stats["in"];
            for n in 0..64 {
                raw.send(&segment([10, 99, 0, n], 7, 80, true));
            }
            let stats = engine.settled();
            assert_eq!(stats["in"], before + 64, "{stats:?}");
            engine.stop();
        },
    );
}

#[test]
fn idle_workers_sleep() {
    in_client("workers::idle_workers_sleep", |bed| {
        const WATCHED: Duration = Duration::from_secs(2);
        bed.pair("c1", "l1", 2);
        bed.pair("c2", "l2", 2);
        let mut engine = Engine::start(bed, "workers-2 l1 l2");
        engine.settled();
        let before = engine.processor_ticks();
        thread::sleep(WATCHED);
        let used = engine.processor_ticks() - before;
        println!(
            "two idle workers used {used} of {} ticks",
            WATCHED.as_secs() * 100
        );
        assert!(used < WATCHED.as_secs() * 100 * 5 / 100, "{used} ticks");
        engine.stop();
    });
}
