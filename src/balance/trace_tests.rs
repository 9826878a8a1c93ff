//! Schedulers and persistence against what the kernel's IPVS did: recorded traces, replayed.
//!
//! IPVS keeps its real servers newest first, so a list in the order of a configuration is compared
//! in reverse.

use std::{net::Ipv4Addr, num::NonZeroU32, time::Duration};

use serde::Deserialize;

use super::*;
use crate::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    stats::WorkerStats,
    time::Tick,
    wire::tcp::Flags,
};

const TRACES: &str = include_str!("testdata/ipvs-traces.json");
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

#[derive(Deserialize)]
struct Trace {
    name: String,
    sched: String,
    #[serde(default)]
    opts: String,
    /// Last octet and weight, in the order added.
    dests: Vec<(u32, u32)>,
    events: Vec<Event>,
    picks: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Event {
    /// `weight` or `add`: last octet, weight.
    Set(String, u32, u32),
    /// `open`: connections, source.
    From(Open, u32, Ipv4Addr),
    /// `open`: connections; `del`: last octet.
    Short(String, u32),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Open {
    Open,
}

fn table(trace: &Trace, generation: u64, dests: &[(u32, u32)]) -> ServiceTable {
    let reals = dests.iter().rev().map(|(octet, weight)| RealSpec {
        id: RealId(*octet),
        epoch: NonZeroU32::MIN,
        endpoint: Endpoint::new([10, 2, 0, 1].into(), 8080),
        method: Method::DirectRouting,
        weight: *weight,
        available: true,
        next_hop: Some(NextHop {
            port: PortId(0),
            source: MacAddr::ZERO,
            destination: MacAddr::ZERO,
            mtu: 1500,
        }),
        local: None,
    });
    let scheduler = [Scheduler::RoundRobin, Scheduler::WeightedRoundRobin]
        .into_iter()
        .find(|s| s.name() == trace.sched)
        .unwrap();
    let persistence = trace.opts.contains("-p 50").then(|| Persistence {
        timeout: Duration::from_secs(50),
        prefix: if trace.opts.contains("-M 255.255.255.0") {
            24
        } else {
            32
        },
    });
    let spec = ServiceSpec {
        id: ServiceId(0),
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(VIP.into(), 80),
        })],
        one_packet: false,
        scheduler,
        persistence,
        reals: reals.collect(),
    };
    ServiceTable::build(generation, &[spec], Environment::default()).unwrap()
}

fn replay(trace: &Trace) -> Vec<u32> {
    let mut balancer = Balancer::new(1000, 1);
    let mut dests = trace.dests.clone();
    let mut table_now = ServiceTable::empty();
    // The real servers were added one by one, and IPVS looked at its list after each.
    for added in 0..=dests.len() {
        table_now = table(trace, 1, &dests[..added]);
        balancer.follow(&table_now);
    }
    let stats = WorkerStats::new();
    let (mut picks, mut port) = (Vec::new(), 1024);
    for (generation, event) in (2..).zip(&trace.events) {
        let (opens, client) = match event {
            Event::From(Open::Open, count, client) => (*count, *client),
            Event::Short(what, count) if what == "open" => (*count, Ipv4Addr::new(10, 1, 0, 2)),
            Event::Short(_, octet) => {
                dests.retain(|(it, _)| it != octet);
                (0, VIP)
            }
            Event::Set(what, octet, weight) if what == "add" => {
                dests.push((*octet, *weight));
                (0, VIP)
            }
            Event::Set(_, octet, weight) => {
                dests.iter_mut().find(|(it, _)| it == octet).unwrap().1 = *weight;
                (0, VIP)
            }
        };
        table_now = if opens == 0 {
            table(trace, generation, &dests)
        } else {
            table_now
        };
        for _ in 0..opens {
            port += 1;
            let key = Key4::new((client, port), (VIP, 80), 6);
            let mut packet = Packet {
                key,
                home: balancer.conns().home(&key),
                kind: Kind::Tcp(Flags::SYN),
                ..Packet::NONE
            };
            let turn = Turn {
                tick: Tick::from_raw(1),
                timeouts: table_now.timeouts(),
                stats: &stats,
            };
            match balancer.four(&table_now, turn).decide(&mut packet) {
                Verdict::Forward(real) => picks.push(real.0),
                other => panic!("{}: {other:?}", trace.name),
            }
        }
    }
    picks
}

#[test]
fn picks_are_those_of_ipvs() {
    let traces: Vec<Trace> = serde_json::from_str(TRACES).unwrap();
    assert_eq!(traces.len(), 8);
    for trace in &traces {
        assert_eq!(replay(trace), trace.picks, "{}", trace.name);
    }
}
