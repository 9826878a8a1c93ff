//! Finding a flow in the connection table, one at a time, each drawn at random from all of them.
//!
//! Without the worker's prefetching: this is what a search waits for memory.

use std::{hint::black_box, num::NonZeroU32};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use xvs::{
    balance::{ConnTable, Key4, NewConn, RealId, RealRef, State, Timeouts, Turn},
    stats::WorkerStats,
    time::Tick,
};

fn key(flow: u32) -> Key4 {
    let [a, b, c, d] = flow.to_be_bytes();
    let client = ([10, a, b, c].into(), u16::from_be_bytes([4, d]));
    Key4::new(client, ([192, 0, 2, 1].into(), 80), 6)
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("conntable");
    let (stats, timeouts) = (WorkerStats::new(), Timeouts::default());
    let turn = Turn {
        tick: Tick::from_raw(1),
        timeouts: &timeouts,
        stats: &stats,
    };
    for flows in [1_u32, 1_000, 65_536, 1_000_000] {
        let mut table = ConnTable::new(1 << 20, 0x5eed);
        for flow in 0..flows {
            let key = key(flow);
            let new = NewConn {
                key,
                home: table.home(&key),
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
        let mut random = fastrand::Rng::with_seed(7);
        group.bench_function(BenchmarkId::new("hit", flows), |b| {
            b.iter(|| {
                let key = key(random.u32(..flows));
                let found = table.find(&key, table.home(&key));
                assert!(found.is_some());
                black_box(found)
            });
        });
    }
    let key = key(77);
    let table = ConnTable::new(1 << 20, 0x5eed);
    group.bench_function("home", |b| b.iter(|| table.home(black_box(&key))));
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
