//! What tables are built by: all that control has said so far.
//!
//! A change costs what it changes. The parts of a table are shared with the tables before it; a part that is to
//! change is copied once, and patched. What a part is derived from, and must be known to take something out of it
//! again, stands in [`Holders`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    BuildError, Environment, Hop, HopId, LbKind, MAX_REALS, MAX_SERVICES, Match, Real, RealId,
    RealSpec, Service, ServiceId, ServiceSpec, ServiceTable,
    lookup::Lookup,
    returns::{Answerer, Source},
    table::TunnelEnd,
};
use crate::{
    addr::L4Proto,
    balance::{MaglevTables, Routes},
    lvs::TunnelKind,
};

/// All that tables are built from. Kept from one to the next, so that each costs only what has changed.
#[derive(Debug)]
pub struct TableBuilder {
    /// What the next table says.
    next: ServiceTable,
    /// By their slots.
    specs: Vec<Option<ServiceSpec>>,
    holders: Holders,
    maglev: MaglevTables,
}

/// Virtual servers by what of a table is theirs, several of them where that may be.
#[derive(Debug, Default)]
struct Holders {
    returns: BTreeSet<(Source, Answerer)>,
    tunnels: BTreeSet<(TunnelEnd, ServiceId)>,
    /// Those whose flows have owners.
    owned: BTreeSet<ServiceId>,
    /// Of IPv4 and IPv6: those with NAT that are persistent, by their client prefixes.
    nat_prefixes: [BTreeSet<(u8, ServiceId)>; 2],
}

/// What becomes of the slots of virtual servers: `None` when it is free from now on.
type Changes<'a> = BTreeMap<ServiceId, Option<&'a ServiceSpec>>;

impl TableBuilder {
    /// No virtual servers, no ways, and the defaults for all else.
    pub fn new() -> Self {
        Self {
            next: ServiceTable::empty(),
            specs: Vec::new(),
            holders: Holders::default(),
            maglev: MaglevTables::default(),
        }
    }

