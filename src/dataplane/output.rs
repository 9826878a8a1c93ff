//! The last stage: each frame is rewritten as its verdict says, and passed on, answered, parked or
//! dropped.

use super::{
    handover::{Errand, Handover, Parcel},
    io::{FrameBuf, PacketIo},
    limit::ReplyLimit,
    parking::Parking,
    publish::Reader,
};
use std::net::IpAddr;

use crate::{
    addr::{L4Proto, PortId},
    balance::{
        FlowKey, Kind, Method, NextHop, Packet, Real, RealId, ServiceTable, Turn, Verdict, Way,
        rewrite::{
            self, Address, Ends, Family, Fit, Part, Passage, Place, Refused, Tunnel, TunnelError,
            TunnelKind,
        },
    },
    stats::{DropReason, ReplyReason},
    time::Tick,
    wire::{
        icmp::Problem,
        ipv4::{self, Ipv4},
        ipv6,
    },
};

/// What the last stage works with.
pub(super) struct Output<'a, Io: PacketIo> {
    pub(super) io: &'a mut Io,
    pub(super) reader: &'a Reader,
    pub(super) parking: &'a mut Parking<Io::Frame>,
    pub(super) limit: &'a mut ReplyLimit,
    /// Identification of the last outer IPv4 header.
    pub(super) ids: &'a mut u16,
    pub(super) turn: Turn<'a>,
    /// The way to other workers, where there are any.
    pub(super) handover: Option<&'a mut Handover<Io::Parted>>,
}

/// What cannot be sent on: for good, or for now, or as it was turned into an answer.
enum Stop {
    Answered(PortId),
    Drop(DropReason),
    Park(DropReason),
}

/// What becomes of a packet for its size.
#[derive(Clone, Copy)]
enum Size {
    /// It goes on.
    Fits,
    /// It is cut in two of up to so many bytes.
    Split(u16),
    /// The tunnel packet around it is.
    SplitOuter(u16),
}

