//! Full tables and floods.

use super::{
    frames::{ACK, FIN, RST, SYN},
    *,
};

#[test]
fn a_syn_flood_on_a_full_table_loses_no_established_flow() {
    let mut lab = Lab::with_connections(service(vec![real(11), real(12)]), 500);
    let mut homes = Vec::new();
    for port in 0..300 {
        homes.push(lab.reaches(&segment(CLIENT, port, Say::Syn)).unwrap());
        lab.reaches(&segment(CLIENT, port, Say::Ack));
    }
    for n in 0..3000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        lab.send(&segment([172, 16 + a, b, c], 1, Say::Syn));
    }
    assert!(lab.stats.evicted.get() > 0);
    assert_eq!(lab.stats.drops(DropReason::TableFull).get(), 0);
    for (port, home) in (0..).zip(homes) {
        assert_eq!(
            lab.reaches(&segment(CLIENT, port, Say::Ack)),
            Some(home),
            "port {port}"
        );
    }
    let active = lab.stats.real(11).active.get() + lab.stats.real(12).active.get();
    assert_eq!(active, lab.worker.balancer().conns().len() as u64);
}

/// A random source, the same each time: a linear congruential generator's upper bits.
struct Strangers(u64);

impl Strangers {
    fn next(&mut self) -> Pkt {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let [a, b, c, d, e, f, ..] = self.0.to_be_bytes();
        let mut pkt = tcp((CLIENT4, u16::from_be_bytes([e, f])), (VIP4, 80), SYN);
        pkt.from.0 = [1 + a % 120, b, c, d].into();
        pkt
    }
}

/// Sends packets in full bursts.
fn pour(lab: &mut Lab, packets: impl Iterator<Item = Pkt>) {
    let mut waiting = 0;
    for pkt in packets {
        assert!(lab.worker.io_mut().inject(INGRESS, &pkt.frame()));
        waiting += 1;
        if waiting == BURST {
            lab.worker.turn(lab.now);
            lab.worker.io_mut().discard();
            waiting = 0;
        }
    }
    lab.worker.turn(lab.now);
    lab.worker.io_mut().discard();
}

#[test]
fn a_flood_of_ten_times_the_table_takes_no_established_flow_and_no_memory() {
    const ROOM: usize = 4000;
    let mut lab = Lab::with_connections(service(Vec::new()), ROOM);
    lab.publish_with(&[service(vec![real(11), real(12), real(13)])], |_| {});
    let flow = |n: u16, flags| {
        let [a, b] = n.to_be_bytes();
        let mut pkt = tcp((CLIENT4, 1024 + n), (VIP4, 80), flags);
        pkt.from.0 = [10, 9, a, b].into();
        pkt
    };
    let homes: Vec<_> = (0..1000)
        .map(|n| {
            let home = lab.goes_to(&flow(n, SYN)).unwrap();
            // Nine packets make it one that IPVS believes in, too.
            for _ in 0..9 {
                assert_eq!(lab.goes_to(&flow(n, ACK)), Some(home));
            }
            home
        })
        .collect();
    let memory = lab.worker.balancer().conns().memory();
    let mut strangers = Strangers(1);
    for second in 0..10 {
        pour(&mut lab, (0..ROOM).map(|_| strangers.next()));
        lab.advance(1);
        // New clients get in meanwhile.
        let new = tcp((CLIENT4, 1 + second), (VIP4, 80), SYN);
        let home = lab.goes_to(&new);
        assert!(home.is_some());
        assert_eq!(
            lab.goes_to(&tcp((CLIENT4, 1 + second), (VIP4, 80), ACK)),
            home
        );
    }
    assert!(lab.stats.evicted.get() > 30_000);
    assert_eq!(lab.dropped_for(DropReason::TableFull), 0);
    for (n, home) in (0..).zip(homes) {
        assert_eq!(lab.goes_to(&flow(n, ACK)), Some(home), "flow {n}");
    }
    assert_eq!(lab.worker.balancer().conns().memory(), memory);
    let counted = |id| {
        let real = lab.stats.real(id);
        real.active.get() + real.inactive.get()
    };
    let conns = lab.worker.balancer().conns().len() as u64;
    assert_eq!(counted(11) + counted(12) + counted(13), conns);
}

