//! Reading a frame once: everything that later stages ask about it.

use super::{
    Candidates, ConnTable, FlowKey, Fragments, Key4, Key6, Question, ServiceTable, Slot, Verdict,
    fragments::FragmentKey,
    rewrite::{Family, TunnelError},
    sctp,
};
use crate::{
    addr::{L4Proto, PortId},
    stats::{DropReason, ReplyReason},
    time::Tick,
    wire::{
        ethernet, icmp, icmpv6,
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        sctp::Sctp,
        tcp::{Flags, Tcp},
        udp::Udp,
        vlan,
    },
};

/// What a packet is to a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment.
    Tcp(Flags),
    /// A UDP datagram.
    Udp,
    /// An SCTP packet, by what its first chunk says.
    Sctp(sctp::Event),
    /// A fragment without its packet's first bytes; the first fragment told its ports.
    LaterFragment,
    /// An ICMP error about a packet of the flow.
    IcmpError,
    /// An ICMP error about a packet of ours, in which one of the flow's went to its real server. The packet's frame
    /// may be one of the other family.
    TunnelError,
}

/// A classified frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<K> {
    /// The flow that it belongs to. Of an answer: client and real server.
    pub key: K,
    /// Where the flow's entry is, if it has one.
    pub candidates: Candidates,
    /// The entry that will most likely be looked at; known once the buckets have arrived.
    pub guess: Option<Slot>,
    /// What it is.
    pub kind: Kind,
    /// Whether a real server behind NAT sent it, or it is about a packet to one.
    pub answers: bool,
    /// Whether it is the first of several fragments.
    pub first_fragment: bool,
    /// Whether it is an ordinary packet of an established connection, which the fast path could have forwarded.
    pub is_plain: bool,
    /// Where its IP header starts in the frame.
    pub network: u8,
    /// Where its transport header starts, from the IP header on.
    pub transport: u16,
    /// Its length from the IP header on, as the header says.
    pub length: u16,
    /// Where it came in.
    pub ingress: PortId,
}

impl<K: FlowKey> Packet<K> {
    /// What stands for the packet of a frame that could not be classified.
    pub const NONE: Self = Self {
        key: K::NONE,
        candidates: Candidates::NONE,
        guess: None,
        kind: Kind::IcmpError,
        answers: false,
        first_fragment: false,
        is_plain: false,
        network: 0,
        transport: 0,
        length: 0,
        ingress: PortId(0),
    };

    /// What decides which virtual server it is for.
    pub fn question(&self) -> Question {
        Question {
            client: self.key.client(),
            client_port: self.key.client_port(),
            vip: self.key.vip(),
            vport: self.key.vport(),
            protocol: self.key.protocol(),
            ingress: self.ingress,
        }
    }
}

/// What is known of a packet's transport header.
struct Transport {
    ports: [u8; 4],
    kind: Kind,
}

/// What classification looks at.
pub struct Classifier<'a> {
    /// The tables that know the places of flows.
    pub conns: (&'a ConnTable<Key4>, &'a ConnTable<Key6>),
    /// Which packets are answers.
    pub table: &'a ServiceTable,
    /// The ports of packets that come in fragments.
    pub fragments: &'a mut Fragments,
    /// Now.
    pub tick: Tick,
}

