//! Asks the kernel about links, addresses, routes and neighbours, and changes addresses.
//!
//! A request is answered by the kernel before the system call that sends it returns, so nothing
//! here waits for the network, and the control thread may call it between adverts. What changes by
//! itself is told by the [`Monitor`](crate::sys::monitor::Monitor).

mod channel;
pub(in crate::sys) mod decode;
mod error;
pub mod netdev;
mod types;
mod veth;

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo},
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    neighbour::{self, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use self::channel::Channel;
pub(in crate::sys) use self::channel::{Received, receive};
pub use self::{
    error::{Cause, Error},
    types::{
        Added, Address, AddressOptions, Link, Neighbour, NeighbourState, Removed, Route, RouteKind,
        Scope, TableRoute,
    },
};
use crate::addr::IpPrefix;

/// A netlink socket for requests. Cheap to open; one is enough for a thread.
#[derive(Debug)]
pub struct Netlink {
    channel: Channel,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread. Needs no privilege.
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open(NETLINK_ROUTE)
            .map_err(|cause| Error::new("opening a netlink socket", Cause::Io(cause)))?;
        Ok(Self { channel })
    }

    /// Every interface of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.channel
            .dump(
                RouteNetlinkMessage::GetLink(link_request()),
                libc::RTM_NEWLINK,
                decode::link,
            )
            .map_err(|cause| Error::new("listing the interfaces", cause))
    }

    /// The interface called `name`, or `None` when there is none.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, Error> {
        // The kernel would answer ERANGE, which is no news to the user.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        let mut message = link_request();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message)
            .map_err(|cause| Error::new(format!("looking up interface {name}"), cause))
    }

    /// The interface with this index, or `None` when there is none.
    pub fn link(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let mut message = link_request();
        message.header.index = index;
        self.one_link(message)
            .map_err(|cause| Error::new(format!("looking up interface {index}"), cause))
    }

    /// The addresses of an interface, IPv4 and IPv6, in the kernel's order. Empty when the
    /// interface is gone.
    pub fn addresses(&mut self, ifindex: u32) -> Result<Vec<Address>, Error> {
        let mut message = AddressMessage::default();
        message.header.index = ifindex;
        let found = self.channel.dump(
            RouteNetlinkMessage::GetAddress(message),
            libc::RTM_NEWADDR,
            decode::address,
        );
        match found {
            Ok(mut addresses) => {
                // A kernel without strict checking ignores the filter.
                addresses.retain(|address| address.ifindex == ifindex);
                Ok(addresses)
            }
            Err(cause) if cause.is(libc::ENODEV) => Ok(Vec::new()),
            Err(cause) => {
                let on = self.name_of(ifindex);
                Err(Error::new(format!("listing the addresses of {on}"), cause))
            }
        }
    }

    /// Adds an address to an interface, as `ip address add` does. An address that is there
    /// already, with the same prefix length, stays as it is.
    ///
    /// As keepalived does, an IPv6 address is added without duplicate address detection, for whose second it could not
    /// be used, and one of 128 bits as one that Linux prefers others to as a source (`preferred_lft 0`).
    pub fn add_address(
        &mut self,
        ifindex: u32,
        prefix: IpPrefix,
        options: &AddressOptions,
    ) -> Result<Added, Error> {
        let mut message = address_message(ifindex, prefix, options.peer);
        message.header.scope = options.scope.into();
        if let Some(label) = &options.label {
            message
                .attributes
                .push(AddressAttribute::Label(label.clone()));
        }
        if let Some(broadcast) = options.broadcast {
            message
                .attributes
                .push(AddressAttribute::Broadcast(broadcast));
        }
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Noprefixroute, options.no_prefix_route);
        flags.set(AddressFlags::Nodad, prefix.addr().is_ipv6());
        if !flags.is_empty() {
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        if prefix.addr().is_ipv6() && prefix.len() == 128 {
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = u32::MAX;
            (message.attributes).push(AddressAttribute::CacheInfo(lifetime));
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.channel.change(request, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => Ok(Added::Added),
            Err(cause) if cause.is(libc::EEXIST) => Ok(Added::AlreadyThere),
            Err(cause) => {
                let to = self.name_of(ifindex);
                Err(Error::new(format!("adding {prefix} to {to}"), cause))
            }
        }
    }

    /// Removes an address from an interface. One that is not there, or whose interface is gone,
    /// is no error.
    pub fn del_address(&mut self, ifindex: u32, prefix: IpPrefix) -> Result<Removed, Error> {
        let request = RouteNetlinkMessage::DelAddress(address_message(ifindex, prefix, None));
        match self.channel.change(request, 0) {
            Ok(()) => Ok(Removed::Removed),
            Err(cause)
                if [libc::EADDRNOTAVAIL, libc::ENOENT, libc::ENODEV]
                    .iter()
                    .any(|errno| cause.is(*errno)) =>
            {
                Ok(Removed::NotThere)
            }
            Err(cause) => {
                let from = self.name_of(ifindex);
                Err(Error::new(format!("removing {prefix} from {from}"), cause))
            }
        }
    }

    /// The IPv4 address that the host itself has on an interface: the first that is not one of
    /// `vips`, primary addresses before secondary ones, global scope before narrower ones.
    /// It is the source of adverts (keepalived `mcast_src_ip` default).
    pub fn primary_v4(
        &mut self,
        ifindex: u32,
        vips: &[Ipv4Addr],
    ) -> Result<Option<Ipv4Addr>, Error> {
        let addresses = self.addresses(ifindex)?;
        Ok(decode::primary_v4(&addresses, vips))
    }

    /// How the kernel would send to `destination` now, or `None` when it has no route, or one that
    /// says unreachable, prohibit or blackhole.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Option<Route>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = IpPrefix::host(destination).len();
        message
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        let found = self.channel.get(
            RouteNetlinkMessage::GetRoute(message),
            libc::RTM_NEWROUTE,
            decode::route,
        );
        match found {
            Ok(route) => Ok(route),
            // In this order: no route, `unreachable`, `prohibit`, `blackhole`.
            Err(cause)
                if [
                    libc::ENETUNREACH,
                    libc::EHOSTUNREACH,
                    libc::EACCES,
                    libc::EINVAL,
                ]
                .iter()
                .any(|errno| cause.is(*errno)) =>
            {
                Ok(None)
            }
            Err(cause) => Err(Error::new(
                format!("looking up the route to {destination}"),
                cause,
            )),
        }
    }

    /// The main routing tables of IPv4 and IPv6.
    pub fn main_routes(&mut self) -> Result<Vec<TableRoute>, Error> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(message);
            let found = self
                .channel
                .dump(request, libc::RTM_NEWROUTE, decode::table_route);
            all.extend(found.map_err(|cause| Error::new("listing the routes", cause))?);
        }
        Ok(all)
    }

    /// Every neighbour that the kernel knows, on all interfaces, IPv4 and IPv6.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        self.channel
            .dump(
                RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
                libc::RTM_NEWNEIGH,
                decode::neighbour,
            )
            .map_err(|cause| Error::new("listing the neighbours", cause))
    }

    /// What the kernel knows of one neighbour, or `None` when it knows nothing.
    pub fn neighbour(&mut self, ifindex: u32, ip: IpAddr) -> Result<Option<Neighbour>, Error> {
        let found = self.channel.get(
            RouteNetlinkMessage::GetNeighbour(neighbour_message(ifindex, ip)),
            libc::RTM_NEWNEIGH,
            decode::neighbour,
        );
        match found {
            Ok(neighbour) => Ok(neighbour),
            Err(cause) if cause.is(libc::ENOENT) || cause.is(libc::ENODEV) => Ok(None),
            Err(cause) => {
                let on = self.name_of(ifindex);
                Err(Error::new(format!("looking up {ip} on {on}"), cause))
            }
        }
    }

    /// Asks the kernel to find out, or to check again now, the link-layer address of `ip`. The
    /// answer comes as a [`Monitor`](crate::sys::monitor::Monitor) event; until then a known
    /// address stays in use. Answers what was known before.
    ///
    /// Permanent entries and interfaces without ARP are left alone: a probe would make the kernel
    /// forget that they are permanent.
    pub fn probe_neighbour(
        &mut self,
        ifindex: u32,
        ip: IpAddr,
    ) -> Result<Option<Neighbour>, Error> {
        let known = self.neighbour(ifindex, ip)?;
        let state = known.map_or(NeighbourState::None, |neighbour| neighbour.state);
        let mut message = neighbour_message(ifindex, ip);
        let flags = match state {
            NeighbourState::Permanent
            | NeighbourState::NoArp
            | NeighbourState::Incomplete
            | NeighbourState::Probe => return Ok(known),
            NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay => {
                message.header.state = neighbour::NeighbourState::Probe;
                NLM_F_REPLACE
            }
            NeighbourState::None | NeighbourState::Failed => {
                message.header.flags = NeighbourFlags::Use;
                NLM_F_CREATE
            }
        };
        self.channel
            .change(RouteNetlinkMessage::NewNeighbour(message), flags)
            // The entry expired in between: the next call creates it.
            .or_else(|cause| cause.is(libc::ENOENT).then_some(()).ok_or(cause))
            .map_err(|cause| {
                let on = self.name_of(ifindex);
                Error::new(format!("probing {ip} on {on}"), cause)
            })?;
        Ok(known)
    }

    fn one_link(&mut self, message: LinkMessage) -> Result<Option<Link>, Cause> {
        let found = self.channel.get(
            RouteNetlinkMessage::GetLink(message),
            libc::RTM_NEWLINK,
            decode::link,
        );
        match found {
            Err(cause) if cause.is(libc::ENODEV) => Ok(None),
            found => found,
        }
    }

    /// The name of an interface for an error message, or what can be said without it.
    fn name_of(&mut self, ifindex: u32) -> String {
        match self.link(ifindex) {
            Ok(Some(link)) => link.name,
            _ => format!("interface {ifindex}"),
        }
    }
}

/// What is asked about links: not their packet counters, which are most of the answer.
fn link_request() -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn address_message(ifindex: u32, prefix: IpPrefix, peer: Option<IpAddr>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(prefix.addr());
    message.header.prefix_len = prefix.len();
    message.header.index = ifindex;
    message.attributes = vec![
        AddressAttribute::Local(prefix.addr()),
        AddressAttribute::Address(peer.unwrap_or_else(|| prefix.addr())),
    ];
    message
}

fn neighbour_message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = ifindex;
    message
        .attributes
        .push(NeighbourAttribute::Destination(ip.into()));
    message
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests;
