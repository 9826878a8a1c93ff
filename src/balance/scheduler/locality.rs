//! `lblc` and `lblcr`: a destination address stays with its real server, or with a few, so that
//! caches behind a transparent proxy each see the same part of the world.
//!
//! Which ones is remembered for each destination: in IPVS in a list of its own for each virtual
//! server, of any length, that is cut back once a minute. Here all virtual servers of a worker
//! share one cache of fixed size; when the places of a destination are taken, the one that was not
//! asked for the longest gives way. IPVS forgets a destination after a day without a question, or,
//! when it has too many, after six minutes; here that is a day, or when the place is needed. A set
//! of `lblcr` has at most [`MEMBERS`] real servers; when one more is to join, those leave that are
//! not in the list, or else the most loaded. One that comes back to the list before is still in
//! its sets, as in IPVS.

use std::{net::IpAddr, num::NonZeroU32};

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use super::{
    Ask, Choice, View, index,
    least::{self, Share},
};
use crate::{
    balance::{RealId, RealRef},
    stats::MAX_REALS,
    time::Tick,
};

/// Destinations that a worker remembers; IPVS has as many for one virtual server before it cuts
/// back. 2 MiB when all are in use.
const DESTINATIONS: usize = 16_384;

/// Places where a destination may be.
const WAYS: usize = 4;

/// Real servers in the set of one destination.
const MEMBERS: usize = 12;

/// After a day without a question a destination is forgotten; after a day without a change a set
/// loses its most loaded member. IPVS `lblc_expiration`, `lblcr_expiration`.
const EXPIRATION: u32 = 24 * 60 * 60 * Tick::PER_SECOND;

/// What is remembered about one destination, in words: `vec!` then gets its memory as zeros that
/// are not touched. [`Set`] knows what is where.
type Line = [u64; 4 + MEMBERS];

/// The destinations of one worker.
#[derive(Debug)]
pub(super) struct Localities {
    sets: Box<[[Line; WAYS]]>,
    secrets: RapidSecrets,
}

impl Localities {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            sets: vec![[[0; 4 + MEMBERS]; WAYS]; DESTINATIONS / WAYS].into(),
            secrets: RapidSecrets::seed(seed),
        }
    }

    /// `lblc`: the destination's real server, unless it is gone, has weight 0, or is overloaded. A
    /// threshold does not move a destination that is there, as in IPVS.
    pub(super) fn lblc(
        &mut self,
        owner: u64,
        choices: &[Choice],
        ask: &Ask<'_>,
        view: View<'_>,
    ) -> Option<usize> {
        let mut place = self.place(owner, ask)?;
        if let Some(mut set) = place.known() {
            set.ask(ask.tick);
            let kept = set.members().next().and_then(|member| member.find(choices));
            let usable = |c: &Choice| c.weight > 0 && !is_crowded(c, choices, view);
            if let Some(at) = kept.filter(|at| choices.get(*at).is_some_and(usable)) {
                return Some(at);
            }
        }
        let at = least::wlc(choices, view)?;
        let mut set = place.known_or_new(ask.tick)?;
        set.keep(|_| false);
        set.add(Member::new(choices.get(at)?.real, at), ask.tick);
        Some(at)
    }

    /// `lblcr`: the least loaded of the destination's set, unless it is overloaded; then the least
    /// loaded of all, which joins the set.
    pub(super) fn lblcr(
        &mut self,
        owner: u64,
        choices: &[Choice],
        ask: &Ask<'_>,
        view: View<'_>,
    ) -> Option<usize> {
        let mut place = self.place(owner, ask)?;
        if let Some(mut set) = place.known() {
            set.ask(ask.tick);
            let least = set.least(choices, view);
            if set.len() > 1 && ask.tick.since(set.changed()) > EXPIRATION {
                set.remove_most(choices, view, ask.tick);
            }
            let fine = |c: &Choice| !is_crowded(c, choices, view);
            if let Some(at) = least.filter(|at| choices.get(*at).is_some_and(fine)) {
                return Some(at);
            }
        }
        let at = least::wlc(choices, view)?;
        let member = Member::new(choices.get(at)?.real, at);
        let mut set = place.known_or_new(ask.tick)?;
        if set.members().all(|m| m.real != member.real) {
            set.make_room(choices, view);
            set.add(member, ask.tick);
        }
        Some(at)
    }

    /// Where the destination is or would be.
    fn place(&mut self, owner: u64, ask: &Ask<'_>) -> Option<Place<'_>> {
        let bits = match ask.vip {
            IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
            IpAddr::V6(addr) => addr.to_bits(),
        };
        let [high, low] = [bits >> 64, bits].map(|bits| bits & u128::from(u64::MAX));
        let word = |half| u64::try_from(half).unwrap_or_default();
        let name = [owner, word(high), word(low)];
        let mut bytes = [0; 24];
        for (to, word) in bytes.chunks_exact_mut(8).zip(name) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        let hash = rapidhash_v3_seeded(&bytes, &self.secrets);
        let sets = self.sets.len() as u128;
        let ways = self
            .sets
            .get_mut(usize::try_from((u128::from(hash) * sets) >> 64).ok()?)?;
        Some(Place::new(ways, name, ask.tick))
    }
}

