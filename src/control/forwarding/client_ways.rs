//! The ways to clients, for answers that pass through here (NAT): a copy of the kernel's main routing
//! tables and of the neighbours that it knows, followed as they change.
//!
//! Unlike real servers, clients are too many to be asked about one by one. A neighbour that the
//! kernel does not know is resolved when a worker asks for it, and the packet waits meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    super::pace::Pace,
    fast::NEIGHBOURS,
    ports::{PortInfo, Ports},
};
use crate::{
    addr::MacAddr,
    balance::{Route, Routes},
    sys::{
        netlink::{Neighbour, Netlink, RouteKind, TableRoute},
        steer::FastHop,
    },
    time::Instant,
};

/// Least time between the beginnings of two look-ups of all routes.
const SETTLE: Duration = Duration::from_millis(100);
/// How often one neighbour is asked for, as long as a worker wants it.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Neighbours that are being asked for at a time; more than a kernel's table holds by default.
const ASKED: usize = 1024;

/// The ways to clients.
#[derive(Debug)]
pub(super) struct ClientWays {
    routes: Vec<TableRoute>,
    neighbours: BTreeMap<(u32, IpAddr), MacAddr>,
    numbers: Numbers,
    asked: BTreeMap<(u32, IpAddr), Instant>,
    look_up: Pace,
    /// As the workers have it; `None`: not any more.
    table: Option<Arc<Routes>>,
}

impl ClientWays {
    /// Nothing is known until the first [`Self::handle_timeout`].
    pub(super) fn new(now: Instant) -> Self {
        let mut look_up = Pace::new(SETTLE);
        look_up.want(now);
        Self {
            routes: Vec::new(),
            neighbours: BTreeMap::new(),
            numbers: Numbers::default(),
            asked: BTreeMap::new(),
            look_up,
            table: None,
        }
    }

    /// Routes changed, or notifications were lost.
    pub(super) fn handle_routes(&mut self, now: Instant) {
        self.look_up.want(now);
    }

    /// A neighbour changed. Whether a way did.
    pub(super) fn handle_neighbour(&mut self, neighbour: &Neighbour) -> bool {
        let Some(mac) = neighbour.usable_mac() else {
            return false;
        };
        let at = (neighbour.ifindex, neighbour.ip);
        self.asked.remove(&at);
        let changed = self.neighbours.insert(at, mac) != Some(mac);
        if changed {
            self.table = None;
        }
        changed
    }

    /// The kernel forgot a neighbour: it is asked for again when somebody wants it.
    pub(super) fn handle_neighbour_removed(&mut self, neighbour: &Neighbour) -> bool {
        let at = (neighbour.ifindex, neighbour.ip);
        let known = self.neighbours.remove(&at).is_some();
        if known {
            self.numbers.release(at);
            self.table = None;
        }
        known
    }

    /// A port has another address or MTU.
    pub(super) fn handle_port(&mut self) {
        self.numbers.round = self.numbers.round.wrapping_add(1);
        self.table = None;
    }

