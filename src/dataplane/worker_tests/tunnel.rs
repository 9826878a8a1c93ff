//! lb_kind TUN: every kind of tunnel around both families, sizes, and errors about tunnel packets.

use etherparse::{IpNumber, UdpHeader};

use super::{
    frames::{ACK, L4, SYN, framed, icmp_error, ip4, ip6, own_icmp, udp},
    *,
};

const KINDS: [TunnelKind; 5] = [
    TunnelKind::Ipip,
    TunnelKind::Gue {
        port: GUE_PORT,
        checksum: false,
    },
    TunnelKind::Gue {
        port: GUE_PORT,
        checksum: true,
    },
    TunnelKind::Gre { checksum: false },
    TunnelKind::Gre { checksum: true },
];

/// Whether the inner and the outer packet are IPv6.
const FAMILIES: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn spec(inner: bool, outer: bool, kind: TunnelKind, mtu: u16) -> ServiceSpec {
    let (vip, addr) = (
        if inner { VIP6 } else { VIP4 },
        if outer { REAL6 } else { REAL4 },
    );
    let mut real = real_at(11, addr, 80, LbKind::Tun(kind));
    real.hop = hop_to(11, Some(if outer { US6 } else { US4 }), mtu);
    served(0, address(L4Proto::Tcp, vip, 80), vec![real]).also(address(L4Proto::Udp, vip, 80))
}

impl ServiceSpec {
    fn also(mut self, what: Match) -> Self {
        self.matches.push(what);
        self
    }
}

fn ends(six: bool) -> ((&'static str, u16), (&'static str, u16)) {
    if six {
        ((CLIENT6, 4000), (VIP6, 80))
    } else {
        ((CLIENT4, 4000), (VIP4, 80))
    }
}

/// What goes into a tunnel of this kind around `inner`: what is between the outer header and that.
fn between(kind: TunnelKind, inner: &[u8], outer: bool, source_port: u16) -> (IpNumber, Vec<u8>) {
    let six = inner[0] >> 4 == 6;
    let protocol = if six { IpNumber::IPV6 } else { IpNumber::IPV4 };
    match kind {
        TunnelKind::Ipip => (protocol, inner.to_vec()),
        TunnelKind::Gre { checksum } => {
            let mut bytes = vec![if checksum { 0x80 } else { 0 }, 0];
            bytes.extend(if six { [0x86, 0xdd] } else { [8, 0] });
            if checksum {
                bytes.extend([0; 4]);
            }
            bytes.extend(inner);
            if checksum {
                let sum = frames::sum(&bytes);
                bytes[4..6].copy_from_slice(&sum);
            }
            (IpNumber::GRE, bytes)
        }
        TunnelKind::Gue { port, checksum } => {
            let data = [&[0, protocol.0, 0, 0][..], inner].concat();
            let header = if !checksum {
                UdpHeader::without_ipv4_checksum(source_port, port, data.len())
            } else if outer {
                let ip = ip6(
                    US6.parse().unwrap(),
                    REAL6.parse().unwrap(),
                    IpNumber::UDP,
                    1,
                    0,
                    0,
                );
                UdpHeader::with_ipv6_checksum(source_port, port, &ip, &data)
            } else {
                let ip = ip4(
                    US4.parse().unwrap(),
                    REAL4.parse().unwrap(),
                    IpNumber::UDP,
                    1,
                    0,
                    0,
                );
                UdpHeader::with_ipv4_checksum(source_port, port, &ip, &data)
            };
            (
                IpNumber::UDP,
                [&header.unwrap().to_bytes()[..], &data].concat(),
            )
        }
    }
}

/// The whole outer packet around a client's packet, which has passed us.
fn wrapped(inner: &Pkt, outer: bool, kind: TunnelKind, id: u16, source_port: u16) -> Vec<u8> {
    around(&inner.packet(), inner, outer, kind, id, source_port)
}

