//! Requests to the kernel, and its notifications.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    time::Duration,
};

use xvs::{
    addr::IpPrefix,
    sys::{
        clock, interface_conf,
        monitor::{Event, Monitor},
        netlink::{
            Added, AddressOptions, Neighbour, NeighbourState, Netlink, Removed, RouteKind, Scope,
        },
    },
};

use crate::common::{
    Namespace, PATIENCE, Pair, Player, drain, expect_event, mac, prefix, readable, wait_until,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn addresses_come_and_go_once() {
    let pair = Pair::new();
    let mut netlink = pair.a.netlink();
    let va = pair.a.link("va").index;
    let vip = prefix("10.9.0.148/32");
    let options = AddressOptions::default();
    assert_eq!(
        netlink.add_address(va, vip, &options).unwrap(),
        Added::Added
    );
    assert_eq!(
        netlink.add_address(va, vip, &options).unwrap(),
        Added::AlreadyThere
    );
    let there = |netlink: &mut Netlink| {
        let all = netlink.addresses(va).unwrap();
        all.iter().filter(|address| address.prefix == vip).count()
    };
    assert_eq!(there(&mut netlink), 1);
    assert_eq!(netlink.del_address(va, vip).unwrap(), Removed::Removed);
    assert_eq!(netlink.del_address(va, vip).unwrap(), Removed::NotThere);
    assert_eq!(there(&mut netlink), 0);

    pair.a.ip("link del va");
    assert_eq!(netlink.del_address(va, vip).unwrap(), Removed::NotThere);
    let error = netlink.add_address(va, vip, &options).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENODEV));
    let text = error.to_string();
    assert!(
        text.starts_with(&format!(
            "adding 10.9.0.148/32 to interface {va}: No such device"
        )),
        "{text}"
    );
}

pub(crate) fn an_ipv6_address_is_made_as_keepalived_makes_it() {
    let pair = Pair::new();
    let mut netlink = pair.a.netlink();
    let va = pair.a.link("va").index;
    let options = AddressOptions {
        no_prefix_route: true,
        ..AddressOptions::default()
    };
    for address in ["2001:db8::51/64", "2001:db8::52/128"] {
        let added = netlink.add_address(va, prefix(address), &options);
        assert_eq!(added.unwrap(), Added::Added);
    }
    let output = std::process::Command::new("ip")
        .args(["-n", &pair.a.name, "-6", "address", "show", "dev", "va"])
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    let after = |address: &str| {
        let at = lines.iter().position(|line| line.contains(address));
        let at = at.unwrap_or_else(|| panic!("no {address}: {shown}"));
        (lines[at], lines[at + 1])
    };
    // What keepalived 2.2.7 left there, but for the option.
    assert_eq!(
        after("2001:db8::51"),
        (
            "inet6 2001:db8::51/64 scope global nodad noprefixroute",
            "valid_lft forever preferred_lft forever"
        )
    );
    assert_eq!(
        after("2001:db8::52"),
        (
            "inet6 2001:db8::52/128 scope global nodad deprecated noprefixroute",
            "valid_lft forever preferred_lft 0sec"
        )
    );
}

pub(crate) fn an_address_is_made_as_the_configuration_says() {
    let pair = Pair::new();
    let mut netlink = pair.a.netlink();
    let va = pair.a.link("va").index;
    let options = AddressOptions {
        label: Some("va:vip".to_owned()),
        scope: Scope::Link,
        broadcast: Some(Ipv4Addr::new(10, 50, 0, 255)),
        peer: None,
        no_prefix_route: true,
    };
    netlink
        .add_address(va, prefix("10.50.0.1/24"), &options)
        .unwrap();
    // iproute2 is the oracle: it reads what the kernel has, not what was asked.
    let output = std::process::Command::new("ip")
        .args(["-n", &pair.a.name, "address", "show", "label", "va:vip"])
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("inet 10.50.0.1/24 brd 10.50.0.255 scope link noprefixroute va:vip"),
        "{shown}"
    );
    assert_eq!(netlink.route_to(ip("10.50.0.9")).unwrap(), None);

    let peer = AddressOptions {
        peer: Some(ip("10.60.0.2")),
        ..AddressOptions::default()
    };
    netlink
        .add_address(va, prefix("10.60.0.1/32"), &peer)
        .unwrap();
    let all = netlink.addresses(va).unwrap();
    let with_peer = all.iter().find(|a| a.peer.is_some()).unwrap();
    assert_eq!(with_peer.prefix, prefix("10.60.0.1/32"));
    assert_eq!(with_peer.peer, Some(ip("10.60.0.2")));
    let labelled = all.iter().find(|a| a.scope == Scope::Link).unwrap();
    assert_eq!(labelled.label.as_deref(), Some("va:vip"));

    // The next milestone's addresses go the same way.
    let v6 = prefix("2001:db8::148/128");
    let added = netlink.add_address(va, v6, &AddressOptions::default());
    assert_eq!(added.unwrap(), Added::Added);
    assert_eq!(netlink.del_address(va, v6).unwrap(), Removed::Removed);
}

