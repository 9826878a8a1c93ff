//! Two boxes get the same packets, one with the fast path and one without: nobody can tell them apart.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use etherparse::TcpHeader;
use xvs::{
    addr::{Endpoint, IpPrefix, L4Proto, MacAddr, PortId},
    balance::{
        Environment, FlowKey as _, Hop, HopId, LbKind, Limits, Match, NextHop, PortSpec, RealId,
        RealSpec, Route, Routes, Scheduler, ServiceId, ServiceKey, ServiceSpec, State,
        TableBuilder, Turn, rewrite::TunnelKind,
    },
    dataplane::{
        io::BURST,
        memory::MemoryIo,
        publish::Publisher,
        worker::{Worker, WorkerOptions},
    },
    stats::{DropReason, ReplyReason, WorkerStats},
    sys::{
        clock,
        steer::{FastHop, FastMethod, FastPath, FastSizes, FastTarget, FastTunnel, Hook, Steering},
    },
    time::Instant,
};

use super::fast_path::{OWN, Spec};

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const US: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 254);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// By the last digit of the port.
const METHODS: [LbKind; 3] = [LbKind::Dr, LbKind::Nat, LbKind::Tun(TunnelKind::Ipip)];
/// Real servers of each virtual server.
const REALS: u8 = 3;
/// All virtual servers: those of each method, by TCP and then by UDP.
const SERVICES: u8 = 2 * 3;
const INNER: u16 = 8080;
/// Where next hops to real servers begin.
const FIRST_HOP: u32 = 8;
const CLIENTS: PortId = PortId(0);
const INSIDE: PortId = PortId(1);

/// How a real server is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Up,
    Quiet,
    Down,
}

/// Virtual servers of both protocols and each method, real servers in slots of three a virtual server.
#[derive(Clone, Default)]
struct World {
    health: [Health; (SERVICES * REALS) as usize],
    /// The last byte of the real servers' stations: it changes when a router does.
    station: u8,
}

fn method_of(service: u8) -> LbKind {
    METHODS[usize::from(service) % METHODS.len()]
}

fn addr_of(slot: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 0, 1 + slot)
}

impl World {
    fn slots(&self) -> impl Iterator<Item = (u8, Health)> {
        (0..).zip(self.health)
    }

    fn hop(&self, slot: u8) -> NextHop {
        NextHop {
            port: INSIDE,
            source: MacAddr(OWN),
            destination: MacAddr([2, 0, 0, 1, self.station, slot]),
            mtu: 1200,
        }
    }

    fn routes(&self) -> Routes {
        let route = |to: Ipv4Addr, length, port, gateway| Route {
            to: IpPrefix::new(to.into(), length).unwrap(),
            port: Some(port),
            source: MacAddr(OWN),
            gateway,
            mtu: 1500,
        };
        let routes = [route(
            Ipv4Addr::UNSPECIFIED,
            0,
            CLIENTS,
            Some(ROUTER.into()),
        )];
        Routes::new(routes, [(CLIENTS, ROUTER.into(), router(), 0)])
    }

    fn table(&self, builder: &mut TableBuilder, generation: u64) -> xvs::balance::ServiceTable {
        for service in 0..SERVICES {
            let first = service * REALS;
            let reals = (first..first + REALS).map(|slot| {
                let health = self.health[usize::from(slot)];
                RealSpec {
                    id: RealId(slot.into()),
                    epoch: NonZeroU32::MIN,
                    endpoint: Endpoint::new(addr_of(slot).into(), INNER),
                    method: method_of(service),
                    weight: u32::from(health != Health::Quiet),
                    last_weight: 1,
                    limits: Limits::default(),
                    available: health != Health::Down,
                    failed: health == Health::Down,
                    hop: HopId(slot.into()),
                }
            });
            let (kind, by_udp) = (service % 3, service / 3 > 0);
            let key = ServiceKey {
                protocol: if by_udp { L4Proto::Udp } else { L4Proto::Tcp },
                endpoint: Endpoint::new(VIP.into(), 80 + u16::from(kind)),
            };
            let spec = ServiceSpec {
                id: ServiceId(service.into()),
                epoch: NonZeroU32::MIN,
                matches: vec![Match::Address(key)],
                scheduler: Scheduler::Rr,
                persistence: None,
                one_packet: false,
                reals: reals.collect(),
                draining: Vec::new(),
            };
            builder.set(&spec).unwrap();
        }
        builder.set_routes(Arc::new(self.routes()));
        let port = |addr: Ipv4Addr| PortSpec {
            v4: Some(addr),
            v6: None,
            fast: true,
        };
        builder.set_environment(Environment {
            ports: vec![port(Ipv4Addr::new(198, 51, 100, 2)), port(US)],
            ..Environment::default()
        });
        for (slot, _) in self.slots() {
            let hop = Hop {
                next: Some(self.hop(slot)),
                local: Some(US.into()),
            };
            builder.set_hop(HopId(slot.into()), hop);
        }
        builder.build(generation)
    }

