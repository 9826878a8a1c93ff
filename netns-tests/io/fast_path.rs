//! The fast path, packet by packet, by the kernel's own test run: what it sends is what the workers would have sent.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use xvs::{
    addr::{L4Proto, MacAddr, PortId},
    balance::{
        NextHop,
        rewrite::{self, Ends, Part, Place, Tunnel, TunnelKind},
    },
    sys::{
        clock,
        steer::{
            FastFlow, FastHop, FastMethod, FastPath, FastSizes, FastTarget, FastTraffic,
            FastTunnel, FlowHandle, Hook, Left, Steering,
        },
    },
    time::Instant,
};

/// Makes a segment something that is not plain.
type Change = fn(&mut TcpHeader);

pub(super) const OWN: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const HOP: NextHop = NextHop {
    port: PortId(1),
    source: MacAddr([2, 0, 0, 0, 0, 0xa1]),
    destination: MacAddr([2, 0, 0, 0, 0, 0xa2]),
    mtu: 1500,
};
const WAY: NextHop = NextHop {
    port: PortId(0),
    source: MacAddr([2, 0, 0, 0, 0, 0xb1]),
    destination: MacAddr([2, 0, 0, 0, 0, 0xb2]),
    mtu: 1500,
};
const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const REAL4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 3);
const US4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const REAL6: Ipv6Addr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 3);
const US6: Ipv6Addr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1);
const CLIENT_PORT: u16 = 40_000;
const VPORT: u16 = 80;
const SLOT: u32 = 7;
const SERVICE: u64 = 0x0123_4567_89ab_cdef;
const EPOCH: NonZeroU32 = NonZeroU32::new(3).unwrap();
/// Slots of the next hops to the real server and to the client.
const TO_REAL: u32 = 2;
const TO_CLIENT: u32 = 5;
/// The number of the routes.
const WAYS: u16 = 9;

/// A packet to build.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) from: (IpAddr, u16),
    pub(super) to: (IpAddr, u16),
    pub(super) protocol: L4Proto,
    pub(super) data: Vec<u8>,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    pub(super) padding: usize,
    pub(super) no_sum: bool,
    pub(super) flags: fn(&mut TcpHeader),
}

impl Spec {
    pub(super) fn new(from: (IpAddr, u16), to: (IpAddr, u16), protocol: L4Proto) -> Self {
        Self {
            from,
            to,
            protocol,
            data: (0..33).collect(),
            tos: 0,
            ttl: 64,
            dont_fragment: true,
            padding: 0,
            no_sum: false,
            flags: |_| (),
        }
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2(PEER, OWN);
        let mut frame = Vec::new();
        let ip: PacketBuilderStep<_> = match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => eth.ipv4(from.octets(), to.octets(), self.ttl),
            (IpAddr::V6(from), IpAddr::V6(to)) => eth.ipv6(from.octets(), to.octets(), self.ttl),
            _ => unreachable!("one family"),
        };
        if self.protocol == L4Proto::Tcp {
            let mut header = TcpHeader::new(self.from.1, self.to.1, 1000, 512);
            header.ack = true;
            (self.flags)(&mut header);
            ip.tcp_header(header).write(&mut frame, &self.data).unwrap();
        } else {
            ip.udp(self.from.1, self.to.1)
                .write(&mut frame, &self.data)
                .unwrap();
        }
        if self.from.0.is_ipv4() {
            frame[15] = self.tos;
            frame[20] = if self.dont_fragment { 0x40 } else { 0 };
            sum_header(&mut frame);
            if self.no_sum && self.protocol == L4Proto::Udp {
                frame[40..42].fill(0);
            }
        } else {
            frame[14] = 0x60 | self.tos >> 4;
            frame[15] = self.tos << 4 | 5;
        }
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    fn place(&self) -> Place {
        Place {
            network: 14,
            transport: if self.from.0.is_ipv4() { 20 } else { 40 },
            protocol: self.protocol,
            part: Part::Whole,
        }
    }
}

