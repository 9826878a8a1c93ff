//! Tables for each rule of the pool, and a model that has no incremental state to get wrong.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::addr::{Endpoint, L4Proto};

const VS: ServiceId = ServiceId(7);

fn name(last: u8) -> ServiceName {
    ServiceName {
        endpoint: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), 80),
        protocol: L4Proto::Tcp,
    }
}

fn virtual_server(weights: &[u32], quorum: u32, hysteresis: u32, sorry: bool) -> VirtualSettings {
    let reals = (0_u8..).zip(weights).map(|(n, weight)| RealSettings {
        id: RealId(n.into()),
        endpoint: name(n + 1).endpoint,
        weight: *weight,
        inhibit: false,
        checkers: Vec::new(),
    });
    VirtualSettings {
        id: VS,
        name: name(200),
        quorum,
        hysteresis,
        sorry: sorry.then(|| SorryServer {
            name: name(250),
            inhibit: false,
        }),
        reals: reals.collect(),
    }
}

fn texts(events: &mut VecDeque<Event>) -> Vec<String> {
    events.drain(..).map(|event| event.to_string()).collect()
}

/// The members with their weights: `0=1 2=3`, and `S` for the sorry server.
fn members(pool: &Pool) -> String {
    let mut list: Vec<String> = pool
        .reals()
        .filter(|(id, _)| pool.in_pool(*id))
        .map(|(id, _)| format!("{}={}", id.0, pool.weight(id)))
        .collect();
    if pool.sorry_in_pool() {
        list.push(if pool.sorry_active() { "S" } else { "S=0" }.to_owned());
    }
    list.join(" ")
}

struct Rig {
    pool: Pool,
    events: VecDeque<Event>,
    now: Instant,
}

impl Rig {
    fn new(settings: &VirtualSettings, failed: u32) -> Self {
        let mut events = VecDeque::new();
        let pool = Pool::new(Instant::ZERO, settings, |_| failed, &mut events);
        Self {
            pool,
            events,
            now: Instant::ZERO,
        }
    }

    fn turn(&mut self, real: u32, up: bool) -> Vec<String> {
        self.now = self.now + std::time::Duration::from_secs(1);
        self.pool
            .handle_checker(self.now, RealId(real), up, &mut self.events);
        texts(&mut self.events)
    }
}

#[test]
fn real_servers_are_in_the_pool_before_their_first_check() {
    let mut rig = Rig::new(&virtual_server(&[1, 2], 1, 0, true), 0);
    assert_eq!(
        texts(&mut rig.events),
        ["Gained quorum 1+0=1 <= 3 for VS [10.0.0.200]:tcp:80"]
    );
    assert_eq!(members(&rig.pool), "0=1 1=2");
}

#[test]
fn with_alpha_they_are_not_and_the_sorry_server_is() {
    let mut rig = Rig::new(&virtual_server(&[1, 2], 1, 0, true), 1);
    assert_eq!(
        texts(&mut rig.events),
        [
            "Starting with quorum down 1+0=1 > 0 for VS [10.0.0.200]:tcp:80",
            "Adding sorry server [10.0.0.250]:tcp:80 to VS [10.0.0.200]:tcp:80",
            "Removing alive servers from the pool for VS [10.0.0.200]:tcp:80",
        ]
    );
    assert_eq!(members(&rig.pool), "S");
    rig.turn(1, true);
    assert_eq!(members(&rig.pool), "1=2");
}

#[test]
fn the_last_failure_brings_the_sorry_server_and_the_first_success_sends_it_away() {
    let mut rig = Rig::new(&virtual_server(&[1, 2], 1, 0, true), 0);
    rig.events.clear();
    assert_eq!(
        rig.turn(0, false),
        ["Removing service [10.0.0.1]:tcp:80 from VS [10.0.0.200]:tcp:80"]
    );
    assert_eq!(members(&rig.pool), "1=2");
    assert_eq!(
        rig.turn(1, false),
        [
            "Removing service [10.0.0.2]:tcp:80 from VS [10.0.0.200]:tcp:80",
            "Lost quorum 1-0=1 > 0 for VS [10.0.0.200]:tcp:80",
            "Adding sorry server [10.0.0.250]:tcp:80 to VS [10.0.0.200]:tcp:80",
            "Removing alive servers from the pool for VS [10.0.0.200]:tcp:80",
        ]
    );
    assert_eq!(members(&rig.pool), "S");
    assert_eq!(
        rig.turn(0, true),
        [
            "Adding service [10.0.0.1]:tcp:80 to VS [10.0.0.200]:tcp:80",
            "Gained quorum 1+0=1 <= 1 for VS [10.0.0.200]:tcp:80",
            "Removing sorry server [10.0.0.250]:tcp:80 from VS [10.0.0.200]:tcp:80",
            "Adding alive servers to the pool for VS [10.0.0.200]:tcp:80",
        ]
    );
    assert_eq!(members(&rig.pool), "0=1");
}

