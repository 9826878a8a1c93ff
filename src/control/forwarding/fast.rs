//! The fast path as control keeps it: what it is told of real servers and ways, which interfaces it may use, how large
//! it is, and what it counts.
//!
//! What narrows it is written before a table is published, what widens it after: a flow never goes below where its
//! packets, had they come up, would not have gone.

use std::{collections::HashMap, fmt, io, num::NonZeroU32, path::Path, sync::Arc};

use super::{
    super::log::Level as LogLevel, Forwarding, View, client_ways::ClientWays,
    data_plane::DataPlane, ports::Ports, services::Services,
};
use crate::{
    addr::PortId,
    balance::{LbKind, NextHop, Real, RealRef, ServiceTable, TunnelSources},
    config,
    dataplane::{offload::can_go_down, ports::Level},
    lvs::{RealId, ServiceId, TunnelKind},
    stats::{Below, MAX_REALS, Totals},
    sys::{
        netlink::netdev::XdpFeatures,
        steer::{
            FastHop, FastMethod, FastPath, FastSizes, FastTarget, FastTraffic, FastTunnel,
            RealIdentity,
        },
    },
};

/// Neighbours that lead to clients and that answers can go to: the first of its next hops; those to real servers follow.
/// As many as the kernel knows by default of either family, and more.
pub(super) const NEIGHBOURS: u32 = 16_384;
/// Real servers that there is room for at least.
const LEAST_REALS: usize = 1024;
/// `NETDEV_XDP_ACT_NDO_XMIT` of <linux/netdev.h>: takes frames that others redirect to it.
const TAKES_FRAMES: u64 = 1 << 2;

/// How large it is to be, for so many connections and real servers: with as many again of these, for a reload that
/// replaces them all while they drain.
pub(super) fn sizes(connections: usize, reals: usize) -> FastSizes {
    let reals = (2 * reals)
        .next_power_of_two()
        .clamp(LEAST_REALS, MAX_REALS);
    let reals = u32::try_from(reals).unwrap_or(u32::MAX);
    FastSizes {
        flows: u32::try_from(connections).unwrap_or(u32::MAX),
        reals,
        hops: NEIGHBOURS.saturating_add(reals),
    }
}

/// Why an interface has no part in the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// `fast_path off`.
    Off,
    /// No XDP.
    NoXdp,
    /// `fast_path auto`, and its card writes into the workers' frames.
    ZeroCopy,
    /// It loses frames that others redirect to it, or its driver does not take any.
    TakesNone,
    /// The kernel is too old to say whether it takes any, and the choice is its.
    Unsaid,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::NoXdp => "it has no XDP",
            Self::ZeroCopy => "it has zero-copy",
            Self::TakesNone => "the kernel says that it takes no redirected frames",
            Self::Unsaid => "the kernel does not say whether it takes redirected frames",
        })
    }
}

/// An open interface, for the choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) port: PortId,
    pub(super) level: Level,
    /// What XDP can do there; `None`: the kernel does not say.
    pub(super) features: Option<u64>,
}

/// What part an interface has in the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) port: PortId,
    /// Whether flows that come in are looked up.
    pub(super) looks: bool,
    /// Whether frames leave by it; why not.
    pub(super) takes: Result<(), Why>,
}

/// What part each interface has.
pub(super) fn parts(wish: config::FastPath, all: &[Candidate]) -> Vec<Part> {
    let excluded = |one: &Candidate| match (wish, one.level) {
        (config::FastPath::Off, _) => Some(Why::Off),
        (_, Level::AfPacket) => Some(Why::NoXdp),
        (config::FastPath::Auto, Level::ZeroCopy) => Some(Why::ZeroCopy),
        _ => None,
    };
    // The generic hook hands a frame on as the kernel sends its own, which every interface takes.
    let is_native = |one: &Candidate| one.level != Level::Generic;
    let natives = all
        .iter()
        .any(|one| excluded(one).is_none() && is_native(one));
    let part = |one: &Candidate| {
        let why = excluded(one);
        let takes = match (why, one.features) {
            (Some(why), _) => Err(why),
            (None, _) if !natives => Ok(()),
            (None, Some(features)) if features & TAKES_FRAMES == 0 => Err(Why::TakesNone),
            (None, None) if wish == config::FastPath::Auto => Err(Why::Unsaid),
            (None, _) => Ok(()),
        };
        Part {
            port: one.port,
            looks: why.is_none(),
            takes,
        }
    };
    all.iter().map(part).collect()
}

