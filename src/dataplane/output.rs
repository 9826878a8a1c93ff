//! The last stage: each frame is rewritten as its verdict says, and passed on, answered, parked or
//! dropped.

use super::{
    handover::{Handoff, Handover, Purpose},
    io::{FrameBuf, PacketIo},
    limit::ReplyLimit,
    parking::Parking,
    publish::Reader,
};
use std::net::IpAddr;

use crate::{
    addr::{L4Proto, PortId},
    balance::{
        FlowKey, Kind, LbKind, NextHop, Packet, PathMtus, Real, RealId, RealRef, ServiceTable,
        Turn, Verdict, Way,
        rewrite::{
            self, Address, Ends, Family, Fit, Part, Passage, Place, Refused, Tunnel, TunnelError,
            TunnelKind,
        },
    },
    stats::{DropReason, ReplyReason},
    time::Tick,
    wire::{
        icmp::Problem,
        ipv4::Ipv4,
        ipv6::{self, Ipv6},
    },
};

/// What the last stage works with.
pub(super) struct Output<'a, Io: PacketIo> {
    pub(super) io: &'a mut Io,
    pub(super) reader: &'a Reader,
    pub(super) parking: &'a mut Parking<Io::Frame>,
    pub(super) limit: &'a mut ReplyLimit,
    /// What the ways to tunnelled real servers take.
    pub(super) paths: &'a mut PathMtus,
    /// The second fragment of the packet at hand, if it was cut.
    pub(super) second: Option<Io::Frame>,
    /// Identification of the last outer IPv4 header.
    pub(super) ids: &'a mut u16,
    pub(super) turn: Turn<'a>,
    /// The way to other workers, where there are any.
    pub(super) handover: Option<&'a mut Handover<Io::Parted>>,
}

/// Why a frame does not go where it was meant to.
enum Stop {
    Drop(DropReason),
    Park(DropReason),
    /// It has become an answer that leaves on this port.
    Answer(PortId),
}

