//! Interfaces that come and go.

use std::time::Duration;

use super::bench::{Bench, Sent, instance};
use crate::addr::MacAddr;

const BOTH: &[(&str, Option<u8>)] = &[("eth0", Some(1)), ("bk0", None)];

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One instance on eth0 with an address on each interface, and another one that is not concerned.
fn text() -> String {
    let vips = ["198.51.100.1", "203.0.113.1/24 dev bk0"];
    instance("VI_1", "eth0", 51, "", &vips) + &other()
}

fn other() -> String {
    instance("VI_2", "eth1", 52, "", &["198.51.100.9"])
}

fn links() -> [(&'static str, Option<u8>); 3] {
    [BOTH[0], BOTH[1], ("eth1", Some(2))]
}

/// MASTER of both instances.
fn master() -> Bench {
    Bench::master(&links(), &text())
}

fn fault(bench: &Bench) -> Option<String> {
    let all = bench.states();
    let (_, state, reason) = all.iter().find(|(name, ..)| name == "VI_1").unwrap();
    assert!(bench.is_master("VI_2"), "the other one does not notice");
    (state == "FAULT").then(|| reason.clone().unwrap())
}

#[test]
fn an_interface_made_anew_is_used_as_soon_as_it_is_there() {
    let mut bench = master();
    let former = bench.host.index("eth0");
    bench.unplug("eth0");
    assert_eq!(fault(&bench).as_deref(), Some("eth0 does not exist"));
    assert_eq!(bench.taken, ["- 198.51.100.1", "- 203.0.113.1"]);
    assert_eq!(bench.host.open.borrow()[&former], 0);
    assert_eq!(bench.will().1, 1, "that of VI_2");
    bench.run(secs(60));
    assert_eq!(fault(&bench).as_deref(), Some("eth0 does not exist"));

    bench.forget();
    bench.plug("eth0", Some(1));
    assert_eq!(fault(&bench), None);
    bench.run(secs(5));
    assert!(bench.is_master("VI_1"));
    let eth0 = bench.host.index("eth0");
    assert_ne!(eth0, former);
    assert_eq!(bench.host.vips().len(), 3);
    let will = bench.will();
    assert!(will.0.contains(&eth0) && !will.0.contains(&former));
    let wire = bench.wire();
    assert!(wire.contains(&Sent::Advert(eth0, 51, 150)));
    assert!(wire.contains(&Sent::Arp(eth0, "198.51.100.1".parse().unwrap())));
}

#[test]
fn in_whatever_order_the_news_of_another_interface_comes() {
    // The notification of the deletion was lost.
    let mut bench = master();
    bench.host.unplug("eth0");
    bench.plug("eth0", Some(1));
    assert!(!bench.is_master("VI_1"), "it is elected anew");
    bench.run(secs(5));
    assert!(bench.is_master("VI_1"));
    assert_eq!(bench.host.vips().len(), 3);

    // Many were lost, and all that is known is what there is now.
    let mut bench = master();
    bench.host.unplug("eth0");
    bench.host.unplug("bk0");
    bench.host.plug("eth0", Some(1));
    let all: Vec<_> = bench.host.links.values().cloned().collect();
    bench.tell(|vrrp, env| vrrp.handle_links(env, &all));
    assert_eq!(fault(&bench).as_deref(), Some("bk0 does not exist"));
    let bk0 = bench.host.plug("bk0", None);
    bench.tell(|vrrp, env| vrrp.handle_link(env, &bk0));
    bench.run(secs(5));
    assert!(bench.is_master("VI_1"));
    assert_eq!(bench.host.vips().len(), 3);
    assert!(bench.host.open.borrow().values().all(|count| *count <= 1));
}

#[test]
fn the_link_of_an_address_is_tracked_and_the_others_are_taken_off() {
    let mut bench = master();
    let eth0 = bench.host.index("eth0");
    bench.is_up("bk0", false);
    assert_eq!(fault(&bench).as_deref(), Some("bk0 is down"));
    assert!(bench.wire().contains(&Sent::Advert(eth0, 51, 0)));
    assert_eq!(bench.host.vips().len(), 1, "that of VI_2");
    bench.is_up("bk0", true);
    bench.run(secs(5));
    assert!(bench.is_master("VI_1"));
    assert_eq!(bench.host.vips().len(), 3);

    bench.unplug("bk0");
    assert_eq!(fault(&bench).as_deref(), Some("bk0 does not exist"));
    bench.plug("bk0", None);
    bench.run(secs(5));
    assert_eq!(bench.host.vips().len(), 3);
}

#[test]
fn an_interface_that_is_renamed_is_not_the_one_any_more() {
    let mut bench = master();
    let index = bench.host.index("eth0");
    let mut link = bench.host.links.remove("eth0").unwrap();
    link.name = "uplink".to_owned();
    bench.host.links.insert("uplink".to_owned(), link.clone());
    bench.tell(|vrrp, env| vrrp.handle_link(env, &link));
    assert_eq!(fault(&bench).as_deref(), Some("eth0 does not exist"));
    assert_eq!(bench.wire(), [Sent::Advert(index, 51, 0)], "a goodbye");
    assert_eq!(bench.host.vips().len(), 1, "taken off by the index");
    assert_eq!(bench.host.open.borrow()[&index], 0);

    link.name = "eth0".to_owned();
    bench.host.links.remove("uplink");
    bench.host.links.insert("eth0".to_owned(), link.clone());
    bench.tell(|vrrp, env| vrrp.handle_link(env, &link));
    bench.run(secs(5));
    assert!(bench.is_master("VI_1"));
}

#[test]
fn an_interface_that_is_not_there_yet_needs_dynamic_interfaces_to_be_waited_for() {
    let mut bench = Bench::with(&[("eth1", Some(2))]);
    let fixed = text();
    let error = bench.reload(&fixed).unwrap_err();
    assert!(
        error.starts_with("(VI_1) interface eth0 does not exist"),
        "{error}"
    );
    let dynamic = format!("global_defs {{\n dynamic_interfaces\n}}\n{fixed}");
    bench.start(&dynamic);
    bench.run(secs(10));
    assert_eq!(fault(&bench).as_deref(), Some("eth0 does not exist"));
    bench.plug("eth0", None);
    assert_eq!(fault(&bench).as_deref(), Some("bk0 does not exist"));
    bench.plug("bk0", None);
    assert_eq!(fault(&bench).as_deref(), Some("eth0 has no IPv4 address"));
    bench.unplug("eth0");
    bench.plug("eth0", Some(1));
    bench.run(secs(5));
    assert!(bench.is_master("VI_1"));

    // One that has gone while this runs is waited for in any case, and no reason to refuse a reload.
    bench.unplug("bk0");
    bench.reload(&fixed).unwrap();
    assert_eq!(fault(&bench).as_deref(), Some("bk0 does not exist"));
    bench.plug("bk0", None);
    bench.run(secs(5));
    assert!(bench.is_master("VI_1"));
}

#[test]
fn an_interface_that_cannot_be_opened_is_tried_again() {
    let mut bench = master();
    bench.unplug("eth0");
    bench.host.closed.insert("eth0".to_owned());
    bench.plug("eth0", Some(1));
    let reason = fault(&bench).unwrap();
    assert!(
        reason.starts_with("opening a packet socket on eth0: "),
        "{reason}"
    );
    bench.run(secs(10));
    bench.host.closed.clear();
    bench.run(secs(6));
    assert!(bench.is_master("VI_1"));
    assert_eq!(bench.vrrp.retry_at, None);
}

#[test]
fn an_address_that_is_not_tracked_follows_its_interface_alone() {
    let vips = ["198.51.100.1", "203.0.113.1 dev bk0 no_track"];
    let text = instance("VI_1", "eth0", 51, "", &vips);
    let mut bench = Bench::master(BOTH, &text);
    bench.unplug("bk0");
    assert!(bench.is_master("VI_1"));
    assert_eq!(bench.taken, ["- 203.0.113.1"]);
    let problems = bench.status()[0].problems.clone();
    assert_eq!(problems, ["203.0.113.1/32: bk0 does not exist"]);
    bench.forget();
    let link = bench.host.plug("bk0", None);
    bench.with_env(|vrrp, env| vrrp.handle_link(env, &link));
    assert!(bench.vrrp.is_about_to_add(), "the guardian is told first");
    bench.carry_out();
    assert_eq!(bench.taken, ["+ 203.0.113.1"]);
    assert_eq!(bench.host.vips().len(), 2);
    let announced = Sent::Arp(link.index, "203.0.113.1".parse().unwrap());
    assert!(bench.wire().contains(&announced));
}

#[test]
fn another_link_layer_address_is_announced() {
    let mut bench = master();
    let eth0 = bench.host.index("eth0");
    bench.changes("eth0", |link| link.mac = Some(MacAddr([2, 0, 0, 0, 0, 9])));
    let announced = Sent::Arp(eth0, "198.51.100.1".parse().unwrap());
    assert!(bench.wire().contains(&announced));
    bench.changes("eth0", |link| link.mtu = 9000);
    assert_eq!(bench.wire(), []);
    assert!(bench.is_master("VI_1"));
}