/// What is written to.
trait Tables {
    fn set_target(&self, slot: u32, target: Option<&FastTarget>) -> bool;
    fn set_hop(&self, index: u32, hop: Option<&FastHop>) -> bool;
    fn set_ways(&self, ways: u16);
    fn set_pmtu_disc(&self, on: bool);
    fn clear_traffic(&self, slot: u32);
}

impl Tables for FastPath {
    fn set_target(&self, slot: u32, target: Option<&FastTarget>) -> bool {
        self.set_target(slot, target)
    }

    fn set_hop(&self, index: u32, hop: Option<&FastHop>) -> bool {
        self.set_hop(index, hop)
    }

    fn set_ways(&self, ways: u16) {
        self.set_ways(ways);
    }

    fn set_pmtu_disc(&self, on: bool) {
        self.set_pmtu_disc(on);
    }

    fn clear_traffic(&self, slot: u32) {
        self.clear_traffic(slot);
    }
}

/// What the tables were told last.
#[derive(Debug, Default)]
struct Mirror {
    targets: Vec<Option<FastTarget>>,
    /// To clients, by their numbers, and to real servers, by theirs.
    hops: [Vec<Option<FastHop>>; 2],
    /// By slot: whose traffic is counted.
    holders: Vec<u32>,
    settings: Option<(u16, bool)>,
}

/// What the tables are to be told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    targets: Vec<Option<FastTarget>>,
    /// To clients, by their numbers, and to real servers, by theirs.
    hops: [Vec<Option<FastHop>>; 2],
    ways: u16,
    pmtu_disc: bool,
}

impl Told {
    fn new(
        table: &ServiceTable,
        known: &impl Known,
        ports: &Ports,
        neighbours: Vec<(u32, FastHop)>,
    ) -> Self {
        let mut to_clients = Vec::new();
        for (number, hop) in neighbours.into_iter().filter(|(it, _)| *it < NEIGHBOURS) {
            grow(&mut to_clients, number as usize + 1);
            to_clients[number as usize] = Some(hop);
        }
        let way = |hop: &Option<NextHop>| {
            let hop = hop.as_ref()?;
            let port = ports.get(hop.port).filter(|port| port.fast)?;
            Some(FastHop {
                ifindex: port.ifindex,
                mtu: hop.mtu,
                destination: hop.destination,
                source: hop.source,
            })
        };
        let target = |real: &Option<Real>| {
            let real = real
                .as_ref()
                .filter(|real| known.is_steered(real.service))?;
            target(real, table, known.identity(real.service))
        };
        Self {
            targets: table.reals().iter().map(target).collect(),
            hops: [to_clients, table.next_hops().iter().map(way).collect()],
            ways: table.routes().number(),
            pmtu_disc: table.policy().pmtu_disc,
        }
    }
}

impl Mirror {
    /// Takes away what is not so any more.
    fn narrow(&mut self, told: &Told, tables: &impl Tables) {
        // First: by another number no answer is forwarded until its way was found again.
        let settings = Some((told.ways, told.pmtu_disc));
        if self.settings != settings {
            tables.set_ways(told.ways);
            tables.set_pmtu_disc(told.pmtu_disc);
            self.settings = settings;
        }
        for (slot, known) in (0..).zip(&mut self.targets) {
            let wanted = told.targets.get(slot as usize).copied().flatten();
            if known.is_some() && *known != wanted {
                tables.set_target(slot, None);
                *known = None;
            }
        }
        let lists = self.hops.iter_mut().zip(&told.hops).zip([0, NEIGHBOURS]);
        for ((list, told), first) in lists {
            for (index, known) in (0_u32..).zip(list) {
                let wanted = told.get(index as usize).copied().flatten();
                if known.is_some() && *known != wanted {
                    tables.set_hop(first + index, None);
                    *known = None;
                }
            }
        }
    }

