//! What becomes of a packet: its flow's real server, or a new one, or neither.

use std::sync::Arc;

use super::{
    Ask, Classifier, ConnTable, FlowKey, Fragments, Key4, Key6, Kind, NewConn, Offload, Others,
    Packet, Real, RealId, RealRef, SchedulerState, Service, ServiceTable, Slot, State, Turn, sctp,
    tcp::{self, Direction, Event},
};
use crate::{
    stats::{DropReason, ReplyReason},
    time::Tick,
    wire::{tcp::Flags, udp},
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    Undecided,
    /// It goes to this real server, for which it is counted when it has gone.
    Forward(RealId),
    /// This real server's answer: it goes to the client, from the virtual server's address, and is counted when it has
    /// gone. The packet's key is by now that of the connection, or that a connection would have.
    Answer(RealId),
    /// An ICMP error about a tunnel packet to this real server: its client is told.
    Report(RealId),
    /// A real server's packet that answers no connection: it goes on as it is.
    Route,
    /// It is turned into an answer and goes back to its sender.
    Reply(ReplyReason),
    /// It waits a moment for what it needs; the reason that it is dropped for when that does not come.
    Park(DropReason),
    /// It goes nowhere.
    Drop(DropReason),
    /// Its flow is that of the worker with this number, who is to decide.
    Elsewhere(u32),
}

const _: () = assert!(size_of::<Verdict>() == 8, "moved in a register");

/// The tables of one worker.
#[derive(Debug)]
pub struct Balancer {
    v4: ConnTable<Key4>,
    v6: ConnTable<Key6>,
    scheduling: SchedulerState,
    fragments: Fragments,
    unstored: Option<Tick>,
}

/// One family's flows, and what a decision about them needs.
pub struct Decider<'a, K> {
    pub(super) conns: &'a mut ConnTable<K>,
    pub(super) scheduling: &'a mut SchedulerState,
    /// When a flow was last forwarded without an entry.
    unstored: &'a mut Option<Tick>,
    pub(super) table: &'a ServiceTable,
    pub(super) turn: Turn<'a>,
}

impl Balancer {
    /// Empty tables with room for `connections` of each family; `hash_seed` is drawn at start. All of their memory is
    /// taken now, so that a flood finds none missing.
    pub fn new(connections: usize, hash_seed: u64) -> Self {
        Self {
            v4: ConnTable::new(connections, hash_seed),
            v6: ConnTable::new(connections, hash_seed.rotate_left(17)),
            scheduling: SchedulerState::new(hash_seed),
            fragments: Fragments::new(hash_seed.rotate_left(31)),
            unstored: None,
        }
    }

    /// What reads frames for this worker.
    #[inline]
    pub fn classifier<'a>(&'a mut self, table: &'a ServiceTable, tick: Tick) -> Classifier<'a> {
        Classifier {
            conns: (&self.v4, &self.v6),
            table,
            fragments: &mut self.fragments,
            tick,
        }
    }

