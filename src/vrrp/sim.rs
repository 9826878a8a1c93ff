//! A simulated LAN: routers, a virtual clock, and a network that delays, loses and partitions.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    net::Ipv4Addr,
    time::Duration,
};

use super::{Action, InstanceId, Router, Settings, State, Transport};
use crate::time::Instant;

/// The interface that all simulated instances use.
pub(super) const ETH: u32 = 2;
/// VRID of all simulated instances.
pub(super) const VRID: u8 = 51;

pub(super) fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(node + 1).unwrap())
}

pub(super) fn settings(node: usize, priority: u8) -> Settings {
    Settings {
        priority,
        interface_name: "eth0".to_owned(),
        addresses: vec![
            Ipv4Addr::new(198, 51, 100, 10),
            Ipv4Addr::new(198, 51, 100, 11),
        ],
        ..Settings::new("VI_1", ETH, VRID, Some(address(node)))
    }
}

/// A host on the LAN with one instance.
pub(super) struct Node {
    pub(super) router: Router,
    pub(super) id: InstanceId,
    /// Whether the virtual addresses are on its interface.
    pub(super) holds: bool,
    /// When it announced the addresses, and in how many rounds.
    pub(super) garps: Vec<(Instant, u8)>,
    /// Log lines.
    pub(super) log: Vec<(Instant, String)>,
    /// What it put on the wire: when, and the packet.
    pub(super) sent: Vec<(Instant, Vec<u8>)>,
    /// Which side of a partition it is on: only nodes of one side hear each other.
    pub(super) side: u8,
    pub(super) alive: bool,
    settings: Settings,
}

/// A packet under way: arrival, serial number, from, to, bytes.
type Flight = (Instant, u64, usize, usize, Vec<u8>);

pub(super) struct Lan {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// A packet takes up to this long.
    pub(super) delay: Duration,
    /// Packets lost, in percent.
    pub(super) loss: u32,
    /// Ordered pairs of nodes (from, to) whose packets are lost.
    pub(super) deaf: HashSet<(usize, usize)>,
    in_flight: BinaryHeap<Reverse<Flight>>,
    serial: u64,
    random: u64,
}

impl Lan {
    pub(super) fn new(seed: u64, all: Vec<Settings>) -> Self {
        let mut lan = Self {
            now: Instant::ZERO + Duration::from_secs(1000),
            nodes: Vec::new(),
            delay: Duration::ZERO,
            loss: 0,
            deaf: HashSet::new(),
            in_flight: BinaryHeap::new(),
            serial: 0,
            random: seed | 1,
        };
        for settings in all {
            let (router, id) = boot(&settings, lan.now);
            lan.nodes.push(Node {
                router,
                id,
                holds: false,
                garps: Vec::new(),
                log: Vec::new(),
                sent: Vec::new(),
                side: 0,
                alive: true,
                settings,
            });
        }
        for node in 0..lan.nodes.len() {
            lan.drain(node);
        }
        lan
    }

    /// Lets time pass, everything that becomes due in it included.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.deliver();
            for node in 0..self.nodes.len() {
                if self.nodes[node].alive {
                    let now = self.now;
                    self.nodes[node].router.handle_timeout(now);
                    self.drain(node);
                }
            }
        }
        self.now = end;
    }

    /// Does something to a node, and carries out what follows.
    pub(super) fn with(&mut self, node: usize, act: impl FnOnce(&mut Router, InstanceId, Instant)) {
        let now = self.now;
        let Node { router, id, .. } = &mut self.nodes[node];
        act(router, *id, now);
        self.drain(node);
    }

    /// Host death: silence, and nobody removes anything, but nobody answers either.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.nodes[node].holds = false;
    }

    pub(super) fn revive(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        (it.router, it.id) = boot(&it.settings, now);
        it.alive = true;
        self.drain(node);
    }

    pub(super) fn state(&self, node: usize) -> State {
        let node = &self.nodes[node];
        node.router.status(node.id).unwrap().state
    }

    pub(super) fn priority(&self, node: usize) -> u8 {
        let node = &self.nodes[node];
        node.router.status(node.id).unwrap().priority
    }

    /// The living masters of a side.
    pub(super) fn masters(&self, side: u8) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|n| self.nodes[*n].alive && self.nodes[*n].side == side)
            .filter(|n| self.state(*n) == State::Master)
            .collect()
    }

    pub(super) fn log_of(&self, node: usize) -> Vec<&str> {
        self.nodes[node]
            .log
            .iter()
            .map(|(_, line)| line.as_str())
            .collect()
    }

    fn next_event(&self) -> Option<Instant> {
        let timers = self.nodes.iter().filter(|node| node.alive);
        let timers = timers.filter_map(|node| node.router.poll_timeout());
        timers
            .chain(self.in_flight.peek().map(|Reverse(packet)| packet.0))
            .min()
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, ..))) = self.in_flight.peek() {
            if *at > self.now {
                return;
            }
            let Reverse((_, _, from, to, packet)) = self.in_flight.pop().unwrap();
            let apart = self.nodes[from].side != self.nodes[to].side;
            if apart || !self.nodes[to].alive {
                continue;
            }
            let now = self.now;
            self.nodes[to].router.handle_packet(now, ETH, &packet);
            self.drain(to);
        }
    }

    /// Carries out a node's actions, and checks that they fit each other.
    fn drain(&mut self, node: usize) {
        while let Some((_, action)) = self.nodes[node].router.poll_action() {
            let now = self.now;
            let it = &mut self.nodes[node];
            match action {
                Action::Send {
                    destination,
                    packet,
                } => {
                    it.sent.push((now, packet.clone()));
                    self.transmit(node, destination, &packet);
                }
                Action::AddAddresses => it.holds = true,
                Action::RemoveAddresses => it.holds = false,
                Action::GratuitousArp { rounds, .. } => {
                    assert!(it.holds, "announced addresses that it does not hold");
                    it.garps.push((now, rounds));
                }
                Action::Entered { from, to } => {
                    assert_ne!(from, to);
                    assert_eq!(it.holds, to == State::Master, "{from} -> {to}");
                }
                Action::Log(line) => it.log.push((now, line.to_string())),
            }
        }
    }

    fn transmit(&mut self, from: usize, destination: Ipv4Addr, packet: &[u8]) {
        for to in 0..self.nodes.len() {
            let concerned = destination.is_multicast() || destination == address(to);
            let lost = self.below(100) < self.loss || self.deaf.contains(&(from, to));
            if to == from || !concerned || lost {
                continue;
            }
            let nanos = u32::try_from(self.delay.as_nanos()).unwrap();
            let delay = Duration::from_nanos(u64::from(self.below(nanos.max(1))));
            self.serial += 1;
            let at = self.now + delay;
            let flight = (at, self.serial, from, to, packet.to_vec());
            self.in_flight.push(Reverse(flight));
        }
    }

    /// A number below `bound` (xorshift, Marsaglia 2003): the same for the same seed.
    fn below(&mut self, bound: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u32::try_from(self.random >> 32).unwrap() % bound
    }
}

fn boot(settings: &Settings, now: Instant) -> (Router, InstanceId) {
    let mut router = Router::new();
    let id = router.add(settings.clone(), now).unwrap();
    router.start(id, now);
    (router, id)
}

/// Turns multicast settings into unicast ones among `count` nodes.
pub(super) fn unicast(mut settings: Settings, node: usize, count: usize) -> Settings {
    settings.transport = Transport::Unicast {
        peers: (0..count)
            .filter(|peer| *peer != node)
            .map(address)
            .collect(),
        ttl: 255,
        check_source: true,
    };
    settings
}
