//! From a packet to its virtual server: by mark, by address, by range of addresses.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use rapidhash::fast::SeedableState;

use super::{MarkRule, Match, ServiceKey};
use crate::addr::PortId;

type Map<K> = HashMap<K, u32, SeedableState<'static>>;

/// Finds virtual servers by what their packets are. Values are their slots.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookup {
    v4: Map<u64>,
    v6: Map<(u128, u32)>,
    /// Sorted by protocol and port, then by address; the ranges of one protocol and port do not overlap.
    ranges: Vec<Range>,
    /// By mark, and whether it is IPv6's.
    marks: HashMap<(u32, bool), u32>,
    rules: Vec<MarkRule>,
    /// How many matches take every port.
    any_port: usize,
}

/// What of a packet from a client is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The client.
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// Where the packet goes.
    pub vip: IpAddr,
    /// The port that it goes to.
    pub vport: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Where it came in.
    pub ingress: PortId,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    key: u32,
    first: u128,
    last: u128,
    at: u32,
}

/// What a match is found by.
enum Key {
    V4(u64),
    V6((u128, u32)),
    /// Protocol and port, the lowest address and the highest.
    Range(u32, u128, u128),
    Mark((u32, bool)),
}

impl Key {
    fn of(what: &Match) -> Self {
        match *what {
            Match::Address(ServiceKey { protocol, endpoint }) => {
                let protocol = protocol.number();
                match endpoint.addr {
                    IpAddr::V4(vip) => Self::V4(pack(vip, protocol, endpoint.port)),
                    IpAddr::V6(vip) => Self::V6((vip.to_bits(), tail(protocol, endpoint.port))),
                }
            }
            Match::Range {
                protocol,
                first,
                last,
                port,
            } => Self::Range(tail(protocol.number(), port), bits(first), bits(last)),
            Match::Mark { mark, ipv6 } => Self::Mark((mark, ipv6)),
        }
    }
}

/// Whether it takes every port of its addresses.
const fn takes_every_port(what: &Match) -> bool {
    match what {
        Match::Address(key) => key.endpoint.port == 0,
        Match::Range { port, .. } => *port == 0,
        Match::Mark { .. } => false,
    }
}

impl Lookup {
    /// The rules that give marks.
    pub(super) fn rules(&self) -> &[MarkRule] {
        &self.rules
    }

    /// Other rules give marks from now on.
    pub(super) fn set_rules(&mut self, rules: Vec<MarkRule>) {
        self.rules = rules;
    }

    /// The virtual servers whose packets, as far as they go by the same kind of match, are some of those of `what`.
    pub(super) fn holders(&self, what: &Match) -> impl Iterator<Item = u32> {
        let mut overlapping: &[Range] = &[];
        let single = match Key::of(what) {
            Key::V4(key) => self.v4.get(&key),
            Key::V6(key) => self.v6.get(&key),
            Key::Mark(key) => self.marks.get(&key),
            Key::Range(key, first, last) => {
                // They do not overlap: sorted by their first addresses they are by their last ones too.
                let from = self
                    .ranges
                    .partition_point(|r| (r.key, r.last) < (key, first));
                let to = self
                    .ranges
                    .partition_point(|r| (r.key, r.first) <= (key, last));
                overlapping = self.ranges.get(from..to).unwrap_or_default();
                None
            }
        };
        (single.copied().into_iter()).chain(overlapping.iter().map(|range| range.at))
    }

    /// The virtual server that goes by this very match.
    pub(super) fn holder(&self, what: &Match) -> Option<u32> {
        match Key::of(what) {
            Key::V4(key) => self.v4.get(&key).copied(),
            Key::V6(key) => self.v6.get(&key).copied(),
            Key::Mark(key) => self.marks.get(&key).copied(),
            Key::Range(key, first, last) => {
                let found = self.ranges.get(self.place(key, first))?;
                ((found.key, found.first, found.last) == (key, first, last)).then_some(found.at)
            }
        }
    }

