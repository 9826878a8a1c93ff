//! What tables have in common, and that a table which came about by changes is the one that the same
//! specifications give at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    addr::MacAddr,
    balance::{Ask, SchedulerState},
    lvs::TunnelKind,
    stats::WorkerStats,
    time::Tick,
};

const PORTS: [u16; 3] = [0, 80, 81];

/// No connections.
static NOTHING: LazyLock<WorkerStats> = LazyLock::new(WorkerStats::new);

fn vip(n: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
    } else {
        Ipv4Addr::new(192, 0, 2, n).into()
    }
}

fn host(n: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()).into()
    } else {
        Ipv4Addr::new(10, 0, 0, n).into()
    }
}

fn epoch(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn real(id: u32, ipv6: bool) -> RealSpec {
    RealSpec {
        id: RealId(id),
        epoch: epoch(1),
        endpoint: Endpoint::new(host(u8::try_from(id).unwrap(), ipv6), 8080),
        method: LbKind::Nat,
        weight: 1,
        last_weight: 1,
        limits: Limits::default(),
        available: true,
        failed: false,
        hop: HopId(id),
    }
}

fn service(slot: u32, vip: IpAddr, port: u16, reals: Vec<RealSpec>) -> ServiceSpec {
    ServiceSpec {
        id: ServiceId(slot),
        epoch: epoch(1),
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(vip, port),
        })],
        scheduler: Scheduler::Rr,
        persistence: None,
        one_packet: false,
        reals,
        draining: Vec::new(),
    }
}

fn next_hop(n: u8) -> NextHop {
    NextHop {
        port: PortId(0),
        source: MacAddr([2, 0, 0, 0, 0, 1]),
        destination: MacAddr([2, 0, 0, 0, 0, n]),
        mtu: 1500,
    }
}

fn hop(n: u8) -> Hop {
    Hop {
        next: Some(next_hop(n)),
        local: Some(host(n, false)),
    }
}

fn question(vip: IpAddr, protocol: u8, vport: u16) -> Question {
    Question {
        client: host(200, vip.is_ipv6()),
        client_port: 4000,
        vip,
        vport,
        protocol,
        ingress: PortId(0),
    }
}

/// The real servers of the next connections, by a worker that has seen nothing but this table.
fn picks(state: &mut SchedulerState, service: &Service, count: u8) -> Vec<Option<RealRef>> {
    let ask = |n| Ask {
        client: host(n, false),
        client_port: 4000,
        vip: vip(n % 3, false),
        tick: Tick::from_raw(7),
        stats: &NOTHING,
    };
    (0..count)
        .map(|n| state.pick(service.id, &service.picker, &ask(n)))
        .collect()
}

/// Which parts of two tables are one and the same: virtual servers by their slots, and whether the lookup, the
/// answers, the tunnels, the real servers and the next hops are.
fn shared(a: &ServiceTable, b: &ServiceTable) -> (Vec<bool>, [bool; 5]) {
    let services = a.services.iter().zip(&*b.services);
    let services = services.filter_map(|(a, b)| Some(Arc::ptr_eq(a.as_ref()?, b.as_ref()?)));
    let parts = [
        Arc::ptr_eq(&a.lookup, &b.lookup),
        Arc::ptr_eq(&a.returns, &b.returns),
        Arc::ptr_eq(&a.tunnels, &b.tunnels),
        Arc::ptr_eq(&a.reals, &b.reals),
        Arc::ptr_eq(&a.next_hops, &b.next_hops),
    ];
    (services.collect(), parts)
}

fn three() -> Vec<ServiceSpec> {
    (0..3_u8)
        .map(|n| {
            let slot = u32::from(n);
            let reals = vec![real(2 * slot, false), real(2 * slot + 1, false)];
            service(slot, vip(n, false), 80, reals)
        })
        .collect()
}

