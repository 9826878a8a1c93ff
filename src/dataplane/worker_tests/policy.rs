//! What becomes of connections whose real server or state is not as it should be.

use super::*;

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
