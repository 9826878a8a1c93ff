//! Interfaces that come and go, as one worker and as several see it.

use super::{
    frames::{ACK, SYN},
    handover_tests::Crew,
    *,
};
use crate::dataplane::ports::orders::{self, Answer, Order, Orders};

/// The lab's worker takes orders from now on.
fn ordered(mut lab: Lab) -> (Lab, Orders<PortId>) {
    let (orders, inbox) = orders::ends();
    lab.worker = lab.worker.with_inbox(inbox);
    (lab, orders)
}

#[test]
fn what_would_leave_by_an_interface_that_is_gone_is_dropped_and_counted() {
    let (mut lab, mut orders) = ordered(Lab::full(&[service(vec![real(11)])]));
    let (from, to) = ((CLIENT4, 4000), (VIP4, 80));
    let syn = tcp(from, to, SYN);
    assert_eq!(lab.client(&syn), to_real(11, &syn.passed()));
    orders.give(Order::Close(EGRESS));
    let ack = tcp(from, to, ACK);
    assert_eq!(lab.client(&ack), None);
    assert!(matches!(
        orders.answer(),
        Some(Answer::Closed(EGRESS, Some(EGRESS)))
    ));
    assert_eq!(lab.dropped_for(DropReason::PortGone), 1);
    assert_eq!(lab.dropped_for(DropReason::TransmitFull), 0);
    assert!(lab.worker.account().is_settled());
    // It comes back: the connection was there all the time.
    orders.give(Order::Open(EGRESS));
    assert_eq!(lab.client(&ack), to_real(11, &ack.passed()));
    assert!(matches!(orders.answer(), Some(Answer::Opened(EGRESS))));
    assert_eq!(lab.stats.connections.get(), 1);
}

#[test]
fn a_port_that_is_not_open_is_closed_all_the_same() {
    let (mut lab, mut orders) = ordered(Lab::full(&[]));
    orders.give(Order::Close(EGRESS));
    orders.give(Order::Close(PortId(9)));
    lab.turn();
    assert!(matches!(
        orders.answer(),
        Some(Answer::Closed(EGRESS, Some(_)))
    ));
    assert!(matches!(
        orders.answer(),
        Some(Answer::Closed(PortId(9), Some(_)))
    ));
    orders.give(Order::Close(EGRESS));
    lab.turn();
    assert!(matches!(
        orders.answer(),
        Some(Answer::Closed(EGRESS, None))
    ));
}

#[test]
fn what_waits_and_came_in_on_an_interface_that_is_gone_waits_no_longer() {
    let unresolved = RealSpec {
        hop: NOWHERE,
        ..real(11)
    };
    let (mut lab, mut orders) = ordered(Lab::full(&[service(vec![unresolved])]));
    // One came in on each of two ports.
    let (here, there) = (PortId(3), INGRESS);
    for (port, ingress) in [(1, here), (2, there)] {
        let frame = tcp((CLIENT4, port), (VIP4, 80), SYN).frame();
        assert!(lab.burst(ingress, &[frame]).is_empty());
    }
    assert_eq!(lab.worker.account().in_hand, 2);
    orders.give(Order::Close(here));
    lab.turn();
    assert_eq!(lab.dropped_for(DropReason::PortGone), 1);
    assert_eq!(lab.worker.account().in_hand, 1);
    lab.publish_with(&[service(vec![real(11)])], |_| {});
    assert_eq!(lab.turn().len(), 1, "the other goes");
    assert!(lab.worker.account().is_settled());
}

#[test]
fn a_port_is_left_only_when_nothing_of_it_is_under_way() {
    let mut crew = Crew::new(2, persistent(vec![real(11)], 32));
    let mut ends = Vec::new();
    crew.workers = std::mem::take(&mut crew.workers)
        .into_iter()
        .map(|worker| {
            let (orders, inbox) = orders::ends();
            ends.push(orders);
            worker.with_inbox(inbox)
        })
        .collect();
    // A frame of the second worker's is on its way to it, as it came in at the first.
    for client in 1..50 {
        let client = format!("10.1.1.{client}");
        crew.inject(0, &tcp((&client, 4000), (VIP4, 80), SYN).frame());
        crew.turn(0);
        if crew.stats[0].handed_over.get() > 0 {
            break;
        }
    }
    assert_eq!(crew.stats[0].handed_over.get(), 1);
    for orders in &mut ends {
        orders.give(Order::Close(INGRESS));
        orders.give(Order::Recover(INGRESS));
    }
    crew.turn(0);
    assert!(matches!(ends[0].answer(), Some(Answer::Closed(INGRESS, _))));
    assert!(matches!(ends[0].answer(), Some(Answer::Recovered(INGRESS))));
    // The second looks into its inbox before it takes what was handed over, and again at the next turn.
    crew.turn(1);
    assert!(matches!(ends[1].answer(), Some(Answer::Closed(INGRESS, _))));
    assert!(ends[1].answer().is_none());
    crew.turn(1);
    assert!(matches!(ends[1].answer(), Some(Answer::Recovered(INGRESS))));
    crew.work();
    crew.assert_settled();
}
