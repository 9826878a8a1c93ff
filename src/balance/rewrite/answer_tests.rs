//! Answers, read by etherparse. Those of IPVS are in `ipvs_tests`.

use std::net::IpAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::{
    super::{fixtures::*, *},
    *,
};
use crate::{addr::L4Proto, wire::checksum};

const PROBLEMS: [Problem; 3] = [
    Problem::TimeExceeded,
    Problem::PortUnreachable,
    Problem::TooBig(1400),
];

fn family(six: bool) -> Family {
    if six { Family::V6 } else { Family::V4 }
}

fn answer(frame: &mut [u8], network: u8, six: bool, problem: Problem) -> Result<usize, Refused> {
    if six {
        icmp_error(frame, network, US6, problem)
    } else {
        icmp_error(frame, network, US4, problem)
    }
}

fn answered(spec: &Spec, problem: Problem) -> Result<Vec<u8>, Refused> {
    let six = spec.source.is_ipv6();
    let mut frame = grown(&spec.frame(), icmp_room(family(six)));
    let length = answer(&mut frame, spec.network(), six, problem)?;
    frame.truncate(length);
    Ok(frame)
}

#[test]
fn an_answer_goes_back_and_quotes_what_it_is_about() {
    for six in [false, true] {
        for problem in PROBLEMS {
            for (length, tags) in [(4, 0), (33, 1), (1400, 2)] {
                let spec = Spec {
                    data: vec![7; length],
                    tags,
                    padding: 9,
                    options: true,
                    tos: 0xbb,
                    ..Spec::new(six, L4Proto::Udp)
                };
                let frame = answered(&spec, problem).unwrap();
                check(&frame, &spec, problem);
            }
        }
    }
}

fn check(frame: &[u8], spec: &Spec, problem: Problem) {
    assert_eq!(frame[..6], STATIONS[1]);
    assert_eq!(frame[6..12], STATIONS[0]);
    let network = usize::from(spec.network());
    // The tags are those of the frame; the type behind them is its packet's.
    assert_eq!(frame[12..network], spec.frame()[12..network]);
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let quote = match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let header = ip.header();
            assert_eq!(header.source_addr(), US4);
            assert_eq!(IpAddr::from(header.destination_addr()), spec.source);
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
            assert!(header.dont_fragment());
            assert_eq!(header.ttl(), 64);
            // Internetwork control; of the low bits those of the TOS, without "congestion".
            assert_eq!(header.dcp().value() << 2 | header.ecn().value(), 0xda);
            assert!(header.total_len() <= 576);
            assert!(checksum::is_valid(icmp.slice()));
            match (problem, icmp.icmp_type()) {
                (Problem::TimeExceeded, Icmpv4Type::TimeExceeded(_)) => {}
                (_, Icmpv4Type::DestinationUnreachable(_)) => {}
                other => panic!("{other:?}"),
            }
            icmp.payload().to_vec()
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            assert_eq!(header.source_addr(), US6);
            assert_eq!(IpAddr::from(header.destination_addr()), spec.source);
            assert!(header.payload_length() <= 1240);
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            match (problem, icmp.icmp_type()) {
                (Problem::TimeExceeded, Icmpv6Type::TimeExceeded(_)) => {}
                (Problem::PortUnreachable, Icmpv6Type::DestinationUnreachable(_)) => {}
                (Problem::TooBig(_), Icmpv6Type::PacketTooBig { mtu: 1400 }) => {}
                other => panic!("{other:?}"),
            }
            icmp.payload().to_vec()
        }
        other => panic!("{other:?}"),
    };
    let packet = spec.packet();
    let most = if spec.source.is_ipv4() {
        576 - 28
    } else {
        1280 - 48
    };
    assert_eq!(quote, packet[..packet.len().min(most)]);
}

