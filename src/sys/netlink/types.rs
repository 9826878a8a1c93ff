//! The kernel's nouns, as the rest of the program sees them.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::{address::AddressScope, neighbour};

use crate::addr::{IpPrefix, MacAddr};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it, at least 1. A new interface of the same name has another.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its Ethernet address; `None` for interfaces that have none (tun, ppp).
    pub mac: Option<MacAddr>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Somebody switched it on (`ip link set up`).
    pub up: bool,
    /// It can carry packets: carrier, and whatever is below it works (`IFF_RUNNING`).
    /// Meaningful only while [`up`](Self::up).
    pub running: bool,
    /// It is the loopback interface.
    pub loopback: bool,
    /// It can send to many (needed for VRRP multicast).
    pub multicast: bool,
    /// The kind of a virtual interface, as `ip -d link` shows it: `veth`, `vlan`, `bond`, …;
    /// `None` for hardware.
    pub kind: Option<String>,
    /// Index of the bridge, bond or VRF that it is part of.
    pub master: Option<u32>,
}

impl Link {
    /// Whether packets can be sent and received: keepalived's test for leaving FAULT.
    pub const fn is_usable(&self) -> bool {
        self.up && self.running
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The address, with the length of its subnet.
    pub prefix: IpPrefix,
    /// The other end of a point-to-point link, to which the prefix length then applies.
    pub peer: Option<IpAddr>,
    /// Where the address is valid.
    pub scope: Scope,
    /// It goes with the primary address of its subnet, unless secondaries are promoted.
    pub secondary: bool,
    /// The label of an IPv4 address, usually the interface's name (`eth0:1`).
    pub label: Option<String>,
}

/// Where an address is valid (`ip address … scope`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    #[default]
    Global,
    /// Within the site (deprecated, but configurable).
    Site,
    /// On this link only.
    Link,
    /// On this host only.
    Host,
    /// A number that has no name, as the administrator chose it.
    Other(u8),
}

impl From<Scope> for AddressScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Global => Self::Universe,
            Scope::Site => Self::Site,
            Scope::Link => Self::Link,
            Scope::Host => Self::Host,
            Scope::Other(number) => Self::Other(number),
        }
    }
}

impl From<AddressScope> for Scope {
    fn from(scope: AddressScope) -> Self {
        match scope {
            AddressScope::Universe => Self::Global,
            AddressScope::Site => Self::Site,
            AddressScope::Link => Self::Link,
            AddressScope::Host => Self::Host,
            other => Self::Other(other.into()),
        }
    }
}

/// What an address is given beside its prefix: the words of a `virtual_ipaddress` line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// `label`: at most 15 bytes, IPv4 only. Default: the interface's name.
    pub label: Option<String>,
    /// `scope`. Default: global.
    pub scope: Scope,
    /// `broadcast`, IPv4 only. Default: none.
    pub broadcast: Option<Ipv4Addr>,
    /// `peer`: the other end of a point-to-point link. Default: none.
    pub peer: Option<IpAddr>,
    /// `noprefixroute`: adds no route to the subnet. Default: it is added, as the kernel does.
    pub no_prefix_route: bool,
}

/// Whether adding an address changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was added.
    Added,
    /// It was there.
    AlreadyThere,
}

/// Whether removing an address changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It was removed.
    Removed,
    /// It was not there.
    NotThere,
}

/// How the kernel would send to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// To the network, or to this host itself.
    pub kind: RouteKind,
    /// The interface that the packet leaves by.
    pub ifindex: u32,
    /// The router, which may be of the other address family (RFC 5549); `None` when the
    /// destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the host would use.
    pub preferred_source: Option<IpAddr>,
    /// Largest packet of the way in bytes, where the route or a path that was probed says one.
    pub mtu: Option<u32>,
}

/// An entry of the main routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRoute {
    /// Where it leads.
    pub to: IpPrefix,
    /// To the network, or nowhere.
    pub kind: RouteKind,
    /// The interface that packets leave by; of several next hops the first. `None` for routes that
    /// lead nowhere.
    pub ifindex: Option<u32>,
    /// The router; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Of several routes to one prefix the one with the least counts.
    pub metric: u32,
    /// Largest packet of the way in bytes, where the route says one.
    pub mtu: Option<u32>,
}

/// What a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Another host.
    Unicast,
    /// This host: the destination is one of its own addresses.
    Local,
    /// Broadcast, multicast and others: nothing that a real server can be behind.
    Other,
}

/// An entry of the neighbour table (ARP, NDP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface that it is on.
    pub ifindex: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its link-layer address, as far as the kernel knows; see [`usable_mac`](Self::usable_mac).
    pub mac: Option<MacAddr>,
    /// How sure the kernel is.
    pub state: NeighbourState,
}

impl Neighbour {
    /// The link-layer address, while the kernel itself would send to it. A stale address is
    /// usable; one of a neighbour that failed is not.
    pub const fn usable_mac(&self) -> Option<MacAddr> {
        match self.state {
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::NoArp
            | NeighbourState::Permanent => self.mac,
            NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed => None,
        }
    }
}

/// How sure the kernel is of a neighbour (`ip neigh … nud`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Not asked for yet.
    None,
    /// Asked for the first time, no answer yet.
    Incomplete,
    /// Answered lately.
    Reachable,
    /// Answered some time ago: used, and checked when it is.
    Stale,
    /// Used while stale; to be checked if no upper layer confirms it.
    Delay,
    /// Being checked.
    Probe,
    /// Did not answer.
    Failed,
    /// The interface needs no address resolution.
    NoArp,
    /// Set by the administrator.
    Permanent,
}

impl From<neighbour::NeighbourState> for NeighbourState {
    fn from(state: neighbour::NeighbourState) -> Self {
        use neighbour::NeighbourState as Kernel;
        match state {
            Kernel::Incomplete => Self::Incomplete,
            Kernel::Reachable => Self::Reachable,
            Kernel::Stale => Self::Stale,
            Kernel::Delay => Self::Delay,
            Kernel::Probe => Self::Probe,
            Kernel::Failed => Self::Failed,
            Kernel::Noarp => Self::NoArp,
            Kernel::Permanent => Self::Permanent,
            _ => Self::None,
        }
    }
}