#[test]
fn a_table_shares_with_the_one_before_all_that_is_the_same() {
    let (mut builder, mut specs) = (TableBuilder::new(), three());
    builder.apply(&[], &specs).unwrap();
    for n in 0..6 {
        assert!(builder.set_hop(HopId(n.into()), hop(n)));
    }
    let mut before = builder.build(1);
    let mut change = |builder: &mut TableBuilder| {
        let table = builder.build(before.generation() + 1);
        let shared = shared(&before, &table);
        before = table;
        shared
    };
    assert_eq!(change(&mut builder), (vec![true; 3], [true; 5]), "nothing");
    builder.apply(&[], &specs).unwrap();
    assert!(!builder.set_hop(HopId(3), hop(3)));
    assert_eq!(change(&mut builder), (vec![true; 3], [true; 5]), "the same");
    assert!(builder.set_hop(HopId(3), hop(9)));
    let expected = (vec![true; 3], [true, true, true, true, false]);
    assert_eq!(change(&mut builder), expected, "a next hop");
    specs[1].reals[0].weight = 5;
    builder.set(&specs[1]).unwrap();
    let expected = (vec![true, false, true], [true; 5]);
    assert_eq!(change(&mut builder), expected, "a weight");
    specs[1].reals[0].available = false;
    builder.set(&specs[1]).unwrap();
    let expected = (vec![true, false, true], [true, true, true, false, true]);
    assert_eq!(change(&mut builder), expected, "a real server is down");
    builder.set_environment(Environment {
        ports: vec![PortSpec::default()],
        ..Environment::default()
    });
    assert_eq!(change(&mut builder), (vec![true; 3], [true; 5]), "a port");
    let mut tunnel = real(6, false);
    tunnel.method = LbKind::Tun(TunnelKind::Ipip);
    builder
        .set(&service(3, vip(3, false), 80, vec![tunnel]))
        .unwrap();
    let expected = (vec![true; 3], [false, true, false, false, true]);
    assert_eq!(change(&mut builder), expected, "a virtual server comes");
    builder.remove(ServiceId(0));
    let expected = (vec![true; 2], [false, false, true, false, true]);
    assert_eq!(
        change(&mut builder),
        (vec![true; 3], expected.1),
        "one goes"
    );
}

#[test]
fn a_match_and_a_real_server_move_in_one_step_or_not_at_all() {
    let (mut builder, mut specs) = (TableBuilder::new(), three());
    builder.apply(&[], &specs).unwrap();
    let [first, second, _] = &mut specs[..] else {
        unreachable!("there are three")
    };
    std::mem::swap(&mut first.matches, &mut second.matches);
    std::mem::swap(&mut first.reals, &mut second.reals);
    let taken = BuildError::DuplicateService(first.matches[0]);
    assert_eq!(builder.set(first), Err(taken));
    builder.apply(&[], &specs[..2]).unwrap();
    let at = |builder: &mut TableBuilder, n| {
        let table = builder.build(1);
        let service = table.service(&question(vip(n, false), 6, 80));
        service.map(|service| {
            (
                service.id.0,
                table.in_slot(RealId(2 * u32::from(n))).unwrap().service.0,
            )
        })
    };
    assert_eq!(at(&mut builder, 0), Some((1, 1)));
    assert_eq!(at(&mut builder, 1), Some((0, 0)));
    let taker = ServiceSpec {
        id: ServiceId(7),
        ..specs[2].clone()
    };
    let mut wrong = taker.clone();
    wrong.reals[0].id = RealId(0);
    let err = builder.apply(&[ServiceId(2)], &[wrong]);
    assert_eq!(err, Err(BuildError::DuplicateRealSlot(RealId(0))));
    assert_eq!(at(&mut builder, 2), Some((2, 2)), "as it was");
    builder.apply(&[ServiceId(2)], &[taker]).unwrap();
    assert_eq!(at(&mut builder, 2), Some((7, 7)));
}

#[test]
fn a_virtual_server_that_has_a_slot_anew_starts_at_the_front_of_its_list() {
    let mut builder = TableBuilder::new();
    let mut spec = three().remove(0);
    builder.set(&spec).unwrap();
    let mut state = SchedulerState::new(7);
    let mut pick = |builder: &mut TableBuilder| {
        let table = builder.build(1);
        let picked = picks(&mut state, table.services().next().unwrap(), 1);
        picked[0].map(|real| real.id.0)
    };
    let (first, second) = (pick(&mut builder), pick(&mut builder));
    assert!(first.is_some() && second.is_some() && first != second);
    assert_eq!(pick(&mut builder), first);
    builder.remove(ServiceId(0));
    builder.set(&spec).unwrap();
    assert_eq!(pick(&mut builder), second, "the same one goes on");
    assert_eq!(pick(&mut builder), first);
    builder.remove(ServiceId(0));
    spec.epoch = epoch(2);
    builder.set(&spec).unwrap();
    assert_eq!(pick(&mut builder), first, "another one begins");
}

