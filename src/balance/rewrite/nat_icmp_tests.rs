//! Translated ICMP errors against those that etherparse builds about the other packet.

use std::net::IpAddr;

use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, icmpv4, icmpv6};
use proptest::prelude::*;

use super::super::{fixtures::*, *};
use crate::{addr::L4Proto, wire::checksum};

const PROTOCOLS: [L4Proto; 3] = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
/// A router that no connection knows.
const ROUTER4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 2, 0, 99);
const ROUTER6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0x99);

/// The frame of an error from `from` to `outer`'s destination about `quoted`, of which it quotes
/// `length` bytes behind the IP header.
fn error(outer: &Spec, quoted: &Spec, length: usize) -> Vec<u8> {
    let packet = quoted.packet();
    let upper = usize::from(quoted.place().transport);
    let quote = &packet[..packet.len().min(upper + length)];
    let (protocol, message) = match (outer.source, outer.destination) {
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let kind = Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded);
            let header = Icmpv6Header::with_checksum(kind, a.octets(), b.octets(), quote).unwrap();
            (58, [header.to_bytes().as_slice(), quote].concat())
        }
        _ => {
            let kind = Icmpv4Type::DestinationUnreachable(
                icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
            );
            let header = Icmpv4Header::with_checksum(kind, quote);
            (1, [header.to_bytes().as_slice(), quote].concat())
        }
    };
    framed(outer, &ip_packet(outer, protocol, &message))
}

struct Case {
    /// Before: the error as it comes in.
    before: Vec<u8>,
    /// After, but for the stations.
    after: Vec<u8>,
    network: u8,
}

/// A client (or a router) reports a packet that the real server sent; `six`, and so on.
fn case(six: bool, protocol: L4Proto, length: usize, inbound: bool, tags: usize) -> Case {
    let plain = Spec {
        tags,
        options: true,
        padding: 3,
        ..Spec::new(six, protocol)
    };
    let (real, router): (IpAddr, IpAddr) = if six {
        (REAL6.into(), ROUTER6.into())
    } else {
        (REAL4.into(), ROUTER4.into())
    };
    let (client, vip) = (plain.source, plain.destination);
    let packet = |source, destination, ports, ttl| Spec {
        source,
        destination,
        ports,
        ttl,
        tags: 0,
        padding: 0,
        options: false,
        ..plain.clone()
    };
    let outer = |source, destination, ttl| Spec {
        source,
        destination,
        ttl,
        ..plain.clone()
    };
    let (before, after) = if inbound {
        (
            error(
                &outer(router, vip, 60),
                &packet(vip, client, [80, 40_000], 3),
                length,
            ),
            error(
                &outer(router, real, 59),
                &packet(real, client, [8080, 40_000], 3),
                length,
            ),
        )
    } else {
        (
            error(
                &outer(router, client, 60),
                &packet(client, real, [40_000, 8080], 3),
                length,
            ),
            error(
                &outer(vip, client, 59),
                &packet(client, vip, [40_000, 80], 3),
                length,
            ),
        )
    };
    Case {
        before,
        after,
        network: plain.network(),
    }
}

fn translate(frame: &mut [u8], network: u8, six: bool, inbound: bool) -> Result<(), Refused> {
    match (six, inbound) {
        (false, true) => icmp_to_real(frame, network, (REAL4, 8080), &HOP),
        (false, false) => icmp_to_client(frame, network, (VIP4, 80), &HOP),
        (true, true) => icmp_to_real(frame, network, (REAL6, 8080), &HOP),
        (true, false) => icmp_to_client(frame, network, (VIP6, 80), &HOP),
    }
}

