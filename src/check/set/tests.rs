//! Timers and concurrency in virtual time, with a network that answers when the test says.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    check::settings::{ProbeError, TcpProbe},
    lvs::{RealId, ServiceId},
};

const OWNER: Member = Member {
    vs: ServiceId(0),
    real: RealId(0),
};

fn settings(delay_loop: Duration) -> CheckerSettings {
    CheckerSettings {
        probe: Probe::Tcp(TcpProbe {
            target: "192.0.2.1:80".parse().unwrap(),
            bind: None,
            timeout: Duration::from_secs(5),
            mark: None,
        }),
        retry: 1,
        delay_before_retry: Duration::from_secs(1),
        delay_loop,
        warmup: None,
        alpha: false,
        log_all_failures: false,
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn started(set: &mut CheckSet) -> Option<CheckerId> {
    set.poll_action()
        .map(|Action::Probe { checker, .. }| checker)
}

/// What a simulated run saw.
#[derive(Default)]
struct Seen {
    /// When each checker's probes started, and when they ended.
    starts: BTreeMap<CheckerId, Vec<(Instant, Instant)>>,
    most_at_once: usize,
    latest: Duration,
    most_in_a_second: usize,
}

/// Drives `set` until `end`; the probe of checker n takes `takes(n)` and gives `result(n)`.
fn run(
    set: &mut CheckSet,
    end: Instant,
    takes: impl Fn(u32) -> Duration,
    result: impl Fn(u32) -> ProbeResult,
) -> Seen {
    let mut seen = Seen::default();
    let mut answers: BTreeSet<(Instant, CheckerId)> = BTreeSet::new();
    let mut per_second: BTreeMap<u64, usize> = BTreeMap::new();
    let mut now = Instant::ZERO;
    loop {
        while let Some(&(_, id)) = answers.first().filter(|(when, _)| *when <= now) {
            let first = answers.pop_first().unwrap();
            set.handle_result(first.0, id, &result(id.0)).unwrap();
        }
        set.handle_timeout(now);
        while let Some(Action::Probe { checker, due, .. }) = set.poll_action() {
            let ends = now + takes(checker.0);
            assert!(answers.insert((ends, checker)), "{checker:?} started twice");
            seen.starts.entry(checker).or_default().push((now, ends));
            seen.latest = seen.latest.max(now - due);
            *per_second
                .entry(now.as_nanos() / 1_000_000_000)
                .or_default() += 1;
        }
        assert_eq!(set.probing(), answers.len());
        seen.most_at_once = seen.most_at_once.max(answers.len());
        let next = [set.poll_timeout(), answers.first().map(|(when, _)| *when)];
        match next.into_iter().flatten().min() {
            Some(next) if next <= end => {
                assert!(next > now, "the loop would spin at {now:?}");
                now = next;
            }
            _ => break,
        }
    }
    seen.most_in_a_second = per_second.split_off(&1).into_values().max().unwrap_or(0);
    seen
}

#[test]
fn thousands_of_checkers_are_each_on_time_and_spread() {
    let period = Duration::from_secs(6);
    for count in [1_000_u32, 10_000] {
        let mut set = CheckSet::new(u64::from(count));
        for _ in 0..count {
            set.insert(Instant::ZERO, OWNER, settings(period), false);
        }
        let takes = |n: u32| Duration::from_micros(200 + u64::from(n % 100) * 50);
        let seen = run(&mut set, at(60_000), takes, |_| Ok(()));
        assert_eq!(seen.starts.len(), count as usize, "some were never checked");
        assert_eq!(
            seen.latest,
            Duration::ZERO,
            "a probe waited with room to spare"
        );
        for probes in seen.starts.values() {
            let (first, _) = probes[0];
            assert!(first <= at(1_000), "first probe only after {first:?}");
            assert!(probes[1].0 - probes[0].1 <= period);
            for pair in probes[1..].windows(2) {
                assert_eq!(pair[1].0 - pair[0].1, period, "from the end of a cycle");
            }
            let (last, _) = *probes.last().unwrap();
            assert!(at(60_000) - last <= period + Duration::from_millis(10));
        }
        // An even spread would be count / 6 in each second after the first.
        let even = count as usize / 6;
        assert!(
            seen.most_in_a_second < even * 13 / 10 + 50,
            "{} of {count} in one second",
            seen.most_in_a_second
        );
    }
}

#[test]
fn silent_real_servers_do_not_use_more_than_the_allowed_probes() {
    let mut set = CheckSet::new(3);
    for _ in 0..10_000 {
        set.insert(
            Instant::ZERO,
            OWNER,
            settings(Duration::from_secs(60)),
            false,
        );
    }
    let seen = run(
        &mut set,
        at(120_000),
        |_| Duration::from_secs(5),
        |_| Err(ProbeError::Timeout),
    );
    assert_eq!(seen.most_at_once, MAX_PROBES);
    assert_eq!(seen.starts.len(), 10_000);
    // Three rounds of 5 s are needed for the first checks of all.
    let first = seen
        .starts
        .values()
        .map(|probes| probes[0].0)
        .max()
        .unwrap();
    assert!(
        first <= at(11_001),
        "the last first check started at {first:?}"
    );
    assert!(seen.starts.values().all(|probes| probes.len() >= 2));
}

#[test]
fn those_that_waited_longest_go_first() {
    let mut set = CheckSet::new(9);
    let ids: Vec<_> = (0..MAX_PROBES + 2)
        .map(|_| {
            set.insert(
                Instant::ZERO,
                OWNER,
                settings(Duration::from_secs(6)),
                false,
            )
        })
        .collect();
    set.handle_timeout(at(1_000));
    let mut going: Vec<_> = std::iter::from_fn(|| started(&mut set)).collect();
    assert_eq!(going.len(), MAX_PROBES);
    let waiting: Vec<_> = set.ready.iter().map(|(_, id)| *id).collect();
    assert_eq!(waiting.len(), 2);
    assert!(
        set.poll_timeout().is_none(),
        "nothing to do before a result"
    );
    let done = going.pop().unwrap();
    set.handle_result(at(1_001), done, &Ok(())).unwrap();
    assert_eq!(
        set.poll_timeout(),
        Some(set.ready[0].0),
        "there is room now"
    );
    assert_eq!(started(&mut set), Some(waiting[0]));
    assert_eq!(started(&mut set), None);
    assert_eq!(ids.len(), set.len());
}

#[test]
fn a_turn_may_end_early_and_goes_on_at_once() {
    let mut set = CheckSet::new(9);
    for _ in 0..3 {
        set.insert(
            Instant::ZERO,
            OWNER,
            settings(Duration::from_secs(6)),
            false,
        );
    }
    set.handle_timeout(at(1_000));
    assert!(started(&mut set).is_some());
    assert!(set.poll_timeout().unwrap() <= at(1_000));
    assert!(started(&mut set).is_some() && started(&mut set).is_some());
    assert_eq!(set.poll_timeout(), None);
}

#[test]
fn without_descriptors_nothing_starts_for_a_moment_and_the_same_check_is_next() {
    let mut set = CheckSet::new(5);
    for _ in 0..4 {
        set.insert(
            Instant::ZERO,
            OWNER,
            settings(Duration::from_secs(6)),
            false,
        );
    }
    set.handle_timeout(at(1_000));
    let first = started(&mut set).unwrap();
    let up = set.get(first).unwrap().is_up();
    assert_eq!(
        set.handle_deferral(at(1_000), first, Deferral::Descriptors),
        Some(OWNER)
    );
    assert_eq!(set.get(first).unwrap().is_up(), up);
    assert!(!set.get(first).unwrap().has_run(), "it counted as a result");
    assert_eq!(set.probing(), 0);
    assert_eq!(started(&mut set), None, "one failed attempt is enough");
    let again = at(1_000) + DESCRIPTOR_PAUSE;
    assert_eq!(set.poll_timeout(), Some(again));
    set.handle_timeout(at(1_050));
    assert_eq!(started(&mut set), None);
    set.handle_timeout(again);
    assert_eq!(started(&mut set), Some(first));
    assert_eq!(std::iter::from_fn(|| started(&mut set)).count(), 3);
}

#[test]
fn a_source_address_that_is_missing_delays_only_its_own_check() {
    let mut set = CheckSet::new(5);
    for _ in 0..2 {
        set.insert(
            Instant::ZERO,
            OWNER,
            settings(Duration::from_secs(6)),
            false,
        );
    }
    set.handle_timeout(at(1_000));
    let first = started(&mut set).unwrap();
    set.handle_deferral(at(1_000), first, Deferral::Address);
    let second = started(&mut set).unwrap();
    assert_ne!(first, second);
    set.handle_timeout(at(1_999));
    assert_eq!(started(&mut set), None);
    assert_eq!(set.poll_timeout(), Some(at(2_000)));
    set.handle_timeout(at(2_000));
    assert_eq!(started(&mut set), Some(first));
}

#[test]
fn a_removed_checker_leaves_neither_timer_nor_result_behind() {
    let mut set = CheckSet::new(5);
    let [probed, ready, timed] = [0; 3].map(|_| {
        set.insert(
            Instant::ZERO,
            OWNER,
            settings(Duration::from_secs(6)),
            false,
        )
    });
    // Bring each into its place: the one under way first.
    let mut order: Vec<_> = set.timers.iter().copied().collect();
    order.sort_unstable();
    let (last, in_timer) = order[2];
    assert!(last > order[1].0);
    set.handle_timeout(order[1].0);
    let under_way = started(&mut set).unwrap();
    for id in [probed, ready, timed] {
        set.remove(id);
    }
    assert!(set.is_empty());
    assert_eq!(started(&mut set), None);
    assert_eq!(set.poll_timeout(), None);
    assert_eq!(set.probing(), 1, "its descriptor is still in use");
    assert_eq!(set.handle_result(at(2_000), under_way, &Ok(())), None);
    assert_eq!(set.probing(), 0);
    assert_eq!(set.handle_result(at(2_000), in_timer, &Ok(())), None);
}

#[test]
fn results_that_nobody_waits_for_are_ignored() {
    let mut set = CheckSet::new(5);
    let id = set.insert(
        Instant::ZERO,
        OWNER,
        settings(Duration::from_secs(6)),
        false,
    );
    let failed = Err(ProbeError::Timeout);
    assert_eq!(set.handle_result(at(1), id, &failed), None);
    assert!(set.get(id).unwrap().is_up());
    set.handle_timeout(at(1_000));
    assert_eq!(started(&mut set), Some(id));
    assert!(set.handle_result(at(1_000), id, &failed).is_some());
    assert_eq!(set.handle_result(at(1_001), id, &Ok(())), None);
    assert!(!set.get(id).unwrap().is_up());
}

#[test]
fn a_shorter_period_applies_to_the_wait_that_is_running() {
    let mut set = CheckSet::new(5);
    let id = set.insert(
        Instant::ZERO,
        OWNER,
        CheckerSettings {
            warmup: Some(Duration::ZERO),
            ..settings(Duration::from_secs(60))
        },
        false,
    );
    set.handle_timeout(Instant::ZERO);
    assert_eq!(started(&mut set), Some(id));
    set.handle_result(Instant::ZERO, id, &Ok(())).unwrap();
    assert_eq!(set.poll_timeout(), Some(at(60_000)));
    set.reconfigure(at(10_000), id, OWNER, settings(Duration::from_secs(6)));
    assert_eq!(set.poll_timeout(), Some(at(16_000)));
    set.reconfigure(at(10_000), id, OWNER, settings(Duration::from_secs(90)));
    assert_eq!(
        set.poll_timeout(),
        Some(at(16_000)),
        "a longer one from the next on"
    );
}
