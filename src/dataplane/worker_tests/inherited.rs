//! Connections of a run before this one.

use super::*;
use crate::balance::{Inherited, RealRef};

/// A connection of [`CLIENT`] from this port to the real server in slot `real`, last heard of some seconds before `lab`.
fn inherited(lab: &Lab, port: u16, real: u32, seconds: u32) -> Inherited {
    let seen = lab
        .now
        .tick()
        .raw()
        .wrapping_sub(seconds * Tick::PER_SECOND);
    Inherited {
        protocol: L4Proto::Tcp,
        client: (CLIENT.into(), port),
        vip: Endpoint::new(VIP.into(), 80),
        real: RealRef {
            id: RealId(real),
            epoch: NonZeroU32::MIN,
        },
        flow: None,
        seen: Tick::from_raw(seen),
        packets: 9,
    }
}

#[test]
fn they_go_where_they_went_and_are_counted_as_they_are() {
    let mut lab = Lab::new(service(vec![real(11), real(12), real(13)]));
    lab.now = lab.now + Duration::from_secs(10_000);
    let all = [
        inherited(&lab, 4000, 13, 0),
        inherited(&lab, 4001, 12, 100),
        // Its time is over.
        inherited(&lab, 4002, 12, 900),
        // Of a clock that began again.
        inherited(&lab, 4003, 12, u32::MAX / Tick::PER_SECOND),
        // Nobody has this slot.
        inherited(&lab, 4004, 14, 0),
        // It is there already.
        inherited(&lab, 4000, 12, 0),
    ];
    assert_eq!(lab.worker.inherit(&all, lab.now), 2);
    assert_eq!(lab.stats.connections.get(), 2);
    for (real, port) in [(13, 4000), (12, 4001)] {
        assert_eq!(lab.reaches(&segment(CLIENT, port, Say::Ack)), Some(real));
        lab.assert_counts(real, 1, 0);
        let begun = lab.stats.real(real).connections.get();
        assert_eq!(begun, 0, "it began before");
    }
    for port in [4002, 4003, 4004] {
        assert_eq!(lab.reaches(&segment(CLIENT, port, Say::Ack)), None);
    }
    // It ends as any other.
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Fin)), Some(13));
    lab.assert_counts(13, 0, 1);
    // One that was heard of 100 s ago has 800 left.
    lab.advance(700);
    assert_eq!(lab.reaches(&segment(CLIENT, 4001, Say::Ack)), Some(12));
}

#[test]
fn their_clients_stay_with_them() {
    let mut lab = Lab::new(persistent(vec![real(11), real(12), real(13)], 24));
    lab.now = lab.now + Duration::from_secs(10_000);
    let all = [inherited(&lab, 4000, 13, 0), inherited(&lab, 4001, 13, 0)];
    assert_eq!(lab.worker.inherit(&all, lab.now), 2);
    assert_eq!(lab.stats.templates.get(), 1);
    assert_eq!(lab.reaches(&segment(CLIENT, 5000, Say::Syn)), Some(13));
    lab.assert_counts(13, 3, 0);
}

#[test]
fn a_virtual_server_has_to_take_their_packets_still() {
    let lab = Lab::new(service(vec![real(11)]));
    let one = inherited(&lab, 4000, 11, 0);
    let table = table(1, &[service(vec![real(11)])], Around::default());
    assert!(one.is_taken(&table));
    let elsewhere = Endpoint::new(VIP.into(), 81);
    let other = Inherited {
        vip: elsewhere,
        ..one
    };
    assert!(!other.is_taken(&table));
}