    /// Looks everything up that may have changed, if that is due. Whether a way did, and the routers that lead
    /// to clients through `ports`.
    ///
    /// # Errors
    /// What the kernel answered; it is asked again.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        ports: &Ports,
        netlink: &mut Netlink,
    ) -> Result<Option<(bool, BTreeSet<IpAddr>)>, crate::sys::netlink::Error> {
        if !self.look_up.take(now) {
            return Ok(None);
        }
        let found = netlink
            .main_routes()
            .and_then(|routes| Ok((routes, netlink.neighbours()?)));
        let (mut routes, neighbours) = found.inspect_err(|_| self.look_up.want(now))?;
        // The first of several to one prefix counts.
        routes.sort_by_key(|route| route.metric);
        let usable = neighbours
            .iter()
            .filter_map(|it| Some(((it.ifindex, it.ip), it.usable_mac()?)));
        let neighbours: BTreeMap<_, _> = usable.collect();
        let changed = routes != self.routes || neighbours != self.neighbours;
        if changed {
            self.table = None;
        }
        if routes != self.routes {
            self.numbers.round = self.numbers.round.wrapping_add(1);
        }
        for at in self
            .neighbours
            .keys()
            .filter(|at| !neighbours.contains_key(at))
        {
            self.numbers.release(*at);
        }
        (self.routes, self.neighbours) = (routes, neighbours);
        let through = |route: &&TableRoute| {
            let port = route.ifindex.and_then(|ifindex| ports.with(ifindex));
            port.is_some()
        };
        let routers = self.routes.iter().filter(through);
        let routers = routers.filter_map(|route| route.gateway).collect();
        Ok(Some((changed, routers)))
    }

    /// A worker has a packet for a neighbour that is not known: the kernel is to find it.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        port: &PortInfo,
        ip: IpAddr,
        netlink: &mut Netlink,
    ) -> Result<bool, crate::sys::netlink::Error> {
        let at = (port.ifindex, ip);
        if self.asked.get(&at).is_some_and(|again| *again > now) {
            return Ok(false);
        }
        if self.asked.len() == ASKED {
            self.asked.retain(|_, again| *again > now);
        }
        if self.asked.len() < ASKED {
            self.asked.insert(at, now + ASK_AGAIN);
        }
        let known = netlink.probe_neighbour(port.ifindex, ip)?;
        Ok(known.is_some_and(|known| self.handle_neighbour(&known)))
    }

    /// When [`Self::handle_timeout`] has something to do next.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.look_up.poll_timeout()
    }

    /// How frames get to neighbours that can be the next hops of answers, by their numbers, through the ports that take
    /// frames from the fast path.
    pub(super) fn hops(&self, ports: &Ports) -> Vec<(u32, FastHop)> {
        let hop = |((ifindex, ip), mac): (&(u32, IpAddr), &MacAddr)| {
            let number = *self.numbers.of.get(&(*ifindex, *ip))?;
            let (_, port) = ports.with(*ifindex).filter(|(_, port)| port.fast)?;
            // The smallest of all routes that may lead there: what is larger goes up, where they are told apart.
            let through = self.routes.iter().filter(|route| {
                route.ifindex == Some(*ifindex) && route.gateway.is_none_or(|router| router == *ip)
            });
            let mtu = through.filter_map(|route| route.mtu).min();
            let mtu = mtu.map_or(port.mtu, |own| own.min(port.mtu));
            let hop = FastHop {
                ifindex: *ifindex,
                mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
                destination: *mac,
                source: port.mac,
            };
            Some((number, hop))
        };
        self.neighbours.iter().filter_map(hop).collect()
    }

    /// What the workers go by.
    pub(super) fn table(&mut self, ports: &Ports) -> Arc<Routes> {
        let table = self.table.take().unwrap_or_else(|| {
            let routes = self.routes.iter().map(|route| as_seen(route, ports));
            let numbers = &mut self.numbers;
            let neighbours = self.neighbours.iter().filter_map(|((ifindex, ip), mac)| {
                let (port, _) = ports.with(*ifindex)?;
                // Those that there is no room for have no way there: the next numbers are real servers'.
                let number = Some(numbers.of((*ifindex, *ip))).filter(|it| *it < NEIGHBOURS);
                Some((port, *ip, *mac, number.unwrap_or(u32::MAX)))
            });
            let table = Routes::new(routes, neighbours);
            Arc::new(table.with_number(numbers.round))
        });
        self.table = Some(Arc::clone(&table));
        table
    }
}

/// What the fast path knows neighbours by.
#[derive(Debug, Default)]
struct Numbers {
    of: BTreeMap<(u32, IpAddr), u32>,
    free: Vec<u32>,
    /// Numbers the routes: with another one, no way that was found before is used.
    round: u16,
}

