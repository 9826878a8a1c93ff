//! Connections and persistence templates of one worker: fixed size, no chains, no timers.
//!
//! A flow has two buckets where it may be, and is in one of them. A [`Bucket`] is a cache line with
//! what a search, a sweep and an eviction look at; the exact [`Record`] is half a line and its place
//! follows from the entry's, so there are no pointers and no free list. An entry costs 40 bytes,
//! and [`ConnTable::new`] makes as many as keep 85 % of them usable: 48 bytes a connection. A flow
//! whose buckets are both full moves one of their entries to that entry's other bucket.
//!
//! Templates live in the same table, as in IPVS: they share its memory, its sweep and its rules of
//! eviction. A connection refers to the template that led it by its slot, so templates do not move
//! and stay as long as a connection refers to them.
//!
//! Where an entry is follows from the client's end of the flow alone ([`FlowKey::hash`]), so one entry
//! serves both directions of NAT: an answer is looked for by its addressee. All connections that a client
//! has from one port at a time, to as many virtual servers, so want the same two buckets. What does not
//! fit there goes to one of [`DEEPEST`] further pairs that follow from the same hash: 64 connections in
//! all. A search looks at those only while some entry is in one, and a table that is more than
//! 85 % full puts none there, so they cost other flows nothing.
//!
//! Expiry is a comparison with the last packet's tick, made when an entry is met: by a packet, by
//! an insertion that needs the room, by the sweep that passes by in small steps.

mod below;
mod bucket;
mod eviction;

use std::{iter, sync::Arc, time::Duration};

use rapidhash::v3::RapidSecrets;

pub use self::bucket::Bucket;
use self::bucket::{ASSURED, FREE, WAYS};
use super::{FlowId, FlowKey, Key4, Key6, Offload, RealRef, State, Timeouts};
use crate::{
    stats::{RealCounters, WorkerStats},
    time::Tick,
};

/// What holds for one turn of the worker.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Now.
    pub tick: Tick,
    /// How long connections may idle.
    pub timeouts: &'a Timeouts,
    /// Where to count.
    pub stats: &'a WorkerStats,
}

/// The candidate places of a flow, as in cuckoo hashing: a tag, and two buckets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates {
    first: u32,
    second: u32,
    tag: u16,
}

/// The place of an entry. Good until the next insertion, which may move entries; a template's for
/// its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

impl Candidates {
    /// The place of no flow.
    pub const NONE: Self = Self {
        first: 0,
        second: 0,
        tag: FREE,
    };

    /// A number that differs from flow to flow, evenly, for who spreads them over queues and paths.
    #[inline]
    pub const fn spread(self) -> u32 {
        let mixed = (self.first ^ (self.tag as u32) << 16).wrapping_mul(0x9e37_79b1);
        // The upper half depends on all bits, the lower one only so.
        mixed ^ mixed >> 16
    }

    /// Whether an entry is in one of the flow's buckets.
    const fn has(self, slot: Slot) -> bool {
        let bucket = slot.bucket();
        bucket == self.first as usize || bucket == self.second as usize
    }
}

impl Slot {
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "slots are numbered in 32 bits"
    )]
    const fn new(bucket: u32, way: usize) -> Self {
        Self(bucket * WAYS as u32 + way as u32)
    }

    #[inline]
    const fn bucket(self) -> usize {
        self.0 as usize / WAYS
    }

    #[inline]
    const fn way(self) -> usize {
        self.0 as usize % WAYS
    }
}

/// What is kept about a flow besides what is in its bucket. Half a cache line for IPv4, a whole one for
/// IPv6.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Record<K> {
    key: K,
    real: Option<RealRef>,
    /// Of a connection: the slot of its template, or [`NO_TEMPLATE`]. Of a template: how many
    /// connections refer to it.
    link: u32,
    /// Of a template: its timeout in ticks. Of a connection: which of its flow's further places it is in, 0 for the
    /// first, in the last [`DEPTH_BITS`]; before these the number of its flow on the fast path, or 0.
    period: u32,
}

