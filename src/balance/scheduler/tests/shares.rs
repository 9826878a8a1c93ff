//! `twos`, which is by chance.

use super::*;

/// How often each real server was picked.
fn shares(rig: &mut Rig, list: &[Entry]) -> Vec<u32> {
    let picker = picker(1, Scheduler::Twos, list);
    let mut count = vec![0; list.len()];
    for _ in 0..20_000 {
        count[rig.pick(&picker).unwrap() as usize] += 1;
    }
    count
}

#[test]
fn idle_real_servers_are_drawn_by_weight() {
    let count = shares(&mut Rig::new(), &entries(&[3, 0, 1]));
    assert!((14_700..15_300).contains(&count[0]), "{count:?}");
    assert_eq!(count[1], 0);
}

#[test]
fn the_less_loaded_of_two_is_taken() {
    let mut rig = Rig::new();
    let list = entries(&[1, 1]);
    rig.set_load(0, 5, 0);
    let count = shares(&mut rig, &list);
    assert!((4_700..5_300).contains(&count[0]), "both draws: {count:?}");
    // Twice the connections at twice the weight is no more.
    rig.set_load(0, 2, 0);
    rig.set_load(1, 4, 1);
    let count = shares(&mut rig, &entries(&[1, 2]));
    assert!(
        (10_800..11_400).contains(&count[0]),
        "unless 1 twice: {count:?}"
    );
}

#[test]
fn one_over_its_threshold_is_not_drawn() {
    let mut rig = Rig::new();
    let mut list = entries(&[8, 3, 1]);
    list[0].limits = Limits { upper: 5, lower: 0 };
    rig.set_load(0, 5, 0);
    let count = shares(&mut rig, &list);
    assert_eq!(count[0], 0);
    assert!((14_700..15_300).contains(&count[1]), "{count:?}");
}
