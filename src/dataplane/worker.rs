//! A worker: takes bursts of frames from its I/O, decides on them, and passes them on.
//!
//! It owns its tables and its frames, allocates nothing after it was made, takes no lock, writes no
//! log, and reads no clock: `now` is handed to [`Worker::turn`] once a burst. Only one burst in
//! [`TIMED_EVERY`] is timed, stage by stage, by the clock that [`Worker::run`] was handed.
//!
//! # What idling costs
//!
//! A worker that has found nothing for a while ([`WorkerOptions::spin`]) sleeps in ppoll(2) until a frame comes,
//! another worker hands one over or `IDLE_WAIT` has passed: 20 wake-ups a second, each with a share of the
//! sweep, are well below 1 % of a core.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    handover::{self, Handover, Purpose},
    io::{BURST, FrameAccount, FrameBuf, PacketIo},
    limit::ReplyLimit,
    offload::HandDown,
    output::{Output, untransmitted},
    parking::Parking,
    ports::orders::{Inbox, Order},
    publish::Reader,
    stages::{self, Metas},
};
use crate::{
    addr::PortId,
    balance::{Balancer, Inherited, Others, PathMtus, Turn},
    stats::{DropReason, Stage, WorkerStats},
    sys::{huge_pages, steer::FastPath},
    time::{Instant, Tick},
};

/// The longest sleep of an idle worker: by then it notices a new table, a stop and expiry.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// How long a sweep takes to pass by every entry. Half of the shortest of the long timeouts would
/// do; at 5 s the counts of connections lag behind by no more than a look at them does.
const SWEEP_TICKS: usize = 5 * Tick::PER_SECOND as usize;

/// Bursts of which one is timed. Five more reads of the clock, some 25 ns each, are 0.002 ns a packet in
/// full bursts and 0.1 ns in bursts of one.
pub const TIMED_EVERY: u32 = 1024;

/// The first burst that is timed; those before find everything cold.
const FIRST_TIMED: u32 = 16;

/// Frames of a burst, at most, that others handed over or that waited here: the rest is for new ones, whatever is sent
/// to a real server that does not answer.
const MOST_BEFORE_NEW: usize = BURST / 4 * 3;

const _: () = assert!(handover::SHARE < MOST_BEFORE_NEW, "what waits has its turn");

/// Buckets that a turn with frames sweeps at most: one for four frames of a full burst.
const SWEEP_BUSY: usize = 16;

/// Buckets that a turn without frames sweeps at most: some ten microseconds.
const SWEEP_IDLE: usize = 1024;

/// Buckets that a turn with frames, and one without, looks at for control while it wants to know about
/// connections. Unlike the sweep it reads the records as well, eight to a bucket.
const LIST_BUSY: usize = 16;
const LIST_IDLE: usize = 128;

/// What a worker is made with.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// Connections and persistence templates that fit in its table. One takes 48 bytes.
    ///
    /// Default 1,048,576: 48 MiB. IPVS has no limit but memory, of which it takes six times as
    /// much for each.
    pub connections: usize,
    /// Seed of the hash of flows, drawn at start.
    pub hash_seed: u64,
    /// How long a worker without frames goes on looking before it sleeps, as a sleep costs the next frame a wake-up:
    /// `spin_us`. Where frames come at shorter intervals than this, the processor is never idle.
    pub spin: Duration,
}

/// A forwarding worker.
#[derive(Debug)]
pub struct Worker<Io: PacketIo> {
    io: Io,
    reader: Reader,
    balancer: Balancer,
    stats: Arc<WorkerStats>,
    frames: Vec<Io::Frame>,
    metas: Box<Metas>,
    parking: Parking<Io::Frame>,
    /// Of the frames that were parked and are in `frames` now: since when.
    waited: Vec<Tick>,
    limit: ReplyLimit,
    paths: PathMtus,
    /// Identification of the last outer IPv4 header.
    ids: u16,
    /// Up to when the sweep has done its share.
    swept_to: Option<Tick>,
    /// Buckets that the sweep owes.
    to_sweep: usize,
    /// Where there are other workers: the way to them and from them.
    handover: Option<Handover<Io::Parted>>,
    /// Where control tells of interfaces, unless those of the start are all.
    inbox: Option<Inbox<Io::Part>>,
    /// Bursts until the next that is timed.
    untimed: u32,
    spin: Duration,
    /// The fast path, where there is one.
    below: Option<HandDown>,
}

