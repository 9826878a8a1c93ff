//! Several routers on a simulated LAN.

use proptest::prelude::*;

use super::*;
use crate::vrrp::sim::unicast;

/// Longest possible wait for an election: three intervals, the greatest skew, and the delay.
const SETTLE: Duration = Duration::from_millis(4_200);

fn lan(priorities: &[u8]) -> Lan {
    let all = priorities
        .iter()
        .enumerate()
        .map(|(node, priority)| settings(node, *priority));
    Lan::new(7, all.collect())
}

#[test]
fn the_highest_priority_wins_and_nobody_else_is_heard() {
    let mut lan = lan(&[100, 200, 150]);
    lan.run(secs(60));
    assert_eq!(lan.masters(0), [1]);
    assert!(lan.nodes[0].sent.is_empty());
    assert!(lan.nodes[2].sent.is_empty());
    assert_eq!(
        lan.nodes[1].sent.len(),
        57,
        "at 3.21875 s and each second after"
    );
}

#[test]
fn a_backup_knows_the_priority_of_its_master() {
    let mut lan = lan(&[100, 200]);
    let known = |lan: &mut Lan, node| {
        let mut priority = None;
        lan.with(node, |router, id, _| {
            priority = router.status(id).map(|status| status.master_priority);
        });
        priority
    };
    assert_eq!(known(&mut lan, 0), Some(0), "nobody was heard");
    lan.run(secs(10));
    assert_eq!(known(&mut lan, 0), Some(200));
    assert_eq!(known(&mut lan, 1), Some(0), "it is the master");
    lan.kill(1);
    lan.run(secs(10));
    assert_eq!(known(&mut lan, 0), Some(0), "it is the master now");
}

#[test]
fn equal_priorities_settle_on_the_highest_address() {
    let mut lan = lan(&[100, 100, 100]);
    lan.delay = millis(2);
    lan.run(secs(10));
    assert_eq!(lan.masters(0), [2]);
}

#[test]
fn a_dead_master_is_replaced_within_the_down_interval() {
    let mut lan = lan(&[200, 100]);
    lan.run(millis(10_500));
    let died = lan.now;
    lan.kill(0);
    lan.run(secs(5));
    let (took_over, _) = lan.nodes[1].sent[0];
    let outage = took_over - died;
    assert!(outage <= Duration::from_nanos(3_609_375_000), "{outage:?}");
    assert!(outage >= Duration::from_nanos(2_609_375_000), "{outage:?}");
}

#[test]
fn a_stopped_master_is_replaced_within_the_skew() {
    let mut lan = lan(&[255, 254, 100]);
    lan.run(millis(10_500));
    let stopped = lan.now;
    lan.with(0, |router, _, now| router.handle_stop(now));
    lan.run(secs(5));
    let (took_over, _) = lan.nodes[1].sent[0];
    assert_eq!(took_over - stopped, Duration::from_nanos(7_812_500));
    assert_eq!(lan.masters(0), [1]);
    assert!(lan.nodes[2].sent.is_empty());
}

#[test]
fn a_returning_router_preempts_unless_told_not_to() {
    for preempt in [true, false] {
        let all = [200, 100].iter().enumerate();
        let all = all.map(|(n, p)| Settings {
            preempt,
            ..settings(n, *p)
        });
        let mut lan = Lan::new(3, all.collect());
        lan.run(secs(10));
        lan.kill(0);
        lan.run(secs(10));
        assert_eq!(lan.masters(0), [1]);
        lan.revive(0);
        lan.run(secs(10));
        assert_eq!(
            lan.masters(0),
            [if preempt { 0 } else { 1 }],
            "preempt {preempt}"
        );
    }
}

#[test]
fn a_lowered_priority_hands_over() {
    let mut lan = lan(&[150, 140]);
    lan.run(secs(10));
    lan.with(0, |router, id, _| router.set_weight(id, -20));
    lan.run(secs(5));
    assert_eq!(lan.masters(0), [1]);
    lan.with(0, |router, id, _| router.set_weight(id, 0));
    lan.run(secs(5));
    assert_eq!(lan.masters(0), [0]);
}

