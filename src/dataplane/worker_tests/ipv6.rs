//! IPv6: direct routing, extension headers, frames that go nowhere, and both families in one burst.

use super::{
    frames::{ACK, FIN, RST, SYN, framed, sctp, udp},
    *,
};

fn spec(protocol: L4Proto) -> ServiceSpec {
    let reals = vec![
        real_at(11, REAL6, 80, LbKind::Dr),
        real_at(12, "fd02::12", 80, LbKind::Dr),
    ];
    served(0, address(protocol, VIP6, 80), reals)
}

const FROM: (&str, u16) = (CLIENT6, 4000);
const TO: (&str, u16) = (VIP6, 80);

/// The packet with extension headers in front of its upper one, the first of type `first`.
fn extended(pkt: &Pkt, first: u8, extensions: &[u8]) -> Vec<u8> {
    let mut bytes = pkt.packet();
    let length = u16::try_from(bytes.len() - 40 + extensions.len()).unwrap();
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes[6] = first;
    bytes.splice(40..40, extensions.iter().copied());
    bytes
}

#[test]
fn direct_routing_changes_stations_and_hop_limit_and_nothing_else() {
    let tagged = |tags: &[u16]| Pkt {
        tags: tags.to_vec(),
        tos: 0xb9,
        ..tcp(FROM, TO, SYN)
    };
    for (protocol, pkt) in [
        (L4Proto::Tcp, tcp(FROM, TO, SYN)),
        (L4Proto::Tcp, tcp(FROM, TO, SYN).with_data(1440)),
        (L4Proto::Tcp, tcp(FROM, TO, SYN).with_ttl(2)),
        (L4Proto::Tcp, tagged(&[42])),
        (L4Proto::Tcp, tagged(&[9, 42])),
        (L4Proto::Udp, udp(FROM, TO)),
        (L4Proto::Sctp, sctp(FROM, TO, 1)),
    ] {
        let mut lab = Lab::full(&[spec(protocol)]);
        assert_eq!(lab.client(&pkt), to_real(11, &pkt.passed()), "{pkt:?}");
        assert_eq!(lab.traffic(11), [1, pkt.packet().len() as u64, 0, 0]);
    }
    // Behind options for every hop and for the destination; with padding behind the packet.
    let mut lab = Lab::full(&[spec(L4Proto::Tcp)]);
    let options = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    let pkt = tcp(FROM, TO, SYN);
    let mut frame = framed(ROUTER_MAC, OUR_MAC, &[], &extended(&pkt, 0, &options));
    let passed = extended(&pkt.passed(), 0, &options);
    let mut expected = framed(EGRESS_MAC, real_mac(11), &[], &passed);
    frame.extend([0xee; 9]);
    expected.extend([0xee; 9]);
    assert_eq!(lab.burst(INGRESS, &[frame]), [(EGRESS, expected)]);
}

#[test]
fn a_direct_routed_connection_is_seen_from_one_side() {
    let mut lab = Lab::full(&[spec(L4Proto::Tcp)]);
    for (flags, state, seconds) in [
        (SYN, State::SynRecv, 60),
        (ACK, State::Established, 900),
        (FIN | ACK, State::FinWait, 120),
        (ACK, State::FinWait, 120),
        (RST, State::Close, 10),
    ] {
        let pkt = tcp(FROM, TO, flags);
        assert_eq!(lab.goes_to(&pkt), Some(11));
        assert_eq!(lab.state(&pkt), Some((state, seconds)));
        let active = u64::from(state.is_active());
        lab.assert_counts(11, active, 1 - active);
    }
}

#[test]
fn every_frame_that_goes_nowhere_is_counted_by_its_reason() {
    use DropReason as D;
    let good = tcp(FROM, TO, SYN);
    let edit = |at: usize, bytes: &[u8]| {
        let mut frame = good.frame();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let whole = good.frame();
    let framed = |packet: &[u8]| framed(ROUTER_MAC, OUR_MAC, &[], packet);
    // A routing header with a segment left.
    let routed = [6, 0, 0, 1, 0, 0, 0, 0];
    let jumbo = [6, 0, 0xc2, 4, 0, 1, 0, 0];
    let mut jumbogram = extended(&good, 0, &jumbo);
    jumbogram[4..6].fill(0);
    for (frame, reason) in [
        (whole[..50].to_vec(), D::Ipv6Header),
        (edit(14, &[0x40]), D::Ipv6Header),
        (whole[..whole.len() - 1].to_vec(), D::Ipv6Length),
        (framed(&jumbogram), D::Ipv6Jumbogram),
        (framed(&extended(&good, 43, &routed)), D::Ipv6Extension),
        (edit(22, &[0; 16]), D::SourceAddress),
        (edit(22, &[0xff]), D::SourceAddress),
        (edit(0, &[0x33]), D::GroupFrame),
        (edit(20, &[59]), D::Ipv6Extension),
        (edit(20, &[50]), D::Ipv6Extension),
        (edit(66, &[0x40]), D::TcpHeader),
        (edit(56, &[0, 81]), D::NoService),
        (tcp(FROM, TO, RST).frame(), D::UnknownReset),
    ] {
        let mut lab = Lab::full(&[spec(L4Proto::Tcp)]);
        lab.send(&frame);
        let counted: Vec<_> = DropReason::ALL
            .iter()
            .filter(|it| lab.dropped_for(**it) > 0)
            .collect();
        if reason == D::Ipv6Extension {
            // A protocol that is not looked behind is another one.
            assert!(
                counted == [&D::Ipv6Extension] || counted == [&D::Protocol],
                "{counted:?}"
            );
        } else {
            assert_eq!(counted, [&reason]);
        }
    }
}

#[test]
fn a_burst_of_both_families_goes_as_each_alone() {
    let four = served(
        1,
        address(L4Proto::Tcp, VIP4, 80),
        vec![RealSpec {
            id: RealId(21),
            ..real(21)
        }],
    );
    let mut lab = Lab::full(&[spec(L4Proto::Tcp), four]);
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    for port in 0..32 {
        let six = tcp((CLIENT6, port), TO, SYN);
        let four = tcp((CLIENT4, port), (VIP4, 80), SYN);
        frames.extend([six.frame(), four.frame()]);
        expected.extend(to_real(11 + u32::from(port) % 2, &six.passed()));
        expected.extend(to_real(21, &four.passed()));
    }
    assert_eq!(lab.burst(INGRESS, &frames), expected);
    lab.assert_counts(11, 16, 0);
    lab.assert_counts(21, 32, 0);
}