impl Classifier<'_> {
    /// Reads the headers of `frame`, which came in on `ingress`, into the packet of its family.
    ///
    /// Into its place, as a packet that is put together first and then copied waits for its own stores.
    ///
    /// # Errors
    /// What becomes of a frame that can go no further, and which packet is its. Of one that is answered `network`,
    /// `ingress` and `answers` of that packet are set; otherwise the packets are as they were.
    #[inline]
    pub fn classify(
        &mut self,
        frame: &[u8],
        ingress: PortId,
        four: &mut Packet<Key4>,
        six: &mut Packet<Key6>,
    ) -> Result<Family, (Family, Verdict)> {
        let refused = |reason| (Family::V4, Verdict::Drop(reason));
        let (ether_type, network) =
            vlan::network_layer(frame).ok_or_else(|| refused(DropReason::FrameTooShort))?;
        let bytes = frame
            .get(network..)
            .ok_or_else(|| refused(DropReason::FrameTooShort))?;
        if ethernet::Ethernet::new(frame).is_none_or(ethernet::Ethernet::is_group) {
            return Err(refused(DropReason::GroupFrame));
        }
        // At most two tags behind the Ethernet header.
        let network = u8::try_from(network).unwrap_or(u8::MAX);
        if self.table.has_tunnels()
            && is_icmp(ether_type, bytes)
            && let Some(result) = self.tunnel_error(bytes, network, ingress, four, six)
        {
            return result;
        }
        match ether_type {
            ethernet::TYPE_IPV4 => match self.classify_v4(bytes, network, ingress, four) {
                Ok(()) => Ok(Family::V4),
                Err(verdict) => Err((Family::V4, verdict)),
            },
            ethernet::TYPE_IPV6 => match self.classify_v6(bytes, network, ingress, six) {
                Ok(()) => Ok(Family::V6),
                Err(verdict) => Err((Family::V6, verdict)),
            },
            _ => Err(refused(DropReason::EtherType)),
        }
    }

    #[inline]
    fn classify_v4(
        &mut self,
        bytes: &[u8],
        network: u8,
        ingress: PortId,
        packet: &mut Packet<Key4>,
    ) -> Result<(), Verdict> {
        let (ip, payload) = Ipv4::split(bytes).map_err(|malformed| {
            Verdict::Drop(match malformed {
                ipv4::Malformed::Header => DropReason::Ipv4Header,
                ipv4::Malformed::Length => DropReason::Ipv4Length,
                ipv4::Malformed::Checksum => DropReason::Ipv4Checksum,
            })
        })?;
        if matches!(ip.source().octets()[0], 0 | 127 | 224..) {
            return Err(Verdict::Drop(DropReason::SourceAddress));
        }
        let protocol = ip.protocol();
        let (key, kind, answers) = if ip.is_fragment() {
            let whole = FragmentKey {
                addresses: ip.addresses(),
                id: ip.id().into(),
                protocol,
            };
            let later = ip.is_later_fragment();
            let Transport { ports, kind } = self.fragment(whole, later, protocol, payload)?;
            let key = Key4::from_wire(ip.addresses(), ports, protocol);
            self.turned(key, kind, ingress)
        } else if protocol == ipv4::PROTOCOL_ICMP {
            let (key, answers) = self.quoted_v4(payload, ingress).map_err(Verdict::Drop)?;
            (key, Kind::IcmpError, answers)
        } else {
            let Transport { ports, kind } = transport(protocol, payload)?;
            self.turned(
                Key4::from_wire(ip.addresses(), ports, protocol),
                kind,
                ingress,
            )
        };
        packet.network = network;
        packet.ingress = ingress;
        packet.answers = answers;
        if ip.ttl() <= 1 {
            return Err(expired(kind));
        }
        packet.key = key;
        packet.candidates = self.conns.0.candidates(&key);
        packet.guess = None;
        packet.kind = kind;
        packet.first_fragment = ip.is_fragment() && kind != Kind::LaterFragment;
        packet.is_plain = false;
        // At most 60 bytes, and a total length of 16 bits.
        packet.transport = u16::try_from(ip.header_len()).unwrap_or(u16::MAX);
        packet.length = u16::try_from(ip.total_len()).unwrap_or(u16::MAX);
        Ok(())
    }

    fn classify_v6(
        &mut self,
        bytes: &[u8],
        network: u8,
        ingress: PortId,
        packet: &mut Packet<Key6>,
    ) -> Result<(), Verdict> {
        let (ip, payload) = Ipv6::split(bytes).map_err(|malformed| {
            Verdict::Drop(match malformed {
                ipv6::Malformed::Header => DropReason::Ipv6Header,
                ipv6::Malformed::Length => DropReason::Ipv6Length,
                ipv6::Malformed::Jumbogram => DropReason::Ipv6Jumbogram,
            })
        })?;
        let source = ip.source();
        if source.is_unspecified() || source.is_loopback() || source.is_multicast() {
            return Err(Verdict::Drop(DropReason::SourceAddress));
        }
        let upper = ip
            .upper(payload)
            .map_err(|_| Verdict::Drop(DropReason::Ipv6Extension))?;
        let offset = usize::from(upper.offset);
        let payload = bytes.get(offset..ip.total_len()).unwrap_or_default();
        let (key, kind, answers) = if let Some(fragment) = upper.fragment {
            let whole = FragmentKey {
                addresses: *ip.addresses(),
                id: fragment.id,
                protocol: upper.protocol,
            };
            let later = upper.is_later_fragment();
            let Transport { ports, kind } = self.fragment(whole, later, upper.protocol, payload)?;
            let key = Key6::from_wire(ip.addresses(), ports, upper.protocol);
            self.turned(key, kind, ingress)
        } else if upper.protocol == ipv6::PROTOCOL_ICMPV6 {
            let (key, answers) = self.quoted_v6(payload, ingress).map_err(Verdict::Drop)?;
            (key, Kind::IcmpError, answers)
        } else {
            let Transport { ports, kind } = transport(upper.protocol, payload)?;
            let key = Key6::from_wire(ip.addresses(), ports, upper.protocol);
            self.turned(key, kind, ingress)
        };
        packet.network = network;
        packet.ingress = ingress;
        packet.answers = answers;
        if ip.hop_limit() <= 1 {
            return Err(expired(kind));
        }
        packet.key = key;
        packet.candidates = self.conns.1.candidates(&key);
        packet.guess = None;
        packet.kind = kind;
        packet.first_fragment = upper.fragment.is_some() && kind != Kind::LaterFragment;
        packet.is_plain = false;
        packet.transport = upper.offset;
        packet.length = u16::try_from(ip.total_len()).unwrap_or(u16::MAX);
        Ok(())
    }

    /// An ICMP error about one of our tunnel packets; `None` when it is something else.
    #[cold]
    fn tunnel_error(
        &self,
        bytes: &[u8],
        network: u8,
        ingress: PortId,
        four: &mut Packet<Key4>,
        six: &mut Packet<Key6>,
    ) -> Option<Result<Family, (Family, Verdict)>> {
        let error = TunnelError::read(bytes)?;
        if !(self.table).is_tunnel_end(error.destination, error.gue_port) {
            return None;
        }
        let inner = bytes
            .get(usize::from(error.at)..usize::from(error.end))
            .unwrap_or_default();
        let read = match error.inner {
            Family::V4 => four_in_tunnel(inner).map(|key| {
                about(
                    four,
                    key,
                    self.conns.0.candidates(&key),
                    network,
                    ingress,
                    &error,
                )
            }),
            Family::V6 => six_in_tunnel(inner).map(|key| {
                about(
                    six,
                    key,
                    self.conns.1.candidates(&key),
                    network,
                    ingress,
                    &error,
                )
            }),
        };
        let drop = (error.inner, Verdict::Drop(DropReason::IcmpQuote));
        Some(read.map(|()| error.inner).ok_or(drop))
    }

    /// The flow of a packet: as it is, or, when a real server behind NAT sent it, turned round.
    // Always: where nothing has NAT it is one look at the table.
    #[inline(always)]
    fn turned<K: FlowKey>(&self, key: K, kind: Kind, ingress: PortId) -> (K, Kind, bool) {
        if self.table.has_returns() && self.is_answer(key, ingress) {
            (key.reversed(), kind, true)
        } else {
            (key, kind, false)
        }
    }

    /// Whether a real server behind NAT sent a packet, whose source is the client of `key`. One that answers from
    /// every port may also be a client of a virtual server itself.
    // Apart from the way of packets where nothing has NAT.
    #[inline(never)]
    fn is_answer<K: FlowKey>(&self, key: K, ingress: PortId) -> bool {
        let from = (self.table).returns(key.client(), key.protocol(), key.client_port());
        from.is_some_and(|service| !service.any_port || !self.is_for_service(key, ingress))
    }

    #[cold]
    fn is_for_service<K: FlowKey>(&self, key: K, ingress: PortId) -> bool {
        let packet = Packet {
            key,
            ingress,
            ..Packet::NONE
        };
        self.table.service(&packet.question()).is_some()
    }

    /// The ports of a fragment: the first has them, and leaves them for the others.
    #[cold]
    fn fragment<A: AsRef<[u8]>>(
        &mut self,
        key: FragmentKey<A>,
        later: bool,
        protocol: u8,
        payload: &[u8],
    ) -> Result<Transport, Verdict> {
        if later {
            let ports = self.fragments.find(&key, self.tick);
            return ports
                .map(|ports| Transport {
                    ports,
                    kind: Kind::LaterFragment,
                })
                .ok_or(Verdict::Park(DropReason::FragmentUnknown));
        }
        let transport = transport(protocol, payload)?;
        self.fragments.insert(&key, transport.ports, self.tick);
        Ok(transport)
    }

    /// The flow of the packet that an ICMP error is about, and whether that packet went to a real server:
    /// one that a real server sent to a client, with the virtual server's address and port as its
    /// source, or one that we sent to a real server behind NAT.
    #[cold]
    fn quoted_v4(&self, message: &[u8], ingress: PortId) -> Result<(Key4, bool), DropReason> {
        let error = icmp::Error::parse(message).map_err(|reason| match reason {
            icmp::NotAnError::Type => DropReason::IcmpType,
            icmp::NotAnError::Malformed | icmp::NotAnError::LaterFragment => DropReason::IcmpQuote,
        })?;
        let quoted = error.quoted();
        let key = Key4::from_wire(quoted.addresses(), error.ports(), quoted.protocol());
        self.quoted(key, ingress)
    }

    #[cold]
    fn quoted_v6(&self, message: &[u8], ingress: PortId) -> Result<(Key6, bool), DropReason> {
        let error = icmpv6::Error::parse(message).map_err(|reason| match reason {
            icmp::NotAnError::Type => DropReason::IcmpType,
            _ => DropReason::IcmpQuote,
        })?;
        let key = Key6::from_wire(error.quoted().addresses(), error.ports(), error.protocol());
        self.quoted(key, ingress)
    }

    fn quoted<K: FlowKey>(&self, key: K, ingress: PortId) -> Result<(K, bool), DropReason> {
        if L4Proto::from_number(key.protocol()).is_none() {
            return Err(DropReason::IcmpQuote);
        }
        let from_client = key.reversed();
        Ok(
            if self.table.has_returns() && self.is_answer(from_client, ingress) {
                (key, true)
            } else {
                (from_client, false)
            },
        )
    }
}