fn around(
    bytes: &[u8],
    inner: &Pkt,
    outer: bool,
    kind: TunnelKind,
    id: u16,
    source_port: u16,
) -> Vec<u8> {
    let (protocol, payload) = between(kind, bytes, outer, source_port);
    let tos = if inner.tos & 3 == 3 {
        inner.tos & !1
    } else {
        inner.tos
    };
    if outer {
        let (us, real) = (US6.parse().unwrap(), REAL6.parse().unwrap());
        let ip = ip6(us, real, protocol, inner.ttl, tos, payload.len());
        return [&ip.to_bytes()[..], &payload].concat();
    }
    let (us, real) = (US4.parse().unwrap(), REAL4.parse().unwrap());
    let mut ip = ip4(us, real, protocol, inner.ttl, tos, payload.len());
    ip.dont_fragment = inner.df && bytes[0] >> 4 == 4;
    ip.identification = if ip.dont_fragment { 0 } else { id };
    ip.header_checksum = ip.calc_header_checksum();
    [&ip.to_bytes()[..], &payload].concat()
}

/// The UDP source port of a GUE packet in a frame, else 0: it is a flow's own.
fn source_port(frame: &[u8], kind: TunnelKind, outer: bool) -> u16 {
    let at = 14 + if outer { 40 } else { 20 };
    match kind {
        TunnelKind::Gue { .. } => u16::from_be_bytes([frame[at], frame[at + 1]]),
        _ => 0,
    }
}

const fn overhead(kind: TunnelKind, outer: bool) -> usize {
    let between = match kind {
        TunnelKind::Ipip => 0,
        TunnelKind::Gue { .. } => 12,
        TunnelKind::Gre { checksum: false } => 4,
        TunnelKind::Gre { checksum: true } => 8,
    };
    between + if outer { 40 } else { 20 }
}

fn every(mut check: impl FnMut(bool, bool, TunnelKind)) {
    for (inner, outer) in FAMILIES {
        for kind in KINDS {
            check(inner, outer, kind);
        }
    }
}

#[test]
fn packets_go_whole_inside_of_others() {
    every(|inner, outer, kind| {
        let (from, to) = ends(inner);
        let mut lab = Lab::full(&[spec(inner, outer, kind, 1500)]);
        let mut ports = Vec::new();
        let packets = [
            tcp(from, to, SYN),
            Pkt {
                df: true,
                tos: 0xbb,
                ..tcp(from, to, ACK).with_data(1200)
            },
            Pkt {
                tags: vec![7],
                ..tcp(from, to, ACK).with_ttl(2)
            },
        ];
        let mut bytes = 0;
        for (n, pkt) in (1..).zip(&packets) {
            let (port, out) = lab.client(pkt).unwrap();
            assert_eq!(port, EGRESS);
            let flow = if pkt.tags.is_empty() {
                source_port(&out, kind, outer)
            } else {
                source_port(&out[4..], kind, outer)
            };
            ports.push(flow);
            let expected = wrapped(&pkt.passed(), outer, kind, n, flow);
            let expected = framed(EGRESS_MAC, real_mac(11), &pkt.tags, &expected);
            assert_eq!(out, expected, "{kind:?} {inner} {outer} {pkt:?}");
            bytes += pkt.packet().len() as u64;
        }
        assert!(ports.windows(2).all(|pair| pair[0] == pair[1]), "one flow");
        assert_eq!(lab.traffic(11), [3, bytes, 0, 0]);
        assert!(lab.worker.account().is_settled());
    });
}

#[test]
fn the_first_packet_that_is_too_large_is_told_so() {
    every(|inner, outer, kind| {
        let (from, to) = ends(inner);
        let mut lab = Lab::full(&[spec(inner, outer, kind, 1500)]);
        let room = 1500 - overhead(kind, outer);
        let header = if inner { 60 } else { 40 };
        let fits = tcp(from, to, SYN).with_data(room - header).with_df();
        assert_eq!(lab.client(&fits).unwrap().0, EGRESS, "{kind:?}");
        let large = fits.clone().with_data(room - header + 1);
        let [a, b] = u16::try_from(room).unwrap().to_be_bytes();
        let header = if inner {
            [2, 0, 0, 0, 0, 0, a, b]
        } else {
            [3, 4, 0, 0, 0, 0, a, b]
        };
        let told = own_icmp(to.0, from.0, header, &large.packet());
        let told = (INGRESS, framed(OUR_MAC, ROUTER_MAC, &[], &told));
        assert_eq!(lab.client(&large), Some(told), "{kind:?} {inner} {outer}");
        assert_eq!(lab.stats.replies(ReplyReason::TooBig).get(), 1);
        // A later fragment that is too large is nobody's to be told.
        if inner {
            let part = large.fragment(0..1400);
            let frame = framed(ROUTER_MAC, OUR_MAC, &[], &part);
            lab.burst(INGRESS, &[frame]);
            let later =
                frames::fragment_of(&large.clone().with_data(3000).packet(), 1400..2840, 77);
            lab.assert_dropped(
                &framed(ROUTER_MAC, OUR_MAC, &[], &later),
                DropReason::TooBig,
            );
        }
    });
}

