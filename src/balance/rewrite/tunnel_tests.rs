//! Tunnels, read back by etherparse. What the outer fields are is in `ipvs_tests`.

use etherparse::{NetSlice, SlicedPacket, TransportSlice, VlanSlice};
use proptest::prelude::*;

use super::{
    super::{fixtures::*, *},
    *,
};
use crate::{addr::L4Proto, wire::udp};

const KINDS: [TunnelKind; 5] = [
    TunnelKind::Ipip,
    TunnelKind::Gue {
        port: 6080,
        checksum: false,
    },
    TunnelKind::Gue {
        port: 6080,
        checksum: true,
    },
    TunnelKind::Gre { checksum: false },
    TunnelKind::Gre { checksum: true },
];
const ENDS: [Ends; 2] = [
    Ends::V4 {
        source: US4,
        destination: REAL4,
    },
    Ends::V6 {
        source: US6,
        destination: REAL6,
    },
];

const fn tunnel(kind: TunnelKind, ends: Ends) -> Tunnel {
    Tunnel {
        kind,
        ends,
        id: 0xabcd,
        pmtu_disc: true,
        source_port: 40_001,
    }
}

/// The frame in its tunnel.
fn tunnelled(spec: &Spec, tunnel: &Tunnel) -> Vec<u8> {
    let room = overhead(tunnel.kind, tunnel.ends.family());
    let mut frame = grown(&spec.frame(), room.into());
    let length = encapsulate(&mut frame, spec.network(), tunnel, &HOP).unwrap();
    frame.truncate(length);
    frame
}

/// The inner packet as the real server gets it.
fn passed(spec: &Spec) -> Vec<u8> {
    Spec {
        ttl: spec.ttl - 1,
        ..spec.clone()
    }
    .packet()
}

#[test]
fn etherparse_gets_the_inner_packet_out_again() {
    for six in [false, true] {
        for kind in KINDS {
            for ends in ENDS {
                for tags in 0..3 {
                    let spec = Spec {
                        tags,
                        options: true,
                        padding: 7,
                        tos: 0xb9,
                        dont_fragment: true,
                        ..Spec::new(six, L4Proto::Tcp)
                    };
                    let frame = tunnelled(&spec, &tunnel(kind, ends));
                    unwrap(&frame, &spec, kind, ends);
                }
            }
        }
    }
}

