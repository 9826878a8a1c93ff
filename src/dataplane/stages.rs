//! The stages of a turn: short loops over a burst, so that the memory that one asks for has arrived
//! when the next needs it. None is inlined: a loop of its own has the registers to itself.

use super::{
    handover::{Handover, Purpose},
    io::{BURST, FrameBuf, PacketIo},
    offload::HandDown,
    output::Output,
};
use crate::{
    balance::{
        Balancer, ConnTable, FlowKey, Key4, Key6, Packet, ServiceTable, Turn, Verdict,
        rewrite::Family,
    },
    stats::DropReason,
    sys::prefetch,
    time::Tick,
};

/// What is known about the frames of a burst between the stages.
#[derive(Debug)]
pub(super) struct Metas {
    verdicts: [Verdict; BURST],
    families: [Family; BURST],
    four: [Packet<Key4>; BURST],
    six: [Packet<Key6>; BURST],
    /// Workers that looked for a frame's flow before this one, or [`Purpose::OWNED`]. Only where there are
    /// several.
    pub(super) hops: [u16; BURST],
}

impl Metas {
    /// Nothing is known of any frame, and none goes anywhere.
    pub(super) const NONE: Self = Self {
        verdicts: [Verdict::Drop(DropReason::FrameTooShort); BURST],
        families: [Family::V4; BURST],
        four: [Packet::NONE; BURST],
        six: [Packet::NONE; BURST],
        hops: [0; BURST],
    };
}

/// Reads each frame's headers once and asks for the lines where its flow may be. The bytes of those from
/// `new` on: the others came in before.
///
/// Of a frame that goes nowhere only the verdict is written; its packet is one of a burst before.
#[inline(never)]
pub(super) fn classify_burst<F: FrameBuf>(
    frames: &[F],
    new: usize,
    metas: &mut Metas,
    balancer: &mut Balancer,
    table: &ServiceTable,
    turn: Turn<'_>,
) -> u64 {
    let mut classifier = balancer.classifier(table, turn.tick);
    let mut bytes_in = 0;
    let places = metas.four.iter_mut().zip(&mut metas.six);
    let places = places.zip(metas.verdicts.iter_mut().zip(&mut metas.families));
    for (at, (frame, ((four, six), (verdict, family)))) in frames.iter().zip(places).enumerate() {
        let bytes = frame.bytes();
        bytes_in += if at < new { 0 } else { bytes.len() as u64 };
        *verdict = match classifier.classify(bytes, frame.ingress(), four, six) {
            Ok(Family::V4) => {
                prefetch_lines(classifier.conns.0, four);
                *family = Family::V4;
                Verdict::Undecided
            }
            Ok(Family::V6) => {
                prefetch_lines(classifier.conns.1, six);
                *family = Family::V6;
                Verdict::Undecided
            }
            Err((of, verdict)) => {
                *family = of;
                verdict
            }
        };
    }
    bytes_in
}

#[inline]
fn prefetch_lines<K: FlowKey>(conns: &ConnTable<K>, packet: &Packet<K>) {
    for line in conns.lines(packet.candidates) {
        prefetch::read(line);
    }
}

/// ICMP errors of one burst that are passed on to the next worker when their flow is not known here: more
/// are a flood, which must not cost every worker a look.
const ICMP_ROUNDS: u32 = 4;

/// Finds the frames whose flows other workers have, where there are several.
pub(super) fn assign_burst<P>(
    frames: usize,
    metas: &mut Metas,
    table: &ServiceTable,
    handover: &Handover<P>,
) {
    if !table.has_owners() {
        return;
    }
    let (ownership, this) = (handover.ownership(), handover.number());
    for at in 0..frames.min(BURST) {
        if metas.verdicts[at] != Verdict::Undecided || metas.hops[at] != 0 {
            continue;
        }
        let owner = match metas.families[at] {
            Family::V4 => ownership.owner(&metas.four[at], table),
            Family::V6 => ownership.owner(&metas.six[at], table),
        };
        if let Some(owner) = owner {
            metas.hops[at] = Purpose::OWNED;
            if owner != this {
                metas.verdicts[at] = Verdict::Elsewhere(owner);
            }
        }
    }
}

/// Passes ICMP errors on whose flows this worker does not know: where the NIC decided who has a flow, only
/// the flow's worker knows, and an error about it may come in on any queue.
pub(super) fn pass_on_burst<P>(frames: usize, metas: &mut Metas, handover: &Handover<P>) {
    let mut left = ICMP_ROUNDS;
    let verdicts = metas.verdicts.iter_mut().zip(&mut metas.hops);
    for (verdict, hops) in verdicts.take(frames) {
        if *verdict == Verdict::Drop(DropReason::IcmpUnknownFlow)
            && u32::from(*hops) + 1 < handover.ownership().workers()
            && left > 0
        {
            left -= 1;
            *hops += 1;
            *verdict = Verdict::Elsewhere(handover.next());
        }
    }
}