#[test]
fn without_df_the_outer_packet_is_cut_or_the_inner_one_where_that_is_ipv6() {
    for outer in [false, true] {
        for kind in KINDS {
            let (from, to) = ends(false);
            let mut lab = Lab::full(&[spec(false, outer, kind, 1500)]);
            let large = udp(from, to).with_data(1472);
            let out = lab.burst(INGRESS, &[large.frame()]);
            let flow = source_port(&out[0].1, kind, outer);
            let passed = large.passed();
            let expected: Vec<_> = if outer {
                let room = (1500 - overhead(kind, outer) - 20) & !7;
                let parts = [0..room, room..1480].map(|part| passed.fragment(part));
                let tunnelled = parts.map(|part| around(&part, &passed, true, kind, 0, flow));
                tunnelled.to_vec()
            } else {
                let whole = wrapped(&passed, outer, kind, 1, flow);
                let behind = whole.len() - 20;
                let parts = [0..1480, 1480..behind];
                parts
                    .map(|part| frames::fragment_of(&whole, part, 1))
                    .to_vec()
            };
            let expected: Vec<_> = expected
                .iter()
                .map(|packet| (EGRESS, framed(EGRESS_MAC, real_mac(11), &[], packet)))
                .collect();
            assert_eq!(out, expected, "{kind:?} {outer}");
            assert_eq!(lab.traffic(11), [1, 1500, 0, 0]);
            assert_eq!(lab.stats.frames_out.get(), 2);
            assert!(lab.worker.account().is_settled());
        }
    }
}

#[test]
fn a_packet_that_two_fragments_do_not_hold_goes_nowhere() {
    let mut lab = Lab::full(&[spec(false, true, TunnelKind::Ipip, 600)]);
    let (from, to) = ends(false);
    lab.assert_no_way(&udp(from, to).with_data(1400), DropReason::TooBig);
    assert!(lab.worker.account().is_settled());
}

#[test]
fn a_packet_is_not_cut_without_a_free_frame() {
    let mut lab = Lab::full(&[spec(false, false, TunnelKind::Ipip, 1500)]);
    let (from, to) = ends(false);
    let mut taken = Vec::new();
    let large = udp(from, to).with_data(1472).frame();
    assert!(lab.worker.io_mut().inject(INGRESS, &large));
    while let Some(frame) = lab.worker.io_mut().blank(INGRESS) {
        taken.push(frame);
    }
    assert!(lab.turn().is_empty());
    assert_eq!(lab.dropped_for(DropReason::TransmitFull), 1);
    for frame in taken {
        lab.worker.io_mut().release(frame);
    }
    assert!(lab.worker.account().is_settled());
}

/// What a router says about a tunnel packet: an error of the outer family.
fn from_router(outer: bool, header: [u8; 8], quoted: &[u8]) -> Vec<u8> {
    let (router, us) = if outer {
        ("fd02::fe", US6)
    } else {
        ("10.2.0.254", US4)
    };
    let packet = icmp_error(router, us, header, quoted, (63, 0));
    framed(real_mac(0xfe), EGRESS_MAC, &[], &packet)
}

const fn too_big(six: bool, mtu: u16) -> [u8; 8] {
    let [a, b] = mtu.to_be_bytes();
    if six {
        [2, 0, 0, 0, 0, 0, a, b]
    } else {
        [3, 4, 0, 0, 0, 0, a, b]
    }
}

