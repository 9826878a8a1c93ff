//! The kernel's messages, read attribute by attribute.
//!
//! A message is not parsed as a whole: an attribute that a newer kernel lays out differently then
//! costs that attribute, not the interface it belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLMSG_ALIGNTO, NetlinkBuffer, NlaBuffer, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressHeader, AddressHeaderFlags},
    link::{LinkAttribute, LinkFlags, LinkHeader, LinkInfo},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourHeader},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteLwEnCapType, RouteMetric, RouteType,
        RouteVia,
    },
};

use super::types::{Address, Link, Neighbour, Route, RouteKind, Scope, TableRoute};
use crate::addr::{IpPrefix, MacAddr};

/// One message of a datagram.
#[derive(Debug)]
pub(in crate::sys) struct Message<'a> {
    /// `RTM_…` or `NLMSG_…`.
    pub(in crate::sys) kind: u16,
    /// `NLM_F_…`.
    pub(in crate::sys) flags: u16,
    /// The request that it answers; 0 for notifications.
    pub(in crate::sys) sequence: u32,
    /// What follows the header.
    pub(in crate::sys) payload: &'a [u8],
}

/// Splits a datagram into its messages; a `None` ends one that is cut short.
pub(in crate::sys) fn messages(datagram: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Ok(message) = NetlinkBuffer::new_checked(rest) else {
            rest = &[];
            return Some(None);
        };
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let read = Message {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            payload: rest.get(HEADER..length).unwrap_or_default(),
        };
        let next = length.next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(next..).unwrap_or_default();
        Some(Some(read))
    })
}

/// A link message. A bridge tells of its ports under its own family, with a "deleted" that means
/// "left the bridge": those are not links.
pub(in crate::sys) fn link(payload: &[u8]) -> Option<Link> {
    let header = LinkHeader::parse(payload).ok()?;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let has = |flag| header.flags.contains(flag);
    let mut link = Link {
        index: header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: has(LinkFlags::Up),
        running: has(LinkFlags::Running),
        loopback: has(LinkFlags::Loopback),
        multicast: has(LinkFlags::Multicast),
        kind: None,
        master: None,
    };
    for attribute in attributes(payload, 16) {
        match LinkAttribute::parse_with_param(&attribute, header.interface_family) {
            Ok(LinkAttribute::IfName(name)) => link.name = name,
            Ok(LinkAttribute::Address(bytes)) => link.mac = mac(&bytes),
            Ok(LinkAttribute::Mtu(mtu)) => link.mtu = mtu,
            Ok(LinkAttribute::Controller(index)) => link.master = Some(index),
            Ok(LinkAttribute::LinkInfo(infos)) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// An address message. The interface's own address is IFA_LOCAL where there is one; IFA_ADDRESS
/// is then the peer's, and equal to it where there is no peer.
pub(in crate::sys) fn address(payload: &[u8]) -> Option<Address> {
    let header = AddressHeader::parse(payload).ok()?;
    let (mut local, mut other, mut label) = (None, None, None);
    for attribute in attributes(payload, 8) {
        match AddressAttribute::parse(&attribute) {
            Ok(AddressAttribute::Local(ip)) => local = Some(ip),
            Ok(AddressAttribute::Address(ip)) => other = Some(ip),
            Ok(AddressAttribute::Label(text)) => label = Some(text),
            _ => {}
        }
    }
    let own = local.or(other)?;
    Some(Address {
        ifindex: header.index,
        prefix: IpPrefix::new(own, header.prefix_len)?,
        peer: other.filter(|peer| *peer != own),
        scope: Scope::from(header.scope),
        secondary: header.flags.contains(AddressHeaderFlags::Secondary),
        label,
    })
}

/// A neighbour message of IPv4 or IPv6; a bridge's forwarding entries come as the same message.
pub(in crate::sys) fn neighbour(payload: &[u8]) -> Option<Neighbour> {
    let header = NeighbourHeader::parse(payload).ok()?;
    let (mut ip, mut link_layer) = (None, None);
    for attribute in attributes(payload, 12) {
        match NeighbourAttribute::parse_with_param(&attribute, header.family) {
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet(v4))) => {
                ip = Some(IpAddr::V4(v4));
            }
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6))) => {
                ip = Some(IpAddr::V6(v6));
            }
            Ok(NeighbourAttribute::LinkLayerAddress(bytes)) => link_layer = mac(&bytes),
            _ => {}
        }
    }
    Some(Neighbour {
        ifindex: header.ifindex,
        ip: ip?,
        mac: link_layer,
        state: header.state.into(),
    })
}

