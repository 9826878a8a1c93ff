//! What a table finds, and what cannot be in one.

use proptest::prelude::*;

use super::*;
use crate::lvs::TunnelKind;

const EPOCH: NonZeroU32 = NonZeroU32::MIN;

fn endpoint(text: &str) -> Endpoint {
    let (addr, port) = text.rsplit_once(':').unwrap();
    Endpoint::new(addr.parse().unwrap(), port.parse().unwrap())
}

fn tcp(text: &str) -> Match {
    Match::Address(ServiceKey {
        protocol: L4Proto::Tcp,
        endpoint: endpoint(text),
    })
}

fn range(first: &str, last: &str, port: u16) -> Match {
    Match::Range {
        protocol: L4Proto::Tcp,
        first: first.parse().unwrap(),
        last: last.parse().unwrap(),
        port,
    }
}

fn spec(slot: u32, matches: &[Match], reals: &[u32]) -> ServiceSpec {
    let ipv6 = match matches[0] {
        Match::Address(key) => key.endpoint.addr.is_ipv6(),
        Match::Range { first, .. } => first.is_ipv6(),
        Match::Mark { ipv6, .. } => ipv6,
    };
    let addr = if ipv6 { "2001:db8::9" } else { "10.0.0.1" };
    ServiceSpec {
        id: ServiceId(slot),
        epoch: EPOCH,
        matches: matches.to_vec(),
        scheduler: Scheduler::Rr,
        persistence: None,
        one_packet: false,
        reals: reals
            .iter()
            .map(|id| RealSpec {
                id: RealId(*id),
                epoch: EPOCH,
                endpoint: Endpoint::new(addr.parse().unwrap(), 80),
                method: LbKind::Dr,
                weight: 1,
                last_weight: 1,
                limits: Limits::default(),
                available: true,
                failed: false,
                hop: HopId(0),
            })
            .collect(),
        draining: Vec::new(),
    }
}

fn build(specs: &[ServiceSpec]) -> Result<ServiceTable, BuildError> {
    ServiceTable::build(7, specs, Environment::default())
}

fn question(vip: &str, protocol: u8, vport: u16) -> Question {
    let vip: IpAddr = vip.parse().unwrap();
    let client = if vip.is_ipv4() {
        "192.0.2.7"
    } else {
        "2001:db8:1::7"
    };
    Question {
        client: client.parse().unwrap(),
        client_port: 4000,
        vip,
        vport,
        protocol,
        ingress: PortId(0),
    }
}

fn found(table: &ServiceTable, vip: &str, protocol: u8, port: u16) -> Option<u32> {
    table
        .service(&question(vip, protocol, port))
        .map(|service| service.id.0)
}

#[test]
fn lookup_is_exact_and_falls_back_to_port_0() {
    let specs = [
        spec(0, &[tcp("10.0.0.1:80")], &[]),
        spec(9, &[tcp("10.0.0.1:0")], &[]),
        spec(3, &[tcp("10.0.0.2:80"), tcp("10.0.0.3:8080")], &[]),
        spec(4, &[tcp("2001:db8::1:80")], &[]),
    ];
    let table = build(&specs).unwrap();
    let id = |vip, proto, port| found(&table, vip, proto, port);
    assert_eq!(id("10.0.0.1", 6, 80), Some(0));
    assert_eq!(id("10.0.0.1", 6, 81), Some(9));
    assert_eq!(id("10.0.0.1", 17, 80), None);
    assert_eq!(id("10.0.0.2", 6, 80), Some(3));
    assert_eq!(id("10.0.0.3", 6, 8080), Some(3));
    assert_eq!(id("10.0.0.2", 6, 81), None);
    assert_eq!(id("2001:db8::1", 6, 80), Some(4));
    assert_eq!(id("2001:db8::1", 6, 81), None);
    assert_eq!(table.generation(), 7);
    assert_eq!(found(&ServiceTable::empty(), "10.0.0.1", 6, 80), None);
}

