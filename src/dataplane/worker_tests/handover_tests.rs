//! Several workers: whose a frame is, and that none is lost on its way.

use proptest::prelude::*;

use super::{
    frames::{framed, udp},
    *,
};
use crate::{
    dataplane::handover::{handovers, ring_size},
    stats::AllStats,
    sys::waker::Waker,
};

/// Frames of each worker.
const FRAMES: usize = 3 * BURST;

/// Workers that take turns when they are told to.
pub(super) struct Crew {
    pub(super) workers: Vec<Worker<MemoryIo>>,
    pub(super) stats: Vec<Arc<WorkerStats>>,
    now: Instant,
    injected: u64,
    frames: usize,
}

impl Crew {
    pub(super) fn new(workers: usize, spec: ServiceSpec) -> Self {
        Self::with_frames(workers, spec, FRAMES)
    }

    fn with_frames(workers: usize, spec: ServiceSpec, frames: usize) -> Self {
        let table = table(1, &[spec], Around::default());
        Self::with_table(workers, table, frames)
    }

    fn with_table(workers: usize, table: ServiceTable, frames: usize) -> Self {
        let mut publisher = Publisher::new(table);
        let wakers: Vec<_> = (0..workers).map(|_| Waker::new().unwrap()).collect();
        let stats: Vec<_> = wakers
            .iter()
            .map(|_| Arc::new(WorkerStats::new()))
            .collect();
        let options = WorkerOptions {
            connections: 1000,
            hash_seed: 7,
            spin: Duration::ZERO,
        };
        let ends = handovers(&wakers, 11).into_iter();
        let workers = ends.zip(&stats).map(|(end, stats)| {
            let io = MemoryIo::new(frames, frames);
            Worker::new(io, publisher.reader(), Arc::clone(stats), options).with_handover(end)
        });
        Self {
            workers: workers.collect(),
            stats,
            now: Instant::from_nanos(1_000_000_000),
            injected: 0,
            frames,
        }
    }

    pub(super) fn inject(&mut self, worker: usize, frame: &[u8]) {
        assert!(self.workers[worker].io_mut().inject(INGRESS, frame));
        self.injected += 1;
    }

    pub(super) fn turn(&mut self, worker: usize) -> usize {
        let frames = self.workers[worker].turn(self.now);
        assert!(self.workers[worker].account().is_conserved());
        frames
    }

    /// Turns until nobody has anything to do.
    pub(super) fn work(&mut self) {
        while (0..self.workers.len()).map(|n| self.turn(n)).sum::<usize>() > 0 {}
    }

    /// What a worker has transmitted.
    fn sent(&mut self, worker: usize) -> Vec<(PortId, Vec<u8>)> {
        let io = self.workers[worker].io_mut();
        std::iter::from_fn(|| io.collect()).collect()
    }

    /// The real server that a frame reaches which came in at `worker`, and who sent it there.
    #[track_caller]
    fn reaches(&mut self, worker: usize, frame: &[u8]) -> Option<(usize, u32)> {
        self.inject(worker, frame);
        self.work();
        let mut sent = (0..self.workers.len()).flat_map(|by| {
            let sent = self.sent(by).into_iter();
            sent.map(move |(port, frame)| (by, port, frame))
                .collect::<Vec<_>>()
        });
        let (by, port, frame) = sent.next()?;
        assert!(sent.next().is_none(), "one frame in, one out");
        (port == EGRESS).then(|| (by, u32::from(frame[5])))
    }

    fn sum(&self, number: impl Fn(&WorkerStats) -> u64) -> u64 {
        AllStats::new(&self.stats, None).sum(number)
    }

    /// Every frame is somewhere, and each that came in went out or was dropped for a reason.
    #[track_caller]
    pub(super) fn assert_settled(&mut self) {
        let account: FrameAccount = self.workers.iter_mut().map(Worker::account).sum();
        let whole = (self.frames * self.workers.len()) as u64;
        assert!(account.is_conserved(), "{account:?}");
        assert_eq!((account.total, account.in_hand), (whole, 0), "{account:?}");
        assert_eq!(self.sum(|s| s.frames_in.get()), self.injected);
        let gone = self.sum(|s| s.frames_out.get()) + self.sum(WorkerStats::dropped);
        assert_eq!(gone, self.injected);
        assert_eq!(
            self.sum(|s| s.handed_over.get()),
            self.sum(|s| s.taken_over.get())
        );
    }
}

