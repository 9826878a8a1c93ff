//! The state machine in virtual time: the assertions are the RFC's arithmetic.

mod captures;
mod election;
mod garp;
mod interfaces;
mod received;

use std::{net::Ipv4Addr, time::Duration};

use super::{
    sim::{ETH, Lan, VRID, address, settings},
    *,
};
use crate::{
    time::Instant,
    wire::vrrp::{AdvertRepr, AdvertView, Datagram, Envelope, GROUP},
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(since_start: Duration) -> Instant {
    Instant::ZERO + since_start
}

/// An advert of node `from` for the simulated instance.
fn advert(from: usize, priority: u8) -> Vec<u8> {
    let template = settings(from, priority);
    let repr = AdvertRepr {
        vrid: VRID,
        priority,
        interval: 1,
        password: None,
        addresses: &template.addresses,
    };
    repr.emit(&Envelope {
        source: address(from),
        destination: GROUP,
        ttl: 255,
        id: 1,
    })
}

/// One router at address 0 with one instance.
struct Bench {
    router: Router,
    id: InstanceId,
    now: Instant,
}

impl Bench {
    /// Started at the epoch.
    fn new(settings: Settings) -> Self {
        let now = Instant::ZERO;
        let mut router = Router::new();
        let id = router.add(settings, now).unwrap();
        router.start(id, now);
        Self { router, id, now }
    }

    /// MASTER, with the actions of getting there drained.
    fn master(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.fire();
        bench.actions();
        assert_eq!(bench.state(), State::Master);
        bench
    }

    fn with_priority(priority: u8) -> Self {
        Self::new(settings(0, priority))
    }

    fn hear(&mut self, from: usize, priority: u8) -> Reception {
        self.router
            .handle_packet(self.now, ETH, &advert(from, priority))
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Goes to the next timeout and handles it.
    fn fire(&mut self) {
        self.now = self.router.poll_timeout().unwrap();
        self.router.handle_timeout(self.now);
    }

    fn until_timeout(&self) -> Duration {
        self.router.poll_timeout().unwrap() - self.now
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.router.poll_action())
            .map(|(_, action)| action)
            .collect()
    }

    fn lines(&mut self) -> Vec<String> {
        lines(&self.actions())
    }

    fn status(&self) -> Status<'_> {
        self.router.status(self.id).unwrap()
    }

    fn state(&self) -> State {
        self.status().state
    }
}

fn lines(actions: &[Action]) -> Vec<String> {
    let lines = actions.iter().filter_map(|action| match action {
        Action::Log(line) => Some(line.to_string()),
        _ => None,
    });
    lines.collect()
}

/// The priorities of the adverts among `actions`.
fn sent_priorities(actions: &[Action]) -> Vec<u8> {
    let packets = actions.iter().filter_map(|action| match action {
        Action::Send { packet, .. } => Some(packet),
        _ => None,
    });
    packets
        .map(|packet| {
            let datagram = Datagram::parse(packet).unwrap();
            AdvertView::parse(datagram.payload).unwrap().priority
        })
        .collect()
}

/// The actions by kind, logs left out.
fn kinds(actions: &[Action]) -> Vec<String> {
    let kinds = actions.iter().filter_map(|action| match action {
        Action::Send { .. } => Some("advert".to_owned()),
        Action::AddAddresses => Some("add".to_owned()),
        Action::RemoveAddresses => Some("remove".to_owned()),
        Action::GratuitousArp { rounds, .. } => Some(format!("garp {rounds}")),
        Action::Entered { from, to } => Some(format!("{from} -> {to}")),
        Action::Log(_) => None,
    });
    kinds.collect()
}

