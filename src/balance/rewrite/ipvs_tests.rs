//! IPVS's own frames: what went into Linux 6.1's `ip_vs` and what came out of it.
//!
//! `ipvs-frames.pcap` holds one case a second. The microseconds say where a frame was: 0 from the
//! client, 1 to the real server, 2 from the real server, 3 to the client. Real servers of TUN are
//! 10.2.0.2 and fd02::2, the virtual server's port says how they are reached, see [`tunnel_of`];
//! port 5020 is NAT to 10.2.0.3 or fd02::3, port 6020; 5030 has no real server.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{fixtures::*, *};
use crate::{addr::PortId, wire::icmp::Problem};

const CAPTURE: &[u8] = include_bytes!("../testdata/ipvs-frames.pcap");
const ETHERNET: usize = 14;

/// The frames of each case, with where they were.
fn cases() -> Vec<Vec<(u32, Vec<u8>)>> {
    let mut cases: BTreeMap<u32, Vec<(u32, Vec<u8>)>> = BTreeMap::new();
    let mut rest = &CAPTURE[24..];
    while let Some((header, tail)) = rest.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (frame, tail) = tail.split_at(word(8) as usize);
        cases
            .entry(word(0))
            .or_default()
            .push((word(4), frame.to_vec()));
        rest = tail;
    }
    cases.into_values().collect()
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Protocol and layer 4 offset of a packet.
fn upper(packet: &[u8]) -> (u8, usize) {
    if packet[0] >> 4 == 4 {
        (packet[9], usize::from(packet[0] & 15) * 4)
    } else {
        (packet[6], 40)
    }
}

/// The stations of the answer say what the next hop is.
fn hop_of(frame: &[u8]) -> NextHop {
    NextHop {
        port: PortId(0),
        destination: MacAddr(frame[..6].try_into().unwrap()),
        source: MacAddr(frame[6..12].try_into().unwrap()),
        mtu: 1500,
    }
}

/// 501x is of the other family.
fn tunnel_of(port: u16, six: bool) -> (TunnelKind, Family) {
    let gue = |checksum| TunnelKind::Gue {
        port: 6080,
        checksum,
    };
    let kind = match port % 10 {
        1 => TunnelKind::Ipip,
        2 => gue(false),
        // 3 is csum, 6 remcsum.
        3 | 6 => gue(true),
        4 => TunnelKind::Gre { checksum: false },
        5 => TunnelKind::Gre { checksum: true },
        _ => panic!("port {port}"),
    };
    let outer = if six == (port / 10 == 501) {
        Family::V4
    } else {
        Family::V6
    };
    (kind, outer)
}

fn check_tunnel(input: &[u8], output: &[u8], port: u16) {
    let packet = &output[ETHERNET..];
    let (kind, outer) = tunnel_of(port, input[ETHERNET] >> 4 == 6);
    let tunnel = Tunnel {
        kind,
        ends: match outer {
            Family::V4 => Ends::V4 {
                source: US4,
                destination: Ipv4Addr::new(10, 2, 0, 2),
            },
            Family::V6 => Ends::V6 {
                source: US6,
                destination: "fd02::2".parse().unwrap(),
            },
        },
        // IPVS's choice: a counter, and a hash that is its own.
        id: if outer == Family::V4 {
            word(packet, 4)
        } else {
            0
        },
        source_port: match kind {
            TunnelKind::Gue { .. } => word(packet, upper(packet).1),
            _ => 0,
        },
        pmtu_disc: true,
    };
    let mut frame = grown(input, overhead(kind, outer).into());
    let length = encapsulate(&mut frame, 14, &tunnel, &hop_of(output)).unwrap();
    assert_eq!(frame[..length], *output, "{tunnel:?}");
    if let TunnelKind::Gue { .. } = kind {
        let possible = source_port(0)..=source_port(u32::MAX);
        assert!(possible.contains(&tunnel.source_port));
    }
}

