//! What the two families of addresses have to offer to whoever rewrites their packets.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) use self::sealed::{End, Message};
use super::Refused;
use crate::{
    addr::Family,
    wire::{
        checksum::{self, Change},
        ethernet, icmp, icmpv6,
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
    },
};

impl Family {
    /// The EtherType of its packets.
    pub(super) const fn ether_type(self) -> u16 {
        match self {
            Self::V4 => ethernet::TYPE_IPV4,
            Self::V6 => ethernet::TYPE_IPV6,
        }
    }

    /// The protocol number of its packets in other ones.
    pub(super) const fn protocol(self) -> u8 {
        match self {
            Self::V4 => ipv4::PROTOCOL_IPIP,
            Self::V6 => ipv4::PROTOCOL_IPV6,
        }
    }
}

/// An address of either family, as far as rewriting a packet of that family needs it.
pub trait Address: Copy + Eq + sealed::Sealed {
    /// Its family.
    const FAMILY: Family;
}

impl Address for Ipv4Addr {
    const FAMILY: Family = Family::V4;
}

impl Address for Ipv6Addr {
    const FAMILY: Family = Family::V6;
}

mod sealed {
    use super::{Change, Refused};

    /// Which end of a packet changes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum End {
        /// The sender's.
        Source,
        /// The addressee's.
        Destination,
    }

    /// Where a layer 4 message is in its packet, and of which protocol.
    #[derive(Clone, Copy, Debug)]
    pub struct Message {
        /// Its protocol number.
        pub protocol: u8,
        /// From the IP header on.
        pub start: usize,
        /// The end of the packet, as its header says.
        pub end: usize,
        /// Whether it is one fragment of a larger packet, the first included.
        pub is_fragment: bool,
        /// Whether it is a fragment without the start of layer 4.
        pub is_later_fragment: bool,
    }

    /// What layer 4 is under. Each `packet` starts at its IP header.
    pub trait Sealed: Sized {
        /// The protocol number of its ICMP.
        const ICMP: u8;
        /// Puts this address at one end of the packet. What that does to a sum over it; `None`
        /// when the header is cut.
        fn put(self, packet: &mut [u8], end: End) -> Option<Change>;
        /// The same, and takes one from the TTL, and updates the sum of the header.
        fn put_and_pass(self, packet: &mut [u8], end: End) -> Option<Change>;
        /// Where the packet's layer 4 is; the packet is checked as the classifier did.
        fn message(packet: &[u8]) -> Result<Message, Refused>;
        /// Whether an ICMP message in `packet` sums up.
        fn is_icmp_valid(packet: &[u8], message: Message) -> bool;
        /// Computes the checksum of an ICMP message in `packet` anew.
        fn sum_icmp(packet: &mut [u8], message: Message) -> Option<()>;
        /// The protocol and the transport offset in an ICMP error of the packet that it quotes.
        fn quote(message: &[u8]) -> Result<(u8, usize), Refused>;
        /// Computes the checksum of the IP header at the front of `packet` anew, if it has one.
        fn sum_header(packet: &mut [u8]);
    }
}

impl sealed::Sealed for Ipv4Addr {
    const ICMP: u8 = ipv4::PROTOCOL_ICMP;

    #[inline]
    fn put(self, packet: &mut [u8], end: End) -> Option<Change> {
        let header = packet.first_chunk_mut::<{ ipv4::MIN_HEADER_LEN }>()?;
        let place = match end {
            End::Source => &mut header[ipv4::SOURCE_OFFSET..ipv4::SOURCE_OFFSET + 4],
            End::Destination => &mut header[ipv4::DESTINATION_OFFSET..],
        };
        let place: &mut [u8; 4] = place.first_chunk_mut()?;
        let old = std::mem::replace(place, self.octets());
        Some(Change::NONE.quad(old, self.octets()))
    }

    #[inline]
    fn put_and_pass(self, packet: &mut [u8], end: End) -> Option<Change> {
        let change = self.put(packet, end)?;
        ipv4::decrement_ttl_and(packet, change);
        Some(change)
    }

