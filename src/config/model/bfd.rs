//! `bfd_instance`: sessions that watch a neighbour (RFC 5880).

use std::{net::IpAddr, time::Duration};

use super::super::defaults;

/// A session. Times in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdInstance {
    /// The name behind `bfd_instance`, at most 32 bytes.
    pub name: String,
    /// `neighbor_ip`, `neighbour_ip`: the neighbour.
    pub neighbor: IpAddr,
    /// `source_ip`: the own address. `None`: that on the way there.
    pub source: Option<IpAddr>,
    /// `min_rx`: the shortest interval that is received. Default [`defaults::BFD_INTERVAL`].
    pub min_rx: Duration,
    /// `min_tx`: the interval that is wanted for sending. Default [`defaults::BFD_INTERVAL`].
    pub min_tx: Duration,
    /// `idle_tx`: the interval while the session is down, at least 1 s. Default 1 s.
    pub idle_tx: Duration,
    /// `multiplier`: intervals without a packet that end the session, 1 to 255. Default
    /// [`defaults::BFD_MULTIPLIER`].
    pub multiplier: u8,
    /// `passive`: whether the neighbour must begin. Default false.
    pub passive: bool,
    /// `ttl`, `hoplimit`: of packets that are sent, 1 to 255. Default 255 for IPv4, 64 for IPv6.
    pub ttl: u8,
    /// `max_hops`: by how much the TTL of a packet that is received may have fallen; -1 = by any. Default 0.
    pub max_hops: i16,
    /// `multihop`: whether the neighbour is further than one hop (RFC 5883). Default false.
    pub multihop: bool,
    /// `weight`: 0 = FAULT while the session is down, as of a script. -253 to 253; default 0.
    pub weight: i32,
    /// `reverse`: whether up and down change places. Default false.
    pub reverse: bool,
    /// `vrrp`: whether instances hear of it. Default true.
    pub vrrp: bool,
    /// `checker`: whether checks hear of it. Default true.
    pub checker: bool,
}

impl BfdInstance {
    /// The TTL where none is given.
    pub const fn default_ttl(neighbor: IpAddr) -> u8 {
        match neighbor {
            IpAddr::V4(_) => defaults::BFD_TTL,
            IpAddr::V6(_) => defaults::BFD_HOPLIMIT,
        }
    }
}
