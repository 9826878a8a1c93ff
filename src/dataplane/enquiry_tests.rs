//! What workers tell of their connections, against what was sent to them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use etherparse::PacketBuilder;

use super::*;
use crate::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        ConnEntry, ConnFilter, Environment, Hop, HopId, LbKind, Limits, MarkRule, Match, NextHop,
        Persistence, RealId, RealSpec, Scheduler, ServiceId, ServiceKey, ServiceSpec, TableBuilder,
    },
    dataplane::{
        memory::MemoryIo,
        publish::Publisher,
        worker::{Worker, WorkerOptions},
    },
    stats::WorkerStats,
};

pub(crate) const VIP: &str = "10.1.0.100";
const VIP6: &str = "fd01::100";
const PORT: PortId = PortId(0);

fn real(id: u32, addr: &str) -> RealSpec {
    RealSpec {
        id: RealId(id),
        epoch: NonZeroU32::MIN,
        endpoint: Endpoint::new(addr.parse().unwrap(), 8080),
        method: LbKind::Dr,
        weight: 1,
        last_weight: 1,
        limits: Limits::default(),
        available: true,
        failed: false,
        hop: HopId(0),
    }
}

/// A virtual server whose scheduler has `reals` in this order: the first of them was added last.
fn service(id: u32, protocol: L4Proto, vip: &str, port: u16, reals: Vec<RealSpec>) -> ServiceSpec {
    ServiceSpec {
        id: ServiceId(id),
        epoch: NonZeroU32::MIN,
        matches: vec![Match::Address(ServiceKey {
            protocol,
            endpoint: Endpoint::new(vip.parse().unwrap(), port),
        })],
        one_packet: false,
        scheduler: Scheduler::Rr,
        persistence: None,
        reals: reals.into_iter().rev().collect(),
        draining: Vec::new(),
    }
}

fn services() -> Vec<ServiceSpec> {
    let pair = |id| vec![real(id, "10.2.0.11"), real(id + 1, "10.2.0.12")];
    let mut every_port = real(6, "fd02::12");
    every_port.endpoint.port = 0;
    vec![
        service(0, L4Proto::Tcp, VIP, 80, pair(0)),
        service(1, L4Proto::Udp, VIP, 53, pair(2)),
        service(2, L4Proto::Tcp, VIP6, 80, vec![real(4, "fd02::11")]),
        ServiceSpec {
            persistence: Some(Persistence {
                timeout: Duration::from_secs(300),
                prefix: 24,
            }),
            ..service(3, L4Proto::Tcp, VIP, 443, vec![real(5, "10.2.0.13")])
        },
        service(4, L4Proto::Tcp, VIP6, 0, vec![every_port]),
        marked(5, false, 16, real(7, "10.2.0.12")),
        marked(6, true, 64, real(8, "fd02::12")),
    ]
}

/// What gives packets to port 9000 mark 7, in both families.
fn marks() -> Environment {
    let rule = |vip: &str| {
        let vip: IpAddr = vip.parse().unwrap();
        MarkRule {
            mark: 7,
            protocol: None,
            destination: (vip, vip),
            destination_ports: (9000, 9000),
            source: None,
            source_ports: (0, u16::MAX),
            ingress: None,
        }
    };
    Environment {
        marks: [VIP, VIP6].map(rule).into(),
        ..Environment::default()
    }
}

/// The virtual server of mark 7 in one family.
fn marked(id: u32, ipv6: bool, prefix: u8, real: RealSpec) -> ServiceSpec {
    ServiceSpec {
        matches: vec![Match::Mark { mark: 7, ipv6 }],
        persistence: Some(Persistence {
            timeout: Duration::from_secs(100),
            prefix,
        }),
        ..service(id, L4Proto::Tcp, VIP, 0, vec![real])
    }
}

/// A first packet.
fn packet(protocol: L4Proto, client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([6; 6], [2; 6]);
    let ip = match (client.ip(), vip.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("of one family"),
    };
    let mut bytes = Vec::new();
    match protocol {
        L4Proto::Udp => ip.udp(client.port(), vip.port()).write(&mut bytes, b"?"),
        _ => ip
            .tcp(client.port(), vip.port(), 1, 512)
            .syn()
            .write(&mut bytes, b""),
    }
    .unwrap();
    bytes
}

