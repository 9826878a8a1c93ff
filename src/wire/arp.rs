//! ARP for IPv4 over Ethernet, as far as a VRRP master speaks it. RFC 826, RFC 5227 §3.

use std::net::Ipv4Addr;

use crate::addr::MacAddr;

/// Bytes of a gratuitous ARP frame: 14 of Ethernet and 28 of ARP. The driver pads it to 60.
pub const GRATUITOUS_LEN: usize = 42;

/// An Ethernet broadcast that tells the link that `address` is at `mac`.
///
/// As keepalived sends it: a *request* (op 1) whose sender and target address are the VIP and
/// whose target hardware address is all ones. Requests update neighbour caches that ignore
/// unsolicited replies.
pub fn gratuitous(mac: MacAddr, address: Ipv4Addr) -> [u8; GRATUITOUS_LEN] {
    let mut frame = [0; GRATUITOUS_LEN];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&MacAddr::BROADCAST.0);
    put(&mac.0);
    put(&ETHERTYPE_ARP.to_be_bytes());
    // Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4, operation request.
    put(&[0, 1, 8, 0, 6, 4, 0, 1]);
    put(&mac.0);
    put(&address.octets());
    put(&MacAddr::BROADCAST.0);
    put(&address.octets());
    frame
}

const ETHERTYPE_ARP: u16 = 0x0806;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_arp_is_the_one_that_keepalived_sends() {
        let frame = gratuitous(
            MacAddr([0x02, 0, 0, 0, 0x99, 0x02]),
            Ipv4Addr::new(198, 51, 100, 10),
        );
        let keepalived = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x00, 0x99, 0x02, 0x08, 0x06,
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x99, 0x02,
            0xc6, 0x33, 0x64, 0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc6, 0x33, 0x64, 0x0a,
        ];
        assert_eq!(frame, keepalived);
    }

    #[test]
    fn an_independent_reader_understands_it() {
        let mac = MacAddr([2, 4, 6, 8, 10, 12]);
        let address = Ipv4Addr::new(10, 0, 0, 148);
        let frame = gratuitous(mac, address);
        let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Arp(arp)) = sliced.net else {
            panic!("not read as ARP: {sliced:?}");
        };
        assert_eq!(arp.operation(), etherparse::ArpOperation::REQUEST);
        assert_eq!(arp.sender_hw_addr(), mac.0);
        assert_eq!(arp.sender_protocol_addr(), address.octets());
        assert_eq!(arp.target_hw_addr(), [0xff; 6]);
        assert_eq!(arp.target_protocol_addr(), address.octets());
    }
}
