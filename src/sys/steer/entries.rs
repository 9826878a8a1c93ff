//! What a [`Steered`] is in the tables of the steering program.

use std::{fmt, net::IpAddr};

use super::{
    abi::{
        Addr, Endpoint as EndpointKey, HAS_ANY_PORT, HAS_ANY_PORT_PREFIXES, HAS_ANY_PORT_RETURNS,
        HAS_PREFIXES, HAS_RETURNS, KIND_FRAGMENT, KIND_V4, KIND_V6, Prefix as PrefixKey,
        Rule as RuleValue, Station as StationKey,
    },
    matching::{MatchRule, Outer, PortRange, RULE_ENTRIES, Steered, Target},
};
use crate::{
    addr::{Endpoint, IpPrefix, L4Proto, MacAddr},
    sys::bpf::Plain,
};

/// IP protocols of tunnels: IPv4 within IP, IPv6 within IP, GRE.
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_IPV6: u8 = 41;
const IPPROTO_GRE: u8 = 47;
/// Bits of an address in a key; IPv4 ones are mapped.
const ADDR_BITS: u8 = 128;

/// Something that is in the tables by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    /// An address of an interface.
    Station {
        ifindex: u32,
        mac: MacAddr,
    },
    Steered(Steered),
}

/// An entry of a map whose entries are just there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    Station(StationKey),
    Local(EndpointKey),
    Tunnel(EndpointKey),
    Return(EndpointKey),
    Service(EndpointKey),
    Prefix(PrefixKey),
}

/// What an [`Item`] is in the tables.
pub(super) enum Form {
    /// In the order to add them.
    Entries(Vec<Entry>),
    /// In the table of rules.
    Walked(MatchRule),
    /// No packet is like this.
    Void,
}

impl Item {
    /// What is needed by others comes before them: addresses of this host before the answers that are
    /// sent there, answers before what they answer.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::Station { .. } => 0,
            Self::Steered(Steered::Local(_)) => 1,
            Self::Steered(Steered::Tunnel { .. }) => 2,
            Self::Steered(Steered::Return(_)) => 3,
            Self::Steered(Steered::Service(_) | Steered::Prefix { .. } | Steered::Rule(_)) => 4,
        }
    }

    /// A fragment is not to reach the host when its siblings do not, so an address' entry for fragments
    /// comes before its ports.
    pub(super) fn form(&self) -> Form {
        let endpoint = |entry: fn(EndpointKey) -> Entry, Target { endpoint, proto }| {
            let key = |kind, port| key(proto.number(), kind, Endpoint { port, ..endpoint });
            vec![entry(key(KIND_FRAGMENT, 0)), entry(key(0, endpoint.port))]
        };
        let steered = match self {
            Self::Station { ifindex, mac } => {
                return Form::Entries(vec![Entry::Station(StationKey {
                    ifindex: *ifindex,
                    mac: mac.0,
                    zero: [0; 2],
                })]);
            }
            Self::Steered(steered) => steered,
        };
        Form::Entries(match *steered {
            Steered::Service(target) => endpoint(Entry::Service, target),
            Steered::Return(target) => endpoint(Entry::Return, target),
            Steered::Prefix { dst, port, proto } => prefix_entries(dst, port..=port, proto),
            Steered::Rule(rule) => return rule_form(&rule),
            Steered::Tunnel { addr, outer } => {
                let entry = |proto, port| Entry::Tunnel(key(proto, 0, Endpoint::new(addr, port)));
                match outer {
                    Outer::Ipip => vec![entry(IPPROTO_IPIP, 0), entry(IPPROTO_IPV6, 0)],
                    Outer::Gre => vec![entry(IPPROTO_GRE, 0)],
                    Outer::Gue(port) => vec![entry(L4Proto::Udp.number(), port)],
                }
            }
            Steered::Local(addr) => vec![Entry::Local(key(0, 0, Endpoint::new(addr, 0)))],
        })
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Station { ifindex, mac } => {
                write!(f, "packets to {mac} on interface {ifindex}")
            }
            Self::Steered(steered) => steered.fmt(f),
        }
    }
}