#[test]
fn hysteresis_keeps_the_quorum_as_it_was_in_between() {
    // Gained at 3 + 1, lost below 3 - 1.
    let mut rig = Rig::new(&virtual_server(&[1; 5], 3, 1, true), 0);
    rig.events.clear();
    let mut steps = Vec::new();
    for (real, up) in [
        (0, false),
        (1, false),
        (2, false),
        (3, false), // 1 left: lost
        (3, true),
        (2, true),
        (1, true), // 4: gained
        (1, false),
        (2, false), // 2: kept
    ] {
        rig.turn(real, up);
        steps.push(rig.pool.quorum_up());
    }
    assert_eq!(
        steps,
        [true, true, true, false, false, false, true, true, true]
    );
    assert_eq!(members(&rig.pool), "3=1 4=1");
}

#[test]
fn working_real_servers_leave_with_the_quorum_only_if_somebody_takes_their_place() {
    for (sorry, left) in [(true, "S"), (false, "2=1")] {
        let mut rig = Rig::new(&virtual_server(&[1; 3], 2, 0, sorry), 0);
        rig.turn(0, false);
        rig.turn(1, false);
        assert!(!rig.pool.quorum_up());
        assert_eq!(members(&rig.pool), left);
    }
}

#[test]
fn inhibited_real_servers_stay_with_weight_0() {
    let mut settings = virtual_server(&[4, 4], 1, 0, true);
    settings.reals[0].inhibit = true;
    settings.sorry.as_mut().unwrap().inhibit = true;
    let mut rig = Rig::new(&settings, 0);
    assert_eq!(members(&rig.pool), "0=4 1=4 S=0");
    rig.events.clear();
    assert_eq!(
        rig.turn(0, false),
        ["Disabling service [10.0.0.1]:tcp:80 of VS [10.0.0.200]:tcp:80"]
    );
    assert_eq!(members(&rig.pool), "0=0 1=4 S=0");
    rig.turn(1, false);
    assert_eq!(members(&rig.pool), "0=0 S");
    assert_eq!(
        rig.turn(0, true)[0],
        "Enabling service [10.0.0.1]:tcp:80 of VS [10.0.0.200]:tcp:80"
    );
    assert_eq!(members(&rig.pool), "0=4 S=0");
}

#[test]
fn a_real_server_is_up_when_no_checker_of_it_has_failed() {
    let mut rig = Rig::new(&virtual_server(&[1, 1], 1, 0, false), 0);
    rig.events.clear();
    assert_eq!(rig.turn(0, false).len(), 1);
    let since = rig.pool.real(RealId(0)).unwrap().since;
    assert_eq!(rig.turn(0, false).len(), 0, "already down");
    assert_eq!(rig.turn(0, true).len(), 0, "the other has failed still");
    assert_eq!(rig.pool.real(RealId(0)).unwrap().since, since);
    assert_eq!(rig.turn(0, true).len(), 1);
    let view = rig.pool.real(RealId(0)).unwrap();
    assert!(view.up && view.since == rig.now);
}

#[test]
fn a_quorum_out_of_reach_is_lowered_and_never_below_1() {
    for (weights, quorum, hysteresis, expected) in [
        (&[1, 1][..], 5, 0, (2, 0)),
        (&[1, 1], 2, 2, (2, 1)),
        (&[3, 3], 4, 9, (4, 3)),
        (&[0, 0], 3, 2, (1, 0)),
        (&[], 1, 0, (1, 0)),
        (&[1], 0, 0, (1, 0)),
        (&[u32::MAX, u32::MAX], u32::MAX, 1, (u32::MAX, 1)),
    ] {
        let settings = virtual_server(weights, quorum, hysteresis, false);
        let rig = Rig::new(&settings, 0);
        assert_eq!((rig.pool.quorum, rig.pool.hysteresis), expected);
        let all_zero = weights.iter().all(|weight| *weight == 0);
        // Two of 2 with hysteresis 1 ask for 3: out of reach, as keepalived has it.
        let reachable = u64::from(expected.0 + expected.1.min(u32::MAX - expected.0))
            <= weights.iter().map(|w| u64::from(*w)).sum();
        assert_eq!(rig.pool.quorum_up(), !all_zero && reachable);
    }
}

