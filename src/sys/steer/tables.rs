//! The tables of the steering program, and what a [`Match`] is in them.
//!
//! Several matches may need one entry (the fragments of an address that has many virtual servers), so
//! entries are counted, and go with the last that needs them.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    io,
    net::IpAddr,
};

use super::matching::{Match, MatchRule, Outer, PortRange, RULE_ENTRIES, Service};
use crate::{
    addr::{Endpoint, IpPrefix, L4Proto, MacAddr},
    sys::{
        bpf::{Map, Object},
        open_error::OpenError,
    },
};

/// The maps that all interfaces' instances share, by their name in the object.
pub(super) const NAMES: [&CStr; 8] = [
    c"services",
    c"prefixes",
    c"returns",
    c"tunnels",
    c"locals",
    c"rules",
    c"features",
    c"stations",
];

/// `MAX_RULES` of `steer.bpf.c`.
const MAX_RULES: usize = 64;
/// The value of every entry: that it is there is all there is to say.
const PRESENT: [u8; 4] = 1_u32.to_ne_bytes();
/// IP protocols of tunnels: IPv4 within IP, IPv6 within IP, GRE.
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_IPV6: u8 = 41;
const IPPROTO_GRE: u8 = 47;
/// `KIND_FRAGMENT` of `steer.bpf.c`.
const KIND_FRAGMENT: u8 = 0x80;

/// A map whose keys are addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Table {
    Services,
    Prefixes,
    Returns,
    Tunnels,
    Locals,
}

/// An entry of such a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    table: Table,
    key: EndpointKey,
    /// Bits of the address that count; just [`Table::Prefixes`] has less than all 128.
    bits: u8,
}

/// struct endpoint of `steer.bpf.c`.
type EndpointKey = [u8; 20];

/// The maps, and what is in them.
pub(super) struct Tables {
    maps: [Map; NAMES.len()],
    known: HashSet<Match>,
    /// How many matches need an entry.
    entries: HashMap<Entry, u32>,
    /// How many entries there are for each bit of `features.flags`.
    flags: [u32; FLAGS],
    /// The rules that are walked; the place is the index in the map.
    rules: [Option<MatchRule>; MAX_RULES],
    /// struct features of `steer.bpf.c`, as it was written last.
    features: [u8; 16],
}

/// Bits of `features.flags` of `steer.bpf.c`.
const FLAGS: usize = 5;

impl Tables {
    /// The tables of a loaded object, empty.
    pub(super) fn of(object: &Object) -> Result<Self, OpenError> {
        let [a, b, c, d, e, f, g, h] = NAMES.map(|name| object.map(name));
        Ok(Self {
            maps: [a?, b?, c?, d?, e?, f?, g?, h?],
            known: HashSet::new(),
            entries: HashMap::new(),
            flags: [0; FLAGS],
            rules: [None; MAX_RULES],
            features: [0; 16],
        })
    }

    /// Makes an object that is not loaded yet use these tables.
    pub(super) fn share_with(&self, object: &mut Object) -> Result<(), OpenError> {
        for (name, map) in NAMES.iter().zip(&self.maps) {
            object.share(name, map)?;
        }
        Ok(())
    }

    /// Adds what is not there yet. When it fails, what was there is there.
    pub(super) fn add(&mut self, wanted: &Match) -> io::Result<()> {
        if self.known.contains(wanted) {
            return Ok(());
        }
        match form(wanted)? {
            Form::Walked(rule) => self.add_rule(rule)?,
            Form::Entries(entries) => {
                for (done, entry) in entries.iter().enumerate() {
                    if let Err(error) = self.add_entry(*entry) {
                        for entry in &entries[..done] {
                            // The first failure is the one to tell.
                            let _ = self.remove_entry(*entry);
                        }
                        return Err(error);
                    }
                }
            }
        }
        self.known.insert(*wanted);
        // Last, so that no packet looks for an entry that is on its way.
        self.write_features()
    }

    /// Removes what is there.
    pub(super) fn remove(&mut self, unwanted: &Match) -> io::Result<()> {
        if !self.known.contains(unwanted) {
            return Ok(());
        }
        match form(unwanted)? {
            Form::Walked(rule) => {
                for place in self.rules.iter_mut().filter(|place| **place == Some(rule)) {
                    *place = None;
                }
            }
            Form::Entries(entries) => {
                // In reverse: the fragments of an address last.
                for entry in entries.iter().rev() {
                    self.remove_entry(*entry)?;
                }
            }
        }
        self.known.remove(unwanted);
        self.write_features()
    }

    /// Adds a station.
    pub(super) fn add_station(&self, ifindex: u32, mac: MacAddr) -> io::Result<()> {
        self.maps[STATIONS].set(&station_key(ifindex, mac), &PRESENT)
    }

    /// Removes a station.
    pub(super) fn remove_station(&self, ifindex: u32, mac: MacAddr) -> io::Result<()> {
        self.maps[STATIONS].remove(&station_key(ifindex, mac))
    }

