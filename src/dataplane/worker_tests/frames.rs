//! Packets to put on the wire and to expect there, built by etherparse; SCTP and fragments by hand.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use etherparse::{IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, TcpHeader, UdpHeader};

use super::{OUR_MAC, ROUTER_MAC};
use crate::wire::sctp;

/// Flags of TCP segments.
pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 16;
pub(super) const FIN: u8 = 1;
pub(super) const RST: u8 = 4;

/// What is in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum L4 {
    /// A segment with these flags.
    Tcp(u8),
    Udp,
    /// A packet whose first chunk has this type.
    Sctp(u8),
}

/// A packet.
#[derive(Clone, Debug)]
pub(super) struct Pkt {
    pub(super) from: (IpAddr, u16),
    pub(super) to: (IpAddr, u16),
    pub(super) l4: L4,
    pub(super) data: Vec<u8>,
    pub(super) ttl: u8,
    /// DSCP and ECN.
    pub(super) tos: u8,
    /// IPv4: "don't fragment".
    pub(super) df: bool,
    /// VLAN identifiers, the outer one first.
    pub(super) tags: Vec<u16>,
    /// UDP without a checksum.
    pub(super) no_sum: bool,
    /// IPv4: identification.
    pub(super) id: u16,
}

pub(super) type End<'a> = (&'a str, u16);

fn end((addr, port): End<'_>) -> (IpAddr, u16) {
    (addr.parse().unwrap(), port)
}

pub(super) fn tcp(from: End<'_>, to: End<'_>, flags: u8) -> Pkt {
    Pkt {
        from: end(from),
        to: end(to),
        l4: L4::Tcp(flags),
        data: b"hello".to_vec(),
        ttl: 64,
        tos: 0,
        df: false,
        tags: Vec::new(),
        no_sum: false,
        id: 77,
    }
}

pub(super) fn udp(from: End<'_>, to: End<'_>) -> Pkt {
    Pkt {
        l4: L4::Udp,
        ..tcp(from, to, 0)
    }
}

pub(super) fn sctp(from: End<'_>, to: End<'_>, chunk: u8) -> Pkt {
    Pkt {
        l4: L4::Sctp(chunk),
        ..tcp(from, to, 0)
    }
}

impl Pkt {
    /// The same with other ends, one hop later: what NAT makes of it.
    pub(super) fn renamed(&self, from: (IpAddr, u16), to: (IpAddr, u16)) -> Self {
        Self {
            from,
            to,
            ttl: self.ttl - 1,
            ..self.clone()
        }
    }

    /// The same, one hop later.
    pub(super) fn passed(&self) -> Self {
        self.renamed(self.from, self.to)
    }

    pub(super) fn with_data(mut self, len: usize) -> Self {
        self.data = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
        self
    }

    pub(super) fn with_df(mut self) -> Self {
        self.df = true;
        self
    }

    pub(super) fn with_ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    fn protocol(&self) -> IpNumber {
        match self.l4 {
            L4::Tcp(_) => IpNumber::TCP,
            L4::Udp => IpNumber::UDP,
            L4::Sctp(_) => IpNumber::SCTP,
        }
    }

    /// Layer 4 with its checksum.
    pub(super) fn segment(&self) -> Vec<u8> {
        let mut bytes = match self.l4 {
            L4::Tcp(flags) => {
                let mut header = TcpHeader::new(self.from.1, self.to.1, 1000, 512);
                header.syn = flags & SYN != 0;
                header.ack = flags & ACK != 0;
                header.fin = flags & FIN != 0;
                header.rst = flags & RST != 0;
                header.acknowledgment_number = if header.ack { 5000 } else { 0 };
                header.checksum = match (self.from.0, self.to.0) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => {
                        header.calc_checksum_ipv4_raw(a.octets(), b.octets(), &self.data)
                    }
                    (IpAddr::V6(a), IpAddr::V6(b)) => {
                        header.calc_checksum_ipv6_raw(a.octets(), b.octets(), &self.data)
                    }
                    _ => unreachable!(),
                }
                .unwrap();
                header.to_bytes().to_vec()
            }
            L4::Udp => {
                let (from, to) = (self.from.1, self.to.1);
                let header = match (self.from.0, self.to.0) {
                    _ if self.no_sum => UdpHeader::without_ipv4_checksum(from, to, self.data.len()),
                    (IpAddr::V4(a), IpAddr::V4(b)) => {
                        let ip = Ipv4Header::new(0, 1, IpNumber::UDP, a.octets(), b.octets());
                        UdpHeader::with_ipv4_checksum(from, to, &ip.unwrap(), &self.data)
                    }
                    (IpAddr::V6(a), IpAddr::V6(b)) => {
                        let ip = ip6(a, b, IpNumber::UDP, 1, 0, 0);
                        UdpHeader::with_ipv6_checksum(from, to, &ip, &self.data)
                    }
                    _ => unreachable!(),
                };
                header.unwrap().to_bytes().to_vec()
            }
            L4::Sctp(chunk) => {
                let mut bytes = Vec::new();
                bytes.extend(self.from.1.to_be_bytes());
                bytes.extend(self.to.1.to_be_bytes());
                bytes.extend([0, 0, 0, 9, 0, 0, 0, 0]);
                let length = u16::try_from(4 + self.data.len()).unwrap();
                bytes.extend([chunk, 0]);
                bytes.extend(length.to_be_bytes());
                bytes
            }
        };
        bytes.extend(&self.data);
        if let L4::Sctp(_) = self.l4 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            sctp::set_checksum(&mut bytes);
        }
        bytes
    }

    /// From the IP header on.
    pub(super) fn packet(&self) -> Vec<u8> {
        let segment = self.segment();
        [self.header(segment.len(), self.protocol()), segment].concat()
    }

    fn header(&self, payload: usize, protocol: IpNumber) -> Vec<u8> {
        match (self.from.0, self.to.0) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mut ip = ip4(a, b, protocol, self.ttl, self.tos, payload);
                ip.dont_fragment = self.df;
                ip.identification = self.id;
                ip.header_checksum = ip.calc_header_checksum();
                ip.to_bytes().to_vec()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let ip = ip6(a, b, protocol, self.ttl, self.tos, payload);
                ip.to_bytes().to_vec()
            }
            _ => unreachable!(),
        }
    }

    /// As a client's side sends it.
    pub(super) fn frame(&self) -> Vec<u8> {
        self.between(ROUTER_MAC, OUR_MAC)
    }

    /// From a station to another.
    pub(super) fn between(&self, source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
        self.framed(source, destination, &self.packet())
    }

    pub(super) fn framed(&self, source: [u8; 6], destination: [u8; 6], packet: &[u8]) -> Vec<u8> {
        framed(source, destination, &self.tags, packet)
    }

    /// The fragment of the packet that holds these bytes of layer 4; the last one ends where that does.
    pub(super) fn fragment(&self, part: Range<usize>) -> Vec<u8> {
        fragment_of(&self.packet(), part, u32::from(self.id))
    }
}

