//! Reloads: what stays, what changes, and in which order.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::bench::{Bench, Sent, instance};
use crate::sys::instance_lock::{VridFamily, VridLock};

const ETH0: &[(&str, Option<u8>)] = &[("eth0", Some(1))];
const VIPS: &[&str] = &["198.51.100.1", "198.51.100.2"];

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn one(vips: &[&str]) -> String {
    instance("VI_1", "eth0", 51, "", vips)
}

#[test]
fn the_same_file_sends_nothing_and_moves_no_timer() {
    for waited in [0, 1500, 30_000] {
        let mut bench = Bench::with(ETH0);
        let text = one(VIPS) + &instance("VI_2", "eth0", 52, "", &["198.51.100.3"]);
        bench.start(&text);
        bench.run(Duration::from_millis(waited));
        bench.forget();
        let before = (bench.vrrp.poll_timeout(), bench.status(), bench.will());
        bench.reload(&text).unwrap();
        let after = (bench.vrrp.poll_timeout(), bench.status(), bench.will());
        assert_eq!(before, after);
        assert_eq!(bench.wire(), [], "after {waited} ms");
        assert!(bench.host.changes.is_empty() && bench.taken.is_empty());
        let eth0 = bench.host.index("eth0");
        assert_eq!(bench.host.open.borrow()[&eth0], 1, "opened once");
    }
}

#[test]
fn a_master_gets_new_addresses_announces_them_and_loses_old_ones_afterwards() {
    let mut bench = Bench::master(ETH0, &one(VIPS));
    let eth0 = bench.host.index("eth0");
    bench
        .reload(&one(&["198.51.100.2", "198.51.100.7"]))
        .unwrap();
    assert_eq!(
        bench.host.changes,
        ["+ 198.51.100.7/32", "- 198.51.100.1/32"]
    );
    assert_eq!(bench.taken, ["+ 198.51.100.7", "- 198.51.100.1"]);
    let mut expected = vec![Sent::Arp(eth0, "198.51.100.7".parse().unwrap()); 5];
    expected.insert(5, Sent::Advert(eth0, 51, 150));
    assert_eq!(bench.wire(), expected, "only what is new is announced");
    assert!(bench.is_master("VI_1"));
    assert_eq!(bench.status()[0].addresses.len(), 2);

    // An excluded address is in no advert, but it is put on and announced all the same.
    let excluded = one(&["198.51.100.2", "198.51.100.7"]).replace(
        "advert_int 1",
        "advert_int 1\n virtual_ipaddress_excluded {\n 198.51.100.8\n }",
    );
    bench.forget();
    bench.reload(&excluded).unwrap();
    assert_eq!(bench.host.changes, ["+ 198.51.100.8/32"]);
    let announced = Sent::Arp(eth0, "198.51.100.8".parse().unwrap());
    assert_eq!(bench.wire(), vec![announced; 5]);
}

#[test]
fn a_backup_takes_other_addresses_without_putting_them_on() {
    let mut bench = Bench::with(ETH0);
    bench.start(&one(VIPS));
    bench.reload(&one(&["198.51.100.7"])).unwrap();
    assert!(bench.host.vips().is_empty());
    bench.run(secs(5));
    let on = |address: &str| ("eth0".to_owned(), address.to_owned());
    let vips = BTreeSet::from([on("198.51.100.7/32")]);
    assert_eq!(bench.host.vips(), vips);
}

#[test]
fn another_name_is_the_same_instance() {
    let mut bench = Bench::master(ETH0, &one(VIPS));
    bench
        .reload(&instance("OTHER", "eth0", 51, "", VIPS))
        .unwrap();
    assert!(bench.is_master("OTHER"));
    assert!(bench.host.changes.is_empty() && bench.taken.is_empty());
}

#[test]
fn another_label_is_put_on_in_place_of_the_first() {
    let mut bench = Bench::master(ETH0, &one(&["198.51.100.1"]));
    bench.reload(&one(&["198.51.100.1 label eth0:1"])).unwrap();
    let changes = ["- 198.51.100.1/32", "+ 198.51.100.1/32"];
    assert_eq!(bench.host.changes, changes);
    assert!(bench.taken.is_empty(), "the data plane does not notice");
    let options = bench.host.present.values();
    assert!(options.filter(|one| one.label.is_some()).count() == 1);
}

#[test]
fn another_vrid_is_another_instance_and_the_former_says_goodbye() {
    let mut bench = Bench::master(ETH0, &one(VIPS));
    let eth0 = bench.host.index("eth0");
    bench
        .reload(&instance("VI_1", "eth0", 52, "", VIPS))
        .unwrap();
    assert_eq!(bench.wire(), [Sent::Advert(eth0, 51, 0)]);
    let states = [("VI_1".to_owned(), "BACKUP".to_owned(), None)];
    assert_eq!(bench.states(), states);
    assert_eq!(bench.will(), (vec![], 0));
    bench.run(secs(5));
    assert!(bench.is_master("VI_1"));
    // The former virtual router is free for others.
    let link = bench.host.links["eth0"].clone();
    VridLock::acquire(&link, VridFamily::V4, 51).unwrap();
    VridLock::acquire(&link, VridFamily::V4, 52).unwrap_err();
}