    fn message(packet: &[u8]) -> Result<Message, Refused> {
        let (ip, _) = Ipv4::split(packet).map_err(|_| Refused::NotIp)?;
        Ok(Message {
            protocol: ip.protocol(),
            start: ip.header_len(),
            end: ip.total_len(),
            is_fragment: ip.is_fragment(),
            is_later_fragment: ip.is_later_fragment(),
        })
    }

    fn is_icmp_valid(packet: &[u8], message: Message) -> bool {
        let bytes = packet.get(message.start..message.end);
        bytes.is_some_and(checksum::is_valid)
    }

    fn sum_icmp(packet: &mut [u8], message: Message) -> Option<()> {
        let bytes = packet.get_mut(message.start..message.end)?;
        put_sum(bytes, icmp::CHECKSUM_OFFSET, checksum::compute)
    }

    fn quote(message: &[u8]) -> Result<(u8, usize), Refused> {
        let error = icmp::Error::parse(message).map_err(|_| Refused::IcmpQuote)?;
        Ok((error.quoted().protocol(), error.transport()))
    }

    fn sum_header(packet: &mut [u8]) {
        let length = Ipv4::quoted(packet).map_or(0, Ipv4::header_len);
        if let Some(header) = packet.get_mut(..length) {
            ipv4::fill_checksum(header);
        }
    }
}

impl sealed::Sealed for Ipv6Addr {
    const ICMP: u8 = ipv6::PROTOCOL_ICMPV6;

    #[inline]
    fn put(self, packet: &mut [u8], end: End) -> Option<Change> {
        let header = packet.first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
        let place = match end {
            End::Source => &mut header[ipv6::SOURCE_OFFSET..ipv6::SOURCE_OFFSET + 16],
            End::Destination => &mut header[ipv6::DESTINATION_OFFSET..],
        };
        let place: &mut [u8; 16] = place.first_chunk_mut()?;
        let new = self.octets();
        let old = std::mem::replace(place, new);
        Some(Change::NONE.address_v6(&old, &new))
    }

    #[inline]
    fn put_and_pass(self, packet: &mut [u8], end: End) -> Option<Change> {
        let change = self.put(packet, end)?;
        ipv6::decrement_hop_limit(packet);
        Some(change)
    }

    fn message(packet: &[u8]) -> Result<Message, Refused> {
        let (ip, payload) = Ipv6::split(packet).map_err(|_| Refused::NotIp)?;
        let upper = ip.upper(payload).map_err(|_| Refused::NotIp)?;
        Ok(Message {
            protocol: upper.protocol,
            start: usize::from(upper.offset),
            end: ip.total_len(),
            is_fragment: upper.fragment.is_some(),
            is_later_fragment: upper.is_later_fragment(),
        })
    }

    fn is_icmp_valid(packet: &[u8], message: Message) -> bool {
        let Some(ip) = Ipv6::quoted(packet) else {
            return false;
        };
        packet.get(message.start..message.end).is_some_and(|bytes| {
            checksum::is_valid_with_pseudo_v6(ip.addresses(), ipv6::PROTOCOL_ICMPV6, bytes)
        })
    }

    fn sum_icmp(packet: &mut [u8], message: Message) -> Option<()> {
        let addresses = *Ipv6::quoted(packet)?.addresses();
        let bytes = packet.get_mut(message.start..message.end)?;
        put_sum(bytes, icmpv6::CHECKSUM_OFFSET, |bytes| {
            checksum::compute_with_pseudo_v6(&addresses, ipv6::PROTOCOL_ICMPV6, bytes)
        })
    }

    fn quote(message: &[u8]) -> Result<(u8, usize), Refused> {
        let error = icmpv6::Error::parse(message).map_err(|_| Refused::IcmpQuote)?;
        Ok((error.protocol(), error.transport()))
    }

    fn sum_header(_packet: &mut [u8]) {}
}

/// Puts the sum of `bytes` at `at`; `None` when they end before that.
pub(super) fn put_sum(
    bytes: &mut [u8],
    at: usize,
    sum: impl FnOnce(&[u8]) -> [u8; 2],
) -> Option<()> {
    bytes.get_mut(at..at + 2)?.fill(0);
    let sum = sum(bytes);
    bytes.get_mut(at..at + 2)?.copy_from_slice(&sum);
    Some(())
}
