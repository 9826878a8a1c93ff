//! The key of a flow: who talks to which virtual server.
//!
//! An IPv4 flow's key is two machine words, an IPv6 flow's five; each family has a table of its own,
//! so that the longer addresses cost an IPv4 flow nothing. [`FlowKey`] is what the tables ask of both.

use std::{
    fmt::Debug,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};

use super::{ServiceKey, rewrite};

/// Client address and port, virtual address and port, protocol.
pub trait FlowKey: Copy + Eq + Debug + Send + 'static {
    /// The addresses of the family.
    type Addr: rewrite::Answer;

    /// The key of no flow.
    const NONE: Self;

    /// The flow from `client` to a virtual server; `None` when they are not both of this family.
    fn between(client: (IpAddr, u16), vip: ServiceKey) -> Option<Self>;

    /// The same flow seen from the other end: what an ICMP error quotes is a packet *to* a client.
    #[must_use]
    fn reversed(self) -> Self;

    /// The key of the persistence template for this flow: the client's network of `prefix` bits
    /// instead of its address, no client port, and `port` for the virtual port.
    #[must_use]
    fn template(self, prefix: u8, port: u16) -> Self;

    /// The key of the persistence template for this flow to a virtual server that goes by firewall mark: one for all
    /// addresses, ports and protocols with the mark, as in IPVS.
    #[must_use]
    fn marked_template(self, prefix: u8, mark: u32) -> Self;

    /// The client's address.
    fn client(self) -> IpAddr;

    /// The virtual server's address.
    fn vip(self) -> IpAddr;

    /// An address of this family; `None` for one of the other.
    fn own(addr: IpAddr) -> Option<Self::Addr>;

    /// The client's port.
    fn client_port(self) -> u16;

    /// The virtual server's port.
    fn vport(self) -> u16;

    /// The IP protocol number.
    fn protocol(self) -> u8;

    /// Whether both are flows of the same client endpoint and protocol, whatever they go to.
    fn has_client_of(self, other: Self) -> bool;

    /// The keyed hash of where the flow comes from: protocol, client address and port. It does not cover
    /// the virtual server, so that a real server's answer, which does not name it, finds the flow's
    /// place too (as in IPVS). Every output bit depends on every bit covered and on `secrets`,
    /// which nobody outside can know.
    fn hash(self, secrets: &RapidSecrets) -> u64;

    /// The keyed hash of all of it, for templates: no answer asks for one, and one client may have
    /// many.
    fn hash_whole(self, secrets: &RapidSecrets) -> u64;
}

/// Marks the key of a persistence template, so that no packet can have it: a client may well send
/// from port 0.
const TEMPLATE: u64 = 1 << 16;

/// What of the word that is not addresses tells where a flow comes from: client port and protocol.
const ORIGIN: u64 = 0x00ff_ff00_0000_00ff;

/// From bit 40: client port; from bit 24: virtual port; from bit 16: kind; from bit 0: protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Rest(u64);

impl Rest {
    #[inline]
    const fn new(ports: [u8; 4], protocol: u8) -> Self {
        Self((u32::from_be_bytes(ports) as u64) << 24 | protocol as u64)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the top half is moved down"
    )]
    const fn reversed(self) -> Self {
        let ports = (self.0 >> 24) as u32;
        Self((self.0 & 0xff_ffff) | (ports.rotate_left(16) as u64) << 24)
    }

    const fn template(self, port: u16) -> Self {
        Self((port as u64) << 24 | TEMPLATE | (self.0 & 0xff))
    }

    const fn marked() -> Self {
        Self(TEMPLATE)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "bits above 56 are not used"
    )]
    const fn client_port(self) -> u16 {
        (self.0 >> 40) as u16
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is the port")]
    const fn vport(self) -> u16 {
        (self.0 >> 24) as u16
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low byte is the protocol"
    )]
    const fn protocol(self) -> u8 {
        self.0 as u8
    }
}

/// The key of an IPv4 flow: two machine words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key4 {
    /// Client address above virtual address.
    addresses: u64,
    rest: Rest,
}

/// The key of an IPv6 flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key6 {
    /// Each address as two words, the upper half first.
    client: [u64; 2],
    vip: [u64; 2],
    rest: Rest,
}