    /// As control tells the fast path, whatever was before.
    fn tell(&self, fast: &FastPath) {
        fast.set_pmtu_disc(Environment::default().policy.pmtu_disc);
        for (slot, health) in self.slots() {
            let target = FastTarget {
                epoch: NonZeroU32::MIN,
                hop: FIRST_HOP + u32::from(slot),
                addr: addr_of(slot).into(),
                method: match method_of(slot / REALS) {
                    LbKind::Dr => FastMethod::Dr,
                    LbKind::Nat => FastMethod::Nat { port: INNER },
                    LbKind::Tun(_) => FastMethod::Tunnel {
                        kind: FastTunnel::Ipip,
                        local: US.into(),
                        spread_bits: 0,
                        mtu: None,
                    },
                },
                service: 0,
            };
            let target = (health != Health::Down).then_some(target);
            assert!(fast.set_target(slot.into(), target.as_ref()));
            assert!(fast.set_hop(FIRST_HOP + u32::from(slot), Some(&fast_hop(self.hop(slot)))));
        }
    }
}

fn router() -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, 0xfe])
}

fn fast_hop(hop: NextHop) -> FastHop {
    FastHop {
        ifindex: 1,
        mtu: hop.mtu,
        destination: hop.destination,
        source: hop.source,
    }
}

/// A box.
struct Boxed {
    worker: Worker<MemoryIo>,
    stats: Arc<WorkerStats>,
    publisher: Publisher,
    builder: TableBuilder,
    generation: u64,
    steering: Option<Steering>,
    forwarded: usize,
}

impl Boxed {
    fn new(world: &World, has_fast_path: bool) -> Self {
        let mut builder = TableBuilder::new();
        let table = world.table(&mut builder, 1);
        let ways = table.routes().number();
        let mut publisher = Publisher::new(table);
        let stats = Arc::new(WorkerStats::new());
        let options = WorkerOptions {
            connections: 10_000,
            hash_seed: 7,
            spin: Duration::ZERO,
        };
        let io = MemoryIo::new(2 * BURST, BURST);
        let mut worker = Worker::new(io, publisher.reader(), Arc::clone(&stats), options);
        let steering = has_fast_path.then(|| {
            let sizes = FastSizes {
                flows: 16_384,
                reals: 64,
                hops: 64,
            };
            let steering = Steering::load_with(Hook::Xdp, &[], Some((sizes, [3, 5]))).unwrap();
            let fast = steering.fast_path().unwrap();
            fast.set_ways(ways);
            let way = FastHop {
                ifindex: 1,
                mtu: 1500,
                destination: router(),
                source: MacAddr(OWN),
            };
            assert!(fast.set_hop(0, Some(&way)));
            world.tell(fast);
            steering
        });
        if let Some(steering) = &steering {
            let fast = steering.fast_path().unwrap();
            worker = worker.with_fast_path(Arc::clone(fast), 0);
        }
        Self {
            worker,
            stats,
            publisher,
            builder,
            generation: 1,
            steering,
            forwarded: 0,
        }
    }

    /// What a frame becomes.
    fn send(&mut self, port: PortId, frame: &[u8], now: Instant) -> Vec<Vec<u8>> {
        if let Some(steering) = &self.steering
            && let Some(sent) = steering.forward(frame, MacAddr(OWN)).unwrap()
        {
            self.forwarded += 1;
            return vec![sent];
        }
        assert!(self.worker.io_mut().inject(port, frame));
        self.worker.turn(now);
        let mut out = Vec::new();
        while let Some((_, frame)) = self.worker.io_mut().collect() {
            out.push(frame);
        }
        out
    }

    fn become_as(&mut self, world: &World) {
        self.generation += 1;
        let table = world.table(&mut self.builder, self.generation);
        let fast = self.steering.as_ref().and_then(Steering::fast_path);
        if let Some(fast) = fast {
            // Narrowed before it is published.
            fast.set_ways(table.routes().number());
            world.tell(fast);
        }
        self.publisher.publish(table);
    }

