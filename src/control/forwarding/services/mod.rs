//! Virtual servers: from the configuration, the health checks and the next hops to the table that
//! the workers forward by.
//!
//! A virtual server is known by what it takes, a real server by its endpoint and the way that packets get
//! there. Each has a slot for as long as it exists, across reloads, whatever its place in the file. Real
//! servers are kept in the order of their addition, as IPVS has them. One that leaves the configuration
//! drains: it gets no new connections, and goes when its last one has ended.

mod held;
mod slots;
mod status;
mod translate;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    num::NonZeroU32,
};

use self::{
    held::{Held, within},
    slots::Slots,
};
use super::{
    next_hops::{NextHops, Problem},
    ports::Ports,
};
use crate::{
    addr::Endpoint,
    balance::{
        Environment, HopId, LbKind, Limits, MAX_SERVICES, Match, NextHop, RealRef, RealSpec,
        ServiceSpec,
    },
    check::{self, Health},
    config::{self, Change, Config, Diff, VirtualServer},
    lvs::{RealId, ServiceId},
    stats::{AllStats, Counter, Estimator, MAX_REALS, RealCounters},
    sys::steer::{Steered, Target},
    time::Instant,
};

/// What a real server is to its virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The one with this number in the configuration.
    Configured(usize),
    /// It stands in while the quorum is lost.
    Sorry,
    /// It has left the configuration, and keeps the connections that it has.
    Draining,
}

/// A real server of a virtual server.
#[derive(Debug)]
struct Real {
    id: RealId,
    epoch: NonZeroU32,
    endpoint: Endpoint,
    method: LbKind,
    role: Role,
    /// As configured.
    weight: u32,
    /// The last weight that was not 0 since it was added; `mh` keeps its slots by it, as in IPVS.
    last_weight: u32,
    limits: Limits,
    /// Where the way to it is in the workers' table.
    hop: HopId,
    rates: Estimator,
}

impl Real {
    const fn reference(&self) -> RealRef {
        RealRef {
            id: self.id,
            epoch: self.epoch,
        }
    }
}

/// A virtual server.
#[derive(Debug)]
struct Service {
    config: VirtualServer,
    id: ServiceId,
    epoch: NonZeroU32,
    matches: Vec<Match>,
    /// What another run knows it by.
    identity: u64,
    /// In the order of their addition; what drains comes last.
    reals: Vec<Real>,
    /// Whether any of its packets are steered to the workers.
    steered: bool,
    /// Whether all of them are.
    steered_whole: bool,
}

/// All virtual servers.
#[derive(Debug)]
pub(in crate::control) struct Services {
    services: BTreeMap<ServiceId, Service>,
    /// In the order of the configuration.
    order: Vec<ServiceId>,
    slots: Slots,
    real_slots: Slots,
    settings: config::Settings,
    told: config::Timeouts,
    held: Held,
    /// Those with real servers that drain.
    draining: BTreeSet<ServiceId>,
}

/// What came of a new configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Applied {
    /// Virtual servers that are new, or not as they were.
    pub(in crate::control) changed: BTreeSet<ServiceId>,
    /// Those that are there no more, to be [forgotten](Services::forget) once nobody uses them.
    pub(in crate::control) removed: Vec<ServiceId>,
}

impl Services {
    /// None.
    pub(super) fn new() -> Self {
        Self {
            services: BTreeMap::new(),
            order: Vec::new(),
            slots: Slots::new(MAX_SERVICES),
            real_slots: Slots::new(MAX_REALS),
            settings: config::Settings::default(),
            told: config::Timeouts::default(),
            held: Held::default(),
            draining: BTreeSet::new(),
        }
    }

