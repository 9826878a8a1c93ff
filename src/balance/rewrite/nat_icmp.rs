//! lb_kind NAT: ICMP errors about a connection's packets, as IPVS's `ip_vs_nat_icmp` rewrites them.
//!
//! The quoted packet is translated, too, or the host that gets the error would not find the
//! connection that it is about. Beyond IPVS the quoted packet's TCP or UDP checksum follows, where
//! it is part of the quote (RFC 5508 §4.2): traceroutes recognise their probes by it.

use super::{Address, End, NextHop, Refused, nat::quoted_port};
use crate::wire::{ethernet, icmp::HEADER_LEN};

/// An error from the client's side, about a packet that the client got: it is for the VIP and goes
/// to the real server, whose packet it quotes as one from the VIP.
///
/// # Errors
/// [`Refused::NotIp`], [`Refused::IcmpQuote`], [`Refused::IcmpChecksum`], [`Refused::Cut`].
pub fn icmp_to_real<A: Address>(
    frame: &mut [u8],
    network: u8,
    real: (A, u16),
    hop: &NextHop,
) -> Result<(), Refused> {
    translate(frame, network, End::Destination, real, hop)
}

/// An error from the real server's side, about a packet that a real server got: it goes to the
/// client, whose packet it quotes as one to the real server. Whoever sent it, a router between here
/// and the real server included, the client sees it coming from the VIP.
///
/// # Errors
/// [`Refused::NotIp`], [`Refused::IcmpQuote`], [`Refused::IcmpChecksum`], [`Refused::Cut`].
pub fn icmp_to_client<A: Address>(
    frame: &mut [u8],
    network: u8,
    vip: (A, u16),
    hop: &NextHop,
) -> Result<(), Refused> {
    translate(frame, network, End::Source, vip, hop)
}

fn translate<A: Address>(
    frame: &mut [u8],
    network: u8,
    end: End,
    (address, port): (A, u16),
    hop: &NextHop,
) -> Result<(), Refused> {
    let packet = (frame.get_mut(usize::from(network)..)).ok_or(Refused::Cut)?;
    let message = A::message(packet)?;
    if message.protocol != A::ICMP || message.is_fragment {
        return Err(Refused::IcmpQuote);
    }
    let bytes = (packet.get(message.start..message.end)).ok_or(Refused::Cut)?;
    let (protocol, transport) = A::quote(bytes)?;
    if !A::is_icmp_valid(packet, message) {
        return Err(Refused::IcmpChecksum);
    }
    address.put_and_pass(packet, end).ok_or(Refused::Cut)?;

    // The quoted packet went the other way.
    let other = match end {
        End::Source => End::Destination,
        End::Destination => End::Source,
    };
    let bytes = (packet.get_mut(message.start..message.end)).ok_or(Refused::Cut)?;
    let quoted = (bytes.get_mut(HEADER_LEN..)).ok_or(Refused::Cut)?;
    let change = address.put(quoted, other).ok_or(Refused::Cut)?;
    // In full, as routers have been seen to quote a lower TTL with the old sum.
    A::sum_header(quoted);
    let segment = (bytes.get_mut(transport..)).ok_or(Refused::Cut)?;
    quoted_port(segment, protocol, other, port, change).ok_or(Refused::IcmpQuote)?;
    A::sum_icmp(packet, message).ok_or(Refused::Cut)?;
    ethernet::set_addresses(frame, hop.destination, hop.source);
    Ok(())
}

#[cfg(test)]
#[path = "nat_icmp_tests.rs"]
mod tests;
