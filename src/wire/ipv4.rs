//! IPv4. RFC 791 §3.1.

use std::net::Ipv4Addr;

use super::{
    checksum::{self, Change},
    pair, quad,
};

/// Length of a header without options.
pub const MIN_HEADER_LEN: usize = 20;
/// IP protocol number of an IPv4 packet in another packet. RFC 2003.
pub const PROTOCOL_IPIP: u8 = 4;
/// IP protocol number of an IPv6 packet in another packet. RFC 2473.
pub const PROTOCOL_IPV6: u8 = 41;
/// Smallest MTU that a link may have. RFC 791 §3.2.
pub const MIN_MTU: u16 = 68;
/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// The "don't fragment" flag in the word of flags and fragment offset.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// "More fragments" and the fragment offset: any of these bits makes the packet a fragment.
const FRAGMENT_BITS: u16 = 0x3fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_BITS: u16 = 0x1fff;

/// Where the source address lies in the header.
pub const SOURCE_OFFSET: usize = offset::SOURCE;
/// Where the destination address lies in the header.
pub const DESTINATION_OFFSET: usize = offset::DESTINATION;

mod offset {
    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const TOS: usize = 1;
    pub(super) const TOTAL_LENGTH: usize = 2;
    pub(super) const ID: usize = 4;
    pub(super) const FRAGMENT: usize = 6;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const CHECKSUM: usize = 10;
    pub(super) const SOURCE: usize = 12;
    pub(super) const DESTINATION: usize = 16;
}

/// Why bytes are not an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end before the header does, the version is not 4, or the IHL is below 5.
    Header,
    /// The total length is less than the header, or more than there are bytes.
    Length,
    /// The header does not sum up.
    Checksum,
}

/// The fixed part of an IPv4 header in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a>(&'a [u8; MIN_HEADER_LEN]);

impl<'a> Ipv4<'a> {
    /// The header at the front of `bytes`, whatever it says; `None` when there are fewer than 20.
    /// What an ICMP error quotes is read so: it may be cut, and its checksum is not ours to judge.
    #[inline]
    pub const fn quoted(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first_chunk() {
            Some(header) => Some(Self(header)),
            None => None,
        }
    }