/// Computes the checksum of an IPv4 header in a frame anew.
fn sum_header(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let words = frame[14..34].chunks(2);
    let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// A flow of one family and protocol, handed down.
struct Lab {
    steering: Steering,
    six: bool,
    protocol: L4Proto,
    flow: FlowHandle,
}

impl Lab {
    fn new(six: bool, protocol: L4Proto, method: FastMethod) -> Self {
        let sizes = FastSizes {
            flows: 16_384,
            reals: 64,
            hops: 64,
        };
        let seed = [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321];
        let steering = Steering::load_with(Hook::Xdp, &[], Some((sizes, seed))).unwrap();
        let fast = steering.fast_path().unwrap();
        let hop = |hop: NextHop| FastHop {
            ifindex: 1 + u32::from(hop.port.0),
            mtu: hop.mtu,
            destination: hop.destination,
            source: hop.source,
        };
        assert!(fast.set_hop(TO_REAL, Some(&hop(HOP))));
        assert!(fast.set_hop(TO_CLIENT, Some(&hop(WAY))));
        fast.set_ways(WAYS);
        fast.set_pmtu_disc(true);
        let addr = match method {
            FastMethod::Tunnel { local, .. } => by_family(local.is_ipv6(), REAL4, REAL6),
            _ => by_family(six, REAL4, REAL6),
        };
        let target = FastTarget {
            epoch: EPOCH,
            hop: TO_REAL,
            addr,
            method,
            service: SERVICE,
        };
        assert!(fast.set_target(SLOT, Some(&target)));
        let nat = matches!(method, FastMethod::Nat { .. });
        let flow = flow(six, protocol);
        fast.mark(flow.vip.0, nat.then_some(addr));
        let flow = fast.begin(&flow, now().tick()).unwrap();
        Self {
            steering,
            six,
            protocol,
            flow,
        }
    }

    fn fast(&self) -> &FastPath {
        self.steering.fast_path().unwrap()
    }

    fn asked(&self) -> Spec {
        let flow = flow(self.six, self.protocol);
        Spec::new(flow.client, flow.vip, self.protocol)
    }

    fn answer(&self, port: u16) -> Spec {
        let flow = flow(self.six, self.protocol);
        let real = (by_family(self.six, REAL4, REAL6), port);
        Spec::new(real, flow.client, self.protocol)
    }

    fn forward(&self, frame: &[u8]) -> Option<Vec<u8>> {
        self.steering.forward(frame, MacAddr(OWN)).unwrap()
    }
}

fn now() -> Instant {
    clock::now()
}

fn by_family(six: bool, four: Ipv4Addr, other: Ipv6Addr) -> IpAddr {
    if six { other.into() } else { four.into() }
}

fn flow(six: bool, protocol: L4Proto) -> FastFlow {
    FastFlow {
        protocol: protocol.number(),
        client: (by_family(six, CLIENT4, CLIENT6), CLIENT_PORT),
        vip: (by_family(six, VIP4, VIP6), VPORT),
        real: (SLOT, EPOCH.get()),
        way: Some((TO_CLIENT, WAYS)),
        spread: 0xdead_beef,
        worker: 2,
    }
}

/// Random packets of one kind: most are forwarded, and then as the workers would.
fn compare(lab: &Lab, base: &Spec, expect: impl Fn(&Spec, &mut Vec<u8>, &[u8])) {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..300 {
        let spec = Spec {
            data: (0..random.usize(0..1400)).map(|_| random.u8(..)).collect(),
            tos: random.u8(..),
            ttl: random.u8(2..),
            dont_fragment: random.bool(),
            padding: random.usize(0..8),
            no_sum: random.bool() && !lab.six,
            ..base.clone()
        };
        let frame = spec.frame();
        let sent = lab.forward(&frame);
        let sent = sent.unwrap_or_else(|| panic!("left to others: {spec:?}"));
        let mut expected = frame;
        expect(&spec, &mut expected, &sent);
        assert_eq!(sent, expected, "{spec:?}");
    }
}

const FAMILIES: [bool; 2] = [false, true];
const PROTOCOLS: [L4Proto; 2] = [L4Proto::Tcp, L4Proto::Udp];

#[test]
fn direct_routing_is_the_workers() {
    for six in FAMILIES {
        for protocol in PROTOCOLS {
            let lab = Lab::new(six, protocol, FastMethod::Dr);
            compare(&lab, &lab.asked(), |_, frame, _| match six {
                false => rewrite::direct_routing(frame, 14, &HOP),
                true => rewrite::direct_routing_v6(frame, 14, &HOP),
            });
            assert!(lab.forward(&lab.answer(VPORT).frame()).is_none());
        }
    }
}

#[test]
fn nat_is_the_workers_in_both_directions() {
    for six in FAMILIES {
        for protocol in PROTOCOLS {
            for port in [8080, 0] {
                let lab = Lab::new(six, protocol, FastMethod::Nat { port });
                let there = if port == 0 { VPORT } else { port };
                compare(&lab, &lab.asked(), |spec, frame, _| {
                    let place = spec.place();
                    match six {
                        false => rewrite::nat_to_real(frame, &place, (REAL4, there), &HOP),
                        true => rewrite::nat_to_real(frame, &place, (REAL6, there), &HOP),
                    }
                    .unwrap();
                });
                compare(&lab, &lab.answer(there), |spec, frame, _| {
                    let place = spec.place();
                    match six {
                        false => rewrite::nat_to_client(frame, &place, (VIP4, VPORT), &WAY),
                        true => rewrite::nat_to_client(frame, &place, (VIP6, VPORT), &WAY),
                    }
                    .unwrap();
                });
                assert!(lab.forward(&lab.answer(there + 1).frame()).is_none());
            }
        }
    }
}

#[test]
fn tunnels_are_the_workers() {
    let kinds = [
        (FastTunnel::Ipip, TunnelKind::Ipip),
        (FastTunnel::Gre, TunnelKind::Gre { checksum: false }),
        (
            FastTunnel::Gue(6080),
            TunnelKind::Gue {
                port: 6080,
                checksum: false,
            },
        ),
    ];
    for six in FAMILIES {
        for outer in FAMILIES {
            for (fast, kind) in kinds {
                for spread_bits in [0, 16] {
                    let local = by_family(outer, US4, US6);
                    let method = FastMethod::Tunnel {
                        kind: fast,
                        local,
                        spread_bits,
                        mtu: None,
                    };
                    let lab = Lab::new(six, L4Proto::Udp, method);
                    let spread = flow(six, L4Proto::Udp).spread;
                    compare(&lab, &lab.asked(), |_, frame, sent| {
                        let ends = if outer {
                            Ends::V6 {
                                source: match spread_bits {
                                    0 => US6,
                                    bits => rewrite::spread_source_v6(US6, 128 - bits, spread),
                                },
                                destination: REAL6,
                            }
                        } else {
                            Ends::V4 {
                                source: match spread_bits {
                                    0 => US4,
                                    bits => rewrite::spread_source_v4(US4, 32 - bits, spread),
                                },
                                destination: REAL4,
                            }
                        };
                        let tunnel = Tunnel {
                            kind,
                            ends,
                            // Any, where there is one.
                            id: u16::from_be_bytes([sent[18], sent[19]]),
                            pmtu_disc: true,
                            source_port: rewrite::source_port(spread),
                        };
                        let overhead = usize::from(rewrite::overhead(kind, ends.family()));
                        frame.splice(0..0, vec![0; overhead]);
                        let length = rewrite::encapsulate(frame, 14, &tunnel, &HOP).unwrap();
                        frame.truncate(length);
                    });
                }
            }
        }
    }
}

/// What is not plain is left to the workers, unchanged.
#[test]
fn what_is_odd_goes_up() {
    for six in FAMILIES {
        let lab = Lab::new(six, L4Proto::Tcp, FastMethod::Nat { port: 8080 });
        let goes_up = |what: &str, frame: &[u8]| {
            assert_eq!(lab.forward(frame), None, "{what}, IPv6: {six}");
        };
        let plain = lab.asked();
        assert!(lab.forward(&plain.frame()).is_some());
        let flags: [(&str, Change); 4] = [
            ("SYN", |tcp| tcp.syn = true),
            ("FIN", |tcp| tcp.fin = true),
            ("RST", |tcp| tcp.rst = true),
            ("no ACK", |tcp| tcp.ack = false),
        ];
        for (what, flags) in flags {
            let spec = plain.clone();
            goes_up(what, &Spec { flags, ..spec }.frame());
        }
        goes_up(
            "TTL 1",
            &Spec {
                ttl: 1,
                ..plain.clone()
            }
            .frame(),
        );
        let long = vec![0; 1481];
        goes_up(
            "too large",
            &Spec {
                data: long,
                ..plain.clone()
            }
            .frame(),
        );
        let other = (plain.from.0, CLIENT_PORT + 1);
        goes_up(
            "another flow",
            &Spec {
                from: other,
                ..plain.clone()
            }
            .frame(),
        );
        let other = (plain.to.0, VPORT + 1);
        goes_up(
            "another service",
            &Spec {
                to: other,
                ..plain.clone()
            }
            .frame(),
        );
        let udp = Spec {
            protocol: L4Proto::Udp,
            ..plain.clone()
        };
        goes_up("another protocol", &udp.frame());
        let change = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = plain.frame();
            change(&mut frame);
            frame
        };
        goes_up("another station", &change(&|frame| frame[5] = 9));
        goes_up("cut", &change(&|frame| frame.truncate(frame.len() - 1)));
        let tagged = crate::bed::vlan(&plain.frame(), 0x8100, 5);
        goes_up("a VLAN tag", &tagged);
        if six {
            goes_up("an extension", &change(&|frame| frame[20] = 60));
        } else {
            let summed = |at: usize, value: u8| {
                change(&|frame| {
                    frame[at] = value;
                    sum_header(frame);
                })
            };
            goes_up("options", &summed(14, 0x46));
            goes_up("a fragment", &summed(20, 0x20));
            goes_up("a later fragment", &summed(21, 1));
            goes_up("a wrong sum", &change(&|frame| frame[25] ^= 1));
        }
        // What a sender leaves to its card: just the sum of the pseudo-header.
        let partial = change(&|frame| {
            let start = if six { 54 } else { 34 };
            let length = u16::try_from(frame.len() - start).unwrap();
            let addresses = if six { 22..54 } else { 26..34 };
            let words = frame[addresses].chunks(2);
            let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
            let sum = sum + 6 + u32::from(length);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        });
        goes_up("an unfinished sum", &partial);
    }
}