    /// Whether there are slots for what `diff` adds.
    ///
    /// # Errors
    /// A sentence: what there are too many of.
    pub(super) fn check(&self, diff: &Diff, new: &Config) -> Result<(), String> {
        let (mut services, mut reals) = (0, 0);
        for change in &diff.changes {
            match change {
                Change::ServerAdded { new: at, .. } => {
                    services += 1;
                    reals += new.virtual_servers[*at].real_servers.len() + 1;
                }
                Change::ServerChanged { what, .. } => reals += what.len(),
                _ => {}
            }
        }
        if services > self.slots.left() {
            return Err(format!(
                "more than {MAX_SERVICES} virtual servers at a time"
            ));
        }
        if reals > self.real_slots.left() {
            return Err(format!(
                "more than {MAX_REALS} real servers at a time, those counted that were removed and still have \
                 connections"
            ));
        }
        Ok(())
    }

    /// Takes `new` over, which differs by `diff` from what it was told before, and which [`Self::check`] has
    /// no objection to.
    pub(super) fn apply(
        &mut self,
        now: Instant,
        diff: &Diff,
        new: &Config,
        hops: &mut NextHops,
    ) -> Applied {
        let mut applied = Applied::default();
        self.settings = new.settings.clone();
        self.told = new.timeouts;
        self.held.manage(new);
        let former = std::mem::take(&mut self.order);
        let known = diff.former.iter().map(|at| Some(former[(*at)?]));
        let mut order: Vec<Option<ServiceId>> = known.collect();
        for change in &diff.changes {
            match change {
                Change::ServerAdded { new: at, .. } => {
                    let server = &new.virtual_servers[*at];
                    order[*at] = self.add(now, server, hops);
                    applied.changed.extend(order[*at]);
                }
                Change::ServerRemoved { old, .. } => {
                    let id = former[*old];
                    self.draining.remove(&id);
                    applied.removed.push(id);
                }
                Change::ServerChanged { new: at, .. } => {
                    if let Some(id) = order[*at] {
                        self.change(now, id, &new.virtual_servers[*at], hops);
                        applied.changed.insert(id);
                    }
                }
                _ => {}
            }
        }
        self.order = order.into_iter().flatten().collect();
        applied
    }

    fn add(
        &mut self,
        now: Instant,
        server: &VirtualServer,
        hops: &mut NextHops,
    ) -> Option<ServiceId> {
        let (slot, epoch) = self.slots.allot()?;
        let id = ServiceId(slot);
        let mut service = Service {
            id,
            epoch,
            matches: translate::matches(server),
            identity: translate::identity(server),
            reals: Vec::with_capacity(server.real_servers.len() + 1),
            steered: false,
            steered_whole: false,
            config: server.clone(),
        };
        let wanted = wanted(server).into_iter();
        (service.reals).extend(wanted.filter_map(|wanted| self.allot(now, &wanted, hops)));
        self.services.insert(id, service);
        Some(id)
    }

    fn change(&mut self, now: Instant, id: ServiceId, server: &VirtualServer, hops: &mut NextHops) {
        let Some(mut service) = self.services.remove(&id) else {
            return;
        };
        let mut wanted: HashMap<(Endpoint, bool), Wanted> = wanted(server)
            .into_iter()
            .map(|wanted| (wanted.key(), wanted))
            .collect();
        // What stays is as it is wanted now, in its place.
        for real in &mut service.reals {
            let key = (real.endpoint, real.role == Role::Sorry);
            match wanted.remove(&key) {
                Some(wanted) if wanted.method == real.method && real.role != Role::Draining => {
                    (real.role, real.weight) = (wanted.role, wanted.weight);
                    real.limits = wanted.limits;
                    if real.weight != 0 {
                        real.last_weight = real.weight;
                    }
                }
                Some(other) => {
                    // Reached in another way, it is another one: connections go on in the old way.
                    real.role = Role::Draining;
                    wanted.insert(key, other);
                }
                None => real.role = Role::Draining,
            }
        }
        // What is new, or comes back, is the last of its virtual server, as in IPVS.
        let mut added: Vec<Wanted> = wanted.into_values().collect();
        added.sort_unstable_by_key(|wanted| wanted.role.place());
        for wanted in added {
            let same = |real: &Real| {
                real.role == Role::Draining
                    && (real.endpoint, real.method) == (wanted.endpoint, wanted.method)
            };
            let real = match service.reals.iter().position(same) {
                Some(at) => {
                    let mut real = service.reals.remove(at);
                    (real.role, real.weight, real.limits) =
                        (wanted.role, wanted.weight, wanted.limits);
                    real.last_weight = wanted.weight;
                    Some(real)
                }
                None => self.allot(now, &wanted, hops),
            };
            service.reals.extend(real);
        }
        // Stable: the others keep their order.
        service.reals.sort_by_key(|real| real.role.rank());
        if self.settings.cut_removed {
            let drained = |real: &mut Real| real.role == Role::Draining;
            let gone: Vec<Real> = service.reals.extract_if(.., drained).collect();
            gone.iter().for_each(|real| self.release(real, hops));
        }
        if service.reals.iter().any(|real| real.role == Role::Draining) {
            self.draining.insert(id);
        } else {
            self.draining.remove(&id);
        }
        service.matches = translate::matches(server);
        service.identity = translate::identity(server);
        service.config = server.clone();
        self.services.insert(id, service);
    }

