//! Schedulers, thresholds and persistence against what the kernel's IPVS did: recorded traces,
//! replayed.
//!
//! A real server that was deleted drains, as control has it drain: it keeps its slot, out of the
//! list, until it is added again, behind all others.
//!
//! Two things are not as in IPVS, and traces end before they show. A persistent client that came
//! while nobody took connections, its real server deleted, is led there again when that is added
//! again; IPVS lets it be scheduled. And the first lap of `wrr` after another scheduler is that of
//! a new virtual server.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::{
    addr::{Endpoint, L4Proto},
    stats::WorkerStats,
    time::Tick,
    wire::tcp::Flags,
};

const TRACES: &str = include_str!("testdata/ipvs-traces.json");
/// Ten changes each: weights, 0 among them, real servers deleted, added and added again, closed
/// connections.
const CHANGES: &str = include_str!("testdata/ipvs-changes.json");
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const VIP6: &str = "fd01::100";

#[derive(Deserialize)]
struct Trace {
    name: String,
    sched: String,
    /// Options of ipvsadm.
    #[serde(default)]
    opts: String,
    /// 6 for IPv6.
    #[serde(default)]
    af: u8,
    /// 1 when the virtual server was a firewall mark, for connections to many addresses.
    #[serde(default)]
    mark: u8,
    /// Last octet, weight, and perhaps upper and lower threshold, in the order added.
    dests: Vec<Vec<u32>>,
    /// `open`: connections, and perhaps their source, destination and source port. `weight`, `add`:
    /// as in `dests`. `del`: last octet. `sched`: a scheduler. `close`: last octet and perhaps how
    /// many. `reset`: the same by a RST, and 13 s later. `wait`: seconds, of which five were a day
    /// to `lblcr`.
    events: Vec<Vec<Value>>,
    /// Last octets; none where the connection was refused.
    picks: Vec<Option<u32>>,
}

#[derive(Clone, Copy)]
struct Dest {
    octet: u32,
    weight: u32,
    last_weight: u32,
    limits: Limits,
    deleted: bool,
}

impl Dest {
    fn new(numbers: &[u32]) -> Self {
        Self {
            octet: numbers[0],
            weight: numbers[1],
            last_weight: numbers[1],
            limits: Limits {
                upper: numbers.get(2).copied().unwrap_or(0),
                lower: numbers.get(3).copied().unwrap_or(0),
            },
            deleted: false,
        }
    }
}

fn scheduler(name: &str, opts: &str) -> Scheduler {
    let has = |option| opts.contains(option);
    match name {
        "sh" => Scheduler::Sh {
            port: has("sh-port"),
            fallback: has("sh-fallback"),
        },
        "mh" => Scheduler::Mh {
            port: has("mh-port"),
            fallback: has("mh-fallback"),
            size: MaglevSize::new(4093).unwrap(),
        },
        name => {
            use Scheduler::{Dh, Fo, Lblc, Lblcr, Lc, Nq, Ovf, Rr, Sed, Wlc, Wrr};
            [Rr, Wrr, Lc, Wlc, Sed, Nq, Fo, Ovf, Dh, Lblc, Lblcr]
                .into_iter()
                .find(|s| s.name() == name)
                .unwrap()
        }
    }
}

/// A virtual server with its real servers in the order of their addition.
fn spec(trace: &Trace, scheduler: Scheduler, dests: &[Dest]) -> ServiceSpec {
    let reals = dests.iter().map(|dest| RealSpec {
        id: RealId(dest.octet),
        epoch: NonZeroU32::MIN,
        endpoint: if trace.af == 6 {
            // The recorder wrote the number as it stands: fd02::11.
            Endpoint::new(format!("fd02::{}", dest.octet).parse().unwrap(), 8080)
        } else {
            Endpoint::new(format!("10.2.0.{}", dest.octet).parse().unwrap(), 8080)
        },
        method: LbKind::Dr,
        weight: dest.weight,
        last_weight: dest.last_weight,
        limits: dest.limits,
        available: !dest.deleted,
        failed: false,
        hop: HopId(0),
    });
    ServiceSpec {
        id: ServiceId(0),
        epoch: NonZeroU32::MIN,
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(VIP.into(), 80),
        })],
        one_packet: false,
        scheduler,
        persistence: trace.opts.contains("-p 50").then(|| Persistence {
            timeout: Duration::from_secs(50),
            prefix: if trace.opts.contains("-M 255.255.255.0") {
                24
            } else {
                32
            },
        }),
        reals: reals.collect(),
        draining: Vec::new(),
    }
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is still in the table, inactive.
    Fin,
    /// It is gone.
    Reset,
}

