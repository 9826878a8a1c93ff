//! Virtual servers from their configuration to the workers' table, and through changes.

use super::*;
use crate::{
    control::next_hops::tests::{FakeKernel, route},
    stats::AllStats,
    sys::netlink::RouteKind,
    time::Instant,
};

fn ports() -> Ports {
    let ports: Vec<PortInfo> = [7, 1]
        .map(|n: u8| PortInfo {
            name: format!("eth{n}"),
            ifindex: n.into(),
            mac: MacAddr([2, 0, 0, 0, 0, n]),
            mtu: 1500,
            ..PortInfo::default()
        })
        .into();
    ports.into()
}

/// Virtual servers as they are at start: checks have not begun, next hops are looked up.
fn set_up(text: &str, kernel: &mut FakeKernel) -> (Services, Health, NextHops) {
    let parsed = config::parse("f", text.as_bytes());
    assert!(!parsed.has_errors(), "{}", parsed.report());
    let now = Instant::ZERO;
    let mut services = Services::new();
    let mut hops = NextHops::new();
    let mut health = Health::new(1);
    apply(&mut services, &mut health, &mut hops, (&Config::default(), &parsed.config));
    while hops.poll_timeout().is_some_and(|due| due <= now) {
        hops.handle_timeout(now, kernel);
    }
    (services, health, hops)
}

/// What control does with a configuration.
fn apply(
    services: &mut Services,
    health: &mut Health,
    hops: &mut NextHops,
    (old, new): (&Config, &Config),
) -> Applied {
    let diff = config::diff(old, new);
    services.check(&diff, new).unwrap();
    let applied = services.apply(Instant::ZERO, &diff, new, hops);
    for id in &applied.changed {
        health.set(Instant::ZERO, &services.check_settings(*id).unwrap());
    }
    for id in &applied.removed {
        health.remove(*id);
    }
    applied
}

/// One real server of each kind: fine, silent, this host, without a route, behind an interface
/// that was not opened, silent behind such a one.
fn one_of_each() -> (Services, Health, NextHops) {
    let addr = |n: u8| IpAddr::from([10, 0, 0, n]);
    let mut kernel = FakeKernel::default();
    kernel.silent.extend([addr(12), addr(16)]);
    kernel.routes.extend([
        (addr(13), Some(route(RouteKind::Local, 9))),
        (addr(14), None),
        (addr(15), Some(route(RouteKind::Unicast, 2))),
        (addr(16), Some(route(RouteKind::Unicast, 2))),
    ]);
    let reals: String = (11..17)
        .map(|n| format!("real_server 10.0.0.{n} 80 {{\nweight 3\n}}\n"))
        .collect();
    let text = format!(
        "virtual_server 10.0.0.9 80 {{\nlb_algo wrr\nlb_kind DR\nprotocol TCP\n{reals}}}\n"
    );
    set_up(&text, &mut kernel)
}

#[test]
fn only_real_servers_that_packets_can_reach_soon_are_scheduled() {
    let (services, health, hops) = one_of_each();
    let spec = services.spec(ServiceId(0), &health, &hops, &ports()).unwrap();
    let reals = &spec.reals;
    let available: Vec<bool> = reals.iter().map(|real| real.available).collect();
    assert_eq!(available, [true, true, false, false, false, false]);
    let next_hops: Vec<_> = reals
        .iter()
        .map(|real| way(real.endpoint.addr, &hops, &ports()).ok())
        .collect();
    let way = NextHop {
        port: PortId(1),
        source: MacAddr([2, 0, 0, 0, 0, 1]),
        destination: MacAddr([2, 0, 10, 0, 0, 11]),
        mtu: 1500,
    };
    assert_eq!(next_hops, [Some(way), None, None, None, None, None]);
    assert!(reals.iter().all(|real| real.weight == 3), "that is config");
}

#[test]
fn the_status_says_why_a_real_server_takes_no_connections() {
    let (services, health, hops) = one_of_each();
    let status = services.status(&health, &hops, &ports(), AllStats(&[]));
    let shown: Vec<_> = status[0]
        .reals
        .iter()
        .map(|real| (real.in_pool, real.reason.as_deref().unwrap_or_default()))
        .collect();
    let not_opened = "is behind an interface that was not opened at start: it takes no \
                      connections until xvs is restarted";
    assert_eq!(
        shown,
        [
            (true, ""),
            (true, "has no known MAC address: packets to it are dropped"),
            (
                false,
                "is this host itself, which cannot be reached from here: it takes no connections"
            ),
            (false, "has no route to it: it takes no connections"),
            (false, not_opened),
            (false, not_opened),
        ]
    );
    assert!(status[0].reals.iter().all(|real| real.up));
}

