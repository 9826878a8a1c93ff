//! Connections whose flows are on the fast path: handed down, asked before they end, taken back.

use std::sync::Arc;

use super::{ASSURED, ConnTable, DEPTH_BITS, NewConn, Slot, Turn, has_come};
use crate::balance::{FlowId, FlowKey, Inherited, Offload, State};

impl<K: FlowKey> ConnTable<K> {
    /// From now on its flows may be handed down to this: see [`Self::hand_down`].
    pub fn offload_to(&mut self, below: Arc<dyn Offload>) {
        self.below = Some(below);
    }

    /// A connection's flow is on the fast path from now on, until the connection ends, or a packet comes up that is to
    /// be noticed: it is asked there when the last packet came.
    pub fn hand_down(&mut self, slot: Slot, flow: FlowId) {
        let record = &mut self.records[slot.0 as usize];
        record.period = record.depth() | flow.raw() << DEPTH_BITS;
    }

    /// Puts in a connection that a previous run had, as [`Self::insert`] does a new one. Whether there was room.
    pub fn inherit(&mut self, new: &NewConn<K>, one: &Inherited, turn: Turn<'_>) -> bool {
        let Some(slot) = self.insert(new, turn) else {
            return false;
        };
        // It was counted when it began.
        turn.stats.real(new.real.id.0).connections.sub(1);
        let (bucket, way) = (&mut self.buckets[slot.bucket()], slot.way());
        bucket.seen[way] = one.seen;
        bucket.packets[way] = one.packets.clamp(1, ASSURED);
        if one.packets >= ASSURED {
            self.assure_template(self.records[slot.0 as usize].link);
        }
        if let Some(flow) = one.flow {
            self.hand_down(slot, flow);
        }
        true
    }

    /// The flow on the fast path of a connection.
    #[inline]
    pub fn flow_below(&self, slot: Slot) -> Option<FlowId> {
        self.records[slot.0 as usize].flow()
    }

    /// Takes the flow of a connection back from the fast path, with what was heard of it there.
    #[cold]
    pub fn take_back(&mut self, slot: Slot, turn: Turn<'_>) {
        let flow = self.pull(slot, turn);
        let record = &mut self.records[slot.0 as usize];
        record.period = record.depth();
        if let (Some(below), Some(flow)) = (&self.below, flow) {
            below.end(flow, turn.tick);
        }
    }

    /// Asks the fast path what was heard of a connection there; its flow, if it has one.
    #[cold]
    pub(super) fn pull(&mut self, slot: Slot, turn: Turn<'_>) -> Option<FlowId> {
        let (bucket, way) = (&mut self.buckets[slot.bucket()], slot.way());
        if bucket.states[way] == State::Template {
            return None;
        }
        let record = &self.records[slot.0 as usize];
        let flow = record.flow()?;
        let (heard, packets) = self.below.as_ref()?.heard(flow);
        // It may be later than this turn began.
        let heard = if has_come(heard, turn.tick) {
            heard
        } else {
            turn.tick
        };
        if has_come(bucket.seen[way], heard) {
            bucket.seen[way] = heard;
        }
        let link = record.link;
        if bucket.packets[way] < ASSURED && bucket.packets[way].saturating_add(packets) >= ASSURED {
            bucket.packets[way] = ASSURED;
            self.assure_template(link);
        }
        Some(flow)
    }

    /// Whether a connection whose time seems to be over was heard of on the fast path.
    #[cold]
    pub(super) fn lives_below(&self, slot: Slot, timeout: u32, turn: Turn<'_>) -> bool {
        let heard = (self.below.as_ref())
            .zip(self.flow_below(slot))
            .map(|(below, flow)| below.heard(flow).0);
        heard.is_some_and(|heard| !has_come(heard, turn.tick) || turn.tick.since(heard) < timeout)
    }

