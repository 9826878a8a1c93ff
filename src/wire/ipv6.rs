//! IPv6 and its extension headers. RFC 8200.

use std::net::Ipv6Addr;

use super::{pair, quad};

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;
const FIXED_LEN: u16 = 40;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// Smallest MTU that a link may have. RFC 8200 §5.
pub const MIN_MTU: u16 = 1280;
/// Extension headers that are looked behind. RFC 8200 §4.1 knows six that may stand before an
/// upper protocol; a sender that needs more than these wants us to work for nothing.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

const FRAGMENT_HEADER_LEN: usize = 8;
const MORE_FRAGMENTS: u16 = 1;
/// The fragment offset counts units of eight bytes from bit 3, so that the word without its flags
/// is the offset in bytes.
const OFFSET_BITS: u16 = 0xfff8;

mod offset {
    pub(super) const PAYLOAD_LENGTH: usize = 4;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const HOP_LIMIT: usize = 7;
}

/// Where the source address lies in the header.
pub const SOURCE_OFFSET: usize = 8;
/// Where the destination address lies in the header.
pub const DESTINATION_OFFSET: usize = 24;

/// Why bytes are not an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end before the header does, or the version is not 6.
    Header,
    /// The payload length is more than there are bytes.
    Length,
    /// The length stands in a hop-by-hop option: a packet above 64 KiB (RFC 2675).
    Jumbogram,
}

/// Why the upper protocol of a packet cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadExtension {
    /// The packet ends inside an extension header.
    Cut,
    /// There are more than [`MAX_EXTENSIONS`].
    TooMany,
    /// Hop-by-hop options that are not in the first place, or two fragment headers.
    /// RFC 8200 §4.1.
    Order,
    /// A routing header with segments left: the packet's destination is not its last, and the
    /// checksum covers the last one. RFC 8200 §8.1; RFC 5095.
    Routed,
}

/// What part of a packet a fragment is. RFC 8200 §4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, the same in all fragments of one packet.
    pub id: u32,
    /// Where it belongs in the packet's fragmentable part, in bytes.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
}

/// The upper protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// IP protocol number; of a later fragment, what its fragment header says.
    pub protocol: u8,
    /// Where it starts, in bytes from the front of the IPv6 header.
    pub offset: u16,
    /// Set in one of several fragments. A packet with a fragment header that is whole is not a
    /// fragment (RFC 6946).
    pub fragment: Option<Fragment>,
}

impl Upper {
    /// Whether this is a fragment that does not hold the start of the payload, hence no ports.
    pub const fn is_later_fragment(self) -> bool {
        matches!(self.fragment, Some(fragment) if fragment.offset != 0)
    }
}

/// The fixed header in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a>(&'a [u8; HEADER_LEN]);

impl<'a> Ipv6<'a> {
    /// The header at the front of `bytes`, whatever it says; `None` when there are fewer than 40.
    /// What an ICMPv6 error quotes is read so, as it may be cut.
    #[inline]
    pub const fn quoted(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first_chunk() {
            Some(header) => Some(Self(header)),
            None => None,
        }
    }

