//! ICMP errors: those about flows, and those of our own.

use super::*;

#[test]
fn an_icmp_error_follows_the_flow_that_it_is_about() {
    let mut lab = Lab::new(service(vec![real(11), real(12)]));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    assert_eq!(lab.reaches(&segment(CLIENT, 4001, Say::Syn)), Some(12));
    for kind in [3, 4, 11, 12] {
        let about = icmp_error(kind, 4001);
        assert_eq!(lab.send(&about), Some((EGRESS, routed(&about, 14, 12))));
    }
    lab.assert_dropped(&icmp_error(3, 4002), DropReason::IcmpUnknownFlow);
    lab.assert_dropped(&icmp_error(8, 4001), DropReason::IcmpType);
    let mut cut = icmp_error(3, 4001);
    cut.pop();
    cut[17] -= 1;
    fix_ip_checksum(&mut cut, 20);
    lab.assert_dropped(&cut, DropReason::IcmpQuote);
    // It keeps no flow alive: SYN_RECV is over after 60 s.
    lab.advance(59);
    assert_eq!(lab.reaches(&icmp_error(3, 4001)), Some(12));
    lab.advance(1);
    lab.assert_dropped(&icmp_error(3, 4001), DropReason::IcmpUnknownFlow);
}