#[test]
fn addresses_that_another_master_has_too_never_leave() {
    let owner = |vrid| instance("VI_1", "eth0", vrid, "", VIPS).replace("150", "255");
    let mut bench = Bench::master(ETH0, &owner(51));
    bench.reload(&owner(52)).unwrap();
    assert!(bench.is_master("VI_1"));
    assert!(bench.host.changes.is_empty(), "{:?}", bench.host.changes);
    assert!(bench.taken.is_empty(), "{:?}", bench.taken);

    // From one instance to another, both MASTER.
    let two = |first: &[&str], second: &[&str]| {
        instance("A", "eth0", 1, "", first) + &instance("B", "eth0", 2, "", second)
    };
    let before = two(&["198.51.100.1", "198.51.100.2"], &["198.51.100.3"]);
    let after = two(&["198.51.100.1"], &["198.51.100.2", "198.51.100.3"]);
    let mut bench = Bench::master(ETH0, &before);
    bench.reload(&after).unwrap();
    assert!(bench.host.changes.is_empty(), "{:?}", bench.host.changes);
    bench.reload(&before).unwrap();
    assert!(bench.host.changes.is_empty(), "{:?}", bench.host.changes);
    // And when the instance that it came from goes.
    bench
        .reload(&instance(
            "B",
            "eth0",
            2,
            "",
            &["198.51.100.1", "198.51.100.3"],
        ))
        .unwrap();
    assert_eq!(bench.host.changes, ["- 198.51.100.2/32"]);
}

#[test]
fn a_changed_priority_is_told_at_once_and_keeps_the_state() {
    let mut bench = Bench::master(ETH0, &one(VIPS));
    let eth0 = bench.host.index("eth0");
    bench.reload(&one(VIPS).replace("150", "120")).unwrap();
    assert_eq!(bench.wire(), [Sent::Advert(eth0, 51, 120)]);
    assert!(bench.is_master("VI_1") && bench.host.changes.is_empty());
}

#[test]
fn a_reload_does_not_wait_for_the_startup_delay() {
    let delayed = |vips: &str| format!("global_defs {{\n vrrp_startup_delay 30\n}}\n{vips}");
    let mut bench = Bench::with(ETH0);
    bench.start(&delayed(&one(VIPS)));
    bench.run(secs(20));
    assert_eq!(bench.status()[0].state, "INIT");
    let second = instance("VI_2", "eth0", 52, "", &["198.51.100.3"]);
    bench.reload(&delayed(&(one(VIPS) + &second))).unwrap();
    bench.run(secs(5));
    assert_eq!(bench.status()[0].state, "INIT", "its delay goes on");
    assert!(bench.is_master("VI_2"));
    bench.run(secs(10));
    assert!(bench.is_master("VI_1"));
}

#[test]
fn an_address_that_the_kernel_refuses_is_shown_and_tried_again() {
    let mut bench = Bench::with(ETH0);
    let eth0 = bench.host.index("eth0");
    bench.host.refuses.insert("198.51.100.2".parse().unwrap());
    bench.start(&one(VIPS));
    bench.run(secs(10));
    let problems = |bench: &Bench| bench.status()[0].problems.clone();
    let refused = ["adding 198.51.100.2/32: Permission denied"];
    assert_eq!(problems(&bench), refused);
    assert!(bench.is_master("VI_1"), "it has the other one");
    bench.host.refuses.clear();
    bench.forget();
    bench.run(secs(1));
    assert_eq!(bench.host.changes, ["+ 198.51.100.2/32"]);
    assert_eq!(problems(&bench), [] as [&str; 0]);
    let announced = Sent::Arp(eth0, "198.51.100.2".parse().unwrap());
    assert!(bench.wire().contains(&announced));

    // And one that cannot be removed.
    bench.host.refuses.insert("198.51.100.1".parse().unwrap());
    bench.reload(&one(&["198.51.100.2"])).unwrap();
    assert_eq!(bench.will().1, 2, "the guardian knows of it");
    bench.run(secs(5));
    bench.host.refuses.clear();
    bench.run(secs(1));
    assert_eq!(bench.host.vips().len(), 1);
    assert_eq!(bench.will().1, 1);
}

#[test]
fn an_address_that_somebody_removes_is_put_back_unless_it_is_not_tracked() {
    let text = one(&["198.51.100.1", "198.51.100.2 no_track"]);
    let mut bench = Bench::master(ETH0, &text);
    let eth0 = bench.host.index("eth0");
    let own = |place: &(u32, crate::addr::IpPrefix)| place.1.len() == 24;
    bench.host.present.retain(|place, _| own(place));
    bench.tell(|vrrp, env| vrrp.handle_addresses(env, eth0));
    assert_eq!(bench.host.changes, ["+ 198.51.100.1/32"]);
    assert!(bench.taken.is_empty());
}

