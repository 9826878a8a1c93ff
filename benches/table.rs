//! What a change of the service table costs control: 10,000 virtual servers with 10 real servers behind NAT each. The
//! table before is freed in the time that is measured, as control does.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
};

use criterion::{Criterion, criterion_group, criterion_main};
use xvs::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        Hop, HopId, LbKind, Limits, Match, NextHop, RealId, RealSpec, Scheduler, ServiceId,
        ServiceKey, ServiceSpec, ServiceTable, TableBuilder,
    },
};

const SERVICES: u32 = 10_000;
const REALS: u32 = 10;

fn address(network: u8, n: u32) -> IpAddr {
    Ipv4Addr::from_bits(u32::from(network) << 24 | n).into()
}

fn service(n: u32) -> ServiceSpec {
    let reals = (n * REALS..(n + 1) * REALS).map(|id| RealSpec {
        id: RealId(id),
        epoch: NonZeroU32::MIN,
        endpoint: Endpoint::new(address(10, id), 8080),
        method: LbKind::Nat,
        weight: 1,
        last_weight: 1,
        limits: Limits::default(),
        available: true,
        failed: false,
        hop: HopId(id),
    });
    ServiceSpec {
        id: ServiceId(n),
        epoch: NonZeroU32::MIN,
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(address(198, n), 80),
        })],
        scheduler: Scheduler::Wrr,
        persistence: None,
        one_packet: false,
        reals: reals.collect(),
        draining: Vec::new(),
    }
}

fn hop(last: u8) -> Hop {
    let next = NextHop {
        port: PortId(0),
        source: MacAddr([2, 0, 0, 0, 0, 1]),
        destination: MacAddr([2, 0, 0, 0, 1, last]),
        mtu: 1500,
    };
    Hop {
        next: Some(next),
        local: None,
    }
}

/// All of them, and what they are built by.
fn built() -> (TableBuilder, ServiceTable) {
    let mut builder = TableBuilder::new();
    let specs: Vec<ServiceSpec> = (0..SERVICES).map(service).collect();
    builder.apply(&[], &specs).expect("they are legal");
    for id in 0..SERVICES * REALS {
        builder.set_hop(HopId(id), hop(1));
    }
    let table = builder.build(1);
    (builder, table)
}

fn changes(c: &mut Criterion) {
    let mut group = c.benchmark_group("table");
    group.sample_size(20);
    group.bench_function("full", |b| b.iter_with_large_drop(built));
    let (mut builder, mut table) = built();
    // A change after which there is another table.
    let mut bench = |name, change: &dyn Fn(&mut TableBuilder, u32)| {
        let mut round = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                round += 1;
                change(&mut builder, round);
                table = builder.build(u64::from(round));
            });
        });
    };
    bench("weight", &|builder, round| {
        let mut spec = service(round % SERVICES);
        spec.reals[3].weight = 1 + round % 7;
        builder.set(&spec).expect("it is legal");
    });
    bench("real_down", &|builder, round| {
        let mut spec = service(77);
        spec.reals[3].available = round.is_multiple_of(2);
        builder.set(&spec).expect("it is legal");
    });
    bench("hop", &|builder, round| {
        let [.., last] = round.to_be_bytes();
        builder.set_hop(HopId(round % (SERVICES * REALS)), hop(last));
    });
    bench("add_and_remove", &|builder, round| {
        let (one, other) = (SERVICES + round % 2, SERVICES + (round + 1) % 2);
        builder
            .apply(&[ServiceId(one)], &[service(other)])
            .expect("it is legal");
    });
    group.finish();
}

criterion_group!(benches, changes);
criterion_main!(benches);