/// Told of the end of each stage of a turn.
trait Watch {
    fn lap(&mut self, stage: Stage);
}

/// For turns that are not timed: nothing is left of it.
struct Unwatched;

impl Watch for Unwatched {
    #[inline(always)]
    fn lap(&mut self, _: Stage) {}
}

/// Takes the time of each stage.
struct Stopwatch<C> {
    clock: C,
    last: Instant,
    /// Nanoseconds.
    laps: [u64; Stage::COUNT],
}

impl<C: Fn() -> Instant> Watch for Stopwatch<C> {
    fn lap(&mut self, stage: Stage) {
        let now = (self.clock)();
        self.laps[stage.index()] = now.as_nanos().saturating_sub(self.last.as_nanos());
        self.last = now;
    }
}

impl<Io: PacketIo> Worker<Io> {
    /// A worker on `io`, with empty tables.
    pub fn new(io: Io, reader: Reader, stats: Arc<WorkerStats>, options: WorkerOptions) -> Self {
        let balancer = Balancer::new(options.connections, options.hash_seed);
        Self {
            io,
            reader,
            balancer,
            stats,
            frames: Vec::with_capacity(BURST),
            metas: Box::new(Metas::NONE),
            parking: Parking::new(),
            waited: Vec::with_capacity(BURST),
            limit: ReplyLimit::new(),
            paths: PathMtus::new(),
            ids: 0,
            swept_to: None,
            to_sweep: 0,
            handover: None,
            inbox: None,
            untimed: FIRST_TIMED,
            spin: options.spin,
            below: None,
        }
    }

    /// Has it, the worker with this number, hand established flows down to the fast path.
    #[must_use]
    pub fn with_fast_path(mut self, fast: Arc<FastPath>, number: usize) -> Self {
        let (below, tables) = HandDown::new(fast, number);
        self.balancer.offload_to(&tables);
        self.paths.offload_to(tables);
        self.below = Some(below);
        self
    }

    /// Makes it one of several workers, with its end of what joins them.
    #[must_use]
    pub fn with_handover(mut self, handover: Handover<Io::Parted>) -> Self {
        self.handover = Some(handover);
        self
    }

    /// Has it open and close interfaces as control says.
    #[must_use]
    pub fn with_inbox(mut self, inbox: Inbox<Io::Part>) -> Self {
        self.inbox = Some(inbox);
        self
    }

    /// Has its schedulers see what the other workers have, too.
    #[must_use]
    pub fn with_others(mut self, others: Arc<Others>) -> Self {
        self.balancer.see(others);
        self
    }

    /// Takes over connections that a previous run had; how many. The flows of the others end.
    pub fn inherit(&mut self, all: &[Inherited], now: Instant) -> usize {
        self.reader.refresh();
        let table = self.reader.table();
        let turn = Turn {
            tick: now.tick(),
            timeouts: table.timeouts(),
            stats: &self.stats,
        };
        let mut count = 0;
        for one in all {
            if self.balancer.inherit(one, table, turn) {
                count += 1;
            } else if let (Some(below), Some(flow)) = (&self.below, one.flow) {
                below.end(flow, turn.tick);
            }
        }
        count
    }

    /// Handles the frames that are waiting, at most [`BURST`]. How many there were.
    #[inline]
    pub fn turn(&mut self, now: Instant) -> usize {
        self.pass(now, &mut Unwatched, true)
    }

