//! ICMP errors: those about flows, and those of our own.

use super::{
    frames::{
        ACK, FIN, L4, RST, SYN, framed, icmp_error as icmp_error_packet, own_icmp, sctp, udp,
    },
    *,
};

#[test]
fn an_icmp_error_follows_the_flow_that_it_is_about() {
    let mut lab = Lab::new(service(vec![real(11), real(12)]));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    assert_eq!(lab.reaches(&segment(CLIENT, 4001, Say::Syn)), Some(12));
    for kind in [3, 4, 11, 12] {
        let about = icmp_error(kind, 4001);
        assert_eq!(lab.send(&about), Some((EGRESS, routed(&about, 14, 12))));
    }
    lab.assert_dropped(&icmp_error(3, 4002), DropReason::IcmpUnknownFlow);
    lab.assert_dropped(&icmp_error(8, 4001), DropReason::IcmpType);
    let mut cut = icmp_error(3, 4001);
    cut.pop();
    cut[17] -= 1;
    fix_ip_checksum(&mut cut, 20);
    lab.assert_dropped(&cut, DropReason::IcmpQuote);
    // It keeps no flow alive: SYN_RECV is over after 60 s.
    lab.advance(59);
    assert_eq!(lab.reaches(&icmp_error(3, 4001)), Some(12));
    lab.advance(1);
    lab.assert_dropped(&icmp_error(3, 4001), DropReason::IcmpUnknownFlow);
}

/// A virtual server of a family for TCP, UDP and SCTP.
fn spec(six: bool, reals: Vec<RealSpec>) -> ServiceSpec {
    let vip = if six { VIP6 } else { VIP4 };
    let protocols = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
    let matches = protocols.map(|protocol| address(protocol, vip, 80));
    ServiceSpec {
        matches: matches.to_vec(),
        ..served(0, matches[0], reals)
    }
}

fn one_real(six: bool) -> RealSpec {
    real_at(11, if six { REAL6 } else { REAL4 }, 80, LbKind::Dr)
}

fn firsts(six: bool) -> [Pkt; 3] {
    let (from, to) = if six {
        ((CLIENT6, 4000), (VIP6, 80))
    } else {
        ((CLIENT4, 4000), (VIP4, 80))
    };
    [tcp(from, to, SYN), udp(from, to), sctp(from, to, 1)]
}

/// The error that a client gets about its packet: from the address that it asked.
fn told(six: bool, header: [u8; 8], about: &Pkt) -> Option<(PortId, Vec<u8>)> {
    let (vip, client) = if six {
        (VIP6, CLIENT6)
    } else {
        (VIP4, CLIENT4)
    };
    let packet = own_icmp(vip, client, header, &about.packet());
    Some((INGRESS, framed(OUR_MAC, ROUTER_MAC, &[], &packet)))
}

#[test]
fn a_service_without_real_servers_is_unreachable() {
    for six in [false, true] {
        let header = if six {
            [1, 4, 0, 0, 0, 0, 0, 0]
        } else {
            [3, 3, 0, 0, 0, 0, 0, 0]
        };
        let down = RealSpec {
            available: false,
            ..one_real(six)
        };
        let quiet = RealSpec {
            weight: 0,
            ..one_real(six)
        };
        for reals in [vec![], vec![down], vec![quiet]] {
            let mut lab = Lab::full(&[spec(six, reals)]);
            for len in [5, 500, 1400] {
                for first in firsts(six) {
                    let first = first.with_data(len);
                    assert_eq!(lab.client(&first), told(six, header, &first), "{first:?}");
                }
            }
            assert_eq!(lab.stats.replies(ReplyReason::NoReal).get(), 9);
            assert_eq!(lab.stats.dropped(), 0);
            assert_eq!(lab.stats.connections.get(), 0);
        }
    }
}

