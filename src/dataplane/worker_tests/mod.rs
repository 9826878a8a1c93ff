//! Packets in, packets out: what a worker does with frames, byte by byte.

mod direct_routing;
mod flood;
mod fragments;
mod frames;
mod fuzzlike;
mod handover_tests;
mod icmp;
mod inherited;
mod interfaces;
mod ipv6;
mod nat;
mod parking;
mod persistence;
mod policy;
mod scheduling;
mod sctp;
mod sleep;
mod timing_tests;
mod tunnel;
mod udp;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    ops::{Deref, DerefMut},
};

use etherparse::PacketBuilder;

use self::frames::{Pkt, assert_valid, tcp};
use super::*;
use crate::balance::Timeouts;
use crate::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        Environment, FlowKey, Hop, HopId, Key4, Key6, LbKind, Limits, Match, NextHop, Persistence,
        PortSpec, RealId, RealSpec, Route, Routes, Scheduler, ServiceId, ServiceKey, ServiceSpec,
        ServiceTable, State, TableBuilder, rewrite::TunnelKind,
    },
    dataplane::{memory::MemoryIo, publish::Publisher},
    stats::{DropReason, ReplyReason},
    wire::checksum,
};

const CLIENT: [u8; 4] = [10, 1, 1, 1];
const VIP: [u8; 4] = [10, 1, 0, 100];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const EGRESS_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// A client on the link of [`INGRESS`], not behind the router.
const ON_LINK4: &str = "10.1.2.9";
const ON_LINK6: &str = "fd01:2::9";
const ON_LINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// Our addresses towards clients and real servers.
const PORT4: &str = "10.1.0.1";
const PORT6: &str = "fd01::1";
const US4: &str = "10.2.0.1";
const US6: &str = "fd02::1";
/// A client, virtual server and real server of each family.
const CLIENT4: &str = "10.1.1.1";
const CLIENT6: &str = "fd01:1::1";
const VIP4: &str = "10.1.0.100";
const VIP6: &str = "2001:db8::100";
const REAL4: &str = "10.2.0.11";
const REAL6: &str = "fd02::11";
const GUE_PORT: u16 = 6080;
const INGRESS: PortId = PortId(0);
const EGRESS: PortId = PortId(1);

fn real_mac(id: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, u8::try_from(id).unwrap()]
}

fn real(id: u32) -> RealSpec {
    RealSpec {
        id: RealId(id),
        epoch: NonZeroU32::MIN,
        endpoint: Endpoint::new([10, 2, 0, u8::try_from(id).unwrap()].into(), 80),
        method: LbKind::Dr,
        weight: 1,
        last_weight: 1,
        limits: Limits::default(),
        available: true,
        failed: false,
        hop: hop_to(id, None, 1500),
    }
}

/// No way at all.
const NOWHERE: HopId = HopId(u32::MAX);

/// The MTUs of the ways to real servers.
const MTUS: [u16; 3] = [1500, 1400, 600];

/// The slot of the way to real server `id`, on which this host has the address `local`.
fn hop_to(id: u32, local: Option<&str>, mtu: u16) -> HopId {
    let local = LOCALS.iter().position(|own| *own == local).unwrap();
    let mtu = MTUS.iter().position(|one| *one == mtu).unwrap();
    HopId(u32::try_from(mtu * LOCALS.len() + local).unwrap() << 8 | id)
}

const LOCALS: [Option<&str>; 3] = [None, Some(US4), Some(US6)];

/// A table of these virtual servers, with the ways to their real servers.
fn table(generation: u64, specs: &[ServiceSpec], around: Around) -> ServiceTable {
    let mut tables = TableBuilder::new();
    tables.set_environment(around.environment);
    tables.set_routes(around.routes);
    tables.apply(&[], specs).unwrap();
    for mtu in MTUS {
        for local in LOCALS {
            for id in specs
                .iter()
                .flat_map(|spec| spec.reals.iter().chain(&spec.draining))
                .map(|real| real.id.0)
            {
                let next = NextHop {
                    port: EGRESS,
                    source: MacAddr(EGRESS_MAC),
                    destination: MacAddr(real_mac(id)),
                    mtu,
                };
                let hop = Hop {
                    next: Some(next),
                    local: local.map(|own| own.parse().unwrap()),
                };
                tables.set_hop(hop_to(id, local, mtu), hop);
            }
        }
    }
    tables.build(generation)
}

/// A real server anywhere, behind the port [`EGRESS`].
fn real_at(id: u32, addr: &str, port: u16, method: LbKind) -> RealSpec {
    let addr: IpAddr = addr.parse().unwrap();
    RealSpec {
        endpoint: Endpoint::new(addr, port),
        method,
        hop: hop_to(id, Some(if addr.is_ipv4() { US4 } else { US6 }), 1500),
        ..real(id)
    }
}