#[test]
fn a_router_in_the_tunnel_makes_the_client_send_less() {
    every(|inner, outer, kind| {
        let (from, to) = ends(inner);
        let mut lab = Lab::full(&[spec(inner, outer, kind, 1500)]);
        let large = tcp(from, to, SYN).with_data(1360).with_df();
        let (_, out) = lab.client(&large).unwrap();
        let quoted = &out[14..14 + 500];
        let out = lab.burst(EGRESS, &[from_router(outer, too_big(outer, 1400), quoted)]);
        // The client's packet as it was in the tunnel, from the virtual server.
        let passed = large.passed().packet();
        let left = 1400 - u16::try_from(overhead(kind, outer)).unwrap();
        let inside = &passed[..500 - overhead(kind, outer)];
        let told = own_icmp(to.0, from.0, too_big(inner, left), inside);
        let told = (INGRESS, framed(OUR_MAC, ROUTER_MAC, &[], &told));
        assert_eq!(out, [told], "{kind:?} {inner} {outer}");
        assert_eq!(lab.stats.replies(ReplyReason::TunnelError).get(), 1);
        // Known from now on, for ten minutes.
        let is_told = |lab: &mut Lab| {
            let (port, frame) = lab.client(&large).unwrap();
            let at = if inner { 14 + 40 } else { 14 + 20 };
            (port == INGRESS).then(|| u16::from_be_bytes([frame[at + 6], frame[at + 7]]))
        };
        assert_eq!(is_told(&mut lab), Some(left));
        lab.advance(599);
        assert_eq!(is_told(&mut lab), Some(left));
        lab.advance(1);
        assert_eq!(is_told(&mut lab), None);
        assert_eq!(lab.stats.dropped(), 0);
        assert!(lab.worker.account().is_settled());
    });
}

#[test]
fn what_every_ipv6_host_may_send_goes_on_whatever_a_router_says() {
    let (from, to) = ends(true);
    let mut lab = Lab::full(&[spec(true, true, TunnelKind::Ipip, 1500)]);
    let least = tcp(from, to, SYN).with_data(1280 - 60);
    let (_, out) = lab.client(&least).unwrap();
    let error = from_router(true, too_big(true, 1290), &out[14..14 + 500]);
    let told = lab.burst(EGRESS, &[error]);
    assert_eq!((told.len(), told[0].0), (1, INGRESS));
    let (port, again) = lab.client(&least).unwrap();
    assert_eq!((port, &again[54..]), (EGRESS, &out[54..]));
    // The client heard of 1280 and keeps to it.
    let more = tcp(from, to, SYN).with_data(1280 - 60 + 1);
    assert_eq!(lab.client(&more).unwrap().0, INGRESS);
    assert_eq!(lab.stats.dropped(), 0);
}

#[test]
fn where_the_client_let_it_be_cut_it_is_not_told() {
    let (from, to) = ends(false);
    let mut lab = Lab::full(&[spec(false, true, TunnelKind::Ipip, 1500)]);
    let large = tcp(from, to, SYN).with_data(1400);
    let (_, out) = lab.client(&large).unwrap();
    let error = from_router(true, too_big(true, 1300), &out[14..14 + 500]);
    lab.burst(EGRESS, &[error]);
    assert_eq!(lab.dropped_for(DropReason::TunnelTooBig), 1);
    let out = lab.burst(INGRESS, &[large.frame()]);
    assert_eq!(out.len(), 2, "it is cut now");
}

#[test]
fn other_errors_in_a_tunnel_reach_the_client() {
    every(|inner, outer, kind| {
        let (from, to) = ends(inner);
        let mut lab = Lab::full(&[spec(inner, outer, kind, 1500)]);
        let first = tcp(from, to, SYN);
        let (_, out) = lab.client(&first).unwrap();
        let (unreachable, expired) = if outer {
            ([1, 0, 0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0])
        } else {
            ([3, 0, 0, 0, 0, 0, 0, 0], [11, 0, 0, 0, 0, 0, 0, 0])
        };
        for (header, is_expiry) in [(unreachable, false), (expired, true)] {
            let told: [u8; 8] = match (inner, is_expiry) {
                _ if inner == outer => header,
                (true, true) => [3, 0, 0, 0, 0, 0, 0, 0],
                (true, false) => [1, 3, 0, 0, 0, 0, 0, 0],
                (false, true) => [11, 0, 0, 0, 0, 0, 0, 0],
                (false, false) => [3, 1, 0, 0, 0, 0, 0, 0],
            };
            let out = lab.burst(EGRESS, &[from_router(outer, header, &out[14..])]);
            let told = own_icmp(to.0, from.0, told, &first.passed().packet());
            let told = (INGRESS, framed(OUR_MAC, ROUTER_MAC, &[], &told));
            assert_eq!(out, [told], "{kind:?} {inner} {outer} {header:?}");
        }
    });
}