#[test]
fn a_backup_waits_three_intervals_and_skew_then_acts_in_keepaliveds_order() {
    let mut bench = Bench::with_priority(100);
    let start = bench.actions();
    assert_eq!(kinds(&start), ["remove", "INIT -> BACKUP"]);
    assert_eq!(
        lines(&start),
        [
            "(VI_1) removing VIPs.",
            "(VI_1) Entering BACKUP STATE (init)"
        ]
    );
    // 3 s + 156/256 s.
    assert_eq!(bench.until_timeout(), Duration::from_nanos(3_609_375_000));

    bench
        .router
        .handle_timeout(at(Duration::from_nanos(3_609_374_999)));
    assert_eq!(bench.state(), State::Backup, "a nanosecond early");
    bench.fire();
    let taken = bench.actions();
    assert_eq!(
        kinds(&taken),
        ["advert", "add", "garp 5", "BACKUP -> MASTER"]
    );
    assert_eq!(
        lines(&taken),
        [
            "(VI_1) Receive advertisement timeout",
            "(VI_1) Entering MASTER STATE",
            "(VI_1) setting VIPs.",
        ]
    );
    assert_eq!(bench.status().master, Some(address(0)));
    assert_eq!(bench.status().since, bench.now);
}

#[test]
fn skew_follows_the_priority_and_nothing_else() {
    for (priority, nanos) in [
        (1, 3_996_093_750),
        (150, 3_414_062_500),
        (200, 3_218_750_000),
        (254, 3_007_812_500),
    ] {
        let bench = Bench::with_priority(priority);
        assert_eq!(
            bench.until_timeout(),
            Duration::from_nanos(nanos),
            "{priority}"
        );
    }
    // Version 2 scales the intervals, not the skew.
    let mut slow = settings(0, 100);
    slow.advert_interval = secs(5);
    slow.down_timer_adverts = 4;
    let bench = Bench::new(slow);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(20_609_375_000));
}

#[test]
fn the_address_owner_is_master_at_once() {
    let mut bench = Bench::with_priority(255);
    assert_eq!(bench.until_timeout(), Duration::ZERO);
    bench.fire();
    assert_eq!(bench.state(), State::Master);
    assert_eq!(bench.now, Instant::ZERO);
}

#[test]
fn any_accepted_advert_restarts_the_full_timer() {
    let mut bench = Bench::with_priority(100);
    bench.wait(millis(2500));
    bench.hear(1, 200);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(3_609_375_000));
    assert_eq!(bench.status().master, Some(address(1)));
    bench.wait(millis(1500));
    bench.hear(2, 100);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(3_609_375_000));
    assert_eq!(
        bench.status().master,
        Some(address(2)),
        "equal priority is no reason to preempt"
    );
}

#[test]
fn priority_zero_shortens_the_wait_to_the_skew() {
    let mut bench = Bench::with_priority(100);
    bench.hear(1, 200);
    bench.wait(millis(100));
    bench.actions();
    bench.hear(1, 0);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(609_375_000));
    assert_eq!(
        bench.lines(),
        ["(VI_1) Backup received priority 0 advertisement"]
    );
    bench.fire();
    assert_eq!(bench.state(), State::Master);
    let counters = bench.status().counters;
    assert_eq!(
        (counters.priority_zero_received, counters.became_master),
        (1, 1)
    );
}

#[test]
fn a_preempting_backup_waits_out_the_timer() {
    let mut bench = Bench::with_priority(150);
    bench.hear(1, 200);
    bench.wait(secs(1));
    bench.actions();
    bench.hear(1, 100);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(2_414_062_500));
    assert_eq!(
        bench.lines(),
        ["(VI_1) received lower priority (100) advert from 192.0.2.2 - discarding"]
    );
    assert_eq!(bench.status().master, Some(address(1)));
}

#[test]
fn nopreempt_lets_a_lower_master_be() {
    let mut quiet = settings(0, 150);
    quiet.preempt = false;
    let mut bench = Bench::new(quiet);
    for _ in 0..20 {
        bench.wait(secs(1));
        bench.router.handle_timeout(bench.now);
        bench.hear(1, 100);
    }
    assert_eq!(bench.state(), State::Backup);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(3_414_062_500));
    bench.fire();
    assert_eq!(bench.state(), State::Master, "silence is still death");
}

