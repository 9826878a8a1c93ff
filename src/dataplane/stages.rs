//! The stages of a turn: short loops over a burst, so that the memory that one asks for has arrived
//! when the next needs it.

use super::{
    handover::{Errand, Handover, Parcel},
    io::{FrameBuf, PacketIo},
};
use crate::{
    addr::PortId,
    balance::{Balancer, Kind, Packet, RealId, ServiceTable, Turn, Verdict, classify, rewrite},
    stats::{DropReason, ReplyReason, WorkerStats},
    sys::prefetch,
};

/// What is known about a frame between the stages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    packet: Packet,
    verdict: Verdict,
    /// Workers that looked for its flow before this one, or [`Errand::OWNED`]. Only where there are
    /// several.
    pub(super) hops: u16,
}

impl Meta {
    /// A frame of which nothing is known, and which goes nowhere.
    pub(super) const NONE: Self = Self {
        packet: Packet::NONE,
        verdict: Verdict::Drop(DropReason::FrameTooShort),
        hops: 0,
    };
}

/// ICMP errors of one burst that are passed on to the next worker when their flow is not known here: more
/// are a flood, which must not cost every worker a look.
const ICMP_ROUNDS: u32 = 4;

/// Reads each frame's headers once and asks for the lines where its flow may be.
///
/// Of a frame that goes nowhere only the verdict is written; its packet is one of a burst before.
pub(super) fn classify_burst<F: FrameBuf>(
    frames: &[F],
    metas: &mut [Meta],
    balancer: &Balancer,
) -> u64 {
    let conns = balancer.conns();
    let mut bytes_in = 0;
    for (frame, meta) in frames.iter().zip(metas) {
        let bytes = frame.bytes();
        bytes_in += bytes.len() as u64;
        meta.verdict = match classify(bytes, &mut meta.packet, conns) {
            Ok(()) => {
                for line in conns.lines(meta.packet.home) {
                    prefetch::read(line);
                }
                Verdict::Undecided
            }
            Err(reason) => Verdict::Drop(reason),
        };
    }
    bytes_in
}

/// Finds the frames whose flows other workers have, where there are several.
pub(super) fn assign_burst<P>(metas: &mut [Meta], table: &ServiceTable, handover: &Handover<P>) {
    if !table.has_owners() {
        return;
    }
    let (ownership, this) = (handover.ownership(), handover.number());
    for meta in metas {
        if meta.verdict == Verdict::Undecided
            && meta.hops == 0
            && let Some(owner) = ownership.owner(&meta.packet, table)
        {
            meta.hops = Errand::OWNED;
            if owner != this {
                meta.verdict = Verdict::Elsewhere(owner);
            }
        }
    }
}

/// Passes ICMP errors on whose flows this worker does not know: where the NIC decided who has a flow, only
/// the flow's worker knows, and an error about it may come in on any queue.
pub(super) fn pass_on_burst<P>(metas: &mut [Meta], handover: &Handover<P>) {
    let mut left = ICMP_ROUNDS;
    for meta in metas {
        if meta.verdict == Verdict::Drop(DropReason::IcmpUnknownFlow)
            && u32::from(meta.hops) + 1 < handover.ownership().workers()
            && left > 0
        {
            left -= 1;
            meta.hops += 1;
            meta.verdict = Verdict::Elsewhere(handover.next());
        }
    }
}

/// Asks for the record that each flow's tag leads to, or that will be the new flow's.
pub(super) fn locate_burst(metas: &mut [Meta], balancer: &Balancer, turn: Turn<'_>) {
    for meta in metas {
        if meta.verdict == Verdict::Undecided {
            let conns = balancer.conns();
            meta.packet.guess = conns.likely(meta.packet.home, turn);
            if let Some(slot) = meta.packet.guess {
                prefetch::read(conns.record(slot));
            }
        }
    }
}

/// Finds each packet's real server, and gives new flows one.
pub(super) fn decide_burst(
    metas: &mut [Meta],
    balancer: &mut Balancer,
    table: &ServiceTable,
    turn: Turn<'_>,
) {
    for meta in metas {
        if meta.verdict == Verdict::Undecided {
            meta.verdict = balancer.decide(&meta.packet, table, turn);
        }
    }
}

/// Rewrites each frame in place and passes it on. How many were transmitted.
pub(super) fn rewrite_burst<Io: PacketIo>(
    frames: &mut Vec<Io::Frame>,
    metas: &[Meta],
    io: &mut Io,
    table: &ServiceTable,
    stats: &WorkerStats,
    mut handover: Option<&mut Handover<Io::Parted>>,
) -> u64 {
    let mut out = 0;
    for (mut frame, meta) in frames.drain(..).zip(metas) {
        let egress = match meta.verdict {
            Verdict::Forward(real) => forward(&mut frame, meta, real, table),
            Verdict::Reply(reason) => reply(&mut frame, meta, reason, stats),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Undecided => Err(DropReason::NoService),
            Verdict::Elsewhere(worker) => {
                let errand = Errand::Decide { hops: meta.hops };
                hand_over(frame, worker, errand, io, handover.as_deref_mut(), stats);
                continue;
            }
        };
        let left = match egress {
            Ok(port) => io
                .transmit(port, frame)
                .map_err(|frame| (frame, DropReason::TransmitFull)),
            Err(reason) => Err((frame, reason)),
        };
        match left {
            Ok(()) => out += 1,
            Err((frame, reason)) => match egress.map(|port| (port, io.carrier(port))) {
                Ok((port, Some(worker))) => {
                    let errand = Errand::Transmit(port);
                    hand_over(frame, worker, errand, io, handover.as_deref_mut(), stats);
                }
                _ => {
                    stats.drops(reason).add(1);
                    io.release(frame);
                }
            },
        }
    }
    out
}

/// Keeps a frame for another worker.
#[cold]
fn hand_over<Io: PacketIo>(
    frame: Io::Frame,
    worker: u32,
    errand: Errand,
    io: &mut Io,
    handover: Option<&mut Handover<Io::Parted>>,
    stats: &WorkerStats,
) {
    let Some(handover) = handover else {
        stats.drops(DropReason::HandoverFull).add(1);
        io.release(frame);
        return;
    };
    let parted = io.part(frame);
    if let Err(parted) = handover.put(worker, Parcel { parted, errand }) {
        stats.drops(DropReason::HandoverFull).add(1);
        let frame = io.take_over(parted);
        io.release(frame);
    }
}

/// Rewrites a frame for its real server; the port that it leaves on.
#[inline]
fn forward<F: FrameBuf>(
    frame: &mut F,
    meta: &Meta,
    real: RealId,
    table: &ServiceTable,
) -> Result<PortId, DropReason> {
    let hop = table
        .in_slot(real)
        .and_then(|real| real.next_hop.as_ref())
        .ok_or(DropReason::NoNextHop)?;
    rewrite::direct_routing(frame.bytes_mut(), meta.packet.network, hop);
    Ok(hop.port)
}

/// Turns a frame into an answer; the port that it came in on.
#[cold]
fn reply<F: FrameBuf>(
    frame: &mut F,
    meta: &Meta,
    reason: ReplyReason,
    stats: &WorkerStats,
) -> Result<PortId, DropReason> {
    let (ReplyReason::UnknownFlow, Kind::Tcp(_)) = (reason, meta.packet.kind) else {
        return Err(DropReason::Protocol);
    };
    let length =
        rewrite::reset(frame.bytes_mut(), meta.packet.network).ok_or(DropReason::TcpHeader)?;
    frame.truncate(length);
    stats.replies(reason).add(1);
    Ok(frame.ingress())
}
