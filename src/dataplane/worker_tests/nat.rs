//! lb_kind NAT, both directions and both families.

use super::{
    frames::{ACK, FIN, L4, RST, SYN, framed, icmp_error, sctp, udp},
    *,
};

const REAL_PORT: u16 = 8080;

/// Client, VIP and real server of a family.
fn ends(six: bool) -> [&'static str; 3] {
    if six {
        [CLIENT6, VIP6, REAL6]
    } else {
        [CLIENT4, VIP4, REAL4]
    }
}

fn nat(id: u32, addr: &str, port: u16) -> RealSpec {
    real_at(id, addr, port, LbKind::Nat)
}

fn web(six: bool, protocol: L4Proto) -> ServiceSpec {
    let [_, vip, real] = ends(six);
    let what = address(protocol, vip, 80);
    served(0, what, vec![nat(11, real, REAL_PORT)])
}

/// What a real server answers to a packet as it got it.
fn back(pkt: &Pkt, l4: L4) -> Pkt {
    Pkt {
        from: pkt.to,
        to: pkt.from,
        l4,
        ttl: 61,
        ..pkt.clone()
    }
}

#[test]
fn packets_are_renamed_in_both_directions() {
    for six in [false, true] {
        let [client, vip, real] = ends(six);
        let (from, to) = ((client, 4000), (vip, 80));
        let first = [
            (tcp(from, to, SYN), L4::Tcp(SYN | ACK), L4Proto::Tcp),
            (udp(from, to), L4::Udp, L4Proto::Udp),
            (sctp(from, to, 1), L4::Sctp(2), L4Proto::Sctp),
        ];
        for (first, answer, protocol) in first {
            for (tags, tos, df, len) in [
                (vec![], 0, false, 5),
                (vec![42], 0xb8, true, 0),
                (vec![100, 42], 3, false, 1401),
            ] {
                let first = Pkt {
                    tags,
                    tos,
                    df,
                    ..first.clone().with_data(len)
                };
                let mut lab = Lab::full(&[web(six, protocol)]);
                let real_end = (real.parse().unwrap(), REAL_PORT);
                let inside = first.renamed(first.from, real_end);
                assert_eq!(lab.client(&first), to_real(11, &inside), "{first:?}");
                let answer = back(&inside, answer);
                let outside = answer.renamed(first.to, first.from);
                assert_eq!(lab.answer(11, &answer), to_router(&outside), "{answer:?}");
                let (length, answered) = (inside.packet().len(), answer.packet().len());
                let traffic = [1, length as u64, 1, answered as u64];
                assert_eq!(lab.traffic(11), traffic);
                assert_eq!(lab.stats.dropped(), 0);
                assert!(lab.worker.account().is_settled());
            }
        }
    }
}

#[test]
fn an_answer_is_of_the_flow_that_is_not_over() {
    let other = "10.1.0.101";
    for (ended, expired) in [(RST, false), (RST, true), (ACK, true)] {
        let both = ServiceSpec {
            matches: vec![
                address(L4Proto::Tcp, VIP4, 80),
                address(L4Proto::Tcp, other, 80),
            ],
            ..web(false, L4Proto::Tcp)
        };
        let mut lab = Lab::full(&[both]);
        // One port of one client, and one real server: its answers do not tell the two flows apart.
        let (from, real) = ((CLIENT4, 4000), (REAL4.parse().unwrap(), REAL_PORT));
        for flags in [SYN, ACK, ended] {
            lab.client(&tcp(from, (VIP4, 80), flags)).unwrap();
        }
        if expired {
            // Not swept yet.
            lab.now = lab.now + Duration::from_secs(1000);
        }
        let second = tcp(from, (other, 80), SYN);
        let inside = second.renamed(second.from, real);
        assert_eq!(lab.client(&second), to_real(11, &inside));
        let answer = back(&inside, L4::Tcp(SYN | ACK));
        let outside = answer.renamed(second.to, second.from);
        assert_eq!(lab.answer(11, &answer), to_router(&outside), "{ended:?}");
    }
}