/// Takes a frame apart as a real server would.
fn unwrap(frame: &[u8], spec: &Spec, kind: TunnelKind, ends: Ends) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let tags = match sliced.vlan() {
        None => 0,
        Some(VlanSlice::SingleVlan(tag)) => {
            assert_eq!(tag.vlan_identifier().value(), 7);
            1
        }
        Some(VlanSlice::DoubleVlan(tag)) => {
            assert_eq!(tag.inner.vlan_identifier().value(), 7);
            2
        }
    };
    assert_eq!(tags, spec.tags);
    assert_eq!(frame[..6], HOP.destination.0);
    assert_eq!(frame[6..12], HOP.source.0);
    let net = sliced.net.as_ref().unwrap();
    match (net, ends) {
        (
            NetSlice::Ipv4(ip),
            Ends::V4 {
                source,
                destination,
            },
        ) => {
            let header = ip.header();
            assert_eq!(header.source_addr(), source);
            assert_eq!(header.destination_addr(), destination);
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
            assert_eq!((header.dcp().value(), header.ecn().value()), (0x2e, 1));
            let df = spec.source.is_ipv4();
            assert_eq!(header.dont_fragment(), df);
            assert_eq!(header.identification(), if df { 0 } else { 0xabcd });
            assert_eq!(header.ttl(), 63);
        }
        (
            NetSlice::Ipv6(ip),
            Ends::V6 {
                source,
                destination,
            },
        ) => {
            let header = ip.header();
            assert_eq!(header.source_addr(), source);
            assert_eq!(header.destination_addr(), destination);
            assert_eq!((header.traffic_class(), header.hop_limit()), (0xb9, 63));
            assert_eq!(header.flow_label().value(), 0);
        }
        other => panic!("{other:?}"),
    }
    let payload = net.ip_payload_ref().unwrap();
    let inner_number = if spec.source.is_ipv4() { 4 } else { 41 };
    let inner = match kind {
        TunnelKind::Ipip => {
            assert_eq!(payload.ip_number.0, inner_number);
            payload.payload
        }
        TunnelKind::Gue { port, checksum } => {
            let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
                panic!("no UDP: {sliced:?}");
            };
            assert_eq!((udp.source_port(), udp.destination_port()), (40_001, port));
            assert_eq!(usize::from(udp.length()), payload.payload.len());
            let expected = match ends {
                _ if !checksum => 0,
                Ends::V4 {
                    source,
                    destination,
                } => udp
                    .to_header()
                    .calc_checksum_ipv4_raw(source.octets(), destination.octets(), udp.payload())
                    .unwrap(),
                Ends::V6 {
                    source,
                    destination,
                } => udp
                    .to_header()
                    .calc_checksum_ipv6_raw(source.octets(), destination.octets(), udp.payload())
                    .unwrap(),
            };
            assert_eq!(udp.checksum(), expected);
            assert_eq!(udp.payload()[..4], [0, inner_number, 0, 0]);
            &udp.payload()[4..]
        }
        TunnelKind::Gre { checksum } => {
            assert_eq!(payload.ip_number.0, 47);
            let (ether_type, at) = gre::payload(payload.payload).unwrap();
            assert_eq!(ether_type == 0x0800, spec.source.is_ipv4());
            assert_eq!(at, if checksum { 8 } else { 4 });
            &payload.payload[at..]
        }
    };
    assert_eq!(inner, passed(spec));
    // An ICMP error that quotes the beginning of this packet leads to the same inner packet.
    let outer = &frame[usize::from(spec.network())..];
    let (to, family, at) = quoted_payload(outer, |port| port == 6080).unwrap();
    assert_eq!(outer[at..], passed(spec));
    assert_eq!(family == Family::V4, spec.source.is_ipv4());
    assert_eq!(to.is_ipv4(), ends.family() == Family::V4);
    if let TunnelKind::Gue { .. } = kind {
        assert_eq!(quoted_payload(outer, |_| false), None);
    }
}

#[test]
fn without_pmtu_discovery_the_outer_packet_may_be_fragmented() {
    let spec = Spec {
        dont_fragment: true,
        ..Spec::new(false, L4Proto::Udp)
    };
    let without = Tunnel {
        pmtu_disc: false,
        ..tunnel(TunnelKind::Ipip, ENDS[0])
    };
    let frame = tunnelled(&spec, &without);
    let header = SlicedPacket::from_ethernet(&frame).unwrap().net.unwrap();
    let header = header.ipv4_ref().unwrap().header();
    assert!(!header.dont_fragment());
    assert_eq!(header.identification(), 0xabcd);
}

#[test]
fn source_ports_are_those_of_linux() {
    assert_eq!(source_port(0), 32_768);
    assert_eq!(source_port(1 << 31), 32_768 + (60_999 - 32_768) / 2);
    assert_eq!(source_port(u32::MAX), 60_998);
}

#[test]
fn sources_spread_over_their_network_only() {
    let network = Ipv4Addr::new(172, 16, 1, 1);
    assert_eq!(
        spread_source_v4(network, 16, 0xaabb_ccdd),
        Ipv4Addr::new(172, 16, 0xcc, 0xdd)
    );
    assert_eq!(spread_source_v4(network, 32, 0xaabb_ccdd), network);
    assert_eq!(spread_source_v4(network, 200, 0xaabb_ccdd), network);
    assert_eq!(
        spread_source_v4(network, 0, 0x0102_0304),
        Ipv4Addr::new(1, 2, 3, 4)
    );
    let network: Ipv6Addr = "fd02::5:6".parse().unwrap();
    let spread = |prefix| spread_source_v6(network, prefix, 0xaabb_ccdd).to_string();
    assert_eq!(spread(64), "fd02::aabb:ccdd");
    assert_eq!(spread(112), "fd02::5:ccdd");
    assert_eq!(spread(128), "fd02::5:6");
    assert_eq!(spread(255), "fd02::5:6");
    assert_eq!(spread(0), "fd02::aabb:ccdd", "32 bits are the hash's");
}

