//! Golden vectors, and what becomes of a cursor when its list changes.

use super::*;

#[test]
fn golden_vectors() {
    use Scheduler::{Fo, Lc, Nq, Ovf, Rr, Sed, Wlc, Wrr};
    for (scheduler, weights, picks) in [
        (Wrr, &[4, 3, 2, 1][..], "ABCDAABABCABCDAABABCABCD"),
        (Wrr, &[6, 4, 2], "ABCAABABCAABABC"),
        (Wrr, &[1, 0, 1], "ACAC"),
        (Wrr, &[2_147_483_647, 1], "ABAAA"),
        (Wrr, &[1, 4], "ABBBBABBBB"),
        (Rr, &[4, 3, 2, 1], "ABCDABCD"),
        (Rr, &[1, 0, 1], "ACAC"),
        (Rr, &[0, 1, 0], "BB"),
        (Lc, &[1, 7, 0], "ABAB"),
        (Wlc, &[1, 2], "ABBA"),
        (Sed, &[1, 3], "BBAB"),
        (Nq, &[1, 3], "ABBBBBA"),
        (Fo, &[1, 0, 3, 2, 3], "CCC"),
        (Ovf, &[3, 1], "AAAABB-"),
    ] {
        let picker = picker(1, scheduler, &entries(weights));
        let picked = Rig::new().letters_open(&picker, picks.len());
        assert_eq!(picked, picks, "{} {weights:?}", scheduler.name());
    }
}

#[test]
fn nobody_is_picked_where_nobody_takes_connections() {
    let mut rig = Rig::new();
    for scheduler in ALL {
        for weights in [&[][..], &[0], &[0, 0, 0]] {
            let picker = picker(1, scheduler, &entries(weights));
            assert_eq!(rig.pick(&picker), None, "{} {weights:?}", scheduler.name());
        }
        let mut down = entries(&[1, 2]);
        down.iter_mut().for_each(|entry| entry.listed = false);
        let picker = picker(1, scheduler, &down);
        assert_eq!(rig.pick(&picker), None, "{}: all down", scheduler.name());
    }
}

#[test]
fn a_real_server_over_its_threshold_gets_no_new_connections() {
    for scheduler in ALL {
        let mut list = entries(&[3, 3]);
        for entry in &mut list {
            entry.limits = Limits { upper: 2, lower: 0 };
        }
        let picker = picker(1, scheduler, &list);
        let mut rig = Rig::new();
        let mut per_real = [0; 2];
        for n in 0..40 {
            // Other clients and destinations, so that hashes reach both.
            rig.client = Ipv4Addr::from_bits(0x0a00_0000 | n).into();
            rig.vip = rig.client;
            if let Some(id) = rig.open(&picker) {
                per_real[id as usize] += 1;
            }
        }
        assert_eq!(per_real, [2, 2], "{}", scheduler.name());
        rig.set_load(1, 0, 1);
        let mut found = Vec::new();
        for n in 0..40 {
            rig.client = Ipv4Addr::from_bits(0x0a00_0000 | n).into();
            rig.vip = Ipv4Addr::from_bits(0x0b00_0000 | n).into();
            found.extend(rig.pick(&picker));
        }
        found.dedup();
        assert_eq!(found, [1], "{}: below three quarters", scheduler.name());
    }
}

#[test]
fn a_cursor_goes_on_when_the_list_is_the_same_in_a_new_table() {
    let mut rig = Rig::new();
    let picker = || picker(1, Scheduler::Wrr, &entries(&[4, 3, 2, 1]));
    let before = rig.letters(&picker(), 4);
    let after = rig.letters(&picker(), 6);
    assert_eq!(before + &after, "ABCDAABABC");
}

