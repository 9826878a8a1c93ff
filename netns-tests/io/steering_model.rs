//! The steering program against a plain reading of its rules, on random tables and random packets.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{
    IpAuthHeader, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader,
};
use fastrand::Rng;
use xvs::{
    addr::{Endpoint, IpPrefix, L4Proto, MacAddr},
    sys::steer::{Decision, Hook, MatchRule, Outer, PortRange, Steered, Steering, Target},
};

use crate::bed::vlan;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Loopback: the kernel's test run comes in there.
const IFINDEX: u32 = 1;
const L4: [L4Proto; 3] = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
/// Few, so that random ones often meet.
const PORTS: [u16; 8] = [1, 53, 80, 81, 443, 1024, 6080, 65535];
const TABLES: usize = 80;
const PACKETS: usize = 150;
/// Extension headers that are followed.
const MAX_EXTENSIONS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fragment {
    Whole,
    /// IPv6: with a fragment header that says it is none.
    Atomic,
    First,
    Later,
}

/// An IPv6 extension header and its length in units of 8 bytes; for IPv4 a word of options.
#[derive(Clone, Copy, Debug)]
struct Extension(IpNumber, usize);

#[derive(Clone, Debug)]
struct Packet {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    /// Source and destination.
    ports: (u16, u16),
    fragment: Fragment,
    before: Vec<Extension>,
    /// Behind the fragment header.
    after: Vec<Extension>,
    icmp: Option<Box<Icmp>>,
}

#[derive(Clone, Debug)]
struct Icmp {
    kind: u8,
    quoted: Packet,
    /// Bytes that are quoted beyond the IP headers.
    beyond: usize,
}

#[derive(Clone, Debug)]
struct Frame {
    tags: usize,
    mac: [u8; 6],
    packet: Packet,
}

/// What a packet is looked up by.
#[derive(Clone, Copy)]
struct Flow {
    src: Endpoint,
    dst: Endpoint,
    proto: L4Proto,
    fragment: bool,
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let kind = if self.packet.dst.is_ipv4() {
            0x0800_u16
        } else {
            0x86dd
        };
        let mut frame = [&self.mac[..], &PEER, &kind.to_be_bytes()].concat();
        frame.extend(self.packet.bytes(usize::MAX));
        for tag in 0..self.tags {
            frame = vlan(&frame, if tag == 1 { 0x88a8 } else { 0x8100 }, 7);
        }
        frame
    }
}

impl Packet {
    /// The packet; of what the IP headers carry, that many bytes at most.
    fn bytes(&self, beyond: usize) -> Vec<u8> {
        let mut payload = self.payload();
        payload.truncate(beyond);
        if let (IpAddr::V4(src), IpAddr::V4(dst)) = (self.src, self.dst) {
            let mut ip = Ipv4Header {
                protocol: IpNumber(self.proto),
                source: src.octets(),
                destination: dst.octets(),
                time_to_live: 9,
                more_fragments: self.fragment == Fragment::First,
                fragment_offset: self.offset(),
                ..Ipv4Header::default()
            };
            ip.options = (&vec![1; self.before.len() * 4][..]).try_into().unwrap();
            return [&ip.to_bytes()[..], &payload].concat();
        }
        // From the inside out: each header names the next.
        let mut next = IpNumber(self.proto);
        let mut bytes = payload;
        for extension in self.after.iter().rev() {
            (bytes, next) = extension.around(next, &bytes);
        }
        if self.fragment != Fragment::Whole {
            let more = self.fragment == Fragment::First;
            let header = Ipv6FragmentHeader::new(next, self.offset(), more, 77);
            bytes = [&header.to_bytes()[..], &bytes].concat();
            next = IpNumber::IPV6_FRAGMENTATION_HEADER;
        }
        for extension in self.before.iter().rev() {
            (bytes, next) = extension.around(next, &bytes);
        }
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (self.src, self.dst) else {
            panic!("a packet of two families")
        };
        let ip = Ipv6Header {
            next_header: next,
            payload_length: u16::try_from(bytes.len()).unwrap(),
            source: src.octets(),
            destination: dst.octets(),
            hop_limit: 9,
            ..Ipv6Header::default()
        };
        [&ip.to_bytes()[..], &bytes].concat()
    }

    fn offset(&self) -> IpFragOffset {
        let offset = if self.fragment == Fragment::Later {
            3
        } else {
            0
        };
        offset.try_into().unwrap()
    }