    fn allot(&mut self, now: Instant, wanted: &Wanted, hops: &mut NextHops) -> Option<Real> {
        let (slot, epoch) = self.real_slots.allot()?;
        Some(Real {
            id: RealId(slot),
            epoch,
            endpoint: wanted.endpoint,
            method: wanted.method,
            role: wanted.role,
            weight: wanted.weight,
            last_weight: wanted.weight,
            limits: wanted.limits,
            hop: hops.track(now, wanted.endpoint.addr),
            rates: Estimator::default(),
        })
    }

    fn release(&mut self, real: &Real, hops: &mut NextHops) {
        self.real_slots.release(real.id.0);
        hops.untrack(real.endpoint.addr);
    }

    /// Forgets virtual servers that no table has any more.
    pub(super) fn forget(&mut self, removed: &[ServiceId], hops: &mut NextHops) {
        for id in removed {
            let Some(service) = self.services.remove(id) else {
                continue;
            };
            service
                .reals
                .iter()
                .for_each(|real| self.release(real, hops));
            self.slots.release(id.0);
        }
    }

    /// Forgets real servers that have drained. The virtual servers that are not as they were for it.
    pub(super) fn drain(&mut self, stats: AllStats<'_>, hops: &mut NextHops) -> Vec<ServiceId> {
        let mut changed = Vec::new();
        for id in std::mem::take(&mut self.draining) {
            let Some(service) = self.services.get_mut(&id) else {
                continue;
            };
            let drained = |real: &mut Real| {
                let of = |counter: fn(&RealCounters) -> &Counter| {
                    stats.real(real.id.0, real.epoch.get(), counter)
                };
                real.role == Role::Draining
                    && of(|real| &real.active) == 0
                    && of(|real| &real.inactive) == 0
            };
            let gone: Vec<Real> = service.reals.extract_if(.., drained).collect();
            if service.reals.iter().any(|real| real.role == Role::Draining) {
                self.draining.insert(id);
            }
            if !gone.is_empty() {
                changed.push(id);
            }
            gone.iter().for_each(|real| self.release(real, hops));
        }
        changed
    }

    /// Whether any real server drains.
    pub(super) fn is_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// What the health checks are told of a virtual server.
    pub(in crate::control) fn check_settings(
        &self,
        id: ServiceId,
    ) -> Option<check::VirtualSettings> {
        self.services.get(&id).map(Service::check_settings)
    }

    /// Whether packets to an address are a virtual server's although no VRRP instance manages any address
    /// that this virtual server has: the administrator has put it there.
    pub(super) fn has_unmanaged(&self, addr: IpAddr) -> bool {
        self.services.values().any(|service| {
            service.matches.iter().any(|what| {
                let bounds = translate::bounds(what, &self.settings.marks);
                bounds
                    .into_iter()
                    .any(|bounds| within(addr, bounds) && !self.held.is_managed(bounds))
            })
        })
    }