    /// Adds a virtual server, in the place of the one that has its slot if there is one.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn set(&mut self, spec: &ServiceSpec) -> Result<(), BuildError> {
        self.apply(&[], std::slice::from_ref(spec))
    }

    /// Takes the virtual server out that has this slot, if there is one.
    pub fn remove(&mut self, id: ServiceId) {
        let changes = self.held(&[id]).collect();
        self.commit(&changes, Vec::new());
    }

    /// Takes the virtual servers out that have the slots of `removed`, and adds those of `set`, each in the place of the
    /// one that has its slot. In one step: what leaves one virtual server may go to another, whatever their order.
    ///
    /// # Errors
    /// [`BuildError`] names the first virtual or real server of `set` that cannot be in the table. Nothing has
    /// changed then.
    pub fn apply(&mut self, removed: &[ServiceId], set: &[ServiceSpec]) -> Result<(), BuildError> {
        let mut changes: Changes<'_> = self.held(removed).collect();
        let mut slots = HashSet::with_capacity(set.len());
        let mut added = Vec::new();
        for spec in set {
            if spec.id.0 as usize >= MAX_SERVICES {
                return Err(BuildError::ServiceSlot(spec.id));
            }
            if !slots.insert(spec.id) {
                return Err(BuildError::DuplicateServiceSlot(spec.id));
            }
            if self.spec(spec.id) == Some(spec) {
                changes.remove(&spec.id);
            } else {
                changes.insert(spec.id, Some(spec));
                added.push(spec);
            }
        }
        let mut check = Check {
            table: &self.next,
            changes: &changes,
            lookup: Lookup::default(),
            reals: HashSet::new(),
        };
        let mut services = Vec::with_capacity(added.len());
        for spec in added {
            check.matches(spec)?;
            check.reals(spec)?;
            services.push(Arc::new(Service::build(spec, &mut self.maglev)?));
        }
        self.commit(&changes, services);
        Ok(())
    }

    /// From now on this is the way with that slot. Whether it was another before.
    ///
    /// No slot is [`MAX_REALS`] or more, as there are no more ways than real servers: such a one is not kept.
    pub fn set_hop(&mut self, id: HopId, hop: Hop) -> bool {
        let at = id.0 as usize;
        if at >= MAX_REALS {
            return false;
        }
        let next = put(&mut self.next.next_hops, at, hop.next);
        let local = put(&mut self.next.locals, at, hop.local);
        next || local
    }

    /// What there is beside the virtual servers from now on.
    pub fn set_environment(&mut self, environment: Environment) {
        let Environment {
            timeouts,
            policy,
            marks,
            ports,
        } = environment;
        self.next.timeouts = timeouts;
        self.next.policy = policy;
        if *marks != *self.next.lookup.rules() {
            Arc::make_mut(&mut self.next.lookup).set_rules(marks);
        }
        if *ports != *self.next.ports {
            self.next.ports = ports.into();
        }
    }

    /// The ways back to clients from now on.
    pub fn set_routes(&mut self, routes: Arc<Routes>) {
        self.next.routes = routes;
    }

    /// The table of what was said so far. Generations are numbered upwards by whoever publishes.
    pub fn build(&mut self, generation: u64) -> ServiceTable {
        self.next.generation = generation;
        self.next.clone()
    }

    /// The virtual server that has this slot.
    fn spec(&self, id: ServiceId) -> Option<&ServiceSpec> {
        self.specs.get(id.0 as usize)?.as_ref()
    }

    /// Those of the slots that a virtual server has, to be freed.
    fn held<'a>(
        &self,
        slots: &[ServiceId],
    ) -> impl Iterator<Item = (ServiceId, Option<&'a ServiceSpec>)> {
        let held = slots.iter().filter(|id| self.spec(**id).is_some());
        held.map(|id| (*id, None))
    }

    /// Carries out changes that were checked, with what was built for those that are not removals.
    fn commit(&mut self, changes: &Changes<'_>, services: Vec<Arc<Service>>) {
        let before: Vec<ServiceSpec> = changes
            .keys()
            .filter_map(|id| self.specs.get_mut(id.0 as usize)?.take())
            .collect();
        let after: Vec<&ServiceSpec> = changes.values().flatten().copied().collect();
        self.match_packets(&before, &after);
        self.place_reals(&before, &after);
        self.find_answers(&before, &after);
        self.end_tunnels(&before, &after);
        self.divide(&before, &after);
        for spec in &before {
            put_shared(&mut self.next.services, spec.id.0 as usize, None);
        }
        for service in services {
            let at = service.id.0 as usize;
            put_shared(&mut self.next.services, at, Some(service));
        }
        for spec in after {
            let at = spec.id.0 as usize;
            if self.specs.len() <= at {
                self.specs.resize(at + 1, None);
            }
            self.specs[at] = Some(spec.clone());
        }
    }

    fn match_packets(&mut self, before: &[ServiceSpec], after: &[&ServiceSpec]) {
        let mut holders: HashMap<Match, Option<u32>> = HashMap::new();
        holders.extend((before.iter().flat_map(|spec| &spec.matches)).map(|what| (*what, None)));
        for spec in after {
            holders.extend(spec.matches.iter().map(|what| (*what, Some(spec.id.0))));
        }
        let lookup = &mut self.next.lookup;
        holders.retain(|what, holder| lookup.holder(what) != *holder);
        if holders.is_empty() {
            return;
        }
        let lookup = Arc::make_mut(lookup);
        for what in holders.keys() {
            if lookup.holder(what).is_some() {
                lookup.remove(what);
            }
        }
        for (what, holder) in holders {
            if let Some(at) = holder {
                lookup.insert(&what, at);
            }
        }
    }

    fn place_reals(&mut self, before: &[ServiceSpec], after: &[&ServiceSpec]) {
        let mut places: HashMap<RealId, Option<Real>> = HashMap::new();
        places.extend((before.iter().flat_map(ServiceSpec::all_reals)).map(|real| (real.id, None)));
        for spec in after {
            let configured = spec.reals.iter();
            let configured = configured.map(|real| (real.id, Real::configured(real, spec.id)));
            let draining = spec.draining.iter();
            let draining = draining.map(|real| (real.id, Real::draining(real, spec.id)));
            places.extend(
                configured
                    .chain(draining)
                    .map(|(id, real)| (id, Some(real))),
            );
        }
        for (id, real) in places {
            put(&mut self.next.reals, id.0 as usize, real);
        }
    }

    fn find_answers(&mut self, before: &[ServiceSpec], after: &[&ServiceSpec]) {
        let held = &mut self.holders.returns;
        let mut touched = BTreeSet::new();
        for spec in before {
            for (source, by) in spec.sources() {
                held.remove(&(source, by));
                touched.insert(source);
            }
        }
        for spec in after {
            for (source, by) in spec.sources() {
                held.insert((source, by));
                touched.insert(source);
            }
        }
        for source in touched {
            let all = (source, FIRST_ANSWERER)..=(source, LAST_ANSWERER);
            let holder = held.range(all).next().map(|(_, by)| *by);
            let returns = &mut self.next.returns;
            if returns.holder(source) != holder {
                let (addr, protocol, _) = source;
                let ports = ((addr, protocol, 0), FIRST_ANSWERER)
                    ..=((addr, protocol, u16::MAX), LAST_ANSWERER);
                let is_host = held.range(ports).next().is_some();
                Arc::make_mut(returns).set(source, holder, is_host);
            }
        }
    }

    fn end_tunnels(&mut self, before: &[ServiceSpec], after: &[&ServiceSpec]) {
        let held = &mut self.holders.tunnels;
        let mut touched = BTreeSet::new();
        for spec in before {
            for end in spec.tunnel_ends() {
                held.remove(&(end, spec.id));
                touched.insert(end);
            }
        }
        for spec in after {
            for end in spec.tunnel_ends() {
                held.insert((end, spec.id));
                touched.insert(end);
            }
        }
        for end in touched {
            let (tunnels, is_end) = (&mut self.next.tunnels, first(held, end).is_some());
            match (tunnels.contains(&end), is_end) {
                (false, true) => _ = Arc::make_mut(tunnels).insert(end),
                (true, false) => _ = Arc::make_mut(tunnels).remove(&end),
                _ => {}
            }
        }
    }

    /// What says which worker's a flow is.
    fn divide(&mut self, before: &[ServiceSpec], after: &[&ServiceSpec]) {
        let Holders {
            owned,
            nat_prefixes,
            ..
        } = &mut self.holders;
        for spec in before {
            owned.remove(&spec.id);
            for (held, ipv6) in nat_prefixes.iter_mut().zip([false, true]) {
                if let Some(prefix) = spec.nat_prefix(ipv6) {
                    held.remove(&(prefix, spec.id));
                }
            }
        }
        for spec in after {
            if spec.persistence.is_some() || spec.sees_answers() {
                owned.insert(spec.id);
            }
            for (held, ipv6) in nat_prefixes.iter_mut().zip([false, true]) {
                if let Some(prefix) = spec.nat_prefix(ipv6) {
                    held.insert((prefix, spec.id));
                }
            }
        }
        self.next.owned = !owned.is_empty();
        self.next.nat_prefixes = [0, 1].map(|family: usize| {
            let shortest = nat_prefixes[family].first();
            shortest.map(|(prefix, _)| *prefix)
        });
    }
}

