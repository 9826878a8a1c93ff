//! What reading a configuration costs: 10,000 virtual servers with 10 real servers each, parsed and validated; and as
//! many lines that definitions and repetitions make.

use std::fmt::Write;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xvs::config;

const SERVICES: u32 = 10_000;
const REALS: u32 = 10;

/// As a generator writes it.
fn written() -> String {
    let mut text = String::new();
    for n in 0..SERVICES {
        let [_, b, c, d] = n.to_be_bytes();
        let head = "delay_loop 6\n lb_algo wrr\n lb_kind NAT\n protocol TCP";
        let _ = writeln!(text, "virtual_server 10.{}.{c}.{d} 80 {{\n {head}", 100 + b);
        for id in n * REALS..(n + 1) * REALS {
            let (host, port) = (id % 1_000, 1_000 + id / 250);
            let (c, d) = (1 + host / 250, 1 + host % 250);
            let _ = writeln!(text, " real_server 10.0.{c}.{d} {port} {{\n  weight 1\n }}");
        }
        text.push_str("}\n");
    }
    text
}

/// As a person writes it.
fn repeated() -> String {
    "$VS= \\\nvirtual_server 10.1${A}.${B}.${C} 80 { \\\n delay_loop 6 \\\n lb_algo wrr \\\n lb_kind NAT \\\n \
     protocol TCP \\\n ~SEQ(R, 10) real_server 10.0.$C.$R ${B}000 { weight 1 } \\\n}\n\
     ~SEQ(A, 4) ~SEQ(B, 10) ~SEQ(C, 250) $VS\n"
        .to_owned()
}

fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("config");
    group.sample_size(10);
    for (name, text) in [("written", written()), ("repeated", repeated())] {
        group.throughput(Throughput::Elements((SERVICES * REALS).into()));
        group.bench_function(name, |b| {
            b.iter(|| {
                let parsed = config::parse("f", text.as_bytes());
                assert!(!parsed.has_errors(), "{}", parsed.report());
                assert_eq!(parsed.config.virtual_servers.len(), SERVICES as usize);
                parsed
            });
        });
    }
    group.finish();
}

criterion_group!(benches, reading);
criterion_main!(benches);