    /// Whether there is none.
    pub(in crate::control) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Whether anything for clients passes here: answers of real servers (NAT), or what routers say about
    /// packets in tunnels.
    pub(super) fn sends_to_clients(&self) -> bool {
        let mut reals = self.services.values().flat_map(|service| &service.reals);
        reals.any(|real| !matches!(real.method, LbKind::Dr))
    }

    /// What the workers' table has of a virtual server.
    pub(super) fn spec(
        &self,
        id: ServiceId,
        health: &Health,
        hops: &NextHops,
        ports: &Ports,
    ) -> Option<ServiceSpec> {
        let service = self.services.get(&id)?;
        Some(service.spec(health, hops, ports))
    }

    /// The virtual servers with a real server at one of these addresses.
    pub(super) fn users(&self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<ServiceId> {
        let uses = |service: &&Service| {
            let mut reals = service.reals.iter();
            reals.any(|real| addresses.contains(&real.endpoint.addr))
        };
        let users = self.services.values().filter(uses);
        users.map(|service| service.id).collect()
    }

    /// All real servers.
    pub(super) fn all(&self) -> impl Iterator<Item = RealRef> + '_ {
        let reals = self.services.values().flat_map(|service| &service.reals);
        reals.map(Real::reference)
    }

    /// The real servers whose connections decide something: a scheduler's pick, or a threshold.
    pub(super) fn counted(&self) -> impl Iterator<Item = RealRef> + '_ {
        let services = self.services.values();
        let reals = services.flat_map(|service| {
            let counts = service.config.lb_algo.counts_connections();
            let limited = move |real: &&Real| counts || real.limits.upper > 0;
            service.reals.iter().filter(limited)
        });
        reals.map(Real::reference)
    }

    /// What stands beside the virtual servers in the workers' table, without the ways to clients.
    pub(super) fn environment(&self, ports: &Ports) -> Environment {
        let named = |name: &str| ports.named(name);
        Environment {
            ports: ports.specs(),
            ..translate::environment(&self.told, &self.settings, named)
        }
    }

    /// Whether an instance of this host manages `addr`.
    pub(super) fn manages(&self, addr: IpAddr) -> bool {
        self.held.is_managed((addr, addr))
    }

    /// This host has, or has not any more, the addresses `vips` of a VRRP instance.
    pub(super) fn hold(&mut self, on: bool, vips: impl Iterator<Item = IpAddr>) {
        self.held.hold(on, vips);
    }

    /// What another run knows a virtual server by.
    pub(super) fn identity(&self, id: ServiceId) -> u64 {
        let service = self.services.get(&id);
        service.map_or(0, |service| service.identity)
    }

    /// Whether all packets of a virtual server are steered: VRRP says of all of its addresses that they are this host's.
    pub(super) fn is_steered_whole(&self, id: ServiceId) -> bool {
        let service = self.services.get(&id);
        service.is_some_and(|service| service.steered_whole)
    }

    /// What is to be steered to the workers for the addresses that are held now, in this order. Of those in
    /// `leaving` nothing is.
    pub(super) fn steer(&mut self, leaving: &[ServiceId]) -> Vec<Steered> {
        let mut wanted = Vec::new();
        for service in self.services.values_mut() {
            let marks = &self.settings.marks;
            let all = service.matches.iter();
            let active: Vec<&Match> = all
                .filter(|what| {
                    let bounds = translate::bounds(what, marks);
                    let mut bounds = bounds.into_iter();
                    !leaving.contains(&service.id) && bounds.any(|one| self.held.is_held(one))
                })
                .collect();
            service.steered = !active.is_empty();
            service.steered_whole = active.len() == service.matches.len();
            // Answers before what they answer.
            for real in service.reals.iter().filter(|_| service.steered) {
                real.steering(&service.config, &mut wanted);
            }
            let active = active.into_iter();
            wanted.extend(active.flat_map(|what| translate::steering(what, marks)));
        }
        wanted
    }
}

