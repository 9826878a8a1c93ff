//! From a packet to its virtual server: by mark, by address, by range of addresses.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use rapidhash::fast::SeedableState;

use super::{BuildError, MarkRule, Match, ServiceKey};
use crate::addr::PortId;

type Map<K> = HashMap<K, u32, SeedableState<'static>>;

/// Finds virtual servers by what their packets are. Values are places in a table.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    v4: Map<u64>,
    v6: Map<(u128, u32)>,
    /// Sorted by protocol and port, then by address; the ranges of one protocol and port do not overlap.
    ranges: Vec<Range>,
    /// By mark, and whether it is IPv6's.
    marks: HashMap<(u32, bool), u32>,
    rules: Vec<MarkRule>,
    /// Whether any virtual server takes every port.
    any_port: bool,
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

#[derive(Debug)]
struct Range {
    key: u32,
    first: u128,
    last: u128,
    at: u32,
}

impl Lookup {
    pub(super) fn new(rules: Vec<MarkRule>) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// The packets of `what` are those of the virtual server in place `at` from now on.
    pub(super) fn add(&mut self, what: Match, at: u32) -> Result<(), BuildError> {
        let taken = match what {
            Match::Address(ServiceKey { protocol, endpoint }) => {
                self.any_port |= endpoint.port == 0;
                let protocol = protocol.number();
                match endpoint.addr {
                    IpAddr::V4(vip) => self.v4.insert(pack(vip, protocol, endpoint.port), at),
                    IpAddr::V6(vip) => {
                        let key = (vip.to_bits(), tail(protocol, endpoint.port));
                        self.v6.insert(key, at)
                    }
                }
            }
            Match::Range {
                protocol,
                first,
                last,
                port,
            } => {
                if first.is_ipv4() != last.is_ipv4() || first > last {
                    return Err(BuildError::Range(what));
                }
                self.any_port |= port == 0;
                let range = Range {
                    key: tail(protocol.number(), port),
                    first: bits(first),
                    last: bits(last),
                    at,
                };
                let place = self
                    .ranges
                    .partition_point(|r| (r.key, r.first) < (range.key, range.first));
                let before = place.checked_sub(1).and_then(|n| self.ranges.get(n));
                let overlaps = |other: &Range| {
                    other.key == range.key && other.first <= range.last && range.first <= other.last
                };
                let neighbours = before.into_iter().chain(self.ranges.get(place));
                let taken = neighbours.filter(|r| overlaps(r)).map(|r| r.at).next();
                self.ranges.insert(place, range);
                taken
            }
            Match::Mark { mark, ipv6 } => self.marks.insert((mark, ipv6), at),
        };
        taken.map_or(Ok(()), |_| Err(BuildError::DuplicateService(what)))
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
            self.any_port
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
