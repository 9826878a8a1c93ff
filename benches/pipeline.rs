//! A packet from ring to ring without a NIC: classify, decide, rewrite, in bursts of 64, with counters, states
//! and times.
//!
//! Claims: a packet of a known flow takes at most 40 ns when there is one flow and 100 ns when there are a million,
//! by direct routing, by NAT in either direction and by a tunnel; a new flow at most 150 ns when the table is full.
//! IPVS takes for direct routing 97 ns a packet at 1 flow, 260 at 64 k, 316 at 1 M, 552 for a new flow, 1,159 for a new
//! flow when the table is full. Flows are
//! drawn at random from all of them for every packet, so the table is as cold as its size makes it;
//! frames were just written, as a NIC or the kernel leaves them. What of it all the frames' way
//! through the rings takes is measured by itself (`pipeline/io`).
//!
//! What is timed is all in [`turn`], so that instructions can be counted, which no other load disturbs:
//! `valgrind --tool=callgrind --toggle-collect='pipeline::turn' target/release/deps/pipeline-... --bench dr/hit/1$
//! --profile-time 1`, divided by 64 for each call.

use std::{
    cell::{OnceCell, RefCell},
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use xvs::{
    addr::{Endpoint, IpPrefix, L4Proto, MacAddr, PortId},
    balance::{
        Hop, HopId, LbKind, Limits, Match, NextHop, Persistence, RealId, RealSpec, Route, Routes,
        Scheduler, ServiceId, ServiceKey, ServiceSpec, ServiceTable, TableBuilder,
        rewrite::TunnelKind,
    },
    dataplane::{
        handover::handovers,
        io::{BURST, PacketIo},
        memory::MemoryIo,
        publish::Publisher,
        worker::{Worker, WorkerOptions},
    },
    stats::WorkerStats,
    sys::waker::Waker,
    time::Instant,
    wire::{ipv4, ipv6, tcp},
};

const REALS: u32 = 16;
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const SYN_ACK: tcp::Flags = tcp::Flags(tcp::Flags::SYN.0 | tcp::Flags::ACK.0);
const NOW: Instant = Instant::from_nanos(1_000_000_000);
/// Nanoseconds from a turn to the next: a million packets a second. It counts in a full table: an entry of the very
/// tick is no guess, so a flood that turns the table over within one tick (100 ms) costs a second search for room, 2,513
/// instructions a packet where this takes 2,087. With a clock that stood still this bench measured that.
const BETWEEN_TURNS: u64 = 1_000 * BURST as u64;
/// Room in the tables of connections.
const CONNECTIONS: usize = 1 << 20;

/// What is done to the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Dr,
    Dr6,
    Tun,
    Nat,
    /// The packets are the real servers' answers.
    NatOut,
}

impl Way {
    const ALL: [Self; 5] = [Self::Dr, Self::Dr6, Self::Tun, Self::Nat, Self::NatOut];

    const fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Dr6 => "dr6",
            Self::Tun => "tun",
            Self::Nat => "nat",
            Self::NatOut => "nat_out",
        }
    }

    const fn method(self) -> LbKind {
        match self {
            Self::Dr | Self::Dr6 => LbKind::Dr,
            Self::Tun => LbKind::Tun(TunnelKind::Ipip),
            Self::Nat | Self::NatOut => LbKind::Nat,
        }
    }

    fn vip(self) -> IpAddr {
        match self {
            Self::Dr6 => VIP6.into(),
            _ => VIP.into(),
        }
    }

    fn real(self, n: u8) -> IpAddr {
        match self {
            Self::Dr6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, n.into()).into(),
            _ => Ipv4Addr::new(172, 16, 0, n).into(),
        }
    }
}

fn hop(port: u8) -> NextHop {
    NextHop {
        port: PortId(port),
        source: MacAddr([2, 0, 0, 0, 0, port]),
        destination: MacAddr([2, 0, 0, 0, 1, port]),
        mtu: 1500,
    }
}