fn address(protocol: L4Proto, vip: &str, port: u16) -> Match {
    let endpoint = Endpoint::new(vip.parse().unwrap(), port);
    Match::Address(ServiceKey { protocol, endpoint })
}

/// A virtual server in slot `id`.
fn served(id: u32, what: Match, reals: Vec<RealSpec>) -> ServiceSpec {
    ServiceSpec {
        id: ServiceId(id),
        matches: vec![what],
        ..service(reals)
    }
}

/// Where a packet to real server `id` leaves.
fn to_real(id: u32, pkt: &Pkt) -> Option<(PortId, Vec<u8>)> {
    Some((EGRESS, pkt.between(EGRESS_MAC, real_mac(id))))
}

/// Where a packet to a client behind the router leaves.
fn to_router(pkt: &Pkt) -> Option<(PortId, Vec<u8>)> {
    Some((INGRESS, pkt.between(OUR_MAC, ROUTER_MAC)))
}

/// Every client is behind a router on [`INGRESS`], but for some on its link.
fn routes(with_neighbours: bool) -> Arc<Routes> {
    let route = |to: &str, port: PortId, source: [u8; 6], gateway: Option<&str>| Route {
        to: to.parse().unwrap(),
        port: Some(port),
        source: MacAddr(source),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        mtu: 1500,
    };
    let routes = [
        route("0.0.0.0/0", INGRESS, OUR_MAC, Some("10.1.0.254")),
        route("10.1.2.0/24", INGRESS, OUR_MAC, None),
        route("10.2.0.0/24", EGRESS, EGRESS_MAC, None),
        route("::/0", INGRESS, OUR_MAC, Some("fe80::fe")),
        route("fd01:2::/64", INGRESS, OUR_MAC, None),
        route("fd02::/64", EGRESS, EGRESS_MAC, None),
    ];
    let neighbours = [
        (INGRESS, "10.1.0.254", ROUTER_MAC),
        (INGRESS, "fe80::fe", ROUTER_MAC),
        (INGRESS, ON_LINK4, ON_LINK_MAC),
        (INGRESS, ON_LINK6, ON_LINK_MAC),
        (EGRESS, "10.2.0.12", real_mac(12)),
    ];
    let known = neighbours
        .into_iter()
        .filter(|_| with_neighbours)
        .map(|(port, addr, mac)| (port, addr.parse().unwrap(), MacAddr(mac), 0));
    Arc::new(Routes::new(routes, known))
}

/// What there is beside the virtual servers, the ways to clients included.
#[derive(Default)]
struct Around {
    environment: Environment,
    routes: Arc<Routes>,
}

impl Deref for Around {
    type Target = Environment;

    fn deref(&self) -> &Environment {
        &self.environment
    }
}

impl DerefMut for Around {
    fn deref_mut(&mut self) -> &mut Environment {
        &mut self.environment
    }
}

fn around() -> Around {
    let port = |v4: &str, v6: &str| PortSpec {
        v4: v4.parse().ok(),
        v6: v6.parse().ok(),
        fast: false,
    };
    let environment = Environment {
        ports: vec![port(PORT4, PORT6), port(US4, US6)],
        ..Environment::default()
    };
    Around {
        environment,
        routes: routes(true),
    }
}

/// A virtual server whose scheduler has `reals` in this order: the first of them was added last.
fn service(reals: Vec<RealSpec>) -> ServiceSpec {
    ServiceSpec {
        id: ServiceId(0),
        epoch: NonZeroU32::MIN,
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(VIP.into(), 80),
        })],
        one_packet: false,
        scheduler: Scheduler::Rr,
        persistence: None,
        reals: reals.into_iter().rev().collect(),
        draining: Vec::new(),
    }
}

/// A worker on a wire in memory, with the control that it needs.
struct Lab {
    publisher: Publisher,
    worker: Worker<MemoryIo>,
    stats: Arc<WorkerStats>,
    generation: u64,
    now: Instant,
}

impl Lab {
    fn new(spec: ServiceSpec) -> Self {
        Self::with_connections(spec, 1000)
    }

    fn with_connections(spec: ServiceSpec, connections: usize) -> Self {
        let mut publisher = Publisher::new(table(1, &[spec], Around::default()));
        let stats = Arc::new(WorkerStats::new());
        let options = WorkerOptions {
            connections,
            hash_seed: 7,
            spin: Duration::ZERO,
        };
        let io = MemoryIo::new(2 * BURST, BURST);
        Self {
            worker: Worker::new(io, publisher.reader(), Arc::clone(&stats), options),
            publisher,
            stats,
            generation: 1,
            now: Instant::from_nanos(1_000_000_000),
        }
    }

