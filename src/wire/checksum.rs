//! The Internet checksum: computed (RFC 1071) and updated in place (RFC 1624).
//!
//! Sums are handled as the two bytes that lie in the packet. One's complement addition does not
//! care about byte order as long as all words have the same one (RFC 1071 §2(B)), so words are
//! read in the machine's order and nothing is swapped.

/// Adds the 16-bit words of `bytes` to `sum`; an odd last byte is padded with zero.
/// `sum` has room for 2^32 words, far more than a packet has.
#[inline]
fn accumulate(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut wide = bytes.chunks_exact(4);
    for chunk in &mut wide {
        sum += u64::from(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let mut words = wide.remainder().chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

/// The one's complement sum of the 16-bit words of a sum of wider ones. A number plus itself with
/// its halves exchanged has in its upper half the sum of both halves, the carry brought round.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum of `bytes`, whose own checksum field must read as zero. RFC 1071 §1.
#[inline]
pub fn compute(bytes: &[u8]) -> [u8; 2] {
    (!fold(accumulate(0, bytes))).to_ne_bytes()
}

/// Whether `bytes`, checksum field included, sum up as a correct header does.
#[inline]
pub fn is_valid(bytes: &[u8]) -> bool {
    fold(accumulate(0, bytes)) == 0xffff
}

/// The checksum of a TCP, UDP or ICMPv6-like segment below an IPv4 header: pseudo-header (RFC 9293
/// §3.1) and `segment`, whose own checksum field must read as zero.
pub fn compute_with_pseudo_v4(addresses: [[u8; 4]; 2], protocol: u8, segment: &[u8]) -> [u8; 2] {
    let mut sum = accumulate(0, addresses.as_flattened());
    sum += u64::from(u16::from_ne_bytes([0, protocol]));
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
    sum += u64::from(u16::from_ne_bytes(length.to_be_bytes()));
    (!fold(accumulate(sum, segment))).to_ne_bytes()
}

/// The checksum after one word of the data changed from `old` to `new`:
/// HC' = ~(~HC + ~m + m'). RFC 1624 §3, equation 3; equation 2 fails at 0xffff.
#[inline]
pub const fn update_word(sum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let sum = !u16::from_ne_bytes(sum) as u64;
    let old = !u16::from_ne_bytes(old) as u64;
    let new = u16::from_ne_bytes(new) as u64;
    (!fold(sum + old + new)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §1 word by word, with the carry taken at each step.
    fn naive(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0_u32;
        for word in bytes.chunks(2) {
            let low = word.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([word[0], low]));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        let folded = u16::try_from(sum).unwrap();
        (!folded).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(compute(&data), (!0xddf2_u16).to_be_bytes());
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(
            update_word([0xdd, 0x2f], [0x55, 0x55], [0x32, 0x85]),
            [0, 0]
        );
    }

    #[test]
    fn the_pseudo_header_is_summed_before_the_segment() {
        let segment = [0x04, 0xd2, 0x00, 0x50, 0, 0, 0, 1, 9];
        let pseudo = [10, 0, 0, 1, 10, 0, 0, 2, 0, 6, 0, 9];
        let whole: Vec<u8> = pseudo.iter().chain(&segment).copied().collect();
        let sum = compute_with_pseudo_v4([[10, 0, 0, 1], [10, 0, 0, 2]], 6, &segment);
        assert_eq!(sum, naive(&whole));
    }

    proptest! {
        #[test]
        fn compute_is_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..1600)) {
            prop_assert_eq!(compute(&bytes), naive(&bytes));
        }

        /// The header keeps a non-zero word, as every IP header does: an all-zero one has two
        /// representations of its sum.
        #[test]
        fn an_update_equals_recomputing(
            mut words in proptest::collection::vec(any::<[u8; 2]>(), 2..20),
            at in any::<prop::sample::Index>(),
            new in any::<[u8; 2]>(),
        ) {
            words[0] = [0x45, 0];
            let at = 1 + at.index(words.len() - 1);
            let before = compute(words.as_flattened());
            let old = std::mem::replace(&mut words[at], new);
            prop_assert_eq!(update_word(before, old, new), compute(words.as_flattened()));
        }

        #[test]
        fn a_sum_put_in_place_is_valid_and_a_flipped_bit_is_not(
            mut bytes in proptest::collection::vec(any::<u8>(), 10..60),
            bit in 0_usize..80,
        ) {
            bytes.truncate(bytes.len() & !1);
            bytes[0] = 0x45;
            bytes[2..4].fill(0);
            let sum = compute(&bytes);
            bytes[2..4].copy_from_slice(&sum);
            prop_assert!(is_valid(&bytes));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_valid(&bytes));
        }
    }
}
