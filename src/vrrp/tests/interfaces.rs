//! Interfaces that come and go, the instance's own and those that its addresses are on.

use super::*;

/// The interface that some of the virtual addresses are on.
const BACK: u32 = ETH + 1;

fn with_back(priority: u8) -> Settings {
    Settings {
        further_interfaces: vec![(BACK, "bk0".to_owned())],
        ..settings(0, priority)
    }
}

#[test]
fn an_interface_that_does_not_exist_yet_is_waited_for() {
    let mut router = Router::new();
    let mut absent = settings(0, 150);
    absent.primary = None;
    let id = router.add(absent, Instant::ZERO).unwrap();
    router.handle_link(Instant::ZERO, ETH, LinkState::Missing);
    router.start(id, Instant::ZERO);
    let mut bench = Bench {
        router,
        id,
        now: Instant::ZERO,
    };
    assert_eq!(
        bench.lines(),
        ["(VI_1) Entering FAULT STATE (eth0 does not exist)"]
    );
    bench.wait(secs(60));
    bench.router.handle_link(bench.now, ETH, LinkState::Down);
    let fault = bench.status().fault.unwrap();
    assert_eq!(fault.to_string(), "eth0 is down", "as of now");
    bench.router.handle_link(bench.now, ETH, LinkState::Up);
    let fault = bench.status().fault.unwrap();
    assert_eq!(fault.to_string(), "eth0 has no IPv4 address");
    let primary = Some(address(0));
    bench.router.handle_primary(bench.now, ETH, primary);
    assert_eq!(kinds(&bench.actions()), ["FAULT -> BACKUP"]);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(3_414_062_500));
    bench.fire();
    assert_eq!(bench.state(), State::Master);
}

#[test]
fn another_interface_in_its_place_is_elected_on_anew() {
    let mut bench = Bench::master(settings(0, 150));
    let sent = bench.status().counters.adverts_sent;
    bench.router.handle_link(bench.now, ETH, LinkState::Missing);
    let actions = bench.actions();
    assert_eq!(kinds(&actions), ["remove", "MASTER -> FAULT"]);
    bench.router.handle_link(bench.now, ETH, LinkState::Up);
    assert_eq!(kinds(&bench.actions()), ["FAULT -> BACKUP"]);
    bench.hear(1, 100);
    bench.fire();
    assert_eq!(bench.state(), State::Master);
    let counters = &bench.status().counters;
    assert_eq!((counters.became_master, counters.released_master), (2, 1));
    assert!(counters.adverts_sent > sent, "the counters go on");
}

#[test]
fn a_renamed_interface_carries_the_goodbye_and_is_none_any_more() {
    let mut bench = Bench::master(settings(0, 150));
    bench.router.handle_link(bench.now, ETH, LinkState::Renamed);
    let actions = bench.actions();
    assert_eq!(kinds(&actions), ["advert", "remove", "MASTER -> FAULT"]);
    assert_eq!(sent_priorities(&actions), [0]);
    let fault = bench.status().fault.unwrap();
    assert_eq!(fault.to_string(), "eth0 does not exist");
}

#[test]
fn the_link_of_a_virtual_address_is_tracked_with_a_goodbye() {
    for state in [LinkState::Down, LinkState::Missing] {
        let mut bench = Bench::master(with_back(150));
        bench.router.handle_link(bench.now, BACK, state);
        let actions = bench.actions();
        assert_eq!(kinds(&actions), ["advert", "remove", "MASTER -> FAULT"]);
        assert_eq!(sent_priorities(&actions), [0]);
        let line = match state {
            LinkState::Down => "(VI_1) Entering FAULT STATE (bk0 is down)",
            _ => "(VI_1) Entering FAULT STATE (bk0 does not exist)",
        };
        assert!(lines(&actions).contains(&line.to_owned()), "{actions:?}");
        bench.router.handle_link(bench.now, BACK, LinkState::Up);
        assert_eq!(kinds(&bench.actions()), ["FAULT -> BACKUP"]);
    }
}

#[test]
fn the_state_of_a_link_is_known_to_instances_that_come_to_need_it() {
    let mut bench = Bench::master(settings(0, 150));
    bench.router.handle_link(bench.now, BACK, LinkState::Down);
    assert_eq!(bench.state(), State::Master, "not needed yet");
    bench.actions();
    let needs = with_back(150);
    bench.router.update(bench.id, needs, bench.now).unwrap();
    assert_eq!(kinds(&bench.actions())[0], "advert");
    assert_eq!(bench.state(), State::Fault);

    let late = Settings {
        vrid: 52,
        ..with_back(150)
    };
    let late = bench.router.add(late, bench.now).unwrap();
    bench.router.start(late, bench.now);
    assert_eq!(bench.router.status(late).unwrap().state, State::Fault);
}

#[test]
fn a_missing_interface_is_a_fault_also_where_links_are_not_tracked() {
    let mut bench = Bench::master(Settings {
        track_link: false,
        ..settings(0, 150)
    });
    bench.router.handle_link(bench.now, ETH, LinkState::Down);
    assert_eq!(bench.state(), State::Master);
    bench.router.handle_link(bench.now, ETH, LinkState::Missing);
    assert_eq!(bench.state(), State::Fault);
}

#[test]
fn an_obstacle_keeps_out_until_it_is_gone() {
    let mut bench = Bench::master(settings(0, 150));
    let obstacle = || Some("VRID 51 is in use".to_owned());
    bench.router.set_obstacle(bench.id, bench.now, obstacle());
    bench.router.set_obstacle(bench.id, bench.now, obstacle());
    let actions = bench.actions();
    assert_eq!(kinds(&actions), ["advert", "remove", "MASTER -> FAULT"]);
    let fault = bench.status().fault.unwrap();
    assert_eq!(fault.to_string(), "VRID 51 is in use");
    bench.router.set_obstacle(bench.id, bench.now, None);
    assert_eq!(kinds(&bench.actions()), ["FAULT -> BACKUP"]);
}

/// Two boxes, each with the virtual addresses on two links; one loses a link that carries no adverts.
#[test]
fn a_box_that_lost_a_link_hands_over_within_the_skew_and_takes_back() {
    let boxes = [(0, 150), (1, 100)].map(|(node, priority)| Settings {
        further_interfaces: vec![(BACK, "bk0".to_owned())],
        ..settings(node, priority)
    });
    let mut lan = Lan::new(1, boxes.to_vec());
    lan.run(secs(10));
    assert_eq!(lan.masters(0), [0]);
    lan.with(0, |router, _, now| {
        router.handle_link(now, BACK, LinkState::Down);
    });
    assert_eq!(lan.masters(0), [] as [usize; 0]);
    // (256 - 100) / 256 s.
    lan.run(millis(610));
    assert_eq!(lan.masters(0), [1]);
    lan.with(0, |router, _, now| {
        router.handle_link(now, BACK, LinkState::Up);
    });
    lan.run(secs(5));
    assert_eq!(lan.masters(0), [0]);
}