const _: () = assert!(
    size_of::<Record<Key4>>() == 32,
    "two records share a cache line"
);
const _: () = assert!(size_of::<Record<Key6>>() == 64, "a record is a cache line");

const NO_TEMPLATE: u32 = u32::MAX;

/// InstanceOptions pairs of buckets for the connections of one client endpoint.
const DEEPEST: u32 = 3;
/// Bits that number them.
const DEPTH_BITS: u32 = 2;

const _: () = assert!(DEEPEST < 1 << DEPTH_BITS && DEPTH_BITS + FlowId::BITS <= 32);

impl<K> Record<K> {
    /// Of a connection: its flow on the fast path.
    #[inline]
    const fn flow(&self) -> Option<FlowId> {
        FlowId::from_raw(self.period >> DEPTH_BITS)
    }

    /// Of a connection: which of its flow's places it is in.
    const fn depth(&self) -> u32 {
        self.period & ((1 << DEPTH_BITS) - 1)
    }
}

/// How often a template that has expired is looked at while connections refer to it. IPVS.
const TEMPLATE_RETRY_TICKS: u32 = 60 * Tick::PER_SECOND;

/// A connection to insert.
#[derive(Clone, Copy, Debug)]
pub struct NewConn<K> {
    /// Its flow.
    pub key: K,
    /// The flow's place.
    pub candidates: Candidates,
    /// The real server that it goes to.
    pub real: RealRef,
    /// Its state after its first packet.
    pub state: State,
    /// The template that led it there.
    pub template: Option<Slot>,
    /// The entry that [`ConnTable::likely`] named for it, if it was asked.
    pub guess: Option<Slot>,
}

/// The table.
#[derive(Debug)]
pub struct ConnTable<K> {
    buckets: Box<[Bucket]>,
    records: Box<[Record<K>]>,
    secrets: RapidSecrets,
    used: usize,
    swept: usize,
    /// Connections that are in a further place of their flow, and the furthest that there was
    /// since there were none.
    deep: usize,
    deepest: u32,
    /// Where flows can be handed down to.
    below: Option<Arc<dyn Offload>>,
}

impl<K: FlowKey> ConnTable<K> {
    /// Share of the entries that are certain to be usable, in percent.
    const USABLE_PERCENT: usize = 85;
    /// More entries than slots could number.
    const MAX_BUCKETS: usize = u32::MAX as usize / WAYS;

    /// An empty table that holds `connections`, at least one bucket of them and at most four
    /// thousand million. `seed` is drawn at start, so that nobody outside can aim at a bucket.
    pub fn new(connections: usize, seed: u64) -> Self {
        let entries = connections.saturating_mul(100) / Self::USABLE_PERCENT;
        let buckets = entries.div_ceil(WAYS).clamp(1, Self::MAX_BUCKETS);
        let vacant = Record {
            key: K::NONE,
            real: None,
            link: NO_TEMPLATE,
            period: 0,
        };
        Self {
            buckets: vec![Bucket::default(); buckets].into(),
            records: vec![vacant; buckets * WAYS].into(),
            secrets: RapidSecrets::seed(seed),
            used: 0,
            swept: 0,
            deep: 0,
            deepest: 0,
            below: None,
        }
    }

    fn assure_template(&mut self, link: u32) {
        if link != NO_TEMPLATE {
            let template = Slot(link);
            self.buckets[template.bucket()].packets[template.way()] = ASSURED;
        }
    }

    /// Puts in a connection whose flow has no entry. `None` when there is no room that may be
    /// taken for it.
    pub fn insert(&mut self, new: &NewConn<K>, turn: Turn<'_>) -> Option<Slot> {
        let (slot, tag, depth) = self.place_for(new, turn)?;
        self.fill(slot, tag, turn.tick, new.state, 1);
        self.records[slot.0 as usize] = Record {
            key: new.key,
            real: Some(new.real),
            link: new.template.map_or(NO_TEMPLATE, |template| template.0),
            period: depth,
        };
        let real = turn.stats.real(new.real.id.0);
        real.claim(new.real.epoch.get());
        real.connections.add(1);
        balance_of(real, new.state).add(1);
        turn.stats.connections.add(1);
        Some(slot)
    }