    /// A turn whose stages are timed by `clock`, if there are frames.
    #[cold]
    pub fn timed_turn(&mut self, now: Instant, clock: impl Fn() -> Instant) -> usize {
        let mut watch = Stopwatch {
            clock,
            last: now,
            laps: [0; Stage::COUNT],
        };
        let frames = self.pass(now, &mut watch, true);
        if frames > 0 {
            for stage in Stage::ALL {
                // Frames that were only sent on for others go by most stages.
                let nanos = watch.laps[stage.index()];
                if nanos > 0 {
                    self.stats.times.record(*stage, nanos / frames as u64);
                }
            }
        }
        frames
    }

    /// `receiving`: frames from the wire, too; otherwise those that other workers handed over only.
    #[inline]
    fn pass(&mut self, now: Instant, watch: &mut impl Watch, receiving: bool) -> usize {
        self.reader.refresh();
        // After the table: what control says before it publishes one is heard before that one is used.
        if self.inbox.as_ref().is_some_and(Inbox::has_work) {
            self.obey();
        }
        let generation = self.reader.table().generation();
        self.io.reclaim();
        let (taken, relayed, mut sent) = match &mut self.handover {
            None => (0, 0, 0),
            Some(handover) => take_over(
                handover,
                &mut self.io,
                &mut self.frames,
                &mut self.metas.hops,
                &self.stats,
            ),
        };
        self.unpark((generation, self.balancer.first_fragments()));
        let old = self.frames.len();
        if receiving {
            self.io.receive(&mut self.frames);
        }
        watch.lap(Stage::Receive);
        let frames = self.frames.len();
        if frames > 0 {
            let table = self.reader.table();
            let turn = Turn {
                tick: now.tick(),
                timeouts: table.timeouts(),
                stats: &self.stats,
            };
            let (balancer, metas) = (&mut self.balancer, &mut *self.metas);
            let bytes = stages::classify_burst(&self.frames, old, metas, balancer, table, turn);
            if let Some(handover) = &self.handover {
                // What waited here, too: a later fragment did so before anybody knew whose it is.
                metas.hops[taken..frames].fill(0);
                stages::assign_burst(frames, metas, table, handover);
            }
            watch.lap(Stage::Classify);
            stages::locate_burst(frames, metas, balancer, turn);
            stages::decide_burst(frames, metas, balancer, table, turn);
            if let Some(handover) = &self.handover {
                stages::pass_on_burst(frames, metas, handover);
            }
            if table.policy().schedule_icmp {
                stages::schedule_errors(frames, metas, balancer, table, turn);
            }
            watch.lap(Stage::Decide);
            let mut output = Output {
                io: &mut self.io,
                reader: &self.reader,
                parking: &mut self.parking,
                limit: &mut self.limit,
                paths: &mut self.paths,
                second: None,
                ids: &mut self.ids,
                turn,
                handover: self.handover.as_mut(),
            };
            let waited = (taken, &*self.waited);
            let out = stages::rewrite_burst(&mut self.frames, waited, metas, &mut output);
            self.waited.clear();
            if let Some(below) = &self.below {
                stages::hand_down_burst(frames, metas, balancer, table, turn, below);
            }
            watch.lap(Stage::Rewrite);
            self.stats.frames_in.add((frames - old) as u64);
            self.stats.bytes_in.add(bytes);
            sent += out;
        }
        if frames + relayed > 0 {
            let refused = self.io.flush();
            self.stats.frames_out.add(sent.saturating_sub(refused));
            self.stats.drops(DropReason::TransmitFull).add(refused);
            if let Some(handover) = &mut self.handover {
                dispatch(handover, &mut self.io, &self.stats);
            }
            watch.lap(Stage::Transmit);
        }
        self.sweep(now.tick(), if frames > 0 { SWEEP_BUSY } else { SWEEP_IDLE });
        if self.reader.is_asked() {
            let buckets = if frames > 0 { LIST_BUSY } else { LIST_IDLE };
            (self.reader).answer(&self.balancer, &self.stats, now, buckets);
        }
        frames + relayed - (old - taken)
    }