impl Role {
    /// What comes first in the list of a virtual server.
    const fn rank(self) -> u8 {
        match self {
            Self::Configured(_) => 0,
            Self::Sorry => 1,
            Self::Draining => 2,
        }
    }

    /// The order in which new ones are added: the file's.
    const fn place(self) -> usize {
        match self {
            Self::Configured(at) => at,
            Self::Sorry | Self::Draining => usize::MAX,
        }
    }
}

/// A real server as the configuration has it.
struct Wanted {
    endpoint: Endpoint,
    method: LbKind,
    role: Role,
    weight: u32,
    limits: Limits,
}

impl Wanted {
    /// What it is known by within its virtual server: a sorry server may be one of the others, too.
    fn key(&self) -> (Endpoint, bool) {
        (self.endpoint, self.role == Role::Sorry)
    }
}

/// The real servers of a virtual server in the order of the configuration, and its sorry server.
fn wanted(server: &VirtualServer) -> Vec<Wanted> {
    let numbered = server.real_servers.iter().enumerate();
    let reals = numbered.map(|(at, real)| Wanted {
        endpoint: real.endpoint,
        method: real.lb_kind,
        role: Role::Configured(at),
        weight: real.weight,
        limits: translate::limits(real),
    });
    let sorry = server.sorry_server.iter().map(|sorry| Wanted {
        endpoint: sorry.endpoint,
        method: sorry.lb_kind,
        role: Role::Sorry,
        weight: 1,
        limits: Limits::default(),
    });
    reals.chain(sorry).collect()
}

impl Real {
    /// Whether it has health checks: neither the sorry server has, nor what drains.
    const fn is_checked(&self) -> bool {
        matches!(self.role, Role::Configured(_))
    }

    /// Which packets are the workers' besides those of the virtual server itself: answers, and errors about
    /// tunnels.
    fn steering(&self, server: &config::VirtualServer, wanted: &mut Vec<Steered>) {
        match self.method {
            LbKind::Dr => {}
            LbKind::Nat => {
                let own = server.takes_addresses().then_some(server.protocol);
                let any = server.matches.iter().any(|one| one.port().is_none());
                let protocols = translate::protocols(own.filter(|_| !any));
                wanted.extend(protocols.map(|proto| {
                    Steered::Return(Target {
                        endpoint: self.endpoint,
                        proto,
                    })
                }));
            }
            LbKind::Tun(kind) => wanted.push(Steered::Tunnel {
                addr: self.endpoint.addr,
                outer: translate::outer(kind),
            }),
        }
    }
}

impl Service {
    fn name(&self, endpoint: Endpoint) -> check::ServiceName {
        check::ServiceName {
            endpoint,
            protocol: self.config.key().protocol,
        }
    }

    fn check_settings(&self) -> check::VirtualSettings {
        let checked = self.reals.iter().filter_map(|real| {
            let Role::Configured(at) = real.role else {
                return None;
            };
            let configured = self.config.real_servers.get(at)?;
            Some(check::RealSettings {
                id: real.id,
                endpoint: real.endpoint,
                weight: configured.weight,
                inhibit: configured.inhibit_on_failure,
                checkers: (configured.checkers.iter())
                    .filter_map(checker_settings)
                    .collect(),
            })
        });
        let sorry = self.config.sorry_server.map(|sorry| check::SorryServer {
            name: self.name(sorry.endpoint),
            inhibit: sorry.inhibit,
        });
        check::VirtualSettings {
            id: self.id,
            name: self.name(self.config.key().endpoint),
            quorum: self.config.quorum,
            hysteresis: self.config.hysteresis,
            sorry,
            reals: checked.collect(),
        }
    }