    /// The header at the front of `bytes`, with the packet's payload behind the options. The
    /// payload ends where the total length says, so padding of the frame never reaches layer 4.
    ///
    /// # Errors
    /// [`Malformed`] says which of the checks that a router owes (RFC 1812 §5.2.2) failed.
    #[inline]
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let ip = Self::quoted(bytes).ok_or(Malformed::Header)?;
        let header_len = if ip.0[offset::VERSION_IHL] == 0x45 {
            if !checksum::is_valid(ip.0) {
                return Err(Malformed::Checksum);
            }
            MIN_HEADER_LEN
        } else {
            ip.check_options(bytes)?
        };
        let payload = bytes
            .get(header_len..ip.total_len())
            .ok_or(Malformed::Length)?;
        Ok((ip, payload))
    }

    #[cold]
    fn check_options(self, bytes: &[u8]) -> Result<usize, Malformed> {
        if self.version() != 4 || self.header_len() < MIN_HEADER_LEN {
            return Err(Malformed::Header);
        }
        let header = bytes.get(..self.header_len()).ok_or(Malformed::Header)?;
        if checksum::is_valid(header) {
            Ok(header.len())
        } else {
            Err(Malformed::Checksum)
        }
    }

    /// The version: 4.
    pub const fn version(self) -> u8 {
        self.0[offset::VERSION_IHL] >> 4
    }

    /// Length of the header with its options in bytes: 4 × IHL, at most 60.
    #[inline]
    pub const fn header_len(self) -> usize {
        (self.0[offset::VERSION_IHL] & 0x0f) as usize * 4
    }

    /// Whether options follow the fixed part of the header.
    #[inline]
    pub const fn has_options(self) -> bool {
        self.header_len() > MIN_HEADER_LEN
    }

    /// The byte of DSCP and ECN, once "type of service".
    #[inline]
    pub const fn tos(self) -> u8 {
        self.0[offset::TOS]
    }

    /// Identification, the same in all fragments of one packet.
    #[inline]
    pub const fn id(self) -> u16 {
        u16::from_be_bytes(pair(self.0, offset::ID))
    }

    /// Whether the sender forbids to fragment the packet.
    #[inline]
    pub const fn dont_fragment(self) -> bool {
        self.fragment_word() & DONT_FRAGMENT != 0
    }

    /// Whether fragments of the same packet follow.
    pub const fn more_fragments(self) -> bool {
        self.fragment_word() & MORE_FRAGMENTS != 0
    }

    /// Where a fragment belongs in its packet's payload, in bytes.
    pub const fn fragment_offset(self) -> usize {
        (self.fragment_word() & OFFSET_BITS) as usize * 8
    }

    #[inline]
    const fn fragment_word(self) -> u16 {
        u16::from_be_bytes(pair(self.0, offset::FRAGMENT))
    }

    /// Length of the packet, header included, in bytes.
    #[inline]
    pub const fn total_len(self) -> usize {
        u16::from_be_bytes(pair(self.0, offset::TOTAL_LENGTH)) as usize
    }

    /// Whether this is one fragment of a larger packet, the first included.
    #[inline]
    pub const fn is_fragment(self) -> bool {
        self.fragment_word() & FRAGMENT_BITS != 0
    }

    /// Whether this is a fragment that does not hold the start of the payload, hence no ports.
    pub const fn is_later_fragment(self) -> bool {
        self.fragment_word() & OFFSET_BITS != 0
    }

    /// Routers that the packet may still pass.
    #[inline]
    pub const fn ttl(self) -> u8 {
        self.0[offset::TTL]
    }

    /// IP protocol number of the payload.
    #[inline]
    pub const fn protocol(self) -> u8 {
        self.0[offset::PROTOCOL]
    }

    /// Source and destination as they lie in the header, in one piece for a flow key.
    #[inline]
    pub const fn addresses(self) -> [u8; 8] {
        let [.., a, b, c, d, e, f, g, h] = *self.0;
        [a, b, c, d, e, f, g, h]
    }

    /// The sender.
    #[inline]
    pub const fn source(self) -> Ipv4Addr {
        let [a, b, c, d] = quad(self.0, offset::SOURCE);
        Ipv4Addr::new(a, b, c, d)
    }

    /// The addressee.
    #[inline]
    pub const fn destination(self) -> Ipv4Addr {
        let [a, b, c, d] = quad(self.0, offset::DESTINATION);
        Ipv4Addr::new(a, b, c, d)
    }
}

/// Takes one from the TTL of the header at the front of `packet` and updates its checksum. The
/// caller has seen to it that the TTL is at least 2; bytes too short for a header stay as they are.
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) {
    decrement_ttl_and(packet, Change::NONE);
}

/// The same for a header in which the caller has already made another `change`.
#[inline]
pub fn decrement_ttl_and(packet: &mut [u8], change: Change) {
    let Some(header) = packet.first_chunk_mut::<MIN_HEADER_LEN>() else {
        return;
    };
    let old = pair(header, offset::TTL);
    let new = [old[0].wrapping_sub(1), old[1]];
    let sum = change.word(old, new).apply(pair(header, offset::CHECKSUM));
    header[offset::TTL] = new[0];
    header[offset::CHECKSUM..offset::CHECKSUM + 2].copy_from_slice(&sum);
}

/// Makes the header at the front of `packet` that of a fragment: `total_len` bytes in all, of the
/// packet's payload from byte `start` (a multiple of eight) on. Its checksum is computed anew.
/// `None`, and nothing has changed, when the header is cut.
pub fn set_fragment(packet: &mut [u8], total_len: u16, start: u16, more: bool) -> Option<()> {
    let header_len = Ipv4::quoted(packet)?.header_len();
    let header = packet.get_mut(..header_len.max(MIN_HEADER_LEN))?;
    let word = ((start / 8) & OFFSET_BITS) | if more { MORE_FRAGMENTS } else { 0 };
    header[offset::TOTAL_LENGTH..][..2].copy_from_slice(&total_len.to_be_bytes());
    header[offset::FRAGMENT..][..2].copy_from_slice(&word.to_be_bytes());
    fill_checksum(header);
    Some(())
}