    fn payload(&self) -> Vec<u8> {
        let Some(icmp) = &self.icmp else {
            let (source, destination) = self.ports;
            return [
                &source.to_be_bytes()[..],
                &destination.to_be_bytes(),
                &[0; 12],
            ]
            .concat();
        };
        let mut message = vec![icmp.kind, 0, 0, 0, 0, 0, 5, 0];
        message.extend(icmp.quoted.bytes(icmp.beyond));
        message
    }

    /// The protocol, as far as it can be found.
    fn seen_proto(&self) -> Option<u8> {
        if self.dst.is_ipv4() {
            return Some(self.proto);
        }
        let fragmented = matches!(self.fragment, Fragment::First | Fragment::Later);
        let headers = self.before.len() + usize::from(self.fragment != Fragment::Whole);
        let (headers, hidden) = if fragmented {
            (headers, !self.after.is_empty())
        } else {
            (headers + self.after.len(), false)
        };
        (headers <= MAX_EXTENSIONS && !hidden).then_some(self.proto)
    }

    fn is_fragment(&self) -> bool {
        matches!(self.fragment, Fragment::First | Fragment::Later)
    }

    fn flow(&self) -> Option<Flow> {
        Some(Flow {
            src: Endpoint::new(self.src, self.ports.0),
            dst: Endpoint::new(self.dst, self.ports.1),
            proto: L4Proto::from_number(self.seen_proto()?)?,
            fragment: self.is_fragment(),
        })
    }
}

impl Extension {
    fn around(self, next: IpNumber, inner: &[u8]) -> (Vec<u8>, IpNumber) {
        let Self(kind, units) = self;
        let header = if kind == IpNumber::AUTHENTICATION_HEADER {
            let icv = vec![0xee; units * 8 - 4];
            IpAuthHeader::new(next, 1, 2, &icv)
                .unwrap()
                .to_bytes()
                .to_vec()
        } else {
            let body = vec![0; units * 8 - 2];
            Ipv6RawExtHeader::new_raw(next, &body)
                .unwrap()
                .to_bytes()
                .to_vec()
        };
        ([&header, inner].concat(), kind)
    }
}

/// What should become of a frame.
fn expected(table: &[Steered], frame: &Frame) -> Decision {
    let packet = &frame.packet;
    let ours = frame.mac == MAC
        && frame.tags <= 2
        && match (&packet.icmp, packet.flow()) {
            (Some(icmp), _) => is_our_error(table, packet, icmp),
            (None, Some(flow)) => is_ours(table, &flow),
            (None, None) => false,
        };
    if ours {
        Decision::Steer
    } else {
        Decision::Pass
    }
}

fn is_ours(table: &[Steered], flow: &Flow) -> bool {
    let port = |wanted: u16, found: u16| flow.fragment || wanted == 0 || wanted == found;
    let within = |range: PortRange, found: u16| {
        flow.fragment || (range.first()..=range.last()).contains(&found)
    };
    table.iter().any(|wanted| match wanted {
        Steered::Service(service) => {
            service.proto == flow.proto
                && service.endpoint.addr == flow.dst.addr
                && port(service.endpoint.port, flow.dst.port)
        }
        Steered::Prefix {
            dst,
            port: wanted,
            proto,
        } => *proto == flow.proto && dst.contains(flow.dst.addr) && port(*wanted, flow.dst.port),
        Steered::Rule(rule) => {
            rule.proto == flow.proto
                && rule.dst.contains(flow.dst.addr)
                && rule.src.is_none_or(|src| src.contains(flow.src.addr))
                && within(rule.dst_ports, flow.dst.port)
                && within(rule.src_ports, flow.src.port)
        }
        Steered::Return(real) => {
            real.proto == flow.proto
                && real.endpoint.addr == flow.src.addr
                && port(real.endpoint.port, flow.src.port)
                && !table.contains(&Steered::Local(flow.dst.addr))
        }
        Steered::Tunnel { .. } | Steered::Local(_) => false,
    })
}

fn is_our_error(table: &[Steered], packet: &Packet, icmp: &Icmp) -> bool {
    let is_error = match packet.dst {
        IpAddr::V4(_) => [3, 4, 11, 12].contains(&icmp.kind),
        IpAddr::V6(_) => (1..=4).contains(&icmp.kind),
    };
    let quoted = &icmp.quoted;
    if !is_error
        || packet.is_fragment()
        || packet.seen_proto().is_none()
        || quoted.fragment == Fragment::Later
        || quoted.src != packet.dst
    {
        return false;
    }
    let flow = quoted.flow();
    if flow.is_some() && icmp.beyond < 4 {
        return false;
    }
    let answered = flow.is_some_and(|flow| {
        let answer = Flow {
            src: flow.dst,
            dst: flow.src,
            fragment: false,
            ..flow
        };
        is_ours(table, &answer)
    });
    let Some(proto) = quoted.seen_proto() else {
        return false;
    };
    answered
        || table.iter().any(|wanted| match wanted {
            Steered::Tunnel { addr, outer } => {
                *addr == quoted.dst
                    && match outer {
                        Outer::Ipip => proto == 4 || proto == 41,
                        Outer::Gre => proto == 47,
                        Outer::Gue(port) => proto == 17 && *port == quoted.ports.1,
                    }
            }
            _ => false,
        })
}