#[test]
fn a_dead_link_hands_over_and_its_return_takes_back() {
    let mut lan = lan(&[150, 140]);
    lan.run(secs(10));
    lan.with(0, |router, _, now| {
        router.handle_link(now, ETH, LinkState::Down)
    });
    lan.run(secs(5));
    assert_eq!((lan.state(0), lan.masters(0)), (State::Fault, vec![1]));
    lan.with(0, |router, _, now| {
        router.handle_link(now, ETH, LinkState::Up)
    });
    lan.run(secs(5));
    assert_eq!(lan.masters(0), [0]);
}

#[test]
fn after_a_partition_heals_the_master_that_heard_another_announces() {
    // The phase decides who is heard first; in all cases one master is left, and when the loser
    // was heard, clients are told where the addresses are.
    let (mut heard, mut silent) = (0, 0);
    for phase in 0..20 {
        let mut lan = lan(&[150, 100]);
        lan.run(secs(20));
        lan.nodes[1].side = 1;
        lan.run(secs(20) + millis(phase * 50));
        assert_eq!((lan.masters(0), lan.masters(1)), (vec![0], vec![1]));
        lan.nodes[1].side = 0;
        let healed = lan.now;
        let sent_before = lan.nodes[1].sent.len();
        lan.run(millis(1001));
        assert_eq!(lan.masters(0), [0], "phase {phase}");
        if lan.nodes[1].sent.len() > sent_before {
            let told = lan.nodes[0].garps.iter().any(|(at, _)| *at >= healed);
            assert!(told, "phase {phase}");
            heard += 1;
        } else {
            silent += 1;
        }
    }
    assert!(heard > 0 && silent > 0, "{heard} {silent}");
}

#[test]
fn with_higher_prio_send_advert_every_heal_is_announced() {
    for phase in 0..20 {
        let all = [150, 100].iter().enumerate();
        let all = all.map(|(n, p)| Settings {
            higher_prio_send_advert: true,
            ..settings(n, *p)
        });
        let mut lan = Lan::new(1, all.collect());
        lan.run(secs(20));
        lan.nodes[1].side = 1;
        lan.run(secs(20) + millis(phase * 50));
        lan.nodes[1].side = 0;
        let healed = lan.now;
        lan.run(millis(1001));
        assert!(
            lan.nodes[0].garps.iter().any(|(at, _)| *at >= healed),
            "phase {phase}"
        );
    }
}

#[test]
fn a_one_way_link_makes_no_war() {
    // Node 1 does not hear node 0, becomes master too, and is heard by node 0.
    let mut lan = lan(&[150, 100]);
    lan.run(secs(20));
    lan.deaf.insert((0, 1));
    let begin = lan.now;
    lan.run(secs(30));
    assert_eq!(lan.masters(0), [0, 1]);
    let sets: Vec<Instant> = lan.nodes[0].garps.iter().map(|(at, _)| *at).collect();
    let sets: Vec<Instant> = sets.into_iter().filter(|at| *at >= begin).collect();
    assert!(sets.len() >= 20, "{}", sets.len());
    for pair in sets.windows(2) {
        assert!(pair[1] - pair[0] >= millis(999), "{:?}", pair[1] - pair[0]);
    }
    let told = lan
        .log_of(0)
        .iter()
        .filter(|line| line.contains("forcing new election"))
        .count();
    assert!((1..=4).contains(&told), "{told} lines in 30 s");
}

#[test]
fn unicast_peers_elect_as_a_group_does() {
    let all = [100, 200, 150].iter().enumerate();
    let all = all.map(|(n, p)| unicast(settings(n, *p), n, 3)).collect();
    let mut lan = Lan::new(5, all);
    lan.run(secs(20));
    assert_eq!(lan.masters(0), [1]);
    lan.kill(1);
    lan.run(secs(5));
    assert_eq!(lan.masters(0), [2]);
}

/// Something that happens to the LAN.
#[derive(Clone, Debug)]
enum Fault {
    Kill(usize),
    Revive(usize),
    Stop(usize),
    Link(usize, LinkState),
    Side(usize, u8),
    Weight(usize, i32),
}

const NODES: usize = 4;

fn fault() -> impl Strategy<Value = Fault> {
    let node = 0..NODES;
    prop_oneof![
        2 => node.clone().prop_map(Fault::Kill),
        2 => node.clone().prop_map(Fault::Revive),
        1 => node.clone().prop_map(Fault::Stop),
        2 => (node.clone(), link()).prop_map(|(n, state)| Fault::Link(n, state)),
        4 => (node.clone(), 0..2_u8).prop_map(|(n, side)| Fault::Side(n, side)),
        2 => (node, -100..100_i32).prop_map(|(n, weight)| Fault::Weight(n, weight)),
    ]
}