    /// What decides on IPv4 packets.
    #[inline]
    pub fn four<'a>(&'a mut self, table: &'a ServiceTable, turn: Turn<'a>) -> Decider<'a, Key4> {
        Decider {
            conns: &mut self.v4,
            scheduling: &mut self.scheduling,
            unstored: &mut self.unstored,
            table,
            turn,
        }
    }

    /// What decides on IPv6 packets.
    pub fn six<'a>(&'a mut self, table: &'a ServiceTable, turn: Turn<'a>) -> Decider<'a, Key6> {
        Decider {
            conns: &mut self.v6,
            scheduling: &mut self.scheduling,
            unstored: &mut self.unstored,
            table,
            turn,
        }
    }

    /// From now on the connections of other workers count too, for schedulers and thresholds.
    pub fn see(&mut self, others: Arc<Others>) {
        self.scheduling.see(others);
    }

    /// From now on flows may be handed down to this.
    pub fn offload_to(&mut self, below: &Arc<dyn Offload>) {
        self.v4.offload_to(Arc::clone(below));
        self.v6.offload_to(Arc::clone(below));
    }

    /// Looks at the next `budget` buckets of each table and takes out what has expired. Whether it has come to the end of
    /// the tables, which are of one size.
    pub fn sweep(&mut self, budget: usize, turn: Turn<'_>) -> bool {
        if !self.v6.is_empty() {
            self.v6.sweep(budget, turn);
        }
        self.v4.sweep(budget, turn)
    }

    /// Lets every scheduler see `table`, as IPVS does with each change: a worker's schedulers see
    /// only the last change before a pick.
    #[cfg(test)]
    pub(super) fn follow(&mut self, table: &ServiceTable) {
        for service in table.services() {
            self.scheduling.follow(service.id, &service.picker);
        }
    }

    /// How many first fragments were seen: when there are more, later ones may have become known.
    #[inline]
    pub const fn first_fragments(&self) -> u64 {
        self.fragments.inserted()
    }

    /// The IPv4 connections.
    pub const fn conns(&self) -> &ConnTable<Key4> {
        &self.v4
    }

    /// The same, to be changed.
    pub const fn conns_mut(&mut self) -> &mut ConnTable<Key4> {
        &mut self.v4
    }

    /// The same of IPv6.
    pub const fn conns6_mut(&mut self) -> &mut ConnTable<Key6> {
        &mut self.v6
    }

    /// The IPv6 connections.
    pub const fn conns6(&self) -> &ConnTable<Key6> {
        &self.v6
    }
}

impl<'a, K: FlowKey> Decider<'a, K> {
    /// Decides on one packet: by its flow's entry, or else by its virtual server's scheduler.
    #[inline]
    pub fn decide(&mut self, packet: &mut Packet<K>) -> Verdict {
        if packet.answers {
            return self.answer(packet);
        }
        if matches!(packet.kind, Kind::IcmpError | Kind::TunnelError) {
            return self.about_flow(packet);
        }
        let known = (self.conns).find_guessed(&packet.key, packet.candidates, packet.guess);
        if let Some(slot) = known {
            match self.current(slot, packet.kind) {
                Current::Real(state, id, real) => {
                    let direction = if real.method.sees_answers() {
                        Direction::In
                    } else {
                        Direction::InOnly
                    };
                    let state = next_state(direction, packet.kind, state);
                    if self.conns.touch(slot, state, self.turn) {
                        packet.is_plain = is_plain(packet.kind, state);
                    }
                    return Verdict::Forward(id);
                }
                Current::Verdict(verdict) => return verdict,
                Current::None => {}
            }
        }
        self.admit(packet)
    }

