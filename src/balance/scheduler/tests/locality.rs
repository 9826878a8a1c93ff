//! What `lblc` and `lblcr` remember, beyond what the literal models and the traces show.

use super::*;

const DAY: u32 = 24 * 60 * 60 * Tick::PER_SECOND;

fn vip(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0b00_0000 | n).into()
}

#[test]
fn a_destination_is_forgotten_after_a_day_without_a_question() {
    for scheduler in [Scheduler::Lblc, Scheduler::Lblcr] {
        let picker = picker(1, scheduler, &entries(&[9, 9]));
        let mut rig = Rig::new();
        assert_eq!(rig.pick(&picker), Some(0));
        rig.set_load(0, 5, 0);
        rig.now = Tick::from_raw(rig.now.raw() + DAY - 1);
        assert_eq!(rig.pick(&picker), Some(0), "{}", scheduler.name());
        rig.now = Tick::from_raw(rig.now.raw() + DAY);
        assert_eq!(rig.pick(&picker), Some(1), "{}", scheduler.name());
    }
}

#[test]
fn virtual_servers_do_not_share_destinations() {
    let mut rig = Rig::new();
    let one = picker(1, Scheduler::Lblc, &entries(&[9, 9]));
    assert_eq!(rig.pick(&one), Some(0));
    rig.set_load(0, 5, 0);
    let other = picker(2, Scheduler::Lblc, &entries(&[9, 9]));
    assert_eq!((rig.pick(&other), rig.pick(&one)), (Some(1), Some(0)));
}

#[test]
fn when_there_are_too_many_destinations_the_ones_in_use_stay() {
    let mut rig = Rig::new();
    let picker = picker(1, Scheduler::Lblc, &entries(&[900, 900]));
    assert_eq!(rig.pick(&picker), Some(0));
    rig.set_load(0, 5, 0);
    let usual = rig.vip;
    for n in 0..200_000 {
        rig.vip = vip(n);
        assert_eq!(rig.pick(&picker), Some(1));
        if n % 1000 == 0 {
            rig.vip = usual;
            rig.now = Tick::from_raw(rig.now.raw() + 1);
            assert_eq!(rig.pick(&picker), Some(0), "after {n} others");
        }
    }
    rig.set_load(0, 0, 0);
    rig.vip = vip(0);
    assert_eq!(rig.pick(&picker), Some(0), "the first one had to go");
}

#[test]
fn a_full_set_gives_up_its_most_loaded_member() {
    let mut rig = Rig::new();
    let picker = picker(1, Scheduler::Lblcr, &entries(&[2; 30]));
    // All are crowded but the next one, which joins; then it is crowded too, less than the others.
    let crowd = |rig: &Rig, id: u32| rig.set_load(id, 100 - u64::from(id), 0);
    (0..30).for_each(|id| crowd(&rig, id));
    for id in 0..20 {
        rig.set_load(id, 0, 0);
        assert_eq!(rig.pick(&picker), Some(id));
        crowd(&rig, id);
    }
    // The last twelve are in the set: who of them has room is found, though another has more.
    rig.set_load(28, 0, 0);
    for id in (8..20).chain([7]) {
        rig.set_load(id, 1, 0);
        assert_eq!(rig.pick(&picker), Some(if id == 7 { 28 } else { id }));
        crowd(&rig, id);
    }
}

#[test]
fn those_that_left_the_list_leave_a_full_set_first() {
    let mut rig = Rig::new();
    let list = entries(&[2; 30]);
    let all = picker(1, Scheduler::Lblcr, &list);
    let without = picker(1, Scheduler::Lblcr, &list[6..]);
    let crowd = |rig: &Rig, id: u32| rig.set_load(id, 100 - u64::from(id), 0);
    (0..30).for_each(|id| crowd(&rig, id));
    for id in 0..12 {
        rig.set_load(id, 0, 0);
        assert_eq!(rig.pick(&all), Some(id), "joins");
        crowd(&rig, id);
    }
    rig.set_load(20, 0, 0);
    assert_eq!(rig.pick(&without), Some(20), "joins");
    crowd(&rig, 20);
    rig.set_load(28, 0, 0);
    for id in (6..12).chain([20]) {
        rig.set_load(id, 1, 0);
        assert_eq!(rig.pick(&without), Some(id), "is in the set");
        crowd(&rig, id);
    }
    rig.set_load(2, 1, 0);
    assert_eq!(rig.pick(&all), Some(28), "2 was out of the list and left");
}

#[test]
fn an_ipv6_destination_is_not_that_of_its_low_half() {
    let mut rig = Rig::new();
    let picker = picker(1, Scheduler::Lblc, &entries(&[9, 9]));
    rig.vip = "2001:db8::1".parse().unwrap();
    assert_eq!(rig.pick(&picker), Some(0));
    rig.set_load(0, 5, 0);
    rig.vip = "2001:db9::1".parse().unwrap();
    assert_eq!(rig.pick(&picker), Some(1));
    rig.vip = "2001:db8::1".parse().unwrap();
    assert_eq!(rig.pick(&picker), Some(0));
}

#[test]
fn a_set_that_stayed_the_same_for_more_than_a_day_loses_its_most_loaded_member() {
    let mut rig = Rig::new();
    let picker = picker(1, Scheduler::Lblcr, &entries(&[4, 4, 4]));
    let ask_at = |rig: &mut Rig, tick| {
        rig.now = Tick::from_raw(1 + tick);
        rig.pick(&picker)
    };
    assert_eq!(ask_at(&mut rig, 0), Some(0));
    rig.set_load(0, 5, 0);
    assert_eq!(ask_at(&mut rig, 0), Some(1), "the first is crowded");
    // Both have as much now, so the newer one, 1, is asked first and leaves first.
    rig.set_load(0, 3, 0);
    rig.set_load(1, 3, 0);
    assert_eq!(ask_at(&mut rig, DAY / 2), Some(1));
    assert_eq!(ask_at(&mut rig, DAY), Some(1), "not more than a day");
    assert_eq!(ask_at(&mut rig, DAY), Some(1), "still there");
    assert_eq!(ask_at(&mut rig, DAY + 1), Some(1), "leaves after this");
    assert_eq!(ask_at(&mut rig, DAY + 1), Some(0));
    rig.set_load(1, 0, 0);
    assert_eq!(ask_at(&mut rig, 3 * DAY / 2), Some(0), "1 has left");
}