    /// A lab where everything is there: routes to clients, addresses of the ports.
    fn with(specs: &[ServiceSpec], edit: impl FnOnce(&mut Around)) -> Self {
        let mut lab = Self::with_connections(service(Vec::new()), 1000);
        lab.publish_with(specs, edit);
        lab
    }

    fn full(specs: &[ServiceSpec]) -> Self {
        Self::with(specs, |_| {})
    }

    fn publish_with(&mut self, specs: &[ServiceSpec], edit: impl FnOnce(&mut Around)) {
        self.generation += 1;
        let mut around = around();
        edit(&mut around);
        (self.publisher).publish(table(self.generation, specs, around));
    }

    /// What comes out for frames that arrive at once.
    fn burst<F: AsRef<[u8]>>(&mut self, ingress: PortId, frames: &[F]) -> Vec<(PortId, Vec<u8>)> {
        for frame in frames {
            assert!(self.worker.io_mut().inject(ingress, frame.as_ref()));
        }
        self.turn()
    }

    /// What comes out of a turn.
    fn turn(&mut self) -> Vec<(PortId, Vec<u8>)> {
        self.worker.turn(self.now);
        let out: Vec<_> = std::iter::from_fn(|| self.worker.io_mut().collect()).collect();
        for (_, frame) in &out {
            assert_valid(frame, true);
        }
        assert!(self.worker.account().is_conserved());
        out
    }

    /// What comes out for a packet from a client, which goes to one place or nowhere.
    #[track_caller]
    fn client(&mut self, pkt: &Pkt) -> Option<(PortId, Vec<u8>)> {
        let mut out = self.burst(INGRESS, &[pkt.frame()]);
        assert!(out.len() <= 1, "{out:02x?}");
        out.pop()
    }

    /// What comes out for a packet that a real server sends through us.
    #[track_caller]
    fn answer(&mut self, id: u32, pkt: &Pkt) -> Option<(PortId, Vec<u8>)> {
        let mut out = self.burst(EGRESS, &[pkt.between(real_mac(id), EGRESS_MAC)]);
        assert!(out.len() <= 1, "{out:02x?}");
        out.pop()
    }

    /// The real server that a client's packet reaches.
    #[track_caller]
    fn goes_to(&mut self, pkt: &Pkt) -> Option<u32> {
        let (port, out) = self.client(pkt)?;
        (port == EGRESS).then(|| u32::from(out[5]))
    }

    #[track_caller]
    fn assert_no_way(&mut self, pkt: &Pkt, reason: DropReason) {
        let before = self.stats.drops(reason).get();
        assert_eq!(self.client(pkt), None);
        let after = self.stats.drops(reason).get();
        assert_eq!(after, before + 1, "{}", reason.name());
    }

    /// State of the connection of a client's packet, and the seconds that it may still idle.
    fn state(&self, pkt: &Pkt) -> Option<(State, u64)> {
        let timeouts = Timeouts::default();
        let turn = Turn {
            tick: self.now.tick(),
            timeouts: &timeouts,
            stats: &self.stats,
        };
        let protocol = match pkt.l4 {
            frames::L4::Tcp(_) => L4Proto::Tcp,
            frames::L4::Udp => L4Proto::Udp,
            frames::L4::Sctp(_) => L4Proto::Sctp,
        };
        let endpoint = Endpoint::new(pkt.to.0, pkt.to.1);
        let vip = ServiceKey { protocol, endpoint };
        let balancer = self.worker.balancer();
        if let Some(key) = Key4::between(pkt.from, vip) {
            let conns = balancer.conns();
            let slot = conns.find(&key, conns.candidates(&key))?;
            Some((conns.state(slot), conns.remaining(slot, turn).as_secs()))
        } else {
            let (conns, key) = (balancer.conns6(), Key6::between(pkt.from, vip)?);
            let slot = conns.find(&key, conns.candidates(&key))?;
            Some((conns.state(slot), conns.remaining(slot, turn).as_secs()))
        }
    }

    /// Packets and bytes in, packets and bytes out of a real server.
    fn traffic(&self, id: u32) -> [u64; 4] {
        let real = self.stats.real(id);
        let counters = [
            &real.packets,
            &real.bytes,
            &real.packets_out,
            &real.bytes_out,
        ];
        counters.map(|counter| counter.get())
    }

    fn dropped_for(&self, reason: DropReason) -> u64 {
        self.stats.drops(reason).get()
    }

    fn publish(&mut self, specs: &[ServiceSpec]) {
        self.generation += 1;
        (self.publisher).publish(table(self.generation, specs, Around::default()));
    }

