//! Rewriting frames in place. Whoever changes a field here changes its checksum in the same place.
//!
//! Every function takes a frame from its destination MAC address on, and `network`, where its IP
//! header starts, so that VLAN tags stay as they came. None of them panics on any bytes. After a
//! [`Refused`] the frame may be half rewritten: it is to be dropped. Functions that return a length
//! say where the rewritten frame ends; padding of the old one lies behind it.

mod answer;
mod family;
mod fit;
mod nat;
mod nat_icmp;
mod tunnel;
mod tunnel_error;

pub use self::{
    answer::{Answer, icmp_error, icmp_room, reset},
    family::Address,
    fit::{Fit, Passage, fit, split},
    nat::{nat_to_client, nat_to_real},
    nat_icmp::{icmp_to_client, icmp_to_real},
    tunnel::{
        Ends, Tunnel, encapsulate, overhead, quoted_payload, source_port, spread_source_v4,
        spread_source_v6,
    },
    tunnel_error::{TunnelError, relay_tunnel_error},
};
use super::NextHop;
pub use crate::{addr::Family, lvs::TunnelKind};
use crate::{
    addr::{L4Proto, MacAddr},
    wire::{
        ethernet::{self, Ethernet},
        ipv4, ipv6,
    },
};
use family::{End, Message, put_sum};

/// Why a frame could not be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The frame ends inside a header that must be changed.
    Cut,
    /// The bytes at the place of the IP header are no packet of the expected family.
    NotIp,
    /// The first fragment of an SCTP packet whose port changes: its CRC32c covers the fragments
    /// that are still to come.
    SctpFragment,
    /// The checksum of an ICMP error is wrong. IPVS drops such, as a recomputed one would hide it.
    IcmpChecksum,
    /// An ICMP message that is not an error about a packet with ports, or is a fragment.
    IcmpQuote,
    /// The room in front of the frame is not as large as the headers that go there.
    NoRoom,
    /// The outer packet would be longer than 65,535 bytes, or does not fit into two fragments.
    TooLong,
    /// A packet that must not be answered: an ICMP error, a later fragment, or one to or from a
    /// group. RFC 1122 §3.2.2; RFC 4443 §2.4(e).
    NeverAnswered,
}

/// What part of a packet a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has the ports.
    First,
    /// A later fragment: its data is not a layer 4 header.
    Later,
}

/// Where the headers of a packet stand in its frame, as the classifier found them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the IP header starts in the frame.
    pub network: u8,
    /// Where the layer 4 header starts, from the IP header on: behind options or extension
    /// headers. Not looked at in a later fragment.
    pub transport: u16,
    /// The layer 4 protocol.
    pub protocol: L4Proto,
    /// What part of the packet it is.
    pub part: Part,
}

/// Direct routing: the frame goes to the next hop with its TTL one lower, otherwise unchanged.
/// `network` is where the IP header starts; its TTL is at least 2.
#[inline]
pub fn direct_routing(frame: &mut [u8], network: u8, hop: &NextHop) {
    ethernet::set_addresses(frame, hop.destination, hop.source);
    if let Some(packet) = frame.get_mut(usize::from(network)..) {
        ipv4::decrement_ttl(packet);
    }
}

/// Direct routing of an IPv6 packet, whose hop limit is at least 2.
#[inline]
pub fn direct_routing_v6(frame: &mut [u8], network: u8, hop: &NextHop) {
    ethernet::set_addresses(frame, hop.destination, hop.source);
    if let Some(packet) = frame.get_mut(usize::from(network)..) {
        ipv6::decrement_hop_limit(packet);
    }
}

/// Moves what stands between the stations of a frame and its packet towards the front of the `room` bytes that it was
/// grown by: VLAN tags, and another EtherType behind them. The packet that starts after them. The stations are the
/// caller's, who sets others as a rule.
#[inline]
fn move_link_header(
    frame: &mut [u8],
    network: usize,
    room: usize,
    family: Family,
) -> Result<&mut [u8], Refused> {
    if network < ethernet::HEADER_LEN || frame.len() < network + room {
        return Err(Refused::NoRoom);
    }
    // Most frames have no tag, and an unknown length costs a call.
    if network > ethernet::HEADER_LEN {
        let tags = ethernet::ADDRESSES_LEN;
        frame.copy_within(room + tags..room + network, tags);
    }
    frame[network - 2..network].copy_from_slice(&family.ether_type().to_be_bytes());
    Ok(&mut frame[network..])
}

/// Swaps the stations of a frame.
fn turn_around(frame: &mut [u8]) {
    let stations: Option<(MacAddr, MacAddr)> =
        Ethernet::new(frame).map(|eth| (eth.source(), eth.destination()));
    if let Some((source, destination)) = stations {
        ethernet::set_addresses(frame, source, destination);
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod ipvs_tests;
#[cfg(test)]
mod tests {
    use super::{fixtures::*, *};

    #[test]
    fn direct_routing_changes_stations_and_ttl_only() {
        for six in [false, true] {
            for tags in 0..3 {
                let spec = Spec {
                    tags,
                    padding: 3,
                    options: true,
                    ..Spec::new(six, L4Proto::Udp)
                };
                let mut frame = spec.frame();
                if six {
                    direct_routing_v6(&mut frame, spec.network(), &HOP);
                } else {
                    direct_routing(&mut frame, spec.network(), &HOP);
                }
                let mut expected = Spec { ttl: 63, ..spec }.frame();
                expected[..6].copy_from_slice(&HOP.destination.0);
                expected[6..12].copy_from_slice(&HOP.source.0);
                assert_eq!(frame, expected);
            }
        }
    }
}
