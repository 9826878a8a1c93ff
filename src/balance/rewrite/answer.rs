//! Answers of our own, built in the frame that they answer: it goes back to the station that it
//! came from.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Address, Family, Message, Refused, move_link_header, put_sum, turn_around};
use crate::wire::{
    checksum, ethernet,
    icmp::{self, Problem},
    icmpv6,
    ipv4::{self, Ipv4, Marks},
    ipv6::{self, Ipv6},
    tcp::{self, Flags, Tcp},
};

/// TTL of packets of our own (IANA's recommended default, RFC 1700).
const OWN_TTL: u8 = 64;

/// The DSCP of an ICMP error: internetwork control, with what the packet asked for in the bits
/// below. RFC 1812 §4.3.2.5, as Linux.
const fn error_tos(tos: u8) -> u8 {
    const INTERNETWORK_CONTROL: u8 = 0xc0;
    tos & 0x1e | INTERNETWORK_CONTROL
}

/// Bytes that a frame has to be grown by at its front before [`icmp_error`].
pub const fn icmp_room(family: Family) -> usize {
    match family {
        Family::V4 => ipv4::MIN_HEADER_LEN + icmp::HEADER_LEN,
        Family::V6 => ipv6::HEADER_LEN + icmpv6::HEADER_LEN,
    }
}

/// Turns a frame into the ICMP error about its packet, from `source` to the packet's sender. The
/// frame was grown at its front by exactly [`icmp_room`] bytes; `network` is where its IP header was
/// before, and the packet is as it was received. It quotes as much as fits a packet of 576
/// (RFC 1812 §4.3.2.3) or 1280 bytes (RFC 4443 §2.4(c)). Returns the length of the frame.
///
/// How often such are sent is for the caller to bound (RFC 1812 §4.3.2.8).
///
/// # Errors
/// [`Refused::NeverAnswered`], [`Refused::NotIp`], [`Refused::NoRoom`].
pub fn icmp_error<A: Answer>(
    frame: &mut [u8],
    network: u8,
    source: A,
    problem: Problem,
) -> Result<usize, Refused> {
    let network = usize::from(network);
    let room = icmp_room(A::FAMILY);
    let offending = (frame.get(network + room..)).ok_or(Refused::NoRoom)?;
    let message = A::message(offending)?;
    A::may_be_answered(offending, message, problem)?;
    let length = room + message.end.min(A::MAX_PACKET_LEN - room);
    frame.copy_within(room..room + ethernet::ADDRESSES_LEN, 0);
    let packet = move_link_header(frame, network, room, A::FAMILY)?;
    let packet = (packet.get_mut(..length)).ok_or(Refused::Cut)?;
    source
        .answer(packet, A::header(problem))
        .ok_or(Refused::Cut)?;
    turn_around(frame);
    Ok(network + length)
}

/// An address that errors can come from.
pub trait Answer: Address + building::Building {}

impl Answer for Ipv4Addr {}
impl Answer for Ipv6Addr {}

mod building {
    use super::{Message, Problem, Refused};

    /// What an answer is built from.
    pub trait Building {
        /// Bytes of a whole packet with an error.
        const MAX_PACKET_LEN: usize;
        /// RFC 1122 §3.2.2, RFC 1812 §4.3.2.7; RFC 4443 §2.4(e).
        fn may_be_answered(
            packet: &[u8],
            message: Message,
            problem: Problem,
        ) -> Result<(), Refused>;
        /// The ICMP header of an error, without a checksum.
        fn header(problem: Problem) -> [u8; 8];
        /// Writes the headers in front of the quote in `packet`: that of IP, and this one of ICMP.
        fn answer(self, packet: &mut [u8], header: [u8; 8]) -> Option<()>;
    }
}

/// Whether the layer 4 of a packet is an ICMP error, or what cannot be told from one.
fn is_error<A: Address>(packet: &[u8], message: Message, reports_error: fn(u8) -> bool) -> bool {
    let kind = packet.get(message.start);
    message.protocol == A::ICMP && kind.is_none_or(|kind| reports_error(*kind))
}

impl building::Building for Ipv4Addr {
    const MAX_PACKET_LEN: usize = icmp::MAX_PACKET_LEN;

    fn may_be_answered(packet: &[u8], message: Message, _problem: Problem) -> Result<(), Refused> {
        let ip = Ipv4::quoted(packet).ok_or(Refused::NotIp)?;
        let (source, destination) = (ip.source(), ip.destination());
        let nobody = matches!(source.octets()[0], 0 | 127 | 224..);
        let group = destination.is_multicast() || destination.is_broadcast();
        let error = is_error::<Self>(packet, message, icmp::reports_error);
        if nobody || group || error || message.is_later_fragment {
            return Err(Refused::NeverAnswered);
        }
        Ok(())
    }

    fn header(problem: Problem) -> [u8; 8] {
        problem.header()
    }

    fn answer(self, packet: &mut [u8], icmp_header: [u8; 8]) -> Option<()> {
        let (header, message) = packet.split_first_chunk_mut::<{ ipv4::MIN_HEADER_LEN }>()?;
        let offending = Ipv4::quoted(message.get(icmp::HEADER_LEN..)?)?;
        let repr = ipv4::Repr {
            source: self,
            destination: offending.source(),
            protocol: ipv4::PROTOCOL_ICMP,
            ttl: OWN_TTL,
            payload_len: u16::try_from(message.len()).ok()?,
        };
        *header = repr.emit_with(Marks {
            tos: error_tos(offending.tos()),
            ..Marks::ATOMIC
        });
        *message.first_chunk_mut()? = icmp_header;
        put_sum(message, icmp::CHECKSUM_OFFSET, checksum::compute)
    }
}