    /// Puts in a template whose key has no entry; it expires `period` ticks after its last new
    /// connection. `None` when there is no room that may be taken for it.
    pub fn insert_template(
        &mut self,
        key: K,
        real: RealRef,
        period: u32,
        turn: Turn<'_>,
    ) -> Option<Slot> {
        let candidates = self.candidates_of_template(&key);
        let slot = self.make_room(candidates, None, true, turn)?;
        let deadline = Tick::from_raw(turn.tick.raw().wrapping_add(period));
        self.fill(slot, candidates.tag, deadline, State::Template, 0);
        self.records[slot.0 as usize] = Record {
            key,
            real: Some(real),
            link: 0,
            period,
        };
        let counters = turn.stats.real(real.id.0);
        counters.claim(real.epoch.get());
        counters.templates.add(1);
        turn.stats.templates.add(1);
        Some(slot)
    }

    /// A new connection was made through a template: its time starts again, and it stays at least
    /// as long as the connection does. `real` is where the template leads from now on.
    pub fn refer(&mut self, template: Slot, real: RealRef, turn: Turn<'_>) {
        let record = &mut self.records[template.0 as usize];
        let deadline = Tick::from_raw(turn.tick.raw().wrapping_add(record.period));
        record.link += 1;
        let former = record.real.replace(real);
        let bucket = &mut self.buckets[template.bucket()];
        bucket.seen[template.way()] = deadline;
        if former != Some(real) {
            bucket.packets[template.way()] = 0;
            if let Some(counters) = counters_of(former, turn.stats) {
                counters.templates.sub(1);
            }
            let counters = turn.stats.real(real.id.0);
            counters.claim(real.epoch.get());
            counters.templates.add(1);
        }
    }

    /// Takes back [`Self::refer`] for a connection that could not be stored.
    pub fn unrefer(&mut self, template: Slot) {
        let record = &mut self.records[template.0 as usize];
        record.link = record.link.saturating_sub(1);
    }

    /// A packet came for a connection: its time starts again in `state`. Whether it is worth a look if the fast path
    /// should have its flow: while few came, and once a tick.
    #[inline]
    pub fn touch(&mut self, slot: Slot, state: State, turn: Turn<'_>) -> bool {
        let (bucket, way) = (&mut self.buckets[slot.bucket()], slot.way());
        let first = bucket.seen[way] != turn.tick;
        // A line that does not change need not be written back.
        if first {
            bucket.seen[way] = turn.tick;
        }
        let settled = (bucket.states[way] == state) & (bucket.packets[way] >= ASSURED);
        if !settled {
            self.advance(slot, state, turn);
        }
        (first | !settled) & self.below.is_some()
    }

    /// What [`Self::touch`] does for a connection that is not assured, or in another state.
    #[inline(never)]
    fn advance(&mut self, slot: Slot, state: State, turn: Turn<'_>) {
        if self.state(slot) != state {
            if !state.is_established() && self.flow_below(slot).is_some() {
                self.take_back(slot, turn);
            }
            self.change_state(slot, state, turn);
        }
        if self.buckets[slot.bucket()].packets[slot.way()] < ASSURED {
            self.count(slot);
        }
    }

    fn change_state(&mut self, slot: Slot, state: State, turn: Turn<'_>) {
        let former = std::mem::replace(&mut self.buckets[slot.bucket()].states[slot.way()], state);
        let record = &self.records[slot.0 as usize];
        if former.is_active() != state.is_active()
            && let Some(counters) = counters_of(record.real, turn.stats)
        {
            balance_of(counters, former).sub(1);
            balance_of(counters, state).add(1);
        }
    }

    /// Counts a packet of a connection that is not assured. The last one that it takes must find
    /// it established, and assures its template too.
    fn count(&mut self, slot: Slot) {
        let bucket = &mut self.buckets[slot.bucket()];
        let packets = &mut bucket.packets[slot.way()];
        if *packets + 1 < ASSURED {
            *packets += 1;
        } else if bucket.states[slot.way()].is_established() {
            *packets = ASSURED;
            self.assure_template(self.records[slot.0 as usize].link);
        }
    }

