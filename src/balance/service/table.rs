//! The table itself: a snapshot of what a builder knows, never changed.

use std::{collections::HashSet, net::IpAddr, num::NonZeroU32, sync::Arc};

use rapidhash::fast::SeedableState;

use super::{
    BuildError, Environment, HopId, LbKind, Match, NextHop, PortSpec, RealId, RealRef, RealSpec,
    ServiceId, ServiceKey, ServiceSpec, TableBuilder,
    lookup::{Lookup, Question},
    returns::Returns,
};
use crate::{
    addr::PortId,
    balance::{Entry, FlowKey, Limits, MaglevTables, Picker, Policy, Routes, Timeouts, state},
};

/// A real server in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Real {
    /// Which holder of its slot it is.
    pub epoch: NonZeroU32,
    /// Whether it is in the pool.
    pub available: bool,
    /// Whether its checks fail, or it has left the pool for another reason: UDP flows move away.
    pub failed: bool,
    /// Whether its weight is 0.
    pub quiescent: bool,
    /// Whether it has left the configuration and only keeps the connections that it has. It is not available then.
    pub draining: bool,
    /// How packets are rewritten for it.
    pub method: LbKind,
    /// The way to it: [`ServiceTable::next_hop`].
    pub hop: HopId,
    /// Its address.
    pub addr: IpAddr,
    /// Its port; 0: the one that the client asked for.
    pub port: u16,
    /// Its thresholds.
    pub(in crate::balance) limits: Limits,
    /// Its virtual server.
    pub service: ServiceId,
}

impl Real {
    /// One that is in the configuration.
    pub(super) const fn configured(spec: &RealSpec, service: ServiceId) -> Self {
        Self {
            epoch: spec.epoch,
            available: spec.available,
            failed: spec.failed || !spec.available,
            quiescent: spec.weight == 0,
            draining: false,
            method: spec.method,
            hop: spec.hop,
            addr: spec.endpoint.addr,
            port: spec.endpoint.port,
            limits: spec.limits,
            service,
        }
    }

    /// One that keeps its connections and gets no others.
    pub(super) const fn draining(spec: &RealSpec, service: ServiceId) -> Self {
        Self {
            available: false,
            failed: true,
            quiescent: true,
            draining: true,
            ..Self::configured(spec, service)
        }
    }

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

    /// The key of the template that leads a flow.
    pub(in crate::balance) fn template_of<K: FlowKey>(&self, key: K, templates: Templates) -> K {
        match self.mark {
            Some(mark) => key.marked_template(templates.prefix, mark),
            None => {
                let port = if self.any_port { 0 } else { key.vport() };
                key.template(templates.prefix, port)
            }
        }
    }

    /// Whether clients stay with their real servers, and by how many leading bits of their
    /// addresses they are told apart.
    pub fn client_prefix(&self) -> Option<u8> {
        self.persistence.map(|templates| templates.prefix)
    }
}

/// Where our tunnels end: address, and destination port of GUE or 0.
pub(super) type TunnelEnd = (IpAddr, u16);

/// Every virtual server, at one moment of the configuration. Tables share what they have in common: all big parts
/// are behind an [`Arc`].
#[derive(Clone, Debug)]
pub struct ServiceTable {
    pub(super) generation: u64,
    pub(super) timeouts: Timeouts,
    pub(super) policy: Policy,
    pub(super) ports: Arc<[PortSpec]>,
    pub(super) routes: Arc<Routes>,
    /// By their slots.
    pub(super) services: Arc<[Option<Arc<Service>>]>,
    pub(super) lookup: Arc<Lookup>,
    pub(super) returns: Arc<Returns>,
    /// Whether any virtual server's flows have an owner among several workers.
    pub(super) owned: bool,
    /// Of IPv4 and IPv6: the shortest client prefix of persistent virtual servers with NAT.
    pub(super) nat_prefixes: [Option<u8>; 2],
    /// By their slots.
    pub(super) reals: Arc<[Option<Real>]>,
    /// By [`HopId`], as are the addresses of this host, which tunnels alone need.
    pub(super) next_hops: Arc<[Option<NextHop>]>,
    pub(super) locals: Arc<[Option<IpAddr>]>,
    pub(super) tunnels: Arc<HashSet<TunnelEnd, SeedableState<'static>>>,
}