/// A frame around a packet.
pub(super) fn framed(
    source: [u8; 6],
    destination: [u8; 6],
    tags: &[u16],
    packet: &[u8],
) -> Vec<u8> {
    let mut bytes = [destination, source].concat();
    for (n, tag) in tags.iter().enumerate() {
        let outer = n + 1 < tags.len();
        bytes.extend(if outer { [0x88, 0xa8] } else { [0x81, 0] });
        bytes.extend(tag.to_be_bytes());
    }
    let six = packet[0] >> 4 == 6;
    bytes.extend(if six { [0x86, 0xdd] } else { [8, 0] });
    bytes.extend(packet);
    bytes
}

pub(super) fn ip4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: IpNumber,
    ttl: u8,
    tos: u8,
    payload: usize,
) -> Ipv4Header {
    let length = u16::try_from(payload).unwrap();
    let mut ip = Ipv4Header::new(length, ttl, protocol, from.octets(), to.octets()).unwrap();
    ip.dscp = etherparse::IpDscp::try_new(tos >> 2).unwrap();
    ip.ecn = etherparse::IpEcn::try_new(tos & 3).unwrap();
    ip.header_checksum = ip.calc_header_checksum();
    ip
}

pub(super) fn ip6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    protocol: IpNumber,
    ttl: u8,
    tos: u8,
    payload: usize,
) -> Ipv6Header {
    Ipv6Header {
        traffic_class: tos,
        flow_label: etherparse::Ipv6FlowLabel::ZERO,
        payload_length: u16::try_from(payload).unwrap(),
        next_header: protocol,
        hop_limit: ttl,
        source: from.octets(),
        destination: to.octets(),
    }
}

/// The fragment that holds these bytes of what is behind the IP header of `packet`.
pub(super) fn fragment_of(packet: &[u8], part: Range<usize>, id: u32) -> Vec<u8> {
    let units = u16::try_from(part.start / 8).unwrap();
    let offset = etherparse::IpFragOffset::try_new(units).unwrap();
    if packet[0] >> 4 == 4 {
        let (mut ip, payload) = Ipv4Header::from_slice(packet).unwrap();
        let more = part.end < payload.len();
        ip.more_fragments = more || ip.more_fragments;
        ip.dont_fragment = false;
        ip.fragment_offset = offset;
        ip.identification = u16::try_from(id).unwrap();
        ip.set_payload_len(part.len()).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        return [&ip.to_bytes()[..], &payload[part]].concat();
    }
    let (mut ip, payload) = Ipv6Header::from_slice(packet).unwrap();
    let more = part.end < payload.len();
    let header = Ipv6FragmentHeader::new(ip.next_header, offset, more, id);
    ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
    ip.payload_length = u16::try_from(8 + part.len()).unwrap();
    let mut bytes = ip.to_bytes().to_vec();
    bytes.extend(header.to_bytes());
    bytes.extend(&payload[part]);
    bytes
}

/// The Internet checksum, plainly.
pub(super) fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0)));
    let mut total: u64 = words.sum();
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    (!u16::try_from(total).unwrap()).to_be_bytes()
}

