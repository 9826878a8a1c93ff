//! TCP. RFC 9293 §3.1.

use super::{pair, quad};

/// Length of a header without options.
pub const MIN_HEADER_LEN: usize = 20;

/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = 16;

mod offset {
    pub(super) const SEQUENCE: usize = 4;
    pub(super) const ACKNOWLEDGMENT: usize = 8;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
}

/// The control bits of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers: a new connection.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);

    /// Whether every bit of `other` is set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The fixed part of a TCP header in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a>(&'a [u8; MIN_HEADER_LEN]);

impl<'a> Tcp<'a> {
    /// The header at the front of `segment`; `None` when it is cut, or when its data offset lies
    /// inside the header or behind the segment.
    #[inline]
    pub const fn new(segment: &'a [u8]) -> Option<Self> {
        let Some(header) = segment.first_chunk() else {
            return None;
        };
        let tcp = Self(header);
        if tcp.header_len() < MIN_HEADER_LEN || tcp.header_len() > segment.len() {
            return None;
        }
        Some(tcp)
    }

    /// Source and destination port as they lie in the header, in one piece for a flow key.
    #[inline]
    pub const fn ports(self) -> [u8; 4] {
        quad(self.0, 0)
    }

    /// Number of the first byte of the segment.
    pub const fn sequence(self) -> u32 {
        u32::from_be_bytes(quad(self.0, offset::SEQUENCE))
    }

    /// Number of the byte that the sender expects next.
    pub const fn acknowledgment(self) -> u32 {
        u32::from_be_bytes(quad(self.0, offset::ACKNOWLEDGMENT))
    }

    /// Length of the header with its options in bytes, 0 to 60 as the data offset says.
    #[inline]
    pub const fn header_len(self) -> usize {
        (self.0[offset::DATA_OFFSET] >> 4) as usize * 4
    }

    /// The control bits.
    #[inline]
    pub const fn flags(self) -> Flags {
        Flags(self.0[offset::FLAGS])
    }

    /// The checksum as it lies in the header.
    pub const fn checksum(self) -> [u8; 2] {
        pair(self.0, CHECKSUM_OFFSET)
    }
}

/// A segment of our own: no options, no payload, window 0.
#[derive(Clone, Copy, Debug)]
pub struct Repr {
    /// Source and destination port as they lie in a header.
    pub ports: [u8; 4],
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Control bits.
    pub flags: Flags,
}

impl Repr {
    /// The header's bytes; the checksum, which takes the IP addresses, is zero.
    pub fn emit(self) -> [u8; MIN_HEADER_LEN] {
        let mut header = [0; MIN_HEADER_LEN];
        header[..4].copy_from_slice(&self.ports);
        header[offset::SEQUENCE..][..4].copy_from_slice(&self.sequence.to_be_bytes());
        header[offset::ACKNOWLEDGMENT..][..4].copy_from_slice(&self.acknowledgment.to_be_bytes());
        header[offset::DATA_OFFSET] = 5 << 4;
        header[offset::FLAGS] = self.flags.0;
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emitted_fields_are_where_etherparse_finds_them() {
        let repr = Repr {
            ports: [0x1f, 0x90, 0, 80],
            sequence: 0x0102_0304,
            acknowledgment: 0x0506_0708,
            flags: Flags::RST.union(Flags::ACK),
        };
        let bytes = repr.emit();
        let (theirs, rest) = etherparse::TcpHeader::from_slice(&bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!((theirs.source_port, theirs.destination_port), (8080, 80));
        assert_eq!(theirs.sequence_number, repr.sequence);
        assert_eq!(theirs.acknowledgment_number, repr.acknowledgment);
        assert!(theirs.rst && theirs.ack && !theirs.syn && !theirs.fin && !theirs.psh);
        assert_eq!((theirs.window_size, theirs.data_offset()), (0, 5));
        let ours = Tcp::new(&bytes).unwrap();
        assert_eq!(ours.ports(), repr.ports);
        assert_eq!(ours.sequence(), repr.sequence);
        assert_eq!(ours.acknowledgment(), repr.acknowledgment);
        assert_eq!(ours.flags(), repr.flags);
        assert_eq!(ours.checksum(), [0, 0]);
    }

    #[test]
    fn a_data_offset_outside_the_segment_is_refused() {
        let mut bytes = [0; 24];
        for (words, accepted) in [(0, false), (4, false), (5, true), (6, true), (7, false)] {
            bytes[12] = words << 4;
            assert_eq!(Tcp::new(&bytes).is_some(), accepted, "{words} words");
        }
        assert!(Tcp::new(&bytes[..19]).is_none());
    }
}
