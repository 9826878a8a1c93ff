//! Frames that wait for the MAC address of their real server.

use super::{
    frames::{ACK, SYN, framed, udp},
    *,
};

fn unresolved(id: u32) -> RealSpec {
    RealSpec {
        hop: NOWHERE,
        ..real(id)
    }
}

#[test]
fn the_first_packets_wait_for_their_real_server_in_order() {
    let specs = |real| [service(vec![real])];
    let mut lab = Lab::full(&specs(unresolved(11)));
    let (from, to) = ((CLIENT4, 4000), (VIP4, 80));
    let packets = [
        tcp(from, to, SYN),
        tcp(from, to, ACK),
        tcp(from, to, ACK).with_data(100),
    ];
    for pkt in &packets {
        assert_eq!(lab.client(pkt), None);
    }
    assert_eq!(lab.worker.account().in_hand, 3);
    assert_eq!(lab.traffic(11), [0; 4], "they are counted when they go");
    assert_eq!(lab.stats.real(11).connections.get(), 1);
    // A table that changes nothing for them.
    lab.advance(1);
    lab.publish_with(&specs(unresolved(11)), |_| {});
    assert!(lab.turn().is_empty());
    assert_eq!(lab.worker.account().in_hand, 3);
    lab.publish_with(&specs(real(11)), |_| {});
    let out = lab.turn();
    let expected = packets
        .each_ref()
        .map(|pkt| to_real(11, &pkt.passed()).unwrap());
    assert_eq!(out, expected);
    let bytes: usize = packets.iter().map(|pkt| pkt.packet().len()).sum();
    assert_eq!(lab.traffic(11), [3, bytes as u64, 0, 0]);
    assert_eq!(lab.state(&packets[0]), Some((State::Established, 900)));
    assert!(lab.worker.account().is_settled());
    assert_eq!(lab.stats.dropped(), 0);
    assert_eq!(lab.stats.frames_in.get(), 3);
}

#[test]
fn they_give_up_three_seconds_after_they_came() {
    let mut lab = Lab::full(&[service(vec![unresolved(11)])]);
    assert_eq!(lab.client(&tcp((CLIENT4, 1), (VIP4, 80), SYN)), None);
    // Another look does not start their time again.
    lab.advance(2);
    lab.publish_with(&[service(vec![unresolved(11)])], |_| {});
    lab.turn();
    lab.advance(1);
    lab.turn();
    assert_eq!(lab.dropped_for(DropReason::NoNextHop), 1);
    assert!(lab.worker.account().is_settled());
    assert_eq!(lab.traffic(11), [0; 4]);
}

#[test]
fn what_waits_leaves_frames_for_the_others() {
    let dead = served(1, address(L4Proto::Udp, VIP4, 53), vec![unresolved(12)]);
    let mut lab = Lab::full(&[service(vec![real(11)]), dead]);
    for port in 0..100 {
        lab.client(&udp((CLIENT4, port), (VIP4, 53)));
        let other = tcp((CLIENT4, port), (VIP4, 80), SYN);
        assert_eq!(lab.client(&other), to_real(11, &other.passed()));
    }
    assert_eq!(lab.worker.account().in_hand, 100);
    lab.advance(3);
    lab.turn();
    assert_eq!(lab.dropped_for(DropReason::NoNextHop), 100);
}

#[test]
fn a_real_server_that_fails_meanwhile_hands_what_waits_to_another() {
    let mut lab = Lab::full(&[service(vec![unresolved(11), real(12)])]);
    let first = tcp((CLIENT4, 1), (VIP4, 80), SYN);
    assert_eq!(lab.client(&first), None);
    let down = RealSpec {
        available: false,
        ..unresolved(11)
    };
    lab.publish_with(&[service(vec![down, real(12)])], |_| {});
    let out = lab.turn();
    assert_eq!(out, Vec::from_iter(to_real(12, &first.passed())));
    lab.assert_counts(11, 0, 0);
    lab.assert_counts(12, 1, 0);
}

#[test]
fn a_tunnel_waits_for_an_address_of_ours() {
    let tunnel = real_at(11, REAL4, 80, LbKind::Tun(TunnelKind::Ipip));
    let without = RealSpec {
        hop: hop_to(11, None, 1500),
        ..tunnel
    };
    let mut lab = Lab::full(&[service(vec![without])]);
    assert_eq!(lab.client(&tcp((CLIENT4, 1), (VIP4, 80), SYN)), None);
    assert_eq!(lab.traffic(11), [0; 4]);
    lab.publish_with(&[service(vec![tunnel])], |_| {});
    assert_eq!(lab.turn().len(), 1);
    assert_eq!(lab.traffic(11)[0], 1);
}

#[test]
fn one_packet_flows_are_counted_once_however_often_they_are_looked_at() {
    let ops = |real| ServiceSpec {
        one_packet: true,
        ..served(0, address(L4Proto::Udp, VIP4, 53), vec![real])
    };
    let mut lab = Lab::full(&[ops(unresolved(11))]);
    lab.client(&udp((CLIENT4, 1), (VIP4, 53)));
    lab.publish_with(&[ops(unresolved(11))], |_| {});
    lab.turn();
    lab.publish_with(&[ops(real(11))], |_| {});
    assert_eq!(lab.turn().len(), 1);
    assert_eq!(lab.stats.real(11).connections.get(), 1);
    assert_eq!(lab.traffic(11)[0], 1);
}

#[test]
fn first_fragments_that_wait_do_not_keep_new_frames_out() {
    let dead = served(1, address(L4Proto::Udp, VIP4, 53), vec![unresolved(12)]);
    let mut lab = Lab::full(&[service(vec![real(11)]), dead]);
    for port in 0..100 {
        let mut whole = udp((CLIENT4, port), (VIP4, 53)).with_data(1000);
        whole.id = port;
        let first = framed(ROUTER_MAC, OUR_MAC, &[], &whole.fragment(0..800));
        assert!(lab.burst(INGRESS, &[first]).is_empty());
    }
    assert_eq!(lab.worker.account().in_hand, 100);
    // They are looked at again with each table, and even then others pass in the same turn.
    for port in 0..6 {
        if port % 2 == 0 {
            let dead = served(1, address(L4Proto::Udp, VIP4, 53), vec![unresolved(12)]);
            lab.publish_with(&[service(vec![real(11)]), dead], |_| {});
        }
        let other = tcp((CLIENT4, port), (VIP4, 80), SYN);
        assert_eq!(lab.client(&other), to_real(11, &other.passed()), "{port}");
    }
    // None of them told of a fragment that was not known.
    assert_eq!(lab.worker.balancer().first_fragments(), 100);
}