#[test]
fn a_range_is_one_entry_and_gives_way_to_a_single_address() {
    let specs = [
        spec(0, &[range("10.1.0.0", "10.1.255.255", 80)], &[]),
        spec(1, &[tcp("10.1.7.7:80")], &[]),
        spec(2, &[range("10.1.0.0", "10.1.0.9", 0)], &[]),
        spec(3, &[range("2001:db8::10", "2001:db8::1f", 80)], &[]),
    ];
    let table = build(&specs).unwrap();
    let id = |vip, port| found(&table, vip, 6, port);
    assert_eq!(id("10.1.0.0", 80), Some(0));
    assert_eq!(id("10.1.255.255", 80), Some(0));
    assert_eq!(id("10.2.0.0", 80), None);
    assert_eq!(id("10.0.255.255", 80), None);
    assert_eq!(id("10.1.7.7", 80), Some(1));
    assert_eq!(id("10.1.0.9", 443), Some(2));
    assert_eq!(id("10.1.0.10", 443), None);
    assert_eq!(id("2001:db8::1f", 80), Some(3));
    assert_eq!(id("2001:db8::20", 80), None);
}

fn rule(mark: u32) -> MarkRule {
    MarkRule {
        mark,
        protocol: None,
        destination: ("10.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap()),
        destination_ports: (80, 90),
        source: None,
        source_ports: (0, u16::MAX),
        ingress: None,
    }
}

#[test]
fn a_mark_comes_before_an_address_and_the_first_rule_counts() {
    let specs = [
        spec(
            0,
            &[Match::Mark {
                mark: 5,
                ipv6: false,
            }],
            &[],
        ),
        spec(1, &[tcp("10.0.0.1:80")], &[]),
        spec(
            2,
            &[Match::Mark {
                mark: 6,
                ipv6: false,
            }],
            &[],
        ),
    ];
    let from_a_port = MarkRule {
        source: Some("192.0.2.0/24".parse().unwrap()),
        source_ports: (1, 4000),
        ingress: Some(PortId(0)),
        protocol: Some(L4Proto::Tcp),
        ..rule(5)
    };
    let environment = Environment {
        marks: vec![from_a_port, rule(6), rule(7)],
        ..Environment::default()
    };
    let table = ServiceTable::build(1, &specs, environment).unwrap();
    let id = |edit: fn(&mut Question)| {
        let mut question = question("10.0.0.1", 6, 80);
        edit(&mut question);
        table.service(&question).map(|service| service.id.0)
    };
    assert_eq!(id(|_| ()), Some(0));
    assert_eq!(id(|q| q.client_port = 4001), Some(2));
    assert_eq!(id(|q| q.client = "192.0.3.7".parse().unwrap()), Some(2));
    assert_eq!(id(|q| q.ingress = PortId(1)), Some(2));
    assert_eq!(id(|q| q.protocol = 17), Some(2));
    assert_eq!(id(|q| q.vport = 91), None);
    assert_eq!(id(|q| q.vip = "10.0.0.10".parse().unwrap()), None);
    // A mark that no virtual server goes by leaves the packet to its address.
    let environment = Environment {
        marks: vec![rule(7)],
        ..Environment::default()
    };
    let table = ServiceTable::build(1, &specs, environment).unwrap();
    assert_eq!(found(&table, "10.0.0.1", 6, 80), Some(1));
}

#[test]
fn answers_of_real_servers_behind_nat_are_known_by_their_source() {
    let mut nat = spec(0, &[tcp("10.0.0.1:80")], &[1, 2]);
    nat.reals[0].method = LbKind::Nat;
    nat.reals[0].endpoint = endpoint("10.9.0.1:8080");
    let table = build(&[nat.clone()]).unwrap();
    assert!(table.has_returns());
    let addr: IpAddr = "10.9.0.1".parse().unwrap();
    let returns =
        |table: &ServiceTable, protocol, port| table.returns(addr, protocol, port).map(|s| s.id.0);
    assert_eq!(returns(&table, 6, 8080), Some(0));
    assert_eq!(returns(&table, 6, 8081), None);
    assert_eq!(returns(&table, 17, 8080), None);
    nat.matches = vec![Match::Mark {
        mark: 1,
        ipv6: false,
    }];
    nat.reals[0].endpoint.port = 0;
    let table = build(&[nat]).unwrap();
    assert_eq!(returns(&table, 17, 5), Some(0));
    assert!(
        !build(&[spec(0, &[tcp("10.0.0.1:80")], &[1])])
            .unwrap()
            .has_returns()
    );
}

#[test]
fn a_slot_with_another_holder_is_not_the_real_server_of_before() {
    let table = build(&[spec(0, &[tcp("10.0.0.1:80")], &[5])]).unwrap();
    let real = |epoch| RealRef {
        id: RealId(5),
        epoch: NonZeroU32::new(epoch).unwrap(),
    };
    assert!(table.real(real(1)).is_some());
    assert!(table.real(real(2)).is_none());
    assert!(table.in_slot(RealId(4)).is_none());
    assert!(table.in_slot(RealId(6)).is_none());
}

#[test]
fn what_cannot_be_in_a_table_is_named() {
    let err = |specs: &[ServiceSpec]| build(specs).unwrap_err();
    let good = spec(0, &[tcp("10.0.0.1:80")], &[1]);
    let mut late = spec(16_384, &[tcp("10.0.0.2:80")], &[]);
    assert_eq!(
        err(&[late.clone()]),
        BuildError::ServiceSlot(ServiceId(16_384))
    );
    late.id = ServiceId(0);
    assert_eq!(
        err(&[good.clone(), late]),
        BuildError::DuplicateServiceSlot(ServiceId(0))
    );
    let twice = spec(1, &[tcp("10.0.0.1:80")], &[]);
    assert_eq!(
        err(&[good.clone(), twice.clone()]),
        BuildError::DuplicateService(twice.matches[0])
    );
    let over = [
        range("10.0.0.1", "10.0.0.5", 1),
        range("10.0.0.5", "10.0.0.9", 1),
    ];
    assert_eq!(
        err(&[spec(1, &over, &[])]),
        BuildError::DuplicateService(over[1])
    );
    let over = [over[1], over[0]];
    assert_eq!(
        err(&[spec(1, &over, &[])]),
        BuildError::DuplicateService(over[1])
    );
    let turned = range("10.0.0.2", "10.0.0.1", 80);
    assert_eq!(err(&[spec(1, &[turned], &[])]), BuildError::Range(turned));
    let shared = spec(1, &[tcp("10.0.0.2:80")], &[1]);
    assert_eq!(
        err(&[good.clone(), shared]),
        BuildError::DuplicateRealSlot(RealId(1))
    );
    let far = spec(1, &[tcp("10.0.0.2:80")], &[262_144]);
    assert_eq!(err(&[far]), BuildError::RealSlot(RealId(262_144)));
    let mut six = good.clone();
    six.reals[0].endpoint = endpoint("2001:db8::5:80");
    let family = BuildError::Family(ServiceId(0), RealId(1));
    assert_eq!(err(std::slice::from_ref(&six)), family);
    six.reals[0].method = LbKind::Tun(TunnelKind::Ipip);
    assert!(build(&[six]).is_ok());
    let mut wide = good;
    wide.persistence = Some(Persistence {
        timeout: Duration::from_secs(1),
        prefix: 33,
    });
    assert_eq!(err(&[wide]), BuildError::Prefix(ServiceId(0)));
}

proptest! {
    /// Single addresses and ranges against a scan of all of them.
    #[test]
    fn a_table_finds_what_a_scan_finds(
        singles in prop::collection::hash_set((0_u8..40, 0_u16..3), 0..30),
        ranges in prop::collection::vec((0_u8..40, 0_u8..10, 0_u16..3), 0..12),
        asked in prop::collection::vec((0_u8..60, 0_u16..4), 1..40),
    ) {
        let addr = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut specs: Vec<ServiceSpec> = Vec::new();
        let next = || u32::try_from(specs.len()).unwrap();
        let mut made = Vec::new();
        for (n, port) in singles {
            let what = tcp(&format!("{}:{port}", addr(n)));
            let slot = next() + u32::try_from(made.len()).unwrap();
            made.push((what, n, n, port, slot));
        }
        for (first, len, port) in ranges {
            let last = first + len;
            let taken = made.iter().any(|(what, a, b, p, _)| {
                matches!(what, Match::Range { .. }) && *p == port && first <= *b && *a <= last
            });
            if !taken {
                let what = range(&addr(first).to_string(), &addr(last).to_string(), port);
                made.push((what, first, last, port, u32::try_from(made.len()).unwrap()));
            }
        }
        specs.extend(made.iter().map(|(what, .., slot)| spec(*slot, &[*what], &[])));
        let table = build(&specs).unwrap();
        for (n, port) in asked {
            let fits = |wanted: u16, single: bool| made.iter().find(|(what, a, b, p, _)| {
                matches!(what, Match::Address(_)) == single && *a <= n && n <= *b && *p == wanted
            });
            let expected = [port, 0]
                .into_iter()
                .find_map(|port| fits(port, true).or_else(|| fits(port, false)))
                .map(|(.., slot)| *slot);
            prop_assert_eq!(found(&table, &addr(n).to_string(), 6, port), expected);
        }
    }
}
