//! Persistent clients.

use super::{
    frames::{ACK, SYN, sctp, udp},
    *,
};

#[test]
fn a_persistent_client_comes_back_to_its_real_server() {
    let mut lab = Lab::new(persistent(vec![real(11), real(12), real(13)], 24));
    assert_eq!(
        lab.reaches(&segment([10, 1, 1, 7], 4000, Say::Syn)),
        Some(11)
    );
    assert_eq!(
        lab.reaches(&segment([10, 1, 1, 200], 4000, Say::Syn)),
        Some(11)
    );
    assert_eq!(
        lab.reaches(&segment([10, 1, 2, 7], 4000, Say::Syn)),
        Some(12)
    );
    assert_eq!(lab.stats.real(11).templates.get(), 1);
    assert_eq!(lab.stats.templates.get(), 2);
    lab.assert_counts(11, 2, 0);
    lab.advance(299);
    // The third connection is there at 599 as well, so the template lives on in steps of 60 s.
    assert_eq!(
        lab.reaches(&segment([10, 1, 1, 9], 4000, Say::Syn)),
        Some(11)
    );
    lab.reaches(&segment([10, 1, 1, 9], 4000, Say::Ack));
    lab.advance(301);
    assert_eq!(
        lab.reaches(&segment([10, 1, 1, 9], 4001, Say::Syn)),
        Some(11)
    );
    lab.advance(360);
    assert_eq!(lab.worker.turn(lab.now), 0, "the sweep passes by");
    assert_eq!(
        lab.reaches(&segment([10, 1, 2, 7], 4001, Say::Syn)),
        Some(13),
        "its was over"
    );
}

#[test]
fn a_template_is_not_bound_to_a_real_server_that_is_down_but_to_one_of_weight_0() {
    let mut lab = Lab::new(persistent(vec![real(11), real(12)], 32));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    let quiet = RealSpec {
        weight: 0,
        ..real(11)
    };
    lab.publish(&[persistent(vec![quiet, real(12)], 32)]);
    assert_eq!(lab.reaches(&segment(CLIENT, 4001, Say::Syn)), Some(11));
    let down = RealSpec {
        available: false,
        ..quiet
    };
    lab.publish(&[persistent(vec![down, real(12)], 32)]);
    assert_eq!(lab.reaches(&segment(CLIENT, 4002, Say::Syn)), Some(12));
    assert_eq!(lab.stats.real(11).templates.get(), 0);
    assert_eq!(lab.stats.real(12).templates.get(), 1);
    assert_eq!(
        lab.reaches(&segment(CLIENT, 4001, Say::Ack)),
        Some(11),
        "the flow stays"
    );
    lab.publish(&[persistent(vec![real(11)], 32)]);
    assert_eq!(
        lab.reaches(&segment(CLIENT, 4003, Say::Syn)),
        Some(11),
        "12 is gone"
    );
}

#[test]
fn a_led_connection_stays_with_its_template_when_its_port_is_used_again() {
    let mut lab = Lab::new(persistent(vec![real(11), real(12)], 32));
    for say in [Say::Syn, Say::Ack, Say::Rst, Say::Syn] {
        assert_eq!(lab.reaches(&segment(CLIENT, 4000, say)), Some(11));
    }
    lab.assert_counts(11, 1, 0);
    assert_eq!(lab.stats.real(11).connections.get(), 1);
}

const PERIOD: Duration = Duration::from_secs(300);

fn sticky(spec: ServiceSpec, prefix: u8) -> ServiceSpec {
    ServiceSpec {
        persistence: Some(Persistence {
            timeout: PERIOD,
            prefix,
        }),
        ..spec
    }
}

fn reals(six: bool) -> Vec<RealSpec> {
    (11..14)
        .map(|id| {
            let net = if six { "fd02::" } else { "10.2.0." };
            real_at(id, &format!("{net}{id}"), 0, LbKind::Dr)
        })
        .collect()
}

#[test]
fn clients_of_one_network_share_a_real_server_and_others_do_not() {
    let cases = [
        (false, 32, CLIENT4, CLIENT4, "10.1.1.2"),
        (false, 24, CLIENT4, "10.1.1.200", "10.1.2.1"),
        (false, 8, CLIENT4, "10.200.1.1", "11.1.1.1"),
        (false, 0, CLIENT4, "192.0.2.1", ""),
        (true, 128, CLIENT6, CLIENT6, "fd01:1::2"),
        (true, 64, CLIENT6, "fd01:1::ffff:1", "fd01:1:0:1::1"),
        (true, 48, CLIENT6, "fd01:1:0:9::1", "fd01:1:1::1"),
        (true, 0, CLIENT6, "2001:db8::1", ""),
    ];
    for (six, prefix, client, same, other) in cases {
        let vip = if six { VIP6 } else { VIP4 };
        let spec = served(0, address(L4Proto::Tcp, vip, 80), reals(six));
        let mut lab = Lab::full(&[sticky(spec, prefix)]);
        let mut first = |from, port| lab.goes_to(&tcp((from, port), (vip, 80), SYN));
        assert_eq!(first(client, 1), Some(11));
        assert_eq!(first(client, 2), Some(11));
        assert_eq!(first(same, 3), Some(11), "{same}/{prefix}");
        if !other.is_empty() {
            assert_eq!(first(other, 1), Some(12), "{other}/{prefix}");
            assert_eq!(first(other, 2), Some(12));
            assert_eq!(first(client, 4), Some(11));
        }
        let templates = if other.is_empty() { 1 } else { 2 };
        assert_eq!(lab.stats.templates.get(), templates);
        assert_eq!(lab.stats.real(11).templates.get(), 1);
    }
}

