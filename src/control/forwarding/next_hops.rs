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

use crate::control::pace::Pace;
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
            Self::Local => "is this host itself, to which there is no way: it takes no connections",
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
pub(super) mod tests;
