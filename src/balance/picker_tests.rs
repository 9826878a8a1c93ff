//! Schedulers against golden vectors and against slow, literal models.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::balance::RealId;

fn entry(id: u32, weight: u32) -> Entry {
    Entry {
        real: RealRef {
            id: RealId(id),
            epoch: NonZeroU32::MIN,
        },
        weight,
    }
}

fn picker(scheduler: Scheduler, weights: &[u32]) -> Picker {
    let entries = (0..).zip(weights).map(|(id, weight)| entry(id, *weight));
    Picker::new(1, scheduler, entries.collect())
}

/// `count` picks as letters, `A` being the first in the list.
fn letters(picker: &Picker, cursor: &mut Cursor, count: usize) -> String {
    let letter = |real: RealRef| char::from_u32(u32::from('A') + real.id.0).unwrap();
    (0..count)
        .map(|_| picker.pick(cursor).map_or('-', letter))
        .collect()
}

#[test]
fn golden_vectors() {
    use Scheduler::{RoundRobin as Rr, WeightedRoundRobin as Wrr};
    for (scheduler, weights, picks) in [
        (Wrr, &[4, 3, 2, 1][..], "AABABCABCDAABABCABCD"),
        (Wrr, &[6, 4, 2], "AABABCAABABC"),
        (Wrr, &[1, 0, 1], "ACAC"),
        (Wrr, &[0, 0], "--"),
        (Wrr, &[], "-"),
        (Wrr, &[2_147_483_647, 1], "AAAA"),
        (Rr, &[4, 3, 2, 1], "ABCDABCD"),
        (Rr, &[1, 0, 1], "ACAC"),
        (Rr, &[0, 1, 0], "BB"),
        (Rr, &[0, 0], "--"),
        (Rr, &[], "-"),
    ] {
        let picked = letters(
            &picker(scheduler, weights),
            &mut Cursor::default(),
            picks.len(),
        );
        assert_eq!(picked, picks, "{} {weights:?}", scheduler.name());
    }
}

#[test]
fn a_cursor_goes_on_when_the_list_is_the_same_in_a_new_table() {
    let mut cursor = Cursor::default();
    let weights = [4, 3, 2, 1];
    let before = letters(
        &picker(Scheduler::WeightedRoundRobin, &weights),
        &mut cursor,
        4,
    );
    let after = letters(
        &picker(Scheduler::WeightedRoundRobin, &weights),
        &mut cursor,
        6,
    );
    assert_eq!(before + &after, "AABABCABCD");
}

#[test]
fn rr_goes_on_behind_its_last_pick_when_the_list_changes() {
    let list = |ids: &[u32]| {
        let entries = ids.iter().map(|id| entry(*id, 1)).collect();
        Picker::new(1, Scheduler::RoundRobin, entries)
    };
    let mut cursor = Cursor::default();
    assert_eq!(letters(&list(&[0, 1, 2, 3]), &mut cursor, 2), "AB");
    assert_eq!(
        letters(&list(&[9, 0, 1, 2, 3]), &mut cursor, 1),
        "C",
        "one was added in front"
    );
    assert_eq!(
        letters(&list(&[9, 0, 1, 3]), &mut cursor, 2),
        "DJ",
        "the last pick was removed"
    );
    assert_eq!(
        letters(&list(&[1, 3]), &mut cursor, 2),
        "BD",
        "it was the first in the list"
    );
    assert_eq!(letters(&list(&[]), &mut cursor, 1), "-");
    assert_eq!(letters(&list(&[5, 6]), &mut cursor, 2), "FG");
}

#[test]
fn another_virtual_server_in_the_slot_starts_anew() {
    let mut cursor = Cursor::default();
    letters(&picker(Scheduler::RoundRobin, &[1, 1, 1]), &mut cursor, 1);
    let entries = [entry(0, 1), entry(1, 1), entry(2, 1)].into();
    let other = Picker::new(2, Scheduler::RoundRobin, entries);
    assert_eq!(letters(&other, &mut cursor, 2), "AB");
    let wrr = Picker::new(
        2,
        Scheduler::WeightedRoundRobin,
        [entry(0, 2), entry(1, 1)].into(),
    );
    assert_eq!(letters(&wrr, &mut cursor, 3), "AAB");
}

