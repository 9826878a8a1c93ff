//! VLAN tags. IEEE 802.1Q §9.
//!
//! A tag is never changed: a frame leaves with the tags that it came with.

use super::ethernet;

/// EtherType of a customer tag (802.1Q).
pub const TYPE_CUSTOMER: u16 = 0x8100;
/// EtherType of a service tag (802.1ad).
pub const TYPE_SERVICE: u16 = 0x88a8;
/// Length of one tag: its TCI and the EtherType that follows.
pub const TAG_LEN: usize = 4;
/// Tags that are looked behind: a customer tag within a service tag.
const MAX_TAGS: usize = 2;

/// The EtherType behind any tags of `frame`, and where its payload starts. `None` when the frame
/// ends before that. Behind more than two tags the EtherType is that of the third.
#[inline]
pub fn network_layer(frame: &[u8]) -> Option<(u16, usize)> {
    let ether_type = ethernet::Ethernet::new(frame)?.ether_type();
    if ether_type != TYPE_CUSTOMER && ether_type != TYPE_SERVICE {
        return Some((ether_type, ethernet::HEADER_LEN));
    }
    behind_tags(frame, ether_type)
}

#[cold]
fn behind_tags(frame: &[u8], mut ether_type: u16) -> Option<(u16, usize)> {
    let mut offset = ethernet::HEADER_LEN;
    for _ in 0..MAX_TAGS {
        if ether_type != TYPE_CUSTOMER && ether_type != TYPE_SERVICE {
            break;
        }
        let tag: &[u8; TAG_LEN] = frame.get(offset..)?.first_chunk()?;
        ether_type = u16::from_be_bytes(super::pair(tag, 2));
        offset += TAG_LEN;
    }
    Some((ether_type, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(types: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0x11; 12];
        for (n, ether_type) in types.iter().enumerate() {
            if n > 0 {
                bytes.extend([0, 7]);
            }
            bytes.extend(ether_type.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn up_to_two_tags_are_looked_behind() {
        assert_eq!(network_layer(&frame(&[0x0800])), Some((0x0800, 14)));
        assert_eq!(network_layer(&frame(&[0x8100, 0x0800])), Some((0x0800, 18)));
        assert_eq!(
            network_layer(&frame(&[0x88a8, 0x8100, 0x0800])),
            Some((0x0800, 22))
        );
        let three = frame(&[0x88a8, 0x8100, 0x8100, 0x0800]);
        assert_eq!(network_layer(&three), Some((0x8100, 22)));
    }

    #[test]
    fn a_cut_tag_is_no_network_layer() {
        assert_eq!(network_layer(&frame(&[0x8100])), None);
        assert_eq!(network_layer(&[0; 13]), None);
    }
}