/// The way to all clients.
fn routes() -> Routes {
    let router = Ipv4Addr::new(198, 51, 100, 1).into();
    let hop = hop(0);
    let route = Route {
        to: IpPrefix::new(Ipv4Addr::UNSPECIFIED.into(), 0).expect("a prefix"),
        port: Some(hop.port),
        source: hop.source,
        gateway: Some(router),
        mtu: hop.mtu,
    };
    Routes::new([route], [(hop.port, router, hop.destination, 0)])
}

fn table(way: Way, persistence: Option<Persistence>) -> ServiceTable {
    let reals = (0..REALS).map(|n| RealSpec {
        id: RealId(n),
        epoch: NonZeroU32::MIN,
        endpoint: Endpoint::new(way.real(u8::try_from(n).unwrap_or(0)), 8080),
        method: way.method(),
        weight: 1 + n % 4,
        last_weight: 1 + n % 4,
        limits: Limits::default(),
        available: true,
        failed: false,
        hop: HopId(n),
    });
    let spec = ServiceSpec {
        id: ServiceId(0),
        epoch: NonZeroU32::MIN,
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(way.vip(), 80),
        })],
        one_packet: false,
        scheduler: Scheduler::Wrr,
        persistence,
        reals: reals.collect(),
        draining: Vec::new(),
    };
    let mut tables = TableBuilder::new();
    tables.set_routes(Arc::new(routes()));
    tables.set(&spec).expect("the virtual server is legal");
    let to_real = Hop {
        next: Some(hop(1)),
        local: Some(way.real(254)),
    };
    for n in 0..REALS {
        tables.set_hop(HopId(n), to_real);
    }
    tables.build(1)
}

/// A frame of the flow with this number, of 60 bytes or, for IPv6, 74. `real` is who answers, if it is an answer.
fn frame(way: Way, flow: u32, flags: tcp::Flags, real: Option<u8>) -> Vec<u8> {
    let [a, b, c, d] = flow.to_be_bytes();
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9];
    let client = [4, d];
    let mut ports = [client[0], client[1], 0, 80];
    if way == Way::Dr6 {
        bytes.extend([0x86, 0xdd]);
        let ip = ipv6::Repr {
            source: Ipv6Addr::new(
                0x2001,
                0xdb8,
                2,
                0,
                0,
                0,
                u16::from_be_bytes([a, b]),
                c.into(),
            ),
            destination: VIP6,
            traffic_class: 0,
            protocol: ipv4::PROTOCOL_TCP,
            hop_limit: 64,
            payload_len: 20,
        };
        bytes.extend(ip.emit());
    } else {
        bytes.extend([8, 0]);
        let client = [10, a, b, c].into();
        let (source, destination) = match real {
            None => (client, VIP),
            Some(n) => (Ipv4Addr::new(172, 16, 0, n), client),
        };
        let ip = ipv4::Repr {
            source,
            destination,
            protocol: ipv4::PROTOCOL_TCP,
            ttl: 64,
            payload_len: 20,
        };
        bytes.extend(ip.emit());
    }
    if real.is_some() {
        let [high, low] = 8080_u16.to_be_bytes();
        ports = [high, low, 4, d];
    }
    let tcp = tcp::Repr {
        ports,
        sequence: 1,
        acknowledgment: 1,
        flags,
    };
    bytes.extend(tcp.emit());
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// A worker with its traffic.
struct Bed {
    way: Way,
    worker: Worker<MemoryIo>,
    stats: Arc<WorkerStats>,
    now: Instant,
    /// The real server of each flow, if answers are to come.
    reals: Vec<u8>,
}

/// What is timed: a turn with a full burst.
#[inline(never)]
fn turn(bed: &mut Bed) -> usize {
    bed.worker.turn(bed.now)
}

impl Bed {
    fn new(way: Way) -> Self {
        let reader = Publisher::new(table(way, None)).reader();
        let options = WorkerOptions {
            connections: CONNECTIONS,
            hash_seed: 0x5eed,
            spin: Duration::ZERO,
        };
        let io = MemoryIo::new(BURST, BURST);
        let stats = Arc::new(WorkerStats::new());
        let worker = Worker::new(io, reader, Arc::clone(&stats), options);
        // As `xvs run` does.
        worker.use_huge_pages();
        Self {
            way,
            worker,
            stats,
            now: NOW,
            reals: Vec::new(),
        }
    }