/// Who is asked where connections go.
trait Asked {
    /// The real servers changed.
    fn change(&mut self, spec: &ServiceSpec);
    /// Where a new connection goes.
    fn open(&mut self, client: (IpAddr, u16), vip: IpAddr) -> Option<u32>;
    /// A client ends its connection, which went to `dest`.
    fn end(&mut self, client: (IpAddr, u16), dest: u32, end: End);
    /// Time passes.
    fn wait(&mut self, ticks: u32);
}

/// The whole balancer, fed with packets.
struct Whole {
    balancer: Balancer,
    table: ServiceTable,
    stats: WorkerStats,
    now: Tick,
}

impl Whole {
    fn new() -> Self {
        Self {
            balancer: Balancer::new(1000, 1),
            table: ServiceTable::empty(),
            stats: WorkerStats::new(),
            now: Tick::from_raw(1),
        }
    }

    fn packet(&mut self, (client, port): (IpAddr, u16), flags: Flags) -> Verdict {
        let IpAddr::V4(client) = client else {
            panic!("not by packets")
        };
        let key = Key4::new((client, port), (VIP, 80), 6);
        let mut packet = Packet {
            key,
            candidates: self.balancer.conns().candidates(&key),
            kind: Kind::Tcp(flags),
            ..Packet::NONE
        };
        let turn = Turn {
            tick: self.now,
            timeouts: self.table.timeouts(),
            stats: &self.stats,
        };
        self.balancer.four(&self.table, turn).decide(&mut packet)
    }
}

impl Asked for Whole {
    fn change(&mut self, spec: &ServiceSpec) {
        let generation = self.table.generation() + 1;
        let specs = std::slice::from_ref(spec);
        self.table = ServiceTable::build(generation, specs, Environment::default()).unwrap();
        self.balancer.follow(&self.table);
    }

    fn open(&mut self, client: (IpAddr, u16), vip: IpAddr) -> Option<u32> {
        assert_eq!(vip, VIP);
        match self.packet(client, Flags::SYN) {
            Verdict::Forward(real) => {
                self.packet(client, Flags::ACK);
                Some(real.0)
            }
            Verdict::Reply(crate::stats::ReplyReason::NoReal) => None,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, client: (IpAddr, u16), dest: u32, end: End) {
        let flags = match end {
            End::Fin => Flags::FIN,
            End::Reset => Flags::RST,
        };
        assert_eq!(self.packet(client, flags), Verdict::Forward(RealId(dest)));
    }

    fn wait(&mut self, ticks: u32) {
        self.now = Tick::from_raw(self.now.raw() + ticks);
        let turn = Turn {
            tick: self.now,
            timeouts: self.table.timeouts(),
            stats: &self.stats,
        };
        self.balancer.sweep(10_000, turn);
    }
}

/// The schedulers alone, where the balancer does not yet take the packets.
struct Alone {
    state: SchedulerState,
    picker: Picker,
    limits: Vec<(u32, Limits)>,
    stats: WorkerStats,
    now: Tick,
}

impl Alone {
    fn new() -> Self {
        Self {
            state: SchedulerState::new(1),
            picker: Picker::new(1, Scheduler::Rr, &[]),
            limits: Vec::new(),
            stats: WorkerStats::new(),
            now: Tick::from_raw(1),
        }
    }
}

impl Asked for Alone {
    fn change(&mut self, spec: &ServiceSpec) {
        let entries: Vec<Entry> = spec.reals.iter().map(Entry::from).collect();
        self.limits = spec.reals.iter().map(|r| (r.id.0, r.limits)).collect();
        self.picker = Picker::new(1, spec.scheduler, &entries);
        self.state.follow(spec.id, &self.picker);
    }

    fn open(&mut self, (client, client_port): (IpAddr, u16), vip: IpAddr) -> Option<u32> {
        let ask = Ask {
            client,
            client_port,
            vip,
            tick: self.now,
            stats: &self.stats,
        };
        let real = self.state.pick(ServiceId(0), &self.picker, &ask)?;
        let counters = self.stats.real(real.id.0);
        counters.claim(1);
        counters.active.add(1);
        let (_, limits) = self.limits.iter().find(|(id, _)| *id == real.id.0).unwrap();
        self.state.connected(real, *limits, &self.stats);
        Some(real.id.0)
    }

    fn end(&mut self, _: (IpAddr, u16), dest: u32, end: End) {
        let counters = self.stats.real(dest);
        counters.active.sub(1);
        if end == End::Fin {
            counters.inactive.add(1);
        }
    }

