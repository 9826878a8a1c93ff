//! Ethernet II. IEEE 802.3 §3.2.

use crate::addr::MacAddr;

/// Length of the two addresses at its front, behind which a VLAN tag goes.
pub const ADDRESSES_LEN: usize = 12;

/// Length of the header: two addresses and the EtherType.
pub const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

mod offset {
    pub(super) const DESTINATION: usize = 0;
    pub(super) const SOURCE: usize = 6;
    pub(super) const ETHER_TYPE: usize = 12;
}

/// An Ethernet header in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a>(&'a [u8; HEADER_LEN]);

impl<'a> Ethernet<'a> {
    /// The header at the front of `frame`; `None` when the frame is shorter than a header.
    #[inline]
    pub const fn new(frame: &'a [u8]) -> Option<Self> {
        match frame.first_chunk() {
            Some(header) => Some(Self(header)),
            None => None,
        }
    }

    /// The station that the frame is for.
    pub const fn destination(self) -> MacAddr {
        self.address(offset::DESTINATION)
    }

    /// The station that sent the frame.
    pub const fn source(self) -> MacAddr {
        self.address(offset::SOURCE)
    }

    /// Whether the frame is for a group of stations (IEEE 802 I/G bit).
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0[offset::DESTINATION] & 1 != 0
    }

    /// What follows the addresses: a protocol, or a VLAN tag.
    #[inline]
    pub const fn ether_type(self) -> u16 {
        u16::from_be_bytes(super::pair(self.0, offset::ETHER_TYPE))
    }

    const fn address(self, at: usize) -> MacAddr {
        let b = self.0;
        MacAddr([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5]])
    }
}

/// Sets both addresses of `frame`; a frame too short to have them stays as it is.
#[inline]
pub fn set_addresses(frame: &mut [u8], destination: MacAddr, source: MacAddr) {
    if let Some(header) = frame.first_chunk_mut::<HEADER_LEN>() {
        header[offset::DESTINATION..offset::SOURCE].copy_from_slice(&destination.0);
        header[offset::SOURCE..offset::ETHER_TYPE].copy_from_slice(&source.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];

    #[test]
    fn fields_are_where_the_standard_says() {
        let eth = Ethernet::new(&FRAME).unwrap();
        assert_eq!(eth.destination(), MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(eth.source(), MacAddr([2, 0, 0, 0, 0, 2]));
        assert_eq!(eth.ether_type(), TYPE_IPV4);
        assert!(!eth.is_group());
        assert!(Ethernet::new(&FRAME[..13]).is_none());
    }

    #[test]
    fn addresses_are_set_and_nothing_else() {
        let mut frame = [0xa5; 16];
        set_addresses(&mut frame, MacAddr([1; 6]), MacAddr([3; 6]));
        assert_eq!(
            frame,
            [1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 0xa5, 0xa5, 0xa5, 0xa5]
        );
        assert!(Ethernet::new(&frame).unwrap().is_group());
    }
}
