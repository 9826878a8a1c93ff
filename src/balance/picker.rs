//! Schedulers: how a virtual server picks a real server for a new connection.
//!
//! A [`Picker`] is prebuilt and immutable, part of the service table that all workers share. What
//! changes from pick to pick is a [`Cursor`], of which every worker has its own for every virtual
//! server: with several workers each walks the list by itself. A cursor outlives the table: on an
//! unchanged list it goes on where it was, on a changed one it does what IPVS does.

use rapidhash::v3::rapidhash_v3;

use super::RealRef;

/// keepalived `lb_algo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// `rr`.
    RoundRobin,
    /// `wrr`.
    WeightedRoundRobin,
}

impl Scheduler {
    /// The keyword, as in `lb_algo` and in ipvsadm's output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
        }
    }
}

/// One real server in the list of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The real server.
    pub real: RealRef,
    /// Its weight; 0 when it takes no new connections, whatever the reason.
    pub weight: u32,
}

/// Where one worker is in the list of one virtual server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Whose cursor it is: [`Picker::owner`] of the last pick. 0 before the first.
    owner: u64,
    /// What the list was: [`Picker::stamp`] at the last pick.
    stamp: u64,
    /// Index of the last pick; [`HEAD`] before the first.
    position: u32,
    /// `wrr`: real servers of at least this weight have their turn in this lap.
    weight: u32,
    /// The last pick.
    last: Option<RealRef>,
}

/// The position in front of the list.
const HEAD: u32 = u32::MAX;

/// A scheduler with its list.
#[derive(Debug)]
pub struct Picker {
    owner: u64,
    stamp: u64,
    entries: Box<[Entry]>,
    kind: PickerKind,
}

#[derive(Debug)]
enum PickerKind {
    /// For each position the next one that takes connections; empty when none does.
    RoundRobin { next: Box<[u32]> },
    /// `max`: the heaviest weight, brought down to what its first lap compares with; 0 when no
    /// real server takes connections. `step`: greatest common divisor of the weights.
    WeightedRoundRobin { max: u32, step: u32 },
}

impl Picker {
    /// Prepares `scheduler` over `entries` in the order of the configuration. `owner` tells one
    /// virtual server's cursors from another's and is not 0.
    pub fn new(owner: u64, scheduler: Scheduler, entries: Box<[Entry]>) -> Self {
        let kind = match scheduler {
            Scheduler::RoundRobin => PickerKind::RoundRobin {
                next: next_eligible(&entries),
            },
            Scheduler::WeightedRoundRobin => {
                let weights = || entries.iter().map(|e| e.weight).filter(|w| *w > 0);
                let step = weights().fold(0, gcd).max(1);
                let max = weights().max().map_or(0, |heaviest| heaviest - (step - 1));
                PickerKind::WeightedRoundRobin { max, step }
            }
        };
        Self {
            owner: owner ^ (scheduler as u64).rotate_right(8),
            stamp: stamp(&entries),
            entries,
            kind,
        }
    }

    /// The real server for the next new connection; `None` when none takes any.
    #[inline]
    pub fn pick(&self, cursor: &mut Cursor) -> Option<RealRef> {
        if (cursor.owner, cursor.stamp) != (self.owner, self.stamp) {
            self.adopt(cursor);
        }
        let position = match &self.kind {
            PickerKind::RoundRobin { next } => {
                let at = if cursor.position == HEAD {
                    next.len().checked_sub(1)?
                } else {
                    cursor.position as usize
                };
                *next.get(at)?
            }
            PickerKind::WeightedRoundRobin { max, step } => self.weighted(cursor, *max, *step)?,
        };
        cursor.position = position;
        let picked = self.entries.get(position as usize)?.real;
        cursor.last = Some(picked);
        Some(picked)
    }

    /// Whether it picks by a hash of the packet alone, so that a flow needs no entry to keep its real
    /// server.
    pub const fn is_hash(&self) -> bool {
        false
    }

    /// The walk of IPVS's `wrr`: on through the list from the last pick to the first whose weight
    /// reaches the lap's; at the end of the list the lap's weight goes down by the common divisor,
    /// and from the bottom back to the top.
    fn weighted(&self, cursor: &mut Cursor, max: u32, step: u32) -> Option<u32> {
        if max == 0 {
            return None;
        }
        let mut from = cursor.position.wrapping_add(1);
        // The heaviest is reached in a whole lap at any weight, so two laps always find one.
        loop {
            let rest = self.entries.get(from as usize..)?;
            if let Some(ahead) = rest.iter().position(|e| e.weight >= cursor.weight) {
                return u32::try_from(ahead).ok().map(|ahead| from + ahead);
            }
            cursor.weight = match cursor.weight.saturating_sub(step) {
                0 => max,
                lower => lower,
            };
            from = 0;
        }
    }

    /// Takes over a cursor that was last used with another list, or by another virtual server.
    #[cold]
    pub(super) fn adopt(&self, cursor: &mut Cursor) {
        if cursor.owner != self.owner {
            *cursor = Cursor {
                position: HEAD,
                ..Cursor::default()
            };
        }
        match self.kind {
            PickerKind::RoundRobin { .. } => cursor.position = self.relocate(cursor),
            PickerKind::WeightedRoundRobin { max, step } => {
                cursor.position = HEAD;
                if cursor.weight == 0 || cursor.weight > max {
                    cursor.weight = max;
                } else if step > 1 {
                    cursor.weight = (cursor.weight / step) * step + 1;
                }
            }
        }
        (cursor.owner, cursor.stamp) = (self.owner, self.stamp);
    }

    /// Where the last pick is now; when it has left the list, the place in front of it.
    fn relocate(&self, cursor: &Cursor) -> u32 {
        let found = self
            .entries
            .iter()
            .position(|e| Some(e.real) == cursor.last);
        let last = self.entries.len().checked_sub(1).map_or(HEAD, index);
        match found {
            Some(at) => index(at),
            None if cursor.position == HEAD => HEAD,
            None => cursor
                .position
                .checked_sub(1)
                .map_or(last, |at| at.min(last)),
        }
    }
}

/// For each position the next one, cyclically, that takes connections. Empty when none does.
fn next_eligible(entries: &[Entry]) -> Box<[u32]> {
    let Some(first) = entries.iter().position(|e| e.weight > 0) else {
        return Box::default();
    };
    let mut next = vec![0; entries.len()].into_boxed_slice();
    let mut ahead = index(first);
    for (at, entry) in entries.iter().enumerate().rev() {
        next[at] = ahead;
        if entry.weight > 0 {
            ahead = index(at);
        }
    }
    next
}

/// A position as stored in a cursor; lists are bounded by `MAX_REALS`.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(HEAD)
}

const fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A number that differs when the lists do.
fn stamp(entries: &[Entry]) -> u64 {
    let mut bytes = Vec::with_capacity(entries.len() * 12);
    for entry in entries {
        bytes.extend(entry.real.id.0.to_ne_bytes());
        bytes.extend(entry.real.epoch.get().to_ne_bytes());
        bytes.extend(entry.weight.to_ne_bytes());
    }
    rapidhash_v3(&bytes)
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