pub(crate) fn without_privilege_the_error_says_what_is_missing() {
    let namespace = Namespace::new();
    let mut player = Player::start_as_nobody(&namespace, "powerless", "");
    assert_eq!(
        player.line(),
        "adding 10.0.0.148/32 to lo: Operation not permitted (needs CAP_NET_ADMIN)"
    );
    assert_eq!(
        player.line(),
        "CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_BPF"
    );
    assert!(player.ends_well());
    assert_eq!(xvs::sys::limits::capabilities_missing().unwrap(), [""; 0]);
}

pub(crate) fn play_powerless(_word: &str) {
    let mut netlink = Netlink::open().unwrap();
    let lo = netlink.link_by_name("lo").unwrap().unwrap().index;
    let vip = prefix("10.0.0.148/32");
    let error = netlink
        .add_address(lo, vip, &AddressOptions::default())
        .unwrap_err();
    println!("{error}");
    let missing = xvs::sys::limits::capabilities_missing().unwrap();
    println!("{}", missing.join(" "));
}

pub(crate) fn the_hosts_own_address_is_not_a_vip() {
    let pair = Pair::new();
    pair.a.ip("address flush dev va");
    let mut netlink = pair.a.netlink();
    let va = pair.a.link("va").index;
    let vip = Ipv4Addr::new(10, 9, 0, 148);
    assert_eq!(netlink.primary_v4(va, &[vip]).unwrap(), None);
    // A crash left the VIP behind, and it is the first address.
    pair.a.ip("address add 10.9.0.148/32 dev va");
    pair.a.ip("address add 10.9.0.1/24 dev va");
    pair.a.ip("address add 10.9.0.3/24 dev va");
    let own = netlink.primary_v4(va, &[vip]).unwrap();
    assert_eq!(own, Some(Ipv4Addr::new(10, 9, 0, 1)));
}

pub(crate) fn secondaries_stay_when_they_are_promoted() {
    let pair = Pair::new();
    let mut netlink = pair.a.netlink();
    let va = pair.a.link("va").index;
    let second = prefix("10.9.0.7/24");
    for promote in [false, true] {
        pair.a
            .enter(|| interface_conf::set_promote_secondaries("va", promote).unwrap());
        let was = pair
            .a
            .enter(|| interface_conf::set_promote_secondaries("va", promote).unwrap());
        assert_eq!(was, promote);
        pair.a.ip("address flush dev va");
        pair.a.ip("address add 10.9.0.1/24 dev va");
        pair.a.ip("address add 10.9.0.7/24 dev va");
        let secondary = netlink.addresses(va).unwrap();
        assert!(secondary.iter().any(|a| a.prefix == second && a.secondary));
        netlink.del_address(va, prefix("10.9.0.1/24")).unwrap();
        let left = netlink.addresses(va).unwrap();
        assert_eq!(left.iter().any(|a| a.prefix == second), promote);
    }
}

