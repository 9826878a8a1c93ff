//! Connections that a previous run left on the fast path, as a worker of this one gets them.

use std::net::IpAddr;

use super::{
    Balancer, Decider, FlowId, FlowKey, Key4, Key6, NewConn, Ownership, Packet, RealRef,
    ServiceKey, ServiceTable, State, Turn,
};
use crate::{
    addr::{Endpoint, L4Proto},
    time::Tick,
};

/// A connection that was established when the run ended that had it.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// TCP or UDP.
    pub protocol: L4Proto,
    /// The client's address and port.
    pub client: (IpAddr, u16),
    /// The virtual server's, of the same family.
    pub vip: Endpoint,
    /// Its real server by the table of now.
    pub real: RealRef,
    /// Its flow on the fast path of now, if it is there.
    pub flow: Option<FlowId>,
    /// When its last packet came.
    pub seen: Tick,
    /// Packets that came, as far as they are counted.
    pub packets: u8,
}

impl Inherited {
    const fn key(&self) -> ServiceKey {
        ServiceKey {
            protocol: self.protocol,
            endpoint: self.vip,
        }
    }

    /// Whether its virtual server, which is that of its real server, still takes its packets: of one that goes by marks,
    /// whatever interface they come by.
    pub fn is_taken(&self, table: &ServiceTable) -> bool {
        let Some(real) = table.real(self.real) else {
            return false;
        };
        let taken = |question| table.service(&question).map(|service| service.id);
        let id = match Key4::between(self.client, self.key()) {
            Some(key) => taken(
                Packet {
                    key,
                    ..Packet::<Key4>::NONE
                }
                .question(),
            ),
            None => Key6::between(self.client, self.key()).and_then(|key| {
                taken(
                    Packet {
                        key,
                        ..Packet::<Key6>::NONE
                    }
                    .question(),
                )
            }),
        };
        id == Some(real.service)
    }

    /// The worker that has it: see [`Ownership::owner`].
    pub fn owner(&self, ownership: Ownership, table: &ServiceTable) -> Option<u32> {
        let owner4 = |key| {
            ownership.owner(
                &Packet {
                    key,
                    ..Packet::<Key4>::NONE
                },
                table,
            )
        };
        let owner6 = |key| {
            ownership.owner(
                &Packet {
                    key,
                    ..Packet::<Key6>::NONE
                },
                table,
            )
        };
        match Key4::between(self.client, self.key()) {
            Some(key) => owner4(key),
            None => owner6(Key6::between(self.client, self.key())?),
        }
    }
}

impl Balancer {
    /// Takes over a connection. Whether it did: not one whose time is over, whose flow has an entry already, or that finds
    /// no room.
    pub fn inherit(&mut self, one: &Inherited, table: &ServiceTable, turn: Turn<'_>) -> bool {
        if one.vip.addr.is_ipv4() {
            self.four(table, turn).inherit(one)
        } else {
            self.six(table, turn).inherit(one)
        }
    }
}

impl<K: FlowKey> Decider<'_, K> {
    fn inherit(&mut self, one: &Inherited) -> bool {
        let table = self.table;
        let state = match one.protocol {
            L4Proto::Tcp => State::Established,
            _ => State::Udp,
        };
        // Later than now is of a clock that began again.
        let is_over = self.turn.tick.since(one.seen) >= self.turn.timeouts.ticks(state);
        let key = K::between(one.client, one.key()).filter(|_| !is_over);
        let (Some(key), Some(real)) = (key, table.real(one.real)) else {
            return false;
        };
        let candidates = self.conns.candidates(&key);
        if self.conns.find(&key, candidates).is_some() {
            return false;
        }
        let service = table.service_of(real);
        let template = service.and_then(|service| {
            let templates = service.persistence?;
            let template = service.template_of(key, templates);
            let known = self.conns.find_template(&template, self.turn);
            let make =
                || (self.conns).insert_template(template, one.real, templates.period, self.turn);
            let slot = known.or_else(make)?;
            self.conns.refer(slot, one.real, self.turn);
            Some(slot)
        });
        let new = NewConn {
            key,
            candidates,
            real: one.real,
            state,
            template,
            guess: None,
        };
        let is_in = self.conns.inherit(&new, one, self.turn);
        if is_in {
            self.scheduling
                .connected(one.real, real.limits, self.turn.stats);
        } else if let Some(template) = template {
            self.conns.unrefer(template);
        }
        is_in
    }
}