impl Entry {
    /// The key in its map.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Station(key) => key.bytes(),
            Self::Local(key) | Self::Tunnel(key) | Self::Return(key) | Self::Service(key) => {
                key.bytes()
            }
            Self::Prefix(key) => key.bytes(),
        }
    }

    /// The bit of `features.flags` that says that there are such entries; 0 where none is needed.
    /// Fragments have port 0, and are looked up like an exact port.
    pub(super) const fn flag(&self) -> u32 {
        match self {
            Self::Service(key) if is_any_port(key) => HAS_ANY_PORT,
            Self::Prefix(key) if is_any_port(&key.first) => HAS_ANY_PORT_PREFIXES,
            Self::Prefix(_) => HAS_PREFIXES,
            Self::Return(key) if is_any_port(key) => HAS_ANY_PORT_RETURNS,
            Self::Return(_) => HAS_RETURNS,
            Self::Service(_) | Self::Local(_) | Self::Tunnel(_) | Self::Station(_) => 0,
        }
    }

    /// Whether this is about the fragments of an address, which have no ports.
    pub(super) const fn is_for_fragments(&self) -> bool {
        match self {
            Self::Return(key) | Self::Service(key) => is_fragment(key),
            Self::Prefix(key) => is_fragment(&key.first),
            Self::Local(_) | Self::Tunnel(_) | Self::Station(_) => false,
        }
    }

    /// The entry for fragments that an entry for ports is not to be without.
    pub(super) const fn fragments(&self) -> Option<Self> {
        match self {
            Self::Return(key) if !is_fragment(key) => Some(Self::Return(of_fragments(key))),
            Self::Service(key) if !is_fragment(key) => Some(Self::Service(of_fragments(key))),
            Self::Prefix(key) if !is_fragment(&key.first) => Some(Self::Prefix(PrefixKey {
                first: of_fragments(&key.first),
                ..*key
            })),
            _ => None,
        }
    }
}

const fn is_fragment(key: &EndpointKey) -> bool {
    key.kind & KIND_FRAGMENT != 0
}

const fn is_any_port(key: &EndpointKey) -> bool {
    !is_fragment(key) && key.port[0] == 0 && key.port[1] == 0
}

const fn of_fragments(key: &EndpointKey) -> EndpointKey {
    EndpointKey {
        kind: key.kind | KIND_FRAGMENT,
        port: [0; 2],
        ..*key
    }
}

fn rule_form(rule: &MatchRule) -> Form {
    let is_other = |src: IpPrefix| src.addr().is_ipv4() != rule.dst.addr().is_ipv4();
    if rule.src.is_some_and(is_other) {
        return Form::Void;
    }
    let any_source = rule.src.is_none_or(|src| src.len() == 0) && rule.src_ports == PortRange::ANY;
    let (first, last) = (rule.dst_ports.first(), rule.dst_ports.last());
    let ports = if rule.dst_ports == PortRange::ANY {
        0..=0
    } else if first > 0 && last - first < RULE_ENTRIES {
        first..=last
    } else {
        return Form::Walked(*rule);
    };
    if any_source {
        Form::Entries(prefix_entries(rule.dst, ports, rule.proto))
    } else {
        Form::Walked(*rule)
    }
}

fn prefix_entries(
    dst: IpPrefix,
    ports: std::ops::RangeInclusive<u16>,
    proto: L4Proto,
) -> Vec<Entry> {
    let (addr, bits) = masked(dst);
    let entry = |kind, port| {
        Entry::Prefix(PrefixKey {
            // Protocol, kind and port count in full.
            bits: 32 + u32::from(bits),
            first: key(proto.number(), kind, Endpoint::new(addr, port)),
        })
    };
    let fragments = std::iter::once(entry(KIND_FRAGMENT, 0));
    fragments.chain(ports.map(|port| entry(0, port))).collect()
}

/// The network's address without host bits, and how many bits count of the address as 16 bytes.
fn masked(net: IpPrefix) -> (IpAddr, u8) {
    let ones = |width: u8| {
        u128::MAX
            .checked_shl(u32::from(width - net.len()))
            .unwrap_or(0)
    };
    match net.addr() {
        IpAddr::V4(addr) => {
            let addr =
                u32::from(addr) & u32::MAX.checked_shl(u32::from(32 - net.len())).unwrap_or(0);
            (IpAddr::V4(addr.into()), 96 + net.len())
        }
        IpAddr::V6(addr) => (IpAddr::V6((u128::from(addr) & ones(128)).into()), net.len()),
    }
}

/// The key for an endpoint; `kind` is without the family.
fn key(proto: u8, kind: u8, endpoint: Endpoint) -> EndpointKey {
    EndpointKey {
        proto,
        kind: kind | family(endpoint.addr),
        port: endpoint.port.to_be_bytes(),
        addr: mapped(endpoint.addr),
    }
}

/// What the program reads of a rule that is walked.
pub(super) fn rule_value(rule: &MatchRule) -> RuleValue {
    let ends = |net: IpPrefix| {
        let (addr, bits) = masked(net);
        let mask = u128::MAX
            .checked_shl(u32::from(ADDR_BITS - bits))
            .unwrap_or(0);
        (mapped(addr), words(mask.to_be_bytes()))
    };
    let (dst, dst_mask) = ends(rule.dst);
    let (src, src_mask) = rule
        .src
        .map_or_else(|| (words([0; 16]), words([0; 16])), ends);
    RuleValue {
        dst,
        dst_mask,
        src,
        src_mask,
        dport_min: rule.dst_ports.first(),
        dport_max: rule.dst_ports.last(),
        sport_min: rule.src_ports.first(),
        sport_max: rule.src_ports.last(),
        proto: rule.proto.number(),
        kind: family(rule.dst.addr()),
        zero: [0; 6],
    }
}