    fn add_entry(&mut self, entry: Entry) -> io::Result<()> {
        let users = self.entries.get(&entry).copied().unwrap_or(0);
        if users == 0 {
            self.maps[entry.table as usize].set(&entry.map_key(), &PRESENT)?;
            if let Some(flag) = entry.flag() {
                self.flags[flag] += 1;
            }
        }
        self.entries.insert(entry, users + 1);
        Ok(())
    }

    fn remove_entry(&mut self, entry: Entry) -> io::Result<()> {
        match self.entries.get_mut(&entry) {
            None => {}
            Some(users) if *users > 1 => *users -= 1,
            Some(_) => {
                self.maps[entry.table as usize].remove(&entry.map_key())?;
                if let Some(flag) = entry.flag() {
                    self.flags[flag] -= 1;
                }
                self.entries.remove(&entry);
            }
        }
        Ok(())
    }

    fn add_rule(&mut self, rule: MatchRule) -> io::Result<()> {
        let free = self.rules.iter().position(Option::is_none);
        let index = free.ok_or_else(|| {
            io::Error::other(format!(
                "there are {MAX_RULES} rules with sources or wide port ranges already, and no more fit"
            ))
        })?;
        let key = u32::try_from(index).unwrap_or(u32::MAX).to_ne_bytes();
        // Not in force before its bit in the features says so.
        self.maps[RULES].set(&key, &rule_value(&rule))?;
        self.rules[index] = Some(rule);
        Ok(())
    }

    /// Tells the program which tables to look into, when that has changed.
    fn write_features(&mut self) -> io::Result<()> {
        let bit = |(i, count): (usize, &u32)| u32::from(*count > 0) << i;
        let flags: u32 = self.flags.iter().enumerate().map(bit).sum();
        let bit = |(i, rule): (usize, &Option<MatchRule>)| u64::from(rule.is_some()) << i;
        let rules: u64 = self.rules.iter().enumerate().map(bit).sum();
        let mut value = [0; 16];
        value[..4].copy_from_slice(&flags.to_ne_bytes());
        value[8..].copy_from_slice(&rules.to_ne_bytes());
        if value != self.features {
            self.maps[FEATURES].set(&0_u32.to_ne_bytes(), &value)?;
            self.features = value;
        }
        Ok(())
    }
}

/// Places in [`NAMES`] beyond those of [`Table`].
const RULES: usize = 5;
const FEATURES: usize = 6;
const STATIONS: usize = 7;

impl Entry {
    const fn new(table: Table, key: EndpointKey) -> Self {
        Self {
            table,
            key,
            bits: 128,
        }
    }

    /// The key in its map.
    fn map_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(24);
        if self.table == Table::Prefixes {
            // Protocol, kind and port count in full.
            key.extend((32 + u32::from(self.bits)).to_ne_bytes());
        }
        key.extend(self.key);
        key
    }

    /// The bit of `features.flags` that says that there are such entries. Fragments have port 0, and
    /// are looked up like an exact port.
    const fn flag(&self) -> Option<usize> {
        let any_port = self.key[1] & KIND_FRAGMENT == 0 && self.key[2] == 0 && self.key[3] == 0;
        match (self.table, any_port) {
            (Table::Services, true) => Some(0),
            (Table::Prefixes, false) => Some(1),
            (Table::Prefixes, true) => Some(2),
            (Table::Returns, false) => Some(3),
            (Table::Returns, true) => Some(4),
            _ => None,
        }
    }
}

/// What a [`Match`] is in the tables.
enum Form {
    Entries(Vec<Entry>),
    /// In the table of rules.
    Walked(MatchRule),
}

/// The entries that `wanted` needs, in the order to add them: a fragment is not to reach the host when
/// its siblings do not, so an address comes before its ports.
fn form(wanted: &Match) -> io::Result<Form> {
    let endpoint = |table, Service { endpoint, proto }| {
        let key = |kind, port| endpoint_key(proto.number(), kind, Endpoint { port, ..endpoint });
        vec![
            Entry::new(table, key(KIND_FRAGMENT, 0)),
            Entry::new(table, key(0, endpoint.port)),
        ]
    };
    Ok(Form::Entries(match *wanted {
        Match::Service(service) => endpoint(Table::Services, service),
        Match::Return(service) => endpoint(Table::Returns, service),
        Match::Prefix { dst, port, proto } => prefix_entries(dst, port..=port, proto),
        Match::Rule(rule) => return rule_form(&rule),
        Match::Tunnel { addr, outer } => {
            let entry = |proto, port| {
                Entry::new(
                    Table::Tunnels,
                    endpoint_key(proto, 0, Endpoint::new(addr, port)),
                )
            };
            match outer {
                Outer::Ipip => vec![entry(IPPROTO_IPIP, 0), entry(IPPROTO_IPV6, 0)],
                Outer::Gre => vec![entry(IPPROTO_GRE, 0)],
                Outer::Gue(port) => vec![entry(L4Proto::Udp.number(), port)],
            }
        }
        Match::Local(addr) => {
            let key = endpoint_key(0, 0, Endpoint::new(addr, 0));
            vec![Entry::new(Table::Locals, key)]
        }
    }))
}

