//! VRRP version 2 adverts over IPv4, header included. RFC 2338 §5 (the authentication fields)
//! and RFC 3768 §5, as keepalived puts them on the wire.
//!
//! The IPv4 header is part of it because the sender fixes most of its fields (TTL 255, TOS
//! 0xC0, a running ID, no DF) and the receiver judges them.

use std::net::Ipv4Addr;

use super::checksum;

/// IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// The group that adverts are sent to unless `vrrp_mcast_group4` says otherwise. RFC 3768 §5.2.2.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// TTL of a multicast advert; a receiver refuses any other, so that adverts cannot be routed in.
pub const TTL: u8 = 255;
/// The version nibble of this format.
pub const VERSION: u8 = 2;
/// The type nibble of an advert, the only type there is.
pub const ADVERTISEMENT: u8 = 1;
/// Addresses that the count field can announce.
pub const MAX_ADDRESSES: usize = 255;
/// Authentication type 0: none.
pub const AUTH_NONE: u8 = 0;
/// Authentication type 1: a clear-text password in the last eight bytes.
pub const AUTH_PASS: u8 = 1;
/// Authentication type 2: an AH header before the advert.
pub const AUTH_AH: u8 = 2;

/// A received IPv4 datagram: what a VRRP router judges of its header, and what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Time to live as received.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Bytes of header, options included.
    pub header_len: usize,
    /// What follows the header, up to the total length: padding of short Ethernet frames is cut.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads an IPv4 packet as a raw socket delivers it. `None` when it is not a whole one:
    /// another version, a header or total length that does not fit, a fragment. The header
    /// checksum is the kernel's business; it delivers nothing that fails it.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let header: &[u8; MIN_HEADER] = packet.first_chunk()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(word(header, 2));
        let fragment = word(header, 6) & !DONT_FRAGMENT;
        if header[0] >> 4 != 4 || header_len < MIN_HEADER || fragment != 0 {
            return None;
        }
        Some(Self {
            source: address(&header[12..16]),
            destination: address(&header[16..20]),
            ttl: header[8],
            id: word(header, 4),
            protocol: header[9],
            header_len,
            payload: packet.get(..total_len)?.get(header_len..)?,
        })
    }
}

/// The virtual router that a VRRP message of any version is about.
pub fn vrid(message: &[u8]) -> Option<u8> {
    message.get(1).copied()
}

/// Why a VRRP message is not a version 2 advert, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The version nibble is this.
    Version(u8),
    /// The message does not have the length that its count field asks for.
    Length {
        /// Bytes of message received.
        received: usize,
        /// Bytes of message for this many addresses.
        expected: usize,
    },
    /// The type nibble is this.
    Kind(u8),
    /// The sum over message and authentication data is wrong.
    Checksum,
}

/// A received advert whose form is right. Whether it is believed is the VRRP machine's decision.
#[derive(Clone, Copy, Debug)]
pub struct AdvertView<'a> {
    /// Virtual router ID.
    pub vrid: u8,
    /// Priority of the sender; 0 says that it stops being master.
    pub priority: u8,
    /// Authentication type, see [`AUTH_NONE`], [`AUTH_PASS`], [`AUTH_AH`].
    pub auth_type: u8,
    /// Advertisement interval of the sender, seconds.
    pub interval: u8,
    /// Authentication data: the password with [`AUTH_PASS`], otherwise not looked at.
    pub auth_data: [u8; 8],
    addresses: &'a [u8],
}

impl<'a> AdvertView<'a> {
    /// Checks version, length, type and checksum, in this order. RFC 3768 §7.1.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let version = message.first().map_or(0, |byte| byte >> 4);
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let count = message.get(3).copied().map_or(0, usize::from);
        let expected = FIXED + 4 * count + AUTH_DATA;
        if message.len() != expected {
            let received = message.len();
            return Err(Malformed::Length { received, expected });
        }
        let kind = message[0] & 0x0f;
        if kind != ADVERTISEMENT {
            return Err(Malformed::Kind(kind));
        }
        if !checksum::is_valid(message) {
            return Err(Malformed::Checksum);
        }
        let (addresses, auth) = message[FIXED..].split_at(4 * count);
        let mut auth_data = [0; AUTH_DATA];
        auth_data.copy_from_slice(auth);
        Ok(Self {
            vrid: message[1],
            priority: message[2],
            auth_type: message[4],
            interval: message[5],
            auth_data,
            addresses,
        })
    }

    /// The addresses that the sender answers for, in its order.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = Ipv4Addr> + use<'a> {
        self.addresses.chunks_exact(4).map(address)
    }
}