fn link() -> impl Strategy<Value = LinkState> {
    prop_oneof![
        Just(LinkState::Up),
        Just(LinkState::Down),
        Just(LinkState::Missing),
        Just(LinkState::Renamed),
    ]
}

fn apply(lan: &mut Lan, fault: &Fault) {
    match *fault {
        Fault::Kill(n) => lan.kill(n),
        Fault::Revive(n) if !lan.nodes[n].alive => lan.revive(n),
        Fault::Revive(n) => lan.with(n, |router, id, now| router.start(id, now)),
        _ if fault_of_the_dead(lan, fault) => {}
        Fault::Stop(n) => lan.with(n, |router, _, now| router.handle_stop(now)),
        Fault::Link(n, state) => lan.with(n, |router, _, now| router.handle_link(now, ETH, state)),
        Fault::Side(n, side) => lan.nodes[n].side = side,
        Fault::Weight(n, weight) => lan.with(n, |router, id, _| router.set_weight(id, weight)),
    }
}

fn fault_of_the_dead(lan: &Lan, fault: &Fault) -> bool {
    match *fault {
        Fault::Stop(n) | Fault::Link(n, _) | Fault::Weight(n, _) => !lan.nodes[n].alive,
        _ => false,
    }
}

/// Who should be master of a side: the best of those who take part.
fn rightful(lan: &Lan, side: u8) -> Option<usize> {
    let takes_part = |n: &usize| {
        lan.nodes[*n].alive
            && lan.nodes[*n].side == side
            && matches!(lan.state(*n), State::Backup | State::Master)
    };
    let candidates = (0..NODES).filter(takes_part);
    candidates.max_by_key(|n| (lan.priority(*n), address(*n)))
}

fn one_holder_a_side(lan: &Lan, preempt: bool) -> Result<(), TestCaseError> {
    for side in 0..2 {
        let masters = lan.masters(side);
        let rightful = rightful(lan, side);
        prop_assert_eq!(
            masters.len(),
            usize::from(rightful.is_some()),
            "side {}",
            side
        );
        if preempt {
            // A priority that was raised to equality is no reason to preempt: of equals, any.
            let priority = |n: usize| lan.priority(n);
            let held = masters.first().copied().map(priority);
            prop_assert_eq!(held, rightful.map(priority), "side {}", side);
        }
    }
    for n in 0..NODES {
        let master = lan.nodes[n].alive && lan.state(n) == State::Master;
        prop_assert_eq!(lan.nodes[n].holds, master, "node {}", n);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After every fault, once things have settled, each side of a partition has exactly one
    /// master: one of the highest priority that takes part (with nopreempt, any).
    #[test]
    fn every_side_settles_on_one_master(
        seed: u64,
        priorities in proptest::collection::vec(1..=254_u8, NODES),
        preempt: bool,
        delay in 0..10_u64,
        faults in proptest::collection::vec((0..6_000_u64, fault()), 1..15),
    ) {
        let all = priorities.iter().enumerate();
        let all = all.map(|(n, p)| Settings { preempt, ..settings(n, *p) });
        let mut lan = Lan::new(seed, all.collect());
        lan.delay = millis(delay);
        for (pause, fault) in &faults {
            lan.run(millis(*pause));
            apply(&mut lan, fault);
        }
        // One down interval for a death, one more for the preemption of whoever came first.
        lan.run(SETTLE * 2);
        one_holder_a_side(&lan, preempt)?;
    }

    /// Under loss the best router, once master, never stops; and when the loss ends, others that
    /// took over in vain give way by the next advert.
    #[test]
    fn loss_makes_masters_but_never_none(
        seed: u64,
        loss in 1..60_u32,
        priorities in proptest::collection::vec(1..=254_u8, NODES),
    ) {
        let all = priorities.iter().enumerate().map(|(n, p)| settings(n, *p));
        let mut lan = Lan::new(seed, all.collect());
        lan.delay = millis(1);
        lan.run(SETTLE * 2);
        let best = rightful(&lan, 0).unwrap();
        lan.loss = loss;
        for _ in 0..200 {
            lan.run(millis(250));
            prop_assert!(lan.masters(0).contains(&best));
        }
        lan.loss = 0;
        lan.run(secs(2));
        one_holder_a_side(&lan, true)?;
    }
}