/// Computes the checksum of a whole header, options included, and puts it in its place.
pub fn fill_checksum(header: &mut [u8]) {
    if let Some(place) = header.get_mut(offset::CHECKSUM..offset::CHECKSUM + 2) {
        place.fill(0);
        let sum = checksum::compute(header);
        header[offset::CHECKSUM..][..2].copy_from_slice(&sum);
    }
}

/// What a header of our own says; it has no options.
#[derive(Clone, Copy, Debug)]
pub struct Repr {
    /// The sender.
    pub source: Ipv4Addr,
    /// The addressee.
    pub destination: Ipv4Addr,
    /// IP protocol number of the payload.
    pub protocol: u8,
    /// Routers that the packet may pass.
    pub ttl: u8,
    /// Length of the payload in bytes.
    pub payload_len: u16,
}

/// The marks of a packet of our own that most packets have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Whether routers are forbidden to fragment it.
    pub dont_fragment: bool,
}

impl Marks {
    /// TOS 0, and identification 0 with "don't fragment" set (RFC 6864 §4.1).
    pub const ATOMIC: Self = Self {
        tos: 0,
        id: 0,
        dont_fragment: true,
    };
}

impl Repr {
    /// The header's bytes, checksum included, with [`Marks::ATOMIC`].
    pub fn emit(self) -> [u8; MIN_HEADER_LEN] {
        self.emit_with(Marks::ATOMIC)
    }

    /// The header's bytes, checksum included.
    pub fn emit_with(self, marks: Marks) -> [u8; MIN_HEADER_LEN] {
        let mut header = [0; MIN_HEADER_LEN];
        self.put(marks, &mut header);
        header
    }

