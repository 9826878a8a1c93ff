//! Without a kernel: a host that does what it is told, or refuses.

mod applied;
mod bench;
mod links;

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use self::bench::{Bench, instance};
use super::*;

#[test]
fn the_will_names_addresses_from_before_they_are_added_until_after_they_are_removed() {
    let mut bench = Bench::with(&[("eth0", Some(1))]);
    bench.start(&instance(
        "VI_1",
        "eth0",
        51,
        "",
        &["198.51.100.1", "198.51.100.2"],
    ));
    let eth0 = bench.host.index("eth0");
    assert_eq!(bench.will(), (vec![], 0));
    bench.now = bench.vrrp.poll_timeout().unwrap();
    bench.vrrp.router.handle_timeout(bench.now);
    assert!(bench.vrrp.is_about_to_add());
    assert_eq!(bench.will(), (vec![eth0], 2), "nothing is added yet");
    bench.carry_out();
    assert!(!bench.vrrp.is_about_to_add());
    assert_eq!(bench.will(), (vec![eth0], 2));

    bench.vrrp.stop(bench.now);
    assert_eq!(bench.will(), (vec![], 2), "nothing is removed yet");
    bench.carry_out();
    assert_eq!(bench.will(), (vec![], 0));
}

#[test]
fn the_configuration_decides_what_is_tracked() {
    let tracked = |lines| {
        let mut bench = Bench::with(&[("eth0", Some(1)), ("bk0", None)]);
        let vips = ["198.51.100.1", "198.51.100.2 dev bk0 no_track"];
        bench.start(&instance("VI_1", "eth0", 51, lines, &vips));
        let instance = bench.vrrp.instances.values().next().unwrap();
        let no_track = instance.vips.iter().map(|vip| vip.no_track);
        let further = instance.settings.further_interfaces.len();
        (
            instance.settings.track_link,
            no_track.collect::<Vec<bool>>(),
            further,
        )
    };
    assert_eq!(tracked(""), (true, vec![false, true], 0));
    assert!(!tracked("dont_track_primary").0);
}

#[test]
fn what_an_earlier_run_left_is_removed_before_anything_else() {
    let mut bench = Bench::with(&[("eth0", Some(1))]);
    let vip = bench.host.put("eth0", "198.51.100.1/32");
    let other = bench.host.put("eth0", "198.51.100.9/32");
    bench.start(&instance("VI_1", "eth0", 51, "", &["198.51.100.1"]));
    assert!(!bench.host.present.contains_key(&vip));
    assert!(bench.host.present.contains_key(&other), "none of ours");
}

/// Queues of this many packets each; returns what was taken from which, and whether more may be.
fn taken(queues: &[usize]) -> (Vec<usize>, bool) {
    let order = Rc::new(RefCell::new(Vec::new()));
    let sources = queues.iter().enumerate();
    let sources: Vec<_> = sources
        .map(|(number, length)| {
            let packets: VecDeque<usize> = std::iter::repeat_n(number, *length).collect();
            RefCell::new(packets)
        })
        .collect();
    let more = take_in_turn(sources, |source| {
        let packet = source.borrow_mut().pop_front();
        order.borrow_mut().extend(packet);
        packet.is_some()
    });
    (order.take(), more)
}

#[test]
fn after_a_stall_everything_is_read_before_a_timer_fires() {
    let (order, more) = taken(&[1000, 0, 100]);
    assert_eq!((order.len(), more), (1100, false));
    let second = order.iter().position(|number| *number == 2);
    assert_eq!(second, Some(BURST), "nobody waits for another's backlog");
    assert_eq!(taken(&[]), (Vec::new(), false));
}

#[test]
fn a_flood_stops_no_timer() {
    let (order, more) = taken(&[1_000_000, 10]);
    assert_eq!((order.len(), more), (PACKETS_PER_TURN, true));
    assert_eq!(order.iter().filter(|number| **number == 1).count(), 10);
}