    /// A turn, timed when its time has come.
    #[inline]
    fn step(&mut self, now: Instant, clock: &impl Fn() -> Instant) -> usize {
        let frames = if self.untimed == 0 {
            self.timed_turn(now, clock)
        } else {
            self.turn(now)
        };
        if frames > 0 {
            self.untimed = self.untimed.checked_sub(1).unwrap_or(TIMED_EVERY - 1);
        }
        frames
    }

    /// Works until `stop` is set: turn after turn while frames come, sleeping when none do.
    ///
    /// # Errors
    /// What the I/O reported when it was asked to sleep.
    pub fn run(&mut self, clock: impl Fn() -> Instant, stop: &AtomicBool) -> io::Result<()> {
        // Frames end the wait for more, and only they begin another: a sleep that ended for nothing does not.
        let mut empty_since = None;
        while !stop.load(Ordering::Relaxed) {
            let now = clock();
            if self.step(now, &clock) > 0 || self.reader.is_asked() {
                empty_since = None;
            } else if now - *empty_since.get_or_insert(now) < self.spin {
                self.io.nudge();
                std::hint::spin_loop();
            } else if self.to_sweep > 0 {
                // What has come due in one sleep is more than one turn may sweep: asleep again at once, a
                // large table would be swept in minutes.
            } else if let Some(handover) = &self.handover {
                let io = &mut self.io;
                handover.doze(|| io.wait(IDLE_WAIT)).transpose()?;
            } else {
                self.io.wait(IDLE_WAIT)?;
            }
        }
        self.clear_parking();
        Ok(())
    }

    /// A turn without receiving: handles what other workers handed over, once none of them runs any more.
    /// How many frames those were; what this one hands over is for the others to settle.
    pub fn settle(&mut self, now: Instant) -> usize {
        let frames = self.pass(now, &mut Unwatched, false);
        self.clear_parking();
        frames
    }

    /// Has the kernel back the connection tables by huge pages, which saves most of the misses of the TLB
    /// when they are large. Whether it is to; takes up to a second a gigabyte.
    pub fn use_huge_pages(&self) -> bool {
        let (four, six) = (
            self.balancer.conns().parts(),
            self.balancer.conns6().parts(),
        );
        let backed = [
            huge_pages::back(four.0),
            huge_pages::back(four.1),
            huge_pages::back(six.0),
            huge_pages::back(six.1),
        ];
        backed.iter().all(|backed| *backed)
    }

    /// Ends the worker: the tables are gone, the I/O is given back.
    pub fn into_io(mut self) -> Io {
        self.clear_parking();
        self.io
    }

    /// The I/O, for what only its backend knows.
    pub const fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Where every frame is. Conserved between turns; in hand are those that wait for a next hop or a
    /// first fragment.
    pub fn account(&mut self) -> FrameAccount {
        self.io.account()
    }

    /// The tables.
    pub const fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// Opens and closes interfaces as control says.
    #[cold]
    fn obey(&mut self) {
        let Some(mut inbox) = self.inbox.take() else {
            return;
        };
        let mut answered = false;
        while let Some(order) = inbox.next_order() {
            match order {
                Order::Open(part) => {
                    let port = self.io.open(part);
                    inbox.opened(port);
                    answered = true;
                }
                Order::Close(port) => {
                    let part = self.io.close(port);
                    self.drop_parked_of(port);
                    inbox.closed(port, part);
                    answered = true;
                }
                Order::Recover(port) => {
                    self.io.recover(port);
                    inbox.recovered(port);
                }
            }
        }
        // All workers have closed the port by now, so that nothing of it is handed over any more.
        if self.handover.as_ref().is_none_or(Handover::is_drained) {
            while let Some(port) = inbox.left() {
                // What came from another worker since it was closed.
                self.drop_parked_of(port);
                answered = true;
            }
        }
        self.inbox = Some(inbox);
        if answered {
            self.reader.call();
        }
    }

