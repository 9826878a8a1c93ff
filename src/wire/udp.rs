//! UDP. RFC 768.

use super::{pair, quad};

/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// IP protocol number of UDP.
pub const PROTOCOL: u8 = 17;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = 6;

const LENGTH_OFFSET: usize = 4;

/// A UDP header in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a>(&'a [u8; HEADER_LEN]);

impl<'a> Udp<'a> {
    /// The header at the front of `datagram`; `None` when it is cut. Its length field is not
    /// judged: a first fragment holds less, and IPVS forwards either.
    #[inline]
    pub const fn new(datagram: &'a [u8]) -> Option<Self> {
        match datagram.first_chunk() {
            Some(header) => Some(Self(header)),
            None => None,
        }
    }

    /// Source and destination port as they lie in the header, in one piece for a flow key.
    #[inline]
    pub const fn ports(self) -> [u8; 4] {
        quad(self.0, 0)
    }

    /// Length of header and data in bytes, as the header says.
    pub const fn length(self) -> u16 {
        u16::from_be_bytes(pair(self.0, LENGTH_OFFSET))
    }

    /// The checksum as it lies in the header; zero says that there is none.
    pub const fn checksum(self) -> [u8; 2] {
        pair(self.0, CHECKSUM_OFFSET)
    }
}

/// A header of our own.
#[derive(Clone, Copy, Debug)]
pub struct Repr {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Length of header and data in bytes.
    pub length: u16,
}

impl Repr {
    /// The header's bytes; the checksum, which takes the IP addresses, is zero: none.
    pub fn emit(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..2].copy_from_slice(&self.source.to_be_bytes());
        header[2..4].copy_from_slice(&self.destination.to_be_bytes());
        header[LENGTH_OFFSET..CHECKSUM_OFFSET].copy_from_slice(&self.length.to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emitted_fields_are_where_etherparse_finds_them() {
        let bytes = Repr {
            source: 40_000,
            destination: 6080,
            length: 30,
        }
        .emit();
        let (theirs, _) = etherparse::UdpHeader::from_slice(&bytes).unwrap();
        assert_eq!(
            (theirs.source_port, theirs.destination_port),
            (40_000, 6080)
        );
        assert_eq!((theirs.length, theirs.checksum), (30, 0));
        let ours = Udp::new(&bytes).unwrap();
        assert_eq!(ours.ports(), [0x9c, 0x40, 0x17, 0xc0]);
        assert_eq!((ours.length(), ours.checksum()), (30, [0, 0]));
        assert!(Udp::new(&bytes[..7]).is_none());
    }
}
