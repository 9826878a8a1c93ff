//! Virtual servers and their real servers, as the workers see them: an immutable table.
//!
//! Control describes what there is in [`ServiceSpec`]s and builds a [`ServiceTable`]; a change is
//! a new table with the next generation number. What must survive a change refers to a real server
//! by [`RealRef`]: the slot that control gave it for as long as it exists, and the epoch that tells
//! one holder of the slot from the next.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::Duration,
};

use rapidhash::fast::SeedableState;

use super::{
    Timeouts,
    picker::{Entry, Picker, Scheduler},
    state,
};
use crate::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    stats::MAX_REALS,
};

/// Virtual servers that can exist at a time: slots of schedulers' cursors in every worker.
///
/// 16,384 cursors of 32 bytes are 512 KiB a worker, for as many virtual servers as addresses in
/// four class C networks with sixteen ports each.
pub const MAX_SERVICES: usize = 16_384;

/// The stable slot of a virtual server, given by control for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// The stable slot of a real server of one virtual server, given by control for as long as it
/// exists; index of its counters in every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealId(pub u32);

/// One holder of a slot. A connection to a former holder is recognised as stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealRef {
    /// The slot.
    pub id: RealId,
    /// Which of its holders.
    pub epoch: NonZeroU32,
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Protocol.
    pub protocol: L4Proto,
    /// Address and port; port 0 takes every port that no other virtual server has.
    pub endpoint: Endpoint,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.endpoint)
    }
}

/// How packets reach a real server: keepalived `lb_kind` and `lvs_method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `DR`: the packet goes on as it is, to the real server's MAC address.
    DirectRouting,
}

/// keepalived `persistence_timeout` and `persistence_granularity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long a client stays with its real server after its last new connection.
    pub timeout: Duration,
    /// Clients whose addresses have these leading bits in common are one client: 0 to 32.
    pub prefix: u8,
}

/// How a frame reaches a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The port that it leaves on.
    pub port: PortId,
    /// The address of that port.
    pub source: MacAddr,
    /// The real server's address, or its router's.
    pub destination: MacAddr,
}

/// A real server as control describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealSpec {
    /// Its slot.
    pub id: RealId,
    /// Differs from the epoch of every former holder of the slot.
    pub epoch: NonZeroU32,
    /// Address and port.
    pub endpoint: Endpoint,
    /// `lvs_method`, or the virtual server's `lb_kind`.
    pub method: Method,
    /// Weight, 0 to 2^31 - 1 as in IPVS. 0: no new connections but those of known persistent
    /// clients.
    pub weight: u32,
    /// Whether its checks succeed. When not: no new connections at all, existing ones go on.
    pub available: bool,
    /// The way to it; `None` while its MAC address is unknown.
    pub next_hop: Option<NextHop>,
}

/// A virtual server as control describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its slot.
    pub id: ServiceId,
    /// What clients connect to.
    pub key: ServiceKey,
    /// `lb_algo`.
    pub scheduler: Scheduler,
    /// `None`: every connection is scheduled by itself.
    pub persistence: Option<Persistence>,
    /// The real servers in the order of the configuration, those that are down included.
    pub reals: Vec<RealSpec>,
}

/// Why a table could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The slot is not below [`MAX_SERVICES`].
    ServiceSlot(ServiceId),
    /// Two virtual servers have this slot.
    DuplicateServiceSlot(ServiceId),
    /// The slot is not below [`MAX_REALS`].
    RealSlot(RealId),
    /// Two real servers have this slot.
    DuplicateRealSlot(RealId),
    /// Two virtual servers have this address, protocol and port.
    DuplicateService(ServiceKey),
    /// The virtual server's address family or protocol is not balanced yet.
    Unsupported(ServiceKey),
    /// The prefix of the virtual server's persistence is longer than an address.
    Prefix(ServiceKey),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceSlot(id) => {
                write!(f, "more than {MAX_SERVICES} virtual servers ({})", id.0)
            }
            Self::DuplicateServiceSlot(id) => write!(f, "two virtual servers in slot {}", id.0),
            Self::RealSlot(id) => write!(f, "more than {MAX_REALS} real servers ({})", id.0),
            Self::DuplicateRealSlot(id) => write!(f, "two real servers in slot {}", id.0),
            Self::DuplicateService(key) => write!(f, "virtual server {key} is there twice"),
            Self::Unsupported(key) => write!(f, "virtual server {key} is not IPv4 TCP"),
            Self::Prefix(key) => write!(f, "virtual server {key}: persistence prefix above 32"),
        }
    }
}

impl std::error::Error for BuildError {}

/// A real server in the table.
#[derive(Clone, Copy, Debug)]
pub struct Real {
    /// Which holder of its slot it is.
    pub epoch: NonZeroU32,
    /// Whether its checks succeed.
    pub available: bool,
    /// The way to it; `None` while its MAC address is unknown.
    pub next_hop: Option<NextHop>,
    /// How packets are rewritten for it.
    pub method: Method,
}