/// Random things from small pools.
struct Dice(Rng);

impl Dice {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.usize(..from.len())]
    }

    /// One of ten addresses, in two networks.
    fn addr(&mut self, v4: bool) -> IpAddr {
        let (net, host) = (self.0.u8(1..3), self.0.u8(1..6));
        if v4 {
            IpAddr::from([10, net, 0, host])
        } else {
            let mut addr = Ipv6Addr::UNSPECIFIED.octets();
            [addr[0], addr[1], addr[2], addr[15]] = [0x20, 1, net, host];
            IpAddr::from(addr)
        }
    }

    fn net(&mut self, v4: bool) -> IpPrefix {
        let lens: &[u8] = if v4 {
            &[0, 8, 15, 16, 24, 30, 31, 32]
        } else {
            &[0, 16, 23, 24, 64, 126, 128]
        };
        IpPrefix::new(self.addr(v4), self.pick(lens)).unwrap()
    }

    fn range(&mut self) -> PortRange {
        let (a, b) = (self.pick(&PORTS), self.pick(&PORTS));
        match self.0.u8(..4) {
            0 => PortRange::ANY,
            1 => PortRange::new(a, a).unwrap(),
            _ => PortRange::new(a.min(b), a.max(b)).unwrap(),
        }
    }

    fn service(&mut self, v4: bool) -> Target {
        let port = if self.0.u8(..5) == 0 {
            0
        } else {
            self.pick(&PORTS)
        };
        Target {
            endpoint: Endpoint::new(self.addr(v4), port),
            proto: self.pick(&L4),
        }
    }

    fn table_entry(&mut self, v4: bool) -> Steered {
        match self.0.u8(..12) {
            0..4 => Steered::Service(self.service(v4)),
            4 => Steered::Prefix {
                dst: self.net(v4),
                port: self.service(v4).endpoint.port,
                proto: self.pick(&L4),
            },
            5 => Steered::Rule(MatchRule {
                proto: self.pick(&L4),
                dst: self.net(v4),
                dst_ports: self.range(),
                src: self.0.bool().then(|| self.net(v4)),
                src_ports: self.range(),
            }),
            6..8 => Steered::Return(self.service(v4)),
            8..10 => Steered::Local(self.addr(v4)),
            _ => Steered::Tunnel {
                addr: self.addr(v4),
                outer: self.pick(&[Outer::Ipip, Outer::Gre, Outer::Gue(6080)]),
            },
        }
    }

    fn extensions(&mut self, v4: bool, most: usize) -> Vec<Extension> {
        let kinds = [
            IpNumber::IPV6_HEADER_HOP_BY_HOP,
            IpNumber::IPV6_ROUTE_HEADER,
            IpNumber::IPV6_DESTINATION_OPTIONS,
            IpNumber::AUTHENTICATION_HEADER,
        ];
        let count = if v4 || self.0.bool() {
            self.0.usize(..=most)
        } else {
            0
        };
        (0..count)
            .map(|_| Extension(self.pick(&kinds), self.0.usize(2..4)))
            .collect()
    }

    fn packet(&mut self, v4: bool, protos: &[u8]) -> Packet {
        use Fragment::{Atomic, First, Later, Whole};
        let fragments = if v4 {
            [Whole, First, Later]
        } else {
            [Atomic, First, Later]
        };
        let fragment = if self.0.u8(..3) == 0 {
            self.pick(&fragments)
        } else {
            Whole
        };
        let after = if v4 || fragment == Whole {
            Vec::new()
        } else {
            self.extensions(v4, 2)
        };
        Packet {
            src: self.addr(v4),
            dst: self.addr(v4),
            proto: self.pick(protos),
            ports: (self.pick(&PORTS), self.pick(&PORTS)),
            fragment,
            before: self.extensions(v4, 6),
            after,
            icmp: None,
        }
    }

    /// Most of the time, makes the packet one that an entry of `table` is for; or, `back`, one that such
    /// a packet would answer.
    fn aim(&mut self, packet: &mut Packet, table: &[Steered], back: bool) {
        let (mut near, mut far) = (
            Endpoint::new(packet.dst, packet.ports.1),
            Endpoint::new(packet.src, packet.ports.0),
        );
        if back {
            std::mem::swap(&mut near, &mut far);
        }
        let proto = match self.pick(table) {
            Steered::Service(Target { endpoint, proto }) => {
                near = endpoint;
                proto
            }
            Steered::Prefix { dst, port, proto } => {
                near = Endpoint::new(dst.addr(), port);
                proto
            }
            Steered::Rule(rule) => {
                near = Endpoint::new(rule.dst.addr(), rule.dst_ports.first());
                rule.proto
            }
            Steered::Return(Target { endpoint, proto }) => {
                far = endpoint;
                proto
            }
            Steered::Tunnel { addr, .. } => {
                far.addr = addr;
                L4Proto::Udp
            }
            Steered::Local(addr) => {
                near.addr = addr;
                L4Proto::Tcp
            }
        };
        let of_one_family = [near.addr, far.addr]
            .iter()
            .all(|a| a.is_ipv4() == packet.dst.is_ipv4());
        if !of_one_family || self.0.u8(..5) == 0 {
            return;
        }
        if back {
            std::mem::swap(&mut near, &mut far);
        }
        (packet.src, packet.dst) = (far.addr, near.addr);
        packet.ports = (far.port, near.port);
        if self.0.u8(..3) != 0 && packet.icmp.is_none() {
            packet.proto = proto.number();
        }
    }

    /// A packet, or an error about one.
    fn frame(&mut self, v4: bool, table: &[Steered]) -> Frame {
        let mut packet = self.packet(v4, &[6, 17, 132, 6, 17, 132, 50, 89]);
        self.aim(&mut packet, table, false);
        if self.0.bool() {
            packet.proto = if v4 { 1 } else { 58 };
            let mut quoted = self.packet(v4, &[6, 17, 132, 4, 41, 47, 17, 89]);
            self.aim(&mut quoted, table, true);
            if self.0.u8(..8) != 0 {
                packet.dst = quoted.src;
            }
            packet.icmp = Some(Box::new(Icmp {
                kind: self.pick(&[0, 1, 2, 3, 3, 3, 4, 5, 11, 12, 13, 128]),
                quoted,
                beyond: self.pick(&[3, 4, 8, 100, 100, 100]),
            }));
        }
        let mut mac = MAC;
        if self.0.u8(..20) == 0 {
            mac[5] = 9;
        }
        let tags = if self.0.bool() { self.0.usize(..4) } else { 0 };
        Frame { tags, mac, packet }
    }
}

