//! A fuzzer over a worker's whole way: classify, decide, rewrite. `scripts/fuzz` builds and runs it.
//!
//! An input is a list of frames: most are valid packets of every kind with some bytes changed, as the input
//! says, others are the input's own bytes. They go through one worker that has a virtual server of
//! every kind, and stays from input to input, with its connections. No frame may make it panic or lose
//! a frame, and whatever leaves must be a valid packet.

#![no_main]

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, PacketBuilder, icmpv4, icmpv6};
use libfuzzer_sys::fuzz_target;
use xvs::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        Environment, Hop, HopId, LbKind, Limits, MarkRule, Match, NextHop, Persistence, PortSpec,
        RealId, RealSpec, Route, Routes, Scheduler, ServiceId, ServiceKey, ServiceSpec,
        TableBuilder, rewrite::TunnelKind,
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
    templates: Vec<Vec<u8>>,
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

/// The way whose MAC address is not known.
const UNRESOLVED: HopId = HopId(4);

/// The ways to two real servers of each family.
fn ways() -> impl Iterator<Item = (HopId, Option<NextHop>, Option<IpAddr>)> {
    let known = [(0, false, 0), (1, false, 1), (2, true, 0), (3, true, 1)];
    known
        .into_iter()
        .map(|(id, outer6, n)| (HopId(id), Some(hop(n, 1400)), Some(addresses(outer6, 1))))
}

fn services() -> Vec<ServiceSpec> {
    let methods = [
        LbKind::Dr,
        LbKind::Nat,
        LbKind::Tun(TunnelKind::Ipip),
        LbKind::Tun(TunnelKind::Gue {
            port: 6080,
            checksum: true,
        }),
        LbKind::Tun(TunnelKind::Gre { checksum: true }),
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
                    let outer6 = ipv6 != (n == 1 && matches!(method, LbKind::Tun(_)));
                    RealSpec {
                        id: RealId(next_real),
                        epoch: NonZeroU32::MIN,
                        endpoint: Endpoint::new(addresses(outer6, 100 + 2 * number8 + n), 8080),
                        method,
                        weight: 1,
                        last_weight: 1,
                        limits: Limits::default(),
                        available: true,
                        failed: false,
                        hop: if number != 4 || n == 0 {
                            HopId(2 * u32::from(outer6) + u32::from(n))
                        } else {
                            UNRESOLVED
                        },
                    }
                });
                specs.push(ServiceSpec {
                    id: ServiceId(u32::try_from(specs.len()).expect("few")),
                    epoch: NonZeroU32::MIN,
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
                    draining: Vec::new(),
                });
            }
        }
        let mut marked = specs[usize::from(ipv6) * 16].clone();
        marked.id = ServiceId(u32::try_from(specs.len()).expect("few"));
        marked.matches = vec![Match::Mark { mark: 7, ipv6 }];
        marked.reals = vec![RealSpec {
            id: RealId(200 + u32::from(ipv6)),
            method: LbKind::Nat,
            endpoint: Endpoint::new(addresses(ipv6, 150), 0),
            ..marked.reals[0]
        }];
        specs.push(marked);
    }
    specs
}

