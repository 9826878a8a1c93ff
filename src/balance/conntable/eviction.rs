//! Finding room for a new entry: what may go, and in which order.

use super::{
    Candidates, ConnTable, DEEPEST, NewConn, Slot, Turn,
    bucket::{ASSURED, Bucket, FREE, WAYS},
};
use crate::{
    balance::{FlowKey, State},
    time::Tick,
};

/// Why an entry may make room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// Its time is over.
    Expired,
    /// It has not: half-open, closing, finished or idle.
    Early,
}

/// Its time is over.
const EXPIRED: u32 = 4;
/// It is not established: a connection, or a template that never led one that is [`ASSURED`].
const HALF_OPEN: u32 = 3;
/// It is finished, or closing: with direct routing a normal close is never seen to its end.
const FINISHED: u32 = 2;
/// It is established, but on the word of a few packets, and silent for [`IDLE_TICKS`].
const IDLE: u32 = 1;
/// It stays.
const STAYS: u32 = 0;

/// How long an established connection of few packets keeps its place for certain. IPVS
/// (`todrop_entry`).
const IDLE_TICKS: u32 = 60 * Tick::PER_SECOND;

/// Buckets elsewhere among which an insertion chooses what goes when next to no entry is free. It
/// looks at more only until it has found something, and at one for each entry of its own at most.
const CROWDED_LOOKS: usize = 4;

/// The ranks of a connection in each state before its time is over: while it is heard of or assured, and while it is
/// silent and not assured.
const RANKS: [(u32, u32); State::ALL.len()] = {
    let mut ranks = [(STAYS, STAYS); State::ALL.len()];
    let mut at = 0;
    while at < ranks.len() {
        let state = State::ALL[at];
        ranks[at] = if state.is_half_open() {
            (HALF_OPEN, HALF_OPEN)
        } else if state.is_finished() || state.is_closing() {
            (FINISHED, FINISHED)
        } else if state.is_established() {
            (STAYS, IDLE)
        } else {
            (STAYS, STAYS)
        };
        at += 1;
    }
    ranks
};

/// Bits for the place of an entry in two buckets.
const PLACE_BITS: u32 = (2 * WAYS).ilog2();

/// How soon an entry may make room: by rank, then by how many ticks it has been silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score(u64);

impl Score {
    #[inline]
    const fn new(rank: u32, silence: u32) -> Self {
        Self((rank as u64) << 32 | silence as u64)
    }

    #[inline]
    pub(super) const fn spare(self) -> Option<Spare> {
        match (self.0 >> 32) as u32 {
            STAYS => None,
            EXPIRED => Some(Spare::Expired),
            _ => Some(Spare::Early),
        }
    }
}

impl<K: FlowKey> ConnTable<K> {
    /// An empty place for a connection, its tag there, and which of the flow's places it is in.
    ///
    /// Before it costs another connection its own, one of the flow's further places is tried, unless the
    /// whole table is about as full as it should get.
    #[inline]
    pub(super) fn place_for(
        &mut self,
        new: &NewConn<K>,
        turn: Turn<'_>,
    ) -> Option<(Slot, u16, u32)> {
        let roomy = self.used * 100 < self.buckets.len() * WAYS * Self::USABLE_PERCENT;
        let slot = self.make_room(new.candidates, new.guess, !roomy, turn);
        match slot {
            Some(slot) => Some((slot, new.candidates.tag, 0)),
            None if roomy => self.further_place_for(new, turn),
            None => None,
        }
    }

    #[cold]
    fn further_place_for(&mut self, new: &NewConn<K>, turn: Turn<'_>) -> Option<(Slot, u16, u32)> {
        let hash = new.key.hash(&self.secrets);
        for depth in 1..=DEEPEST {
            let candidates = self.further_candidates(hash, depth);
            if let Some(slot) = self.make_room(candidates, None, false, turn) {
                self.deep += 1;
                self.deepest = self.deepest.max(depth);
                return Some((slot, candidates.tag, depth));
            }
        }
        let slot = self.make_room(new.candidates, None, true, turn)?;
        Some((slot, new.candidates.tag, 0))
    }