#[test]
fn a_persistent_client_is_one_workers_wherever_its_packets_come_in() {
    let reals = (11..18).map(real).collect();
    let mut crew = Crew::new(3, persistent(reals, 24));
    let mut owners = std::collections::HashSet::new();
    for network in 0..30 {
        let mut home = None;
        for n in 0..6_u8 {
            let client = [10, 3, network, n];
            let port = 4000 + u16::from(n);
            for (at, say) in [Say::Syn, Say::Ack, Say::Ack].into_iter().enumerate() {
                let reached = crew.reaches((usize::from(n) + at) % 3, &segment(client, port, say));
                assert_eq!(reached, *home.get_or_insert(reached), "{client:?}");
            }
        }
        owners.insert(home.unwrap().unwrap().0);
    }
    assert_eq!(owners.len(), 3, "all have some");
    assert_eq!(crew.sum(|s| s.templates.get()), 30);
    assert_eq!(crew.sum(|s| s.connections.get()), 180);
    // Two of three packets came in elsewhere.
    assert_eq!(crew.sum(|s| s.handed_over.get()), 360);
    crew.assert_settled();
}

#[test]
fn without_persistence_a_flow_is_its_receivers() {
    let mut crew = Crew::new(2, service(vec![real(11), real(12)]));
    for n in 0..20 {
        let by = usize::from(n % 2_u8);
        let reached = crew.reaches(by, &segment([10, 1, 1, n], 1, Say::Syn));
        assert_eq!(reached.unwrap().0, by);
    }
    assert_eq!(crew.sum(|s| s.handed_over.get()), 0);
    crew.assert_settled();
}

/// A client whose network is worker `owner`'s, found by trying.
fn client_of(owner: usize) -> [u8; 4] {
    let mut crew = Crew::new(2, persistent(vec![real(11)], 32));
    let mut clients = (0..=255).map(|n| [10, 1, 1, n]);
    clients
        .find(|client| {
            let reached = crew.reaches(0, &segment(*client, 1, Say::Syn));
            reached.unwrap().0 == owner
        })
        .unwrap()
}

#[test]
fn what_finds_the_ring_full_is_dropped_and_counted() {
    const MORE: u64 = 100;
    const RING: usize = ring_size(2);
    let client = client_of(1);
    let frames = RING + 200;
    let mut crew = Crew::with_frames(2, persistent(vec![real(11)], 32), frames);
    for n in 0..RING as u64 + MORE {
        let port = u16::try_from(n).unwrap();
        crew.inject(0, &segment(client, port, Say::Syn));
    }
    while crew.turn(0) > 0 {}
    assert_eq!(crew.stats[0].handed_over.get(), RING as u64);
    assert_eq!(crew.stats[0].drops(DropReason::HandoverFull).get(), MORE);
    assert_eq!(crew.stats[1].taken_over.get(), 0);
    crew.work();
    assert_eq!(crew.sent(1).len(), RING);
    crew.assert_settled();
    // There is room again.
    let reached = crew.reaches(0, &segment(client, 1, Say::Ack));
    assert_eq!(reached, Some((1, 11)));
}

#[test]
fn neither_what_is_handed_over_nor_the_own_queue_starves() {
    let (own, others) = (client_of(1), client_of(0));
    assert_ne!(own, others);
    let mut crew = Crew::new(2, persistent(vec![real(11)], 32));
    for port in 0..100 {
        crew.inject(0, &segment(own, port, Say::Syn));
        crew.inject(1, &segment(own, 1000 + port, Say::Syn));
    }
    while crew.turn(0) > 0 {}
    assert_eq!(crew.turn(1), BURST);
    assert_eq!(crew.stats[1].taken_over.get(), BURST as u64 / 2);
    assert_eq!(crew.stats[1].frames_in.get(), BURST as u64 / 2);
    crew.work();
    crew.assert_settled();
}

