//! Where frames for a real server go: the kernel's routes and neighbours, followed as they change.
//!
//! The kernel resolves addresses; this module asks it to, and to check again what it knows, so that
//! a real server whose MAC address changes silently is found within [`REVALIDATE`]. An address that
//! was resolved once is used until another one is known: a neighbour that stops answering is the
//! health checks' business.
//!
//! Real servers share addresses, and addresses share routers: each is asked about once. What a
//! change of routes asks for is spread over turns of the loop, which has adverts to send meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    ops::Bound,
    time::Duration,
};

use super::pace::Pace;
use crate::{
    addr::MacAddr,
    balance::HopId,
    sys::netlink::{self, Neighbour, Netlink, Route, RouteKind},
    time::Instant,
};

/// How often an address that is not resolved, or a look-up that failed, is asked for again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the kernel is asked to check an address that it has.
const REVALIDATE: Duration = Duration::from_secs(5);
/// Most questions to the kernel in one turn of the loop: some 20 µs each.
const ASKED_PER_TURN: usize = 64;
/// Those of them that routes which may have changed can use up, so that routes that change all the
/// time do not keep neighbours from being asked.
const ROUTES_PER_TURN: usize = ASKED_PER_TURN / 2;
/// Least time between the beginnings of two look-ups of all routes: an interface that comes or goes
/// is a dozen notifications within some milliseconds.
const SETTLE: Duration = Duration::from_millis(100);
/// Least time between two errors that are told: a cause that lasts fails many requests a second.
const ERROR_PAUSE: Duration = Duration::from_secs(10);

/// What is asked of the kernel.
pub(super) trait Kernel {
    type Error;

    /// How it would send to `destination`; `None` when it would not.
    fn route_to(&mut self, destination: IpAddr) -> Result<Option<Route>, Self::Error>;

    /// Has it find out, or check again, where `ip` is, and answer what it knew before.
    fn probe_neighbour(
        &mut self,
        ifindex: u32,
        ip: IpAddr,
    ) -> Result<Option<Neighbour>, Self::Error>;
}

impl Kernel for Netlink {
    type Error = netlink::Error;

    fn route_to(&mut self, destination: IpAddr) -> Result<Option<Route>, Self::Error> {
        Self::route_to(self, destination)
    }

    fn probe_neighbour(
        &mut self,
        ifindex: u32,
        ip: IpAddr,
    ) -> Result<Option<Neighbour>, Self::Error> {
        Self::probe_neighbour(self, ifindex, ip)
    }
}

/// Where a frame leaves, and the MAC address that it is sent to as soon as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) ifindex: u32,
    pub(super) destination: Option<MacAddr>,
    /// The address of this host that packets of its own would come from.
    pub(super) source: Option<IpAddr>,
    /// Largest packet in bytes, where the route says one.
    pub(super) mtu: Option<u32>,
}

/// Why there is no way to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The kernel has no route.
    NoRoute,
    /// The address is one of this host's own.
    Local,
    /// The route leaves by an interface that the data plane does not have.
    NotOpened,
    /// The neighbour has not answered yet.
    Unresolved,
}

impl Problem {
    /// Whether new connections have to go elsewhere. An address that is not resolved yet is not
    /// worth that: it comes in a moment, or else the checks fail.
    pub(super) const fn is_lasting(self) -> bool {
        match self {
            Self::NoRoute | Self::Local | Self::NotOpened => true,
            Self::Unresolved => false,
        }
    }
}

impl std::fmt::Display for Problem {
    /// What there is to say about the real server, to follow its name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "has no route to it: it takes no connections",
            Self::Local => {
                "is this host itself, which cannot be reached from here: it takes no connections"
            }
            Self::NotOpened => "is behind an interface that is not open: it takes no connections",
            Self::Unresolved => "has no known MAC address: packets to it are dropped",
        })
    }
}

/// The interface and the neighbour on it: the real server or the router before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Via {
    ifindex: u32,
    ip: IpAddr,
}

