//! Next hops beside a kernel that a test makes up.

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

    fn probe_neighbour(&mut self, ifindex: u32, ip: IpAddr) -> Result<Option<Neighbour>, IpAddr> {
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
