//! Finding a flow in the connection table, one at a time, each drawn at random from all of them, as the table
//! grows; and what a flow takes of memory.
//!
//! Claims: at most 64 bytes an IPv4 flow by DR or TUN and 96 by NAT; ten million flows are held. A flow of NAT is one
//! entry for both directions, so it takes no more than one of DR.
//!
//! Without the worker's prefetching: this is what a search waits for memory. Each table has room for as many flows
//! as it holds, in huge pages where the kernel gives them, as in a worker.

use std::{hint::black_box, net::Ipv6Addr, num::NonZeroU32, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use xvs::{
    balance::{ConnTable, FlowKey, Key4, Key6, NewConn, RealId, RealRef, State, Timeouts, Turn},
    stats::WorkerStats,
    sys::huge_pages,
    time::Tick,
};

fn key4(flow: u32) -> Key4 {
    let [a, b, c, d] = flow.to_be_bytes();
    let client = ([10, a, b, c].into(), u16::from_be_bytes([4, d]));
    Key4::new(client, ([192, 0, 2, 1].into(), 80), 6)
}

fn key6(flow: u32) -> Key6 {
    let [a, b, c, d] = flow.to_be_bytes().map(u16::from);
    let client = Ipv6Addr::new(0x2001, 0xdb8, 2, a, 0, 0, b, c);
    let vip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    Key6::new((client, 1024 + d), (vip, 80), 6)
}

/// A table that is as full as promised.
fn full<K: FlowKey>(flows: u32, key: fn(u32) -> K) -> ConnTable<K> {
    let (stats, timeouts) = (WorkerStats::new(), Timeouts::default());
    let turn = Turn {
        tick: Tick::from_raw(1),
        timeouts: &timeouts,
        stats: &stats,
    };
    let mut table = ConnTable::new(flows as usize, 0x5eed);
    let (buckets, records) = table.parts();
    let _ = huge_pages::back(buckets) & huge_pages::back(records);
    for flow in 0..flows {
        let key = key(flow);
        let new = NewConn {
            key,
            candidates: table.candidates(&key),
            real: RealRef {
                id: RealId(0),
                epoch: NonZeroU32::MIN,
            },
            state: State::Established,
            template: None,
            guess: None,
        };
        assert!(table.insert(&new, turn).is_some());
    }
    assert_eq!(table.len(), flows as usize, "every flow is held");
    table
}

fn lookups<K: FlowKey>(c: &mut Criterion, name: &str, key: fn(u32) -> K) {
    let mut group = c.benchmark_group(name);
    for flows in [1_000, 10_000, 100_000, 1_000_000, 10_000_000] {
        let mut table = None;
        let mut random = fastrand::Rng::with_seed(7);
        group.bench_function(BenchmarkId::new("hit", flows), |b| {
            let table = table.get_or_insert_with(|| full(flows, key));
            b.iter(|| {
                let key = key(random.u32(..flows));
                let found = table.find(&key, table.candidates(&key));
                assert!(found.is_some());
                black_box(found)
            });
        });
        if let Some(table) = table {
            let bytes = table.memory() as f64 / table.len() as f64;
            println!("{name}: {flows} flows held, {bytes:.1} bytes a flow");
        }
    }
    group.finish();
}

fn both(c: &mut Criterion) {
    lookups(c, "conntable", key4);
    lookups(c, "conntable6", key6);
    let (key, table) = (key4(77), ConnTable::<Key4>::new(1 << 20, 0x5eed));
    c.bench_function("conntable/candidates", |b| {
        b.iter(|| table.candidates(black_box(&key)))
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = both
}
criterion_main!(benches);