#[test]
fn a_way_without_a_slot_is_none() {
    let mut builder = TableBuilder::new();
    let mut far = real(0, false);
    far.hop = HopId(u32::MAX);
    builder
        .set(&service(0, vip(0, false), 80, vec![real(1, false), far]))
        .unwrap();
    let way = |builder: &mut TableBuilder, id| {
        let table = builder.build(1);
        let real = *table.in_slot(RealId(id)).unwrap();
        (table.next_hop(&real).copied(), table.local(&real))
    };
    assert_eq!(way(&mut builder, 1), (None, None));
    assert!(!builder.set_hop(HopId(1), Hop::default()));
    assert!(builder.set_hop(HopId(1), hop(4)));
    assert!(!builder.set_hop(HopId(u32::MAX), hop(4)), "that is no slot");
    assert_eq!(way(&mut builder, 0), (None, None));
    let known = (Some(next_hop(4)), Some(host(4, false)));
    assert_eq!(way(&mut builder, 1), known);
    assert!(builder.set_hop(HopId(1), Hop::default()));
    assert_eq!(way(&mut builder, 1), (None, None));
}

#[test]
fn an_answer_is_that_of_the_lowest_slot_and_of_the_next_when_that_goes() {
    let mut builder = TableBuilder::new();
    for slot in [2, 0, 1] {
        let mut shared = real(slot + 10, false);
        shared.endpoint = Endpoint::new(host(9, false), 8080);
        let vip = vip(u8::try_from(slot).unwrap(), false);
        builder.set(&service(slot, vip, 80, vec![shared])).unwrap();
    }
    for expected in [Some(0), Some(1), Some(2), None] {
        let table = builder.build(1);
        let holder = table.returns(host(9, false), 6, 8080);
        assert_eq!(holder.map(|service| service.id.0), expected);
        assert_eq!(
            table.has_returns_from(host(9, false), 6),
            expected.is_some()
        );
        assert_eq!(table.has_returns(), expected.is_some());
        if let Some(slot) = expected {
            builder.remove(ServiceId(slot));
        }
    }
}

/// Every scheduler.
fn schedulers() -> Vec<Scheduler> {
    let (port, fallback) = (true, true);
    let mh = |slots| Scheduler::Mh {
        port,
        fallback,
        size: crate::balance::MaglevSize::new(slots).unwrap(),
    };
    vec![
        Scheduler::Rr,
        Scheduler::Wrr,
        Scheduler::Lc,
        Scheduler::Wlc,
        Scheduler::Sed,
        Scheduler::Nq,
        Scheduler::Fo,
        Scheduler::Ovf,
        Scheduler::Sh { port, fallback },
        Scheduler::Dh,
        mh(251),
        mh(1009),
        Scheduler::Lblc,
        Scheduler::Lblcr,
        Scheduler::Twos,
    ]
}

#[test]
fn no_scheduler_sees_a_real_server_that_is_draining() {
    for scheduler in schedulers() {
        let mut with = service(
            0,
            vip(0, false),
            80,
            (0..5).map(|n| real(n, false)).collect(),
        );
        with.scheduler = scheduler;
        for real in &mut with.reals {
            real.weight = 1 + real.id.0 % 3;
        }
        let mut states = [(); 2].map(|()| SchedulerState::new(7));
        let mut next = |specs: [&ServiceSpec; 2], count| {
            let mut picked = specs.iter().zip(&mut states).map(|(spec, state)| {
                let specs = std::slice::from_ref(*spec);
                let table = ServiceTable::build(1, specs, Environment::default()).unwrap();
                picks(state, table.services().next().unwrap(), count)
            });
            let (draining, without) = (picked.next().unwrap(), picked.next().unwrap());
            assert_eq!(draining, without, "{}", scheduler.name());
            draining
        };
        // Three picks, so that lists that are walked stand in the middle, where one leaves them.
        next([&with, &with], 3);
        let mut left = with.reals.remove(2);
        let without = with.clone();
        for (weight, available) in [(0, false), (9, true)] {
            (left.weight, left.available) = (weight, available);
            with.draining = vec![left];
            let picked = next([&with, &without], 20);
            assert!(picked.iter().flatten().all(|real| real.id != left.id));
        }
        let table = ServiceTable::build(1, &[with], Environment::default()).unwrap();
        let kept = table.in_slot(left.id).unwrap();
        assert!(!kept.available && kept.quiescent);
    }
}