    /// An empty place in one of the buckets of `candidates`. `guess` is what [`Self::room`] found a
    /// moment ago. Unless `evicting`, only an entry whose time is over makes room.
    ///
    /// Nothing that is established makes room, unless it is [`IDLE`]. Half-open entries do when it is the whole table
    /// that is full; as long as it is only these two buckets, an entry moves instead.
    pub(super) fn make_room(
        &mut self,
        candidates: Candidates,
        guess: Option<Slot>,
        evicting: bool,
        turn: Turn<'_>,
    ) -> Option<Slot> {
        let vacant = guess.filter(|slot| candidates.has(*slot) && self.is_vacant(*slot));
        if let Some(slot) = vacant.or_else(|| self.vacancy(candidates)) {
            return Some(slot);
        }
        // An entry of this very tick has taken the place of the one that was meant.
        let guessed = guess
            .filter(|slot| candidates.has(*slot) && self.silent(*slot, turn))
            .and_then(|slot| Some((slot, self.score(slot, turn).spare()?)));
        let mut found = guessed.or_else(|| self.spare(candidates, turn));
        // One that goes on on the fast path stays, and is not taken for silent again.
        while let Some((slot, _)) = found
            && self.pull(slot, turn).is_some()
            && self.score(slot, turn).spare().is_none()
        {
            found = self.spare(candidates, turn);
        }
        match found {
            Some((slot, Spare::Expired)) => {
                self.expire(slot, turn);
                Some(slot)
            }
            Some((slot, Spare::Early)) => {
                if !self.is_crowded()
                    && let Some(moved) = self.displace(candidates, false, turn)
                {
                    return Some(moved);
                }
                if !evicting {
                    return None;
                }
                self.evict(slot, turn);
                Some(slot)
            }
            None => self.displace(candidates, evicting, turn),
        }
    }

    /// The place that [`Self::make_room`] will most likely find.
    #[inline]
    pub(super) fn room(&self, candidates: Candidates, turn: Turn<'_>) -> Option<Slot> {
        self.vacancy(candidates)
            .or_else(|| self.spare(candidates, turn).map(|(slot, _)| slot))
    }

    fn is_vacant(&self, slot: Slot) -> bool {
        self.buckets[slot.bucket()].tags[slot.way()] == FREE
    }

    /// A vacant place in the emptier bucket.
    #[inline]
    fn vacancy(&self, candidates: Candidates) -> Option<Slot> {
        let [first, second] = self.lines(candidates).map(|bucket| bucket.with_tag(FREE));
        if second.count() > first.count() {
            second.first().map(|way| Slot::new(candidates.second, way))
        } else {
            first.first().map(|way| Slot::new(candidates.first, way))
        }
    }

