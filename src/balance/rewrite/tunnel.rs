//! lb_kind TUN: a client's packet goes to the real server inside another one, as IPVS's
//! `ip_vs_tunnel_xmit` builds it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Family, NextHop, Refused, TunnelKind, move_link_header};
use crate::wire::{
    checksum, ethernet, gre, gue,
    ipv4::{self, Ipv4, Marks},
    ipv6::{self, Ipv6},
    udp,
};

/// The two ends of a tunnel, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The outer packet is IPv4.
    V4 {
        /// Our address on the way to the real server.
        source: Ipv4Addr,
        /// The real server.
        destination: Ipv4Addr,
    },
    /// The outer packet is IPv6.
    V6 {
        /// Our address on the way to the real server.
        source: Ipv6Addr,
        /// The real server.
        destination: Ipv6Addr,
    },
}

impl Ends {
    /// The family of the outer packet.
    pub const fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }
}

/// What the outer headers of one packet say.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// What kind of tunnel.
    pub kind: TunnelKind,
    /// Outer addresses.
    pub ends: Ends,
    /// Identification of an outer IPv4 packet that may be fragmented; the next of a counter.
    pub id: u16,
    /// Whether the outer packet may not be fragmented when the inner one may not: IPVS's sysctl
    /// `pmtu_disc`, on by default.
    pub pmtu_disc: bool,
    /// GUE: source port of the UDP header, from [`source_port`].
    pub source_port: u16,
}

/// Bytes of headers in front of the inner packet.
#[expect(clippy::cast_possible_truncation, reason = "at most 52")]
pub const fn overhead(kind: TunnelKind, outer: Family) -> u16 {
    let between = match kind {
        TunnelKind::Ipip => 0,
        TunnelKind::Gue { .. } => udp::HEADER_LEN + gue::HEADER_LEN,
        TunnelKind::Gre { checksum } => gre::header_len(checksum),
    };
    (header_len(outer) + between) as u16
}

/// The UDP source port of a flow: the flows of a tunnel spread over the receive queues and the
/// paths of whoever looks at it. The range is that of Linux's `ip_local_port_range` by default,
/// which IPVS takes.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "60,999 at most")]
pub const fn source_port(flow_hash: u32) -> u16 {
    const FIRST: u32 = 32_768;
    const COUNT: u64 = 60_999 - 32_768;
    let place = (flow_hash as u64 * COUNT) >> 32;
    (FIRST + place as u32) as u16
}

/// An outer source address of a flow's own: that of `network` with all bits behind the first
/// `prefix` from the flow's hash. IPIP and GRE have no ports by which a receiver could spread flows
/// over its queues (katran does this with 172.16/16); the network must be one of ours, as the real
/// server must accept it and routers must not filter it.
pub const fn spread_source_v4(network: Ipv4Addr, prefix: u8, flow_hash: u32) -> Ipv4Addr {
    let host = match u32::MAX.checked_shr(prefix as u32) {
        Some(mask) => mask,
        None => 0,
    };
    Ipv4Addr::from_bits(network.to_bits() & !host | flow_hash & host)
}

/// The same for IPv6; at most the last 32 bits are the hash's.
pub const fn spread_source_v6(network: Ipv6Addr, prefix: u8, flow_hash: u32) -> Ipv6Addr {
    let host = match u128::MAX.checked_shr(prefix as u32) {
        Some(mask) => mask & u32::MAX as u128,
        None => 0,
    };
    Ipv6Addr::from_bits(network.to_bits() & !host | flow_hash as u128 & host)
}

/// What the outer header takes from the inner one.
struct Inner {
    family: Family,
    length: usize,
    /// DSCP and ECN.
    tos: u8,
    /// After it was decremented.
    ttl: u8,
    dont_fragment: bool,
}