/// The answer to a route look-up.
pub(super) fn route(payload: &[u8]) -> Option<Route> {
    let header = RouteHeader::parse(payload).ok()?;
    let (mut ifindex, mut gateway, mut preferred_source, mut mtu) = (None, None, None, None);
    let context = (header.address_family, header.kind, RouteLwEnCapType::None);
    for attribute in attributes(payload, 12) {
        match RouteAttribute::parse_with_param(&attribute, context) {
            Ok(RouteAttribute::Oif(index)) => ifindex = Some(index),
            Ok(RouteAttribute::Gateway(address)) => gateway = ip(&address),
            Ok(RouteAttribute::Via(RouteVia::Inet(v4))) => gateway = Some(IpAddr::V4(v4)),
            Ok(RouteAttribute::Via(RouteVia::Inet6(v6))) => gateway = Some(IpAddr::V6(v6)),
            Ok(RouteAttribute::PrefSource(address)) => preferred_source = ip(&address),
            Ok(RouteAttribute::Metrics(metrics)) => mtu = mtu_of(&metrics),
            _ => {}
        }
    }
    Some(Route {
        kind: kind_of(header.kind),
        ifindex: ifindex?,
        gateway,
        preferred_source,
        mtu,
    })
}

/// An entry of the main routing table; `None` for one of another table.
pub(super) fn table_route(payload: &[u8]) -> Option<TableRoute> {
    let header = RouteHeader::parse(payload).ok()?;
    if header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut route = TableRoute {
        to: IpPrefix::new(any, header.destination_prefix_length)?,
        kind: kind_of(header.kind),
        ifindex: None,
        gateway: None,
        metric: 0,
        mtu: None,
    };
    let context = (header.address_family, header.kind, RouteLwEnCapType::None);
    for attribute in attributes(payload, 12) {
        match RouteAttribute::parse_with_param(&attribute, context) {
            Ok(RouteAttribute::Destination(address)) => {
                route.to = IpPrefix::new(ip(&address)?, header.destination_prefix_length)?;
            }
            Ok(RouteAttribute::Priority(metric)) => route.metric = metric,
            Ok(RouteAttribute::Metrics(metrics)) => route.mtu = mtu_of(&metrics),
            Ok(RouteAttribute::MultiPath(hops)) => {
                if let Some(first) = hops.first() {
                    route.ifindex = Some(first.interface_index);
                    first.attributes.iter().for_each(|it| leads(&mut route, it));
                }
            }
            Ok(attribute) => leads(&mut route, &attribute),
            Err(_) => {}
        }
    }
    Some(route)
}

fn leads(route: &mut TableRoute, attribute: &RouteAttribute) {
    match attribute {
        RouteAttribute::Oif(index) => route.ifindex = Some(*index),
        RouteAttribute::Gateway(address) => route.gateway = ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => route.gateway = Some(IpAddr::V4(*v4)),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => route.gateway = Some(IpAddr::V6(*v6)),
        _ => {}
    }
}

const fn kind_of(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        _ => RouteKind::Other,
    }
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    })
}

/// Whether a route can decide how packets to other hosts go. The local, broadcast and multicast
/// routes that come with every address cannot, and would make each VIP a reason to look again.
pub(in crate::sys) fn is_forwarding_route(payload: &[u8]) -> bool {
    RouteHeader::parse(payload).is_ok_and(|header| {
        matches!(
            header.address_family,
            AddressFamily::Inet | AddressFamily::Inet6
        ) && !matches!(
            header.kind,
            RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast
        )
    })
}

/// The address that the host itself has: see [`super::Netlink::primary_v4`].
pub(super) fn primary_v4(addresses: &[Address], vips: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    addresses
        .iter()
        .filter_map(|address| match address.prefix.addr() {
            IpAddr::V4(ip) if !vips.contains(&ip) => Some((address, ip)),
            _ => None,
        })
        // The first of the best: `min_by_key` keeps the kernel's order among equals.
        .min_by_key(|(address, _)| (address.scope != Scope::Global, address.secondary))
        .map(|(_, ip)| ip)
}

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// The attributes after a family's own header of `header` bytes, up to the first that is broken.
pub(super) fn attributes(payload: &[u8], header: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(payload.get(header..).unwrap_or_default()).map_while(Result::ok)
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
