//! A fuzzer over a worker's whole way: classify, decide, rewrite. `scripts/fuzz` builds and runs it.
//!
//! An input is a list of frames, each behind its length in two bytes. They go through one worker that has a
//! virtual server of every kind, and stays from input to input, with its connections. No frame may
//! make it panic or lose a frame, and whatever leaves must be a valid packet.

#![no_main]

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use xvs::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        Environment, Limits, MarkRule, Match, Method, NextHop, Persistence, PortSpec, RealId,
        RealSpec, Route, Routes, Scheduler, ServiceId, ServiceKey, ServiceSpec, ServiceTable,
        rewrite::TunnelKind,
    },
    dataplane::{
        memory::MemoryIo,
        publish::Publisher,
        worker::{Worker, WorkerOptions},
    },
    stats::WorkerStats,
    time::Instant,
    wire::checksum,
};

/// Few, so that the table is full often.
const CONNECTIONS: usize = 64;
const FRAMES: usize = 512;

struct Lab {
    worker: Worker<MemoryIo>,
    stats: Arc<WorkerStats>,
    now: Instant,
    /// The tables that the worker may use live as long as this.
    _publisher: Publisher,
}

fn hop(last: u8, mtu: u16) -> NextHop {
    NextHop {
        port: PortId(1),
        source: MacAddr([2, 0, 0, 0, 0, 2]),
        destination: MacAddr([2, 0, 0, 0, 1, last]),
        mtu,
    }
}

fn addresses(ipv6: bool, host: u8) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 0, 0, host).into()
    }
}

fn services() -> Vec<ServiceSpec> {
    let methods = [
        Method::DirectRouting,
        Method::Nat,
        Method::Tunnel(TunnelKind::Ipip),
        Method::Tunnel(TunnelKind::Gue {
            port: 6080,
            checksum: true,
        }),
        Method::Tunnel(TunnelKind::Gre { checksum: true }),
    ];
    let mut specs = Vec::new();
    let mut next_real = 0;
    for ipv6 in [false, true] {
        for protocol in [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp] {
            for (number, method) in (0_u16..).zip(methods) {
                let number8 = u8::try_from(number).expect("there are five");
                let reals = (0..2_u8).map(|n| {
                    next_real += 1;
                    // A tunnel's outer packet is of the other family every other time.
                    let outer6 = ipv6 != (n == 1 && matches!(method, Method::Tunnel(_)));
                    RealSpec {
                        id: RealId(next_real),
                        epoch: NonZeroU32::MIN,
                        endpoint: Endpoint::new(addresses(outer6, 100 + 2 * number8 + n), 8080),
                        method,
                        weight: 1,
                        last_weight: 1,
                        limits: Limits::default(),
                        available: true,
                        next_hop: (number != 4 || n == 0).then(|| hop(n, 1400)),
                        local: Some(addresses(outer6, 1)),
                    }
                });
                specs.push(ServiceSpec {
                    id: ServiceId(u32::try_from(specs.len()).expect("few")),
                    matches: vec![Match::Address(ServiceKey {
                        protocol,
                        endpoint: Endpoint::new(addresses(ipv6, 9), 80 + number),
                    })],
                    scheduler: Scheduler::Sh {
                        port: true,
                        fallback: true,
                    },
                    persistence: (number == 2).then_some(Persistence {
                        timeout: Duration::from_secs(5),
                        prefix: 24,
                    }),
                    one_packet: number == 1 && protocol == L4Proto::Udp,
                    reals: reals.collect(),
                });
            }
        }
        let mut marked = specs[usize::from(ipv6) * 16].clone();
        marked.id = ServiceId(u32::try_from(specs.len()).expect("few"));
        marked.matches = vec![Match::Mark { mark: 7, ipv6 }];
        marked.reals = vec![RealSpec {
            id: RealId(200 + u32::from(ipv6)),
            method: Method::Nat,
            endpoint: Endpoint::new(addresses(ipv6, 150), 0),
            ..marked.reals[0]
        }];
        specs.push(marked);
    }
    specs
}

