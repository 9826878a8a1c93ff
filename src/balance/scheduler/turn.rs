//! `rr` and `wrr`: one after another.
//!
//! A worker sees a list when it picks from it, so it may have missed some. Of several changes at
//! once, as of a reload, it sees what they come to: `rr` goes on where IPVS does unless others left
//! the list together with the last pick, and the lap of `wrr` in which it goes on may be another
//! one than after each change in turn. `wrr` begins as if its real servers had been added one by
//! one, also when the virtual server had another `lb_algo` before, where IPVS begins at the
//! heaviest.

use rapidhash::v3::rapidhash_v3;

use super::{Choice, Entry, View, index};
use crate::balance::RealRef;

/// Where one worker is in the list of one virtual server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Whose cursor it is. 0 before the first pick.
    owner: u64,
    /// What the list was at the last pick.
    stamp: Stamp,
    /// Index of the last pick; [`HEAD`] before the first.
    position: u32,
    /// `wrr`: real servers of at least this weight have their turn in this lap.
    weight: u32,
    /// `rr`: the last pick.
    last: Option<RealRef>,
}

/// The position in front of the list.
const HEAD: u32 = u32::MAX;

/// Tells lists apart: the length of one in the low half, a hash in the high one. Where two that
/// follow each other have the same, by a chance of 1 in 2^32, the cursor stays at its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(u64);

impl Stamp {
    pub(super) fn of(list: &[Entry]) -> Self {
        let mut bytes = Vec::with_capacity(list.len() * 20);
        for entry in list {
            bytes.extend(entry.real.id.0.to_ne_bytes());
            bytes.extend(entry.real.epoch.get().to_ne_bytes());
            bytes.extend(entry.weight.to_ne_bytes());
            bytes.extend(entry.limits.upper.to_ne_bytes());
            bytes.extend(entry.limits.lower.to_ne_bytes());
        }
        let hash = rapidhash_v3(&bytes) & !u64::from(u32::MAX);
        Self(hash | u64::from(index(list.len())))
    }

    /// How long the list is.
    const fn len(self) -> u64 {
        self.0 & u32::MAX as u64
    }
}

impl Cursor {
    #[inline]
    pub(super) fn is_of(&self, owner: u64, stamp: Stamp) -> bool {
        self.owner == owner && self.stamp == stamp
    }

    /// Makes it a cursor of this owner in a list with this stamp.
    #[cold]
    pub(super) const fn claim(&mut self, owner: u64, stamp: Stamp) {
        self.owner = owner;
        self.stamp = stamp;
    }

    /// `rr`: where the last pick is now. When it has left the list, at the one that was in front of
    /// it: of the real servers behind it none is new, as the new ones are in front.
    #[cold]
    pub(super) fn relocate(&mut self, owner: u64, choices: &[Choice]) {
        if self.owner != owner {
            *self = Self {
                position: HEAD,
                ..Self::default()
            };
        }
        if self.position == HEAD {
            return;
        }
        let found = choices.iter().position(|c| Some(c.real) == self.last);
        // How far from the end it was.
        let back = self.stamp.len().saturating_sub(self.position.into());
        let in_front = || match self.position {
            0 => None,
            _ => choices.len().checked_sub(usize::try_from(back).ok()?),
        };
        let place = found.or_else(in_front);
        self.position = place.map_or(HEAD, index);
        self.last = place.and_then(|at| choices.get(at)).map(|c| c.real);
    }
}

/// For each position the next one, cyclically, that takes connections. Empty when none does.
pub(super) fn next_eligible(list: &[Entry]) -> Box<[u32]> {
    let eligible = |entry: &Entry| entry.weight > 0;
    let Some(first) = list.iter().position(eligible) else {
        return Box::default();
    };
    let mut next = vec![0; list.len()].into_boxed_slice();
    let mut ahead = index(first);
    for (at, entry) in list.iter().enumerate().rev() {
        next[at] = ahead;
        if eligible(entry) {
            ahead = index(at);
        }
    }
    next
}

/// `rr`: the next one after the last pick that is not over its threshold, one lap at most.
#[inline]
pub(super) fn next(
    choices: &[Choice],
    next: &[u32],
    cursor: &mut Cursor,
    view: View<'_>,
) -> Option<usize> {
    let mut at = if cursor.position == HEAD {
        next.len().checked_sub(1)?
    } else {
        cursor.position as usize
    };
    for _ in 0..next.len() {
        let position = *next.get(at)?;
        at = position as usize;
        let choice = choices.get(at)?;
        if !view.is_over(choice) {
            cursor.position = position;
            cursor.last = Some(choice.real);
            return Some(at);
        }
    }
    None
}