impl building::Building for Ipv6Addr {
    const MAX_PACKET_LEN: usize = icmpv6::MAX_PACKET_LEN;

    fn may_be_answered(packet: &[u8], message: Message, problem: Problem) -> Result<(), Refused> {
        let ip = Ipv6::quoted(packet).ok_or(Refused::NotIp)?;
        let (source, destination) = (ip.source(), ip.destination());
        let nobody = source.is_unspecified() || source.is_multicast() || source.is_loopback();
        // "Packet too big" may be about a packet to a group. RFC 4443 §2.4(e.3).
        let group = destination.is_multicast() && !matches!(problem, Problem::TooBig(_));
        let error = is_error::<Self>(packet, message, icmpv6::reports_error);
        if nobody || group || error || message.is_later_fragment {
            return Err(Refused::NeverAnswered);
        }
        Ok(())
    }

    fn header(problem: Problem) -> [u8; 8] {
        icmpv6::header(problem)
    }

    fn answer(self, packet: &mut [u8], icmp_header: [u8; 8]) -> Option<()> {
        let (header, message) = packet.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
        let offending = Ipv6::quoted(message.get(icmpv6::HEADER_LEN..)?)?;
        let repr = ipv6::Repr {
            source: self,
            destination: offending.source(),
            traffic_class: 0,
            protocol: ipv6::PROTOCOL_ICMPV6,
            hop_limit: OWN_TTL,
            payload_len: u16::try_from(message.len()).ok()?,
        };
        *header = repr.emit();
        let addresses = *Ipv6::quoted(header)?.addresses();
        *message.first_chunk_mut()? = icmp_header;
        put_sum(message, icmpv6::CHECKSUM_OFFSET, |bytes| {
            checksum::compute_with_pseudo_v6(&addresses, ipv6::PROTOCOL_ICMPV6, bytes)
        })
    }
}

/// Turns a TCP segment into the reset that answers it, in place: back to the station that sent it,
/// between the same endpoints, without options or payload. RFC 9293 §3.10.7.1. Either family.
///
/// Returns the length of the answer's frame; `None`, and the frame is unchanged, when the frame
/// holds no segment, or a reset, which is never answered.
pub fn reset(frame: &mut [u8], network: u8) -> Option<usize> {
    let network = usize::from(network);
    let packet = frame.get(network..)?;
    let (outer, answer) = match packet.first()? >> 4 {
        4 => Outer::v4(packet)?,
        6 => Outer::v6(packet)?,
        _ => return None,
    };
    let outer = outer.as_slice();
    // Two headers without options are never longer than the two that were there.
    let end = network + outer.len() + answer.len();
    let place = frame.get_mut(network..end)?;
    let (first, second) = place.split_at_mut_checked(outer.len())?;
    first.copy_from_slice(outer);
    second.copy_from_slice(&answer);
    turn_around(frame);
    Some(end)
}

/// The IP header of a reset.
enum Outer {
    V4([u8; ipv4::MIN_HEADER_LEN]),
    V6([u8; ipv6::HEADER_LEN]),
}

type Segment = [u8; tcp::MIN_HEADER_LEN];
const SEGMENT_LEN: u16 = 20;

impl Outer {
    fn v4(packet: &[u8]) -> Option<(Self, Segment)> {
        let (ip, segment) = Ipv4::split(packet).ok()?;
        if ip.protocol() != ipv4::PROTOCOL_TCP || ip.is_fragment() {
            return None;
        }
        let mut answer = answer_to(segment)?;
        let addresses = [ip.destination().octets(), ip.source().octets()];
        put_sum(&mut answer, tcp::CHECKSUM_OFFSET, |bytes| {
            checksum::compute_with_pseudo_v4(addresses, ipv4::PROTOCOL_TCP, bytes)
        })?;
        let outer = ipv4::Repr {
            source: ip.destination(),
            destination: ip.source(),
            protocol: ipv4::PROTOCOL_TCP,
            ttl: OWN_TTL,
            payload_len: SEGMENT_LEN,
        };
        Some((Self::V4(outer.emit()), answer))
    }

    fn v6(packet: &[u8]) -> Option<(Self, Segment)> {
        let (ip, payload) = Ipv6::split(packet).ok()?;
        let upper = ip.upper(payload).ok()?;
        if upper.protocol != ipv4::PROTOCOL_TCP || upper.fragment.is_some() {
            return None;
        }
        let segment = packet.get(usize::from(upper.offset)..ip.total_len())?;
        let mut answer = answer_to(segment)?;
        let outer = ipv6::Repr {
            source: ip.destination(),
            destination: ip.source(),
            traffic_class: 0,
            protocol: ipv4::PROTOCOL_TCP,
            hop_limit: OWN_TTL,
            payload_len: SEGMENT_LEN,
        }
        .emit();
        let addresses = Ipv6::quoted(&outer)?.addresses();
        put_sum(&mut answer, tcp::CHECKSUM_OFFSET, |bytes| {
            checksum::compute_with_pseudo_v6(addresses, ipv4::PROTOCOL_TCP, bytes)
        })?;
        Some((Self::V6(outer), answer))
    }

    const fn as_slice(&self) -> &[u8] {
        match self {
            Self::V4(header) => header,
            Self::V6(header) => header,
        }
    }
}

/// The reset that answers a segment, without a checksum.
fn answer_to(segment: &[u8]) -> Option<Segment> {
    let header = Tcp::new(segment)?;
    let flags = header.flags();
    if flags.contains(Flags::RST) {
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
    let repr = tcp::Repr {
        ports: [c, d, a, b],
        sequence,
        acknowledgment,
        flags,
    };
    Some(repr.emit())
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
