//! The table itself: built from specifications, never changed.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
};

use rapidhash::fast::SeedableState;

use super::{
    BuildError, Environment, MAX_REALS, MAX_SERVICES, Match, Method, NextHop, PortSpec, RealId,
    RealRef, ServiceId, ServiceKey, ServiceSpec,
    lookup::{Lookup, Question},
};
use crate::{
    addr::{L4Proto, PortId},
    balance::{
        Entry, Limits, MaglevTables, Picker, Policy, Routes, Timeouts, rewrite::TunnelKind, state,
    },
};

/// A real server in the table.
#[derive(Clone, Copy, Debug)]
pub struct Real {
    /// Which holder of its slot it is.
    pub epoch: NonZeroU32,
    /// Whether it is in the pool.
    pub available: bool,
    /// Whether its checks fail, or it has left the pool for another reason: UDP flows move away.
    pub failed: bool,
    /// Whether its weight is 0.
    pub quiescent: bool,
    /// How packets are rewritten for it.
    pub method: Method,
    /// The way to it; `None` while its MAC address is unknown.
    pub next_hop: Option<NextHop>,
    /// Its address.
    pub addr: IpAddr,
    /// Its port; 0: the one that the client asked for.
    pub port: u16,
    /// This host's address on the way to it.
    pub local: Option<IpAddr>,
    /// Its thresholds.
    pub(in crate::balance) limits: Limits,
    /// The place of its virtual server in [`ServiceTable::services`].
    pub service: u32,
}

impl Real {
    /// The port that it has connections to `vport` on, and answers them from.
    #[inline]
    pub const fn port_for(&self, vport: u16) -> u16 {
        if self.port == 0 { vport } else { self.port }
    }
}

/// How the templates of a persistent virtual server are kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::balance) struct Templates {
    /// Ticks after its last new connection that one expires.
    pub(in crate::balance) period: u32,
    /// Leading bits of a client's address that count.
    pub(in crate::balance) prefix: u8,
}

/// A virtual server in the table.
#[derive(Debug)]
pub struct Service {
    /// Its slot.
    pub id: ServiceId,
    /// Its first address and port, for answers that are translated without a connection.
    first: Option<ServiceKey>,
    /// The mark that it goes by.
    pub(in crate::balance) mark: Option<u32>,
    /// Whether it takes every port of its addresses.
    pub(in crate::balance) any_port: bool,
    /// `ops`.
    pub(in crate::balance) one_packet: bool,
    /// Its scheduler with the list of its real servers.
    pub picker: Picker,
    pub(in crate::balance) persistence: Option<Templates>,
    sees_answers: bool,
}

impl Service {
    /// What it goes by, when that is one address and port and every packet is scheduled by itself:
    /// then a real server's answer is translated by this alone.
    pub fn stateless(&self) -> Option<ServiceKey> {
        self.first.filter(|_| self.one_packet && !self.any_port)
    }

    /// Whether answers of any of its real servers pass here.
    #[inline]
    pub const fn sees_answers(&self) -> bool {
        self.sees_answers
    }

    /// Whether clients stay with their real servers, and by how many leading bits of their
    /// addresses they are told apart.
    pub fn client_prefix(&self) -> Option<u8> {
        self.persistence.map(|templates| templates.prefix)
    }
}

/// Who answers from somewhere.
#[derive(Clone, Copy, Debug)]
struct Answerer {
    /// The place of the virtual server.
    service: u32,
    real: RealId,
}

/// Real servers by what they answer from. Looked at for every packet from a client, so a key is one word, or three,
/// as in [`Lookup`].
#[derive(Debug, Default)]
struct Returns {
    /// The addresses of them all, with the protocols.
    hosts: HashSet<(IpAddr, u8), SeedableState<'static>>,
    v4: HashMap<u64, Answerer, SeedableState<'static>>,
    v6: HashMap<(u128, u32), Answerer, SeedableState<'static>>,
}