/// Puts a frame's packet into a tunnel. The frame was grown at its front by exactly
/// [`overhead`] bytes, which lie before its destination MAC address; `network` is where its IP
/// header was before. The inner packet's TTL, at least 2, is decremented and becomes the outer one's.
/// Returns the length of the frame.
///
/// # Errors
/// [`Refused::NoRoom`], [`Refused::NotIp`], [`Refused::Cut`], [`Refused::TooLong`].
#[inline(always)]
pub fn encapsulate(
    frame: &mut [u8],
    network: u8,
    tunnel: &Tunnel,
    hop: &NextHop,
) -> Result<usize, Refused> {
    let network = usize::from(network);
    let outer = tunnel.ends.family();
    let room = usize::from(overhead(tunnel.kind, outer));
    let packet = move_link_header(frame, network, room, outer)?;
    let inner = pass(packet.get_mut(room..).ok_or(Refused::NoRoom)?)?;
    let length = room + inner.length;
    let packet = packet.get_mut(..length).ok_or(Refused::Cut)?;
    let (header, payload) = packet
        .split_at_mut_checked(header_len(outer))
        .ok_or(Refused::NoRoom)?;
    let payload_len = u16::try_from(payload.len()).map_err(|_| Refused::TooLong)?;
    let protocol = wrap(payload, payload_len, inner.family, tunnel).ok_or(Refused::NoRoom)?;
    match tunnel.ends {
        Ends::V4 {
            source,
            destination,
        } => {
            if length > usize::from(u16::MAX) {
                return Err(Refused::TooLong);
            }
            let dont_fragment = tunnel.pmtu_disc && inner.dont_fragment;
            let marks = Marks {
                tos: outer_tos(inner.tos),
                id: if dont_fragment { 0 } else { tunnel.id },
                dont_fragment,
            };
            let repr = ipv4::Repr {
                source,
                destination,
                protocol,
                ttl: inner.ttl,
                payload_len,
            };
            repr.put(marks, header.first_chunk_mut().ok_or(Refused::NoRoom)?);
        }
        Ends::V6 {
            source,
            destination,
        } => {
            let repr = ipv6::Repr {
                source,
                destination,
                traffic_class: outer_tos(inner.tos),
                protocol,
                hop_limit: inner.ttl,
                payload_len,
            };
            repr.put(header.first_chunk_mut().ok_or(Refused::NoRoom)?);
        }
    }
    ethernet::set_addresses(frame, hop.destination, hop.source);
    Ok(network + length)
}

/// Bytes of the outer IP header.
const fn header_len(family: Family) -> usize {
    match family {
        Family::V4 => ipv4::MIN_HEADER_LEN,
        Family::V6 => ipv6::HEADER_LEN,
    }
}

/// Decrements the TTL of the inner packet, and reads what the outer header needs.
#[inline]
fn pass(packet: &mut [u8]) -> Result<Inner, Refused> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            ipv4::decrement_ttl(packet);
            let ip = Ipv4::quoted(packet).ok_or(Refused::Cut)?;
            Ok(Inner {
                family: Family::V4,
                length: ip.total_len(),
                tos: ip.tos(),
                ttl: ip.ttl(),
                dont_fragment: ip.dont_fragment(),
            })
        }
        Some(6) => {
            ipv6::decrement_hop_limit(packet);
            let ip = Ipv6::quoted(packet).ok_or(Refused::Cut)?;
            Ok(Inner {
                family: Family::V6,
                length: ip.total_len(),
                tos: ip.traffic_class(),
                ttl: ip.hop_limit(),
                // As IPVS: routers on the way may fragment the outer packet.
                dont_fragment: false,
            })
        }
        _ => Err(Refused::NotIp),
    }
}

/// The outer DSCP and ECN: those of the inner packet, but "congestion experienced" goes out as
/// "capable", and is put back by the decapsulator from the inner header. RFC 3168 §9.1.1, as
/// Linux's `INET_ECN_encapsulate`; RFC 6040 would copy it.
const fn outer_tos(inner: u8) -> u8 {
    const ECN: u8 = 0b11;
    const CONGESTION: u8 = 0b11;
    const CAPABLE: u8 = 0b10;
    if inner & ECN == CONGESTION {
        inner & !ECN | CAPABLE
    } else {
        inner
    }
}