pub(crate) fn routes_are_followed_as_the_kernel_would() {
    let pair = Pair::new();
    let mut netlink = pair.a.netlink();
    let va = pair.a.link("va").index;
    pair.a.ip("route add 192.0.2.0/24 via 10.9.0.2");
    let onlink = netlink.route_to(ip("10.9.0.2")).unwrap().unwrap();
    assert_eq!((onlink.kind, onlink.ifindex), (RouteKind::Unicast, va));
    assert_eq!(onlink.gateway, None);
    assert_eq!(onlink.preferred_source, Some(ip("10.9.0.1")));
    let far = netlink.route_to(ip("192.0.2.80")).unwrap().unwrap();
    assert_eq!((far.kind, far.ifindex), (RouteKind::Unicast, va));
    assert_eq!(far.gateway, Some(ip("10.9.0.2")));
    let own = netlink.route_to(ip("10.9.0.1")).unwrap().unwrap();
    assert_eq!(own.kind, RouteKind::Local);
    let all = netlink.route_to(ip("255.255.255.255"));
    assert!(
        all.unwrap()
            .is_none_or(|route| route.kind == RouteKind::Other)
    );

    assert_eq!(netlink.route_to(ip("203.0.113.1")).unwrap(), None);
    for kind in ["blackhole", "unreachable", "prohibit"] {
        pair.a.ip(&format!("route replace {kind} 203.0.113.0/24"));
        assert_eq!(netlink.route_to(ip("203.0.113.1")).unwrap(), None, "{kind}");
    }
    // An IPv4 network behind an IPv6 router.
    pair.a
        .ip("route add 198.51.100.0/24 via inet6 fe80::2 dev va");
    let mixed = netlink.route_to(ip("198.51.100.1")).unwrap().unwrap();
    assert_eq!(mixed.gateway, Some(ip("fe80::2")));
}

/// The next news of `wanted` that `accept` takes.
fn neighbour_news(
    monitor: &mut Monitor,
    wanted: IpAddr,
    what: &str,
    accept: impl Fn(&Neighbour) -> bool,
) -> Neighbour {
    expect_event(monitor, what, |event| match event {
        Event::Neighbour(neighbour) if neighbour.ip == wanted && accept(neighbour) => {
            Some(*neighbour)
        }
        _ => None,
    })
}

pub(crate) fn a_neighbour_is_resolved_on_request() {
    let pair = Pair::new();
    let mut netlink = pair.a.netlink();
    let mut monitor = pair.a.monitor();
    let va = pair.a.link("va").index;
    let vb = pair.b.link("vb");
    let peer = ip("10.9.0.2");
    assert_eq!(netlink.neighbour(va, peer).unwrap(), None);
    assert_eq!(netlink.probe_neighbour(va, peer).unwrap(), None);
    let news = neighbour_news(&mut monitor, peer, "resolved", |n| n.usable_mac().is_some());
    assert_eq!(news.mac, vb.mac);
    assert_eq!(news.ifindex, va);
    let asked = netlink.neighbour(va, peer).unwrap().unwrap();
    assert_eq!(asked.mac, vb.mac);
    assert!(netlink.neighbours().unwrap().contains(&asked));

    // Nobody there: the kernel asks three times in three seconds and gives up.
    let nobody = ip("10.9.0.77");
    netlink.probe_neighbour(va, nobody).unwrap();
    neighbour_news(&mut monitor, nobody, "failed", |n| {
        n.state == NeighbourState::Failed && n.usable_mac().is_none()
    });
    // It appears, and the next request finds it.
    pair.b.ip("address add 10.9.0.77/24 dev vb");
    netlink.probe_neighbour(va, nobody).unwrap();
    neighbour_news(&mut monitor, nobody, "found", |n| n.usable_mac() == vb.mac);
}

pub(crate) fn a_probe_checks_again_and_leaves_permanent_entries_alone() {
    let pair = Pair::new();
    let mut netlink = pair.a.netlink();
    let mut monitor = pair.a.monitor();
    let va = pair.a.link("va").index;
    let vb = pair.b.link("vb");
    let peer = ip("10.9.0.2");
    let right = vb.mac.unwrap();
    pair.a.ip(&format!(
        "neigh replace 10.9.0.2 dev va lladdr {right} nud stale"
    ));
    drain(&mut monitor);
    let before = netlink.probe_neighbour(va, peer).unwrap().unwrap();
    assert_eq!(before.state, NeighbourState::Stale);
    let checked = neighbour_news(&mut monitor, peer, "checked", |n| {
        n.state == NeighbourState::Reachable
    });
    assert_eq!(checked.mac, Some(right));

    let wrong = mac(0x66);
    pair.a.ip(&format!(
        "neigh replace 10.9.0.2 dev va lladdr {wrong} nud permanent"
    ));
    let known = netlink.probe_neighbour(va, peer).unwrap().unwrap();
    assert_eq!(known.state, NeighbourState::Permanent);
    assert_eq!(netlink.neighbour(va, peer).unwrap(), Some(known));
    assert_eq!(known.usable_mac(), Some(wrong));
}