#[test]
fn preempt_delay_starts_with_the_first_lower_advert_and_a_better_one_cancels_it() {
    let mut patient = settings(0, 150);
    patient.preempt_delay = secs(10);
    let mut bench = Bench::new(patient);
    let full = Duration::from_nanos(3_414_062_500);
    bench.actions();
    for second in 0..10 {
        bench.hear(1, 100);
        assert_eq!(bench.until_timeout(), full, "second {second}");
        bench.wait(secs(1));
    }
    assert_eq!(bench.lines(), ["(VI_1) start preempt delay (10.000000)"]);
    bench.hear(2, 200);
    assert_eq!(bench.lines(), ["(VI_1) stop preempt delay"]);
    for _ in 0..10 {
        bench.hear(1, 100);
        assert_eq!(bench.until_timeout(), full);
        bench.wait(secs(1));
    }
    bench.actions();
    bench.hear(1, 100);
    assert_eq!(
        bench.until_timeout(),
        full - secs(1),
        "the delay is over, the timer runs on"
    );
    assert_eq!(
        bench.lines(),
        ["(VI_1) received lower priority (100) advert from 192.0.2.2 - discarding"]
    );
}

#[test]
fn each_stay_in_backup_has_a_preempt_delay_of_its_own() {
    let mut patient = settings(0, 150);
    patient.preempt_delay = secs(10);
    let full = Duration::from_nanos(3_414_062_500);
    let leave_and_return: [fn(&mut Bench); 2] = [
        |bench| {
            bench.fire();
            assert_eq!(bench.state(), State::Master);
            bench.hear(2, 200);
        },
        |bench| {
            bench.router.handle_link(bench.now, ETH, LinkState::Down);
            bench.router.handle_link(bench.now, ETH, LinkState::Up);
        },
    ];
    for away in leave_and_return {
        let mut bench = Bench::new(patient.clone());
        bench.hear(1, 100);
        away(&mut bench);
        assert_eq!(bench.state(), State::Backup);
        bench.wait(secs(11));
        bench.hear(1, 100);
        assert_eq!(
            bench.until_timeout(),
            full,
            "the lower MASTER is new to this stay"
        );
    }
}

#[test]
fn adverts_leave_on_a_grid_however_late_the_caller_is() {
    let mut bench = Bench::master(settings(0, 150));
    let origin = bench.now;
    for second in 1..=20 {
        bench.now = origin + secs(second) + millis(37);
        bench.router.handle_timeout(bench.now);
        assert_eq!(sent_priorities(&bench.actions()), [150]);
        assert_eq!(bench.router.poll_timeout().unwrap(), {
            // The second set of gratuitous ARP is due at 5 s, between two adverts.
            let advert = origin + secs(second + 1);
            if second < 5 {
                advert.min(origin + secs(5))
            } else {
                advert
            }
        });
    }
}

#[test]
fn late_by_several_intervals_one_advert_is_sent() {
    let mut bench = Bench::master(settings(0, 150));
    let origin = bench.now;
    bench.wait(millis(4700));
    bench.router.handle_timeout(bench.now);
    let actions = bench.actions();
    assert_eq!(sent_priorities(&actions), [150]);
    assert_eq!(lines(&actions), ["(VI_1) advert sent 3.700 seconds late"]);
    assert_eq!(bench.router.poll_timeout(), Some(origin + secs(5)));
    bench.router.handle_timeout(bench.now);
    assert!(
        bench.actions().is_empty(),
        "a second call has nothing to do"
    );
    assert_eq!(bench.status().counters.late_adverts, 1);
}

#[test]
fn a_master_gives_way_to_a_higher_priority() {
    let mut bench = Bench::master(settings(0, 150));
    bench.hear(1, 200);
    let actions = bench.actions();
    assert_eq!(kinds(&actions), ["remove", "MASTER -> BACKUP"]);
    assert_eq!(
        lines(&actions),
        [
            "(VI_1) Master received advert from 192.0.2.2 with higher priority 200, ours 150",
            "(VI_1) Entering BACKUP STATE",
            "(VI_1) removing VIPs.",
        ]
    );
    assert_eq!(bench.until_timeout(), Duration::from_nanos(3_414_062_500));
    assert_eq!(bench.status().master, Some(address(1)));
    assert_eq!(bench.status().counters.released_master, 1);
}

#[test]
fn higher_prio_send_advert_sends_one_last_advert() {
    let mut polite = settings(0, 150);
    polite.higher_prio_send_advert = true;
    let mut bench = Bench::master(polite);
    bench.hear(1, 200);
    assert_eq!(
        kinds(&bench.actions()),
        ["advert", "remove", "MASTER -> BACKUP"]
    );
}