/// Whether a packet looks like one of ICMP.
#[inline]
fn is_icmp(ether_type: u16, bytes: &[u8]) -> bool {
    match ether_type {
        ethernet::TYPE_IPV4 => bytes.get(9) == Some(&ipv4::PROTOCOL_ICMP),
        ethernet::TYPE_IPV6 => bytes.get(6) == Some(&ipv6::PROTOCOL_ICMPV6),
        _ => false,
    }
}

/// The flow of a client's packet whose front is all that is left of it.
fn four_in_tunnel(packet: &[u8]) -> Option<Key4> {
    let ip = Ipv4::quoted(packet).filter(|ip| ip.version() == 4 && !ip.is_later_fragment())?;
    let ports = packet.get(ip.header_len()..)?.first_chunk()?;
    let protocol = L4Proto::from_number(ip.protocol())?.number();
    Some(Key4::from_wire(ip.addresses(), *ports, protocol))
}

fn six_in_tunnel(packet: &[u8]) -> Option<Key6> {
    let ip = Ipv6::quoted(packet).filter(|ip| ip.version() == 6)?;
    let upper = ip.upper(packet.get(ipv6::HEADER_LEN..)?).ok()?;
    if upper.is_later_fragment() {
        return None;
    }
    let ports = packet.get(usize::from(upper.offset)..)?.first_chunk()?;
    let protocol = L4Proto::from_number(upper.protocol)?.number();
    Some(Key6::from_wire(ip.addresses(), *ports, protocol))
}