impl Numbers {
    fn of(&mut self, at: (u32, IpAddr)) -> u32 {
        let next = u32::try_from(self.of.len() + self.free.len()).unwrap_or(u32::MAX);
        let free = &mut self.free;
        *self
            .of
            .entry(at)
            .or_insert_with(|| free.pop().unwrap_or(next))
    }

    /// The number may be another's from now on, and no flow leads there any more.
    fn release(&mut self, at: (u32, IpAddr)) {
        if let Some(number) = self.of.remove(&at) {
            self.free.push(number);
            self.round = self.round.wrapping_add(1);
        }
    }
}

/// A route as the workers see it: one that leads through none of `ports` is there to hide wider
/// ones.
fn as_seen(route: &TableRoute, ports: &Ports) -> Route {
    let through = route
        .ifindex
        .filter(|_| route.kind == RouteKind::Unicast)
        .and_then(|ifindex| ports.with(ifindex));
    let mtu = through.map_or(0, |(_, port)| port.mtu);
    let mtu = route.mtu.map_or(mtu, |own| own.min(mtu));
    Route {
        to: route.to,
        port: through.map(|(id, _)| id),
        source: through.map_or(MacAddr::ZERO, |(_, port)| port.mac),
        gateway: route.gateway,
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{addr::PortId, balance::Way, sys::netlink::NeighbourState};

    fn ports() -> Ports {
        vec![port()].into()
    }

    fn port() -> PortInfo {
        PortInfo {
            ifindex: 7,
            mac: MacAddr([2, 0, 0, 0, 0, 7]),
            mtu: 1500,
            ..PortInfo::default()
        }
    }

    fn route(to: &str, ifindex: u32, gateway: Option<&str>, metric: u32) -> TableRoute {
        TableRoute {
            to: to.parse().unwrap(),
            kind: RouteKind::Unicast,
            ifindex: Some(ifindex),
            gateway: gateway.map(|ip| ip.parse().unwrap()),
            metric,
            mtu: None,
        }
    }

    fn neighbour(ip: &str, last: u8) -> Neighbour {
        Neighbour {
            ifindex: 7,
            ip: ip.parse().unwrap(),
            mac: Some(MacAddr([2, 0, 0, 0, 1, last])),
            state: NeighbourState::Stale,
        }
    }

    #[test]
    fn a_route_elsewhere_hides_a_wider_one_and_a_smaller_mtu_counts() {
        let mut ways = ClientWays::new(Instant::ZERO);
        ways.routes = vec![
            route("0.0.0.0/0", 7, Some("10.0.0.1"), 0),
            route("10.5.0.0/16", 3, None, 0),
            TableRoute {
                mtu: Some(1400),
                ..route("10.6.0.0/16", 7, None, 0)
            },
            TableRoute {
                kind: RouteKind::Other,
                ifindex: None,
                ..route("10.7.0.0/16", 7, None, 0)
            },
        ];
        assert!(ways.handle_neighbour(&neighbour("10.0.0.1", 1)));
        assert!(!ways.handle_neighbour(&neighbour("10.0.0.1", 1)), "no news");
        assert!(ways.handle_neighbour(&neighbour("10.6.0.9", 9)));
        let table = ways.table(&ports());
        let way = |to: &str| match table.way(to.parse().unwrap()) {
            Way::Known(hop) => Some((hop.destination.0[5], hop.mtu, hop.source)),
            _ => None,
        };
        assert_eq!(way("192.0.2.1"), Some((1, 1500, port().mac)));
        assert_eq!(way("10.6.0.9"), Some((9, 1400, port().mac)));
        assert_eq!((way("10.5.0.1"), way("10.7.0.1")), (None, None));
        assert!(Arc::ptr_eq(&table, &ways.table(&ports())), "unchanged");
        assert!(ways.handle_neighbour_removed(&neighbour("10.6.0.9", 9)));
        let client = "10.6.0.9".parse().unwrap();
        assert_eq!(
            ways.table(&ports()).way(client),
            Way::Unresolved(PortId(0), client)
        );
    }
}