fn check_nat<A: Address>(input: &[u8], output: &[u8], end: End, to: (A, u16)) {
    let packet = &input[ETHERNET..];
    let (protocol, transport) = upper(packet);
    let mut frame = input.to_vec();
    let hop = hop_of(output);
    if protocol == 17 {
        let place = Place {
            network: 14,
            transport: u16::try_from(transport).unwrap(),
            protocol: L4Proto::Udp,
            part: Part::Whole,
        };
        match end {
            End::Destination => nat_to_real(&mut frame, &place, to, &hop).unwrap(),
            End::Source => nat_to_client(&mut frame, &place, to, &hop).unwrap(),
        }
        let mut expected = output.to_vec();
        let sum = ETHERNET + transport + 6;
        if input[sum..sum + 2] == [0, 0] {
            // IPVS gives a datagram that has none a checksum.
            expected[sum..sum + 2].fill(0);
        }
        assert_eq!(frame, expected);
        return;
    }
    match end {
        End::Destination => icmp_to_real(&mut frame, 14, to, &hop).unwrap(),
        End::Source => icmp_to_client(&mut frame, 14, to, &hop).unwrap(),
    }
    // IPVS leaves the quoted UDP checksum as it was.
    let icmp = ETHERNET + transport;
    let quoted_sum = icmp + 8 + upper(&packet[transport + 8..]).1 + 6;
    let without_sums = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        frame[icmp + 2..icmp + 4].fill(0);
        frame[quoted_sum..quoted_sum + 2].fill(0);
        frame
    };
    assert_eq!(without_sums(&frame), without_sums(output));
}

/// The answer but for identification, DF, flow label and checksums; and the quoted TTL with the
/// sum of its header, as IPVS quotes what it is about to send.
fn essence(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let six = frame[ETHERNET] >> 4 == 6;
    let blank: &[(usize, usize)] = if six {
        &[(1, 3), (42, 2), (48 + 7, 1)]
    } else {
        &[(4, 4), (10, 2), (22, 2), (28 + 8, 1), (28 + 10, 2)]
    };
    for (at, length) in blank {
        frame[ETHERNET + at..][..*length].fill(0);
    }
    frame
}

fn check_answer(input: &[u8], output: &[u8]) {
    let six = input[ETHERNET] >> 4 == 6;
    let (_, at) = upper(&input[ETHERNET..]);
    let port = word(&input[ETHERNET..], at + 2);
    let room = if six { Family::V6 } else { Family::V4 };
    let mut frame = grown(input, icmp_room(room));
    let length = input.len() - ETHERNET;
    let problem = if port == 5030 {
        Problem::PortUnreachable
    } else if length < 1000 {
        Problem::TimeExceeded
    } else {
        let passage = Passage {
            family: room,
            length,
            dont_fragment: true,
            silent: false,
            path_mtu: 1500,
            tunnel: Some((Family::V4, TunnelKind::Ipip)),
        };
        match fit(&passage, true) {
            Fit::TooBig(mtu) => Problem::TooBig(mtu),
            other => panic!("{other:?}"),
        }
    };
    let length = if six {
        icmp_error(&mut frame, 14, VIP6, problem).unwrap()
    } else {
        icmp_error(&mut frame, 14, VIP4, problem).unwrap()
    };
    assert_eq!(essence(&frame[..length]), essence(output));
}

