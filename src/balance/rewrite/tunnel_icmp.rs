//! ICMP errors about our own tunnel packets: what they say is for the client, whose packet was inside,
//! as IPVS's `ipvs_icmp_xmit` of tunnels does it.

use std::net::IpAddr;

use super::{Answer, Family, NextHop, Refused, icmp_room, quoted_payload};
use crate::wire::{
    checksum, ethernet, icmp,
    icmp::Problem,
    icmpv6,
    ipv4::{self, Ipv4},
    ipv6::{self, Ipv6},
};

/// An ICMP error about a packet of ours in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelError {
    /// The real server that the outer packet went to.
    pub real: IpAddr,
    /// Family of the packet inside.
    pub family: Family,
    /// Where the quote of the packet inside starts, in bytes from the error's IP header on.
    pub inner: u16,
    /// The largest packet that fits into the tunnel, in bytes, when the error is about that.
    pub room: Option<u16>,
    /// Whether its checksum is right.
    pub is_sound: bool,
}

impl TunnelError {
    /// Reads a packet from its IP header on; `None` when it is no such error. `is_gue_port` knows the
    /// destination ports of GUE.
    pub fn read(packet: &[u8], is_gue_port: impl FnOnce(u16) -> bool) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let (ip, message) = Ipv4::split(packet).ok()?;
                if ip.protocol() != ipv4::PROTOCOL_ICMP || ip.is_fragment() {
                    return None;
                }
                let error = icmp::Error::parse(message).ok()?;
                let mtu = error.mtu().filter(|mtu| *mtu > 0);
                let quote = message.get(icmp::HEADER_LEN..)?;
                let start = ip.header_len() + icmp::HEADER_LEN;
                let is_sound = checksum::is_valid(message);
                Self::of_quote(quote, start, mtu, is_sound, is_gue_port)
            }
            6 => {
                let (ip, payload) = Ipv6::split(packet).ok()?;
                let upper = ip.upper(payload).ok()?;
                if upper.protocol != ipv6::PROTOCOL_ICMPV6 || upper.fragment.is_some() {
                    return None;
                }
                let at = usize::from(upper.offset);
                let message = packet.get(at..ip.total_len())?;
                let error = icmpv6::Error::parse(message).ok()?;
                let mtu = error.mtu();
                let mtu = mtu.map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX));
                let quote = message.get(icmpv6::HEADER_LEN..)?;
                let protocol = ipv6::PROTOCOL_ICMPV6;
                let is_sound = checksum::is_valid_with_pseudo_v6(ip.addresses(), protocol, message);
                Self::of_quote(quote, at + icmpv6::HEADER_LEN, mtu, is_sound, is_gue_port)
            }
            _ => None,
        }
    }

    fn of_quote(
        quote: &[u8],
        start: usize,
        mtu: Option<u16>,
        is_sound: bool,
        is_gue_port: impl FnOnce(u16) -> bool,
    ) -> Option<Self> {
        let (real, family, headers) = quoted_payload(quote, is_gue_port)?;
        let overhead = u16::try_from(headers).ok()?;
        Some(Self {
            real,
            family,
            inner: u16::try_from(start + headers).ok()?,
            room: mtu.and_then(|mtu| mtu.checked_sub(overhead)),
            is_sound,
        })
    }
}

/// Turns the frame of a [`TunnelError`], whose packet inside starts `inner` bytes behind its IP header, into
/// the error about that packet, from `source` to the client. The quote stays as long as an
/// error's may be. Returns the length of the frame.
///
/// # Errors
/// [`Refused::NotIp`], [`Refused::NoRoom`], [`Refused::Cut`].
pub fn icmp_from_tunnel<A: Answer>(
    frame: &mut [u8],
    network: u8,
    inner: u16,
    source: A,
    problem: Problem,
    hop: &NextHop,
) -> Result<usize, Refused> {
    let (network, room) = (usize::from(network), icmp_room(A::FAMILY));
    let packet = frame.get(network..).ok_or(Refused::Cut)?;
    // Behind the error itself there may be padding.
    let end = match packet.first().map(|byte| byte >> 4) {
        Some(4) => Ipv4::split(packet).map(|(ip, _)| ip.total_len()).ok(),
        Some(6) => Ipv6::split(packet).map(|(ip, _)| ip.total_len()).ok(),
        _ => None,
    };
    let (end, inner) = (end.ok_or(Refused::NotIp)?, usize::from(inner));
    let quote = end.checked_sub(inner).ok_or(Refused::Cut)?;
    let quote = quote.min(A::MAX_PACKET_LEN - room);
    // The headers in front were at least as long: an error's, and those of a tunnel.
    if inner < room || network < ethernet::HEADER_LEN {
        return Err(Refused::NoRoom);
    }
    let from = network + inner;
    if frame.len() < from + quote {
        return Err(Refused::Cut);
    }
    frame.copy_within(from..from + quote, network + room);
    frame[network - 2..network].copy_from_slice(&A::FAMILY.ether_type().to_be_bytes());
    let length = network + room + quote;
    let packet = (frame.get_mut(network..length)).ok_or(Refused::Cut)?;
    source.answer(packet, problem).ok_or(Refused::Cut)?;
    ethernet::set_addresses(frame, hop.destination, hop.source);
    Ok(length)
}

#[cfg(test)]
#[path = "tunnel_icmp_tests.rs"]
mod tests;