    /// Whether a connection's flow on the fast path is not where it would be handed down to now.
    #[cold]
    pub(super) fn is_astray(&self, slot: Slot) -> bool {
        let (Some(below), Some(flow)) = (&self.below, self.flow_below(slot)) else {
            return false;
        };
        let key = self.key(slot);
        let is_template = self.state(slot) == State::Template;
        !is_template && !below.is_at_home(flow, (key.client(), key.client_port()), key.protocol())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        net::{IpAddr, Ipv4Addr},
        num::NonZeroU32,
        sync::{Mutex, PoisonError},
    };

    use super::*;
    use crate::{
        balance::{Key4, RealId, RealRef, Timeouts, conntable::NewConn},
        stats::WorkerStats,
        time::Tick,
    };

    /// Flows with what was heard of them; `None`: they were ended.
    #[derive(Debug, Default)]
    struct Fake {
        flows: Mutex<HashMap<u32, Option<(Tick, u8)>>>,
        moving: Mutex<bool>,
    }

    impl Fake {
        fn tell(&self, flow: u32, heard: Option<(Tick, u8)>) {
            let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            flows.insert(flow, heard);
        }

        fn is_there(&self, flow: u32) -> bool {
            let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            flows.get(&flow).copied().flatten().is_some()
        }
    }

    impl Offload for Fake {
        fn heard(&self, flow: FlowId) -> (Tick, u8) {
            let flows = self.flows.lock().unwrap();
            flows[&flow.raw()].expect("an ended flow is not asked about")
        }

        fn is_moving(&self) -> bool {
            *self.moving.lock().unwrap()
        }

        fn is_at_home(&self, flow: FlowId, _: (IpAddr, u16), _: u8) -> bool {
            flow.raw() % 2 == 1
        }

        fn set_path_mtu(&self, _: RealId, _: u16) {}

        fn end(&self, flow: FlowId, _: Tick) {
            self.tell(flow.raw(), None);
        }
    }

    struct Bench {
        table: ConnTable<Key4>,
        below: Arc<Fake>,
        stats: WorkerStats,
        timeouts: Timeouts,
        tick: Tick,
    }

    impl Bench {
        fn new(connections: usize) -> Self {
            let mut table = ConnTable::new(connections, 42);
            let below = Arc::new(Fake::default());
            table.offload_to(Arc::clone(&below) as Arc<dyn Offload>);
            Self {
                table,
                below,
                stats: WorkerStats::new(),
                timeouts: Timeouts::default(),
                tick: Tick::from_raw(u32::MAX - 50),
            }
        }

        fn key(number: u32) -> Key4 {
            let client = (Ipv4Addr::from_bits(0x0a00_0000 + number), 4000);
            Key4::new(client, ([192, 0, 2, 1].into(), 80), 6)
        }

        /// An established connection, whose flow has its number and was heard of now.
        fn down(&mut self, number: u32) -> Slot {
            let key = Self::key(number);
            let new = NewConn {
                key,
                candidates: self.table.candidates(&key),
                real: RealRef {
                    id: RealId(0),
                    epoch: NonZeroU32::MIN,
                },
                state: State::Established,
                template: None,
                guess: None,
            };
            let turn = turn(self.tick, &self.timeouts, &self.stats);
            let slot = self.table.insert(&new, turn).expect("room");
            self.below.tell(number, Some((self.tick, 0)));
            self.table
                .hand_down(slot, FlowId::from_raw(number).unwrap());
            slot
        }

        fn find(&self, number: u32) -> Option<Slot> {
            let key = Self::key(number);
            self.table.find(&key, self.table.candidates(&key))
        }

        fn sweep(&mut self) {
            let turn = turn(self.tick, &self.timeouts, &self.stats);
            assert!(self.table.sweep(usize::MAX, turn), "the whole table");
        }
    }

    fn turn<'a>(tick: Tick, timeouts: &'a Timeouts, stats: &'a WorkerStats) -> Turn<'a> {
        Turn {
            tick,
            timeouts,
            stats,
        }
    }

