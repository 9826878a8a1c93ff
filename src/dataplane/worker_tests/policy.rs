//! What becomes of connections whose real server or state is not as it should be.

use super::{
    frames::{ACK, FIN, RST, SYN},
    *,
};

#[test]
fn a_syn_on_an_old_connection_is_scheduled_only_when_that_one_is_over() {
    let both = || service(vec![real(11), real(12)]);
    // Reset: the connection is in CLOSE, and the next SYN is scheduled.
    let mut lab = Lab::new(both());
    for say in [Say::Syn, Say::Ack, Say::Rst] {
        assert_eq!(lab.reaches(&segment(CLIENT, 4000, say)), Some(11));
    }
    lab.assert_counts(11, 0, 1);
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(12));
    lab.assert_counts(11, 0, 0);
    // FIN_WAIT, established and half-open ones stay where they are.
    for before in [&[Say::Ack, Say::Fin][..], &[Say::Ack], &[]] {
        let mut lab = Lab::new(both());
        lab.reaches(&segment(CLIENT, 4000, Say::Syn));
        for say in before {
            lab.reaches(&segment(CLIENT, 4000, *say));
        }
        assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
        lab.assert_counts(11, 1, 0);
    }
}

#[test]
fn a_real_server_that_is_down_keeps_its_flows_and_gets_no_new_ones() {
    let mut lab = Lab::new(service(vec![real(11), real(12)]));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Ack)), Some(11));
    let down = RealSpec {
        available: false,
        ..real(11)
    };
    lab.publish(&[service(vec![down, real(12)])]);
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Ack)), Some(11));
    for port in 5000..5003 {
        assert_eq!(lab.reaches(&segment(CLIENT, port, Say::Syn)), Some(12));
    }
    assert_eq!(
        lab.reaches(&segment(CLIENT, 4000, Say::Syn)),
        Some(12),
        "it begins anew"
    );
    lab.assert_counts(11, 0, 0);
    assert!(lab.publisher.is_adopted());
}

#[test]
fn flows_of_a_removed_real_server_are_forgotten() {
    let mut lab = Lab::new(service(vec![real(11)]));
    lab.reaches(&segment(CLIENT, 4000, Say::Syn));
    lab.reaches(&segment(CLIENT, 4000, Say::Ack));
    let next = RealSpec {
        epoch: NonZeroU32::new(2).unwrap(),
        ..real(11)
    };
    lab.publish(&[service(vec![next])]);
    let (port, _) = lab.send(&segment(CLIENT, 4000, Say::Ack)).unwrap();
    assert_eq!(port, INGRESS, "a reset, so that the client connects anew");
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    lab.assert_counts(11, 1, 0);
    lab.publish(&[]);
    lab.assert_dropped(&segment(CLIENT, 4000, Say::Ack), DropReason::NoService);
}

fn at(flags: u8) -> Pkt {
    tcp((CLIENT4, 4000), (VIP4, 80), flags)
}

fn pair(method: LbKind) -> Vec<RealSpec> {
    vec![
        real_at(11, REAL4, 80, method),
        real_at(12, "10.2.0.12", 80, method),
    ]
}