#[test]
fn errors_in_tunnels_are_believed_only_about_what_we_sent() {
    let (from, to) = ends(false);
    let kind = TunnelKind::Ipip;
    let specs = [spec(false, false, kind, 1500)];
    let mut lab = Lab::full(&specs);
    let first = tcp(from, to, SYN).with_data(1400).with_df();
    let (_, out) = lab.client(&first).unwrap();
    let quoted = out[14..].to_vec();
    let error = |quoted: &[u8]| from_router(false, too_big(false, 1000), quoted);
    // A flow that there is not.
    let stranger = tcp((CLIENT4, 4001), to, SYN).with_df();
    let other = wrapped(&stranger.passed(), false, kind, 0, 0);
    lab.assert_dropped(&error(&other), DropReason::IcmpUnknownFlow);
    // To somebody else than a real server: no tunnel of ours.
    let mut elsewhere = quoted.clone();
    elsewhere[19] = 99;
    lab.assert_dropped(&error(&elsewhere), DropReason::IcmpQuote);
    // Too little is quoted to know the flow.
    lab.assert_dropped(&error(&quoted[..40]), DropReason::IcmpQuote);
    // The sum is wrong.
    let mut broken = error(&quoted);
    broken[40] ^= 1;
    lab.assert_dropped(&broken, DropReason::IcmpQuote);
    assert_eq!(lab.client(&first).unwrap().0, EGRESS, "nothing was learnt");
    // Below what Linux believes: 552.
    let least = from_router(false, too_big(false, 68), &quoted);
    let (_, told) = lab.burst(EGRESS, &[least]).pop().unwrap();
    assert_eq!(told[14 + 26..14 + 28], (552_u16 - 20).to_be_bytes());
    // No route to the client.
    lab.publish_with(&specs, |environment| {
        environment.routes = Arc::default();
    });
    lab.assert_dropped(&error(&quoted), DropReason::NoRoute);
    // Its MAC address is not known: the error waits for it.
    lab.publish_with(&specs, |environment| {
        environment.routes = routes(false);
    });
    assert!(lab.burst(EGRESS, &[error(&quoted)]).is_empty());
    assert_eq!(lab.worker.account().in_hand, 1);
    lab.publish_with(&specs, |_| {});
    assert_eq!(lab.turn().len(), 1);
}

#[test]
fn a_flood_of_errors_in_tunnels_is_bounded() {
    let (from, to) = ends(false);
    let mut lab = Lab::full(&[spec(false, false, TunnelKind::Ipip, 1500)]);
    let first = tcp(from, to, SYN).with_df();
    let (_, out) = lab.client(&first).unwrap();
    let error = from_router(false, too_big(false, 1400), &out[14..]);
    let told: usize = (0..1100).map(|_| lab.burst(EGRESS, &[&error]).len()).sum();
    assert_eq!(told, 1000);
    assert_eq!(lab.dropped_for(DropReason::ReplyLimit), 100);
}

#[test]
fn outer_sources_spread_where_a_network_is_set() {
    let (_, to) = ends(false);
    let kind = TunnelKind::Ipip;
    let mut lab = Lab::with(&[spec(false, false, kind, 1500)], |environment| {
        environment.policy.tunnel_sources.v4 = Some(([172, 16, 0, 0].into(), 16));
    });
    let mut seen = std::collections::HashSet::new();
    for port in 0..100 {
        let pkt = tcp((CLIENT4, port), to, SYN);
        let source = |lab: &mut Lab| {
            let (_, out) = lab.client(&pkt).unwrap();
            <[u8; 4]>::try_from(&out[26..30]).unwrap()
        };
        let first = source(&mut lab);
        assert_eq!(first[..2], [172, 16]);
        assert_eq!(source(&mut lab), first, "a flow keeps its own");
        seen.insert(first);
    }
    assert!(seen.len() > 90, "{}", seen.len());
}