    /// Whether the scheduler may see a real server, and the weight it has. Checks go the host's
    /// way, so one that packets have no way to may well pass them.
    fn standing(&self, real: &Real, health: &Health, way: Result<NextHop, Problem>) -> (bool, u32) {
        let Some(pool) = health.pool(self.id) else {
            return (false, 0);
        };
        let (in_pool, weight) = match real.role {
            Role::Configured(_) => (pool.in_pool(real.id), pool.weight(real.id)),
            Role::Sorry => (pool.sorry_in_pool(), 1),
            Role::Draining => (false, 0),
        };
        (in_pool && !way.is_err_and(Problem::is_lasting), weight)
    }

    /// Whether a real server's checks fail, whatever becomes of it then.
    fn has_failed(&self, real: &Real, health: &Health) -> bool {
        let pool = health.pool(self.id).filter(|_| real.is_checked());
        let view = pool.and_then(|pool| pool.real(real.id));
        view.is_some_and(|view| !view.up)
    }

    fn spec(&self, health: &Health, hops: &NextHops, ports: &Ports) -> ServiceSpec {
        let real = |real: &Real| {
            let way = way(real.endpoint.addr, hops, ports);
            let (available, weight) = self.standing(real, health, way);
            let first = self.matches.first();
            let same_family =
                first.is_some_and(|first| first.is_ipv6() == real.endpoint.addr.is_ipv6());
            RealSpec {
                id: real.id,
                epoch: real.epoch,
                endpoint: real.endpoint,
                // To this host itself packets go as they are, to be answered as the virtual server.
                method: if same_family && hops.is_local(real.endpoint.addr) {
                    LbKind::Dr
                } else {
                    real.method
                },
                weight,
                last_weight: real.last_weight,
                limits: real.limits,
                available,
                failed: self.has_failed(real, health),
                hop: real.hop,
            }
        };
        let drains = |real: &&Real| real.role == Role::Draining;
        let listed = self.reals.iter().filter(|real| !drains(real));
        let draining = self.reals.iter().filter(drains);
        ServiceSpec {
            id: self.id,
            epoch: self.epoch,
            matches: self.matches.clone(),
            one_packet: self.config.ops,
            scheduler: self.config.lb_algo,
            persistence: translate::persistence(&self.config),
            reals: listed.map(real).collect(),
            draining: draining.map(real).collect(),
        }
    }
}

/// How frames reach a real server through one of `ports`.
pub(super) fn way(address: IpAddr, hops: &NextHops, ports: &Ports) -> Result<NextHop, Problem> {
    let hop = hops.hop(address)?;
    let (port, info) = ports.with(hop.ifindex).ok_or(Problem::NotOpened)?;
    let mtu = hop.mtu.map_or(info.mtu, |own| own.min(info.mtu));
    Ok(NextHop {
        port,
        source: info.mac,
        destination: hop.destination.ok_or(Problem::Unresolved)?,
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
    })
}

/// What the health machine is told of a check. `None` for one that this version does not run, which a configuration is
/// refused for.
fn checker_settings(checker: &config::Checker) -> Option<check::CheckerSettings> {
    let config::CheckKind::Tcp(connection) = &checker.kind else {
        return None;
    };
    let target = std::net::SocketAddr::new(connection.to.addr, connection.to.port);
    let bind = match (connection.bindto, connection.bind_port) {
        (Some(addr), port) => Some(std::net::SocketAddr::new(addr, port)),
        (None, 0) => None,
        (None, port) => Some(std::net::SocketAddr::new(unspecified(target.ip()), port)),
    };
    Some(check::CheckerSettings {
        probe: check::Probe::Tcp(check::TcpProbe {
            target,
            bind,
            timeout: connection.timeout,
            mark: (connection.mark != 0).then_some(connection.mark),
        }),
        retry: checker.retry,
        delay_before_retry: checker.delay_before_retry,
        delay_loop: checker.delay_loop,
        warmup: checker.warmup,
        alpha: checker.alpha,
        log_all_failures: checker.log_all_failures,
    })
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests;
