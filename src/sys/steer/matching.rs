//! What can be steered: virtual servers in all their forms, and what goes with them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::addr::{Endpoint, IpPrefix, L4Proto};

/// A virtual server, or a NAT real server, as the steering program knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its address and port; port 0 takes every port of the address.
    pub endpoint: Endpoint,
    /// Its protocol.
    pub proto: L4Proto,
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port.
    pub const ANY: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// The ports from `first` to `last`; `None` when `last` is the smaller.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first > last {
            None
        } else {
            Some(Self { first, last })
        }
    }

    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub const fn last(self) -> u16 {
        self.last
    }
}

/// Packets that a rule takes for a virtual server, as a packet mark (keepalived `virtual_server
/// fwmark`) would: by more than an address and a port.
///
/// A rule without a source and with at most [`RULE_ENTRIES`] ports, or with every port, costs a packet
/// no more than a prefix does. Others are walked one by one, for each packet that nothing else
/// matches; there may be 64 of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatchRule {
    /// The protocol.
    pub proto: L4Proto,
    /// Where the packet goes. Host bits are of no matter.
    pub dst: IpPrefix,
    /// To which ports. Fragments have none, and go by the addresses alone.
    pub dst_ports: PortRange,
    /// Where it comes from; `None` is anywhere. Of the same family as `dst`.
    pub src: Option<IpPrefix>,
    /// From which ports.
    pub src_ports: PortRange,
}

/// How packets to a tunnel real server are wrapped (keepalived `lvs_method TUN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outer {
    /// IPIP: IPv4 or IPv6 within IPv4 or IPv6.
    Ipip,
    /// GRE.
    Gre,
    /// GUE, to this UDP port.
    Gue(u16),
}

/// Something that decides which packets the balancer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Steered {
    /// Packets to a virtual server, and ICMP errors about what is sent in its name.
    Service(Target),
    /// Packets to each address of a network, as to a virtual server. A range of addresses is a few of
    /// these: [`covering`].
    Prefix {
        /// The network. Host bits are of no matter.
        dst: IpPrefix,
        /// The port; 0 is every port.
        port: u16,
        /// The protocol.
        proto: L4Proto,
    },
    /// Packets that a rule matches, as to a virtual server.
    Rule(MatchRule),
    /// Packets from a NAT real server, except those to this host; and ICMP errors about packets to it,
    /// except about this host's own. Port 0 is every port: for virtual servers that take many ports and
    /// keep them.
    Return(Target),
    /// ICMP errors about our own tunnel packets to a real server. Not just to one of this host's own
    /// addresses: the outer source may be spread.
    Tunnel {
        /// The real server.
        addr: IpAddr,
        /// What tells our packets to it from others, such as those of health checks.
        outer: Outer,
    },
    /// An address of this host, VIPs included: what a real server sends there is an answer to the host.
    Local(IpAddr),
}

impl fmt::Display for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{} {}", service.proto, service.endpoint),
            Self::Prefix { dst, port, proto } => write!(f, "{proto} {dst} port {port}"),
            Self::Rule(rule) => write!(f, "{} {} by a mark", rule.proto, rule.dst),
            Self::Return(service) => {
                write!(f, "answers from {} {}", service.proto, service.endpoint)
            }
            Self::Tunnel { addr, .. } => write!(f, "errors about the tunnel to {addr}"),
            Self::Local(addr) => write!(f, "the own address {addr}"),
        }
    }
}

/// Ports up to which a rule is taken apart into a table entry for each. More entries would crowd the
/// table that virtual servers share; with fewer, more rules would need walking.
pub const RULE_ENTRIES: u16 = 64;