#[test]
fn udp_and_fragments_go_through_a_tunnel_as_they_are() {
    let (from, to) = ends(false);
    let mut lab = Lab::full(&[spec(false, false, TunnelKind::Ipip, 1500)]);
    let whole = udp(from, to).with_data(2000);
    for (n, part) in (1..).zip([0..1448, 1448..2008]) {
        let frame = framed(ROUTER_MAC, OUR_MAC, &[], &whole.fragment(part.clone()));
        let out = lab.burst(INGRESS, &[frame]);
        let inside = whole.passed().fragment(part);
        let expected = around(&inside, &whole.passed(), false, TunnelKind::Ipip, n, 0);
        let expected = framed(EGRESS_MAC, real_mac(11), &[], &expected);
        assert_eq!(out, [(EGRESS, expected)]);
    }
    assert_eq!(whole.l4, L4::Udp);
}

#[test]
fn an_error_about_another_tunnel_than_the_flows_is_not_believed() {
    let (from, to) = ends(false);
    let kind = LbKind::Tun(TunnelKind::Ipip);
    let reals = vec![
        real_at(11, REAL4, 80, kind),
        real_at(12, "10.2.0.12", 80, kind),
    ];
    let mut lab = Lab::full(&[served(0, address(L4Proto::Tcp, VIP4, 80), reals)]);
    let (_, out) = lab.client(&tcp(from, to, SYN).with_df()).unwrap();
    let mut quoted = out[14..].to_vec();
    quoted[19] = 12;
    let error = from_router(false, too_big(false, 1000), &quoted);
    lab.assert_dropped(&error, DropReason::IcmpUnknownFlow);
}

#[test]
fn a_full_ring_costs_both_fragments_or_the_second() {
    let mut lab = Lab::full(&[spec(false, false, TunnelKind::Ipip, 1500)]);
    let (from, to) = ends(false);
    let large = udp(from, to).with_data(1472).frame();
    let small = udp(from, to).frame();
    for (before, sent) in [(BURST, 0), (BURST - 1, 1), (BURST - 2, 2)] {
        for _ in 0..before {
            assert!(lab.worker.io_mut().inject(INGRESS, &small));
        }
        lab.worker.turn(lab.now);
        let (frames, full) = (
            lab.stats.frames_out.get(),
            lab.dropped_for(DropReason::TransmitFull),
        );
        assert!(lab.worker.io_mut().inject(INGRESS, &large));
        lab.worker.turn(lab.now);
        assert_eq!(lab.stats.frames_out.get() - frames, sent);
        let dropped = lab.dropped_for(DropReason::TransmitFull) - full;
        assert_eq!(dropped, u64::from(sent < 2));
        lab.worker.io_mut().discard();
        assert!(lab.worker.account().is_settled());
    }
}

#[test]
fn errors_about_flows_that_are_not_remembered_reach_the_client_by_the_hash() {
    let (from, to) = ends(false);
    let hash = Scheduler::Sh {
        port: true,
        fallback: false,
    };
    for (scheduler, one_packet) in [(hash, true), (hash, false), (Scheduler::Rr, true)] {
        let spec = ServiceSpec {
            scheduler,
            one_packet,
            ..spec(false, false, TunnelKind::Ipip, 1500)
        };
        let mut lab = Lab::with(&[spec], |environment| {
            environment.policy.schedule_icmp = true;
        });
        let query = udp(from, to).with_df();
        let inside = wrapped(&query.passed(), false, TunnelKind::Ipip, 0, 0);
        let error = from_router(false, too_big(false, 1400), &inside);
        if scheduler == hash && one_packet {
            assert!(lab.client(&query).is_some());
            assert_eq!(lab.state(&query), None);
            let told = own_icmp(to.0, from.0, too_big(false, 1380), &query.passed().packet());
            let told = (INGRESS, framed(OUR_MAC, ROUTER_MAC, &[], &told));
            assert_eq!(lab.burst(EGRESS, &[error]), [told]);
        } else {
            // Of a flow that would have an entry, or whose real server nobody can tell.
            lab.assert_dropped(&error, DropReason::IcmpUnknownFlow);
        }
    }
}