#[test]
fn the_status_has_all_that_a_virtual_server_takes_and_how() {
    let text = "virtual_server_group G {\n10.0.0.9 80\n10.0.0.10-20 443\n10.1.0.0/16 8080\nfwmark 3\n}\n\
        virtual_server group G {\nlb_algo mh\nmh-port\nmh-fallback\nlb_kind TUN type gue port 6080\n\
        protocol UDP\nops\npersistence_timeout 60\npersistence_granularity 255.255.255.0\n\
        real_server 10.0.0.11 80 {\nlvs_method NAT\n}\nreal_server 10.0.0.12 80 {\n}\n}\n";
    let (services, health, hops) = set_up(text, &mut FakeKernel::default());
    let status = services.status(&health, &hops, &ports(), AllStats(&[]));
    let json = serde_json::to_value(&status[0]).unwrap();
    assert_eq!(
        json["matches"],
        serde_json::json!([
            {"kind": "address", "protocol": "UDP", "address": "10.0.0.9", "port": 80},
            {"kind": "range", "protocol": "UDP", "first": "10.0.0.10", "last": "10.0.0.20", "port": 443},
            {"kind": "prefix", "protocol": "UDP", "address": "10.1.0.0", "length": 16, "port": 8080},
            {"kind": "mark", "mark": 3, "ipv6": false},
        ])
    );
    let first = (&status[0].protocol[..], status[0].address, status[0].port);
    assert_eq!(first, ("UDP", IpAddr::from([10, 0, 0, 9]), 80));
    assert_eq!(json["group"], "G");
    assert_eq!(json["flags"], serde_json::json!(["mh-fallback", "mh-port"]));
    assert_eq!(json["one_packet"], true);
    assert_eq!(json["persistence_granularity"], 24);
    let reals = status[0].reals.iter();
    let methods: Vec<_> = reals
        .map(|real| (&real.forward[..], real.tunnel.as_deref()))
        .collect();
    assert_eq!(methods, [("Masq", None), ("Tunnel", Some("gue:6080:-c"))]);
}

#[test]
fn a_virtual_server_counts_what_its_real_servers_do() {
    let (mut services, health, hops) = one_of_each();
    let workers = [(), ()].map(|()| Arc::new(crate::stats::WorkerStats::new()));
    for (worker, n) in workers.iter().zip(1..) {
        for slot in 0..6 {
            let real = worker.real(slot);
            real.claim(1);
            real.connections.add(n);
            real.packets.add(100 * n);
            real.bytes_out.add(10_000 * u64::from(slot));
        }
    }
    assert_eq!(services.real_count(), 6);
    services.estimate(0..4, AllStats(&workers));
    services.estimate(4..6, AllStats(&workers));
    let status = services.status(&health, &hops, &ports(), AllStats(&workers));
    let real = &status[0].reals[3];
    assert_eq!(
        (real.connections, real.packets_in, real.bytes_out),
        (3, 300, 60_000)
    );
    // A quarter of what came in two seconds, by a second.
    assert_eq!((real.rates.packets_in, real.rates.bytes_out), (37, 7500));
    let all = (status[0].totals, status[0].rates);
    assert_eq!(
        (all.0.connections, all.0.packets_in, all.0.bytes_out),
        (18, 1800, 300_000)
    );
    assert_eq!(
        (all.1.connections, all.1.packets_in, all.1.bytes_out),
        (2, 225, 37_500)
    );
}

#[test]
fn the_log_hears_of_the_same_problems() {
    let (_, _, hops) = one_of_each();
    let ports = ports();
    let problems = hops.problems(|ifindex| ports.with(ifindex).is_some());
    let mut problems: Vec<_> = problems.collect();
    problems.sort_by_key(|(address, _)| *address);
    let addr = |n: u8| IpAddr::from([10, 0, 0, n]);
    assert_eq!(
        problems,
        [
            (addr(12), Problem::Unresolved),
            (addr(13), Problem::Local),
            (addr(14), Problem::NoRoute),
            (addr(15), Problem::NotOpened),
            (addr(16), Problem::NotOpened),
        ]
    );
}