impl ServiceTable {
    /// The table of `services`, without ways to their real servers: [`TableBuilder`] gives them.
    ///
    /// # Errors
    /// [`BuildError`] names the first virtual or real server that cannot be in a table.
    pub fn build(
        generation: u64,
        services: &[ServiceSpec],
        environment: Environment,
    ) -> Result<Self, BuildError> {
        let mut builder = TableBuilder::new();
        builder.set_environment(environment);
        builder.apply(&[], services)?;
        Ok(builder.build(generation))
    }

    /// The table without virtual servers, generation 0.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            timeouts: Timeouts::default(),
            policy: Policy::default(),
            ports: Arc::default(),
            routes: Arc::default(),
            services: Arc::default(),
            lookup: Arc::default(),
            returns: Arc::default(),
            owned: false,
            nat_prefixes: [None; 2],
            reals: Arc::default(),
            next_hops: Arc::default(),
            locals: Arc::default(),
            tunnels: Arc::new(HashSet::with_hasher(SeedableState::fixed())),
        }
    }

    /// Which table it is.
    #[inline]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Every virtual server, in the order of their slots.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().flatten().map(Arc::as_ref)
    }

    /// The virtual server of a real one.
    pub(in crate::balance) fn service_of(&self, real: &Real) -> Option<&Service> {
        self.services.get(real.service.0 as usize)?.as_deref()
    }

    /// How long connections may idle.
    #[inline]
    pub const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// What becomes of packets that are odd.
    #[inline]
    pub const fn policy(&self) -> &Policy {
        &self.policy
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
        &self.routes
    }

    /// A port of the data plane.
    pub fn port(&self, port: PortId) -> PortSpec {
        let found = self.ports.get(usize::from(port.0));
        found.copied().unwrap_or_default()
    }

    /// The virtual server that a packet from a client is for.
    #[inline]
    pub fn service(&self, question: &Question) -> Option<&Service> {
        let at = self.lookup.find(question)?;
        self.services.get(at as usize)?.as_deref()
    }

    /// Whether any packet may be an answer that gets a virtual server's address.
    #[inline]
    pub fn has_returns(&self) -> bool {
        !self.returns.is_empty()
    }

    /// The virtual server whose real server, behind NAT, answers from this address and port; that with the lowest slot
    /// when the real server is several ones'.
    #[inline(always)]
    pub fn returns(&self, addr: IpAddr, protocol: u8, port: u16) -> Option<&Service> {
        let by = self.returns.find(addr, protocol, port)?;
        self.services.get(by.service.0 as usize)?.as_deref()
    }

    /// The real server that answers from there.
    pub fn returning(&self, addr: IpAddr, protocol: u8, port: u16) -> Option<RealRef> {
        let id = self.returns.find(addr, protocol, port)?.real;
        let epoch = self.in_slot(id)?.epoch;
        Some(RealRef { id, epoch })
    }

    /// Whether a real server behind NAT has this address and answers by this protocol.
    pub fn has_returns_from(&self, addr: IpAddr, protocol: u8) -> bool {
        self.returns.has_host(addr, protocol)
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

    /// How frames reach a real server; `None` while that is unknown.
    #[inline]
    pub fn next_hop(&self, real: &Real) -> Option<&NextHop> {
        self.next_hops.get(real.hop.0 as usize)?.as_ref()
    }

    /// The real servers by their slots.
    pub fn reals(&self) -> &[Option<Real>] {
        &self.reals
    }

    /// The ways to real servers by their [`HopId`].
    pub fn next_hops(&self) -> &[Option<NextHop>] {
        &self.next_hops
    }

    /// Whether another table has the same real servers, ways and policy as this one: quick, and seldom wrong, which is to
    /// say `false` although they are the same.
    pub fn forwards_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.reals, &other.reals)
            && Arc::ptr_eq(&self.next_hops, &other.next_hops)
            && Arc::ptr_eq(&self.locals, &other.locals)
            && Arc::ptr_eq(&self.routes, &other.routes)
            && self.policy == other.policy
    }

    /// This host's address on the way to a real server; `None` while there is no way.
    #[inline]
    pub fn local(&self, real: &Real) -> Option<IpAddr> {
        *self.locals.get(real.hop.0 as usize)?
    }
}

impl Service {
    pub(super) fn build(spec: &ServiceSpec, known: &mut MaglevTables) -> Result<Self, BuildError> {
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
        let owner = u64::from(spec.epoch.get()) << 32 | u64::from(spec.id.0);
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
