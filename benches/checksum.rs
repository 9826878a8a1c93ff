//! The cost of a changed header field: updating its checksum against computing it anew.

use std::{
    hint::black_box,
    net::{Ipv4Addr, Ipv6Addr},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use xvs::{
    addr::{L4Proto, MacAddr, PortId},
    balance::{
        NextHop,
        rewrite::{
            self, Ends, Family, Part, Place, Tunnel, TunnelKind, encapsulate, nat_to_real, overhead,
        },
    },
    wire::{checksum, ipv4, ipv6, tcp},
};

const HOP: NextHop = NextHop {
    port: PortId(0),
    source: MacAddr([2, 0, 0, 0, 0, 1]),
    destination: MacAddr([2, 0, 0, 0, 0, 2]),
    mtu: 1500,
};
const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const REALS4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 2, 0, 1), Ipv4Addr::new(10, 2, 0, 2)];
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const REALS6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 2),
];

/// A frame of a TCP segment with `data` bytes; its checksums are of no matter here.
fn frame(six: bool, data: u16) -> Vec<u8> {
    let segment = tcp::Repr {
        ports: [0x9c, 0x40, 0, 80],
        sequence: 1,
        acknowledgment: 2,
        flags: tcp::Flags::ACK,
    };
    let payload_len = 20 + data;
    let mut frame = vec![0; 12];
    if six {
        frame.extend([0x86, 0xdd]);
        let repr = ipv6::Repr {
            source: CLIENT6,
            destination: REALS6[0],
            traffic_class: 0,
            protocol: ipv4::PROTOCOL_TCP,
            hop_limit: 64,
            payload_len,
        };
        frame.extend(repr.emit());
    } else {
        frame.extend([8, 0]);
        let repr = ipv4::Repr {
            source: CLIENT4,
            destination: REALS4[0],
            protocol: ipv4::PROTOCOL_TCP,
            ttl: 64,
            payload_len,
        };
        frame.extend(repr.emit());
    }
    frame.extend(segment.emit());
    frame.extend(vec![0x5a; data.into()]);
    frame
}

/// A whole NAT rewrite against the sum alone that a rewrite without updates would have to compute.
fn nat(c: &mut Criterion) {
    let mut group = c.benchmark_group("nat");
    for data in [0, 1440] {
        let place = |transport| Place {
            network: 14,
            transport,
            protocol: L4Proto::Tcp,
            part: Part::Whole,
        };
        group.bench_function(BenchmarkId::new("update_v4", data), |b| {
            let (mut frame, mut n) = (frame(false, data), 0_u16);
            b.iter(|| {
                n = n.wrapping_add(1);
                let real = (REALS4[usize::from(n & 1)], n);
                nat_to_real(black_box(&mut frame), &place(20), real, &HOP)
            });
        });
        group.bench_function(BenchmarkId::new("recompute_v4", data), |b| {
            let frame = frame(false, data);
            let addresses = [CLIENT4.octets(), REALS4[0].octets()];
            b.iter(|| checksum::compute_with_pseudo_v4(addresses, 6, black_box(&frame[34..])));
        });
        group.bench_function(BenchmarkId::new("update_v6", data), |b| {
            let (mut frame, mut n) = (frame(true, data), 0_u16);
            b.iter(|| {
                n = n.wrapping_add(1);
                let real = (REALS6[usize::from(n & 1)], n);
                nat_to_real(black_box(&mut frame), &place(40), real, &HOP)
            });
        });
        group.bench_function(BenchmarkId::new("recompute_v6", data), |b| {
            let frame = frame(true, data);
            let addresses: [u8; 32] = frame[22..54].try_into().expect("32 bytes");
            b.iter(|| checksum::compute_with_pseudo_v6(&addresses, 6, black_box(&frame[54..])));
        });
    }
    group.finish();
}

/// Outer headers of the kinds that read no payload; the frame is of 1,440 bytes of data.
fn tunnel(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel");
    let ends = Ends::V4 {
        source: CLIENT4,
        destination: REALS4[1],
    };
    for (name, kind) in [
        ("ipip", TunnelKind::Ipip),
        ("gre", TunnelKind::Gre { checksum: false }),
        (
            "gue",
            TunnelKind::Gue {
                port: 6080,
                checksum: false,
            },
        ),
    ] {
        let tunnel = Tunnel {
            kind,
            ends,
            id: 0,
            pmtu_disc: true,
            source_port: rewrite::source_port(0x1234_5678),
        };
        group.bench_function(name, |b| {
            let room = usize::from(overhead(kind, Family::V4));
            let inner = frame(false, 1440);
            let mut grown = [vec![0; room], inner.clone()].concat();
            b.iter(|| {
                // The Ethernet header is where it was before, as in a frame that was just grown.
                grown[room..room + 14].copy_from_slice(&inner[..14]);
                encapsulate(black_box(&mut grown), 14, &tunnel, &HOP)
            });
        });
    }
    group.finish();
}

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

criterion_group!(benches, update, nat, tunnel);
criterion_main!(benches);
