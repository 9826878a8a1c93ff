//! Virtual servers and their real servers, as the workers see them: an immutable table.
//!
//! Control describes what there is in [`ServiceSpec`]s to a [`TableBuilder`]; a change is a new table
//! with the next generation number, which shares with the one before all that is the same. What must
//! survive a change refers to a real server by [`RealRef`]: the slot that control gave it for as long as
//! it exists, and the epoch that tells one holder of the slot from the next. The ways to real servers
//! change more often than they do, and stand apart from them: see [`HopId`].

mod builder;
#[cfg(test)]
mod builder_tests;
mod lookup;
mod returns;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

pub use self::{
    builder::TableBuilder,
    lookup::Question,
    table::{Real, Service, ServiceTable},
};
use super::{Entry, Limits, Policy, Scheduler, Timeouts};
pub use crate::lvs::{LbKind, RealId, ServiceId};
use crate::{
    addr::{Endpoint, IpPrefix, L4Proto, MacAddr, PortId},
    stats::MAX_REALS,
};

/// Virtual servers that can exist at a time: slots of schedulers' cursors in every worker.
///
/// 16,384 cursors of 32 bytes are 512 KiB a worker, for as many virtual servers as addresses in
/// four class C networks with sixteen ports each.
pub const MAX_SERVICES: usize = 16_384;

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

/// What makes packets those of a virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// They go to this address, protocol and port.
    Address(ServiceKey),
    /// They go to an address from `first` to `last`, both included: one entry however many there are.
    Range {
        /// Protocol.
        protocol: L4Proto,
        /// The lowest address.
        first: IpAddr,
        /// The highest one, of the same family.
        last: IpAddr,
        /// The port; 0 takes every port that no other virtual server has.
        port: u16,
    },
    /// They bear this firewall mark, which [`MarkRule`]s give them. keepalived `fwmark`.
    Mark {
        /// The mark, not 0.
        mark: u32,
        /// Whether it is the IPv6 packets, not the IPv4 ones, that are meant.
        ipv6: bool,
    },
}

impl Match {
    /// Whether its packets are IPv6's.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Address(key) => key.endpoint.addr.is_ipv6(),
            Self::Range { first, .. } => first.is_ipv6(),
            Self::Mark { ipv6, .. } => *ipv6,
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(key) => key.fmt(f),
            Self::Range {
                protocol,
                first,
                last,
                port,
            } => write!(f, "{protocol} {first}-{last} port {port}"),
            Self::Mark { mark, ipv6: false } => write!(f, "FWM {mark}"),
            Self::Mark { mark, ipv6: true } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// Gives packets from clients a firewall mark, in the place of a packet filter in front of IPVS. The first rule that
/// fits counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// The mark, not 0.
    pub mark: u32,
    /// `None`: TCP, UDP and SCTP.
    pub protocol: Option<L4Proto>,
    /// Lowest and highest destination address.
    pub destination: (IpAddr, IpAddr),
    /// Lowest and highest destination port.
    pub destination_ports: (u16, u16),
    /// Where the packets come from; `None`: anywhere.
    pub source: Option<IpPrefix>,
    /// Lowest and highest source port.
    pub source_ports: (u16, u16),
    /// The port that they come in on; `None`: any.
    pub ingress: Option<PortId>,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.endpoint)
    }
}

/// keepalived `persistence_timeout` and `persistence_granularity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long a client stays with its real server after its last new connection.
    pub timeout: Duration,
    /// Clients whose addresses have these leading bits in common are one client: 0 to 32, or to 128
    /// for IPv6.
    pub prefix: u8,
}

/// How a frame reaches a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The port that it leaves on.
    pub port: PortId,
    /// The address of that port.
    pub source: MacAddr,
    /// The host's address, or its router's.
    pub destination: MacAddr,
    /// Largest packet of the way in bytes, IP header included.
    pub mtu: u16,
}

/// The slot of a way to real servers, allotted by control: one for each address that any of them has. Below
/// [`MAX_REALS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HopId(pub u32);