#[test]
fn what_cannot_be_is_found_before_anything_changes() {
    let mut bench = Bench::master(ETH0, &one(VIPS));
    let link = bench.host.links["eth0"].clone();
    let _theirs = VridLock::acquire(&link, VridFamily::V4, 77).unwrap();
    let before = bench.status();
    let refused = [
        (
            instance("VI_7", "eth0", 77, "", &["198.51.100.7"]),
            "(VI_7) VRID 77 (IPv4) on eth0 is in use by process",
        ),
        (
            instance("VI_5", "eth5", 55, "", &["198.51.100.5"]),
            "(VI_5) interface eth5 does not exist",
        ),
        (
            instance("VI_1", "eth0", 51, "", &["198.51.100.5 dev bk0"]),
            "(VI_1) interface bk0 does not exist",
        ),
    ];
    for (text, why) in refused {
        let error = bench.reload(&text).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }
    assert_eq!(bench.status(), before);
    assert_eq!(bench.wire(), []);
    bench.run(secs(2));
    assert!(bench.is_master("VI_1"));
}

#[test]
fn a_virtual_router_that_another_process_took_is_waited_for() {
    let mut bench = Bench::with(ETH0);
    let config = super::bench::parse(&one(VIPS));
    let link = bench.host.links["eth0"].clone();
    let theirs = VridLock::acquire(&link, VridFamily::V4, 51).unwrap();
    bench.with_env(|vrrp, env| {
        vrrp.apply(&config, env);
        vrrp.start(env.now);
    });
    bench.carry_out();
    let (_, state, reason) = bench.states().remove(0);
    assert_eq!(state, "FAULT");
    let reason = reason.unwrap();
    assert!(
        reason.starts_with("VRID 51 (IPv4) on eth0 is in use"),
        "{reason}"
    );
    bench.run(secs(30));
    assert_eq!(bench.wire(), []);
    drop(theirs);
    bench.run(secs(6));
    assert!(bench.is_master("VI_1"));
}

/// Which of a few instances there are, and with which of a few addresses.
fn configuration() -> impl Strategy<Value = String> {
    let vip = (1..6_u8, prop_oneof![Just(""), Just(" dev bk0")]);
    let vip = vip.prop_map(|(last, dev)| format!("198.51.100.{last}{dev}"));
    let vips = proptest::collection::btree_set(vip, 1..4);
    let what = (
        vips,
        prop_oneof![Just(100_u8), Just(150), Just(255)],
        any::<bool>(),
        prop_oneof![Just("eth0"), Just("eth1")],
        0..3_u8,
    );
    proptest::collection::btree_map(1..4_u8, what, 0..4).prop_map(|instances| {
        let mut used = BTreeSet::new();
        let mut text = String::new();
        for (number, (vips, priority, preempt, dev, shift)) in instances {
            // An address has one instance on an interface, or the configuration is refused.
            let vips = vips.iter().filter(|vip| {
                let on = if vip.contains("dev") { "bk0" } else { dev };
                used.insert(format!("{} {on}", &vip[..12]))
            });
            let vips: Vec<&str> = vips.map(String::as_str).collect();
            if vips.is_empty() {
                continue;
            }
            let lines = if preempt { "" } else { "nopreempt" };
            // So is a VRID.
            let vrid = number * 10 + shift;
            let one = instance(&format!("VI_{number}"), dev, vrid, lines, &vips);
            text += &one.replace("priority 150", &format!("priority {priority}"));
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However a configuration came to run, what runs is what it says.
    #[test]
    fn a_reload_ends_where_a_start_does(
        old in configuration(),
        between in configuration(),
        new in configuration(),
        waits in proptest::array::uniform2(0..8_000_u64),
    ) {
        let links = [("eth0", Some(1)), ("eth1", Some(2)), ("bk0", None)];
        let mut started = Bench::with(&links);
        started.start(&new);
        started.run(secs(20));
        let mut reloaded = Bench::with(&links);
        reloaded.start(&old);
        for (text, wait) in [&between, &new].into_iter().zip(waits) {
            reloaded.run(Duration::from_millis(wait));
            reloaded.reload(text).unwrap();
        }
        reloaded.run(secs(20));
        prop_assert_eq!(started.host.vips(), reloaded.host.vips());
        prop_assert_eq!(started.states().len(), reloaded.states().len());
        let by_name = |bench: &Bench| {
            let mut all: Vec<_> = bench.status().into_iter().map(|one| {
                (one.name, one.interface, one.vrid, one.state, one.priority, one.addresses)
            }).collect();
            all.sort();
            all
        };
        prop_assert_eq!(by_name(&started), by_name(&reloaded));
        prop_assert_eq!(started.will().1, reloaded.will().1);
        let open = |bench: &Bench| {
            let open = bench.host.open.borrow();
            open.values().copied().filter(|count| *count > 0).count()
        };
        prop_assert_eq!(open(&started), open(&reloaded));
        let told = |bench: &Bench| {
            let mut told = BTreeSet::new();
            for line in &bench.taken {
                let (sign, address) = line.split_at(2);
                let news = if sign == "+ " { told.insert(address) } else { told.remove(address) };
                assert!(news, "told twice: {line}");
            }
            told.into_iter().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        prop_assert_eq!(told(&started), told(&reloaded));
    }
}