impl<Io: PacketIo> Output<'_, Io> {
    /// Does with `frame` what the verdict says. `since` is when it began to wait, if it is not new.
    /// Whether it was transmitted.
    #[inline]
    pub(super) fn send<K: FlowKey>(
        &mut self,
        mut frame: Io::Frame,
        verdict: Verdict,
        packet: &Packet<K>,
        since: Option<Tick>,
    ) -> bool {
        let egress = match verdict {
            Verdict::Forward(real) => self.forward(&mut frame, packet, real),
            Verdict::Answer | Verdict::Route => self.pass_to_client(&mut frame, packet, verdict),
            Verdict::Reply(reason) => self.reply(&mut frame, packet, reason),
            Verdict::Park(reason) => Err(Stop::Park(reason)),
            Verdict::Drop(reason) => Err(Stop::Drop(reason)),
            Verdict::Undecided | Verdict::Elsewhere(_) => Err(Stop::Drop(DropReason::NoService)),
        };
        let left = match egress {
            Ok(port) | Err(Stop::Answered(port)) => match self.io.transmit(port, frame) {
                Ok(()) => Ok(()),
                Err(frame) => match self.io.carrier(port) {
                    Some(worker) => {
                        self.hand_over(frame, worker, Errand::Transmit(port));
                        return false;
                    }
                    None => Err((frame, DropReason::TransmitFull)),
                },
            },
            Err(Stop::Drop(reason)) => Err((frame, reason)),
            Err(Stop::Park(reason)) => {
                let now = self.turn.tick;
                let parked = self.parking.park(frame, reason, since.unwrap_or(now), now);
                match parked {
                    Ok(()) => return false,
                    Err(frame) => Err((frame, reason)),
                }
            }
        };
        match left {
            Ok(()) => true,
            Err((frame, reason)) => {
                self.turn.stats.drops(reason).add(1);
                self.io.release(frame);
                false
            }
        }
    }

    /// Keeps a frame for another worker.
    #[cold]
    pub(super) fn hand_over(&mut self, frame: Io::Frame, worker: u32, errand: Errand) {
        let Some(handover) = &mut self.handover else {
            self.turn.stats.drops(DropReason::HandoverFull).add(1);
            self.io.release(frame);
            return;
        };
        let parted = self.io.part(frame);
        if let Err(parted) = handover.put(worker, Parcel { parted, errand }) {
            self.turn.stats.drops(DropReason::HandoverFull).add(1);
            let frame = self.io.take_over(parted);
            self.io.release(frame);
        }
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
        let real = self.reader.table().in_slot(id);
        let Some((real, hop)) = real.and_then(|real| Some((real, real.next_hop?))) else {
            return Err(self.wait_for_real(packet, id));
        };
        match real.method {
            Method::Tunnel(_) if packet.kind == Kind::TunnelError => {
                self.tell_client(frame, packet, real.addr)
            }
            Method::DirectRouting => {
                let size = self.size(frame, packet, hop.mtu)?;
                direct_routing::<K>(frame.bytes_mut(), packet.network, &hop);
                self.finish(frame, packet.network, hop.port, size)
            }
            Method::Nat => {
                let size = self.size(frame, packet, hop.mtu)?;
                let port = if real.port == 0 {
                    packet.key.vport()
                } else {
                    real.port
                };
                let to = K::own(real.addr).ok_or(Stop::Drop(DropReason::Rewrite))?;
                let bytes = frame.bytes_mut();
                let done = if packet.kind == Kind::IcmpError {
                    rewrite::icmp_to_real(bytes, packet.network, (to, port), &hop)
                } else {
                    rewrite::nat_to_real(bytes, &place(packet)?, (to, port), &hop)
                };
                done.map_err(refused)?;
                self.finish(frame, packet.network, hop.port, size)
            }
            Method::Tunnel(kind) => self.tunnel(frame, packet, real, kind, &hop),
        }
    }

    /// Puts a frame's packet into a tunnel to its real server.
    fn tunnel<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        real: &Real,
        kind: TunnelKind,
        hop: &NextHop,
    ) -> Result<PortId, Stop> {
        let policy = self.reader.table().policy();
        let (spread, sources) = (packet.home.spread(), policy.tunnel_sources);
        let ends = match (real.local, real.addr) {
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
        let pmtu_disc = policy.pmtu_disc;
        let size = if usize::from(packet.length) + overhead > usize::from(hop.mtu) {
            let tunnel = Some((ends.family(), kind));
            self.too_large(frame, packet, hop.mtu, tunnel)?
        } else {
            Size::Fits
        };
        *self.ids = self.ids.wrapping_add(1);
        let tunnel = Tunnel {
            kind,
            ends,
            id: *self.ids,
            pmtu_disc,
            source_port: rewrite::source_port(spread),
        };
        let network = packet.network;
        if let Size::Split(mtu) = size {
            // Each part in a packet of its own.
            let mut first = self.cut(frame, network, mtu)?;
            match wrap(&mut first, network, &tunnel, hop) {
                Ok(()) => self.send_made(first, hop.port),
                Err(stop) => {
                    self.give_up(first, DropReason::Rewrite);
                    return Err(stop);
                }
            }
        }
        wrap(frame, network, &tunnel, hop)?;
        match size {
            Size::SplitOuter(mtu) => self.finish(frame, network, hop.port, Size::Split(mtu)),
            Size::Fits | Size::Split(_) => Ok(hop.port),
        }
    }

    /// How a packet that goes on as it is fits its way.
    #[inline]
    fn size<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        mtu: u16,
    ) -> Result<Size, Stop> {
        if packet.length > mtu {
            return self.too_large(frame, packet, mtu, None);
        }
        Ok(Size::Fits)
    }

    /// The last of a frame that was rewritten: it is cut in two if it has to be.
    #[inline]
    fn finish(
        &mut self,
        frame: &mut Io::Frame,
        network: u8,
        port: PortId,
        size: Size,
    ) -> Result<PortId, Stop> {
        if let Size::Split(mtu) = size {
            let first = self.cut(frame, network, mtu)?;
            self.send_made(first, port);
        }
        Ok(port)
    }

    /// Cuts a packet in two. The first part is in a new frame, the second where the whole was.
    #[cold]
    fn cut(&mut self, frame: &mut Io::Frame, network: u8, mtu: u16) -> Result<Io::Frame, Stop> {
        let none = Stop::Drop(DropReason::TooBig);
        let most = usize::from(network) + usize::from(mtu);
        let length = frame.bytes().len().min(most);
        let blank = self.io.blank(frame.ingress(), length);
        let mut second = blank.ok_or(none)?;
        self.turn.stats.frames_made.add(1);
        match rewrite::split(frame.bytes_mut(), network, mtu, second.bytes_mut()) {
            Ok((one, other)) => {
                frame.truncate(one);
                second.truncate(other);
                std::mem::swap(frame, &mut second);
                Ok(second)
            }
            Err(failure) => {
                self.give_up(second, DropReason::TooBig);
                Err(refused(failure))
            }
        }
    }

    /// Sends a frame that was made here.
    #[cold]
    fn send_made(&mut self, frame: Io::Frame, port: PortId) {
        match self.io.transmit(port, frame) {
            Ok(()) => self.turn.stats.frames_out.add(1),
            Err(frame) => match self.io.carrier(port) {
                Some(worker) => self.hand_over(frame, worker, Errand::Transmit(port)),
                None => self.give_up(frame, DropReason::TransmitFull),
            },
        }
    }

    #[cold]
    fn give_up(&mut self, frame: Io::Frame, reason: DropReason) {
        self.turn.stats.drops(reason).add(1);
        self.io.release(frame);
    }

    /// Tells a client what a router on the way to its real server said about its packet: how large it may be. All else
    /// is the health checks' business.
    #[cold]
    fn tell_client<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        real: IpAddr,
    ) -> Result<PortId, Stop> {
        let useless = Stop::Drop(DropReason::IcmpTunnel);
        let table = self.table();
        let bytes = frame.bytes().get(usize::from(packet.network)..);
        let error = bytes
            .and_then(|bytes| TunnelError::read(bytes, |port| table.has_gue_port(port)))
            .filter(|error| error.real == real);
        let least = match <K::Addr as Address>::FAMILY {
            Family::V4 => ipv4::MIN_MTU,
            // What fits no less must pass, and is fragmented on the way.
            Family::V6 => ipv6::MIN_MTU,
        };
        let Some(room) = error
            .and_then(|error| error.room)
            .filter(|room| *room >= least)
        else {
            return Err(useless);
        };
        let hop = self.way(packet)?;
        if !self.limit.allows(self.turn.tick) {
            return Err(Stop::Drop(DropReason::ReplyLimit));
        }
        let source = self.own_address::<K>(hop.port)?;
        let bytes = frame.bytes_mut();
        let (network, inner) = (packet.network, packet.transport);
        let problem = Problem::TooBig(room);
        let length = rewrite::icmp_from_tunnel(bytes, network, inner, source, problem, &hop);
        frame.truncate(length.map_err(refused)?);
        self.turn.stats.replies(ReplyReason::TooBig).add(1);
        Ok(hop.port)
    }

    /// The address that packets of our own come from on a port.
    fn own_address<K: FlowKey>(&self, port: PortId) -> Result<K::Addr, Stop> {
        let port = self.table().port(port);
        let own = match <K::Addr as Address>::FAMILY {
            Family::V4 => port.v4.map(IpAddr::V4),
            Family::V6 => port.v6.map(IpAddr::V6),
        };
        own.and_then(K::own)
            .ok_or(Stop::Drop(DropReason::ReplyImpossible))
    }

    /// What becomes of a packet that is larger than its way takes.
    #[cold]
    fn too_large<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        path_mtu: u16,
        tunnel: Option<(Family, TunnelKind)>,
    ) -> Result<Size, Stop> {
        let family = <K::Addr as Address>::FAMILY;
        let bytes = frame.bytes().get(usize::from(packet.network)..);
        let passage = Passage {
            family,
            length: packet.length.into(),
            dont_fragment: bytes
                .and_then(Ipv4::quoted)
                .is_some_and(Ipv4::dont_fragment),
            silent: matches!(
                packet.kind,
                Kind::IcmpError | Kind::TunnelError | Kind::LaterFragment
            ),
            path_mtu,
            tunnel,
        };
        match rewrite::fit(&passage, self.table().policy().pmtu_disc) {
            Fit::TooBig(mtu) => {
                let problem = Problem::TooBig(mtu);
                let port = self.icmp(frame, packet, problem, ReplyReason::TooBig)?;
                Err(Stop::Answered(port))
            }
            Fit::Split(mtu) => Ok(Size::Split(mtu)),
            Fit::SplitOuter(mtu) => Ok(Size::SplitOuter(mtu)),
            Fit::Forward => Ok(Size::Fits),
            Fit::Drop => Err(Stop::Drop(DropReason::TooBig)),
        }
    }

    /// The frame comes again when its real server's MAC address is known, and is counted then.
    #[cold]
    fn wait_for_real<K>(&self, packet: &Packet<K>, id: RealId) -> Stop {
        if packet.kind == Kind::TunnelError {
            // Not counted, and the way that it is about is another one now.
            return Stop::Drop(DropReason::IcmpTunnel);
        }
        let counters = self.turn.stats.real(id.0);
        counters.packets.sub(1);
        counters.bytes.sub(u64::from(packet.length));
        Stop::Park(DropReason::NoNextHop)
    }

    /// Passes a real server's frame on to the client; the port that it leaves on.
    fn pass_to_client<K: FlowKey>(
        &mut self,
        frame: &mut Io::Frame,
        packet: &Packet<K>,
        verdict: Verdict,
    ) -> Result<PortId, Stop> {
        let hop = self.way(packet)?;
        let size = self.size(frame, packet, hop.mtu)?;
        let bytes = frame.bytes_mut();
        if verdict == Verdict::Route {
            direct_routing::<K>(bytes, packet.network, &hop);
            return self.finish(frame, packet.network, hop.port, size);
        }
        let vip = K::own(packet.key.vip()).ok_or(Stop::Drop(DropReason::Rewrite))?;
        let vip = (vip, packet.key.vport());
        let done = if packet.kind == Kind::IcmpError {
            rewrite::icmp_to_client(bytes, packet.network, vip, &hop)
        } else {
            rewrite::nat_to_client(bytes, &place(packet)?, vip, &hop)
        };
        done.map_err(refused)?;
        self.finish(frame, packet.network, hop.port, size)
    }

    /// The way to the client of a flow. Control is asked for a MAC address that is not known.
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
            ReplyReason::TooBig => Err(Stop::Drop(DropReason::TooBig)),
        }
    }

    /// Turns a frame into an ICMP error about its packet.
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
        let family = <K::Addr as Address>::FAMILY;
        let source = self.own_address::<K>(frame.ingress())?;
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

/// Puts a frame's packet into a tunnel.
#[inline]
fn wrap<F: FrameBuf>(
    frame: &mut F,
    network: u8,
    tunnel: &Tunnel,
    hop: &NextHop,
) -> Result<(), Stop> {
    let overhead = rewrite::overhead(tunnel.kind, tunnel.ends.family());
    if !frame.grow_front(overhead.into()) {
        return Err(Stop::Drop(DropReason::Rewrite));
    }
    let length = rewrite::encapsulate(frame.bytes_mut(), network, tunnel, hop).map_err(refused)?;
    frame.truncate(length);
    Ok(())
}

#[inline]
fn direct_routing<K: FlowKey>(frame: &mut [u8], network: u8, hop: &NextHop) {
    match <K::Addr as Address>::FAMILY {
        Family::V4 => rewrite::direct_routing(frame, network, hop),
        Family::V6 => rewrite::direct_routing_v6(frame, network, hop),
    }
}

/// Where the headers of a packet are.
#[inline]
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
