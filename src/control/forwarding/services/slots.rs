//! Slots of virtual and real servers: allotted, taken back, used again with another epoch.

use std::{cmp::Reverse, collections::BinaryHeap, num::NonZeroU32};

/// Slots of one kind.
#[derive(Debug)]
pub(super) struct Slots {
    limit: usize,
    /// The epoch of the last holder of each slot that was ever used.
    epochs: Vec<NonZeroU32>,
    /// Those that nobody holds, the lowest first: arrays that are indexed by slot stay short.
    free: BinaryHeap<Reverse<u32>>,
}

impl Slots {
    /// As many as `limit`, none of them held.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            limit,
            epochs: Vec::new(),
            free: BinaryHeap::new(),
        }
    }

    /// A slot that nobody holds, and an epoch that no holder of it had before. `None` when all are held.
    pub(super) fn allot(&mut self) -> Option<(u32, NonZeroU32)> {
        if let Some(Reverse(slot)) = self.free.pop() {
            let epoch = self.epochs.get_mut(slot as usize)?;
            // After four thousand million holders the first one's connections are gone.
            *epoch = epoch.checked_add(1).unwrap_or(NonZeroU32::MIN);
            return Some((slot, *epoch));
        }
        let slot = u32::try_from(self.epochs.len()).ok()?;
        if self.epochs.len() == self.limit {
            return None;
        }
        self.epochs.push(NonZeroU32::MIN);
        Some((slot, NonZeroU32::MIN))
    }

    /// Takes a slot back that was allotted.
    pub(super) fn release(&mut self, slot: u32) {
        debug_assert!((slot as usize) < self.epochs.len(), "never allotted");
        self.free.push(Reverse(slot));
    }

    /// How many can be allotted.
    pub(super) fn left(&self) -> usize {
        self.limit - self.epochs.len() + self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    proptest::proptest! {
        /// No two hold a slot at a time, and no holder has an epoch that another one of it had.
        #[test]
        fn a_slot_has_one_holder_and_each_holder_an_epoch_of_its_own(
            steps in proptest::collection::vec(0_usize..12, 1..200),
        ) {
            const LIMIT: usize = 8;
            let mut slots = Slots::new(LIMIT);
            let mut held = Vec::new();
            let mut seen: HashMap<u32, HashSet<NonZeroU32>> = HashMap::new();
            for step in steps {
                if step < held.len() {
                    slots.release(held.swap_remove(step));
                } else {
                    match slots.allot() {
                        None => assert_eq!(held.len(), LIMIT),
                        Some((slot, epoch)) => {
                            assert!(!held.contains(&slot) && (slot as usize) < LIMIT);
                            assert!(seen.entry(slot).or_default().insert(epoch));
                            held.push(slot);
                        }
                    }
                }
                assert_eq!(slots.left(), LIMIT - held.len());
            }
        }
    }
}