#[test]
fn a_reload_keeps_what_is_known_and_says_what_changed() {
    let mut rig = Rig::new(&virtual_server(&[1, 2, 3], 1, 0, false), 0);
    rig.turn(1, false);
    rig.pool.note_probe(RealId(1), Some(ProbeError::Timeout));
    let down_since = rig.now;
    let later = rig.now + std::time::Duration::from_secs(9);
    // Real server 0 is gone, 2 has another weight, 3 is new, and the quorum is 4.
    let mut settings = virtual_server(&[1, 2, 5, 1], 7, 0, true);
    settings.reals.remove(0);
    let failed = |id| u32::from(id == RealId(1));
    rig.pool
        .reconfigure(later, &settings, failed, &mut rig.events);
    assert_eq!(
        texts(&mut rig.events),
        [
            "Changing weight from 3 to 5 for active service [10.0.0.3]:tcp:80 of VS \
             [10.0.0.200]:tcp:80",
            "Lost quorum 7-0=7 > 6 for VS [10.0.0.200]:tcp:80",
            "Adding sorry server [10.0.0.250]:tcp:80 to VS [10.0.0.200]:tcp:80",
            "Removing alive servers from the pool for VS [10.0.0.200]:tcp:80",
        ]
    );
    let kept = rig.pool.real(RealId(1)).unwrap();
    assert_eq!((kept.up, kept.since), (false, down_since));
    assert_eq!(kept.error, Some(ProbeError::Timeout));
    assert_eq!(rig.pool.real(RealId(3)).unwrap().since, later);
    // The sorry server is taken out of the configuration: the working ones are back.
    settings.sorry = None;
    rig.pool
        .reconfigure(later, &settings, failed, &mut rig.events);
    assert_eq!(members(&rig.pool), "2=5 3=1");
}

/// The rules once more, from the whole history, with nothing carried along but the quorum.
struct Model {
    weights: Vec<u32>,
    inhibit: Vec<bool>,
    failed: Vec<i64>,
    quorum: i64,
    hysteresis: i64,
    sorry: bool,
    met: bool,
}

impl Model {
    fn settle(&mut self) {
        let total: i64 = self
            .weights
            .iter()
            .zip(&self.failed)
            .filter(|(_, failed)| **failed == 0)
            .map(|(weight, _)| i64::from(*weight))
            .sum();
        if total >= self.quorum + self.hysteresis {
            self.met = true;
        }
        if total == 0 || total < self.quorum - self.hysteresis {
            self.met = false;
        }
    }

    fn members(&self) -> String {
        let mut list = Vec::new();
        let stand_in = self.sorry && !self.met;
        for n in 0..self.weights.len() {
            let serves = self.failed[n] == 0 && !stand_in;
            if serves {
                list.push(format!("{n}={}", self.weights[n]));
            } else if self.inhibit[n] {
                list.push(format!("{n}=0"));
            }
        }
        if stand_in {
            list.push("S".to_owned());
        }
        list.join(" ")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pool_agrees_with_the_model(
        reals in prop::collection::vec((0_u32..6, any::<bool>()), 1..6),
        quorum in 1_u32..12,
        hysteresis in 0_u32..6,
        sorry in any::<bool>(),
        alpha in any::<bool>(),
        steps in prop::collection::vec((0_usize..6, any::<bool>()), 0..60),
    ) {
        let weights: Vec<u32> = reals.iter().map(|(weight, _)| *weight).collect();
        let mut settings = virtual_server(&weights, quorum, hysteresis, sorry);
        for (real, (_, inhibit)) in settings.reals.iter_mut().zip(&reals) {
            real.inhibit = *inhibit;
        }
        let mut rig = Rig::new(&settings, u32::from(alpha));
        rig.events.clear();
        let total: u32 = weights.iter().sum();
        let quorum = i64::from(quorum.min(total)).max(1);
        let mut model = Model {
            weights,
            inhibit: reals.iter().map(|(_, inhibit)| *inhibit).collect(),
            failed: vec![i64::from(alpha); reals.len()],
            quorum,
            hysteresis: i64::from(hysteresis).min(quorum - 1),
            sorry,
            met: false,
        };
        model.settle();
        prop_assert_eq!(members(&rig.pool), model.members());
        for (real, up) in steps {
            let real = real % reals.len();
            let failed = model.failed[real] + if up { -1 } else { 1 };
            if !(0..=2).contains(&failed) {
                continue; // two checkers each: a change that cannot happen
            }
            model.failed[real] = failed;
            let before = model.met;
            model.settle();
            let said = rig.turn(u32::try_from(real).unwrap(), up);
            prop_assert_eq!(members(&rig.pool), model.members());
            prop_assert_eq!(rig.pool.quorum_up(), model.met);
            let lost = said.iter().any(|text| text.starts_with("Lost quorum"));
            let gained = said.iter().any(|text| text.starts_with("Gained quorum"));
            prop_assert_eq!((lost, gained), (before && !model.met, !before && model.met));
        }
    }
}