    /// Writes the header, checksum included, to its place: word by word, as nothing is to be read back that was
    /// stored in smaller parts.
    #[inline(always)]
    pub fn put(self, marks: Marks, header: &mut [u8; MIN_HEADER_LEN]) {
        let total = self.payload_len.saturating_add(20);
        let fragment = if marks.dont_fragment {
            DONT_FRAGMENT
        } else {
            0
        };
        let mut words = [
            0x45 << 24 | u32::from(marks.tos) << 16 | u32::from(total),
            u32::from(marks.id) << 16 | u32::from(fragment),
            u32::from(self.ttl) << 24 | u32::from(self.protocol) << 16,
            self.source.to_bits(),
            self.destination.to_bits(),
        ];
        words[2] |= u32::from(checksum::of_words(&words));
        for (place, word) in header.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPR: Repr = Repr {
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
        protocol: PROTOCOL_TCP,
        ttl: 64,
        payload_len: 4,
    };

    fn packet() -> Vec<u8> {
        let mut bytes = REPR.emit().to_vec();
        bytes.extend([1, 2, 3, 4, 0, 0, 0]);
        bytes
    }

    /// Changes one byte and repairs the checksum, so that only the intended check can fail.
    fn edited(at: usize, value: u8) -> Vec<u8> {
        let mut bytes = packet();
        bytes[at] = value;
        bytes[10..12].fill(0);
        let sum = checksum::compute(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum);
        bytes
    }

    #[test]
    fn our_header_is_what_etherparse_builds() {
        let mut theirs = etherparse::Ipv4Header::new(
            4,
            64,
            etherparse::IpNumber::TCP,
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        )
        .unwrap();
        theirs.dont_fragment = true;
        theirs.header_checksum = theirs.calc_header_checksum();
        assert_eq!(REPR.emit().as_slice(), theirs.to_bytes().as_slice());
    }

    #[test]
    fn marks_are_where_etherparse_finds_them() {
        let marks = Marks {
            tos: 0xb9,
            id: 0x1234,
            dont_fragment: false,
        };
        let bytes = REPR.emit_with(marks);
        let (theirs, _) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
        assert_eq!((theirs.dscp.value(), theirs.ecn.value()), (0x2e, 1));
        assert_eq!(
            (theirs.identification, theirs.dont_fragment),
            (0x1234, false)
        );
        assert_eq!(theirs.header_checksum, theirs.calc_header_checksum());
        let ours = Ipv4::quoted(&bytes).unwrap();
        assert_eq!(
            (ours.tos(), ours.id(), ours.dont_fragment()),
            (0xb9, 0x1234, false)
        );
        let atomic = REPR.emit();
        let ours = Ipv4::quoted(&atomic).unwrap();
        assert_eq!((ours.tos(), ours.id(), ours.dont_fragment()), (0, 0, true));
        assert!(!ours.has_options());
    }

    #[test]
    fn a_fragment_is_marked_as_etherparse_reads_it() {
        for (offset, more) in [(0, true), (1480, true), (65528, false)] {
            let mut bytes = packet();
            set_fragment(&mut bytes, 23, offset, more).unwrap();
            let (theirs, _) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
            assert_eq!(theirs.fragment_offset.byte_offset(), offset);
            assert_eq!((theirs.more_fragments, theirs.total_len), (more, 23));
            assert!(!theirs.dont_fragment);
            let (ours, payload) = Ipv4::split(&bytes).unwrap();
            assert_eq!(ours.fragment_offset(), usize::from(offset));
            assert_eq!((ours.more_fragments(), payload.len()), (more, 3));
        }
        assert_eq!(set_fragment(&mut [0x4f; 59], 0, 0, false), None);
    }

    #[test]
    fn the_payload_ends_at_the_total_length() {
        let bytes = packet();
        let (ip, payload) = Ipv4::split(&bytes).unwrap();
        assert_eq!(payload, [1, 2, 3, 4]);
        assert_eq!((ip.version(), ip.header_len(), ip.total_len()), (4, 20, 24));
        assert_eq!((ip.ttl(), ip.protocol()), (64, 6));
        assert_eq!(
            (ip.source(), ip.destination()),
            (REPR.source, REPR.destination)
        );
        assert_eq!(ip.addresses(), [10, 0, 0, 1, 10, 0, 0, 2]);
        assert!(!ip.is_fragment());
    }

    #[test]
    fn each_malformation_is_told_apart() {
        let refused = |bytes: &[u8]| Ipv4::split(bytes).err();
        assert_eq!(refused(&packet()[..19]), Some(Malformed::Header));
        assert_eq!(refused(&edited(0, 0x55)), Some(Malformed::Header));
        assert_eq!(refused(&edited(0, 0x44)), Some(Malformed::Header));
        assert_eq!(
            refused(&edited(0, 0x4f)),
            Some(Malformed::Header),
            "60 bytes of 27"
        );
        assert_eq!(refused(&edited(3, 19)), Some(Malformed::Length));
        assert_eq!(refused(&edited(3, 28)), Some(Malformed::Length));
        let mut flipped = packet();
        flipped[8] = 63;
        assert_eq!(refused(&flipped), Some(Malformed::Checksum));
    }

    #[test]
    fn options_are_stepped_over() {
        let mut bytes = vec![
            0x46, 0, 0, 25, 0, 0, 0, 0, 64, 6, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2,
        ];
        bytes.extend([1, 1, 1, 0, 99]);
        let sum = checksum::compute(&bytes[..24]);
        bytes[10..12].copy_from_slice(&sum);
        assert_eq!(Ipv4::split(&bytes).unwrap().1, [99]);
        assert!(Ipv4::split(&bytes).unwrap().0.has_options());
        bytes[21] = 7;
        assert_eq!(Ipv4::split(&bytes).err(), Some(Malformed::Checksum));
    }

    #[test]
    fn fragments_are_known_by_flag_and_offset() {
        for (high, low, fragment, later) in [
            (0x40, 0, false, false),
            (0x20, 0, true, false),
            (0, 1, true, true),
            (0x20, 9, true, true),
        ] {
            let mut bytes = packet();
            bytes[6..8].copy_from_slice(&[high, low]);
            let ip = Ipv4::quoted(&bytes).unwrap();
            assert_eq!(
                (ip.is_fragment(), ip.is_later_fragment()),
                (fragment, later)
            );
        }
    }

    #[test]
    fn a_decremented_ttl_leaves_a_valid_header() {
        for ttl in 2..=255 {
            let mut bytes = edited(8, ttl);
            decrement_ttl(&mut bytes);
            assert_eq!(bytes, edited(8, ttl - 1));
        }
    }
}