/// Writes what stands between outer IP header and inner packet into the front of `payload`. The
/// outer header's protocol.
// Always: there is nothing between in most tunnels.
#[inline(always)]
fn wrap(payload: &mut [u8], payload_len: u16, inner: Family, tunnel: &Tunnel) -> Option<u8> {
    match tunnel.kind {
        TunnelKind::Ipip => Some(inner.protocol()),
        TunnelKind::Gre { checksum } => {
            gre::emit(payload, inner == Family::V6, checksum)?;
            Some(gre::PROTOCOL)
        }
        TunnelKind::Gue { port, checksum } => {
            let header = udp::Repr {
                source: tunnel.source_port,
                destination: port,
                length: payload_len,
            };
            put_gue(payload, header, inner, checksum.then_some(&tunnel.ends))?;
            Some(udp::PROTOCOL)
        }
    }
}

/// Writes the headers of UDP and GUE; with a checksum over the ends, if there are any.
fn put_gue(
    payload: &mut [u8],
    header: udp::Repr,
    inner: Family,
    ends: Option<&Ends>,
) -> Option<()> {
    let place = payload.first_chunk_mut::<{ udp::HEADER_LEN + gue::HEADER_LEN }>()?;
    let (first, second) = place.split_at_mut(udp::HEADER_LEN);
    first.copy_from_slice(&header.emit());
    second.copy_from_slice(&gue::header(inner.protocol()));
    if let Some(ends) = ends {
        let sum = checksum::udp(udp_sum(payload, ends));
        payload
            .get_mut(udp::CHECKSUM_OFFSET..udp::CHECKSUM_OFFSET + 2)?
            .copy_from_slice(&sum);
    }
    Some(())
}

fn udp_sum(datagram: &[u8], ends: &Ends) -> [u8; 2] {
    match ends {
        Ends::V4 {
            source,
            destination,
        } => {
            let addresses = [source.octets(), destination.octets()];
            checksum::compute_with_pseudo_v4(addresses, udp::PROTOCOL, datagram)
        }
        Ends::V6 {
            source,
            destination,
        } => {
            let mut addresses = [0; 32];
            addresses[..16].copy_from_slice(&source.octets());
            addresses[16..].copy_from_slice(&destination.octets());
            checksum::compute_with_pseudo_v6(&addresses, udp::PROTOCOL, datagram)
        }
    }
}

/// Where the inner packet starts in `packet`, one of ours to a real server that an ICMP error
/// quotes, and the outer destination. `None` when it is not a tunnel packet. `is_gue_port` knows the
/// destination ports of GUE.
pub fn quoted_payload(
    packet: &[u8],
    is_gue_port: impl FnOnce(u16) -> bool,
) -> Option<(IpAddr, Family, usize)> {
    let (destination, protocol, start) = match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4::quoted(packet)?;
            (ip.destination().into(), ip.protocol(), ip.header_len())
        }
        6 => {
            let ip = Ipv6::quoted(packet)?;
            let upper = ip.upper(packet.get(ipv6::HEADER_LEN..)?).ok()?;
            (
                ip.destination().into(),
                upper.protocol,
                usize::from(upper.offset),
            )
        }
        _ => return None,
    };
    let rest = packet.get(start..)?;
    let (family, header_len) = match protocol {
        ipv4::PROTOCOL_IPIP => (Family::V4, 0),
        ipv4::PROTOCOL_IPV6 => (Family::V6, 0),
        gre::PROTOCOL => match gre::payload(rest)? {
            (ethernet::TYPE_IPV4, at) => (Family::V4, at),
            (ethernet::TYPE_IPV6, at) => (Family::V6, at),
            _ => return None,
        },
        udp::PROTOCOL => {
            let [_, _, a, b] = udp::Udp::new(rest)?.ports();
            if !is_gue_port(u16::from_be_bytes([a, b])) {
                return None;
            }
            match gue::payload(rest.get(udp::HEADER_LEN..)?)? {
                (ipv4::PROTOCOL_IPIP, at) => (Family::V4, udp::HEADER_LEN + at),
                (ipv4::PROTOCOL_IPV6, at) => (Family::V6, udp::HEADER_LEN + at),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((destination, family, start + header_len))
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