    /// Adds what is new.
    fn widen(&mut self, told: &Told, tables: &impl Tables) {
        grow(&mut self.targets, told.targets.len());
        grow(&mut self.holders, told.targets.len());
        let lists = self.hops.iter_mut().zip(&told.hops).zip([0, NEIGHBOURS]);
        for ((list, told), first) in lists {
            grow(list, told.len());
            for ((index, known), wanted) in (first..).zip(list).zip(told) {
                if known != wanted && tables.set_hop(index, wanted.as_ref()) {
                    *known = *wanted;
                }
            }
        }
        for ((slot, known), wanted) in (0..).zip(&mut self.targets).zip(&told.targets) {
            let Some(new) = wanted.as_ref().filter(|_| known != wanted) else {
                continue;
            };
            let holder = &mut self.holders[slot as usize];
            if *holder != new.epoch.get() {
                tables.clear_traffic(slot);
                *holder = new.epoch.get();
            }
            if tables.set_target(slot, Some(new)) {
                *known = *wanted;
            }
        }
    }
}

fn grow<T: Default + Clone>(list: &mut Vec<T>, length: usize) {
    if list.len() < length {
        list.resize(length, T::default());
    }
}

/// What is known of virtual servers beside the table.
pub(super) trait Known {
    /// Whether all packets of one are steered.
    fn is_steered(&self, id: ServiceId) -> bool;

    /// What another run knows one by.
    fn identity(&self, id: ServiceId) -> u64;
}

impl Known for Services {
    fn is_steered(&self, id: ServiceId) -> bool {
        self.is_steered_whole(id)
    }

    fn identity(&self, id: ServiceId) -> u64 {
        self.identity(id)
    }
}

/// What the program makes of packets to a real server; `None`: they go up.
fn target(real: &Real, table: &ServiceTable, service: u64) -> Option<FastTarget> {
    let policy = table.policy();
    // Of its connections some may have to move or to be reset, which is decided packet by packet.
    let cuts = policy.reset_on_failure && !real.available && !real.draining;
    if !can_go_down(real.method) || real.failed && (policy.udp_move || cuts) {
        return None;
    }
    let method = match real.method {
        LbKind::Dr => FastMethod::Dr,
        LbKind::Nat => FastMethod::Nat { port: real.port },
        LbKind::Tun(kind) => tunnel(kind, real, table)?,
    };
    Some(FastTarget {
        epoch: real.epoch,
        hop: NEIGHBOURS + real.hop.0,
        addr: real.addr,
        method,
        service,
    })
}

/// The real servers of `table`, by what another run knows them by. Of a target only that is as it should be, and the
/// slot and the epoch.
pub(super) fn heirs(
    table: &ServiceTable,
    known: &impl Known,
) -> HashMap<RealIdentity, (u32, FastTarget)> {
    let one = |(slot, real): (u32, &Option<Real>)| {
        let real = real.as_ref()?;
        let method = match real.method {
            LbKind::Dr => FastMethod::Dr,
            LbKind::Nat => FastMethod::Nat { port: real.port },
            LbKind::Tun(kind) => FastMethod::Tunnel {
                kind: fast_tunnel(kind),
                local: real.addr,
                spread_bits: 0,
                mtu: None,
            },
        };
        let target = FastTarget {
            epoch: real.epoch,
            hop: 0,
            addr: real.addr,
            method,
            service: known.identity(real.service),
        };
        Some((target.identity(), (slot, target)))
    };
    (0..).zip(table.reals()).filter_map(one).collect()
}

const fn fast_tunnel(kind: TunnelKind) -> FastTunnel {
    match kind {
        TunnelKind::Ipip => FastTunnel::Ipip,
        TunnelKind::Gre { .. } => FastTunnel::Gre,
        TunnelKind::Gue { port, .. } => FastTunnel::Gue(port),
    }
}