/// The address of real servers.
#[derive(Debug)]
struct Target {
    /// Its place in the workers' table of next hops.
    id: HopId,
    /// How many have asked for it.
    uses: usize,
    via: Result<Via, Problem>,
    /// What else the route says: the source of packets of our own, and the largest packet.
    own: (Option<IpAddr>, Option<u32>),
    /// When its route is looked up by itself: it never was, or that failed.
    due: Option<Instant>,
}

/// A neighbour that targets are sent to.
#[derive(Debug)]
struct Resolution {
    mac: Option<MacAddr>,
    targets: BTreeSet<IpAddr>,
    /// When it is asked for next.
    due: Instant,
}

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Route(IpAddr),
    Neighbour(Via),
}

/// The next hop of every real server.
#[derive(Debug)]
pub(super) struct NextHops {
    targets: BTreeMap<IpAddr, Target>,
    neighbours: BTreeMap<Via, Resolution>,
    /// Places in the workers' table that nobody has any more, and how many there ever were.
    free: Vec<HopId>,
    allotted: u32,
    /// Addresses whose way may be another than when they were last taken.
    changed: BTreeSet<IpAddr>,
    /// What targets and neighbours say is due, in order.
    due: BTreeSet<(Instant, Task)>,
    routes: Pace,
    /// How far the look-up of all routes that is under way has come.
    cursor: Option<Bound<IpAddr>>,
    /// Until when no error is told.
    silent_until: Instant,
    /// Where frames for this host itself go: an interface, and whom to send to there.
    local: Option<(u32, MacAddr)>,
    /// The addresses that are this host's own.
    here: BTreeSet<IpAddr>,
}

impl NextHops {
    pub(super) const fn new() -> Self {
        Self {
            targets: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            free: Vec::new(),
            allotted: 0,
            changed: BTreeSet::new(),
            due: BTreeSet::new(),
            routes: Pace::new(SETTLE),
            cursor: None,
            silent_until: Instant::ZERO,
            local: None,
            here: BTreeSet::new(),
        }
    }

    /// From now on frames for this host itself go there. Whether that is news.
    pub(super) fn set_local(&mut self, local: Option<(u32, MacAddr)>) -> bool {
        let is_news = std::mem::replace(&mut self.local, local) != local;
        if is_news {
            self.changed.extend(&self.here);
        }
        is_news
    }

    /// Whether `addr` is one of this host's own.
    pub(super) fn is_local(&self, addr: IpAddr) -> bool {
        self.here.contains(&addr)
    }

    /// Whether any of the addresses is this host's own.
    pub(super) fn has_local(&self) -> bool {
        !self.here.is_empty()
    }