/// Workers on wires in memory, and what was sent through them.
pub(crate) struct Lab {
    pub(crate) publisher: Publisher,
    calls: Arc<AtomicUsize>,
    pub(crate) workers: Vec<Worker<MemoryIo>>,
    pub(crate) stats: Vec<Arc<WorkerStats>>,
    pub(crate) now: Instant,
}

impl Lab {
    pub(crate) fn new(workers: usize) -> Self {
        let mut tables = TableBuilder::new();
        tables.set_environment(marks());
        tables.apply(&[], &services()).unwrap();
        let next = NextHop {
            port: PORT,
            source: MacAddr([2; 6]),
            destination: MacAddr([4; 6]),
            mtu: 1500,
        };
        let hop = Hop {
            next: Some(next),
            local: None,
        };
        tables.set_hop(HopId(0), hop);
        let table = tables.build(1);
        let calls = Arc::new(AtomicUsize::new(0));
        let call = Arc::clone(&calls);
        let mut publisher = Publisher::with_call(table, move || {
            call.fetch_add(1, Ordering::Relaxed);
        });
        let options = WorkerOptions {
            connections: 20_000,
            hash_seed: 7,
            spin: Duration::ZERO,
        };
        let stats: Vec<_> = (0..workers).map(|_| Arc::new(WorkerStats::new())).collect();
        let worker = |stats: &Arc<WorkerStats>| {
            let io = MemoryIo::new(64, 64);
            Worker::new(io, publisher.reader(), Arc::clone(stats), options)
        };
        let workers = stats.iter().map(worker).collect();
        Self {
            stats,
            publisher,
            calls,
            workers,
            now: Instant::from_nanos(1_000_000_000),
        }
    }

    pub(crate) fn send(
        &mut self,
        worker: usize,
        protocol: L4Proto,
        client: &str,
        vip: (&str, u16),
    ) {
        let vip = SocketAddr::new(vip.0.parse().unwrap(), vip.1);
        let frame = packet(protocol, client.parse().unwrap(), vip);
        let worker = &mut self.workers[worker];
        assert!(worker.io_mut().inject(PORT, &frame));
        assert_eq!(worker.turn(self.now), 1);
        assert!(worker.io_mut().collect().is_some(), "{client} {vip:?}");
    }

    fn ask(&mut self, worker: usize, filter: ConnFilter, room: usize) {
        let enquiry = Box::new(Enquiry {
            id: 9,
            until: self.now + Duration::from_secs(2),
            listing: Listing::new(filter, room),
            complete: false,
        });
        self.publisher.enquiries()[worker].ask(enquiry).unwrap();
    }

    /// Lets a worker take turns until it answers. How many turns it took.
    fn answer(&mut self, worker: usize) -> (Box<Enquiry>, usize) {
        for turns in 1..100_000 {
            self.workers[worker].turn(self.now);
            if let Some(enquiry) = self.publisher.enquiries()[worker].answered() {
                assert_eq!(enquiry.id, 9);
                return (enquiry, turns);
            }
        }
        panic!("no answer");
    }

    /// What a worker finds.
    fn found(&mut self, worker: usize, filter: ConnFilter) -> Vec<ConnEntry> {
        self.ask(worker, filter, 10_000);
        let (enquiry, _) = self.answer(worker);
        assert!(enquiry.complete);
        let entries = enquiry.listing.entries().to_vec();
        assert_eq!(enquiry.listing.matching(), entries.len() as u64);
        entries
    }
}

fn clients(entries: &[ConnEntry]) -> BTreeSet<String> {
    let clients: BTreeSet<_> = entries.iter().map(|it| it.client.to_string()).collect();
    assert_eq!(clients.len(), entries.len(), "none is there twice");
    clients
}