    /// The real server that an entry's packets go to, or what becomes of the packet instead. Unless there is one the
    /// entry is gone, or no packet but a new flow's may use it.
    #[inline]
    fn current(&mut self, slot: Slot, kind: Kind) -> Current<'a> {
        let Some((state, real)) = self.conns.current(slot, self.turn) else {
            self.conns.expire(slot, self.turn);
            return Current::None;
        };
        let table = self.table;
        let found = real.and_then(|real| table.real(real).map(|it| (real.id, it)));
        let Some((id, real)) = found else {
            return self.orphan(slot, kind);
        };
        if real.failed && self.leaves(real, kind) {
            self.conns.remove(slot, self.turn);
            return match kind {
                Kind::Tcp(flags) if !opens(kind) => refuse(flags, ReplyReason::RealDown),
                _ => Current::None,
            };
        }
        if opens(kind) && self.is_renewed(slot, real) {
            self.conns.remove(slot, self.turn);
            return Current::None;
        }
        Current::Real(state, id, real)
    }

    /// A connection whose real server has left the configuration.
    #[cold]
    fn orphan(&mut self, slot: Slot, kind: Kind) -> Current<'a> {
        let policy = self.table.policy();
        if !policy.expire_nodest_conn && !policy.reset_on_failure {
            return Current::Verdict(Verdict::Drop(DropReason::RealGone));
        }
        self.conns.remove(slot, self.turn);
        match kind {
            Kind::Tcp(flags) if policy.reset_on_failure && !opens(kind) => {
                refuse(flags, ReplyReason::RealDown)
            }
            _ => Current::None,
        }
    }

    /// Whether a packet of this kind ends its connection to a real server that has failed. With `inhibit_on_failure`
    /// TCP connections go on: that is what it is for. What one that drains has of TCP ends by itself. A datagram that
    /// nobody answers has nothing to go on with.
    #[cold]
    fn leaves(&self, real: &Real, kind: Kind) -> bool {
        let policy = self.table.policy();
        match kind {
            Kind::Tcp(_) => policy.reset_on_failure && !real.available && !real.draining,
            Kind::Udp => policy.udp_move,
            _ => false,
        }
    }

    /// Whether a first packet on an existing entry starts a connection of its own: on a finished one
    /// (IPVS `conn_reuse_mode`), unless a template leads it, which would decide the same again;
    /// and on one to a real server that is down, or has weight 0 where `expire_nodest_conn` says so.
    fn is_renewed(&self, slot: Slot, real: &Real) -> bool {
        let (policy, state) = (self.table.policy(), self.conns.state(slot));
        let withdrawn = real.quiescent && policy.expire_nodest_conn && policy.reuse_finished;
        if !real.available || withdrawn {
            return true;
        }
        if self.conns.is_led(slot) {
            return false;
        }
        match state {
            State::FinWait => policy.reuse_closing && !real.method.sees_answers(),
            State::SctpRejected => false,
            state => policy.reuse_finished && state.is_finished(),
        }
    }

    /// An ICMP error goes where the flow's packets go. It neither prolongs the flow nor changes it.
    #[cold]
    fn about_flow(&mut self, packet: &Packet<K>) -> Verdict {
        let found = self
            .conns
            .find(&packet.key, packet.candidates)
            .filter(|slot| !self.conns.is_expired(*slot, self.turn))
            .and_then(|slot| self.conns.real(slot))
            .filter(|real| self.table.real(*real).is_some());
        match found {
            Some(real) if packet.kind == Kind::TunnelError => Some(Verdict::Report(real.id)),
            Some(real) => Some(Verdict::Forward(real.id)),
            None if packet.kind == Kind::TunnelError => self.report_alone(packet),
            None => None,
        }
        .unwrap_or(Verdict::Drop(DropReason::IcmpUnknownFlow))
    }

    /// An error about a tunnel packet of a flow without an entry: by the hash that led it, where flows may be without.
    fn report_alone(&mut self, packet: &Packet<K>) -> Option<Verdict> {
        let table = self.table;
        let service = table.service(&packet.question())?;
        let alone = service.one_packet && packet.key.protocol() == udp::PROTOCOL;
        let hashed = service.persistence.is_none() && service.picker.is_hash();
        if !(hashed && (alone || self.unstored_lately())) {
            return None;
        }
        let real = self.pick(service, packet)?;
        Some(Verdict::Report(real.id))
    }

    /// `schedule_icmp`: where the scheduler would send the flow that an error is about. When no worker knows the flow.
    #[cold]
    pub fn schedule_error(&mut self, packet: &Packet<K>) -> Option<Verdict> {
        let table = self.table;
        if packet.kind != Kind::IcmpError || packet.answers {
            return None;
        }
        let service = table.service(&packet.question())?;
        let real = self.pick(service, packet)?;
        Some(Verdict::Forward(real.id))
    }

    /// A packet from a real server behind NAT, or an error about one to it. Without a connection it is not the
    /// balancer's: a host that is reached through this one by its own address.
    fn answer(&mut self, packet: &mut Packet<K>) -> Verdict {
        let (table, from) = (self.table, packet.key);
        // Of the family, as words: an address of any is compared in memory, where it must arrive first.
        let (addr, port) = (K::own(from.vip()), from.vport());
        let is_answered_by = |real: RealRef, vport: u16| {
            table.real(real).is_some_and(|real| {
                real.port_for(vport) == port
                    && K::own(real.addr) == addr
                    && real.method.sees_answers()
            })
        };
        let known = (self.conns).find_answered(
            &from,
            packet.candidates,
            packet.guess,
            self.turn,
            is_answered_by,
        );
        let Some(slot) = known else {
            return self.answer_alone(packet);
        };
        if packet.kind != Kind::IcmpError {
            let state = next_state(Direction::Out, packet.kind, self.conns.state(slot));
            if self.conns.touch(slot, state, self.turn) {
                packet.is_plain = is_plain(packet.kind, state);
            }
        }
        packet.key = self.conns.key(slot);
        match self.conns.real(slot) {
            Some(real) => Verdict::Answer(real.id),
            None => Verdict::Drop(DropReason::RealGone),
        }
    }

    /// An answer to no connection: of a virtual server that remembers none (`ops`), or of none at all.
    #[cold]
    fn answer_alone(&self, packet: &mut Packet<K>) -> Verdict {
        let (table, from) = (self.table, packet.key);
        let (addr, protocol, port) = (from.vip(), from.protocol(), from.vport());
        let service = table.returns(addr, protocol, port);
        match service.and_then(Service::stateless) {
            Some(key) if matches!(packet.kind, Kind::Udp | Kind::LaterFragment) => {
                match K::between((from.client(), from.client_port()), key) {
                    Some(flow) => {
                        packet.key = flow;
                        match table.returning(addr, protocol, port) {
                            Some(real) => {
                                self.claim(real);
                                Verdict::Answer(real.id)
                            }
                            None => Verdict::Route,
                        }
                    }
                    None => Verdict::Route,
                }
            }
            Some(_) | None => match packet.kind {
                Kind::IcmpError | Kind::LaterFragment => Verdict::Route,
                // Who ends a connection is not told that there is none; the other end must hear of it.
                Kind::Tcp(flags) if flags.contains(Flags::RST) => Verdict::Route,
                Kind::Sctp(sctp::Event::Abort) => Verdict::Route,
                _ if self.table.policy().nat_icmp_send => Verdict::Reply(ReplyReason::NoConnection),
                _ => Verdict::Route,
            },
        }
    }

    /// A packet whose flow has no entry: only a first one starts one.
    // Apart from the way of known flows, which needs the registers.
    #[inline(never)]
    fn admit(&mut self, packet: &mut Packet<K>) -> Verdict {
        let table = self.table;
        let Some(service) = table.service(&packet.question()) else {
            return self.astray(packet);
        };
        let refused = self.refused(packet.kind);
        if let Some(verdict) = refused {
            return match self.may_be_unstored(service, packet.kind) {
                true => self.follow_hash(service, packet).unwrap_or(verdict),
                false => verdict,
            };
        }
        let key = packet.key;
        let none = Verdict::Reply(ReplyReason::NoReal);
        let (real, template) = match service.persistence {
            None => match self.pick(service, packet) {
                Some(real) => (real, None),
                None => return none,
            },
            Some(templates) => {
                let template = service.template_of(key, templates);
                match self.lead(service, template, templates.period, packet) {
                    Ok((real, slot)) => (real, Some(slot)),
                    Err(verdict) => return verdict,
                }
            }
        };
        let Some(it) = table.real(real) else {
            return none;
        };
        // A packet in fragments is remembered, so that they stay together.
        let alone = service.one_packet && !packet.first_fragment;
        if alone && packet.kind == Kind::Udp && template.is_none() {
            self.claim(real);
            // One that waits for its next hop comes again.
            let connections = &self.turn.stats.real(real.id.0).connections;
            connections.add(table.next_hop(it).is_some().into());
            return Verdict::Forward(real.id);
        }
        let direction = if it.method.sees_answers() {
            Direction::In
        } else {
            Direction::InOnly
        };
        let new = NewConn {
            key,
            candidates: packet.candidates,
            real,
            state: first_state(direction, packet.kind),
            template,
            guess: packet.guess,
        };
        if self.conns.insert(&new, self.turn).is_none() {
            if let Some(template) = template {
                self.conns.unrefer(template);
            }
            // A hash leads the flow's next packet to the same real server without an entry.
            if template.is_none() && service.picker.is_hash() && !it.method.sees_answers() {
                self.count_unstored(real);
                return Verdict::Forward(real.id);
            }
            return Verdict::Drop(DropReason::TableFull);
        }
        self.scheduling.connected(real, it.limits, self.turn.stats);
        Verdict::Forward(real.id)
    }

    /// A packet for no virtual server. The steering program cannot tell the fragments of answers from those of whatever
    /// else a real server behind NAT sends.
    #[cold]
    fn astray(&self, packet: &mut Packet<K>) -> Verdict {
        let key = packet.key;
        let is_fragment = packet.first_fragment || packet.kind == Kind::LaterFragment;
        if is_fragment && self.table.has_returns_from(key.client(), key.protocol()) {
            packet.key = key.reversed();
            return Verdict::Route;
        }
        Verdict::Drop(DropReason::NoService)
    }

    /// Whether a packet from the middle of an unknown flow may be of one that found no room in the table, not too long
    /// ago.
    #[cold]
    fn may_be_unstored(&self, service: &Service, kind: Kind) -> bool {
        matches!(kind, Kind::Tcp(_) | Kind::Sctp(_) | Kind::LaterFragment)
            && service.persistence.is_none()
            && service.picker.is_hash()
            && self.unstored_lately()
    }

    /// Whether any flow was forwarded without an entry that may still be there.
    fn unstored_lately(&self) -> bool {
        self.unstored.is_some_and(|since| {
            let age = self.turn.tick.since(since);
            age < self.turn.timeouts.ticks(State::Established)
        })
    }

    /// Forwards a packet where its flow's first one went by the hash. The real server knows the flow, or refuses it
    /// itself.
    #[cold]
    fn follow_hash(&mut self, service: &Service, packet: &Packet<K>) -> Option<Verdict> {
        let real = self.pick(service, packet)?;
        let it = self.table.real(real)?;
        if it.method.sees_answers() {
            return None;
        }
        self.count_unstored(real);
        Some(Verdict::Forward(real.id))
    }

    /// What becomes of a packet of an unknown flow that may not start one.
    fn refused(&self, kind: Kind) -> Option<Verdict> {
        let policy = self.table.policy();
        match kind {
            Kind::Udp => None,
            Kind::Tcp(flags) if flags.contains(Flags::RST) => {
                Some(Verdict::Drop(DropReason::UnknownReset))
            }
            Kind::Tcp(flags) => {
                let starts = flags.contains(Flags::SYN) || policy.sloppy_tcp;
                (!starts).then_some(Verdict::Reply(ReplyReason::UnknownFlow))
            }
            Kind::Sctp(sctp::Event::Init) => None,
            Kind::Sctp(event) => {
                let starts = policy.sloppy_sctp && event != sctp::Event::Abort;
                (!starts).then_some(Verdict::Drop(DropReason::UnknownAssociation))
            }
            Kind::LaterFragment => Some(Verdict::Park(DropReason::FragmentUnknown)),
            Kind::IcmpError | Kind::TunnelError => Some(Verdict::Drop(DropReason::IcmpUnknownFlow)),
        }
    }

    /// Where the template of a persistent client leads. Without one, or when its real server is
    /// down or gone, the scheduler decides and the template leads there from now on. A weight of 0
    /// does not end it unless IPVS's `expire_quiescent_template` says so.
    fn lead(
        &mut self,
        service: &Service,
        key: K,
        period: u32,
        packet: &Packet<K>,
    ) -> Result<(RealRef, Slot), Verdict> {
        let known = self.conns.find_template(&key, self.turn);
        let expires_quiescent = self.table.policy().expire_quiescent_template;
        let leads_to = known.and_then(|slot| self.conns.real(slot)).filter(|real| {
            self.table.real(*real).is_some_and(|it| {
                it.available
                    && !(it.quiescent && expires_quiescent)
                    && !(it.failed && self.leaves(it, packet.kind))
            })
        });
        let real = match leads_to {
            Some(real) => real,
            None => self
                .pick(service, packet)
                .ok_or(Verdict::Reply(ReplyReason::NoReal))?,
        };
        let slot = match known {
            Some(slot) => slot,
            None => self
                .conns
                .insert_template(key, real, period, self.turn)
                .ok_or(Verdict::Drop(DropReason::TableFull))?,
        };
        self.conns.refer(slot, real, self.turn);
        Ok((real, slot))
    }

    /// Counts a packet that goes to a real server by the hash alone.
    fn count_unstored(&mut self, real: RealRef) {
        self.claim(real);
        self.turn.stats.unstored.add(1);
        *self.unstored = Some(self.turn.tick);
    }

    /// Sees to it that what is counted for a real server without an entry counts for it, not for one before.
    fn claim(&self, real: RealRef) {
        self.turn.stats.real(real.id.0).claim(real.epoch.get());
    }

    #[inline]
    fn pick(&mut self, service: &Service, packet: &Packet<K>) -> Option<RealRef> {
        let ask = Ask {
            client: packet.key.client(),
            client_port: packet.key.client_port(),
            vip: packet.key.vip(),
            tick: self.turn.tick,
            stats: self.turn.stats,
        };
        self.scheduling.pick(service.id, &service.picker, &ask)
    }

    /// The table of connections.
    pub const fn conns(&self) -> &ConnTable<K> {
        self.conns
    }
}