/// One write changes what becomes of every flow.
#[test]
fn control_takes_flows_back_by_one_write() {
    let lab = Lab::new(false, L4Proto::Udp, FastMethod::Nat { port: 8080 });
    let (asked, answer) = (lab.asked().frame(), lab.answer(8080).frame());
    let are_forwarded = || [&asked, &answer].map(|frame| lab.forward(frame).is_some());
    assert_eq!(are_forwarded(), [true, true]);
    let fast = lab.fast();
    fast.set_ways(WAYS + 1);
    assert_eq!(are_forwarded(), [true, false], "the routes are others");
    assert!(!fast.has_way(lab.flow, WAYS + 1));
    fast.set_way(lab.flow, Some((TO_CLIENT, WAYS + 1)));
    assert!(fast.has_way(lab.flow, WAYS + 1));
    assert_eq!(are_forwarded(), [true, true]);
    fast.set_way(lab.flow, None);
    assert_eq!(are_forwarded(), [true, false], "no way to the client");
    fast.set_way(lab.flow, Some((TO_CLIENT, WAYS + 1)));
    assert!(fast.set_hop(TO_REAL, None));
    assert_eq!(are_forwarded(), [false, true], "the neighbour is unknown");
    let hop = FastHop {
        ifindex: 3,
        mtu: 1500,
        destination: MacAddr([2, 0, 0, 0, 0, 0xee]),
        source: HOP.source,
    };
    assert!(fast.set_hop(TO_REAL, Some(&hop)));
    assert_eq!(lab.forward(&asked).unwrap()[..6], hop.destination.0);
    let target = FastTarget {
        epoch: EPOCH.saturating_add(1),
        hop: TO_REAL,
        addr: REAL4.into(),
        method: FastMethod::Nat { port: 8080 },
        service: SERVICE,
    };
    assert!(fast.set_target(SLOT, Some(&target)));
    assert_eq!(are_forwarded(), [false, false], "the slot is another's");
    let target = FastTarget {
        epoch: EPOCH,
        ..target
    };
    assert!(fast.set_target(SLOT, Some(&target)));
    assert_eq!(are_forwarded(), [true, true]);
    assert!(fast.set_target(SLOT, None));
    assert_eq!(are_forwarded(), [false, false]);
    assert!(fast.set_target(SLOT, Some(&target)));
    fast.end(lab.flow, now().tick());
    assert_eq!(are_forwarded(), [false, false]);
    assert!(!fast.set_target(64, Some(&target)), "no room");
    assert!(!fast.set_hop(64, Some(&hop)), "no room");
}