/// The fewest networks that hold the addresses from `first` to `last`, both included, and no others.
/// Empty when the two are of different families, or `last` is the smaller.
pub fn covering(first: IpAddr, last: IpAddr) -> Vec<IpPrefix> {
    let (mut next, last, width) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (
            u128::from(u32::from(first)),
            u128::from(u32::from(last)),
            32,
        ),
        (IpAddr::V6(first), IpAddr::V6(last)) => (u128::from(first), u128::from(last), 128),
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    while next <= last {
        // The largest network that begins here and does not reach beyond the last address.
        let aligned = next.trailing_zeros().min(width);
        let host_bits = (0..=aligned)
            .rev()
            .find(|bits| last - next >= low_bits(*bits))
            .unwrap_or(0);
        let Some(prefix) = prefix(next, width, host_bits) else {
            break;
        };
        found.push(prefix);
        match next
            .checked_add(low_bits(host_bits))
            .and_then(|end| end.checked_add(1))
        {
            Some(after) => next = after,
            None => break,
        }
    }
    found
}

/// That many ones.
const fn low_bits(bits: u32) -> u128 {
    match 1_u128.checked_shl(bits) {
        Some(above) => above - 1,
        None => u128::MAX,
    }
}

fn prefix(addr: u128, width: u32, host_bits: u32) -> Option<IpPrefix> {
    let len = u8::try_from(width - host_bits).ok()?;
    let addr = if width == 32 {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(addr).ok()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(addr))
    };
    IpPrefix::new(addr, len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(addr: IpAddr) -> u128 {
        match addr {
            IpAddr::V4(addr) => u32::from(addr).into(),
            IpAddr::V6(addr) => addr.into(),
        }
    }

    /// First and last address of a network.
    fn ends(net: IpPrefix) -> (u128, u128) {
        let width = if net.addr().is_ipv4() { 32 } else { 128 };
        let first = number(net.addr());
        (first, first + low_bits(width - u32::from(net.len())))
    }

    fn names(first: &str, last: &str) -> Vec<String> {
        let nets = covering(first.parse().unwrap(), last.parse().unwrap());
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_become_the_networks_one_would_write() {
        assert_eq!(names("10.1.0.0", "10.1.255.255"), ["10.1.0.0/16"]);
        assert_eq!(
            names("192.0.2.5", "192.0.2.12"),
            [
                "192.0.2.5/32",
                "192.0.2.6/31",
                "192.0.2.8/30",
                "192.0.2.12/32"
            ]
        );
        assert_eq!(names("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(names("::", all), ["::/0"]);
        assert_eq!(names(all, all), [format!("{all}/128")]);
        assert_eq!(names("2001:db8::1", "2001:db8::1"), ["2001:db8::1/128"]);
        assert!(names("10.0.0.2", "10.0.0.1").is_empty());
        assert!(names("10.0.0.1", "::1").is_empty());
    }

    /// Consecutive, from end to end, and no two neighbours make one network.
    fn check(first: IpAddr, last: IpAddr) -> Result<(), TestCaseError> {
        let nets = covering(first, last);
        prop_assert_eq!(ends(nets[0]).0, number(first));
        prop_assert_eq!(ends(nets[nets.len() - 1]).1, number(last));
        for net in &nets {
            let (start, end) = ends(*net);
            prop_assert_eq!(start & (end - start), 0, "{} has host bits", net);
        }
        for pair in nets.windows(2) {
            let ((start, end), (next, _)) = (ends(pair[0]), ends(pair[1]));
            prop_assert_eq!(end + 1, next);
            let mergeable = pair[0].len() == pair[1].len() && start & (end - start + 1) == 0;
            prop_assert!(!mergeable, "{} and {} are one", pair[0], pair[1]);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_covering_is_gapless_and_smallest(a: u32, b: u32, near in 0_u32..2000) {
            let v4 = |n: u32| IpAddr::V4(n.into());
            check(v4(a.min(b)), v4(a.max(b)))?;
            check(v4(a), v4(a.saturating_add(near)))?;
        }

        #[test]
        fn a_covering_of_ipv6_too(a: u128, b: u128, near in 0_u128..2000) {
            let v6 = |n: u128| IpAddr::V6(n.into());
            check(v6(a.min(b)), v6(a.max(b)))?;
            check(v6(a), v6(a.saturating_add(near)))?;
        }
    }
}