/// `schedule_icmp`: sends on errors about flows that nobody knows.
#[cold]
pub(super) fn schedule_errors(
    frames: usize,
    metas: &mut Metas,
    balancer: &mut Balancer,
    table: &ServiceTable,
    turn: Turn<'_>,
) {
    for at in 0..frames.min(BURST) {
        if metas.verdicts[at] == Verdict::Drop(DropReason::IcmpUnknownFlow) {
            let found = match metas.families[at] {
                Family::V4 => balancer.four(table, turn).schedule_error(&metas.four[at]),
                Family::V6 => balancer.six(table, turn).schedule_error(&metas.six[at]),
            };
            metas.verdicts[at] = found.unwrap_or(metas.verdicts[at]);
        }
    }
}

/// Asks for the record that each flow's tag leads to, or that will be the new flow's.
#[inline(never)]
pub(super) fn locate_burst(frames: usize, metas: &mut Metas, balancer: &Balancer, turn: Turn<'_>) {
    let places = metas.four.iter_mut().zip(&mut metas.six);
    let verdicts = metas.verdicts.iter().zip(&metas.families).take(frames);
    for ((four, six), (verdict, family)) in places.zip(verdicts) {
        if *verdict == Verdict::Undecided {
            match family {
                Family::V4 => locate(balancer.conns(), four, turn),
                Family::V6 => locate(balancer.conns6(), six, turn),
            }
        }
    }
}

#[inline]
fn locate<K: FlowKey>(conns: &ConnTable<K>, packet: &mut Packet<K>, turn: Turn<'_>) {
    packet.guess = conns.likely(packet.candidates, turn);
    if let Some(slot) = packet.guess {
        prefetch::read(conns.record(slot));
    }
}

/// Finds each packet's real server, and gives new flows one. One family after the other: a burst is of one as a rule.
#[inline(never)]
pub(super) fn decide_burst(
    frames: usize,
    metas: &mut Metas,
    balancer: &mut Balancer,
    table: &ServiceTable,
    turn: Turn<'_>,
) {
    let mut verdicts = metas.verdicts.iter_mut().zip(&metas.families).take(frames);
    let mut decider = balancer.four(table, turn);
    let mut sixes = false;
    for (packet, (verdict, family)) in metas.four.iter_mut().zip(&mut verdicts) {
        if *verdict == Verdict::Undecided {
            match family {
                Family::V4 => *verdict = decider.decide(packet),
                Family::V6 => sixes = true,
            }
        }
    }
    if sixes {
        let verdicts = metas.verdicts.iter_mut().zip(&metas.families).take(frames);
        let mut decider = balancer.six(table, turn);
        for (packet, (verdict, family)) in metas.six.iter_mut().zip(verdicts) {
            if *verdict == Verdict::Undecided && *family == Family::V6 {
                *verdict = decider.decide(packet);
            }
        }
    }
}

/// Hands the flows of plain packets down to the fast path.
#[inline(never)]
pub(super) fn hand_down_burst(
    frames: usize,
    metas: &Metas,
    balancer: &mut Balancer,
    table: &ServiceTable,
    turn: Turn<'_>,
    below: &HandDown,
) {
    for at in 0..frames.min(BURST) {
        if !matches!(metas.verdicts[at], Verdict::Forward(_) | Verdict::Answer(_)) {
            continue;
        }
        match metas.families[at] {
            Family::V4 if metas.four[at].is_plain => {
                below.consider(balancer.conns_mut(), &metas.four[at], table, turn);
            }
            Family::V6 if metas.six[at].is_plain => {
                below.consider(balancer.conns6_mut(), &metas.six[at], table, turn);
            }
            Family::V4 | Family::V6 => {}
        }
    }
}

/// Rewrites each frame in place and passes it on. How many were transmitted, with those that were cut off
/// another. `waited` says of those from `parked` on since when they wait.
#[inline(never)]
pub(super) fn rewrite_burst<Io: PacketIo>(
    frames: &mut Vec<Io::Frame>,
    (parked, waited): (usize, &[Tick]),
    metas: &Metas,
    output: &mut Output<'_, Io>,
) -> u64 {
    let mut out = 0;
    for (at, frame) in frames.drain(..).enumerate().take(BURST) {
        let since = at
            .checked_sub(parked)
            .and_then(|at| waited.get(at))
            .copied();
        let (verdict, hops) = (metas.verdicts[at], metas.hops[at]);
        if let Verdict::Elsewhere(worker) = verdict {
            output.hand_over(frame, worker, Purpose::Decide { hops });
            continue;
        }
        out += match metas.families[at] {
            Family::V4 => output.send(frame, verdict, &metas.four[at], since),
            Family::V6 => output.send(frame, verdict, &metas.six[at], since),
        };
    }
    out
}
