//! When a MASTER announces its addresses.

use super::*;

/// Fires everything due until `end`, and says at which second after `origin` sets were sent.
fn sets_until(bench: &mut Bench, origin: Instant, end: Duration) -> Vec<(Duration, u8)> {
    let mut sets = Vec::new();
    loop {
        for action in bench.actions() {
            if let Action::GratuitousArp { rounds, .. } = action {
                sets.push((bench.now - origin, rounds));
            }
        }
        if bench
            .router
            .poll_timeout()
            .is_none_or(|next| next > origin + end)
        {
            return sets;
        }
        bench.fire();
    }
}

#[test]
fn a_new_master_announces_twice_and_then_refreshes() {
    let mut chatty = settings(0, 150);
    chatty.garp.master_refresh = secs(20);
    chatty.garp.master_refresh_repeat = 2;
    let mut bench = Bench::new(chatty);
    bench.fire();
    let origin = bench.now;
    let sets = sets_until(&mut bench, origin, secs(50));
    assert_eq!(
        sets,
        [(secs(0), 5), (secs(5), 5), (secs(25), 2), (secs(45), 2)]
    );
    assert_eq!(bench.status().counters.garp_sets, 4);
}

#[test]
fn only_the_set_on_becoming_master_is_news() {
    let mut chatty = settings(0, 150);
    chatty.garp.master_refresh = secs(20);
    let mut bench = Bench::new(chatty.clone());
    bench.fire();
    let news = |bench: &mut Bench| {
        let sets = bench
            .actions()
            .into_iter()
            .filter_map(|action| match action {
                Action::GratuitousArp { first, .. } => Some(first),
                _ => None,
            });
        sets.collect::<Vec<bool>>()
    };
    assert_eq!(news(&mut bench), [true]);
    let mut further = Vec::new();
    for _ in 0..30 {
        bench.fire();
        bench.hear(1, 100);
        further.extend(news(&mut bench));
    }
    assert!(further.len() > 20, "{}", further.len());
    assert!(further.iter().all(|first| !first));
    chatty.priority = 160;
    bench.router.update(bench.id, chatty, bench.now).unwrap();
    assert_eq!(news(&mut bench), [] as [bool; 0], "a reload is none");
}

#[test]
fn a_new_mac_is_announced_by_the_master_alone() {
    let mut bench = Bench::with_priority(150);
    bench.actions();
    bench.router.handle_new_mac(bench.id);
    assert!(bench.actions().is_empty(), "a BACKUP has nothing to say");
    let mut bench = Bench::master(settings(0, 150));
    let before = bench.status().counters.garp_sets;
    bench.router.handle_new_mac(bench.id);
    assert_eq!(kinds(&bench.actions()), ["garp 5"]);
    assert_eq!(bench.status().counters.garp_sets, before + 1);
}

#[test]
fn without_delay_and_refresh_there_is_one_set() {
    let mut terse = settings(0, 150);
    terse.garp.master_delay = Duration::ZERO;
    terse.garp.master_repeat = 1;
    let mut bench = Bench::new(terse);
    bench.fire();
    let origin = bench.now;
    assert_eq!(sets_until(&mut bench, origin, secs(60)), [(secs(0), 1)]);
}

#[test]
fn a_lower_priority_is_answered_by_an_advert_and_two_sets() {
    let mut bench = Bench::master(settings(0, 150));
    bench.wait(millis(100));
    let origin = bench.now;
    bench.hear(1, 100);
    let actions = bench.actions();
    assert_eq!(kinds(&actions), ["advert", "garp 5"]);
    assert_eq!(
        lines(&actions),
        [
            "(VI_1) Received advert from 192.0.2.2 with lower priority 100, ours 150, \
          forcing new election"
        ]
    );
    let sets = sets_until(&mut bench, origin, secs(20));
    // The second set on becoming MASTER, and the second answer.
    assert_eq!(sets, [(millis(4900), 5), (secs(5), 5)]);
}

#[test]
fn lower_prio_no_advert_still_announces() {
    let mut mute = settings(0, 150);
    mute.lower_prio_no_advert = true;
    let mut bench = Bench::master(mute);
    bench.hear(1, 100);
    assert_eq!(kinds(&bench.actions()), ["garp 5"]);
}

#[test]
fn priority_zero_is_answered_at_once_and_restarts_the_interval() {
    let mut bench = Bench::master(settings(0, 150));
    bench.wait(millis(400));
    bench.hear(1, 0);
    let actions = bench.actions();
    assert_eq!(kinds(&actions), ["advert", "garp 5"]);
    assert_eq!(sent_priorities(&actions), [150]);
    assert_eq!(
        lines(&actions),
        ["(VI_1) Master received priority 0 message"]
    );
    assert_eq!(bench.until_timeout(), secs(1));
}

#[test]
fn a_flood_gets_one_set_a_second_few_adverts_and_few_lines() {
    let mut quiet = settings(0, 150);
    quiet.garp.master_delay = Duration::ZERO;
    let mut bench = Bench::master(quiet);
    let origin = bench.now;
    let (mut sets, mut adverts, mut said) = (Vec::new(), 0, 0);
    for packet in 0..20_000_usize {
        // 2,000 a second from 200 invented senders, lower priority and priority 0 in turn.
        bench.now = origin + Duration::from_micros(500) * u32::try_from(packet).unwrap();
        bench.router.handle_timeout(bench.now);
        bench.hear(1 + packet % 200, if packet % 2 == 0 { 0 } else { 100 });
        for action in bench.actions() {
            match action {
                Action::GratuitousArp { .. } => sets.push(bench.now),
                Action::Send { .. } => adverts += 1,
                Action::Log(_) => said += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(bench.state(), State::Master);
    assert!(sets.len() >= 10, "{} sets in 10 s", sets.len());
    for pair in sets.windows(2) {
        assert!(pair[1] - pair[0] >= GARP_ANSWER_SPACING);
    }
    assert!(
        adverts <= 10 * (ANSWERS_PER_INTERVAL + 1) + 1,
        "{adverts} adverts in 10 s"
    );
    assert!(adverts >= 10, "{adverts} adverts in 10 s");
    assert!(said < 20, "{said} lines");
}

#[test]
fn a_set_that_had_to_wait_is_not_lost() {
    let mut bench = Bench::master(settings(0, 150));
    let origin = bench.now;
    bench.hear(1, 100);
    bench.wait(millis(200));
    bench.hear(1, 100);
    bench.wait(millis(200));
    bench.hear(2, 0);
    let sets = sets_until(&mut bench, origin, millis(1200));
    assert_eq!(kinds(&bench.actions()), Vec::<String>::new());
    assert_eq!(sets.last(), Some(&(secs(1), 5)), "{sets:?}");
}

#[test]
fn a_former_master_announces_nothing() {
    let mut chatty = settings(0, 150);
    chatty.garp.master_refresh = secs(1);
    let mut bench = Bench::master(chatty);
    bench.hear(1, 100);
    bench.hear(1, 200);
    bench.actions();
    let origin = bench.now;
    for _ in 0..10 {
        bench.wait(secs(1));
        bench.router.handle_timeout(bench.now);
        bench.hear(1, 200);
    }
    assert_eq!(sets_until(&mut bench, origin, secs(10)), []);
}