#[test]
fn a_packet_at_the_end_of_its_hops_is_answered_by_the_vip() {
    for six in [false, true] {
        let header = if six {
            [3, 0, 0, 0, 0, 0, 0, 0]
        } else {
            [11, 0, 0, 0, 0, 0, 0, 0]
        };
        let mut lab = Lab::full(&[spec(six, vec![one_real(six)])]);
        for first in firsts(six) {
            for ttl in [0, 1] {
                let last = first.clone().with_ttl(ttl);
                assert_eq!(lab.client(&last), told(six, header, &last));
            }
            assert!(lab.client(&first).is_some());
        }
        assert_eq!(lab.stats.replies(ReplyReason::TtlExpired).get(), 6);
        // An error about a flow is not answered with another.
        let quoted = Pkt {
            from: firsts(six)[0].to,
            to: firsts(six)[0].from,
            ..firsts(six)[0].clone()
        };
        let (router, vip) = if six {
            ("2001:db8:9::9", VIP6)
        } else {
            ("192.0.2.9", VIP4)
        };
        let error = |ttl| {
            let header = [if six { 1 } else { 3 }, 3, 0, 0, 0, 0, 0, 0];
            let packet = icmp_error_packet(router, vip, header, &quoted.packet(), (ttl, 0));
            framed(ROUTER_MAC, OUR_MAC, &[], &packet)
        };
        assert_eq!(lab.burst(INGRESS, &[error(2)]).len(), 1);
        lab.assert_dropped(&error(1), DropReason::TtlExpired);
        // Nor is a fragment that is not the first.
        let whole = firsts(six)[1].clone().with_data(1000);
        let first = framed(ROUTER_MAC, OUR_MAC, &[], &whole.fragment(0..504));
        assert_eq!(lab.burst(INGRESS, &[first]).len(), 1);
        let later = whole.clone().with_ttl(1).fragment(504..1008);
        let later = framed(ROUTER_MAC, OUR_MAC, &[], &later);
        lab.assert_dropped(&later, DropReason::TtlExpired);
    }
}

#[test]
fn a_packet_that_is_too_large_for_its_real_server_is_told_so_or_cut() {
    for method in [LbKind::Dr, LbKind::Nat] {
        for six in [false, true] {
            let mut narrow = one_real(six);
            narrow.method = method;
            narrow.hop = hop_to(narrow.id.0, None, 1400);
            let addr = narrow.endpoint.addr;
            let mut lab = Lab::full(&[spec(six, vec![narrow])]);
            let header = if six {
                [2, 0, 0, 0, 0, 0, 5, 120]
            } else {
                [3, 4, 0, 0, 0, 0, 5, 120]
            };
            for first in firsts(six) {
                let large = first.with_data(1424).with_df();
                assert_eq!(lab.client(&large), told(six, header, &large), "{large:?}");
                if six {
                    continue;
                }
                let large = Pkt { df: false, ..large };
                let passed = match method {
                    LbKind::Nat => large.renamed(large.from, (addr, 80)),
                    _ => large.passed(),
                };
                let length = large.segment().len();
                let parts = [0..1376, 1376..length].map(|part| {
                    let packet = passed.fragment(part);
                    (EGRESS, framed(EGRESS_MAC, real_mac(11), &[], &packet))
                });
                assert_eq!(lab.burst(INGRESS, &[large.frame()]), parts);
            }
            assert_eq!(lab.stats.dropped(), 0);
            assert!(lab.worker.account().is_settled());
        }
    }
}

#[test]
fn a_segment_of_an_unknown_ipv6_flow_is_reset() {
    let mut lab = Lab::full(&[spec(true, vec![one_real(true)])]);
    for flags in [ACK, FIN | ACK, 0] {
        let stray = Pkt {
            l4: L4::Tcp(flags),
            tags: vec![42],
            ..firsts(true)[0].clone()
        };
        let (port, answer) = lab.client(&stray).unwrap();
        let mut header = etherparse::TcpHeader::new(80, 4000, 0, 0);
        header.rst = true;
        if flags & ACK != 0 {
            header.sequence_number = 5000;
        } else {
            header.ack = true;
            header.acknowledgment_number = 1005;
        }
        let (vip, client): (std::net::Ipv6Addr, std::net::Ipv6Addr) =
            (VIP6.parse().unwrap(), CLIENT6.parse().unwrap());
        header.checksum = header
            .calc_checksum_ipv6_raw(vip.octets(), client.octets(), &[])
            .unwrap();
        let ip = frames::ip6(vip, client, etherparse::IpNumber::TCP, 64, 0, 20);
        let packet = [&ip.to_bytes()[..], &header.to_bytes()].concat();
        let expected = framed(OUR_MAC, ROUTER_MAC, &[42], &packet);
        assert_eq!((port, answer), (INGRESS, expected), "{flags}");
    }
    let reset = Pkt {
        l4: L4::Tcp(RST),
        ..firsts(true)[0].clone()
    };
    lab.assert_no_way(&reset, DropReason::UnknownReset);
}

#[test]
fn answers_of_our_own_are_bounded() {
    let mut lab = Lab::full(&[spec(false, vec![])]);
    let first = &firsts(false)[1];
    let answered = (0..1200).filter(|_| lab.client(first).is_some()).count();
    assert_eq!(answered, 1000);
    assert_eq!(lab.dropped_for(DropReason::ReplyLimit), 200);
    lab.advance(1);
    assert!(lab.client(first).is_some());
    // Resets are bounded with them.
    let stray = tcp((CLIENT4, 1), (VIP4, 80), ACK);
    let answered = (0..1200).filter(|_| lab.client(&stray).is_some()).count();
    assert_eq!(answered, 999);
}
