//! The key of a flow: who talks to which virtual server.

use std::net::Ipv4Addr;

use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};

use crate::addr::L4Proto;

/// Client address and port, virtual address and port, protocol: two machine words.
///
/// IPv4. IPv6 flows will have a key, a record and a table of their own, so that their 37 bytes
/// cost an IPv4 flow nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Client address above virtual address.
    addresses: u64,
    /// From bit 40: client port; from bit 24: virtual port; from bit 16: kind; from bit 0: protocol.
    rest: u64,
}

/// Marks the key of a persistence template, so that no packet can have it: a client may well send
/// from port 0.
const TEMPLATE: u64 = 1 << 16;

impl FlowKey {
    /// The key of no flow.
    pub const NONE: Self = Self {
        addresses: 0,
        rest: 0,
    };

    /// The flow from `client` to the virtual server at `vip`.
    pub fn new(client: (Ipv4Addr, u16), vip: (Ipv4Addr, u16), protocol: L4Proto) -> Self {
        let [a, b, c, d] = client.0.octets();
        let [e, f, g, h] = vip.0.octets();
        let [i, j] = client.1.to_be_bytes();
        let [k, l] = vip.1.to_be_bytes();
        Self::from_wire([a, b, c, d, e, f, g, h], [i, j, k, l], protocol.number())
    }

    /// The flow of a packet from a client, from its addresses and ports as they lie in its headers.
    #[inline]
    pub const fn from_wire(addresses: [u8; 8], ports: [u8; 4], protocol: u8) -> Self {
        Self {
            addresses: u64::from_be_bytes(addresses),
            rest: (u32::from_be_bytes(ports) as u64) << 24 | protocol as u64,
        }
    }

    /// The same flow seen from the other end: what an ICMP error quotes is a packet *to* a client.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the top half is moved down"
    )]
    pub const fn reversed(self) -> Self {
        let ports = (self.rest >> 24) as u32;
        Self {
            addresses: self.addresses.rotate_left(32),
            rest: (self.rest & 0xff_ffff) | (ports.rotate_left(16) as u64) << 24,
        }
    }

    /// The key of the persistence template for this flow: the client's network of `prefix` bits
    /// instead of its address, no client port, and `port` for the virtual port.
    pub fn template(self, prefix: u8, port: u16) -> Self {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix.min(32)))
            .unwrap_or(0);
        let client = u32::from(self.client()) & mask;
        Self {
            addresses: u64::from(client) << 32 | u64::from(u32::from(self.vip())),
            rest: u64::from(port) << 24 | TEMPLATE | (self.rest & 0xff),
        }
    }

    /// The client's address.
    pub const fn client(self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.addresses >> 32) as u32)
    }

    /// The virtual server's address.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is the address"
    )]
    pub const fn vip(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.addresses as u32)
    }

    /// The client's port.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bits above 56 are not used"
    )]
    pub const fn client_port(self) -> u16 {
        (self.rest >> 40) as u16
    }

    /// The virtual server's port.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the port")]
    pub const fn vport(self) -> u16 {
        (self.rest >> 24) as u16
    }

    /// The IP protocol number.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low byte is the protocol"
    )]
    pub const fn protocol(self) -> u8 {
        self.rest as u8
    }

    /// The keyed hash of the flow. Every output bit depends on every bit of the key, and on
    /// `secrets`, which nobody outside can know.
    #[inline]
    pub(super) fn hash(self, secrets: &RapidSecrets) -> u64 {
        let [a, b] = [self.addresses.to_ne_bytes(), self.rest.to_ne_bytes()];
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&a);
        bytes[8..].copy_from_slice(&b);
        rapidhash_v3_nano_inline::<true, true>(&bytes, secrets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 1, 2, 3), 4567);
    const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 80);

    #[test]
    fn a_template_covers_the_network_and_is_no_flow() {
        let key = FlowKey::new(CLIENT, VIP, L4Proto::Tcp);
        let same = FlowKey::new((Ipv4Addr::new(10, 1, 2, 200), 9), VIP, L4Proto::Tcp);
        let other = FlowKey::new((Ipv4Addr::new(10, 1, 3, 3), 4567), VIP, L4Proto::Tcp);
        assert_eq!(key.template(24, 80), same.template(24, 80));
        assert_ne!(key.template(24, 80), other.template(24, 80));
        assert_ne!(key.template(32, 80), same.template(32, 80));
        assert_eq!(key.template(0, 80), other.template(0, 80));
        let from_port_0 = FlowKey::new((CLIENT.0, 0), VIP, L4Proto::Tcp);
        assert_ne!(from_port_0, key.template(32, 80));
    }

    proptest! {
        #[test]
        fn a_key_gives_back_its_parts(
            client: (u32, u16), vip: (u32, u16), proto in prop::sample::select(vec![L4Proto::Tcp, L4Proto::Udp]),
        ) {
            let client = (Ipv4Addr::from_bits(client.0), client.1);
            let vip = (Ipv4Addr::from_bits(vip.0), vip.1);
            let key = FlowKey::new(client, vip, proto);
            prop_assert_eq!((key.client(), key.client_port()), client);
            prop_assert_eq!((key.vip(), key.vport()), vip);
            prop_assert_eq!(key.protocol(), proto.number());
            prop_assert_eq!(key.reversed(), FlowKey::new(vip, client, proto));
        }
    }
}