#[test]
fn equal_priorities_are_decided_by_address() {
    let mut low = Bench::master(settings(0, 150));
    low.hear(1, 150);
    assert_eq!(low.state(), State::Backup);
    assert_eq!(
        low.lines()[0],
        "(VI_1) Master received advert from 192.0.2.2 with same priority 150 \
         but higher IP address than ours"
    );
    let mut high = Bench::master(settings(2, 150));
    high.hear(1, 150);
    assert_eq!(high.state(), State::Master);
    assert_eq!(sent_priorities(&high.actions()), [150]);
}

#[test]
fn addresses_compare_as_numbers() {
    let mut bench = settings(0, 150);
    bench.primary = Some(Ipv4Addr::new(200, 0, 0, 1));
    let mut bench = Bench::master(bench);
    bench.hear(0, 150);
    assert_eq!(bench.state(), State::Master, "192.0.2.1 is below 200.0.0.1");
}

#[test]
fn of_two_owners_the_higher_address_stays() {
    let mut bench = Bench::master(settings(0, 255));
    bench.hear(1, 255);
    assert_eq!(bench.state(), State::Backup);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(3_003_906_250));
    assert!(bench.lines()[0].starts_with("(VI_1) CONFIGURATION ERROR: 192.0.2.2"));
    let mut other = Bench::master(settings(1, 255));
    other.hear(0, 255);
    assert_eq!(other.state(), State::Master);
}

#[test]
fn a_stop_says_goodbye_before_it_removes_addresses() {
    let mut bench = Bench::master(settings(0, 150));
    let second = Settings {
        vrid: 52,
        ..settings(0, 120)
    };
    let other = bench.router.add(second, bench.now).unwrap();
    bench.router.start(other, bench.now);
    while bench.router.status(other).unwrap().state != State::Master {
        bench.fire();
    }
    bench.actions();
    bench.router.handle_stop(bench.now);
    let actions = bench.actions();
    assert_eq!(
        kinds(&actions),
        [
            "advert",
            "advert",
            "remove",
            "MASTER -> INIT",
            "remove",
            "MASTER -> INIT"
        ]
    );
    assert_eq!(sent_priorities(&actions), [0, 0]);
    assert_eq!(lines(&actions)[0], "(VI_1) sent 0 priority");
    assert_eq!(bench.router.poll_timeout(), None);
    assert_eq!(
        bench.hear(1, 100),
        Reception::Rejected(RejectReason::NotRunning)
    );
    bench.router.handle_stop(bench.now);
    assert!(bench.actions().is_empty(), "stopping twice is harmless");
}

#[test]
fn a_stopped_backup_is_silent() {
    let mut bench = Bench::with_priority(150);
    bench.actions();
    bench.router.handle_stop(bench.now);
    assert_eq!(kinds(&bench.actions()), ["BACKUP -> INIT"]);
}

#[test]
fn a_dead_link_is_a_fault_and_recovery_begins_anew() {
    let mut bench = Bench::master(settings(0, 150));
    bench
        .router
        .handle_link(bench.now, ETH + 1, LinkState::Down);
    assert_eq!(bench.state(), State::Master, "another interface");
    bench.router.handle_link(bench.now, ETH, LinkState::Down);
    let actions = bench.actions();
    assert_eq!(
        kinds(&actions),
        ["remove", "MASTER -> FAULT"],
        "a dead link carries no goodbye"
    );
    assert_eq!(
        lines(&actions),
        [
            "(VI_1) Entering FAULT STATE (eth0 is down)",
            "(VI_1) removing VIPs."
        ]
    );
    assert_eq!(
        bench.status().fault,
        Some(FaultReason::LinkDown("eth0".into()))
    );
    assert_eq!(bench.status().counters.priority_zero_sent, 0);
    assert_eq!(bench.router.poll_timeout(), None);
    assert_eq!(
        bench.hear(1, 100),
        Reception::Rejected(RejectReason::NotRunning)
    );

    bench.wait(secs(60));
    bench.router.handle_link(bench.now, ETH, LinkState::Up);
    let actions = bench.actions();
    assert_eq!(kinds(&actions), ["FAULT -> BACKUP"]);
    assert_eq!(lines(&actions), ["(VI_1) Entering BACKUP STATE"]);
    assert_eq!(bench.status().fault, None);
    assert_eq!(bench.until_timeout(), Duration::from_nanos(3_414_062_500));
}