fn tunnel(kind: TunnelKind, real: &Real, table: &ServiceTable) -> Option<FastMethod> {
    let own = table.local(real)?;
    if own.is_ipv4() != real.addr.is_ipv4() {
        return None;
    }
    let TunnelSources { v4, v6 } = table.policy().tunnel_sources;
    let (local, spread_bits) = match (own.is_ipv4(), v4, v6) {
        (true, Some((network, prefix)), _) => (network.into(), 32 - prefix.min(32)),
        (false, _, Some((network, prefix))) => (network.into(), (128 - prefix.min(128)).min(32)),
        _ => (own, 0),
    };
    Some(FastMethod::Tunnel {
        kind: fast_tunnel(kind),
        local,
        spread_bits,
        mtu: None,
    })
}

/// What the fast path was told by.
#[derive(Debug)]
struct By {
    table: ServiceTable,
    ports: Ports,
    steered: u64,
}

/// The fast path, once it is loaded.
pub(super) struct Fast {
    path: Arc<FastPath>,
    mirror: Mirror,
    told: Told,
    by: Option<By>,
    /// While flows move to where they are to be: the workers' finished sweeps when it began.
    moving: Option<Vec<u64>>,
    /// What went through real servers before this run, whose counters go on.
    before: HashMap<RealRef, Totals>,
}

impl fmt::Debug for Fast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fast").finish_non_exhaustive()
    }
}

impl Below for Fast {
    fn totals(&self, slot: u32, epoch: u32) -> Totals {
        if self.mirror.holders.get(slot as usize) != Some(&epoch) {
            return Totals::default();
        }
        totals(self.path.traffic(slot)) + self.before(slot, epoch)
    }
}

/// As counters go.
pub(super) const fn totals(traffic: FastTraffic) -> Totals {
    Totals {
        connections: traffic.connections,
        packets_in: traffic.packets,
        packets_out: traffic.packets_out,
        bytes_in: traffic.bytes,
        bytes_out: traffic.bytes_out,
    }
}

impl Fast {
    /// Of this; and what went through real servers before this run.
    pub(super) fn new(path: Arc<FastPath>, before: HashMap<RealRef, Totals>) -> Self {
        let mut mirror = Mirror::default();
        for real in before.keys() {
            let slot = real.id.0 as usize;
            grow(&mut mirror.holders, slot + 1);
            mirror.holders[slot] = real.epoch.get();
        }
        let reals: Vec<RealRef> = before.keys().copied().collect();
        let fast = Self {
            before,
            path,
            mirror,
            told: Told::default(),
            by: None,
            moving: None,
        };
        // This run may end before anything else is counted.
        for real in reals {
            fast.keep(real, Totals::default());
        }
        fast
    }

    /// From now on it is to go by `table`, with the virtual servers that are steered as the `steered`-th time; takes away
    /// what is not so any more.
    pub(super) fn narrow(
        &mut self,
        table: &ServiceTable,
        (steered, known): (u64, &impl Known),
        ports: &Ports,
        neighbours: impl FnOnce() -> Vec<(u32, FastHop)>,
    ) {
        let is_known = self.by.as_ref().is_some_and(|by| {
            by.steered == steered && by.ports == *ports && by.table.forwards_like(table)
        });
        if !is_known {
            self.told = Told::new(table, known, ports, neighbours());
            self.by = Some(By {
                table: table.clone(),
                ports: ports.clone(),
                steered,
            });
        }
        self.mirror.narrow(&self.told, &*self.path);
    }

    fn before(&self, slot: u32, epoch: u32) -> Totals {
        let real = NonZeroU32::new(epoch).map(|epoch| RealRef {
            id: RealId(slot),
            epoch,
        });
        let before = real.and_then(|real| self.before.get(&real));
        before.copied().unwrap_or_default()
    }