    fn wait(&mut self, ticks: u32) {
        self.now = Tick::from_raw(self.now.raw() + ticks);
    }
}

/// A connection that is open: its client, where it goes.
type Held = ((IpAddr, u16), u32);

fn end_some(asked: &mut impl Asked, held: &mut Vec<Held>, dest: u32, most: usize, how: End) {
    let mut left = most;
    held.retain(|(client, to)| {
        let ends = *to == dest && left > 0;
        if ends {
            asked.end(*client, dest, how);
            left -= 1;
        }
        !ends
    });
}

/// The picks; the real servers of the start are added one by one, or all `at_once` as from a file.
fn replay(trace: &Trace, mut asked: impl Asked, at_once: bool) -> Vec<Option<u32>> {
    let mut dests = Vec::new();
    let mut algo = scheduler(&trace.sched, &trace.opts);
    for dest in &trace.dests {
        dests.push(Dest::new(dest));
        if !at_once || dests.len() == trace.dests.len() {
            asked.change(&spec(trace, algo, &dests));
        }
    }
    let (mut picks, mut held, mut fresh_port) = (Vec::new(), Vec::new(), 1024);
    for event in &trace.events {
        let numbers: Vec<u32> = event[1..]
            .iter()
            .filter_map(|v| v.as_u64()?.try_into().ok())
            .collect();
        let addr = |at: usize| Some(event.get(at)?.as_str()?.parse::<IpAddr>().unwrap());
        match event[0].as_str().unwrap() {
            "open" => {
                let client = addr(2).unwrap_or_else(|| [10, 1, 0, 2].into());
                let usual = if trace.af == 6 {
                    VIP6.parse().unwrap()
                } else {
                    VIP.into()
                };
                let vip = addr(3).unwrap_or(usual);
                for _ in 0..numbers[0] {
                    fresh_port += 1;
                    let said = numbers.get(1).map(|port| u16::try_from(*port).unwrap());
                    let client = (client, said.unwrap_or(fresh_port));
                    let pick = asked.open(client, vip);
                    held.extend(pick.map(|dest| (client, dest)));
                    picks.push(pick);
                }
            }
            "close" => {
                let most = numbers.get(1).map_or(usize::MAX, |n| *n as usize);
                end_some(&mut asked, &mut held, numbers[0], most, End::Fin);
            }
            "reset" => {
                let most = numbers[1] as usize;
                end_some(&mut asked, &mut held, numbers[0], most, End::Reset);
                asked.wait(13 * Tick::PER_SECOND);
            }
            "wait" => asked.wait(numbers[0] * (24 * 60 * 60 / 5) * Tick::PER_SECOND),
            "sched" => {
                algo = scheduler(event[1].as_str().unwrap(), &trace.opts);
                asked.change(&spec(trace, algo, &dests));
            }
            what => {
                let known = dests.iter().position(|dest| dest.octet == numbers[0]);
                match (what, known) {
                    ("add", _) => {
                        known.map(|at| dests.remove(at));
                        dests.push(Dest::new(&numbers));
                    }
                    ("del", Some(at)) => dests[at].deleted = true,
                    ("weight", Some(at)) => {
                        let before = dests[at].last_weight;
                        dests[at] = Dest::new(&numbers);
                        if dests[at].weight == 0 {
                            dests[at].last_weight = before;
                        }
                    }
                    _ => panic!("{event:?}"),
                }
                asked.change(&spec(trace, algo, &dests));
            }
        }
    }
    picks
}

#[test]
fn picks_are_those_of_ipvs() {
    let mut traces: Vec<Trace> = serde_json::from_str(TRACES).unwrap();
    let changes: Vec<Trace> = serde_json::from_str(CHANGES).unwrap();
    assert_eq!((traces.len(), changes.len()), (63, 82));
    traces.extend(changes);
    let mut wrong = Vec::new();
    for trace in &traces {
        if trace.af != 6 && trace.mark == 0 {
            let picks = replay(trace, Whole::new(), false);
            if picks != trace.picks {
                wrong.push((&trace.name, "by packets", picks, &trace.picks));
            }
        }
        if trace.opts.contains("-p") {
            continue;
        }
        for (at_once, how) in [(false, "alone"), (true, "alone, at once")] {
            let picks = replay(trace, Alone::new(), at_once);
            if picks != trace.picks {
                wrong.push((&trace.name, how, picks, &trace.picks));
            }
        }
    }
    for (name, how, picks, expected) in &wrong {
        println!("{name} {how}\n  {picks:?}\n  {expected:?}");
    }
    assert!(wrong.is_empty());
}
