//! Picking a real server for a new connection.

use std::num::NonZeroU32;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use xvs::balance::{Cursor, Entry, Picker, RealId, RealRef, Scheduler};

fn picks(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedulers");
    for scheduler in [Scheduler::RoundRobin, Scheduler::WeightedRoundRobin] {
        for reals in [4_u32, 64, 1_000] {
            let entries = (0..reals).map(|n| Entry {
                real: RealRef {
                    id: RealId(n),
                    epoch: NonZeroU32::MIN,
                },
                weight: 1 + n % 8,
            });
            let picker = Picker::new(1, scheduler, entries.collect());
            let mut cursor = Cursor::default();
            group.bench_function(BenchmarkId::new(scheduler.name(), reals), |b| {
                b.iter(|| picker.pick(&mut cursor));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, picks);
criterion_main!(benches);