impl<Io: PacketIo> Output<'_, Io> {
    /// Does with `frame` what the verdict says. `since` is when it began to wait, if it is not new.
    /// How many frames were transmitted: none, it, or it and its second fragment.
    #[inline]
    pub(super) fn send<K: FlowKey>(
        &mut self,
        mut frame: Io::Frame,
        verdict: Verdict,
        packet: &Packet<K>,
        since: Option<Tick>,
    ) -> u64 {
        let egress = match verdict {
            Verdict::Forward(real) => self.forward(&mut frame, packet, real),
            Verdict::Answer(_) | Verdict::Route => self.pass_to_client(&mut frame, packet, verdict),
            Verdict::Report(real) => self.report(&mut frame, packet, real),
            Verdict::Reply(reason) => self.reply(&mut frame, packet, reason),
            Verdict::Park(reason) => Err(Stop::Park(reason)),
            Verdict::Drop(reason) => Err(Stop::Drop(reason)),
            Verdict::Undecided | Verdict::Elsewhere(_) => Err(Stop::Drop(DropReason::NoService)),
        };
        let left = match egress {
            Ok(port) | Err(Stop::Answer(port)) => match self.io.transmit(port, frame) {
                Ok(()) => {
                    if egress.is_ok() {
                        self.count(verdict, packet.length);
                    }
                    if self.second.is_none() {
                        return 1;
                    }
                    return 1 + self.send_second(port);
                }
                Err(frame) => match self.io.carrier(port) {
                    Some(worker) => {
                        // The other one knows frames only.
                        let handed = self.hand_over(frame, worker, Purpose::Transmit(port));
                        if handed && egress.is_ok() {
                            self.count(verdict, packet.length);
                        }
                        if let Some(second) = self.second.take() {
                            self.turn.stats.cut.add(1);
                            self.hand_over(second, worker, Purpose::Transmit(port));
                        }
                        return 0;
                    }
                    None => (frame, untransmitted(self.io, port)),
                },
            },
            Err(Stop::Drop(reason)) => (frame, reason),
            Err(Stop::Park(reason)) => {
                let now = self.turn.tick;
                let parked = self.parking.park(frame, reason, since.unwrap_or(now), now);
                match parked {
                    Ok(()) => return 0,
                    Err(frame) => (frame, reason),
                }
            }
        };
        self.drop_frame(left.0, left.1);
        if let Some(second) = self.second.take() {
            self.io.release(second);
        }
        0
    }

    /// Counts a packet that has gone on, for its real server. Nothing else does: one that waits, is answered or is
    /// dropped is none.
    #[inline]
    fn count(&self, verdict: Verdict, length: u16) {
        match verdict {
            Verdict::Forward(real) => {
                let counters = self.turn.stats.real(real.0);
                counters.packets.add(1);
                counters.bytes.add(length.into());
            }
            Verdict::Answer(real) => {
                let counters = self.turn.stats.real(real.0);
                counters.packets_out.add(1);
                counters.bytes_out.add(length.into());
            }
            _ => {}
        }
    }

    /// Transmits the second fragment of a packet whose first one has gone. How many frames that were.
    #[cold]
    fn send_second(&mut self, port: PortId) -> u64 {
        let Some(second) = self.second.take() else {
            return 0;
        };
        self.turn.stats.cut.add(1);
        match self.io.transmit(port, second) {
            Ok(()) => 1,
            Err(second) => {
                self.drop_frame(second, untransmitted(self.io, port));
                0
            }
        }
    }

    /// Keeps a frame for another worker. Whether there was room for it.
    #[cold]
    pub(super) fn hand_over(&mut self, frame: Io::Frame, worker: u32, purpose: Purpose) -> bool {
        let Some(handover) = &mut self.handover else {
            self.drop_frame(frame, DropReason::HandoverFull);
            return false;
        };
        let parted = self.io.part(frame);
        let Err(parted) = handover.put(worker, Handoff { parted, purpose }) else {
            return true;
        };
        let frame = self.io.take_over(parted);
        self.drop_frame(frame, DropReason::HandoverFull);
        false
    }

    fn drop_frame(&mut self, frame: Io::Frame, reason: DropReason) {
        self.turn.stats.drops(reason).add(1);
        self.io.release(frame);
    }

    fn table(&self) -> &ServiceTable {
        self.reader.table()
    }

    /// Rewrites a frame for its real server; the port that it leaves on.
    #[inline]
    fn forward<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        id: RealId,
    ) -> Result<PortId, Stop> {
        let reader = self.reader;
        let table = reader.table();
        let real = table.in_slot(id);
        let Some((real, hop)) = real.and_then(|real| Some((real, table.next_hop(real)?))) else {
            return Err(Stop::Park(DropReason::NoNextHop));
        };
        match real.method {
            LbKind::Dr => {
                let fit = self.fits(frame, packet, hop.mtu)?;
                direct_routing::<K>(frame.bytes_mut(), packet.network, hop);
                self.cut(frame, packet.network, fit)?;
                Ok(hop.port)
            }
            LbKind::Nat => {
                let fit = self.fits(frame, packet, hop.mtu)?;
                let port = real.port_for(packet.key.vport());
                let to = K::own(real.addr).ok_or(Stop::Drop(DropReason::Rewrite))?;
                let bytes = frame.bytes_mut();
                let done = if packet.kind == Kind::IcmpError {
                    rewrite::icmp_to_real(bytes, packet.network, (to, port), hop)
                } else {
                    rewrite::nat_to_real(bytes, &place(packet)?, (to, port), hop)
                };
                done.map_err(refused)?;
                self.cut(frame, packet.network, fit)?;
                Ok(hop.port)
            }
            LbKind::Tun(kind) => {
                let real_ref = RealRef {
                    id,
                    epoch: real.epoch,
                };
                self.tunnel(frame, packet, (real_ref, real), kind, hop)
            }
        }
    }

    /// Puts a frame's packet into a tunnel to its real server.
    fn tunnel<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        (real_ref, real): (RealRef, &Real),
        kind: TunnelKind,
        hop: &NextHop,
    ) -> Result<PortId, Stop> {
        let table = self.reader.table();
        let policy = table.policy();
        let (spread, sources) = (packet.candidates.spread(), policy.tunnel_sources);
        let ends = match (table.local(real), real.addr) {
            (Some(IpAddr::V4(own)), IpAddr::V4(destination)) => Ends::V4 {
                source: sources.v4.map_or(own, |(network, prefix)| {
                    rewrite::spread_source_v4(network, prefix, spread)
                }),
                destination,
            },
            (Some(IpAddr::V6(own)), IpAddr::V6(destination)) => Ends::V6 {
                source: sources.v6.map_or(own, |(network, prefix)| {
                    rewrite::spread_source_v6(network, prefix, spread)
                }),
                destination,
            },
            _ => return Err(Stop::Park(DropReason::NoNextHop)),
        };
        let overhead = usize::from(rewrite::overhead(kind, ends.family()));
        let known = self.paths.of(real_ref, self.turn.tick);
        let mtu = known.map_or(hop.mtu, |mtu| {
            // No host goes below 1280 (RFC 8200 §5), and whoever says less of the path may have made it up: that much is
            // sent on.
            let least = match (<K::Addr as Address>::FAMILY, ends.family()) {
                (Family::V6, Family::V6) => usize::from(ipv6::MIN_MTU) + overhead,
                _ => 0,
            };
            mtu.max(u16::try_from(least).unwrap_or(u16::MAX))
                .min(hop.mtu)
        });
        let fit = if usize::from(packet.length) + overhead > usize::from(mtu) {
            self.too_large(frame, packet, mtu, Some((ends.family(), kind)))?
        } else {
            Fit::Forward
        };
        let pmtu_disc = policy.pmtu_disc;
        *self.ids = self.ids.wrapping_add(1);
        let tunnel = Tunnel {
            kind,
            ends,
            id: *self.ids,
            pmtu_disc,
            source_port: rewrite::source_port(spread),
        };
        if let Fit::Split(_) = fit {
            // Both fragments go through the tunnel.
            self.cut(frame, packet.network, fit)?;
            if let Some(second) = &mut self.second {
                encapsulate_second(second, packet.network, tunnel, hop)?;
            }
        }
        encapsulate(frame, packet.network, &tunnel, hop)?;
        if let Fit::SplitOuter(_) = fit {
            self.cut(frame, packet.network, fit)?;
        }
        Ok(hop.port)
    }

    /// Whether a packet fits through its way in one piece, or must be cut.
    #[inline]
    fn fits<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        mtu: u16,
    ) -> Result<Fit, Stop> {
        if packet.length > mtu {
            self.too_large(frame, packet, mtu, None)
        } else {
            Ok(Fit::Forward)
        }
    }

    /// Cuts the packet of a frame in two, if `fit` says so; the second one is then in `self.second`.
    #[inline]
    fn cut(&mut self, frame: &mut Io::Frame, network: u8, fit: Fit) -> Result<(), Stop> {
        match fit {
            Fit::Split(mtu) | Fit::SplitOuter(mtu) => self.cut_at(frame, network, mtu),
            Fit::Forward | Fit::TooBig(_) | Fit::Drop => Ok(()),
        }
    }

    #[cold]
    fn cut_at(&mut self, frame: &mut Io::Frame, network: u8, mtu: u16) -> Result<(), Stop> {
        let spare = self.io.blank(frame.ingress());
        let mut second = spare.ok_or(Stop::Drop(DropReason::TransmitFull))?;
        // What does not fit, and a header again: an IP header of 60 bytes, and 7 that the first fragment gives up to
        // end at a multiple of 8. A buffer may not hold more than its interface's packets.
        let rest = frame.bytes().len().saturating_sub(mtu.into()) + 60 + 7;
        let lengths = if second.resize(rest) {
            rewrite::split(frame.bytes_mut(), network, mtu, second.bytes_mut())
        } else {
            Err(Refused::TooLong)
        };
        match lengths {
            Ok((first, rest)) => {
                frame.truncate(first);
                second.truncate(rest);
                self.second = Some(second);
                Ok(())
            }
            Err(why) => {
                self.io.release(second);
                Err(refused(why))
            }
        }
    }

    /// What becomes of a packet that is larger than its way takes: it is cut in one of two ways, or stops here.
    #[cold]
    fn too_large<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        path_mtu: u16,
        tunnel: Option<(Family, TunnelKind)>,
    ) -> Result<Fit, Stop> {
        let family = <K::Addr as Address>::FAMILY;
        let bytes = frame.bytes().get(usize::from(packet.network)..);
        let passage = Passage {
            family,
            length: packet.length.into(),
            dont_fragment: bytes
                .and_then(Ipv4::quoted)
                .is_some_and(Ipv4::dont_fragment),
            silent: matches!(packet.kind, Kind::IcmpError | Kind::LaterFragment),
            path_mtu,
            tunnel,
        };
        match rewrite::fit(&passage, self.table().policy().pmtu_disc) {
            Fit::TooBig(mtu) => {
                let problem = Problem::TooBig(mtu);
                let port = self.icmp(frame, packet, problem, ReplyReason::TooBig)?;
                Err(Stop::Answer(port))
            }
            Fit::Drop => Err(Stop::Drop(DropReason::TooBig)),
            fit @ (Fit::Forward | Fit::Split(_) | Fit::SplitOuter(_)) => Ok(fit),
        }
    }

    /// Passes a real server's frame on to the client; the port that it leaves on.
    fn pass_to_client<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        verdict: Verdict,
    ) -> Result<PortId, Stop> {
        let reader = self.reader;
        let (routes, client) = (reader.table().routes(), packet.key.client());
        let neighbour;
        let hop = match routes.router(client) {
            Some(hop) => hop,
            None => {
                neighbour = self.way(packet)?;
                &neighbour
            }
        };
        let fit = self.fits(frame, packet, hop.mtu)?;
        let bytes = frame.bytes_mut();
        if verdict == Verdict::Route {
            direct_routing::<K>(bytes, packet.network, hop);
            self.cut(frame, packet.network, fit)?;
            return Ok(hop.port);
        }
        let vip = K::own(packet.key.vip()).ok_or(Stop::Drop(DropReason::Rewrite))?;
        let vip = (vip, packet.key.vport());
        let done = if packet.kind == Kind::IcmpError {
            rewrite::icmp_to_client(bytes, packet.network, vip, hop)
        } else {
            rewrite::nat_to_client(bytes, &place(packet)?, vip, hop)
        };
        done.map_err(refused)?;
        self.cut(frame, packet.network, fit)?;
        Ok(hop.port)
    }

    /// Tells the client of a packet that was in a tunnel to a real server what an ICMP error says about it, and remembers
    /// what the tunnel's path takes.
    #[cold]
    fn report<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        id: RealId,
    ) -> Result<PortId, Stop> {
        let quote = Stop::Drop(DropReason::IcmpQuote);
        let table = self.reader.table();
        let Some(real) = table.in_slot(id) else {
            return Err(quote);
        };
        let bytes = frame.bytes().get(usize::from(packet.network)..);
        let bytes = bytes.unwrap_or_default();
        let (Some(error), LbKind::Tun(kind)) = (TunnelError::read(bytes), real.method) else {
            return Err(quote);
        };
        if error.destination != real.addr {
            return Err(Stop::Drop(DropReason::IcmpUnknownFlow));
        }
        let mut mtu = table.next_hop(real).map_or(u16::MAX, |hop| hop.mtu);
        if let Some(said) = error.mtu {
            let real_ref = RealRef {
                id,
                epoch: real.epoch,
            };
            if said < mtu {
                self.paths.learn(real_ref, said, self.turn.tick);
            }
            mtu = mtu.min(said);
        }
        let Some(told) = error.told(bytes, kind, mtu) else {
            return Err(Stop::Drop(DropReason::TunnelTooBig));
        };
        let hop = self.way(packet)?;
        if !self.limit.allows(self.turn.tick) {
            return Err(Stop::Drop(DropReason::ReplyLimit));
        }
        let source = K::own(packet.key.vip()).ok_or(Stop::Drop(DropReason::Rewrite))?;
        let bytes = frame.bytes_mut();
        let length = rewrite::relay_tunnel_error(bytes, packet.network, &error, told, source, &hop)
            .map_err(refused)?;
        frame.truncate(length);
        self.turn.stats.replies(ReplyReason::TunnelError).add(1);
        Ok(hop.port)
    }

    /// The way to the client of a flow. Control is asked for a MAC address that is not known.
    // Apart from the way by a router, which needs the registers.
    #[inline(never)]
    fn way<K: FlowKey>(&self, packet: &Packet<K>) -> Result<NextHop, Stop> {
        match self.table().routes().way(packet.key.client()) {
            Way::Known(hop) => Ok(hop),
            Way::Unresolved(port, neighbour) => {
                self.reader.ask(port, neighbour);
                Err(Stop::Park(DropReason::NoNextHop))
            }
            Way::None => Err(Stop::Drop(DropReason::NoRoute)),
        }
    }

    /// Turns a frame into an answer; the port that it came in on.
    #[cold]
    fn reply<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        reason: ReplyReason,
    ) -> Result<PortId, Stop> {
        match reason {
            ReplyReason::UnknownFlow | ReplyReason::RealDown => {
                if !self.limit.allows(self.turn.tick) {
                    return Err(Stop::Drop(DropReason::ReplyLimit));
                }
                let length = rewrite::reset(frame.bytes_mut(), packet.network);
                self.replied(frame, length, reason)
            }
            ReplyReason::NoReal | ReplyReason::NoConnection => {
                self.icmp(frame, packet, Problem::PortUnreachable, reason)
            }
            ReplyReason::TtlExpired => self.icmp(frame, packet, Problem::TimeExceeded, reason),
            // Said where the size is known.
            ReplyReason::TooBig | ReplyReason::TunnelError => Err(Stop::Drop(DropReason::TooBig)),
        }
    }

    /// Turns a frame into an ICMP error about its packet. A client gets it from the address that it
    /// asked, as from Linux, where that is one of the host's own; a real server behind NAT from our port.
    #[cold]
    fn icmp<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        problem: Problem,
        reason: ReplyReason,
    ) -> Result<PortId, Stop> {
        if !self.limit.allows(self.turn.tick) {
            return Err(Stop::Drop(DropReason::ReplyLimit));
        }
        let port = self.table().port(frame.ingress());
        let family = <K::Addr as Address>::FAMILY;
        let bytes = frame.bytes().get(usize::from(packet.network)..);
        let source = match (family, packet.answers) {
            (Family::V4, false) => bytes
                .and_then(Ipv4::quoted)
                .map(|ip| ip.destination().into()),
            (Family::V6, false) => bytes
                .and_then(Ipv6::quoted)
                .map(|ip| ip.destination().into()),
            (Family::V4, true) => port.v4.map(IpAddr::V4),
            (Family::V6, true) => port.v6.map(IpAddr::V6),
        };
        let source = source.and_then(K::own);
        let source = source.ok_or(Stop::Drop(DropReason::ReplyImpossible))?;
        if !frame.grow_front(rewrite::icmp_room(family)) {
            return Err(Stop::Drop(DropReason::ReplyImpossible));
        }
        let length = rewrite::icmp_error(frame.bytes_mut(), packet.network, source, problem);
        self.replied(frame, length.ok(), reason)
    }

    fn replied(
        &self,
        frame: &mut Io::Frame,
        length: Option<usize>,
        reason: ReplyReason,
    ) -> Result<PortId, Stop> {
        frame.truncate(length.ok_or(Stop::Drop(DropReason::ReplyImpossible))?);
        self.turn.stats.replies(reason).add(1);
        Ok(frame.ingress())
    }
}