fn rule_form(rule: &MatchRule) -> io::Result<Form> {
    if rule
        .src
        .is_some_and(|src| src.addr().is_ipv4() != rule.dst.addr().is_ipv4())
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "source and destination of a rule are of different families",
        ));
    }
    let any_source = rule.src.is_none_or(|src| src.len() == 0) && rule.src_ports == PortRange::ANY;
    let (first, last) = (rule.dst_ports.first(), rule.dst_ports.last());
    let ports = if rule.dst_ports == PortRange::ANY {
        0..=0
    } else if first > 0 && last - first < RULE_ENTRIES {
        first..=last
    } else {
        return Ok(Form::Walked(*rule));
    };
    Ok(if any_source {
        Form::Entries(prefix_entries(rule.dst, ports, rule.proto))
    } else {
        Form::Walked(*rule)
    })
}

fn prefix_entries(
    dst: IpPrefix,
    ports: std::ops::RangeInclusive<u16>,
    proto: L4Proto,
) -> Vec<Entry> {
    let (addr, bits) = masked(dst);
    let entry = |kind, port| Entry {
        table: Table::Prefixes,
        key: endpoint_key(proto.number(), kind, Endpoint::new(addr, port)),
        bits,
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

/// struct endpoint of `steer.bpf.c`; `kind` is without the family.
fn endpoint_key(proto: u8, kind: u8, endpoint: Endpoint) -> EndpointKey {
    let mut key = [0; 20];
    key[0] = proto;
    key[1] = kind | family(endpoint.addr);
    key[2..4].copy_from_slice(&endpoint.port.to_be_bytes());
    key[4..].copy_from_slice(&mapped(endpoint.addr));
    key
}

/// struct rule of `steer.bpf.c`.
fn rule_value(rule: &MatchRule) -> [u8; 80] {
    let mut value = [0; 80];
    let net = |value: &mut [u8], net: IpPrefix| {
        let (addr, bits) = masked(net);
        let mask = u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0);
        value[..16].copy_from_slice(&mapped(addr));
        value[16..32].copy_from_slice(&mask.to_be_bytes());
    };
    net(&mut value[..32], rule.dst);
    if let Some(src) = rule.src {
        net(&mut value[32..64], src);
    }
    let ports = [rule.dst_ports, rule.src_ports];
    for (bytes, range) in value[64..72].chunks_exact_mut(4).zip(ports) {
        bytes[..2].copy_from_slice(&range.first().to_ne_bytes());
        bytes[2..].copy_from_slice(&range.last().to_ne_bytes());
    }
    value[72] = rule.proto.number();
    value[73] = family(rule.dst.addr());
    value
}

/// struct station of `steer.bpf.c`.
fn station_key(ifindex: u32, mac: MacAddr) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&ifindex.to_ne_bytes());
    key[4..10].copy_from_slice(&mac.0);
    key
}

/// `KIND_V4` or `KIND_V6` of `steer.bpf.c`. Beside the mapped address, lest `::/0` hold all of IPv4.
const fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 6,
    }
}

/// The address as 16 bytes, IPv4 mapped. RFC 4291 §2.5.5.2.
fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
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
        assert_eq!(endpoint_key(17, KIND_FRAGMENT, endpoint), expected);
        let endpoint = Endpoint::new("2001:db8::1".parse().unwrap(), 0);
        let mut expected = [0; 20];
        expected[..8].copy_from_slice(&[0, 6, 0, 0, 0x20, 1, 0xd, 0xb8]);
        expected[19] = 1;
        assert_eq!(endpoint_key(0, 0, endpoint), expected);
        let station = station_key(7, MacAddr([1, 2, 3, 4, 5, 6]));
        assert_eq!(station[..4], 7_u32.to_ne_bytes());
        assert_eq!(station[4..], [1, 2, 3, 4, 5, 6, 0, 0]);
        let entry = prefix_entries(net("10.1.2.3/16"), 80..=80, L4Proto::Tcp)[1];
        let mut expected = 144_u32.to_ne_bytes().to_vec();
        expected.extend([6, 4, 0, 80]);
        expected.extend([0; 10]);
        expected.extend([0xff, 0xff, 10, 1, 0, 0]);
        assert_eq!(entry.map_key(), expected);
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
        let entries = |rule: &MatchRule| match rule_form(rule).unwrap() {
            Form::Entries(entries) => Some(entries.len()),
            Form::Walked(_) => None,
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
        assert!(rule_form(&src("::/0")).is_err());
        let from_port = MatchRule {
            src_ports: PortRange::new(0, 1023).unwrap(),
            ..rule(80, 80)
        };
        assert_eq!(entries(&from_port), None);
    }
}