#[test]
fn an_icmp_error_finds_its_flow_on_any_worker() {
    let mut crew = Crew::new(4, service(vec![real(11), real(12)]));
    for worker in 0..4 {
        let port = 4000 + u16::try_from(worker).unwrap();
        let home = crew
            .reaches(worker, &segment(CLIENT, port, Say::Syn))
            .unwrap();
        for at in 0..4 {
            let reached = crew.reaches(at, &icmp_error(3, port));
            assert_eq!(reached, Some(home), "about {worker}'s, in at {at}");
        }
    }
    // Nobody's: everybody looked once.
    let before = crew.sum(|s| s.handed_over.get());
    assert_eq!(crew.reaches(2, &icmp_error(3, 9)), None);
    assert_eq!(crew.sum(|s| s.handed_over.get()) - before, 3);
    assert_eq!(crew.sum(|s| s.drops(DropReason::IcmpUnknownFlow).get()), 1);
    crew.assert_settled();
}

#[test]
fn an_icmp_error_is_scheduled_when_nobody_knows_its_flow() {
    let mut around = Around::default();
    around.policy.schedule_icmp = true;
    let spec = service(vec![real(11), real(12), real(13)]);
    let table = table(1, &[spec], around);
    let mut crew = Crew::with_table(3, table, FRAMES);
    let homes = [0, 1].map(|worker| {
        let first = segment(CLIENT, 4000 + worker, Say::Syn);
        crew.reaches(worker.into(), &first).unwrap()
    });
    for at in 0..3 {
        for (port, home) in (4000..).zip(homes) {
            assert_eq!(crew.reaches(at, &icmp_error(3, port)), Some(home), "{at}");
        }
    }
    assert!(crew.reaches(1, &icmp_error(3, 9)).is_some());
    crew.assert_settled();
}

#[test]
fn a_fragment_that_overtakes_the_first_goes_to_its_owner_too() {
    let mut whole = udp((CLIENT4, 4000), (VIP4, 80)).with_data(1500);
    whole.id = 7;
    let parts = [0..1200, 1200..1508].map(|part| {
        let packet = whole.fragment(part);
        framed(ROUTER_MAC, OUR_MAC, &[], &packet)
    });
    let mut owners = Vec::new();
    for worker in 0..2 {
        let spec = ServiceSpec {
            matches: vec![address(L4Proto::Udp, VIP4, 80)],
            ..persistent(vec![real(11)], 32)
        };
        let mut crew = Crew::new(2, spec);
        for part in [1, 0] {
            crew.inject(worker, &parts[part]);
            crew.work();
        }
        // What waited is looked at in a turn that has no frame of its own.
        crew.work();
        let sent = [0, 1].map(|by| crew.sent(by).len());
        assert!(sent == [2, 0] || sent == [0, 2], "in at {worker}: {sent:?}");
        owners.push(sent);
        crew.assert_settled();
    }
    assert_eq!(owners[0], owners[1]);
}

#[test]
fn a_flood_of_icmp_errors_does_not_go_round() {
    let mut crew = Crew::new(2, service(vec![real(11)]));
    for _ in 0..BURST {
        crew.inject(0, &icmp_error(3, 9));
    }
    crew.work();
    assert!(crew.sum(|s| s.handed_over.get()) <= 4);
    crew.assert_settled();
}

#[test]
fn an_icmp_error_about_an_owned_flow_goes_to_its_owner_only() {
    let client = client_of(1);
    let mut crew = Crew::new(2, persistent(vec![real(11)], 32));
    assert_eq!(client, client_of(1));
    // CLIENT is whoever's; the error about an unknown flow is looked for in one place.
    assert_eq!(crew.reaches(0, &icmp_error(3, 9)), None);
    assert_eq!(crew.reaches(1, &icmp_error(3, 9)), None);
    assert_eq!(crew.sum(|s| s.handed_over.get()), 1);
    assert_eq!(crew.sum(|s| s.drops(DropReason::IcmpUnknownFlow).get()), 2);
    crew.assert_settled();
}