/// A virtual server in the table.
#[derive(Debug)]
pub struct Service {
    /// Its slot.
    pub id: ServiceId,
    /// Its port as configured, 0 for any.
    pub port: u16,
    /// Its scheduler with the list of its real servers.
    pub picker: Picker,
    /// Timeout in ticks and client prefix of its persistence templates.
    pub(super) persistence: Option<(u32, u8)>,
}

/// Every virtual server, at one moment of the configuration.
#[derive(Debug)]
pub struct ServiceTable {
    generation: u64,
    timeouts: Timeouts,
    services: Box<[Service]>,
    by_key: HashMap<u64, u32, SeedableState<'static>>,
    /// Whether any virtual server takes every port.
    any_port: bool,
    /// Whether any virtual server's flows have an owner among several workers.
    owned: bool,
    reals: Box<[Option<Real>]>,
}

impl ServiceTable {
    /// The table of `services`. Generations are numbered upwards by whoever publishes.
    ///
    /// # Errors
    /// [`BuildError`] names the first virtual or real server that cannot be in a table.
    pub fn build(
        generation: u64,
        services: &[ServiceSpec],
        timeouts: Timeouts,
    ) -> Result<Self, BuildError> {
        let mut table = Self {
            generation,
            timeouts,
            services: Box::default(),
            by_key: HashMap::with_capacity_and_hasher(services.len(), SeedableState::fixed()),
            any_port: services.iter().any(|s| s.key.endpoint.port == 0),
            owned: services.iter().any(|s| s.persistence.is_some()),
            reals: Box::default(),
        };
        let mut built = Vec::with_capacity(services.len());
        let mut reals = Vec::new();
        let mut slots = vec![false; MAX_SERVICES];
        for spec in services {
            match slots.get_mut(spec.id.0 as usize) {
                None => return Err(BuildError::ServiceSlot(spec.id)),
                Some(true) => return Err(BuildError::DuplicateServiceSlot(spec.id)),
                Some(taken) => *taken = true,
            }
            let key = packed(spec.key).ok_or(BuildError::Unsupported(spec.key))?;
            let at = u32::try_from(built.len()).unwrap_or(u32::MAX);
            if table.by_key.insert(key, at).is_some() {
                return Err(BuildError::DuplicateService(spec.key));
            }
            add_reals(&mut reals, spec)?;
            built.push(Service::build(spec, key)?);
        }
        table.services = built.into();
        table.reals = reals.into();
        Ok(table)
    }