#[test]
fn a_flow_tells_when_it_was_seen_and_a_real_server_what_went_through() {
    let lab = Lab::new(false, L4Proto::Udp, FastMethod::Nat { port: 8080 });
    let fast = lab.fast();
    let other = FastFlow {
        client: (CLIENT4.into(), 1),
        ..flow(false, L4Proto::Udp)
    };
    let long_ago = Instant::from_nanos(0).tick();
    let flow = fast.begin(&other, long_ago).unwrap();
    assert_eq!(fast.seen(flow), (long_ago, 0));
    let mut spec = lab.asked();
    spec.from.1 = 1;
    let frame = spec.frame();
    let before = now().tick();
    for _ in 0..12 {
        assert!(lab.forward(&frame).is_some());
    }
    let (seen, packets) = fast.seen(flow);
    // The kernel's coarse clock is behind by up to a jiffy.
    assert!(
        seen.since(before).wrapping_add(1) <= 2,
        "{seen:?} {before:?}"
    );
    assert_eq!(packets, xvs::sys::steer::ASSURED_PACKETS);
    let mut answer = lab.answer(8080);
    answer.to.1 = 1;
    assert!(lab.forward(&answer.frame()).is_some());
    let length = u64::try_from(frame.len() - 14).unwrap();
    let counted = FastTraffic {
        connections: 0,
        packets: 12,
        bytes: 12 * length,
        packets_out: 1,
        bytes_out: length,
    };
    assert_eq!(fast.traffic(SLOT), counted);
    assert_eq!(fast.traffic(SLOT + 1), FastTraffic::default());
    fast.clear_traffic(SLOT);
    assert_eq!(fast.traffic(SLOT), FastTraffic::default());
}