impl Key4 {
    /// The flow from `client` to the virtual server at `vip`.
    pub fn new(client: (Ipv4Addr, u16), vip: (Ipv4Addr, u16), protocol: u8) -> Self {
        let [a, b, c, d] = client.0.octets();
        let [e, f, g, h] = vip.0.octets();
        let [i, j] = client.1.to_be_bytes();
        let [k, l] = vip.1.to_be_bytes();
        Self::from_wire([a, b, c, d, e, f, g, h], [i, j, k, l], protocol)
    }

    /// The flow of a packet from a client, from its addresses and ports as they lie in its headers.
    #[inline]
    pub const fn from_wire(addresses: [u8; 8], ports: [u8; 4], protocol: u8) -> Self {
        Self {
            addresses: u64::from_be_bytes(addresses),
            rest: Rest::new(ports, protocol),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is the address"
    )]
    const fn vip_bits(self) -> u32 {
        self.addresses as u32
    }

    /// The client's network of `prefix` bits.
    fn network(self, prefix: u8) -> u64 {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix.min(32)))
            .unwrap_or(0);
        u64::from((self.addresses >> 32) as u32 & mask)
    }
}

impl FlowKey for Key4 {
    type Addr = Ipv4Addr;

    #[inline]
    fn own(addr: IpAddr) -> Option<Ipv4Addr> {
        match addr {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        }
    }

    const NONE: Self = Self {
        addresses: 0,
        rest: Rest(0),
    };

    fn between(client: (IpAddr, u16), vip: ServiceKey) -> Option<Self> {
        let (IpAddr::V4(from), IpAddr::V4(to)) = (client.0, vip.endpoint.addr) else {
            return None;
        };
        let to = (to, vip.endpoint.port);
        Some(Self::new((from, client.1), to, vip.protocol.number()))
    }

    #[inline]
    fn reversed(self) -> Self {
        Self {
            addresses: self.addresses.rotate_left(32),
            rest: self.rest.reversed(),
        }
    }

    fn template(self, prefix: u8, port: u16) -> Self {
        Self {
            addresses: self.network(prefix) << 32 | u64::from(self.vip_bits()),
            rest: self.rest.template(port),
        }
    }

    fn marked_template(self, prefix: u8, mark: u32) -> Self {
        Self {
            addresses: self.network(prefix) << 32 | u64::from(mark),
            rest: Rest::marked(),
        }
    }

    #[inline]
    fn client(self) -> IpAddr {
        Ipv4Addr::from_bits((self.addresses >> 32) as u32).into()
    }

    #[inline]
    fn vip(self) -> IpAddr {
        Ipv4Addr::from_bits(self.vip_bits()).into()
    }

    #[inline]
    fn client_port(self) -> u16 {
        self.rest.client_port()
    }

    #[inline]
    fn vport(self) -> u16 {
        self.rest.vport()
    }

    #[inline]
    fn protocol(self) -> u8 {
        self.rest.protocol()
    }

    #[inline]
    fn has_client_of(self, other: Self) -> bool {
        self.addresses >> 32 == other.addresses >> 32
            && (self.rest.0 ^ other.rest.0) & (ORIGIN | TEMPLATE) == 0
    }

    #[inline]
    fn hash(self, secrets: &RapidSecrets) -> u64 {
        // 56 bits are all there is: address, port, protocol.
        let ports = self.rest.0 & ORIGIN;
        let origin = (self.addresses & 0xffff_ffff_0000_0000) | ports >> 32 | (ports & 0xff) << 24;
        rapidhash_v3_nano_inline::<true, true>(&origin.to_ne_bytes(), secrets)
    }

    fn hash_whole(self, secrets: &RapidSecrets) -> u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addresses.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.rest.0.to_ne_bytes());
        rapidhash_v3_nano_inline::<true, true>(&bytes, secrets)
    }
}

impl Key6 {
    /// The flow from `client` to the virtual server at `vip`.
    pub fn new(client: (Ipv6Addr, u16), vip: (Ipv6Addr, u16), protocol: u8) -> Self {
        let [i, j] = client.1.to_be_bytes();
        let [k, l] = vip.1.to_be_bytes();
        Self {
            client: halves(client.0),
            vip: halves(vip.0),
            rest: Rest::new([i, j, k, l], protocol),
        }
    }

