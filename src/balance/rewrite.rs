//! Rewriting frames in place. Whoever changes a field here changes its checksum in the same place.

use super::NextHop;
use crate::{
    addr::MacAddr,
    wire::{
        checksum,
        ethernet::{self, Ethernet},
        ipv4::{self, Ipv4},
        tcp::{self, Flags, Tcp},
    },
};

/// TTL of packets of our own (IANA's recommended default, RFC 1700).
const OWN_TTL: u8 = 64;

/// Direct routing: the frame goes to the next hop with its TTL one lower, otherwise unchanged.
/// `network` is where the IP header starts; its TTL is at least 2.
#[inline]
pub fn direct_routing(frame: &mut [u8], network: u8, hop: &NextHop) {
    ethernet::set_addresses(frame, hop.destination, hop.source);
    if let Some(packet) = frame.get_mut(usize::from(network)..) {
        ipv4::decrement_ttl(packet);
    }
}

/// Turns a TCP segment into the reset that answers it, in place: back to the station that sent it,
/// between the same endpoints, without options or payload. RFC 9293 §3.10.7.1.
///
/// Returns the length of the answer's frame; `None`, and the frame is unchanged, when the frame
/// holds no segment, or a reset, which is never answered.
pub fn reset(frame: &mut [u8], network: u8) -> Option<usize> {
    let network = usize::from(network);
    let (ip, segment) = Ipv4::split(frame.get(network..)?).ok()?;
    let header = Tcp::new(segment)?;
    let flags = header.flags();
    if ip.protocol() != ipv4::PROTOCOL_TCP || flags.contains(Flags::RST) {
        return None;
    }
    let [a, b, c, d] = header.ports();
    let (sequence, acknowledgment, flags) = if flags.contains(Flags::ACK) {
        (header.acknowledgment(), 0, Flags::RST)
    } else {
        let data = u32::try_from(segment.len() - header.header_len()).unwrap_or(0);
        let controls = [Flags::SYN, Flags::FIN].map(|f| u32::from(flags.contains(f)));
        let end = header
            .sequence()
            .wrapping_add(data + controls[0] + controls[1]);
        (0, end, Flags::RST.union(Flags::ACK))
    };
    let mut answer = tcp::Repr {
        ports: [c, d, a, b],
        sequence,
        acknowledgment,
        flags,
    }
    .emit();
    let addresses = [ip.destination().octets(), ip.source().octets()];
    let sum = checksum::compute_with_pseudo_v4(addresses, ipv4::PROTOCOL_TCP, &answer);
    answer[tcp::CHECKSUM_OFFSET..][..2].copy_from_slice(&sum);
    let outer = ipv4::Repr {
        source: ip.destination(),
        destination: ip.source(),
        protocol: ipv4::PROTOCOL_TCP,
        ttl: OWN_TTL,
        payload_len: 20,
    }
    .emit();
    // Two headers without options are never longer than the two that were there.
    let place = frame.get_mut(network..network + outer.len() + answer.len())?;
    place[..outer.len()].copy_from_slice(&outer);
    place[outer.len()..].copy_from_slice(&answer);
    turn_around(frame);
    Some(network + outer.len() + answer.len())
}

/// Swaps the stations of a frame.
fn turn_around(frame: &mut [u8]) {
    let stations: Option<(MacAddr, MacAddr)> =
        Ethernet::new(frame).map(|eth| (eth.source(), eth.destination()));
    if let Some((source, destination)) = stations {
        ethernet::set_addresses(frame, source, destination);
    }
}
