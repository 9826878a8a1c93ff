//! Full tables and floods.

use super::*;

#[test]
fn a_syn_flood_on_a_full_table_loses_no_established_flow() {
    let mut lab = Lab::with_connections(service(vec![real(11), real(12)]), 500);
    let mut homes = Vec::new();
    for port in 0..300 {
        homes.push(lab.reaches(&segment(CLIENT, port, Say::Syn)).unwrap());
        lab.reaches(&segment(CLIENT, port, Say::Ack));
    }
    for n in 0..3000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        lab.send(&segment([172, 16 + a, b, c], 1, Say::Syn));
    }
    assert!(lab.stats.evicted.get() > 0);
    assert_eq!(lab.stats.drops(DropReason::TableFull).get(), 0);
    for (port, home) in (0..).zip(homes) {
        assert_eq!(
            lab.reaches(&segment(CLIENT, port, Say::Ack)),
            Some(home),
            "port {port}"
        );
    }
    let active = lab.stats.real(11).active.get() + lab.stats.real(12).active.get();
    assert_eq!(active, lab.worker.balancer().conns().len() as u64);
}