    /// Puts a burst of such frames where the worker receives, all of the last one's having left.
    fn inject(&mut self, flags: tcp::Flags, answers: bool, mut flow: impl FnMut() -> u32) {
        self.now = Instant::from_nanos(self.now.as_nanos() + BETWEEN_TURNS);
        let io = self.worker.io_mut();
        io.discard();
        for _ in 0..BURST {
            let flow = flow();
            let real = answers.then(|| self.reals[flow as usize]);
            assert!(io.inject(
                PortId(u8::from(answers)),
                &frame(self.way, flow, flags, real)
            ));
        }
    }

    /// One packet of each flow from 0 to `flows`, and of the last ones again for the last burst to be full.
    fn play(&mut self, flows: u32, flags: tcp::Flags, answers: bool) {
        let notes = self.way == Way::NatOut && self.reals.len() < flows as usize;
        for first in (0..flows).step_by(BURST) {
            let mut next = first..flows;
            self.inject(flags, answers, || next.next().unwrap_or(flows - 1));
            // Not `turn`, which is for what is counted.
            self.worker.turn(self.now);
            while notes && let Some((_, frame)) = self.worker.io_mut().collect() {
                assert_eq!(frame[30..33], [172, 16, 0]);
                self.reals.push(frame[33]);
            }
        }
    }

    /// Opens the flows from 0 to `flows`: every one is established at the end.
    fn establish(&mut self, flows: u32) {
        self.play(flows, tcp::Flags::SYN, false);
        if self.way == Way::NatOut {
            self.play(flows, SYN_ACK, true);
        }
        self.play(flows, tcp::Flags::ACK, false);
        assert_eq!(self.held(), flows as usize);
    }

    fn held(&self) -> usize {
        let balancer = self.worker.balancer();
        balancer.conns().len() + balancer.conns6().len()
    }

    /// Frames that came in and did not leave.
    fn lost(&self) -> u64 {
        self.stats.frames_in.get() - self.stats.frames_out.get()
    }
}

fn hits(c: &mut Criterion) {
    for way in Way::ALL {
        let mut group = c.benchmark_group(format!("pipeline/{}", way.name()));
        group.throughput(Throughput::Elements(BURST as u64));
        for flows in [1_u32, 1_000, 65_536, 1_000_000] {
            let bed = OnceCell::new();
            let mut random = fastrand::Rng::with_seed(7);
            group.bench_function(BenchmarkId::new("hit", flows), |b| {
                let bed = bed.get_or_init(|| {
                    let mut bed = Bed::new(way);
                    bed.establish(flows);
                    RefCell::new(bed)
                });
                let answers = way == Way::NatOut;
                b.iter_batched(
                    || {
                        bed.borrow_mut()
                            .inject(tcp::Flags::ACK, answers, || random.u32(..flows))
                    },
                    |()| turn(black_box(&mut bed.borrow_mut())),
                    BatchSize::PerIteration,
                );
            });
            if let Some(bed) = bed.get() {
                assert_eq!(bed.borrow().lost(), 0);
            }
        }
        group.finish();
    }
}

fn new_flows(c: &mut Criterion) {
    for way in [Way::Dr, Way::Dr6, Way::Tun, Way::Nat] {
        let mut group = c.benchmark_group(format!("pipeline/{}", way.name()));
        group.throughput(Throughput::Elements(BURST as u64));
        for full in [false, true] {
            let bed = OnceCell::new();
            let mut flow = if full { 3 << 20 } else { 0 };
            group.bench_function(if full { "new_when_full" } else { "new" }, |b| {
                let bed = bed.get_or_init(|| {
                    let mut bed = Bed::new(way);
                    if full {
                        bed.play(flow, tcp::Flags::SYN, false);
                        assert!(bed.held() >= CONNECTIONS);
                    }
                    RefCell::new(bed)
                });
                b.iter_batched(
                    || {
                        if !full && bed.borrow().held() > CONNECTIONS / 2 {
                            bed.replace(Bed::new(way));
                        }
                        bed.borrow_mut().inject(tcp::Flags::SYN, false, || {
                            flow += 1;
                            flow
                        });
                    },
                    |()| turn(black_box(&mut bed.borrow_mut())),
                    BatchSize::PerIteration,
                );
            });
            if let Some(bed) = bed.get() {
                assert_eq!(bed.borrow().lost(), 0);
            }
        }
        group.finish();
    }
}