impl Default for TableBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// Looks whether virtual servers can be in a table together: with each other, and with those that stay.
struct Check<'a> {
    table: &'a ServiceTable,
    changes: &'a Changes<'a>,
    /// What was added so far.
    lookup: Lookup,
    reals: HashSet<RealId>,
}

impl Check<'_> {
    fn matches(&mut self, spec: &ServiceSpec) -> Result<(), BuildError> {
        for what in &spec.matches {
            if let Match::Range { first, last, .. } = *what
                && (first.is_ipv4() != last.is_ipv4() || first > last)
            {
                return Err(BuildError::Range(*what));
            }
            let mut staying = self.table.lookup.holders(what);
            if staying.any(|at| !self.changes.contains_key(&ServiceId(at)))
                || self.lookup.holders(what).next().is_some()
            {
                return Err(BuildError::DuplicateService(*what));
            }
            self.lookup.insert(what, spec.id.0);
        }
        Ok(())
    }

    fn reals(&mut self, spec: &ServiceSpec) -> Result<(), BuildError> {
        for real in spec.all_reals() {
            if real.id.0 as usize >= MAX_REALS {
                return Err(BuildError::RealSlot(real.id));
            }
            let tunnel = matches!(real.method, LbKind::Tun(_));
            if !tunnel && real.endpoint.addr.is_ipv6() != spec.is_ipv6() {
                return Err(BuildError::Family(spec.id, real.id));
            }
            let holder = self.table.in_slot(real.id).map(|held| held.service);
            let stays = holder.is_some_and(|id| !self.changes.contains_key(&id));
            if stays || !self.reals.insert(real.id) {
                return Err(BuildError::DuplicateRealSlot(real.id));
            }
        }
        Ok(())
    }
}