    /// The flow of a packet from a client, from its addresses and ports as they lie in its headers.
    #[inline]
    pub fn from_wire(addresses: &[u8; 32], ports: [u8; 4], protocol: u8) -> Self {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&addresses[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Self {
            client: [word(0), word(8)],
            vip: [word(16), word(24)],
            rest: Rest::new(ports, protocol),
        }
    }

    fn network(self, prefix: u8) -> [u64; 2] {
        let mask = u128::MAX
            .checked_shl(128 - u32::from(prefix.min(128)))
            .unwrap_or(0);
        let [high, low] = halves(Ipv6Addr::from_bits(mask));
        [self.client[0] & high, self.client[1] & low]
    }
}

#[inline]
fn halves(addr: Ipv6Addr) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = addr.octets();
    [
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([i, j, k, l, m, n, o, p]),
    ]
}

#[inline]
fn whole([high, low]: [u64; 2]) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
}

impl FlowKey for Key6 {
    type Addr = Ipv6Addr;

    #[inline]
    fn own(addr: IpAddr) -> Option<Ipv6Addr> {
        match addr {
            IpAddr::V6(addr) => Some(addr),
            IpAddr::V4(_) => None,
        }
    }

    const NONE: Self = Self {
        client: [0; 2],
        vip: [0; 2],
        rest: Rest(0),
    };

    fn between(client: (IpAddr, u16), vip: ServiceKey) -> Option<Self> {
        let (IpAddr::V6(from), IpAddr::V6(to)) = (client.0, vip.endpoint.addr) else {
            return None;
        };
        let to = (to, vip.endpoint.port);
        Some(Self::new((from, client.1), to, vip.protocol.number()))
    }

    #[inline]
    fn reversed(self) -> Self {
        Self {
            client: self.vip,
            vip: self.client,
            rest: self.rest.reversed(),
        }
    }

    fn template(self, prefix: u8, port: u16) -> Self {
        Self {
            client: self.network(prefix),
            vip: self.vip,
            rest: self.rest.template(port),
        }
    }

    fn marked_template(self, prefix: u8, mark: u32) -> Self {
        Self {
            client: self.network(prefix),
            vip: [0, mark.into()],
            rest: Rest::marked(),
        }
    }

    #[inline]
    fn client(self) -> IpAddr {
        whole(self.client).into()
    }

    #[inline]
    fn vip(self) -> IpAddr {
        whole(self.vip).into()
    }

    #[inline]
    fn client_port(self) -> u16 {
        self.rest.client_port()
    }

    #[inline]
    fn vport(self) -> u16 {
        self.rest.vport()
    }

    #[inline]
    fn protocol(self) -> u8 {
        self.rest.protocol()
    }

    #[inline]
    fn has_client_of(self, other: Self) -> bool {
        self.client == other.client && (self.rest.0 ^ other.rest.0) & (ORIGIN | TEMPLATE) == 0
    }

