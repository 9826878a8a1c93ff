//! What a Maglev table promises.

use super::{super::Maglev, *};

/// Which real server each slot belongs to.
fn table(entries: &[Entry]) -> Vec<u32> {
    table_of(entries, MaglevSize::DEFAULT)
}

fn table_of(entries: &[Entry], size: MaglevSize) -> Vec<u32> {
    let table = Maglev::new(entries, size, (false, false), &mut MaglevTables::default());
    let id = |at: &u16| entries[usize::from(*at)].real.id.0;
    table.slots.iter().map(id).collect()
}

fn moved(before: &[u32], after: &[u32]) -> usize {
    before.iter().zip(after).filter(|(a, b)| a != b).count()
}

/// Weights of 1 to 8 in turn.
fn mixed(count: u32) -> Vec<u32> {
    (0..count).map(|n| 1 + n % 8).collect()
}

#[test]
fn shares_follow_weights_within_one_percent() {
    for weights in [vec![1; 100], vec![7; 3], mixed(100)] {
        let slots = table(&entries(&weights));
        assert_eq!(slots.len(), 65_537);
        let total: u32 = weights.iter().sum();
        for (id, weight) in (0..).zip(&weights) {
            let has = slots.iter().filter(|slot| **slot == id).count();
            let ideal = 65_537.0 * f64::from(*weight) / f64::from(total);
            let off = (has as f64 / ideal - 1.0).abs();
            assert!(off < 0.01, "{id}: {has} slots for {ideal}");
        }
    }
}

#[test]
fn a_weight_too_small_for_a_share_has_a_slot() {
    let slots = table(&entries(&[2_147_483_647, 1, 1]));
    assert!(slots.contains(&1) && slots.contains(&2));
}

#[test]
fn removing_one_moves_less_than_one_and_a_half_shares() {
    let all = entries(&[1; 100]);
    let before = table(&all);
    for out in (0..100).step_by(9) {
        let mut fewer = all.clone();
        fewer.remove(out);
        let moved = moved(&before, &table(&fewer));
        assert!(moved < 65_537 * 3 / 200, "without {out}: {moved}");
        assert!(moved >= 65_537 / 100, "its own at the least");
    }
}

#[test]
fn draining_moves_nobody() {
    for size in [4093, 65_537] {
        let size = MaglevSize::new(size).unwrap();
        let mut list = entries(&mixed(20));
        let before = table_of(&list, size);
        list[3].weight = 0;
        list[7].weight = 0;
        assert_eq!(moved(&before, &table_of(&list, size)), 0);
    }
    let mut rig = Rig::new();
    let mut list = entries(&[1, 1, 1]);
    let before = picker(1, MH, &list);
    list[1].weight = 0;
    let after = picker(1, MH, &list);
    for client in 0..300 {
        rig.client = Ipv4Addr::from_bits(0x0a00_0000 | client).into();
        let expected = rig.pick(&before).filter(|id| *id != 1);
        assert_eq!(rig.pick(&after), expected);
    }
}

#[test]
fn the_order_of_the_list_does_not_matter() {
    let mut list = entries(&mixed(50));
    let before = table(&list);
    list.reverse();
    list.swap(3, 30);
    assert_eq!(moved(&before, &table(&list)), 0);
}

#[test]
fn every_box_has_the_same_table() {
    // Slots and epochs are a box's own; what counts is in the configuration.
    let list = entries(&[5, 2, 1]);
    let mut elsewhere = list.clone();
    for (n, entry) in (0..).zip(&mut elsewhere) {
        entry.real.id = RealId(700 + n);
    }
    let there: Vec<u32> = table(&elsewhere).iter().map(|id| id - 700).collect();
    assert_eq!(moved(&table(&list), &there), 0);
    // And so it must stay from version to version: boxes are upgraded one by one.
    let sum = table(&list)
        .iter()
        .fold(0_u32, |sum, id| sum.wrapping_mul(31).wrapping_add(*id));
    assert_eq!(sum, 3_105_385_806);
    let mut rig = Rig::new();
    rig.client = "2001:db8::1".parse().unwrap();
    let picker = picker(1, MH, &list);
    assert_eq!(rig.pick(&picker), Some(2));
}

#[test]
fn a_fallback_spreads_the_clients_of_one_over_the_others() {
    let mut list = entries(&[1; 10]);
    let fallback = Scheduler::Mh {
        port: true,
        fallback: true,
        size: MaglevSize::DEFAULT,
    };
    let before = picker(1, fallback, &list);
    list[4].weight = 0;
    let after = picker(1, fallback, &list);
    let mut rig = Rig::new();
    let mut taken = [0_u32; 10];
    for port in 0..20_000 {
        rig.client_port = port;
        let (was, is) = (rig.pick(&before).unwrap(), rig.pick(&after).unwrap());
        if was == 4 {
            taken[is as usize] += 1;
        } else {
            assert_eq!(is, was);
        }
    }
    let moved: u32 = taken.iter().sum();
    for (id, count) in taken.iter().enumerate() {
        let wanted = if id == 4 {
            0..=0
        } else {
            moved / 15..=moved / 6
        };
        assert!(wanted.contains(count), "{id}: {count} of {moved}");
    }
}

#[test]
fn a_fallback_finds_the_only_one_left() {
    let mut list = entries(&[1; 200]);
    for entry in &mut list[1..] {
        entry.weight = 0;
    }
    let mut rig = Rig::new();
    for size in [4093, 65_537] {
        let scheduler = Scheduler::Mh {
            port: true,
            fallback: true,
            size: MaglevSize::new(size).unwrap(),
        };
        let picker = picker(1, scheduler, &list);
        for port in 0..100 {
            rig.client_port = port;
            assert_eq!(rig.pick(&picker), Some(0));
        }
    }
}

#[test]
fn a_size_is_a_prime_number_in_range() {
    for good in MaglevSize::IPVS.into_iter().chain([65_537, 655_373]) {
        assert_eq!(MaglevSize::new(good).map(MaglevSize::slots), Some(good));
    }
    for bad in [0, 241, 252, 65_536, 4093 * 251, 1_048_583, u32::MAX] {
        assert_eq!(MaglevSize::new(bad), None, "{bad}");
    }
}

#[test]
fn a_table_is_filled_again_only_when_it_would_differ() {
    let mut known = MaglevTables::default();
    let slots = |list: &[Entry], size: u32, known: &mut MaglevTables| {
        let size = MaglevSize::new(size).unwrap();
        Maglev::new(list, size, (false, false), known).slots
    };
    let list = entries(&[1, 2, 3]);
    let first = slots(&list, 251, &mut known);
    let mut same = list.clone();
    same[0].weight = 0;
    same[1].limits.upper = 9;
    let again = slots(&same, 251, &mut known);
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    let change = |change: fn(&mut Vec<Entry>)| {
        let mut list = list.clone();
        change(&mut list);
        list
    };
    for other in [
        change(|list| list[0].last_weight = 5),
        change(|list| list.truncate(2)),
        change(|list| list[0].endpoint.port = 81),
        change(|list| list[0].endpoint.addr = "10.9.9.9".parse().unwrap()),
        change(|list| list.swap(0, 1)),
    ] {
        let slots = slots(&other, 251, &mut known);
        assert_ne!(slots, first, "{other:?}");
    }
    assert_ne!(slots(&list, 257, &mut known), first);
}