/// Beside the mapped address, lest `::/0` hold all of IPv4.
const fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => KIND_V4,
        IpAddr::V6(_) => KIND_V6,
    }
}

/// The address as 16 bytes, IPv4 mapped. RFC 4291 §2.5.5.2.
fn mapped(addr: IpAddr) -> Addr {
    words(match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    })
}

fn words(bytes: [u8; 16]) -> Addr {
    let word = |index: usize| std::array::from_fn(|byte| bytes[4 * index + byte]);
    Addr {
        word: std::array::from_fn(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn keys_lie_as_the_program_reads_them() {
        let endpoint = Endpoint::new("192.0.2.1".parse().unwrap(), 0x1f90);
        let mut expected = [0; 20];
        expected[..4].copy_from_slice(&[17, 0x84, 0x1f, 0x90]);
        expected[14..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(key(17, KIND_FRAGMENT, endpoint).bytes(), expected);
        let endpoint = Endpoint::new("2001:db8::1".parse().unwrap(), 0);
        let mut expected = [0; 20];
        expected[..8].copy_from_slice(&[0, 6, 0, 0, 0x20, 1, 0xd, 0xb8]);
        expected[19] = 1;
        assert_eq!(key(0, 0, endpoint).bytes(), expected);
        let mac = MacAddr([1, 2, 3, 4, 5, 6]);
        let Form::Entries(entries) = (Item::Station { ifindex: 7, mac }).form() else {
            panic!("a station is an entry");
        };
        let station = entries[0].key();
        assert_eq!(station[..4], 7_u32.to_ne_bytes());
        assert_eq!(station[4..], [1, 2, 3, 4, 5, 6, 0, 0]);
        let entry = prefix_entries(net("10.1.2.3/16"), 80..=80, L4Proto::Tcp)[1];
        let mut expected = 144_u32.to_ne_bytes().to_vec();
        expected.extend([6, 4, 0, 80]);
        expected.extend([0; 10]);
        expected.extend([0xff, 0xff, 10, 1, 0, 0]);
        assert_eq!(entry.key(), expected);
    }

    #[test]
    fn rules_lie_as_the_program_reads_them() {
        let rule = MatchRule {
            proto: L4Proto::Sctp,
            dst: net("2001:db8:1234:ffff::/47"),
            dst_ports: PortRange::new(1, 0x203).unwrap(),
            src: Some(net("2001:db8::9")),
            src_ports: PortRange::ANY,
        };
        let value = rule_value(&rule);
        let value = value.bytes();
        assert_eq!(value[..8], [0x20, 1, 0xd, 0xb8, 0x12, 0x34, 0, 0]);
        assert_eq!(value[16..24], [0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 0]);
        assert_eq!((value[32], value[47], value[63]), (0x20, 9, 0xff));
        let ports = [1, 0x203, 0, u16::MAX].map(u16::to_ne_bytes).concat();
        assert_eq!(value[64..72], ports);
        assert_eq!(value[72..], [132, 6, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn only_rules_that_entries_cannot_say_are_walked() {
        let rule = |first, last| MatchRule {
            proto: L4Proto::Tcp,
            dst: net("10.0.0.0/8"),
            dst_ports: PortRange::new(first, last).unwrap(),
            src: None,
            src_ports: PortRange::ANY,
        };
        let entries = |rule: &MatchRule| match rule_form(rule) {
            Form::Entries(entries) => Some(entries.len()),
            Form::Walked(_) => None,
            Form::Void => panic!("a rule of two families"),
        };
        // One more, for the fragments.
        assert_eq!(entries(&rule(80, 80)), Some(2));
        assert_eq!(entries(&rule(1, RULE_ENTRIES)), Some(65));
        assert_eq!(entries(&rule(1, RULE_ENTRIES + 1)), None);
        assert_eq!(entries(&rule(0, u16::MAX)), Some(2));
        // An entry with port 0 is for every port.
        assert_eq!(entries(&rule(0, 3)), None);
        let src = |src: &str| MatchRule {
            src: Some(net(src)),
            ..rule(80, 80)
        };
        assert_eq!(entries(&src("0.0.0.0/0")), Some(2));
        assert_eq!(entries(&src("128.0.0.0/1")), None);
        assert!(matches!(rule_form(&src("::/0")), Form::Void));
        let from_port = MatchRule {
            src_ports: PortRange::new(0, 1023).unwrap(),
            ..rule(80, 80)
        };
        assert_eq!(entries(&from_port), None);
    }
}
