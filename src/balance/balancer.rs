//! What becomes of a packet: its flow's real server, or a new one, or neither.

use super::{
    ConnTable, Cursor, FlowKey, Kind, MAX_SERVICES, NewConn, Packet, Real, RealId, RealRef,
    Service, ServiceTable, Slot, State, Turn,
    tcp::{self, Direction, Event},
};
use crate::{
    stats::{DropReason, ReplyReason},
    wire::tcp::Flags,
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    Undecided,
    /// It goes to this real server, whose next hop is known.
    Forward(RealId),
    /// It is turned into an answer and goes back to its sender.
    Reply(ReplyReason),
    /// It goes nowhere.
    Drop(DropReason),
    /// Its flow is that of the worker with this number, who is to decide.
    Elsewhere(u32),
}

/// The tables of one worker.
#[derive(Debug)]
pub struct Balancer {
    conns: ConnTable,
    cursors: Box<[Cursor]>,
}

impl Balancer {
    /// Empty tables with room for `connections`; `hash_seed` is drawn at start.
    pub fn new(connections: usize, hash_seed: u64) -> Self {
        Self {
            conns: ConnTable::new(connections, hash_seed),
            cursors: vec![Cursor::default(); MAX_SERVICES].into(),
        }
    }

    /// Decides on one packet: by its flow's entry, or else by its virtual server's scheduler.
    #[inline]
    pub fn decide(&mut self, packet: &Packet, table: &ServiceTable, turn: Turn<'_>) -> Verdict {
        let Kind::Tcp(flags) = packet.kind else {
            return self.about_flow(packet, table, turn);
        };
        let known = (self.conns).find_guessed(&packet.key, packet.home, packet.guess);
        if let Some(slot) = known
            && let Some((id, real)) = self.current(slot, flags, table, turn)
        {
            let event = Event::of(flags);
            let state = tcp::next(Direction::InOnly, event, self.conns.state(slot));
            self.conns.touch(slot, state, turn);
            return forward(id, real, packet, turn);
        }
        self.admit(packet, flags, table, turn)
    }

