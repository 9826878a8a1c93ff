//! GRE without key and sequence number, as IPVS tunnels with it. RFC 2784.

use super::{checksum, ethernet};

/// IP protocol number of GRE.
pub const PROTOCOL: u8 = 47;
/// Length of the header without a checksum.
pub const MIN_HEADER_LEN: usize = 4;
/// Length of the header with a checksum and the reserved word after it.
pub const CHECKSUM_HEADER_LEN: usize = 8;

/// The flag that a checksum is there.
const HAS_CHECKSUM: u8 = 0x80;
/// Key and sequence number (RFC 2890): four bytes each, where there.
const HAS_KEY: u8 = 0x20;
const HAS_SEQUENCE: u8 = 0x10;
/// Flags of RFC 1701 that RFC 2784 §2.3 tells a receiver to refuse: routing, strict source route,
/// recursion control.
const REFUSED: u8 = 0x4f;

/// The length of the header, by whether it has a checksum.
pub const fn header_len(checksum: bool) -> usize {
    if checksum {
        CHECKSUM_HEADER_LEN
    } else {
        MIN_HEADER_LEN
    }
}

/// The EtherType of what `packet` carries and where that starts. `None` when the header is cut, or
/// is not of version 0.
pub fn payload(packet: &[u8]) -> Option<(u16, usize)> {
    let &[flags, version, a, b] = packet.first_chunk()?;
    if flags & REFUSED != 0 || version != 0 {
        return None;
    }
    let words = [HAS_CHECKSUM, HAS_KEY, HAS_SEQUENCE]
        .iter()
        .filter(|flag| flags & **flag != 0)
        .count();
    let length = MIN_HEADER_LEN + 4 * words;
    (packet.len() >= length).then_some((u16::from_be_bytes([a, b]), length))
}

/// Writes the header at the front of `packet`, which has room for it before its payload: an IPv4
/// or, with `six`, an IPv6 packet. `None`, and nothing is written, when there is no room.
pub fn emit(packet: &mut [u8], six: bool, with_checksum: bool) -> Option<()> {
    let ether_type = if six {
        ethernet::TYPE_IPV6
    } else {
        ethernet::TYPE_IPV4
    };
    let [a, b] = ether_type.to_be_bytes();
    if with_checksum {
        *packet.first_chunk_mut()? = [HAS_CHECKSUM, 0, a, b, 0, 0, 0, 0];
        let sum = checksum::compute(packet);
        packet.get_mut(4..6)?.copy_from_slice(&sum);
    } else {
        *packet.first_chunk_mut()? = [0, 0, a, b];
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        for (six, ether_type) in [(false, 0x0800), (true, 0x86dd)] {
            for with_checksum in [false, true] {
                let length = header_len(with_checksum);
                let mut packet = vec![0x5a; length + 21];
                emit(&mut packet, six, with_checksum).unwrap();
                assert_eq!(payload(&packet), Some((ether_type, length)));
                assert_eq!(packet[0], if with_checksum { 0x80 } else { 0 });
                assert_eq!(packet[length..], [0x5a; 21]);
                // RFC 2784 §2.5: the sum is over header and payload.
                assert_eq!(checksum::is_valid(&packet), with_checksum);
                assert_eq!(emit(&mut packet[..length - 1], six, with_checksum), None);
            }
        }
    }

    #[test]
    fn optional_words_are_stepped_over_and_old_flags_refused() {
        let header = |flags, version| [flags, version, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(payload(&header(0xb0, 0)), Some((0x0800, 16)));
        assert_eq!(payload(&header(0x30, 0)), Some((0x0800, 12)));
        assert_eq!(payload(&header(0xb0, 0)[..15]), None);
        assert_eq!(payload(&header(0x40, 0)), None);
        assert_eq!(payload(&header(0, 1)), None, "PPTP");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some((_, at)) = payload(&bytes) {
                prop_assert!(at <= bytes.len());
            }
        }
    }
}