impl Lab {
    fn new() -> Self {
        let mark = |ipv6| MarkRule {
            mark: 7,
            protocol: None,
            destination: (addresses(ipv6, 10), addresses(ipv6, 20)),
            destination_ports: (0, u16::MAX),
            source: None,
            source_ports: (0, u16::MAX),
            ingress: None,
        };
        let route = |to: &str, gateway: Option<IpAddr>| Route {
            to: to.parse().expect("a prefix"),
            port: Some(PortId(0)),
            source: MacAddr([2, 0, 0, 0, 0, 1]),
            gateway,
            mtu: 1500,
        };
        let routes = [
            route("0.0.0.0/0", Some(addresses(false, 254))),
            route("10.0.0.0/24", None),
            route("::/0", Some(addresses(true, 254))),
        ];
        let neighbours = [false, true]
            .map(|ipv6| (PortId(0), addresses(ipv6, 254), MacAddr([2, 0, 0, 0, 2, 1])));
        let environment = Environment {
            marks: [false, true].map(mark).to_vec(),
            routes: Arc::new(Routes::new(routes, neighbours)),
            ports: vec![
                PortSpec {
                    v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
                    v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
                };
                2
            ],
            ..Environment::default()
        };
        let table = ServiceTable::build(1, &services(), environment).expect("a legal table");
        let mut publisher = Publisher::new(table);
        let stats = Arc::new(WorkerStats::new());
        let options = WorkerOptions {
            connections: CONNECTIONS,
            hash_seed: 5,
        };
        let io = MemoryIo::new(FRAMES, FRAMES);
        let worker = Worker::new(io, publisher.reader(), Arc::clone(&stats), options);
        Self {
            worker,
            stats,
            now: Instant::from_nanos(1_000_000_000),
            _publisher: publisher,
        }
    }

    fn run(&mut self, mut data: &[u8]) {
        self.now = self.now + Duration::from_millis(37);
        let mut injected = 0;
        while let [high, low, rest @ ..] = data {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
            let (frame, rest) = rest.split_at(length);
            injected += usize::from(self.worker.io_mut().inject(PortId(0), frame));
            data = rest;
            if injected == 64 {
                break;
            }
        }
        while self.worker.turn(self.now) > 0 {}
        while let Some((_, frame)) = self.worker.io_mut().collect() {
            assert_valid(&frame);
        }
        let account = self.worker.account();
        assert!(account.is_conserved(), "{account:?}");
        assert!(self.worker.balancer().conns().len() <= 2 * CONNECTIONS);
    }
}

/// A receiver takes it for a packet: its lengths are those of the frame, its IPv4 header sums up.
fn assert_valid(frame: &[u8]) {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8])) {
        at += 4;
    }
    let (ether_type, packet) = (&frame[at..at + 2], &frame[at + 2..]);
    match ether_type {
        [0x08, 0x00] => {
            let header = usize::from(packet[0] & 15) * 4;
            assert!(packet[0] >> 4 == 4 && header >= 20 && header <= packet.len());
            assert!(checksum::is_valid(&packet[..header]), "{frame:02x?}");
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            assert!(header <= total && total <= packet.len(), "{frame:02x?}");
            assert!(packet[8] > 0, "TTL");
        }
        [0x86, 0xdd] => {
            assert_eq!(packet[0] >> 4, 6);
            let payload = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            assert!(40 + payload <= packet.len(), "{frame:02x?}");
            assert!(packet[7] > 0, "hop limit");
        }
        other => panic!("EtherType {other:02x?}"),
    }
}

thread_local! {
    static LAB: RefCell<Lab> = RefCell::new(Lab::new());
}

fuzz_target!(|data: &[u8]| {
    LAB.with_borrow_mut(|lab| lab.run(data));
});