/// A way to real servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// How frames get there; `None` while the MAC address is unknown.
    pub next: Option<NextHop>,
    /// This host's address on the way: where tunnels start. `None` while there is no way.
    pub local: Option<IpAddr>,
}

/// A real server as control describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealSpec {
    /// Its slot.
    pub id: RealId,
    /// Differs from the epoch of every former holder of the slot.
    pub epoch: NonZeroU32,
    /// Address and port; port 0 where the virtual server has every port.
    pub endpoint: Endpoint,
    /// `lvs_method`, or the virtual server's `lb_kind`.
    pub method: LbKind,
    /// Weight, 0 to 2^31 - 1 as in IPVS. 0: no new connections but those of known persistent
    /// clients.
    pub weight: u32,
    /// The weight, or when that is 0 the last one that was not: `mh` keeps its slots by it. 0 when
    /// there never was one.
    pub last_weight: u32,
    /// `uthreshold` and `lthreshold`.
    pub limits: Limits,
    /// Whether it is in the pool. When not: no new connections at all, existing ones go on.
    pub available: bool,
    /// Whether its checks fail. With `inhibit_on_failure` it stays in the pool with weight 0, as one does that is
    /// drained by its configured weight; but what it had moves away from a failed one.
    pub failed: bool,
    /// The way to it. As long as nothing is known of that there is none.
    pub hop: HopId,
}

impl From<&RealSpec> for Entry {
    fn from(real: &RealSpec) -> Self {
        Self {
            real: RealRef {
                id: real.id,
                epoch: real.epoch,
            },
            endpoint: real.endpoint,
            weight: real.weight,
            last_weight: real.last_weight,
            limits: real.limits,
            listed: real.available,
        }
    }
}

/// A virtual server as control describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its slot.
    pub id: ServiceId,
    /// Differs from the epoch of every former holder of the slot, whose schedulers' cursors it does not inherit.
    pub epoch: NonZeroU32,
    /// What its packets are, at least one.
    pub matches: Vec<Match>,
    /// `lb_algo`.
    pub scheduler: Scheduler,
    /// `None`: every connection is scheduled by itself.
    pub persistence: Option<Persistence>,
    /// `ops`: every UDP packet is scheduled by itself and nothing is remembered.
    pub one_packet: bool,
    /// The real servers in the order in which they were added, those that are down included: first
    /// in that of the configuration; one that a change of the configuration adds is the last, also
    /// if there was one with its address before. Schedulers go by it.
    pub reals: Vec<RealSpec>,
    /// Real servers that have left the configuration and keep the connections that they have. No scheduler
    /// sees them and no persistent client comes back to them, whatever their weight and availability.
    pub draining: Vec<RealSpec>,
}

/// A port of the data plane, for packets of our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSpec {
    /// An IPv4 address of the interface.
    pub v4: Option<Ipv4Addr>,
    /// An IPv6 address of the interface.
    pub v6: Option<Ipv6Addr>,
    /// Whether it takes the frames that the fast path forwards.
    pub fast: bool,
}

/// What there is beside the virtual servers and all ways.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// How long connections may idle.
    pub timeouts: Timeouts,
    /// What becomes of packets that are odd.
    pub policy: Policy,
    /// What gives packets a firewall mark, in the order of the configuration.
    pub marks: Vec<MarkRule>,
    /// The ports, in their order.
    pub ports: Vec<PortSpec>,
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
    /// Two virtual servers have packets in common.
    DuplicateService(Match),
    /// The ends of a range are of two families, or the wrong way round.
    Range(Match),
    /// The prefix of the virtual server's persistence is longer than an address.
    Prefix(ServiceId),
    /// A real server's address is not of the virtual server's family, which only a tunnel allows.
    Family(ServiceId, RealId),
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
            Self::DuplicateService(what) => write!(f, "virtual server {what} is there twice"),
            Self::Range(what) => write!(f, "virtual server {what} is no range"),
            Self::Prefix(id) => write!(f, "virtual server {}: persistence prefix too long", id.0),
            Self::Family(id, real) => write!(
                f,
                "virtual server {}: real server {} is of another address family",
                id.0, real.0
            ),
        }
    }
}

impl std::error::Error for BuildError {}
