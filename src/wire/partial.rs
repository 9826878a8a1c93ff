//! Checksums that a sender left to its network card, on frames that passed no card: a veth, a bridge, a virtual
//! machine's interface hand them on as they are.
//!
//! Linux then leaves the folded sum of the pseudo-header in the field of TCP and UDP, not complemented, for the card
//! to add the rest (CHECKSUM_PARTIAL), and zero in that of SCTP. One right checksum in 65,536 looks the same; what it
//! is finished to is what it was.

use std::ops::Range;

use super::{
    checksum, ethernet,
    ipv4::{self, Ipv4},
    ipv6::{self, Ipv6},
    sctp, tcp, udp, vlan,
};

/// A segment whose checksum may have been left unfinished, in a frame.
struct Segment {
    /// Its bytes, from the transport header on.
    at: Range<usize>,
    protocol: u8,
    /// The folded sum of its pseudo-header.
    pseudo: [u8; 2],
}

impl Segment {
    /// The segment of a frame that holds a whole packet. Fragments are none: whoever cuts a packet finishes its sum.
    #[inline]
    fn of(frame: &[u8]) -> Option<Self> {
        let (ether_type, network) = vlan::network_layer(frame)?;
        let packet = frame.get(network..)?;
        let (protocol, start, end, addresses) = match ether_type {
            ethernet::TYPE_IPV4 => {
                let ip = Ipv4::quoted(packet).filter(|ip| !ip.is_fragment())?;
                let addresses = Addresses::V4(ip.addresses());
                (ip.protocol(), ip.header_len(), ip.total_len(), addresses)
            }
            ethernet::TYPE_IPV6 => {
                let ip = Ipv6::quoted(packet)?;
                let upper = ip.upper(packet.get(ipv6::HEADER_LEN..)?).ok()?;
                if upper.fragment.is_some() {
                    return None;
                }
                let addresses = Addresses::V6(ip.addresses());
                let start = usize::from(upper.offset);
                (upper.protocol, start, ip.total_len(), addresses)
            }
            _ => return None,
        };
        packet.get(start..end)?;
        let length = end - start;
        let pseudo = match addresses {
            Addresses::V4(addresses) => checksum::pseudo_v4(&addresses, protocol, length),
            Addresses::V6(addresses) => checksum::pseudo_v6(addresses, protocol, length),
        };
        Some(Self {
            at: network + start..network + end,
            protocol,
            pseudo,
        })
    }

    /// Where the checksum lies in a segment of TCP or UDP.
    const fn field(&self) -> Option<Range<usize>> {
        let at = match self.protocol {
            ipv4::PROTOCOL_TCP => tcp::CHECKSUM_OFFSET,
            udp::PROTOCOL => udp::CHECKSUM_OFFSET,
            _ => return None,
        };
        Some(at..at + 2)
    }
}

enum Addresses<'a> {
    V4([u8; 8]),
    V6(&'a [u8; 32]),
}

/// Finishes the checksum of a frame's packet where it looks unfinished. Whether that changed it: of a sum that only
/// looked so nothing changes, and a UDP datagram without a sum keeps none.
#[inline]
pub fn finish_if_unfinished(frame: &mut [u8]) -> bool {
    let Some(segment) = Segment::of(frame) else {
        return false;
    };
    let Some(bytes) = frame.get(segment.at.clone()) else {
        return false;
    };
    let looks_so = match segment.field() {
        Some(field) => bytes.get(field) == Some(&segment.pseudo),
        None => segment.protocol == sctp::PROTOCOL && sctp::is_without_checksum(bytes),
    };
    looks_so && finish_segment(frame, &segment) == Some(true)
}

/// Finishes the checksum of a frame's packet, of which the kernel said that it is unfinished. `false` when it is no
/// packet whose checksum is known here.
pub fn finish(frame: &mut [u8]) -> bool {
    let segment = Segment::of(frame);
    segment.is_some_and(|segment| finish_segment(frame, &segment).is_some())
}

/// Computes what is missing of a sum; whether it is another one now.
#[cold]
fn finish_segment(frame: &mut [u8], segment: &Segment) -> Option<bool> {
    let bytes = frame.get_mut(segment.at.clone())?;
    let Some(field) = segment.field() else {
        if segment.protocol != sctp::PROTOCOL || bytes.len() < sctp::HEADER_LEN {
            return None;
        }
        sctp::set_checksum(bytes);
        return Some(!sctp::is_without_checksum(bytes));
    };
    // The sum includes what is in the field already. RFC 1071 §1.
    let sum = match checksum::compute(bytes) {
        sum if segment.protocol == udp::PROTOCOL => checksum::udp(sum),
        sum => sum,
    };
    let place = bytes.get_mut(field)?;
    let changes = *place != sum;
    place.copy_from_slice(&sum);
    Some(changes)
}

