//! `rr` and `wrr`: one after another.

use super::{Choice, Entry, View, index};
use crate::balance::RealRef;

/// Where one worker is in the list of one virtual server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Whose cursor it is. 0 before the first pick.
    owner: u64,
    /// What the list was at the last pick.
    stamp: u64,
    /// Index of the last pick; [`HEAD`] before the first.
    position: u32,
    /// `wrr`: real servers of at least this weight have their turn in this lap.
    weight: u32,
    /// `rr`: the last pick.
    last: Option<RealRef>,
}

/// The position in front of the list.
const HEAD: u32 = u32::MAX;

impl Cursor {
    #[inline]
    pub(super) const fn is_of(&self, owner: u64, stamp: u64) -> bool {
        self.owner == owner && self.stamp == stamp
    }

    /// Makes it a cursor of this owner in a list with this stamp.
    #[cold]
    pub(super) fn claim(&mut self, owner: u64, stamp: u64) {
        if self.owner != owner {
            *self = Self {
                owner,
                position: HEAD,
                ..Self::default()
            };
        }
        self.stamp = stamp;
    }

    /// Where the last pick is now; when it has left the list, the place in front of it.
    #[cold]
    pub(super) fn relocate(&mut self, choices: &[Choice]) {
        let found = choices.iter().position(|c| Some(c.real) == self.last);
        let in_front = (self.position as usize).min(choices.len()).checked_sub(1);
        let place = match found {
            None if self.position == HEAD => None,
            None => in_front,
            found => found,
        };
        self.position = place.map_or(HEAD, index);
        self.last = place.and_then(|at| choices.get(at)).map(|c| c.real);
    }
}

/// For each position the next one, cyclically, that takes connections. Empty when none does.
pub(super) fn next_eligible(entries: &[Entry]) -> Box<[u32]> {
    let eligible = |entry: &Entry| entry.listed && entry.weight > 0;
    let Some(first) = entries.iter().position(eligible) else {
        return Box::default();
    };
    let mut next = vec![0; entries.len()].into_boxed_slice();
    let mut ahead = index(first);
    for (at, entry) in entries.iter().enumerate().rev() {
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
    /// The heaviest weight in each block of the list, so that a lap for few passes by the others.
    peaks: Box<[u32]>,
}

/// Real servers in a block: the square root of a long list, about.
const BLOCK: usize = 32;

impl Laps {
    pub(super) fn new(entries: &[Entry]) -> Self {
        let weights = || {
            let listed = entries.iter().filter(|e| e.listed);
            listed.map(|e| e.weight).filter(|w| *w > 0)
        };
        let step = weights().fold(0, gcd).max(1);
        let top = weights().max().map_or(0, |heaviest| heaviest - (step - 1));
        let peak = |block: &[Entry]| {
            let listed = block.iter().filter(|e| e.listed);
            listed.map(|e| e.weight).max().unwrap_or_default()
        };
        Self {
            top,
            step,
            peaks: entries.chunks(BLOCK).map(peak).collect(),
        }
    }

    /// The list has changed: from its front, at a lap that there is now.
    #[cold]
    pub(super) fn restart(&self, cursor: &mut Cursor) {
        cursor.position = HEAD;
        if cursor.weight == 0 || cursor.weight > self.top {
            cursor.weight = self.top;
        } else if self.step > 1 {
            cursor.weight = (cursor.weight / self.step) * self.step + 1;
        }
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

/// The greatest common divisor; of 0 and a number that number.
pub(super) const fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