/// Flows stay found while the table grows, and places are used again, but not at once.
#[test]
fn the_table_follows_the_number_of_flows() {
    let lab = Lab::new(false, L4Proto::Udp, FastMethod::Dr);
    let fast = lab.fast();
    let one = |n: u32| FastFlow {
        client: (Ipv4Addr::from_bits(0x0a40_0000 + n).into(), 7),
        ..flow(false, L4Proto::Udp)
    };
    let is_forwarded = |n: u32| {
        let mut spec = lab.asked();
        spec.from = one(n).client;
        lab.forward(&spec.frame()).is_some()
    };
    let start = now().tick();
    let flows: Vec<_> = (0..2000).map(|n| fast.begin(&one(n), start)).collect();
    let kept = flows.iter().flatten().count();
    assert!((900..1024).contains(&kept), "{kept} of a small table");
    assert!(fast.resize(3000));
    assert!(!fast.resize(3000), "not before it is settled");
    for (n, flow) in (0..).zip(&flows) {
        assert_eq!(is_forwarded(n), flow.is_some());
    }
    // They move.
    let moved = (0..).zip(&flows).map(|(n, flow)| {
        if flow.is_some_and(|flow| fast.is_at_home(flow, one(n).client, one(n).protocol)) {
            return *flow;
        }
        let new = fast.begin(&one(n), start);
        if let Some(old) = flow {
            fast.end(*old, start);
        }
        new
    });
    let moved: Vec<_> = moved.collect();
    fast.settle();
    assert!(moved.iter().flatten().count() > 1900);
    for (n, flow) in (0..).zip(&moved) {
        assert_eq!(is_forwarded(n), flow.is_some());
    }
    // A place rests before it has another flow.
    let (n, last) = (0..).zip(&moved).find(|(_, flow)| flow.is_some()).unwrap();
    fast.end(last.unwrap(), start);
    let soon = start;
    let later = (Instant::from_nanos(u64::from(start.raw()) * 100_000_000)
        + Duration::from_millis(300))
    .tick();
    assert_ne!(fast.begin(&one(n), soon), *last);
    assert!(fast.begin(&one(n), later).is_some());
}