#[test]
fn a_flow_without_room_is_forwarded_where_its_scheduler_is_a_hash() {
    let hash = Scheduler::Sh {
        port: true,
        fallback: false,
    };
    for (scheduler, method, forwards) in [
        (hash, LbKind::Dr, true),
        (hash, LbKind::Tun(TunnelKind::Ipip), true),
        // Without an entry no answer finds its way back.
        (hash, LbKind::Nat, false),
        (Scheduler::Rr, LbKind::Dr, false),
    ] {
        let reals = || {
            vec![
                real_at(11, REAL4, 80, method),
                real_at(12, "10.2.0.12", 80, method),
            ]
        };
        let spec = || ServiceSpec {
            scheduler,
            ..service(reals())
        };
        let mut lab = Lab::with_connections(service(Vec::new()), 10);
        lab.publish_with(&[spec()], |_| {});
        let at = |port, flags| tcp((CLIENT4, port), (VIP4, 80), flags);
        let unknown = at(999, ACK);
        assert_eq!(lab.client(&unknown).unwrap().0, INGRESS, "a reset");
        // Fill the table with flows that stay.
        let mut port = 0;
        while lab.worker.balancer().conns().len() < 16 {
            port += 1;
            let home = lab.goes_to(&at(port, SYN));
            assert!(home.is_some());
            for _ in 0..9 {
                assert_eq!(lab.goes_to(&at(port, ACK)), home);
            }
        }
        let mut seen = std::collections::HashSet::new();
        for port in 1000..1020 {
            let home = lab.goes_to(&at(port, SYN));
            assert_eq!(home.is_some(), forwards, "{scheduler:?} {method:?}");
            if !forwards {
                continue;
            }
            seen.insert(home);
            // The flow goes on, to its end, though nothing is known of it.
            for flags in [ACK, FIN | ACK, RST] {
                assert_eq!(lab.goes_to(&at(port, flags)), home);
            }
            assert_eq!(lab.state(&at(port, ACK)), None);
        }
        if forwards {
            assert_eq!(seen.len(), 2, "by the hash, not all to one");
            assert_eq!(lab.stats.unstored.get(), 80);
            assert_eq!(lab.dropped_for(DropReason::TableFull), 0);
            // As long as such a flow may idle; then strangers are reset again.
            lab.advance(899);
            assert!(lab.goes_to(&at(1000, ACK)).is_some());
            lab.advance(901);
            assert_eq!(lab.client(&at(1000, ACK)).unwrap().0, INGRESS);
        } else {
            assert_eq!(lab.dropped_for(DropReason::TableFull), 20);
            assert_eq!(lab.stats.unstored.get(), 0);
        }
    }
}

#[test]
fn a_client_endpoint_has_connections_to_fifty_virtual_servers() {
    for method in [LbKind::Dr, LbKind::Nat] {
        let specs: Vec<_> = (0..50)
            .map(|n: u16| {
                let real = real_at(11 + u32::from(n), REAL4, 8000 + n, method);
                let what = address(L4Proto::Tcp, VIP4, 80 + n);
                served(n.into(), what, vec![real])
            })
            .collect();
        let mut lab = Lab::with_connections(service(Vec::new()), 5000);
        lab.publish_with(&specs, |_| {});
        for flags in [SYN, ACK] {
            for n in 0..50 {
                let pkt = tcp((CLIENT4, 4000), (VIP4, 80 + n), flags);
                assert_eq!(lab.goes_to(&pkt), Some(11 + u32::from(n)));
            }
        }
        assert_eq!(lab.stats.connections.get(), 50);
        assert_eq!(lab.stats.evicted.get(), 0);
        if method == LbKind::Nat {
            for n in 0..50 {
                let answer = tcp((REAL4, 8000 + n), (CLIENT4, 4000), ACK);
                let vip = (VIP4.parse().unwrap(), 80 + n);
                let outside = answer.renamed(vip, answer.to);
                assert_eq!(lab.answer(11, &answer), to_router(&outside));
            }
        }
    }
}

#[test]
fn a_stranger_to_a_real_server_behind_nat_is_reset_though_others_found_no_room() {
    let hash = Scheduler::Sh {
        port: true,
        fallback: false,
    };
    let hashed = |id, port, method| ServiceSpec {
        scheduler: hash,
        ..served(
            id,
            address(L4Proto::Tcp, VIP4, port),
            vec![real_at(11 + id, REAL4, 80, method)],
        )
    };
    let mut lab = Lab::with_connections(service(Vec::new()), 10);
    let specs = [hashed(0, 80, LbKind::Dr), hashed(1, 81, LbKind::Nat)];
    lab.publish_with(&specs, |_| {});
    let mut port = 0;
    while lab.stats.unstored.get() == 0 {
        port += 1;
        for flags in [SYN, ACK] {
            let pkt = tcp((CLIENT4, port), (VIP4, 80), flags);
            assert_eq!(lab.goes_to(&pkt), Some(11));
        }
    }
    let stranger = |vport| tcp((CLIENT4, 60_000), (VIP4, vport), ACK);
    assert_eq!(lab.client(&stranger(80)).unwrap().0, EGRESS);
    assert_eq!(lab.client(&stranger(81)).unwrap().0, INGRESS, "a reset");
}