/// The client's segments, the real server's, the state that they lead to, and the modes in which a SYN then
/// begins anew.
type Case = (LbKind, &'static [u8], &'static [u8], State, &'static [u8]);

#[test]
fn conn_reuse_mode_decides_where_a_syn_on_an_old_connection_goes() {
    use State::{Close, CloseWait, Established, FinWait, SynRecv, TimeWait};
    let nat = LbKind::Nat;
    let direct = LbKind::Dr;
    let cases: [Case; 9] = [
        (direct, &[SYN], &[], SynRecv, &[]),
        (direct, &[SYN, ACK], &[], Established, &[]),
        (direct, &[SYN, ACK, FIN | ACK], &[], FinWait, &[2, 3]),
        (direct, &[SYN, FIN], &[], TimeWait, &[1, 2, 3]),
        (direct, &[SYN, ACK, RST], &[], Close, &[1, 2, 3]),
        (nat, &[SYN, ACK, FIN | ACK], &[], CloseWait, &[]),
        (nat, &[SYN, ACK], &[FIN | ACK], FinWait, &[]),
        (
            nat,
            &[SYN, ACK, FIN | ACK],
            &[FIN | ACK],
            TimeWait,
            &[1, 2, 3],
        ),
        (nat, &[SYN], &[RST], Close, &[1, 2, 3]),
    ];
    for (method, from_client, from_real, state, anew) in cases {
        for mode in 0..4 {
            let spec = || service(pair(method));
            let mut lab = Lab::with(&[spec()], |environment| {
                environment.policy.reuse_finished = mode != 0;
                environment.policy.reuse_closing = mode & 2 != 0;
            });
            for flags in from_client {
                assert_eq!(lab.goes_to(&at(*flags)), Some(11));
            }
            for flags in from_real {
                let answer = tcp((REAL4, 80), (CLIENT4, 4000), *flags);
                assert!(lab.answer(11, &answer).is_some());
            }
            assert_eq!(lab.state(&at(SYN)).unwrap().0, state);
            let now = if anew.contains(&mode) { 12 } else { 11 };
            assert_eq!(lab.goes_to(&at(SYN)), Some(now), "{state:?} mode {mode}");
        }
    }
}

#[test]
fn connections_of_a_real_server_that_is_gone_end_as_the_policy_says() {
    // expire_nodest_conn, reset_on_failure.
    for (expires, resets) in [(false, false), (false, true), (true, false), (true, true)] {
        for flags in [ACK, SYN, RST] {
            let mut lab = Lab::full(&[service(pair(LbKind::Dr))]);
            lab.goes_to(&at(SYN));
            assert_eq!(lab.goes_to(&at(ACK)), Some(11));
            let left = pair(LbKind::Dr).split_off(1);
            lab.publish_with(&[service(left)], |environment| {
                environment.policy.expire_nodest_conn = expires;
                environment.policy.reset_on_failure = resets;
            });
            let out = lab.client(&at(flags)).map(|(port, frame)| (port, frame[5]));
            let name = format!("{expires} {resets} {flags}");
            match (expires || resets, flags) {
                (false, _) => {
                    assert_eq!(out, None, "{name}");
                    assert_eq!(lab.dropped_for(DropReason::RealGone), 1);
                    assert!(lab.state(&at(ACK)).is_some());
                }
                (true, ACK) => {
                    assert_eq!(out, Some((INGRESS, ROUTER_MAC[5])), "{name}");
                    let reason = if resets {
                        ReplyReason::RealDown
                    } else {
                        ReplyReason::UnknownFlow
                    };
                    assert_eq!(lab.stats.replies(reason).get(), 1, "{name}");
                }
                (true, SYN) => assert_eq!(out, Some((EGRESS, 12)), "{name}"),
                (true, _) => {
                    assert_eq!(out, None, "a reset is not answered: {name}");
                    assert_eq!(lab.dropped_for(DropReason::UnknownReset), 1);
                }
            }
        }
    }
}

#[test]
fn connections_of_a_real_server_that_is_down_are_reset_where_that_is_asked_for() {
    for resets in [false, true] {
        let mut lab = Lab::full(&[service(pair(LbKind::Dr))]);
        lab.goes_to(&at(SYN));
        lab.goes_to(&at(ACK));
        let mut reals = pair(LbKind::Dr);
        reals[0].available = false;
        lab.publish_with(&[service(reals)], |environment| {
            environment.policy.reset_on_failure = resets;
        });
        let (port, _) = lab.client(&at(ACK)).unwrap();
        assert_eq!(port, if resets { INGRESS } else { EGRESS });
        let downs = lab.stats.replies(ReplyReason::RealDown).get();
        assert_eq!(downs, u64::from(resets));
        lab.assert_counts(11, u64::from(!resets), 0);
    }
}

#[test]
fn sloppy_tcp_lets_any_segment_but_a_reset_begin() {
    for (flags, state) in [
        (ACK, State::Established),
        (FIN | ACK, State::Close),
        (0, State::Close),
    ] {
        let mut lab = Lab::with(&[service(pair(LbKind::Dr))], |environment| {
            environment.policy.sloppy_tcp = true;
        });
        assert_eq!(lab.goes_to(&at(flags)), Some(11));
        assert_eq!(lab.state(&at(flags)).unwrap().0, state);
        let other = tcp((CLIENT4, 1), (VIP4, 80), RST);
        lab.assert_no_way(&other, DropReason::UnknownReset);
    }
}

#[test]
fn timeouts_are_those_that_are_set() {
    let set = |state, seconds, timeouts: &mut Timeouts| {
        *timeouts = timeouts.clone().with(state, Duration::from_secs(seconds));
    };
    let mut lab = Lab::with(&[service(pair(LbKind::Dr))], |environment| {
        set(State::Established, 30, &mut environment.timeouts);
        set(State::FinWait, 7, &mut environment.timeouts);
    });
    for (flags, seconds) in [(ACK, 30), (FIN | ACK, 7)] {
        for flags in [SYN, ACK, flags] {
            lab.client(&at(flags)).unwrap();
        }
        lab.advance(seconds - 1);
        assert_eq!(lab.client(&at(flags)).unwrap().0, EGRESS);
        lab.advance(seconds);
        let (port, _) = lab.client(&at(ACK)).unwrap();
        assert_eq!(port, INGRESS, "it is over: a reset");
    }
}
