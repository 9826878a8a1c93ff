//! `twos`: the less loaded of two that are drawn by weight.
//!
//! Two draws see through old load figures: the herd that runs to the one least loaded real server
//! of the last sum does not form. IPVS's draw gives the front of its list the chance of one unit
//! of weight more than it has; this one does not.

use std::num::NonZeroU32;

use super::{Choice, Entry, View, least::Share};

/// The weights as a draw needs them.
#[derive(Debug)]
pub(super) struct Draw {
    /// For each position the sum of the weights up to it, its own included.
    sums: Box<[u64]>,
}

impl Draw {
    pub(super) fn new(list: &[Entry]) -> Self {
        let mut sum = 0;
        let sums = list.iter().map(|entry| {
            sum += u64::from(entry.weight);
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    #[inline]
    pub(super) fn pick(
        &self,
        choices: &[Choice],
        random: &mut fastrand::Rng,
        view: View<'_>,
    ) -> Option<usize> {
        let one = self.draw(choices, random, view)?;
        let other = self.draw(choices, random, view)?;
        let share = |at: usize| {
            let choice = choices.get(at)?;
            Some(Share {
                load: view.load(choice).overhead(),
                weight: NonZeroU32::new(choice.weight)?,
            })
        };
        Some(if share(other)?.is_less(share(one)?) {
            other
        } else {
            one
        })
    }

    /// One of those that take connections, each by the chance of its weight.
    #[inline]
    fn draw(
        &self,
        choices: &[Choice],
        random: &mut fastrand::Rng,
        view: View<'_>,
    ) -> Option<usize> {
        let total = *self.sums.last()?;
        if total == 0 {
            return None;
        }
        let ticket = random.u64(..total);
        let at = self.sums.partition_point(|sum| *sum <= ticket);
        if view.is_over(choices.get(at)?) {
            return draw_again(choices, random, view);
        }
        Some(at)
    }
}

/// A draw among those that are not over their thresholds.
#[cold]
fn draw_again(choices: &[Choice], random: &mut fastrand::Rng, view: View<'_>) -> Option<usize> {
    let open = || choices.iter().enumerate().filter(|(_, c)| view.is_open(c));
    let total: u64 = open().map(|(_, c)| u64::from(c.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut ticket = random.u64(..total);
    for (at, choice) in open() {
        match ticket.checked_sub(u64::from(choice.weight)) {
            Some(rest) => ticket = rest,
            None => return Some(at),
        }
    }
    None
}