/// Puts a burst of frames of direct routing where they are received.
fn refill(io: &mut MemoryIo, mut flow: impl FnMut() -> u32) {
    io.discard();
    for _ in 0..BURST {
        assert!(io.inject(PortId(0), &frame(Way::Dr, flow(), tcp::Flags::ACK, None)));
    }
}

/// Receives a burst and transmits it as it is.
fn io_alone(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/io");
    group.throughput(Throughput::Elements(BURST as u64));
    let io = RefCell::new(MemoryIo::new(BURST, BURST));
    refill(&mut io.borrow_mut(), || 1);
    let mut burst = Vec::with_capacity(BURST);
    group.bench_function("receive_transmit", |b| {
        b.iter_batched(
            || refill(&mut io.borrow_mut(), || 1),
            |()| {
                let io = &mut *io.borrow_mut();
                io.reclaim();
                io.receive(&mut burst);
                for frame in burst.drain(..) {
                    if let Err(frame) = io.transmit(PortId(1), frame) {
                        io.release(frame);
                    }
                }
                io.flush();
            },
            BatchSize::PerIteration,
        );
    });
    assert_eq!(io.borrow_mut().account().free, 0, "no frame was released");
    group.finish();
}

/// Hits of persistent clients that come in at one worker and are another one's: classified, handed over,
/// classified again and forwarded, both turns on one processor.
fn handed_over(c: &mut Criterion) {
    const FLOWS: u32 = 1_000;
    let persistence = Persistence {
        timeout: Duration::from_secs(300),
        prefix: 32,
    };
    let mut publisher = Publisher::new(table(Way::Dr, Some(persistence)));
    let wakers = [(), ()].map(|()| Waker::new().expect("a descriptor"));
    let mut workers = handovers(&wakers, 1).into_iter().map(|end| {
        let options = WorkerOptions {
            connections: 1 << 20,
            hash_seed: 0x5eed,
            spin: Duration::ZERO,
        };
        let io = MemoryIo::new(2 * BURST, BURST);
        let stats = Arc::new(WorkerStats::new());
        Worker::new(io, publisher.reader(), stats, options).with_handover(end)
    });
    let (Some(mut first), Some(mut second)) = (workers.next(), workers.next()) else {
        return;
    };
    // The flows that are not the first one's.
    let mut theirs = Vec::new();
    for flow in 0..2 * FLOWS {
        first.io_mut().discard();
        first
            .io_mut()
            .inject(PortId(0), &frame(Way::Dr, flow, tcp::Flags::SYN, None));
        first.turn(NOW);
        if second.turn(NOW) > 0 {
            theirs.push(flow);
            // Frames go with their tokens: they come back for the next.
            swap_frames(&mut first, &mut second);
        }
    }
    let pair = RefCell::new((first, second));
    let mut random = fastrand::Rng::with_seed(7);
    let mut group = c.benchmark_group("pipeline/dr");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("handed_over", |b| {
        b.iter_batched(
            || {
                let (first, second) = &mut *pair.borrow_mut();
                swap_frames(first, second);
                let flow = || theirs[random.usize(..theirs.len())];
                refill(first.io_mut(), flow);
            },
            |()| {
                let (first, second) = &mut *pair.borrow_mut();
                first.turn(NOW) + second.turn(NOW) + second.turn(NOW)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Gives the first worker the frames back that the second has sent.
fn swap_frames(first: &mut Worker<MemoryIo>, second: &mut Worker<MemoryIo>) {
    second.io_mut().discard();
    let mut burst = Vec::with_capacity(BURST);
    while first.account().free < BURST as u64 && second.io_mut().inject(PortId(0), &[0; 60]) {
        second.io_mut().receive(&mut burst);
        for frame in burst.drain(..) {
            let parted = second.io_mut().part(frame);
            let frame = first.io_mut().take_over(parted);
            first.io_mut().release(frame);
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = hits, new_flows, handed_over, io_alone
}
criterion_main!(benches);
