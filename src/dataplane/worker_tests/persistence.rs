//! Persistent clients.

use super::*;

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
