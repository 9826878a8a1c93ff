//! Reading a frame once: everything that later stages ask about it.

use super::{ConnTable, FlowKey, Home, Slot};
use crate::{
    addr::L4Proto,
    stats::DropReason,
    wire::{
        ethernet, icmp,
        ipv4::{self, Ipv4, Malformed},
        tcp::{Flags, Tcp},
        vlan,
    },
};

/// What a packet is to a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment from a client.
    Tcp(Flags),
    /// An ICMP error about a packet to a client; [`Packet::key`] is that packet's flow.
    IcmpError,
}

/// A classified frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// The flow that it belongs to.
    pub key: FlowKey,
    /// Where the flow's entry is, if it has one.
    pub home: Home,
    /// The entry that will most likely be looked at; known once the buckets have arrived.
    pub guess: Option<Slot>,
    /// What it is.
    pub kind: Kind,
    /// Where its IP header starts in the frame.
    pub network: u8,
    /// Its length from the IP header on, as the header says.
    pub length: u16,
}

impl Packet {
    /// What stands for the packet of a frame that could not be classified.
    pub const NONE: Self = Self {
        key: FlowKey::NONE,
        home: Home::NONE,
        guess: None,
        kind: Kind::IcmpError,
        network: 0,
        length: 0,
    };
}

/// Reads the headers of `frame` into `packet`; `conns` knows the place of its flow.
///
/// Into its place, as a packet that is put together first and then copied waits for its own stores.
///
/// # Errors
/// Why the frame can go no further; `packet` is as it was.
#[inline]
pub fn classify(frame: &[u8], packet: &mut Packet, conns: &ConnTable) -> Result<(), DropReason> {
    let (ether_type, network) = vlan::network_layer(frame).ok_or(DropReason::FrameTooShort)?;
    if ether_type != ethernet::TYPE_IPV4 {
        return Err(DropReason::EtherType);
    }
    let bytes = frame.get(network..).ok_or(DropReason::FrameTooShort)?;
    let (ip, payload) = Ipv4::split(bytes).map_err(|malformed| match malformed {
        Malformed::Header => DropReason::Ipv4Header,
        Malformed::Length => DropReason::Ipv4Length,
        Malformed::Checksum => DropReason::Ipv4Checksum,
    })?;
    if ethernet::Ethernet::new(frame).is_none_or(ethernet::Ethernet::is_group) {
        return Err(DropReason::GroupFrame);
    }
    if matches!(ip.source().octets()[0], 0 | 127 | 224..) {
        return Err(DropReason::SourceAddress);
    }
    if ip.is_fragment() {
        return Err(DropReason::Fragment);
    }
    let (key, kind) = match ip.protocol() {
        ipv4::PROTOCOL_TCP => {
            let tcp = Tcp::new(payload).ok_or(DropReason::TcpHeader)?;
            let key = FlowKey::from_wire(ip.addresses(), tcp.ports(), ipv4::PROTOCOL_TCP);
            (key, Kind::Tcp(tcp.flags()))
        }
        ipv4::PROTOCOL_ICMP => (quoted_flow(payload)?, Kind::IcmpError),
        _ => return Err(DropReason::Protocol),
    };
    if ip.ttl() <= 1 {
        return Err(DropReason::TtlExpired);
    }
    packet.key = key;
    packet.home = conns.home(&key);
    packet.guess = None;
    packet.kind = kind;
    // At most two tags behind the Ethernet header, and a total length of 16 bits.
    packet.network = u8::try_from(network).unwrap_or(u8::MAX);
    packet.length = u16::try_from(ip.total_len()).unwrap_or(u16::MAX);
    Ok(())
}

/// The flow of the packet that an ICMP error is about: one that a real server sent to a client,
/// with the virtual server's address and port as its source.
#[cold]
fn quoted_flow(message: &[u8]) -> Result<FlowKey, DropReason> {
    let error = icmp::Error::parse(message).map_err(|reason| match reason {
        icmp::NotAnError::Type => DropReason::IcmpType,
        icmp::NotAnError::Malformed | icmp::NotAnError::LaterFragment => DropReason::IcmpQuote,
    })?;
    let quoted = error.quoted();
    if L4Proto::from_number(quoted.protocol()).is_none() {
        return Err(DropReason::IcmpQuote);
    }
    Ok(FlowKey::from_wire(quoted.addresses(), error.ports(), quoted.protocol()).reversed())
}
