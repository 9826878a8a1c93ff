//! Virtual servers from their configuration to the workers' table, and through changes.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    addr::{MacAddr, PortId},
    check::Action,
    control::{
        forwarding::next_hops::tests::{FakeKernel, route},
        forwarding::ports::PortInfo,
    },
    stats::{AllStats, WorkerStats},
    sys::netlink::RouteKind,
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
    apply(
        &mut services,
        &mut health,
        &mut hops,
        (&Config::default(), &parsed.config),
    );
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
    let spec = services
        .spec(ServiceId(0), &health, &hops, &ports())
        .unwrap();
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
fn a_real_server_on_this_host_gets_its_packets_as_they_are_by_a_port_of_its_own() {
    let own = IpAddr::from([10, 0, 0, 13]);
    let mut kernel = FakeKernel::default();
    (kernel.routes).insert(own, Some(route(RouteKind::Local, 9)));
    let text = "virtual_server 10.0.0.9 80 {\nlb_kind NAT\nprotocol TCP\nreal_server 10.0.0.12 8080 {\n}\n\
                real_server 10.0.0.13 8080 {\n}\n}\n";
    let (services, health, mut hops) = set_up(text, &mut kernel);
    let spec = |hops: &NextHops| {
        let spec = services.spec(ServiceId(0), &health, hops, &ports());
        let reals = spec.unwrap().reals.into_iter();
        reals
            .map(|real| (real.method, real.available))
            .collect::<Vec<_>>()
    };
    let not_opened = |hops: &NextHops| hops.problems(|ifindex| ifindex != 1).collect::<Vec<_>>();
    assert!(hops.has_local());
    assert_eq!(spec(&hops), [(LbKind::Nat, true), (LbKind::Dr, false)]);
    hops.take_changed();

    let destination = MacAddr([2, 0, 0, 0, 0, 99]);
    assert!(hops.set_local(Some((1, destination))), "it is news");
    assert!(!hops.set_local(Some((1, destination))));
    let changed = hops.take_changed();
    assert_eq!(
        changed.iter().map(|(addr, _)| *addr).collect::<Vec<_>>(),
        [own]
    );
    let way = way(own, &hops, &ports()).unwrap();
    assert_eq!((way.port, way.destination), (PortId(1), destination));
    assert_eq!(spec(&hops), [(LbKind::Nat, true), (LbKind::Dr, true)]);
    assert_eq!(hops.problems(|_| true).count(), 0);
    assert!(not_opened(&hops).contains(&(own, Problem::NotOpened)));
    // The port has opened, or another MTU.
    hops.handle_interface(1);
    assert!(hops.take_changed().iter().any(|(addr, _)| *addr == own));

    hops.set_local(None);
    assert_eq!(hops.hop(own), Err(Problem::Local));
    hops.untrack(own);
    assert!(!hops.has_local());
}