    /// Drops the parked frames that came in on a port that is gone.
    fn drop_parked_of(&mut self, port: PortId) {
        let (io, gone) = (&mut self.io, self.stats.drops(DropReason::PortGone));
        self.parking.remove(
            |frame| frame.ingress() == port,
            |frame| {
                gone.add(1);
                io.release(frame);
            },
        );
    }

    /// Takes parked frames for another look if what they wait for may have come, oldest first.
    fn unpark(&mut self, version: (u64, u64)) {
        if self.parking.is_empty() {
            return;
        }
        while self.frames.len() < MOST_BEFORE_NEW {
            let Some((frame, since)) = self.parking.take(version) else {
                return;
            };
            self.frames.push(frame);
            self.waited.push(since);
        }
    }

    /// Drops the parked frames that have waited long enough.
    fn expire_parking(&mut self, now: Tick) {
        while let Some((frame, reason)) = self.parking.expired(now) {
            self.stats.drops(reason).add(1);
            self.io.release(frame);
        }
    }

    fn clear_parking(&mut self) {
        while let Some((frame, reason)) = self.parking.give_up() {
            self.stats.drops(reason).add(1);
            self.io.release(frame);
        }
    }

    /// Sweeps what has become due, `most` buckets at most in this turn.
    fn sweep(&mut self, tick: Tick, most: usize) {
        let buckets = self.balancer.conns().buckets();
        let passed = tick.since(self.swept_to.replace(tick).unwrap_or(tick)) as usize;
        if passed > 0 {
            if !self.parking.is_empty() {
                self.expire_parking(tick);
            }
            let due = passed.saturating_mul(buckets).div_ceil(SWEEP_TICKS);
            self.to_sweep = (self.to_sweep + due).min(buckets);
        }
        let share = self.to_sweep.min(most);
        if share > 0 {
            self.to_sweep -= share;
            let turn = Turn {
                tick,
                timeouts: self.reader.table().timeouts(),
                stats: &self.stats,
            };
            if self.balancer.sweep(share, turn) {
                self.stats.sweeps.add(1);
            }
        }
    }
}

/// Takes frames over from other workers: those to be decided on go to the burst, the others are transmitted. How
/// many of either, and how many of the latter found room in a transmit ring.
fn take_over<Io: PacketIo>(
    handover: &mut Handover<Io::Parted>,
    io: &mut Io,
    frames: &mut Vec<Io::Frame>,
    hops_of: &mut [u16],
    stats: &WorkerStats,
) -> (usize, usize, u64) {
    let (mut relayed, mut sent) = (0, 0);
    handover.take(handover::SHARE, |handoff| {
        let frame = io.take_over(handoff.parted);
        match (handoff.purpose, hops_of.get_mut(frames.len())) {
            (Purpose::Decide { hops }, Some(place)) => {
                *place = hops;
                frames.push(frame);
            }
            (Purpose::Transmit(port), _) => {
                relayed += 1;
                match io.transmit(port, frame) {
                    Ok(()) => sent += 1,
                    Err(frame) => {
                        stats.drops(untransmitted(io, port)).add(1);
                        io.release(frame);
                    }
                }
            }
            // There are as many as fit in a burst.
            (Purpose::Decide { .. }, None) => io.release(frame),
        }
    });
    stats.taken_over.add((frames.len() + relayed) as u64);
    (frames.len(), relayed, sent)
}

/// Hands over what the burst had for other workers.
fn dispatch<Io: PacketIo>(handover: &mut Handover<Io::Parted>, io: &mut Io, stats: &WorkerStats) {
    let handed = handover.dispatch(|parted| {
        stats.drops(DropReason::HandoverFull).add(1);
        let frame = io.take_over(parted);
        io.release(frame);
    });
    stats.handed_over.add(handed);
}

#[cfg(test)]
#[path = "worker_tests/mod.rs"]
mod tests;