/// `is_overloaded` of IPVS's `lblc`: more active connections than its weight, while another one
/// has less than half of its own.
fn is_crowded(choice: &Choice, choices: &[Choice], view: View<'_>) -> bool {
    let idle = |c: &Choice| view.load(c).active.saturating_mul(2) < u64::from(c.weight);
    view.load(choice).active > u64::from(choice.weight) && choices.iter().any(idle)
}

/// The places of one destination.
struct Place<'a> {
    ways: &'a mut [Line; WAYS],
    name: [u64; 3],
    found: Option<usize>,
}

impl<'a> Place<'a> {
    fn new(ways: &'a mut [Line; WAYS], name: [u64; 3], now: Tick) -> Self {
        let found = ways
            .iter()
            .position(|line| line.starts_with(&name) && now.since(asked(line)) < EXPIRATION);
        Self { ways, name, found }
    }

    fn known(&mut self) -> Option<Set<'_>> {
        self.ways.get_mut(self.found?).map(Set)
    }

    /// The destination's set, an empty one if it is not known. It takes a free place, or that of
    /// the destination that was not asked for the longest.
    fn known_or_new(self, now: Tick) -> Option<Set<'a>> {
        if let Some(found) = self.found {
            return self.ways.get_mut(found).map(Set);
        }
        let unused = |line: &&mut Line| match line[0] {
            0 => u32::MAX,
            _ => now.since(asked(line)),
        };
        let line = self.ways.iter_mut().max_by_key(unused)?;
        *line = [0; 4 + MEMBERS];
        let mut set = Set(line);
        [set.0[0], set.0[1], set.0[2]] = self.name;
        set.ask(now);
        Some(set)
    }
}

/// When a destination was last asked for.
fn asked(line: &Line) -> Tick {
    Tick::from_raw(half(line[3] >> 32))
}

/// The real servers of one destination. In its line: the owner (0: a free place) and the address,
/// the ticks of the last question and of the last change, the members, newest first (0: none).
struct Set<'a>(&'a mut Line);

