//! lb_kind NAT: a connection's packets between client and real server, as IPVS's `ip_vs_nat_xmit`
//! and `handle_response` rewrite them.

use super::{Address, End, NextHop, Part, Place, Refused};
use crate::{
    addr::L4Proto,
    wire::{
        checksum::{self, Change},
        ethernet, sctp, tcp, udp,
    },
};

/// From a client to its real server: the VIP and its port become `real`'s, the TTL (at least 2)
/// one lower. The checksums of TCP and UDP change by as much as a right one would, so that a wrong
/// one stays wrong; so does SCTP's CRC32c, for which the whole packet is read. A UDP checksum of 0,
/// "none", stays 0, where IPVS reads the whole datagram and computes one. A later fragment changes
/// its address only.
///
/// # Errors
/// [`Refused::Cut`], [`Refused::SctpFragment`].
#[inline]
pub fn nat_to_real<A: Address>(
    frame: &mut [u8],
    place: &Place,
    real: (A, u16),
    hop: &NextHop,
) -> Result<(), Refused> {
    translate(frame, place, End::Destination, real, hop)
}

/// From a real server to its client: the real server's address and port become `vip`'s, otherwise
/// as [`nat_to_real`].
///
/// # Errors
/// [`Refused::Cut`], [`Refused::SctpFragment`].
#[inline]
pub fn nat_to_client<A: Address>(
    frame: &mut [u8],
    place: &Place,
    vip: (A, u16),
    hop: &NextHop,
) -> Result<(), Refused> {
    translate(frame, place, End::Source, vip, hop)
}

#[inline]
fn translate<A: Address>(
    frame: &mut [u8],
    place: &Place,
    end: End,
    (address, port): (A, u16),
    hop: &NextHop,
) -> Result<(), Refused> {
    let packet = (frame.get_mut(usize::from(place.network)..)).ok_or(Refused::Cut)?;
    if place.part != Part::Later {
        if place.protocol == L4Proto::Sctp {
            sctp_port::<A>(packet, place, end, port)?;
            address.put_and_pass(packet, end).ok_or(Refused::Cut)?;
        } else {
            let change = address.put_and_pass(packet, end).ok_or(Refused::Cut)?;
            let segment = (packet.get_mut(usize::from(place.transport)..)).ok_or(Refused::Cut)?;
            summed_port(segment, place.protocol, end, port, change).ok_or(Refused::Cut)?;
        }
    } else {
        address.put_and_pass(packet, end).ok_or(Refused::Cut)?;
    }
    ethernet::set_addresses(frame, hop.destination, hop.source);
    Ok(())
}

/// Puts a port into a TCP or UDP header, and this change and that of the address into its sum.
#[inline]
fn summed_port(
    segment: &mut [u8],
    protocol: L4Proto,
    end: End,
    port: u16,
    change: Change,
) -> Option<()> {
    const TCP_LEN: usize = tcp::CHECKSUM_OFFSET + 2;
    if protocol == L4Proto::Tcp {
        let header = segment.first_chunk_mut::<TCP_LEN>()?;
        let change = put_port(header, end, port, change);
        let sum = change.apply([header[TCP_LEN - 2], header[TCP_LEN - 1]]);
        header[TCP_LEN - 2..].copy_from_slice(&sum);
    } else {
        let header = segment.first_chunk_mut::<{ udp::HEADER_LEN }>()?;
        let change = put_port(header, end, port, change);
        let old = [
            header[udp::CHECKSUM_OFFSET],
            header[udp::CHECKSUM_OFFSET + 1],
        ];
        if old != [0, 0] {
            let sum = checksum::udp(change.apply(old));
            header[udp::CHECKSUM_OFFSET..].copy_from_slice(&sum);
        }
    }
    Some(())
}

#[inline]
fn put_port<const N: usize>(header: &mut [u8; N], end: End, port: u16, change: Change) -> Change {
    let at = match end {
        End::Source => 0,
        End::Destination => 2,
    };
    let new = port.to_be_bytes();
    let old = [header[at], header[at + 1]];
    header[at..at + 2].copy_from_slice(&new);
    change.word(old, new)
}

/// Puts a port into an SCTP header. Its CRC32c covers no addresses, so it is touched, and the
/// packet read, only when the port is another.
fn sctp_port<A: Address>(
    packet: &mut [u8],
    place: &Place,
    end: End,
    port: u16,
) -> Result<(), Refused> {
    let rest = (packet.get(usize::from(place.transport)..)).ok_or(Refused::Cut)?;
    let mut ports: [u8; 4] = *rest.first_chunk().ok_or(Refused::Cut)?;
    let old = ports;
    put_port(&mut ports, end, port, Change::NONE);
    if ports == old {
        return Ok(());
    }
    if place.part == Part::First {
        return Err(Refused::SctpFragment);
    }
    let length = A::message(packet)?.end;
    let whole = (packet.get_mut(usize::from(place.transport)..length)).ok_or(Refused::Cut)?;
    if whole.len() < sctp::HEADER_LEN {
        return Err(Refused::Cut);
    }
    sctp::set_ports(whole, ports);
    Ok(())
}

/// The change of a port in the header of a packet that an ICMP error quotes, where its checksum may
/// be cut off.
pub(super) fn quoted_port(
    segment: &mut [u8],
    protocol: u8,
    end: End,
    port: u16,
    change: Change,
) -> Option<()> {
    match L4Proto::from_number(protocol)? {
        // A quoted SCTP packet is never whole: its CRC32c cannot be right, and nobody checks it.
        L4Proto::Tcp if segment.len() >= tcp::CHECKSUM_OFFSET + 2 => {
            summed_port(segment, L4Proto::Tcp, end, port, change)
        }
        L4Proto::Udp => summed_port(segment, L4Proto::Udp, end, port, change),
        L4Proto::Tcp | L4Proto::Sctp => {
            let ports = segment.first_chunk_mut::<4>()?;
            put_port(ports, end, port, change);
            Some(())
        }
    }
}

#[cfg(test)]
#[path = "nat_tests.rs"]
mod tests;
