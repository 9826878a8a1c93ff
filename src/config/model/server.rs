//! `virtual_server`: what it takes, how it picks a real server, how packets get there.

use std::{fmt, net::IpAddr, time::Duration};

use super::{Checker, NotifyScript};
use crate::{
    addr::{Endpoint, Family, IpPrefix, L4Proto},
    lvs::{LbKind, Scheduler},
};

/// What a virtual server takes. Ranges and prefixes stay one entry, however many addresses they
/// hold. Displayed as a line of `virtual_server_group`: `10.0.0.0/16 80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// An address and a port; port 0 = every port.
    Address(Endpoint),
    /// Addresses from `first` to `last`, both included; `last` is the higher one, of the same
    /// family.
    Range {
        /// The lowest address.
        first: IpAddr,
        /// The highest address.
        last: IpAddr,
        /// The port; 0 = every port.
        port: u16,
    },
    /// The addresses of a network; no bit is set behind the prefix, which is shorter than an
    /// address and at least 1.
    Prefix {
        /// The network.
        prefix: IpPrefix,
        /// The port; 0 = every port.
        port: u16,
    },
    /// Packets of any protocol that carry a mark (`fwmark`): [`MarkRule`](super::MarkRule).
    Mark {
        /// The mark, not 0.
        mark: u32,
        /// The family of the packets.
        family: Family,
    },
}

impl Match {
    /// The family of the packets.
    pub const fn family(&self) -> Family {
        match self {
            Self::Address(endpoint) => Family::of(endpoint.addr),
            Self::Range { first, .. } => Family::of(*first),
            Self::Prefix { prefix, .. } => Family::of(prefix.addr()),
            Self::Mark { family, .. } => *family,
        }
    }

    /// The port, 0 = every port. `None`: a mark says nothing about ports.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Address(endpoint) => Some(endpoint.port),
            Self::Range { port, .. } | Self::Prefix { port, .. } => Some(*port),
            Self::Mark { .. } => None,
        }
    }

    /// The lowest and the highest address. `None` for a mark.
    pub fn bounds(&self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Self::Address(endpoint) => Some((endpoint.addr, endpoint.addr)),
            Self::Range { first, last, .. } => Some((*first, *last)),
            Self::Prefix { prefix, .. } => Some((prefix.addr(), prefix.last())),
            Self::Mark { .. } => None,
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(Endpoint { addr, port }) => write!(f, "{addr} {port}"),
            Self::Range { first, last, port } => write!(f, "{first}-{last} {port}"),
            Self::Prefix { prefix, port } => write!(f, "{prefix} {port}"),
            Self::Mark { mark, family } => write!(f, "fwmark {mark} {}", family.name()),
        }
    }
}

/// What a virtual server is called by. Displayed as keepalived logs it: `[10.0.0.148]:tcp:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServerKey {
    /// The lowest address of its first match, and its port; port 0 = every port. The unspecified
    /// address where that is a mark.
    pub endpoint: Endpoint,
    /// `protocol`.
    pub protocol: L4Proto,
}

impl fmt::Display for VirtualServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, protocol } = self;
        write!(
            f,
            "[{}]:{}:{}",
            endpoint.addr,
            protocol.name(),
            endpoint.port
        )
    }
}

/// `persistence_timeout` and `persistence_granularity`: a client keeps its real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long after its last connection. Whole seconds, 1 s to 31 days; default
    /// [`defaults::PERSISTENCE_TIMEOUT`](crate::config::defaults::PERSISTENCE_TIMEOUT).
    pub timeout: Duration,
    /// Prefix length by which clients are taken together. Default 32 or 128: each alone. Where a
    /// virtual server takes both families, a length beyond an address means the whole address.
    pub granularity: u8,
}

