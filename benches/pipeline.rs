//! A packet from ring to ring without a NIC: classify, decide, rewrite, in bursts of 64.
//!
//! Claims: direct routing costs well under half of what IPVS does (97 ns a packet at 1 flow, 260 at
//! 64 k, 316 at 1 M, 552 for a new flow, 1,159 for a new flow when the table is full). Flows are
//! drawn at random from all of them for every packet, so the table is as cold as its size makes it;
//! frames were just written, as a NIC or the kernel leaves them. What of it all the frames' way
//! through the rings takes is measured by itself (`pipeline/io`).

use std::{cell::RefCell, num::NonZeroU32, sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use xvs::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        Environment, Limits, Match, Method, NextHop, Persistence, RealId, RealSpec, Scheduler,
        ServiceId, ServiceKey, ServiceSpec, ServiceTable,
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
    wire::{ipv4, tcp},
};

const REALS: u32 = 16;
const VIP: [u8; 4] = [192, 0, 2, 1];
const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn table(persistence: Option<Persistence>) -> ServiceTable {
    let reals = (0..REALS).map(|n| RealSpec {
        id: RealId(n),
        epoch: NonZeroU32::MIN,
        endpoint: Endpoint::new([10, 0, 0, 1].into(), 80),
        method: Method::DirectRouting,
        weight: 1 + n % 4,
        last_weight: 1 + n % 4,
        limits: Limits::default(),
        available: true,
        next_hop: Some(NextHop {
            port: PortId(1),
            source: MacAddr([2, 0, 0, 0, 0, 1]),
            destination: MacAddr([2, 0, 0, 0, 1, 1]),
            mtu: 1500,
        }),
        local: None,
    });
    let spec = ServiceSpec {
        id: ServiceId(0),
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(VIP.into(), 80),
        })],
        one_packet: false,
        scheduler: Scheduler::Wrr,
        persistence,
        reals: reals.collect(),
    };
    ServiceTable::build(1, &[spec], Environment::default()).expect("the table is legal")
}

/// A 60-byte frame of the flow with this number.
fn frame(flow: u32, flags: tcp::Flags) -> [u8; 60] {
    let [a, b, c, d] = flow.to_be_bytes();
    let mut bytes = [0; 60];
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9, 8, 0]);
    let ip = ipv4::Repr {
        source: [10, a, b, c].into(),
        destination: VIP.into(),
        protocol: ipv4::PROTOCOL_TCP,
        ttl: 64,
        payload_len: 20,
    };
    let tcp = tcp::Repr {
        ports: [4, d, 0, 80],
        sequence: 1,
        acknowledgment: 1,
        flags,
    };
    bytes[14..34].copy_from_slice(&ip.emit());
    bytes[34..54].copy_from_slice(&tcp.emit());
    bytes
}

fn worker(connections: usize) -> Worker<MemoryIo> {
    let reader = Publisher::new(table(None)).reader();
    let options = WorkerOptions {
        connections,
        hash_seed: 0x5eed,
    };
    let io = MemoryIo::new(BURST, BURST);
    Worker::new(io, reader, Arc::new(WorkerStats::new()), options)
}

fn inject(worker: &mut Worker<MemoryIo>, flags: tcp::Flags, flow: impl FnMut() -> u32) {
    refill(worker.io_mut(), flags, flow);
}

fn refill(io: &mut MemoryIo, flags: tcp::Flags, mut flow: impl FnMut() -> u32) {
    io.discard();
    for _ in 0..BURST {
        assert!(io.inject(PortId(0), &frame(flow(), flags)));
    }
}

/// Opens the flows from 0 to `flows`.
fn fill(worker: &mut Worker<MemoryIo>, flows: u32) {
    let mut next = 0..flows;
    while next.start < flows {
        inject(worker, tcp::Flags::SYN, || next.next().unwrap_or(0));
        worker.turn(NOW);
    }
}

fn hits(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/dr");
    group.throughput(Throughput::Elements(BURST as u64));
    for flows in [1_u32, 1_000, 65_536, 1_000_000] {
        let worker = RefCell::new(worker(1 << 20));
        fill(&mut worker.borrow_mut(), flows);
        let mut random = fastrand::Rng::with_seed(7);
        let mut draw = |worker: &RefCell<_>| {
            inject(&mut worker.borrow_mut(), tcp::Flags::ACK, || {
                random.u32(..flows)
            });
        };
        // Every flow is established before the clock runs.
        for _ in 0..flows as usize * 2 / BURST + 1 {
            draw(&worker);
            worker.borrow_mut().turn(NOW);
        }
        group.bench_function(BenchmarkId::new("hit", flows), |b| {
            b.iter_batched(
                || draw(&worker),
                |()| worker.borrow_mut().turn(NOW),
                BatchSize::PerIteration,
            );
        });
        assert!(worker.borrow().balancer().conns().len() >= flows as usize);
    }
    group.finish();
}

fn new_flows(c: &mut Criterion) {
    const CONNECTIONS: usize = 1 << 20;
    let mut group = c.benchmark_group("pipeline/dr");
    group.throughput(Throughput::Elements(BURST as u64));
    let fresh = RefCell::new(worker(CONNECTIONS));
    let mut flow = 0;
    group.bench_function("new", |b| {
        b.iter_batched(
            || {
                if fresh.borrow().balancer().conns().len() > CONNECTIONS / 2 {
                    fresh.replace(worker(CONNECTIONS));
                }
                inject(&mut fresh.borrow_mut(), tcp::Flags::SYN, || {
                    flow += 1;
                    flow
                });
            },
            |()| fresh.borrow_mut().turn(NOW),
            BatchSize::PerIteration,
        );
    });
    let full = RefCell::new(worker(CONNECTIONS));
    fill(&mut full.borrow_mut(), 3 << 20);
    let mut flow = 3 << 20;
    group.bench_function("new_when_full", |b| {
        b.iter_batched(
            || {
                inject(&mut full.borrow_mut(), tcp::Flags::SYN, || {
                    flow += 1;
                    flow
                });
            },
            |()| full.borrow_mut().turn(NOW),
            BatchSize::PerIteration,
        );
    });
    assert!(full.borrow().balancer().conns().len() >= CONNECTIONS);
    group.finish();
}

/// Receives a burst and transmits it as it is.
fn io_alone(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/io");
    group.throughput(Throughput::Elements(BURST as u64));
    let io = RefCell::new(MemoryIo::new(BURST, BURST));
    let mut burst = Vec::with_capacity(BURST);
    group.bench_function("receive_transmit", |b| {
        b.iter_batched(
            || refill(&mut io.borrow_mut(), tcp::Flags::ACK, || 1),
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
    assert_eq!(
        io.borrow_mut().account().free,
        0,
        "every frame was transmitted"
    );
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
    let mut publisher = Publisher::new(table(Some(persistence)));
    let wakers = [(), ()].map(|()| Waker::new().expect("a descriptor"));
    let mut workers = handovers(&wakers, 1).into_iter().map(|end| {
        let options = WorkerOptions {
            connections: 1 << 20,
            hash_seed: 0x5eed,
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
            .inject(PortId(0), &frame(flow, tcp::Flags::SYN));
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
                inject(first, tcp::Flags::ACK, flow);
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

criterion_group!(benches, hits, new_flows, handed_over, io_alone);
criterion_main!(benches);