/// The sum over an IPv6 message with its pseudo-header.
pub(super) fn sum6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, bytes: &[u8]) -> [u8; 2] {
    let mut all = [from.octets(), to.octets()].concat();
    all.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    all.extend([0, 0, 0, protocol]);
    all.extend(bytes);
    sum(&all)
}

/// An ICMP error of either family, from the IP header on.
pub(super) fn icmp_error(
    from: &str,
    to: &str,
    header: [u8; 8],
    quoted: &[u8],
    (ttl, tos): (u8, u8),
) -> Vec<u8> {
    let mut message = header.to_vec();
    message.extend(quoted);
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let checksum = sum(&message);
            message[2..4].copy_from_slice(&checksum);
            let ip = ip4(from, to, IpNumber::ICMP, ttl, tos, message.len());
            [ip.to_bytes().to_vec(), message].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let checksum = sum6(from, to, 58, &message);
            message[2..4].copy_from_slice(&checksum);
            let ip = ip6(from, to, IpNumber::IPV6_ICMP, ttl, tos, message.len());
            [ip.to_bytes().to_vec(), message].concat()
        }
        _ => unreachable!(),
    }
}

/// An ICMP error of ours: TTL 64; IPv4's bears "don't fragment" and internetwork control.
pub(super) fn own_icmp(from: &str, to: &str, header: [u8; 8], quoted: &[u8]) -> Vec<u8> {
    let six = to.contains(':');
    let most = if six { 1280 - 48 } else { 576 - 28 };
    let quoted = &quoted[..quoted.len().min(most)];
    let mut bytes = icmp_error(from, to, header, quoted, (64, if six { 0 } else { 0xc0 }));
    if !six {
        bytes[6] = 0x40;
        bytes[10..12].fill(0);
        let checksum = sum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&checksum);
    }
    bytes
}

/// Reads what left a worker as its receiver does: every length and checksum is right. `whole_sums`: those of layer 4
/// too.
#[track_caller]
pub(super) fn assert_valid(frame: &[u8], whole_sums: bool) {
    let mut at = 12;
    while matches!(&frame[at..at + 2], [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    let ether_type = [frame[at], frame[at + 1]];
    let packet = &frame[at + 2..];
    match ether_type {
        [8, 0] => assert_valid_packet(packet, 4, whole_sums),
        [0x86, 0xdd] => assert_valid_packet(packet, 6, whole_sums),
        other => panic!("EtherType {other:02x?}"),
    }
}

#[track_caller]
fn assert_valid_packet(packet: &[u8], version: u8, whole_sums: bool) {
    assert_eq!(packet[0] >> 4, version, "{packet:02x?}");
    let (protocol, payload, pseudo) = if version == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        assert!((20..=total).contains(&header) && total <= packet.len());
        assert_eq!(sum(&packet[..header]), [0, 0], "{packet:02x?}");
        assert!(packet[8] >= 1 && packet[12..16] != [0; 4]);
        if packet[6] & 0x3f != 0 || packet[7] != 0 {
            return;
        }
        let pseudo = packet[12..20].to_vec();
        (packet[9], &packet[header..total], pseudo)
    } else {
        let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        assert!(total <= packet.len(), "{packet:02x?}");
        assert!(packet[7] >= 1 && packet[8..24] != [0; 16]);
        let pseudo = packet[8..40].to_vec();
        (packet[6], &packet[40..total], pseudo)
    };
    let with_pseudo = |protocol: u8| {
        let mut all = pseudo.clone();
        all.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        all.extend([0, 0, 0, protocol]);
        all.extend(payload);
        sum(&all)
    };
    match protocol {
        4 => assert_valid_packet(payload, 4, whole_sums),
        41 => assert_valid_packet(payload, 6, whole_sums),
        47 => {
            assert!(matches!(payload[0], 0 | 0x80), "{payload:02x?}");
            let header = if payload[0] == 0x80 { 8 } else { 4 };
            if header == 8 {
                assert_eq!(sum(payload), [0, 0]);
            }
            let six = payload[2..4] == [0x86, 0xdd];
            assert_valid_packet(&payload[header..], if six { 6 } else { 4 }, whole_sums);
        }
        17 if payload.len() >= 8 && payload[2..4] == super::GUE_PORT.to_be_bytes() => {
            assert_eq!(
                usize::from(u16::from_be_bytes([payload[4], payload[5]])),
                payload.len()
            );
            if payload[6..8] != [0, 0] {
                assert_eq!(with_pseudo(17), [0, 0], "{payload:02x?}");
            }
            let version = if payload[9] == 41 { 6 } else { 4 };
            assert_valid_packet(&payload[12..], version, whole_sums);
        }
        1 if whole_sums => assert_eq!(sum(payload), [0, 0], "{payload:02x?}"),
        58 if whole_sums => assert_eq!(with_pseudo(58), [0, 0], "{payload:02x?}"),
        6 if whole_sums => assert_eq!(with_pseudo(6), [0, 0], "{payload:02x?}"),
        17 if whole_sums && payload[6..8] != [0, 0] => {
            assert_eq!(with_pseudo(17), [0, 0], "{payload:02x?}");
        }
        132 if whole_sums => assert!(sctp::is_valid(payload), "{payload:02x?}"),
        _ => {}
    }
}