    /// The table without virtual servers, generation 0.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            timeouts: Timeouts::default(),
            services: Box::default(),
            by_key: HashMap::with_hasher(SeedableState::fixed()),
            any_port: false,
            owned: false,
            reals: Box::default(),
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
        &self.timeouts
    }

    /// Whether any flow has an owner among several workers ([`super::Ownership::owner`]); else each
    /// flow is that of the worker that receives it.
    #[inline]
    pub const fn has_owners(&self) -> bool {
        self.owned
    }

    /// The virtual server that takes connections to this address, protocol and port.
    #[inline]
    pub fn service(&self, vip: Ipv4Addr, protocol: u8, port: u16) -> Option<&Service> {
        let exact = self.by_key.get(&pack(vip, protocol, port));
        let found = match exact {
            None if self.any_port => self.by_key.get(&pack(vip, protocol, 0)),
            exact => exact,
        };
        self.services.get(*found? as usize)
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

impl Service {
    fn build(spec: &ServiceSpec, key: u64) -> Result<Self, BuildError> {
        let persistence = match spec.persistence {
            Some(p) if p.prefix > 32 => return Err(BuildError::Prefix(spec.key)),
            Some(p) => Some((state::ticks(p.timeout), p.prefix)),
            None => None,
        };
        let entry = |real: &RealSpec| Entry {
            real: RealRef {
                id: real.id,
                epoch: real.epoch,
            },
            weight: if real.available { real.weight } else { 0 },
        };
        Ok(Self {
            id: spec.id,
            port: spec.key.endpoint.port,
            picker: Picker::new(key, spec.scheduler, spec.reals.iter().map(entry).collect()),
            persistence,
        })
    }
}

fn add_reals(reals: &mut Vec<Option<Real>>, spec: &ServiceSpec) -> Result<(), BuildError> {
    for real in &spec.reals {
        let slot = real.id.0 as usize;
        if slot >= MAX_REALS {
            return Err(BuildError::RealSlot(real.id));
        }
        if reals.len() <= slot {
            reals.resize(slot + 1, None);
        }
        let built = Real {
            epoch: real.epoch,
            available: real.available,
            next_hop: real.next_hop,
            method: real.method,
        };
        if reals[slot].replace(built).is_some() {
            return Err(BuildError::DuplicateRealSlot(real.id));
        }
    }
    Ok(())
}

/// The key of a virtual server in one word, never 0; `None` for what is not balanced yet.
fn packed(key: ServiceKey) -> Option<u64> {
    match (key.endpoint.addr, key.protocol) {
        (IpAddr::V4(vip), L4Proto::Tcp) => {
            Some(pack(vip, key.protocol.number(), key.endpoint.port))
        }
        _ => None,
    }
}

#[inline]
fn pack(vip: Ipv4Addr, protocol: u8, port: u16) -> u64 {
    u64::from(vip.to_bits()) << 32 | u64::from(port) << 16 | u64::from(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: NonZeroU32 = NonZeroU32::MIN;

    fn spec(slot: u32, endpoint: &str, reals: &[u32]) -> ServiceSpec {
        let (addr, port) = endpoint.rsplit_once(':').unwrap();
        ServiceSpec {
            id: ServiceId(slot),
            key: ServiceKey {
                protocol: L4Proto::Tcp,
                endpoint: Endpoint::new(addr.parse().unwrap(), port.parse().unwrap()),
            },
            scheduler: Scheduler::RoundRobin,
            persistence: None,
            reals: reals
                .iter()
                .map(|id| RealSpec {
                    id: RealId(*id),
                    epoch: EPOCH,
                    endpoint: Endpoint::new("10.0.0.1".parse().unwrap(), 80),
                    method: Method::DirectRouting,
                    weight: 1,
                    available: true,
                    next_hop: None,
                })
                .collect(),
        }
    }

    fn build(specs: &[ServiceSpec]) -> Result<ServiceTable, BuildError> {
        ServiceTable::build(7, specs, Timeouts::default())
    }

    #[test]
    fn lookup_is_exact_and_falls_back_to_port_0() {
        let vip = Ipv4Addr::new(10, 0, 0, 1);
        let specs = [
            spec(0, "10.0.0.1:80", &[]),
            spec(9, "10.0.0.1:0", &[]),
            spec(3, "10.0.0.2:80", &[]),
        ];
        let table = build(&specs).unwrap();
        let id = |vip, proto, port| table.service(vip, proto, port).map(|s| s.id.0);
        assert_eq!(id(vip, 6, 80), Some(0));
        assert_eq!(id(vip, 6, 81), Some(9));
        assert_eq!(id(vip, 17, 80), None);
        assert_eq!(id(Ipv4Addr::new(10, 0, 0, 2), 6, 80), Some(3));
        assert_eq!(id(Ipv4Addr::new(10, 0, 0, 2), 6, 81), None);
        assert_eq!(table.generation(), 7);
        assert!(ServiceTable::empty().service(vip, 6, 80).is_none());
    }

    #[test]
    fn thousands_of_services_are_all_found() {
        let specs: Vec<_> = (0..5000)
            .map(|n| {
                spec(
                    n,
                    &format!("10.0.{}.{}:{}", n / 250, n % 250, 1000 + n),
                    &[n],
                )
            })
            .collect();
        let table = build(&specs).unwrap();
        for n in 0..5000_u32 {
            let vip = Ipv4Addr::from_bits(0x0a00_0000 | ((n / 250) << 8) | (n % 250));
            let found = table
                .service(vip, 6, u16::try_from(1000 + n).unwrap())
                .unwrap();
            assert_eq!(found.id, ServiceId(n));
        }
    }

    #[test]
    fn a_slot_with_another_holder_is_not_the_real_server_of_before() {
        let table = build(&[spec(0, "10.0.0.1:80", &[5])]).unwrap();
        let real = |epoch| RealRef {
            id: RealId(5),
            epoch: NonZeroU32::new(epoch).unwrap(),
        };
        assert!(table.real(real(1)).is_some());
        assert!(table.real(real(2)).is_none());
        assert!(table.in_slot(RealId(4)).is_none());
        assert!(table.in_slot(RealId(6)).is_none());
    }

    #[test]
    fn what_cannot_be_in_a_table_is_named() {
        let err = |specs: &[ServiceSpec]| build(specs).unwrap_err();
        let good = spec(0, "10.0.0.1:80", &[1]);
        let mut late = spec(16_384, "10.0.0.2:80", &[]);
        assert_eq!(
            err(&[late.clone()]),
            BuildError::ServiceSlot(ServiceId(16_384))
        );
        late.id = ServiceId(0);
        assert_eq!(
            err(&[good.clone(), late]),
            BuildError::DuplicateServiceSlot(ServiceId(0))
        );
        let twice = spec(1, "10.0.0.1:80", &[]);
        assert_eq!(
            err(&[good.clone(), twice.clone()]),
            BuildError::DuplicateService(twice.key)
        );
        let shared = spec(1, "10.0.0.2:80", &[1]);
        assert_eq!(
            err(&[good.clone(), shared]),
            BuildError::DuplicateRealSlot(RealId(1))
        );
        let far = spec(1, "10.0.0.2:80", &[65_536]);
        assert_eq!(err(&[far]), BuildError::RealSlot(RealId(65_536)));
        let six = spec(0, "2001:db8::1:80", &[]);
        assert_eq!(
            err(std::slice::from_ref(&six)),
            BuildError::Unsupported(six.key)
        );
        let mut wide = good;
        wide.persistence = Some(Persistence {
            timeout: Duration::from_secs(1),
            prefix: 33,
        });
        assert_eq!(err(&[wide.clone()]), BuildError::Prefix(wide.key));
    }
}
