//! When a worker looks at the clock, and what it makes of it.

use super::*;

#[test]
fn one_burst_in_many_is_timed_stage_by_stage() {
    let mut lab = Lab::new(service(vec![real(11)]));
    let (ticks, bursts) = (std::cell::Cell::new(0_u64), 3000);
    // Each look at the clock is 64 ns after the last; nobody else looks than who times and who turns.
    let clock = || {
        ticks.set(ticks.get() + 1);
        Instant::from_nanos(ticks.get() * 64)
    };
    for n in 0..bursts {
        for port in 0..4 {
            let frame = segment(CLIENT, port, Say::Syn);
            assert!(lab.worker.io_mut().inject(INGRESS, &frame));
        }
        let before = ticks.get();
        assert_eq!(lab.worker.step(clock(), &clock), 4);
        let timed = n % TIMED_EVERY == FIRST_TIMED;
        let looks = if timed { 1 + Stage::COUNT as u64 } else { 1 };
        assert_eq!(ticks.get() - before, looks, "burst {n}");
        lab.worker.io_mut().discard();
    }
    for stage in Stage::ALL {
        let buckets = lab.stats.times.buckets(*stage);
        // 64 ns for four packets: 16 ns each.
        assert_eq!(buckets[5], 3, "{}", stage.name());
        assert_eq!(buckets.iter().sum::<u64>(), 3, "{}", stage.name());
    }
    // A turn without frames is not counted.
    lab.worker.timed_turn(clock(), clock);
    assert_eq!(lab.stats.times.buckets(Stage::Receive)[5], 3);
}