/// A virtual server (`virtual_server`).
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualServer {
    /// What it takes: at least one match, none of them twice.
    pub matches: Vec<Match>,
    /// The `virtual_server_group` that the matches are from.
    pub group: Option<String>,
    /// `protocol` of the matches that are not marks. Default [`defaults::PROTOCOL`](crate::config::defaults::PROTOCOL).
    pub protocol: L4Proto,
    /// `ops`: whether each packet is scheduled for itself and nothing is remembered; UDP and
    /// marks only. Default false.
    pub ops: bool,
    /// `delay_loop`: time between two checks of a real server. Default
    /// [`defaults::DELAY_LOOP`](crate::config::defaults::DELAY_LOOP).
    pub delay_loop: Duration,
    /// `lb_algo` with its flags and, for `mh`, the table's size ([`Settings`](super::Settings)). Default
    /// [`defaults::LB_ALGO`](crate::config::defaults::LB_ALGO).
    pub lb_algo: Scheduler,
    /// `lb_kind`. Default [`defaults::LB_KIND`](crate::config::defaults::LB_KIND).
    pub lb_kind: LbKind,
    /// Persistence; default none.
    pub persistence: Option<Persistence>,
    /// `persistence_engine`: by what of a packet's content clients are told apart (keepalived: `sip`). Default none.
    pub persistence_engine: Option<String>,
    /// `alpha`: whether real servers are down until a check passes. Default false.
    pub alpha: bool,
    /// `ha_suspend`: whether checks rest while none of its addresses is on this box; not with marks. Default false.
    pub ha_suspend: bool,
    /// `smtp_alert`: whether there is mail about its quorum. `None`: as `global_defs` says, else no.
    pub smtp_alert: Option<bool>,
    /// `snmp_name`: its name in SNMP. Default none.
    pub snmp_name: Option<String>,
    /// `omega`: whether `notify_down` and `quorum_down` run at shutdown. Default false.
    pub omega: bool,
    /// `quorum`: weight alive that makes the virtual server up. At least 1, at most the sum of
    /// the weights where these are not all 0; default [`defaults::QUORUM`](crate::config::defaults::QUORUM).
    pub quorum: u32,
    /// `hysteresis`: how far beyond the quorum it must go to change. Less than the quorum;
    /// default [`defaults::HYSTERESIS`](crate::config::defaults::HYSTERESIS).
    pub hysteresis: u32,
    /// `sorry_server`: where connections go while the quorum is lost. Default none.
    pub sorry_server: Option<SorryServer>,
    /// `quorum_up`, `quorum_down`: scripts.
    pub notify: Vec<NotifyScript>,
    /// `real_server` blocks, at least one.
    pub real_servers: Vec<RealServer>,
}

impl VirtualServer {
    /// What it is called by: its first match and its protocol.
    pub fn key(&self) -> VirtualServerKey {
        let first = self.matches.first();
        let endpoint = first.map_or(
            Endpoint::new(Family::V4.unspecified(), 0),
            |first| match first.bounds() {
                Some((addr, _)) => Endpoint::new(addr, first.port().unwrap_or_default()),
                None => Endpoint::new(first.family().unspecified(), 0),
            },
        );
        VirtualServerKey {
            endpoint,
            protocol: self.protocol,
        }
    }

    /// Whether it takes packets by address: otherwise its protocol says nothing.
    pub fn takes_addresses(&self) -> bool {
        self.matches.iter().any(|one| one.port().is_some())
    }

    /// The name in messages: `[10.0.0.148]:tcp:80`, `fwmark 3` or `group NAME`.
    pub fn name(&self) -> String {
        match (&self.group, &self.matches[..]) {
            (Some(group), _) => format!("group {group}"),
            (None, [Match::Mark { mark, .. }, ..]) => format!("fwmark {mark}"),
            (None, _) => self.key().to_string(),
        }
    }
}

/// Where connections go while the quorum is lost (`sorry_server`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SorryServer {
    /// Address and port; port 0 = the port that the packet came for.
    pub endpoint: Endpoint,
    /// `sorry_server_lvs_method`. Default the virtual server's.
    pub lb_kind: LbKind,
    /// `sorry_server_inhibit`: whether it has weight 0 instead of being removed when the quorum
    /// is there. Default false.
    pub inhibit: bool,
}

/// A real server (`real_server`).
#[derive(Clone, Debug, PartialEq)]
pub struct RealServer {
    /// Address and port; port 0 = the port that the packet came for.
    pub endpoint: Endpoint,
    /// `weight`, 0 to 2,147,483,647; 0 = known but given no new connections. Default the
    /// virtual server's, then [`defaults::WEIGHT`](crate::config::defaults::WEIGHT).
    pub weight: u32,
    /// `lvs_method`. Default the virtual server's.
    pub lb_kind: LbKind,
    /// `inhibit_on_failure`: whether a failed one gets weight 0 instead of being removed.
    /// Default the virtual server's, then false.
    pub inhibit_on_failure: bool,
    /// `uthreshold`: connections from which on it gets no new ones; 0 = no limit, the default.
    pub uthreshold: u32,
    /// `lthreshold`: connections below which it gets new ones again, at most `uthreshold`.
    /// Default 0: three quarters of `uthreshold`.
    pub lthreshold: u32,
    /// `smtp_alert`: whether there is mail about it. `None`: as the virtual server or `global_defs` says, else yes.
    pub smtp_alert: Option<bool>,
    /// `snmp_name`: its name in SNMP. Default none.
    pub snmp_name: Option<String>,
    /// `notify_up`, `notify_down`: scripts.
    pub notify: Vec<NotifyScript>,
    /// The checkers; it is up when none of them has failed. None: always up.
    pub checkers: Vec<Checker>,
}