#[test]
fn the_status_says_why_a_real_server_takes_no_connections() {
    let (services, health, hops) = one_of_each();
    let status = services.status(&health, &hops, &ports(), AllStats::new(&[], None));
    let shown: Vec<_> = status[0]
        .reals
        .iter()
        .map(|real| (real.in_pool, real.reason.as_deref().unwrap_or_default()))
        .collect();
    let not_opened = "is behind an interface that is not open: it takes no connections";
    assert_eq!(
        shown,
        [
            (true, ""),
            (true, "has no known MAC address: packets to it are dropped"),
            (
                false,
                "is this host itself, to which there is no way: it takes no connections"
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
    let status = services.status(&health, &hops, &ports(), AllStats::new(&[], None));
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
    let workers = [(), ()].map(|()| Arc::new(WorkerStats::new()));
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
    services.estimate(0..4, AllStats::new(&workers, None));
    services.estimate(4..6, AllStats::new(&workers, None));
    let status = services.status(&health, &hops, &ports(), AllStats::new(&workers, None));
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

fn parse(text: &str) -> Config {
    let parsed = config::parse("f", text.as_bytes());
    assert!(!parsed.has_errors(), "{}", parsed.report());
    parsed.config
}

/// Everything that control has of a configuration.
struct State {
    config: Config,
    services: Services,
    health: Health,
    hops: NextHops,
}

impl State {
    fn start(text: &str) -> Self {
        let mut state = Self {
            config: Config::default(),
            services: Services::new(),
            health: Health::new(1),
            hops: NextHops::new(),
        };
        state.reload(text);
        state
    }

    fn reload(&mut self, text: &str) -> Applied {
        let new = parse(text);
        let Self {
            config,
            services,
            health,
            hops,
        } = self;
        let applied = apply(services, health, hops, (config, &new));
        services.forget(&applied.removed, hops);
        *config = new;
        applied
    }

    /// The real servers of the first virtual server: last byte, slot and epoch, weight, in the order of the list.
    fn reals(&self) -> Vec<(u8, RealRef, u32)> {
        let id = self.services.order[0];
        let spec = self.services.spec(id, &self.health, &self.hops, &ports());
        let spec = spec.unwrap();
        let reals = spec.reals.into_iter();
        reals
            .chain(spec.draining)
            .map(|real| {
                let IpAddr::V4(addr) = real.endpoint.addr else {
                    panic!("{real:?}")
                };
                let own = RealRef {
                    id: real.id,
                    epoch: real.epoch,
                };
                (addr.octets()[3], own, real.weight)
            })
            .collect()
    }

    /// All that counts, but for slots and what is history: the order of addition, and the weights before 0.
    fn essence(&mut self) -> impl PartialEq + std::fmt::Debug + use<> {
        self.services
            .drain(AllStats::new(&[], None), &mut self.hops);
        // Every check passes: until then what was down is down, which a start knows nothing of.
        let later = Instant::ZERO + Duration::from_secs(3600);
        self.health.handle_timeout(later);
        while let Some(Action::Probe { checker, .. }) = self.health.poll_action() {
            self.health.handle_result(later, checker, Ok(()));
        }
        let mut steered = self.services.steer(&[]);
        steered.sort_by_key(|what| format!("{what:?}"));
        let mut tracked: Vec<IpAddr> = self.hops.addresses().collect();
        tracked.sort();
        let mut services = Vec::new();
        for id in &self.services.order {
            let spec = self.services.spec(*id, &self.health, &self.hops, &ports());
            let spec = spec.unwrap();
            let mut reals: Vec<_> = spec
                .reals
                .iter()
                .map(|real| {
                    let way = (real.endpoint, real.method, real.limits);
                    (format!("{way:?}"), real.weight, real.available)
                })
                .collect();
            reals.sort();
            let mut checks = self.services.check_settings(*id).unwrap();
            checks.id = ServiceId(0);
            checks.reals.sort_by_key(|real| real.endpoint);
            checks.reals.iter_mut().for_each(|real| real.id = RealId(0));
            services.push((
                format!(
                    "{:?} {:?} {:?}",
                    spec.matches, spec.scheduler, spec.persistence
                ),
                spec.one_packet,
                reals,
                format!("{checks:?}"),
            ));
        }
        let left = (self.services.slots.left(), self.services.real_slots.left());
        (services, format!("{steered:?}"), tracked, left)
    }
}

/// A virtual server with real servers: last byte, and lines.
fn server(vip: u8, lines: &str, reals: &[(u8, &str)]) -> String {
    let reals: String = reals
        .iter()
        .map(|(last, lines)| format!("real_server 10.0.0.{last} 80 {{\n{lines}\n}}\n"))
        .collect();
    format!(
        "virtual_server 10.0.0.{vip} 80 {{\nlb_algo rr\nlb_kind DR\nprotocol TCP\n{lines}\n{reals}}}\n"
    )
}

#[test]
fn what_stays_keeps_its_slot_and_place_and_what_is_new_comes_last() {
    let mut state = State::start(&server(100, "", &[(1, ""), (2, ""), (3, "")]));
    let before = state.reals();
    // Another order is the same configuration.
    let applied = state.reload(&server(100, "", &[(3, ""), (1, ""), (2, "")]));
    assert_eq!(applied, Applied::default());
    assert_eq!(state.reals(), before);
    // One goes, one comes, one has another weight.
    let applied = state.reload(&server(100, "", &[(4, ""), (3, "weight 7"), (1, "")]));
    assert_eq!(applied.changed, BTreeSet::from([ServiceId(0)]));
    let now = state.reals();
    let new = now[2].1;
    assert_eq!(
        now,
        [
            before[0],
            (3, before[2].1, 7),
            (4, new, 1),
            // It drains.
            (2, before[1].1, 0)
        ]
    );
    assert_eq!(new.id, RealId(3));
    // It comes back before it has drained: the same one, but the last in the list, as in IPVS.
    state.reload(&server(
        100,
        "",
        &[(2, ""), (4, ""), (3, "weight 7"), (1, "")],
    ));
    assert_eq!(state.reals()[3], (2, before[1].1, 1));
    // Another virtual server before it does not move it.
    let both = server(99, "", &[(2, "")]) + &server(100, "", &[(2, ""), (4, ""), (3, ""), (1, "")]);
    state.reload(&both);
    let id = state.services.order[1];
    assert_eq!(id, ServiceId(0));
}

#[test]
fn the_last_weight_that_was_not_0_is_kept_until_removal() {
    let weights = |state: &State| {
        let spec = state
            .services
            .spec(ServiceId(0), &state.health, &state.hops, &ports());
        let reals = spec.unwrap().reals.into_iter();
        reals
            .map(|real| (real.weight, real.last_weight))
            .collect::<Vec<_>>()
    };
    let mut state = State::start(&server(100, "", &[(1, "weight 3"), (2, "")]));
    state.reload(&server(100, "", &[(1, "weight 0"), (2, "")]));
    assert_eq!(weights(&state), [(0, 3), (1, 1)]);
    state.reload(&server(100, "", &[(2, "")]));
    state.reload(&server(100, "", &[(1, "weight 0"), (2, "")]));
    assert_eq!(weights(&state), [(1, 1), (0, 0)]);
}

#[test]
fn a_removed_real_server_goes_when_its_last_connection_has_ended() {
    let mut state = State::start(&server(100, "", &[(1, ""), (2, "")]));
    let (_, old, _) = state.reals()[1];
    let workers = [Arc::new(WorkerStats::new())];
    let counters = workers[0].real(old.id.0);
    counters.claim(old.epoch.get());
    counters.inactive.add(1);
    state.reload(&server(100, "", &[(1, "")]));
    let State { services, hops, .. } = &mut state;
    assert!(
        services
            .drain(AllStats::new(&workers, None), hops)
            .is_empty()
    );
    assert!(services.is_draining());
    counters.inactive.sub(1);
    assert_eq!(
        services.drain(AllStats::new(&workers, None), hops),
        [ServiceId(0)]
    );
    assert!(!services.is_draining());
    assert_eq!(state.reals().len(), 1);
    // Its slot is used again, with another epoch.
    state.reload(&server(100, "", &[(1, ""), (3, "")]));
    let (_, new, _) = state.reals()[1];
    assert_eq!(new.id, old.id);
    assert_ne!(new.epoch, old.epoch);
}

#[test]
fn connections_to_a_removed_real_server_are_cut_if_the_file_says_so() {
    let cut = "xvs {\ncut_removed yes\n}\n";
    let mut state = State::start(&(server(100, "", &[(1, ""), (2, "")]) + cut));
    state.reload(&(server(100, "", &[(1, "")]) + cut));
    assert_eq!(state.reals().len(), 1);
}

#[test]
fn a_real_server_that_is_reached_in_another_way_keeps_its_connections_in_the_old_one() {
    let mut state = State::start(&server(100, "", &[(1, ""), (2, "")]));
    let before = state.reals();
    state.reload(&server(100, "", &[(1, "lvs_method NAT"), (2, "")]));
    let now = state.reals();
    assert_eq!(now.len(), 3);
    assert_eq!((now[0], now[2].1, now[2].2), (before[1], before[0].1, 0));
    assert_eq!((now[1].0, now[1].2), (1, 1));
    assert_ne!(now[1].1, before[0].1);
}

/// Files of up to three virtual servers, out of so few words that two have much in common.
fn files() -> impl Strategy<Value = String> {
    let real = (
        1_u8..5,
        prop_oneof![
            Just(""),
            Just("weight 3"),
            Just("weight 0"),
            Just("lvs_method NAT"),
            Just("inhibit_on_failure\nuthreshold 7"),
            Just("TCP_CHECK {\nconnect_timeout 3\n}"),
            Just("TCP_CHECK {\nconnect_port 81\nalpha\n}"),
        ],
    );
    let reals = proptest::collection::btree_map(real.0, real.1, 1..5);
    let lines = prop_oneof![
        Just(""),
        Just("lb_algo wlc"),
        Just("lb_algo sh\nsh-port"),
        Just("persistence_timeout 60"),
        Just("quorum 2\nhysteresis 1"),
        Just("sorry_server 10.0.0.1 80"),
        Just("sorry_server 10.0.0.9 80"),
    ];
    let server = (100_u8..104, lines, reals);
    let servers = proptest::collection::btree_map(server.0, (server.1, server.2), 1..4);
    (servers, any::<bool>()).prop_map(|(servers, turned)| {
        let mut texts: Vec<String> = servers
            .into_iter()
            .map(|(vip, (lines, reals))| {
                let mut reals: Vec<_> = reals.into_iter().collect();
                if turned {
                    reals.reverse();
                }
                super::tests::server(vip, lines, &reals)
            })
            .collect();
        if turned {
            texts.reverse();
        }
        texts.concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever ran before, after a reload it is as if the daemon had been started with the file.
    #[test]
    fn a_reload_ends_where_a_start_does(before in proptest::collection::vec(files(), 1..4), last in files()) {
        let mut reloaded = State::start(&before[0]);
        for text in &before[1..] {
            reloaded.reload(text);
        }
        reloaded.reload(&last);
        let mut started = State::start(&last);
        prop_assert_eq!(reloaded.essence(), started.essence());
    }

    /// There and back is where it was, also for what hangs on slots.
    #[test]
    fn a_reload_of_the_same_file_changes_nothing(text in files()) {
        let mut state = State::start(&text);
        let before = format!("{:?}", state.services);
        prop_assert_eq!(state.reload(&text), Applied::default());
        prop_assert_eq!(format!("{:?}", state.services), before);
    }
}