    fn advance(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// What comes out for one frame.
    fn send(&mut self, frame: &[u8]) -> Option<(PortId, Vec<u8>)> {
        assert!(self.worker.io_mut().inject(INGRESS, frame));
        assert_eq!(self.worker.turn(self.now), 1);
        let out = self.worker.io_mut().collect();
        assert!(self.worker.io_mut().collect().is_none());
        let account = self.worker.account();
        assert!(
            account.is_conserved() && account.in_hand == 0,
            "{account:?}"
        );
        out
    }

    /// The real server that a frame reaches; `None` when it is not forwarded.
    fn reaches(&mut self, frame: &[u8]) -> Option<u32> {
        let (port, out) = self.send(frame)?;
        (port == EGRESS).then(|| u32::from(out[5]))
    }

    #[track_caller]
    fn assert_dropped(&mut self, frame: &[u8], reason: DropReason) {
        let before = self.stats.drops(reason).get();
        assert_eq!(self.send(frame), None);
        assert_eq!(
            self.stats.drops(reason).get(),
            before + 1,
            "{}",
            reason.name()
        );
    }

    #[track_caller]
    fn assert_counts(&self, id: u32, active: u64, inactive: u64) {
        let real = self.stats.real(id);
        assert_eq!((real.active.get(), real.inactive.get()), (active, inactive));
    }
}

#[derive(Clone, Copy)]
enum Say {
    Syn,
    Ack,
    Fin,
    Rst,
}

/// A segment from a client, with some payload.
fn segment(client: [u8; 4], port: u16, say: Say) -> Vec<u8> {
    build(client, port, say, b"hello", 64)
}

fn build(client: [u8; 4], port: u16, say: Say, payload: &[u8], ttl: u8) -> Vec<u8> {
    let tcp = PacketBuilder::ethernet2(ROUTER_MAC, OUR_MAC)
        .ipv4(client, VIP, ttl)
        .tcp(port, 80, 1000, 512);
    let tcp = match say {
        Say::Syn => tcp.syn(),
        Say::Ack => tcp.ack(5000),
        Say::Fin => tcp.fin().ack(5000),
        Say::Rst => tcp.rst(),
    };
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, payload).unwrap();
    bytes
}

/// Puts a VLAN tag into a frame.
fn tagged(frame: &[u8], kind: u16) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 42]);
    bytes.extend(&frame[12..]);
    bytes
}

/// Puts four bytes of IP options into an untagged frame.
fn with_options(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame[..34].to_vec();
    bytes.extend([1, 1, 1, 0]);
    bytes.extend(&frame[34..]);
    bytes[14] = 0x46;
    let total = u16::try_from(bytes.len() - 14).unwrap();
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    fix_ip_checksum(&mut bytes, 24);
    bytes
}

fn fix_ip_checksum(frame: &mut [u8], header_len: usize) {
    frame[24..26].fill(0);
    let sum = checksum::compute(&frame[14..14 + header_len]);
    frame[24..26].copy_from_slice(&sum);
}

/// The frame as direct routing to real server `id` makes it; the IP header starts at `network`.
fn routed(frame: &[u8], network: usize, id: u32) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes[..6].copy_from_slice(&real_mac(id));
    bytes[6..12].copy_from_slice(&EGRESS_MAC);
    bytes[network + 8] -= 1;
    bytes[network + 10..network + 12].fill(0);
    let header = usize::from(bytes[network] & 15) * 4;
    let sum = checksum::compute(&bytes[network..network + header]);
    bytes[network + 10..network + 12].copy_from_slice(&sum);
    bytes
}

fn persistent(reals: Vec<RealSpec>, prefix: u8) -> ServiceSpec {
    ServiceSpec {
        persistence: Some(Persistence {
            timeout: Duration::from_secs(300),
            prefix,
        }),
        ..service(reals)
    }
}

/// An ICMP error from a router about a packet that a real server sent to the client.
fn icmp_error(kind: u8, client_port: u16) -> Vec<u8> {
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(VIP, CLIENT, 60)
        .tcp(80, client_port, 1, 1)
        .write(&mut quoted, &[])
        .unwrap();
    let mut message = vec![kind, 4, 0, 0, 0, 0, 5, 120];
    message.extend(&quoted[..28]);
    let sum = checksum::compute(&message);
    message[2..4].copy_from_slice(&sum);
    let mut ip = etherparse::Ipv4Header::new(
        u16::try_from(message.len()).unwrap(),
        64,
        etherparse::IpNumber::ICMP,
        [10, 9, 9, 9],
        VIP,
    )
    .unwrap();
    ip.header_checksum = ip.calc_header_checksum();
    let mut frame = [ROUTER_MAC, ROUTER_MAC].concat();
    frame[6..12].copy_from_slice(&OUR_MAC);
    frame.rotate_left(6);
    frame.extend([8, 0]);
    frame.extend(ip.to_bytes());
    frame.extend(message);
    frame
}
