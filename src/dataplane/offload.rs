//! Handing flows down to the fast path, and keeping what it has of them right.
//!
//! A packet that comes up although its flow is there says that something is not as it was: it is looked at again,
//! at most once a tick and flow.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::{
    balance::{
        ConnTable, FlowId, FlowKey, LbKind, Offload, Packet, Real, RealId, ServiceTable, Turn,
        rewrite::TunnelKind,
    },
    sys::steer::{FastFlow, FastPath, FlowHandle},
    time::Tick,
};

/// The fast path as a worker's tables see it.
pub(super) struct Below(Arc<FastPath>);

/// A worker's end of the fast path.
pub(super) struct HandDown {
    fast: Arc<FastPath>,
    /// The worker's number.
    worker: u8,
}

impl fmt::Debug for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Below")
    }
}

impl fmt::Debug for HandDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandDown")
    }
}

impl Offload for Below {
    fn heard(&self, flow: FlowId) -> (Tick, u8) {
        handle(flow).map_or_else(Default::default, |flow| self.0.seen(flow))
    }

    fn is_moving(&self) -> bool {
        self.0.is_moving()
    }

    fn is_at_home(&self, flow: FlowId, client: (IpAddr, u16), protocol: u8) -> bool {
        handle(flow).is_some_and(|flow| self.0.is_at_home(flow, client, protocol))
    }

    fn set_path_mtu(&self, real: RealId, mtu: u16) {
        self.0.set_path_mtu(real.0, mtu);
    }

    fn end(&self, flow: FlowId, now: Tick) {
        if let Some(flow) = handle(flow) {
            self.0.end(flow, now);
        }
    }
}

/// Handles and numbers of flows are the same numbers.
fn handle(flow: FlowId) -> Option<FlowHandle> {
    FlowHandle::from_raw(flow.raw())
}

/// Whether the program can do what packets to a real server need: no checksum of tunnels, which covers the payload.
pub const fn can_go_down(method: LbKind) -> bool {
    match method {
        LbKind::Dr | LbKind::Nat => true,
        LbKind::Tun(kind) => !matches!(
            kind,
            TunnelKind::Gre { checksum: true } | TunnelKind::Gue { checksum: true, .. }
        ),
    }
}

impl HandDown {
    /// The end of the worker with this number, and what its tables get.
    pub(super) fn new(fast: Arc<FastPath>, number: usize) -> (Self, Arc<dyn Offload>) {
        let below = Below(Arc::clone(&fast));
        let worker = u8::try_from(number).unwrap_or(u8::MAX);
        (Self { fast, worker }, Arc::new(below))
    }

    /// Takes a flow back that has no connection.
    pub(super) fn end(&self, flow: FlowId, now: Tick) {
        if let Some(flow) = handle(flow) {
            self.fast.end(flow, now);
        }
    }

    /// Hands the flow of a packet down that has gone its way as its connection's others do, or puts right what the fast
    /// path has of it.
    #[cold]
    pub(super) fn consider<K: FlowKey>(
        &self,
        conns: &mut ConnTable<K>,
        packet: &Packet<K>,
        table: &ServiceTable,
        turn: Turn<'_>,
    ) {
        // Not by its slot of before: connections that are new in this burst may have moved it.
        let Some(slot) = conns.find(&packet.key, packet.candidates) else {
            return;
        };
        let real_ref = conns
            .real(slot)
            .filter(|_| conns.state(slot).is_established());
        let known = real_ref.and_then(|it| Some((it, table.real(it)?)));
        let Some((real_ref, real)) = known.filter(|(_, real)| can_go_down(real.method)) else {
            if conns.flow_below(slot).is_some() {
                conns.take_back(slot, turn);
            }
            return;
        };
        if !has_fast_way(real, table) {
            // As long as that is so its flow comes up, should it be there.
            return;
        }
        let key = conns.key(slot);
        let client = (key.client(), key.client_port());
        let nat = real.method == LbKind::Nat;
        let vip = key.vip();
        let way = || self.way(client.0, table);
        if let Some(flow) = conns.flow_below(slot).and_then(handle) {
            if self.fast.is_at_home(flow, client, key.protocol()) {
                self.fast.mark(vip, nat.then_some(real.addr));
                if nat && !self.fast.has_way(flow, table.routes().number()) {
                    self.fast.set_way(flow, way());
                }
                return;
            }
            conns.take_back(slot, turn);
        }
        let flow = FastFlow {
            protocol: key.protocol(),
            client,
            vip: (vip, key.vport()),
            real: (real_ref.id.0, real_ref.epoch.get()),
            way: if nat { way() } else { None },
            spread: packet.candidates.spread(),
            worker: self.worker,
        };
        self.fast.mark(vip, nat.then_some(real.addr));
        let begun = self.fast.begin(&flow, turn.tick);
        if let Some(flow) = begun.and_then(|flow| FlowId::from_raw(flow.raw())) {
            conns.hand_down(slot, flow);
        }
    }

    fn way(&self, client: IpAddr, table: &ServiceTable) -> Option<(u32, u16)> {
        let routes = table.routes();
        Some((routes.number_of_way(client)?, routes.number()))
    }
}

fn has_fast_way(real: &Real, table: &ServiceTable) -> bool {
    let hop = table.next_hop(real);
    hop.is_some_and(|hop| table.port(hop.port).fast)
}
