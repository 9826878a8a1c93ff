//! UDP: flows without a state, `ops`, and real servers that fail.

use super::{frames::udp, *};

fn spec(reals: Vec<RealSpec>) -> ServiceSpec {
    served(0, address(L4Proto::Udp, VIP4, 53), reals)
}

fn query(port: u16) -> Pkt {
    udp((CLIENT4, port), (VIP4, 53))
}

fn down(id: u32) -> RealSpec {
    RealSpec {
        available: false,
        ..real(id)
    }
}

#[test]
fn a_flow_lasts_five_minutes_from_its_last_packet() {
    let mut lab = Lab::full(&[spec(vec![real(11), real(12)])]);
    for _ in 0..3 {
        assert_eq!(lab.client(&query(1)), to_real(11, &query(1).passed()));
        assert_eq!(lab.state(&query(1)), Some((State::Udp, 300)));
        lab.assert_counts(11, 0, 1);
        lab.advance(299);
        assert_eq!(lab.state(&query(1)), Some((State::Udp, 1)));
    }
    lab.advance(1);
    assert_eq!(lab.goes_to(&query(1)), Some(12), "it was over");
    lab.assert_counts(11, 0, 0);
}

#[test]
fn one_packet_scheduling_remembers_nothing() {
    let ops = ServiceSpec {
        one_packet: true,
        ..spec(vec![real(11), real(12)])
    };
    let mut lab = Lab::full(&[ops]);
    for id in [11, 12, 11, 12] {
        assert_eq!(lab.client(&query(1)), to_real(id, &query(1).passed()));
    }
    assert!(lab.worker.balancer().conns().is_empty());
    lab.assert_counts(11, 0, 0);
    assert_eq!(lab.stats.real(11).connections.get(), 2);
    assert_eq!(lab.traffic(12)[0], 2);
}

#[test]
fn flows_leave_a_real_server_that_is_down_with_their_next_packet() {
    for moves in [true, false] {
        let mut lab = Lab::full(&[spec(vec![real(11), real(12)])]);
        assert_eq!(lab.goes_to(&query(1)), Some(11));
        lab.publish_with(&[spec(vec![down(11), real(12)])], |environment| {
            environment.policy.udp_move = moves;
        });
        let now = if moves { 12 } else { 11 };
        assert_eq!(lab.goes_to(&query(1)), Some(now));
        assert_eq!(lab.goes_to(&query(2)), Some(12));
        lab.publish_with(&[spec(vec![down(11), down(12)])], |environment| {
            environment.policy.udp_move = moves;
        });
        // Nobody is left.
        let out = lab.client(&query(1)).unwrap();
        assert_eq!(out.0, if moves { INGRESS } else { EGRESS });
    }
}

#[test]
fn flows_of_a_real_server_that_is_gone_move_or_are_dropped() {
    for expires in [true, false] {
        let mut lab = Lab::full(&[spec(vec![real(11), real(12)])]);
        assert_eq!(lab.goes_to(&query(1)), Some(11));
        lab.publish_with(&[spec(vec![real(12)])], |environment| {
            environment.policy.expire_nodest_conn = expires;
        });
        if expires {
            assert_eq!(lab.goes_to(&query(1)), Some(12));
        } else {
            lab.assert_no_way(&query(1), DropReason::RealGone);
            lab.advance(300);
            assert_eq!(lab.goes_to(&query(1)), Some(12), "the entry has expired");
        }
    }
}

/// `inhibit_on_failure`: a failed real server stays in the pool with weight 0, as one that is drained by its
/// configured weight.
#[test]
fn flows_leave_an_inhibited_real_server_that_failed_and_stay_with_a_drained_one() {
    for persistence in [None, Some(60)] {
        for (failed, moves) in [(true, true), (true, false), (false, true)] {
            let with = |reals| ServiceSpec {
                persistence: persistence.map(|seconds| Persistence {
                    timeout: Duration::from_secs(seconds),
                    prefix: 32,
                }),
                ..spec(reals)
            };
            let mut lab = Lab::full(&[with(vec![real(11), real(12)])]);
            assert_eq!(lab.goes_to(&query(1)), Some(11));
            let quiet = RealSpec {
                weight: 0,
                failed,
                ..real(11)
            };
            lab.publish_with(&[with(vec![quiet, real(12)])], |environment| {
                environment.policy.udp_move = moves;
            });
            let now = if failed && moves { 12 } else { 11 };
            assert_eq!(lab.goes_to(&query(1)), Some(now), "{failed} {moves}");
        }
    }
}