    /// Follows the way to `addr` from now on, until it is [let go](Self::untrack) as often as it was asked for.
    /// Its place in the workers' table of next hops.
    pub(super) fn track(&mut self, now: Instant, addr: IpAddr) -> HopId {
        if let Some(target) = self.targets.get_mut(&addr) {
            target.uses += 1;
            return target.id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.allotted += 1;
            HopId(self.allotted - 1)
        });
        let target = Target {
            id,
            uses: 1,
            via: Err(Problem::Unresolved),
            own: (None, None),
            due: Some(now),
        };
        self.targets.insert(addr, target);
        self.due.insert((now, Task::Route(addr)));
        self.changed.insert(addr);
        id
    }

    /// One who has asked for the way to `addr` needs it no more. Its place, when nobody does.
    pub(super) fn untrack(&mut self, addr: IpAddr) -> Option<HopId> {
        let target = self.targets.get_mut(&addr)?;
        target.uses -= 1;
        if target.uses > 0 {
            return None;
        }
        let target = self.targets.remove(&addr)?;
        if let Some(due) = target.due {
            self.due.remove(&(due, Task::Route(addr)));
        }
        if let Ok(via) = target.via {
            self.leave(via, addr);
        }
        self.here.remove(&addr);
        self.changed.remove(&addr);
        self.free.push(target.id);
        Some(target.id)
    }

    /// The addresses whose way may be another than when this was last called, each with its place.
    pub(super) fn take_changed(&mut self) -> Vec<(IpAddr, HopId)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .filter_map(|addr| Some((addr, self.targets.get(&addr)?.id)))
            .collect()
    }

    /// Everything that leads through this interface is to be told again: it has other properties.
    pub(super) fn handle_interface(&mut self, ifindex: u32) {
        let all = self.neighbours.iter();
        let behind = all.filter(|(via, _)| via.ifindex == ifindex);
        (self.changed).extend(behind.flat_map(|(_, known)| known.targets.iter().copied()));
        if self.local.is_some_and(|(local, _)| local == ifindex) {
            self.changed.extend(&self.here);
        }
    }

    /// The addresses that frames do not reach now, when only interfaces are open of which `is_open` says so.
    pub(super) fn problems(
        &self,
        is_open: impl Fn(u32) -> bool,
    ) -> impl Iterator<Item = (IpAddr, Problem)> {
        let local = self.local.map(|(ifindex, _)| is_open(ifindex));
        let unreachable = self.targets.iter().filter_map(move |(addr, target)| {
            let problem = match (target.via.err()?, local) {
                (Problem::Local, Some(true)) => return None,
                (Problem::Local, Some(false)) => Problem::NotOpened,
                (problem, _) => problem,
            };
            Some((*addr, problem))
        });
        let behind = self.neighbours.iter().filter_map(move |(via, known)| {
            let problem = match known.mac {
                _ if !is_open(via.ifindex) => Problem::NotOpened,
                None => Problem::Unresolved,
                Some(_) => return None,
            };
            Some((&known.targets, problem))
        });
        let behind =
            behind.flat_map(|(targets, problem)| targets.iter().map(move |addr| (*addr, problem)));
        unreachable.chain(behind)
    }

    /// Looks everything up again: notifications were lost.
    pub(super) fn handle_overflow(&mut self, now: Instant) {
        self.routes.want(now);
        for (via, neighbour) in &mut self.neighbours {
            // What is overdue keeps its turn, or the last would never be asked.
            if neighbour.due > now {
                self.due.remove(&(neighbour.due, Task::Neighbour(*via)));
                neighbour.due = now;
                self.due.insert((now, Task::Neighbour(*via)));
            }
        }
    }

    /// Routes have changed; [`Self::handle_timeout`] will look them up.
    pub(super) fn handle_routes(&mut self, now: Instant) {
        self.routes.want(now);
    }

    /// A neighbour changed. Whether a next hop did.
    pub(super) fn handle_neighbour(&mut self, neighbour: &Neighbour) -> bool {
        let via = Via {
            ifindex: neighbour.ifindex,
            ip: neighbour.ip,
        };
        let Some((known, mac)) = self.neighbours.get_mut(&via).zip(neighbour.usable_mac()) else {
            return false;
        };
        let changed = known.mac.replace(mac) != Some(mac);
        if changed {
            self.changed.extend(&known.targets);
        }
        changed
    }

    /// Looks up routes that may have changed, and asks for what is due, as much as one turn may.
    /// Whether a next hop changed, and the first error; what could be done was done, and what
    /// failed is tried again.
    pub(super) fn handle_timeout<K: Kernel>(
        &mut self,
        now: Instant,
        kernel: &mut K,
    ) -> (bool, Option<K::Error>) {
        let mut changed = false;
        let mut error = None;
        let mut note = |done: Result<bool, K::Error>| match done {
            Ok(did) => changed |= did,
            Err(failure) => error = error.take().or(Some(failure)),
        };
        if self.cursor.is_none() && self.routes.take(now) {
            self.cursor = Some(Bound::Unbounded);
        }
        let mut asked = 0;
        while let Some(after) = self.cursor.filter(|_| asked < ROUTES_PER_TURN) {
            let mut rest = self.targets.range((after, Bound::Unbounded));
            let next = rest.next().map(|(addr, _)| *addr);
            self.cursor = next.map(Bound::Excluded);
            if let Some(addr) = next {
                note(self.look_up(now, addr, kernel));
                asked += 1;
            }
        }
        while asked < ASKED_PER_TURN
            && let Some(&(_, task)) = self.due.first().filter(|(at, _)| *at <= now)
        {
            note(match task {
                Task::Route(addr) => self.look_up(now, addr, kernel),
                Task::Neighbour(via) => self.probe(now, via, kernel),
            });
            asked += 1;
        }
        let told = error.filter(|_| now >= self.silent_until);
        if told.is_some() {
            self.silent_until = now + ERROR_PAUSE;
        }
        (changed, told)
    }

    /// Asks for the route to `addr`; the one that is known stays when the kernel has no answer.
    fn look_up<K: Kernel>(
        &mut self,
        now: Instant,
        addr: IpAddr,
        kernel: &mut K,
    ) -> Result<bool, K::Error> {
        let Some(target) = self.targets.get_mut(&addr) else {
            return Ok(false);
        };
        if let Some(due) = target.due.take() {
            self.due.remove(&(due, Task::Route(addr)));
        }
        let route = match kernel.route_to(addr) {
            Ok(route) => route,
            Err(error) => {
                let again = now + RETRY;
                target.due = Some(again);
                self.due.insert((again, Task::Route(addr)));
                return Err(error);
            }
        };
        let own = route.map_or((None, None), |route| (route.preferred_source, route.mtu));
        let changed = std::mem::replace(&mut target.own, own) != own;
        let former = std::mem::replace(&mut target.via, via(addr, route));
        let via = target.via;
        if changed || via != former {
            self.changed.insert(addr);
        }
        if via == former {
            return Ok(changed);
        }
        self.here.remove(&addr);
        if let Ok(via) = former {
            self.leave(via, addr);
        }
        match via {
            Ok(via) => self.join(now, via, addr),
            Err(Problem::Local) => drop(self.here.insert(addr)),
            Err(_) => {}
        }
        Ok(true)
    }

    fn join(&mut self, now: Instant, via: Via, addr: IpAddr) {
        let known = self.neighbours.entry(via).or_insert_with(|| {
            self.due.insert((now, Task::Neighbour(via)));
            Resolution {
                mac: None,
                targets: BTreeSet::new(),
                due: now,
            }
        });
        known.targets.insert(addr);
    }

    fn leave(&mut self, via: Via, addr: IpAddr) {
        if let Entry::Occupied(mut known) = self.neighbours.entry(via) {
            known.get_mut().targets.remove(&addr);
            if known.get().targets.is_empty() {
                self.due.remove(&(known.get().due, Task::Neighbour(via)));
                known.remove();
            }
        }
    }

    fn probe<K: Kernel>(
        &mut self,
        now: Instant,
        via: Via,
        kernel: &mut K,
    ) -> Result<bool, K::Error> {
        let Some(neighbour) = self.neighbours.get_mut(&via) else {
            return Ok(false);
        };
        self.due.remove(&(neighbour.due, Task::Neighbour(via)));
        let again = if neighbour.mac.is_some() {
            REVALIDATE
        } else {
            RETRY
        };
        neighbour.due = now + again;
        self.due.insert((neighbour.due, Task::Neighbour(via)));
        let known = kernel.probe_neighbour(via.ifindex, via.ip)?;
        Ok(known.is_some_and(|known| self.handle_neighbour(&known)))
    }

    /// When [`Self::handle_timeout`] has something to do next; at once while routes are left.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let rest = self.cursor.map(|_| Instant::ZERO);
        let due = self.due.first().map(|(at, _)| *at);
        let all = [rest, self.routes.poll_timeout(), due];
        all.into_iter().flatten().min()
    }

    /// The way to `addr`.
    ///
    /// # Errors
    /// Why there is none: [`Problem::NoRoute`], or [`Problem::Local`] as long as there is no way to this host
    /// itself, or that it is not known yet.
    pub(super) fn hop(&self, addr: IpAddr) -> Result<Hop, Problem> {
        let target = self.targets.get(&addr).ok_or(Problem::Unresolved)?;
        let via = match (target.via, self.local) {
            (Err(Problem::Local), Some((ifindex, destination))) => {
                return Ok(Hop {
                    ifindex,
                    destination: Some(destination),
                    source: None,
                    mtu: None,
                });
            }
            (via, _) => via?,
        };
        Ok(Hop {
            ifindex: via.ifindex,
            destination: self.neighbours.get(&via).and_then(|known| known.mac),
            source: target.own.0,
            mtu: target.own.1,
        })
    }

    /// The addresses that are followed.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.targets.keys().copied()
    }

    /// The interfaces that real servers are behind.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        self.neighbours.keys().map(|via| via.ifindex)
    }
}

