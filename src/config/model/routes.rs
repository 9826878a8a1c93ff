//! Routes and routing rules, in the words of ip(8).

use std::net::IpAddr;

use super::plain::words;
use crate::addr::IpPrefix;

words! {
    /// What becomes of packets on a route (ip-route(8)).
    RouteKind {
        /// They go where it leads.
        Unicast = "unicast",
        /// They are for this host.
        Local = "local",
        /// They are broadcast.
        Broadcast = "broadcast",
        /// They are for this host as one of several.
        Anycast = "anycast",
        /// They are multicast.
        Multicast = "multicast",
        /// They are dropped without a word.
        Blackhole = "blackhole",
        /// They are dropped: host unreachable.
        Unreachable = "unreachable",
        /// They are dropped: administratively prohibited.
        Prohibit = "prohibit",
        /// The next rule is asked.
        Throw = "throw",
        /// Their address is changed. No kernel does it any more.
        Nat = "nat",
    }
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// It has none.
    Flag,
    /// A number, in the unit of ip(8).
    Number(u32),
    /// A number that the kernel does not change (`lock`).
    Locked(u32),
    /// An address.
    Address(IpAddr),
    /// A network.
    Network(IpPrefix),
    /// From one number to another.
    Numbers(u32, u32),
    /// A number and a mask, or two realms: joined by a slash.
    Pair(u32, u32),
    /// A name, or words as ip(8) reads them.
    Name(String),
}

/// An option with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOption {
    /// Its name; of several names for the same, ip(8)'s.
    pub name: &'static str,
    /// What it says.
    pub value: OptionValue,
}

/// A route (`static_routes`, `virtual_routes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What becomes of packets on it.
    pub kind: RouteKind,
    /// Where it leads. `None`: everywhere (`default`).
    pub to: Option<IpPrefix>,
    /// Its options, in the order of the file.
    pub options: Vec<RouteOption>,
    /// `nexthop`: its hops, where it has several, each with its options.
    pub next_hops: Vec<Vec<RouteOption>>,
}

/// A routing rule (`static_rules`, `virtual_rules`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it matches and does, in the order of the file. `preference` is always among them.
    pub options: Vec<RouteOption>,
}

impl Rule {
    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&OptionValue> {
        let found = self.options.iter().find(|option| option.name == name);
        found.map(|option| &option.value)
    }
}