#[test]
fn what_must_not_be_answered_is_not() {
    let refused = |spec: &Spec| answered(spec, Problem::PortUnreachable).err();
    for six in [false, true] {
        let spec = Spec::new(six, L4Proto::Udp);
        assert_eq!(refused(&spec), None);
        let later = Spec {
            part: Part::Later,
            ..spec.clone()
        };
        assert_eq!(refused(&later), Some(Refused::NeverAnswered));
        let first = Spec {
            part: Part::First,
            ..spec.clone()
        };
        assert_eq!(refused(&first), None);
        let groups: [IpAddr; 2] = if six {
            ["ff02::1".parse().unwrap(), "ff0e::5".parse().unwrap()]
        } else {
            [
                "224.0.0.1".parse().unwrap(),
                "255.255.255.255".parse().unwrap(),
            ]
        };
        for group in groups {
            let spec = Spec {
                destination: group,
                ..spec.clone()
            };
            assert_eq!(refused(&spec), Some(Refused::NeverAnswered), "{group}");
        }
        let nobodies: [IpAddr; 3] = if six {
            ["::", "::1", "ff02::1"].map(|it| it.parse().unwrap())
        } else {
            ["0.0.0.0", "127.0.0.1", "224.0.0.9"].map(|it| it.parse().unwrap())
        };
        for nobody in nobodies {
            let spec = Spec {
                source: nobody,
                ..spec.clone()
            };
            assert_eq!(refused(&spec), Some(Refused::NeverAnswered), "{nobody}");
        }
        let (icmp, error, echo) = if six { (58, 1, 128) } else { (1, 3, 8) };
        for (kind, expected) in [(error, Some(Refused::NeverAnswered)), (echo, None)] {
            let packet = ip_packet(&spec, icmp, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            let mut frame = grown(&framed(&spec, &packet), icmp_room(family(six)));
            let outcome = answer(&mut frame, 14, six, Problem::TimeExceeded);
            assert_eq!(outcome.err(), expected, "type {kind}");
        }
    }
    let group = Spec {
        destination: "ff02::1".parse().unwrap(),
        ..Spec::new(true, L4Proto::Udp)
    };
    assert!(
        answered(&group, Problem::TooBig(1280)).is_ok(),
        "RFC 4443 §2.4(e.3)"
    );
}

#[test]
fn a_frame_without_the_room_is_refused() {
    for six in [false, true] {
        let spec = Spec::new(six, L4Proto::Udp);
        let refused = answer(&mut spec.frame()[..40], 14, six, Problem::TimeExceeded);
        assert_eq!(refused, Err(Refused::NoRoom));
        let other = answer(
            &mut grown(&spec.frame(), icmp_room(family(!six))),
            14,
            !six,
            Problem::TimeExceeded,
        );
        assert_eq!(other, Err(Refused::NotIp));
    }
}

/// RFC 9293 §3.10.7.1: a segment with ACK gets a reset with that number, one without gets one that
/// acknowledges it.
#[test]
fn a_reset_answers_a_segment_of_either_family() {
    for six in [false, true] {
        for ack in [true, false] {
            let spec = Spec {
                tags: 1,
                padding: 4,
                ..Spec::new(six, L4Proto::Tcp)
            };
            let network = usize::from(spec.network());
            let mut frame = spec.frame();
            let flags = network + usize::from(spec.place().transport) + 13;
            if !ack {
                frame[flags] = 0x02;
            }
            let length = reset(&mut frame, spec.network()).unwrap();
            let before = frame.clone();
            let sliced = SlicedPacket::from_ethernet(&before[..length]).unwrap();
            assert_eq!(frame[..6], STATIONS[1]);
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!("no TCP");
            };
            let sum = match sliced.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    assert_eq!(IpAddr::from(ip.header().source_addr()), spec.destination);
                    assert_eq!(IpAddr::from(ip.header().destination_addr()), spec.source);
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                }
                NetSlice::Ipv6(ip) => {
                    assert_eq!(IpAddr::from(ip.header().source_addr()), spec.destination);
                    assert_eq!(IpAddr::from(ip.header().destination_addr()), spec.source);
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                }
                NetSlice::Arp(_) => panic!("ARP"),
            };
            assert_eq!(tcp.checksum(), sum.unwrap());
            assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 40_000));
            assert!(tcp.rst() && !tcp.syn());
            if ack {
                assert_eq!((tcp.sequence_number(), tcp.ack()), (77, false));
            } else {
                // 33 bytes of data and the SYN.
                assert_eq!((tcp.acknowledgment_number(), tcp.ack()), (1034, true));
            }
            assert_eq!(reset(&mut frame[..length], spec.network()), None, "a reset");
            assert_eq!(frame, before);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_answers_stay_in_the_frame(
        mut frame in proptest::collection::vec(any::<u8>(), 0..300),
        six: bool,
        network in 0_u8..40,
        problem in prop::sample::select(PROBLEMS.to_vec()),
        length: u8,
    ) {
        let room = icmp_room(family(six));
        for at in [usize::from(network), usize::from(network) + room] {
            if at + 8 < frame.len() {
                frame[at..at + 6].copy_from_slice(&if six {
                    [0x60, 0, 0, 0, 0, length]
                } else {
                    [0x45, 0, 0, length, 0, 0]
                });
            }
        }
        let _ = reset(&mut frame.clone(), network);
        if let Ok(length) = answer(&mut frame, network, six, problem) {
            prop_assert!(length <= frame.len());
        }
    }
}