#[test]
fn a_worker_without_a_queue_there_sends_through_one_that_has() {
    let mut crew = Crew::new(2, service(vec![real(11)]));
    crew.workers[1].io_mut().leave_to(EGRESS, 0);
    let frame = segment(CLIENT, 4000, Say::Syn);
    crew.inject(1, &frame);
    assert_eq!((crew.turn(1), crew.turn(0)), (1, 1));
    assert_eq!(crew.sent(0), [(EGRESS, routed(&frame, 14, 11))]);
    // Who decided has the flow; who sent has counted it out.
    assert_eq!(crew.stats[1].connections.get(), 1);
    assert_eq!(crew.stats[0].frames_out.get(), 1);
    assert_eq!(crew.stats[0].frames_in.get(), 0);
    // An answer leaves by its own.
    crew.inject(1, &segment(CLIENT, 4001, Say::Ack));
    crew.work();
    assert_eq!(crew.sent(1)[0].0, INGRESS);
    crew.assert_settled();
}

#[test]
fn what_is_under_way_at_the_end_is_settled_and_nothing_more_received() {
    let client = client_of(1);
    let mut crew = Crew::new(2, persistent(vec![real(11)], 32));
    crew.workers[1].io_mut().leave_to(EGRESS, 0);
    crew.inject(0, &segment(client, 1, Say::Syn));
    crew.turn(0);
    assert!(crew.workers[1].io_mut().inject(INGRESS, b"not any more"));
    let now = crew.now;
    while crew.workers.iter_mut().any(|worker| worker.settle(now) > 0) {}
    assert_eq!(crew.sent(0).len(), 1);
    crew.assert_settled();
}

#[test]
fn several_threads_lose_no_frame() {
    const EACH: u32 = 20_000;
    let reals = (11..18).map(real).collect();
    let Crew { workers, stats, .. } = Crew::with_frames(2, persistent(reals, 32), 4096);
    let threads: Vec<_> = workers
        .into_iter()
        .map(|mut worker| {
            std::thread::spawn(move || {
                let now = Instant::from_nanos(1_000_000_000);
                let (mut sent, mut left) = (0, EACH);
                let mut idle = 0;
                // Until the other has surely ended, too.
                while left > 0 || idle < 100_000 {
                    let [_, a, b, c] = left.to_be_bytes();
                    let frame = segment([10, a, b, c], 1, Say::Syn);
                    if left > 0 && worker.io_mut().inject(INGRESS, &frame) {
                        left -= 1;
                    }
                    idle = if worker.turn(now) > 0 { 0 } else { idle + 1 };
                    sent += worker.io_mut().discard() as u64;
                    assert!(worker.account().is_conserved());
                }
                (worker, sent)
            })
        })
        .collect();
    let now = Instant::from_nanos(1_000_000_000);
    let (mut workers, sent): (Vec<_>, Vec<_>) = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .unzip();
    let mut sent: u64 = sent.into_iter().sum();
    while workers.iter_mut().any(|worker| worker.settle(now) > 0) {}
    for worker in &mut workers {
        sent += worker.io_mut().discard() as u64;
    }
    let all = AllStats::new(&stats, None);
    assert_eq!(all.sum(|s| s.frames_in.get()), 2 * u64::from(EACH));
    assert_eq!(sent + all.sum(WorkerStats::dropped), 2 * u64::from(EACH));
    assert!(all.sum(|s| s.handed_over.get()) > u64::from(EACH) / 2);
    let account: FrameAccount = workers.iter_mut().map(Worker::account).sum();
    assert_eq!((account.free, account.total), (2 * 4096, 2 * 4096));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_comes_in_where_frames_are_conserved(
        steps in prop::collection::vec((0_usize..3, 0_u8..5, any::<u8>(), 0_u16..4), 0..150),
        lame in prop::option::of(1_usize..3),
    ) {
        let mut crew = Crew::new(3, persistent(vec![real(11), real(12)], 30));
        if let Some(lame) = lame {
            crew.workers[lame].io_mut().leave_to(EGRESS, 0);
        }
        for (worker, what, client, port) in steps {
            let client = [10, 1, 1, client];
            let frame = match what {
                0 => segment(client, port, Say::Syn),
                1 => segment(client, port, Say::Ack),
                2 => icmp_error(3, port),
                3 => vec![client[3]; 40],
                _ => {
                    crew.turn(worker);
                    continue;
                }
            };
            crew.inject(worker, &frame);
        }
        crew.work();
        for worker in 0..3 {
            for (_, frame) in crew.sent(worker) {
                assert_valid(&frame, false);
            }
        }
        crew.assert_settled();
    }
}