pub(crate) fn link_changes_are_heard() {
    let pair = Pair::new();
    let mut monitor = pair.a.monitor();
    let va = pair.a.link("va");
    assert!(va.up && va.running && va.multicast && !va.loopback);
    assert_eq!(va.kind.as_deref(), Some("veth"));

    pair.a.ip(&format!("link set va address {}", mac(9)));
    expect_event(&mut monitor, "another MAC", |event| match event {
        Event::Link(link) if link.mac == Some(mac(9)) => {
            assert_eq!(link.name, "va");
            Some(())
        }
        _ => None,
    });
    pair.a.ip("link set va mtu 1400");
    expect_event(&mut monitor, "another MTU", |event| match event {
        Event::Link(link) if link.mtu == 1400 => Some(()),
        _ => None,
    });
    // The other end goes down: no carrier, though nobody touched this one.
    pair.b.ip("link set vb down");
    expect_event(&mut monitor, "no carrier", |event| match event {
        Event::Link(link) if link.index == va.index && !link.running => {
            assert!(link.up);
            Some(())
        }
        _ => None,
    });
    pair.b.ip("link set vb up");
    expect_event(&mut monitor, "carrier", |event| match event {
        Event::Link(link) if link.index == va.index && link.is_usable() => Some(()),
        _ => None,
    });
    pair.a.ip("link set va down");
    expect_event(&mut monitor, "switched off", |event| match event {
        Event::Link(link) if link.index == va.index && !link.up => Some(()),
        _ => None,
    });
    pair.a.ip("link del va");
    expect_event(&mut monitor, "gone", |event| match event {
        Event::LinkRemoved(link) if link.index == va.index => {
            assert_eq!(link.name, "va");
            Some(())
        }
        _ => None,
    });
    assert_eq!(pair.a.netlink().link(va.index).unwrap(), None);
}

pub(crate) fn a_port_that_leaves_its_bridge_is_still_there() {
    let pair = Pair::new();
    let va = pair.a.link("va").index;
    pair.a.ip("link add br0 type bridge");
    pair.a.ip("link set va master br0");
    let bridge = pair.a.link("br0").index;
    assert_eq!(pair.a.link("va").master, Some(bridge));
    let mut monitor = pair.a.monitor();
    pair.a.ip("link set va nomaster");
    let mut removed = 0;
    expect_event(&mut monitor, "no master", |event| match event {
        Event::Link(link) if link.index == va && link.master.is_none() => Some(()),
        Event::LinkRemoved(_) => {
            removed += 1;
            None
        }
        _ => None,
    });
    pair.a.ip("link set va mtu 1300");
    expect_event(&mut monitor, "later news", |event| match event {
        Event::Link(link) if link.mtu == 1300 => Some(()),
        Event::LinkRemoved(_) => {
            removed += 1;
            None
        }
        _ => None,
    });
    assert_eq!(removed, 0);
}

pub(crate) fn address_and_route_changes_are_heard() {
    let pair = Pair::new();
    let mut monitor = pair.a.monitor();
    let va = pair.a.link("va").index;
    let vip = prefix("10.9.0.148/32");
    pair.a.ip("address add 10.9.0.148/32 dev va");
    pair.a.ip("address del 10.9.0.148/32 dev va");
    let mut added = false;
    expect_event(&mut monitor, "added, then removed", |event| match event {
        Event::Address(address) if address.prefix == vip => {
            assert_eq!(address.ifindex, va);
            added = true;
            None
        }
        Event::AddressRemoved(address) if address.prefix == vip => Some(()),
        // The local route that comes with a VIP is no reason to look for next hops again.
        Event::RouteChanged => panic!("a VIP changed the routes"),
        _ => None,
    });
    assert!(added);
    for change in [
        "route add 192.0.2.0/24 via 10.9.0.2",
        "route del 192.0.2.0/24 via 10.9.0.2",
    ] {
        pair.a.ip(change);
        expect_event(&mut monitor, change, |event| match event {
            Event::RouteChanged => Some(()),
            _ => None,
        });
    }
}