/// What the IPv4 header of an own advert says beyond what is the same in every one.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// Source address: the sender's primary address.
    pub source: Ipv4Addr,
    /// The group, or one unicast peer.
    pub destination: Ipv4Addr,
    /// 255 for multicast (RFC 3768 §5.2.3), keepalived's `unicast_ttl` for a peer.
    pub ttl: u8,
    /// Identification; keepalived counts 1, 2, 3, … per instance.
    pub id: u16,
}

/// An advert to send.
#[derive(Clone, Copy, Debug)]
pub struct AdvertRepr<'a> {
    /// Virtual router ID, 1 to 255.
    pub vrid: u8,
    /// 1 to 255 (address owner), or 0 for "no longer master".
    pub priority: u8,
    /// Advertisement interval in seconds, 1 to 255.
    pub interval: u8,
    /// The clear-text password (`auth_type PASS`), padded with zeroes; `None` for no
    /// authentication.
    pub password: Option<[u8; 8]>,
    /// Addresses in the order of the configuration; those after the 255th are not announced.
    pub addresses: &'a [Ipv4Addr],
}

impl AdvertRepr<'_> {
    /// The whole IPv4 packet, both checksums filled in.
    pub fn emit(&self, envelope: &Envelope) -> Vec<u8> {
        let addresses = &self.addresses[..self.addresses.len().min(MAX_ADDRESSES)];
        let total = MIN_HEADER + FIXED + 4 * addresses.len() + AUTH_DATA;
        // 255 addresses make 1056 bytes: both conversions are exact.
        let total_field = u16::try_from(total).unwrap_or(u16::MAX);
        let count = u8::try_from(addresses.len()).unwrap_or(u8::MAX);

        let mut packet = Vec::with_capacity(total);
        packet.extend([4 << 4 | 5, TOS_INTERNETWORK_CONTROL]);
        packet.extend(total_field.to_be_bytes());
        packet.extend(envelope.id.to_be_bytes());
        packet.extend([0, 0, envelope.ttl, PROTOCOL, 0, 0]);
        packet.extend(envelope.source.octets());
        packet.extend(envelope.destination.octets());
        fill_checksum(&mut packet, 10);

        let auth_type = self.password.map_or(AUTH_NONE, |_| AUTH_PASS);
        packet.extend([
            VERSION << 4 | ADVERTISEMENT,
            self.vrid,
            self.priority,
            count,
        ]);
        packet.extend([auth_type, self.interval, 0, 0]);
        for address in addresses {
            packet.extend(address.octets());
        }
        // Present whatever the type, and under the checksum. RFC 3768 §5.3.10.
        packet.extend(self.password.unwrap_or_default());
        fill_checksum(&mut packet[MIN_HEADER..], 6);
        packet
    }
}

/// Writes the checksum of `bytes` at `at`, where zeroes are.
fn fill_checksum(bytes: &mut [u8], at: usize) {
    let sum = checksum::compute(bytes);
    bytes[at..at + 2].copy_from_slice(&sum);
}

fn word(bytes: &[u8; MIN_HEADER], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The address in four bytes.
fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

/// Bytes of an IPv4 header without options.
const MIN_HEADER: usize = 20;
/// Bytes of an advert before the addresses.
const FIXED: usize = 8;
/// Bytes of authentication data, always there in version 2.
const AUTH_DATA: usize = 8;
/// Class selector 6 in the IPv4 TOS byte, as keepalived marks adverts.
const TOS_INTERNETWORK_CONTROL: u8 = 0xc0;
/// The DF bit in the fragment field: all others mean a fragment (or an evil bit).
const DONT_FRAGMENT: u16 = 0x4000;

#[cfg(test)]
mod tests;
