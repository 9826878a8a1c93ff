//! Why a frame did not simply go on, and where time goes: one list makes the enum, the names and the
//! documentation.

/// Defines a closed list of reasons that can index an array of counters.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in outputs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The index of this reason's counter.
            #[inline]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

reasons! {
    /// Why a frame was dropped.
    DropReason {
        /// The frame ends inside its Ethernet header or a VLAN tag.
        FrameTooShort => "frame-too-short",
        /// Neither IPv4 nor IPv6, nor up to two VLAN tags around it.
        EtherType => "ethertype",
        /// No IPv4 header: cut, another version, or an IHL below 5.
        Ipv4Header => "ipv4-header",
        /// The IPv4 total length is less than the header or more than the frame holds.
        Ipv4Length => "ipv4-length",
        /// The IPv4 header checksum is wrong.
        Ipv4Checksum => "ipv4-checksum",
        /// No IPv6 header: cut, or another version.
        Ipv6Header => "ipv6-header",
        /// The IPv6 payload length is more than the frame holds.
        Ipv6Length => "ipv6-length",
        /// An IPv6 packet whose length stands in an option (RFC 2675).
        Ipv6Jumbogram => "ipv6-jumbogram",
        /// The transport header is not behind the extension headers that may be looked behind.
        Ipv6Extension => "ipv6-extension",
        /// The sender's address is one that no host has: unspecified, loopback, multicast,
        /// broadcast (RFC 1812 §5.3.7).
        SourceAddress => "source-address",
        /// The frame was for a group of stations, so no router may forward it (RFC 1812 §5.3.4).
        GroupFrame => "group-frame",
        /// A later fragment whose packet's first one did not come, so that its ports are not known.
        FragmentUnknown => "fragment-unknown",
        /// The TTL or hop limit does not allow another hop, and the packet is one that is not answered.
        TtlExpired => "ttl-expired",
        /// The IP protocol is not one that is balanced.
        Protocol => "protocol",
        /// The TCP header is cut or its data offset is wrong.
        TcpHeader => "tcp-header",
        /// The UDP header is cut.
        UdpHeader => "udp-header",
        /// The SCTP header is cut, or there is no chunk.
        SctpHeader => "sctp-header",
        /// An ICMP message other than an error about a packet.
        IcmpType => "icmp-type",
        /// An ICMP error that is cut, or that does not quote a packet with ports.
        IcmpQuote => "icmp-quote",
        /// An ICMP error about a flow that is not in the table.
        IcmpUnknownFlow => "icmp-unknown-flow",
        /// No virtual server has this address, protocol and port.
        NoService => "no-service",
        /// A TCP reset for a flow that is not in the table; a reset is never answered.
        UnknownReset => "unknown-reset",
        /// SCTP for an association that is not in the table, and no INIT.
        UnknownAssociation => "unknown-association",
        /// The connection's real server has left the configuration, and `expire_nodest_conn` is off.
        RealGone => "real-gone",
        /// An answer was due, but too many were given in this second.
        ReplyLimit => "reply-limit",
        /// No answer could be made of the packet.
        ReplyImpossible => "reply-impossible",
        /// There is no route to the client of an answer.
        NoRoute => "no-route",
        /// The packet is too large for its way, and nobody can be told.
        TooBig => "too-big",
        /// An ICMP error for NAT whose checksum is wrong; with the right one it would seem whole.
        IcmpChecksum => "icmp-checksum",
        /// The first of several fragments of an SCTP packet, whose checksum NAT cannot correct.
        SctpFragment => "sctp-fragment",
        /// The packet could not be rewritten: its headers are not what they seemed.
        Rewrite => "rewrite",
        /// The real server's MAC address is not known (yet).
        NoNextHop => "no-next-hop",
        /// An ICMP error about one of our tunnel packets: it was too large, which is remembered, and its
        /// client's packet may be fragmented, so that nobody need be told.
        TunnelTooBig => "tunnel-too-big",
        /// The connection table has no room that may be taken for a new flow.
        TableFull => "table-full",
        /// The transmit ring was full, or the kernel refused to send the frame; `io_drops` tells why. Or
        /// there was no free frame for the second one of a packet that had to be cut in two.
        TransmitFull => "transmit-full",
        /// The interface that the frame was to leave by is gone, or it had come in on one that is.
        PortGone => "port-gone",
        /// The frame was another worker's to decide on or to send, and the ring to that one was full.
        HandoverFull => "handover-full",
    }
}

