//! Reading a frame once: everything that later stages ask about it.

use super::{
    ConnTable, FlowKey, Fragments, Home, Key4, Key6, Question, ServiceTable, Slot, Verdict,
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
    /// An ICMP error about a packet of the flow that was in a tunnel of ours.
    TunnelError,
}

/// A classified frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<K> {
    /// The flow that it belongs to. Of an answer: client and real server.
    pub key: K,
    /// Where the flow's entry is, if it has one.
    pub home: Home,
    /// The entry that will most likely be looked at; known once the buckets have arrived.
    pub guess: Option<Slot>,
    /// What it is.
    pub kind: Kind,
    /// Whether a real server behind NAT sent it, or it is about a packet to one.
    pub answers: bool,
    /// Whether it is the first of several fragments.
    pub first_fragment: bool,
    /// Where its IP header starts in the frame.
    pub network: u8,
    /// Where its transport header starts, from the IP header on; of a [`Kind::TunnelError`] the packet that
    /// was in the tunnel.
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
        home: Home::NONE,
        guess: None,
        kind: Kind::IcmpError,
        answers: false,
        first_fragment: false,
        network: 0,
        transport: 0,
        length: 0,
        ingress: PortId(0),
    };

    /// Sets all but the flow.
    fn is_about_tunnel(&mut self, network: u8, ingress: PortId, error: &TunnelError) {
        *self = Self {
            key: self.key,
            home: self.home,
            kind: Kind::TunnelError,
            network,
            ingress,
            transport: error.inner,
            ..Self::NONE
        };
    }

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