#[test]
fn the_program_decides_as_its_rules_read() {
    let mut steered = std::collections::BTreeMap::new();
    for hook in [Hook::Xdp, Hook::Ingress] {
        for seed in 0..TABLES {
            let mut dice = Dice(Rng::with_seed(seed as u64));
            let mut steering = Steering::load(hook, &[]).unwrap();
            steering
                .set_stations(IFINDEX, &[MacAddr(MAC)])
                .complete()
                .unwrap();
            let size = dice.0.usize(4..20);
            let mut table: Vec<Steered> = (0..size)
                .map(|i| dice.table_entry((i + seed) % 2 == 0))
                .collect();
            for wanted in &table {
                steering.change(&[*wanted], &[]).complete().unwrap();
            }
            // Some are not to stay, and may share entries with those that do.
            for _ in 0..dice.0.usize(..8) {
                let v4 = dice.0.bool();
                let passing = dice.table_entry(v4);
                steering.change(&[passing], &[]).complete().unwrap();
                steering.change(&[], &[passing]).complete().unwrap();
                table.retain(|kept| *kept != passing);
            }
            for _ in 0..PACKETS {
                let v4 = dice.0.bool();
                let frame = dice.frame(v4, &table);
                let bytes = frame.bytes();
                let decision = steering.judge(&bytes).unwrap();
                assert_eq!(
                    decision,
                    expected(&table, &frame),
                    "{hook:?}, seed {seed}: {frame:?}: {bytes:02x?}\n{table:#?}"
                );
                if decision == Decision::Steer {
                    let packet = &frame.packet;
                    let kind = (
                        packet.dst.is_ipv4(),
                        packet.icmp.is_some(),
                        packet.is_fragment(),
                    );
                    *steered.entry(kind).or_insert(0) += 1;
                }
            }
        }
    }
    // Whole, fragments and errors, of both families: none of them by chance only.
    assert_eq!(steered.len(), 6, "{steered:?}");
    assert!(steered.values().all(|times| *times > 100), "{steered:?}");
}