    /// Takes an entry out, as of now.
    pub fn remove(&mut self, slot: Slot, turn: Turn<'_>) {
        self.take_out(slot, turn.tick, turn);
    }

    /// Looks at the next `budget` buckets and takes out what has expired; takes flows back from the fast path that are to
    /// move there. Whether it has come to the end of the table.
    pub fn sweep(&mut self, budget: usize, turn: Turn<'_>) -> bool {
        let moving = self.below.as_ref().is_some_and(|below| below.is_moving());
        let mut ended = false;
        for _ in 0..budget.min(self.buckets.len()) {
            let at = self.swept;
            let is_last = at + 1 == self.buckets.len();
            self.swept = if is_last { 0 } else { at + 1 };
            ended |= is_last;
            let bucket = u32::try_from(at).unwrap_or(0);
            for way in self.buckets[at].with_tag(FREE).inverted() {
                let slot = Slot::new(bucket, way);
                if self.below.is_some() && self.score(slot, turn).spare().is_some() {
                    self.pull(slot, turn);
                }
                if self.is_expired(slot, turn) {
                    self.expire(slot, turn);
                } else if moving && self.is_astray(slot) {
                    self.take_back(slot, turn);
                }
            }
        }
        ended
    }

    /// Takes out an entry whose time is over, as of the moment when that was.
    pub fn expire(&mut self, slot: Slot, turn: Turn<'_>) {
        self.pull(slot, turn);
        let end = self.deadline(slot, turn.timeouts);
        self.take_out(slot, end, turn);
    }

    /// Where a flow may be.
    // Always: handed back through memory, its halves would be stored apart and loaded as one, which
    // the processor can do only once the stores are through.
    #[inline(always)]
    pub fn candidates(&self, key: &K) -> Candidates {
        self.home_by(key.hash(&self.secrets))
    }

    /// One of the further places of the flows of a client's endpoint, whose hash this is.
    fn further_candidates(&self, hash: u64, depth: u32) -> Candidates {
        let hash = (hash ^ u64::from(depth)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.home_by(hash ^ hash >> 29)
    }

    /// Where a template may be.
    fn candidates_of_template(&self, key: &K) -> Candidates {
        self.home_by(key.hash_whole(&self.secrets))
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "two separate parts of the hash"
    )]
    fn home_by(&self, hash: u64) -> Candidates {
        let tag = (hash as u16).max(FREE + 1);
        let first = self.scale((hash >> 32) as u32);
        Candidates {
            first,
            second: self.other(first, tag),
            tag,
        }
    }

    /// The lines that a search for a flow looks at, to be prefetched.
    #[inline]
    pub fn lines(&self, candidates: Candidates) -> [&Bucket; 2] {
        [candidates.first, candidates.second].map(|bucket| &self.buckets[bucket as usize])
    }

    /// The entry whose record will be looked at for a flow: the first with its tag, else the one
    /// that will make room for it.
    #[inline]
    pub fn likely(&self, candidates: Candidates, turn: Turn<'_>) -> Option<Slot> {
        [candidates.first, candidates.second]
            .into_iter()
            .find_map(|bucket| {
                let ways = self.buckets[bucket as usize].with_tag(candidates.tag);
                ways.first().map(|way| Slot::new(bucket, way))
            })
            .or_else(|| self.room(candidates, turn))
    }

    /// The record of an entry, to be prefetched.
    #[inline]
    pub fn record(&self, slot: Slot) -> &Record<K> {
        &self.records[slot.0 as usize]
    }

    /// The entry of a flow, as [`Self::find`] does, which it spares a packet whose `guess` by
    /// [`Self::likely`] was right and still is.
    #[inline]
    pub fn find_guessed(
        &self,
        key: &K,
        candidates: Candidates,
        guess: Option<Slot>,
    ) -> Option<Slot> {
        match guess {
            Some(slot) if self.holds(slot, key, candidates.tag) => Some(slot),
            _ => self.find(key, candidates),
        }
    }