/// IPVS's `wrr` told step by step, with its list head, its stop mark and its last pass.
struct LiteralWrr {
    list: Vec<Entry>,
    /// `None`: the list head.
    current: Option<usize>,
    cw: i64,
    mw: i64,
    di: i64,
}

impl LiteralWrr {
    fn new(list: Vec<Entry>) -> Self {
        let mut it = Self {
            list: Vec::new(),
            current: None,
            cw: 0,
            mw: 0,
            di: 1,
        };
        it.change(list);
        it
    }

    /// The list or a weight changed.
    fn change(&mut self, list: Vec<Entry>) {
        self.list = list;
        self.current = None;
        let weights = || {
            self.list
                .iter()
                .map(|e| i64::from(e.weight))
                .filter(|w| *w > 0)
        };
        let most = weights().max().unwrap_or(0);
        self.di = (1..=most)
            .rev()
            .find(|d| weights().all(|w| w % d == 0))
            .unwrap_or(1);
        self.mw = most - (self.di - 1);
        if self.cw > self.mw || self.cw == 0 {
            self.cw = self.mw;
        } else if self.di > 1 {
            self.cw = (self.cw / self.di) * self.di + 1;
        }
    }

    fn pick(&mut self) -> Option<RealRef> {
        if self.mw <= 0 {
            return None;
        }
        let last = self.current;
        let (mut at, mut stop) = (last, None);
        let (mut last_pass, mut restarted) = (false, false);
        loop {
            for next in at.map_or(0, |i| i + 1)..self.list.len() {
                if i64::from(self.list[next].weight) >= self.cw {
                    self.current = Some(next);
                    return Some(self.list[next].real);
                }
                if stop == Some(next) {
                    return None;
                }
            }
            at = None;
            self.cw -= self.di;
            if self.cw <= 0 {
                self.cw = self.mw;
                if last_pass || last.is_none() {
                    return None;
                }
                restarted = true;
            }
            last_pass = self.cw <= self.di;
            if last_pass && restarted && last.is_some() {
                stop = last;
            }
        }
    }
}

fn lists() -> impl Strategy<Value = Vec<(Vec<Entry>, usize)>> {
    let entries = prop::collection::vec((0_u32..6, 0_u32..9), 0..7).prop_map(|raw| {
        let mut list: Vec<Entry> = Vec::new();
        for (id, weight) in raw {
            if list.iter().all(|e| e.real.id.0 != id) {
                list.push(entry(id, weight));
            }
        }
        list
    });
    prop::collection::vec((entries, 0_usize..40), 1..6)
}

proptest! {
    #[test]
    fn wrr_is_the_walk_of_ipvs_through_changes_of_the_list(lists in lists()) {
        let mut model: Option<LiteralWrr> = None;
        let mut cursor = Cursor::default();
        for (list, picks) in lists {
            let picker = Picker::new(1, Scheduler::WeightedRoundRobin, list.clone().into());
            // A list that nothing was picked from was never seen by the cursor.
            if picks == 0 {
                continue;
            }
            match &mut model {
                Some(model) if model.list != list => model.change(list),
                Some(_) => {}
                none => *none = Some(LiteralWrr::new(list)),
            }
            let model = model.as_mut().unwrap();
            for _ in 0..picks {
                prop_assert_eq!(picker.pick(&mut cursor), model.pick());
            }
        }
    }

    #[test]
    fn rr_takes_the_next_eligible_in_the_list(weights in prop::collection::vec(0_u32..3, 0..9)) {
        let picker = picker(Scheduler::RoundRobin, &weights);
        let mut cursor = Cursor::default();
        let mut at = 0;
        for _ in 0..30 {
            let lap = (at..at + weights.len()).find(|i| weights[i % weights.len()] > 0);
            let expected = lap.map(|i| i % weights.len());
            let picked = picker.pick(&mut cursor).map(|real| real.id.0 as usize);
            prop_assert_eq!(picked, expected);
            at = expected.map_or(0, |i| i + 1);
        }
    }
}