/// Where an entry leads now.
enum Current<'t> {
    /// Its state, and its real server.
    Real(State, RealId, &'t Real),
    /// The packet goes no further.
    Verdict(Verdict),
    /// The packet must be treated as one of a new flow.
    None,
}

/// Whether a packet asks for a new connection.
#[inline]
const fn opens(kind: Kind) -> bool {
    match kind {
        Kind::Tcp(flags) => flags.contains(Flags::SYN) && !flags.contains(Flags::RST),
        Kind::Sctp(event) => matches!(event, sctp::Event::Init),
        _ => false,
    }
}

/// A segment of a connection that has ended here; a reset is never answered.
const fn refuse(flags: Flags, reason: ReplyReason) -> Current<'static> {
    Current::Verdict(if flags.contains(Flags::RST) {
        Verdict::Drop(DropReason::UnknownReset)
    } else {
        Verdict::Reply(reason)
    })
}

/// Whether the fast path could have forwarded such a packet of a connection that is in `state` after it.
const fn is_plain(kind: Kind, state: State) -> bool {
    match kind {
        Kind::Tcp(flags) => {
            let marked = Flags::FIN
                .union(Flags::SYN)
                .union(Flags::RST)
                .union(Flags::ACK);
            flags.0 & marked.0 == Flags::ACK.0 && state.is_established()
        }
        Kind::Udp => true,
        _ => false,
    }
}

/// The state of a connection after a packet.
#[inline]
const fn next_state(direction: Direction, kind: Kind, state: State) -> State {
    match kind {
        Kind::Tcp(flags) => tcp::next(direction, Event::of(flags), state),
        Kind::Sctp(event) => sctp::next(direction, event, state),
        Kind::Udp | Kind::LaterFragment | Kind::IcmpError | Kind::TunnelError => state,
    }
}

/// The state of a connection after its first packet.
const fn first_state(direction: Direction, kind: Kind) -> State {
    let start = match kind {
        Kind::Tcp(_) => State::None,
        Kind::Sctp(_) => State::SctpNone,
        Kind::Udp | Kind::LaterFragment | Kind::IcmpError | Kind::TunnelError => State::Udp,
    };
    next_state(direction, kind, start)
}
