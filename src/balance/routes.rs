//! The ways to clients: what a packet that is not for a real server needs to leave this host.
//!
//! A copy of the kernel's main routing table and of the neighbours that it knows, as far as both
//! concern the ports of the data plane. Policy rules are not followed.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use rapidhash::fast::SeedableState;

use super::NextHop;
use crate::addr::{IpPrefix, MacAddr, PortId};

type Map<K, V> = HashMap<K, V, SeedableState<'static>>;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: IpPrefix,
    /// The port that packets leave on; `None`: the route leads elsewhere than through the data plane, and
    /// hides wider ones.
    pub port: Option<PortId>,
    /// The address of that port.
    pub source: MacAddr,
    /// The router; `None`: the destination itself is on the link.
    pub gateway: Option<IpAddr>,
    /// Largest packet of the way in bytes, IP header included.
    pub mtu: u16,
}

/// A way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// This is how.
    Known(NextHop),
    /// The MAC address of this neighbour, behind that port, must be known first.
    Unresolved(PortId, IpAddr),
    /// There is no route through a port of the data plane.
    None,
}

/// A route with the way through its router, if that is known: most clients are behind one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leg {
    route: Route,
    hop: Option<NextHop>,
}

/// The routes of one prefix length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    mask: u128,
    legs: Map<u128, Leg>,
}

/// The routes of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Levels {
    /// Longest prefixes first; none of length 0.
    specific: Vec<Level>,
    default: Option<Leg>,
}

/// Routes and neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    v4: Levels,
    v6: Levels,
    /// With a number each, which the fast path knows them by.
    neighbours: Map<(PortId, IpAddr), (MacAddr, u32)>,
    number: u16,
}

impl Routes {
    /// The table of `routes`, of which the first of several to one prefix counts, and `neighbours` with a number each.
    pub fn new(
        routes: impl IntoIterator<Item = Route>,
        neighbours: impl IntoIterator<Item = (PortId, IpAddr, MacAddr, u32)>,
    ) -> Self {
        let mut table = Self::default();
        let known = neighbours.into_iter();
        table.neighbours = known
            .map(|(port, addr, mac, number)| ((port, addr), (mac, number)))
            .collect();
        for route in routes {
            let leg = Leg {
                route,
                hop: route.gateway.and_then(|router| table.hop(&route, router)),
            };
            let levels = match route.to.addr() {
                IpAddr::V4(_) => &mut table.v4,
                IpAddr::V6(_) => &mut table.v6,
            };
            levels.add(leg);
        }
        table
    }

    /// The way to an address: the route with the longest prefix, and the neighbour that it leads to.
    #[inline]
    pub fn way(&self, to: IpAddr) -> Way {
        let levels = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let Some(leg) = levels.find(bits(to)) else {
            return Way::None;
        };
        match leg.hop {
            Some(hop) => Way::Known(hop),
            None => self.way_by(&leg.route, to),
        }
    }

    /// The next hop of [`Self::way`] where that is a router, known already: the way to most clients. In its place, as
    /// one that is handed back in parts costs the receiver 5 ns.
    #[inline]
    pub fn router(&self, to: IpAddr) -> Option<&NextHop> {
        let levels = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        levels.find(bits(to))?.hop.as_ref()
    }

    /// Numbers the routes: ways that were found by a table with another number may lead elsewhere now.
    #[must_use]
    pub fn with_number(self, number: u16) -> Self {
        Self { number, ..self }
    }

    /// The number of [`Self::with_number`].
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// The number of the neighbour that the way to an address leads to, if that is known.
    pub fn number_of_way(&self, to: IpAddr) -> Option<u32> {
        let levels = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let route = &levels.find(bits(to))?.route;
        let neighbour = (route.port?, route.gateway.unwrap_or(to));
        self.neighbours.get(&neighbour).map(|(_, number)| *number)
    }

    fn way_by(&self, route: &Route, to: IpAddr) -> Way {
        let Some(port) = route.port else {
            return Way::None;
        };
        let neighbour = route.gateway.unwrap_or(to);
        match self.hop(route, neighbour) {
            Some(hop) => Way::Known(hop),
            None => Way::Unresolved(port, neighbour),
        }
    }

    /// The way along a route through a neighbour.
    fn hop(&self, route: &Route, neighbour: IpAddr) -> Option<NextHop> {
        let port = route.port?;
        let (destination, _) = *self.neighbours.get(&(port, neighbour))?;
        Some(NextHop {
            port,
            source: route.source,
            destination,
            mtu: route.mtu,
        })
    }
}

impl Levels {
    /// Puts in a route unless there is one to the same prefix.
    fn add(&mut self, leg: Leg) {
        let mask = mask(leg.route.to);
        if mask == 0 {
            self.default.get_or_insert(leg);
            return;
        }
        // A longer prefix has the larger mask.
        let place = self.specific.partition_point(|level| level.mask > mask);
        if self
            .specific
            .get(place)
            .is_none_or(|level| level.mask != mask)
        {
            let legs = Map::default();
            self.specific.insert(place, Level { mask, legs });
        }
        let to = bits(leg.route.to.addr()) & mask;
        self.specific[place].legs.entry(to).or_insert(leg);
    }