#[test]
fn fragments_that_a_real_server_sends_for_itself_are_routed() {
    for six in [false, true] {
        let [client, _, real] = ends(six);
        let mut lab = Lab::full(&[web(six, L4Proto::Udp)]);
        let mut whole = udp((real, 5060), (client, 9)).with_data(1500);
        whole.id = 3;
        for order in [[0, 1], [1, 0]] {
            whole.id += 1;
            let parts = [0..1200, 1200..1508].map(|part| {
                let came = framed(real_mac(11), EGRESS_MAC, &[], &whole.fragment(part.clone()));
                let goes = framed(OUR_MAC, ROUTER_MAC, &[], &whole.passed().fragment(part));
                (came, (INGRESS, goes))
            });
            let mut out = Vec::new();
            for n in order {
                let (came, _): &(Vec<u8>, _) = &parts[n];
                out.extend(lab.burst(EGRESS, &[came]));
            }
            out.extend(lab.turn());
            out.sort();
            let mut expected = parts.map(|(_, goes)| goes);
            expected.sort();
            assert_eq!(out, expected, "{six} {order:?}");
        }
        // From elsewhere they are nobody's.
        let other = if six { "fd02::77" } else { "10.2.0.77" };
        whole.from.0 = other.parse().unwrap();
        let frame = framed(real_mac(11), EGRESS_MAC, &[], &whole.fragment(0..1200));
        lab.assert_dropped(&frame, DropReason::NoService);
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_so() {
    let mut lab = Lab::full(&[web(false, L4Proto::Udp)]);
    let mut first = udp((CLIENT4, 4000), (VIP4, 80));
    first.no_sum = true;
    let inside = first.renamed(first.from, (REAL4.parse().unwrap(), REAL_PORT));
    assert_eq!(lab.client(&first), to_real(11, &inside));
}

#[test]
fn answers_go_to_the_client_itself_where_it_is_on_the_link() {
    for (six, client) in [(false, ON_LINK4), (true, ON_LINK6)] {
        let [_, vip, real] = ends(six);
        let mut lab = Lab::full(&[web(six, L4Proto::Tcp)]);
        let first = tcp((client, 4000), (vip, 80), SYN);
        let inside = first.renamed(first.from, (real.parse().unwrap(), REAL_PORT));
        assert_eq!(lab.client(&first), to_real(11, &inside));
        let answer = back(&inside, L4::Tcp(SYN | ACK));
        let outside = answer.renamed(first.to, first.from);
        let expected = (INGRESS, outside.between(OUR_MAC, ON_LINK_MAC));
        assert_eq!(lab.answer(11, &answer), Some(expected));
    }
}

/// Whose segment, its flags, the state after it, and active and inactive connections.
type Step = (bool, u8, State, u64, (u64, u64));

const GOLDEN: [&[Step]; 6] = {
    use State::{Close, CloseWait, Established, FinWait, SynRecv, SynSent, TimeWait};
    [
        // The client closes.
        &[
            (true, SYN, SynRecv, 60, (1, 0)),
            (false, SYN | ACK, SynRecv, 60, (1, 0)),
            (true, ACK, Established, 900, (1, 0)),
            (true, FIN | ACK, CloseWait, 60, (0, 1)),
            (false, FIN | ACK, TimeWait, 120, (0, 1)),
            (true, ACK, TimeWait, 120, (0, 1)),
        ],
        // The real server closes.
        &[
            (true, SYN, SynRecv, 60, (1, 0)),
            (false, SYN | ACK, SynRecv, 60, (1, 0)),
            (true, ACK, Established, 900, (1, 0)),
            (false, FIN | ACK, FinWait, 120, (0, 1)),
            (true, ACK, FinWait, 120, (0, 1)),
            (true, FIN | ACK, TimeWait, 120, (0, 1)),
        ],
        // A reset, from either side.
        &[
            (true, SYN, SynRecv, 60, (1, 0)),
            (true, ACK, Established, 900, (1, 0)),
            (true, RST, Close, 10, (0, 1)),
        ],
        &[
            (true, SYN, SynRecv, 60, (1, 0)),
            (true, ACK, Established, 900, (1, 0)),
            (false, RST, Close, 10, (0, 1)),
        ],
        // Refused; then the real server opens, and both do at once.
        &[
            (true, SYN, SynRecv, 60, (1, 0)),
            (false, RST | ACK, Close, 10, (0, 1)),
            (false, SYN, SynSent, 120, (1, 0)),
            (true, SYN, Established, 900, (1, 0)),
        ],
        // Refused.
        &[
            (true, SYN, SynRecv, 60, (1, 0)),
            (false, RST | ACK, Close, 10, (0, 1)),
        ],
    ]
};

#[test]
fn a_connection_goes_through_the_states_of_ipvs() {
    for six in [false, true] {
        let [client, vip, real] = ends(six);
        for walk in GOLDEN {
            let mut lab = Lab::full(&[web(six, L4Proto::Tcp)]);
            let mut first = tcp((client, 4000), (vip, 80), SYN);
            for (from_client, flags, state, seconds, (active, inactive)) in walk {
                lab.advance(2);
                first.l4 = L4::Tcp(*flags);
                let inside = first.renamed(first.from, (real.parse().unwrap(), REAL_PORT));
                let out = if *from_client {
                    lab.client(&first)
                } else {
                    lab.answer(11, &back(&inside, L4::Tcp(*flags)))
                };
                assert!(out.is_some());
                assert_eq!(lab.state(&first), Some((*state, *seconds)), "{walk:?}");
                lab.assert_counts(11, *active, *inactive);
            }
            // It is there to the last second, and then the sweep takes it.
            let (_, _, _, seconds, (active, inactive)) = walk.last().unwrap();
            lab.advance(seconds - 1);
            lab.turn();
            lab.assert_counts(11, *active, *inactive);
            lab.advance(1);
            for _ in 0..10 {
                lab.advance(1);
                lab.turn();
            }
            lab.assert_counts(11, 0, 0);
        }
    }
}

#[test]
fn ports_stay_where_the_virtual_server_has_every_port() {
    let mark = Match::Mark {
        mark: 7,
        ipv6: false,
    };
    let rule = crate::balance::MarkRule {
        mark: 7,
        protocol: None,
        destination: (VIP4.parse().unwrap(), VIP4.parse().unwrap()),
        destination_ports: (0, u16::MAX),
        source: None,
        source_ports: (0, u16::MAX),
        ingress: None,
    };
    for (what, marks) in [(address(L4Proto::Tcp, VIP4, 0), vec![]), (mark, vec![rule])] {
        let spec = served(0, what, vec![nat(11, REAL4, 0)]);
        let mut lab = Lab::with(&[spec], |environment| environment.marks = marks);
        for port in [22, 80, 65_535] {
            let first = tcp((CLIENT4, 4000), (VIP4, port), SYN);
            let inside = first.renamed(first.from, (REAL4.parse().unwrap(), port));
            assert_eq!(lab.client(&first), to_real(11, &inside));
            let answer = back(&inside, L4::Tcp(SYN | ACK));
            let outside = answer.renamed(first.to, first.from);
            assert_eq!(lab.answer(11, &answer), to_router(&outside));
        }
        // The real server is a client of the virtual server itself, and gets an answer as such.
        let own = tcp((REAL4, 5000), (VIP4, 80), SYN);
        let out = lab.burst(EGRESS, &[own.between(real_mac(11), EGRESS_MAC)]);
        let inside = own.renamed(own.from, (REAL4.parse().unwrap(), 80));
        assert_eq!(out, Vec::from_iter(to_real(11, &inside)));
        // So it is when it says what is wrong with such an answer.
        let answer = tcp((VIP4, 80), (REAL4, 5000), SYN | ACK).packet();
        let unreachable = icmp_error(REAL4, VIP4, [3, 1, 0, 0, 0, 0, 0, 0], &answer, (64, 0));
        let frame = framed(real_mac(11), EGRESS_MAC, &[], &unreachable);
        let out = lab.burst(EGRESS, &[frame]);
        assert_eq!(
            (out.len(), out[0].0, &out[0].1[..6]),
            (1, EGRESS, &real_mac(11)[..])
        );
    }
}

#[test]
fn a_real_server_may_be_a_client_of_the_virtual_server() {
    let reals = vec![nat(11, REAL4, REAL_PORT), nat(12, "10.2.0.12", REAL_PORT)];
    let spec = served(0, address(L4Proto::Tcp, VIP4, 80), reals);
    let mut lab = Lab::full(&[spec]);
    lab.client(&tcp((CLIENT4, 1), (VIP4, 80), SYN));
    // The second connection goes to 12, whose answer comes back through us.
    let own = tcp((REAL4, 5000), (VIP4, 80), SYN);
    let out = lab.burst(EGRESS, &[own.between(real_mac(11), EGRESS_MAC)]);
    let inside = own.renamed(own.from, ("10.2.0.12".parse().unwrap(), REAL_PORT));
    assert_eq!(out, Vec::from_iter(to_real(12, &inside)));
    let reversed = tcp((CLIENT4, 2), (VIP4, 80), SYN);
    assert_eq!(lab.goes_to(&reversed), Some(11));
    let hairpin = tcp(("10.2.0.12", 5000), (VIP4, 80), SYN);
    let out = lab.burst(EGRESS, &[hairpin.between(real_mac(12), EGRESS_MAC)]);
    assert_eq!(out[0].1[5], 12);
    let inside = hairpin.renamed(hairpin.from, ("10.2.0.12".parse().unwrap(), REAL_PORT));
    let answer = back(&inside, L4::Tcp(SYN | ACK));
    let out = lab.answer(12, &answer).unwrap();
    let outside = answer.renamed(hairpin.to, hairpin.from);
    assert_eq!(out, (EGRESS, outside.between(EGRESS_MAC, real_mac(12))));
}

#[test]
fn what_answers_no_connection_is_routed_as_it_is() {
    for six in [false, true] {
        let [client, _, real] = ends(six);
        let mut lab = Lab::full(&[web(six, L4Proto::Tcp)]);
        for flags in [SYN | ACK, ACK, RST] {
            let stray = tcp((real, REAL_PORT), (client, 4000), flags);
            assert_eq!(lab.answer(11, &stray), to_router(&stray.passed()));
        }
        assert_eq!(lab.traffic(11), [0; 4]);
        // Nowhere to go.
        let stray = tcp((real, REAL_PORT), (client, 4000), ACK).with_ttl(1);
        let out = lab.answer(11, &stray).unwrap();
        assert_eq!(out.0, EGRESS, "time exceeded, back to the real server");
        lab.publish_with(&[web(six, L4Proto::Tcp)], |environment| {
            environment.routes = Arc::default();
        });
        let stray = tcp((real, REAL_PORT), (client, 4000), ACK);
        assert_eq!(lab.answer(11, &stray), None);
        assert_eq!(lab.dropped_for(DropReason::NoRoute), 1);
    }
}

#[test]
fn with_nat_icmp_send_a_real_server_is_told_but_who_ends_a_connection_is_let_through() {
    for six in [false, true] {
        let [client, _, real] = ends(six);
        let mut lab = Lab::with(&[web(six, L4Proto::Tcp)], |environment| {
            environment.policy.nat_icmp_send = true;
            let ports: Vec<_> = [(ON_LINK4, ON_LINK6), (US4, US6)]
                .map(|(four, six)| PortSpec {
                    v4: four.parse().ok(),
                    v6: six.parse().ok(),
                    fast: false,
                })
                .into();
            environment.ports = ports;
        });
        let end = tcp((real, REAL_PORT), (client, 4000), RST);
        assert_eq!(lab.answer(11, &end), to_router(&end.passed()));
        let stray = tcp((real, REAL_PORT), (client, 4000), ACK);
        let (port, _) = lab.answer(11, &stray).unwrap();
        assert_eq!(port, EGRESS, "unreachable, back to the real server");
        assert_eq!(lab.stats.replies(ReplyReason::NoConnection).get(), 1);
    }
}

#[test]
fn one_packet_flows_get_their_answers_without_a_connection() {
    for six in [false, true] {
        let [client, vip, real] = ends(six);
        let other = if six { "fd02::12" } else { "10.2.0.12" };
        let what = address(L4Proto::Udp, vip, 53);
        let reals = vec![nat(11, real, 5353), nat(12, other, 5353)];
        let spec = ServiceSpec {
            one_packet: true,
            ..served(0, what, reals)
        };
        let mut lab = Lab::full(&[spec]);
        let query = udp((client, 4000), (vip, 53));
        for (id, addr) in [(11, real), (12, other), (11, real)] {
            let inside = query.renamed(query.from, (addr.parse().unwrap(), 5353));
            assert_eq!(lab.client(&query), to_real(id, &inside));
            let answer = back(&inside, L4::Udp);
            let outside = answer.renamed(query.to, query.from);
            assert_eq!(lab.answer(id, &answer), to_router(&outside));
        }
        let packet = query.packet().len() as u64;
        assert_eq!(lab.traffic(11), [2, 2 * packet, 2, 2 * packet]);
        assert_eq!(lab.traffic(12), [1, packet, 1, packet]);
        assert_eq!(lab.state(&query), None);
        assert_eq!(lab.stats.connections.get(), 0);
        assert_eq!(lab.stats.real(11).connections.get(), 2);
    }
}

/// Headers of ICMP errors of a family: type, code, what follows.
const fn icmp_headers(six: bool) -> [[u8; 8]; 3] {
    if six {
        [
            [1, 4, 0, 0, 0, 0, 0, 0],
            [2, 0, 0, 0, 0, 0, 5, 0],
            [3, 0, 0, 0, 0, 0, 0, 0],
        ]
    } else {
        [
            [3, 3, 0, 0, 0, 0, 0, 0],
            [3, 4, 0, 0, 0, 0, 5, 120],
            [11, 0, 0, 0, 0, 0, 0, 0],
        ]
    }
}

#[test]
fn icmp_errors_are_translated_with_what_they_quote() {
    for six in [false, true] {
        let [client, vip, real] = ends(six);
        let router = if six { "2001:db8:9::9" } else { "192.0.2.9" };
        let frame =
            |source, destination, packet: &[u8]| frames::framed(source, destination, &[], packet);
        for first in [
            tcp((client, 4000), (vip, 80), SYN).with_data(100),
            udp((client, 4000), (vip, 80)).with_data(100),
            sctp((client, 4000), (vip, 80), 1).with_data(100),
        ] {
            let protocol = match first.l4 {
                L4::Tcp(_) => L4Proto::Tcp,
                L4::Udp => L4Proto::Udp,
                L4::Sctp(_) => L4Proto::Sctp,
            };
            // A quoted SCTP packet keeps the CRC32c that it had: it is cut, and nobody can check it.
            let cut = |mut packet: Vec<u8>, of: &Pkt| {
                if let L4::Sctp(_) = first.l4 {
                    let at = if six { 48 } else { 28 };
                    let crc = of.packet()[at..at + 4].to_vec();
                    packet[at..at + 4].copy_from_slice(&crc);
                }
                packet.truncate(if six { 100 } else { 60 });
                packet
            };
            let mut lab = Lab::full(&[web(six, protocol)]);
            let inside = first.renamed(first.from, (real.parse().unwrap(), REAL_PORT));
            assert!(lab.client(&first).is_some());
            let answer = back(&inside, first.l4);
            let seen_outside = answer.renamed(first.to, first.from);
            for header in icmp_headers(six) {
                // From the client's side, about the answer as it went out.
                let quote = cut(seen_outside.packet(), &seen_outside);
                let about = icmp_error(router, vip, header, &quote, (60, 0));
                let mut translated = seen_outside.clone();
                translated.from = answer.from;
                let quote = cut(translated.packet(), &seen_outside);
                let expected = icmp_error(router, real, header, &quote, (59, 0));
                let out = lab.burst(INGRESS, &[frame(ROUTER_MAC, OUR_MAC, &about)]);
                let expected = frame(EGRESS_MAC, real_mac(11), &expected);
                assert_eq!(out, [(EGRESS, expected)], "{header:?} {first:?}");

                // From the real server's side, about the packet as it got it.
                let quote = cut(inside.packet(), &inside);
                let about = icmp_error(real, client, header, &quote, (60, 0));
                let translated = inside.renamed(inside.from, first.to);
                let translated = translated.with_ttl(inside.ttl);
                let quote = cut(translated.packet(), &inside);
                let expected = icmp_error(vip, client, header, &quote, (59, 0));
                let out = lab.burst(EGRESS, &[frame(real_mac(11), EGRESS_MAC, &about)]);
                let expected = frame(OUR_MAC, ROUTER_MAC, &expected);
                assert_eq!(out, [(INGRESS, expected)], "{header:?} {first:?}");
            }
            assert_eq!(lab.traffic(11)[0], 4);
            assert_eq!(lab.traffic(11)[2], 3);
            assert_eq!(lab.stats.dropped(), 0);
        }
    }
}

#[test]
fn an_icmp_error_with_a_wrong_sum_is_not_made_right() {
    let mut lab = Lab::full(&[web(false, L4Proto::Tcp)]);
    let first = tcp((CLIENT4, 4000), (VIP4, 80), SYN);
    lab.client(&first);
    let quote = tcp((VIP4, 80), (CLIENT4, 4000), ACK).packet();
    let mut about = icmp_error("192.0.2.9", VIP4, [3, 3, 0, 0, 0, 0, 0, 0], &quote, (60, 0));
    about[30] ^= 1;
    let frame = frames::framed(ROUTER_MAC, OUR_MAC, &[], &about);
    lab.assert_dropped(&frame, DropReason::IcmpChecksum);
}

#[test]
fn an_answer_waits_for_the_clients_mac_address() {
    for six in [false, true] {
        let [client, vip, real] = ends(six);
        let specs = [web(six, L4Proto::Tcp)];
        let mut lab = Lab::with(&specs, |environment| environment.routes = routes(false));
        let first = tcp((client, 4000), (vip, 80), SYN);
        let inside = first.renamed(first.from, (real.parse().unwrap(), REAL_PORT));
        assert!(lab.client(&first).is_some());
        let answer = back(&inside, L4::Tcp(SYN | ACK));
        assert_eq!(lab.answer(11, &answer), None);
        assert_eq!(lab.worker.account().in_hand, 1, "it waits");
        let gateway = if six { "fe80::fe" } else { "10.1.0.254" };
        assert_eq!(
            lab.publisher.asked(),
            Some((INGRESS, gateway.parse().unwrap()))
        );
        assert_eq!(lab.traffic(11)[2..], [0, 0], "it is counted when it goes");
        lab.advance(1);
        lab.publish_with(&specs, |_| {});
        let outside = answer.renamed(first.to, first.from);
        assert_eq!(lab.turn(), Vec::from_iter(to_router(&outside)));
        assert_eq!(lab.traffic(11)[2..], [1, answer.packet().len() as u64]);
        assert!(lab.worker.account().is_settled());
    }
}

#[test]
fn an_answer_that_cannot_go_on_is_said_to_the_real_server_or_cut() {
    let small = |environment: &mut Around| {
        let route = Route {
            to: "0.0.0.0/0".parse().unwrap(),
            port: Some(INGRESS),
            source: MacAddr(OUR_MAC),
            gateway: Some("10.1.0.254".parse().unwrap()),
            mtu: 1300,
        };
        let router = (
            INGRESS,
            "10.1.0.254".parse().unwrap(),
            MacAddr(ROUTER_MAC),
            0,
        );
        environment.routes = Arc::new(Routes::new([route], [router]));
    };
    let mut lab = Lab::with(&[web(false, L4Proto::Udp)], small);
    let first = udp((CLIENT4, 4000), (VIP4, 80));
    let inside = first.renamed(first.from, (REAL4.parse().unwrap(), REAL_PORT));
    lab.client(&first);
    let answer = back(&inside, L4::Udp).with_data(1400);
    let told = lab.answer(11, &answer.clone().with_df()).unwrap();
    let header = [3, 4, 0, 0, 0, 0, 5, 20];
    let quote = answer.clone().with_df().packet();
    let expected = frames::own_icmp(US4, REAL4, header, &quote);
    let expected = frames::framed(EGRESS_MAC, real_mac(11), &[], &expected);
    assert_eq!(told, (EGRESS, expected));
    // So is the end of its hops: from our port, as its destination is not us.
    let last = answer.clone().with_ttl(1);
    let expected = frames::own_icmp(US4, REAL4, [11, 0, 0, 0, 0, 0, 0, 0], &last.packet());
    let expected = frames::framed(EGRESS_MAC, real_mac(11), &[], &expected);
    assert_eq!(lab.answer(11, &last), Some((EGRESS, expected)));
    // Without DF it goes in two, with the sum that the whole has.
    let outside = answer.renamed(first.to, first.from);
    let out = lab.burst(EGRESS, &[answer.between(real_mac(11), EGRESS_MAC)]);
    let parts = [0..1280, 1280..1408].map(|part| {
        let packet = outside.fragment(part);
        (INGRESS, frames::framed(OUR_MAC, ROUTER_MAC, &[], &packet))
    });
    assert_eq!(out, parts);
    assert_eq!(lab.stats.frames_out.get(), 5);
    assert!(lab.worker.account().is_settled());
}