/// The laps of `wrr` through the list: in each, real servers of a certain weight have their turn.
#[derive(Debug)]
pub(super) struct Laps {
    /// The heaviest weight, brought down to what its first lap compares with; 0 when no real
    /// server takes connections.
    top: u32,
    /// How much less the next lap asks for: the greatest common divisor of the weights.
    step: u32,
    /// What the first lap of all asks for.
    start: u32,
    /// The heaviest weight in each block of the list, so that a lap for few passes by the others.
    peaks: Box<[u32]>,
}

/// Real servers in a block: the square root of a long list, about.
const BLOCK: usize = 32;

impl Laps {
    pub(super) fn new(list: &[Entry]) -> Self {
        let (mut heaviest, mut divisor) = (0, 0);
        let (mut top, mut step, mut start) = (0, 1, 0);
        for weight in list.iter().rev().map(|entry| entry.weight) {
            heaviest = weight.max(heaviest);
            divisor = gcd(divisor, weight);
            step = divisor.max(1);
            top = heaviest.saturating_sub(step - 1);
            start = lap_after_change(start, top, step);
        }
        let peak = |block: &[Entry]| block.iter().map(|e| e.weight).max().unwrap_or_default();
        Self {
            top,
            step,
            start,
            peaks: list.chunks(BLOCK).map(peak).collect(),
        }
    }

    /// The list has changed: from its front, at a lap that there is now.
    #[cold]
    pub(super) fn restart(&self, cursor: &mut Cursor, owner: u64) {
        cursor.position = HEAD;
        cursor.weight = if cursor.owner == owner {
            lap_after_change(cursor.weight, self.top, self.step)
        } else {
            self.start
        };
    }

    /// On through the list from the last pick to the first whose weight reaches the lap's; at the
    /// end of the list the lap's weight goes down by the common divisor, and from the bottom back
    /// to the top.
    #[inline]
    pub(super) fn next(
        &self,
        choices: &[Choice],
        cursor: &mut Cursor,
        view: View<'_>,
    ) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        let from = cursor.position.wrapping_add(1) as usize;
        let found = match self.first(choices, from, cursor.weight, view) {
            Some(at) => at,
            None => self.turn_over(choices, cursor, view)?,
        };
        cursor.position = index(found);
        Some(found)
    }

    /// The first pick of a later lap. Laps that have none are left out in one step.
    fn turn_over(&self, choices: &[Choice], cursor: &mut Cursor, view: View<'_>) -> Option<usize> {
        let open = choices.iter().filter(|c| view.is_open(c));
        let Some(heaviest) = open.map(|c| c.weight).max() else {
            self.give_up(cursor);
            return None;
        };
        let next = match cursor.weight.saturating_sub(self.step) {
            0 => self.top,
            lower => lower,
        };
        let empty = next.saturating_sub(heaviest).div_ceil(self.step);
        cursor.weight = next - empty * self.step;
        self.first(choices, 0, cursor.weight, view)
    }

    /// The first one at or behind `from` that has at least this weight and takes connections.
    #[inline]
    fn first(&self, choices: &[Choice], from: usize, weight: u32, view: View<'_>) -> Option<usize> {
        let mut from = from;
        loop {
            let block = from / BLOCK;
            let ahead = self.peaks.get(block..)?.iter().position(|p| *p >= weight)?;
            from = from.max((block + ahead) * BLOCK);
            let next = (block + ahead + 1) * BLOCK;
            let end = choices.len().min(next);
            let fits = |c: &Choice| c.weight >= weight && !view.is_over(c);
            if let Some(at) = choices.get(from..end)?.iter().position(fits) {
                return Some(from + at);
            }
            from = next;
        }
    }

    /// Leaves the cursor where IPVS's search ends that found all of them over their thresholds: at
    /// the end of a lap at the bottom, or back at the last pick when the search began in one.
    #[cold]
    const fn give_up(&self, cursor: &mut Cursor) {
        if cursor.position == HEAD || cursor.weight > self.step {
            cursor.weight = self.top;
            cursor.position = HEAD;
        } else {
            cursor.weight = (self.top - 1) % self.step + 1;
        }
    }
}

/// In which lap IPVS goes on that was in the one for `weight` when the list changed; 0 is none.
const fn lap_after_change(weight: u32, top: u32, step: u32) -> u32 {
    if weight == 0 || weight > top {
        top
    } else if step > 1 {
        (weight / step) * step + 1
    } else {
        weight
    }
}

/// The greatest common divisor; of 0 and a number that number.
pub(super) const fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