    #[inline]
    fn hash(self, secrets: &RapidSecrets) -> u64 {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.client[0].to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.client[1].to_ne_bytes());
        bytes[16..].copy_from_slice(&(self.rest.0 & ORIGIN).to_ne_bytes());
        rapidhash_v3_nano_inline::<true, true>(&bytes, secrets)
    }

    fn hash_whole(self, secrets: &RapidSecrets) -> u64 {
        let mut bytes = [0; 40];
        let words = [self.client, self.vip].into_iter().flatten();
        for (place, word) in bytes.chunks_exact_mut(8).zip(words.chain([self.rest.0])) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        rapidhash_v3_nano_inline::<true, true>(&bytes, secrets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::addr::Endpoint;

    const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 1, 2, 3), 4567);
    const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 80);
    const TCP: u8 = 6;

    #[test]
    fn a_template_covers_the_network_and_is_no_flow() {
        let key = Key4::new(CLIENT, VIP, TCP);
        let same = Key4::new((Ipv4Addr::new(10, 1, 2, 200), 9), VIP, TCP);
        let other = Key4::new((Ipv4Addr::new(10, 1, 3, 3), 4567), VIP, TCP);
        assert_eq!(key.template(24, 80), same.template(24, 80));
        assert_ne!(key.template(24, 80), other.template(24, 80));
        assert_ne!(key.template(32, 80), same.template(32, 80));
        assert_eq!(key.template(0, 80), other.template(0, 80));
        let from_port_0 = Key4::new((CLIENT.0, 0), VIP, TCP);
        assert_ne!(from_port_0, key.template(32, 80));
        assert!(!from_port_0.has_client_of(key.template(32, 80)));
    }

    #[test]
    fn an_ipv6_template_covers_the_network_too() {
        let vip = ("2001:db8::1".parse().unwrap(), 80);
        let key = |client: &str| Key6::new((client.parse().unwrap(), 7), vip, TCP);
        let (one, same, other) = (
            key("2001:db8:1::1"),
            key("2001:db8:1::ffff:1"),
            key("2001:db8:2::1"),
        );
        assert_eq!(one.template(64, 80), same.template(64, 80));
        assert_ne!(one.template(128, 80), same.template(128, 80));
        assert_ne!(one.template(64, 80), other.template(64, 80));
        assert_eq!(one.template(0, 80), other.template(0, 80));
        assert_eq!(one.template(33, 80), same.template(33, 80));
    }

    #[test]
    fn a_marked_template_is_one_for_all_that_bears_the_mark() {
        let http = Key4::new(CLIENT, VIP, TCP);
        let dns = Key4::new((CLIENT.0, 9), (Ipv4Addr::new(192, 0, 2, 9), 53), 17);
        assert_eq!(http.marked_template(32, 5), dns.marked_template(32, 5));
        assert_ne!(http.marked_template(32, 5), dns.marked_template(32, 6));
    }

    /// What is promised of the keys of both families.
    fn gives_back_its_parts<K: FlowKey>(
        key: K,
        back: K,
        client: Endpoint,
        vip: Endpoint,
        protocol: u8,
    ) -> Result<(), TestCaseError> {
        let secrets = RapidSecrets::seed(5);
        prop_assert_eq!(Endpoint::new(key.client(), key.client_port()), client);
        prop_assert_eq!(Endpoint::new(key.vip(), key.vport()), vip);
        prop_assert_eq!(key.protocol(), protocol);
        prop_assert_eq!(key.reversed(), back);
        prop_assert!(key.has_client_of(key));
        let whole = if client.addr.is_ipv4() { 32 } else { 128 };
        let elsewhere = back.template(whole, 1).template(0, 2);
        prop_assert!(!key.has_client_of(elsewhere));
        prop_assert_ne!(
            key.hash_whole(&secrets),
            key.reversed().template(whole, 3).hash_whole(&secrets)
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn a_key_gives_back_its_parts(
            client: (u32, u16), vip: (u32, u16), protocol in prop::sample::select(vec![6_u8, 17, 132]),
        ) {
            let client = (Ipv4Addr::from_bits(client.0), client.1);
            let vip = (Ipv4Addr::from_bits(vip.0), vip.1);
            let (key, back) = (Key4::new(client, vip, protocol), Key4::new(vip, client, protocol));
            let ends = [client, vip].map(|(addr, port)| Endpoint::new(addr.into(), port));
            gives_back_its_parts(key, back, ends[0], ends[1], protocol)?;
        }

        #[test]
        fn an_ipv6_key_gives_back_its_parts(
            client: (u128, u16), vip: (u128, u16), protocol in prop::sample::select(vec![6_u8, 17, 132]),
        ) {
            let client = (Ipv6Addr::from_bits(client.0), client.1);
            let vip = (Ipv6Addr::from_bits(vip.0), vip.1);
            let (key, back) = (Key6::new(client, vip, protocol), Key6::new(vip, client, protocol));
            let ends = [client, vip].map(|(addr, port)| Endpoint::new(addr.into(), port));
            gives_back_its_parts(key, back, ends[0], ends[1], protocol)?;
            let mut wire = [0; 32];
            wire[..16].copy_from_slice(&client.0.octets());
            wire[16..].copy_from_slice(&vip.0.octets());
            let [a, b] = client.1.to_be_bytes();
            let [c, d] = vip.1.to_be_bytes();
            prop_assert_eq!(Key6::from_wire(&wire, [a, b, c, d], protocol), key);
        }

        /// The hash is of the client's end and of all of that; what the flow goes to is no part.
        #[test]
        fn the_hash_is_the_clients(
            client: (u32, u16), vips: [(u32, u16); 2], other: (u32, u16),
        ) {
            let secrets = RapidSecrets::seed(3);
            let key = |client: (u32, u16), vip: (u32, u16), protocol| {
                let at = |(addr, port)| (Ipv4Addr::from_bits(addr), port);
                Key4::new(at(client), at(vip), protocol).hash(&secrets)
            };
            prop_assert_eq!(key(client, vips[0], 6), key(client, vips[1], 6));
            prop_assert_ne!(key(client, vips[0], 6), key(client, vips[0], 17));
            if other != client {
                prop_assert_ne!(key(client, vips[0], 6), key(other, vips[0], 6));
            }
        }
    }
}
