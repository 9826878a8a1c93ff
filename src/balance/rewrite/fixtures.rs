//! Frames for the tests, built and read by etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header,
    TcpHeader, UdpHeader,
};

use super::{super::NextHop, Part, Place};
use crate::{
    addr::{L4Proto, MacAddr, PortId},
    wire::{sctp, vlan},
};

pub(super) const HOP: NextHop = NextHop {
    port: PortId(1),
    source: MacAddr([2, 0, 0, 0, 0, 0xa1]),
    destination: MacAddr([2, 0, 0, 0, 0, 0xa2]),
    mtu: 1500,
};
/// The stations of a frame as it comes in: to us, from the client's side.
pub(super) const STATIONS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0xc1], [2, 0, 0, 0, 0, 0xc2]];

pub(super) const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
pub(super) const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(super) const REAL4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 3);
pub(super) const US4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
pub(super) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
pub(super) const REAL6: Ipv6Addr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 3);
pub(super) const US6: Ipv6Addr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1);

/// A packet to build, and what is around it.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ports: [u16; 2],
    pub(super) protocol: L4Proto,
    pub(super) data: Vec<u8>,
    /// DSCP and ECN.
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    pub(super) part: Part,
    /// IPv4 options, or an IPv6 destination options header.
    pub(super) options: bool,
    /// VLAN tags.
    pub(super) tags: usize,
    /// Bytes behind the packet.
    pub(super) padding: usize,
    /// UDP without a checksum.
    pub(super) no_sum: bool,
}

impl Spec {
    /// A packet of a client to a VIP of its family.
    pub(super) fn new(six: bool, protocol: L4Proto) -> Self {
        let (source, destination) = if six {
            (CLIENT6.into(), VIP6.into())
        } else {
            (CLIENT4.into(), VIP4.into())
        };
        Self {
            source,
            destination,
            ports: [40_000, 80],
            protocol,
            data: (0..33).collect(),
            tos: 0,
            ttl: 64,
            dont_fragment: false,
            part: Part::Whole,
            options: false,
            tags: 0,
            padding: 0,
            no_sum: false,
        }
    }

    pub(super) fn network(&self) -> u8 {
        u8::try_from(14 + self.tags * vlan::TAG_LEN).unwrap()
    }

    pub(super) fn place(&self) -> Place {
        let extension = if self.options { 8 } else { 0 };
        let fragment = if self.part == Part::Whole { 0 } else { 8 };
        let transport = match self.source {
            IpAddr::V4(_) => 20 + extension,
            IpAddr::V6(_) => 40 + extension + fragment,
        };
        Place {
            network: self.network(),
            transport,
            protocol: self.protocol,
            part: self.part,
        }
    }

    /// The layer 4 bytes with a right checksum.
    pub(super) fn segment(&self) -> Vec<u8> {
        let [from, to] = self.ports;
        let mut bytes = match self.protocol {
            L4Proto::Tcp => {
                let mut header = TcpHeader::new(from, to, 1000, 512);
                header.ack = true;
                header.acknowledgment_number = 77;
                header.checksum = match (self.source, self.destination) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => header
                        .calc_checksum_ipv4_raw(a.octets(), b.octets(), &self.data)
                        .unwrap(),
                    (IpAddr::V6(a), IpAddr::V6(b)) => header
                        .calc_checksum_ipv6_raw(a.octets(), b.octets(), &self.data)
                        .unwrap(),
                    _ => unreachable!(),
                };
                header.to_bytes().to_vec()
            }
            L4Proto::Udp => {
                let mut header =
                    UdpHeader::without_ipv4_checksum(from, to, self.data.len()).unwrap();
                if !self.no_sum {
                    header.checksum = match (self.source, self.destination) {
                        (IpAddr::V4(a), IpAddr::V4(b)) => header
                            .calc_checksum_ipv4_raw(a.octets(), b.octets(), &self.data)
                            .unwrap(),
                        (IpAddr::V6(a), IpAddr::V6(b)) => header
                            .calc_checksum_ipv6_raw(a.octets(), b.octets(), &self.data)
                            .unwrap(),
                        _ => unreachable!(),
                    };
                }
                header.to_bytes().to_vec()
            }
            L4Proto::Sctp => {
                let ports = [from, to].map(u16::to_be_bytes);
                let mut bytes = ports.as_flattened().to_vec();
                bytes.extend([1, 2, 3, 4, 0, 0, 0, 0]);
                bytes.extend(&self.data);
                sctp::set_checksum(&mut bytes);
                return bytes;
            }
        };
        bytes.extend(&self.data);
        bytes
    }

    /// The IP packet.
    pub(super) fn packet(&self) -> Vec<u8> {
        ip_packet(self, self.protocol.number(), &self.segment())
    }

    /// The frame.
    pub(super) fn frame(&self) -> Vec<u8> {
        framed(self, &self.packet())
    }
}

/// The IP packet of `spec` with another payload.
pub(super) fn ip_packet(spec: &Spec, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (more, offset) = match spec.part {
        Part::Whole => (false, 0),
        Part::First => (true, 0),
        Part::Later => (false, 1480),
    };
    match (spec.source, spec.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header {
                dscp: (spec.tos >> 2).try_into().unwrap(),
                ecn: (spec.tos & 3).try_into().unwrap(),
                identification: 0x1234,
                dont_fragment: spec.dont_fragment,
                more_fragments: more,
                fragment_offset: (offset / 8).try_into().unwrap(),
                time_to_live: spec.ttl,
                protocol: IpNumber(protocol),
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv4Header::default()
            };
            if spec.options {
                header.options = Ipv4Options::from([7, 7, 4, 0, 0, 0, 0, 0]);
            }
            header.set_payload_len(payload.len()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            [header.to_bytes().as_slice(), payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut next = protocol;
            let mut middle = Vec::new();
            if spec.part != Part::Whole {
                let header = Ipv6FragmentHeader::new(
                    IpNumber(next),
                    (offset / 8).try_into().unwrap(),
                    more,
                    0x1234,
                );
                middle = header.to_bytes().to_vec();
                next = 44;
            }
            if spec.options {
                middle.splice(..0, [next, 0, 1, 4, 0, 0, 0, 0]);
                next = 60;
            }
            let header = Ipv6Header {
                traffic_class: spec.tos,
                flow_label: Ipv6FlowLabel::try_new(0x1_2345).unwrap(),
                payload_length: u16::try_from(middle.len() + payload.len()).unwrap(),
                next_header: IpNumber(next),
                hop_limit: spec.ttl,
                source: source.octets(),
                destination: destination.octets(),
            };
            [header.to_bytes().as_slice(), &middle, payload].concat()
        }
        _ => unreachable!(),
    }
}

/// A packet in a frame with the tags and the padding of `spec`.
pub(super) fn framed(spec: &Spec, packet: &[u8]) -> Vec<u8> {
    let mut frame = STATIONS.as_flattened().to_vec();
    for n in 0..spec.tags {
        frame.extend(if n + 1 == spec.tags {
            [0x81, 0]
        } else {
            [0x88, 0xa8]
        });
        frame.extend([0x20, 7]);
    }
    let six = packet[0] >> 4 == 6;
    let ether_type = if six {
        EtherType::IPV6
    } else {
        EtherType::IPV4
    };
    frame.extend(ether_type.0.to_be_bytes());
    frame.extend(packet);
    frame.extend(vec![0xee; spec.padding]);
    frame
}

/// A frame grown at its front by `room` bytes of garbage.
pub(super) fn grown(frame: &[u8], room: usize) -> Vec<u8> {
    [&vec![0xdd; room], frame].concat()
}