    #[inline]
    fn find(&self, addr: u128) -> Option<&Leg> {
        let mut levels = self.specific.iter();
        levels
            .find_map(|level| level.legs.get(&(addr & level.mask)))
            .or(self.default.as_ref())
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => Ipv6Addr::to_bits(addr),
    }
}

/// The leading bits of a prefix, at the top of the word in both families.
fn mask(prefix: IpPrefix) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(prefix.len()))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(to: &str, port: Option<u8>, gateway: Option<&str>) -> Route {
        Route {
            to: to.parse().unwrap(),
            port: port.map(PortId),
            source: MacAddr([2, 0, 0, 0, 0, port.unwrap_or(0)]),
            gateway: gateway.map(|g| g.parse().unwrap()),
            mtu: 1500,
        }
    }

    #[test]
    fn the_longest_prefix_leads_through_its_neighbour() {
        let mac = |n| MacAddr([2, 0, 0, 0, 1, n]);
        let routes = [
            route("0.0.0.0/0", Some(0), Some("10.0.0.254")),
            route("10.0.0.0/24", Some(0), None),
            route("10.9.0.0/16", None, None),
            route("10.9.1.0/24", Some(1), Some("10.1.0.1")),
            route("::/0", Some(1), Some("fe80::1")),
            route("10.0.0.0/24", Some(7), None),
        ];
        let neighbours = [
            (PortId(0), "10.0.0.254".parse().unwrap(), mac(254), 3),
            (PortId(0), "10.0.0.7".parse().unwrap(), mac(7), 4),
            (PortId(1), "fe80::1".parse().unwrap(), mac(1), 5),
            // The same address elsewhere is another neighbour.
            (PortId(0), "10.1.0.1".parse().unwrap(), mac(9), 6),
        ];
        let table = Routes::new(routes, neighbours);
        let way = |to: &str| table.way(to.parse().unwrap());
        let known = |port, n| {
            Way::Known(NextHop {
                port: PortId(port),
                source: MacAddr([2, 0, 0, 0, 0, port]),
                destination: mac(n),
                mtu: 1500,
            })
        };
        assert_eq!(way("192.0.2.1"), known(0, 254));
        assert_eq!(way("10.0.0.7"), known(0, 7));
        let number = |to: &str| table.number_of_way(to.parse().unwrap());
        assert_eq!(number("192.0.2.1"), Some(3), "its router's");
        assert_eq!((number("10.0.0.7"), number("10.0.0.8")), (Some(4), None));
        assert_eq!((number("10.9.7.7"), number("2001:db8::5")), (None, Some(5)));
        let unknown = "10.0.0.8".parse().unwrap();
        assert_eq!(way("10.0.0.8"), Way::Unresolved(PortId(0), unknown));
        assert_eq!(way("10.9.7.7"), Way::None, "hidden by the /16");
        let router = "10.1.0.1".parse().unwrap();
        assert_eq!(way("10.9.1.7"), Way::Unresolved(PortId(1), router));
        assert_eq!(way("2001:db8::5"), known(1, 1));
        assert_eq!(
            Routes::default().way("10.0.0.1".parse().unwrap()),
            Way::None
        );
    }

    proptest! {
        #[test]
        fn it_finds_what_a_scan_of_all_routes_finds(
            prefixes in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..40),
            to in prop::collection::vec(any::<u32>(), 1..20),
        ) {
            let prefixes: Vec<_> = prefixes
                .into_iter()
                // Few bits, so that some addresses are met.
                .map(|(addr, len)| (addr & 0xc0c0_0003, len))
                .map(|(addr, len)| IpPrefix::new(std::net::Ipv4Addr::from_bits(addr).into(), len).unwrap())
                .collect();
            let routes = prefixes.iter().enumerate().map(|(n, to)| Route {
                to: *to,
                gateway: Some(IpAddr::from([1, 1, 1, u8::try_from(n).unwrap()])),
                ..route("0.0.0.0/0", Some(0), None)
            });
            let table = Routes::new(routes, []);
            for addr in to {
                let addr: IpAddr = std::net::Ipv4Addr::from_bits(addr & 0xc0c0_0003).into();
                let fits = prefixes.iter().enumerate().filter(|(_, p)| p.contains(addr));
                let best = fits.max_by_key(|(n, p)| (p.len(), usize::MAX - n));
                let expected = best.map_or(Way::None, |(n, _)| {
                    Way::Unresolved(PortId(0), [1, 1, 1, u8::try_from(n).unwrap()].into())
                });
                prop_assert_eq!(table.way(addr), expected);
            }
        }
    }
}
