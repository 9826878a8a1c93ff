//! A real keepalived's traffic: heard, and produced again.

use super::*;
use crate::{
    vrrp::sim::unicast,
    wire::{pcap, vrrp},
};

/// The two routers that were recorded: node 0 with priority 150, node 1 with priority 100.
fn recorded(capture: &str) -> [Settings; 2] {
    let routers = [settings(0, 150), settings(1, 100)];
    let protect = |it: Settings| Settings {
        password: Some(*b"s3cr3t78"),
        ..it
    };
    match capture {
        "v2-noauth" => routers,
        "v2-pass" => routers.map(protect),
        _ => {
            let [first, second] = routers.map(protect);
            [unicast(first, 0, 2), unicast(second, 1, 2)]
        }
    }
}

#[test]
fn recorded_adverts_are_accepted_by_the_other_router() {
    for (name, count, capture) in pcap::CAPTURES {
        let mut benches = recorded(name).map(Bench::new);
        let mut accepted = 0;
        for packet in pcap::ipv4_packets(capture, vrrp::PROTOCOL) {
            let source = Datagram::parse(&packet).unwrap().source;
            let bench = &mut benches[usize::from(source == address(0))];
            let verdict = bench.router.handle_packet(bench.now, ETH, &packet);
            assert_eq!(verdict, Reception::Accepted(bench.id), "{name}");
            assert_eq!(bench.status().counters.address_list_mismatches, 0, "{name}");
            accepted += 1;
        }
        assert_eq!(accepted, *count, "{name}");
    }
}

/// The whole recorded story: node 0 wins, sends five adverts, is stopped; node 1 takes over
/// within its skew, sends nine, is stopped.
#[test]
fn the_recorded_story_is_told_again_byte_for_byte() {
    for (name, _, capture) in pcap::CAPTURES {
        let mut lan = Lan::new(1, recorded(name).to_vec());
        // The master-down time of priority 150, four intervals, and half a second.
        lan.run(Duration::from_nanos(3_414_062_500) + millis(4500));
        lan.with(0, |router, _, now| router.handle_stop(now));
        // The skew of priority 100, eight intervals and a bit.
        lan.run(Duration::from_nanos(609_375_000) + millis(8400));
        lan.with(1, |router, _, now| router.handle_stop(now));
        lan.run(secs(1));

        let mut sent: Vec<_> = lan
            .nodes
            .iter()
            .flat_map(|node| node.sent.clone())
            .collect();
        sent.sort_by_key(|(at, _)| *at);
        let sent: Vec<Vec<u8>> = sent.into_iter().map(|(_, packet)| packet).collect();
        assert_eq!(sent, pcap::ipv4_packets(capture, vrrp::PROTOCOL), "{name}");
        // Each became master once and announced twice (node 0 was stopped before its second set).
        let sets = |node: usize| lan.nodes[node].garps.len();
        assert_eq!((sets(0), sets(1)), (1, 2), "{name}");
    }
}
