//! When a worker without frames sleeps.

use std::{cell::Cell, sync::atomic::AtomicBool};

use super::*;

/// How long the clock goes on between two looks at it.
const STEP: Duration = Duration::from_micros(1);

/// How often a worker sleeps while a clock goes on by a millisecond, from a frame on.
fn sleeps(spin: Duration) -> u64 {
    let mut publisher = Publisher::new(ServiceTable::empty());
    let options = WorkerOptions {
        connections: 8,
        hash_seed: 7,
        spin,
    };
    let io = MemoryIo::new(1, 1);
    let stats = Arc::new(WorkerStats::new());
    let mut worker = Worker::new(io, publisher.reader(), Arc::clone(&stats), options);
    assert!(worker.io_mut().inject(INGRESS, &[0; 60]));
    let (stop, now) = (AtomicBool::new(false), Cell::new(Instant::ZERO));
    let clock = || {
        now.set(now.get() + STEP);
        let over = now.get() >= Instant::ZERO + Duration::from_millis(1);
        stop.store(over, std::sync::atomic::Ordering::Relaxed);
        now.get()
    };
    worker.run(clock, &stop).unwrap();
    assert_eq!(stats.frames_in.get(), 1);
    worker.io_mut().waits()
}

#[test]
fn a_worker_looks_for_frames_as_long_as_it_is_to_and_then_sleeps() {
    let [at_once, soon, never] = [0, 50, 1_000].map(|micros| sleeps(Duration::from_micros(micros)));
    assert!(at_once > 900, "{at_once}");
    assert_eq!(at_once - soon, 50);
    assert_eq!(never, 0);
}
