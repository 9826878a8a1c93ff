//! Errors of routers about tunnel packets that `encapsulate` made, built and read by etherparse.

use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket};
use etherparse::{TransportSlice, icmpv4::DestUnreachableHeader};
use proptest::prelude::*;

use super::{
    super::{Ends, Tunnel, TunnelKind, encapsulate, fixtures::*, overhead},
    *,
};
use crate::addr::L4Proto;

const GUE_PORT: u16 = 6080;
const ROUTER4: [u8; 4] = [10, 9, 9, 9];
const ROUTER6: [u8; 16] = [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

const KINDS: [TunnelKind; 4] = [
    TunnelKind::Ipip,
    TunnelKind::Gue {
        port: GUE_PORT,
        checksum: false,
    },
    TunnelKind::Gre { checksum: false },
    TunnelKind::Gre { checksum: true },
];

fn family(six: bool) -> Family {
    if six { Family::V6 } else { Family::V4 }
}

/// What a router says of a packet in a tunnel: it may be of 1400 bytes. It quotes `quoted` bytes.
fn error(spec: &Spec, kind: TunnelKind, outer6: bool, quoted: usize) -> Vec<u8> {
    let ends = if outer6 {
        Ends::V6 {
            source: US6,
            destination: REAL6,
        }
    } else {
        Ends::V4 {
            source: US4,
            destination: REAL4,
        }
    };
    let tunnel = Tunnel {
        kind,
        ends,
        id: 7,
        pmtu_disc: true,
        source_port: 40_000,
    };
    let room = usize::from(overhead(kind, family(outer6)));
    let mut frame = grown(&spec.frame(), room);
    let length = encapsulate(&mut frame, spec.network(), &tunnel, &HOP).unwrap();
    let packet = &frame[usize::from(spec.network())..length];
    let quote = &packet[..packet.len().min(quoted)];
    let [destination, source] = STATIONS;
    let link = PacketBuilder::ethernet2(source, destination);
    let mut bytes = Vec::new();
    if outer6 {
        let message = Icmpv6Type::PacketTooBig { mtu: 1400 };
        let error = link.ipv6(ROUTER6, US6.octets(), 60).icmpv6(message);
        error.write(&mut bytes, quote).unwrap();
    } else {
        let next_hop_mtu = 1400;
        let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
        let message = Icmpv4Type::DestinationUnreachable(needed);
        let error = link.ipv4(ROUTER4, US4.octets(), 60).icmpv4(message);
        error.write(&mut bytes, quote).unwrap();
    }
    bytes.extend([0xee; 5]);
    bytes
}

fn client_spec(six: bool) -> Spec {
    Spec {
        data: vec![3; 1400],
        dont_fragment: true,
        ..Spec::new(six, L4Proto::Tcp)
    }
}

#[test]
fn the_client_hears_how_large_its_packet_may_be() {
    for kind in KINDS {
        for (inner6, outer6) in [(false, false), (true, false), (false, true), (true, true)] {
            let spec = client_spec(inner6);
            let mut frame = error(&spec, kind, outer6, 528);
            let read = TunnelError::read(&frame[14..], |port| port == GUE_PORT).unwrap();
            let real: IpAddr = if outer6 { REAL6.into() } else { REAL4.into() };
            assert_eq!((read.real, read.family), (real, family(inner6)));
            assert!(read.is_sound);
            let room = 1400 - overhead(kind, family(outer6));
            assert_eq!(read.room, Some(room));

            let problem = Problem::TooBig(room);
            let length = if inner6 {
                icmp_from_tunnel(&mut frame, 14, read.inner, US6, problem, &HOP)
            } else {
                icmp_from_tunnel(&mut frame, 14, read.inner, US4, problem, &HOP)
            };
            frame.truncate(length.unwrap());
            check(
                &frame,
                &spec,
                room,
                528 - usize::from(overhead(kind, family(outer6))),
            );
        }
    }
}

/// `quoted`: how much of the packet there was to quote.
fn check(frame: &[u8], spec: &Spec, room: u16, quoted: usize) {
    assert_eq!(frame[..6], HOP.destination.0);
    assert_eq!(frame[6..12], HOP.source.0);
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let quote = match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            assert_eq!(ip.header().source_addr(), US4);
            assert_eq!(IpAddr::from(ip.header().destination_addr()), spec.source);
            let Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu,
            }) = icmp.icmp_type()
            else {
                panic!("{:?}", icmp.icmp_type());
            };
            assert_eq!(next_hop_mtu, room);
            let again = Icmpv4Header::with_checksum(icmp.icmp_type(), icmp.payload());
            assert_eq!(again.checksum, icmp.checksum());
            icmp.payload().to_vec()
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            assert_eq!(header.source_addr(), US6);
            assert_eq!(IpAddr::from(header.destination_addr()), spec.source);
            let mtu = u32::from(room);
            assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu });
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            icmp.payload().to_vec()
        }
        other => panic!("{other:?}"),
    };
    // The packet as it went into the tunnel: its TTL is less by one.
    let sent = &spec.frame()[14..14 + quote.len()];
    let ttl = if spec.source.is_ipv6() { 7 } else { 8 };
    assert_eq!(
        quote.len(),
        quoted.min(if spec.source.is_ipv6() { 1232 } else { 548 })
    );
    assert_eq!(quote[ttl] + 1, sent[ttl]);
    assert_eq!(quote[12..], sent[12..]);
}

#[test]
fn what_is_no_error_about_a_tunnel_is_none() {
    let kind = KINDS[1];
    let frame = error(&client_spec(false), kind, false, 528);
    assert_eq!(TunnelError::read(&frame[14..], |_| false), None, "no GUE");
    let mut broken = frame;
    broken[50] ^= 1;
    let read = TunnelError::read(&broken[14..], |_| true);
    assert!(read.is_none_or(|read| !read.is_sound));
    // As much as RFC 792 asks for has no packet inside.
    let short = error(&client_spec(false), TunnelKind::Ipip, false, 28);
    let read = TunnelError::read(&short[14..], |_| true).unwrap();
    assert_eq!(usize::from(read.inner) + 8 + 14 + 5, short.len());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        at in 14_usize..100,
        value: u8,
        cut in 0_usize..700,
        kind in 0..KINDS.len(),
        six: [bool; 2],
    ) {
        let mut frame = error(&client_spec(six[0]), KINDS[kind], six[1], 528);
        frame[at] = value;
        frame.truncate(cut.max(14));
        if let Some(read) = TunnelError::read(&frame[14..], |_| true) {
            let problem = Problem::TooBig(1300);
            let _ = match read.family {
                Family::V4 => icmp_from_tunnel(&mut frame, 14, read.inner, US4, problem, &HOP),
                Family::V6 => icmp_from_tunnel(&mut frame, 14, read.inner, US6, problem, &HOP),
            };
        }
    }
}