impl Returns {
    fn add(&mut self, addr: IpAddr, protocol: u8, port: u16, by: Answerer) {
        self.hosts.insert((addr, protocol));
        let from = source(protocol, port);
        match addr {
            IpAddr::V4(addr) => self.v4.entry(word(addr, from)).or_insert(by),
            IpAddr::V6(addr) => self.v6.entry((addr.to_bits(), from)).or_insert(by),
        };
    }

    // Always: the caller knows the family.
    #[inline(always)]
    fn get(&self, addr: IpAddr, from: u32) -> Option<Answerer> {
        match addr {
            IpAddr::V4(addr) => self.v4.get(&word(addr, from)),
            IpAddr::V6(addr) => self.v6.get(&(addr.to_bits(), from)),
        }
        .copied()
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

#[inline]
fn word(addr: Ipv4Addr, from: u32) -> u64 {
    u64::from(addr.to_bits()) << 32 | u64::from(from)
}

/// Every virtual server, at one moment of the configuration.
#[derive(Debug)]
pub struct ServiceTable {
    generation: u64,
    environment: Environment,
    services: Box<[Service]>,
    lookup: Lookup,
    /// Whose packets are answers that get a virtual server's address: real servers behind NAT. Each
    /// with the place of its virtual server.
    returns: Returns,
    /// Whether any of them answers from every port.
    any_return: bool,
    /// Whether any virtual server's flows have an owner among several workers.
    owned: bool,
    /// Of IPv4 and IPv6: the shortest client prefix of persistent virtual servers with NAT.
    nat_prefixes: [Option<u8>; 2],
    reals: Box<[Option<Real>]>,
    /// Where our tunnels end: address, and destination port of GUE or 0.
    tunnels: HashSet<(IpAddr, u16), SeedableState<'static>>,
}

impl ServiceTable {
    /// The table of `services`. Generations are numbered upwards by whoever publishes.
    ///
    /// # Errors
    /// [`BuildError`] names the first virtual or real server that cannot be in a table.
    pub fn build(
        generation: u64,
        services: &[ServiceSpec],
        environment: Environment,
    ) -> Result<Self, BuildError> {
        Self::build_with(
            generation,
            services,
            environment,
            &mut MaglevTables::default(),
        )
    }

    /// As [`Self::build`], without filling tables of `mh` anew that are in use.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_with(
        generation: u64,
        services: &[ServiceSpec],
        environment: Environment,
        known: &mut MaglevTables,
    ) -> Result<Self, BuildError> {
        let mut built = Vec::with_capacity(services.len());
        let mut reals = Vec::new();
        let mut slots = vec![false; MAX_SERVICES];
        let mut lookup = Lookup::new(environment.marks.clone());
        let (mut returns, mut any_return) = (Returns::default(), false);
        let mut tunnels = HashSet::with_hasher(SeedableState::fixed());
        for spec in services {
            match slots.get_mut(spec.id.0 as usize) {
                None => return Err(BuildError::ServiceSlot(spec.id)),
                Some(true) => return Err(BuildError::DuplicateServiceSlot(spec.id)),
                Some(taken) => *taken = true,
            }
            let at = u32::try_from(built.len()).unwrap_or(u32::MAX);
            for what in &spec.matches {
                lookup.add(*what, at)?;
            }
            add_reals(&mut reals, spec, at)?;
            let behind_nat = spec.reals.iter().filter(|real| real.method.sees_answers());
            for real in behind_nat {
                for protocol in spec.protocols() {
                    let (addr, port) = (real.endpoint.addr, real.endpoint.port);
                    let by = Answerer {
                        service: at,
                        real: real.id,
                    };
                    returns.add(addr, protocol.number(), port, by);
                    any_return |= real.endpoint.port == 0;
                }
            }
            tunnels.extend(spec.reals.iter().filter_map(|real| match real.method {
                Method::Tunnel(TunnelKind::Gue { port, .. }) => Some((real.endpoint.addr, port)),
                Method::Tunnel(_) => Some((real.endpoint.addr, 0)),
                Method::DirectRouting | Method::Nat => None,
            }));
            built.push(Service::build(spec, known)?);
        }
        Ok(Self {
            generation,
            environment,
            services: built.into(),
            lookup,
            any_return,
            nat_prefixes: [false, true].map(|ipv6| {
                let family = services.iter().filter(|spec| spec.has_family(ipv6));
                let nat = family.filter(|spec| spec.sees_answers());
                nat.filter_map(|spec| Some(spec.persistence?.prefix)).min()
            }),
            owned: services
                .iter()
                .any(|spec| spec.persistence.is_some() || spec.sees_answers()),
            returns,
            reals: reals.into(),
            tunnels,
        })
    }

    /// The table without virtual servers, generation 0.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            environment: Environment::default(),
            services: Box::default(),
            lookup: Lookup::default(),
            returns: Returns::default(),
            any_return: false,
            owned: false,
            nat_prefixes: [None; 2],
            reals: Box::default(),
            tunnels: HashSet::with_hasher(SeedableState::fixed()),
        }
    }

    /// Which table it is.
    #[inline]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Every virtual server.
    pub const fn services(&self) -> &[Service] {
        &self.services
    }

    /// How long connections may idle.
    #[inline]
    pub const fn timeouts(&self) -> &Timeouts {
        &self.environment.timeouts
    }

    /// What becomes of packets that are odd.
    #[inline]
    pub const fn policy(&self) -> &Policy {
        &self.environment.policy
    }

    /// Whether any flow has an owner among several workers ([`Ownership::owner`]); else each flow is
    /// that of the worker that receives it.
    ///
    /// [`Ownership::owner`]: crate::balance::Ownership::owner
    #[inline]
    pub const fn has_owners(&self) -> bool {
        self.owned
    }

    /// By how many leading bits of their addresses clients are told apart when flows with NAT are divided
    /// among workers; `None`: by address and port.
    pub(in crate::balance) const fn nat_prefix(&self, ipv6: bool) -> Option<u8> {
        self.nat_prefixes[ipv6 as usize]
    }

    /// The ways to clients.
    #[inline]
    pub fn routes(&self) -> &Routes {
        &self.environment.routes
    }

    /// A port of the data plane.
    pub fn port(&self, port: PortId) -> PortSpec {
        let found = self.environment.ports.get(usize::from(port.0));
        found.copied().unwrap_or_default()
    }

    /// The virtual server that a packet from a client is for.
    #[inline]
    pub fn service(&self, question: &Question) -> Option<&Service> {
        let at = self.lookup.find(question)?;
        self.services.get(at as usize)
    }

    /// Whether any packet may be an answer that gets a virtual server's address.
    #[inline]
    pub fn has_returns(&self) -> bool {
        !self.returns.is_empty()
    }

    /// The virtual server whose real server, behind NAT, answers from this address and port.
    #[inline(always)]
    pub fn returns(&self, addr: IpAddr, protocol: u8, port: u16) -> Option<&Service> {
        let by = self.answerer(addr, protocol, port)?;
        self.services.get(by.service as usize)
    }

    /// The real server that answers from there.
    pub fn returning(&self, addr: IpAddr, protocol: u8, port: u16) -> Option<RealRef> {
        let id = self.answerer(addr, protocol, port)?.real;
        let epoch = self.in_slot(id)?.epoch;
        Some(RealRef { id, epoch })
    }

    #[inline(always)]
    fn answerer(&self, addr: IpAddr, protocol: u8, port: u16) -> Option<Answerer> {
        self.returns.get(addr, source(protocol, port)).or_else(|| {
            self.any_return
                .then(|| self.returns.get(addr, source(protocol, 0)))
                .flatten()
        })
    }

    /// Whether a real server behind NAT has this address and answers by this protocol.
    pub fn has_returns_from(&self, addr: IpAddr, protocol: u8) -> bool {
        self.returns.hosts.contains(&(addr, protocol))
    }

    /// Whether any real server is behind a tunnel.
    #[inline]
    pub fn has_tunnels(&self) -> bool {
        !self.tunnels.is_empty()
    }

    /// Whether a tunnel of ours ends at this address, of GUE to this port, or of another kind when that is 0.
    pub fn is_tunnel_end(&self, addr: IpAddr, gue_port: u16) -> bool {
        self.tunnels.contains(&(addr, gue_port))
    }

    /// The real server; `None` when it has left the configuration.
    #[inline]
    pub fn real(&self, real: RealRef) -> Option<&Real> {
        self.in_slot(real.id).filter(|r| r.epoch == real.epoch)
    }

    /// The real server that has this slot now.
    #[inline]
    pub fn in_slot(&self, id: RealId) -> Option<&Real> {
        self.reals.get(id.0 as usize)?.as_ref()
    }
}