#[test]
fn each_worker_tells_of_all_of_its_own_and_nothing_twice() {
    let mut lab = Lab::new(2);
    let mut sent = [BTreeSet::new(), BTreeSet::new()];
    for n in 0..3000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let worker = n as usize % 3 / 2;
        let client = match n % 2 {
            0 => format!("10.9.{high}.{low}:{}", 1024 + n),
            _ => format!("[fd09::{n:x}]:{}", 1024 + n),
        };
        let vip = if n % 2 == 0 { VIP } else { VIP6 };
        lab.send(worker, L4Proto::Tcp, &client, (vip, 80));
        sent[worker].insert(client);
    }
    for (worker, sent) in sent.iter().enumerate() {
        let found = clients(&lab.found(worker, ConnFilter::default()));
        let wrong: Vec<_> = found.symmetric_difference(sent).take(5).collect();
        assert!(wrong.is_empty(), "worker {worker}: {wrong:?} and more");
    }
    assert_eq!(lab.calls.load(Ordering::Relaxed), 2, "control was called");
}

#[test]
fn an_entry_has_what_ipvs_shows_of_a_connection() {
    let mut lab = Lab::new(1);
    lab.send(0, L4Proto::Tcp, "10.9.0.1:5000", (VIP, 443));
    lab.send(0, L4Proto::Udp, "10.9.0.2:5001", (VIP, 53));
    lab.send(0, L4Proto::Tcp, "[fd09::1]:5002", (VIP6, 8443));
    lab.now = lab.now + Duration::from_millis(1500);
    let mut shown: Vec<String> = lab
        .found(0, ConnFilter::default())
        .iter()
        .map(|it| {
            let real = it.real.unwrap();
            let ConnEntry {
                protocol,
                client,
                vip,
                state,
                remaining,
                ..
            } = it;
            format!("{protocol} {remaining:?} {state} {client} {vip} {real}")
        })
        .collect();
    shown.sort_unstable();
    assert_eq!(
        shown,
        [
            "17 298.5s UDP 10.9.0.2:5001 10.1.0.100:53 10.2.0.11:8080",
            "6 298.5s NONE 10.9.0.0:0 10.1.0.100:443 10.2.0.13:8080",
            "6 58.5s SYN_RECV 10.9.0.1:5000 10.1.0.100:443 10.2.0.13:8080",
            "6 58.5s SYN_RECV [fd09::1]:5002 [fd01::100]:8443 [fd02::12]:8443",
        ]
    );
}

/// As IPVS of Linux 6.1 shows them: `IP ... 10.1.0.0:0 0.0.0.7:0 10.2.0.12:0`.
#[test]
fn a_template_for_a_mark_is_of_no_protocol_and_has_the_mark_for_an_address() {
    let mut lab = Lab::new(1);
    lab.send(0, L4Proto::Tcp, "10.9.0.1:5000", (VIP, 9000));
    lab.send(0, L4Proto::Tcp, "[fd09::1]:5001", (VIP6, 9000));
    let templates = ConnFilter {
        protocol: Some(0),
        ..ConnFilter::default()
    };
    let mut shown: Vec<String> = lab
        .found(0, templates)
        .iter()
        .map(|it| format!("{} {} {} {}", it.state, it.client, it.vip, it.real.unwrap()))
        .collect();
    shown.sort_unstable();
    assert_eq!(
        shown,
        [
            "NONE 10.9.0.0:0 0.0.0.7:0 10.2.0.12:0",
            "NONE [fd09::]:0 [0:7::]:0 [fd02::12]:0",
        ]
    );
}