/// What stands for an ICMP error about a packet in a tunnel until it is read again, as that one.
const ABOUT_TUNNEL: Verdict = Verdict::Drop(DropReason::IcmpTunnel);

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
    /// What becomes of a frame that can go no further, and which packet is its. Of one that is answered `network` and
    /// `ingress` of that packet are set; otherwise the packets are as they were.
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
        match ether_type {
            ethernet::TYPE_IPV4 => match self.classify_v4(bytes, network, ingress, four) {
                Ok(()) => Ok(Family::V4),
                Err(ABOUT_TUNNEL) => self.about_tunnel(bytes, network, ingress, four, six),
                Err(verdict) => Err((Family::V4, verdict)),
            },
            ethernet::TYPE_IPV6 => match self.classify_v6(bytes, network, ingress, six) {
                Ok(()) => Ok(Family::V6),
                Err(ABOUT_TUNNEL) => self.about_tunnel(bytes, network, ingress, four, six),
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
            self.turned(key, kind)
        } else if protocol == ipv4::PROTOCOL_ICMP {
            self.is_not_about_tunnel(bytes)?;
            let (key, answers) = self.quoted_v4(payload).map_err(Verdict::Drop)?;
            (key, Kind::IcmpError, answers)
        } else {
            let Transport { ports, kind } = transport(protocol, payload)?;
            self.turned(Key4::from_wire(ip.addresses(), ports, protocol), kind)
        };
        packet.network = network;
        packet.ingress = ingress;
        if ip.ttl() <= 1 {
            return Err(expired(kind));
        }
        packet.key = key;
        packet.home = self.conns.0.home(&key);
        packet.guess = None;
        packet.kind = kind;
        packet.answers = answers;
        packet.first_fragment = ip.is_fragment() && kind != Kind::LaterFragment;
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
            self.turned(key, kind)
        } else if upper.protocol == ipv6::PROTOCOL_ICMPV6 {
            self.is_not_about_tunnel(bytes)?;
            let (key, answers) = self.quoted_v6(payload).map_err(Verdict::Drop)?;
            (key, Kind::IcmpError, answers)
        } else {
            let Transport { ports, kind } = transport(upper.protocol, payload)?;
            let key = Key6::from_wire(ip.addresses(), ports, upper.protocol);
            self.turned(key, kind)
        };
        packet.network = network;
        packet.ingress = ingress;
        if ip.hop_limit() <= 1 {
            return Err(expired(kind));
        }
        packet.key = key;
        packet.home = self.conns.1.home(&key);
        packet.guess = None;
        packet.kind = kind;
        packet.answers = answers;
        packet.first_fragment = upper.fragment.is_some() && kind != Kind::LaterFragment;
        packet.transport = upper.offset;
        packet.length = u16::try_from(ip.total_len()).unwrap_or(u16::MAX);
        Ok(())
    }

    /// What an ICMP error says that is about a packet of ours in a tunnel.
    fn tunnel_error(&self, bytes: &[u8]) -> Option<TunnelError> {
        TunnelError::read(bytes, |port| self.table.has_gue_port(port))
    }

    #[cold]
    fn is_not_about_tunnel(&self, bytes: &[u8]) -> Result<(), Verdict> {
        if self.table.has_tunnels() && self.tunnel_error(bytes).is_some() {
            return Err(ABOUT_TUNNEL);
        }
        Ok(())
    }

    /// The flow of a packet in a tunnel that an ICMP error is about. It may be of the other family.
    #[cold]
    fn about_tunnel(
        &mut self,
        bytes: &[u8],
        network: u8,
        ingress: PortId,
        four: &mut Packet<Key4>,
        six: &mut Packet<Key6>,
    ) -> Result<Family, (Family, Verdict)> {
        let error = self.tunnel_error(bytes).filter(|error| error.is_sound);
        let read = error.and_then(|error| {
            let inner = bytes.get(usize::from(error.inner)..)?;
            let ports = |at: usize| inner.get(at..)?.first_chunk().copied();
            let (conns4, conns6) = self.conns;
            match error.family {
                Family::V4 => {
                    let ip = Ipv4::quoted(inner).filter(|ip| !ip.is_later_fragment())?;
                    let ports = ports(ip.header_len())?;
                    four.key = Key4::from_wire(ip.addresses(), ports, ip.protocol());
                    four.home = conns4.home(&four.key);
                    four.is_about_tunnel(network, ingress, &error);
                }
                Family::V6 => {
                    let ip = Ipv6::quoted(inner)?;
                    let upper = ip.upper(inner.get(ipv6::HEADER_LEN..)?).ok()?;
                    if upper.is_later_fragment() {
                        return None;
                    }
                    let ports = ports(usize::from(upper.offset))?;
                    six.key = Key6::from_wire(ip.addresses(), ports, upper.protocol);
                    six.home = conns6.home(&six.key);
                    six.is_about_tunnel(network, ingress, &error);
                }
            }
            Some(error.family)
        });
        read.ok_or((Family::V4, ABOUT_TUNNEL))
    }

    /// The flow of a packet: as it is, or, when a real server behind NAT sent it, turned round.
    #[inline]
    fn turned<K: FlowKey>(&self, key: K, kind: Kind) -> (K, Kind, bool) {
        if self.table.has_returns() && self.is_answer(key) {
            (key.reversed(), kind, true)
        } else {
            (key, kind, false)
        }
    }

    /// Whether a real server behind NAT sent a packet, whose source is the client of `key`. One that answers from
    /// every port may also be a client of a virtual server itself.
    fn is_answer<K: FlowKey>(&self, key: K) -> bool {
        let (addr, port) = (key.client(), key.client_port());
        let Some(service) = self.table.returns(addr, key.protocol(), port) else {
            return false;
        };
        !service.any_port
            || self
                .table
                .service(&Question {
                    client: addr,
                    client_port: port,
                    vip: key.vip(),
                    vport: key.vport(),
                    protocol: key.protocol(),
                    ingress: PortId(0),
                })
                .is_none()
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
    fn quoted_v4(&self, message: &[u8]) -> Result<(Key4, bool), DropReason> {
        let error = icmp::Error::parse(message).map_err(|reason| match reason {
            icmp::NotAnError::Type => DropReason::IcmpType,
            icmp::NotAnError::Malformed | icmp::NotAnError::LaterFragment => DropReason::IcmpQuote,
        })?;
        let quoted = error.quoted();
        let key = Key4::from_wire(quoted.addresses(), error.ports(), quoted.protocol());
        self.quoted(key)
    }

    #[cold]
    fn quoted_v6(&self, message: &[u8]) -> Result<(Key6, bool), DropReason> {
        let error = icmpv6::Error::parse(message).map_err(|reason| match reason {
            icmp::NotAnError::Type => DropReason::IcmpType,
            _ => DropReason::IcmpQuote,
        })?;
        let key = Key6::from_wire(error.quoted().addresses(), error.ports(), error.protocol());
        self.quoted(key)
    }

    fn quoted<K: FlowKey>(&self, key: K) -> Result<(K, bool), DropReason> {
        if L4Proto::from_number(key.protocol()).is_none() {
            return Err(DropReason::IcmpQuote);
        }
        let to_real = self.table.has_returns()
            && self
                .table
                .returns(key.vip(), key.protocol(), key.vport())
                .is_some();
        Ok(if to_real {
            (key, true)
        } else {
            (key.reversed(), false)
        })
    }
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

/// Reads a transport header at the front of `payload`.
#[inline]
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
            (
                sctp.ports(),
                Kind::Sctp(sctp::Event::of(sctp.first_chunk())),
            )
        }
        _ => return Err(Verdict::Drop(DropReason::Protocol)),
    };
    Ok(Transport { ports, kind })
}