/// One thing that control may say.
#[derive(Clone, Debug)]
enum Word {
    Set(ServiceSpec),
    Remove(u32),
    Apply(Vec<u32>, Vec<ServiceSpec>),
    Hop(u32, Hop),
    Table,
}

fn any_match() -> impl Strategy<Value = Match> {
    let port = prop::sample::select(PORTS.to_vec());
    let protocol = prop::sample::select(vec![L4Proto::Tcp, L4Proto::Udp]);
    prop_oneof![
        4 => (0..6_u8, any::<bool>(), port.clone(), protocol.clone()).prop_map(
            |(n, ipv6, port, protocol)| Match::Address(ServiceKey {
                protocol,
                endpoint: Endpoint::new(vip(n, ipv6), port),
            })
        ),
        2 => (0..6_u8, 0..6_u8, any::<bool>(), port, protocol).prop_map(
            |(first, last, ipv6, port, protocol)| Match::Range {
                protocol,
                first: vip(first, ipv6),
                last: vip(last, ipv6),
                port,
            }
        ),
        1 => (1..3_u32, any::<bool>()).prop_map(|(mark, ipv6)| Match::Mark { mark, ipv6 }),
    ]
}

fn any_real() -> impl Strategy<Value = RealSpec> {
    let gue = TunnelKind::Gue {
        port: 6080,
        checksum: false,
    };
    let methods = vec![
        LbKind::Nat,
        LbKind::Nat,
        LbKind::Dr,
        LbKind::Tun(TunnelKind::Ipip),
        LbKind::Tun(gue),
    ];
    let who = (0..24_u32, 1..3_u32, 0..8_u8, 0..10_u8);
    let port = prop::sample::select(PORTS.to_vec());
    let how = (prop::sample::select(methods), port, 0..4_u32, any::<bool>());
    (who, how, 0..10_u32).prop_map(|((id, generation, n, family), how, hop)| {
        let (method, port, weight, available) = how;
        RealSpec {
            epoch: epoch(generation),
            endpoint: Endpoint::new(host(n, family == 0), port),
            method,
            weight,
            last_weight: weight.max(1),
            available,
            hop: HopId(hop),
            ..real(id, false)
        }
    })
}

fn any_service() -> impl Strategy<Value = ServiceSpec> {
    let lists = (
        prop::collection::vec(any_match(), 1..3),
        prop::collection::vec(any_real(), 0..4),
        prop::collection::vec(any_real(), 0..2),
    );
    let prefix = prop::option::of(prop::sample::select(vec![16_u8, 24, 32]));
    let scheduler = prop::sample::select(schedulers());
    let rest = (0..6_u32, 1..3_u32, scheduler, prefix);
    (rest, lists).prop_map(|((slot, generation, scheduler, prefix), lists)| {
        let (matches, reals, draining) = lists;
        ServiceSpec {
            id: ServiceId(slot),
            epoch: epoch(generation),
            matches,
            scheduler,
            persistence: prefix.map(|prefix| Persistence {
                timeout: Duration::from_secs(60),
                prefix,
            }),
            one_packet: false,
            reals,
            draining,
        }
    })
}

fn any_word() -> impl Strategy<Value = Word> {
    let slots = || prop::collection::vec(0..6_u32, 0..3);
    let hop = prop_oneof![Just(Hop::default()), (0..4_u8).prop_map(hop)];
    prop_oneof![
        8 => any_service().prop_map(Word::Set),
        1 => (0..6_u32).prop_map(Word::Remove),
        4 => (slots(), prop::collection::vec(any_service(), 0..3))
            .prop_map(|(removed, set)| Word::Apply(removed, set)),
        2 => (0..10_u32, hop).prop_map(|(id, hop)| Word::Hop(id, hop)),
        2 => Just(Word::Table),
    ]
}