impl ServiceSpec {
    /// Its real servers, those that have left the configuration included.
    fn all_reals(&self) -> impl Iterator<Item = &RealSpec> {
        self.reals.iter().chain(&self.draining)
    }

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

    /// What its answers come from, and whose they are.
    fn sources(&self) -> impl Iterator<Item = (Source, Answerer)> {
        let behind_nat = self.all_reals().filter(|real| real.method.sees_answers());
        behind_nat.flat_map(|real| {
            let (addr, port) = (real.endpoint.addr, real.endpoint.port);
            let by = Answerer {
                service: self.id,
                real: real.id,
            };
            let protocols = self.protocols();
            protocols.map(move |protocol| ((addr, protocol.number(), port), by))
        })
    }

    /// Where its tunnels end.
    fn tunnel_ends(&self) -> impl Iterator<Item = TunnelEnd> {
        self.all_reals().filter_map(|real| match real.method {
            LbKind::Tun(TunnelKind::Gue { port, .. }) => Some((real.endpoint.addr, port)),
            LbKind::Tun(_) => Some((real.endpoint.addr, 0)),
            LbKind::Dr | LbKind::Nat => None,
        })
    }

    /// Whether answers of any of its real servers pass here.
    pub(super) fn sees_answers(&self) -> bool {
        self.all_reals().any(|real| real.method.sees_answers())
    }

    /// By how many leading bits of their addresses its clients of one family are told apart, if it is persistent and
    /// has NAT.
    fn nat_prefix(&self, ipv6: bool) -> Option<u8> {
        let persistence = self.persistence?;
        (self.has_family(ipv6) && self.sees_answers()).then_some(persistence.prefix)
    }

    /// Whether any of its packets are of this family.
    pub(super) fn has_family(&self, ipv6: bool) -> bool {
        self.matches.iter().any(|what| what.is_ipv6() == ipv6)
    }

    /// Whether its packets are IPv6's.
    fn is_ipv6(&self) -> bool {
        self.matches.first().is_some_and(Match::is_ipv6)
    }
}

const FIRST: ServiceId = ServiceId(0);
const LAST: ServiceId = ServiceId(u32::MAX);
const FIRST_ANSWERER: Answerer = Answerer {
    service: FIRST,
    real: RealId(0),
};
const LAST_ANSWERER: Answerer = Answerer {
    service: LAST,
    real: RealId(u32::MAX),
};

/// The virtual server with the lowest slot of those that have `what`.
fn first<T: Copy + Ord>(held: &BTreeSet<(T, ServiceId)>, what: T) -> Option<ServiceId> {
    let mut holders = held.range((what, FIRST)..=(what, LAST));
    holders.next().map(|(_, id)| *id)
}

/// Writes one place of an array, unless that has the value. Whether it had another.
fn put<T: Copy + PartialEq>(array: &mut Arc<[Option<T>]>, at: usize, value: Option<T>) -> bool {
    let changes = array.get(at).copied().flatten() != value;
    if changes {
        put_shared(array, at, value);
    }
    changes
}

/// Writes one place of an array that tables may have too: then it is copied first.
fn put_shared<T: Clone>(array: &mut Arc<[Option<T>]>, at: usize, value: Option<T>) {
    if array.len() <= at {
        // So that many that come one by one are not copied with each.
        let length = (at + 1).max(2 * array.len());
        let old = array.iter().cloned();
        *array = old.chain(std::iter::repeat(None)).take(length).collect();
    }
    if let Some(place) = Arc::make_mut(array).get_mut(at) {
        *place = value;
    }
}
