//! Random changes of valid packets: no panic, and whatever leaves is a valid packet.

use proptest::prelude::*;

use super::{
    frames::{ACK, FIN, L4, RST, SYN, framed, icmp_error, sctp, udp},
    *,
};

/// Virtual servers of every kind in both families, all protocols.
fn everything() -> Vec<ServiceSpec> {
    let gue = |checksum| TunnelKind::Gue {
        port: GUE_PORT,
        checksum,
    };
    let methods = [
        LbKind::Dr,
        LbKind::Nat,
        LbKind::Tun(TunnelKind::Ipip),
        LbKind::Tun(gue(true)),
        LbKind::Tun(TunnelKind::Gre { checksum: true }),
    ];
    let mut specs = Vec::new();
    for (six, vip, addr) in [(false, VIP4, "10.2.0."), (true, VIP6, "fd02::")] {
        for (n, method) in (0_u16..).zip(methods) {
            let id = u32::try_from(specs.len()).unwrap();
            let reals = (0..2)
                .map(|which| {
                    let slot = 2 * id + which + 11;
                    // The tunnels' other ends are of the other family, one of them.
                    let other = matches!(method, LbKind::Tun(_)) && which == 1;
                    let net = match (six ^ other, other) {
                        (_, false) => addr,
                        (true, true) => "fd02::",
                        (false, true) => "10.2.0.",
                    };
                    real_at(slot, &format!("{net}{slot}"), 8000 + n, method)
                })
                .collect();
            let protocols = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
            let matches = protocols.map(|protocol| address(protocol, vip, 80 + n));
            specs.push(ServiceSpec {
                matches: matches.to_vec(),
                persistence: (n == 0).then_some(Persistence {
                    timeout: Duration::from_secs(300),
                    prefix: 24,
                }),
                ..served(id, matches[0], reals)
            });
        }
    }
    specs
}

/// Valid frames of every kind, with the port that they come in on. Some start flows that others are of.
fn seeds() -> Vec<(PortId, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut lab = Lab::full(&everything());
    for (six, client, vip) in [(false, CLIENT4, VIP4), (true, CLIENT6, VIP6)] {
        for port in 80..85 {
            let (from, to) = ((client, 4000), (vip, port));
            let firsts = [tcp(from, to, SYN), udp(from, to), sctp(from, to, 1)];
            for first in firsts {
                let first = first.with_data(usize::from(port) * 9);
                let frame = first.frame();
                for (_, out) in lab.burst(INGRESS, &[&frame]) {
                    let router = if out[12..14] == [8, 0] {
                        ("10.2.0.254", US4, [3, 4, 0, 0, 0, 0, 5, 0])
                    } else {
                        ("fd02::fe", US6, [2, 0, 0, 0, 0, 0, 5, 0])
                    };
                    // About a packet to a real server: tunnelled, or behind NAT.
                    let to = if port == 81 { client } else { router.1 };
                    let error = icmp_error(router.0, to, router.2, &out[14..], (60, 0));
                    seeds.push((EGRESS, framed(real_mac(1), EGRESS_MAC, &[], &error)));
                    if port == 81 {
                        let mut answer = first.clone();
                        let id = out[5];
                        let net = if six { "fd02::" } else { "10.2.0." };
                        answer.from = (format!("{net}{id}").parse().unwrap(), 8001);
                        answer.to = first.from;
                        if let L4::Tcp(_) = answer.l4 {
                            answer.l4 = L4::Tcp(SYN | ACK);
                        }
                        seeds.push((EGRESS, answer.between(real_mac(1), EGRESS_MAC)));
                    }
                }
                for flags in [ACK, FIN | ACK, RST] {
                    if let L4::Tcp(_) = first.l4 {
                        let mut next = first.clone();
                        next.l4 = L4::Tcp(flags);
                        seeds.push((INGRESS, next.frame()));
                    }
                }
                let whole = first.clone().with_data(200);
                for part in [0..104, 104..whole.segment().len()] {
                    let part = whole.fragment(part);
                    seeds.push((INGRESS, framed(ROUTER_MAC, OUR_MAC, &[], &part)));
                }
                let quoted = Pkt {
                    from: first.to,
                    to: first.from,
                    ..first.clone()
                };
                let (router, header) = if six {
                    ("2001:db8:9::9", [1, 4, 0, 0, 0, 0, 0, 0])
                } else {
                    ("192.0.2.9", [3, 3, 0, 0, 0, 0, 0, 0])
                };
                let error = icmp_error(router, vip, header, &quoted.packet(), (60, 0));
                seeds.push((INGRESS, framed(ROUTER_MAC, OUR_MAC, &[], &error)));
                let tagged = Pkt {
                    tags: vec![5, 7],
                    df: true,
                    ..first.clone().with_data(1400)
                };
                seeds.push((INGRESS, tagged.frame()));
                seeds.push((INGRESS, frame));
            }
        }
        let ack = segment(CLIENT, 4000, Say::Ack);
        seeds.push((INGRESS, with_options(&ack)));
    }
    seeds
}