/// Valid packets: from clients to each virtual server, from real servers to clients, and ICMP errors about
/// either; whole and as fragments, with and without a VLAN tag.
fn templates() -> Vec<Vec<u8>> {
    let (client4, client6) = ([192, 0, 2, 7], addresses(true, 77));
    let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for ipv6 in [false, true] {
        let vip = addresses(ipv6, 9);
        let real = addresses(ipv6, 102);
        let client = if ipv6 { client6 } else { IpAddr::from(client4) };
        let flows = (80..85).map(|port| (client, 4000, vip, port));
        let flows = flows.chain([
            (real, 8080, client, 4000),
            (client, 4000, addresses(ipv6, 10), 9),
        ]);
        for (from, sport, to, dport) in flows {
            for kind in 0..5_u8 {
                let builder = match (from, to) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        link().ipv4(from.octets(), to.octets(), 60)
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        link().ipv6(from.octets(), to.octets(), 60)
                    }
                    _ => unreachable!("one family"),
                };
                let mut bytes = Vec::new();
                let payload = [0x61; 24];
                let built = match kind {
                    0 => builder
                        .tcp(sport, dport, 1, 512)
                        .syn()
                        .write(&mut bytes, &payload),
                    1 => builder
                        .tcp(sport, dport, 2, 512)
                        .ack(9)
                        .write(&mut bytes, &payload),
                    2 => builder.udp(sport, dport).write(&mut bytes, &payload),
                    3 => {
                        // An INIT chunk behind the common header; its CRC is of no matter here.
                        let mut packet = sport.to_be_bytes().to_vec();
                        packet.extend(dport.to_be_bytes());
                        packet.extend([0; 8]);
                        packet.extend([1, 0, 0, 20]);
                        packet.extend([0; 16]);
                        builder.write(&mut bytes, IpNumber::SCTP, &packet)
                    }
                    _ => {
                        let quoted = frames.last().map(|frame| frame[14..].to_vec());
                        let quoted = quoted.unwrap_or_default();
                        if ipv6 {
                            let problem = icmpv6::DestUnreachableCode::Port;
                            let problem = Icmpv6Type::DestinationUnreachable(problem);
                            builder.icmpv6(problem).write(&mut bytes, &quoted)
                        } else {
                            let problem = icmpv4::DestUnreachableHeader::Port;
                            let problem = Icmpv4Type::DestinationUnreachable(problem);
                            builder.icmpv4(problem).write(&mut bytes, &quoted)
                        }
                    }
                };
                built.expect("a packet of known size");
                frames.push(bytes);
            }
        }
    }
    let mut first = frames[2].clone();
    first[20] = 0x20;
    let mut later = frames[2].clone();
    later[21] = 4;
    for frame in [&mut first, &mut later] {
        frame[24..26].fill(0);
        let sum = checksum::compute(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum);
    }
    let mut tagged = frames[1][..12].to_vec();
    tagged.extend([0x81, 0, 0, 42]);
    tagged.extend(&frames[1][12..]);
    let mut large = frames[11].clone();
    large.resize(large.len() + 1460, 7);
    frames.extend([first, later, tagged, large]);
    frames
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
        let neighbours = [false, true].map(|ipv6| {
            (
                PortId(0),
                addresses(ipv6, 254),
                MacAddr([2, 0, 0, 0, 2, 1]),
                ipv6.into(),
            )
        });
        let environment = Environment {
            marks: [false, true].map(mark).to_vec(),
            ports: vec![
                PortSpec {
                    v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
                    v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
                    fast: false,
                };
                2
            ],
            ..Environment::default()
        };
        let mut tables = TableBuilder::new();
        tables.set_environment(environment);
        tables.set_routes(Arc::new(Routes::new(routes, neighbours)));
        tables.apply(&[], &services()).expect("legal ones");
        for (id, next, local) in ways() {
            tables.set_hop(id, Hop { next, local });
        }
        let mut publisher = Publisher::new(tables.build(1));
        let stats = Arc::new(WorkerStats::new());
        let options = WorkerOptions {
            connections: CONNECTIONS,
            hash_seed: 5,
            spin: Duration::ZERO,
        };
        let io = MemoryIo::new(FRAMES, FRAMES);
        let worker = Worker::new(io, publisher.reader(), Arc::clone(&stats), options);
        Self {
            worker,
            stats,
            now: Instant::from_nanos(1_000_000_000),
            templates: templates(),
            _publisher: publisher,
        }
    }

    /// The next frame that an input stands for: `kind`, then for one of the templates `edits` and `repair` and
    /// for each edit a place and a value; for any other the length and the bytes.
    fn next_frame(&self, data: &mut &[u8]) -> Option<Vec<u8>> {
        let (kind, rest) = data.split_first()?;
        *data = rest;
        let Some(template) = self.templates.get(usize::from(*kind)) else {
            let (length, rest) = data.split_first()?;
            let (frame, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            *data = rest;
            return Some(frame.to_vec());
        };
        let mut frame = template.clone();
        let (how, rest) = data.split_first()?;
        *data = rest;
        for _ in 0..how & 7 {
            let [place, value, rest @ ..] = *data else {
                break;
            };
            *data = rest;
            let at = usize::from(*place) % frame.len();
            frame[at] = *value;
        }
        if how & 8 != 0 && frame[12..14] == [8, 0] {
            let header = usize::from(frame[14] & 15) * 4;
            if header >= 20 && frame.len() >= 14 + header {
                frame[24..26].fill(0);
                let sum = checksum::compute(&frame[14..14 + header]);
                frame[24..26].copy_from_slice(&sum);
            }
        }
        if how & 16 != 0 {
            frame.truncate(frame.len() / 2);
        }
        Some(frame)
    }

    fn run(&mut self, mut data: &[u8]) {
        self.now = self.now + Duration::from_millis(37);
        let mut injected = 0;
        while injected < 64
            && let Some(frame) = self.next_frame(&mut data)
        {
            injected += usize::from(self.worker.io_mut().inject(PortId(0), &frame));
        }
        while self.worker.turn(self.now) > 0 {}
        while let Some((_, frame)) = self.worker.io_mut().collect() {
            assert_valid(&frame);
        }
        let account = self.worker.account();
        assert!(account.is_conserved(), "{account:?}");
        let stats = &self.stats;
        assert_eq!(
            stats.frames_in.get() + stats.cut.get(),
            stats.frames_out.get() + stats.dropped() + account.in_hand,
            "a frame is neither sent nor dropped nor waiting"
        );
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
