//! Whole stories: results in, events and pools out.

use super::*;
use crate::{
    addr::{Endpoint, L4Proto},
    check::settings::{Probe, ProbeError, RealSettings, SorryServer, TcpProbe},
};

const VS: ServiceId = ServiceId(1);

impl Health {
    /// Checks these virtual servers from now on, and no others.
    fn apply(&mut self, now: Instant, settings: &[VirtualSettings]) {
        let gone: Vec<ServiceId> = self.groups.keys().copied().collect();
        for vs in gone {
            if settings.iter().all(|wanted| wanted.id != vs) {
                self.remove(vs);
            }
        }
        settings.iter().for_each(|wanted| self.set(now, wanted));
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn name(text: &str) -> ServiceName {
    let addr: std::net::SocketAddr = text.parse().unwrap();
    ServiceName {
        endpoint: Endpoint::new(addr.ip(), addr.port()),
        protocol: L4Proto::Tcp,
    }
}

fn checker(target: &str) -> CheckerSettings {
    CheckerSettings {
        probe: Probe::Tcp(TcpProbe {
            target: target.parse().unwrap(),
            bind: None,
            timeout: Duration::from_secs(5),
            mark: None,
        }),
        retry: 1,
        delay_before_retry: Duration::from_secs(1),
        delay_loop: Duration::from_secs(6),
        warmup: Some(Duration::ZERO),
        alpha: false,
        log_all_failures: false,
    }
}

fn real(id: u32, target: &str) -> RealSettings {
    RealSettings {
        id: RealId(id),
        endpoint: name(target).endpoint,
        weight: 1,
        inhibit: false,
        checkers: vec![checker(target)],
    }
}

fn virtual_server(reals: Vec<RealSettings>) -> VirtualSettings {
    VirtualSettings {
        id: VS,
        name: name("10.0.0.148:80"),
        quorum: 1,
        hysteresis: 0,
        sorry: Some(SorryServer {
            name: name("10.0.0.250:80"),
            inhibit: false,
        }),
        reals,
    }
}

/// Two real servers, A = .137 and B = .138.
fn pair() -> VirtualSettings {
    virtual_server(vec![real(0, "10.0.0.137:80"), real(1, "10.0.0.138:80")])
}

fn refused() -> ProbeResult {
    Err(ProbeError::Connect("connection refused".into()))
}

/// Starts what is due at `now`, answers it by `answer(last byte of the target)`, and returns the
/// texts of what happened.
fn turn(health: &mut Health, now: Instant, answer: impl Fn(u8) -> ProbeResult) -> Vec<String> {
    health.handle_timeout(now);
    while let Some(Action::Probe { checker, probe, .. }) = health.poll_action() {
        let Probe::Tcp(TcpProbe { target, .. }) = probe;
        let std::net::IpAddr::V4(addr) = target.ip() else {
            panic!("{target}")
        };
        health.handle_result(now, checker, answer(addr.octets()[3]));
    }
    texts(health)
}

/// Without those of checkers that start, which `checkers_that_start_are_told_of` is about.
fn texts(health: &mut Health) -> Vec<String> {
    std::iter::from_fn(|| health.poll_event())
        .filter(|event| !matches!(event, Event::Activated { .. }))
        .map(|event| event.to_string())
        .collect()
}

fn members(health: &Health) -> Vec<u32> {
    let pool = health.pool(VS).unwrap();
    pool.reals()
        .filter(|(id, _)| pool.in_pool(*id))
        .map(|(id, _)| id.0)
        .collect()
}

#[test]
fn checkers_that_start_are_told_of() {
    let mut health = Health::new(1);
    let mut activated = |settings: &VirtualSettings| {
        health.apply(at(0), std::slice::from_ref(settings));
        let events = std::iter::from_fn(|| health.poll_event());
        let activated = events.filter(|event| matches!(event, Event::Activated { .. }));
        let texts: Vec<String> = activated.map(|event| event.to_string()).collect();
        texts
    };
    let mut settings = pair();
    settings.reals.push(RealSettings {
        checkers: Vec::new(),
        ..real(2, "10.0.0.139:80")
    });
    let line = |last| {
        format!(
            "Activating healthchecker for service [10.0.0.{last}]:tcp:80 for VS [10.0.0.148]:tcp:80"
        )
    };
    assert_eq!(activated(&settings), [line(137), line(138)]);
    assert_eq!(activated(&settings), [""; 0], "nothing is new");
    settings.reals[1].checkers[0].retry = 3;
    assert_eq!(activated(&settings), [""; 0], "it asks the same");
    settings.reals[1].checkers = vec![checker("10.0.0.138:8080")];
    assert_eq!(activated(&settings), [line(138)]);
}

#[test]
fn a_real_server_that_dies_and_comes_back() {
    let mut health = Health::new(1);
    health.apply(at(0), &[pair()]);
    assert_eq!(
        texts(&mut health),
        ["Gained quorum 1+0=1 <= 2 for VS [10.0.0.148]:tcp:80"]
    );
    assert_eq!(members(&health), [0, 1]);
    assert_eq!(
        turn(&mut health, at(0), |_| Ok(())),
        [
            "TCP connection to [10.0.0.137]:tcp:80 success.",
            "TCP connection to [10.0.0.138]:tcp:80 success.",
        ]
    );
    let a_dead = |last| if last == 137 { refused() } else { Ok(()) };
    assert_eq!(health.poll_timeout(), Some(at(6_000)));
    assert!(turn(&mut health, at(6_000), a_dead).is_empty(), "one retry");
    let view = health.pool(VS).unwrap().real(RealId(0)).unwrap();
    assert!(view.up);
    assert_eq!(
        view.error.as_ref().unwrap().to_string(),
        "connection refused"
    );
    assert_eq!(health.poll_timeout(), Some(at(7_000)), "delay_before_retry");
    assert_eq!(
        turn(&mut health, at(7_000), a_dead),
        [
            "TCP connection to [10.0.0.137]:tcp:80 failed.",
            "TCP_CHECK on service [10.0.0.137]:tcp:80 failed after 1 retries.",
            "Removing service [10.0.0.137]:tcp:80 from VS [10.0.0.148]:tcp:80",
        ]
    );
    assert_eq!(members(&health), [1]);
    let view = health.pool(VS).unwrap().real(RealId(0)).unwrap();
    assert!(!view.up && view.since == at(7_000) && view.error.is_some());
    assert!(
        turn(&mut health, at(13_000), a_dead).is_empty(),
        "known to be down"
    );
    assert_eq!(
        turn(&mut health, at(19_000), |_| Ok(())),
        [
            "TCP connection to [10.0.0.137]:tcp:80 success.",
            "Adding service [10.0.0.137]:tcp:80 to VS [10.0.0.148]:tcp:80",
        ]
    );
    let view = health.pool(VS).unwrap().real(RealId(0)).unwrap();
    assert!(view.up && view.since == at(19_000) && view.error.is_none());
}

#[test]
fn the_first_check_of_all_dead_real_servers_brings_the_sorry_server_at_once() {
    let mut health = Health::new(1);
    health.apply(at(0), &[pair()]);
    texts(&mut health);
    let said = turn(&mut health, at(0), |_| Err(ProbeError::Timeout));
    assert_eq!(
        said[..3],
        [
            "TCP connection to [10.0.0.137]:tcp:80 timeout.",
            "TCP_CHECK on service [10.0.0.137]:tcp:80 failed.",
            "Removing service [10.0.0.137]:tcp:80 from VS [10.0.0.148]:tcp:80",
        ]
    );
    assert_eq!(said[6], "Lost quorum 1-0=1 > 0 for VS [10.0.0.148]:tcp:80");
    assert!(health.pool(VS).unwrap().sorry_active());
    assert!(members(&health).is_empty());
}

#[test]
fn alpha_waits_for_the_first_success() {
    let mut settings = pair();
    for real in &mut settings.reals {
        real.checkers[0].alpha = true;
    }
    let mut health = Health::new(1);
    health.apply(at(0), &[settings]);
    assert!(members(&health).is_empty());
    texts(&mut health);
    let said = turn(&mut health, at(0), |last| {
        if last == 137 { refused() } else { Ok(()) }
    });
    assert_eq!(said[1], "TCP_CHECK on service [10.0.0.137]:tcp:80 failed.");
    assert!(
        !said.iter().any(|text| text.starts_with("Removing service")),
        "it was never in: {said:?}"
    );
    assert_eq!(members(&health), [1]);
}

#[test]
fn log_all_failures_also_reports_those_that_are_retried() {
    let mut settings = pair();
    settings.reals.truncate(1);
    settings.reals[0].checkers[0].log_all_failures = true;
    settings.reals[0].checkers[0].retry = 2;
    let mut health = Health::new(1);
    health.apply(at(0), &[settings]);
    turn(&mut health, at(0), |_| Ok(()));
    for second in [6, 7] {
        assert_eq!(
            turn(&mut health, at(second * 1000), |_| refused()),
            ["TCP connection to [10.0.0.137]:tcp:80 failed."]
        );
    }
    assert!(turn(&mut health, at(8_000), |_| refused()).len() > 2);
    assert!(turn(&mut health, at(14_000), |_| refused()).is_empty());
}

#[test]
fn both_checkers_of_a_real_server_must_pass() {
    let mut one = real(0, "10.0.0.137:80");
    one.checkers.push(checker("10.0.0.99:443"));
    let mut health = Health::new(1);
    health.apply(at(0), &[virtual_server(vec![one])]);
    turn(&mut health, at(0), |_| Ok(()));
    let bad = |which| move |last| if last == which { refused() } else { Ok(()) };
    turn(&mut health, at(6_000), bad(99));
    turn(&mut health, at(7_000), bad(99));
    assert!(members(&health).is_empty());
    turn(&mut health, at(13_000), bad(137));
    turn(&mut health, at(14_000), bad(137));
    assert!(members(&health).is_empty(), "now the other one has failed");
    turn(&mut health, at(20_000), |_| Ok(()));
    assert_eq!(members(&health), [0]);
}

#[test]
fn a_real_server_without_checkers_is_always_up() {
    let mut one = real(0, "10.0.0.137:80");
    one.checkers.clear();
    let mut health = Health::new(1);
    health.apply(at(0), &[virtual_server(vec![one])]);
    assert_eq!(health.poll_timeout(), None);
    assert_eq!(members(&health), [0]);
}

#[test]
fn running_out_of_descriptors_fails_no_real_server_and_is_said_once() {
    let mut health = Health::new(1);
    let reals = (0..100).map(|n| real(n, &format!("10.0.1.{n}:80")));
    health.apply(at(0), &[virtual_server(reals.collect())]);
    texts(&mut health);
    let mut now = at(0);
    let mut attempts = 0;
    while now < at(30_000) {
        health.handle_timeout(now);
        while let Some(Action::Probe { checker, .. }) = health.poll_action() {
            attempts += 1;
            assert!(attempts < 1_000, "attempts without a pause at {now:?}");
            health.handle_deferral(now, checker, Deferral::Descriptors);
        }
        now = health.poll_timeout().unwrap();
    }
    assert!((290..=310).contains(&attempts), "{attempts} in 30 s");
    assert_eq!(
        texts(&mut health),
        ["Checks are delayed: no free descriptors"]
    );
    assert_eq!(members(&health).len(), 100);
    // There are descriptors again: all are checked, and after a while that is said.
    let said = turn(&mut health, now, |_| Ok(()));
    assert_eq!(said.len(), 100, "{said:?}");
    let over = at(30_000 + 9_000 + 2_000);
    let mut said = Vec::new();
    while let Some(next) = health.poll_timeout().filter(|next| *next < over) {
        said.extend(turn(&mut health, next, |_| Ok(())));
    }
    assert_eq!(
        said,
        [format!("Checks run again, {attempts} starts were delayed")]
    );
    assert_eq!(members(&health).len(), 100);
}

#[test]
fn a_missing_source_address_is_said_once_until_a_probe_could_start() {
    let mut settings = pair();
    settings.reals.truncate(1);
    let mut health = Health::new(1);
    health.apply(at(0), &[settings]);
    texts(&mut health);
    let mut defer = |now| {
        health.handle_timeout(now);
        let Some(Action::Probe { checker, .. }) = health.poll_action() else {
            panic!("nothing to start at {now:?}");
        };
        health.handle_deferral(now, checker, Deferral::Address);
    };
    for second in 0..5 {
        defer(at(second * 1000));
    }
    assert_eq!(
        texts(&mut health),
        ["Check of [10.0.0.137]:tcp:80 cannot start: no source address or port. Rescheduling."]
    );
    assert_eq!(members(&health), [0]);
    turn(&mut health, at(5_000), |_| Ok(()));
    health.handle_timeout(at(11_000));
    let Some(Action::Probe { checker, .. }) = health.poll_action() else {
        panic!("nothing to start");
    };
    health.handle_deferral(at(11_000), checker, Deferral::Address);
    assert_eq!(texts(&mut health).len(), 1);
}

#[test]
fn a_reload_keeps_failed_real_servers_failed_and_starts_only_what_is_new() {
    let mut health = Health::new(1);
    health.apply(at(0), &[pair()]);
    let a_dead = |last| if last == 137 { refused() } else { Ok(()) };
    turn(&mut health, at(0), a_dead);
    assert_eq!(members(&health), [1]);
    // Other timings, one more real server, and one more virtual server.
    let mut settings = pair();
    for real in &mut settings.reals {
        real.checkers[0].delay_loop = Duration::from_secs(3);
        let Probe::Tcp(probe) = &mut real.checkers[0].probe;
        probe.timeout = Duration::from_secs(1);
    }
    settings.reals.push(real(2, "10.0.0.139:80"));
    let second = VirtualSettings {
        id: ServiceId(2),
        ..virtual_server(vec![real(0, "10.0.0.137:80")])
    };
    health.apply(at(1_000), &[settings.clone(), second.clone()]);
    assert_eq!(
        texts(&mut health),
        ["Gained quorum 1+0=1 <= 1 for VS [10.0.0.148]:tcp:80"],
        "of the new one; the old one had it"
    );
    assert_eq!(members(&health), [1, 2], "0 is failed still");
    let reference = |real| Member { vs: VS, real };
    let run: Vec<bool> = [RealId(0), RealId(1), RealId(2)]
        .map(|real| health.checkers(reference(real)).next().unwrap().1.has_run())
        .into();
    assert_eq!(run, [true, true, false]);
    // Asking something else starts anew; what was down is down until that passes, and what was up is up.
    settings.reals[0].checkers = vec![checker("10.0.0.137:81")];
    settings.reals[1].checkers = vec![checker("10.0.0.138:81")];
    health.apply(at(1_500), &[settings.clone(), second.clone()]);
    assert!(texts(&mut health).is_empty());
    assert_eq!(members(&health), [1, 2]);
    // Another number: it is known by its endpoint.
    settings.reals[0].id = RealId(9);
    settings.reals[1].id = RealId(0);
    settings.reals.swap(0, 1);
    health.apply(at(1_600), &[settings.clone(), second]);
    assert!(texts(&mut health).is_empty());
    assert_eq!(members(&health), [0, 2]);
    let passed = turn(&mut health, at(3_000), |_| Ok(()));
    assert!(
        passed.contains(&"Adding service [10.0.0.137]:tcp:80 to VS [10.0.0.148]:tcp:80".to_owned()),
        "{passed:?}"
    );
    assert_eq!(members(&health), [0, 2, 9]);
    // Gone is gone, timers included.
    health.apply(at(2_000), &[]);
    assert!(health.pool(VS).is_none());
    assert_eq!(health.poll_timeout(), None);
}

#[test]
fn a_result_that_arrives_after_its_checker_was_removed_changes_nothing() {
    let mut health = Health::new(1);
    health.apply(at(0), &[pair()]);
    texts(&mut health);
    health.handle_timeout(at(0));
    let Some(Action::Probe { checker, .. }) = health.poll_action() else {
        panic!("nothing to start");
    };
    health.apply(at(1), &[]);
    health.apply(at(2), &[pair()]);
    texts(&mut health);
    assert_eq!(health.probing(), 1);
    health.handle_result(at(3), checker, refused());
    assert_eq!(health.probing(), 0);
    assert!(texts(&mut health).is_empty());
    assert_eq!(members(&health), [0, 1]);
}

#[test]
fn a_reload_keeps_every_one_of_10_000_checkers() {
    let reals = || (0..10_000).map(|n| real(n, &format!("10.1.{}.{}:80", n / 250, n % 250 + 1)));
    let settings = [virtual_server(reals().collect())];
    let mut health = Health::new(1);
    health.apply(at(0), &settings);
    turn(&mut health, at(0), |_| Ok(()));
    health.apply(at(1_000), &settings);
    assert!(texts(&mut health).is_empty());
    let kept = health.pool(VS).unwrap().reals().all(|(id, view)| {
        let mut checkers = health.checkers(Member { vs: VS, real: id });
        view.since == at(0) && checkers.next().unwrap().1.has_run()
    });
    assert!(kept);
    assert_eq!(health.poll_timeout(), Some(at(6_000)));
}