    /// The real server that an entry's packets go to. `None`, and the entry is gone, when the
    /// packet must be treated as one of a new flow.
    #[inline]
    fn current<'t>(
        &mut self,
        slot: Slot,
        flags: Flags,
        table: &'t ServiceTable,
        turn: Turn<'_>,
    ) -> Option<(RealId, &'t Real)> {
        if self.conns.is_expired(slot, turn) {
            self.conns.expire(slot, turn);
            return None;
        }
        let found = self
            .conns
            .real(slot)
            .and_then(|real| table.real(real).map(|it| (real.id, it)));
        let renewed = |(_, real): &(RealId, &Real)| opens(flags) && self.is_renewed(slot, real);
        if found.as_ref().is_none_or(renewed) {
            self.conns.remove(slot, turn);
            return None;
        }
        found
    }

    /// Whether a SYN on an existing entry starts a connection of its own: on a finished one
    /// (IPVS `conn_reuse_mode` 1), unless a template leads it, which would decide the same again;
    /// and on one to a real server that is down.
    fn is_renewed(&self, slot: Slot, real: &Real) -> bool {
        !real.available || (self.conns.state(slot).is_finished() && !self.conns.is_led(slot))
    }

    /// An ICMP error goes where the flow's packets go. It neither prolongs the flow nor changes it.
    #[cold]
    fn about_flow(&mut self, packet: &Packet, table: &ServiceTable, turn: Turn<'_>) -> Verdict {
        let found = self
            .conns
            .find(&packet.key, packet.home)
            .filter(|slot| !self.conns.is_expired(*slot, turn))
            .and_then(|slot| self.conns.real(slot))
            .and_then(|real| table.real(real).map(|it| (real.id, it)));
        match found {
            Some((id, real)) => forward(id, real, packet, turn),
            None => Verdict::Drop(DropReason::IcmpUnknownFlow),
        }
    }

    /// A packet whose flow has no entry: only a SYN starts one.
    fn admit(
        &mut self,
        packet: &Packet,
        flags: Flags,
        table: &ServiceTable,
        turn: Turn<'_>,
    ) -> Verdict {
        let key = packet.key;
        let Some(service) = table.service(key.vip(), key.protocol(), key.vport()) else {
            return Verdict::Drop(DropReason::NoService);
        };
        if flags.contains(Flags::RST) {
            return Verdict::Drop(DropReason::UnknownReset);
        }
        if !flags.contains(Flags::SYN) {
            return Verdict::Reply(ReplyReason::UnknownFlow);
        }
        let scheduled = match service.persistence {
            None => self
                .pick(service)
                .map(|real| (real, None))
                .ok_or(DropReason::NoReal),
            Some((period, prefix)) => {
                let template = key.template(prefix, service.port);
                self.lead(service, template, period, table, turn)
                    .map(|(real, slot)| (real, Some(slot)))
            }
        };
        let (real, template) = match scheduled {
            Ok(scheduled) => scheduled,
            Err(reason) => return Verdict::Drop(reason),
        };
        let new = NewConn {
            key,
            home: packet.home,
            real,
            state: tcp::next(Direction::InOnly, Event::of(flags), State::None),
            template,
            guess: packet.guess,
        };
        if self.conns.insert(&new, turn).is_none() {
            if let Some(template) = template {
                self.conns.unrefer(template);
            }
            return Verdict::Drop(DropReason::TableFull);
        }
        match table.real(real) {
            Some(it) => forward(real.id, it, packet, turn),
            None => Verdict::Drop(DropReason::NoReal),
        }
    }

    /// Where the template of a persistent client leads. Without one, or when its real server is
    /// down or gone, the scheduler decides and the template leads there from now on. A weight of 0
    /// does not end it (IPVS without `expire_quiescent_template`).
    fn lead(
        &mut self,
        service: &Service,
        key: FlowKey,
        period: u32,
        table: &ServiceTable,
        turn: Turn<'_>,
    ) -> Result<(RealRef, Slot), DropReason> {
        let known = self.conns.find_template(&key, turn);
        let leads_to = known
            .and_then(|slot| self.conns.real(slot))
            .filter(|real| table.real(*real).is_some_and(|it| it.available));
        let real = match leads_to {
            Some(real) => real,
            None => self.pick(service).ok_or(DropReason::NoReal)?,
        };
        let slot = match known {
            Some(slot) => slot,
            None => self
                .conns
                .insert_template(key, real, period, turn)
                .ok_or(DropReason::TableFull)?,
        };
        self.conns.refer(slot, real, turn);
        Ok((real, slot))
    }

    #[inline]
    fn pick(&mut self, service: &Service) -> Option<RealRef> {
        let cursor = self.cursors.get_mut(service.id.0 as usize)?;
        service.picker.pick(cursor)
    }

    /// Looks at the next `budget` buckets of the table and takes out what has expired.
    pub fn sweep(&mut self, budget: usize, turn: Turn<'_>) {
        self.conns.sweep(budget, turn);
    }

    /// Lets every scheduler see `table`, as IPVS does with each change: a worker's schedulers see
    /// only the last change before a pick.
    #[cfg(test)]
    pub(super) fn follow(&mut self, table: &ServiceTable) {
        for service in table.services() {
            service
                .picker
                .adopt(&mut self.cursors[service.id.0 as usize]);
        }
    }

    /// The connection table.
    pub const fn conns(&self) -> &ConnTable {
        &self.conns
    }
}

/// Whether a segment asks for a new connection.
#[inline]
const fn opens(flags: Flags) -> bool {
    flags.contains(Flags::SYN) && !flags.contains(Flags::RST)
}

/// Counts a packet for its real server and sends it there.
#[inline]
fn forward(id: RealId, real: &Real, packet: &Packet, turn: Turn<'_>) -> Verdict {
    let counters = turn.stats.real(id.0);
    counters.packets.add(1);
    counters.bytes.add(u64::from(packet.length));
    if real.next_hop.is_none() {
        return Verdict::Drop(DropReason::NoNextHop);
    }
    Verdict::Forward(id)
}