#[test]
fn an_instance_that_does_not_track_its_link_lives_on_without_it() {
    let untracked = |vrid| Settings {
        track_link: false,
        vrid,
        ..settings(0, 150)
    };
    // Another instance of the same interface does track it.
    let mut bench = Bench::master(untracked(VRID));
    let tracking = Settings {
        vrid: 52,
        ..settings(0, 150)
    };
    let tracking = bench.router.add(tracking, bench.now).unwrap();
    bench.router.start(tracking, bench.now);
    bench.actions();
    bench.router.handle_link(bench.now, ETH, LinkState::Down);
    assert_eq!(bench.state(), State::Master);
    assert_eq!(bench.status().fault, None);
    let other = bench.router.status(tracking).unwrap();
    assert_eq!(other.state, State::Fault);
    assert_eq!(kinds(&bench.actions()), ["BACKUP -> FAULT"]);
    bench.router.handle_stop(bench.now);
    let actions = bench.actions();
    assert_eq!(
        sent_priorities(&actions),
        [] as [u8; 0],
        "a goodbye on a dead link"
    );

    // A reload that begins to track takes the state of the link into account.
    let mut bench = Bench::master(untracked(VRID));
    bench.router.handle_link(bench.now, ETH, LinkState::Down);
    let update = bench.router.update(bench.id, settings(0, 150), bench.now);
    assert_eq!((update, bench.state()), (Ok(()), State::Fault));
}

#[test]
fn addresses_are_foretold_until_they_are_added() {
    let mut bench = Bench::with_priority(150);
    assert!(!bench.router.is_about_to_add(), "only a removal is queued");
    bench.fire();
    assert!(bench.router.is_about_to_add());
    bench.actions();
    assert!(!bench.router.is_about_to_add());
}

#[test]
fn an_instance_on_a_dead_link_starts_in_fault() {
    let mut router = Router::new();
    let id = router.add(settings(0, 150), Instant::ZERO).unwrap();
    router.handle_link(Instant::ZERO, ETH, LinkState::Down);
    router.start(id, Instant::ZERO);
    assert_eq!(router.status(id).unwrap().state, State::Fault);
}

#[test]
fn losing_the_own_address_is_a_fault_that_is_announced() {
    let mut bench = Bench::master(settings(0, 150));
    bench.router.handle_primary(bench.now, ETH, None);
    let actions = bench.actions();
    assert_eq!(sent_priorities(&actions), [0]);
    assert_eq!(bench.state(), State::Fault);
    assert_eq!(
        bench.status().fault,
        Some(FaultReason::NoAddress("eth0".into()))
    );
    assert_eq!(
        lines(&actions)[1],
        "(VI_1) Entering FAULT STATE (eth0 has no IPv4 address)"
    );
    bench
        .router
        .handle_primary(bench.now, ETH, Some(address(7)));
    assert_eq!(bench.state(), State::Backup);
    bench.fire();
    let Some(Action::Send { packet, .. }) = bench
        .actions()
        .into_iter()
        .find(|action| matches!(action, Action::Send { .. }))
    else {
        panic!("no advert");
    };
    assert_eq!(Datagram::parse(&packet).unwrap().source, address(7));
}

#[test]
fn a_master_whose_address_changes_goes_on_from_the_new_one() {
    let mut bench = Bench::master(settings(0, 150));
    bench
        .router
        .handle_primary(bench.now, ETH, Some(address(7)));
    assert_eq!(
        (bench.state(), bench.status().master),
        (State::Master, Some(address(7)))
    );
    // The tie is now ours, and the old address is a stranger's.
    bench.hear(0, 150);
    assert_eq!(bench.state(), State::Master);
}

#[test]
fn a_configured_source_does_not_follow_the_interface() {
    let mut fixed = settings(0, 150);
    fixed.primary_fixed = true;
    let mut bench = Bench::master(fixed);
    bench.router.handle_primary(bench.now, ETH, None);
    assert_eq!(bench.state(), State::Master);
}