    /// Keeps what `workers` have counted for a real server, so that its counters go on in the next run.
    pub(super) fn keep(&self, real: RealRef, workers: Totals) {
        let RealRef {
            id: RealId(slot),
            epoch,
        } = real;
        if self.mirror.holders.get(slot as usize) == Some(&epoch.get()) {
            let all = workers + self.before(slot, epoch.get());
            let traffic = FastTraffic {
                connections: all.connections,
                packets: all.packets_in,
                bytes: all.bytes_in,
                packets_out: all.packets_out,
                bytes_out: all.bytes_out,
            };
            self.path.keep(slot, &traffic);
        }
    }

    /// Leaves its flows in a folder for the next run.
    ///
    /// # Errors
    /// What the file system answered.
    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        self.path.save(folder)
    }

    /// The table that it goes by.
    pub(super) fn table(&self) -> Option<ServiceTable> {
        Some(self.by.as_ref()?.table.clone())
    }

    /// Adds what is new in what it is to go by.
    pub(super) fn widen(&mut self) {
        self.mirror.widen(&self.told, &*self.path);
    }

    /// Fits its size to so many connections. Former places are left once each worker has finished two sweeps: the first
    /// may have begun before.
    pub(super) fn fit(&mut self, connections: u64, sweeps: &[u64]) {
        match &self.moving {
            None => {
                if self.path.resize(connections) {
                    self.moving = Some(sweeps.to_vec());
                }
            }
            Some(from) => {
                if from.iter().zip(sweeps).all(|(from, now)| now - from >= 2) {
                    self.path.settle();
                    self.moving = None;
                }
            }
        }
    }
}

impl Forwarding {
    /// Takes from the fast path what is not so by `table` and what is steered.
    pub(super) fn narrow_fast(&mut self, table: &ServiceTable) {
        let (services, ports, ways) = (&self.services, &self.ports, self.ways.as_ref());
        if let Some(fast) = self.data_plane.as_mut().and_then(DataPlane::fast) {
            let neighbours = || ways.map_or_else(Vec::new, |ways: &ClientWays| ways.hops(ports));
            fast.narrow(table, (self.steerings, services), ports, neighbours);
        }
    }

    /// Adds to the fast path what is new.
    pub(super) fn widen_fast(&mut self) {
        if let Some(fast) = self.data_plane.as_mut().and_then(DataPlane::fast) {
            fast.widen();
        }
    }

    /// Decides which interfaces take part in the fast path; those that take frames from it. What is news is said.
    pub(super) fn choose_fast(&mut self, view: &mut View<'_>) -> Vec<PortId> {
        let (takers, news) = self.choose_fast_silently();
        if let Some(news) = news {
            view.say(LogLevel::Notice, format_args!("packet I/O: {news}"));
        }
        takers
    }

    pub(super) fn choose_fast_silently(&mut self) -> (Vec<PortId>, Option<String>) {
        let (wish, links, features) = (self.fast_path, &self.links, self.features.as_ref());
        let Some(data_plane) = &mut self.data_plane else {
            return (Vec::new(), None);
        };
        let mac = |ifindex| links.get(&ifindex)?.mac;
        data_plane.choose_fast(wish, mac, |ifindex| features.map(|all| all.of(ifindex)))
    }

    /// Goes at once by what the kernel has said of what XDP can do on the interfaces.
    pub(in crate::control) fn handle_features(&mut self, view: &mut View<'_>) {
        if !self.learn_features(view) {
            return;
        }
        self.take_ports(view);
        // Before the next table: what is still sent where none is taken is lost.
        if let Some(table) = self.data_plane.as_mut().and_then(DataPlane::fast_table) {
            self.narrow_fast(&table);
        }
    }

    /// Learns what XDP can do on the interfaces. Whether that may have changed.
    pub(super) fn learn_features(&mut self, view: &mut View<'_>) -> bool {
        let learnt = self.features.as_mut().map(XdpFeatures::update);
        learnt.unwrap_or(Ok(false)).unwrap_or_else(|error| {
            view.say(LogLevel::Error, error);
            true
        })
    }
}

#[cfg(test)]
mod tests;