impl ServiceSpec {
    /// The protocols that its packets may have.
    fn protocols(&self) -> impl Iterator<Item = L4Proto> {
        let all = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
        all.into_iter().filter(|protocol| {
            self.matches.iter().any(|what| match what {
                Match::Address(key) => key.protocol == *protocol,
                Match::Range { protocol: p, .. } => p == protocol,
                Match::Mark { .. } => true,
            })
        })
    }

    /// Whether answers of any of its real servers pass here.
    fn sees_answers(&self) -> bool {
        self.reals.iter().any(|real| real.method.sees_answers())
    }

    /// Whether any of its packets are of this family.
    fn has_family(&self, ipv6: bool) -> bool {
        self.matches.iter().any(|what| what.is_ipv6() == ipv6)
    }

    /// Whether its packets are IPv6's.
    fn is_ipv6(&self) -> bool {
        self.matches.first().is_some_and(Match::is_ipv6)
    }
}

impl Service {
    fn build(spec: &ServiceSpec, known: &mut MaglevTables) -> Result<Self, BuildError> {
        let whole = if spec.has_family(true) { 128 } else { 32 };
        let persistence = match spec.persistence {
            Some(p) if p.prefix > whole => return Err(BuildError::Prefix(spec.id)),
            Some(p) => Some(Templates {
                period: state::ticks(p.timeout),
                prefix: p.prefix,
            }),
            None => None,
        };
        let entries: Vec<Entry> = spec.reals.iter().map(Entry::from).collect();
        let mark = spec.matches.iter().find_map(|what| match what {
            Match::Mark { mark, .. } => Some(*mark),
            _ => None,
        });
        let any_port = spec.matches.iter().any(|what| match what {
            Match::Address(key) => key.endpoint.port == 0,
            Match::Range { port, .. } => *port == 0,
            Match::Mark { .. } => true,
        });
        let first = match spec.matches.as_slice() {
            [Match::Address(key)] => Some(*key),
            _ => None,
        };
        // Not 0: that is a cursor's before its first pick.
        let owner = u64::from(spec.id.0) + 1;
        Ok(Self {
            id: spec.id,
            first,
            mark,
            any_port,
            one_packet: spec.one_packet,
            picker: Picker::build(owner, spec.scheduler, &entries, known),
            persistence,
            sees_answers: spec.sees_answers(),
        })
    }
}