    /// The header at the front of `bytes`, with what follows it. That ends where the payload
    /// length says, so padding of the frame never reaches layer 4.
    ///
    /// # Errors
    /// [`Malformed`] says which check failed.
    #[inline]
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let ip = Self::quoted(bytes).ok_or(Malformed::Header)?;
        if ip.version() != 6 {
            return Err(Malformed::Header);
        }
        if ip.payload_len() == 0 && ip.next_header() == HOP_BY_HOP {
            return Err(Malformed::Jumbogram);
        }
        let payload = bytes
            .get(HEADER_LEN..ip.total_len())
            .ok_or(Malformed::Length)?;
        Ok((ip, payload))
    }

    /// The version: 6.
    #[inline]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }

    /// The flow label, 20 bits.
    pub const fn flow_label(self) -> u32 {
        u32::from_be_bytes(quad(self.0, 0)) & 0xf_ffff
    }

    /// Length of what follows the fixed header, in bytes.
    #[inline]
    pub const fn payload_len(self) -> u16 {
        u16::from_be_bytes(pair(self.0, offset::PAYLOAD_LENGTH))
    }

    /// Length of the packet, fixed header included, in bytes.
    #[inline]
    pub const fn total_len(self) -> usize {
        HEADER_LEN + self.payload_len() as usize
    }

    /// What follows the fixed header: an extension header or the upper protocol.
    #[inline]
    pub const fn next_header(self) -> u8 {
        self.0[offset::NEXT_HEADER]
    }

    /// Routers that the packet may still pass.
    #[inline]
    pub const fn hop_limit(self) -> u8 {
        self.0[offset::HOP_LIMIT]
    }

    /// Source and destination as they lie in the header, in one piece for a flow key.
    #[inline]
    pub const fn addresses(self) -> &'a [u8; 32] {
        let [_, _, _, _, _, _, _, _, addresses @ ..] = self.0;
        addresses
    }

    /// The sender.
    pub fn source(self) -> Ipv6Addr {
        let [address, _] = self.both();
        address.into()
    }

    /// The addressee.
    pub fn destination(self) -> Ipv6Addr {
        let [_, address] = self.both();
        address.into()
    }

    fn both(self) -> [[u8; 16]; 2] {
        let mut both = [[0; 16]; 2];
        both.as_flattened_mut().copy_from_slice(self.addresses());
        both
    }

    /// The upper protocol, behind any extension headers of `payload`, which is what follows the
    /// fixed header.
    ///
    /// # Errors
    /// [`BadExtension`] says why it cannot be reached.
    #[inline]
    pub fn upper(self, payload: &[u8]) -> Result<Upper, BadExtension> {
        if is_extension(self.next_header()) {
            // Taken apart, or what `walk` stores and the usual packet's result would share a place in memory: the
            // latter, stored in parts and loaded as a whole, would wait for its own stores, 5 ns.
            let Upper {
                protocol,
                offset,
                fragment,
            } = walk(self.next_header(), payload)?;
            return Ok(Upper {
                protocol,
                offset,
                fragment,
            });
        }
        Ok(Upper {
            protocol: self.next_header(),
            offset: FIXED_LEN,
            fragment: None,
        })
    }
}

/// Whether `protocol` is an extension header that can be stepped over. Those with a meaning to the
/// two ends only (mobility, HIP, shim6) are upper protocols to a router, as in Linux.
#[inline]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

#[cold]
fn walk(first: u8, payload: &[u8]) -> Result<Upper, BadExtension> {
    let mut protocol = first;
    let mut at = 0;
    let mut fragment = None;
    let mut fragment_headers = 0;
    for place in 0..=MAX_EXTENSIONS {
        if !is_extension(protocol) {
            return Ok(Upper {
                protocol,
                // At most eight headers of at most 2 KiB.
                offset: u16::try_from(HEADER_LEN + at).unwrap_or(u16::MAX),
                fragment,
            });
        }
        let rest = payload.get(at..).ok_or(BadExtension::Cut)?;
        let header: &[u8; 8] = rest.first_chunk().ok_or(BadExtension::Cut)?;
        let [next, length, ..] = *header;
        let length = match protocol {
            HOP_BY_HOP if place > 0 => return Err(BadExtension::Order),
            // Segments left.
            ROUTING if header[3] != 0 => return Err(BadExtension::Routed),
            FRAGMENT if fragment_headers > 0 => return Err(BadExtension::Order),
            FRAGMENT => {
                fragment_headers += 1;
                fragment = fragment_of(header);
                FRAGMENT_HEADER_LEN
            }
            // In words of four bytes, less two. RFC 4302 §2.2.
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if rest.len() < length {
            return Err(BadExtension::Cut);
        }
        at += length;
        protocol = next;
        if fragment.is_some_and(|it| it.offset != 0) {
            // What follows is from the middle of the packet, not a header.
            return Ok(Upper {
                protocol,
                offset: u16::try_from(HEADER_LEN + at).unwrap_or(u16::MAX),
                fragment,
            });
        }
    }
    Err(BadExtension::TooMany)
}

const fn fragment_of(header: &[u8; FRAGMENT_HEADER_LEN]) -> Option<Fragment> {
    let word = u16::from_be_bytes(pair(header, 2));
    let fragment = Fragment {
        id: u32::from_be_bytes(quad(header, 4)),
        offset: word & OFFSET_BITS,
        more: word & MORE_FRAGMENTS != 0,
    };
    if fragment.offset == 0 && !fragment.more {
        None
    } else {
        Some(fragment)
    }
}

/// Takes one from the hop limit of the header at the front of `packet`. The caller has seen to it
/// that it is at least 2; bytes too short for a header stay as they are.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8]) {
    if let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() {
        header[offset::HOP_LIMIT] = header[offset::HOP_LIMIT].wrapping_sub(1);
    }
}

