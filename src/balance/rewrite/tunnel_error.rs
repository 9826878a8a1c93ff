//! ICMP errors about our own tunnel packets: from a router between here and a real server, or from the real
//! server itself. The client learns of them, as IPVS's `ip_vs_in_icmp` does it.

use std::net::IpAddr;

use super::{
    Address, Answer, Family, NextHop, Refused, TunnelKind, family::Message, icmp_room, overhead,
    quoted_payload,
};
use crate::wire::{
    ethernet, icmp,
    icmp::Problem,
    icmpv6,
    ipv4::{self, Ipv4},
    ipv6::{self, Ipv6},
};

/// The least that a router is believed: Linux `min_pmtu`. What says less is forged or lost already.
const LEAST_V4: u16 = 552;
/// What a router means that gives no size, as those do that are older than RFC 1191: what everyone takes.
const UNSAID: u16 = 576;

/// An ICMP error about one of our tunnel packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelError {
    /// Where the tunnel packet went: the real server.
    pub destination: IpAddr,
    /// Destination port of its UDP header, where it was GUE; else 0.
    pub gue_port: u16,
    /// Family of the error, and of the tunnel packet.
    pub outer: Family,
    /// Family of the client's packet.
    pub inner: Family,
    /// Where the client's packet starts, from the error's IP header on.
    pub at: u16,
    /// Where the error's packet ends, from there too.
    pub end: u16,
    /// Type and code of the error.
    pub kind: [u8; 2],
    /// The largest packet that the tunnel's path takes, when the error says so.
    pub mtu: Option<u16>,
}

impl TunnelError {
    /// Reads `packet` from its IP header on. `None`: it is no error about a tunnel packet of ours, as far as
    /// that can be seen from the packet alone.
    pub fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let message = message::<std::net::Ipv4Addr>(packet)?;
                let bytes = packet.get(message.start..message.end)?;
                let error = icmp::Error::parse(bytes).ok()?;
                let kind = [error.message_type(), error.code()];
                let mtu = error.mtu().map(|mtu| match mtu {
                    0 => UNSAID,
                    mtu => mtu.max(LEAST_V4),
                });
                Self::about(bytes, message, Family::V4, kind, mtu)
            }
            6 => {
                let message = message::<std::net::Ipv6Addr>(packet)?;
                let bytes = packet.get(message.start..message.end)?;
                let error = icmpv6::Error::parse(bytes).ok()?;
                let kind = [error.message_type(), error.code()];
                let mtu = error.mtu().map(|mtu| {
                    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                    mtu.max(ipv6::MIN_MTU)
                });
                Self::about(bytes, message, Family::V6, kind, mtu)
            }
            _ => None,
        }
    }

    fn about(
        bytes: &[u8],
        message: Message,
        outer: Family,
        kind: [u8; 2],
        mtu: Option<u16>,
    ) -> Option<Self> {
        let mut gue_port = 0;
        let is_gue = |port| {
            gue_port = port;
            true
        };
        let quote = bytes.get(icmp::HEADER_LEN..)?;
        let (destination, inner, at) = quoted_payload(quote, is_gue)?;
        Some(Self {
            destination,
            gue_port,
            outer,
            inner,
            at: u16::try_from(message.start + icmp::HEADER_LEN + at).ok()?,
            end: u16::try_from(message.end).ok()?,
            kind,
            mtu,
        })
    }

    /// What the client is told about a packet that was in a tunnel of this kind, `mtu` being what the path takes.
    /// `None`: nothing, as the packet may be fragmented. An error of one family that is about a packet of the other
    /// says what that family has for it.
    #[must_use]
    pub fn told(&self, packet: &[u8], kind: TunnelKind, mtu: u16) -> Option<[u8; 8]> {
        let header = |problem: Problem| match self.inner {
            Family::V4 => problem.header(),
            Family::V6 => icmpv6::header(problem),
        };
        if self.mtu.is_some() {
            let left = mtu.checked_sub(overhead(kind, self.outer))?;
            return match self.inner {
                Family::V4 => {
                    let inner = Ipv4::quoted(packet.get(usize::from(self.at)..)?)?;
                    let tell = inner.dont_fragment() && left >= ipv4::MIN_MTU;
                    tell.then(|| header(Problem::TooBig(left)))
                }
                // No host goes below 1280 (RFC 8200 §5).
                Family::V6 => Some(header(Problem::TooBig(left.max(ipv6::MIN_MTU)))),
            };
        }
        if self.inner == self.outer {
            let [a, b] = self.kind;
            return Some([a, b, 0, 0, 0, 0, 0, 0]);
        }
        let expired = match self.outer {
            Family::V4 => Problem::TimeExceeded.header(),
            Family::V6 => icmpv6::header(Problem::TimeExceeded),
        };
        Some(if self.kind[0] == expired[0] {
            header(Problem::TimeExceeded)
        } else {
            // Host unreachable, address unreachable.
            match self.inner {
                Family::V4 => [3, 1, 0, 0, 0, 0, 0, 0],
                Family::V6 => [1, 3, 0, 0, 0, 0, 0, 0],
            }
        })
    }
}

/// Where the ICMP message of a whole packet is, when it sums up.
fn message<A: Address>(packet: &[u8]) -> Option<Message> {
    let message = A::message(packet).ok()?;
    let is_icmp = message.protocol == A::ICMP && !message.is_fragment;
    (is_icmp && A::is_icmp_valid(packet, message)).then_some(message)
}

/// Turns a frame with an error about a tunnel packet into the error about the client's packet in it, whose ICMP
/// header is `told`: from `source`, the virtual server's address, to that packet's sender by way of `hop`. Returns
/// the length of the frame.
///
/// # Errors
/// [`Refused::Cut`], [`Refused::NoRoom`].
pub fn relay_tunnel_error<A: Answer>(
    frame: &mut [u8],
    network: u8,
    error: &TunnelError,
    told: [u8; 8],
    source: A,
    hop: &NextHop,
) -> Result<usize, Refused> {
    let network = usize::from(network);
    let room = icmp_room(A::FAMILY);
    let packet = (frame.get_mut(network..)).ok_or(Refused::Cut)?;
    let (at, end) = (usize::from(error.at), usize::from(error.end));
    let inner = (packet.get(at..end)).ok_or(Refused::Cut)?;
    let whole = match A::FAMILY {
        Family::V4 => Ipv4::quoted(inner).map(Ipv4::total_len),
        Family::V6 => Ipv6::quoted(inner).map(Ipv6::total_len),
    };
    let whole = whole.ok_or(Refused::Cut)?;
    // Behind the outer packet's headers there is always room for those of one error.
    if at < room {
        return Err(Refused::NoRoom);
    }
    let length = room + whole.min(inner.len()).min(A::MAX_PACKET_LEN - room);
    packet.copy_within(at..at + length - room, room);
    let packet = (packet.get_mut(..length)).ok_or(Refused::Cut)?;
    source.answer(packet, told).ok_or(Refused::Cut)?;
    let ether_type = (frame.get_mut(network - 2..network)).ok_or(Refused::Cut)?;
    ether_type.copy_from_slice(&A::FAMILY.ether_type().to_be_bytes());
    ethernet::set_addresses(frame, hop.destination, hop.source);
    Ok(network + length)
}