/// Why a frame could not be transmitted on `port`.
#[cold]
pub(super) fn untransmitted(io: &impl PacketIo, port: PortId) -> DropReason {
    if io.is_open(port) {
        DropReason::TransmitFull
    } else {
        DropReason::PortGone
    }
}

#[inline]
fn direct_routing<K: FlowKey>(frame: &mut [u8], network: u8, hop: &NextHop) {
    match <K::Addr as Address>::FAMILY {
        Family::V4 => rewrite::direct_routing(frame, network, hop),
        Family::V6 => rewrite::direct_routing_v6(frame, network, hop),
    }
}

/// Puts a frame's packet into a tunnel.
#[inline(always)]
fn encapsulate<F: FrameBuf>(
    frame: &mut F,
    network: u8,
    tunnel: &Tunnel,
    hop: &NextHop,
) -> Result<(), Stop> {
    let overhead = usize::from(rewrite::overhead(tunnel.kind, tunnel.ends.family()));
    if !frame.grow_front(overhead) {
        return Err(Stop::Drop(DropReason::Rewrite));
    }
    let length = rewrite::encapsulate(frame.bytes_mut(), network, tunnel, hop).map_err(refused)?;
    frame.truncate(length);
    Ok(())
}

/// The same for the second of two fragments, which is rare, apart from the usual way's copy.
#[cold]
fn encapsulate_second<F: FrameBuf>(
    frame: &mut F,
    network: u8,
    tunnel: Tunnel,
    hop: &NextHop,
) -> Result<(), Stop> {
    encapsulate(frame, network, &tunnel, hop)
}

/// Where the headers of a packet are.
// Always: every packet of NAT asks, in one place or another.
#[inline(always)]
fn place<K: FlowKey>(packet: &Packet<K>) -> Result<Place, Stop> {
    let protocol = L4Proto::from_number(packet.key.protocol());
    Ok(Place {
        network: packet.network,
        transport: packet.transport,
        protocol: protocol.ok_or(Stop::Drop(DropReason::Rewrite))?,
        part: match packet.kind {
            Kind::LaterFragment => Part::Later,
            _ if packet.first_fragment => Part::First,
            _ => Part::Whole,
        },
    })
}

/// Why a frame that could not be rewritten is dropped.
const fn refused(refused: Refused) -> Stop {
    Stop::Drop(match refused {
        Refused::IcmpChecksum => DropReason::IcmpChecksum,
        Refused::SctpFragment => DropReason::SctpFragment,
        Refused::IcmpQuote => DropReason::IcmpQuote,
        Refused::TooLong => DropReason::TooBig,
        Refused::Cut | Refused::NotIp | Refused::NoRoom | Refused::NeverAnswered => {
            DropReason::Rewrite
        }
    })
}
