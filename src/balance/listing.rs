//! The connections of one worker as control shows them, looked for in small steps.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::{Balancer, ConnTable, FlowKey, ServiceTable, Slot, State, Turn};
use crate::addr::{Endpoint, IpPrefix};

/// The name of a template's state once a connection that it led was assured; before, it is that of
/// [`State::Template`].
const ASSURED: &str = "ASSURED";

/// Which connections and templates are wanted: those that fit everything that is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnFilter {
    /// The client's address is in this network. A template has its client's network for an address.
    pub client: Option<IpPrefix>,
    /// The virtual address.
    pub vip: Option<IpAddr>,
    /// The virtual port.
    pub vport: Option<u16>,
    /// The real server's address.
    pub real: Option<IpAddr>,
    /// The name of the state, of [`ConnFilter::state_named`].
    pub state: Option<&'static str>,
    /// The IP protocol number; 0: templates for a firewall mark, which are of no protocol.
    pub protocol: Option<u8>,
}

/// A connection or a persistence template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnEntry {
    /// The IP protocol number; 0: a template for a firewall mark, which is of no protocol.
    pub protocol: u8,
    /// Where clients connect to. Of a template for a mark, the mark, as IPVS writes it: in the first four bytes
    /// of an address.
    pub vip: Endpoint,
    /// The client; of a template its network, and port 0.
    pub client: Endpoint,
    /// The real server; `None` when it has left the configuration.
    pub real: Option<Endpoint>,
    /// The state's name.
    pub state: &'static str,
    /// How long it would still live without another packet.
    pub remaining: Duration,
}

/// A search for connections: told what to look for and how many to keep, then carried on by the worker that has them.
#[derive(Debug)]
pub struct Listing {
    filter: ConnFilter,
    /// What was found, as far as there was room. Room is made beforehand: a worker does not allocate.
    entries: Vec<ConnEntry>,
    /// How many fit, kept or not.
    matching: u64,
    /// Buckets looked at, of all tables one after another.
    looked_at: usize,
}

impl ConnFilter {
    /// The state with this name, whatever the case of its letters.
    pub fn state_named(name: &str) -> Option<&'static str> {
        let all = State::ALL.iter().map(|state| state.name());
        all.chain([ASSURED])
            .find(|it| it.eq_ignore_ascii_case(name))
    }

    fn wants(&self, entry: &ConnEntry) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, it: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == *it)
        }
        is(self.protocol, &entry.protocol)
            && is(self.vip, &entry.vip.addr)
            && is(self.vport, &entry.vip.port)
            && is(self.state, &entry.state)
            && self
                .client
                .is_none_or(|net| net.contains(entry.client.addr))
            && self
                .real
                .is_none_or(|addr| entry.real.is_some_and(|real| real.addr == addr))
    }
}

impl Listing {
    /// A search that has not begun, with room for so many entries.
    pub fn new(filter: ConnFilter, room: usize) -> Self {
        Self {
            filter,
            entries: Vec::with_capacity(room),
            matching: 0,
            looked_at: 0,
        }
    }

    /// Looks at the next `budget` buckets of a worker's tables. Whether that was all of them. An entry that moves
    /// meanwhile may be missed or found twice.
    pub fn advance(
        &mut self,
        balancer: &Balancer,
        table: &ServiceTable,
        turn: Turn<'_>,
        budget: usize,
    ) -> bool {
        let (v4, v6) = (balancer.conns(), balancer.conns6());
        let first_of_v6 = v4.buckets();
        let left = self.look(v4, (table, turn), 0, budget);
        if self.looked_at >= first_of_v6 {
            self.look(v6, (table, turn), first_of_v6, left);
        }
        self.looked_at >= first_of_v6 + v6.buckets()
    }

    /// What was found so far.
    pub fn entries(&self) -> &[ConnEntry] {
        &self.entries
    }

    /// How many fit so far, whether or not there was room for them.
    pub const fn matching(&self) -> u64 {
        self.matching
    }

    /// Looks at the buckets of `conns`, the first of which has the number `first`. What is left of the budget.
    fn look<K: FlowKey>(
        &mut self,
        conns: &ConnTable<K>,
        (table, turn): (&ServiceTable, Turn<'_>),
        first: usize,
        budget: usize,
    ) -> usize {
        let end = first + conns.buckets();
        if conns.is_empty() {
            // Not touched: its memory may never have been used.
            self.looked_at = self.looked_at.max(end);
            return budget;
        }
        let start = self.looked_at.max(first);
        let stop = start.saturating_add(budget).min(end);
        for bucket in start..stop {
            for slot in conns.in_bucket(bucket - first, turn) {
                let entry = describe(conns, slot, table, turn);
                if self.filter.wants(&entry) {
                    self.matching += 1;
                    if self.entries.len() < self.entries.capacity() {
                        self.entries.push(entry);
                    }
                }
            }
        }
        self.looked_at = self.looked_at.max(stop);
        budget - stop.saturating_sub(start)
    }
}

fn describe<K: FlowKey>(
    conns: &ConnTable<K>,
    slot: Slot,
    table: &ServiceTable,
    turn: Turn<'_>,
) -> ConnEntry {
    let (key, state) = (conns.key(slot), conns.state(slot));
    let (protocol, vport) = (key.protocol(), key.vport());
    let vip = match key.vip() {
        IpAddr::V6(mark) if protocol == 0 => Ipv6Addr::from_bits(mark.to_bits() << 96).into(),
        vip => vip,
    };
    let real = conns.real(slot).and_then(|real| table.real(real));
    let real = real.map(|real| {
        // A template for every port leads to the port that is asked for.
        let any = real.port == 0 || (state == State::Template && vport == 0);
        Endpoint::new(real.addr, if any { vport } else { real.port })
    });
    ConnEntry {
        protocol,
        vip: Endpoint::new(vip, vport),
        client: Endpoint::new(key.client(), key.client_port()),
        real,
        state: match state {
            State::Template if conns.is_assured(slot) => ASSURED,
            state => state.name(),
        },
        remaining: conns.remaining(slot, turn),
    }
}