/// Makes the sum of an untagged frame's IPv4 header right again.
fn repair(bytes: &mut [u8]) {
    if bytes.len() >= 34 && bytes[12..14] == [8, 0] {
        let header = usize::from(bytes[14] & 15) * 4;
        if header >= 20 && bytes.len() >= 14 + header {
            fix_ip_checksum(bytes, header);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_frame_makes_a_worker_panic_or_send_an_invalid_packet(
        frames in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                prop::collection::vec((0_usize..120, any::<u8>()), 0..4),
                prop::option::weighted(0.2, 0_usize..400),
            ),
            0..60,
        ),
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..8),
        reset_on_failure in any::<bool>(),
    ) {
        let seeds = seeds();
        let mut lab = Lab::full(&everything());
        // Flows for the others to be of.
        for (port, frame) in &seeds {
            lab.burst(*port, &[frame]);
        }
        // What waits gives up.
        lab.advance(5);
        lab.turn();
        prop_assert!(lab.worker.account().is_settled());
        let mut specs = everything();
        // Those that were picked first.
        specs[3].reals.last_mut().unwrap().available = false;
        specs[4].reals.last_mut().unwrap().hop = NOWHERE;
        lab.publish_with(&specs, |environment| {
            environment.policy.reset_on_failure = reset_on_failure;
        });
        let before = (lab.stats.dropped(), lab.stats.frames_in.get());
        let mut frames: Vec<(PortId, Vec<u8>, bool)> = frames
            .into_iter()
            .map(|(seed, edits, cut)| {
                let (port, mut bytes) = seeds[seed.index(seeds.len())].clone();
                let is_whole = edits.is_empty() && cut.is_none();
                for (at, byte) in edits {
                    if let Some(it) = bytes.get_mut(at) {
                        *it = byte;
                    }
                }
                match cut {
                    Some(cut) => bytes.truncate(cut.max(1)),
                    None => repair(&mut bytes),
                }
                (port, bytes, is_whole)
            })
            .collect();
        frames.extend(noise.into_iter().map(|bytes| (INGRESS, bytes, false)));
        let (mut out, mut cut) = (0, 0);
        for (port, frame, is_whole) in &frames {
            // What waited may go now, and is not whole perhaps.
            let is_alone = lab.worker.account().in_hand == 0;
            prop_assert!(lab.worker.io_mut().inject(*port, frame));
            lab.worker.turn(lab.now);
            let sent = std::iter::from_fn(|| lab.worker.io_mut().collect());
            let sent: Vec<_> = sent.collect();
            for (_, bytes) in &sent {
                assert_valid(bytes, *is_whole && is_alone);
            }
            out += sent.len();
            cut += sent.len().saturating_sub(1);
            prop_assert!(lab.worker.account().is_conserved());
        }
        // What waits gives up.
        lab.advance(5);
        lab.worker.turn(lab.now);
        while let Some((_, bytes)) = lab.worker.io_mut().collect() {
            assert_valid(&bytes, false);
            out += 1;
        }
        let account = lab.worker.account();
        prop_assert_eq!(account.free, account.total);
        let (dropped, frames_in) = (lab.stats.dropped() - before.0, lab.stats.frames_in.get() - before.1);
        prop_assert_eq!(frames_in, frames.len() as u64);
        // A first fragment may set later ones free, which wait for it.
        prop_assert!(out as u64 + dropped >= frames_in);
        prop_assert!(out as u64 + dropped - frames_in <= cut as u64);
    }
}

#[test]
fn bursts_of_all_kinds_at_once_go_as_one_by_one() {
    let seeds = seeds();
    let mut alone = Lab::full(&everything());
    let mut together = Lab::full(&everything());
    let mut expected = Vec::new();
    for (port, frame) in &seeds {
        expected.extend(alone.burst(*port, &[frame]));
    }
    let mut out = Vec::new();
    for chunk in seeds.chunks(20) {
        for (port, frame) in chunk {
            assert!(together.worker.io_mut().inject(*port, frame));
        }
        out.extend(together.turn());
    }
    assert_eq!(out.len(), expected.len());
    assert_eq!(out, expected);
    assert_eq!(alone.stats.dropped(), together.stats.dropped());
    assert!(together.stats.frames_out.get() > 100);
}