impl Set<'_> {
    /// The destination was asked for.
    fn ask(&mut self, now: Tick) {
        self.0[3] = u64::from(now.raw()) << 32 | u64::from(half(self.0[3]));
    }

    fn changed(&self) -> Tick {
        Tick::from_raw(half(self.0[3]))
    }

    fn change(&mut self, now: Tick) {
        self.0[3] = u64::from(half(self.0[3] >> 32)) << 32 | u64::from(now.raw());
    }

    fn members(&self) -> impl Iterator<Item = Member> {
        let [_, _, _, _, members @ ..] = &*self.0;
        members.iter().map_while(|word| Member::unpack(*word))
    }

    fn len(&self) -> usize {
        self.members().count()
    }

    /// Keeps those members, in their order.
    fn keep(&mut self, wanted: impl Fn(Member) -> bool) {
        let [_, _, _, _, members @ ..] = &mut *self.0;
        let mut kept = [0; MEMBERS];
        let those = members
            .iter()
            .filter(|word| Member::unpack(**word).is_some_and(&wanted));
        for (to, word) in kept.iter_mut().zip(those) {
            *to = *word;
        }
        *members = kept;
    }

    /// Puts a member in front; there is room.
    fn add(&mut self, member: Member, now: Tick) {
        let [_, _, _, _, members @ ..] = &mut *self.0;
        members.rotate_right(1);
        members[0] = member.pack();
        self.change(now);
    }

    /// Makes room for one more: without those that are not in the list, or else without the most
    /// loaded, or where all have weight 0 without the oldest.
    fn make_room(&mut self, choices: &[Choice], view: View<'_>) {
        if self.len() == MEMBERS {
            self.keep(|member| member.find(choices).is_some());
        }
        if self.len() == MEMBERS {
            let oldest = || self.members().last();
            let out = self.most(choices, view).or_else(oldest);
            self.keep(|member| Some(member) != out);
        }
    }

    /// Takes out the most loaded.
    fn remove_most(&mut self, choices: &[Choice], view: View<'_>, now: Tick) {
        let out = self.most(choices, view);
        if out.is_some() {
            self.keep(|member| Some(member) != out);
            self.change(now);
        }
    }

    /// The most loaded of the members with a weight.
    fn most(&self, choices: &[Choice], view: View<'_>) -> Option<Member> {
        let mut most: Option<(Member, Share)> = None;
        for member in self.members() {
            if let Some(share) = member.share(choices, view)
                && most.is_none_or(|(_, so_far)| so_far.is_less(share))
            {
                most = Some((member, share));
            }
        }
        most.map(|(member, _)| member)
    }

    /// The least loaded of the members that take connections.
    fn least(&self, choices: &[Choice], view: View<'_>) -> Option<usize> {
        let mut least: Option<(usize, Share)> = None;
        for member in self.members() {
            if let Some(at) = member.find(choices)
                && choices.get(at).is_some_and(|c| !view.is_over(c))
                && let Some(share) = member.share(choices, view)
                && least.is_none_or(|(_, so_far)| share.is_less(so_far))
            {
                least = Some((at, share));
            }
        }
        least.map(|(at, _)| at)
    }
}

/// A real server, and where in the list it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    real: RealRef,
    /// 0 too where it was further behind than a word has room for.
    seen_at: u32,
}

/// Bits of a packed member that say where it was seen; above them is the slot, then the epoch.
const SEEN_BITS: u32 = 14;

const _: () = assert!(MAX_REALS <= 1 << (u32::BITS - SEEN_BITS), "a slot fits");

impl Member {
    fn new(real: RealRef, at: usize) -> Self {
        let seen_at = index(at);
        Self {
            real,
            seen_at: if seen_at >> SEEN_BITS == 0 {
                seen_at
            } else {
                0
            },
        }
    }

    const fn pack(self) -> u64 {
        let place = self.real.id.0 << SEEN_BITS | self.seen_at;
        (self.real.epoch.get() as u64) << 32 | place as u64
    }

    fn unpack(word: u64) -> Option<Self> {
        let place = half(word);
        Some(Self {
            real: RealRef {
                id: RealId(place >> SEEN_BITS),
                epoch: NonZeroU32::new(half(word >> 32))?,
            },
            seen_at: place & ((1 << SEEN_BITS) - 1),
        })
    }

    /// Where it is in the list now.
    fn find(self, choices: &[Choice]) -> Option<usize> {
        let at = self.seen_at as usize;
        match choices.get(at) {
            Some(choice) if choice.real == self.real => Some(at),
            _ => choices.iter().position(|c| c.real == self.real),
        }
    }

    /// Its load for its weight; `None` with weight 0.
    fn share(self, choices: &[Choice], view: View<'_>) -> Option<Share> {
        let choice = choices.get(self.find(choices)?)?;
        Some(Share {
            load: view.load(choice).overhead(),
            weight: NonZeroU32::new(choice.weight)?,
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn half(word: u64) -> u32 {
    word as u32
}
