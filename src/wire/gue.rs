//! Generic UDP encapsulation, version 0 without options, as IPVS tunnels with it.
//! draft-ietf-intarea-gue-09 §3.2.

/// Length of the header without options, behind that of UDP.
pub const HEADER_LEN: usize = 4;

/// Of the first byte: version (two bits, 0), control (one bit, 0).
const VERSION_AND_CONTROL: u8 = 0xe0;
/// Of the first byte: length of the options in words of four bytes.
const OPTION_WORDS: u8 = 0x1f;

/// The header in front of a packet of IP protocol `protocol`: 4 or 41.
pub const fn header(protocol: u8) -> [u8; HEADER_LEN] {
    [0, protocol, 0, 0]
}

/// The IP protocol of what `datagram`, the data of a UDP packet, carries, and where that starts.
/// `None` when the header is cut, of another version, or a control message.
pub fn payload(datagram: &[u8]) -> Option<(u8, usize)> {
    let &[first, protocol, _, _] = datagram.first_chunk()?;
    if first & VERSION_AND_CONTROL != 0 {
        return None;
    }
    let length = HEADER_LEN + 4 * usize::from(first & OPTION_WORDS);
    (datagram.len() >= length).then_some((protocol, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        assert_eq!(payload(&header(4)), Some((4, 4)));
        assert_eq!(payload(&header(41)), Some((41, 4)));
        assert_eq!(payload(&header(4)[..3]), None);
    }

    #[test]
    fn options_are_stepped_over_and_other_kinds_refused() {
        let mut datagram = [0; 12];
        (datagram[0], datagram[1]) = (2, 41);
        assert_eq!(payload(&datagram), Some((41, 12)));
        datagram[0] = 3;
        assert_eq!(payload(&datagram), None, "cut options");
        for first in [0x20, 0x40, 0x80] {
            datagram[0] = first;
            assert_eq!(payload(&datagram), None);
        }
    }
}
