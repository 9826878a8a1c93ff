//! The words of LVS that several layers share: what a virtual server and a real server are known by, how a
//! real server is picked, and how packets get there. The names are keepalived's and IPVS's.

#![forbid(unsafe_code)]

use std::fmt;

/// The slot of a virtual server, allotted by control for as long as it exists. A slot that is used again
/// has another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// The slot of a real server of one virtual server, allotted by control for as long as it exists, over all
/// virtual servers: index of its counters in every worker. A slot that is used again has another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealId(pub u32);

/// How a virtual server picks a real server for a new connection: keepalived `lb_algo`, with the flags that go
/// with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// `rr`: in turn.
    Rr,
    /// `wrr`: in turn, by weight.
    Wrr,
    /// `lc`: the fewest connections; an active one counts as 256 inactive ones.
    Lc,
    /// `wlc`: the fewest connections for its weight.
    Wlc,
    /// `sed`: the shortest expected delay, that is the fewest active connections for its weight
    /// with the new one counted in.
    Sed,
    /// `nq`: the first without active connections, else as `sed`.
    Nq,
    /// `fo`: the highest weight.
    Fo,
    /// `ovf`: the highest weight that has no more active connections than its weight.
    Ovf,
    /// `sh`: by a hash of the client's address.
    Sh {
        /// `sh-port`: the client's port is hashed too.
        port: bool,
        /// `sh-fallback`: when the hashed real server takes no connections, another one.
        fallback: bool,
    },
    /// `dh`: by a hash of the destination address; weights other than 0 do not matter.
    Dh,
    /// `mh`: by a hash of the client's address in a Maglev table.
    Mh {
        /// `mh-port`: the client's port is hashed too.
        port: bool,
        /// `mh-fallback`: when the hashed real server takes no connections, another one.
        fallback: bool,
        /// Slots in the table.
        size: MaglevSize,
    },
    /// `lblc`: a destination address stays with its real server while that is not overloaded,
    /// otherwise `wlc`.
    Lblc,
    /// `lblcr`: as `lblc`, with a set of real servers for each destination address.
    Lblcr,
    /// `twos`: the less loaded of two that are drawn by weight.
    Twos,
}

impl Scheduler {
    /// Every scheduler, without flags.
    pub const ALL: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh {
            port: false,
            fallback: false,
        },
        Self::Mh {
            port: false,
            fallback: false,
            size: MaglevSize::DEFAULT,
        },
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Twos,
    ];

    /// Whether it picks by how many connections real servers have.
    pub const fn counts_connections(self) -> bool {
        matches!(
            self,
            Self::Lc
                | Self::Wlc
                | Self::Sed
                | Self::Nq
                | Self::Ovf
                | Self::Lblc
                | Self::Lblcr
                | Self::Twos
        )
    }

    /// The keyword, as in `lb_algo` and in ipvsadm's output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Sh { .. } => "sh",
            Self::Dh => "dh",
            Self::Mh { .. } => "mh",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Twos => "twos",
        }
    }
}

/// Slots of a Maglev table: a prime number. Default 65,537.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaglevSize(u32);

impl MaglevSize {
    /// The sizes that IPVS can be built with (`CONFIG_IP_VS_MH_TAB_INDEX`); its default is 4093.
    pub const IPVS: [u32; 10] = [
        251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071,
    ];
    /// Below, even a few real servers get uneven shares.
    pub const MIN: u32 = 251;
    /// The prime below 2^20. Above, one table is more than two megabytes, of which a worker's cache holds few.
    pub const MAX: u32 = 1_048_573;
    /// 65,537 slots, katran's size: 128 KiB, and shares within 1 % for 100 real servers.
    pub const DEFAULT: Self = Self(65_537);

    /// A table of `slots` slots; `None` unless that is a prime number from [`Self::MIN`] to
    /// [`Self::MAX`].
    pub fn new(slots: u32) -> Option<Self> {
        let divisors = || (2..).take_while(|d| d * d <= slots);
        let usable = (Self::MIN..=Self::MAX).contains(&slots);
        (usable && divisors().all(|d| !slots.is_multiple_of(d))).then_some(Self(slots))
    }

    /// How many slots.
    pub const fn slots(self) -> u32 {
        self.0
    }

    /// Whether IPVS can be built with this size.
    pub fn is_of_ipvs(self) -> bool {
        Self::IPVS.contains(&self.0)
    }
}

impl fmt::Display for MaglevSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Default for MaglevSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a packet reaches a real server (`lb_kind`, `lvs_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LbKind {
    /// `NAT`: the destination becomes the real server's address and port; its answers pass here and get the
    /// virtual server's back.
    Nat,
    /// `DR`: the packet goes on as it is, to the real server's MAC address.
    Dr,
    /// `TUN`: the packet goes on as it is, inside another one to the real server.
    Tun(TunnelKind),
}

impl LbKind {
    /// The name in the configuration, without a tunnel's options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::Dr => "DR",
            Self::Tun(_) => "TUN",
        }
    }

    /// Whether a real server's answers pass here too.
    #[inline]
    pub const fn sees_answers(self) -> bool {
        matches!(self, Self::Nat)
    }
}

impl fmt::Display for LbKind {
    /// As the configuration writes it: `TUN type gue port 6080 csum`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let checksum = match self {
            Self::Nat | Self::Dr | Self::Tun(TunnelKind::Ipip) => return Ok(()),
            Self::Tun(TunnelKind::Gue { port, checksum }) => {
                write!(f, " type gue port {port}")?;
                checksum
            }
            Self::Tun(TunnelKind::Gre { checksum }) => {
                f.write_str(" type gre")?;
                checksum
            }
        };
        f.write_str(if *checksum { " csum" } else { "" })
    }
}

/// The outer header of `lb_kind TUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// `type ipip`, the default: the packet right behind the outer header (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// `type gue port N`: behind UDP and a GUE header of version 0 (generic UDP encapsulation).
    Gue {
        /// The UDP port that the real server listens on, 1 to 65,535.
        port: u16,
        /// `csum`: whether the outer UDP header has a checksum. Default false (`nocsum`). `remcsum`, too, as
        /// IPVS does for packets that it received with a whole checksum of their own.
        checksum: bool,
    },
    /// `type gre`: behind a header of generic routing encapsulation (RFC 2784).
    Gre {
        /// `csum`: whether the GRE header has a checksum. Default false (`nocsum`).
        checksum: bool,
    },
}
