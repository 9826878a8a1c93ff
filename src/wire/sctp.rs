//! SCTP: the common header, the kind of the first chunk, and the CRC32c. RFC 9260 §3, §6.8.

use super::quad;

/// Length of the common header.
pub const HEADER_LEN: usize = 12;
/// IP protocol number of SCTP.
pub const PROTOCOL: u8 = 132;

/// Length of a chunk's header.
const CHUNK_HEADER_LEN: usize = 4;
const TAG_OFFSET: usize = 4;
const CHECKSUM_OFFSET: usize = 8;
const DATA_OFFSET: usize = 12;

/// The common header and the header of the first chunk in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Sctp<'a>(&'a [u8; HEADER_LEN + CHUNK_HEADER_LEN]);

impl<'a> Sctp<'a> {
    /// The headers at the front of `packet`; `None` when it is too short to hold a chunk, as IPVS
    /// refuses it.
    #[inline]
    pub const fn new(packet: &'a [u8]) -> Option<Self> {
        match packet.first_chunk() {
            Some(headers) => Some(Self(headers)),
            None => None,
        }
    }

    /// Source and destination port as they lie in the header, in one piece for a flow key.
    #[inline]
    pub const fn ports(self) -> [u8; 4] {
        quad(self.0, 0)
    }

    /// The verification tag; 0 in a packet that starts an association.
    pub const fn tag(self) -> u32 {
        u32::from_be_bytes(quad(self.0, TAG_OFFSET))
    }

    /// The kind of the first chunk: 0 DATA, 1 INIT, 2 INIT ACK, … RFC 9260 §3.2.
    #[inline]
    pub const fn first_chunk(self) -> u8 {
        self.0[HEADER_LEN]
    }

    /// Length of the first chunk in bytes, its header included, without padding.
    pub const fn first_chunk_len(self) -> u16 {
        u16::from_be_bytes([self.0[HEADER_LEN + 2], self.0[HEADER_LEN + 3]])
    }
}

/// The CRC32c of a whole packet, as it lies in the header: over everything, with zeroes where it
/// stands itself. `None` when there is no common header.
pub fn checksum(packet: &[u8]) -> Option<[u8; 4]> {
    let before = packet.get(..CHECKSUM_OFFSET)?;
    let after = packet.get(DATA_OFFSET..)?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; DATA_OFFSET - CHECKSUM_OFFSET]);
    // RFC 9260 appendix A: the register goes out with its least significant byte first.
    Some(crc32c::crc32c_append(sum, after).to_le_bytes())
}

/// Whether the CRC32c of a whole packet is right.
pub fn is_valid(packet: &[u8]) -> bool {
    stored(packet).is_some_and(|stored| checksum(packet) == Some(stored))
}

/// Whether there is zero where the CRC32c of a whole packet belongs.
#[inline]
pub fn is_without_checksum(packet: &[u8]) -> bool {
    stored(packet) == Some([0; 4])
}

/// Puts the CRC32c of a whole packet in its place; one without a common header stays as it is.
pub fn set_checksum(packet: &mut [u8]) {
    if let Some(sum) = checksum(packet) {
        store(packet, sum);
    }
}

/// Exchanges the ports of a whole packet. Its CRC32c changes by as much as a right one would, so
/// that damage done before stays visible to the receiver; a zero in place of a sum (RFC 9653:
/// none) stays zero. A packet without a common header stays as it is.
pub fn set_ports(packet: &mut [u8], ports: [u8; 4]) {
    let (Some(stored), Some(before)) = (stored(packet), checksum(packet)) else {
        return;
    };
    if let Some(place) = packet.first_chunk_mut() {
        *place = ports;
    }
    if stored == [0; 4] && before != stored {
        return;
    }
    if let Some(after) = checksum(packet) {
        let [stored, before, after] = [stored, before, after].map(u32::from_ne_bytes);
        store(packet, (stored ^ before ^ after).to_ne_bytes());
    }
}

fn stored(packet: &[u8]) -> Option<[u8; 4]> {
    packet.get(CHECKSUM_OFFSET..)?.first_chunk().copied()
}

fn store(packet: &mut [u8], sum: [u8; 4]) {
    if let Some(place) = packet.get_mut(CHECKSUM_OFFSET..DATA_OFFSET) {
        place.copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9260 appendix A, bit by bit with the reflected polynomial.
    fn naive(bytes: &[u8]) -> u32 {
        let mut register = u32::MAX;
        for byte in bytes {
            register ^= u32::from(*byte);
            for _ in 0..8 {
                let carry = register & 1;
                register = (register >> 1) ^ (carry * 0x82f6_3b78);
            }
        }
        !register
    }

    /// A COOKIE ACK from port 0x1389 to 0x138a, summed by the definition.
    fn cookie_ack() -> Vec<u8> {
        let mut bytes = vec![0x13, 0x89, 0x13, 0x8a, 1, 2, 3, 4, 0, 0, 0, 0, 11, 0, 0, 4];
        let sum = naive(&bytes);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn the_check_value_of_crc32c() {
        assert_eq!(naive(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn fields_are_where_the_standard_says() {
        let bytes = cookie_ack();
        let sctp = Sctp::new(&bytes).unwrap();
        assert_eq!(sctp.ports(), [0x13, 0x89, 0x13, 0x8a]);
        assert_eq!((sctp.tag(), sctp.first_chunk()), (0x0102_0304, 11));
        assert_eq!(sctp.first_chunk_len(), 4);
        assert!(Sctp::new(&bytes[..15]).is_none());
    }

    #[test]
    fn a_sum_of_zero_means_none_and_stays() {
        let mut bytes = cookie_ack();
        bytes[8..12].fill(0);
        set_ports(&mut bytes, [0, 1, 0, 2]);
        assert_eq!(bytes[..12], [0, 1, 0, 2, 1, 2, 3, 4, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_definition(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            bit in any::<prop::sample::Index>(),
        ) {
            set_checksum(&mut bytes);
            prop_assert_eq!(is_valid(&bytes), bytes.len() >= HEADER_LEN);
            if bytes.len() >= HEADER_LEN {
                let mut zeroed = bytes.clone();
                zeroed[8..12].fill(0);
                prop_assert_eq!(&bytes[8..12], &naive(&zeroed).to_le_bytes());
                let bit = bit.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(!is_valid(&bytes));
            }
        }

        #[test]
        fn new_ports_leave_a_right_sum_right_and_a_wrong_one_wrong(
            mut bytes in proptest::collection::vec(any::<u8>(), 12..300),
            ports: [u8; 4],
            damage in 1_u8..,
        ) {
            set_checksum(&mut bytes);
            let before = bytes.clone();
            set_ports(&mut bytes, ports);
            prop_assert!(is_valid(&bytes));
            prop_assert_eq!(&bytes[..4], &ports);
            prop_assert_eq!(&bytes[12..], &before[12..]);
            bytes[9] ^= damage;
            prop_assume!(bytes[8..12] != [0; 4]);
            set_ports(&mut bytes, [9, 9, 9, 9]);
            prop_assert!(!is_valid(&bytes));
        }
    }
}