fn via(addr: IpAddr, route: Option<Route>) -> Result<Via, Problem> {
    let route = route.ok_or(Problem::NoRoute)?;
    match route.kind {
        RouteKind::Unicast => Ok(Via {
            ifindex: route.ifindex,
            ip: route.gateway.unwrap_or(addr),
        }),
        RouteKind::Local => Err(Problem::Local),
        RouteKind::Other => Err(Problem::NoRoute),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::sys::netlink::NeighbourState;

    /// A kernel with these routes and neighbours, and what it was asked. All else is on the link of
    /// interface 1, and resolved to a MAC address that ends like the address itself.
    #[derive(Default)]
    pub(in crate::control) struct FakeKernel {
        pub(in crate::control) routes: BTreeMap<IpAddr, Option<Route>>,
        pub(in crate::control) silent: BTreeSet<IpAddr>,
        failing: BTreeSet<IpAddr>,
        routes_asked: Vec<IpAddr>,
        probed: Vec<IpAddr>,
    }

    impl FakeKernel {
        fn asked(&mut self) -> (usize, usize) {
            let asked = (self.routes_asked.len(), self.probed.len());
            self.routes_asked.clear();
            self.probed.clear();
            asked
        }
    }

    impl Kernel for FakeKernel {
        type Error = IpAddr;

        fn route_to(&mut self, destination: IpAddr) -> Result<Option<Route>, IpAddr> {
            self.routes_asked.push(destination);
            if self.failing.contains(&destination) {
                return Err(destination);
            }
            let on_link = || Some(route(RouteKind::Unicast, 1));
            Ok(self
                .routes
                .get(&destination)
                .copied()
                .unwrap_or_else(on_link))
        }

        fn probe_neighbour(
            &mut self,
            ifindex: u32,
            ip: IpAddr,
        ) -> Result<Option<Neighbour>, IpAddr> {
            self.probed.push(ip);
            if self.failing.contains(&ip) {
                return Err(ip);
            }
            Ok((!self.silent.contains(&ip)).then(|| neighbour(ifindex, ip, mac(ip))))
        }
    }

    pub(in crate::control) const fn route(kind: RouteKind, ifindex: u32) -> Route {
        Route {
            kind,
            ifindex,
            gateway: None,
            preferred_source: None,
            mtu: None,
        }
    }

    fn neighbour(ifindex: u32, ip: IpAddr, mac: MacAddr) -> Neighbour {
        Neighbour {
            ifindex,
            ip,
            mac: Some(mac),
            state: NeighbourState::Reachable,
        }
    }

    fn mac(ip: IpAddr) -> MacAddr {
        let IpAddr::V4(v4) = ip else { panic!("{ip}") };
        let [a, b, c, d] = v4.octets();
        MacAddr([2, 0, a, b, c, d])
    }

    fn real(n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        Ipv4Addr::new(10, 1, high, low).into()
    }

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// Next hops of `count` real servers, and the turns that are taken at `now` until nothing is
    /// left to do, each with the questions it asked.
    fn track(count: u16) -> NextHops {
        let mut hops = NextHops::new();
        for n in 0..count {
            hops.track(at(0), real(n));
        }
        hops
    }

    fn settle(hops: &mut NextHops, now: Instant, kernel: &mut FakeKernel) -> Vec<(usize, usize)> {
        let mut turns = Vec::new();
        while hops.poll_timeout().is_some_and(|due| due <= now) {
            hops.handle_timeout(now, kernel);
            turns.push(kernel.asked());
            assert!(turns.len() < 10_000, "it spins");
        }
        turns
    }

    #[test]
    fn a_real_server_is_on_the_link_behind_a_router_unreachable_or_this_host() {
        let mut kernel = FakeKernel::default();
        let router = real(99);
        let routed = Route {
            gateway: Some(router),
            ..route(RouteKind::Unicast, 2)
        };
        kernel.routes.insert(real(1), Some(routed));
        kernel.routes.insert(real(2), None);
        kernel
            .routes
            .insert(real(3), Some(route(RouteKind::Local, 9)));
        kernel
            .routes
            .insert(real(4), Some(route(RouteKind::Other, 1)));
        kernel.silent.insert(real(5));
        let mut hops = track(6);
        assert_eq!(hops.hop(real(0)), Err(Problem::Unresolved), "not asked yet");
        settle(&mut hops, at(0), &mut kernel);
        let hop = |ifindex, destination| {
            Ok(Hop {
                ifindex,
                destination,
                source: None,
                mtu: None,
            })
        };
        assert_eq!(hops.hop(real(0)), hop(1, Some(mac(real(0)))));
        assert_eq!(hops.hop(real(1)), hop(2, Some(mac(router))));
        assert_eq!(hops.hop(real(2)), Err(Problem::NoRoute));
        assert_eq!(hops.hop(real(3)), Err(Problem::Local));
        assert_eq!(hops.hop(real(4)), Err(Problem::NoRoute));
        assert_eq!(hops.hop(real(5)), hop(1, None));
        let mut interfaces: Vec<u32> = hops.interfaces().collect();
        interfaces.dedup();
        assert_eq!(interfaces, [1, 2]);
    }

    #[test]
    fn neighbours_are_asked_every_second_until_they_answer_and_every_five_then() {
        let mut kernel = FakeKernel::default();
        kernel.silent.insert(real(0));
        let mut hops = track(1);
        assert_eq!(settle(&mut hops, at(0), &mut kernel), [(1, 1)]);
        assert_eq!(hops.poll_timeout(), Some(at(1000)));
        assert!(settle(&mut hops, at(999), &mut kernel).is_empty());
        assert_eq!(settle(&mut hops, at(1000), &mut kernel), [(0, 1)]);

        assert!(hops.handle_neighbour(&neighbour(1, real(0), mac(real(7)))));
        assert!(!hops.handle_neighbour(&neighbour(1, real(0), mac(real(7)))));
        assert!(!hops.handle_neighbour(&neighbour(2, real(0), mac(real(8)))));
        assert_eq!(settle(&mut hops, at(2000), &mut kernel), [(0, 1)]);
        assert_eq!(hops.poll_timeout(), Some(at(7000)));
        // It failed: the address that is known stays in use.
        let failed = Neighbour {
            state: NeighbourState::Failed,
            ..neighbour(1, real(0), mac(real(9)))
        };
        assert!(!hops.handle_neighbour(&failed));
        let destination = hops.hop(real(0)).unwrap().destination;
        assert_eq!(destination, Some(mac(real(7))));
    }

    #[test]
    fn an_address_and_a_router_are_asked_about_once_however_many_share_them() {
        let mut kernel = FakeKernel::default();
        let routed = Route {
            gateway: Some(real(999)),
            ..route(RouteKind::Unicast, 1)
        };
        let mut hops = NextHops::new();
        for n in 0..20 {
            kernel.routes.insert(real(n), Some(routed));
            for _ in 0..1000 {
                hops.track(at(0), real(n));
            }
        }
        assert_eq!(settle(&mut hops, at(0), &mut kernel), [(20, 1)]);
        // Known anew does not mean unknown.
        hops.track(at(1), real(0));
        let destination = hops.hop(real(0)).unwrap().destination;
        assert_eq!(destination, Some(mac(real(999))));
        assert!(settle(&mut hops, at(1), &mut kernel).is_empty());

        // The router is asked about for as long as one of them needs it.
        for n in 0..19 {
            kernel.routes.insert(real(n), None);
        }
        hops.handle_routes(at(2));
        settle(&mut hops, at(2), &mut kernel);
        assert_eq!(settle(&mut hops, at(5000), &mut kernel), [(0, 1)]);
        kernel.routes.insert(real(19), None);
        hops.handle_routes(at(6000));
        settle(&mut hops, at(6000), &mut kernel);
        assert_eq!(hops.poll_timeout(), None);
        assert_eq!(hops.interfaces().count(), 0);
    }

    #[test]
    fn a_turn_asks_a_bounded_number_of_questions_and_the_next_one_goes_on_at_once() {
        let mut kernel = FakeKernel::default();
        let mut hops = track(1000);
        let turns = settle(&mut hops, at(0), &mut kernel);
        assert!(turns.iter().all(|(r, n)| r + n <= ASKED_PER_TURN));
        assert_eq!(turns.iter().map(|(routes, _)| routes).sum::<usize>(), 1000);

        hops.handle_routes(at(500));
        hops.handle_timeout(at(500), &mut kernel);
        assert_eq!(kernel.asked(), (ROUTES_PER_TURN, 0));
        assert_eq!(hops.poll_timeout(), Some(Instant::ZERO), "more is left");
        // What changes behind the cursor meanwhile is found by the look-up after this one.
        kernel.routes.insert(real(3), None);
        hops.handle_routes(at(501));
        let turns = settle(&mut hops, at(501), &mut kernel);
        assert!(turns.iter().all(|(r, n)| r + n <= ASKED_PER_TURN));
        let rest = 1000 - ROUTES_PER_TURN;
        assert_eq!(turns.iter().map(|(routes, _)| routes).sum::<usize>(), rest);
        assert!(hops.hop(real(3)).is_ok());
        assert_eq!(hops.poll_timeout(), Some(at(600)));
        settle(&mut hops, at(600), &mut kernel);
        assert_eq!(hops.hop(real(3)), Err(Problem::NoRoute));
    }

    #[test]
    fn a_burst_of_route_changes_is_two_look_ups() {
        let mut kernel = FakeKernel::default();
        let mut hops = track(1);
        settle(&mut hops, at(0), &mut kernel);
        let mut looked_up = Vec::new();
        for now in 1000..1090 {
            hops.handle_routes(at(now));
            settle(&mut hops, at(now), &mut kernel)
                .iter()
                .for_each(|_| looked_up.push(now));
        }
        assert_eq!(hops.poll_timeout(), Some(at(1100)));
        settle(&mut hops, at(1100), &mut kernel)
            .iter()
            .for_each(|_| looked_up.push(1100));
        looked_up.dedup();
        assert_eq!(looked_up, [1000, 1100]);
    }

    #[test]
    fn routes_that_change_all_the_time_do_not_keep_neighbours_from_being_asked() {
        let mut kernel = FakeKernel::default();
        let mut hops = track(1000);
        kernel.silent.extend((0..1000).map(real));
        settle(&mut hops, at(0), &mut kernel);
        // Turns of 2 ms: 32 routes each, so that a look-up of all hardly ends before the next.
        let mut probed = 0;
        for now in (1000..1100).step_by(2) {
            hops.handle_routes(at(now));
            hops.handle_timeout(at(now), &mut kernel);
            probed += kernel.asked().1;
        }
        assert_eq!(probed, 1000);
    }

    #[test]
    fn a_failure_costs_nobody_else_and_is_tried_again_a_second_later() {
        let mut kernel = FakeKernel::default();
        kernel.failing.insert(real(0));
        let mut hops = track(3);
        let (changed, error) = hops.handle_timeout(at(0), &mut kernel);
        assert_eq!((changed, error), (true, Some(real(0))));
        assert!(hops.hop(real(1)).is_ok() && hops.hop(real(2)).is_ok());
        kernel.asked();
        assert!(settle(&mut hops, at(999), &mut kernel).is_empty());
        kernel.failing.clear();
        // Its route and then its neighbour, beside the two neighbours that are due.
        assert_eq!(settle(&mut hops, at(1000), &mut kernel), [(1, 3)]);
        let destination = hops.hop(real(0)).unwrap().destination;
        assert_eq!(destination, Some(mac(real(0))));

        // A look-up of all routes: the way that is known stays, and the change comes in later.
        kernel.failing.insert(real(1));
        kernel.routes.insert(real(1), None);
        kernel.routes.insert(real(2), None);
        hops.handle_routes(at(11_000));
        let (changed, error) = hops.handle_timeout(at(11_000), &mut kernel);
        assert_eq!((changed, error), (true, Some(real(1))));
        assert!(hops.hop(real(1)).is_ok());
        assert_eq!(hops.hop(real(2)), Err(Problem::NoRoute));
        kernel.failing.clear();
        settle(&mut hops, at(11_999), &mut kernel);
        assert!(hops.hop(real(1)).is_ok());
        settle(&mut hops, at(12_000), &mut kernel);
        assert_eq!(hops.hop(real(1)), Err(Problem::NoRoute));
    }

    #[test]
    fn a_failure_that_lasts_is_told_every_ten_seconds() {
        let mut kernel = FakeKernel::default();
        kernel.failing.extend((0..100).map(real));
        let mut hops = track(100);
        let mut told = Vec::new();
        for now in (0..25_000).step_by(100) {
            let (changed, error) = hops.handle_timeout(at(now), &mut kernel);
            assert!(!changed);
            told.extend(error.map(|_| now));
        }
        assert_eq!(told, [0, 10_000, 20_000]);
    }

    #[test]
    fn lost_notifications_have_everything_asked_again_now() {
        let mut kernel = FakeKernel::default();
        let mut hops = track(100);
        settle(&mut hops, at(0), &mut kernel);
        hops.handle_overflow(at(500));
        let turns = settle(&mut hops, at(500), &mut kernel);
        let sum = turns.iter().fold((0, 0), |(r, n), t| (r + t.0, n + t.1));
        assert_eq!(sum, (100, 100));
        // One after the other, and nobody is left out.
        kernel.silent.extend((0..100).map(real));
        let mut probed = BTreeSet::new();
        for now in 6000..6010 {
            hops.handle_overflow(at(now));
            hops.handle_timeout(at(now), &mut kernel);
            probed.extend(kernel.probed.drain(..));
        }
        assert_eq!(probed.len(), 100);
    }

    proptest::proptest! {
           /// Whatever happened before, after a quiet second the next hops are those of the kernel,
           /// and every neighbour in use, and no other one, is due.
           #[test]
           fn what_is_known_follows_what_is(
               steps in proptest::collection::vec((0_u16..6, 0_u8..5, 0_u64..400), 1..60),
           ) {
               let mut kernel = FakeKernel::default();
               let mut hops = track(6);
               let mut now = 0;
               for (n, what, wait) in steps {
                   let addr = real(n);
                   match what {
                       0 => { kernel.routes.insert(addr, None); }
                       1 => { kernel.routes.remove(&addr); }
                       2 => {
                           let routed = Route { gateway: Some(real(100)), ..route(RouteKind::Unicast, 2) };
                           kernel.routes.insert(addr, Some(routed));
                       }
                       3 => { kernel.failing.insert(addr); }
                       _ => { kernel.failing.remove(&addr); }
                   }
                   hops.handle_routes(at(now));
                   settle(&mut hops, at(now), &mut kernel);
                   now += wait;
               }
               kernel.failing.clear();
               // A failed look-up is repeated after a second, and the probe it leads to at once.
               settle(&mut hops, at(now + 1000), &mut kernel);
               let mut used = BTreeSet::new();
               for n in 0..6 {
                   let route = kernel.route_to(real(n)).unwrap();
                   let is = via(real(n), route).map(|via| {
                       used.insert(via);
                       Hop {
    ifindex: via.ifindex,
    destination: Some(mac(via.ip)),
    source: None,
    mtu: None,
    }
                   });
                   proptest::prop_assert_eq!(hops.hop(real(n)), is);
               }
               let tasks: BTreeSet<Task> = hops.due.iter().map(|(_, task)| *task).collect();
               proptest::prop_assert_eq!(tasks.len(), hops.due.len());
               proptest::prop_assert_eq!(tasks, used.into_iter().map(Task::Neighbour).collect());
           }
       }
}