/// What a header of our own says; the flow label is 0.
#[derive(Clone, Copy, Debug)]
pub struct Repr {
    /// The sender.
    pub source: Ipv6Addr,
    /// The addressee.
    pub destination: Ipv6Addr,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IP protocol number of the payload.
    pub protocol: u8,
    /// Routers that the packet may pass.
    pub hop_limit: u8,
    /// Length of the payload in bytes.
    pub payload_len: u16,
}

impl Repr {
    /// The header's bytes.
    pub fn emit(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        self.put(&mut header);
        header
    }

    /// Writes the header to its place.
    #[inline]
    pub fn put(self, header: &mut [u8; HEADER_LEN]) {
        header[0] = 6 << 4 | self.traffic_class >> 4;
        header[1..offset::PAYLOAD_LENGTH].copy_from_slice(&[self.traffic_class << 4, 0, 0]);
        header[offset::PAYLOAD_LENGTH..][..2].copy_from_slice(&self.payload_len.to_be_bytes());
        header[offset::NEXT_HEADER] = self.protocol;
        header[offset::HOP_LIMIT] = self.hop_limit;
        header[SOURCE_OFFSET..][..16].copy_from_slice(&self.source.octets());
        header[DESTINATION_OFFSET..][..16].copy_from_slice(&self.destination.octets());
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{
        IpNumber, Ipv6ExtensionsSlice, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header,
        Ipv6RawExtHeader,
    };
    use proptest::prelude::*;

    use super::*;

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const DESTINATION: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
    const REPR: Repr = Repr {
        source: SOURCE,
        destination: DESTINATION,
        traffic_class: 0xb9,
        protocol: 17,
        hop_limit: 64,
        payload_len: 4,
    };

    fn theirs(next: u8, payload_len: usize) -> Ipv6Header {
        Ipv6Header {
            traffic_class: 0xb9,
            flow_label: Ipv6FlowLabel::try_new(0xa_bcde).unwrap(),
            payload_length: payload_len.try_into().unwrap(),
            next_header: IpNumber(next),
            hop_limit: 64,
            source: SOURCE.octets(),
            destination: DESTINATION.octets(),
        }
    }

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = theirs(next, payload.len()).to_bytes().to_vec();
        bytes.extend(payload);
        bytes
    }

    /// An option header of `8 * (1 + more)` bytes.
    fn options(next: u8, more: u8) -> Vec<u8> {
        let padding = vec![0; 6 + 8 * usize::from(more)];
        Ipv6RawExtHeader::new_raw(IpNumber(next), &padding)
            .unwrap()
            .to_bytes()
            .to_vec()
    }

    fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
        Ipv6FragmentHeader::new(
            IpNumber(next),
            (offset / 8).try_into().unwrap(),
            more,
            0xdead_beef,
        )
        .to_bytes()
        .to_vec()
    }

    fn upper(bytes: &[u8]) -> Result<Upper, BadExtension> {
        let (ip, payload) = Ipv6::split(bytes).unwrap();
        ip.upper(payload)
    }

    #[test]
    fn our_header_is_what_etherparse_builds() {
        let mut expected = theirs(17, 4);
        expected.flow_label = Ipv6FlowLabel::ZERO;
        assert_eq!(REPR.emit(), expected.to_bytes());
    }

    #[test]
    fn fields_are_where_etherparse_put_them() {
        let mut bytes = packet(17, &[1, 2, 3, 4]);
        bytes.extend([0; 3]);
        let (ip, payload) = Ipv6::split(&bytes).unwrap();
        assert_eq!(payload, [1, 2, 3, 4], "padding is cut");
        assert_eq!((ip.version(), ip.traffic_class()), (6, 0xb9));
        assert_eq!(ip.flow_label(), 0xa_bcde);
        assert_eq!((ip.payload_len(), ip.total_len()), (4, 44));
        assert_eq!((ip.next_header(), ip.hop_limit()), (17, 64));
        assert_eq!((ip.source(), ip.destination()), (SOURCE, DESTINATION));
        assert_eq!(ip.addresses()[..16], SOURCE.octets());
        assert_eq!(ip.addresses()[16..], DESTINATION.octets());
        decrement_hop_limit(&mut bytes);
        assert_eq!(Ipv6::quoted(&bytes).unwrap().hop_limit(), 63);
    }

    #[test]
    fn each_malformation_is_told_apart() {
        let refused = |bytes: &[u8]| Ipv6::split(bytes).err();
        let whole = packet(17, &[1, 2, 3, 4]);
        assert_eq!(refused(&whole[..39]), Some(Malformed::Header));
        assert_eq!(refused(&whole[..43]), Some(Malformed::Length));
        let mut four = whole;
        four[0] = 0x4b;
        assert_eq!(refused(&four), Some(Malformed::Header));
        let mut jumbo = packet(0, &[17, 0, 0xc2, 4, 0, 1, 0, 0]);
        jumbo[4..6].fill(0);
        assert_eq!(refused(&jumbo), Some(Malformed::Jumbogram));
        assert_eq!(
            refused(&packet(59, &[])),
            None,
            "no next header, no payload"
        );
    }

    #[test]
    fn extension_headers_are_stepped_over() {
        assert_eq!(
            upper(&packet(6, &[0; 20])),
            Ok(Upper {
                protocol: 6,
                offset: 40,
                fragment: None
            })
        );
        let chain = [
            options(60, 0),
            options(43, 3),
            // Routing header without segments left, AH of 24 bytes, a whole "fragment".
            vec![51, 0, 4, 0, 0, 0, 0, 0],
            vec![
                44, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3,
            ],
            fragment(17, 0, false),
            vec![0; 8],
        ]
        .concat();
        let bytes = packet(0, &chain);
        let found = upper(&bytes).unwrap();
        assert_eq!(
            (found.protocol, found.offset, found.fragment),
            (17, 40 + 8 + 32 + 8 + 24 + 8, None)
        );
        let (_, next, rest) =
            Ipv6ExtensionsSlice::from_slice(IpNumber(0), &bytes[HEADER_LEN..]).unwrap();
        assert_eq!(next, IpNumber(17), "etherparse agrees");
        assert_eq!(bytes.len() - rest.len(), usize::from(found.offset));
    }

    #[test]
    fn every_cut_of_a_chain_is_noticed() {
        let chain = [options(60, 1), options(44, 0), fragment(17, 0, true)].concat();
        for length in 1..chain.len() {
            assert_eq!(
                upper(&packet(0, &chain[..length])),
                Err(BadExtension::Cut),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn fragments_are_told_apart() {
        let first = upper(&packet(44, &[fragment(6, 0, true), vec![9; 24]].concat())).unwrap();
        assert_eq!(
            first.fragment,
            Some(Fragment {
                id: 0xdead_beef,
                offset: 0,
                more: true
            })
        );
        assert!(!first.is_later_fragment());
        // What would be the next extension header is data in a later fragment.
        let later = upper(&packet(
            44,
            &[fragment(60, 1448, false), vec![9; 3]].concat(),
        ))
        .unwrap();
        assert_eq!((later.protocol, later.offset), (60, 48));
        assert_eq!(
            later.fragment,
            Some(Fragment {
                id: 0xdead_beef,
                offset: 1448,
                more: false
            })
        );
        assert!(later.is_later_fragment());
    }

    #[test]
    fn chains_that_no_host_sends_are_refused_by_name() {
        let again = [options(0, 0), options(6, 0)].concat();
        assert_eq!(upper(&packet(60, &again)), Err(BadExtension::Order));
        let twice = [fragment(44, 0, true), fragment(6, 0, true)].concat();
        assert_eq!(upper(&packet(44, &twice)), Err(BadExtension::Order));
        let routed = [17, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(upper(&packet(43, &routed)), Err(BadExtension::Routed));
        let long = |count: usize| {
            let mut chain: Vec<u8> = (1..count).flat_map(|_| options(60, 0)).collect();
            chain.extend(options(17, 0));
            upper(&packet(60, &chain)).map(|upper| upper.offset)
        };
        assert_eq!(long(MAX_EXTENSIONS), Ok(40 + 64));
        assert_eq!(long(MAX_EXTENSIONS + 1), Err(BadExtension::TooMany));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_offsets_stay_inside(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            next in prop::sample::select(vec![0_u8, 43, 44, 51, 60, 6]),
        ) {
            if let [first, _, _, _, high, low, header, ..] = bytes.as_mut_slice() {
                *first = 0x60;
                *header = next;
                *high = 0;
                *low = low.saturating_sub(60);
            }
            if let Ok((ip, payload)) = Ipv6::split(&bytes)
                && let Ok(upper) = ip.upper(payload) {
                prop_assert!(usize::from(upper.offset) <= ip.total_len());
            }
        }
    }
}
