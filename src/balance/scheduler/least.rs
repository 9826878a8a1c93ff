//! `lc`, `wlc`, `sed`, `nq`, `fo` and `ovf`: one look at every real server of the list.
//!
//! The first in the list wins a tie, in all of them.

use std::num::NonZeroU32;

use super::{Choice, View};

/// `lc`: the least overhead.
#[inline]
pub(super) fn lc(choices: &[Choice], view: View<'_>) -> Option<usize> {
    let open = choices.iter().enumerate().filter(|(_, c)| view.is_open(c));
    let loads = open.map(|(at, c)| (view.load(c).overhead(), at));
    loads.min().map(|(_, at)| at)
}

/// `wlc`: the least overhead for its weight.
#[inline]
pub(super) fn wlc(choices: &[Choice], view: View<'_>) -> Option<usize> {
    lightest(choices, view, |c| view.load(c).overhead())
}

/// `sed`: the least active connections for its weight, the new one counted in.
#[inline]
pub(super) fn sed(choices: &[Choice], view: View<'_>) -> Option<usize> {
    lightest(choices, view, |c| view.load(c).active.saturating_add(1))
}

/// `nq`: the first without active connections, else as `sed`.
#[inline]
pub(super) fn nq(choices: &[Choice], view: View<'_>) -> Option<usize> {
    let idle = |c: &Choice| view.load(c).active == 0 && view.is_open(c);
    choices.iter().position(idle).or_else(|| sed(choices, view))
}

/// `fo`: the highest weight.
#[inline]
pub(super) fn fo(choices: &[Choice], view: View<'_>) -> Option<usize> {
    heaviest(choices, |c| view.is_open(c))
}

/// `ovf`: the highest weight that has no more active connections than its weight.
#[inline]
pub(super) fn ovf(choices: &[Choice], view: View<'_>) -> Option<usize> {
    heaviest(choices, |c| {
        view.load(c).active <= u64::from(c.weight) && view.is_open(c)
    })
}

/// The open one with the least load for its weight.
#[inline]
fn lightest(choices: &[Choice], view: View<'_>, load: impl Fn(&Choice) -> u64) -> Option<usize> {
    let mut least: Option<(usize, Share)> = None;
    for (at, choice) in choices.iter().enumerate() {
        let Some(weight) = NonZeroU32::new(choice.weight) else {
            continue;
        };
        if view.is_over(choice) {
            continue;
        }
        let share = Share {
            load: load(choice),
            weight,
        };
        if least.is_none_or(|(_, so_far)| share.is_less(so_far)) {
            least = Some((at, share));
        }
    }
    least.map(|(at, _)| at)
}

/// The one with the highest weight of those that are wanted.
#[inline]
fn heaviest(choices: &[Choice], wanted: impl Fn(&Choice) -> bool) -> Option<usize> {
    let mut found = None;
    let mut weight = 0;
    for (at, choice) in choices.iter().enumerate() {
        if choice.weight > weight && wanted(choice) {
            found = Some(at);
            weight = choice.weight;
        }
    }
    found
}

/// A load in proportion to a weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) load: u64,
    pub(super) weight: NonZeroU32,
}

impl Share {
    /// Whether this is the smaller load in proportion. Compared by products, as no division is
    /// exact.
    #[inline]
    pub(super) fn is_less(self, other: Self) -> bool {
        self.load_for(other) < other.load_for(self)
    }

    #[inline]
    fn load_for(self, other: Self) -> u128 {
        u128::from(self.load) * u128::from(other.weight.get())
    }
}