#[test]
fn the_startup_delay_comes_before_everything() {
    let mut late = settings(0, 255);
    late.startup_delay = millis(2500);
    let mut bench = Bench::new(late);
    bench.router.start(bench.id, bench.now);
    assert_eq!(bench.lines(), ["(VI_1) Delaying startup for 2.5 seconds"]);
    assert_eq!(bench.state(), State::Init);
    assert_eq!(
        bench.hear(1, 200),
        Reception::Rejected(RejectReason::NotRunning)
    );
    assert_eq!(bench.until_timeout(), millis(2500));
    bench.fire();
    assert_eq!(bench.state(), State::Master);
}

#[test]
fn weights_move_the_priority_within_bounds_and_the_running_timer_with_it() {
    let mut bench = Bench::with_priority(150);
    bench.wait(secs(1));
    bench.actions();
    bench.router.set_weight(bench.id, -20);
    assert_eq!(
        bench.lines(),
        ["(VI_1) Changing effective priority from 150 to 130"]
    );
    let before = Duration::from_nanos(2_414_062_500);
    assert_eq!(bench.until_timeout(), before + secs(1) * 20 / 256);
    for (weight, priority) in [(-253, 1), (253, 254), (i32::MAX, 254), (0, 150)] {
        bench.router.set_weight(bench.id, weight);
        assert_eq!(bench.status().priority, priority);
    }
    assert_eq!(bench.until_timeout(), before, "there and back");
    assert_eq!(bench.status().base_priority, 150);

    let mut owner = Bench::with_priority(255);
    owner.router.set_weight(owner.id, -100);
    assert_eq!(owner.status().priority, 255);
}

#[test]
fn a_reload_keeps_the_state() {
    let mut bench = Bench::master(settings(0, 150));
    bench.wait(millis(300));
    let mut new = settings(0, 140);
    new.addresses.push(Ipv4Addr::new(198, 51, 100, 12));
    bench
        .router
        .update(bench.id, new.clone(), bench.now)
        .unwrap();
    let actions = bench.actions();
    assert_eq!(kinds(&actions), ["advert"]);
    assert_eq!(sent_priorities(&actions), [140]);
    assert_eq!(bench.until_timeout(), secs(1));
    let moved = Settings { vrid: 9, ..new };
    assert_eq!(
        bench.router.update(bench.id, moved, bench.now),
        Err(SettingsError::Moved)
    );

    let mut backup = Bench::with_priority(100);
    backup.wait(secs(1));
    let slower = Settings {
        advert_interval: secs(2),
        ..settings(0, 200)
    };
    backup.router.update(backup.id, slower, backup.now).unwrap();
    // 3 * 2 s + 56/256 s, of which one second is over.
    assert_eq!(backup.until_timeout(), Duration::from_nanos(5_218_750_000));
}

#[test]
fn a_removed_master_says_goodbye_and_is_gone() {
    let mut bench = Bench::master(settings(0, 150));
    bench.router.remove(bench.id, bench.now);
    assert_eq!(
        kinds(&bench.actions()),
        ["advert", "remove", "MASTER -> INIT"]
    );
    assert!(bench.router.status(bench.id).is_none());
    assert_eq!(
        bench.hear(1, 100),
        Reception::Rejected(RejectReason::UnknownVrid)
    );
    assert!(bench.router.add(settings(0, 150), bench.now).is_ok());
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let mut router = Router::new();
    let good = settings(0, 150);
    assert!(router.add(good.clone(), Instant::ZERO).is_ok());
    let mut refused = |settings: Settings| router.add(settings, Instant::ZERO).unwrap_err();
    assert_eq!(
        refused(good.clone()),
        SettingsError::Duplicate("VI_1".to_owned())
    );
    let other = Settings { vrid: 52, ..good };
    assert_eq!(
        refused(Settings {
            vrid: 0,
            ..other.clone()
        }),
        SettingsError::Vrid
    );
    assert_eq!(
        refused(Settings {
            priority: 0,
            ..other.clone()
        }),
        SettingsError::Priority
    );
    for interval in [Duration::ZERO, millis(1500), secs(256)] {
        let settings = Settings {
            advert_interval: interval,
            ..other.clone()
        };
        assert_eq!(refused(settings), SettingsError::AdvertInterval);
    }
    let never = Settings {
        down_timer_adverts: 0,
        ..other
    };
    assert_eq!(refused(never), SettingsError::DownTimerAdverts);
}