/// Adds addresses 10.77.x.y/32 and removes all but every hundredth of them.
fn storm(netlink: &mut Netlink, ifindex: u32, number: u16) {
    let address = |n: u16| {
        let [high, low] = n.to_be_bytes();
        IpPrefix::host(IpAddr::from([10, 77, high, low]))
    };
    let options = AddressOptions::default();
    for n in 0..number {
        netlink.add_address(ifindex, address(n), &options).unwrap();
    }
    for n in (0..number).filter(|n| n % 100 != 0) {
        netlink.del_address(ifindex, address(n)).unwrap();
    }
}

fn in_kernel(netlink: &mut Netlink, ifindex: u32) -> BTreeSet<IpPrefix> {
    let all = netlink.addresses(ifindex).unwrap();
    all.iter()
        .filter(|address| address.prefix.addr().is_ipv4())
        .map(|address| address.prefix)
        .collect()
}

pub(crate) fn a_storm_that_nobody_reads_is_one_overflow() {
    let namespace = Namespace::new();
    let mut netlink = namespace.netlink();
    let lo = namespace.link("lo").index;
    let mut monitor = namespace.enter(|| Monitor::with_buffer(64 << 10).unwrap());
    storm(&mut netlink, lo, 1000);
    // What was queued before the loss is old news: nothing but the loss is told.
    assert_eq!(drain(&mut monitor), [Event::Overflow]);
    let known = in_kernel(&mut netlink, lo);
    assert_eq!(known.len(), 11);
    namespace.ip("address add 10.88.0.1/32 dev lo");
    let wanted = prefix("10.88.0.1/32");
    let news = drain(&mut monitor);
    assert!(
        matches!(&news[..], [Event::Address(address)] if address.prefix == wanted),
        "{news:?}"
    );
}

pub(crate) fn a_view_that_follows_a_storm_is_right_in_the_end() {
    // A buffer that must overflow, and the one that the daemon has.
    for buffer in [Some(64 << 10), None] {
        let namespace = Namespace::new();
        let lo = namespace.link("lo").index;
        let mut monitor = namespace.enter(|| {
            buffer
                .map_or_else(Monitor::open, Monitor::with_buffer)
                .unwrap()
        });
        let mut netlink = namespace.netlink();
        let mut other = namespace.netlink();
        let mut view = in_kernel(&mut netlink, lo);
        let mut overflows = 0;
        let mut events = 0_u32;
        std::thread::scope(|scope| {
            let storm = scope.spawn(|| storm(&mut other, lo, 5050));
            loop {
                // In this order: what it did before it ended is in the queue.
                let over = storm.is_finished();
                if !readable(monitor.as_raw_fd(), clock::now() + Duration::from_millis(5)) && over {
                    break;
                }
                while let Some(event) = monitor.poll_event().unwrap() {
                    events += 1;
                    follow(&event, &mut view, &mut netlink, lo);
                    overflows += u32::from(event == Event::Overflow);
                    // A reader that is slower than the storm, as with a busy control thread.
                    if buffer.is_some() && events.is_multiple_of(50) {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            }
        });
        let started = clock::now();
        assert_eq!(view, in_kernel(&mut netlink, lo));
        assert_eq!(view.len(), 52, "127.0.0.1 and every hundredth");
        assert!(clock::now() - started < PATIENCE);
        println!("  buffer {buffer:?}: {events} events, {overflows} overflows");
        assert!(
            buffer.is_none() || overflows > 0,
            "the test did not overflow"
        );
    }
}

fn follow(event: &Event, view: &mut BTreeSet<IpPrefix>, netlink: &mut Netlink, ifindex: u32) {
    match event {
        Event::Address(address) if address.prefix.addr().is_ipv4() => {
            view.insert(address.prefix);
        }
        Event::AddressRemoved(address) => {
            view.remove(&address.prefix);
        }
        Event::Overflow => wait_until("a list that is whole", || {
            match netlink.addresses(ifindex) {
                Ok(all) => {
                    *view = all
                        .iter()
                        .map(|a| a.prefix)
                        .filter(|p| p.addr().is_ipv4())
                        .collect();
                    true
                }
                Err(_) => false,
            }
        }),
        _ => {}
    }
}