/// Makes `packet` that of an error about a tunnel packet of this flow.
fn about<K: FlowKey>(
    packet: &mut Packet<K>,
    key: K,
    candidates: Candidates,
    network: u8,
    ingress: PortId,
    error: &TunnelError,
) {
    *packet = Packet {
        key,
        candidates,
        kind: Kind::TunnelError,
        network,
        transport: error.at,
        length: error.end,
        ingress,
        ..Packet::NONE
    };
}

/// What becomes of a packet that may pass no further router: an ICMP error is never answered.
const fn expired(kind: Kind) -> Verdict {
    match kind {
        Kind::IcmpError | Kind::TunnelError | Kind::LaterFragment => {
            Verdict::Drop(DropReason::TtlExpired)
        }
        _ => Verdict::Reply(ReplyReason::TtlExpired),
    }
}

/// What an SCTP packet says: what its first chunk does, but for an ABORT right behind a cookie, as IPVS looks.
fn sctp_event(sctp: Sctp<'_>, packet: &[u8]) -> sctp::Event {
    let first = sctp::Event::of(sctp.first_chunk());
    if !matches!(first, sctp::Event::CookieEcho | sctp::Event::CookieAck) {
        return first;
    }
    let behind = usize::from(sctp.first_chunk_len()).next_multiple_of(4);
    let second = packet.get(crate::wire::sctp::HEADER_LEN + behind);
    match second.map(|chunk| sctp::Event::of(*chunk)) {
        Some(sctp::Event::Abort) if behind >= 4 => sctp::Event::Abort,
        _ => first,
    }
}

/// Reads a transport header at the front of `payload`.
// Always: its result is too large to be handed back but through memory.
#[inline(always)]
fn transport(protocol: u8, payload: &[u8]) -> Result<Transport, Verdict> {
    let (ports, kind) = match protocol {
        ipv4::PROTOCOL_TCP => {
            let tcp = Tcp::new(payload).ok_or(Verdict::Drop(DropReason::TcpHeader))?;
            (tcp.ports(), Kind::Tcp(tcp.flags()))
        }
        crate::wire::udp::PROTOCOL => {
            let udp = Udp::new(payload).ok_or(Verdict::Drop(DropReason::UdpHeader))?;
            (udp.ports(), Kind::Udp)
        }
        crate::wire::sctp::PROTOCOL => {
            let sctp = Sctp::new(payload).ok_or(Verdict::Drop(DropReason::SctpHeader))?;
            (sctp.ports(), Kind::Sctp(sctp_event(sctp, payload)))
        }
        _ => return Err(Verdict::Drop(DropReason::Protocol)),
    };
    Ok(Transport { ports, kind })
}