fn add_reals(
    reals: &mut Vec<Option<Real>>,
    spec: &ServiceSpec,
    service: u32,
) -> Result<(), BuildError> {
    for real in &spec.reals {
        let slot = real.id.0 as usize;
        if slot >= MAX_REALS {
            return Err(BuildError::RealSlot(real.id));
        }
        let tunnel = matches!(real.method, Method::Tunnel(_));
        if !tunnel && real.endpoint.addr.is_ipv6() != spec.is_ipv6() {
            return Err(BuildError::Family(spec.id, real.id));
        }
        if reals.len() <= slot {
            reals.resize(slot + 1, None);
        }
        let built = Real {
            epoch: real.epoch,
            available: real.available,
            failed: real.failed || !real.available,
            quiescent: real.weight == 0,
            next_hop: real.next_hop,
            method: real.method,
            addr: real.endpoint.addr,
            port: real.endpoint.port,
            local: real.local,
            limits: real.limits,
            service,
        };
        if reals[slot].replace(built).is_some() {
            return Err(BuildError::DuplicateRealSlot(real.id));
        }
    }
    Ok(())
}

/// Protocol and port of a real server's answers.
#[inline]
fn source(protocol: u8, port: u16) -> u32 {
    u32::from(port) << 16 | u32::from(protocol)
}