    #[test]
    fn a_connection_that_is_heard_of_below_does_not_expire_and_one_that_is_not_ends_there_too() {
        let mut bench = Bench::new(1000);
        bench.down(1);
        bench.down(2);
        bench.tick = bench.tick.plus_secs(800);
        bench.below.tell(1, Some((bench.tick, 3)));
        bench.tick = bench.tick.plus_secs(101);
        bench.sweep();
        assert!(bench.find(1).is_some() && bench.below.is_there(1));
        assert!(bench.find(2).is_none() && !bench.below.is_there(2));
        bench.tick = bench.tick.plus_secs(798);
        bench.sweep();
        assert!(bench.find(1).is_some(), "900 s from when it was heard of");
        bench.tick = bench.tick.plus_secs(2);
        bench.sweep();
        assert!(bench.find(1).is_none() && !bench.below.is_there(1));
        assert_eq!(bench.stats.connections.get(), 0);
    }

    #[test]
    fn a_packet_that_meets_it_after_its_time_finds_it_if_it_is_heard_of_below() {
        let mut bench = Bench::new(1000);
        let slot = bench.down(7);
        bench.tick = bench.tick.plus_secs(1000);
        let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
        assert!(bench.table.is_expired(slot, turn));
        bench.below.tell(7, Some((bench.tick, 1)));
        assert!(!bench.table.is_expired(slot, turn));
    }

    #[test]
    fn an_end_that_was_seen_takes_the_flow_back_and_a_removal_does() {
        let mut bench = Bench::new(1000);
        let slots = [bench.down(1), bench.down(2)];
        let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
        bench.table.touch(slots[0], State::Established, turn);
        assert!(bench.below.is_there(1));
        bench.table.touch(slots[0], State::FinWait, turn);
        assert!(!bench.below.is_there(1) && bench.table.flow_below(slots[0]).is_none());
        let real = bench.stats.real(0);
        assert_eq!((real.active.get(), real.inactive.get()), (1, 1));
        bench.table.remove(slots[1], turn);
        assert!(!bench.below.is_there(2));
    }

    #[test]
    fn a_full_table_keeps_what_is_heard_of_below() {
        let mut bench = Bench::new(64);
        for number in 1..=40 {
            bench.down(number);
        }
        bench.tick = bench.tick.plus_secs(600);
        for number in 1..=20 {
            bench.below.tell(number, Some((bench.tick, 20)));
        }
        // Assured and heard of just now; the others were silent for ten minutes.
        for number in 1000..1400 {
            let key = Bench::key(number);
            let new = NewConn {
                key,
                candidates: bench.table.candidates(&key),
                real: RealRef {
                    id: RealId(1),
                    epoch: NonZeroU32::MIN,
                },
                state: State::SynRecv,
                template: None,
                guess: None,
            };
            let turn = turn(bench.tick, &bench.timeouts, &bench.stats);
            bench.table.insert(&new, turn);
        }
        let left = |from: u32| (from..from + 20).filter(|it| bench.find(*it).is_some());
        assert_eq!(left(1).count(), 20, "those that go on below");
        assert!((1..=20).all(|number| bench.below.is_there(number)));
        let gone = (21..=40).filter(|number| bench.find(*number).is_none());
        assert!(gone.clone().all(|number| !bench.below.is_there(number)));
        assert!(bench.stats.evicted.get() > 0, "it was full");
    }

    #[test]
    fn while_flows_move_below_a_sweep_takes_those_back_that_are_not_at_home() {
        let mut bench = Bench::new(1000);
        let slots = [bench.down(1), bench.down(2)];
        bench.sweep();
        assert!(bench.below.is_there(1) && bench.below.is_there(2));
        *bench.below.moving.lock().unwrap() = true;
        bench.sweep();
        assert!(bench.below.is_there(1), "at home");
        assert!(!bench.below.is_there(2));
        assert!(bench.table.flow_below(slots[1]).is_none() && bench.find(2).is_some());
    }
}