#[cfg(test)]
pub(crate) mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// What comes of a packet whose checksum was left to a card, and the same one finished. `six`: IPv6; `tcp`: TCP,
    /// else UDP.
    pub(crate) fn unfinished(six: bool, tcp: bool, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let (builder, header) = if six {
            (ethernet.ipv6([0x20; 16], [0x30; 16], 64), 40)
        } else {
            (ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64), 20)
        };
        let mut whole = Vec::new();
        let (number, field, length) = if tcp {
            let builder = builder.tcp(4000, 80, 1, 1000);
            builder.write(&mut whole, payload).unwrap();
            (6_u16, 16, 20 + payload.len())
        } else {
            builder.udp(4000, 80).write(&mut whole, payload).unwrap();
            (17, 6, 8 + payload.len())
        };
        let addresses = if six {
            14 + 8..14 + 40
        } else {
            14 + 12..14 + 20
        };
        let mut pseudo = u32::from(number) + u32::try_from(length).unwrap();
        for pair in whole[addresses].chunks(2) {
            pseudo += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while pseudo > 0xffff {
            pseudo = (pseudo & 0xffff) + (pseudo >> 16);
        }
        let mut partial = whole.clone();
        let at = 14 + header + field;
        partial[at..at + 2].copy_from_slice(&u16::try_from(pseudo).unwrap().to_be_bytes());
        (partial, whole)
    }

    #[test]
    fn an_unfinished_checksum_is_finished_as_etherparse_computes_it() {
        for (six, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            for payload in [&b""[..], b"odd", b"even", &[0xff; 101]] {
                let (mut partial, whole) = unfinished(six, tcp, payload);
                assert_ne!(partial, whole);
                // Ethernet padding is not part of the sum.
                partial.extend([9; 3]);
                let mut told = partial.clone();
                assert!(finish(&mut told) && finish_if_unfinished(&mut partial));
                assert_eq!(&partial[..whole.len()], whole, "{six} {tcp}, {payload:?}");
                assert_eq!(told, partial);
                assert!(!finish_if_unfinished(&mut partial), "it is finished");
            }
        }
    }

    #[test]
    fn it_is_found_behind_a_vlan_tag() {
        let (partial, whole) = unfinished(false, true, b"tagged");
        let [mut partial, whole] = [partial, whole].map(|mut frame| {
            frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
            frame
        });
        assert!(finish_if_unfinished(&mut partial));
        assert_eq!(partial, whole);
    }

    #[test]
    fn what_is_finished_wrong_or_without_a_sum_stays_as_it_is() {
        for (six, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            let (_, whole) = unfinished(six, tcp, b"payload");
            let mut damaged = whole.clone();
            *damaged.last_mut().unwrap() ^= 1;
            let field = if six { 54 } else { 34 } + if tcp { 16 } else { 6 };
            let mut without = whole.clone();
            without[field..field + 2].fill(0);
            for frame in [whole, damaged, without] {
                let mut after = frame.clone();
                assert!(!finish_if_unfinished(&mut after));
                assert_eq!(after, frame, "{six} {tcp}");
            }
        }
    }

    #[test]
    fn a_right_sum_that_looks_unfinished_is_right_afterwards() {
        // A payload that sums up to the complement of twice the pseudo-header's sum makes both the same.
        let (partial, _) = unfinished(false, false, &[0, 0]);
        let found = (0..=u16::MAX).find_map(|word| {
            let (partial, whole) = unfinished(false, false, &word.to_be_bytes());
            (partial == whole).then_some(whole)
        });
        let whole = found.expect("one of all sums is the one");
        assert_eq!(whole.len(), partial.len());
        let mut after = whole.clone();
        assert!(!finish_if_unfinished(&mut after));
        assert_eq!(after, whole);
    }

    #[test]
    fn a_fragments_field_is_no_checksum_of_what_it_holds() {
        let (mut partial, _) = unfinished(false, false, b"first of two");
        partial[20] = 0x20;
        ipv4::fill_checksum(&mut partial[14..34]);
        let before = partial.clone();
        assert!(!finish_if_unfinished(&mut partial) && !finish(&mut partial));
        assert_eq!(partial, before);
    }

    #[test]
    fn sctp_without_a_sum_gets_one() {
        let mut packet = vec![0; 32];
        packet[..4].copy_from_slice(&[0x0f, 0xa0, 0, 80]);
        packet[12..16].copy_from_slice(&[1, 0, 0, 20]);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ip(etherparse::IpHeaders::Ipv4(
                etherparse::Ipv4Header::new(
                    32,
                    64,
                    etherparse::IpNumber::SCTP,
                    [10, 0, 0, 1],
                    [10, 0, 0, 2],
                )
                .unwrap(),
                etherparse::Ipv4Extensions::default(),
            ))
            .write(&mut frame, etherparse::IpNumber::SCTP, &packet)
            .unwrap();
        assert!(finish_if_unfinished(&mut frame));
        assert!(sctp::is_valid(&frame[34..]));
        assert!(!finish_if_unfinished(&mut frame));
        let mut damaged = frame;
        *damaged.last_mut().unwrap() ^= 1;
        assert!(!finish_if_unfinished(&mut damaged));
    }

    #[test]
    fn what_is_no_packet_is_not_finished() {
        for six in [false, true] {
            let (whole, _) = unfinished(six, true, b"x");
            for len in 0..whole.len() {
                let mut cut = whole[..len].to_vec();
                assert!(
                    !finish(&mut cut) && !finish_if_unfinished(&mut cut),
                    "{len} bytes"
                );
            }
        }
        let (mut icmp, _) = unfinished(false, true, b"x");
        icmp[23] = 1;
        assert!(!finish(&mut icmp));
    }
}