    /// The entry of both buckets that may go first: of those of one kind the one that has been
    /// silent the longest.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the bits of the place only"
    )]
    fn spare(&self, candidates: Candidates, turn: Turn<'_>) -> Option<(Slot, Spare)> {
        // One number for an entry, with its place at the end, the first one greatest: so the best is the greatest.
        let mut best = 0;
        let mut place = 2 * WAYS as u64;
        for at in [candidates.first, candidates.second] {
            let bucket = &self.buckets[at as usize];
            for way in 0..WAYS {
                place -= 1;
                let score = self.score_in(bucket, Slot::new(at, way), turn);
                best = best.max(score.0 << PLACE_BITS | place);
            }
        }
        let place = 2 * WAYS - 1 - (best as usize & (2 * WAYS - 1));
        let bucket = if place < WAYS {
            candidates.first
        } else {
            candidates.second
        };
        let spare = Score(best >> PLACE_BITS).spare()?;
        Some((Slot::new(bucket, place % WAYS), spare))
    }

    #[inline]
    pub(super) fn score(&self, slot: Slot, turn: Turn<'_>) -> Score {
        self.score_in(&self.buckets[slot.bucket()], slot, turn)
    }

    /// How soon an entry of `bucket` may make room. Without a branch for a connection: under a flood this runs
    /// sixteen times a packet, and what it looks at is as good as random.
    #[inline]
    fn score_in(&self, bucket: &Bucket, slot: Slot, turn: Turn<'_>) -> Score {
        let way = slot.way();
        let (state, seen) = (bucket.states[way], bucket.seen[way]);
        if state == State::Template {
            return self.score_of_template(slot, turn);
        }
        let silence = turn.tick.since(seen);
        let expired = silence >= turn.timeouts.ticks(state);
        let idle = (bucket.packets[way] < ASSURED) & (silence >= IDLE_TICKS);
        let (rank, idle_rank) = RANKS[state as usize];
        let rank = if idle { idle_rank } else { rank };
        let rank = if expired { EXPIRED } else { rank };
        Score::new(rank, silence)
    }

    #[cold]
    fn score_of_template(&self, slot: Slot, turn: Turn<'_>) -> Score {
        let bucket = &self.buckets[slot.bucket()];
        let deadline = bucket.seen[slot.way()];
        let record = &self.records[slot.0 as usize];
        if record.link > 0 {
            Score::default()
        } else if super::has_come(deadline, turn.tick) {
            Score::new(EXPIRED, 0)
        } else if bucket.packets[slot.way()] == ASSURED {
            Score::default()
        } else {
            let left = deadline.since(turn.tick);
            Score::new(HALF_OPEN, record.period.saturating_sub(left))
        }
    }

    /// Whether an entry was not touched in this tick.
    #[inline]
    fn silent(&self, slot: Slot, turn: Turn<'_>) -> bool {
        self.buckets[slot.bucket()].seen[slot.way()] != turn.tick
    }

    /// Moves one connection of the buckets of `candidates` to its other bucket, where there is a vacancy
    /// or, if `evicting`, where something may go: of all buckets looked at, what may go first. The
    /// place that it leaves.
    #[cold]
    fn displace(&mut self, candidates: Candidates, evicting: bool, turn: Turn<'_>) -> Option<Slot> {
        let enough = if self.is_crowded() {
            CROWDED_LOOKS
        } else {
            2 * WAYS
        };
        let mut best = (Score::default(), Slot(0), Slot(0));
        let entries = [candidates.first, candidates.second]
            .into_iter()
            .flat_map(|bucket| (0..WAYS).map(move |way| Slot::new(bucket, way)));
        for (looks, from) in entries.enumerate() {
            if looks >= enough && best.0.spare().is_some() {
                break;
            }
            let Some(other) = self.alternative(from) else {
                continue;
            };
            if let Some(way) = self.buckets[other as usize].with_tag(FREE).first() {
                let to = Slot::new(other, way);
                self.relocate(from, to);
                return Some(from);
            }
            for to in (0..WAYS).map(|way| Slot::new(other, way)) {
                let score = self.score(to, turn);
                if score > best.0 {
                    best = (score, from, to);
                }
            }
        }
        let (score, from, to) = best;
        // Else none was found.
        score.spare()?;
        self.pull(to, turn);
        match self.score(to, turn).spare()? {
            Spare::Expired => self.expire(to, turn),
            Spare::Early if evicting => self.evict(to, turn),
            Spare::Early => return None,
        }
        self.relocate(from, to);
        Some(from)
    }

    /// The other bucket of the connection in `from`; templates stay where they are.
    fn alternative(&self, from: Slot) -> Option<u32> {
        let bucket = &self.buckets[from.bucket()];
        if bucket.states[from.way()] == State::Template {
            return None;
        }
        let here = u32::try_from(from.bucket()).ok()?;
        let other = self.other(here, bucket.tags[from.way()]);
        (other != here).then_some(other)
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        let source = &mut self.buckets[from.bucket()];
        let tag = std::mem::replace(&mut source.tags[from.way()], FREE);
        let (seen, state) = (source.seen[from.way()], source.states[from.way()]);
        let packets = source.packets[from.way()];
        let target = &mut self.buckets[to.bucket()];
        target.tags[to.way()] = tag;
        target.seen[to.way()] = seen;
        target.states[to.way()] = state;
        target.packets[to.way()] = packets;
        self.records[to.0 as usize] = self.records[from.0 as usize];
    }

    /// Takes out an entry before its time. A template that never led an assured connection
    /// goes with its last one, as in IPVS.
    fn evict(&mut self, slot: Slot, turn: Turn<'_>) {
        turn.stats.evicted.add(1);
        let record = self.records[slot.0 as usize];
        let is_template = self.state(slot) == State::Template;
        self.remove(slot, turn);
        if is_template || record.link == super::NO_TEMPLATE {
            return;
        }
        let template = Slot(record.link);
        let assured = self.buckets[template.bucket()].packets[template.way()] == ASSURED;
        if self.records[template.0 as usize].link == 0 && !assured {
            self.remove(template, turn);
        }
    }

    /// Whether next to no entry is free: looking for one further away would be in vain.
    const fn is_crowded(&self) -> bool {
        let entries = self.buckets.len() * WAYS;
        self.used >= entries - entries / 32
    }
}
