//! Packets in fragments: in order, out of order, without a first one; through DR and NAT.

use super::{
    frames::{SYN, fragment_of, framed, icmp_error, udp},
    *,
};

fn ends(six: bool) -> [&'static str; 3] {
    if six {
        [CLIENT6, VIP6, REAL6]
    } else {
        [CLIENT4, VIP4, REAL4]
    }
}

fn spec(six: bool, method: LbKind) -> ServiceSpec {
    let [_, vip, real] = ends(six);
    let other = if six { "fd02::12" } else { "10.2.0.12" };
    let reals = vec![
        real_at(11, real, 8080, method),
        real_at(12, other, 8080, method),
    ];
    served(0, address(L4Proto::Udp, vip, 80), reals)
}

/// A datagram of a client in three fragments, as they come in and as they leave for real server 11.
fn datagram(six: bool, method: LbKind, port: u16) -> [(Vec<u8>, Vec<u8>); 3] {
    let [client, vip, real] = ends(six);
    let mut whole = udp((client, port), (vip, 80)).with_data(2500);
    whole.id = port;
    let passed = match method {
        LbKind::Nat => whole.renamed(whole.from, (real.parse().unwrap(), 8080)),
        _ => whole.passed(),
    };
    [0..1200, 1200..2400, 2400..2508].map(|part| {
        (
            framed(ROUTER_MAC, OUR_MAC, &[], &whole.fragment(part.clone())),
            framed(EGRESS_MAC, real_mac(11), &[], &passed.fragment(part)),
        )
    })
}

fn every(check: impl Fn(bool, LbKind)) {
    for six in [false, true] {
        for method in [LbKind::Dr, LbKind::Nat] {
            check(six, method);
        }
    }
}

#[test]
fn later_fragments_follow_the_first() {
    every(|six, method| {
        let mut lab = Lab::full(&[spec(six, method)]);
        for (frame, expected) in datagram(six, method, 4000) {
            assert_eq!(
                lab.burst(INGRESS, &[frame]),
                [(EGRESS, expected)],
                "{method:?}"
            );
        }
        assert_eq!(lab.stats.real(11).connections.get(), 1);
        assert_eq!(lab.traffic(11)[0], 3);
        // All in one burst, too, each datagram with its own real server.
        let frames = datagram(six, method, 4001).map(|(frame, _)| frame);
        let out = lab.burst(INGRESS, &frames);
        assert!(out.iter().all(|(_, frame)| frame[5] == 12) && out.len() == 3);
    });
}