/// All that can be asked of a table, with the answers.
fn everything(table: &ServiceTable) -> Vec<String> {
    let mut all = Vec::new();
    for ipv6 in [false, true] {
        for n in 0..8 {
            for protocol in [6, 17, 132] {
                for port in [0, 79, 80, 81] {
                    let service = table.service(&question(vip(n, ipv6), protocol, port));
                    all.push(format!("{:?}", service.map(|service| service.id)));
                    let service = table.returns(host(n, ipv6), protocol, port);
                    all.push(format!("{:?}", service.map(|service| service.id)));
                }
                all.push(table.has_returns_from(host(n, ipv6), protocol).to_string());
            }
            let end = |port| table.is_tunnel_end(host(n, ipv6), port);
            all.push(format!("{} {}", end(0), end(6080)));
        }
        all.push(format!("{:?}", table.nat_prefix(ipv6)));
    }
    let parts = (table.has_returns(), table.has_tunnels(), table.has_owners());
    all.push(format!("{parts:?} {}", table.generation()));
    for slot in 0..24 {
        let real = table.in_slot(RealId(slot));
        let way = real.map(|real| (table.next_hop(real), table.local(real)));
        all.push(format!("{real:?} {way:?}"));
    }
    let mut state = SchedulerState::new(3);
    for service in table.services() {
        let picked = picks(&mut state, service, 8);
        let rest = (
            service.stateless(),
            service.client_prefix(),
            service.sees_answers(),
        );
        all.push(format!("{:?} {rest:?} {picked:?}", service.id));
    }
    all
}

/// The marks: to 192.0.2.4, 1; to 192.0.2.5, 2.
fn marks() -> Environment {
    let rule = |mark, n| MarkRule {
        mark,
        protocol: None,
        destination: (vip(n, false), vip(n, false)),
        destination_ports: (0, 80),
        source: None,
        source_ports: (0, u16::MAX),
        ingress: None,
    };
    Environment {
        marks: vec![rule(1, 4), rule(2, 5)],
        ..Environment::default()
    }
}

/// The table that these virtual servers and ways give at once.
fn at_once(
    specs: &BTreeMap<u32, ServiceSpec>,
    hops: &BTreeMap<u32, Hop>,
) -> Result<ServiceTable, BuildError> {
    let mut builder = TableBuilder::new();
    for (id, hop) in hops {
        builder.set_hop(HopId(*id), *hop);
    }
    let specs: Vec<ServiceSpec> = specs.values().rev().cloned().collect();
    builder.apply(&[], &specs)?;
    builder.set_environment(marks());
    Ok(builder.build(7))
}

proptest! {
    #[test]
    fn however_a_table_came_about_it_is_that_of_its_specifications(
        words in prop::collection::vec(any_word(), 1..40),
    ) {
        let mut builder = TableBuilder::new();
        builder.set_environment(marks());
        let (mut specs, mut hops) = (BTreeMap::new(), BTreeMap::new());
        // Tables that workers still have.
        let mut kept = Vec::new();
        for word in words {
            let (removed, set) = match word {
                Word::Set(spec) => (Vec::new(), vec![spec]),
                Word::Remove(slot) => {
                    builder.remove(ServiceId(slot));
                    specs.remove(&slot);
                    continue;
                }
                Word::Apply(removed, set) => (removed, set),
                Word::Hop(id, hop) => {
                    let before = hops.insert(id, hop).unwrap_or_default();
                    prop_assert_eq!(builder.set_hop(HopId(id), hop), before != hop);
                    continue;
                }
                Word::Table => {
                    let table = builder.build(7);
                    let expected = everything(&at_once(&specs, &hops).unwrap());
                    prop_assert_eq!(everything(&table), expected.clone());
                    kept.push((table, expected));
                    continue;
                }
            };
            let mut changed = specs.clone();
            changed.retain(|slot, _| !removed.contains(slot));
            let mut twice = false;
            for (at, spec) in set.iter().enumerate() {
                twice |= set[..at].iter().any(|other| other.id == spec.id);
                changed.insert(spec.id.0, spec.clone());
            }
            let possible = !twice && at_once(&changed, &hops).is_ok();
            let removed: Vec<ServiceId> = removed.into_iter().map(ServiceId).collect();
            let done = match &set[..] {
                [spec] if removed.is_empty() => builder.set(spec),
                set => builder.apply(&removed, set),
            };
            prop_assert_eq!(done.is_ok(), possible, "{:?}", done);
            if possible {
                specs = changed;
            }
        }
        let expected = everything(&at_once(&specs, &hops).unwrap());
        prop_assert_eq!(everything(&builder.build(7)), expected);
        for (table, expected) in kept {
            prop_assert_eq!(everything(&table), expected, "a table changed under a worker");
        }
    }
}