#[test]
fn rr_goes_on_behind_its_last_pick_when_the_list_changes() {
    let list = |ids: &[u32]| {
        let entries: Vec<Entry> = ids.iter().map(|id| entry(*id, 1)).collect();
        picker(1, Scheduler::Rr, &entries)
    };
    let mut rig = Rig::new();
    assert_eq!(rig.letters(&list(&[0, 1, 2, 3]), 2), "AB");
    let front = rig.letters(&list(&[9, 0, 1, 2, 3]), 1);
    assert_eq!(front, "C", "one was added in front");
    let removed = rig.letters(&list(&[9, 0, 1, 3]), 2);
    assert_eq!(removed, "DJ", "the last pick was removed");
    let first = rig.letters(&list(&[1, 3]), 2);
    assert_eq!(first, "BD", "it was the first in the list");
    assert_eq!(rig.letters(&list(&[]), 1), "-");
    assert_eq!(rig.letters(&list(&[5, 6]), 2), "FG");
}

#[test]
fn rr_goes_on_behind_its_last_pick_when_several_changes_come_at_once() {
    let list = |ids: &[u32]| {
        let entries: Vec<Entry> = ids.iter().map(|id| entry(*id, 1)).collect();
        picker(1, Scheduler::Rr, &entries)
    };
    let after = |picks, ids: &[u32]| {
        let mut rig = Rig::new();
        rig.letters(&list(&[0, 1, 2, 3]), picks);
        rig.letters(&list(ids), 2)
    };
    assert_eq!(after(2, &[9, 8, 0, 2, 3]), "CD", "replaced by two");
    assert_eq!(after(3, &[9, 1, 3]), "DJ", "and one in front left");
    assert_eq!(after(1, &[9, 8, 1, 2, 3]), "JI", "the first, replaced");
    assert_eq!(after(4, &[9, 0, 1, 2]), "JA", "the last, replaced");
    assert_eq!(after(3, &[9, 0, 2]), "JA", "others left");
    assert_eq!(after(4, &[7, 8]), "HI", "all are new");
}

/// The picks of many clients.
fn placed(scheduler: Scheduler, entries: &[Entry]) -> Vec<Option<u32>> {
    let (mut rig, picker) = (Rig::new(), Picker::new(1, scheduler, entries));
    let mut place = |client: u32| {
        rig.client = Ipv4Addr::from_bits(0x0a00_0000 | client).into();
        rig.vip = rig.client;
        rig.pick(&picker)
    };
    (0..1000).map(&mut place).collect()
}

#[test]
fn clients_have_their_real_servers_again_when_one_that_failed_is_back() {
    for scheduler in [SH, Scheduler::Dh, MH] {
        let mut list = entries(&[1, 2, 1, 3]);
        let before = placed(scheduler, &list);
        list[1].listed = false;
        let meanwhile = placed(scheduler, &list);
        assert!(!meanwhile.contains(&Some(1)) && !meanwhile.contains(&None));
        list[1].listed = true;
        assert_eq!(placed(scheduler, &list), before, "{}", scheduler.name());
    }
}

#[test]
fn another_virtual_server_in_the_slot_starts_anew() {
    let mut rig = Rig::new();
    rig.letters(&picker(1, Scheduler::Rr, &entries(&[1, 1, 1])), 1);
    let other = picker(2, Scheduler::Rr, &entries(&[1, 1, 1]));
    assert_eq!(rig.letters(&other, 2), "AB");
    let wrr = picker(2, Scheduler::Wrr, &entries(&[2, 1]));
    assert_eq!(rig.letters(&wrr, 4), "ABAA");
}

#[test]
fn connections_of_other_workers_count_after_a_sum() {
    let (mut rig, other) = (Rig::new(), WorkerStats::new());
    let picker = picker(1, Scheduler::Wlc, &entries(&[1, 1]));
    other.real(0).claim(1);
    other.real(0).active.set(3);
    let views = [
        std::sync::Arc::new(Others::new()),
        std::sync::Arc::new(Others::new()),
    ];
    rig.state.see(views[0].clone());
    assert_eq!(rig.letters(&picker, 1), "A");
    let workers = [(&rig.stats, &*views[0]), (&other, &*views[1])];
    Others::refresh(workers, picker.choices.iter().map(|c| c.real));
    assert_eq!(rig.letters_open(&picker, 5), "BBBAB");
}