#[test]
fn later_fragments_wait_for_a_first_one_that_was_overtaken() {
    every(|six, method| {
        for order in [[1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            for at_once in [false, true] {
                let mut lab = Lab::full(&[spec(six, method)]);
                let fragments = datagram(six, method, 4000);
                let mut out = Vec::new();
                if at_once {
                    let frames = order.map(|n: usize| &fragments[n].0);
                    out.extend(lab.burst(INGRESS, &frames));
                } else {
                    for n in order {
                        out.extend(lab.burst(INGRESS, &[&fragments[n].0]));
                    }
                }
                out.extend(lab.turn());
                let mut expected = fragments.map(|(_, frame)| (EGRESS, frame)).to_vec();
                expected.sort();
                out.sort();
                assert_eq!(out, expected, "{method:?} {order:?}");
                assert_eq!(lab.stats.dropped(), 0);
                assert_eq!(lab.stats.real(11).connections.get(), 1);
                assert!(lab.worker.account().is_settled());
            }
        }
    });
}

#[test]
fn fragments_without_a_first_one_are_given_up_after_half_a_second() {
    every(|six, method| {
        let mut lab = Lab::full(&[spec(six, method)]);
        let fragments = datagram(six, method, 4000);
        assert!(
            lab.burst(INGRESS, &[&fragments[1].0, &fragments[2].0])
                .is_empty()
        );
        assert_eq!(lab.worker.account().in_hand, 2);
        lab.now = lab.now + Duration::from_millis(400);
        assert!(lab.turn().is_empty());
        assert_eq!(lab.dropped_for(DropReason::FragmentUnknown), 0);
        lab.now = lab.now + Duration::from_millis(200);
        assert!(lab.turn().is_empty());
        assert_eq!(lab.dropped_for(DropReason::FragmentUnknown), 2);
        assert!(lab.worker.account().is_settled());
    });
}

#[test]
fn fragments_of_answers_are_renamed_too() {
    for (six, one_packet) in [(false, false), (false, true), (true, false), (true, true)] {
        let [client, vip, real] = ends(six);
        for order in [[0, 1], [1, 0]] {
            let service = ServiceSpec {
                one_packet,
                ..spec(six, LbKind::Nat)
            };
            let mut lab = Lab::full(&[service]);
            lab.client(&udp((client, 4000), (vip, 80))).unwrap();
            let answer = udp((real, 8080), (client, 4000)).with_data(2000);
            let outside = answer.renamed((vip.parse().unwrap(), 80), answer.to);
            let parts = [0..1200, 1200..2008];
            let mut out = Vec::new();
            for n in order {
                let part: std::ops::Range<usize> = parts[n].clone();
                let frame = framed(real_mac(11), EGRESS_MAC, &[], &answer.fragment(part));
                out.extend(lab.burst(EGRESS, &[frame]));
            }
            out.extend(lab.turn());
            out.sort();
            let mut expected = parts
                .map(|part| {
                    let packet = outside.fragment(part);
                    (INGRESS, framed(OUR_MAC, ROUTER_MAC, &[], &packet))
                })
                .to_vec();
            expected.sort();
            assert_eq!(out, expected, "{six} {one_packet} {order:?}");
            assert_eq!(lab.traffic(11)[2], 2);
        }
    }
}

#[test]
fn a_whole_packet_with_a_fragment_header_is_no_fragment() {
    for method in [LbKind::Dr, LbKind::Nat] {
        let mut lab = Lab::full(&[ServiceSpec {
            matches: vec![
                address(L4Proto::Udp, VIP6, 80),
                address(L4Proto::Sctp, VIP6, 80),
                address(L4Proto::Tcp, VIP6, 80),
            ],
            ..spec(true, method)
        }]);
        let (from, to) = ((CLIENT6, 4000), (VIP6, 80));
        for (n, whole) in [udp(from, to), frames::sctp(from, to, 1), tcp(from, to, SYN)]
            .into_iter()
            .enumerate()
        {
            let id = 11 + u32::try_from(n % 2).unwrap();
            let passed = match method {
                LbKind::Nat => {
                    let real = format!("fd02::{id}").parse().unwrap();
                    whole.renamed(whole.from, (real, 8080))
                }
                _ => whole.passed(),
            };
            let all = 0..whole.segment().len();
            let frame = framed(ROUTER_MAC, OUR_MAC, &[], &whole.fragment(all.clone()));
            let expected = framed(EGRESS_MAC, real_mac(id), &[], &passed.fragment(all));
            assert_eq!(lab.burst(INGRESS, &[frame]), [(EGRESS, expected)]);
        }
        // Nothing is remembered of it that another fragment would be taken for one of.
        let later = fragment_of(&udp(from, to).with_data(2000).packet(), 1200..2008, 77);
        assert!(
            lab.burst(INGRESS, &[framed(ROUTER_MAC, OUR_MAC, &[], &later)])
                .is_empty()
        );
        assert_eq!(lab.worker.account().in_hand, 1);
    }
}

#[test]
fn an_icmp_error_may_quote_a_first_fragment_and_no_later_one() {
    for six in [false, true] {
        let [client, vip, _] = ends(six);
        let mut lab = Lab::full(&[spec(six, LbKind::Dr)]);
        lab.client(&udp((client, 4000), (vip, 80))).unwrap();
        let answer = udp((vip, 80), (client, 4000)).with_data(2000);
        let (router, header) = if six {
            ("2001:db8:9::9", [3, 1, 0, 0, 0, 0, 0, 0])
        } else {
            ("192.0.2.9", [11, 1, 0, 0, 0, 0, 0, 0])
        };
        let about = |part| {
            let quoted = answer.fragment(part);
            let packet = icmp_error(router, vip, header, &quoted[..100], (60, 0));
            framed(ROUTER_MAC, OUR_MAC, &[], &packet)
        };
        let out = lab.burst(INGRESS, &[about(0..1200)]);
        assert_eq!((out.len(), out[0].1[5]), (1, 11));
        lab.assert_dropped(&about(1200..2008), DropReason::IcmpQuote);
    }
}

#[test]
fn one_packet_datagrams_in_fragments_stay_together() {
    let spec = ServiceSpec {
        one_packet: true,
        ..spec(false, LbKind::Dr)
    };
    let mut lab = Lab::full(&[spec]);
    for (frame, expected) in datagram(false, LbKind::Dr, 4000) {
        assert_eq!(lab.burst(INGRESS, &[frame]), [(EGRESS, expected)]);
    }
}