#[test]
fn a_virtual_server_with_every_port_has_one_template_for_all() {
    for six in [false, true] {
        let (client, vip) = if six {
            (CLIENT6, VIP6)
        } else {
            (CLIENT4, VIP4)
        };
        let spec = served(0, address(L4Proto::Tcp, vip, 0), reals(six));
        let whole = if six { 128 } else { 32 };
        let mut lab = Lab::full(&[sticky(spec, whole)]);
        for port in [22, 80, 443, 8080] {
            let first = tcp((client, 4000), (vip, port), SYN);
            assert_eq!(lab.client(&first), to_real(11, &first.passed()));
        }
        assert_eq!(lab.stats.templates.get(), 1);
        assert_eq!(lab.stats.real(11).connections.get(), 4);
    }
}

#[test]
fn a_mark_has_one_template_for_all_its_addresses_ports_and_protocols() {
    for six in [false, true] {
        let (client, vip, other) = if six {
            (CLIENT6, VIP6, "2001:db8::101")
        } else {
            (CLIENT4, VIP4, "10.1.0.101")
        };
        let rule = crate::balance::MarkRule {
            mark: 7,
            protocol: None,
            destination: (vip.parse().unwrap(), other.parse().unwrap()),
            destination_ports: (80, 443),
            source: None,
            source_ports: (0, u16::MAX),
            ingress: None,
        };
        let mark = Match::Mark { mark: 7, ipv6: six };
        let whole = if six { 128 } else { 32 };
        let spec = sticky(served(0, mark, reals(six)), whole);
        let mut lab = Lab::with(&[spec], |environment| environment.marks = vec![rule]);
        let from = (client, 4000);
        for pkt in [
            tcp(from, (vip, 80), SYN),
            tcp(from, (other, 443), SYN),
            udp(from, (vip, 443)),
            sctp(from, (other, 100), 1),
        ] {
            assert_eq!(lab.client(&pkt), to_real(11, &pkt.passed()));
        }
        assert_eq!(lab.stats.templates.get(), 1);
        lab.assert_no_way(&tcp(from, (vip, 79), SYN), DropReason::NoService);
    }
}

#[test]
fn each_port_has_a_template_of_its_own_where_virtual_servers_are_separate() {
    let both = [80, 443].map(|port| {
        let id = u32::from(port == 443);
        let reals = reals(false).into_iter().map(|real| RealSpec {
            id: RealId(real.id.0 + 10 * id),
            ..real
        });
        let what = address(L4Proto::Tcp, VIP4, port);
        sticky(served(id, what, reals.collect()), 32)
    });
    let mut lab = Lab::full(&both);
    for port in [80, 443] {
        assert!(lab.client(&tcp((CLIENT4, 1), (VIP4, port), SYN)).is_some());
    }
    assert_eq!(lab.stats.templates.get(), 2);
}

#[test]
fn a_template_leads_to_a_real_server_of_weight_0_unless_it_shall_expire() {
    for expires in [false, true] {
        let whole = || served(0, address(L4Proto::Tcp, VIP4, 80), reals(false));
        let mut lab = Lab::full(&[sticky(whole(), 32)]);
        let syn = |port| tcp((CLIENT4, port), (VIP4, 80), SYN);
        assert_eq!(lab.goes_to(&syn(1)), Some(11));
        let mut spec = whole();
        let bound = spec.reals.iter_mut().find(|real| real.id == RealId(11));
        bound.unwrap().weight = 0;
        lab.publish_with(&[sticky(spec, 32)], |environment| {
            environment.policy.expire_quiescent_template = expires;
        });
        let now = if expires { 12 } else { 11 };
        assert_eq!(lab.goes_to(&syn(2)), Some(now));
        assert_eq!(lab.goes_to(&syn(3)), Some(now), "it is kept");
        assert_eq!(lab.goes_to(&tcp((CLIENT4, 1), (VIP4, 80), ACK)), Some(11));
        let counts = [11, 12].map(|id| lab.stats.real(id).templates.get());
        assert_eq!(counts, [u64::from(!expires), u64::from(expires)]);
    }
}

#[test]
fn a_persistent_client_is_answered_through_nat() {
    let spec = served(
        0,
        address(L4Proto::Tcp, VIP4, 80),
        vec![
            real_at(11, REAL4, 8080, LbKind::Nat),
            real_at(12, "10.2.0.12", 8080, LbKind::Nat),
        ],
    );
    let mut lab = Lab::full(&[sticky(spec, 24)]);
    for port in 1..5 {
        let first = tcp((CLIENT4, port), (VIP4, 80), SYN);
        let inside = first.renamed(first.from, (REAL4.parse().unwrap(), 8080));
        assert_eq!(lab.client(&first), to_real(11, &inside));
        let answer = tcp((REAL4, 8080), (CLIENT4, port), SYN | ACK);
        let outside = answer.renamed(first.to, answer.to);
        assert_eq!(lab.answer(11, &answer), to_router(&outside));
    }
    assert_eq!(lab.stats.templates.get(), 1);
}