reasons! {
    /// Why a frame was turned into an answer to its sender.
    ReplyReason {
        /// TCP in the middle of a flow that is not in the table: a reset, as the host that has the
        /// address would send (RFC 9293 §3.5.2), lets the client connect anew at once.
        UnknownFlow => "reset-unknown-flow",
        /// TCP of a connection whose real server is down or gone (`reset_on_failure`): a reset.
        RealDown => "reset-real-down",
        /// No real server of the virtual server takes new connections: ICMP port unreachable, as IPVS sends.
        NoReal => "unreachable-no-real",
        /// A real server's packet that answers no connection (`nat_icmp_send`): ICMP port unreachable.
        NoConnection => "unreachable-no-connection",
        /// The TTL or hop limit does not allow another hop: ICMP time exceeded.
        TtlExpired => "time-exceeded",
        /// The packet is too large for its way and may not be fragmented: ICMP says how large it may be.
        TooBig => "packet-too-big",
        /// An ICMP error about one of our tunnel packets, passed on to the client whose packet was in it.
        TunnelError => "tunnel-error",
    }
}

reasons! {
    /// A part of a worker's turn, whose time is taken now and then.
    Stage {
        /// Taking back sent frames, refilling, and taking in received ones.
        Receive => "receive",
        /// Reading headers, and saying which worker has the flow.
        Classify => "classify",
        /// Finding the flow, or giving it a real server.
        Decide => "decide",
        /// Rewriting frames and putting them into transmit rings.
        Rewrite => "rewrite",
        /// Having the kernel send, and handing over to other workers.
        Transmit => "transmit",
    }
}

reasons! {
    /// What went wrong below the workers: packets lost between the interface and a worker, and calls
    /// that the kernel answered with an error. No sum is meant: a frame that was refused is among the
    /// workers' `transmit-full`, too.
    IoDrop {
        /// AF_XDP: larger than a chunk or, in copy mode, no entry in the fill ring.
        XskRxDropped => "xsk-rx-dropped",
        /// AF_XDP: the receive ring was full, as the worker is too slow.
        XskRxRingFull => "xsk-rx-ring-full",
        /// AF_XDP: times that the fill ring was found empty and that are not in `xsk-rx-dropped`;
        /// only zero-copy drivers have such.
        XskFillRingEmpty => "xsk-fill-ring-empty",
        /// AF_XDP: descriptors of ours that the kernel did not take. Anything but 0 is a bug.
        XskInvalidDescriptors => "xsk-invalid-descriptors",
        /// AF_XDP: the kernel refused to look at a transmit ring, as the interface is gone.
        XskWakeErrors => "xsk-wake-errors",
        /// AF_XDP: frames that were in the transmit ring of an interface when it was closed, and may not have been
        /// sent.
        XskClosedUnsent => "xsk-closed-unsent",
        /// AF_PACKET: the socket's queue was full, as the worker is too slow.
        PacketSocketFull => "packet-socket-full",
        /// AF_PACKET: larger than a buffer, as the MTU grew, or to be cut into segments that cannot be or that had no room.
        PacketOversized => "packet-oversized",
        /// AF_PACKET: a local sender left the checksum unfinished, in a protocol that we cannot
        /// finish.
        PacketUnfinishedChecksum => "packet-unfinished-checksum",
        /// AF_PACKET: the socket's or the device's queue had no room for a packet to send.
        PacketSendFull => "packet-send-full",
        /// AF_PACKET: a packet could not be sent: larger than the MTU, or the interface is down.
        PacketSendRefused => "packet-send-refused",
        /// A socket reported an error: its interface went down or away.
        SocketErrors => "socket-errors",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn reasons_index_their_counters_and_have_their_own_names() {
        for (n, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), n);
        }
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        let names: HashSet<_> = IoDrop::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), IoDrop::COUNT);
    }
}