    /// Whether an entry is this flow's. Its tag says whether there is an entry at all: one that is
    /// taken out leaves its record behind.
    #[inline]
    fn holds(&self, slot: Slot, key: &K, tag: u16) -> bool {
        self.buckets[slot.bucket()].tags[slot.way()] == tag
            && self.records[slot.0 as usize].key == *key
    }

    /// The entry of a flow, whether or not its time is over.
    pub fn find(&self, key: &K, candidates: Candidates) -> Option<Slot> {
        let fits = |record: &Record<K>| record.key == *key;
        self.find_by(candidates, fits)
            .or_else(|| self.find_further(key, fits))
    }

    /// The entry in one of the further places of a flow, should there be any such entry.
    #[inline]
    fn find_further(&self, key: &K, fits: impl Fn(&Record<K>) -> bool) -> Option<Slot> {
        if self.deepest == 0 {
            return None;
        }
        let hash = key.hash(&self.secrets);
        (1..=self.deepest)
            .find_map(|depth| self.find_by(self.further_candidates(hash, depth), &fits))
    }

    /// The entry of the flow that a real server's packet answers. `to_client` is that packet's flow
    /// turned round: its client is the addressee, its virtual address the real server's.
    /// `is_answered_by` says whether the real server with this reference, for flows to this virtual port,
    /// is the one that sent it.
    ///
    /// A client may have asked one real server through several virtual servers from one port: the answer is that of a
    /// flow which is not over, and of several of the one that was heard of last.
    #[inline]
    pub fn find_answered(
        &self,
        to_client: &K,
        candidates: Candidates,
        guess: Option<Slot>,
        turn: Turn<'_>,
        is_answered_by: impl Fn(RealRef, u16) -> bool,
    ) -> Option<Slot> {
        let fits = |record: &Record<K>| {
            record.key.has_client_of(*to_client)
                && record
                    .real
                    .is_some_and(|real| is_answered_by(real, record.key.vport()))
        };
        let guessed = guess.filter(|slot| {
            self.buckets[slot.bucket()].tags[slot.way()] == candidates.tag
                && fits(&self.records[slot.0 as usize])
                && (self.current(*slot, turn)).is_some_and(|(state, _)| !state.is_finished())
        });
        guessed.or_else(|| self.latest_answered(to_client, candidates, turn, fits))
    }

    #[inline(never)]
    fn latest_answered(
        &self,
        to_client: &K,
        candidates: Candidates,
        turn: Turn<'_>,
        fits: impl Fn(&Record<K>) -> bool,
    ) -> Option<Slot> {
        let further = (1..=self.deepest)
            .map(|depth| self.further_candidates(to_client.hash(&self.secrets), depth));
        let all = iter::once(candidates).chain(further);
        let live = all
            .flat_map(|candidates| self.tagged(candidates))
            .filter_map(|slot| {
                let (state, _) = self.current(slot, turn)?;
                let silence = turn
                    .tick
                    .since(self.buckets[slot.bucket()].seen[slot.way()]);
                fits(self.record(slot)).then_some((state.is_finished(), silence, slot))
            });
        let best = live.min_by_key(|(is_finished, silence, _)| (*is_finished, *silence));
        best.map(|(_, _, slot)| slot)
    }

    fn find_by(&self, candidates: Candidates, fits: impl Fn(&Record<K>) -> bool) -> Option<Slot> {
        (self.tagged(candidates)).find(|slot| fits(&self.records[slot.0 as usize]))
    }

    /// The entries that may be a flow's: those in its buckets with its tag.
    #[inline]
    fn tagged(&self, candidates: Candidates) -> impl Iterator<Item = Slot> {
        let buckets = [candidates.first, candidates.second].into_iter();
        buckets.flat_map(move |bucket| {
            let ways = self.buckets[bucket as usize].with_tag(candidates.tag);
            ways.map(move |way| Slot::new(bucket, way))
        })
    }