    /// The packets of `what`, which nobody has, are those of the virtual server in slot `at` from now on.
    pub(super) fn insert(&mut self, what: &Match, at: u32) {
        self.any_port += usize::from(takes_every_port(what));
        match Key::of(what) {
            Key::V4(key) => _ = self.v4.insert(key, at),
            Key::V6(key) => _ = self.v6.insert(key, at),
            Key::Mark(key) => _ = self.marks.insert(key, at),
            Key::Range(key, first, last) => {
                let range = Range {
                    key,
                    first,
                    last,
                    at,
                };
                self.ranges.insert(self.place(key, first), range);
            }
        }
    }

    /// The packets of `what`, which a virtual server goes by, are nobody's from now on.
    pub(super) fn remove(&mut self, what: &Match) {
        self.any_port -= usize::from(takes_every_port(what));
        match Key::of(what) {
            Key::V4(key) => _ = self.v4.remove(&key),
            Key::V6(key) => _ = self.v6.remove(&key),
            Key::Mark(key) => _ = self.marks.remove(&key),
            Key::Range(key, first, _) => _ = self.ranges.remove(self.place(key, first)),
        }
    }

    /// Where the range of this protocol and port that begins here is or would be.
    fn place(&self, key: u32, first: u128) -> usize {
        self.ranges
            .partition_point(|r| (r.key, r.first) < (key, first))
    }

    /// The virtual server that takes connections to this address, protocol and port: marks first, then
    /// addresses, each with its very port before any port, as IPVS looks.
    pub(super) fn find(&self, question: &Question) -> Option<u32> {
        if !self.rules.is_empty()
            && let Some(at) = self.marked(question)
        {
            return Some(at);
        }
        let Question {
            vip,
            protocol,
            vport,
            ..
        } = *question;
        self.by_address(vip, protocol, vport).or_else(|| {
            (self.any_port > 0)
                .then(|| self.by_address(vip, protocol, 0))
                .flatten()
        })
    }

    fn by_address(&self, vip: IpAddr, protocol: u8, port: u16) -> Option<u32> {
        let exact = match vip {
            IpAddr::V4(vip) => self.v4.get(&pack(vip, protocol, port)),
            IpAddr::V6(vip) => self.v6.get(&(vip.to_bits(), tail(protocol, port))),
        };
        exact
            .copied()
            .or_else(|| self.by_range(bits(vip), tail(protocol, port)))
    }

    fn by_range(&self, vip: u128, key: u32) -> Option<u32> {
        let after = self
            .ranges
            .partition_point(|r| (r.key, r.first) <= (key, vip));
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (range.key == key && vip <= range.last).then_some(range.at)
    }

    fn marked(&self, question: &Question) -> Option<u32> {
        let rule = self.rules.iter().find(|rule| rule.fits(question))?;
        self.marks
            .get(&(rule.mark, question.vip.is_ipv6()))
            .copied()
    }
}

impl MarkRule {
    fn fits(&self, question: &Question) -> bool {
        let within = |port: u16, (low, high): (u16, u16)| low <= port && port <= high;
        let (first, last) = self.destination;
        first <= question.vip
            && question.vip <= last
            && first.is_ipv4() == question.vip.is_ipv4()
            && within(question.vport, self.destination_ports)
            && within(question.client_port, self.source_ports)
            && self
                .protocol
                .is_none_or(|protocol| protocol.number() == question.protocol)
            && self
                .source
                .is_none_or(|source| source.contains(question.client))
            && self.ingress.is_none_or(|port| port == question.ingress)
    }
}

/// An IPv4 address, protocol and port in one word.
#[inline]
fn pack(vip: Ipv4Addr, protocol: u8, port: u16) -> u64 {
    u64::from(vip.to_bits()) << 32 | u64::from(tail(protocol, port))
}

#[inline]
fn tail(protocol: u8, port: u16) -> u32 {
    u32::from(port) << 16 | u32::from(protocol)
}

/// An address of either family in one number, IPv4 mapped (RFC 4291 §2.5.5.2).
fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}