    /// Its connections with their states, and what it has counted.
    fn account(&mut self, world: &World) -> (BTreeMap<String, State>, Vec<[u64; 7]>, Vec<u64>) {
        let fast = self.steering.as_ref().and_then(Steering::fast_path);
        let mut conns = BTreeMap::new();
        let timeouts = xvs::balance::Timeouts::default();
        let turn = Turn {
            tick: clock::now().tick(),
            timeouts: &timeouts,
            stats: &self.stats,
        };
        let table = self.worker.balancer().conns();
        for bucket in 0..table.buckets() {
            for slot in table.in_bucket(bucket, turn) {
                let key = table.key(slot);
                let name = format!(
                    "{} {}:{} to {} at {:?}",
                    key.protocol(),
                    key.client(),
                    key.client_port(),
                    key.vport(),
                    table.real(slot),
                );
                assert_eq!(conns.insert(name, table.state(slot)), None);
            }
        }
        let reals = world.slots().map(|(slot, _)| {
            let real = self.stats.real(slot.into());
            let below = fast
                .map(|fast| fast.traffic(slot.into()))
                .unwrap_or_default();
            [
                real.connections.get(),
                real.active.get(),
                real.inactive.get(),
                real.packets.get() + below.packets,
                real.bytes.get() + below.bytes,
                real.packets_out.get() + below.packets_out,
                real.bytes_out.get() + below.bytes_out,
            ]
        });
        let drops = DropReason::ALL
            .iter()
            .map(|one| self.stats.drops(*one).get());
        let replies = ReplyReason::ALL
            .iter()
            .map(|one| self.stats.replies(*one).get());
        (conns, reals.collect(), drops.chain(replies).collect())
    }
}

/// An outer header's identification follows from what was sent before by the same hand, and its checksum from that.
fn without_identification(mut frame: Vec<u8>) -> Vec<u8> {
    const IPIP: u8 = 4;
    if frame[23] == IPIP {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

/// A packet of a client, or an answer to one.
fn packet(
    random: &mut fastrand::Rng,
    seen: &BTreeMap<(u16, u16, bool), Ipv4Addr>,
) -> (PortId, Spec, (u16, u16, bool)) {
    let flow = (random.u16(1000..1060), 80 + random.u16(0..3), random.bool());
    let (port, vport, is_tcp) = flow;
    let protocol = if is_tcp { L4Proto::Tcp } else { L4Proto::Udp };
    let client: (IpAddr, u16) = (
        Ipv4Addr::new(10, 1, 0, 2 + u8::try_from(port % 7).unwrap()).into(),
        port,
    );
    let answers = vport == 81 && random.bool();
    let (ingress, mut spec) = match seen.get(&flow).filter(|_| answers) {
        Some(real) => (INSIDE, Spec::new(((*real).into(), INNER), client, protocol)),
        None => (CLIENTS, Spec::new(client, (VIP.into(), vport), protocol)),
    };
    // Most are plain.
    spec.flags = match random.u32(0..24) {
        0..3 if ingress == CLIENTS => |header: &mut TcpHeader| {
            header.syn = true;
            header.ack = false;
        },
        0..3 => |header: &mut TcpHeader| header.syn = true,
        3 => |header: &mut TcpHeader| header.fin = true,
        4 => |header: &mut TcpHeader| header.rst = true,
        5 => |header: &mut TcpHeader| header.psh = true,
        _ => |_: &mut TcpHeader| (),
    };
    spec.data = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
    match random.u32(0..30) {
        0 => spec.ttl = 1,
        // Too large for the way to a real server, or for that in a tunnel.
        1 => spec.data = vec![7; random.usize(1100..1300)],
        2 => spec.padding = random.usize(0..8),
        3 => spec.no_sum = true,
        4 => spec.dont_fragment = false,
        _ => spec.tos = random.u8(..),
    }
    (ingress, spec, flow)
}

#[test]
fn nobody_can_tell_a_box_with_the_fast_path_from_one_without() {
    const PACKETS: usize = 30_000;
    let mut random = fastrand::Rng::with_seed(5);
    let mut world = World::default();
    let mut plain = Boxed::new(&world, false);
    let mut fast = Boxed::new(&world, true);
    // Whom a real server would have to answer.
    let mut seen = BTreeMap::new();
    for step in 0..PACKETS {
        if random.u32(0..300) == 0 {
            match random.u32(0..4) {
                0 => world.station = world.station.wrapping_add(1),
                _ => {
                    let at = random.usize(0..world.health.len());
                    world.health[at] = match random.u32(0..4) {
                        0 => Health::Down,
                        1 => Health::Quiet,
                        _ => Health::Up,
                    };
                }
            }
            plain.become_as(&world);
            fast.become_as(&world);
        }
        let (port, spec, flow) = packet(&mut random, &seen);
        let frame = spec.frame();
        let now = clock::now();
        let [expected, got] = [&mut plain, &mut fast].map(|one| {
            let sent = one.send(port, &frame, now).into_iter();
            sent.map(without_identification).collect::<Vec<_>>()
        });
        assert_eq!(got, expected, "step {step}: {spec:?} on {port:?}");
        let is_asked = port == CLIENTS && flow.1 == 81;
        if let Some(sent) = expected.first().filter(|sent| is_asked && sent[30] == 172) {
            seen.insert(flow, Ipv4Addr::new(sent[30], sent[31], sent[32], sent[33]));
        }
    }
    let share = fast.forwarded * 100 / PACKETS;
    assert!(share > 40, "{share} % went below");
    let (expected, got) = (plain.account(&world), fast.account(&world));
    assert!(expected.0.len() > 200, "{} connections", expected.0.len());
    assert_eq!(got, expected);
    println!("{share} % of the packets went below");
}
