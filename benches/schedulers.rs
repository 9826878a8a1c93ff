//! Picking a real server for a new connection, by each scheduler.

use std::{net::Ipv4Addr, num::NonZeroU32};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use xvs::{
    addr::Endpoint,
    balance::{
        Ask, Entry, Limits, MaglevSize, Picker, RealId, RealRef, Scheduler, SchedulerState,
        ServiceId,
    },
    stats::WorkerStats,
    time::Tick,
};

const PORT: bool = false;
const FALLBACK: bool = false;

const SCHEDULERS: [Scheduler; 14] = [
    Scheduler::Rr,
    Scheduler::Wrr,
    Scheduler::Lc,
    Scheduler::Wlc,
    Scheduler::Sed,
    Scheduler::Nq,
    Scheduler::Fo,
    Scheduler::Ovf,
    Scheduler::Sh {
        port: PORT,
        fallback: FALLBACK,
    },
    Scheduler::Dh,
    Scheduler::Mh {
        port: PORT,
        fallback: FALLBACK,
        size: MaglevSize::DEFAULT,
    },
    Scheduler::Lblc,
    Scheduler::Lblcr,
    Scheduler::Twos,
];

/// Real servers with weights of 1 to 8.
fn entries(reals: u32) -> Vec<Entry> {
    (0..reals)
        .map(|n| Entry {
            real: RealRef {
                id: RealId(n),
                epoch: NonZeroU32::MIN,
            },
            endpoint: Endpoint::new(Ipv4Addr::from_bits(0x0a00_0000 | n).into(), 80),
            weight: 1 + n % 8,
            last_weight: 1 + n % 8,
            limits: Limits::default(),
            listed: true,
        })
        .collect()
}

/// One pick, with as many active connections as the weight says, so that no one is idle.
fn picks(c: &mut Criterion) {
    let stats = WorkerStats::new();
    let mut state = SchedulerState::new(1);
    let mut group = c.benchmark_group("schedulers");
    for scheduler in SCHEDULERS {
        for reals in [16, 1_000] {
            let entries = entries(reals);
            for entry in &entries {
                let counters = stats.real(entry.real.id.0);
                counters.claim(entry.real.epoch.get());
                counters.active.set(entry.weight.into());
            }
            let picker = Picker::new(1, scheduler, &entries);
            let mut client = 0x0a01_0000_u32;
            group.bench_function(BenchmarkId::new(scheduler.name(), reals), |b| {
                b.iter(|| {
                    client = client.wrapping_add(1);
                    let ask = Ask {
                        client: Ipv4Addr::from_bits(client).into(),
                        client_port: 40_000,
                        vip: Ipv4Addr::from_bits(0x0a02_0000 | (client % 1_000)).into(),
                        tick: Tick::from_raw(1),
                        stats: &stats,
                    };
                    state.pick(ServiceId(0), &picker, &ask)
                });
            });
        }
    }
    group.finish();
}

/// Making the table of `mh`, which is done at a change of the real servers.
fn maglev(c: &mut Criterion) {
    let scheduler = Scheduler::Mh {
        port: PORT,
        fallback: FALLBACK,
        size: MaglevSize::DEFAULT,
    };
    let mut group = c.benchmark_group("maglev");
    for reals in [16, 1_000] {
        let entries = entries(reals);
        group.bench_function(BenchmarkId::new("build", reals), |b| {
            b.iter(|| Picker::new(1, scheduler, &entries));
        });
    }
    group.finish();
}

criterion_group!(benches, picks, maglev);
criterion_main!(benches);