#[test]
fn errors_are_those_that_etherparse_builds_about_the_other_packet() {
    for six in [false, true] {
        for protocol in PROTOCOLS {
            for inbound in [true, false] {
                // Ports only; with the sum of UDP; all of it.
                for length in [8, 12, 200] {
                    for tags in [0, 2] {
                        let case = case(six, protocol, length, inbound, tags);
                        let mut frame = case.before.clone();
                        translate(&mut frame, case.network, six, inbound).unwrap();
                        let mut expected = case.after;
                        expected[..6].copy_from_slice(&HOP.destination.0);
                        expected[6..12].copy_from_slice(&HOP.source.0);
                        if protocol == L4Proto::Sctp {
                            // The quoted CRC32c stays: nobody has the packet to compute it.
                            let (ours, theirs) = (
                                blank_crc(&frame, six, length, tags),
                                blank_crc(&expected, six, length, tags),
                            );
                            assert_eq!(ours, theirs);
                        } else {
                            assert_eq!(frame, expected, "{protocol} {inbound} {length} {tags}");
                        }
                    }
                }
            }
        }
    }
}

/// The frame without the quoted CRC32c and the ICMP checksum that covers it.
fn blank_crc(frame: &[u8], six: bool, length: usize, tags: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let ip = 14 + 4 * tags;
    let header = if six { 40 } else { 20 };
    let icmp = ip + header + 8;
    if six {
        let addresses: [u8; 32] = frame[ip + 8..ip + 40].try_into().unwrap();
        let end = frame.len() - 3;
        assert!(checksum::is_valid_with_pseudo_v6(
            &addresses,
            58,
            &frame[icmp..end]
        ));
    } else {
        let end = frame.len() - 3;
        assert!(checksum::is_valid(&frame[icmp..end]));
    }
    frame[icmp + 2..icmp + 4].fill(0);
    if length >= 12 {
        frame[icmp + 8 + header + 8..][..4].fill(0);
    }
    frame
}

#[test]
fn a_wrong_sum_and_other_messages_are_refused() {
    for six in [false, true] {
        for inbound in [true, false] {
            let case = case(six, L4Proto::Udp, 200, inbound, 0);
            let icmp = 14 + if six { 48 } else { 28 };
            let mut wrong = case.before.clone();
            *wrong.get_mut(icmp + 40).unwrap() ^= 1;
            let refused = translate(&mut wrong, 14, six, inbound);
            assert_eq!(refused, Err(Refused::IcmpChecksum));
            let mut echo = case.before.clone();
            echo[icmp] = if six { 128 } else { 8 };
            let refused = translate(&mut echo, 14, six, inbound);
            assert_eq!(refused, Err(Refused::IcmpQuote));
            let refused = translate(&mut case.before.clone(), 14, !six, inbound);
            assert_eq!(refused, Err(Refused::NotIp));
            let mut plain = Spec::new(six, L4Proto::Udp).frame();
            assert_eq!(
                translate(&mut plain, 14, six, inbound),
                Err(Refused::IcmpQuote)
            );
            for length in 0..case.before.len() - 3 {
                let cut = translate(&mut case.before[..length].to_vec(), 14, six, inbound);
                assert!(cut.is_err(), "{length} bytes");
            }
        }
    }
}

/// A router that quoted a lower TTL with the old sum: IPVS repairs it, and so do we.
#[test]
fn the_quoted_header_gets_a_right_sum() {
    let case = case(false, L4Proto::Udp, 200, true, 0);
    let mut frame = case.before;
    let (icmp, quoted) = (14 + 28, 14 + 36);
    frame[quoted + 8] -= 1;
    frame[icmp + 2..icmp + 4].fill(0);
    let end = frame.len() - 3;
    let sum = checksum::compute(&frame[icmp..end]);
    frame[icmp + 2..icmp + 4].copy_from_slice(&sum);
    translate(&mut frame, 14, false, true).unwrap();
    assert!(checksum::is_valid(&frame[quoted..quoted + 20]));
    assert!(checksum::is_valid(&frame[icmp..end]));
}

proptest! {
    #[test]
    fn random_changes_and_places_never_panic(
        six: bool,
        inbound: bool,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        network in prop::sample::select(vec![14_u8, 14, 14, 0, 13, 200]),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = case(six, L4Proto::Tcp, 200, inbound, 0).before;
        frame.truncate(cut.index(frame.len() * 2));
        for (at, value) in edits {
            if !frame.is_empty() {
                let at = at.index(frame.len());
                frame[at] = value;
            }
        }
        let _ = translate(&mut frame, network, six, inbound);
    }
}