#[test]
fn every_frame_leaves_as_it_left_ipvs() {
    let mut seen = [0; 3];
    for case in cases() {
        let [(from, input), (to, output)] = case.as_slice() else {
            panic!("a case of {} frames", case.len());
        };
        let packet = &input[ETHERNET..];
        let six = packet[0] >> 4 == 6;
        let (protocol, at) = upper(packet);
        match (from, to) {
            (0, 3) => {
                check_answer(input, output);
                seen[2] += 1;
            }
            (0, 1) if protocol == 17 && word(packet, at + 2) != 5020 => {
                check_tunnel(input, output, word(packet, at + 2));
                seen[0] += 1;
            }
            // An ICMP error about a connection through a tunnel.
            (0, 1) if upper(&output[ETHERNET..]).0 == 4 => {
                check_tunnel(input, output, 5001);
                seen[0] += 1;
            }
            (0, 1) => {
                if six {
                    check_nat(input, output, End::Destination, (REAL6, 6020));
                } else {
                    check_nat(input, output, End::Destination, (REAL4, 6020));
                }
                seen[1] += 1;
            }
            (2, 3) => {
                if six {
                    check_nat(input, output, End::Source, (VIP6, 5020));
                } else {
                    check_nat(input, output, End::Source, (VIP4, 5020));
                }
                seen[1] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [48, 13, 6], "tunnel, NAT, answers");
}

/// The MTU that IPVS told a sender, by packet of 1488 bytes and path of 1500.
#[test]
fn mtus_are_those_that_ipvs_tells() {
    let gue = TunnelKind::Gue {
        port: 6080,
        checksum: false,
    };
    for (family, outer, kind, mtu) in [
        (Family::V4, Family::V4, TunnelKind::Ipip, 0x5c8),
        (Family::V4, Family::V6, TunnelKind::Ipip, 0x5b4),
        (Family::V6, Family::V6, TunnelKind::Ipip, 0x5b4),
        (Family::V6, Family::V4, TunnelKind::Ipip, 0x5c8),
        (
            Family::V4,
            Family::V6,
            TunnelKind::Gre { checksum: false },
            0x5b0,
        ),
        (Family::V4, Family::V6, gue, 0x5a8),
        (Family::V6, Family::V6, gue, 0x5a8),
        (Family::V4, Family::V4, gue, 0x5bc),
        (
            Family::V4,
            Family::V4,
            TunnelKind::Gre { checksum: false },
            0x5c4,
        ),
        (
            Family::V4,
            Family::V4,
            TunnelKind::Gre { checksum: true },
            0x5c0,
        ),
    ] {
        let passage = Passage {
            family,
            length: 1488,
            dont_fragment: true,
            silent: false,
            path_mtu: 1500,
            tunnel: Some((outer, kind)),
        };
        assert_eq!(
            fit(&passage, true),
            Fit::TooBig(mtu),
            "{kind:?} over {outer:?}"
        );
    }
}

/// IPVS's two fragments of a packet of 1488 bytes without DF, in a tunnel.
#[test]
fn an_outer_packet_is_cut_where_ipvs_cuts_it() {
    let mut spec = Spec::new(false, L4Proto::Udp);
    spec.data = vec![b'x'; 1460];
    let kind = TunnelKind::Ipip;
    let mut frame = grown(&spec.frame(), overhead(kind, Family::V4).into());
    let tunnel = Tunnel {
        kind,
        ends: Ends::V4 {
            source: US4,
            destination: Ipv4Addr::new(10, 2, 0, 2),
        },
        id: 0xf3a6,
        source_port: 0,
        pmtu_disc: true,
    };
    let length = encapsulate(&mut frame, 14, &tunnel, &HOP).unwrap();
    let mut second = [0; 1514];
    let (first_len, second_len) = split(&mut frame[..length], 14, 1500, &mut second).unwrap();
    assert_eq!((first_len, second_len), (1514, 42));
    let theirs = [
        "450005dcf3a620003f044e710a0200010a020002",
        "4500001cf3a600b93f0473780a0200010a020002",
    ];
    for (ours, theirs) in [&frame[14..34], &second[14..34]].iter().zip(theirs) {
        let hex: String = ours.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, theirs);
    }
}

/// The addresses in use belong to the capture, not only to the fixtures.
#[test]
fn the_fixtures_are_the_addresses_of_the_capture() {
    let first = &cases()[0][0].1[ETHERNET..];
    assert_eq!(first[12..16], CLIENT4.octets());
    assert_eq!(first[16..20], VIP4.octets());
    let _: (Ipv6Addr, Ipv6Addr) = (CLIENT6, VIP6);
}