/// A folder that goes with this.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What one run has, the next one finds in the files that it wrote: flows, real servers also while they have none, counts.
#[test]
fn what_a_run_leaves_is_what_the_next_one_finds() {
    for six in FAMILIES {
        let lab = Lab::new(six, L4Proto::Udp, FastMethod::Nat { port: 8080 });
        let fast = lab.fast();
        let frame = lab.asked().frame();
        for _ in 0..12 {
            assert!(lab.forward(&frame).is_some());
        }
        let start = now().tick();
        // Some find no place in a small table.
        let more = (1..200).map(|port| FastFlow {
            client: (flow(six, L4Proto::Udp).client.0, port),
            worker: 1,
            ..flow(six, L4Proto::Udp)
        });
        let (more, begun): (Vec<_>, Vec<_>) = more
            .filter_map(|one| Some((one, fast.begin(&one, start)?)))
            .unzip();
        assert!(more.len() > 180, "{}", more.len());
        // One that has ended is not left.
        fast.end(begun[0], start);
        fast.keep(
            SLOT,
            &FastTraffic {
                connections: 5,
                packets: 100,
                bytes: 1000,
                packets_out: 10,
                bytes_out: 7,
            },
        );
        assert!(fast.set_target(SLOT, None), "not now, but it is its");

        let folder = std::env::temp_dir().join(format!("xvs-left-{}-{six}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let _removed = Removed(folder.clone());
        let folder = &folder;
        fast.save(folder).unwrap();
        let left = Left::in_folder(folder).unwrap();
        let mut flows: Vec<_> = left.flows().collect();
        flows.sort_by_key(|left| left.flow.client.1);
        let expected = more[1..].iter().copied().chain([flow(six, L4Proto::Udp)]);
        let bare = |flow: FastFlow| FastFlow { way: None, ..flow };
        assert_eq!(
            flows.iter().map(|left| left.flow).collect::<Vec<_>>(),
            expected.map(bare).collect::<Vec<_>>()
        );
        assert!(
            flows[..more.len() - 1]
                .iter()
                .all(|left| left.seen == start && left.packets == 0)
        );
        assert_eq!(
            flows[more.len() - 1].packets,
            xvs::sys::steer::ASSURED_PACKETS
        );
        let target = FastTarget {
            epoch: EPOCH,
            hop: 0,
            addr: by_family(six, REAL4, REAL6),
            method: FastMethod::Nat { port: 8080 },
            service: SERVICE,
        };
        let reals: Vec<_> = left.reals().collect();
        assert_eq!(reals, [(SLOT, EPOCH.get(), target.identity())]);
        let length = u64::try_from(frame.len() - 14).unwrap();
        let totals = left.totals(SLOT);
        assert_eq!((totals.connections, totals.packets), (5, 112));
        assert_eq!(totals.bytes, 1000 + 12 * length);
        assert_eq!((totals.packets_out, totals.bytes_out), (10, 7));
        assert_eq!(left.totals(1 << 20), FastTraffic::default());

        // Of another version nothing is taken.
        let settings = folder.join("settings");
        let mut bytes = std::fs::read(&settings).unwrap();
        let last = bytes.len() - 4;
        bytes[last] ^= 1;
        std::fs::write(&settings, &bytes).unwrap();
        let other = Left::in_folder(folder).map(drop).unwrap_err();
        assert_eq!(other.kind(), std::io::ErrorKind::InvalidData);
        std::fs::write(&settings, []).unwrap();
        assert!(Left::in_folder(folder).is_err());
    }
}
