//! Headers as they lie in a frame: views with named offsets over byte slices.
//!
//! A view borrows exactly the fixed part of its header as an array, so every accessor is a load at
//! a constant offset that cannot be out of bounds. What a header *means* is decided further up.

#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod gre;
pub mod gue;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod partial;
#[cfg(test)]
pub(crate) mod pcap;
pub mod sctp;
pub mod segment;
pub mod tcp;
pub mod udp;
pub mod vlan;
pub mod vrrp;

/// The two bytes of `bytes` at `at`. The offset is a constant of the calling view.
const fn pair<const N: usize>(bytes: &[u8; N], at: usize) -> [u8; 2] {
    [bytes[at], bytes[at + 1]]
}

/// The four bytes of `bytes` at `at`. The offset is a constant of the calling view.
const fn quad<const N: usize>(bytes: &[u8; N], at: usize) -> [u8; 4] {
    [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]
}