#[test]
fn a_packet_that_grows_too_long_is_refused() {
    for (kind, ends) in [
        (TunnelKind::Ipip, ENDS[0]),
        (
            TunnelKind::Gue {
                port: 1,
                checksum: true,
            },
            ENDS[1],
        ),
    ] {
        let mut spec = Spec::new(false, L4Proto::Udp);
        spec.data = vec![0; 65_535 - 28];
        let mut frame = grown(&spec.frame(), overhead(kind, ends.family()).into());
        let refused = encapsulate(&mut frame, 14, &tunnel(kind, ends), &HOP);
        assert_eq!(refused, Err(Refused::TooLong));
    }
}

#[test]
fn a_frame_without_the_room_or_cut_is_refused() {
    let whole = Spec::new(false, L4Proto::Udp).frame();
    let ipip = tunnel(TunnelKind::Ipip, ENDS[0]);
    let run = |frame: &[u8], network| encapsulate(&mut frame.to_vec(), network, &ipip, &HOP);
    let grown = grown(&whole, 20);
    assert!(run(&grown, 14).is_ok());
    assert_eq!(run(&grown[..30], 14), Err(Refused::NoRoom));
    assert_eq!(run(&grown, 13), Err(Refused::NoRoom));
    assert_eq!(run(&grown[..grown.len() - 1], 14), Err(Refused::Cut));
    assert_eq!(run(&whole, 14), Err(Refused::NotIp), "not grown");
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        six: bool,
        kind in prop::sample::select(KINDS.to_vec()),
        ends in prop::sample::select(ENDS.to_vec()),
        protocol in prop::sample::select(vec![L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp]),
        data in proptest::collection::vec(any::<u8>(), 4..300),
        ttl in 2_u8..,
        tags in 0_usize..3,
        padding in 0_usize..20,
        part in prop::sample::select(vec![Part::Whole, Part::First, Part::Later]),
    ) {
        let spec = Spec { data, ttl, tags, padding, part, ..Spec::new(six, protocol) };
        let frame = tunnelled(&spec, &tunnel(kind, ends));
        let room = usize::from(overhead(kind, ends.family()));
        let inner = usize::from(spec.network()) + room;
        prop_assert_eq!(&frame[inner..], &passed(&spec));
        if let TunnelKind::Gre { checksum: true } = kind {
            prop_assert!(checksum::is_valid(&frame[inner - 8..]));
        }
        if let TunnelKind::Gue { checksum, .. } = kind {
            let sum = &frame[inner - 12 + udp::CHECKSUM_OFFSET..][..2];
            prop_assert_eq!(sum != [0, 0], checksum);
        }
    }

    #[test]
    fn random_bytes_never_panic(
        mut frame in proptest::collection::vec(any::<u8>(), 0..200),
        version in prop::sample::select(vec![0x45_u8, 0x46, 0x60, 0]),
        network in 0_u8..40,
        kind in prop::sample::select(KINDS.to_vec()),
        ends in prop::sample::select(ENDS.to_vec()),
    ) {
        let room = usize::from(overhead(kind, ends.family()));
        let at = usize::from(network) + room;
        if version != 0 && at + 4 < frame.len() {
            frame[at] = version;
            frame[at + 2] = 0;
        }
        let _ = quoted_payload(&frame, |_| true);
        if let Ok(length) = encapsulate(&mut frame, network, &tunnel(kind, ends), &HOP) {
            prop_assert!(length <= frame.len());
        }
        let _ = quoted_payload(&frame[usize::from(network).min(frame.len())..], |_| true);
    }
}
