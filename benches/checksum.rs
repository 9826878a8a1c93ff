//! The cost of a changed header field: updating its checksum against computing it anew.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use xvs::wire::{checksum, ipv4};

fn update(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    group.bench_function("update_word", |b| {
        b.iter(|| {
            checksum::update_word(
                black_box([0xdd, 0x2f]),
                black_box([64, 6]),
                black_box([63, 6]),
            )
        });
    });
    group.bench_function("decrement_ttl", |b| {
        let mut header = [
            0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        b.iter(|| ipv4::decrement_ttl(black_box(&mut header)));
    });
    for bytes in [20, 1460] {
        let data = vec![0x5a; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::new("compute", bytes), &data, |b, data| {
            b.iter(|| checksum::compute(black_box(data)));
        });
    }
    group.finish();
}

criterion_group!(benches, update);
criterion_main!(benches);