#[test]
fn a_filter_lets_through_what_fits_all_of_it() {
    let mut lab = Lab::new(1);
    lab.send(0, L4Proto::Tcp, "10.9.0.1:5000", (VIP, 80));
    lab.send(0, L4Proto::Tcp, "10.9.1.1:5001", (VIP, 80));
    lab.send(0, L4Proto::Tcp, "10.9.0.2:5002", (VIP, 443));
    lab.send(0, L4Proto::Udp, "10.9.0.3:5003", (VIP, 53));
    lab.send(0, L4Proto::Tcp, "[fd09::1]:5004", (VIP6, 80));
    let addr = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let none = ConnFilter::default();
    let cases: &[(ConnFilter, &[u16])] = &[
        (none, &[0, 5000, 5001, 5002, 5003, 5004]),
        (
            ConnFilter {
                client: Some("10.9.0.0/24".parse().unwrap()),
                ..none
            },
            &[0, 5000, 5002, 5003],
        ),
        (
            ConnFilter {
                client: Some("fd09::/16".parse().unwrap()),
                ..none
            },
            &[5004],
        ),
        (
            ConnFilter {
                vip: addr(VIP),
                ..none
            },
            &[0, 5000, 5001, 5002, 5003],
        ),
        (
            ConnFilter {
                vip: addr(VIP),
                vport: Some(80),
                ..none
            },
            &[5000, 5001],
        ),
        (
            ConnFilter {
                vip: addr(VIP6),
                vport: Some(443),
                ..none
            },
            &[],
        ),
        (
            ConnFilter {
                real: addr("10.2.0.12"),
                ..none
            },
            &[5001],
        ),
        (
            ConnFilter {
                real: addr("10.2.0.99"),
                ..none
            },
            &[],
        ),
        (
            ConnFilter {
                state: ConnFilter::state_named("syn_recv"),
                ..none
            },
            &[5000, 5001, 5002, 5004],
        ),
        (
            ConnFilter {
                state: ConnFilter::state_named("NONE"),
                ..none
            },
            &[0],
        ),
        (
            ConnFilter {
                state: ConnFilter::state_named("assured"),
                ..none
            },
            &[],
        ),
        (
            ConnFilter {
                protocol: Some(17),
                ..none
            },
            &[5003],
        ),
        (
            ConnFilter {
                client: Some("10.0.0.0/8".parse().unwrap()),
                protocol: Some(6),
                vport: Some(443),
                ..none
            },
            &[0, 5002],
        ),
    ];
    for (filter, expected) in cases {
        let found = lab.found(0, *filter);
        let ports: BTreeSet<u16> = found.iter().map(|it| it.client.port).collect();
        assert_eq!(ports, expected.iter().copied().collect(), "{filter:?}");
    }
    assert_eq!(ConnFilter::state_named("no such"), None);
}

#[test]
fn no_more_is_kept_than_there_is_room_for_but_all_is_counted() {
    let mut lab = Lab::new(1);
    for n in 0..500 {
        lab.send(
            0,
            L4Proto::Tcp,
            &format!("10.9.0.1:{}", 1024 + n),
            (VIP, 80),
        );
        lab.send(
            0,
            L4Proto::Tcp,
            &format!("[fd09::1]:{}", 1024 + n),
            (VIP6, 80),
        );
    }
    for room in [0, 1, 700] {
        lab.ask(0, ConnFilter::default(), room);
        let (enquiry, _) = lab.answer(0);
        let found = enquiry.listing;
        assert_eq!((found.entries().len(), found.matching()), (room, 1000));
    }
}

#[test]
fn a_search_takes_small_steps_and_ends_in_time() {
    let mut lab = Lab::new(1);
    lab.send(0, L4Proto::Tcp, "10.9.0.1:5000", (VIP, 80));
    lab.ask(0, ConnFilter::default(), 10);
    let (enquiry, turns) = lab.answer(0);
    assert!(enquiry.complete);
    // 20,000 connections are in some 3,000 buckets, those of IPv6 unused.
    assert!((20..30).contains(&turns), "{turns}");

    lab.ask(0, ConnFilter::default(), 10);
    lab.workers[0].turn(lab.now);
    lab.now = lab.now + Duration::from_secs(2);
    let (enquiry, turns) = lab.answer(0);
    assert!(!enquiry.complete, "its time was over before its end");
    assert_eq!(turns, 1);
}

#[test]
fn only_so_many_searches_are_with_a_worker() {
    let mut lab = Lab::new(1);
    for _ in 0..ENQUIRIES {
        assert!(lab.publisher.enquiries()[0].has_room());
        lab.ask(0, ConnFilter::default(), 1);
    }
    assert!(!lab.publisher.enquiries()[0].has_room());
    for _ in 0..ENQUIRIES {
        lab.answer(0);
    }
    assert!(lab.publisher.enquiries()[0].has_room());
}