    /// The template with this key, expired ones taken out.
    pub fn find_template(&mut self, key: &K, turn: Turn<'_>) -> Option<Slot> {
        let slot = self.find_by(self.candidates_of_template(key), |record| {
            record.key == *key
        })?;
        if self.is_expired(slot, turn) {
            self.expire(slot, turn);
            return None;
        }
        Some(slot)
    }

    /// The state of an entry and its real server; `None` when its time is over.
    #[inline]
    pub fn current(&self, slot: Slot, turn: Turn<'_>) -> Option<(State, Option<RealRef>)> {
        let (bucket, way) = (&self.buckets[slot.bucket()], slot.way());
        let (seen, state) = (bucket.seen[way], bucket.states[way]);
        let record = &self.records[slot.0 as usize];
        let is_over = if state == State::Template {
            has_come(seen, turn.tick) && record.link == 0
        } else {
            let timeout = turn.timeouts.ticks(state);
            turn.tick.since(seen) >= timeout && !self.lives_below(slot, timeout, turn)
        };
        (!is_over).then_some((state, record.real))
    }

    /// The state of an entry.
    #[inline]
    pub fn state(&self, slot: Slot) -> State {
        self.buckets[slot.bucket()].states[slot.way()]
    }

    /// The flow of an entry.
    #[inline]
    pub fn key(&self, slot: Slot) -> K {
        self.records[slot.0 as usize].key
    }

    /// The real server of an entry.
    #[inline]
    pub fn real(&self, slot: Slot) -> Option<RealRef> {
        self.records[slot.0 as usize].real
    }

    /// The entries of a bucket whose time is not over. Buckets are numbered from 0.
    pub fn in_bucket(&self, number: usize, turn: Turn<'_>) -> impl Iterator<Item = Slot> {
        let bucket = self.buckets.get(number).zip(u32::try_from(number).ok());
        let slots = bucket.into_iter().flat_map(|(bucket, number)| {
            let ways = bucket.with_tag(FREE).inverted();
            ways.map(move |way| Slot::new(number, way))
        });
        slots.filter(move |slot| !self.is_expired(*slot, turn))
    }

    /// Whether a connection is believed to be one, a template to have led such a one.
    pub fn is_assured(&self, slot: Slot) -> bool {
        self.buckets[slot.bucket()].packets[slot.way()] == ASSURED
    }

    /// Whether a template led this connection.
    #[inline]
    pub fn is_led(&self, slot: Slot) -> bool {
        self.records[slot.0 as usize].link != NO_TEMPLATE
    }

    /// Whether an entry's time is over. A template's is not while connections refer to it.
    #[inline]
    pub fn is_expired(&self, slot: Slot, turn: Turn<'_>) -> bool {
        self.current(slot, turn).is_none()
    }

    /// Connections and templates in the table.
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// All of its memory, for those who place it.
    pub const fn parts(&self) -> (&[Bucket], &[Record<K>]) {
        (&self.buckets, &self.records)
    }

    /// Buckets: the steps of a whole sweep.
    pub const fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Memory of the table in bytes.
    pub const fn memory(&self) -> usize {
        size_of_val::<[Bucket]>(&self.buckets) + size_of_val::<[Record<K>]>(&self.records)
    }

    /// How long an entry would still live without another packet. A template that lives by its connections: until
    /// it is looked at again.
    pub fn remaining(&self, slot: Slot, turn: Turn<'_>) -> Duration {
        let end = self.deadline(slot, turn.timeouts);
        let ticks = if has_come(end, turn.tick) {
            if self.is_expired(slot, turn) {
                0
            } else {
                TEMPLATE_RETRY_TICKS - turn.tick.since(end) % TEMPLATE_RETRY_TICKS
            }
        } else {
            end.since(turn.tick)
        };
        Duration::from_nanos(u64::from(ticks) * Tick::NANOS)
    }

    fn fill(&mut self, slot: Slot, tag: u16, seen: Tick, state: State, packets: u8) {
        let bucket = &mut self.buckets[slot.bucket()];
        let way = slot.way();
        bucket.tags[way] = tag;
        bucket.seen[way] = seen;
        bucket.states[way] = state;
        bucket.packets[way] = packets;
        self.used += 1;
    }

