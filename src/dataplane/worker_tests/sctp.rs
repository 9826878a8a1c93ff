//! SCTP: associations seen from one side and from both.

use super::{
    frames::{L4, framed, sctp},
    *,
};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
const DATA: u8 = 0;

fn spec(method: LbKind) -> ServiceSpec {
    let reals = vec![
        real_at(11, REAL4, 9000, method),
        real_at(12, "10.2.0.12", 9000, method),
    ];
    served(0, address(L4Proto::Sctp, VIP4, 9), reals)
}

fn packet(chunk: u8) -> Pkt {
    sctp((CLIENT4, 4000), (VIP4, 9), chunk)
}

/// Whose packet, its chunk, the state after it and its timeout, and whether that is active.
type Step = (bool, u8, State, u64, bool);

fn walk(method: LbKind, steps: &[Step]) -> Lab {
    let mut lab = Lab::full(&[spec(method)]);
    for (from_client, chunk, state, seconds, active) in steps {
        lab.advance(1);
        let pkt = packet(*chunk);
        if *from_client {
            assert_eq!(lab.goes_to(&pkt), Some(11));
        } else {
            let answer = sctp((REAL4, 9000), (CLIENT4, 4000), *chunk);
            let outside = answer.renamed(pkt.to, pkt.from);
            assert_eq!(lab.answer(11, &answer), to_router(&outside));
        }
        assert_eq!(lab.state(&pkt), Some((*state, *seconds)), "chunk {chunk}");
        lab.assert_counts(11, u64::from(*active), u64::from(!*active));
    }
    lab
}

#[test]
fn associations_go_through_the_states_of_ipvs() {
    use State::*;
    for method in [LbKind::Dr, LbKind::Tun(TunnelKind::Ipip)] {
        walk(
            method,
            &[
                (true, INIT, SctpInit1, 4, false),
                (true, INIT, SctpInit, 61, false),
                (true, COOKIE_ECHO, SctpEstablished, 900, true),
                (true, DATA, SctpEstablished, 900, true),
                (true, SHUTDOWN, SctpShutdownReceived, 61, false),
                (true, SHUTDOWN_COMPLETE, SctpClosed, 61, false),
            ],
        );
    }
    walk(
        LbKind::Nat,
        &[
            (true, INIT, SctpInit1, 4, false),
            (false, INIT_ACK, SctpCookieSent, 61, false),
            (true, COOKIE_ECHO, SctpCookieReplied, 61, false),
            (false, COOKIE_ACK, SctpEstablished, 900, true),
            (false, DATA, SctpEstablished, 900, true),
            (false, SHUTDOWN, SctpShutdownSent, 61, false),
            (true, SHUTDOWN_ACK, SctpClosed, 61, false),
            (false, SHUTDOWN_COMPLETE, SctpClosed, 61, false),
        ],
    );
    walk(
        LbKind::Nat,
        &[
            (true, INIT, SctpInit1, 4, false),
            (false, ABORT, SctpRejected, 4, false),
        ],
    );
}

#[test]
fn an_init_that_nobody_answers_is_forgotten_after_four_seconds() {
    let mut lab = walk(LbKind::Dr, &[(true, INIT, State::SctpInit1, 4, false)]);
    lab.advance(3);
    assert_eq!(lab.state(&packet(INIT)), Some((State::SctpInit1, 1)));
    lab.advance(1);
    assert_eq!(lab.goes_to(&packet(INIT)), Some(12));
}

#[test]
fn an_abort_behind_a_cookie_counts() {
    let mut lab = Lab::full(&[spec(LbKind::Dr)]);
    lab.client(&packet(INIT)).unwrap();
    for (second, state) in [(DATA, State::SctpEstablished), (ABORT, State::SctpClosed)] {
        let mut bundle = packet(COOKIE_ECHO);
        // A cookie of five bytes, padded, and the second chunk.
        bundle.data = vec![9, 9, 9, 9, 9, 0, 0, 0, second, 0, 0, 4];
        let mut bytes = bundle.packet();
        bytes[34..36].copy_from_slice(&9_u16.to_be_bytes());
        crate::wire::sctp::set_checksum(&mut bytes[20..]);
        let out = lab.burst(INGRESS, &[framed(ROUTER_MAC, OUR_MAC, &[], &bytes)]);
        assert_eq!(out.len(), 1);
        assert_eq!(lab.state(&bundle).unwrap().0, state);
    }
}

#[test]
fn an_init_on_a_closed_association_begins_a_new_one() {
    let mut lab = walk(
        LbKind::Dr,
        &[
            (true, INIT, State::SctpInit1, 4, false),
            (true, COOKIE_ECHO, State::SctpEstablished, 900, true),
            (true, INIT, State::SctpEstablished, 900, true),
            (true, ABORT, State::SctpClosed, 61, false),
        ],
    );
    assert_eq!(lab.goes_to(&packet(INIT)), Some(12));
    assert_eq!(lab.state(&packet(INIT)), Some((State::SctpInit1, 4)));
}

#[test]
fn what_belongs_to_no_association_is_dropped_unless_sloppy() {
    for chunk in [DATA, INIT_ACK, COOKIE_ECHO, SHUTDOWN, ABORT] {
        let mut lab = Lab::full(&[spec(LbKind::Dr)]);
        lab.assert_no_way(&packet(chunk), DropReason::UnknownAssociation);
        lab.publish_with(&[spec(LbKind::Dr)], |environment| {
            environment.policy.sloppy_sctp = true;
        });
        if chunk == ABORT {
            lab.assert_no_way(&packet(chunk), DropReason::UnknownAssociation);
        } else {
            assert_eq!(lab.goes_to(&packet(chunk)), Some(11));
        }
    }
}

#[test]
fn fragments_pass_where_the_port_stays_and_only_there() {
    let whole = packet(INIT).with_data(1000);
    let first = framed(ROUTER_MAC, OUR_MAC, &[], &whole.fragment(0..504));
    let mut lab = Lab::full(&[spec(LbKind::Dr)]);
    assert_eq!(lab.burst(INGRESS, &[&first]).len(), 1);
    let mut lab = Lab::full(&[spec(LbKind::Nat)]);
    assert!(lab.burst(INGRESS, &[&first]).is_empty());
    assert_eq!(lab.dropped_for(DropReason::SctpFragment), 1);
    assert_eq!(whole.l4, L4::Sctp(INIT));
}
