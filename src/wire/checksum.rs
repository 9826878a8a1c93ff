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

/// The checksum of a header that is at hand as numbers, its words in the order of the wire, as a number.
#[inline]
pub fn of_words(words: &[u32]) -> u16 {
    !fold(words.iter().map(|word| u64::from(*word)).sum())
}

/// Whether `bytes`, checksum field included, sum up as a correct header does.
#[inline]
pub fn is_valid(bytes: &[u8]) -> bool {
    fold(accumulate(0, bytes)) == 0xffff
}

/// The checksum of a segment below an IPv4 header: pseudo-header (RFC 9293 §3.1) and `segment`,
/// whose own checksum field must read as zero.
pub fn compute_with_pseudo_v4(addresses: [[u8; 4]; 2], protocol: u8, segment: &[u8]) -> [u8; 2] {
    (!fold(sum_v4(addresses.as_flattened(), protocol, segment))).to_ne_bytes()
}

/// The checksum of a segment below an IPv6 header: pseudo-header (RFC 8200 §8.1) and `segment`,
/// whose own checksum field must read as zero. The addresses are source and destination as they
/// lie in the header.
pub fn compute_with_pseudo_v6(addresses: &[u8; 32], protocol: u8, segment: &[u8]) -> [u8; 2] {
    (!fold(sum_v6(addresses, protocol, segment))).to_ne_bytes()
}

/// The folded sum of the pseudo-header of a segment of so many bytes, not complemented: what a sender leaves in the
/// checksum's place for its card. The addresses are source and destination as they lie in the header.
#[inline]
pub fn pseudo_v4(addresses: &[u8; 8], protocol: u8, length: usize) -> [u8; 2] {
    fold(sum_pseudo_v4(addresses, protocol, length)).to_ne_bytes()
}

/// The same below an IPv6 header.
#[inline]
pub fn pseudo_v6(addresses: &[u8; 32], protocol: u8, length: usize) -> [u8; 2] {
    fold(sum_pseudo_v6(addresses, protocol, length)).to_ne_bytes()
}

/// Whether a segment below an IPv6 header, checksum field included, sums up. RFC 8200 §8.1.
pub fn is_valid_with_pseudo_v6(addresses: &[u8; 32], protocol: u8, segment: &[u8]) -> bool {
    fold(sum_v6(addresses, protocol, segment)) == 0xffff
}

fn sum_v4(addresses: &[u8], protocol: u8, segment: &[u8]) -> u64 {
    accumulate(sum_pseudo_v4(addresses, protocol, segment.len()), segment)
}

fn sum_v6(addresses: &[u8; 32], protocol: u8, segment: &[u8]) -> u64 {
    accumulate(sum_pseudo_v6(addresses, protocol, segment.len()), segment)
}

#[inline]
fn sum_pseudo_v4(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    accumulate(0, addresses)
        + u64::from(u16::from_ne_bytes([0, protocol]))
        + u64::from(u16::from_ne_bytes(length.to_be_bytes()))
}

#[inline]
fn sum_pseudo_v6(addresses: &[u8; 32], protocol: u8, length: usize) -> u64 {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    accumulate(0, addresses)
        + u64::from(u16::from_ne_bytes([0, protocol]))
        + u64::from(u32::from_ne_bytes(length.to_be_bytes()))
}

/// A UDP checksum as it is sent: a computed 0 goes out as 0xffff, as 0 means "none".
/// RFC 768; RFC 8200 §8.1.
#[inline]
pub const fn udp(sum: [u8; 2]) -> [u8; 2] {
    match sum {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    }
}

/// What several changed words do to a checksum; one such can be applied to every checksum that
/// covers them. RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m').
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u64);

impl Change {
    /// No change.
    pub const NONE: Self = Self(0);

    /// And a word that changed from `old` to `new`. It starts at an even offset of what is summed.
    #[inline]
    #[must_use]
    pub const fn word(self, old: [u8; 2], new: [u8; 2]) -> Self {
        let old = !u16::from_ne_bytes(old) as u64;
        Self(self.0 + old + u16::from_ne_bytes(new) as u64)
    }

    /// And two words. They start at an even offset of what is summed.
    #[inline]
    #[must_use]
    pub const fn quad(self, old: [u8; 4], new: [u8; 4]) -> Self {
        let old = !u32::from_ne_bytes(old) as u64;
        Self(self.0 + old + u32::from_ne_bytes(new) as u64)
    }

    /// And an IPv6 address.
    #[inline]
    #[must_use]
    pub fn address_v6(mut self, old: &[u8; 16], new: &[u8; 16]) -> Self {
        for (old, new) in old.as_chunks().0.iter().zip(new.as_chunks().0) {
            self = self.quad(*old, *new);
        }
        self
    }

    /// The checksum that was `sum` before.
    #[inline]
    pub const fn apply(self, sum: [u8; 2]) -> [u8; 2] {
        (!fold(self.0 + !u16::from_ne_bytes(sum) as u64)).to_ne_bytes()
    }
}

/// The checksum after one word of the data changed from `old` to `new`:
/// HC' = ~(~HC + ~m + m'). RFC 1624 §3, equation 3; equation 2 fails at 0xffff.
#[inline]
pub const fn update_word(sum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    Change::NONE.word(old, new).apply(sum)
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

    #[test]
    fn the_pseudo_header_of_ipv6_has_a_long_length() {
        let segment = [0x04, 0xd2, 0x00, 0x50, 0, 9, 0, 0, 9];
        let addresses: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).unwrap() + 1);
        let mut whole = addresses.to_vec();
        whole.extend([0, 0, 0, 9, 0, 0, 0, 17]);
        whole.extend(segment);
        let sum = compute_with_pseudo_v6(&addresses, 17, &segment);
        assert_eq!(sum, naive(&whole));
        let mut filled = segment;
        filled[6..8].copy_from_slice(&sum);
        assert!(is_valid_with_pseudo_v6(&addresses, 17, &filled));
        assert!(!is_valid_with_pseudo_v6(&addresses, 6, &filled));
    }

    #[test]
    fn a_udp_sum_is_never_zero() {
        assert_eq!(udp([0, 0]), [0xff, 0xff]);
        assert_eq!(udp([0, 1]), [0, 1]);
    }

    proptest! {
        #[test]
        fn a_change_of_many_words_equals_recomputing(
            mut before: [u8; 40],
            address: [u8; 16],
            quad: [u8; 4],
            word: [u8; 2],
        ) {
            before[..2].copy_from_slice(&[0x60, 0]);
            let mut after = before;
            after[8..24].copy_from_slice(&address);
            after[24..28].copy_from_slice(&quad);
            after[30..32].copy_from_slice(&word);
            let change = Change::NONE
                .address_v6(before[8..24].try_into().unwrap(), &address)
                .quad(before[24..28].try_into().unwrap(), quad)
                .word([before[30], before[31]], word);
            prop_assert_eq!(change.apply(compute(&before)), compute(&after));
        }

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