    /// Takes an entry out that ended at `end`, with its counts and its reference to a template.
    fn take_out(&mut self, slot: Slot, end: Tick, turn: Turn<'_>) {
        let bucket = &mut self.buckets[slot.bucket()];
        let state = bucket.states[slot.way()];
        bucket.tags[slot.way()] = FREE;
        self.used -= 1;
        let record = self.records[slot.0 as usize];
        let counters = counters_of(record.real, turn.stats);
        if state == State::Template {
            turn.stats.templates.sub(1);
            if let Some(counters) = counters {
                counters.templates.sub(1);
            }
            return;
        }
        if record.depth() > 0 {
            self.deep -= 1;
            if self.deep == 0 {
                self.deepest = 0;
            }
        }
        if let (Some(below), Some(flow)) = (&self.below, record.flow()) {
            below.end(flow, turn.tick);
        }
        turn.stats.connections.sub(1);
        if let Some(counters) = counters {
            balance_of(counters, state).sub(1);
        }
        if record.link != NO_TEMPLATE {
            self.release_template(Slot(record.link), end);
        }
    }

    /// A connection of a template ended at `end`. When that was the last one and the template's
    /// own time was over by then, it lives on to the next multiple of 60 s, as IPVS looks again
    /// only then.
    fn release_template(&mut self, template: Slot, end: Tick) {
        self.unrefer(template);
        let seen = &mut self.buckets[template.bucket()].seen[template.way()];
        if self.records[template.0 as usize].link == 0 && has_come(*seen, end) {
            let periods = end.since(*seen) / TEMPLATE_RETRY_TICKS + 1;
            *seen = Tick::from_raw(seen.raw().wrapping_add(periods * TEMPLATE_RETRY_TICKS));
        }
    }

    fn deadline(&self, slot: Slot, timeouts: &Timeouts) -> Tick {
        let bucket = &self.buckets[slot.bucket()];
        let (seen, state) = (bucket.seen[slot.way()], bucket.states[slot.way()]);
        if state == State::Template {
            seen
        } else {
            let heard = (self.below.as_ref())
                .zip(self.flow_below(slot))
                .map(|(below, flow)| below.heard(flow).0);
            let last = heard.filter(|heard| has_come(seen, *heard)).unwrap_or(seen);
            Tick::from_raw(last.raw().wrapping_add(timeouts.ticks(state)))
        }
    }

    /// The other bucket of an entry with this tag: the two add up to a number that follows from
    /// the tag, so each is found from the other.
    #[inline]
    fn other(&self, bucket: u32, tag: u16) -> u32 {
        let sum = self.scale(u32::from(tag).wrapping_mul(0x9e37_79b1));
        if sum >= bucket {
            sum - bucket
        } else {
            sum + self.bucket_count() - bucket
        }
    }

    /// The number of buckets, at most [`Self::MAX_BUCKETS`].
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "slots are numbered in 32 bits"
    )]
    const fn bucket_count(&self) -> u32 {
        self.buckets.len() as u32
    }

    /// A number below the number of buckets, in proportion to `hash` over its range.
    #[inline]
    fn scale(&self, hash: u32) -> u32 {
        ((u64::from(hash) * u64::from(self.bucket_count())) >> 32) as u32
    }
}

/// Whether `moment` is now or was before.
#[inline]
fn has_come(moment: Tick, now: Tick) -> bool {
    now.since(moment) < u32::MAX / 2
}

/// The count that a connection in `state` is in.
#[inline]
fn balance_of(real: &RealCounters, state: State) -> &crate::stats::Counter {
    if state.is_active() {
        &real.active
    } else {
        &real.inactive
    }
}

/// The counters of a real server, unless another has its slot by now.
#[inline]
fn counters_of(real: Option<RealRef>, stats: &WorkerStats) -> Option<&RealCounters> {
    let real = real?;
    let counters = stats.real(real.id.0);
    counters.is_for(real.epoch.get()).then_some(counters)
}

#[cfg(test)]
mod tests;
